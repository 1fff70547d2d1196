//! The cases of Hystrix's health stream, concurrency stream and latency distribution, HM1 to HM20.

mod support;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use fusebox::{Breaker, Builder, Command, Error, Outcome, Reason, Verdict};
use futures::future::{join, join_all};
use support::{
    DOWN, Failure, advance, after, counting, ended, fail, fallbacks, hang, health, ms, outcomes, play, rate, refused,
    secs, succeed, time_out, window,
};

/// 30 buckets of 100 ms, a timeout of 600 ms, 10 calls at once without a queue, 5 fallbacks. Nothing trips.
fn builder() -> Builder {
    Command::builder("hystrix")
        .timeout(ms(600))
        .max_concurrent(10)
        .max_concurrent_fallbacks(5)
        .breaker(counting(30, ms(100)))
}

fn build(builder: Builder) -> Command {
    builder.build().expect("a good configuration")
}

/// The figures that a breaker judges by and those that a dashboard shows are the same while the state does not change.
fn errors_and_total(command: &Command) -> (u64, u64) {
    assert_eq!(health(command), window(command));
    health(command)
}

fn percent(command: &Command) -> Option<f64> {
    let snapshot = command.snapshot();
    assert_eq!(snapshot.error_rate(), snapshot.health().error_rate());
    snapshot.error_rate().map(|rate| rate * 100.0)
}

#[tokio::test(start_paused = true)]
async fn hm01_a_success_counts_once() {
    let command = build(builder());
    assert_eq!(percent(&command), None);
    succeed(&command).await;
    assert_eq!(errors_and_total(&command), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn hm02_a_failure_and_a_timeout_are_one_error_each() {
    let failed = build(builder());
    fail(&failed).await;
    assert_eq!(errors_and_total(&failed), (1, 1));

    let late = build(builder());
    assert!(matches!(late.run(|| after(ms(700), Ok(1))).await, Err(Error::TimedOut(_))));
    assert_eq!((errors_and_total(&late), outcomes(&late)), ((1, 1), vec![(Outcome::TimedOut, 1)]));
}

#[tokio::test(start_paused = true)]
async fn hm03_an_ignored_result_enters_no_figure_of_health() {
    let command = build(builder());
    play(&command, "I").await;
    assert_eq!((errors_and_total(&command), percent(&command)), ((0, 0), None));
    assert_eq!(outcomes(&command), [(Outcome::Ignored, 1)]);
}

#[tokio::test(start_paused = true)]
async fn hm06_rejections_are_errors_if_the_user_wants_it() {
    for count in [true, false] {
        let command = build(builder().breaker(counting(30, ms(100)).count_rejections(count)));
        let running = join_all((0..10).map(|_| command.run(|| after(ms(400), Ok(1)))));
        let refusals = async {
            for _ in 0..2 {
                assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
            }
        };
        assert_eq!(join(running, refusals).await.0, vec![Ok(1); 10]);
        assert_eq!(health(&command), if count { (2, 12) } else { (0, 10) });
        assert_eq!(outcomes(&command), [(Outcome::Success, 10), (Outcome::Rejected, 2)]);
    }
}

/// The same for work on other threads, which a Hystrix user would have in a thread pool.
#[tokio::test(start_paused = true)]
async fn hm06_rejections_of_blocking_work_are_counted_alike() {
    let command = build(builder().no_timeout().breaker(counting(30, ms(100)).count_rejections(true)));
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let work = || {
        let gate = Arc::clone(&gate);
        command.spawn_blocking(move || {
            let (open, opened) = &*gate;
            drop(opened.wait_while(open.lock().expect("nobody panics"), |open| !*open).expect("nobody panics"));
            Ok::<_, Failure>(1)
        })
    };
    let refusals = async {
        assert_eq!(command.snapshot().in_flight(), 10);
        for _ in 0..2 {
            assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
            let Err(Error::Rejected(rejected)) = work().await else { panic!("ten are in flight") };
            assert_eq!(rejected.reason(), Reason::ConcurrencyLimit);
        }
        *gate.0.lock().expect("nobody panics") = true;
        gate.1.notify_all();
    };
    assert_eq!(join(join_all((0..10).map(|_| work())), refusals).await.0, vec![Ok(1); 10]);
    assert_eq!((health(&command), window(&command)), ((4, 14), (0, 10)));
}

#[tokio::test(start_paused = true)]
async fn hm06_rejections_that_count_can_open_the_circuit() {
    let rule = rate(0.5, 4);
    for (breaker, reason) in
        [(rule.clone(), Reason::ConcurrencyLimit), (rule.count_rejections(true), Reason::CircuitOpen)]
    {
        let command = build(builder().max_concurrent(1).breaker(breaker));
        let _running = command.admit().expect("there is room");
        for _ in 0..4 {
            assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
        }
        assert_eq!(refused(&command).await.reason(), reason);
    }
}

#[tokio::test(start_paused = true)]
async fn hm06_a_disabled_breaker_never_opens_from_rejections() {
    let command = build(builder().max_concurrent(1).breaker(Breaker::disabled().count_rejections(true)));
    let running = command.admit().expect("there is room");
    for _ in 0..100 {
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    }
    running.succeed();
    assert_eq!(health(&command), (100, 101));
    succeed(&command).await;
}

#[tokio::test(start_paused = true)]
async fn hm07_what_becomes_of_the_fallback_is_of_no_account() {
    let missing = build(builder());
    fail(&missing).await;
    assert_eq!((errors_and_total(&missing), fallbacks(&missing)), ((1, 1), (0, 0, 0)));

    let failing = build(builder());
    let result = failing.run(async || Err::<u32, _>(DOWN)).fallback(async |cause| Err(cause)).await;
    assert_eq!(result, Err(Error::Failed(DOWN)));
    assert_eq!((errors_and_total(&failing), fallbacks(&failing)), ((1, 1), (0, 1, 0)));

    let good = build(builder());
    assert_eq!(good.run(async || Err(DOWN)).fallback(async |_| Ok(2)).await, Ok(2));
    assert_eq!((errors_and_total(&good), fallbacks(&good)), ((1, 1), (1, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn hm08_a_refused_fallback_is_of_no_account_either() {
    let command = build(builder());
    let call =
        || command.run(async || Err(DOWN)).fallback(|_| async { after(ms(400), Ok(2)).await.map_err(Error::Failed) });
    let results = join_all((0..7).map(|_| call())).await;
    assert_eq!(results[..5], [Ok(2); 5]);
    assert_eq!(results[5..], [Err(Error::Failed(DOWN)); 2], "the two get what they would have without a fallback");
    assert_eq!((errors_and_total(&command), fallbacks(&command)), ((7, 7), (5, 0, 2)));
}

#[tokio::test(start_paused = true)]
async fn hm09_thirty_buckets_without_traffic_leave_nothing() {
    let command = build(builder());
    play(&command, "SF").await;
    for _ in 0..29 {
        advance(ms(100)).await;
        assert_eq!(errors_and_total(&command), (1, 2));
    }
    advance(ms(100)).await;
    assert_eq!((errors_and_total(&command), percent(&command)), ((0, 0), None));
    assert_eq!(command.snapshot().lifetime().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn hm10_the_error_rate_follows_each_call() {
    let command = build(builder());
    for (script, expected) in [("S", 0.0), ("F", 50.0), ("SS", 25.0), ("TT", 50.0), ("SSSS", 30.0)] {
        play(&command, script).await;
        assert_eq!(percent(&command), Some(expected), "after {script}");
    }
}

#[tokio::test(start_paused = true)]
async fn hm11_ignored_results_leave_the_error_rate_alone() {
    let command = build(builder());
    for (script, expected) in [("SF", 50.0), ("II", 50.0), ("FF", 75.0)] {
        play(&command, script).await;
        assert_eq!(percent(&command), Some(expected), "after {script}");
    }
}

#[tokio::test(start_paused = true)]
async fn hm12_concurrency_is_what_is_in_flight() {
    let command = build(builder().no_timeout());
    let calls = join_all((0..8).map(|_| command.run(|| after(ms(900), Ok(1)))));
    let look = async {
        tokio::time::sleep(ms(150)).await;
        command.snapshot().in_flight()
    };
    assert_eq!(join(calls, look).await, (vec![Ok(1); 8], 8));
    assert_eq!(command.snapshot().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn hm12_calls_that_time_out_are_in_flight_no_more() {
    let command = build(builder());
    let results = join_all((0..8).map(|_| command.run(|| after(ms(900), Ok(1))))).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::TimedOut(_)))));
    assert_eq!((command.snapshot().in_flight(), command.snapshot().peak_in_flight()), (0, 8));
}

#[tokio::test(start_paused = true)]
async fn hm14_two_overlapping_calls_in_one_bucket_make_a_peak_of_two() {
    let command = build(builder());
    let overlapping = join(command.run(|| after(ms(20), Ok(1))), command.run(|| after(ms(50), Ok(1))));
    assert_eq!(overlapping.await, (Ok(1), Ok(1)));
    succeed(&command).await;
    assert_eq!((command.snapshot().peak_in_flight(), command.snapshot().in_flight()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn hm16_the_peak_is_over_all_buckets_and_leaves_with_them() {
    let command = build(builder());
    let call = async |start, takes| {
        tokio::time::sleep(ms(start)).await;
        command.run(|| after(ms(takes), Ok(1))).await
    };
    let calls = [call(0, 300), call(100, 300), call(200, 10), call(300, 10)];
    assert_eq!(join_all(calls).await, vec![Ok(1); 4]);
    assert_eq!(command.snapshot().peak_in_flight(), 3);
    advance(ms(3_000)).await;
    assert_eq!(command.snapshot().peak_in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn hm17_calls_that_the_circuit_refuses_are_not_concurrency() {
    let command = build(builder().breaker(rate(0.5, 1)));
    fail(&command).await;
    let results = join_all((0..20).map(|_| command.run(|| after(ms(50), Ok(1))))).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::Rejected(_)))));
    assert_eq!((command.snapshot().peak_in_flight(), ended(&command, "short_circuited")), (1, 20));
}

#[tokio::test(start_paused = true)]
async fn hm17_calls_that_the_bulkhead_refuses_are_not_concurrency() {
    let command = build(builder());
    let results = join_all((0..20).map(|_| command.run(|| after(ms(50), Ok(1))))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
    assert_eq!((command.snapshot().peak_in_flight(), ended(&command, "rejected")), (10, 10));
}

/// Of the operation alone: the fallback takes its time after it.
#[tokio::test(start_paused = true)]
async fn hm18_latency_is_recorded_for_every_call_that_started() {
    let command = build(builder());
    let slow_fallback = |_| async { after(ms(5_000), Ok(2)).await.map_err(Error::Failed) };
    assert_eq!(command.run(|| after(ms(10), Ok(1))).await, Ok(1));
    assert_eq!(command.run(hang).fallback(slow_fallback).await, Ok(2));
    assert_eq!(command.run(|| after(ms(30), Err(DOWN))).fallback(slow_fallback).await, Ok(2));
    let ignored = command.run(|| after(ms(40), Err(DOWN))).classify(|_| Verdict::Ignored).fallback(slow_fallback).await;
    assert_eq!(ignored, Err(Error::Failed(DOWN)));

    let snapshot = command.snapshot();
    let latency = snapshot.latency();
    assert_eq!((latency.count(), latency.min(), latency.max()), (4, Some(ms(10)), Some(ms(600))));
    assert_eq!(latency.mean(), Some(ms((10 + 600 + 30 + 40) / 4)));
}

#[tokio::test(start_paused = true)]
async fn hm19_refused_calls_have_no_latency() {
    let command = build(builder().max_concurrent(1).breaker(rate(0.5, 1).open_for(secs(9))));
    let running = command.admit().expect("there is room");
    assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    drop(running);
    time_out(&command).await;
    assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
    command.force_open("test", None);
    assert_eq!(refused(&command).await.reason(), Reason::ForcedOpen);
    // The one that was dropped and the one that timed out did start.
    assert_eq!((command.snapshot().latency().count(), command.snapshot().lifetime().calls()), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn hm20_the_mean_is_right_also_beyond_32_bits_of_nanoseconds() {
    let command = build(builder().no_timeout());
    let mean = || command.snapshot().latency().mean();
    assert_eq!(mean(), None);
    assert_eq!(command.run(|| after(ms(100), Ok(1))).await, Ok(1));
    advance(secs(2)).await;
    assert_eq!(command.run(|| after(ms(200), Ok(1))).await, Ok(1));
    assert_eq!(mean(), Some(ms(150)));

    let slow = build(builder().no_timeout());
    for takes in [secs(5), secs(7)] {
        assert_eq!(slow.run(|| after(takes, Ok(1))).await, Ok(1));
    }
    assert_eq!(slow.snapshot().latency().mean(), Some(Duration::from_secs(6)));
}
