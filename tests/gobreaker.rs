//! The cases of sony/gobreaker: counting in a row, the open wait, half-open, the rolling window, the two-step form.

mod support;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use fusebox::testing::Timeline;
use fusebox::{Breaker, Cause, Command, ConfigError, Reason, State, Verdict};
use futures::FutureExt;
use support::{DOWN, Failure, advance, command, edges, ended, health, in_a_row, ms, play, rate, refused, secs, window};

/// gobreaker's defaults: trips on more than five errors in a row, waits 60 s, lets one probe out.
fn defaults() -> Breaker {
    in_a_row(6).open_for(secs(60)).probes(1)
}

fn build(breaker: Breaker) -> Result<Command, ConfigError> {
    Command::builder("gobreaker").breaker(breaker).build()
}

async fn open() -> Command {
    let command = command(defaults());
    play(&command, "FFFFFF").await;
    assert_eq!(command.state(), State::Open);
    command
}

async fn half_open() -> Command {
    let command = open().await;
    advance(secs(60)).await;
    assert_eq!(command.state(), State::HalfOpen);
    command
}

#[tokio::test(start_paused = true)]
async fn g01_five_failures_leave_it_closed() {
    let command = command(defaults());
    play(&command, "FFFFF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (5, 5)));
}

#[tokio::test(start_paused = true)]
async fn g02_a_success_ends_the_row_and_keeps_the_totals() {
    let command = command(defaults());
    play(&command, "FFFFFS").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (5, 6)));
    play(&command, "FFFFF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (10, 11)), "the row began anew");
}

#[tokio::test(start_paused = true)]
async fn g03_six_failures_in_a_row_open_it_and_clear_the_counts() {
    let command = command(defaults());
    let timeline = Timeline::of(&command);
    play(&command, "FFFFFSFFFFF").await;
    assert_eq!((command.state(), edges(&timeline)), (State::Closed, vec![]));

    play(&command, "F").await;
    assert_eq!((command.state(), health(&command)), (State::Open, (0, 0)));
    let transitions = timeline.transitions();
    assert_eq!(transitions.len(), 1);
    assert_eq!(transitions[0].cause, Cause::ConsecutiveFailures { failures: 6 });
    assert_eq!(window(&command), (11, 12), "the rolling window goes on");
}

#[tokio::test(start_paused = true)]
async fn g04_an_open_circuit_refuses_whatever_the_call_would_do() {
    let command = open().await;
    let mut ran = 0;
    for result in [Ok(1), Err(DOWN)] {
        let refused = command
            .run(|| {
                ran += 1;
                async { result }
            })
            .await
            .expect_err("it is open");
        assert!(!refused.was_started());
        let fusebox::Error::Rejected(rejected) = refused else { panic!("{refused:?}") };
        assert_eq!(rejected.reason(), Reason::CircuitOpen);
    }
    assert_eq!((ran, health(&command)), (0, (0, 0)));
    assert_eq!(ended(&command, "short_circuited"), 2);
}

#[tokio::test(start_paused = true)]
async fn g05_still_open_just_before_the_wait_ends() {
    let command = open().await;
    advance(secs(60) - ms(1)).await;
    assert_eq!(command.state(), State::Open);
    assert_eq!(refused(&command).await.retry_after(), Some(ms(1)));
}

#[tokio::test(start_paused = true)]
async fn g06_reads_half_open_once_the_wait_is_over_without_any_call() {
    let command = open().await;
    let generation = command.snapshot().generation();
    let timeline = Timeline::of(&command);
    advance(secs(60)).await;
    assert_eq!((command.state(), command.snapshot().state()), (State::HalfOpen, State::HalfOpen));
    advance(secs(3600)).await;
    assert_eq!(command.state(), State::HalfOpen);
    assert_eq!(edges(&timeline), [], "reading is no transition");
    assert_eq!(command.snapshot().generation(), generation);
}

#[tokio::test(start_paused = true)]
async fn g07_a_failed_probe_opens_it_for_the_whole_wait_again() {
    let command = half_open().await;
    advance(secs(7)).await;
    play(&command, "F").await;
    assert_eq!((command.state(), health(&command)), (State::Open, (0, 0)));
    assert_eq!(command.snapshot().retry_after(), Some(secs(60)));
    advance(secs(60) - ms(1)).await;
    assert_eq!(command.state(), State::Open);
    advance(ms(1)).await;
    assert_eq!(command.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn g08_a_good_probe_closes_it_with_fresh_counts() {
    let command = half_open().await;
    play(&command, "S").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (0, 0)));
    play(&command, "FFFFF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (5, 5)), "no failure of before counts");
}

#[tokio::test(start_paused = true)]
async fn g18_the_oldest_bucket_leaves_the_window_alone_when_the_eleventh_begins() {
    let command = command(rate(1.0, 1_000).window(secs(30)).buckets(10));
    // Bucket n holds one failure and n successes: no two are alike.
    for bucket in 0..10_u64 {
        play(&command, "F").await;
        play(&command, &"S".repeat(bucket as usize)).await;
        advance(secs(3) - ms(1)).await;
        assert_eq!(window(&command), (bucket + 1, (0..=bucket).map(|n| n + 1).sum()));
        advance(ms(1)).await;
    }
    let mut left = (10, 55);
    for bucket in 0..10 {
        left = (left.0 - 1, left.1 - (bucket + 1));
        assert_eq!((window(&command), health(&command)), (left, left), "bucket {bucket} has left");
        advance(secs(3)).await;
    }
    assert_eq!(left, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn g19_opens_at_fourteen_failures_of_twenty_three() {
    let command = command(rate(0.6, 3).window(secs(30)).buckets(10));
    play(&command, "SSS").await;
    for _ in 0..9 {
        advance(secs(3)).await;
        play(&command, "SF").await;
    }
    // The first bucket leaves; with its successes 14 of 26 would be too few.
    advance(secs(3)).await;
    play(&command, "FFFF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (13, 22)));
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open);
    assert_eq!(window(&command), (14, 23));
}

#[test]
fn g20_a_window_that_does_not_divide_into_its_buckets_is_refused_and_not_rounded() {
    let error = build(Breaker::default().window(secs(25)).buckets(3)).unwrap_err();
    assert_eq!((error.field(), error.value()), ("breaker.window", "25s in 3 buckets"));
    assert!(build(Breaker::default().window(secs(30)).buckets(3)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn g21_a_panic_counts_as_a_failure_and_reaches_the_caller_unchanged() {
    #[derive(Debug, PartialEq)]
    struct Payload(u32);

    let command = command(in_a_row(1));
    let call = command.run(async || -> Result<u32, Failure> { std::panic::panic_any(Payload(7)) });
    let panic = AssertUnwindSafe(call).catch_unwind().await.expect_err("it panics");
    assert_eq!(panic.downcast_ref(), Some(&Payload(7)));
    assert_eq!((ended(&command, "panicked"), window(&command)), (1, (1, 1)));
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn g24_errors_that_the_classifier_calls_successes_count_as_successes() {
    let command = Command::builder("lenient")
        .breaker(in_a_row(1))
        .classify(|_: &Result<u32, Failure>| Verdict::Success)
        .build()
        .expect("a good configuration");
    play(&command, "FFFFF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (0, 5)));
    assert_eq!(ended(&command, "success"), 5);
}

/// In real parallel, with nothing that takes time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g25_a_hundred_thousand_parallel_successes_are_counted_exactly() {
    let command = build(Breaker::default().window(secs(3_600))).expect("a good configuration");
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let command = command.clone();
            tokio::spawn(async move {
                for _ in 0..10_000 {
                    assert_eq!(command.run(async || Ok::<_, Failure>(1)).await, Ok(1));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no call fails");
    }
    let snapshot = command.snapshot();
    assert_eq!((snapshot.lifetime().calls(), snapshot.lifetime().get("success")), (100_000, 100_000));
    assert_eq!((health(&command), window(&command)), ((0, 100_000), (0, 100_000)));
    assert_eq!(snapshot.in_flight(), 0);
}

#[test]
fn g26_an_interval_or_a_wait_of_nothing_is_refused_when_it_is_built() {
    let error = build(Breaker::default().window(Duration::ZERO).open_for(Duration::ZERO)).unwrap_err();
    let mut fields: Vec<_> = error.problems().map(|problem| (problem.field(), problem.value())).collect();
    fields.sort_unstable();
    assert_eq!(fields, [("breaker.open_for", "0ns"), ("breaker.window", "0ns")]);
}

#[tokio::test(start_paused = true)]
async fn g27_the_two_step_form_counts_and_decides_alike() {
    let (one, two) = (command(defaults()), command(defaults()));
    let figures = |command: &Command| {
        let snapshot = command.snapshot();
        (snapshot.state(), snapshot.generation(), snapshot.health(), snapshot.window(), snapshot.lifetime())
    };
    // G1 to G8, with a second for each call: a wait of 60 s, a failed probe, another wait, a good one.
    for (wait, script) in [(0, "FFFFFSFFFFFF"), (60, "F"), (60, "S"), (0, "SF")] {
        advance(secs(wait)).await;
        for call in script.chars() {
            play(&one, &call.to_string()).await;
            let permit = two.admit().expect("both admit");
            if call == 'S' {
                permit.succeed()
            } else {
                permit.fail()
            }
            assert_eq!(figures(&one), figures(&two));
            assert_eq!(one.admit().is_ok(), two.admit().is_ok());
        }
    }
    assert_eq!(one.state(), State::Closed);
}
