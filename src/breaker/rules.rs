//! The checked form of a breaker's settings: what decides, in nanoseconds and whole numbers.

use std::sync::Arc;
use std::time::Duration;

use super::confidence::Confidence;
use super::config::{Breaker, Window};
use super::ramp::Steps;
use super::ratio::Ratio;
use crate::error::Problems;
use crate::time::saturating_nanos;

/// The checked form of a [`Breaker`], in nanoseconds and whole numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) error_rate: Option<Ratio>,
    pub(crate) min_calls: u32,
    pub(crate) confidence: Option<Confidence>,
    pub(crate) span: Span,
    pub(crate) open_for: u64,
    pub(crate) growth: f64,
    pub(crate) max_open: u64,
    pub(crate) jitter: f64,
    pub(crate) probes: u32,
    pub(crate) ramp: Option<Arc<Steps>>,
    pub(crate) consecutive_failures: Option<u32>,
    pub(crate) slow_calls: Option<(Ratio, u64)>,
    pub(crate) count_in_flight: bool,
    pub(crate) abort_on_trip: bool,
    pub(crate) count_rejections: bool,
    /// `u64::MAX` when a cancelled call never counts.
    pub(crate) cancelled_after: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Time { width: u64, buckets: usize },
    Calls(usize),
}

/// A window is memory: at most half a megabyte of buckets, or 4 MB of calls.
const MAX_BUCKETS: u32 = 10_000;
const MAX_CALLS: u32 = 1_000_000;

impl Breaker {
    pub(crate) fn check(&self, problems: &mut Problems) -> Rules {
        let error_rate = self.error_rate.map(|rate| Ratio::check(problems, "breaker.error_rate", rate));
        let open_for = problems.span("breaker.open_for", self.open_for);
        let default_max = saturating_nanos(Duration::from_secs(60)).max(open_for);
        let max_open = self.max_open.map_or(default_max, |max| problems.span("breaker.max_open", max));
        problems.relate(
            max_open >= open_for || max_open == 0,
            "breaker.max_open",
            || format!("{:?}", self.max_open.unwrap_or_default()),
            "at least breaker.open_for",
        );
        problems.require(
            self.growth >= 1.0 && self.growth.is_finite(),
            "breaker.growth",
            || self.growth,
            "a finite factor of at least 1",
        );
        problems.require((0.0..1.0).contains(&self.jitter), "breaker.jitter", || self.jitter, "a share in [0, 1)");
        problems.at_least_one("breaker.min_calls", self.min_calls);
        problems.at_least_one("breaker.probes", self.probes);
        if let Some(failures) = self.consecutive_failures {
            problems.at_least_one("breaker.consecutive_failures", failures);
        }
        let span = match self.window {
            Window::Time { length, buckets } => time_window(problems, length, buckets),
            Window::Calls(calls) => {
                let fits = (1..=MAX_CALLS).contains(&calls);
                problems.require(fits, "breaker.last_calls", || calls, "1 to 1000000 calls");
                Span::Calls(calls.min(MAX_CALLS) as usize)
            }
        };
        problems.relate(
            !self.count_in_flight || self.slow_calls.is_some(),
            "breaker.count_in_flight",
            || self.count_in_flight,
            "only with breaker.slow_calls",
        );
        let reachable = if let Window::Calls(calls) = self.window { calls } else { u32::MAX };
        Rules {
            error_rate,
            min_calls: self.min_calls.min(reachable),
            confidence: self.confidence.map(|level| Confidence::check(problems, level)),
            span,
            open_for,
            growth: self.growth,
            max_open,
            jitter: self.jitter,
            probes: self.probes,
            ramp: self.ramp.as_ref().map(|ramp| Arc::new(ramp.check(problems))),
            consecutive_failures: self.consecutive_failures,
            slow_calls: self.slow_calls.map(|(rate, threshold)| {
                let rate = Ratio::check(problems, "breaker.slow_calls.rate", rate);
                (rate, problems.span("breaker.slow_calls.threshold", threshold))
            }),
            count_in_flight: self.count_in_flight,
            abort_on_trip: self.abort_on_trip,
            count_rejections: self.count_rejections,
            cancelled_after: self
                .count_cancelled_after
                .map_or(u64::MAX, |after| problems.span("breaker.count_cancelled_after", after)),
        }
    }
}

fn time_window(problems: &mut Problems, length: Duration, buckets: u32) -> Span {
    const MILLI: u64 = 1_000_000;
    problems.require((1..=MAX_BUCKETS).contains(&buckets), "breaker.buckets", || buckets, "1 to 10000");
    let nanos = problems.span("breaker.window", length);
    let width = nanos / u64::from(buckets.max(1));
    problems.relate(
        nanos == 0 || (nanos % (u64::from(buckets.max(1)) * MILLI) == 0),
        "breaker.window",
        || format!("{length:?} in {buckets} buckets"),
        "a length that divides into buckets of whole milliseconds",
    );
    Span::Time { width: width.max(1), buckets: buckets.max(1) as usize }
}
