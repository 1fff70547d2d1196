//! What can be found, and what it comes to.

use std::fmt;
use std::time::Duration;

/// Something in a configuration that is allowed and hardly meant. `Display` says what it comes to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// A call may take for ever.
    NoTimeout,
    /// One attempt may use up the time of all.
    #[non_exhaustive]
    TimeoutBeyondDeadline {
        /// How long one attempt may take.
        timeout: Duration,
        /// How long all of them may.
        deadline: Duration,
    },
    /// When everything fails, the dependency gets this many times the load.
    #[non_exhaustive]
    RetriesWithoutBudget {
        /// Attempts in all.
        attempts: u32,
    },
    /// More calls are expected than are ever let go.
    #[non_exhaustive]
    CallsBeyondRateLimit {
        /// Calls a second that are let go.
        limit: f64,
        /// Calls a second that are expected.
        expected: f64,
    },
    /// A call may wait for a slot longer than it may run.
    #[non_exhaustive]
    WaitBeyondTimeout {
        /// Longest wait in the bulkhead's queue.
        wait: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// No rule ever opens the circuit.
    NeverOpens,
    /// At the rate of calls that was given, the window never holds enough of them to be judged.
    #[non_exhaustive]
    MinCallsUnreachable {
        /// Calls before a rate is looked at.
        min_calls: u32,
        /// Calls that the window holds on average.
        expected: f64,
        /// Length of the window.
        window: Duration,
    },
    /// The window holds fewer calls than there must be, so their number is all that counts.
    #[non_exhaustive]
    MinCallsBeyondWindow {
        /// Calls before a rate is looked at.
        min_calls: u32,
        /// Calls that the window holds.
        last_calls: u32,
    },
    /// The circuit asks again before an attempt from before it opened must have ended.
    #[non_exhaustive]
    OpenShorterThanTimeout {
        /// First wait of the open circuit.
        open_for: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// No call is slow that is not an error already: it times out first.
    #[non_exhaustive]
    SlowBeyondTimeout {
        /// From when on a call is slow.
        threshold: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// No cancelled call is ever blamed: it times out first.
    #[non_exhaustive]
    CancelledBeyondTimeout {
        /// From when on a cancelled call is a failure.
        after: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// All that opened together ask again together.
    NoJitter,
}

impl Finding {
    /// The setting to look at first, as a path.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::NoTimeout => "timeout",
            Self::TimeoutBeyondDeadline { .. } => "deadline",
            Self::RetriesWithoutBudget { .. } => "budget",
            Self::CallsBeyondRateLimit { .. } => "rate_limit",
            Self::WaitBeyondTimeout { .. } => "bulkhead.queue.wait",
            Self::NeverOpens => "breaker.error_rate",
            Self::MinCallsUnreachable { .. } | Self::MinCallsBeyondWindow { .. } => "breaker.min_calls",
            Self::OpenShorterThanTimeout { .. } => "breaker.open_for",
            Self::SlowBeyondTimeout { .. } => "breaker.slow_calls",
            Self::CancelledBeyondTimeout { .. } => "breaker.count_cancelled_after",
            Self::NoJitter => "breaker.jitter",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.setting())?;
        match self {
            Self::NoTimeout => f.write_str("without one a call may take for ever, and holds its slot for as long"),
            Self::TimeoutBeyondDeadline { timeout, deadline } => {
                write!(f, "{deadline:?} in all leave no time for a second attempt after one of {timeout:?}")
            }
            Self::RetriesWithoutBudget { attempts } => {
                write!(f, "without one, a dependency that fails under load gets {attempts} times the load by retries")
            }
            Self::CallsBeyondRateLimit { limit, expected } => {
                write!(f, "of {expected:.1} calls a second {limit:.1} are let go, and the others refused")
            }
            Self::WaitBeyondTimeout { wait, timeout } => {
                write!(f, "a call may wait {wait:?} for a slot in which it may then run for {timeout:?}")
            }
            Self::NeverOpens => f.write_str("no rule ever opens the circuit"),
            Self::MinCallsUnreachable { min_calls, expected, window } => {
                write!(f, "{window:?} hold {expected:.1} calls at this rate and never {min_calls}")?;
                f.write_str("; a longer window, fewer calls, or consecutive_failures would open it")
            }
            Self::MinCallsBeyondWindow { min_calls, last_calls } => {
                write!(
                    f,
                    "the window holds {last_calls} calls, so a rate is looked at from that on, not from {min_calls}"
                )
            }
            Self::OpenShorterThanTimeout { open_for, timeout } => {
                write!(f, "after {open_for:?} it asks again while calls that began before may run for {timeout:?}")
            }
            Self::SlowBeyondTimeout { threshold, timeout } => {
                write!(f, "no call takes {threshold:?} without an error: it times out after {timeout:?}")
            }
            Self::CancelledBeyondTimeout { after, timeout } => {
                write!(f, "no call is dropped after {after:?}: it times out after {timeout:?}")
            }
            Self::NoJitter => f.write_str("without it, all that opened together ask again together"),
        }
    }
}
