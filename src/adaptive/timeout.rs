//! A timeout that follows what calls take.
//!
//! A timeout that is guessed is too long for a fast dependency, so that a hang holds its callers, or too short for a
//! slow one. This one is a percentile of the command's own latencies, times a factor. Calls that time out are among
//! those latencies, with the time that they were given: where too many do, the percentile is the timeout itself, and the
//! factor, which is greater than one, makes it grow again.

use std::time::Duration;

use crate::error::Problems;
use crate::time::saturating_nanos;
use crate::window::latency::Latency;

/// How the timeout follows the command's own latency. Plain data.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`percentile`](Self::percentile) | - | a share of the calls, in (0, 1) |
/// | [`factor`](Self::factor) | 2.0 | a finite factor, greater than 1 |
/// | [`min`](Self::min) | 10 ms | longer than 0, at most `max` |
/// | [`max`](Self::max) | the fixed timeout | longer than 0 |
/// | [`interval`](Self::interval) | 10 s | longer than 0 |
/// | [`warm_up`](Self::warm_up) | 100 | at least 1 call in the latency window |
///
/// Until the window first has that many calls, the fixed [`timeout`](crate::Config::timeout) applies. From then on the
/// timeout is computed anew once in each interval, by a call that ends, and stays what it is while the circuit is not
/// closed or the window has fewer calls. A call keeps the timeout that it began with. The one in force is
/// [`Snapshot::timeout`](crate::Snapshot::timeout). Needs a [latency window](crate::Config::latency_window), whose
/// percentiles are off by 6.25 % at most.
///
/// ```
/// use std::time::Duration;
/// use fusebox::{AdaptiveTimeout, Command};
///
/// let quotes = Command::builder("quotes")
///     .timeout(Duration::from_secs(1)) // to begin with, and at most
///     .adaptive_timeout(AdaptiveTimeout::percentile(0.99).factor(1.5).min(Duration::from_millis(20)))
///     .build()?;
/// assert_eq!(quotes.snapshot().timeout(), Some(Duration::from_secs(1)));
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "an adaptive timeout does nothing until a command is built with it"]
#[non_exhaustive]
pub struct AdaptiveTimeout {
    /// The share of the calls whose latency counts.
    pub percentile: f64,
    /// How many times that latency a call may take.
    pub factor: f64,
    /// It is never shorter than this.
    pub min: Duration,
    /// It is never longer than this; `None` is the fixed timeout.
    pub max: Option<Duration>,
    /// How often it may change.
    pub interval: Duration,
    /// Calls that the latency window must hold.
    pub warm_up: u32,
}

impl AdaptiveTimeout {
    /// Goes by the latency that a share `p` of the calls did not exceed, in (0, 1).
    pub const fn percentile(p: f64) -> Self {
        let (min, interval) = (Duration::from_millis(10), Duration::from_secs(10));
        Self { percentile: p, factor: 2.0, min, max: None, interval, warm_up: 100 }
    }

    /// How many times that latency a call may take: finite, and greater than 1, or a timeout that is too short could
    /// never grow.
    pub const fn factor(self, factor: f64) -> Self {
        Self { factor, ..self }
    }

    /// It is never shorter than this, which is longer than 0.
    pub const fn min(self, shortest: Duration) -> Self {
        Self { min: shortest, ..self }
    }

    /// It is never longer than this, which is longer than 0, and at least `min`.
    pub const fn max(self, longest: Duration) -> Self {
        Self { max: Some(longest), ..self }
    }

    /// How often it may change, longer than 0.
    pub const fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// How many calls the latency window must hold, at least 1.
    pub const fn warm_up(self, calls: u32) -> Self {
        Self { warm_up: calls, ..self }
    }

    /// `fixed` is the timeout to begin with, and `deadline` is what no call goes beyond, in nanoseconds.
    pub(crate) fn check(self, problems: &mut Problems, fixed: u64, deadline: u64, has_latency: bool) -> Tuning {
        let (p, factor) = (self.percentile, self.factor);
        problems.require(p > 0.0 && p < 1.0, "adaptive_timeout.percentile", || p, "a share in (0, 1)");
        problems.require(
            factor > 1.0 && factor.is_finite(),
            "adaptive_timeout.factor",
            || factor,
            "a finite factor greater than 1",
        );
        let min = problems.span("adaptive_timeout.min", self.min);
        let max = self.max.map(|longest| problems.span("adaptive_timeout.max", longest));
        problems.require(
            max.is_none_or(|max| max == 0 || max >= min),
            "adaptive_timeout.max",
            || format!("{:?}", self.max.unwrap_or_default()),
            "at least adaptive_timeout.min",
        );
        problems.at_least_one("adaptive_timeout.warm_up", self.warm_up);
        problems.relate(has_latency, "adaptive_timeout", || "on", "off without a latency window");
        let interval = problems.span("adaptive_timeout.interval", self.interval);
        let max = max.unwrap_or(fixed).max(min).min(deadline.max(1));
        Tuning { percentile: p, factor, min: min.min(max), max, interval, warm_up: self.warm_up }
    }
}

/// The checked form of an [`AdaptiveTimeout`], in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tuning {
    percentile: f64,
    factor: f64,
    min: u64,
    max: u64,
    pub(crate) interval: u64,
    warm_up: u32,
}

impl Tuning {
    /// What these latencies make of it; `None` if they are too few.
    pub(crate) fn timeout(&self, latency: &Latency) -> Option<u64> {
        let latency = Some(latency).filter(|latency| latency.count() >= u64::from(self.warm_up))?;
        let found = saturating_nanos(latency.percentile(self.percentile)?);
        // A product that is too large saturates in the conversion.
        Some(self.hold((found as f64 * self.factor) as u64))
    }

    pub(crate) fn hold(&self, timeout: u64) -> u64 {
        timeout.clamp(self.min, self.max)
    }
}
