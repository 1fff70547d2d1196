//! The configuration of a command, as data: the builder fills it, a snapshot shows it, `reconfigure` changes it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::adaptive::limit::{AdaptiveLimit, Bounds};
use crate::adaptive::timeout::{AdaptiveTimeout, Tuning};
use crate::attempts::Attempts;
use crate::breaker::config::{Breaker, Rules};
use crate::budget::Budget;
use crate::bulkhead::{self, Bulkhead, Capacity};
use crate::error::Problems;
use crate::hedge::Hedge;
use crate::observe::event::Change;
use crate::rate_limit::config::{Rate, RateLimit};
use crate::retry::Retry;
use crate::time::saturating_nanos;

/// The settings of a command. Plain data with consuming setters.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`timeout`](Self::timeout) | 1 s | longer than 0; [`no_timeout`](Self::no_timeout) |
/// | [`max_concurrent`](Self::max_concurrent), [`bulkhead`](Self::bulkhead) | 100, no queue | 1 to 16,777,214 calls; [`unlimited`](Self::unlimited) |
/// | [`adaptive_timeout`](Self::adaptive_timeout) | off | see [`AdaptiveTimeout`] |
/// | [`adaptive_limit`](Self::adaptive_limit) | off | see [`AdaptiveLimit`] |
/// | [`rate_limit`](Self::rate_limit) | off | see [`RateLimit`] |
/// | [`breaker`](Self::breaker) | see [`Breaker`] | |
/// | [`max_concurrent_fallbacks`](Self::max_concurrent_fallbacks) | 100 | 1 to 16,777,214 calls |
/// | [`latency_window`](Self::latency_window) | 60 s | longer than 0; [`no_latency`](Self::no_latency) |
/// | [`deadline`](Self::deadline) | none | longer than 0; [`no_deadline`](Self::no_deadline) |
/// | [`retry`](Self::retry) | see [`Retry`] | |
/// | [`hedge`](Self::hedge) | see [`Hedge`] | |
/// | [`budget`](Self::budget) | see [`Budget`] | [`no_budget`](Self::no_budget) |
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Command, Config};
///
/// let command = Command::builder("ledger").timeout(Duration::from_millis(300)).build()?;
/// let config: Config = command.snapshot().config().clone();
/// assert_eq!(config.timeout, Some(Duration::from_millis(300)));
/// assert_eq!(config.max_concurrent_fallbacks, 100);
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a configuration does nothing until a command has it"]
#[non_exhaustive]
pub struct Config {
    /// How long one attempt may take; `None` without a limit.
    pub timeout: Option<Duration>,
    /// How many calls may be in flight; `None` without a limit.
    pub bulkhead: Option<Bulkhead>,
    /// How the timeout follows the latency; `None` leaves it fixed. Boxed, as what follows is: most commands have none.
    pub adaptive_timeout: Option<Box<AdaptiveTimeout>>,
    /// How the limit on calls in flight follows the dependency; `None` leaves it fixed.
    pub adaptive_limit: Option<Box<AdaptiveLimit>>,
    /// How many calls may go in a time; `None` without a limit.
    pub rate_limit: Option<Box<RateLimit>>,
    /// When the circuit opens and closes.
    pub breaker: Breaker,
    /// How many fallbacks may run at once.
    pub max_concurrent_fallbacks: usize,
    /// What latency percentiles are taken over; `None` keeps none. Cannot be changed live.
    pub latency_window: Option<Duration>,
    /// Where it differs from the usual.
    pub(crate) attempts: Option<Box<Attempts>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(1)),
            bulkhead: Some(Bulkhead::new(100)),
            adaptive_timeout: None,
            adaptive_limit: None,
            rate_limit: None,
            breaker: Breaker::default(),
            max_concurrent_fallbacks: 100,
            latency_window: Some(Duration::from_secs(60)),
            attempts: None,
        }
    }
}

impl Config {
    /// How long one attempt may take, longer than 0. It starts with the admission, is checked whenever the operation is
    /// not ready, and does not cover the fallback. Beyond 584 years it is no limit.
    pub fn timeout(self, limit: Duration) -> Self {
        Self { timeout: Some(limit), ..self }
    }

    /// Lets attempts take as long as they like.
    pub fn no_timeout(self) -> Self {
        Self { timeout: None, ..self }
    }

    /// At most `limit` calls in flight; the next is refused at once. Short for `bulkhead(Bulkhead::new(limit))`.
    pub fn max_concurrent(self, limit: usize) -> Self {
        self.bulkhead(Bulkhead::new(limit))
    }

    /// Any number of calls in flight. They are still counted.
    pub fn unlimited(self) -> Self {
        Self { bulkhead: None, ..self }
    }

    /// A limit on calls in flight, with a queue if the bulkhead has one.
    pub fn bulkhead(self, bulkhead: Bulkhead) -> Self {
        Self { bulkhead: Some(bulkhead), ..self }
    }

    /// Lets the timeout follow the latency of each circuit. [`timeout`](Self::timeout) is the one to begin with.
    pub fn adaptive_timeout(self, timeout: AdaptiveTimeout) -> Self {
        Self { adaptive_timeout: Some(Box::new(timeout)), ..self }
    }

    /// Leaves the timeout fixed.
    pub fn no_adaptive_timeout(self) -> Self {
        Self { adaptive_timeout: None, ..self }
    }

    /// Lets the limit on calls in flight follow the dependency. The limit of the [`bulkhead`](Self::bulkhead) is the one
    /// to begin with; without one it begins at its maximum.
    pub fn adaptive_limit(self, limit: AdaptiveLimit) -> Self {
        Self { adaptive_limit: Some(Box::new(limit)), ..self }
    }

    /// Leaves the limit on calls in flight fixed.
    pub fn no_adaptive_limit(self) -> Self {
        Self { adaptive_limit: None, ..self }
    }

    /// How many calls may go in a time. A call is held against it after the circuit has let it pass and before it takes
    /// a slot; one that gets no slot then, or that the circuit refuses after all, gives its turn back unless another was
    /// taken meanwhile. With a queue the bound is on the calls that enter it: those that wait there may start together.
    pub fn rate_limit(self, limit: RateLimit) -> Self {
        Self { rate_limit: Some(Box::new(limit)), ..self }
    }

    /// Any number of calls in a time.
    pub fn no_rate_limit(self) -> Self {
        Self { rate_limit: None, ..self }
    }

    /// When the circuit opens and closes.
    pub fn breaker(self, breaker: Breaker) -> Self {
        Self { breaker, ..self }
    }

    /// Changes some settings of the breaker and keeps the others.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let command = fusebox::Command::builder("docs.map_breaker").build()?;
    /// command.reconfigure(|c| c.map_breaker(|breaker| breaker.open_for(Duration::from_secs(2))))?;
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn map_breaker(self, change: impl FnOnce(Breaker) -> Breaker) -> Self {
        Self { breaker: change(self.breaker), ..self }
    }

    /// At most `limit` fallbacks at once; beyond that a caller gets the error that the fallback was for.
    pub fn max_concurrent_fallbacks(self, limit: usize) -> Self {
        Self { max_concurrent_fallbacks: limit, ..self }
    }

    /// What latency percentiles are taken over, longer than 0. Fixed when the command is built.
    pub fn latency_window(self, length: Duration) -> Self {
        Self { latency_window: Some(length), ..self }
    }

    /// Keeps no latency figures, which saves 1 to 3.5 KiB per command.
    pub fn no_latency(self) -> Self {
        Self { latency_window: None, ..self }
    }

    /// How long a call may take in all, longer than 0: with its attempts, the waits in between and the wait for a place,
    /// without the fallback. No attempt begins after it, and none is given more time than is left of it. For a plain
    /// call it is a second timeout, unless the call has a timeout of its own.
    pub fn deadline(self, limit: Duration) -> Self {
        self.map_attempts(|attempts| attempts.deadline = Some(limit))
    }

    /// Lets calls take as long as their attempts and waits do.
    pub fn no_deadline(self) -> Self {
        self.map_attempts(|attempts| attempts.deadline = None)
    }

    /// When calls by [`Command::retry`](crate::Command::retry) are attempted again.
    pub fn retry(self, retry: Retry) -> Self {
        self.map_attempts(|attempts| attempts.retry = retry)
    }

    /// When calls by [`Command::hedge`](crate::Command::hedge) get a second attempt.
    pub fn hedge(self, hedge: Hedge) -> Self {
        self.map_attempts(|attempts| attempts.hedge = hedge)
    }

    /// What the attempts beyond the first of all calls, retries and hedges, may come to.
    pub fn budget(self, budget: Budget) -> Self {
        self.map_attempts(|attempts| attempts.budget = Some(budget))
    }

    /// Lets every call have all its attempts. With three attempts, a dependency that fails under load then gets three
    /// times the load.
    pub fn no_budget(self) -> Self {
        self.map_attempts(|attempts| attempts.budget = None)
    }

    /// What calls of more than one attempt go by.
    pub fn attempts(&self) -> &Attempts {
        self.attempts.as_deref().unwrap_or_else(|| Attempts::usual())
    }

    /// Kept only where it differs from the usual: most commands have no such calls.
    pub(crate) fn map_attempts(self, change: impl FnOnce(&mut Attempts)) -> Self {
        let mut attempts = self.attempts().clone();
        change(&mut attempts);
        Self { attempts: Some(attempts).filter(|attempts| attempts != Attempts::usual()).map(Box::new), ..self }
    }

    /// Checks everything and gives the form that calls use.
    pub(crate) fn check(&self, problems: &mut Problems) -> Settings {
        let timeout = self.timeout.map_or(u64::MAX, |limit| {
            problems.require(!limit.is_zero(), "timeout", || format!("{limit:?}"), "longer than 0");
            saturating_nanos(limit)
        });
        self.attempts().check(problems);
        let field = if self.bulkhead.is_some_and(|bulkhead| bulkhead.queue.is_some()) {
            "bulkhead.limit"
        } else {
            "max_concurrent"
        };
        let capacity = self.bulkhead.map_or(Capacity::UNLIMITED, |bulkhead| bulkhead.check(problems, field));
        // So that a plain call, which has one attempt, keeps to the deadline at no cost.
        let deadline = self.attempts().deadline();
        let timeout = timeout.min(deadline);
        let tuning = self
            .adaptive_timeout
            .as_ref()
            .map(|tuning| tuning.check(problems, timeout, deadline, self.latency_window.is_some()));
        let bounds = self
            .adaptive_limit
            .as_ref()
            .map(|limit| limit.check(problems, self.bulkhead.map(|bulkhead| bulkhead.limit)));
        let extra = Extra { tuning, bounds, rate: self.rate_limit.as_ref().map(|limit| limit.check(problems)) };
        Settings {
            timeout,
            capacity: bounds.map_or(capacity, |bounds| capacity.at(bounds.start)),
            extra: extra.is_any().then(|| Box::new(extra)),
            rules: Arc::new(self.breaker.check(problems)),
            fallbacks: bulkhead::limit(problems, "max_concurrent_fallbacks", self.max_concurrent_fallbacks),
            latency_window: self.latency_window.map(|length| problems.span("latency_window", length)),
        }
    }

    /// Whether a command that has this may have `next`.
    pub(crate) fn allow(&self, next: &Self, problems: &mut Problems) {
        problems.require(
            next.latency_window == self.latency_window,
            "latency_window",
            || format!("{:?}", next.latency_window),
            "what the command was built with: it cannot be changed live",
        );
    }

    /// Every setting: its path, and its value as text. What is not here is not seen to change.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        macro_rules! list {
            ($($name:literal: $($field:ident).+),* $(,)?) => {
                vec![$(($name, format!("{:?}", self.$($field).+))),*]
            };
        }
        let mut settings = list! {
            "timeout": timeout,
            "bulkhead": bulkhead,
            "adaptive_timeout": adaptive_timeout,
            "adaptive_limit": adaptive_limit,
            "rate_limit": rate_limit,
            "breaker.error_rate": breaker.error_rate,
            "breaker.min_calls": breaker.min_calls,
            "breaker.confidence": breaker.confidence,
            "breaker.window": breaker.window,
            "breaker.open_for": breaker.open_for,
            "breaker.growth": breaker.growth,
            "breaker.max_open": breaker.max_open,
            "breaker.jitter": breaker.jitter,
            "breaker.probes": breaker.probes,
            "breaker.ramp": breaker.ramp,
            "breaker.consecutive_failures": breaker.consecutive_failures,
            "breaker.slow_calls": breaker.slow_calls,
            "breaker.count_in_flight": breaker.count_in_flight,
            "breaker.abort_on_trip": breaker.abort_on_trip,
            "breaker.count_rejections": breaker.count_rejections,
            "breaker.count_cancelled_after": breaker.count_cancelled_after,
            "max_concurrent_fallbacks": max_concurrent_fallbacks,
            "latency_window": latency_window,
        };
        let Attempts { retry, hedge, budget, deadline } = self.attempts();
        settings.extend([
            ("deadline", format!("{deadline:?}")),
            ("retry", format!("{retry:?}")),
            ("hedge", format!("{hedge:?}")),
            ("budget", format!("{budget:?}")),
        ]);
        settings
    }

    /// What `next` changes.
    pub(crate) fn changes(&self, next: &Self) -> Vec<Change> {
        let pairs = self.settings().into_iter().zip(next.settings());
        pairs
            .filter(|((_, before), (_, after))| before != after)
            .map(|((field, before), (_, after))| Change { field, before, after })
            .collect()
    }
}

/// A configuration that was checked: as it was given, and as calls use it.
pub(crate) struct Checked {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// The checked form of a [`Config`], in nanoseconds; `u64::MAX` is no timeout.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) timeout: u64,
    pub(crate) capacity: Capacity,
    /// `None` if there is none of it.
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) fallbacks: u32,
    pub(crate) latency_window: Option<u64>,
}

/// What only some commands have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) tuning: Option<Tuning>,
    pub(crate) bounds: Option<Bounds>,
    pub(crate) rate: Option<Rate>,
}

impl Extra {
    fn is_any(&self) -> bool {
        self.rate.is_some() || self.tuning.is_some() || self.bounds.is_some()
    }
}

impl Settings {
    /// In place of a timeout that all circuits of a family share: each has its own.
    pub(crate) const OWN_TIMEOUT: u64 = u64::MAX - 1;

    /// The timeout of every circuit of the family, or that each has its own.
    pub(crate) fn shared_timeout(&self) -> u64 {
        match self.timeout {
            _ if self.extra.as_ref().is_some_and(|extra| extra.tuning.is_some()) => Self::OWN_TIMEOUT,
            Self::OWN_TIMEOUT => u64::MAX,
            timeout => timeout,
        }
    }
}
