//! The rate limit, through the public API: its bound, waiting, its place among the other checks, and live changes.

mod support;

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use fusebox::{Breaker, Builder, Bulkhead, Command, Config, Error, Guard, Outcome, RateLimit, Reason, State};
use futures::FutureExt;
use futures::future::join_all;
use support::{Failure, advance, ended, hang, in_a_row, ms, outcomes, poll, refused, secs};
use tokio::runtime::Handle;
use tokio::time::Instant;

fn limited(limit: RateLimit, rest: impl FnOnce(Builder) -> Builder) -> Command {
    rest(Command::builder("limited").rate_limit(limit)).build().expect("a good configuration")
}

/// How long each of so many calls that are made at once has to wait.
async fn waits(command: &Command, calls: usize) -> Vec<u64> {
    let start = Instant::now();
    let call = |_| command.run(async || Ok::<_, Failure>(start.elapsed().as_millis() as u64));
    join_all((0..calls).map(call)).await.into_iter().map(|waited| waited.expect("it is let go")).collect()
}

#[tokio::test(start_paused = true)]
async fn f36_of_seven_calls_at_one_in_500_ms_the_last_waits_for_3_s() {
    let command = limited(RateLimit::every(ms(500)).wait(secs(3)), |b| b);
    assert_eq!(waits(&command, 7).await, [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000]);
    assert_eq!(outcomes(&command), [(Outcome::Success, 7)]);
}

/// Failsafe hands out its permits a period at a time, two at each full second, so that the last waits for 3 s. Here each
/// comes when it is due.
#[tokio::test(start_paused = true)]
async fn f37_of_seven_calls_at_two_a_second_the_last_waits_for_2500_ms() {
    let command = limited(RateLimit::per_second(2).wait(secs(3)), |b| b);
    assert_eq!(waits(&command, 7).await, [0, 0, 500, 1_000, 1_500, 2_000, 2_500]);
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_rate_is_refused_and_told_when_to_come_back() {
    let command = limited(RateLimit::per_second(10).burst(2), |b| b);
    assert_eq!(waits(&command, 2).await, [0, 0]);
    let rejected = refused(&command).await;
    assert_eq!((rejected.reason(), rejected.retry_after()), (Reason::RateLimited, Some(ms(100))));
    advance(ms(99)).await;
    assert_eq!(refused(&command).await.retry_after(), Some(ms(1)));
    advance(ms(1)).await;
    assert_eq!(waits(&command, 1).await, [0]);
    assert_eq!(outcomes(&command), [(Outcome::Success, 3), (Outcome::RateLimited, 2)]);
    assert_eq!(command.snapshot().health().total, 3, "what was not sent says nothing of the dependency");
}

#[tokio::test(start_paused = true)]
async fn every_way_to_call_is_held_against_the_rate() {
    let command = limited(RateLimit::every(secs(1)).wait(secs(1)), |b| b);
    command.admit().expect("the first").succeed();
    assert_eq!(command.admit().unwrap_err().reason(), Reason::RateLimited, "it never waits");
    assert_eq!(command.admit_owned().unwrap_err().reason(), Reason::RateLimited);
    let sync = command.run_sync(|| Ok::<_, Failure>(()));
    assert!(matches!(sync, Err(Error::Rejected(r)) if r.reason() == Reason::RateLimited), "{sync:?}");
    let start = Instant::now();
    assert_eq!(async { Ok::<_, Failure>(1) }.guarded_by(&command).await, Ok(1));
    assert_eq!(command.spawn_blocking(|| Ok::<_, Failure>(1)).await, Ok(1));
    assert_eq!(start.elapsed(), secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_would_come_too_late_is_refused_at_once() {
    let command = limited(RateLimit::every(ms(100)).wait(ms(250)), |b| b);
    let calls = join_all((0..5).map(|_| command.run(async || Ok::<_, Failure>(()))));
    let start = Instant::now();
    let ended: Vec<_> = calls.await.into_iter().map(|result| result.is_ok()).collect();
    assert_eq!((ended, start.elapsed()), (vec![true, true, true, false, false], ms(200)));
    assert_eq!(outcomes(&command), [(Outcome::Success, 3), (Outcome::RateLimited, 2)]);
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_turn_is_no_part_of_the_timeout() {
    let command = limited(RateLimit::every(secs(1)).wait(secs(5)), |b| b.timeout(ms(10)));
    assert_eq!(waits(&command, 3).await, [0, 1_000, 2_000]);
    let (start, late) = (Instant::now(), command.run(hang).await);
    assert!(matches!(late, Err(Error::TimedOut(t)) if t.elapsed() == ms(10)), "{late:?}");
    assert_eq!(start.elapsed(), ms(1_010));
}

// ---- its place among the other checks ----

#[tokio::test(start_paused = true)]
async fn an_open_circuit_uses_up_no_turn() {
    let command = limited(RateLimit::every(secs(60)).burst(2), |b| b.breaker(in_a_row(1).open_for(secs(1))));
    support::fail(&command).await;
    for _ in 0..10 {
        assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
    }
    advance(secs(1)).await;
    support::succeed(&command).await;
    assert_eq!(command.state(), State::Closed);
    assert_eq!(refused(&command).await.reason(), Reason::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn a_call_over_the_rate_uses_up_no_probe() {
    let command = limited(RateLimit::every(secs(2)), |b| b.breaker(in_a_row(1).open_for(secs(1))));
    support::fail(&command).await;
    advance(secs(1)).await;
    assert_eq!(refused(&command).await.reason(), Reason::RateLimited);
    assert_eq!(command.state(), State::HalfOpen);
    advance(secs(1)).await;
    support::succeed(&command).await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_gives_the_turn_back() {
    let command = limited(RateLimit::every(secs(60)).burst(2), |b| b.max_concurrent(1));
    let permit = command.admit().expect("the first");
    for _ in 0..10 {
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    }
    permit.succeed();
    support::succeed(&command).await;
    assert_eq!(refused(&command).await.reason(), Reason::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_out_gives_the_turn_back() {
    let command = limited(RateLimit::every(secs(60)).burst(3), |b| b.breaker(in_a_row(1).open_for(secs(1))));
    support::fail(&command).await;
    advance(secs(1)).await;
    let probe = command.admit().expect("the probe");
    for _ in 0..10 {
        assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    }
    probe.succeed();
    support::succeed(&command).await;
    assert_eq!(refused(&command).await.reason(), Reason::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_gives_the_turn_back_and_a_place_in_it_takes_one() {
    let bulkhead = Bulkhead::new(1).queue(1, secs(1));
    let command = limited(RateLimit::every(secs(60)).burst(3), |b| b.bulkhead(bulkhead));
    let permit = command.admit().expect("the first");
    let mut second = Box::pin(command.run(hang));
    assert_eq!(poll(&mut second), None);
    for _ in 0..10 {
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    }
    permit.succeed();
    drop(second);
    support::succeed(&command).await;
    assert_eq!(refused(&command).await.reason(), Reason::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_meanwhile_refuses_the_call_when_its_turn_comes() {
    let breaker = in_a_row(1).open_for(secs(10));
    let command = limited(RateLimit::every(secs(1)).wait(secs(1)), |b| b.breaker(breaker));
    let permit = command.admit().expect("the first");
    let mut waiting = Box::pin(command.run(hang));
    assert_eq!(poll(&mut waiting), None);
    permit.fail();
    let ended = waiting.await;
    assert!(matches!(ended, Err(Error::Rejected(r)) if r.reason() == Reason::CircuitOpen), "{ended:?}");
    assert_eq!(outcomes(&command), [(Outcome::Failure, 1), (Outcome::ShortCircuited, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_and_then_a_slot_can_be_waited_for() {
    let bulkhead = Bulkhead::new(1).queue(1, secs(1));
    let command = limited(RateLimit::every(ms(100)).wait(secs(1)), |b| b.bulkhead(bulkhead));
    let permit = command.admit().expect("the first");
    let mut second = Box::pin(command.run(async || Ok::<_, Failure>(2)));
    assert_eq!((poll(&mut second), command.snapshot().queue_length()), (None, 0));
    advance(ms(100)).await;
    assert_eq!((poll(&mut second), command.snapshot().queue_length()), (None, 1));
    permit.succeed();
    assert_eq!(poll(&mut second), Some(Ok(2)));

    let _holder = command.run(hang).now_or_never();
    advance(ms(200)).await;
    let permit = command.admit().expect("a slot");
    let start = Instant::now();
    let ended = command.run(async || Ok::<_, Failure>(2)).await;
    assert!(matches!(ended, Err(Error::Rejected(r)) if r.reason() == Reason::QueueTimeout), "{ended:?}");
    assert_eq!(start.elapsed(), ms(1_100), "both waits, one after the other");
    permit.succeed();
}

// ---- callers who leave ----

/// The turn of the last in line goes to the next who comes; that of one with others behind it is lost, and they keep
/// theirs. Every poll of such a call, dropped after each: `cancellation.rs`.
#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_gives_the_turn_back_if_it_is_the_last() {
    let command = limited(RateLimit::every(ms(100)).wait(secs(1)), |b| b);
    let start = Instant::now();
    let call = || Box::pin(command.run(async || Ok::<_, Failure>(start.elapsed())));
    let mut calls: Vec<_> = (0..4).map(|_| call()).collect();
    assert_eq!(poll(&mut calls[0]), Some(Ok(ms(0))));
    assert!(calls[1..].iter_mut().all(|call| poll(call).is_none()));
    drop(calls.remove(1));
    drop(calls.pop());
    let (third, next) = (calls.pop().unwrap(), call());
    assert_eq!((third.await, next.await), (Ok(ms(200)), Ok(ms(300))));
    assert_eq!(outcomes(&command), [(Outcome::Success, 3), (Outcome::Cancelled, 2)]);
}

// ---- the bound ----

/// tower-resilience #394: a limiter that lets more through when many ask at once. Eight threads ask at each moment until
/// they are refused, for ten seconds: exactly as many get through as may.
#[tokio::test(start_paused = true)]
async fn bug_37_eight_threads_get_no_more_than_the_rate_and_a_burst() {
    const BURST: u32 = 20;
    let limit = RateLimit::per_second(100).burst(BURST);
    let command = limited(limit, |b| b.unlimited().breaker(Breaker::disabled()).no_latency());
    let (turn, went) = (Arc::new(Barrier::new(9)), Arc::new(AtomicU32::new(0)));
    let ask = || {
        let (command, turn, went) = (command.clone(), Arc::clone(&turn), Arc::clone(&went));
        let runtime = Handle::current();
        thread::spawn(move || {
            let _follows_its_clock = runtime.enter();
            for _ in 0..=1_000 {
                turn.wait();
                while let Ok(permit) = command.admit() {
                    permit.succeed();
                    went.fetch_add(1, Ordering::Relaxed);
                }
                turn.wait();
            }
        })
    };
    let threads: Vec<_> = (0..8).map(|_| ask()).collect();
    for tick in 0..=1_000 {
        turn.wait();
        turn.wait();
        assert_eq!(went.load(Ordering::Relaxed), BURST + tick, "calls within {tick} times 10 ms");
        advance(ms(10)).await;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(ended(&command, "success"), u64::from(BURST) + 1_000);
    assert_eq!(ended(&command, "rate_limited"), 8 * 1_001);
}

// ---- live changes ----

#[tokio::test(start_paused = true)]
async fn the_rate_changes_live_and_off_and_on_again() {
    let command = limited(RateLimit::per_minute(1), |b| b);
    support::succeed(&command).await;
    assert_eq!(refused(&command).await.retry_after(), Some(secs(60)));
    command.reconfigure(|c| c.rate_limit(RateLimit::per_second(10))).unwrap();
    assert_eq!(refused(&command).await.retry_after(), Some(ms(100)), "what was used up stays so, at the new rate");
    command.reconfigure(|c| c.no_rate_limit()).unwrap();
    support::play(&command, &"S".repeat(100)).await;
    command.reconfigure(|c| c.rate_limit(RateLimit::every(secs(1)))).unwrap();
    advance(secs(1)).await;
    support::succeed(&command).await;
    assert_eq!(refused(&command).await.reason(), Reason::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn a_plain_command_can_get_a_rate_limit_live() {
    let command = Command::builder("plain").build().unwrap();
    support::play(&command, &"S".repeat(50)).await;
    let mut events = command.subscribe();
    command.reconfigure(|c| c.rate_limit(RateLimit::per_second(5))).unwrap();
    support::play(&command, "SSSSS").await;
    assert_eq!(refused(&command).await.reason(), Reason::RateLimited);
    let told = support::drain(&mut events)[0].to_string();
    assert!(told.contains("rate_limit None -> Some(RateLimit { calls: 5"), "{told}");
    assert_eq!(command.snapshot().config().rate_limit.as_deref(), Some(&RateLimit::per_second(5)));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_something_else_forgets_no_turn() {
    let command = limited(RateLimit::every(ms(100)).wait(secs(1)), |b| b);
    let mut calls: Vec<_> = (0..5).map(|_| Box::pin(command.run(pending::<Result<u32, Failure>>))).collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_none()));
    command.reconfigure(|c| c.timeout(ms(77))).unwrap();
    assert_eq!(waits(&command, 1).await, [500]);
}

#[test]
fn the_worst_case_of_an_attempt_includes_the_wait_for_a_turn() {
    let config = Config::default().timeout(ms(250)).bulkhead(Bulkhead::new(1).queue(1, ms(20)));
    let config = config.rate_limit(RateLimit::per_second(1).wait(secs(1)));
    assert_eq!(config.worst_case().attempt, Some(ms(1_270)));
}

#[test]
fn what_is_out_of_range_is_named() {
    let problems = |limit: RateLimit| {
        let error = Command::builder("limited").rate_limit(limit).build().unwrap_err();
        error.problems().map(|problem| problem.field()).collect::<Vec<_>>()
    };
    assert_eq!(problems(RateLimit::per_second(0)), ["rate_limit.calls", "rate_limit.burst"]);
    assert_eq!(problems(RateLimit::per_second(5).burst(0)), ["rate_limit.burst"]);
    assert_eq!(problems(RateLimit::per_second(5).wait(Duration::ZERO)), ["rate_limit.wait"]);
    assert_eq!(problems(RateLimit::new(5, Duration::ZERO)), ["rate_limit.period"]);
    assert_eq!(problems(RateLimit::new(5, Duration::from_nanos(4))), ["rate_limit.calls"]);
    assert_eq!(problems(RateLimit::new(1, Duration::MAX)), ["rate_limit.period"]);
    assert_eq!(problems(RateLimit::every(secs(86_400 * 366)).burst(100)), ["rate_limit.burst"]);
    let extreme = RateLimit::new(u32::MAX, secs(86_400)).wait(secs(86_400 * 365 * 100));
    assert!(Command::builder("limited").rate_limit(extreme).build().is_ok());
}
