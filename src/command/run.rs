//! The future of one call: one attempt, then the fallback if one is called for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use super::attempt::Attempt;
use super::core::Core;
use super::fallback::sealed::RecoverFrom;
use super::fallback::{Falling, NoFallback, Recover, Rescue};
use super::work::Work;
use crate::error::Error;
use crate::outcome::{Classify, Verdict};
use crate::time::{Stamp, saturating_nanos};

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
/// queue; waiting for its turn by the rate, it gives that back unless another was taken since. While the operation runs,
/// the operation is dropped and the call counts as cancelled, which is no error of the dependency and gives a probe's
/// place back. While the fallback runs, the fallback is dropped; the outcome of the call itself was recorded before.
#[must_use = "a call does nothing unless it is polled"]
#[pin_project]
pub struct Call<'c, W: Work, K, B: Recover = NoFallback> {
    core: &'c Core,
    classify: K,
    fallback: Option<B>,
    #[pin]
    state: State<'c, W, W::Future, B::Running>,
}

/// Named by what is awaited.
#[pin_project(project = StateProj)]
#[allow(clippy::large_enum_variant, reason = "a call is in the large one nearly all its life, and must not allocate")]
enum State<'c, W, F, B> {
    Attempt(#[pin] Attempt<'c, W, F>),
    Fallback(#[pin] Falling<'c, B>),
    Ended,
}

impl<'c, W, F, B> State<'c, W, F, B> {
    /// The same for a call with other options, which only one that was not polled can become.
    fn unpolled<OtherB>(self) -> State<'c, W, F, OtherB> {
        match self {
            Self::Attempt(attempt) => State::Attempt(attempt),
            _ => unreachable!("a call that was polled is pinned, and cannot be moved into another"),
        }
    }
}

impl<'c, W: Work, K> Call<'c, W, K> {
    #[inline]
    pub(crate) fn new(core: &'c Core, work: W, classify: K) -> Self {
        Self { core, classify, fallback: None, state: State::Attempt(Attempt::new(work, None)) }
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
        let Self { core, state, classify, .. } = self;
        Call { core, classify, fallback: Some(Rescue::new(fallback)), state: state.unpolled() }
    }
}

impl<'c, W: Work, K, B: Recover> Call<'c, W, K, B> {
    /// How long this call may take. Zero gives the operation one poll.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.set_timeout(saturating_nanos(limit));
        self
    }

    /// Lets this call take as long as it likes.
    pub fn no_timeout(mut self) -> Self {
        self.set_timeout(u64::MAX);
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
        let Self { core, state, fallback, .. } = self;
        Call { core, classify, fallback, state: state.unpolled() }
    }

    fn set_timeout(&mut self, limit: u64) {
        if let State::Attempt(attempt) = &mut self.state {
            attempt.set_timeout(limit);
        }
    }
}

impl<W, K, B> Future for Call<'_, W, K, B>
where
    W: Work,
    K: Classify<W::Ok, W::Err>,
    B: Recover + RecoverFrom<W::Ok, W::Err>,
{
    type Output = Result<W::Ok, Error<W::Err>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let core = *this.core;
        loop {
            let mut verdict = Verdict::Failure;
            let result = match this.state.as_mut().project() {
                StateProj::Attempt(attempt) => {
                    ready!(attempt.poll(core, this.classify, Stamp::NEVER, W::start, &mut verdict, cx))
                }
                StateProj::Fallback(falling) => {
                    let (result, slot) = ready!(falling.poll::<B, _, _>(cx));
                    this.state.set(State::Ended);
                    slot.resolve(result.is_ok());
                    return Poll::Ready(result);
                }
                StateProj::Ended => panic!("a `Call` was polled after it had ended"),
            };
            match result {
                Err(cause) if verdict != Verdict::Ignored => match Falling::start(core, this.fallback.take(), cause) {
                    Ok(falling) => this.state.set(State::Fallback(falling)),
                    Err(cause) => return Poll::Ready(Err(cause)),
                },
                answer => return Poll::Ready(answer),
            }
        }
    }
}

impl<W: Work, K, B: Recover> fmt::Debug for Call<'_, W, K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Attempt(attempt) => attempt.stage(),
            State::Fallback(_) => "falling back",
            State::Ended => "ended",
        };
        f.debug_struct("Call").field("command", &self.core.name()).field("state", &state).finish_non_exhaustive()
    }
}
