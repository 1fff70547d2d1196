//! The future of one call: breaker, rate limit, bulkhead, timeout, operation, fallback, in this order.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use super::admission::Place;
use super::core::Core;
use super::fallback::sealed::RecoverFrom;
use super::fallback::{FallbackSlot, NoFallback, Recover, Rescue};
use super::permit::{Permit, Watch};
use super::work::Work;
use crate::error::Error;
use crate::outcome::{Classify, Verdict};
use crate::time::{Stamp, Timer, saturating_nanos, timer};

/// A call that is guarded by a command: the future of [`Command::run`](crate::Command::run),
/// [`Guard::guarded_by`](crate::Guard::guarded_by) and [`Command::spawn_blocking`](crate::Command::spawn_blocking),
/// with options for this call alone.
///
/// Nothing happens before the first poll: nothing is admitted, timed, counted or run. A call that is built and never
/// polled was never made.
///
/// # Errors
///
/// The three cases of [`Error`]: the operation failed, it took longer than the timeout, it was not started.
///
/// # Panics
///
/// A panic in the operation, the classifier or the fallback reaches the caller, after it was counted. Polled outside a
/// tokio runtime, a call panics when it first has to wait and has a timeout, as [`tokio::time::sleep`] does; and a call
/// panics when it is polled after it has ended.
///
/// # Cancel safety
///
/// A call may be dropped at any point. Before its first poll it leaves no trace. Waiting for a place, it leaves the
/// queue; waiting for its turn by the rate, it gives that back unless another was taken since. While the operation runs, the operation is dropped and the call counts as cancelled, which is no error of the
/// dependency and gives a probe's place back. While the fallback runs, the fallback is dropped; the outcome of the call
/// itself was recorded before.
#[must_use = "a call does nothing unless it is polled"]
#[pin_project]
pub struct Call<'c, W: Work, K, B: Recover = NoFallback> {
    core: &'c Core,
    classify: K,
    fallback: Option<B>,
    /// In nanoseconds; `None` is the command's own.
    timeout: Option<u64>,
    /// Of the wait for a turn or a slot, then of the operation. Armed when that first has to wait: most never do.
    #[pin]
    timer: Option<Timer>,
    #[pin]
    state: State<'c, W, W::Future, B::Running>,
    /// Held while the operation runs. It lies beside the state, and after it, so that nothing moves it and the operation
    /// is dropped first.
    permit: Option<Permit<'c>>,
}

/// Named by what is awaited. Work that has not started lies where the operation will, and is taken to start it.
#[pin_project(project = StateProj)]
enum State<'c, W, F, B> {
    FirstPoll(Option<W>),
    Place(Place<'c>, Option<W>),
    Operation(#[pin] F),
    Fallback {
        #[pin]
        fallback: B,
        /// Taken when the fallback ends.
        slot: Option<FallbackSlot<'c>>,
    },
    Ended,
}

impl<'c, W, F, B> State<'c, W, F, B> {
    /// The same for a call with other options, which only one that was not polled can become.
    fn unpolled<OtherB>(self) -> State<'c, W, F, OtherB> {
        match self {
            Self::FirstPoll(work) => State::FirstPoll(work),
            _ => unreachable!("a call that was polled is pinned, and cannot be moved into another"),
        }
    }
}

impl<'c, W: Work, K> Call<'c, W, K> {
    pub(crate) fn new(core: &'c Core, work: W, classify: K) -> Self {
        Self::with(core, State::FirstPoll(Some(work)), classify, None, None)
    }

    /// What the caller gets in place of an error. Called at most once, with the error, unless the verdict was
    /// [`Verdict::Ignored`]; it declines by returning the error.
    ///
    /// Fallbacks have their own limit
    /// ([`max_concurrent_fallbacks`](crate::Config::max_concurrent_fallbacks)), beyond which the caller gets the error,
    /// and no timeout.
    ///
    /// ```
    /// # use fusebox::{Command, Error};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fusebox::ConfigError> {
    /// # let pricing = Command::builder("docs.fallback").build()?;
    /// let price = pricing
    ///     .run(async || Err::<u32, _>("down"))
    ///     .fallback(|cause| async move {
    ///         match cause {
    ///             Error::Failed("no such sku") => Err(cause), // declined
    ///             _ => Ok(99),
    ///         }
    ///     })
    ///     .await;
    /// assert_eq!(price, Ok(99));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fallback<B, Fut>(self, fallback: B) -> Call<'c, W, K, Rescue<B, Fut>>
    where
        B: FnOnce(Error<W::Err>) -> Fut,
        Fut: Future<Output = Result<W::Ok, Error<W::Err>>>,
    {
        let Self { core, state, classify, timeout, .. } = self;
        Call::with(core, state.unpolled(), classify, Some(Rescue::new(fallback)), timeout)
    }
}

impl<'c, W: Work, K, B: Recover> Call<'c, W, K, B> {
    #[inline]
    fn with(
        core: &'c Core,
        state: State<'c, W, W::Future, B::Running>,
        classify: K,
        fallback: Option<B>,
        timeout: Option<u64>,
    ) -> Self {
        Self { core, classify, fallback, timeout, timer: None, state, permit: None }
    }

    /// How long this call may take. Zero gives the operation one poll.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(saturating_nanos(limit));
        self
    }

    /// Lets this call take as long as it likes.
    pub fn no_timeout(mut self) -> Self {
        self.timeout = Some(u64::MAX);
        self
    }

    /// Judges this call's result in place of the command's classifier.
    ///
    /// ```
    /// # use fusebox::{Command, Verdict};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fusebox::ConfigError> {
    /// # let pricing = Command::builder("docs.classify").build()?;
    /// let found = pricing
    ///     .run(async || Err::<u32, _>(404))
    ///     .classify(|result| match result {
    ///         Err(404) => Verdict::Ignored,
    ///         Err(_) => Verdict::Failure,
    ///         Ok(_) => Verdict::Success,
    ///     })
    ///     .await;
    /// assert_eq!(pricing.snapshot().lifetime().get("ignored"), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn classify<F>(self, classify: F) -> Call<'c, W, F, B>
    where
        F: Fn(&Result<W::Ok, W::Err>) -> Verdict,
    {
        let Self { core, state, fallback, timeout, .. } = self;
        Call::with(core, state.unpolled(), classify, fallback, timeout)
    }
}

impl<W, K, B> Future for Call<'_, W, K, B>
where
    W: Work,
    K: Classify<W::Ok, W::Err>,
    B: Recover + RecoverFrom<W::Ok, W::Err>,
{
    type Output = Result<W::Ok, Error<W::Err>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let core = *this.core;
        // Each turn leaves one state, with an error to recover from or by `continue`.
        loop {
            let cause = match this.state.as_mut().project() {
                StateProj::FirstPoll(work) => {
                    let limit = *this.timeout.get_or_insert_with(|| core.family.timeout());
                    let now = Stamp::now();
                    match core.enter(now, limit) {
                        Ok(admission) => {
                            let permit = this.permit.insert(Permit::borrowed(core, admission, now));
                            let operation = start(work, permit);
                            this.state.set(State::Operation(operation));
                            continue;
                        }
                        Err(refused) => match core.line_up(now, refused) {
                            Some((place, patience)) => {
                                this.timer.set(Some(timer(now, patience)));
                                let work = work.take();
                                this.state.set(State::Place(place, work));
                                continue;
                            }
                            None => {
                                let rejected = core.refuse(now, refused);
                                this.state.set(State::Ended);
                                Error::Rejected(rejected)
                            }
                        },
                    }
                }
                StateProj::Place(place, work) => {
                    let limit = this.timeout.expect("resolved by the first poll");
                    let admitted = ready!(place.poll(this.timer.as_mut(), limit, cx));
                    this.timer.set(None);
                    match admitted {
                        Ok(permit) => {
                            let permit = this.permit.insert(permit);
                            let operation = start(work, permit);
                            this.state.set(State::Operation(operation));
                            continue;
                        }
                        Err(rejected) => {
                            this.state.set(State::Ended);
                            Error::Rejected(rejected)
                        }
                    }
                }
                StateProj::Operation(operation) => {
                    let limit = this.timeout.expect("resolved by the first poll");
                    let permit = this.permit.as_mut().expect("held until the operation ends");
                    permit.watch(Watch::UserCode);
                    let ended = drive(operation, this.timer.as_mut(), this.classify, permit, limit, cx);
                    let Poll::Ready(ended) = ended else {
                        permit.watch(Watch::Idle);
                        return Poll::Pending;
                    };
                    let elapsed = permit.elapsed();
                    // The operation goes before its slot does, so that the limit holds for what it held too.
                    this.state.set(State::Ended);
                    let cause = match ended {
                        None => permit.give_up(limit, elapsed),
                        Some((result, verdict)) => {
                            permit.settle_verdict(verdict, elapsed);
                            match result {
                                Err(error) if verdict != Verdict::Ignored => Error::Failed(error),
                                other => return Poll::Ready(other.map_err(Error::Failed)),
                            }
                        }
                    };
                    this.timer.set(None);
                    cause
                }
                StateProj::Fallback { fallback, slot } => {
                    let running = slot.as_mut().expect("held until the fallback ends");
                    running.in_user_code = true;
                    let ended = B::poll(fallback, cx);
                    running.in_user_code = false;
                    let result = ready!(ended);
                    let slot = slot.take().expect("held until now");
                    this.state.set(State::Ended);
                    slot.resolve(result.is_ok());
                    return Poll::Ready(result);
                }
                StateProj::Ended => panic!("a `Call` was polled after it had ended"),
            };
            match recover(core, this.fallback.take(), cause) {
                Ok(fallback) => this.state.set(fallback),
                Err(cause) => return Poll::Ready(Err(cause)),
            }
        }
    }
}

/// Starts the operation. A panic in making it is the operation's.
#[inline]
fn start<W: Work>(work: &mut Option<W>, permit: &mut Permit<'_>) -> W::Future {
    let work = work.take().expect("an operation is started once");
    permit.watch(Watch::UserCode);
    let operation = work.start(permit);
    permit.watch(Watch::Idle);
    operation
}

/// Polls the operation, and its timer only if it has to wait. `None` is a timeout, or an abort.
#[inline]
fn drive<F, T, E>(
    operation: Pin<&mut F>,
    mut timer: Pin<&mut Option<Timer>>,
    classify: &impl Classify<T, E>,
    permit: &mut Permit<'_>,
    limit: u64,
    cx: &mut Context<'_>,
) -> Poll<Option<(Result<T, E>, Verdict)>>
where
    F: Future<Output = Result<T, E>>,
{
    if let Poll::Ready(result) = operation.poll(cx) {
        let verdict = classify.classify(&result);
        return Poll::Ready(Some((result, verdict)));
    }
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

/// Starts the fallback, or gives the cause back: there is none, or no slot for it.
fn recover<'c, W, F, T, E, B: RecoverFrom<T, E>>(
    core: &'c Core,
    fallback: Option<B>,
    cause: Error<E>,
) -> Result<State<'c, W, F, B::Running>, Error<E>> {
    let Some(fallback) = fallback else { return Err(cause) };
    let Some(mut slot) = FallbackSlot::take(core) else { return Err(cause) };
    slot.in_user_code = true;
    let fallback = fallback.recover(cause);
    slot.in_user_code = false;
    Ok(State::Fallback { fallback, slot: Some(slot) })
}

impl<W: Work, K, B: Recover> fmt::Debug for Call<'_, W, K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::FirstPoll(_) => "not polled",
            State::Place(..) => "waiting for a place",
            State::Operation { .. } => "running",
            State::Fallback { .. } => "falling back",
            State::Ended => "ended",
        };
        f.debug_struct("Call").field("command", &self.core.name()).field("state", &state).finish_non_exhaustive()
    }
}
