//! The cases of cep21/circuit: limits, interrupts, overrides, stress, one event for each change.

mod support;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, SystemTime};

use fusebox::testing::Timeline;
use fusebox::{Breaker, Builder, Command, Error, Event, Outcome, Reason, State, Transition, Verdict};
use futures::FutureExt;
use futures::future::join_all;
use support::{
    DOWN, Failure, advance, command, drain, edges, ended, hang, health, in_a_row, message, ms, play, poll, rate,
    refused, secs, time_machine, window,
};
use tokio::time::{Instant, sleep};

/// cep21's opener: 50 % of at least 20 calls.
fn opener() -> Breaker {
    rate(0.5, 20)
}

fn builder() -> Builder {
    Command::builder("cep21")
}

fn build(builder: Builder) -> Command {
    builder.build().expect("a good configuration")
}

#[tokio::test(start_paused = true)]
async fn c01_a_hundred_successes_never_ask_the_fallback() {
    let command = command(opener());
    let asked = Cell::new(0);
    for n in 0..100 {
        let asked = &asked;
        let result = command
            .run(async || Ok::<_, Failure>(n))
            .fallback(|cause| {
                asked.set(asked.get() + 1);
                async move { Err(cause) }
            })
            .await;
        assert_eq!(result, Ok(n));
    }
    assert_eq!((asked.get(), ended(&command, "success")), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn c02_bad_requests_never_open_it_nor_ask_the_fallback_and_come_out_as_they_are() {
    let command = command(opener());
    let asked = Cell::new(0);
    for n in 0..100 {
        let asked = &asked;
        let result = command
            .run(async || Err::<u32, _>(n))
            .classify(|_| Verdict::Ignored)
            .fallback(|_| {
                asked.set(asked.get() + 1);
                async { Ok(1) }
            })
            .await;
        assert_eq!(result, Err(Error::Failed(n)));
    }
    assert_eq!((asked.get(), ended(&command, "ignored")), (0, 100));
    assert_eq!((command.state(), health(&command)), (State::Closed, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn c03_twenty_parallel_calls_fit_into_twenty_slots() {
    let command = build(builder().max_concurrent(20));
    let call = || {
        command.run(async || {
            sleep(ms(10)).await;
            Ok::<_, Failure>(1)
        })
    };
    assert_eq!(join_all((0..20).map(|_| call())).await, vec![Ok(1); 20]);
    assert_eq!((command.snapshot().peak_in_flight(), command.snapshot().in_flight()), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn c04_the_third_of_three_parallel_calls_is_refused_by_two_slots() {
    let command = build(builder().max_concurrent(2));
    let (inside, most) = (Cell::new(0), Cell::new(0));
    let call = || {
        command.run(async || {
            inside.set(inside.get() + 1);
            most.set(most.get().max(inside.get()));
            sleep(ms(10)).await;
            inside.set(inside.get() - 1);
            Ok::<_, Failure>(1)
        })
    };
    let results = join_all((0..3).map(|_| call())).await;
    assert_eq!(results[..2], [Ok(1), Ok(1)]);
    let Err(Error::Rejected(rejected)) = results[2] else { panic!("{results:?}") };
    assert_eq!(rejected.reason(), Reason::ConcurrencyLimit);
    assert_eq!((most.get(), command.snapshot().peak_in_flight()), (2, 2));
    assert_eq!(ended(&command, "rejected"), 1);
}

#[tokio::test(start_paused = true)]
async fn c05_the_third_of_three_parallel_fallbacks_is_refused_and_its_caller_gets_the_cause() {
    let command = build(builder().max_concurrent_fallbacks(2));
    let ran = Cell::new(0);
    let call = || {
        command.run(async || Err::<u32, _>(DOWN)).fallback(|_| {
            ran.set(ran.get() + 1);
            async {
                sleep(ms(10)).await;
                Ok(2)
            }
        })
    };
    let results = join_all((0..3).map(|_| call())).await;
    assert_eq!(results, [Ok(2), Ok(2), Err(Error::Failed(DOWN))]);
    let fallbacks = command.snapshot().fallbacks();
    assert_eq!((ran.get(), fallbacks.success, fallbacks.rejected, fallbacks.in_flight), (2, 2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn c07_a_panic_is_forwarded_and_leaves_nobody_in_flight() {
    let command = build(builder().max_concurrent(1));
    for _ in 0..3 {
        let call = command.run(async || {
            tokio::task::yield_now().await;
            if command.snapshot().in_flight() == 1 {
                panic!("boom");
            }
            Ok::<u32, Failure>(1)
        });
        assert_eq!(message(AssertUnwindSafe(call).catch_unwind().await), "boom");
        assert_eq!(command.snapshot().in_flight(), 0);
    }
    assert_eq!(ended(&command, "panicked"), 3);
}

/// A hundred callers that lose interest: half drop the call, half have a deadline of their own.
async fn interrupted(command: &Command) {
    for n in 0..100 {
        if n % 2 == 0 {
            let mut call = Box::pin(command.run(hang));
            if poll(&mut call).is_none() {
                advance(ms(10)).await;
            }
        } else {
            // The deadline's outcome is either: a refusal comes at once, a call that hangs is given up.
            let _ = tokio::time::timeout(ms(10), command.run(hang)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c08_calls_that_their_callers_give_up_are_no_failures() {
    let command = command(opener());
    interrupted(&command).await;
    assert_eq!(command.state(), State::Closed);
    assert_eq!((ended(&command, "cancelled"), health(&command)), (100, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn c09_calls_that_their_callers_give_up_are_failures_if_the_option_says_so() {
    let command = command(opener().count_cancelled_after(ms(10)).open_for(secs(60)));
    interrupted(&command).await;
    assert_eq!(command.state(), State::Open);
    let lifetime = command.snapshot().lifetime();
    assert_eq!((lifetime.get("failure"), lifetime.get("cancelled"), lifetime.get("short_circuited")), (20, 0, 80));
}

#[tokio::test(start_paused = true)]
async fn c10_only_errors_that_the_classifier_takes_for_interrupts_are_interrupts() {
    let command = builder()
        .breaker(opener())
        .classify(|result: &Result<u32, Failure>| match result {
            Ok(_) => Verdict::Success,
            Err("interrupted") => Verdict::Ignored,
            Err(_) => Verdict::Failure,
        })
        .build()
        .expect("a good configuration");
    for _ in 0..100 {
        assert_eq!(command.run(async || Err("interrupted")).await, Err(Error::Failed("interrupted")));
    }
    play(&command, &"F".repeat(19)).await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (19, 19)));
    play(&command, "F").await;
    assert_eq!((command.state(), ended(&command, "ignored")), (State::Open, 100));
}

/// Does `act` on a hundred threads at once.
fn at_once(act: impl Fn() + Sync) {
    let ready = Barrier::new(100);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                ready.wait();
                act();
            });
        }
    });
}

#[test]
fn c11_a_hundred_threads_that_open_or_close_at_once_make_one_change() {
    let command = command(in_a_row(1).open_for(secs(3_600)));
    let timeline = Timeline::of(&command);
    at_once(|| command.force_open("all at once", None));
    assert_eq!(edges(&timeline), [(State::Closed, State::ForcedOpen)]);
    at_once(|| command.clear_override());
    assert_eq!(edges(&timeline)[1..], [(State::ForcedOpen, State::Closed)]);
    // And where no operator does it: a hundred calls in flight that all fail.
    let permits: Vec<_> = (0..100).map(|_| command.admit_owned().expect("it is closed")).collect();
    let permits = Mutex::new(permits);
    at_once(|| {
        let permit = permits.lock().expect("nobody panics").pop().expect("one each");
        permit.fail();
    });
    assert_eq!(edges(&timeline)[2..], [(State::Closed, State::Open)]);
}

#[tokio::test(start_paused = true)]
async fn c12_every_call_of_a_mixed_crowd_is_recorded_once_and_as_what_its_caller_saw() {
    let command =
        build(builder().max_concurrent(40).breaker(opener().last_calls(20).open_for(ms(1)).count_rejections(false)));
    let seen: Arc<[AtomicU64; Outcome::ALL.len()]> = Arc::default();
    let tasks: Vec<_> = (0..50_u64)
        .map(|task| {
            let (command, seen) = (command.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(task);
                for _ in 0..2_000 {
                    let outcome = mixed(&command, &mut random).await;
                    seen[outcome as usize].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("panics are caught");
    }
    let lifetime = command.snapshot().lifetime();
    for (outcome, count) in lifetime.iter() {
        assert_eq!(count, seen[outcome as usize].load(Ordering::Relaxed), "{outcome}");
        assert_eq!(count > 0, outcome != Outcome::RateLimited, "the crowd was not mixed: {lifetime:?}");
    }
    assert_eq!((lifetime.calls(), command.snapshot().in_flight()), (100_000, 0));
}

/// One call of a random kind, and how its caller saw it end.
async fn mixed(command: &Command, random: &mut fastrand::Rng) -> Outcome {
    let kind = random.u32(0..40);
    let call = command.run(async || match kind {
        0..=9 => Ok(1),
        10..=29 => {
            tokio::task::yield_now().await;
            sleep(ms(u64::from(kind % 3))).await;
            Ok(1)
        }
        30..=33 => Err(DOWN),
        34 => panic!("mixed"),
        _ => hang().await,
    });
    let result = match kind {
        35 | 36 => AssertUnwindSafe(call.timeout(ms(1))).catch_unwind().await,
        37 => match call.now_or_never() {
            Some(result) => Ok(result),
            None => return Outcome::Cancelled,
        },
        38 => match tokio::time::timeout(ms(1), call).await {
            Ok(result) => Ok(result),
            Err(_) => return Outcome::Cancelled,
        },
        39 => AssertUnwindSafe(command.run(async || Err(DOWN)).classify(|_| Verdict::Ignored)).catch_unwind().await,
        _ => AssertUnwindSafe(call).catch_unwind().await,
    };
    match result {
        Err(_) => Outcome::Panicked,
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(Error::TimedOut(_))) => Outcome::TimedOut,
        Ok(Err(Error::Failed(_))) if kind == 39 => Outcome::Ignored,
        Ok(Err(Error::Failed(_))) => Outcome::Failure,
        Ok(Err(Error::Rejected(rejected))) if rejected.reason() == Reason::ConcurrencyLimit => Outcome::Rejected,
        Ok(Err(Error::Rejected(_))) => Outcome::ShortCircuited,
    }
}

#[tokio::test(start_paused = true)]
async fn c13_over_a_long_random_run_it_opens_and_closes_in_turn() {
    let command = command(rate(0.5, 4).last_calls(8).open_for(ms(20)).probes(2));
    let timeline = Timeline::of(&command);
    let mut random = fastrand::Rng::with_seed(13);
    for _ in 0..20_000 {
        advance(ms(random.u64(0..10))).await;
        if let Ok(permit) = command.admit() {
            match random.u32(0..10) {
                0..=4 => permit.succeed(),
                5..=8 => permit.fail(),
                _ => permit.ignore(),
            }
        }
    }
    let mut before = (State::Closed, 1);
    let mut times = [0; 3];
    for Transition { from, to, generation, .. } in timeline.transitions() {
        assert_eq!((from, generation), (before.0, before.1 + 1), "the chain is broken");
        match (from, to) {
            (State::Closed | State::HalfOpen, State::Open) => times[0] += 1,
            (State::Open, State::HalfOpen) => times[1] += 1,
            (State::HalfOpen, State::Closed) => times[2] += 1,
            other => panic!("no such change: {other:?}"),
        }
        before = (to, generation);
    }
    assert!(times.iter().all(|&times| times > 100), "too few to say anything: {times:?}");
}

#[tokio::test(start_paused = true)]
async fn c14_an_event_bears_the_time_of_the_mock_clock() {
    let command = command(Breaker::default());
    let mut events = command.subscribe();
    let times = |events: Vec<Event>| -> Vec<SystemTime> {
        let at = |event| match event {
            Event::Transition(Transition { at, .. })
            | Event::OverrideSet { at, .. }
            | Event::OverrideCleared { at, .. } => at,
            other => panic!("unexpected: {other}"),
        };
        events.into_iter().map(at).collect()
    };
    command.force_open("manual", None);
    let set = times(drain(&mut events));
    advance(secs(86_400)).await;
    command.clear_override();
    let cleared = times(drain(&mut events));
    assert_eq!((set.len(), cleared.len()), (2, 2));
    assert_eq!((set[0], cleared[0]), (set[1], cleared[1]), "an override and its transition are one moment");
    assert_eq!(cleared[0].duration_since(set[0]).ok(), Some(secs(86_400)));
}

#[tokio::test(start_paused = true)]
async fn c15_while_the_clock_stands_still_nothing_times_out() {
    let command = build(builder().timeout(secs(1)));
    let began = Instant::now();
    for _ in 0..1_000 {
        let result = command
            .run(async || {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                Ok::<_, Failure>(1)
            })
            .await;
        assert_eq!(result, Ok(1));
    }
    assert_eq!((ended(&command, "timed_out"), began.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn c16_held_closed_it_never_opens_and_does_not_spring_open_when_let_go() {
    for (breaker, needed) in [(opener(), 20), (in_a_row(3), 3)] {
        let command = command(breaker);
        command.force_closed("we know", None);
        play(&command, &"F".repeat(1_000)).await;
        assert_eq!((command.state(), ended(&command, "failure")), (State::ForcedClosed, 1_000));

        command.clear_override();
        assert_eq!((command.state(), health(&command)), (State::Closed, (0, 0)));
        play(&command, &"F".repeat(needed - 1)).await;
        assert_eq!(command.state(), State::Closed, "the old figures have no say");
        play(&command, "F").await;
        assert_eq!(command.state(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn c17_held_open_it_lets_nothing_through_and_grants_no_probe() {
    let command = command(in_a_row(1).open_for(secs(1)));
    play(&command, "F").await;
    command.force_open("maintenance", None);
    for _ in 0..50 {
        let rejected = refused(&command).await;
        assert_eq!(
            (rejected.reason(), rejected.retry_after()),
            (Reason::ForcedOpen, None),
            "the wait below has no say"
        );
        advance(ms(100)).await;
    }
    assert_eq!((command.state(), ended(&command, "short_circuited")), (State::ForcedOpen, 50));
}

#[tokio::test(start_paused = true)]
async fn c20_settings_changed_while_it_is_open_apply_and_it_still_recovers() {
    let command = command(in_a_row(2).open_for(secs(10)));
    play(&command, "FF").await;
    command.reconfigure(|config| config.breaker(in_a_row(3).open_for(secs(1)))).expect("a good configuration");
    assert_eq!(command.snapshot().retry_after(), Some(secs(10)), "a wait that has begun stays");

    advance(secs(10)).await;
    play(&command, "F").await;
    assert_eq!(command.snapshot().retry_after(), Some(secs(1)), "the next one is the new one");
    advance(secs(1)).await;
    play(&command, "SFF").await;
    assert_eq!(command.state(), State::Closed);
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open, "three in a row is the new rule");
}

#[tokio::test(start_paused = true)]
async fn c23_the_first_call_after_the_wait_is_the_probe_and_the_second_is_refused() {
    let command = command(rate(0.5, 1).open_for(secs(1)));
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open);
    advance(secs(1) + ms(1)).await;
    let mut probe = Box::pin(command.run(async || {
        sleep(ms(5)).await;
        Err::<u32, _>(DOWN)
    }));
    assert_eq!(poll(&mut probe), None);
    assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    assert_eq!(probe.await, Err(Error::Failed(DOWN)));
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn c24_right_after_it_opened_nobody_gets_through() {
    let command = command(in_a_row(1).open_for(secs(3_600)));
    play(&command, "F").await;
    let ran = AtomicUsize::new(0);
    for _ in 0..10 {
        let call = || {
            command.run(async || {
                ran.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Failure>(1)
            })
        };
        let results = join_all((0..40).map(|_| call())).await;
        assert!(results.iter().all(|result| matches!(result, Err(Error::Rejected(_)))));
    }
    assert_eq!((ran.into_inner(), ended(&command, "short_circuited")), (0, 400));
}

#[tokio::test(start_paused = true)]
async fn c25_a_success_from_before_it_opened_does_not_close_it() {
    let command = command(in_a_row(1));
    let early = command.admit().expect("it is closed");
    play(&command, "F").await;
    early.succeed();
    assert_eq!((command.state(), command.snapshot().late_outcomes()), (State::Open, 1));
    assert_eq!(ended(&command, "success"), 1);
}

/// In real parallel: an hour's wait does not end meanwhile.
#[test]
fn c28_under_stress_no_probe_is_granted_before_its_time() {
    let command = command(in_a_row(1).open_for(secs(3_600)));
    let ran = AtomicUsize::new(0);
    for round in 1..=50 {
        command.reset();
        assert_eq!(command.run_sync(|| Err::<u32, _>(DOWN)), Err(Error::Failed(DOWN)));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _ = command.run_sync(|| {
                            ran.fetch_add(1, Ordering::Relaxed);
                            Ok::<_, Failure>(1)
                        });
                    }
                });
            }
        });
        assert_eq!((ran.load(Ordering::Relaxed), ended(&command, "short_circuited")), (0, round * 1_600));
    }
}

#[tokio::test(start_paused = true)]
async fn c29_three_good_probes_close_it_and_a_timeout_among_them_opens_it_again() {
    // One failure of three reaches 30 %, so it takes three successes to rule that out.
    let command = command(rate(0.3, 20).consecutive_failures(1).probes(3).open_for(secs(1)));
    play(&command, "F").await;
    advance(secs(1)).await;
    play(&command, "SST").await;
    assert_eq!(command.state(), State::Open);
    advance(secs(1)).await;
    play(&command, "SS").await;
    assert_eq!(command.state(), State::HalfOpen, "the two of before have no say");
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn c30_what_says_nothing_of_the_dependency_does_not_fill_the_volume() {
    let command = build(builder().max_concurrent(1).breaker(rate(0.5, 3)));
    play(&command, "TF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (2, 2)));

    play(&command, "IC").await;
    let permit = command.admit().expect("there is a slot");
    assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    permit.ignore();
    assert_eq!((command.state(), health(&command)), (State::Closed, (2, 2)));

    play(&command, "F").await;
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn c32_only_an_unbroken_row_opens_the_consecutive_rule() {
    for row in [10, 5] {
        let command = command(in_a_row(row));
        let short = "F".repeat(row as usize - 1);
        play(&command, &short).await;
        play(&command, "S").await;
        play(&command, &short).await;
        assert_eq!(command.state(), State::Closed, "{row}");
        play(&command, "F").await;
        assert_eq!(command.state(), State::Open, "{row}");
    }
}

#[test]
fn c34_when_the_clock_steps_back_counts_are_kept() {
    let ahead = time_machine();
    let command = command(rate(1.0, 1_000).window(secs(10)).buckets(10));
    ahead.block_on(async {
        advance(secs(3_600)).await;
        play(&command, "SF").await;
    });
    for n in 1..=20 {
        assert_eq!(command.run_sync(|| Err::<u32, _>(DOWN)), Err(Error::Failed(DOWN)));
        assert_eq!((health(&command), window(&command)), ((n + 1, n + 2), (n + 1, n + 2)));
    }
    assert_eq!(command.snapshot().lifetime().calls(), 22);
    ahead.block_on(async {
        assert_eq!((health(&command), window(&command)), ((21, 22), (21, 22)));
        advance(secs(10)).await;
        assert_eq!((health(&command), window(&command)), ((0, 0), (0, 0)));
    });
}
