//! What a guarded call can return besides its value, and what a bad configuration returns.
//!
//! A caller acts on three cases and no more: it ran and failed, it ran too long, it never started. [`Error`] has
//! exactly these, keeps the operation's own error type, and carries what the caller needs to act: the reason and how
//! long to wait.

use std::fmt;
use std::time::Duration;

use crate::name::Name;

/// Why a guarded call returned no value.
///
/// `source()` gives the cause and `Display` does not repeat it, so a reporter that walks the chain prints each thing
/// once.
///
/// ```
/// # use fusebox::{Command, Error, Reason};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fusebox::ConfigError> {
/// # let pricing = Command::builder("pricing").build()?;
/// let price = match pricing.run(async || Err::<u32, _>("no such sku")).await {
///     Ok(price) => price,
///     Err(Error::Failed(why)) => { assert_eq!(why, "no such sku"); 0 }
///     Err(Error::TimedOut(t)) => panic!("no answer within {:?}", t.limit()),
///     Err(Error::Rejected(r)) => match r.reason() {
///         Reason::CircuitOpen => panic!("down; try again in {:?}", r.retry_after()),
///         other => panic!("refused: {other}"),
///     },
/// };
/// # assert_eq!(price, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// It ran and failed; here is its own error.
    #[error("the guarded call failed")]
    Failed(#[source] E),
    /// It was started and did not end within its timeout.
    #[error(transparent)]
    TimedOut(TimedOut),
    /// The command refused it: it was never started, but for a call that the circuit took back when it opened
    /// ([`Reason::Aborted`]).
    #[error(transparent)]
    Rejected(Rejected),
}

impl<E> Error<E> {
    /// The same error with another cause type.
    ///
    /// ```
    /// # use fusebox::Error;
    /// assert_eq!(Error::Failed(7).map(|code| code + 1), Error::Failed(8));
    /// ```
    pub fn map<F>(self, f: impl FnOnce(E) -> F) -> Error<F> {
        match self {
            Self::Failed(error) => Error::Failed(f(error)),
            Self::TimedOut(timed_out) => Error::TimedOut(timed_out),
            Self::Rejected(rejected) => Error::Rejected(rejected),
        }
    }

    /// Whether the operation was started, and so may have had an effect.
    pub const fn was_started(&self) -> bool {
        match self {
            Self::Rejected(rejected) => rejected.was_started(),
            _ => true,
        }
    }

    /// How long to wait before another try, where that is known: see [`Rejected::retry_after`].
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected(rejected) => rejected.retry_after(),
            _ => None,
        }
    }

    /// The operation's own error, if that is what this is.
    pub fn into_failed(self) -> Option<E> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Folds the three cases into the operation's own error type.
    ///
    /// ```
    /// # use fusebox::{Error, Rejected, TimedOut};
    /// #[derive(Debug, PartialEq)]
    /// enum ApiError { NotFound, Unavailable, Late }
    /// impl From<Rejected> for ApiError { fn from(_: Rejected) -> Self { Self::Unavailable } }
    /// impl From<TimedOut> for ApiError { fn from(_: TimedOut) -> Self { Self::Late } }
    ///
    /// assert_eq!(Error::Failed(ApiError::NotFound).flatten(), ApiError::NotFound);
    /// ```
    pub fn flatten(self) -> E
    where
        E: From<Rejected> + From<TimedOut>,
    {
        match self {
            Self::Failed(error) => error,
            Self::TimedOut(timed_out) => timed_out.into(),
            Self::Rejected(rejected) => rejected.into(),
        }
    }
}

impl<E> From<Rejected> for Error<E> {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl<E> From<TimedOut> for Error<E> {
    fn from(timed_out: TimedOut) -> Self {
        Self::TimedOut(timed_out)
    }
}

/// A call that was refused: its operation was not started, but for [`Reason::Aborted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("command `{command}` refused the call: {reason}")]
pub struct Rejected {
    command: Name,
    reason: Reason,
    /// In nanoseconds; `u64::MAX` where it is not known.
    wait: u64,
}

impl Rejected {
    /// `wait` in nanoseconds; `u64::MAX` where it is not known.
    pub(crate) const fn new(command: Name, reason: Reason, wait: u64) -> Self {
        Self { command, reason, wait }
    }

    /// Why.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// How long until the command would consider a call again. Known while the circuit is open or forced open with an
    /// expiry, and when the rate limit is used up; `None` where nothing can be said.
    pub const fn retry_after(&self) -> Option<Duration> {
        if self.wait == u64::MAX { None } else { Some(Duration::from_nanos(self.wait)) }
    }

    /// Whether the operation was started all the same, and so may have had an effect: for [`Reason::Aborted`] alone.
    pub const fn was_started(&self) -> bool {
        matches!(self.reason, Reason::Aborted)
    }

    /// The name of the command that refused.
    pub const fn command(&self) -> &'static str {
        self.command.as_str()
    }
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The circuit is open.
    CircuitOpen,
    /// An operator holds the circuit open.
    ForcedOpen,
    /// The circuit is half-open and all its probes are out.
    ProbeLimit,
    /// The circuit is coming back by a [`Ramp`](crate::Ramp), and the share of calls that it admits is used up.
    Ramp,
    /// The bulkhead, and its queue if it has one, is full.
    ConcurrencyLimit,
    /// The bulkhead's queue was left without a place for as long as a call may wait there.
    QueueTimeout,
    /// The rate limit is used up.
    RateLimited,
    /// The circuit opened while the call was in flight: see [`Breaker::abort_on_trip`](crate::Breaker::abort_on_trip).
    /// The one reason of a call that was started.
    Aborted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CircuitOpen => "the circuit is open",
            Self::ForcedOpen => "the circuit is forced open",
            Self::ProbeLimit => "the circuit is half-open and its probes are out",
            Self::Ramp => "the circuit is coming back and admits a share of the calls",
            Self::ConcurrencyLimit => "too many calls are in flight",
            Self::QueueTimeout => "no place came free in time",
            Self::RateLimited => "the rate limit is used up",
            Self::Aborted => "the circuit opened while the call was in flight",
        })
    }
}

/// A call that did not end within its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("command `{command}` timed out after {:?} (limit {:?})", self.elapsed(), self.limit())]
pub struct TimedOut {
    command: Name,
    /// In nanoseconds.
    limit: u64,
    elapsed: u64,
}

impl TimedOut {
    /// Both in nanoseconds.
    pub(crate) const fn new(command: Name, limit: u64, elapsed: u64) -> Self {
        Self { command, limit, elapsed }
    }

    /// The timeout that applied.
    pub const fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit)
    }

    /// How long the call had run when it was given up.
    pub const fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed)
    }

    /// The name of the command.
    pub const fn command(&self) -> &'static str {
        self.command.as_str()
    }
}

/// A configuration that cannot work: every field that is wrong, its value, and what is allowed.
///
/// ```
/// use fusebox::{Breaker, Command};
///
/// let error = Command::builder("db").breaker(Breaker::error_rate(1.5).probes(0)).build().unwrap_err();
/// assert_eq!(error.field(), "breaker.error_rate");
/// assert_eq!(error.problems().count(), 2);
/// assert_eq!(
///     error.to_string(),
///     "breaker.error_rate is 1.5, allowed: a rate in (0, 1]; breaker.probes is 0, allowed: at least 1",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    // Never empty: only `Problems::finish` makes one.
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The first field that is wrong, as a path: `"breaker.error_rate"`.
    pub fn field(&self) -> &'static str {
        self.problems[0].field
    }

    /// The value it had.
    pub fn value(&self) -> &str {
        &self.problems[0].value
    }

    /// What would have been allowed.
    pub fn allowed(&self) -> &'static str {
        self.problems[0].allowed
    }

    /// Everything that is wrong, the first included.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One wrong field of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    field: &'static str,
    value: String,
    allowed: &'static str,
    /// It takes another setting to see it.
    relative: bool,
}

impl Problem {
    /// The field, as a path.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value it had.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What would have been allowed.
    pub fn allowed(&self) -> &'static str {
        self.allowed
    }

    /// Whether another setting could make it right, so that it says nothing of this one alone.
    #[allow(dead_code, reason = "for settings that are read one by one, with the feature `serde`")]
    pub(crate) fn is_relative(&self) -> bool {
        self.relative
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, allowed: {}", self.field, self.value, self.allowed)
    }
}

/// Collects what is wrong, so that a user mends a configuration once and not field by field.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn require<V: fmt::Display>(
        &mut self,
        holds: bool,
        field: &'static str,
        value: impl FnOnce() -> V,
        allowed: &'static str,
    ) {
        if !holds {
            self.0.push(Problem { field, value: value().to_string(), allowed, relative: false });
        }
    }

    /// As [`Problems::require`], for what ties a setting to another: it can be judged only where both are known.
    pub(crate) fn relate<V: fmt::Display>(
        &mut self,
        holds: bool,
        field: &'static str,
        value: impl FnOnce() -> V,
        allowed: &'static str,
    ) {
        if !holds {
            self.0.push(Problem { field, value: value().to_string(), allowed, relative: true });
        }
    }

    /// The nanoseconds of a span that must be longer than zero and must fit the clock.
    pub(crate) fn span(&mut self, field: &'static str, span: Duration) -> u64 {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(0);
        self.require(nanos > 0, field, || format!("{span:?}"), "longer than 0 and at most 584 years");
        nanos
    }

    pub(crate) fn at_least_one(&mut self, field: &'static str, value: u32) {
        self.require(value > 0, field, || value, "at least 1");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn finish(self) -> Result<(), ConfigError> {
        if self.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.0 }) }
    }
}
