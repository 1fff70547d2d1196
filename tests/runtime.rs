//! The edges of a runtime: none, one without timers, one that goes away, one whose budget is used up, and the pool for
//! blocking work, whose closures nothing can stop.
//!
//! Each is a way in which a crate can panic in, hang, or leak from its user's process.

mod support;

use std::any::Any;
use std::future::{Future, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fusebox::{Breaker, Bulkhead, Command, Error, Guard, Outcome, Reason, Registry, State, Verdict};
use futures::{FutureExt, StreamExt};
use support::{Failure, hang, ms, time_machine};
use tokio::runtime::Builder;

type Answer = Result<u32, Failure>;

fn command() -> Command {
    Command::builder("runtime").max_concurrent(1).timeout(ms(100)).build().expect("a good configuration")
}

/// Ready when it is polled for the second time.
async fn second_poll(answer: Answer) -> Answer {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    answer
}

/// Polls once, outside any task.
fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Outcomes of all time that are not 0.
fn outcomes<C>(command: &Command<C>) -> Vec<(&'static str, u64)> {
    let lifetime = command.snapshot().lifetime();
    lifetime.iter().filter(|&(_, count)| count > 0).map(|(outcome, count)| (outcome.as_str(), count)).collect()
}

/// Nothing is held, and a call goes through: the bulkhead of one was not leaked.
fn assert_free(command: &Command) {
    let snapshot = command.snapshot();
    assert_eq!((snapshot.in_flight(), snapshot.queue_length(), snapshot.fallbacks().in_flight), (0, 0, 0));
    assert_eq!(command.run_sync(|| Answer::Ok(1)), Ok(1));
}

fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().expect("a panic with a message").to_string(),
    }
}

fn panics_with<T>(act: impl FnOnce() -> T) -> String {
    message(catch_unwind(AssertUnwindSafe(act)).map(drop).expect_err("a panic"))
}

/// What tokio says when there is no runtime to wait in.
fn no_runtime() -> String {
    panics_with(|| tokio::time::sleep(ms(1)))
}

// ---- no runtime ----

/// X4: nothing but waiting needs a runtime.
#[test]
fn without_a_runtime_all_but_waiting_works() {
    let registry = Registry::new();
    let command = Command::builder("runtime").registry(&registry).max_concurrent(1).build().expect("it is good");
    let mut events = command.subscribe();
    assert_eq!((command.state(), command.snapshot().lifetime().calls()), (State::Closed, 0));
    assert_eq!(command.run_sync(|| Answer::Ok(1)), Ok(1));
    command.admit().expect("it is closed").fail();
    command.admit_owned().expect("it is closed").ignore();
    command.reconfigure(|c| c.bulkhead(Bulkhead::new(1).queue(1, ms(1)))).expect("a good configuration");
    command.force_open("test", Some(ms(10)));
    command.clear_override();
    command.reset();
    command.publish();
    registry.publish();
    assert_eq!(std::iter::from_fn(|| events.next().now_or_never().flatten()).count(), 5);
    assert_eq!(outcomes(&command), [("success", 1), ("failure", 1), ("ignored", 1)]);
    assert!(format!("{command:?} {registry:?} {:?}", command.snapshot()).contains("runtime"));
}

/// X4: a call that is made and never polled was never made.
#[test]
fn making_and_dropping_calls_without_a_runtime_leaves_no_trace() {
    let command = command();
    drop(command.run(hang));
    drop(hang().guarded_by(&command).timeout(ms(1)));
    drop(command.run(hang).fallback(|_| ready(Ok(1))).classify(|_| Verdict::Success).no_timeout());
    drop(command.spawn_blocking(|| Answer::Ok(1)));
    assert_eq!(outcomes(&command), []);
    assert_free(&command);
}

#[test]
fn a_call_that_is_ready_at_once_needs_no_runtime() {
    let command = command();
    assert_eq!(command.run(|| ready(Answer::Ok(1))).now_or_never(), Some(Ok(1)));
    assert_eq!(ready(Answer::Err("down")).guarded_by(&command).now_or_never(), Some(Err(Error::Failed("down"))));
    assert_eq!(command.run(|| ready(Err("down"))).fallback(|_| ready(Ok(7))).now_or_never(), Some(Ok(7)));
    assert_eq!(outcomes(&command), [("success", 1), ("failure", 2)]);
    assert_free(&command);
}

/// Where there is no limit there is no timer: such a call may wait anywhere.
#[test]
fn a_call_without_a_timeout_waits_without_a_runtime() {
    let command = command();
    let waits = || second_poll(Ok(1));
    for call in [command.run(waits).no_timeout(), command.run(waits).timeout(Duration::MAX)] {
        let mut call = Box::pin(call);
        assert_eq!(poll(&mut call), Poll::Pending);
        assert_eq!(poll(&mut call), Poll::Ready(Ok(1)));
    }
    assert_eq!(outcomes(&command), [("success", 2)]);
    assert_free(&command);
}

/// X4, R1, P2: tokio's own panic, after which the call has ended and holds nothing.
#[test]
fn a_call_that_has_to_wait_without_a_runtime_panics_as_tokio_does() {
    let command = command();
    let mut call = Box::pin(command.run(hang));
    assert_eq!(panics_with(|| poll(&mut call)), no_runtime());
    drop(call);
    assert_eq!(outcomes(&command), [("panicked", 1)]);
    assert_free(&command);

    let held = command.admit().expect("it is free");
    command.reconfigure(|c| c.bulkhead(Bulkhead::new(1).queue(1, ms(1)))).expect("a good configuration");
    let mut waiting = Box::pin(command.run(hang));
    assert_eq!(panics_with(|| poll(&mut waiting)), no_runtime(), "in the bulkhead's queue");
    drop(waiting);
    held.ignore();
    assert_eq!(command.snapshot().lifetime().calls(), 4, "two that were admitted, one that left the queue, one free");
    assert_free(&command);

    let mut blocking = Box::pin(command.spawn_blocking(|| Answer::Ok(1)));
    assert_eq!(panics_with(|| poll(&mut blocking)), panics_with(|| tokio::task::spawn_blocking(|| ())));
    drop(blocking);
    assert_eq!(command.snapshot().lifetime().get("panicked"), 2);
    assert_free(&command);
}

/// X4: `Handle::try_current` is fine in such a runtime, so it is no test; the panic is tokio's, and nothing leaks.
#[test]
fn a_runtime_without_timers_is_like_none() {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let command = command();
    let expected = panics_with(|| runtime.block_on(async { tokio::time::sleep(ms(1)).await }));
    assert_ne!(expected, no_runtime(), "tokio tells the two apart");
    assert_eq!(panics_with(|| runtime.block_on(command.run(hang))), expected);
    assert_eq!(outcomes(&command), [("panicked", 1)]);
    assert_eq!(runtime.block_on(command.run(|| ready(Answer::Ok(1)))), Ok(1));
    assert_free(&command);
}

#[test]
fn a_call_that_has_ended_panics_when_it_is_polled_again_and_counts_once() {
    let command = command();
    let mut call = Box::pin(command.run(|| ready(Answer::Ok(1))));
    assert_eq!(poll(&mut call), Poll::Ready(Ok(1)));
    assert_eq!(panics_with(|| poll(&mut call)), "a `Call` was polled after it had ended");
    drop(call);
    assert_eq!(outcomes(&command), [("success", 1)]);
}

// ---- a runtime that goes away ----

/// X5, P2: calls in flight, in the queue and in their fallbacks end with the runtime, outside of it.
#[test]
fn a_runtime_that_is_dropped_ends_its_calls() {
    for threads in [0, 2] {
        let runtime = match threads {
            0 => time_machine(),
            n => Builder::new_multi_thread().worker_threads(n).enable_time().build().expect("a runtime"),
        };
        let command = Command::builder("runtime")
            .bulkhead(Bulkhead::new(2).queue(2, Duration::from_secs(3_600)))
            .timeout(Duration::from_secs(3_600))
            .build()
            .expect("a good configuration");
        runtime.block_on(async {
            let call = |fails: bool| {
                let command = command.clone();
                let work = async move || if fails { Err(()) } else { pending::<Result<u32, ()>>().await };
                async move { command.run(work).fallback(|_| pending()).await }
            };
            let fallback = tokio::spawn(call(true));
            while command.snapshot().fallbacks().in_flight == 0 {
                tokio::task::yield_now().await;
            }
            let others: Vec<_> = (0..4).map(|_| tokio::spawn(call(false))).collect();
            while command.snapshot().queue_length() < 2 {
                tokio::task::yield_now().await;
            }
            assert_eq!((command.snapshot().in_flight(), others.len(), fallback.is_finished()), (2, 4, false));
        });
        drop(runtime);
        assert_eq!(outcomes(&command), [("failure", 1), ("cancelled", 4)]);
        assert_free(&command);
    }
}

/// X5: a call that outlives its runtime can be dropped anywhere; polled, it panics as tokio does.
#[test]
fn a_call_can_outlive_its_runtime() {
    for polled in [false, true] {
        let (runtime, command) = (time_machine(), command());
        let mut call = Box::pin(command.run(hang));
        let mut sleep = {
            let _inside = runtime.enter();
            Box::pin(tokio::time::sleep(ms(1_000)))
        };
        runtime.block_on(async { assert!(poll(&mut call).is_pending() && poll(&mut sleep).is_pending()) });
        drop(runtime);
        if polled {
            assert_eq!(panics_with(|| poll(&mut call)), panics_with(|| poll(&mut sleep)));
        }
        drop(call);
        assert_eq!(outcomes(&command), [(if polled { "panicked" } else { "cancelled" }, 1)]);
        assert_free(&command);
    }
}

/// E6: an aborted task.
#[tokio::test(start_paused = true)]
async fn an_aborted_task_cancels_its_call() {
    let command = command();
    let task = tokio::spawn({
        let command = command.clone();
        async move { command.run(hang).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(command.snapshot().in_flight(), 1);
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    assert_eq!(outcomes(&command), [("cancelled", 1)]);
    assert_free(&command);
}

/// P4: room that a live change makes is for those who wait already: nobody has to end, or to come, for them to get it.
#[tokio::test(start_paused = true)]
async fn a_raised_limit_admits_those_who_wait() {
    let queued = |limit| Bulkhead::new(limit).queue(2, Duration::from_secs(3_600));
    let command = Command::builder("runtime").bulkhead(queued(1)).build().expect("a good configuration");
    let held = command.admit().expect("one slot");
    let waiting = tokio::spawn({
        let command = command.clone();
        async move { command.run(|| ready(Answer::Ok(1))).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(command.snapshot().queue_length(), 1);
    command.reconfigure(|c| c.bulkhead(queued(2))).expect("a good configuration");
    tokio::task::yield_now().await;
    assert!(waiting.is_finished(), "it was not woken");
    assert_eq!(waiting.await.expect("it does not panic"), Ok(1));
    drop(held);
    assert_free(&command);
}

// ---- timeouts at the edges ----

/// T2: the longest timeouts are timeouts that never come, not overflows.
#[tokio::test(start_paused = true)]
async fn the_longest_timeouts_never_come() {
    for limit in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_nanos(u64::MAX - 1)] {
        let command = Command::builder("runtime").timeout(limit).build().expect("a good configuration");
        let per_call = self::command();
        let a_month = Duration::from_secs(30 * 86_400);
        let month = || async move {
            tokio::time::sleep(a_month).await;
            Answer::Ok(1)
        };
        assert_eq!(command.run(month).await, Ok(1), "{limit:?}");
        assert_eq!(command.snapshot().latency().max(), Some(a_month));
        assert_eq!(per_call.run(month).timeout(limit).await, Ok(1), "{limit:?}");
        assert_eq!(per_call.run(hang).timeout(limit).now_or_never(), None);
        assert_free(&per_call);
    }
}

/// Zero is one poll: enough for what is ready, and for nothing else.
#[tokio::test(start_paused = true)]
async fn a_timeout_of_zero_for_one_call_is_one_poll() {
    let command = command();
    assert_eq!(command.run(|| ready(Answer::Ok(1))).timeout(Duration::ZERO).await, Ok(1));
    let begun = tokio::time::Instant::now();
    let Err(Error::TimedOut(late)) = command.run(hang).timeout(Duration::ZERO).await else { panic!("it hangs") };
    assert_eq!(late.limit(), Duration::ZERO);
    assert!(begun.elapsed() <= ms(1), "no longer than a tick of tokio's wheel");
    assert_eq!(outcomes(&command), [("success", 1), ("timed_out", 1)]);
    assert_free(&command);
}

/// E2, bug 54 (tokio #4291, #4314): an operation that is always ready uses up its task's budget in each poll, and would
/// leave none for a timer that takes part in it.
#[tokio::test(start_paused = true)]
async fn an_operation_that_eats_the_budget_is_timed_out() {
    /// So many steps that only a timeout ends it in time; and then the test fails, in place of hanging.
    const STEPS: u32 = 1_000_000;
    let command = command();
    let semaphore = async || {
        let semaphore = tokio::sync::Semaphore::new(1);
        for _ in 0..STEPS {
            drop(semaphore.acquire().await.expect("it is not closed"));
        }
        Answer::Ok(1)
    };
    let queue = async || {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for step in 0..STEPS {
            sender.send(step).expect("somebody listens");
            receiver.recv().await.expect("it was just sent");
        }
        Answer::Ok(2)
    };
    let bare = async || {
        for _ in 0..STEPS {
            tokio::task::coop::consume_budget().await;
        }
        Answer::Ok(3)
    };
    // The operation never lets the clock run: somebody else moves it.
    let tick = || tokio::spawn(tokio::time::advance(ms(100)));
    let ends = [
        (tick(), command.run(semaphore).await).1,
        (tick(), command.run(queue).await).1,
        (tick(), command.run(bare).await).1,
    ];
    for end in ends {
        let Err(Error::TimedOut(late)) = end else { panic!("it was left to run: {end:?}") };
        assert_eq!((late.limit(), late.elapsed()), (ms(100), ms(100)));
    }
    assert_eq!(outcomes(&command), [("timed_out", 3)]);
    assert_free(&command);
}

/// X2: inside itself, with a limit of one, a command refuses and does not block; and so with its fallback.
#[tokio::test(start_paused = true)]
async fn a_command_inside_itself_is_refused_and_not_blocked() {
    let command = command();
    let inner = command
        .run(async || match command.run(|| ready(Answer::Ok(1))).await {
            Err(Error::Rejected(rejected)) => Ok(rejected.reason()),
            other => panic!("expected a refusal, got {other:?}"),
        })
        .classify(|_: &Result<Reason, &str>| Verdict::Success)
        .await;
    assert_eq!(inner, Ok(Reason::ConcurrencyLimit));
    let inner = command.run_sync(|| command.run_sync(|| Answer::Ok(1)));
    assert!(matches!(inner, Err(Error::Failed(Error::Rejected(_)))), "{inner:?}");
    // By then the call itself has ended: its slot is free for the fallback to use.
    let helped = command.run(|| ready(Err("down"))).fallback(|_| command.run(|| ready(Ok(7)))).await;
    assert_eq!(helped, Ok(7));
    assert_free(&command);
}

// ---- the pool for blocking work ----

/// Tells the test when it is dropped. As the result of a closure, or as the payload of its panic, it is dropped after
/// the closure has ended and has given back what it held.
struct Signal(Sender<()>);

impl Drop for Signal {
    fn drop(&mut self) {
        // A test that has failed no longer waits.
        let _ = self.0.send(());
    }
}

/// A closure that blocks until the sender is used or dropped, and the news of its end.
fn blocked() -> (impl FnOnce() -> Result<Signal, &'static str> + Send + 'static, Sender<()>, Receiver<()>) {
    let (release, released) = channel();
    let (ended, has_ended) = channel();
    let signal = Signal(ended);
    let closure = move || {
        let _ = released.recv();
        Ok(signal)
    };
    (closure, release, has_ended)
}

/// P5, bugs 25 and 55: a timeout frees the caller, and not the slot; the late end of the closure changes nothing else.
#[tokio::test(start_paused = true)]
async fn blocking_work_holds_its_slot_until_it_ends() {
    let command = command();
    let (closure, release, ended) = blocked();
    let mut call = Box::pin(command.spawn_blocking(closure));
    assert!(poll(&mut call).is_pending());
    tokio::time::advance(ms(100)).await;
    let Err(Error::TimedOut(late)) = call.await else { panic!("the closure is blocked") };
    assert_eq!(late.elapsed(), ms(100));

    assert_eq!((outcomes(&command), command.snapshot().in_flight()), (vec![("timed_out", 1)], 1));
    for _ in 0..100 {
        let refused = command.spawn_blocking(|| -> Answer { panic!("two at once") }).await;
        assert!(matches!(refused, Err(Error::Rejected(r)) if r.reason() == Reason::ConcurrencyLimit));
    }
    release.send(()).expect("it waits");
    ended.recv().expect("it ends");
    assert_eq!(outcomes(&command), [("timed_out", 1), ("rejected", 100)]);
    assert_eq!(command.snapshot().latency().count(), 1);
    assert_free(&command);
}

/// P5, E6: the same for a caller that goes away.
#[tokio::test(start_paused = true)]
async fn a_dropped_blocking_call_holds_its_slot_until_the_work_ends() {
    let command = command();
    let (closure, release, ended) = blocked();
    assert!(command.spawn_blocking(closure).now_or_never().is_none());
    assert_eq!((outcomes(&command), command.snapshot().in_flight()), (vec![("cancelled", 1)], 1));
    assert_eq!(command.admit().map(drop).map_err(|r| r.reason()), Err(Reason::ConcurrencyLimit));
    release.send(()).expect("it waits");
    ended.recv().expect("it ends");
    assert_eq!(outcomes(&command), [("cancelled", 1), ("rejected", 1)]);
    assert_free(&command);
}

/// X1: a panic reaches the caller unchanged and is counted.
#[tokio::test]
async fn a_panic_in_blocking_work_reaches_the_caller() {
    let command = command();
    let call = command.spawn_blocking(|| -> Answer { std::panic::panic_any(42_u64) });
    let panic = AssertUnwindSafe(call).catch_unwind().await.expect_err("it panics");
    assert_eq!(panic.downcast_ref(), Some(&42_u64));
    assert_eq!(outcomes(&command), [("panicked", 1)]);
    assert_free(&command);
}

/// X1, P5: and one that nobody waits for any more gives the slot back.
#[tokio::test(start_paused = true)]
async fn a_panic_in_abandoned_blocking_work_gives_the_slot_back() {
    let command = command();
    let (closure, release, ended) = blocked();
    let call = command.spawn_blocking(|| -> Answer { resume_unwind(Box::new(closure().expect("it is released"))) });
    assert!(call.now_or_never().is_none());
    assert_eq!(command.snapshot().in_flight(), 1);
    release.send(()).expect("it waits");
    ended.recv().expect("it ends");
    assert_eq!(outcomes(&command), [("cancelled", 1)]);
    assert_free(&command);
}

/// X5, P2: work for a runtime that has shut down is never started.
#[test]
fn blocking_work_that_never_starts_gives_its_slot_back() {
    let (runtime, command) = (time_machine(), command());
    let handle = runtime.handle().clone();
    drop(runtime);
    let _inside = handle.enter();
    let mut call = Box::pin(command.spawn_blocking(|| -> Answer { panic!("it never starts") }));
    let message = panics_with(|| poll(&mut call));
    assert_eq!(message, "the runtime shut down before a blocking call was started");
    drop(call);
    assert_eq!(outcomes(&command), [("panicked", 1)]);
    assert_free(&command);
}

// ---- what is dropped disappears ----

#[test]
fn a_command_disappears_with_its_last_handle() {
    let registry = Registry::new();
    let command = Command::builder("short.lived").registry(&registry).build().expect("a good name");
    let (clone, permit) = (command.clone(), command.admit_owned().expect("it is closed"));
    let mut events = command.subscribe();
    drop(command);
    assert!(registry.get("short.lived").is_some_and(|found| found.snapshot().in_flight() == 1));
    drop(clone);
    assert_eq!(events.next().now_or_never(), None, "a permit is a handle: the command lives");
    permit.resolve(Verdict::OpenFor(ms(1)));
    assert!(registry.get("short.lived").is_none());
    let last: Vec<_> = std::iter::from_fn(|| events.next().now_or_never().flatten()).collect();
    assert!(matches!(&last[..], [fusebox::Event::Transition(t)] if t.to == State::Open), "{last:?}");
    assert_eq!(events.next().now_or_never(), Some(None), "the stream has ended");
}

/// A stream that is being waited for is woken when the command goes.
#[tokio::test]
async fn a_waiting_subscriber_hears_that_the_command_is_gone() {
    let command = command();
    let mut events = command.subscribe();
    let reader = tokio::spawn(async move { events.next().await });
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    drop(command);
    tokio::task::yield_now().await;
    assert!(reader.is_finished(), "it was not woken");
    assert_eq!(reader.await.expect("it does not panic"), None);
}

/// X2, X3: what a listener holds is dropped with it, and may use the registry that is just refusing to make a command.
#[test]
fn no_user_code_runs_under_the_lock_of_a_registry() {
    struct Nosy(Registry);
    impl Drop for Nosy {
        fn drop(&mut self) {
            self.0.get_or_insert("another", |builder| builder).expect("a good name");
        }
    }
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let registry = Registry::new();
        let nosy = Nosy(registry.clone());
        let refused = registry.get_or_insert("refused", |builder| {
            let listener = move |_: &fusebox::Event| {
                let _ = &nosy;
            };
            builder.on_event(listener).max_concurrent(0)
        });
        done.send(refused.is_err()).expect("the test waits");
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(5)), Ok(true), "it waits for a lock that it holds itself");
}

/// X7, bug 63: nothing of a command stays in the registry.
#[test]
fn a_hundred_thousand_commands_leave_the_registry_empty() {
    let registry = Registry::new();
    let keep = Command::builder("keep").registry(&registry).build().expect("a good name");
    for _ in 0..1_000 {
        let build = |_| {
            let command = Command::builder("fleeting").registry(&registry).breaker(Breaker::disabled()).no_latency();
            command.on_event(|_| ()).build().expect("a good configuration")
        };
        let commands: Vec<Command> = (0..100).map(build).collect();
        assert_eq!(commands[99].run_sync(|| Answer::Ok(1)), Ok(1));
        assert_eq!(registry.commands().len(), 101);
    }
    let names: Vec<_> = registry.commands().iter().map(Command::name).collect();
    assert_eq!(names, ["keep"]);
    assert_eq!(keep.snapshot().lifetime().of(Outcome::Success), 0);
}
