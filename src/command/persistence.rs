//! What the calls of a command share that may be attempted more than once, and what one of them knows of itself.
//!
//! Made by the first such call: most commands never have one, and pay a pointer.

use std::sync::{Arc, OnceLock};

use super::core::Core;
use super::family::Family;
use crate::attempts::Attempts;
use crate::budget::Bucket;
use crate::config::Config;
use crate::error::Error;
use crate::outcome::{Again, Verdict};
use crate::retry::{Course, Ended, Fate, Retry};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::{Stamp, saturating_nanos};
use crate::window::ring::{self, Ring};

#[derive(Debug, Default)]
pub(crate) struct Persistence(OnceLock<Box<Shared>>);

#[derive(Debug)]
pub(crate) struct Shared {
    tactics: Mutex<Arc<Tactics>>,
    tally: Tally,
}

/// What calls go by, as they found it when they began.
#[derive(Debug)]
pub(crate) struct Tactics {
    retry: Retry,
    budget: Option<Arc<Bucket>>,
    /// The command's own bucket, which is kept while a shared one is in use.
    own: Option<Arc<Bucket>>,
    /// In nanoseconds; `u64::MAX` without.
    deadline: u64,
}

impl Tactics {
    fn of(config: &Config, own: Option<Arc<Bucket>>) -> Self {
        let Attempts { retry, budget, .. } = config.attempts();
        let bucket = budget.as_ref().map(|budget| budget.bucket(own.clone()));
        let own = if budget.as_ref().is_some_and(|budget| !budget.is_shared()) { bucket.clone() } else { own };
        Self { retry: retry.clone(), budget: bucket, own, deadline: config.attempts().deadline() }
    }
}

impl Persistence {
    /// Follows another configuration. Called with its lock held, as [`Family::persistence`] is.
    pub(super) fn follow(&self, config: &Config) {
        if let Some(shared) = self.0.get() {
            let mut tactics = shared.tactics.lock();
            *tactics = Arc::new(Tactics::of(config, tactics.own.clone()));
        }
    }

    pub(super) fn counts(&self, now: Stamp) -> AttemptCounts {
        self.0.get().map_or_else(AttemptCounts::default, |shared| shared.tally.counts(now))
    }
}

impl Family {
    fn persistence(&self) -> &Shared {
        let Persistence(shared) = &self.persistence;
        shared.get().unwrap_or_else(|| {
            // Under the lock of what it is made from, so that no change of that is missed.
            let config = self.config.lock();
            shared.get_or_init(|| {
                let tactics = Mutex::new(Arc::new(Tactics::of(&config, None)));
                Box::new(Shared { tactics, tally: Tally::new(Stamp::now()) })
            })
        })
    }

    fn settle_attempt(&self, fate: Fate) {
        self.persistence().tally.fates[fate as usize].fetch_add(1, Ordering::Relaxed);
        self.meter.attempt(fate);
    }
}

/// What a call may say for itself in place of its command.
#[derive(Debug)]
pub(crate) struct Journey {
    /// Of each attempt, in nanoseconds; `None` is the command's.
    pub(super) timeout: Option<u64>,
    /// Of all of them, in nanoseconds; `None` is the command's.
    pub(super) deadline: Option<u64>,
    pub(super) retry: Option<Retry>,
    course: Course,
    /// From the first poll on.
    tactics: Option<Arc<Tactics>>,
}

impl Journey {
    pub(super) fn new() -> Self {
        Self { timeout: None, deadline: None, retry: None, course: Course::new(Stamp::NEVER), tactics: None }
    }

    /// The call begins.
    pub(super) fn begin(&mut self, core: &Core) {
        let (shared, now) = (core.family.persistence(), Stamp::now());
        let tactics = Arc::clone(&shared.tactics.lock());
        self.course = Course::new(now.plus(self.deadline.unwrap_or(tactics.deadline)));
        if let Some(bucket) = &tactics.budget {
            bucket.deposit(now);
        }
        shared.tally.call(now);
        self.tactics = Some(tactics);
    }

    /// When the call must have ended.
    pub(super) fn until(&self) -> Stamp {
        self.course.until()
    }

    /// How long an attempt may take that begins now, in nanoseconds; `None` is the command's timeout.
    pub(super) fn limit(&self, core: &Core) -> Option<u64> {
        if self.until() == Stamp::NEVER {
            return self.timeout;
        }
        let own = self.timeout.unwrap_or_else(|| core.family.timeout());
        Some(own.min(Stamp::now().nanos_until(self.until())))
    }

    /// An attempt was admitted and makes its operation.
    pub(super) fn start(&mut self, core: &Core) {
        self.course.start();
        core.family.persistence().tally.started.fetch_add(1, Ordering::Relaxed);
    }

    /// When to make another attempt after this one, if there is to be one.
    pub(super) fn next<T, E>(
        &mut self,
        core: &Core,
        result: &Result<T, Error<E>>,
        verdict: Verdict,
        again: Again,
    ) -> Option<Stamp> {
        let ended = match result {
            Err(Error::Rejected(rejected)) if !rejected.was_started() => {
                Ended::Refused(rejected.retry_after().map(saturating_nanos))
            }
            _ => Ended::Ran,
        };
        let late = matches!(result, Err(Error::TimedOut(_)));
        let answered = matches!(verdict, Verdict::Success | Verdict::Ignored) && again == Again::No;
        self.decide(core, ended, late, answered, again)
    }

    fn decide(&mut self, core: &Core, ended: Ended, late: bool, answered: bool, again: Again) -> Option<Stamp> {
        if answered {
            core.family.settle_attempt(Fate::Success);
            return None;
        }
        let tactics = self.tactics.as_ref().expect("since the first poll");
        let retry = self.retry.as_ref().unwrap_or(&tactics.retry);
        let again = if late && !retry.timeouts { Again::No } else { again };
        let (attempt, now) = (self.course.attempt(), Stamp::now());
        let next = self.course.next(now, retry, tactics.budget.as_ref(), ended, again, fastrand::f64);
        match next {
            // A refusal that is waited for was no attempt.
            Ok(_) if matches!(ended, Ended::Refused(Some(_))) => {}
            Ok(_) => core.family.settle_attempt(Fate::Retried),
            Err(fate) => core.family.settle_attempt(fate),
        }
        if let Ok(at) = next {
            let wait = at.since(now);
            tracing::debug!(target: "fusebox", command = %core.name(), attempt, ?wait, "attempted again");
        }
        next.ok()
    }

    /// Whether the time for all attempts has passed.
    pub(super) fn is_over(&self) -> bool {
        Stamp::now() >= self.until()
    }
}

/// Attempts of all time, and those of late.
#[derive(Debug)]
struct Tally {
    calls: AtomicU64,
    started: AtomicU64,
    fates: [AtomicU64; 4],
    /// Where the running slice of `recent` ends.
    edge: AtomicU64,
    recent: Mutex<Ring<Reading>>,
}

/// Calls and started attempts at one moment, modulo 2^32.
#[derive(Clone, Copy, Debug)]
struct Reading([u32; 2]);

impl ring::Reading for Reading {
    fn idle(&self) -> Self {
        *self
    }
}

/// What "of late" is: ten seconds, in tenths.
const SLICE: u64 = 1_000_000_000;
const SLICES: usize = 10;

impl Tally {
    fn new(now: Stamp) -> Self {
        let zero = || AtomicU64::new(0);
        let ring = Ring::new(now, SLICE, SLICES, Reading([0; 2]));
        Self {
            calls: zero(),
            started: zero(),
            fates: std::array::from_fn(|_| zero()),
            edge: AtomicU64::new(ring.edge().as_nanos()),
            recent: Mutex::new(ring),
        }
    }

    fn call(&self, now: Stamp) {
        if now.as_nanos() >= self.edge.load(Ordering::Relaxed) {
            self.roll(&mut self.recent.lock(), now);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Needs the ring's lock.
    fn roll(&self, ring: &mut Ring<Reading>, now: Stamp) {
        ring.roll(now, |_| self.read());
        self.edge.store(ring.edge().as_nanos(), Ordering::Relaxed);
    }

    fn read(&self) -> Reading {
        Reading([&self.calls, &self.started].map(|counter| counter.load(Ordering::Relaxed) as u32))
    }

    fn counts(&self, now: Stamp) -> AttemptCounts {
        let mut ring = self.recent.lock();
        self.roll(&mut ring, now);
        let (Reading([calls, started]), Reading([calls_then, started_then])) = (self.read(), *ring.oldest());
        drop(ring);
        let [success, retried, exhausted, budget_denied] =
            Fate::ALL.map(|fate| self.fates[fate as usize].load(Ordering::Relaxed));
        AttemptCounts {
            calls: self.calls.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            success,
            retried,
            exhausted,
            budget_denied,
            recent: [calls.wrapping_sub(calls_then), started.wrapping_sub(started_then)],
        }
    }
}

/// The attempts of the calls that may have several, over the life of a command.
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Command, Retry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let users = Command::builder("users").build()?;
/// let mut answers = [Err("reset"), Ok(7)].into_iter();
/// let user = users.retry(|| std::future::ready(answers.next().unwrap())).with(Retry::constant(Duration::ZERO)).await?;
///
/// let attempts = users.snapshot().attempts();
/// assert_eq!((user, attempts.calls, attempts.started), (7, 1, 2));
/// assert_eq!((attempts.retried, attempts.success), (1, 1));
/// assert_eq!(attempts.amplification(), Some(2.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptCounts {
    /// Calls that may have several attempts.
    pub calls: u64,
    /// Operations that they have started.
    pub started: u64,
    /// Attempts that gave their call its answer.
    pub success: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Attempts that failed and were the last: not worth another, or attempts or time were used up.
    pub exhausted: u64,
    /// Attempts that failed and were the last because the budget was empty.
    pub budget_denied: u64,
    /// Of the last ten seconds: calls, and operations started.
    recent: [u32; 2],
}

impl AttemptCounts {
    /// Operations started per call, over the last ten seconds; `None` without calls. Above 1 the dependency gets more
    /// load than its callers have work for it; the budget holds it at 1 + share, in the long run. Of calls that are
    /// mostly refused it is less than 1.
    pub fn amplification(&self) -> Option<f64> {
        let [calls, started] = self.recent;
        (calls > 0).then(|| f64::from(started) / f64::from(calls))
    }

    /// For a series, which cannot be taken back when there are no calls for a while.
    pub(super) fn shown_amplification(&self) -> Option<f64> {
        self.amplification().or((self.calls > 0).then_some(1.0))
    }
}
