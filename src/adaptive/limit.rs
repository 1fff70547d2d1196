//! What a user says about a concurrency limit that follows the dependency.

use std::time::Duration;

use crate::bulkhead;
use crate::error::Problems;

/// How the limit on calls in flight follows the dependency. Plain data.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`vegas`](Self::vegas), [`gradient`](Self::gradient), [`aimd`](Self::aimd) | - | see [`Algorithm`] |
/// | [`min`](Self::min) | 4 | 1 to 16,777,214 calls, at most `max` |
/// | [`max`](Self::max) | 200 | 1 to 16,777,214 calls |
/// | [`interval`](Self::interval) | 250 ms | longer than 0 |
///
/// It starts at the limit of the [`Bulkhead`](crate::Bulkhead), or at the nearer bound, and moves once in each interval
/// in which enough calls were seen: ten at least, for as long as two of them take. Of what they took the slowest is left
/// out, so that one slow call moves nothing. It grows only while it is used, by half at least, and nothing changes it
/// while there are no calls. Calls that were admitted before it was last lowered are left out too: they tell of a queue
/// that is gone.
///
/// Successes and timeouts are measured. A call that fails was perhaps never worked on, so it has no say in
/// [`vegas`](Self::vegas) and [`gradient`](Self::gradient); ignored and cancelled calls have none at all.
///
/// ```
/// use fusebox::{AdaptiveLimit, Command};
///
/// let search = Command::builder("search")
///     .max_concurrent(20) // to begin with
///     .adaptive_limit(AdaptiveLimit::vegas().min(4).max(200))
///     .build()?;
/// assert_eq!(search.snapshot().limit(), Some(20));
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an adaptive limit does nothing until a command is built with it"]
#[non_exhaustive]
pub struct AdaptiveLimit {
    /// What it goes by.
    pub algorithm: Algorithm,
    /// It never falls below this.
    pub min: usize,
    /// It never rises above this.
    pub max: usize,
    /// How often it may move.
    pub interval: Duration,
}

/// What an adaptive limit goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// The calls that seem to queue in the dependency, by how much longer calls take than without a queue: TCP Vegas
    /// (Brakmo and Peterson, 1995), with the thresholds of Netflix's concurrency-limits, 3 and 6 times log10(limit).
    /// Finds the capacity closely, in small steps.
    Vegas,
    /// The ratio of what calls take without a queue to what they take now, allowing for half as much again: Gradient2 of
    /// Netflix's concurrency-limits, against a round trip that is measured by lowering the limit now and then, as in
    /// Envoy's adaptive concurrency, where Gradient2 has a long-term average, which learns the queue it should show.
    /// Moves faster, and keeps more of a queue.
    Gradient,
    /// Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP: one more for each interval, a tenth less
    /// once more than a tenth of the calls failed, timed out, or took longer than this. Needs no round trip to compare
    /// with, but a word on what is too slow.
    Aimd(Duration),
}

impl AdaptiveLimit {
    const fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, min: 4, max: 200, interval: Duration::from_millis(250) }
    }

    /// Goes by the queue: see [`Algorithm::Vegas`].
    pub const fn vegas() -> Self {
        Self::new(Algorithm::Vegas)
    }

    /// Goes by the ratio of round trips: see [`Algorithm::Gradient`].
    pub const fn gradient() -> Self {
        Self::new(Algorithm::Gradient)
    }

    /// Goes by calls that fail, time out or take longer than `slow`, longer than 0: see [`Algorithm::Aimd`].
    pub const fn aimd(slow: Duration) -> Self {
        Self::new(Algorithm::Aimd(slow))
    }

    /// It never falls below this, 1 to 16,777,214 calls.
    pub const fn min(self, calls: usize) -> Self {
        Self { min: calls, ..self }
    }

    /// It never rises above this, 1 to 16,777,214 calls, and at least `min`.
    pub const fn max(self, calls: usize) -> Self {
        Self { max: calls, ..self }
    }

    /// How often it may move, longer than 0. With few or long calls it moves less often.
    pub const fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// `start` is the limit of the bulkhead, if it has one.
    pub(crate) fn check(self, problems: &mut Problems, start: Option<usize>) -> Bounds {
        let (min, max) = (
            bulkhead::limit(problems, "adaptive_limit.min", self.min),
            bulkhead::limit(problems, "adaptive_limit.max", self.max),
        );
        problems.require(self.min <= self.max, "adaptive_limit.min", || self.min, "at most adaptive_limit.max");
        let interval = problems.span("adaptive_limit.interval", self.interval);
        let slow = match self.algorithm {
            Algorithm::Aimd(slow) => problems.span("adaptive_limit.slow", slow),
            Algorithm::Vegas | Algorithm::Gradient => u64::MAX,
        };
        let max = max.max(min);
        let start = start.map_or(max, |start| u32::try_from(start).unwrap_or(max)).clamp(min, max);
        Bounds { algorithm: self.algorithm, slow, start, min, max, interval }
    }
}

/// The checked form of an [`AdaptiveLimit`], in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(super) algorithm: Algorithm,
    /// From when on a call counts as lost.
    pub(super) slow: u64,
    pub(crate) start: u32,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) interval: u64,
}
