//! The cases of Hystrix's execution, fallback and errors, EX1 to EX27, as they are seen in results, outcomes and order.

mod support;

use std::error::Error as _;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use fusebox::testing::Timeline;
use fusebox::{Builder, Cause, Command, Error, Event, Outcome, Reason, State, Verdict};
use futures::{FutureExt, StreamExt, stream};
use support::{
    DOWN, Failure, advance, after, fail, fallbacks, hang, health, message, ms, outcomes, play, poll, rate, refused,
    succeed,
};

fn builder() -> Builder {
    Command::builder("hystrix").timeout(ms(50)).breaker(rate(0.5, 100))
}

fn command() -> Command {
    builder().build().expect("a good configuration")
}

/// Open from the start, as far as its calls can tell.
async fn open() -> Command {
    let command = builder().breaker(rate(0.5, 1)).build().expect("a good configuration");
    fail(&command).await;
    assert_eq!(command.state(), State::Open);
    command
}

/// Nothing is in flight and the one call made ended so.
#[track_caller]
fn assert_ended(command: &Command, outcome: Outcome) {
    assert_eq!(outcomes(command), [(outcome, 1)]);
    assert_eq!((command.snapshot().in_flight(), command.snapshot().fallbacks().in_flight), (0, 0));
}

/// Whose fallback's error tells of both.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum PriceError {
    #[error("the vendor is down")]
    Vendor,
    #[error("{fallback}, after {primary}")]
    Both { primary: Box<PriceError>, fallback: Failure },
}

#[tokio::test(start_paused = true)]
async fn ex01_a_success_gives_its_value() {
    let command = command();
    assert_eq!(command.run(|| after(ms(20), Ok(7))).await, Ok(7));
    assert_ended(&command, Outcome::Success);
    assert_eq!((command.snapshot().latency().count(), command.snapshot().latency().max()), (1, Some(ms(20))));
    assert_eq!(fallbacks(&command), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn ex03_a_failure_without_a_fallback_gives_its_own_error() {
    let command = command();
    let error = command.run(async || Err::<u32, _>(PriceError::Vendor)).await.expect_err("it failed");
    assert_eq!((error.was_started(), error.retry_after()), (true, None));
    let source = error.source().expect("the cause").to_string();
    assert_eq!((error.to_string().as_str(), source.as_str()), ("the guarded call failed", "the vendor is down"));
    assert_eq!(error, Error::Failed(PriceError::Vendor));
    assert_ended(&command, Outcome::Failure);
    assert_eq!(fallbacks(&command), (0, 0, 0), "a fallback that is missing is no event");
}

#[tokio::test(start_paused = true)]
async fn ex04_a_fallback_sees_the_error_and_replaces_it() {
    let command = command();
    let mut seen = None;
    let result = command
        .run(async || Err(DOWN))
        .fallback(|cause| {
            seen = Some(cause);
            async { Ok(7) }
        })
        .await;
    assert_eq!((result, seen), (Ok(7), Some(Error::Failed(DOWN))));
    assert_ended(&command, Outcome::Failure);
    assert_eq!(fallbacks(&command), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn ex05_the_error_of_a_fallback_that_fails_can_carry_both() {
    let command = command();
    let result = command
        .run(async || Err::<u32, _>(PriceError::Vendor))
        .fallback(async |cause| {
            let both = |primary| PriceError::Both { primary: Box::new(primary), fallback: "the cache is empty" };
            Err(cause.map(both))
        })
        .await;
    let both = PriceError::Both { primary: Box::new(PriceError::Vendor), fallback: "the cache is empty" };
    assert_eq!(result, Err(Error::Failed(both.clone())));
    assert_eq!(both.to_string(), "the cache is empty, after the vendor is down");
    assert_ended(&command, Outcome::Failure);
    assert_eq!(fallbacks(&command), (0, 1, 0));
}

/// An error of the user's own, not even `Clone`, comes out as the value that it was.
#[tokio::test(start_paused = true)]
async fn ex06_the_original_error_comes_out_as_it_is() {
    struct Exotic(Arc<()>);
    let command = command();
    let token = Arc::new(());
    let call = |token: &Arc<()>| {
        let error = Exotic(Arc::clone(token));
        command.run(move || async move { Err::<u32, _>(error) })
    };
    let missing = call(&token).await.map_err(Error::into_failed);
    let Err(Some(Exotic(missing))) = missing else { panic!("it failed") };
    assert!(Arc::ptr_eq(&missing, &token));
    let declined = call(&token).fallback(async |cause| Err(cause)).await.map_err(Error::into_failed);
    let Err(Some(Exotic(declined))) = declined else { panic!("it failed") };
    assert!(Arc::ptr_eq(&declined, &token));
    assert_eq!((outcomes(&command), fallbacks(&command)), (vec![(Outcome::Failure, 2)], (0, 1, 0)));
}

#[tokio::test(start_paused = true)]
async fn ex07_an_ignored_error_comes_out_past_the_fallback() {
    let command = command();
    let result = command
        .run(async || Err::<u32, _>("no such sku"))
        .classify(|result| if result.is_err() { Verdict::Ignored } else { Verdict::Success })
        .fallback(async |_| panic!("a fallback ran for an error that is the caller's"))
        .await;
    assert_eq!(result, Err(Error::Failed("no such sku")));
    assert_ended(&command, Outcome::Ignored);
    assert_eq!((health(&command), fallbacks(&command)), ((0, 0), (0, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn ex08_a_call_without_its_fallback_beside_calls_with_one() {
    let command = command();
    assert_eq!(command.run(async || Err(DOWN)).fallback(async |_| Ok(7)).await, Ok(7));
    let before = command.snapshot();
    fail(&command).await;
    let now = command.snapshot();
    assert_eq!(now.lifetime().get("failure"), before.lifetime().get("failure") + 1);
    assert_eq!((now.lifetime().calls(), now.fallbacks()), (2, before.fallbacks()));
}

#[tokio::test(start_paused = true)]
async fn ex09_a_timeout_without_a_fallback() {
    let command = command();
    let start = tokio::time::Instant::now();
    let Err(Error::TimedOut(late)) = command.run(|| after(ms(200), Ok(1))).await else { panic!("it is late") };
    assert_eq!((late.command(), late.limit(), late.elapsed()), ("hystrix", ms(50), ms(50)));
    assert_eq!(start.elapsed(), ms(50));
    assert_ended(&command, Outcome::TimedOut);
    assert_eq!((fallbacks(&command), command.snapshot().latency().min()), ((0, 0, 0), Some(ms(50))));
}

#[tokio::test(start_paused = true)]
async fn ex09_a_timeout_with_a_fallback() {
    let command = command();
    let result = command
        .run(|| after(ms(200), Ok(1)))
        .fallback(async |cause| if matches!(cause, Error::TimedOut(_)) { Ok(2) } else { Err(cause) })
        .await;
    assert_eq!(result, Ok(2));
    assert_ended(&command, Outcome::TimedOut);
    assert_eq!((fallbacks(&command), command.snapshot().latency().min()), ((1, 0, 0), Some(ms(50))));
}

#[tokio::test(start_paused = true)]
async fn ex09_a_timeout_with_a_fallback_that_fails() {
    let command = command();
    let result = command.run(|| after(ms(200), Ok(1))).fallback(async |_| Err(Error::Failed("no cache"))).await;
    assert_eq!(result, Err(Error::Failed("no cache")));
    assert_ended(&command, Outcome::TimedOut);
    assert_eq!((fallbacks(&command), command.snapshot().latency().min()), ((0, 1, 0), Some(ms(50))));
}

#[tokio::test(start_paused = true)]
async fn ex11_a_call_whose_handle_is_dropped_times_out_all_the_same() {
    let command = command();
    let task = command.clone();
    drop(tokio::spawn(async move { task.run(|| after(ms(200), Ok(1))).await }));
    tokio::time::sleep(ms(49)).await;
    assert_eq!((outcomes(&command), command.snapshot().in_flight()), (vec![], 1));
    tokio::time::sleep(ms(2)).await;
    assert_ended(&command, Outcome::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn ex12_without_a_timeout_a_call_takes_as_long_as_it_takes() {
    let never = builder().timeout(ms(100)).no_timeout().build().expect("a good configuration");
    assert_eq!(never.run(|| after(ms(900), Ok(1))).await, Ok(1));
    let this_time = builder().timeout(ms(100)).build().expect("a good configuration");
    assert_eq!(this_time.run(|| after(ms(900), Ok(1))).no_timeout().await, Ok(1));
    for command in [&never, &this_time] {
        assert_ended(command, Outcome::Success);
        assert_eq!(command.snapshot().latency().min(), Some(ms(900)));
    }
    assert!(matches!(this_time.run(|| after(ms(900), Ok(1))).await, Err(Error::TimedOut(_))));
}

#[tokio::test(start_paused = true)]
async fn ex13_the_timeout_does_not_cover_the_fallback() {
    let command = builder().timeout(ms(1_000)).build().expect("a good configuration");
    let fallback = |_| async { after(ms(1_500), Ok(2)).await.map_err(Error::Failed) };
    assert_eq!(command.run(|| after(ms(10), Err(DOWN))).fallback(fallback).await, Ok(2));
    assert_ended(&command, Outcome::Failure);
    assert_eq!((fallbacks(&command), command.snapshot().latency().max()), ((1, 0, 0), Some(ms(10))));
}

#[tokio::test(start_paused = true)]
async fn ex13_a_fallback_may_have_a_timeout_of_its_own() {
    let command = command();
    let fallback = async |cause| match tokio::time::timeout(ms(100), after(ms(1_500), Ok(2))).await {
        Ok(result) => result.map_err(Error::Failed),
        Err(_) => Err(cause),
    };
    assert_eq!(command.run(async || Err(DOWN)).fallback(fallback).await, Err(Error::Failed(DOWN)));
    assert_eq!(fallbacks(&command), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn ex15_a_short_circuited_call_runs_nothing_but_its_fallback() {
    let command = open().await;
    let samples = command.snapshot().latency().count();
    let call = || command.run(async || -> Result<u32, Failure> { panic!("a refused operation ran") });

    let Err(Error::Rejected(rejected)) = call().await else { panic!("it is open") };
    assert_eq!((rejected.reason(), rejected.command()), (Reason::CircuitOpen, "hystrix"));
    assert_eq!(fallbacks(&command), (0, 0, 0));
    let instead = async |cause: Error<Failure>| if cause == Error::Rejected(rejected) { Ok(2) } else { Err(cause) };
    assert_eq!(call().fallback(instead).await, Ok(2));
    assert_eq!(fallbacks(&command), (1, 0, 0));
    assert_eq!(call().fallback(async |_| Err(Error::Failed("no cache"))).await, Err(Error::Failed("no cache")));
    assert_eq!(fallbacks(&command), (1, 1, 0));

    assert_eq!(outcomes(&command), [(Outcome::Failure, 1), (Outcome::ShortCircuited, 3)]);
    assert_eq!((command.snapshot().latency().count(), command.snapshot().in_flight()), (samples, 0));
}

#[tokio::test(start_paused = true)]
async fn ex15_a_refusal_by_the_bulkhead_runs_nothing_but_its_fallback_either() {
    let command = builder().max_concurrent(1).build().expect("a good configuration");
    let running = command.admit().expect("there is room");
    let call = command.run(async || -> Result<u32, Failure> { panic!("a refused operation ran") });
    let instead = async |cause: Error<Failure>| if cause.was_started() { Err(cause) } else { Ok(2) };
    assert_eq!(call.fallback(instead).await, Ok(2));
    assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    running.succeed();
    play(&command, "S").await;
    assert_eq!(outcomes(&command), [(Outcome::Success, 2), (Outcome::Rejected, 2)]);
}

#[tokio::test(start_paused = true)]
async fn ex16_a_fallback_may_be_a_guarded_call() {
    let primary = builder().max_concurrent(1).max_concurrent_fallbacks(1).build().expect("a good configuration");
    let second = builder().max_concurrent(1).build().expect("a good configuration");
    let result = primary
        .run(|| after(ms(10), Err(DOWN)))
        .fallback(|_| async {
            assert_eq!((primary.snapshot().in_flight(), primary.snapshot().fallbacks().in_flight), (0, 1));
            second.run(|| after(ms(20), Ok(2))).await
        })
        .await;
    assert_eq!(result, Ok(2));
    assert_ended(&primary, Outcome::Failure);
    assert_ended(&second, Outcome::Success);
    assert_eq!(fallbacks(&primary), (1, 0, 0));
}

/// The permit of the call is back before its fallback begins, so that even the same command can serve it.
#[tokio::test(start_paused = true)]
async fn ex16_a_fallback_may_call_its_own_command() {
    let command = builder().max_concurrent(1).build().expect("a good configuration");
    let again = |_| async { command.run(|| after(ms(20), Ok(2))).await };
    assert_eq!(command.run(|| after(ms(10), Err(DOWN))).fallback(again).await, Ok(2));
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Failure, 1)]);
    assert_eq!(command.snapshot().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn ex18_a_panic_reaches_the_caller_and_no_fallback() {
    let command = command();
    let call = command
        .run(async || -> Result<u32, Failure> {
            tokio::time::sleep(ms(10)).await;
            panic!("scripted")
        })
        .fallback(async |_| panic!("a fallback ran for a panic"));
    assert_eq!(message(AssertUnwindSafe(call).catch_unwind().await), "scripted");
    assert_ended(&command, Outcome::Panicked);
    assert_eq!((health(&command), fallbacks(&command)), ((1, 1), (0, 0, 0)));
    assert_eq!(command.snapshot().latency().max(), Some(ms(10)));
}

#[tokio::test(start_paused = true)]
async fn ex20_a_running_call_that_is_dropped_is_cancelled_once() {
    let command = command();
    let mut call = Box::pin(command.run(hang).fallback(async |_| panic!("nobody waits for a fallback")));
    assert_eq!(poll(&mut call), None);
    advance(ms(20)).await;
    assert_eq!((poll(&mut call), command.snapshot().in_flight()), (None, 1));
    drop(call);
    assert_ended(&command, Outcome::Cancelled);
    advance(ms(1_000)).await;
    assert_ended(&command, Outcome::Cancelled);
    assert_eq!((health(&command), fallbacks(&command)), ((0, 0), (0, 0, 0)));
}

/// There is no stream API: the consumer holds a permit, and says what an early end means.
#[tokio::test(start_paused = true)]
async fn ex22_a_consumer_that_stops_early_says_what_it_means() {
    let command = command();
    let permit = command.admit().expect("there is room");
    assert_eq!(stream::iter([1, 2, 3]).next().await, Some(1));
    permit.succeed();
    assert_ended(&command, Outcome::Success);

    drop(command.admit().expect("there is room"));
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Cancelled, 1)]);
}

#[tokio::test(start_paused = true)]
async fn ex23_a_call_that_is_never_polled_was_never_made() {
    let command = builder().max_concurrent(1).build().expect("a good configuration");
    let ran = AtomicU64::new(0);
    let call = || {
        command.run(|| {
            ran.fetch_add(1, SeqCst);
            after(ms(1), Ok(1))
        })
    };
    let calls: Vec<_> = (0..10).map(|_| call()).collect();
    advance(ms(1_000)).await;
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (0, 0));
    drop(calls);
    assert_eq!((ran.load(SeqCst), outcomes(&command)), (0, vec![]));
    assert_eq!(command.snapshot().peak_in_flight(), 0);
    // Time is counted from the first poll too.
    let late = call();
    advance(ms(1_000)).await;
    assert_eq!((late.await, ran.load(SeqCst)), (Ok(1), 1));
}

/// Events tell of the circuit alone, so the order is pinned with the user's own closures around them.
#[tokio::test(start_paused = true)]
async fn ex25_everything_that_is_called_is_called_in_one_order() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = {
        let log = Arc::clone(&log);
        move |what: &dyn fmt::Display| log.lock().expect("nobody panics").push(what.to_string())
    };
    let listener = note.clone();
    let command = builder()
        .breaker(rate(0.5, 2))
        .on_event(move |event| {
            let Event::Transition(transition) = event else { return };
            listener(&transition.to);
        })
        .build()
        .expect("a good configuration");
    let note = &note;
    let call = |result: Result<u32, Failure>| {
        command
            .run(move || {
                note(&"made");
                async move {
                    note(&"started");
                    tokio::time::sleep(ms(10)).await;
                    note(&"ended");
                    result
                }
            })
            .classify(move |result| {
                note(&"judged");
                if result.is_ok() { Verdict::Success } else { Verdict::Failure }
            })
            .fallback(async move |cause| {
                note(&"fallback");
                Err(cause)
            })
    };
    let seen = || std::mem::take(&mut *log.lock().expect("nobody panics"));

    call(Ok(1)).await.expect("it succeeds");
    assert_eq!(seen(), ["made", "started", "ended", "judged"]);
    call(Err(DOWN)).await.expect_err("it fails");
    assert_eq!(seen(), ["made", "started", "ended", "judged", "open", "fallback"]);
    call(Ok(1)).await.expect_err("it is open");
    assert_eq!(seen(), ["fallback"]);
    advance(ms(5_000)).await;
    call(Ok(1)).await.expect("it is the probe");
    assert_eq!(seen(), ["half_open", "made", "started", "ended", "judged", "closed"]);
}

/// Listeners are called when a call ends and when it is let out as a probe: neither loses a permit to their panic.
#[tokio::test(start_paused = true)]
async fn ex26_a_listener_that_panics_breaks_no_accounting() {
    let told = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&told);
    let command = builder()
        .max_concurrent(1)
        .breaker(rate(0.5, 1))
        .on_event(move |_| {
            counter.fetch_add(1, SeqCst);
            std::panic::resume_unwind(Box::new("a listener panics"));
        })
        .build()
        .expect("a good configuration");
    let timeline = Timeline::of(&command);
    fail(&command).await;
    advance(ms(5_000)).await;
    succeed(&command).await;
    succeed(&command).await;
    assert_eq!((command.state(), command.snapshot().in_flight(), told.load(SeqCst)), (State::Closed, 0, 3));
    assert_eq!(outcomes(&command), [(Outcome::Success, 2), (Outcome::Failure, 1)]);
    let causes: Vec<_> = timeline.transitions().into_iter().map(|transition| transition.cause).collect();
    let expected = [Cause::ErrorRate { threshold: 0.5 }, Cause::WaitOver, Cause::ProbesPassed { passed: 1 }];
    assert_eq!(causes, expected, "other subscribers are told all the same");
}

/// A stream of three under one permit: to its end, to an error, and to an error with four values in its place.
#[tokio::test(start_paused = true)]
async fn ex27_a_stream_is_one_call_that_ends_once() {
    async fn consume(command: &Command, values: &[Result<u32, Failure>], instead: &[u32]) -> Vec<u32> {
        let before = outcomes(command);
        let permit = command.admit().expect("there is room");
        let mut taken = Vec::new();
        for value in values {
            // All of it takes longer than the timeout, which is not for a permit.
            tokio::time::sleep(ms(30)).await;
            assert_eq!(outcomes(command), before, "it has not ended");
            match value {
                Ok(value) => taken.push(*value),
                Err(_) => {
                    permit.fail();
                    taken.extend(instead);
                    return taken;
                }
            }
        }
        permit.succeed();
        taken
    }
    let command = command();
    let broken = [Ok(1), Ok(2), Ok(3), Err(DOWN)];
    assert_eq!(consume(&command, &broken[..3], &[]).await, [1, 2, 3]);
    assert_eq!(outcomes(&command), [(Outcome::Success, 1)]);
    assert_eq!(consume(&command, &broken, &[]).await, [1, 2, 3]);
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Failure, 1)]);
    assert_eq!(consume(&command, &broken, &[4, 5, 6, 7]).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Failure, 2)]);
    assert_eq!((command.snapshot().in_flight(), command.snapshot().latency().max()), (0, Some(ms(120))));
}
