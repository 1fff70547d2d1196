//! What the tests have in common: scripts of calls, and what can be seen after them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt::Debug;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fusebox::testing::{Script, Timeline};
use fusebox::{Breaker, Classify, Command, Error, Event, Events, Outcome, Rejected, State, Verdict};
use futures::{FutureExt, StreamExt};
use tokio::runtime::{Builder, Handle, Runtime};

pub(crate) type Failure = &'static str;

pub(crate) const DOWN: Failure = "down";

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) async fn advance(by: Duration) {
    tokio::time::advance(by).await;
}

/// A runtime whose paused clock can be moved ahead of the real one, which is what is read outside of it: leaving it is a
/// step back in time.
pub(crate) fn time_machine() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// A breaker with one rule, so many errors in a row, and exact waits that do not grow.
pub(crate) fn in_a_row(failures: u32) -> Breaker {
    Breaker::disabled().consecutive_failures(failures).jitter(0.0).growth(1.0)
}

/// A breaker with one rule, a rate over at least `min_calls`, and exact waits that do not grow.
pub(crate) fn rate(rate: f64, min_calls: u32) -> Breaker {
    Breaker::error_rate(rate).min_calls(min_calls).jitter(0.0).growth(1.0)
}

pub(crate) fn command(breaker: Breaker) -> Command {
    Command::builder("peer").breaker(breaker).build().expect("a good configuration")
}

// ---- calls ----

/// Plays a script, one call per letter: `S`uccess, `F`ailure, `T`imeout, `P`anic, `I`gnored, `C`ancelled. Each call must
/// be admitted and end as its letter says; none takes time.
pub(crate) async fn play<C>(command: &Command<C>, script: &str)
where
    C: Classify<u32, Failure>,
{
    for (at, letter) in script.chars().enumerate() {
        let place = format!("call {at} of {script}");
        match letter {
            'S' => assert_eq!(command.run(async || Ok(1)).await, Ok(1), "{place}"),
            'F' => assert_eq!(command.run(async || Err(DOWN)).await, Err(Error::Failed(DOWN)), "{place}"),
            'I' => {
                let ignored = command.run(async || Err(DOWN)).classify(|_| Verdict::Ignored).await;
                assert_eq!(ignored, Err(Error::Failed(DOWN)), "{place}");
            }
            'T' => {
                let late = command.run(pending::<Result<u32, Failure>>).timeout(Duration::ZERO).await;
                assert!(matches!(late, Err(Error::TimedOut(_))), "{place}: {late:?}");
            }
            'P' => {
                let call = command.run(async || -> Result<u32, Failure> { panic!("scripted") });
                assert!(AssertUnwindSafe(call).catch_unwind().await.is_err(), "{place}");
            }
            'C' => {
                let dropped = command.run(pending::<Result<u32, Failure>>).now_or_never();
                assert_eq!(dropped, None, "{place}");
            }
            other => panic!("no such call: {other}"),
        }
    }
}

/// Makes a call that must be refused, and returns the refusal.
pub(crate) async fn refused<C>(command: &Command<C>) -> Rejected
where
    C: Classify<u32, Failure>,
{
    match command.run(async || -> Result<u32, Failure> { panic!("a call ran that should have been refused") }).await {
        Err(Error::Rejected(rejected)) => rejected,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A future that ends only by a timeout or by being dropped.
pub(crate) async fn hang() -> Result<u32, Failure> {
    pending().await
}

/// Polls a future once; `None` when it has to wait.
pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    future.as_mut().now_or_never()
}

pub(crate) async fn succeed<C: Classify<u32, Failure>>(command: &Command<C>) {
    play(command, "S").await;
}

pub(crate) async fn fail<C: Classify<u32, Failure>>(command: &Command<C>) {
    play(command, "F").await;
}

/// One call that times out, and takes no time for it.
pub(crate) async fn time_out<C: Classify<u32, Failure>>(command: &Command<C>) {
    play(command, "T").await;
}

/// An operation that takes this long.
pub(crate) async fn after(delay: Duration, result: Result<u32, Failure>) -> Result<u32, Failure> {
    tokio::time::sleep(delay).await;
    result
}

/// Makes successful calls that all begin now and take exactly so long: to the nanosecond, where a timer would round to
/// milliseconds. Takes as long as the longest.
pub(crate) async fn record<C>(command: &Command<C>, latencies: &[Duration]) {
    let mut latencies = latencies.to_vec();
    latencies.sort();
    let permits: Vec<_> = latencies.iter().map(|_| command.admit().expect("it is closed and has room")).collect();
    let mut passed = Duration::ZERO;
    for (latency, permit) in latencies.into_iter().zip(permits) {
        advance(latency - passed).await;
        passed = latency;
        permit.succeed();
    }
}

/// Runs `work` on so many threads, all of which see this runtime's paused clock, and moves that on by `step` until they
/// have ended; `look` is called after each step.
pub(crate) async fn on_threads(
    threads: u64,
    step: Duration,
    work: impl Fn(u64) + Send + Sync + 'static,
    mut look: impl FnMut(),
) {
    let (work, runtime) = (Arc::new(work), Handle::current());
    let spawn = |thread| {
        let (work, runtime) = (Arc::clone(&work), runtime.clone());
        thread::spawn(move || {
            let _follows_its_clock = runtime.enter();
            work(thread);
        })
    };
    let threads: Vec<_> = (0..threads).map(spawn).collect();
    while threads.iter().any(|thread| !thread.is_finished()) {
        advance(step).await;
        look();
        thread::yield_now();
    }
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
}

// ---- readings ----

/// Errors and total that the circuit judges by.
pub(crate) fn health<C>(command: &Command<C>) -> (u64, u64) {
    let health = command.snapshot().health();
    (health.errors, health.total)
}

/// Errors and total in the rolling window.
pub(crate) fn window<C>(command: &Command<C>) -> (u64, u64) {
    let window = command.snapshot().window();
    (window.errors(), window.total())
}

/// Calls of all time that ended so.
pub(crate) fn ended<C>(command: &Command<C>, outcome: &str) -> u64 {
    command.snapshot().lifetime().get(outcome)
}

/// When the calls of a script were started, in milliseconds since it was made.
pub(crate) fn starts<T, E>(script: &Script<T, E>) -> Vec<u128> {
    script.starts().iter().map(Duration::as_millis).collect()
}

/// The events that have come since the last look.
pub(crate) fn drain(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).collect()
}

/// The changes of state so far, as pairs.
pub(crate) fn edges(timeline: &Timeline) -> Vec<(State, State)> {
    timeline.transitions().iter().map(|transition| (transition.from, transition.to)).collect()
}

/// The message that a panic carried.
pub(crate) fn message<T: Debug>(caught: std::thread::Result<T>) -> &'static str {
    caught.expect_err("a panic").downcast_ref::<&'static str>().copied().expect("a panic with a plain message")
}

/// How all calls so far ended: every outcome that there was, in the order of [`Outcome::ALL`].
pub(crate) fn outcomes<C>(command: &Command<C>) -> Vec<(Outcome, u64)> {
    command.snapshot().lifetime().iter().filter(|&(_, count)| count > 0).collect()
}

/// How all fallbacks so far ended: successes, failures, refusals.
pub(crate) fn fallbacks<C>(command: &Command<C>) -> (u64, u64, u64) {
    let fallbacks = command.snapshot().fallbacks();
    (fallbacks.success, fallbacks.failure, fallbacks.rejected)
}

/// A breaker that only counts, in a window of so many buckets of `width`.
pub(crate) fn counting(buckets: u32, width: Duration) -> Breaker {
    Breaker::disabled().window(width * buckets).buckets(buckets)
}
