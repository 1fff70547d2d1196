//! What a user says about a rate limit, and the checked form of it.

use std::time::Duration;

use crate::error::Problems;

/// How many calls may go in a time, and whether those beyond it wait. Plain data.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`new`](Self::new), [`per_second`](Self::per_second), [`every`](Self::every) | - | at least 1 call in a period longer than 0, at most one a nanosecond |
/// | [`burst`](Self::burst) | the calls of one period | at least 1 call |
/// | [`wait`](Self::wait) | off | longer than 0: calls beyond the rate wait so long at most |
///
/// Of calls that are let go at once there are never more than `burst + span * calls / period` in any span of time. So a
/// rate of 100 a second lets 200 go in the second after a pause, unless the burst is made smaller.
///
/// Without [`wait`](Self::wait) a call beyond the rate is refused with [`Reason::RateLimited`](crate::Reason), and
/// [`Rejected::retry_after`](crate::Rejected::retry_after) says when one would be let go.
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Command, RateLimit, Reason};
///
/// let geocoder = Command::builder("geocoder").rate_limit(RateLimit::per_second(10).burst(1)).build()?;
/// geocoder.run_sync(|| Ok::<_, std::io::Error>(()))?;
///
/// let refused = geocoder.admit().unwrap_err();
/// assert_eq!(refused.reason(), Reason::RateLimited);
/// assert!(refused.retry_after().unwrap() <= Duration::from_millis(100));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rate limit does nothing until a command is built with it"]
#[non_exhaustive]
pub struct RateLimit {
    /// Calls in one period.
    pub calls: u32,
    /// The period. One call is let go for each `period / calls`, rounded up to a whole nanosecond.
    pub period: Duration,
    /// Calls that may go at once after a pause.
    pub burst: u32,
    /// How long a call may wait for its turn; `None` refuses at once.
    pub wait: Option<Duration>,
}

impl RateLimit {
    /// So many calls in a period, evenly, in bursts of as many at most.
    pub const fn new(calls: u32, period: Duration) -> Self {
        Self { calls, period, burst: calls, wait: None }
    }

    /// So many calls a second, in bursts of as many at most.
    pub const fn per_second(calls: u32) -> Self {
        Self::new(calls, Duration::from_secs(1))
    }

    /// So many calls a minute, in bursts of as many at most.
    pub const fn per_minute(calls: u32) -> Self {
        Self::new(calls, Duration::from_secs(60))
    }

    /// One call in each interval, and no bursts.
    pub const fn every(interval: Duration) -> Self {
        Self::new(1, interval)
    }

    /// Calls that may go at once after a pause, at least 1; with 1 they go at even distances.
    pub const fn burst(self, calls: u32) -> Self {
        Self { burst: calls, ..self }
    }

    /// Lets calls beyond the rate wait, first come first served, if their turn comes within `longest`, longer than 0;
    /// they are refused at once if it does not. The wait is not part of the call's timeout, and takes no slot of the
    /// bulkhead. It is for calls that are futures: [`Command::admit`](crate::Command::admit) and
    /// [`Command::run_sync`](crate::Command::run_sync) never wait.
    ///
    /// A call that is dropped while it waits gives its turn back if no other has been taken since; those behind it keep
    /// the time that they were given.
    pub const fn wait(self, longest: Duration) -> Self {
        Self { wait: Some(longest), ..self }
    }

    /// Calls a second.
    pub(crate) fn rate(self) -> f64 {
        f64::from(self.calls) / self.period.as_secs_f64()
    }

    pub(crate) fn check(self, problems: &mut Problems) -> Rate {
        let period = problems.span("rate_limit.period", self.period);
        problems.require(
            self.calls > 0 && (period == 0 || u64::from(self.calls) <= period),
            "rate_limit.calls",
            || self.calls,
            "at least 1, and at most one a nanosecond",
        );
        let interval = period.div_ceil(u64::from(self.calls.max(1))).max(1);
        problems.require(
            self.burst > 0 && interval.saturating_mul(u64::from(self.burst)) <= LONGEST_BURST,
            "rate_limit.burst",
            || self.burst,
            "at least 1, and as many as take 73 years at most",
        );
        let wait = self.wait.map_or(0, |longest| problems.span("rate_limit.wait", longest));
        Rate { interval, burst: self.burst.max(1), wait }
    }
}

/// The checked form of a [`RateLimit`]. Nanoseconds; a wait of 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) interval: u64,
    pub(crate) burst: u32,
    pub(crate) wait: u64,
}

/// The longest that a burst may take to fill again: 73 years, so that it can be added to any time that the limiter knows.
const LONGEST_BURST: u64 = u64::MAX / 8;
