//! Calls in flight that their circuit has an eye on: those that have become slow.
//!
//! A dependency that falls silent fails nobody until the first timeout, and its circuit learns nothing until then. With
//! [`count_in_flight`](super::config::Breaker::count_in_flight) a call that has to wait arms its timer for the slow-call
//! threshold first, and tells the circuit when that has passed. A circuit without this has no lookout, and asking whether
//! it has one is all that its calls pay.

use super::config::Rules;
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Lookout {
    /// From how many nanoseconds on a call in flight counts as slow.
    overdue_from: AtomicU64,
}

impl Default for Lookout {
    fn default() -> Self {
        Self { overdue_from: AtomicU64::new(u64::MAX) }
    }
}

impl Lookout {
    /// Whether rules like these need one.
    pub(super) fn is_wanted(rules: &Rules) -> bool {
        rules.count_in_flight
    }

    /// Needs the circuit's lock: takes rules.
    pub(super) fn publish(&self, rules: &Rules) {
        let threshold = rules.slow_calls.filter(|_| rules.count_in_flight).map(|(_, threshold)| threshold);
        self.overdue_from.store(threshold.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// From how many nanoseconds on a call in flight counts as slow; `u64::MAX` if none does.
    pub(crate) fn overdue_from(&self) -> u64 {
        self.overdue_from.load(Ordering::Relaxed)
    }
}
