//! What a result means for the dependency's health, and how a call can end.
//!
//! The two are different questions. A [`Verdict`] is a judgement that a classifier makes about a result: a 404 is an
//! `Err` for the caller and yet a healthy answer. An [`Outcome`] is the one way in which a call ended, verdict or not:
//! a refused call has an outcome and no verdict.

use std::fmt;
use std::time::Duration;

/// What a classifier says of a result.
///
/// ```
/// use std::time::Duration;
/// use fusebox::Verdict;
///
/// fn judge(status: u16, retry_after: Option<Duration>) -> Verdict {
///     match (status, retry_after) {
///         (429 | 503, Some(wait)) => Verdict::OpenFor(wait),
///         (500.., _) => Verdict::Failure,
///         (400..=499, _) => Verdict::Ignored,
///         _ => Verdict::Success,
///     }
/// }
/// assert_eq!(judge(404, None), Verdict::Ignored);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The dependency did its work.
    Success,
    /// The dependency failed.
    Failure,
    /// The result says nothing about the dependency: the caller's own mistake, say. It enters no rate, decides no
    /// probe, and runs no fallback.
    Ignored,
    /// A failure after which the circuit opens at once and for this long: the dependency asked for it, as a 429 or 503
    /// with `Retry-After` does. While the circuit is open already, the later deadline wins. Zero is a plain failure.
    OpenFor(Duration),
}

/// Whether another attempt is worth making, for calls that may be attempted more than once.
///
/// A `bool` is one too: `true` is [`Again::Yes`].
///
/// ```
/// use fusebox::Again;
/// assert_eq!(Again::from(true), Again::Yes);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// No: this result is final.
    No,
    /// Yes, after the wait that the policy has for it.
    Yes,
    /// Yes, after this wait and no other: the dependency asked for it, as `Retry-After` does.
    After(Duration),
}

impl From<bool> for Again {
    fn from(again: bool) -> Self {
        if again { Self::Yes } else { Self::No }
    }
}

impl From<Verdict> for Again {
    /// A failure is worth another attempt; after [`Verdict::OpenFor`], when that time has passed.
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Success | Verdict::Ignored => Self::No,
            Verdict::Failure => Self::Yes,
            Verdict::OpenFor(wait) => Self::After(wait),
        }
    }
}

/// Judges a result of type `Result<T, E>`.
///
/// Implemented for closures, and by you for a unit struct when a policy deserves a name:
///
/// ```
/// use fusebox::{Classify, Command, Verdict};
///
/// #[derive(Debug)]
/// enum DbError { NoRows, Gone }
///
/// struct DbVerdict;
/// impl<T> Classify<T, DbError> for DbVerdict {
///     fn classify(&self, result: &Result<T, DbError>) -> Verdict {
///         match result {
///             Ok(_) => Verdict::Success,
///             Err(DbError::NoRows) => Verdict::Ignored,
///             Err(DbError::Gone) => Verdict::Failure,
///         }
///     }
/// }
///
/// let db: Command<DbVerdict> = Command::builder("db").classify(DbVerdict).build()?;
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
pub trait Classify<T, E> {
    /// The verdict on one result. Called once for each call that ran to its end, outside of any lock. A panic in it
    /// reaches the caller and is counted as [`Outcome::Panicked`].
    fn classify(&self, result: &Result<T, E>) -> Verdict;

    /// Whether another attempt is worth making after a result with this verdict, in a call that may have one
    /// ([`Command::retry`](crate::Command::retry)). Here is the place for errors that last, such as "not implemented",
    /// and for a wait that the dependency names without being in trouble. Not asked after [`Verdict::Ignored`], which is
    /// final. By default: after a failure, and after [`Verdict::OpenFor`] when its time has passed.
    fn again(&self, result: &Result<T, E>, verdict: Verdict) -> Again {
        let _ = result;
        verdict.into()
    }
}

impl<T, E, F> Classify<T, E> for F
where
    F: Fn(&Result<T, E>) -> Verdict,
{
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        self(result)
    }
}

/// The default classifier: `Ok` is a success, `Err` is a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByResult;

impl<T, E> Classify<T, E> for ByResult {
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}

/// The one way in which a call ended. Its name is the metric label.
///
/// ```
/// use fusebox::Outcome;
/// assert_eq!(Outcome::TimedOut.as_str(), "timed_out");
/// assert!(Outcome::TimedOut.is_error());
/// assert!(!Outcome::Rejected.was_started());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It ran and its verdict was success.
    Success,
    /// It ran and its verdict was failure.
    Failure,
    /// It ran longer than its timeout.
    TimedOut,
    /// It panicked.
    Panicked,
    /// It ran and its verdict was ignored.
    Ignored,
    /// It was dropped before it ended, while it ran or while it waited for a place; or it was ended by its circuit's opening.
    Cancelled,
    /// It was refused by the circuit.
    ShortCircuited,
    /// It was refused by the bulkhead.
    Rejected,
    /// It was refused by the rate limit.
    RateLimited,
}

impl Outcome {
    /// How many outcomes there are.
    pub(crate) const COUNT: usize = Self::ALL.len();
    /// The last ones are refusals: such a call was not started.
    pub(crate) const FIRST_REFUSAL: usize = Self::ShortCircuited as usize;
    pub(crate) const REFUSALS: usize = Self::COUNT - Self::FIRST_REFUSAL;

    /// Every outcome, in the order of its discriminant.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Failure,
        Self::TimedOut,
        Self::Panicked,
        Self::Ignored,
        Self::Cancelled,
        Self::ShortCircuited,
        Self::Rejected,
        Self::RateLimited,
    ];

    /// Its name in metrics and snapshots.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
            Self::Ignored => "ignored",
            Self::Cancelled => "cancelled",
            Self::ShortCircuited => "short_circuited",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
        }
    }

    /// Whether it counts against the dependency: failure, timed out, panicked.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::Failure | Self::TimedOut | Self::Panicked)
    }

    /// Whether the operation was started. A cancelled call counts as started; one that was cancelled while it waited
    /// in the bulkhead's queue was not.
    pub const fn was_started(self) -> bool {
        !matches!(self, Self::ShortCircuited | Self::Rejected | Self::RateLimited)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
