//! The cases of hystrix-go, GO1 to GO18.

mod support;

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use fusebox::testing::Timeline;
use fusebox::{Breaker, Builder, Command, Error, Outcome, Reason, Registry, State};
use futures::future::join_all;
use support::{
    DOWN, Failure, advance, after, edges, ended, fallbacks, hang, health, ms, on_threads, outcomes, play, poll, rate,
    refused, secs, succeed, window,
};

fn builder() -> Builder {
    Command::builder("hystrix-go").timeout(ms(100))
}

fn command() -> Command {
    builder().build().expect("a good configuration")
}

fn with(breaker: Breaker) -> Command {
    builder().breaker(breaker).build().expect("a good configuration")
}

#[tokio::test(start_paused = true)]
async fn go01_a_failure_with_a_fallback_is_one_attempt_one_failure_and_one_fallback() {
    let command = command();
    assert_eq!(command.run(async || Err(DOWN)).fallback(async |_| Ok(2)).await, Ok(2));
    assert_eq!((outcomes(&command), fallbacks(&command)), (vec![(Outcome::Failure, 1)], (1, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn go02_the_fallback_is_told_of_the_timeout() {
    let command = command();
    let mut told = None;
    let result = command
        .run(|| after(secs(1), Ok(1)))
        .fallback(|cause| {
            told = Some(cause);
            async { Ok(2) }
        })
        .await;
    let Some(Error::TimedOut(late)) = told else { panic!("{told:?}") };
    assert_eq!((result, late.limit(), late.elapsed()), (Ok(2), ms(100), ms(100)));
    assert_eq!(late.to_string(), "command `hystrix-go` timed out after 100ms (limit 100ms)");
}

#[tokio::test(start_paused = true)]
async fn go04_of_three_at_once_one_is_beyond_a_limit_of_two() {
    let command = builder().max_concurrent(2).build().expect("a good configuration");
    let results = join_all((0..3).map(|_| command.run(|| after(ms(10), Ok(1))))).await;
    assert_eq!(results[..2], [Ok(1), Ok(1)]);
    let Err(Error::Rejected(rejected)) = results[2] else { panic!("{:?}", results[2]) };
    assert_eq!((rejected.reason(), rejected.retry_after()), (Reason::ConcurrencyLimit, None));
    assert_eq!(outcomes(&command), [(Outcome::Success, 2), (Outcome::Rejected, 1)]);
}

#[tokio::test(start_paused = true)]
async fn go05_forced_open_it_short_circuits() {
    let command = command();
    command.force_open("test", None);
    assert_eq!(refused(&command).await.reason(), Reason::ForcedOpen);
    assert_eq!(outcomes(&command), [(Outcome::ShortCircuited, 1)]);
}

/// One message with both, as a reporter that walks the sources prints it.
#[tokio::test(start_paused = true)]
async fn go06_when_call_and_fallback_fail_one_error_can_tell_of_both() {
    #[derive(Debug, thiserror::Error)]
    enum Outage {
        #[error("the vendor is down")]
        Vendor,
        #[error("and so is the cache")]
        Cache(#[source] Error<Box<Outage>>),
    }
    let command = command();
    let error = command
        .run(async || Err::<u32, _>(Box::new(Outage::Vendor)))
        .fallback(async |cause| Err(Error::Failed(Box::new(Outage::Cache(cause)))))
        .await
        .expect_err("both failed");
    let mut chain = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        chain.push(cause.to_string());
        next = cause.source();
    }
    assert_eq!(chain, ["and so is the cache", "the guarded call failed", "the vendor is down"]);
    assert_eq!((outcomes(&command), fallbacks(&command)), (vec![(Outcome::Failure, 1)], (0, 1, 0)));
}

#[tokio::test(start_paused = true)]
async fn go07_a_success_after_the_wait_closes_it() {
    let command = with(rate(0.5, 1).open_for(secs(5)));
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open);
    advance(secs(6)).await;
    succeed(&command).await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn go09_a_rejected_call_is_never_executed() {
    let command = builder().max_concurrent(1).build().expect("a good configuration");
    let ran = AtomicU64::new(0);
    let call = || {
        command
            .run(|| {
                ran.fetch_add(1, SeqCst);
                after(ms(50), Ok(1))
            })
            .fallback(async |cause| if cause.was_started() { Err(cause) } else { Ok(2) })
    };
    assert_eq!(join_all([call(), call(), call()]).await, [Ok(1), Ok(2), Ok(2)]);
    assert_eq!((ran.load(SeqCst), ended(&command, "rejected")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn go11_a_deadline_of_the_callers_is_counted_apart_and_blames_nobody() {
    let command = builder().timeout(ms(15)).breaker(rate(0.5, 1)).build().expect("a good configuration");
    for _ in 0..10 {
        assert!(tokio::time::timeout(ms(5), command.run(hang)).await.is_err());
    }
    assert_eq!((command.state(), health(&command)), (State::Closed, (0, 0)));
    assert_eq!((outcomes(&command), command.snapshot().in_flight()), (vec![(Outcome::Cancelled, 10)], 0));
    // The dependency's own limit does.
    assert!(matches!(command.run(hang).await, Err(Error::TimedOut(_))));
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn go11_a_task_that_is_cancelled_is_counted_apart_and_blames_nobody() {
    let command = builder().timeout(ms(15)).breaker(rate(0.5, 1)).build().expect("a good configuration");
    let task = command.clone();
    let task = tokio::spawn(async move { task.run(hang).await });
    tokio::time::sleep(ms(5)).await;
    assert_eq!(command.snapshot().in_flight(), 1);
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    assert_eq!((command.state(), outcomes(&command)), (State::Closed, vec![(Outcome::Cancelled, 1)]));
    advance(ms(15)).await;
    assert_eq!((outcomes(&command).len(), command.snapshot().in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn go11_calls_that_are_dropped_late_can_be_made_failures() {
    let command = with(rate(0.5, 2).count_cancelled_after(ms(10)));
    for ran in [9, 10, 11] {
        assert_eq!(command.state(), State::Closed);
        assert!(tokio::time::timeout(ms(ran), command.run(hang)).await.is_err());
    }
    assert_eq!(outcomes(&command), [(Outcome::Failure, 2), (Outcome::Cancelled, 1)]);
    assert_eq!(command.state(), State::Open);
}

#[test]
fn go12_a_hundred_threads_that_ask_for_one_name_get_one_command() {
    const THREADS: usize = 100;
    let registry = Registry::new();
    let barrier = Barrier::new(THREADS);
    let ask = || {
        barrier.wait();
        let command = registry.get_or_insert("users", |command| command.unlimited()).expect("a good configuration");
        command.run_sync(|| Ok::<_, Failure>(())).expect("it is closed");
        command
    };
    let handles: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    assert_eq!(registry.commands().len(), 1);
    for handle in &handles {
        assert_eq!(outcomes(handle), [(Outcome::Success, THREADS as u64)], "all have called the same");
    }
    drop(handles);
    assert_eq!(registry.commands().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn go14_five_threads_of_random_results_around_a_short_wait() {
    const THREADS: u64 = 5;
    const EACH: u64 = 500;
    let breaker = rate(0.5, 3).window(ms(100)).open_for(ms(10));
    let command = builder().max_concurrent(2).breaker(breaker).build().expect("a good configuration");
    let (worker, calls) = (command.clone(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&calls);
    // To be admitted so often, each thread has to see the circuit close again and again.
    let work = move |thread| {
        let mut draw = fastrand::Rng::with_seed(thread);
        let mut admitted = 0;
        while admitted < EACH {
            counter.fetch_add(1, SeqCst);
            match worker.admit() {
                Ok(permit) => {
                    admitted += 1;
                    // Two of three fail, so that it opens soon whenever it is closed.
                    if draw.u8(0..3) == 0 { permit.succeed() } else { permit.fail() }
                }
                Err(_) => std::thread::yield_now(),
            }
        }
    };
    let timeline = Timeline::of(&command);
    on_threads(THREADS, ms(1), work, || ()).await;

    let transitions = edges(&timeline);
    assert!(transitions.len() > 100, "{}", transitions.len());
    assert!(transitions.windows(2).all(|pair| pair[0].1 == pair[1].0), "each begins where the last one ended");
    let lifetime = command.snapshot().lifetime();
    assert_eq!((lifetime.calls(), lifetime.total()), (calls.load(SeqCst), THREADS * EACH));
    assert_eq!(command.snapshot().in_flight(), 0);
    advance(ms(10)).await;
    succeed(&command).await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn go15_forty_of_a_hundred_are_too_many_for_a_threshold_of_39_percent() {
    let script = ["S".repeat(60), "F".repeat(40)].concat();
    for (threshold, expected) in [(0.39, State::Open), (0.4, State::Open), (0.41, State::Closed)] {
        let command = with(Breaker::error_rate(threshold).min_calls(100));
        play(&command, &script[..99]).await;
        assert_eq!(command.state(), State::Closed);
        play(&command, &script[99..]).await;
        assert_eq!((command.state(), command.snapshot().error_rate()), (expected, Some(0.4)), "{threshold}");
    }
}

/// The decision is by whole numbers: neither 66 % nor 67 %.
#[tokio::test(start_paused = true)]
async fn go16_two_of_three_is_two_thirds() {
    for (threshold, expected) in [(0.66, State::Open), (2.0 / 3.0, State::Open), (0.67, State::Closed)] {
        let command = with(Breaker::error_rate(threshold).min_calls(3));
        play(&command, "SFF").await;
        assert_eq!((command.state(), window(&command)), (expected, (2, 3)), "{threshold}");
        assert_eq!(command.snapshot().error_rate(), Some(2.0 / 3.0));
    }
}

/// Go's average is over buckets, empty ones included; a mean here is over calls.
#[tokio::test(start_paused = true)]
async fn go17_the_highest_of_the_last_ten_seconds_and_the_mean() {
    let command = builder().unlimited().no_timeout().build().expect("a good configuration");
    for calls in [10, 11, 9] {
        let permits: Vec<_> = (0..calls).map(|_| command.admit().expect("there is no limit")).collect();
        permits.into_iter().for_each(|permit| permit.succeed());
        advance(secs(1)).await;
    }
    assert_eq!(command.snapshot().peak_in_flight(), 11);

    let command = builder().no_timeout().build().expect("a good configuration");
    for half_seconds in [1, 3, 5, 7, 9] {
        command.run(|| after(ms(500) * half_seconds, Ok(1))).await.expect("it succeeds");
        advance(secs(1)).await;
    }
    assert_eq!(command.snapshot().latency().mean(), Some(ms(2_500)));
    assert_eq!(command.snapshot().latency().max(), Some(ms(4_500)));
}

#[tokio::test(start_paused = true)]
async fn go18_permits_out_and_back() {
    let command = builder().max_concurrent(3).build().expect("a good configuration");
    let mut permits: Vec<_> = (0..3).map(|_| command.admit().expect("there is room")).collect();
    assert_eq!((command.snapshot().in_flight(), command.snapshot().lifetime().calls()), (3, 0));
    assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    permits.pop().expect("three are out").succeed();
    let snapshot = command.snapshot();
    assert_eq!((snapshot.in_flight(), snapshot.peak_in_flight(), snapshot.lifetime().get("success")), (2, 3, 1));
    let mut next = Box::pin(command.run(hang));
    assert_eq!((poll(&mut next), command.snapshot().in_flight()), (None, 3), "its place can be had again");
    assert_eq!(command.snapshot().oldest_in_flight(), Some(Duration::ZERO));
}
