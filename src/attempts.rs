//! What the calls of a command go by that may be attempted more than once, in one place.

use std::sync::OnceLock;
use std::time::Duration;

use crate::budget::Budget;
use crate::error::Problems;
use crate::hedge::Hedge;
use crate::retry::Retry;
use crate::time::saturating_nanos;

/// The settings for calls of more than one attempt, [`Command::retry`](crate::Command::retry) and
/// [`Command::hedge`](crate::Command::hedge). Set with the methods of [`Config`](crate::Config) and
/// [`Builder`](crate::Builder) of the same names, and read with [`Config::attempts`](crate::Config::attempts).
///
/// ```
/// use fusebox::{Command, Retry};
///
/// let users = Command::builder("users").retry(Retry::default().attempts(5)).build()?;
/// let snapshot = users.snapshot();
/// assert_eq!(snapshot.config().attempts().retry.attempts, 5);
/// assert_eq!(snapshot.config().attempts().deadline, None);
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Attempts {
    /// When a call is attempted again.
    pub retry: Retry,
    /// When a call by [`Command::hedge`](crate::Command::hedge) gets a second attempt.
    pub hedge: Hedge,
    /// What all attempts beyond the first may come to; `None` without a limit.
    pub budget: Option<Budget>,
    /// How long a call may take with all its attempts and waits; `None` without a limit.
    pub deadline: Option<Duration>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { retry: Retry::default(), hedge: Hedge::default(), budget: Some(Budget::default()), deadline: None }
    }
}

impl Attempts {
    /// Those of a command that says nothing about them.
    pub(crate) fn usual() -> &'static Self {
        static USUAL: OnceLock<Attempts> = OnceLock::new();
        USUAL.get_or_init(Self::default)
    }

    /// The deadline in nanoseconds; `u64::MAX` without.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.map_or(u64::MAX, saturating_nanos)
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.retry.check(problems);
        self.hedge.check(problems);
        if let Some(budget) = &self.budget {
            budget.check(problems);
        }
        if let Some(deadline) = self.deadline {
            problems.require(!deadline.is_zero(), "deadline", || format!("{deadline:?}"), "longer than 0");
        }
    }
}
