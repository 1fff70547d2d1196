//! The rules that open a closed circuit. Each is independent, and any of them trips.

use std::time::Duration;

use super::config::Rules;
use super::machine::Judged;
use super::ratio::Ratio;
use super::state::Cause;
use crate::window::counts::Health;

/// The first rule that `health` and a run of `streak` errors break.
pub(crate) fn tripped(rules: &Rules, health: Health, streak: u32) -> Option<Cause> {
    if let Some(failures) = rules.consecutive_failures.filter(|&limit| streak >= limit) {
        return Some(Cause::ConsecutiveFailures { failures: failures.max(streak) });
    }
    let reached = |rate: &Ratio, part, total| match rules.confidence {
        _ if total < u64::from(rules.min_calls) => false,
        None => rate.reached(part, total),
        Some(confidence) => confidence.reached(*rate, part, total),
    };
    // What is in flight is slow for certain, and may still succeed: many calls that hang must not hide those that fail.
    if let Some(rate) = rules.error_rate.filter(|rate| reached(rate, health.errors, health.ended())) {
        return Some(Cause::ErrorRate { threshold: rate.as_f64() });
    }
    let (rate, _) = rules.slow_calls.filter(|(rate, _)| reached(rate, health.slow, health.total))?;
    Some(Cause::SlowCalls { threshold: rate.as_f64() })
}

/// What probes have shown so far, out of the `n` that decide.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) ended: u32,
    pub(crate) failed: u32,
    pub(crate) slow: u32,
}

impl Evidence {
    pub(crate) fn add(&mut self, result: Judged) {
        self.ended += 1;
        self.failed += u32::from(result.failed);
        self.slow += u32::from(result.slow);
    }

    /// With so many more that have not ended and are slow already.
    pub(crate) fn with_overdue(self, overdue: u32) -> Self {
        Self { ended: self.ended.saturating_add(overdue), slow: self.slow.saturating_add(overdue), ..self }
    }
}

/// Whether the evidence decides: `Some(true)` closes, `Some(false)` reopens.
pub(crate) fn verdict(rules: &Rules, evidence: Evidence) -> Option<bool> {
    let open = rules.probes.saturating_sub(evidence.ended);
    // The rate that reopens, the probes that speak for it, and those that still may.
    let judge = |rate: Ratio, against: u32| {
        let reached = |part: u32| rate.reached(part.into(), rules.probes.into());
        if reached(against) {
            Some(false)
        } else if !reached(against.saturating_add(open)) {
            Some(true)
        } else {
            None
        }
    };
    let errors = judge(rules.error_rate.unwrap_or(Ratio::LEAST), evidence.failed);
    let slow = rules.slow_calls.map_or(Some(true), |(rate, _)| judge(rate, evidence.slow));
    match (errors, slow) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// The wait after `level` reopenings in a row, before jitter, in nanoseconds.
pub(crate) fn base_wait(rules: &Rules, level: u32) -> u64 {
    // `as` saturates: an infinite product is the longest wait.
    let grown = rules.open_for as f64 * rules.growth.powi(i32::try_from(level).unwrap_or(i32::MAX));
    (grown as u64).clamp(rules.open_for, rules.max_open)
}

/// That wait with jitter; `draw` is uniform in [0, 1). The share is taken of a range that ends at the longest wait,
/// so that waits which have grown to it still differ.
pub(crate) fn jittered(rules: &Rules, base: u64, draw: f64) -> u64 {
    let spread = base as f64 * rules.jitter;
    let from = base as f64 - spread;
    let to = (base as f64 + spread).min(rules.max_open as f64);
    if rules.jitter == 0.0 { base } else { ((from + (to - from) * draw) as u64).max(1) }
}

/// How many of `level` reopenings are forgiven after the circuit has stayed closed for `healthy` nanoseconds: each one
/// costs as long as its wait was.
pub(crate) fn forgiven(rules: &Rules, level: u32, mut healthy: u64) -> u32 {
    let mut left = level;
    while left > 0 {
        let Some(rest) = healthy.checked_sub(base_wait(rules, left)) else { break };
        (healthy, left) = (rest, left - 1);
    }
    level - left
}

pub(crate) fn as_wait(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::config::Breaker;
    use crate::error::Problems;

    fn rules(breaker: Breaker) -> Rules {
        let mut problems = Problems::default();
        let rules = breaker.check(&mut problems);
        problems.finish().expect("a good configuration");
        rules
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn waits_grow_to_the_longest_and_jitter_stays_inside() {
        let rules = rules(Breaker::default());
        let bases: Vec<_> = (0..6).map(|level| base_wait(&rules, level) / SECOND).collect();
        assert_eq!(bases, [5, 10, 20, 40, 60, 60]);
        assert_eq!(base_wait(&rules, u32::MAX), 60 * SECOND);
        assert_eq!((jittered(&rules, 5 * SECOND, 0.0), jittered(&rules, 5 * SECOND, 0.5)), (4 * SECOND, 5 * SECOND));
        assert!(jittered(&rules, 5 * SECOND, 0.999_999) < 6 * SECOND);
        assert!(jittered(&rules, 60 * SECOND, 0.999_999) <= 60 * SECOND);
        assert!(jittered(&rules, 60 * SECOND, 0.5) < 60 * SECOND);
    }

    #[test]
    fn each_reopening_is_forgiven_after_its_own_wait() {
        let rules = rules(Breaker::default());
        for (healthy, expected) in [(0, 0), (39, 0), (40, 1), (59, 1), (60, 2), (69, 2), (70, 3), (1_000, 3)] {
            assert_eq!(forgiven(&rules, 3, healthy * SECOND), expected, "after {healthy} s");
        }
    }

    /// Every sequence of passes and failures is decided at the first probe that settles it, and never later than n.
    #[test]
    fn a_verdict_comes_as_soon_as_it_is_certain() {
        for probes in 1..=6_u32 {
            for percent in [1, 34, 50, 51, 100] {
                let rules = rules(Breaker::error_rate(f64::from(percent) / 100.0).probes(probes));
                let reopens = |failed: u32| failed * 100 >= percent * probes;
                for script in 0..1_u32 << probes {
                    let mut evidence = Evidence::default();
                    for probe in 0..probes {
                        evidence.ended += 1;
                        evidence.failed += script >> probe & 1;
                        let left = probes - evidence.ended;
                        let expected = match (reopens(evidence.failed), reopens(evidence.failed + left)) {
                            (true, _) => Some(false),
                            (false, false) => Some(true),
                            (false, true) => None,
                        };
                        assert_eq!(verdict(&rules, evidence), expected);
                        if expected.is_some() {
                            break;
                        }
                        assert!(left > 0, "undecided after the last probe");
                    }
                }
            }
        }
    }
}
