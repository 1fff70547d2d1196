//! The last n calls, exactly.

use super::counts::{Counts, Health};
use crate::outcome::Outcome;

/// A ring of the last n calls that count, with their sums kept up to date.
#[derive(Debug)]
pub(crate) struct Recent {
    calls: Box<[Call]>,
    /// Where the next call goes; also how many there are while the ring fills.
    next: usize,
    full: bool,
    counts: Counts,
    slow: u64,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    outcome: Outcome,
    slow: bool,
}

impl Recent {
    pub(crate) fn new(size: usize) -> Self {
        let empty = Call { outcome: Outcome::Success, slow: false };
        Self { calls: vec![empty; size].into(), next: 0, full: false, counts: Counts::default(), slow: 0 }
    }

    /// Adds a call; the oldest one leaves when there are n already.
    pub(crate) fn push(&mut self, outcome: Outcome, slow: bool) {
        let call = Call { outcome, slow };
        let oldest = std::mem::replace(&mut self.calls[self.next], call);
        if self.full {
            self.counts.set(oldest.outcome, self.counts.of(oldest.outcome) - 1);
            self.slow -= u64::from(oldest.slow);
        }
        self.counts.set(outcome, self.counts.of(outcome) + 1);
        self.slow += u64::from(slow);
        self.next = (self.next + 1) % self.calls.len();
        self.full |= self.next == 0;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.calls.len());
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// All that is in the ring counts for the circuit: what does not is never pushed.
    pub(crate) fn health(&self) -> Health {
        let total = if self.full { self.calls.len() } else { self.next } as u64;
        Health { errors: total - self.counts.of(Outcome::Success), total, slow: self.slow, overdue: 0 }
    }

    /// As [`Recent::health`] if so many calls more had come, slow ones that are in flight still: the oldest make room.
    pub(crate) fn health_with(&self, overdue: u64) -> Health {
        let (mut health, size) = (self.health(), self.calls.len() as u64);
        let overdue = overdue.min(size);
        let first = if self.full { self.next } else { 0 };
        for at in 0..(health.total + overdue).saturating_sub(size) as usize {
            let gone = self.calls[(first + at) % self.calls.len()];
            health.total -= 1;
            health.errors -= u64::from(gone.outcome != Outcome::Success);
            health.slow -= u64::from(gone.slow);
        }
        health.with_overdue(overdue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F7: after any number of calls the window holds the last n and nothing else.
    #[test]
    fn holds_exactly_the_last_n() {
        let mut recent = Recent::new(10);
        let outcomes = [Outcome::Success, Outcome::Failure, Outcome::TimedOut];
        let history: Vec<_> = (0..37).map(|i| (outcomes[i * i % 3], i % 4 == 0)).collect();
        for (n, &(outcome, slow)) in history.iter().enumerate() {
            recent.push(outcome, slow);
            let last = &history[(n + 1).saturating_sub(10)..=n];
            let errors = last.iter().filter(|(outcome, _)| outcome.is_error()).count() as u64;
            let slow = last.iter().filter(|(_, slow)| *slow).count() as u64;
            assert_eq!(recent.health(), Health { errors, total: last.len() as u64, slow, overdue: 0 });
            assert_eq!(recent.counts().errors(), errors);
        }
        for overdue in 0..12 {
            let kept = &history[37 - 10_usize.saturating_sub(overdue)..];
            let errors = kept.iter().filter(|(outcome, _)| outcome.is_error()).count() as u64;
            let overdue = overdue.min(10) as u64;
            let slow = kept.iter().filter(|(_, slow)| *slow).count() as u64 + overdue;
            assert_eq!(recent.health_with(overdue), Health { errors, total: 10, slow, overdue });
        }
        recent.clear();
        assert_eq!(recent.health(), Health::default());
        recent.push(Outcome::Failure, false);
        assert_eq!(recent.health_with(2), Health { errors: 1, total: 3, slow: 2, overdue: 2 });
    }
}
