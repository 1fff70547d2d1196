//! What a call takes on when it has to wait, in one word that is zero for all that never do.

use crate::breaker::lookout::Seat;

/// What the timer of a call is set for, or has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The timeout.
    Timeout,
    /// The moment from which on the call is slow.
    Slow,
    /// That has passed, and the circuit counts the call; then it is set for the timeout.
    Overdue,
    /// That has passed, and concerns the circuit no more; likewise.
    Passed,
    /// None: the circuit has opened, and the call must end.
    Aborted,
}

/// A seat in the low bits, where its task's waker is; above it the alarm, and whether it is the oldest one in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(u32);

impl Marks {
    pub(super) const NONE: Self = Self(0);

    const SEAT: u32 = Seat::MASK;
    const ALARM: u32 = Self::SEAT.count_ones();
    const ELDEST: u32 = 1 << 31;

    pub(super) const fn is_eldest(self) -> bool {
        self.0 & Self::ELDEST != 0
    }

    pub(super) const fn set_eldest(&mut self) {
        self.0 |= Self::ELDEST;
    }

    pub(super) const fn alarm(self) -> Alarm {
        match (self.0 & !Self::ELDEST) >> Self::ALARM {
            0 => Alarm::Timeout,
            1 => Alarm::Slow,
            2 => Alarm::Overdue,
            3 => Alarm::Passed,
            _ => Alarm::Aborted,
        }
    }

    pub(super) const fn set_alarm(&mut self, alarm: Alarm) {
        self.0 = self.0 & (Self::ELDEST | Self::SEAT) | (alarm as u32) << Self::ALARM;
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
                for eldest in [false, true] {
                    let mut marks = Marks::NONE;
                    marks.set_alarm(Alarm::Aborted);
                    marks.set_seat(Seat::from_bits(5));
                    if eldest {
                        marks.set_eldest();
                    }
                    marks.set_alarm(alarm);
                    marks.set_seat(seat);
                    assert_eq!((marks.alarm(), marks.seat(), marks.is_eldest()), (alarm, seat, eldest));
                    assert_eq!(marks == Marks::NONE, (alarm, seat, eldest) == (Alarm::Timeout, None, false));
                }
            }
        }
    }
}
