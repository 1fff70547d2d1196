//! When a call that failed is attempted again.
//!
//! [`Retry`] is the policy, [`Course`] one call's way along it. What ended an attempt decides first: a refusal that says
//! when to come back costs nothing but that wait; everything else costs one of the attempts, a wait, and a token of the
//! budget. Whatever comes, the call's deadline is never planned past: an attempt that could only begin after it is not
//! waited for.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::{Backoff, Delays, Jitter, Schedule, Series};
use crate::budget::{Bucket, Claim};
use crate::error::{ConfigError, Problems};
use crate::outcome::Again;
use crate::time::{Stamp, saturating_nanos};

/// How often a call is attempted, and how long it waits in between. Plain data with consuming setters.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`exponential`](Self::exponential) | 50 ms | the first delay; [`constant`](Self::constant), [`delays`](Self::delays) |
/// | [`growth`](Self::growth) | 2.0 | factor from one delay to the next, at least 1 |
/// | [`max_delay`](Self::max_delay) | 10 s where delays grow, none else | at least the first delay; holds after jitter |
/// | [`jitter`](Self::jitter) | [`Jitter::Full`]; `Spread(0.2)` for constant delays, none for an iterator's | |
/// | [`attempts`](Self::attempts) | 3; as many as there are delays and one, for an iterator's | at least 1, the first included |
/// | [`timeouts`](Self::timeouts) | off | whether attempts that timed out are followed by another |
///
/// What makes a result worth another attempt is a matter of the classifier ([`Classify::again`](crate::Classify::again))
/// or of the call ([`Retrying::when`](crate::Retrying::when)), how many attempts there are in all one of the
/// [`Budget`](crate::Budget), and the time for all of them of [`Config::deadline`](crate::Config::deadline).
///
/// A policy that a command is built with is checked. One that is given to a call is not: what is out of range in it is
/// taken for the nearest value that is in range.
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Command, Jitter, Retry};
///
/// let users = Command::builder("users")
///     .retry(Retry::exponential(Duration::from_millis(20)).attempts(4).max_delay(Duration::from_millis(500)))
///     .build()?;
///
/// let slow = Retry::constant(Duration::from_secs(1)).jitter(Jitter::Equal);
/// let listed = Retry::delays([10, 50, 250].map(Duration::from_millis));
/// let linear = Retry::delays((1..=5).map(|n| Duration::from_millis(100 * n)));
/// # let _ = (users, slow, listed, linear);
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a policy does nothing until a command or a call has it"]
#[non_exhaustive]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The waits in between.
    pub delays: Delays,
    /// How chance changes them.
    pub jitter: Jitter,
    /// The longest of them; `None` is 10 s where they grow, or the first if that is longer, and no limit else.
    pub max_delay: Option<Duration>,
    /// Whether attempts that timed out are followed by another.
    pub timeouts: bool,
}

const ATTEMPTS: u32 = 3;

impl Default for Retry {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(50))
    }
}

impl Retry {
    /// Delays that double from `first` on, with [`Jitter::Full`].
    pub fn exponential(first: Duration) -> Self {
        Self::with(Delays::Exponential { first, growth: 2.0 }, Jitter::Full, ATTEMPTS)
    }

    /// Delays that are all the same, give or take 20 %. Zero attempts again at once.
    pub fn constant(delay: Duration) -> Self {
        Self::with(Delays::Constant(delay), Jitter::Spread(0.2), ATTEMPTS)
    }

    /// The delays of an iterator, which begins anew for each call. Where it ends, so do the attempts; one that never
    /// ends should come with a number of [`attempts`](Self::attempts).
    pub fn delays<I>(delays: I) -> Self
    where
        I: IntoIterator<Item = Duration> + Clone + Send + Sync + 'static,
        I::IntoIter: Send + 'static,
    {
        Self::with(Delays::Each(Series::new(delays)), Jitter::None, u32::MAX)
    }

    fn with(delays: Delays, jitter: Jitter, attempts: u32) -> Self {
        Self { attempts, delays, jitter, max_delay: None, timeouts: false }
    }

    /// Whether it holds code that is not ours.
    pub(crate) fn has_user_code(&self) -> bool {
        matches!(self.delays, Delays::Each(_))
    }

    /// Attempts in all, at least 1: with 3 there are two retries at most.
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// The factor from one delay to the next, at least 1. Without meaning for delays that are not exponential.
    pub fn growth(mut self, factor: f64) -> Self {
        if let Delays::Exponential { growth, .. } = &mut self.delays {
            *growth = factor;
        }
        self
    }

    /// The longest delay, after jitter; at least the first one. A wait that the dependency asked for may be longer.
    pub fn max_delay(self, delay: Duration) -> Self {
        Self { max_delay: Some(delay), ..self }
    }

    /// How chance changes each delay.
    pub fn jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// Whether attempts that timed out are followed by another. Off by default: the work of one may still go on, so
    /// another doubles the load of a dependency that is late because of its load.
    pub fn timeouts(self, again: bool) -> Self {
        Self { timeouts: again, ..self }
    }

    pub(crate) fn backoff(&self) -> Backoff<'_> {
        Backoff { delays: &self.delays, jitter: self.jitter, max: self.max_delay }
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        problems.at_least_one("retry.attempts", self.attempts);
        self.backoff().check(problems);
    }

    /// Checks without building.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with every setting that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.check(&mut problems);
        problems.finish()
    }
}

/// What an attempt of a retrying call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It gave the call its answer: a success, or a result that is ignored.
    Success,
    /// It failed, and another one follows.
    Retried,
    /// It failed, and no other one follows: it is not worth it, or attempts or time are used up.
    Exhausted,
    /// It failed, and the budget has nothing for another.
    BudgetDenied,
}

impl Fate {
    pub(crate) const ALL: [Self; 4] = [Self::Success, Self::Retried, Self::Exhausted, Self::BudgetDenied];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retried => "retried",
            Self::Exhausted => "exhausted",
            Self::BudgetDenied => "budget_denied",
        }
    }
}

/// How an attempt ended, as far as it matters to what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ran.
    Ran,
    /// It was refused, and will be for so long, in nanoseconds, where that is known.
    Refused(Option<u64>),
}

/// One call on its way from attempt to attempt.
#[derive(Debug)]
pub(crate) struct Course {
    /// When the call must have ended.
    until: Stamp,
    /// Attempts that counted.
    used: u32,
    schedule: Schedule,
    /// For the attempt that comes, unless it is the first.
    claim: Option<Claim>,
}

impl Course {
    pub(crate) fn new(until: Stamp) -> Self {
        Self { until, used: 0, schedule: Schedule::default(), claim: None }
    }

    pub(crate) fn until(&self) -> Stamp {
        self.until
    }

    /// Which attempt it is that runs or comes, from 1 on.
    pub(crate) fn attempt(&self) -> u32 {
        self.used.saturating_add(1)
    }

    /// An attempt starts its operation: what it was to cost has been spent.
    pub(crate) fn start(&mut self) {
        if let Some(claim) = self.claim.take() {
            claim.spend();
        }
    }

    /// When to make the next attempt after one that ended so at `now`, or why there is none. `random` is uniform in
    /// [0, 1).
    pub(crate) fn next(
        &mut self,
        now: Stamp,
        retry: &Retry,
        budget: Option<&Arc<Bucket>>,
        ended: Ended,
        again: Again,
        random: impl FnOnce() -> f64,
    ) -> Result<Stamp, Fate> {
        let wait = match (ended, again) {
            (_, Again::No) => return Err(Fate::Exhausted),
            // Nothing has happened yet but that somebody said when to come back. Without a deadline nobody has said how
            // long the caller would wait for that, and an answer now is worth more than one in a minute.
            (Ended::Refused(Some(_)), _) if self.until == Stamp::NEVER => return Err(Fate::Exhausted),
            (Ended::Refused(Some(wait)), _) => wait,
            _ => {
                self.used = self.used.saturating_add(1);
                if self.used >= retry.attempts {
                    return Err(Fate::Exhausted);
                }
                let wait = self.schedule.next(retry.backoff(), random).ok_or(Fate::Exhausted)?;
                if let Again::After(asked) = again { saturating_nanos(asked) } else { wait }
            }
        };
        let at = now.plus(wait);
        if at >= self.until {
            return Err(Fate::Exhausted);
        }
        // One that was refused has not cost the dependency anything, so what was claimed for it is still there.
        if let (Ended::Ran, Some(budget)) = (ended, budget) {
            self.claim = Some(budget.claim(now).ok_or(Fate::BudgetDenied)?);
        }
        Ok(at)
    }
}
