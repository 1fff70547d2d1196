//! Two attempts that race.
//!
//! The second is sent when the first has run for the delay of the policy, or at once when the first has failed before
//! that; it is admitted for itself and paid for out of the budget. The first success is the call's answer, and the other
//! attempt is dropped before that is returned.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::attempt::Attempt;
use super::core::Core;
use super::effort::{Scope, sealed};
use super::judge::ByVerdict;
use super::judge::sealed::Judge;
use super::persistence::Permission;
use super::retrying::Retrying;
use super::work::{Repeat, Work};
use crate::error::Error;
use crate::hedge::HedgeOutcome;
use crate::outcome::{Again, Classify, Verdict};
use crate::time::{Timer, timer};

/// A call whose attempts may be hedged: the future of [`Command::hedge`](crate::Command::hedge) and of
/// [`Retrying::hedge`].
pub type Hedged<'c, W, K, J = ByVerdict, B = super::fallback::NoFallback> = Retrying<'c, W, Pair<'c, W>, K, J, B>;

/// Two attempts that race.
#[pin_project]
pub struct Pair<'c, W: Work> {
    #[pin]
    first: Option<Attempt<'c, (), W::Future>>,
    #[pin]
    second: Option<Attempt<'c, (), W::Future>>,
    /// Of the wait for the second one.
    #[pin]
    delay: Option<Timer>,
    plan: Plan,
    /// Leave to start the second one, until it starts.
    permission: Option<Permission>,
    /// Once the second has started.
    hedge: Option<RunningHedge<'c>>,
    /// What one of them failed with, while the other runs.
    failed: Option<Failed<W::Ok, W::Err>>,
}

type Failed<T, E> = (Result<T, Error<E>>, Verdict);

/// Whether there is to be a second attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plan {
    Undecided,
    /// When the first has run for so long, in nanoseconds, or failed.
    After(u64),
    /// There is none, or it has been sent.
    Settled,
}

/// A second attempt that was started. Dropped without having won, it has lost.
struct RunningHedge<'c> {
    core: &'c Core,
    outcome: HedgeOutcome,
}

impl Drop for RunningHedge<'_> {
    fn drop(&mut self) {
        self.core.family.settle_hedge(self.outcome);
    }
}

/// Whether it is the call's answer, whatever the other attempt will say.
fn is_answer(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Success | Verdict::Ignored)
}

impl<'c, W, K> sealed::Effort<'c, W, K> for Pair<'c, W>
where
    W: Repeat,
    K: Classify<W::Ok, W::Err>,
{
    fn fresh(timeout: Option<u64>) -> Self {
        let first = Some(Attempt::new((), timeout));
        let (plan, second) = (Plan::Undecided, None);
        Self { first, second, delay: None, plan, permission: None, hedge: None, failed: None }
    }

    fn poll(
        self: Pin<&mut Self>,
        scope: Scope<'_, 'c, W, K>,
        verdict: &mut Verdict,
        cx: &mut Context<'_>,
    ) -> Poll<Result<W::Ok, Error<W::Err>>> {
        let Scope { core, operation, classify, journey } = scope;
        let mut this = self.project();
        let until = journey.until();
        if *this.plan == Plan::Undecided {
            *this.plan = journey.hedge_delay(core).map_or(Plan::Settled, Plan::After);
        }
        if let Some(first) = this.first.as_mut().as_pin_mut() {
            let make = |(), _: &mut _| {
                journey.start(core);
                operation.again()
            };
            let mut judged = Verdict::Failure;
            if let Poll::Ready(mut result) = first.poll(core, classify, until, make, &mut judged, cx) {
                this.first.set(None);
                if is_answer(judged) {
                    if let Some(second) = this.second.as_mut().as_pin_mut() {
                        second.abandon();
                    }
                    this.second.set(None);
                    *this.hedge = None;
                    *verdict = judged;
                    return Poll::Ready(result);
                }
                if *this.plan != Plan::Settled {
                    *this.plan = Plan::Settled;
                    let worth;
                    (result, worth) = is_worth_a_hedge(classify, result, judged);
                    *this.permission = if worth { journey.permit_hedge(core) } else { None };
                }
                *this.failed = Some((result, judged));
            }
        }
        if let Plan::After(delay) = *this.plan {
            let running = this.first.as_ref().as_pin_ref().and_then(|first| first.get_ref().admitted());
            if let Some(admitted) = running.filter(|_| delay != u64::MAX) {
                if this.delay.is_none() {
                    this.delay.set(Some(timer(admitted, delay)));
                }
                let armed = this.delay.as_mut().as_pin_mut().expect("it was just armed");
                if armed.poll(cx).is_ready() {
                    *this.plan = Plan::Settled;
                    *this.permission = journey.permit_hedge(core);
                }
            }
        }
        if this.permission.is_some() && this.second.is_none() {
            this.second.set(Some(Attempt::new((), journey.limit(core))));
        }
        if let Some(second) = this.second.as_mut().as_pin_mut() {
            let (permission, hedge) = (&mut *this.permission, &mut *this.hedge);
            let make = |(), _: &mut _| {
                permission.take().expect("it was sent with leave").spend();
                journey.start(core);
                *hedge = Some(RunningHedge { core, outcome: HedgeOutcome::Lost });
                operation.again()
            };
            let mut judged = Verdict::Failure;
            if let Poll::Ready(result) = second.poll(core, classify, until, make, &mut judged, cx) {
                this.second.set(None);
                *this.permission = None;
                if is_answer(judged) {
                    if let Some(first) = this.first.as_mut().as_pin_mut() {
                        first.abandon();
                    }
                    this.first.set(None);
                    if let Some(mut hedge) = this.hedge.take() {
                        hedge.outcome = HedgeOutcome::Won;
                    }
                    *verdict = judged;
                    return Poll::Ready(result);
                }
                // A second attempt that never ran has nothing to say beside a first that did.
                if this.hedge.take().is_some() || (this.first.is_none() && this.failed.is_none()) {
                    *this.failed = Some((result, judged));
                }
            }
        }
        if this.first.is_some() || this.second.is_some() {
            return Poll::Pending;
        }
        let (result, judged) = this.failed.take().expect("both have ended");
        *verdict = judged;
        Poll::Ready(result)
    }
}

/// Whether a first attempt failed in a way for which a second one is no gamble: it ran, not too long, and nobody asked to
/// be left alone for a while.
fn is_worth_a_hedge<T, E>(
    classify: &impl Classify<T, E>,
    result: Result<T, Error<E>>,
    verdict: Verdict,
) -> (Result<T, Error<E>>, bool) {
    if matches!(result, Err(Error::Rejected(_) | Error::TimedOut(_))) {
        return (result, false);
    }
    let (result, again) = ByVerdict.judge(classify, result, verdict);
    (result, again == Again::Yes)
}

impl<W: Work> fmt::Debug for Pair<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = |attempt: &Option<Attempt<'_, (), W::Future>>| attempt.as_ref().map(Attempt::stage);
        f.debug_tuple("Pair").field(&stage(&self.first)).field(&stage(&self.second)).finish()
    }
}
