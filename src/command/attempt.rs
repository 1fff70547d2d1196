//! One attempt: a place in line if need be, a permit, the operation under its timeout, the verdict.
//!
//! Everything that runs an operation does it through here, once or several times: [`Call`](super::run::Call) and
//! [`Retrying`](super::retrying::Retrying).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;

use super::admission::Place;
use super::core::Core;
use super::permit::{Permit, Watch};
use crate::error::Error;
use crate::outcome::{Classify, Outcome, Verdict};
use crate::time::{Stamp, Timer, timer};

/// One attempt. Dropped before its end it counts as cancelled, if it had begun.
///
/// `S` is what the operation is made from; it lies where the operation will.
#[pin_project]
pub(crate) struct Attempt<'c, S, F> {
    /// In nanoseconds; until it is first needed it may be [`OWN`]: most calls never need it.
    timeout: u64,
    /// Of the wait for a turn or a slot, then of the operation. Armed when that first has to wait: most never do.
    #[pin]
    timer: Option<Timer>,
    #[pin]
    state: State<'c, S, F>,
    /// Held while the operation runs. It lies beside the state, and after it, so that nothing moves it and the operation
    /// is dropped first.
    permit: Option<Permit<'c>>,
}

/// The command's own timeout. As a number, because a call is held to its bytes; nobody asks for it as one.
const OWN: u64 = u64::MAX - 1;

/// Named by what is awaited.
#[pin_project(project = StateProj)]
enum State<'c, S, F> {
    FirstPoll(Option<S>),
    Place(Place<'c>, Option<S>),
    Operation(#[pin] F),
    Ended,
}

impl<'c, S, F> Attempt<'c, S, F> {
    #[inline]
    pub(crate) fn new(seed: S, timeout: Option<u64>) -> Self {
        Self { timeout: timeout.map_or(OWN, asked_for), timer: None, state: State::FirstPoll(Some(seed)), permit: None }
    }

    /// In nanoseconds. Without effect on an attempt that has begun.
    #[inline]
    pub(crate) fn set_timeout(&mut self, timeout: u64) {
        self.timeout = asked_for(timeout);
    }

    /// When it was admitted, if it is running.
    pub(crate) fn admitted(&self) -> Option<Stamp> {
        self.permit.as_ref().map(Permit::admitted)
    }

    /// Ends it, because another one was quicker: it is cancelled, and nobody's fault.
    pub(crate) fn abandon(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.state.set(State::Ended);
        if let Some(permit) = this.permit {
            let elapsed = permit.elapsed();
            permit.settle(Outcome::Cancelled, elapsed, None);
        }
    }

    /// What it is doing.
    pub(crate) fn stage(&self) -> &'static str {
        match self.state {
            State::FirstPoll(_) => "not polled",
            State::Place(..) => "waiting for a place",
            State::Operation(_) => "running",
            State::Ended => "ended",
        }
    }

    /// Goes on with it. It does not wait for a place beyond `until`; `start` makes the operation, once the attempt is
    /// admitted; a result sets the `verdict`, which a refusal and a timeout leave alone. (It is not a part of what is
    /// returned, because that would be built in memory on the path of every call.)
    #[inline(always)]
    pub(crate) fn poll<T, E>(
        self: Pin<&mut Self>,
        core: &'c Core,
        classify: &impl Classify<T, E>,
        until: Stamp,
        mut start: impl FnMut(S, &mut Permit<'c>) -> F,
        verdict: &mut Verdict,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Error<E>>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut this = self.project();
        // Each turn leaves one state, by `continue`, or ends the attempt.
        loop {
            match this.state.as_mut().project() {
                StateProj::FirstPoll(seed) => {
                    let now = Stamp::now();
                    if let Some(permit) = core.pass(now) {
                        let permit = this.permit.insert(permit);
                        let operation = make(seed, permit, &mut start);
                        this.state.set(State::Operation(operation));
                        continue;
                    }
                    match core.enter(now, limit(this.timeout, core)) {
                        Ok(admission) => {
                            let permit = this.permit.insert(Permit::borrowed(core, admission, now));
                            let operation = make(seed, permit, &mut start);
                            this.state.set(State::Operation(operation));
                        }
                        Err(refused) => match core.line_up(now, refused, until) {
                            Some((place, patience)) => {
                                this.timer.set(Some(timer(now, patience)));
                                let seed = seed.take();
                                this.state.set(State::Place(place, seed));
                            }
                            None => {
                                let rejected = core.refuse(now, refused);
                                this.state.set(State::Ended);
                                return Poll::Ready(Err(Error::Rejected(rejected)));
                            }
                        },
                    }
                }
                StateProj::Place(place, seed) => {
                    let admitted = ready!(place.poll(this.timer.as_mut(), this.timeout, cx));
                    this.timer.set(None);
                    match admitted {
                        Ok(permit) => {
                            let permit = this.permit.insert(permit);
                            let operation = make(seed, permit, &mut start);
                            this.state.set(State::Operation(operation));
                        }
                        Err(rejected) => {
                            this.state.set(State::Ended);
                            return Poll::Ready(Err(Error::Rejected(rejected)));
                        }
                    }
                }
                StateProj::Operation(operation) => {
                    let permit = this.permit.as_mut().expect("held until the operation ends");
                    permit.watch(Watch::UserCode);
                    let ended = drive(operation, this.timer.as_mut(), classify, permit, (this.timeout, core), cx);
                    let Poll::Ready(ended) = ended else {
                        permit.watch(Watch::Idle);
                        return Poll::Pending;
                    };
                    let elapsed = permit.elapsed();
                    // The operation goes before its slot does, so that the limit holds for what it held too.
                    this.state.set(State::Ended);
                    match ended {
                        Some((result, judged)) => {
                            *verdict = judged;
                            permit.settle_verdict(judged, elapsed);
                            this.timer.set(None);
                            return Poll::Ready(result.map_err(Error::Failed));
                        }
                        None => {
                            let error = permit.give_up(*this.timeout, elapsed);
                            this.timer.set(None);
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                StateProj::Ended => panic!("a `Call` was polled after it had ended"),
            }
        }
    }
}

/// Makes the operation. A panic in that is the operation's.
#[inline]
fn make<'c, S, F>(seed: &mut Option<S>, permit: &mut Permit<'c>, start: &mut impl FnMut(S, &mut Permit<'c>) -> F) -> F {
    let seed = seed.take().expect("an operation is made once");
    permit.watch(Watch::UserCode);
    let operation = start(seed, permit);
    permit.watch(Watch::Idle);
    operation
}

/// The timeout in nanoseconds, which is the command's own, as it is when this is first asked, if the call has no other.
#[inline]
fn limit(timeout: &mut u64, core: &Core) -> u64 {
    if *timeout == OWN {
        *timeout = core.timeout();
    }
    *timeout
}

/// 584 years less a nanosecond are no limit, either.
const fn asked_for(timeout: u64) -> u64 {
    if timeout == OWN { u64::MAX } else { timeout }
}

/// Polls the operation, and its timer only if it has to wait. `None` is a timeout, or an abort.
#[inline]
fn drive<F, T, E>(
    operation: Pin<&mut F>,
    mut timer: Pin<&mut Option<Timer>>,
    classify: &impl Classify<T, E>,
    permit: &mut Permit<'_>,
    (timeout, core): (&mut u64, &Core),
    cx: &mut Context<'_>,
) -> Poll<Option<(Result<T, E>, Verdict)>>
where
    F: Future<Output = Result<T, E>>,
{
    if let Poll::Ready(result) = operation.poll(cx) {
        let verdict = classify.classify(&result);
        return Poll::Ready(Some((result, verdict)));
    }
    let limit = limit(timeout, core);
    permit.note_waiting();
    if permit.is_looked_after() {
        return permit.poll_alarms(timer, limit, cx).map(|()| None);
    }
    if limit == u64::MAX {
        return Poll::Pending;
    }
    if timer.is_none() {
        timer.set(Some(self::timer(permit.admitted(), limit)));
    }
    let timer = timer.as_pin_mut().expect("it was just armed");
    timer.poll(cx).map(|()| None)
}
