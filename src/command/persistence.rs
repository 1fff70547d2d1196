//! What the calls of a command share that may be attempted more than once, and what one of them knows of itself.
//!
//! Made by the first such call: most commands never have one, and pay a pointer.

use std::sync::{Arc, OnceLock};

use super::core::Core;
use super::family::Family;
use super::tally::{AttemptCounts, Tally};
use crate::attempts::Attempts;
use crate::budget::{Bucket, Budget, Claim};
use crate::config::Config;
use crate::error::Error;
use crate::hedge::{Hedge, HedgeOutcome};
use crate::outcome::{Again, Verdict};
use crate::retry::{Course, Ended, Fate, Retry};
use crate::sync::{Mutex, Ordering};
use crate::time::{Stamp, saturating_nanos};

#[derive(Debug, Default)]
pub(crate) struct Persistence(OnceLock<Box<Shared>>);

#[derive(Debug)]
pub(crate) struct Shared {
    tactics: Mutex<Arc<Tactics>>,
    tally: Tally,
    /// What hedges may come to that are sent after a percentile: the share of calls beyond it.
    ration: Arc<Bucket>,
    pace: Mutex<Pace>,
}

/// A percentile that was read lately. To read one takes microseconds, and it changes slowly.
#[derive(Debug, Default)]
struct Pace {
    /// Whose, by its address, and of which share.
    of: (usize, u64),
    /// Up to when it is good.
    until: u64,
    nanos: u64,
}

const PACE_IS_GOOD_FOR: u64 = 100_000_000;
/// Hedges beyond the share of calls that are slow by definition.
const RATION_BURST: u32 = 10;

/// What calls go by, as they found it when they began.
#[derive(Debug)]
pub(crate) struct Tactics {
    retry: Retry,
    hedge: Hedge,
    budget: Option<Arc<Bucket>>,
    /// The command's own bucket, which is kept while a shared one is in use.
    own: Option<Arc<Bucket>>,
    /// In nanoseconds; `u64::MAX` without.
    deadline: u64,
}

impl Tactics {
    fn of(config: &Config, own: Option<Arc<Bucket>>) -> Self {
        let Attempts { retry, hedge, budget, .. } = config.attempts();
        let bucket = budget.as_ref().map(|budget| budget.bucket(own.clone()));
        let own = if budget.as_ref().is_some_and(|budget| !budget.is_shared()) { bucket.clone() } else { own };
        Self { retry: retry.clone(), hedge: *hedge, budget: bucket, own, deadline: config.attempts().deadline() }
    }
}

impl Persistence {
    /// Follows another configuration. Called while no other takes its place, and none is made: see [`Family::persistence`].
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
            // No change of what it is made from is missed.
            let _unchanged = self.changing.lock();
            shared.get_or_init(|| {
                let tactics = Mutex::new(Arc::new(Tactics::of(&self.in_force().config, None)));
                let ration = Budget::share(0.0).floor(0.0).burst(RATION_BURST);
                let (ration, tally) = (Arc::new(Bucket::new(&ration)), Tally::new(Stamp::now()));
                Box::new(Shared { tactics, tally, ration, pace: Mutex::new(Pace::default()) })
            })
        })
    }

    fn settle_attempt(&self, fate: Fate) {
        self.persistence().tally.fates[fate as usize].fetch_add(1, Ordering::Relaxed);
        self.meter.attempt(fate);
    }
}

impl Family {
    pub(super) fn settle_hedge(&self, outcome: HedgeOutcome) {
        self.persistence().tally.hedges[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.meter.hedge(outcome);
    }
}

impl Core {
    /// The latency that a share of the calls does not exceed, in nanoseconds; `None` while there are fewer than
    /// `warm_up` of them.
    fn pace(&self, shared: &Shared, share: f64, warm_up: u32) -> Option<u64> {
        let (now, of) = (Stamp::now(), (std::ptr::from_ref(self).addr(), share.to_bits()));
        {
            let known = shared.pace.lock();
            if known.of == of && now.as_nanos() < known.until {
                return Some(known.nanos);
            }
        }
        let latency = self.latencies.as_ref()?.summary(now);
        if latency.count() < u64::from(warm_up) {
            return None;
        }
        let nanos = saturating_nanos(latency.percentile(share)?);
        *shared.pace.lock() = Pace { of, until: now.plus(PACE_IS_GOOD_FOR).as_nanos(), nanos };
        Some(nanos)
    }
}

/// Leave to start a second attempt, and what it costs.
#[derive(Debug)]
pub(crate) struct Permission {
    claims: [Option<Claim>; 2],
}

impl Permission {
    pub(super) fn spend(self) {
        self.claims.into_iter().flatten().for_each(Claim::spend);
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
    pub(super) hedge: Option<Hedge>,
    /// Not attempted again, whatever the command's policy is.
    pub(super) once: bool,
    course: Course,
    /// From the first poll on.
    tactics: Option<Arc<Tactics>>,
}

impl Journey {
    pub(super) fn new() -> Self {
        let course = Course::new(Stamp::NEVER);
        Self { timeout: None, deadline: None, retry: None, hedge: None, once: false, course, tactics: None }
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
        let own = self.timeout.unwrap_or_else(|| core.timeout());
        Some(own.min(Stamp::now().nanos_until(self.until())))
    }

    /// An attempt was admitted and makes its operation.
    pub(super) fn start(&mut self, core: &Core) {
        self.course.start();
        core.family.persistence().tally.started.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the first attempt runs before a second one is sent, in nanoseconds; `None` if none is.
    pub(super) fn hedge_delay(&self, core: &Core) -> Option<u64> {
        let shared = core.family.persistence();
        let hedge = self.hedging();
        shared.ration.credit(hedge.ration());
        match hedge {
            Hedge::After(delay) => Some(saturating_nanos(delay)),
            Hedge::Percentile { share, warm_up } => core.pace(shared, share, warm_up),
        }
    }

    fn hedging(&self) -> Hedge {
        let tactics = self.tactics.as_ref().expect("since the first poll");
        self.hedge.unwrap_or(tactics.hedge)
    }

    /// Leave to start a second attempt, if ration and budget have it.
    pub(super) fn permit_hedge(&self, core: &Core) -> Option<Permission> {
        let (shared, now) = (core.family.persistence(), Stamp::now());
        let tactics = self.tactics.as_ref().expect("since the first poll");
        let permission = self.claim(&shared.ration, tactics, now);
        if permission.is_none() {
            shared.tally.hedges_denied.fetch_add(1, Ordering::Relaxed);
        }
        permission
    }

    fn claim(&self, ration: &Arc<Bucket>, tactics: &Tactics, now: Stamp) -> Option<Permission> {
        let ration = match self.hedging() {
            Hedge::After(_) => None,
            Hedge::Percentile { .. } => Some(ration.claim(now)?),
        };
        let budget = match &tactics.budget {
            None => None,
            Some(budget) => Some(budget.claim(now)?),
        };
        Some(Permission { claims: [ration, budget] })
    }

    /// When to make another attempt after this one, if there is to be one.
    pub(super) fn next<T, E>(
        &mut self,
        core: &Core,
        result: &Result<T, Error<E>>,
        verdict: Verdict,
        again: Again,
    ) -> Option<Stamp> {
        if self.once {
            return None;
        }
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
