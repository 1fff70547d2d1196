//! The future of a call that may be attempted more than once: attempts with waits in between, then the fallback.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use super::core::Core;
use super::effort::sealed::Effort;
use super::effort::{Alone, Scope};
use super::fallback::sealed::RecoverFrom;
use super::fallback::{Falling, NoFallback, Recover, Rescue};
use super::hedged::Hedged;
use super::judge::sealed::Judge;
use super::judge::{ByVerdict, When};
use super::persistence::Journey;
use super::work::{Repeat, Work};
use crate::error::Error;
use crate::hedge::Hedge;
use crate::outcome::{Again, Classify, Verdict};
use crate::retry::Retry;
use crate::time::{Timer, saturating_nanos, timer};

/// A call that is attempted again when it fails: the future of [`Command::retry`](crate::Command::retry), with options
/// for this call alone.
///
/// Each attempt is a call to the command like any other: it is admitted by circuit and bulkhead, has a timeout, and is
/// counted by its own outcome. Between attempts nothing is held but a token of the budget. The fallback comes last, once,
/// with the error of the last attempt.
///
/// * A failure is worth another attempt; a result that the classifier [ignores](Verdict::Ignored) never is, a timeout
///   only if the policy [says so](Retry::timeouts). Classifier ([`Classify::again`]) and [`when`](Self::when) can differ.
/// * [`Verdict::OpenFor`], and [`Again::After`], take the place of the policy's delay.
/// * A refusal with a `retry_after`, as by an open circuit, costs no attempt. If the call has a deadline, and it lies
///   beyond that wait, the call waits for no less and tries again; otherwise the refusal is its result at once.
/// * Other refusals, as by a full bulkhead, are attempts, and cost nothing of the budget.
/// * Where the [`Budget`](crate::Budget) is empty, the last result is the call's.
///
/// Nothing happens before the first poll.
///
/// # Errors
///
/// The three cases of [`Error`], of the last attempt.
///
/// # Panics
///
/// As [`Call`](crate::Call) does; and outside a tokio runtime, when it first has to wait between attempts.
///
/// # Cancel safety
///
/// A call may be dropped at any point. Before its first poll it leaves no trace. While an attempt runs or waits for a
/// place, that attempt counts as cancelled; between attempts nothing is counted, and the token of the attempt that never
/// came goes back to the budget. While the fallback runs, the fallback is dropped.
#[must_use = "a call does nothing unless it is polled"]
#[pin_project]
pub struct Retrying<'c, W: Work, A, K, J = ByVerdict, B: Recover = NoFallback> {
    core: &'c Core,
    operation: W,
    classify: K,
    judge: J,
    fallback: Option<B>,
    journey: Journey,
    #[pin]
    state: State<'c, A, B::Running, W::Ok, W::Err>,
}

/// Named by what is awaited.
#[pin_project(project = StateProj)]
enum State<'c, A, R, T, E> {
    FirstPoll,
    Attempt(#[pin] A),
    NextAttempt {
        #[pin]
        timer: Timer,
        /// What the last attempt came to, for the case that there is no time for another; taken when the wait ends.
        last: Option<(Result<T, Error<E>>, Verdict)>,
    },
    Fallback(#[pin] Falling<'c, R>),
    Ended,
}

impl<'c, W: Repeat, K> Retrying<'c, W, Alone<'c, W::Future>, K> {
    pub(crate) fn new(core: &'c Core, operation: W, classify: K) -> Self {
        let (judge, journey) = (ByVerdict, Journey::new());
        Self { core, operation, classify, judge, fallback: None, journey, state: State::FirstPoll }
    }
}

impl<'c, W: Repeat, K> Hedged<'c, W, K> {
    /// A call of one attempt, which is hedged.
    pub(crate) fn hedged(core: &'c Core, operation: W, classify: K) -> Self {
        let (judge, mut journey) = (ByVerdict, Journey::new());
        journey.once = true;
        Self { core, operation, classify, judge, fallback: None, journey, state: State::FirstPoll }
    }
}

impl<'c, W: Work, K, J, B: Recover> Retrying<'c, W, Alone<'c, W::Future>, K, J, B> {
    /// The policy for this call, in place of the command's.
    pub fn with(mut self, retry: Retry) -> Self {
        self.journey.retry = Some(retry);
        self
    }

    /// Hedges each attempt of this call: see [`Command::hedge`](crate::Command::hedge). What is attempted again is then
    /// two attempts that have both failed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use fusebox::{Command, Hedge, Retry};
    ///
    /// # async fn search(text: &str) -> Result<usize, std::io::Error> { Ok(text.len()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let command = Command::builder("docs.retry.hedge").build()?;
    /// let found = command
    ///     .retry(|| search("tea"))
    ///     .with(Retry::default().attempts(2))
    ///     .hedge(Hedge::percentile(0.99))
    ///     .deadline(Duration::from_millis(500))
    ///     .await?;
    /// # assert_eq!(found, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hedge(self, hedge: Hedge) -> Hedged<'c, W, K, J, B> {
        let Self { core, operation, classify, judge, fallback, mut journey, .. } = self;
        journey.hedge = Some(hedge);
        Retrying { core, operation, classify, judge, fallback, journey, state: State::FirstPoll }
    }
}

impl<W: Work, K, J, B: Recover> Hedged<'_, W, K, J, B> {
    /// When the second attempt of this call is sent, in place of the command's policy.
    pub fn with(mut self, hedge: Hedge) -> Self {
        self.journey.hedge = Some(hedge);
        self
    }

    /// Attempts again what has failed twice.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.journey.retry = Some(retry);
        self.journey.once = false;
        self
    }
}

impl<'c, W: Work, A, K, J> Retrying<'c, W, A, K, J> {
    /// What the caller gets in place of the last error, as [`Call::fallback`](crate::Call::fallback) has it.
    pub fn fallback<B, Fut>(self, fallback: B) -> Retrying<'c, W, A, K, J, Rescue<B, Fut>>
    where
        B: FnOnce(Error<W::Err>) -> Fut,
        Fut: Future<Output = Result<W::Ok, Error<W::Err>>>,
    {
        let Self { core, operation, classify, judge, journey, .. } = self;
        let fallback = Some(Rescue::new(fallback));
        Retrying { core, operation, classify, judge, fallback, journey, state: State::FirstPoll }
    }
}

impl<'c, W: Work, A, K, J, B: Recover> Retrying<'c, W, A, K, J, B> {
    /// How long each attempt of this call may take.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.journey.timeout = Some(saturating_nanos(limit));
        self
    }

    /// Lets each attempt of this call take as long as it likes.
    pub fn no_timeout(mut self) -> Self {
        self.journey.timeout = Some(u64::MAX);
        self
    }

    /// How long this call may take with all its attempts and the waits in between, without the fallback.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.journey.deadline = Some(saturating_nanos(limit));
        self
    }

    /// Says which results of this call are worth another attempt, and after what wait where that is known, in place of
    /// the classifier. It sees successes, failures, timeouts and refusals, and returns a `bool` or an [`Again`]. Results
    /// that the classifier [ignores](Verdict::Ignored) are final, and timeouts are unless the policy
    /// [says otherwise](Retry::timeouts); so is a refusal that cannot be waited for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use fusebox::{Again, Command, Error, Retry};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fusebox::ConfigError> {
    /// enum Down { Busy(Duration), Gone }
    ///
    /// let queue = Command::builder("docs.when").build()?;
    /// let mut answers = [Err(Down::Busy(Duration::from_millis(5))), Ok(None), Ok(Some("job"))].into_iter();
    /// let job = queue
    ///     .retry(|| std::future::ready(answers.next().unwrap()))
    ///     .with(Retry::constant(Duration::from_millis(1)))
    ///     .when(|result| match result {
    ///         Err(Error::Failed(Down::Busy(wait))) => Again::After(*wait),
    ///         Err(Error::Failed(Down::Gone)) => Again::No,
    ///         Ok(job) => job.is_none().into(),
    ///         Err(_) => Again::Yes,
    ///     })
    ///     .await;
    /// assert!(matches!(job, Ok(Some("job"))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn when<P, R>(self, judge: P) -> Retrying<'c, W, A, K, When<P>, B>
    where
        P: Fn(&Result<W::Ok, Error<W::Err>>) -> R,
        R: Into<Again>,
    {
        let Self { core, operation, classify, fallback, journey, .. } = self;
        Retrying { core, operation, classify, judge: When(judge), fallback, journey, state: State::FirstPoll }
    }

    /// Judges the results of this call's attempts in place of the command's classifier.
    pub fn classify<F>(self, classify: F) -> Retrying<'c, W, A, F, J, B>
    where
        F: Fn(&Result<W::Ok, W::Err>) -> Verdict,
    {
        let Self { core, operation, judge, fallback, journey, .. } = self;
        Retrying { core, operation, classify, judge, fallback, journey, state: State::FirstPoll }
    }
}

impl<'c, W, A, K, J, B> Future for Retrying<'c, W, A, K, J, B>
where
    W: Repeat,
    A: Effort<'c, W, K>,
    K: Classify<W::Ok, W::Err>,
    J: Judge<W::Ok, W::Err, K>,
    B: Recover + RecoverFrom<W::Ok, W::Err>,
{
    type Output = Result<W::Ok, Error<W::Err>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let core = *this.core;
        // Each turn leaves one state, by `continue` or with a result that is the call's.
        loop {
            let (result, verdict) = match this.state.as_mut().project() {
                StateProj::FirstPoll => {
                    this.journey.begin(core);
                    this.state.set(State::Attempt(A::fresh(this.journey.limit(core))));
                    continue;
                }
                StateProj::Attempt(effort) => {
                    let mut verdict = Verdict::Failure;
                    let scope =
                        Scope { core, operation: this.operation, classify: this.classify, journey: this.journey };
                    let mut result = ready!(effort.poll(scope, &mut verdict, cx));
                    let mut again = Again::No;
                    if verdict != Verdict::Ignored {
                        (result, again) = this.judge.judge(this.classify, result, verdict);
                    }
                    if let Some(at) = this.journey.next(core, &result, verdict, again) {
                        let last = Some((result, verdict));
                        this.state.set(State::NextAttempt { timer: timer(at, 0), last });
                        continue;
                    }
                    (result, verdict)
                }
                StateProj::NextAttempt { timer, last } => {
                    ready!(timer.poll(cx));
                    // A timer may be late, and then too late.
                    if !this.journey.is_over() {
                        this.state.set(State::Attempt(A::fresh(this.journey.limit(core))));
                        continue;
                    }
                    last.take().expect("the wait ends once")
                }
                StateProj::Fallback(falling) => {
                    let (result, slot) = ready!(falling.poll::<B, _, _>(cx));
                    this.state.set(State::Ended);
                    slot.resolve(result.is_ok());
                    return Poll::Ready(result);
                }
                StateProj::Ended => panic!("a `Retrying` was polled after it had ended"),
            };
            this.state.set(State::Ended);
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

impl<W: Work, A, K, J, B: Recover> fmt::Debug for Retrying<'_, W, A, K, J, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::FirstPoll => "not polled",
            State::Attempt(_) => "attempting",
            State::NextAttempt { .. } => "waiting for the next attempt",
            State::Fallback(_) => "falling back",
            State::Ended => "ended",
        };
        f.debug_struct("Retrying").field("command", &self.core.name()).field("state", &state).finish_non_exhaustive()
    }
}
