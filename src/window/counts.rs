//! Outcomes, counted.
//!
//! [`Tally`] is the one lock-free cell: a counter for each outcome that only goes up. A success, the common case, is a
//! single add to an address that depends on nothing, least of all on the time (indexing a bucket by a fresh clock
//! reading would put the clock's latency in front of the add). [`Reading`] is what the ring keeps of it, and [`Counts`]
//! is what people see.

use std::fmt;

use crate::outcome::Outcome;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Lifetime counters, alone on their cache lines: they are what concurrent calls contend for.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Tally {
    /// Successes that count for the circuit: the only counter a healthy call touches.
    good: AtomicU64,
    /// Most calls in flight at once since the last bucket edge.
    peak: AtomicU32,
    /// Errors that count for the circuit; each is counted in `others` as well.
    bad: AtomicU64,
    /// Calls that took too long and count for the circuit; each is counted as a success or an error as well.
    slow: AtomicU64,
    /// Successes that came too late to count for the circuit.
    late_good: AtomicU64,
    /// Every outcome that came too late, whatever it was.
    late: AtomicU64,
    /// All outcomes but success, by discriminant; the first place stays 0.
    others: [AtomicU64; Outcome::COUNT],
}

impl Tally {
    /// Counts a success for the circuit and returns how many there were before it.
    #[inline]
    pub(crate) fn add_good(&self) -> u64 {
        self.good.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn add_bad(&self) {
        self.bad.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn add_slow(&self) {
        self.slow.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts an outcome that has no say in the circuit's state, or whose say is counted apart.
    pub(crate) fn add(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success => &self.late_good,
            other => &self.others[other as usize],
        }
        .fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn add_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Turns a success that was counted for the circuit into a late one. The late count goes first, so that nobody
    /// ever sees a total shrink.
    pub(crate) fn retract_good(&self) {
        self.late_good.fetch_add(1, Ordering::SeqCst);
        self.good.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn good(&self) -> u64 {
        self.good.load(Ordering::SeqCst)
    }

    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Notes that `in_flight` calls run at once.
    #[inline]
    pub(crate) fn note_in_flight(&self, in_flight: u32) {
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    pub(crate) fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The peak so far; the next one starts from nothing. Calls that stay in flight across the edge show again when
    /// they end.
    pub(crate) fn take_peak(&self) -> u32 {
        self.peak.swap(0, Ordering::Relaxed)
    }

    /// All calls of all time, by outcome.
    pub(crate) fn lifetime(&self) -> Counts {
        let mut by_outcome = self.others.each_ref().map(|cell| cell.load(Ordering::SeqCst));
        by_outcome[Outcome::Success as usize] = self.good() + self.late_good.load(Ordering::SeqCst);
        Counts { by_outcome }
    }

    /// The counters as the ring keeps them, with the peak of the bucket that ends here.
    pub(crate) fn read_at_edge(&self) -> Reading {
        Reading { peak: self.take_peak(), ..self.read() }
    }

    /// The counters, the running peak left at 0.
    pub(crate) fn read(&self) -> Reading {
        let cut = |cell: &AtomicU64| cell.load(Ordering::SeqCst) as u32;
        Reading {
            good: cut(&self.good),
            bad: cut(&self.bad),
            slow: cut(&self.slow),
            late_good: cut(&self.late_good),
            others: self.others.each_ref().map(cut),
            peak: 0,
        }
    }
}

/// The counters at one moment.
///
/// Only the low 32 bits are kept, which halves the ring: differences are taken modulo 2^32 and so are exact as long as
/// one window holds fewer than 4,294,967,296 calls of one outcome.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    good: u32,
    bad: u32,
    slow: u32,
    late_good: u32,
    others: [u32; Outcome::COUNT],
    /// Most calls in flight at once in the bucket that ended here.
    pub(crate) peak: u32,
}

impl Reading {
    /// Calls by outcome between `earlier` and this reading.
    pub(crate) fn since(&self, earlier: &Self) -> Counts {
        let mut by_outcome = [0; Outcome::COUNT];
        for (count, (now, then)) in by_outcome.iter_mut().zip(self.others.iter().zip(&earlier.others)) {
            *count = u64::from(now.wrapping_sub(*then));
        }
        by_outcome[Outcome::Success as usize] = u64::from(
            self.good.wrapping_sub(earlier.good).wrapping_add(self.late_good.wrapping_sub(earlier.late_good)),
        );
        Counts { by_outcome }
    }

    /// What counted for the circuit between `earlier` and this reading.
    pub(crate) fn health_since(&self, earlier: &Self) -> Health {
        let bad = u64::from(self.bad.wrapping_sub(earlier.bad));
        Health {
            errors: bad,
            total: bad + u64::from(self.good.wrapping_sub(earlier.good)),
            slow: u64::from(self.slow.wrapping_sub(earlier.slow)),
        }
    }

    /// Follows [`Tally::retract_good`] of the success that found `before` others, if this reading includes it.
    pub(crate) fn retract_good(&mut self, before: u64) {
        if self.good.wrapping_sub(before as u32) as i32 > 0 {
            self.good = self.good.wrapping_sub(1);
            self.late_good = self.late_good.wrapping_add(1);
        }
    }
}

/// What the circuit judges by: calls that count, and how many of them were errors or slow.
///
/// ```
/// # let command = fusebox::Command::builder("docs.health").build()?;
/// let health = command.snapshot().health();
/// assert_eq!((health.errors, health.total, health.error_rate()), (0, 0, None));
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Calls that failed, timed out or panicked.
    pub errors: u64,
    /// Those and the successes.
    pub total: u64,
    /// Those among all of them that took at least the slow-call threshold.
    pub slow: u64,
}

impl Health {
    /// Errors divided by total, in [0, 1]; `None` without calls.
    pub fn error_rate(&self) -> Option<f64> {
        ratio(self.errors, self.total)
    }
}

/// Calls by outcome, over a window or over the life of a command.
///
/// ```
/// # let command = fusebox::Command::builder("docs.counts").build()?;
/// let lifetime = command.snapshot().lifetime();
/// assert_eq!(lifetime.get("timed_out"), 0);
/// assert_eq!(lifetime.of(fusebox::Outcome::TimedOut), 0);
/// assert_eq!(lifetime.error_rate(), None);
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    by_outcome: [u64; Outcome::COUNT],
}

impl Counts {
    /// Calls that ended in `outcome`.
    pub const fn of(&self, outcome: Outcome) -> u64 {
        self.by_outcome[outcome as usize]
    }

    /// Calls that ended in the outcome of this name ([`Outcome::as_str`]); 0 for a name that is none.
    pub fn get(&self, outcome: &str) -> u64 {
        self.iter().find(|(known, _)| known.as_str() == outcome).map_or(0, |(_, count)| count)
    }

    /// Calls that count against the dependency: failure, timed out, panicked.
    pub fn errors(&self) -> u64 {
        self.iter().filter(|(outcome, _)| outcome.is_error()).map(|(_, count)| count).sum()
    }

    /// Calls that enter the error rate: [`Counts::errors`] and successes.
    pub fn total(&self) -> u64 {
        self.errors() + self.of(Outcome::Success)
    }

    /// All calls, refused, ignored and cancelled ones included.
    pub fn calls(&self) -> u64 {
        self.by_outcome.iter().sum()
    }

    /// [`Counts::errors`] divided by [`Counts::total`], in [0, 1]; `None` without calls.
    pub fn error_rate(&self) -> Option<f64> {
        ratio(self.errors(), self.total())
    }

    /// Every outcome with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.by_outcome)
    }

    pub(crate) fn set(&mut self, outcome: Outcome, count: u64) {
        self.by_outcome[outcome as usize] = count;
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|&(_, count)| count > 0)).finish()
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X8, T5: readings that straddle the 32-bit edge still differ by what happened between them.
    #[test]
    fn differences_are_exact_across_the_wrap_of_a_reading() {
        let tally = Tally::default();
        let edge = u64::from(u32::MAX) - 1;
        tally.good.store(edge, Ordering::SeqCst);
        tally.bad.store(edge, Ordering::SeqCst);
        tally.others[Outcome::Failure as usize].store(edge, Ordering::SeqCst);
        let before = tally.read();
        for _ in 0..5 {
            tally.add_good();
            tally.add_bad();
            tally.add(Outcome::Failure);
        }
        let counts = tally.read().since(&before);
        assert_eq!((counts.of(Outcome::Success), counts.errors(), counts.total()), (5, 5, 10));
        assert_eq!(tally.read().health_since(&before), Health { errors: 5, total: 10, slow: 0 });
        assert_eq!(tally.lifetime().of(Outcome::Success), edge + 5);
    }

    #[test]
    fn a_retracted_success_leaves_the_health_and_stays_in_the_counts() {
        let tally = Tally::default();
        let mut before = tally.read();
        let found = tally.add_good();
        let mut after = tally.read();
        tally.retract_good();
        before.retract_good(found);
        after.retract_good(found);
        for reading in [&before, &after] {
            assert_eq!(tally.read().health_since(reading).total, 0);
        }
        assert_eq!(tally.read().since(&before).of(Outcome::Success), 1);
        assert_eq!(tally.read().since(&after).of(Outcome::Success), 0);
    }
}
