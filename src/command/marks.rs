//! What a call takes on that is not plain, or that has to wait, in one word that is zero for all others.

use crate::breaker::lookout::Seat;

/// What the timer of a call is set for, or has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The timeout.
    Timeout = 0,
    /// The moment from which on the call is slow.
    Slow = 1,
    /// That has passed, and the circuit counts the call; then it is set for the timeout.
    Overdue = 4,
    /// That has passed, and concerns the circuit no more; likewise.
    Passed = 2,
    /// None: the circuit has opened, and the call must end.
    Aborted = 3,
}

/// A seat in the low bits, where its task's waker is; above it the alarm, whether its end is to be learnt from, and
/// whether it is the oldest one in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(u32);

impl Marks {
    pub(super) const NONE: Self = Self(0);

    const SEAT: u32 = Seat::MASK;
    const ALARM: u32 = Self::SEAT.count_ones();
    const LESSON: u32 = 1 << 30;
    const ELDEST: u32 = 1 << 31;
    const FLAGS: u32 = Self::LESSON | Self::ELDEST;

    /// Of a call whose end says something to limits or timeouts that move, if it `is_lesson`.
    pub(super) const fn lesson(is_lesson: bool) -> Self {
        Self(if is_lesson { Self::LESSON } else { 0 })
    }

    pub(super) const fn is_lesson(self) -> bool {
        self.0 & Self::LESSON != 0
    }

    pub(super) const fn is_eldest(self) -> bool {
        self.0 & Self::ELDEST != 0
    }

    pub(super) const fn set_eldest(&mut self) {
        self.0 |= Self::ELDEST;
    }

    pub(super) const fn alarm(self) -> Alarm {
        match (self.0 & !Self::FLAGS) >> Self::ALARM {
            0 => Alarm::Timeout,
            1 => Alarm::Slow,
            2 => Alarm::Passed,
            3 => Alarm::Aborted,
            _ => Alarm::Overdue,
        }
    }

    /// Whether that is [`Alarm::Overdue`], by a look at one bit: every call asks when it ends.
    pub(super) const fn is_overdue(self) -> bool {
        self.0 & (Alarm::Overdue as u32) << Self::ALARM != 0
    }

    pub(super) const fn set_alarm(&mut self, alarm: Alarm) {
        self.0 = self.0 & (Self::FLAGS | Self::SEAT) | (alarm as u32) << Self::ALARM;
    }

    pub(super) fn seat(self) -> Option<Seat> {
        Seat::from_bits(self.0 & Self::SEAT)
    }

    pub(super) fn set_seat(&mut self, seat: Option<Seat>) {
        self.0 = self.0 & !Self::SEAT | seat.map_or(0, Seat::bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_kept_whatever_the_others_are() {
        let alarms = [Alarm::Timeout, Alarm::Slow, Alarm::Overdue, Alarm::Passed, Alarm::Aborted];
        for seat in [None, Seat::from_bits(1), Seat::from_bits(Seat::MASK)] {
            for alarm in alarms {
                for (eldest, lesson) in [(false, false), (false, true), (true, false), (true, true)] {
                    let mut marks = Marks::lesson(lesson);
                    marks.set_alarm(Alarm::Aborted);
                    marks.set_seat(Seat::from_bits(5));
                    if eldest {
                        marks.set_eldest();
                    }
                    marks.set_alarm(alarm);
                    marks.set_seat(seat);
                    assert_eq!((marks.alarm(), marks.seat()), (alarm, seat));
                    assert_eq!(marks.is_overdue(), alarm == Alarm::Overdue);
                    assert_eq!((marks.is_eldest(), marks.is_lesson()), (eldest, lesson));
                    let plain = (alarm, seat, eldest, lesson) == (Alarm::Timeout, None, false, false);
                    assert_eq!(marks == Marks::NONE, plain);
                }
            }
        }
    }
}
