//! What the circuit can be in, and why it changed.

use std::fmt;
use std::time::Duration;

use crate::window::counts::{Counts, Health};

/// What a circuit does with a call.
///
/// ```
/// use fusebox::State;
/// # let command = fusebox::Command::builder("docs.state").build()?;
/// assert_eq!(command.state(), State::Closed);
/// assert_eq!(State::HalfOpen.as_str(), "half_open");
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Admits every call and judges the outcomes.
    Closed,
    /// Refuses every call until its wait is over.
    Open,
    /// Its wait is over: admits as many calls as it has probes, and refuses the rest until they decide; then, with a
    /// [`Ramp`](crate::Ramp), a growing share of the calls.
    HalfOpen,
    /// Held open by an operator: refuses every call.
    ForcedOpen,
    /// Held closed by an operator: admits every call, counts and never trips.
    ForcedClosed,
}

impl State {
    /// Every state, in the order of its discriminant.
    pub const ALL: [Self; 5] = [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::ForcedClosed];

    /// Its name in metrics and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }

    /// Whether calls are admitted without limit in this state.
    pub(crate) const fn is_passing(self) -> bool {
        matches!(self, Self::Closed | Self::ForcedClosed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a circuit changed its state, with the numbers that decided.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// The error rate reached its threshold.
    ErrorRate {
        /// The threshold, in (0, 1].
        threshold: f64,
    },
    /// So many errors came in a row.
    ConsecutiveFailures {
        /// How many.
        failures: u32,
    },
    /// The share of slow calls reached its threshold.
    SlowCalls {
        /// The threshold, in (0, 1].
        threshold: f64,
    },
    /// A result asked for it: see [`Verdict::OpenFor`](crate::Verdict::OpenFor).
    OpenFor {
        /// For how long.
        wait: Duration,
    },
    /// The wait of the open circuit was over when a call came.
    WaitOver,
    /// Enough probes failed.
    ProbesFailed {
        /// How many failed, or were too slow.
        failed: u32,
        /// Out of how many that ended.
        ended: u32,
    },
    /// Enough probes passed.
    ProbesPassed {
        /// How many.
        passed: u32,
    },
    /// A stage of the ramp failed.
    RampFailed {
        /// Which one, from 1.
        stage: u32,
        /// How many of its calls failed, or were too slow.
        failed: u32,
        /// Out of how many that ended.
        ended: u32,
    },
    /// The ramp led up to closed.
    RampPassed {
        /// How many stages passed.
        stages: u32,
    },
    /// An operator forced the circuit open or closed.
    Forced,
    /// An operator lifted an override.
    Cleared,
    /// An override expired.
    Expired,
    /// An operator reset the circuit.
    Reset,
}

impl Cause {
    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate { .. } => "error_rate",
            Self::ConsecutiveFailures { .. } => "consecutive_failures",
            Self::SlowCalls { .. } => "slow_calls",
            Self::OpenFor { .. } => "open_for",
            Self::WaitOver => "wait_over",
            Self::ProbesFailed { .. } => "probes_failed",
            Self::ProbesPassed { .. } => "probes_passed",
            Self::RampFailed { .. } => "ramp_failed",
            Self::RampPassed { .. } => "ramp_passed",
            Self::Forced => "forced",
            Self::Cleared => "cleared",
            Self::Expired => "expired",
            Self::Reset => "reset",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorRate { threshold } => write!(f, "the error rate reached {} %", threshold * 100.0),
            Self::ConsecutiveFailures { failures: 1 } => f.write_str("a single error"),
            Self::ConsecutiveFailures { failures } => write!(f, "{failures} errors in a row"),
            Self::SlowCalls { threshold } => write!(f, "the share of slow calls reached {} %", threshold * 100.0),
            Self::OpenFor { wait } => write!(f, "a result asked for {wait:?} of rest"),
            Self::WaitOver => f.write_str("the wait was over"),
            Self::ProbesFailed { failed: 1, ended: 1 } => f.write_str("the probe failed"),
            Self::ProbesFailed { failed, ended } => write!(f, "{failed} of {ended} probes failed"),
            Self::ProbesPassed { passed: 1 } => f.write_str("the probe passed"),
            Self::ProbesPassed { passed } => write!(f, "{passed} probes passed"),
            Self::RampFailed { stage, failed, ended } => {
                write!(f, "{failed} of {ended} calls failed in stage {stage} of the ramp")
            }
            Self::RampPassed { stages } => write!(f, "the ramp's stages passed ({stages})"),
            Self::Forced => f.write_str("an operator forced it"),
            Self::Cleared => f.write_str("an operator lifted the override"),
            Self::Expired => f.write_str("the override expired"),
            Self::Reset => f.write_str("an operator reset it"),
        }
    }
}

/// Where a half-open circuit is that comes back by a [`Ramp`](crate::Ramp).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RampStage {
    /// Which stage, from 1.
    pub number: u32,
    /// How many stages there are.
    pub of: u32,
    /// The share of calls that it admits, in (0, 1].
    pub share: f64,
    /// Results that it is judged by so far.
    pub ended: u32,
    /// Those among them that were errors.
    pub failed: u32,
    /// Those among them that took at least the slow-call threshold.
    pub slow: u32,
}

impl fmt::Display for RampStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {} of {}: {} % of calls", self.number, self.of, self.share * 100.0)
    }
}

/// Which way an operator holds a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forced {
    /// Held open. It wins over [`Forced::Closed`].
    Open,
    /// Held closed.
    Closed,
}

impl Forced {
    /// The state it puts the circuit in.
    pub const fn state(self) -> State {
        match self {
            Self::Open => State::ForcedOpen,
            Self::Closed => State::ForcedClosed,
        }
    }
}

/// What the circuit had seen when it changed its state: a transition explains itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    /// What it judged by.
    pub(crate) health: Health,
    /// Calls by outcome in the rolling window.
    pub(crate) window: Counts,
    /// How much time this rolling window spans.
    pub(crate) span: Duration,
}
