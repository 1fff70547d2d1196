//! Calls that do not end as they should.
//!
//! A future can be dropped after any poll, and any piece of user code in it can panic; then a permit, a probe's place, a
//! place in line or a fallback's slot is easily lost, and an outcome is recorded twice or never. It is the kind of bug
//! that almost every peer had (Hystrix #1621 and #1198, resilience4j #332, failsafe #393), and it hides in one
//! combination of many. So all of them are made: every way to begin a call, from every state that a circuit can be in,
//! with every option that has an eye on calls in flight, with an operation of up to four suspension points and every way
//! in which that can end, with every kind of fallback, under a quiet and under a panicking listener, dropped after every
//! number of polls. After each, nothing may be held, exactly one outcome may have been counted, and the circuit must
//! work.
//!
//! Held here, by their ids in the list of invariants: P2 and P3 (every permit comes back, once), P4 (a place in line), P5
//! (work outlives patience), P6 (a refused call does no work), R1 (one outcome each), R4, S2 (no probe is lost), E1
//! (one fallback at most, exactly when it is called for), E6 (a drop stops everything), X1 and X2 (panics, reentrancy), X5.
//!
//! Panics are raised by `resume_unwind`, which unwinds as `panic!` does and prints nothing.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::{Future, pending, ready};
use std::iter::{Map, Repeat, repeat};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use fusebox::{
    Again, Breaker, Budget, Bulkhead, Classify, Command, Counts, Error, Event, Guard, Hedge, Outcome, Permit, Ramp,
    RateLimit, Reason, Registry, Retry, Snapshot, State, Verdict,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::runtime::Runtime;

const TIMEOUT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_millis(50);
const OPEN_FOR: Duration = Duration::from_secs(1);

fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn blow(payload: &'static str) {
    resume_unwind(Box::new(payload));
}

// ---- what is varied ----

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Run,
    GuardedBy,
    /// With one attempt: what is tried here is what several attempts are made of.
    Retry,
    /// Likewise, as the hedge's time never comes.
    Hedge,
}

/// What the call finds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Closed,
    /// The call is the one probe.
    HalfOpen,
    /// The probe has passed, and the one stage of the ramp admits every call.
    Ramp,
    /// The circuit opens while the call is in flight, after two polls: another call fails.
    Trips,
    /// As `Trips`, and calls in flight end then.
    Aborts,
    /// A call counts as slow, and opens the circuit, before its timeout.
    Silent,
    /// As `Silent`, and calls in flight end then.
    SilentAborts,
    /// The last call counts, in place of those of a time.
    LastCalls,
    ForcedClosed,
    /// The one slot is taken, and comes free after the call has waited for two polls.
    InLine,
    /// As `InLine`, and a call that is dropped in line is dropped when the slot has just become its own (P4).
    Granted,
    /// The one slot is taken, and the wait for it ends at the third poll.
    WaitsInVain,
    /// The one slot is taken, and nobody may wait.
    Full,
    /// The rate is used up, and the call's turn comes after it has waited for two polls.
    Turn,
    /// As `Turn`, and then the one slot is taken, and comes free after one poll in line.
    TurnThenInLine,
    /// The rate is used up, and nobody may wait.
    OverRate,
    Open,
}

/// What the operation does after its suspension points.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Ok,
    Err,
    /// An error that the classifier ignores.
    Ignored,
    Never,
    PanicMaking,
    /// In place of this suspension point, or at the end.
    PanicAt(u32),
    PanicInClassifier,
    /// The future's `Drop` panics.
    PanicInDrop,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fallback {
    None,
    /// A value, after so many suspension points.
    Value(u32),
    Declines(u32),
    PanicMaking,
    PanicAfter(u32),
}

#[derive(Clone, Copy, Debug)]
struct Case {
    form: Form,
    start: Start,
    points: u32,
    ending: Ending,
    fallback: Fallback,
    listener_panics: bool,
}

// ---- what must come of it ----

#[derive(Clone, Debug, PartialEq)]
enum End {
    Value(u32),
    Failed(Oops),
    TimedOut,
    Rejected(Reason),
    Panicked(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Oops {
    Failed,
    Ignored,
}

impl Case {
    fn refused(self) -> Option<(Outcome, Reason)> {
        match self.start {
            Start::Open => Some((Outcome::ShortCircuited, Reason::CircuitOpen)),
            Start::Full => Some((Outcome::Rejected, Reason::ConcurrencyLimit)),
            Start::OverRate => Some((Outcome::RateLimited, Reason::RateLimited)),
            Start::WaitsInVain => Some((Outcome::Rejected, Reason::QueueTimeout)),
            _ => None,
        }
    }

    /// Whether the circuit ends the call before anything else does: at the third poll, or when it is slow.
    fn is_aborted(self) -> bool {
        match (self.start, self.ending) {
            (_, Ending::PanicMaking) => false,
            (Start::Aborts, Ending::Never) => self.points >= 1,
            (Start::Aborts, Ending::PanicAt(point)) => point > 2,
            (Start::Aborts, _) => self.points > 2,
            (start, ending) => start == Start::SilentAborts && ending == Ending::Never,
        }
    }

    /// Whether the operation is dropped by that, and its drop panics.
    fn dies_aborted(self) -> bool {
        self.is_aborted() && self.ending == Ending::PanicInDrop
    }

    /// Polls that end in `Pending` in line, in the operation, and in the fallback.
    fn pending(self) -> [u32; 3] {
        let in_line = match self.start {
            Start::InLine | Start::Granted | Start::WaitsInVain | Start::Turn => 2,
            Start::TurnThenInLine => 3,
            _ => 0,
        };
        let operating = match self.ending {
            _ if self.refused().is_some() => 0,
            _ if self.start == Start::Aborts && self.is_aborted() => 2,
            Ending::PanicMaking => 0,
            Ending::PanicAt(point) => point,
            Ending::Never => self.points + 1,
            _ => self.points,
        };
        let falling_back = match self.fallback {
            Fallback::Value(points) | Fallback::Declines(points) | Fallback::PanicAfter(points)
                if self.falls_back() =>
            {
                points
            }
            _ => 0,
        };
        [in_line, operating, falling_back]
    }

    fn falls_back(self) -> bool {
        let called_for = self.refused().is_some()
            || self.is_aborted() && !self.dies_aborted()
            || matches!(self.ending, Ending::Err | Ending::Never);
        called_for && self.fallback != Fallback::None
    }

    /// The outcome of a call that ran its course.
    fn outcome(self) -> Outcome {
        match self.ending {
            _ if self.refused().is_some() => self.refused().unwrap().0,
            _ if self.is_aborted() && !self.dies_aborted() => Outcome::Cancelled,
            Ending::Ok => Outcome::Success,
            Ending::Err => Outcome::Failure,
            Ending::Ignored => Outcome::Ignored,
            Ending::Never => Outcome::TimedOut,
            _ => Outcome::Panicked,
        }
    }

    fn end(self) -> End {
        let cause = match self.ending {
            // What a refused call was to run is dropped with the refusal, and its panic is the caller's; what could be
            // made again is dropped with the call.
            Ending::PanicInDrop if self.refused().is_some() && matches!(self.form, Form::Run | Form::GuardedBy) => {
                return End::Panicked("drop");
            }
            _ if self.refused().is_some() => End::Rejected(self.refused().unwrap().1),
            _ if self.is_aborted() && !self.dies_aborted() => End::Rejected(Reason::Aborted),
            Ending::Ok => End::Value(1),
            Ending::Err => End::Failed(Oops::Failed),
            Ending::Ignored => End::Failed(Oops::Ignored),
            Ending::Never => End::TimedOut,
            Ending::PanicMaking => End::Panicked("making"),
            Ending::PanicAt(_) => End::Panicked("operation"),
            Ending::PanicInClassifier => End::Panicked("classifier"),
            Ending::PanicInDrop => End::Panicked("drop"),
        };
        match self.fallback {
            Fallback::Value(_) if self.falls_back() => End::Value(2),
            Fallback::PanicMaking if self.falls_back() => End::Panicked("making the fallback"),
            Fallback::PanicAfter(_) if self.falls_back() => End::Panicked("fallback"),
            _ => cause,
        }
    }

    /// What may have been counted after so many polls, and whether that is all there will be.
    fn counted(self, polls: u32, ended: bool) -> Vec<Outcome> {
        let [in_line, operating, _] = self.pending();
        match polls {
            0 => Vec::new(),
            _ if ended || polls > in_line + operating => vec![self.outcome()],
            // The drop of the call is cut short by a panic: both names are right.
            _ if self.ending == Ending::PanicInDrop && polls > in_line => vec![Outcome::Cancelled, Outcome::Panicked],
            _ => vec![Outcome::Cancelled],
        }
    }

    fn state_after(self, polls: u32, outcome: Option<Outcome>) -> State {
        let failed = outcome.is_some_and(Outcome::is_error);
        match self.start {
            Start::ForcedClosed => State::ForcedClosed,
            Start::Open => State::Open,
            _ if failed => State::Open,
            Start::Trips | Start::Aborts if polls > 2 => State::Open,
            Start::SilentAborts if self.is_aborted() && polls > self.pending()[1] => State::Open,
            Start::HalfOpen if outcome != Some(Outcome::Success) => State::HalfOpen,
            Start::Ramp => State::HalfOpen,
            _ => State::Closed,
        }
    }
}

// ---- the user's code ----

/// What the user's code saw.
#[derive(Debug, Default)]
struct Trace {
    made: Cell<u32>,
    polled: Cell<u32>,
    dropped: Cell<u32>,
    fallbacks: Cell<u32>,
}

fn count(cell: &Cell<u32>) -> u32 {
    cell.replace(cell.get() + 1)
}

/// An operation that suspends at some points and then ends as it is told.
struct Operation {
    case: Case,
    trace: Rc<Trace>,
}

impl Future for Operation {
    type Output = Result<u32, Oops>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let point = count(&self.trace.polled);
        if self.case.ending == Ending::PanicAt(point) {
            blow("operation");
        }
        if point < self.case.points {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.case.ending {
            Ending::Never => Poll::Pending,
            Ending::Err => Poll::Ready(Err(Oops::Failed)),
            Ending::Ignored => Poll::Ready(Err(Oops::Ignored)),
            _ => Poll::Ready(Ok(1)),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        count(&self.trace.dropped);
        if self.case.ending == Ending::PanicInDrop && !thread::panicking() {
            blow("drop");
        }
    }
}

async fn suspend(points: u32) {
    for _ in 0..points {
        let mut suspended = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut suspended, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

type Boxed<'c> = Pin<Box<dyn Future<Output = Result<u32, Error<Oops>>> + 'c>>;

/// The call of a case, with its fallback.
fn call<'c>(command: &'c Command, case: Case, trace: &Rc<Trace>) -> Boxed<'c> {
    let classify = move |result: &Result<u32, Oops>| match result {
        _ if case.ending == Ending::PanicInClassifier => {
            blow("classifier");
            Verdict::Success
        }
        Ok(_) => Verdict::Success,
        Err(Oops::Ignored) => Verdict::Ignored,
        Err(Oops::Failed) => Verdict::Failure,
    };
    let noted = Rc::clone(trace);
    let fall_back = move |cause: Error<Oops>| {
        count(&noted.fallbacks);
        if case.fallback == Fallback::PanicMaking {
            blow("making the fallback");
        }
        async move {
            match case.fallback {
                Fallback::Value(points) => suspend(points).await,
                Fallback::PanicAfter(points) => {
                    suspend(points).await;
                    blow("fallback");
                }
                Fallback::Declines(points) => {
                    suspend(points).await;
                    return Err(cause);
                }
                Fallback::None | Fallback::PanicMaking => unreachable!(),
            }
            Ok(2)
        }
    };
    let has_fallback = case.fallback != Fallback::None;
    let operation = Operation { case, trace: Rc::clone(trace) };
    match case.form {
        Form::Run => {
            // The operation is made here and not in the closure, so that it is made once; the closure hands it out.
            let noted = Rc::clone(trace);
            let run = command
                .run(move || {
                    count(&noted.made);
                    if case.ending == Ending::PanicMaking {
                        blow("making");
                    }
                    operation
                })
                .classify(classify);
            if has_fallback { Box::pin(run.fallback(fall_back)) } else { Box::pin(run) }
        }
        Form::Retry | Form::Hedge => {
            let (noted, mut operation) = (Rc::clone(trace), Some(operation));
            let make = move || {
                count(&noted.made);
                if case.ending == Ending::PanicMaking {
                    blow("making");
                }
                operation.take().expect("one attempt")
            };
            match case.form {
                Form::Hedge => {
                    let hedged = command.hedge(make).with(Hedge::after(10 * OPEN_FOR)).classify(classify);
                    if has_fallback { Box::pin(hedged.fallback(fall_back)) } else { Box::pin(hedged) }
                }
                _ => {
                    let retrying = command.retry(make).with(Retry::default().attempts(1)).classify(classify);
                    if has_fallback { Box::pin(retrying.fallback(fall_back)) } else { Box::pin(retrying) }
                }
            }
        }
        Form::GuardedBy => {
            let guarded = operation.guarded_by(command).classify(classify);
            if has_fallback { Box::pin(guarded.fallback(fall_back)) } else { Box::pin(guarded) }
        }
    }
}

// ---- the stage ----

struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One probe, opens at the first error, for a second.
fn breaker(start: Start) -> Breaker {
    let breaker = Breaker::error_rate(1.0).min_calls(1).open_for(OPEN_FOR).growth(1.0).jitter(0.0);
    let silent = || breaker.clone().slow_calls(1.0, TIMEOUT / 2).count_in_flight(true);
    match start {
        Start::Ramp => breaker.ramp(Ramp::stages([1.0]).each(OPEN_FOR).min_calls(1)),
        Start::Aborts => breaker.abort_on_trip(true),
        Start::Silent => silent(),
        Start::SilentAborts => silent().abort_on_trip(true),
        Start::LastCalls => breaker.last_calls(1),
        _ => breaker,
    }
}

/// One slot, or two where another call is in flight meanwhile.
fn touchy(start: Start, listener_panics: bool) -> Command {
    let bulkhead = Bulkhead::new(if matches!(start, Start::Trips | Start::Aborts) { 2 } else { 1 });
    let bulkhead = if start == Start::Full { bulkhead } else { bulkhead.queue(1, PATIENCE) };
    let builder = match start {
        // The next call but one would have to wait for too long: a turn that is lost is one that the test misses.
        Start::Turn | Start::TurnThenInLine => {
            Command::builder("cancellation").rate_limit(RateLimit::every(PATIENCE).wait(PATIENCE))
        }
        Start::OverRate => Command::builder("cancellation").rate_limit(RateLimit::every(OPEN_FOR)),
        _ => Command::builder("cancellation"),
    };
    builder
        .registry(&Registry::new())
        .no_latency()
        .timeout(TIMEOUT)
        .bulkhead(bulkhead)
        .max_concurrent_fallbacks(1)
        // Nothing for a second attempt.
        .budget(Budget::share(0.0).floor(0.0))
        .breaker(breaker(start))
        .on_event(move |_| {
            if listener_panics {
                blow("listener");
            }
        })
        .build()
        .expect("a good configuration")
}

async fn set(command: &Command, start: Start) -> Option<Permit<'static>> {
    match start {
        Start::Closed | Start::Silent | Start::SilentAborts | Start::LastCalls => {}
        Start::Open => command.admit().unwrap().fail(),
        Start::HalfOpen => {
            command.admit().unwrap().fail();
            tokio::time::advance(OPEN_FOR).await;
        }
        Start::Ramp => {
            command.admit().unwrap().fail();
            tokio::time::advance(OPEN_FOR).await;
            command.admit().unwrap().succeed();
        }
        Start::ForcedClosed => command.force_closed("test", None),
        Start::Turn | Start::OverRate => command.admit().unwrap().ignore(),
        Start::InLine
        | Start::Granted
        | Start::WaitsInVain
        | Start::Full
        | Start::TurnThenInLine
        | Start::Trips
        | Start::Aborts => {
            return command.admit_owned().ok();
        }
    }
    None
}

/// Plays one case, dropped after `most` polls unless it has ended by then. Tells whether it had.
async fn play(case: Case, most: u32) -> bool {
    let command = touchy(case.start, case.listener_panics);
    let mut holder = set(&command, case.start).await;
    let before = command.snapshot();
    let trace = Rc::new(Trace::default());
    let counter = Arc::new(CountingWaker(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&counter));
    let mut future = call(&command, case, &trace);
    let (mut polls, mut end) = (0, None);
    while end.is_none() && polls < most {
        match case.start {
            Start::InLine | Start::Granted if polls == 2 => drop(holder.take()),
            Start::WaitsInVain | Start::Turn | Start::TurnThenInLine if polls == 2 => {
                tokio::time::advance(PATIENCE).await;
            }
            Start::TurnThenInLine if polls == 3 => drop(holder.take()),
            Start::Trips | Start::Aborts if polls == 2 => holder.take().expect("a call in flight").fail(),
            _ => {}
        }
        if case.ending == Ending::Never && trace.polled.get() == case.points + 1 {
            tokio::time::advance(TIMEOUT).await;
        }
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        polls += 1;
        end = match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(Ok(value))) => Some(End::Value(value)),
            Ok(Poll::Ready(Err(Error::Failed(oops)))) => Some(End::Failed(oops)),
            Ok(Poll::Ready(Err(Error::TimedOut(_)))) => Some(End::TimedOut),
            Ok(Poll::Ready(Err(Error::Rejected(rejected)))) => Some(End::Rejected(rejected.reason())),
            Err(payload) => Some(End::Panicked(payload.downcast_ref::<&str>().expect("one of ours"))),
        };
    }
    let wakes = counter.0.load(Ordering::Relaxed) as u32;
    // Beyond what polls ask for: by the end of a wait, and by a circuit that ends its calls.
    let others = 1 + u32::from(case.start == Start::Aborts);
    assert!(wakes <= polls + others, "{wakes} wakes for {polls} polls");
    if case.start == Start::Granted {
        drop(holder.take());
    }
    let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
    drop(holder);
    check(case, polls, end.clone(), &trace, &before, &command.snapshot());
    recover(case, &command).await;
    end.is_some()
}

/// How the counts differ: at most one call, in one outcome.
fn difference(before: &Counts, after: &Counts) -> Vec<Outcome> {
    let grown = Outcome::ALL.into_iter().flat_map(|outcome| {
        let more = after.of(outcome) - before.of(outcome);
        std::iter::repeat_n(outcome, more as usize)
    });
    grown.collect()
}

fn check(case: Case, polls: u32, end: Option<End>, trace: &Trace, before: &Snapshot, after: &Snapshot) {
    let ended = end.is_some();
    // An operation that was never started goes with the refusal or with the call: which of them its panic cuts short is
    // not laid down, and a fallback that was not reached by then is not run.
    let unstarted = case.ending == Ending::PanicInDrop && case.refused().is_some();
    let cut_short = unstarted && end == Some(End::Panicked("drop"));
    if let Some(end) = end.filter(|_| !cut_short) {
        assert_eq!(end, case.end(), "what the caller gets");
    }
    // P2, P3: nothing is held.
    let held = (after.in_flight(), after.queue_length(), after.fallbacks().in_flight);
    assert_eq!(held, (0, 0, 0), "in flight, in line, falling back");
    // R1: one outcome, and the right one; the slot's holder, where there is one, has ended meanwhile too.
    let mut counted = difference(&before.lifetime(), &after.lifetime());
    if before.in_flight() == 1 {
        let tripped = matches!(case.start, Start::Trips | Start::Aborts) && polls > 2;
        let of_holder = if tripped { Outcome::Failure } else { Outcome::Cancelled };
        let holder = counted.iter().position(|&outcome| outcome == of_holder).expect("the holder");
        counted.remove(holder);
    }
    let allowed = case.counted(polls, ended);
    assert_eq!(counted.len(), allowed.len().min(1), "one outcome: {counted:?}");
    assert!(counted.iter().all(|outcome| allowed.contains(outcome)), "{counted:?} and not {allowed:?}");
    let state = case.state_after(polls, counted.first().copied());
    assert_eq!(after.state(), state, "state after {counted:?}");

    // P6: no work before the first poll, and none for a call that is refused, or that gave up in line.
    let [in_line, operating, falling_back] = case.pending();
    let started = case.refused().is_none() && polls > in_line;
    let made = u32::from(started && case.form != Form::GuardedBy);
    assert_eq!(trace.made.get(), made, "operations made");
    assert!(started || trace.polled.get() == 0, "it ran");
    // E6: the operation is gone with the call.
    assert_eq!(trace.dropped.get(), 1, "operations dropped");

    // E1: one fallback, when one is called for.
    let fell_back = case.falls_back() && polls > in_line + operating && !cut_short;
    assert_eq!(trace.fallbacks.get(), u32::from(fell_back), "fallbacks started");
    let done = fell_back && polls > in_line + operating + falling_back;
    let value = matches!(case.fallback, Fallback::Value(_));
    let fallbacks = after.fallbacks();
    let expected = (u64::from(done && value), u64::from(done && !value), 0);
    assert_eq!((fallbacks.success, fallbacks.failure, fallbacks.rejected), expected, "fallbacks by their end");
}

/// S2: whatever became of the call, the next good one is admitted, and closes the circuit if it was not closed.
async fn recover(case: Case, command: &Command) {
    if command.state() == State::Open || case.start == Start::OverRate {
        tokio::time::advance(OPEN_FOR).await;
    }
    assert_eq!(command.run(async || Ok::<_, Oops>(3)).await, Ok(3), "a later call");
    // The probe, the stage's evidence, and the call that finds the stage over.
    for _ in 0..if case.start == Start::Ramp { 2 } else { 0 } {
        tokio::time::advance(OPEN_FOR).await;
        assert_eq!(command.run(async || Ok::<_, Oops>(3)).await, Ok(3), "a call of the ramp");
    }
    let closed = if case.start == Start::ForcedClosed { State::ForcedClosed } else { State::Closed };
    assert_eq!(command.state(), closed, "a later call closes the circuit");
}

fn cases(form: Form) -> Vec<Case> {
    let starts = [
        Start::Closed,
        Start::HalfOpen,
        Start::Ramp,
        Start::Trips,
        Start::Aborts,
        Start::Silent,
        Start::SilentAborts,
        Start::LastCalls,
        Start::ForcedClosed,
        Start::InLine,
        Start::Granted,
        Start::WaitsInVain,
        Start::Full,
        Start::Open,
        Start::Turn,
        Start::TurnThenInLine,
        Start::OverRate,
    ];
    let fallbacks = [
        Fallback::None,
        Fallback::Value(0),
        Fallback::Value(2),
        Fallback::Declines(0),
        Fallback::Declines(1),
        Fallback::PanicMaking,
        Fallback::PanicAfter(0),
        Fallback::PanicAfter(1),
    ];
    let mut cases = Vec::new();
    for start in starts {
        for points in 0..=4 {
            let mut endings = vec![Ending::Ok, Ending::Err, Ending::Ignored, Ending::Never];
            endings.extend([Ending::PanicInClassifier, Ending::PanicInDrop]);
            endings.extend((0..=points).map(Ending::PanicAt));
            if form != Form::GuardedBy {
                endings.push(Ending::PanicMaking);
            }
            for (ending, fallback) in endings.into_iter().flat_map(|ending| fallbacks.map(|f| (ending, f))) {
                let quiet_only = matches!(form, Form::Retry | Form::Hedge);
                for listener_panics in [false, true].into_iter().take(if quiet_only { 1 } else { 2 }) {
                    cases.push(Case { form, start, points, ending, fallback, listener_panics });
                }
            }
        }
    }
    cases
}

/// P2, P3, P4, P6, R1, R4, S2, E1, E6, X1: the matrix of one way to begin a call. Counts its cases.
fn matrix(form: Form) -> u32 {
    let mut played = 0;
    paused().block_on(async {
        for case in cases(form) {
            for polls in 0.. {
                played += 1;
                let ended = AssertUnwindSafe(play(case, polls)).catch_unwind().await;
                let Ok(ended) = ended else { panic!("{case:?}, dropped after {polls} polls") };
                if ended {
                    break;
                }
            }
        }
    });
    played
}

#[test]
fn nothing_is_lost_however_a_call_by_run_ends() {
    assert!(matrix(Form::Run) > 55_000);
}

#[test]
fn nothing_is_lost_however_a_call_by_guarded_by_ends() {
    assert!(matrix(Form::GuardedBy) > 50_000);
}

#[test]
fn nothing_is_lost_however_a_call_by_retry_ends() {
    assert!(matrix(Form::Retry) > 25_000);
}

#[test]
fn nothing_is_lost_however_a_call_by_hedge_ends() {
    assert!(matrix(Form::Hedge) > 25_000);
}

// ---- futures that move, and what surrounds them ----

fn plain() -> Command {
    touchy(Start::Closed, false)
}

fn outcomes(command: &Command) -> Vec<Outcome> {
    outcomes_of(&command.snapshot())
}

fn outcomes_of(snapshot: &Snapshot) -> Vec<Outcome> {
    difference(&Counts::default(), &snapshot.lifetime())
}

/// An operation that suspends so often and then ends.
async fn suspends(points: u32, ending: Result<u32, Oops>) -> Result<u32, Oops> {
    suspend(points).await;
    ending
}

/// Polls once on a thread of its own.
fn poll_elsewhere<T: Send>(future: &mut BoxFuture<'_, T>, runtime: &Runtime) -> Poll<T> {
    let handle = runtime.handle();
    thread::scope(|scope| {
        let poll = scope.spawn(move || {
            let _timers = handle.enter();
            future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        poll.join().unwrap_or_else(|payload| resume_unwind(payload))
    })
}

/// X6, R1: every poll on another thread, and the drop on one more.
#[test]
fn a_call_may_move_between_threads_at_every_point() {
    let runtime = paused();
    for ending in [Ok(1), Err(Oops::Failed)] {
        for most in 0..=5 {
            let command = plain();
            let mut future = command.run(|| suspends(3, ending)).boxed();
            let ended = (0..most).any(|_| poll_elsewhere(&mut future, &runtime).is_ready());
            thread::scope(|scope| drop(scope.spawn(move || drop(future))));
            let expected = match (most, ending) {
                (0, _) => vec![],
                (1..=3, _) => vec![Outcome::Cancelled],
                (_, Ok(_)) => vec![Outcome::Success],
                (_, Err(_)) => vec![Outcome::Failure],
            };
            assert_eq!((outcomes(&command), ended), (expected, most > 3), "after {most} polls");
            assert_eq!(command.snapshot().in_flight(), 0);
        }
    }
}

/// R5: a call that is dropped because its neighbour panicked did not panic itself.
#[test]
fn a_call_that_dies_in_a_strangers_panic_is_cancelled() {
    let command = plain();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut call = pin!(command.run(|| suspends(1, Ok(1))).no_timeout());
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        blow("neighbour");
    }));
    assert!(unwound.is_err());
    assert_eq!((outcomes(&command), command.state()), (vec![Outcome::Cancelled], State::Closed));
}

/// X5, E6: a task that is aborted, and a runtime that goes away under its tasks.
#[test]
fn an_aborted_task_and_a_dropped_runtime_leave_nothing_behind() {
    for abort in [true, false] {
        let runtime = paused();
        let command = plain();
        let spawned = command.clone();
        let task = runtime.spawn(async move { spawned.run(pending::<Result<u32, Oops>>).await });
        runtime.block_on(tokio::task::yield_now());
        assert_eq!(command.snapshot().in_flight(), 1);
        if abort {
            task.abort();
            assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        } else {
            drop(runtime);
        }
        assert_eq!((outcomes(&command), command.snapshot().in_flight()), (vec![Outcome::Cancelled], 0));
    }
}

/// P4: a slot that was handed to one who left in the same moment goes to the next in line, who is woken.
#[test]
fn a_slot_granted_to_a_dropped_call_goes_to_the_next_in_line() {
    paused().block_on(async {
        let command = touchy(Start::InLine, false);
        command.reconfigure(|now| now.bulkhead(Bulkhead::new(1).queue(2, PATIENCE))).unwrap();
        let holder = command.admit().unwrap();
        let woken = [(); 2].map(|()| Arc::new(CountingWaker(AtomicUsize::new(0))));
        let wakers = woken.each_ref().map(|woken| Waker::from(Arc::clone(woken)));
        let mut first = Box::pin(command.run(|| ready(Ok::<_, Oops>(1))));
        let mut second = pin!(command.run(|| ready(Ok::<_, Oops>(2))));
        assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
        assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
        holder.succeed();
        assert_eq!(woken[1].0.load(Ordering::Relaxed), 0, "the slot is the first one's");
        drop(first);
        assert_eq!(woken[1].0.load(Ordering::Relaxed), 1);
        assert_eq!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])), Poll::Ready(Ok(2)));
        assert_eq!(outcomes(&command), [Outcome::Success, Outcome::Success, Outcome::Cancelled]);
    });
}

/// A call is dropped as often as it is lost: a thousand probes in a row, none of them ever ends.
#[test]
fn no_number_of_lost_probes_holds_the_circuit_open() {
    paused().block_on(async {
        let command = plain();
        set(&command, Start::HalfOpen).await;
        for polls in (0..1_000).map(|probe| probe % 4) {
            let mut probe = Box::pin(command.run(|| suspends(9, Ok(1))));
            (0..polls).for_each(|_| assert!(probe.as_mut().now_or_never().is_none()));
        }
        assert_eq!(command.run(|| ready(Ok::<_, Oops>(1))).await, Ok(1));
        assert_eq!(command.state(), State::Closed);
    });
}

// ---- blocking work ----

/// P5, R1: what has been started holds its slot until it ends, whatever its caller was told.
#[test]
fn blocking_work_holds_its_slot_until_it_ends() {
    for timed_out in [true, false] {
        let runtime = paused();
        let command = plain();
        let (release, released) = mpsc::channel::<()>();
        let (start, started) = mpsc::channel::<()>();
        runtime.block_on(async {
            let mut call = Box::pin(command.spawn_blocking(move || {
                start.send(()).unwrap();
                released.recv().unwrap();
                Ok::<_, Oops>(1)
            }));
            assert_eq!(call.as_mut().now_or_never(), None);
            started.recv().unwrap();
            if timed_out {
                tokio::time::advance(TIMEOUT).await;
                assert!(matches!(call.as_mut().now_or_never(), Some(Err(Error::TimedOut(_)))));
            }
        });
        let expected = if timed_out { Outcome::TimedOut } else { Outcome::Cancelled };
        assert_eq!((outcomes(&command), command.snapshot().in_flight()), (vec![expected], 1));
        command.force_closed("look at the bulkhead alone", None);
        assert_eq!(command.admit().unwrap_err().reason(), Reason::ConcurrencyLimit);
        release.send(()).unwrap();
        // Waits for the closures that were started.
        drop(runtime);
        assert_eq!(command.snapshot().in_flight(), 0);
        assert!(command.admit().is_ok());
    }
}

#[test]
fn blocking_work_that_is_never_polled_is_never_started() {
    let runtime = paused();
    let command = plain();
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    drop(command.spawn_blocking(move || {
        runs.store(true, Ordering::Relaxed);
        Ok::<_, Oops>(1)
    }));
    drop(runtime);
    assert_eq!((outcomes(&command), ran.load(Ordering::Relaxed)), (vec![], false));
}

/// X1: a panic on the pool is the caller's, and counted, and holds nothing.
#[test]
fn a_panic_in_blocking_work_reaches_the_caller() {
    for start in [Start::Closed, Start::HalfOpen] {
        let runtime = paused();
        let command = touchy(start, false);
        let payload = runtime.block_on(async {
            set(&command, start).await;
            let call = command.spawn_blocking(|| -> Result<u32, Oops> { resume_unwind(Box::new("blocking")) });
            AssertUnwindSafe(call).catch_unwind().await.unwrap_err()
        });
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"blocking"));
        drop(runtime);
        let snapshot = command.snapshot();
        assert_eq!((snapshot.lifetime().of(Outcome::Panicked), snapshot.in_flight()), (1, 0));
        assert_eq!(snapshot.state(), State::Open);
    }
}

/// X1: the synchronous entry, by every panic.
#[test]
fn a_panic_in_run_sync_is_counted_and_goes_on() {
    for in_classifier in [true, false] {
        let classify = move |_: &Result<u32, Oops>| {
            if in_classifier {
                blow("classifier");
            }
            Verdict::Success
        };
        let command = Command::builder("sync").registry(&Registry::new()).max_concurrent(1).classify(classify);
        let command = command.build().unwrap();
        for times in 1..=3 {
            let call = || {
                command.run_sync(|| {
                    if !in_classifier {
                        blow("operation");
                    }
                    Ok(1)
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
            let snapshot = command.snapshot();
            assert_eq!((snapshot.lifetime().of(Outcome::Panicked), snapshot.in_flight()), (times, 0));
        }
    }
}

// ---- what decides on another attempt ----

/// Where the user's code panics between two attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Site {
    Again,
    When,
    /// The iterator of delays, when it begins and when it goes on.
    Begin,
    Next,
}

#[derive(Clone)]
struct Blows(Site);

impl IntoIterator for Blows {
    type Item = Duration;
    type IntoIter = Map<Repeat<Site>, fn(Site) -> Duration>;

    fn into_iter(self) -> Self::IntoIter {
        if self.0 == Site::Begin {
            blow("begin");
        }
        repeat(self.0).map(|site| {
            if site == Site::Next {
                blow("next");
            }
            PATIENCE
        })
    }
}

struct Judge(Site);

impl Classify<u32, Oops> for Judge {
    fn classify(&self, result: &Result<u32, Oops>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }

    fn again(&self, _: &Result<u32, Oops>, verdict: Verdict) -> Again {
        if self.0 == Site::Again {
            blow("again");
        }
        verdict.into()
    }
}

/// X1: the attempt before was counted and has given everything back, and the token for the next one is not lost.
#[test]
fn a_panic_in_what_decides_on_another_attempt_reaches_the_caller() {
    paused().block_on(async {
        for (site, payload) in
            [(Site::Again, "again"), (Site::When, "when"), (Site::Begin, "begin"), (Site::Next, "next")]
        {
            let builder = Command::builder("decides").registry(&Registry::new()).classify(Judge(site));
            let command = builder
                .max_concurrent(1)
                .breaker(Breaker::disabled())
                // One token, and the next after ten seconds.
                .budget(Budget::share(0.0).floor(0.1).burst(1))
                .retry(Retry::delays(Blows(site)).attempts(2))
                .build()
                .unwrap();
            let fails = || command.retry(|| ready(Err::<u32, _>(Oops::Failed)));
            for times in 1..=3 {
                let call = fails();
                let panicked = match site {
                    Site::When => {
                        let judge = |_: &Result<u32, Error<Oops>>| -> bool { resume_unwind(Box::new("when")) };
                        AssertUnwindSafe(call.when(judge)).catch_unwind().await
                    }
                    _ => AssertUnwindSafe(call).catch_unwind().await,
                };
                assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&payload), "{site:?}");
                let snapshot = command.snapshot();
                assert_eq!(outcomes_of(&snapshot), vec![Outcome::Failure; times], "{site:?}");
                assert_eq!(snapshot.in_flight(), 0, "{site:?}");
            }
            let mut ends = [Err(Oops::Failed), Ok(1)].into_iter();
            let retried =
                command.retry(|| ready(ends.next().unwrap())).with(Retry::constant(PATIENCE)).when(Result::is_err);
            assert_eq!(retried.await, Ok(1), "{site:?}: the token is there");
        }
    });
}

// ---- reentrancy ----

/// Runs on a thread, so that a deadlock fails instead of hanging. Nothing waits unless there is one.
fn within_seconds<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || done.send(work()).unwrap());
    match result.recv_timeout(Duration::from_secs(20)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("deadlock"),
        Err(mpsc::RecvTimeoutError::Disconnected) => resume_unwind(thread.join().unwrap_err()),
    }
}

/// X1, X2, S5 (gobreaker #37): a listener may use everything of the command it listens to; what it causes is told after
/// what it was told, to every listener, in one unbroken chain.
#[test]
fn a_listener_may_call_its_command() {
    type Act = fn(&Command);
    let acts: [(&str, Act); 9] = [
        ("snapshot", |command| drop((command.snapshot(), command.state(), format!("{command:?}")))),
        ("force_open", |command| command.force_open("listener", None)),
        ("force_closed", |command| command.force_closed("listener", Some(OPEN_FOR))),
        ("clear_override", |command| command.clear_override()),
        ("reset", |command| command.reset()),
        ("reconfigure", |command| command.reconfigure(|now| now.max_concurrent(2)).unwrap()),
        ("run_sync", |command| assert!(command.run_sync(|| Err::<u32, _>(Oops::Failed)).is_err())),
        ("admit", |command| assert!(command.admit().is_err())),
        ("publish and subscribe", |command| drop((command.publish(), command.subscribe()))),
    ];
    for (name, act) in acts {
        let (heard, told) = within_seconds(move || {
            let handle = Arc::new(Mutex::new(None::<Command>));
            let heard = Arc::new(Mutex::new(Vec::new()));
            let (inner, ear) = (Arc::clone(&handle), Arc::clone(&heard));
            let acted = AtomicBool::new(false);
            let command = Command::builder("reentrant")
                .registry(&Registry::new())
                .breaker(Breaker::error_rate(1.0).min_calls(1).jitter(0.0))
                .on_event(move |_| {
                    // Once, or a listener that causes events would never end.
                    if !acted.swap(true, Ordering::Relaxed) {
                        let command = inner.lock().unwrap().clone().expect("set before the first call");
                        act(&command);
                    }
                })
                .on_event(move |event| ear.lock().unwrap().push(event.clone()))
                .build()
                .unwrap();
            let mut events = command.subscribe();
            *handle.lock().unwrap() = Some(command.clone());
            command.admit().unwrap().fail();
            let told: Vec<_> = std::iter::from_fn(|| events.next().now_or_never().flatten()).collect();
            assert_eq!(command.snapshot().in_flight(), 0, "{name}");
            // Or the two would keep each other alive.
            *handle.lock().unwrap() = None;
            (std::mem::take(&mut *heard.lock().unwrap()), told)
        });
        assert_eq!(heard, told, "{name}: a listener and a subscriber");
        let mut state = State::Closed;
        for event in &heard {
            if let Event::Transition(transition) = event {
                assert_eq!(transition.from, state, "{name}: {heard:?}");
                state = transition.to;
            }
        }
        assert!(!heard.is_empty(), "{name}");
    }
}

/// X1 (Kevlar #24): what one listener panics over the next one still hears.
#[test]
fn a_panicking_listener_spoils_neither_the_call_nor_the_other_listeners() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let command = Command::builder("listeners")
        .registry(&Registry::new())
        .on_event(|_| blow("listener"))
        .on_event(move |event| ear.lock().unwrap().push(event.to_string()))
        .build()
        .unwrap();
    command.force_open("one", None);
    command.clear_override();
    assert_eq!(heard.lock().unwrap().len(), 4, "{heard:?}");
    assert!(command.run_sync(|| Ok::<_, Oops>(1)).is_ok());
}

/// X2: with one slot a command inside itself is refused and not blocked; its fallback finds the slot free again.
#[test]
fn a_command_inside_itself_is_refused_and_never_waits() {
    within_seconds(|| {
        paused().block_on(async {
            let command = touchy(Start::Full, false);
            let inner = command.run(async || command.run(|| ready(Ok::<_, Oops>(1))).await);
            let Err(Error::Failed(Error::Rejected(rejected))) = inner.await else { panic!("it was admitted") };
            assert_eq!(rejected.reason(), Reason::ConcurrencyLimit);
            command.reset();
            let fell_back = command
                .run(|| ready(Err::<u32, _>(Oops::Ignored)))
                .classify(|_| Verdict::Failure)
                .fallback(async |_| {
                    command.reset();
                    command.run(|| ready(Ok::<_, Oops>(2))).await
                });
            assert_eq!(fell_back.await, Ok(2));
            let snapshot = command.snapshot();
            assert_eq!((snapshot.in_flight(), snapshot.fallbacks().in_flight), (0, 0));
        });
    });
}
