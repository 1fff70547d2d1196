//! Readings of ever-growing counters, one per bucket edge.
//!
//! With n buckets the ring holds the readings taken at the start of the last n buckets, the running one included. A
//! rolling sum is "now minus the oldest reading", so it spans between n - 1 and n bucket lengths. Buckets are half-open:
//! an event at an edge belongs to the bucket that begins there.

use std::time::Duration;

use crate::time::Stamp;

#[derive(Debug)]
pub(crate) struct Ring<R> {
    /// Length of a bucket, in nanoseconds.
    width: u64,
    /// Where the running bucket ends.
    edge: Stamp,
    /// Before this moment nothing was seen.
    begun: Stamp,
    /// How many readings there are.
    buckets: u32,
    /// What all of them are while nothing happens: a ring that is idle for a window, or new, takes no more room.
    idle: R,
    /// Empty, or all of them.
    readings: Box<[R]>,
    /// Index of the running bucket's reading; the one after it is the oldest.
    head: u32,
}

/// What a ring keeps: a reading of counters, and of extremes that belong to one bucket.
pub(crate) trait Reading: Clone {
    /// The same counters at the end of a bucket in which nothing happened.
    fn idle(&self) -> Self;
}

impl<R: Reading> Ring<R> {
    /// A ring of `buckets` times `width` nanoseconds that starts at `now`, where the counters read `reading`.
    pub(crate) fn new(now: Stamp, width: u64, buckets: usize, reading: R) -> Self {
        let buckets = u32::try_from(buckets).expect("checked to be far less");
        Self { width, edge: now.plus(width), begun: now, buckets, idle: reading, readings: Box::default(), head: 0 }
    }

    /// Where the running bucket ends: nothing rolls before.
    pub(crate) fn edge(&self) -> Stamp {
        self.edge
    }

    /// Closes the buckets that have ended by `now`; `read` gives the counters of this moment; it is shown the last reading.
    ///
    /// What was seen belongs to the bucket that was running. Those that passed since were idle, or they would have been
    /// noticed; so a gap of any length costs at most one turn of the ring.
    pub(crate) fn roll(&mut self, now: Stamp, read: impl FnOnce(&R) -> R) {
        if now < self.edge {
            return;
        }
        let ended = now.nanos_since(self.edge) / self.width + 1;
        let reading = read(self.reading(0));
        self.edge = self.edge.plus(ended.saturating_mul(self.width));
        if ended >= u64::from(self.buckets) {
            self.settle(reading.idle());
        } else {
            self.push(reading, ended);
        }
    }

    /// The window holds nothing any more.
    fn settle(&mut self, idle: R) {
        (self.idle, self.readings) = (idle, Box::default());
    }

    /// Takes the reading at the end of the running bucket, after which others may have passed.
    fn push(&mut self, mut reading: R, ended: u64) {
        if self.readings.is_empty() {
            self.readings = vec![self.idle.clone(); self.buckets as usize].into();
        }
        for _ in 0..ended {
            self.head = (self.head + 1) % self.buckets;
            let idle = reading.idle();
            self.readings[self.head as usize] = std::mem::replace(&mut reading, idle);
        }
    }

    /// The reading at the start of the running bucket, or of one so many after it in the ring: the next one is the oldest.
    fn reading(&self, after: u32) -> &R {
        self.readings.get(((self.head + after) % self.buckets) as usize).unwrap_or(&self.idle)
    }

    /// The reading at the start of the window.
    pub(crate) fn oldest(&self) -> &R {
        self.reading(1)
    }

    /// How much time the window spans at `now`: between n - 1 and n bucket lengths, less where it has just begun.
    pub(crate) fn span(&self, now: Stamp) -> Duration {
        now.since(self.start().max(self.begun))
    }

    /// When [`Ring::oldest`] was taken.
    pub(crate) fn start(&self) -> Stamp {
        self.edge.minus(self.width.saturating_mul(self.buckets.into()))
    }

    /// The readings at the edges inside the window, from old to new.
    pub(crate) fn inner(&self) -> impl Iterator<Item = &R> {
        (2..=self.buckets).map(|after| self.reading(after))
    }

    /// Forgets everything before this moment.
    pub(crate) fn clear(&mut self, now: Stamp, reading: R) {
        self.begun = now;
        self.settle(reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Reading for u64 {
        fn idle(&self) -> Self {
            *self
        }
    }

    fn at(nanos: u64) -> Stamp {
        Stamp::from_nanos(nanos)
    }

    /// RN6, RN15: reading alone rolls, and one whole window later nothing is left.
    #[test]
    fn a_count_leaves_exactly_one_window_after_its_bucket_began() {
        let mut ring = Ring::new(at(0), 20, 10, 0_u64);
        let mut count = 0;
        for (now, expected) in [(0, 1), (60, 2)] {
            ring.roll(at(now), |_| count);
            count += 1;
            assert_eq!(count - ring.oldest(), expected);
        }
        for (now, expected) in [(199, 2), (200, 1), (259, 1), (260, 0)] {
            ring.roll(at(now), |_| count);
            assert_eq!(count - ring.oldest(), expected, "at {now}");
        }
    }

    /// Bugs 39 and T5: idle gaps around every multiple that could alias a slot.
    #[test]
    fn no_idle_gap_brings_old_counts_back() {
        for gap in [1, 9, 10, 11, 20, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, u64::MAX / 40] {
            let mut ring = Ring::new(at(0), 20, 10, 0_u64);
            ring.roll(at(20 * gap), |_| 7);
            let expected = if gap < 10 { 7 } else { 0 };
            assert_eq!(7 - ring.oldest(), expected, "after {gap} buckets");
            assert!(ring.edge() > at(20 * gap) && ring.edge() <= at(20 * gap + 20));
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_ends_rolls_nothing_twice() {
        let mut ring = Ring::new(at(1_000), 20, 4, 0_u64);
        ring.roll(at(0), |_| unreachable!("nothing has ended"));
        ring.roll(Stamp::NEVER, |_| 5);
        assert_eq!(*ring.oldest(), 5);
        assert_eq!(ring.edge(), Stamp::NEVER);
        ring.roll(Stamp::NEVER, |_| 6);
    }

    #[test]
    fn the_span_is_what_the_window_holds() {
        let mut ring = Ring::new(at(5), 10, 3, 0_u64);
        for (now, expected) in [(5, 0), (12, 7), (34, 29), (35, 20), (44, 29), (45, 20)] {
            ring.roll(at(now), |_| 0);
            assert_eq!(ring.span(at(now)).as_nanos(), expected, "at {now}");
        }
        ring.clear(at(50), 0);
        assert_eq!(ring.span(at(52)).as_nanos(), 2);
    }

    #[test]
    fn inner_readings_come_from_old_to_new_without_the_oldest() {
        let mut ring = Ring::new(at(0), 10, 3, 0_u64);
        for step in 1..=7 {
            ring.roll(at(10 * step), |_| step);
        }
        assert_eq!((*ring.oldest(), ring.start()), (5, at(50)));
        assert_eq!(ring.inner().copied().collect::<Vec<_>>(), [6, 7]);
    }
}
