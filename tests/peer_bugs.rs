//! Bugs that others had, by the number they have on our list: what went wrong there must not happen here.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::{Ready, pending, ready};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use fusebox::testing::Timeline;
use fusebox::{
    Breaker, Builder, Bulkhead, Command, Error, Event, Reason, Registry, Rejected, State, Transition, Verdict,
};
use futures::FutureExt;
use support::{
    DOWN, Failure, advance, edges, ended, hang, health, in_a_row, ms, play, poll, rate, refused, secs, time_machine,
    window,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

fn builder(breaker: Breaker) -> Builder {
    Command::builder("peer.bug").breaker(breaker)
}

fn build(builder: Builder) -> Command {
    builder.build().expect("a good configuration")
}

/// A command that has just become due for its probes. It opened for a second, as it will again.
async fn due(builder: Builder) -> Command {
    let command = build(builder);
    trip(&command).await;
    advance(secs(1)).await;
    assert_eq!(command.state(), State::HalfOpen);
    command
}

async fn trip(command: &Command) {
    play(command, "F").await;
    assert_eq!(command.state(), State::Open);
}

/// Opens at the first failure, for a second; 30 % of the probes open it again.
fn touchy(probes: u32) -> Breaker {
    rate(0.3, 20).consecutive_failures(1).probes(probes).open_for(secs(1))
}

// ---- half-open and state ----

/// Hystrix #1621: an unsubscribed command in half-open left the circuit open for good.
#[tokio::test(start_paused = true)]
async fn bug_01_a_dropped_probe_does_not_hold_the_circuit_open() {
    let command = due(builder(touchy(1))).await;
    let mut probe = Box::pin(command.run(hang));
    assert_eq!(poll(&mut probe), None);
    drop(probe);
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

/// Hystrix #1853, #1861: then any command's unsubscribe reopened the circuit, and the real probe's success was lost.
#[tokio::test(start_paused = true)]
async fn bug_02_a_dropped_call_from_before_does_not_spoil_the_probe() {
    let command = build(builder(touchy(1)));
    let mut old = Box::pin(command.run(hang));
    assert_eq!(poll(&mut old), None);
    trip(&command).await;
    advance(ms(999)).await;
    advance(ms(1)).await;
    let probe = command.admit().expect("the probe");
    drop(old);
    assert_eq!(command.state(), State::HalfOpen);
    probe.succeed();
    assert_eq!(command.state(), State::Closed);
}

/// Hystrix #1781: the status and the time of opening were two fields, and races left them in contradiction. In real
/// parallel; that no order of steps can do it is for loom to show.
#[test]
fn bug_03_state_and_deadline_never_contradict_each_other() {
    // The circuit may have opened, for 1 ms, between the caller's look at the clock and its look at the circuit.
    fn is_one_wait(left: Duration, before: Instant) -> bool {
        left > Duration::ZERO && left <= ms(1) + before.elapsed()
    }

    let command = build(builder(in_a_row(1).open_for(ms(1))).unlimited());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let before = Instant::now();
                let snapshot = command.snapshot();
                match (snapshot.state(), snapshot.retry_after()) {
                    (State::Closed | State::HalfOpen, None) => {}
                    (State::Open, Some(left)) if is_one_wait(left, before) => {}
                    other => panic!("a contradiction: {other:?}"),
                }
            }
        });
        let callers: Vec<_> = (0..3_u64)
            .map(|seed| {
                let command = &command;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..50_000 {
                        let before = Instant::now();
                        match command.admit().map_err(|refused| (refused.reason(), refused.retry_after())) {
                            Ok(permit) if random.bool() => permit.fail(),
                            Ok(permit) => permit.succeed(),
                            Err((Reason::ProbeLimit, None)) => {}
                            Err((Reason::CircuitOpen, Some(left))) if is_one_wait(left, before) => {}
                            Err(other) => panic!("a contradiction: {other:?}"),
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        reader.join().expect("no contradiction");
    });
}

/// Hystrix #1723: the breaker stayed open when no fallback was set.
#[tokio::test(start_paused = true)]
async fn bug_04_the_states_are_the_same_with_and_without_a_fallback() {
    #[derive(Clone, Copy)]
    enum Fallback {
        None,
        Good,
        Failing,
        Panicking,
    }

    async fn call(command: &Command, result: Result<u32, Failure>, fallback: Fallback) {
        let call = command.run(async || result);
        let ended = match fallback {
            Fallback::None => call.await,
            Fallback::Good => call.fallback(async |_| Ok(2)).await,
            Fallback::Failing => call.fallback(async |_| Err(Error::Failed("no help"))).await,
            Fallback::Panicking => {
                let call = call.fallback(|_| async { panic!("no help") });
                AssertUnwindSafe(call).catch_unwind().await.unwrap_or(Err(Error::Failed("panicked")))
            }
        };
        let saved = matches!(fallback, Fallback::Good);
        assert_eq!(ended.is_ok(), saved || (result.is_ok() && command.state() == State::Closed));
    }

    for fallback in [Fallback::None, Fallback::Good, Fallback::Failing, Fallback::Panicking] {
        let command = build(builder(in_a_row(2).open_for(secs(1))));
        let timeline = Timeline::of(&command);
        for (wait, result) in [(0, Err(DOWN)), (0, Err(DOWN)), (0, Ok(1)), (1, Err(DOWN)), (0, Ok(1)), (1, Ok(1))] {
            advance(secs(wait)).await;
            call(&command, result, fallback).await;
        }
        assert_eq!(
            edges(&timeline),
            [
                (State::Closed, State::Open),
                (State::Open, State::HalfOpen),
                (State::HalfOpen, State::Open),
                (State::Open, State::HalfOpen),
                (State::HalfOpen, State::Closed),
            ]
        );
        assert_eq!(ended(&command, "short_circuited"), 2);
    }
}

/// Hystrix #674: results that are the caller's fault, in place of the probe, held the circuit open for ever.
#[tokio::test(start_paused = true)]
async fn bug_05_a_hundred_ignored_probes_use_nothing_up() {
    let command = due(builder(touchy(1))).await;
    for _ in 0..100 {
        play(&command, "I").await;
        assert_eq!(command.state(), State::HalfOpen);
    }
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

/// resilience4j #544: an ignored exception on the last permission of half-open got it stuck.
#[tokio::test(start_paused = true)]
async fn bug_06_an_ignored_last_probe_gives_its_place_back() {
    let command = due(builder(rate(0.1, 20).consecutive_failures(1).probes(10).open_for(secs(1)))).await;
    play(&command, "SSSSSSSSSI").await;
    assert_eq!(command.state(), State::HalfOpen);
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

/// resilience4j #935, #903, #1389: a probe that hung held half-open for ever.
#[tokio::test(start_paused = true)]
async fn bug_07_a_hung_probe_makes_room_when_its_lease_ends_and_has_no_say_later() {
    let command = due(builder(touchy(1))).await;
    let hung = command.admit().expect("the probe");
    advance(secs(1)).await;
    let next = command.admit().expect("the lease is over");
    hung.fail();
    assert_eq!((command.state(), command.snapshot().late_outcomes()), (State::HalfOpen, 1));
    assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    next.succeed();
    assert_eq!(command.state(), State::Closed);
}

/// Polly #1979: a probe that ended in an unhandled exception left the circuit half-open for ever.
#[tokio::test(start_paused = true)]
async fn bug_08_a_probe_that_panics_opens_the_circuit_again() {
    for probes in ["P", "SSP"] {
        let command = due(builder(touchy(3))).await;
        play(&command, probes).await;
        assert_eq!((command.state(), command.snapshot().in_flight()), (State::Open, 0), "{probes}");
        advance(secs(1)).await;
        play(&command, "SSS").await;
        assert_eq!(command.state(), State::Closed, "{probes}");
    }
}

/// Polly #216, #217: calls from before the circuit opened decided its half-open state.
#[tokio::test(start_paused = true)]
async fn bug_09_five_hundred_calls_from_before_decide_nothing() {
    let command = build(builder(touchy(1)).unlimited());
    let overhanging: Vec<_> = (0..500).map(|_| command.admit().expect("it is closed")).collect();
    trip(&command).await;
    advance(secs(1)).await;
    let probe = command.admit().expect("the probe");
    for (n, permit) in overhanging.into_iter().enumerate() {
        if n < 250 {
            permit.fail()
        } else {
            permit.succeed()
        }
        assert_eq!(command.state(), State::HalfOpen);
        assert_eq!(command.admit().map(drop).unwrap_err().reason(), Reason::ProbeLimit);
    }
    assert_eq!((command.snapshot().in_flight(), command.snapshot().late_outcomes()), (1, 500));
    probe.succeed();
    assert_eq!(command.state(), State::Closed);
}

/// gobreaker #122: a result that came after a change of generation was dropped without a trace.
#[tokio::test(start_paused = true)]
async fn bug_10_a_late_result_is_counted_by_its_outcome_and_as_late() {
    let command = build(builder(touchy(1)));
    let mut late: Vec<_> = (0..4).map(|_| command.admit().expect("it is closed")).collect();
    trip(&command).await;
    late.pop().expect("four").succeed();
    late.pop().expect("three").fail();
    late.pop().expect("two").ignore();
    drop(late);
    let snapshot = command.snapshot();
    let count = |outcome| snapshot.lifetime().get(outcome);
    assert_eq!((count("success"), count("failure"), count("ignored"), count("cancelled")), (1, 2, 1, 1));
    assert_eq!((snapshot.late_outcomes(), snapshot.health().total), (4, 0));
}

/// failsafe #391, #135: a permit released in half-open raised their number above the limit.
#[tokio::test(start_paused = true)]
async fn bug_11_a_returned_probe_makes_room_for_one_and_not_for_two() {
    let command = due(builder(touchy(2))).await;
    let full = || command.admit().map(drop).unwrap_err().reason() == Reason::ProbeLimit;
    let (first, second) = (command.admit().expect("a probe"), command.admit().expect("a probe"));
    assert!(full());
    drop(first);
    let third = command.admit().expect("the place of the first");
    assert!(full());
    second.succeed();
    assert!(full(), "a probe that has ended is one of the two that decide");
    third.succeed();
    assert_eq!((command.state(), command.snapshot().peak_in_flight()), (State::Closed, 2));
}

/// The same through futures: two calls, one dropped, another, both end.
#[tokio::test(start_paused = true)]
async fn bug_11_a_dropped_probe_future_makes_room_for_one_and_not_for_two() {
    let command = due(builder(touchy(2))).await;
    let call = || {
        Box::pin(command.run(async || {
            sleep(ms(10)).await;
            Ok::<_, Failure>(1)
        }))
    };
    let (mut first, mut second, mut third) = (call(), call(), call());
    assert_eq!((poll(&mut first), poll(&mut second)), (None, None));
    drop(first);
    assert_eq!(poll(&mut third), None);
    assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    assert_eq!(second.await, Ok(1));
    assert_eq!(third.await, Ok(1));
    assert_eq!((command.state(), command.snapshot().peak_in_flight()), (State::Closed, 2));
}

/// Sentinel #1638: one rule went half-open, the next refused the call, and the first stayed half-open for ever.
#[tokio::test(start_paused = true)]
async fn bug_12_a_refusal_further_in_does_not_use_up_the_outer_probe() {
    let inner = build(Command::builder("inner").max_concurrent(1));
    let outer = Command::builder("outer")
        .breaker(touchy(1))
        .classify(|result: &Result<u32, Error<Failure>>| match result {
            Ok(_) => Verdict::Success,
            Err(error) if error.was_started() => Verdict::Failure,
            Err(_) => Verdict::Ignored,
        })
        .build()
        .expect("a good configuration");
    let failed = outer.run(|| inner.run(async || Err(DOWN))).await;
    assert_eq!((failed, outer.state()), (Err(Error::Failed(Error::Failed(DOWN))), State::Open));
    advance(secs(1)).await;

    let holder = inner.admit().expect("a slot");
    for _ in 0..3 {
        let full = outer.run(|| inner.run(async || Ok(1))).await;
        let Err(Error::Failed(Error::Rejected(rejected))) = full else { panic!("{full:?}") };
        assert_eq!((rejected.reason(), outer.state()), (Reason::ConcurrencyLimit, State::HalfOpen));
    }
    drop(holder);
    assert_eq!(outer.run(|| inner.run(async || Ok(1))).await, Ok(1));
    assert_eq!(outer.state(), State::Closed);
}

/// The same within one command: its own full bulkhead.
#[tokio::test(start_paused = true)]
async fn bug_12_a_full_bulkhead_does_not_use_up_the_probe() {
    let command = build(builder(touchy(1)).max_concurrent(2));
    let holders = [(); 2].map(|()| command.admit().expect("a slot"));
    let [first, second] = holders;
    first.fail();
    advance(secs(1)).await;
    let timeline = Timeline::of(&command);
    let third = command.admit().expect("the probe");
    for _ in 0..3 {
        assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit, "the circuit is asked first");
    }
    drop(third);
    command.reconfigure(|config| config.max_concurrent(1)).expect("a good configuration");
    for _ in 0..3 {
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    }
    assert_eq!(edges(&timeline), [(State::Open, State::HalfOpen)]);
    drop(second);
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

/// opossum #119: at half-open the flood gates opened, and a failing probe did not close them.
#[tokio::test(start_paused = true)]
async fn bug_13_of_a_thousand_concurrent_calls_only_the_probes_get_through() {
    for probes in [1, 3] {
        let command = due(builder(touchy(probes)).unlimited()).await;
        let ran = Cell::new(0);
        let call = || {
            command.run(async || {
                ran.set(ran.get() + 1);
                sleep(ms(10)).await;
                Err::<u32, _>(DOWN)
            })
        };
        let results = futures::future::join_all((0..1_000).map(|_| call())).await;
        let refused = results.iter().filter(|result| matches!(result, Err(Error::Rejected(_)))).count();
        assert_eq!((ran.get(), refused), (probes, 1_000 - probes as usize));
        assert_eq!(command.state(), State::Open);
    }
}

/// opossum #385: one more concurrent failure than the threshold cancelled the timer, and half-open never came.
#[tokio::test(start_paused = true)]
async fn bug_14_failures_beyond_the_threshold_do_not_move_the_end_of_the_wait() {
    let command = build(builder(in_a_row(5).open_for(secs(5))));
    let mut permits: Vec<_> = (0..6).map(|_| command.admit().expect("it is closed")).collect();
    let sixth = permits.pop().expect("six");
    permits.into_iter().for_each(|permit| permit.fail());
    assert_eq!(command.state(), State::Open);
    advance(secs(2)).await;
    sixth.fail();
    advance(secs(3) - ms(1)).await;
    assert_eq!(command.state(), State::Open);
    advance(ms(1)).await;
    assert_eq!(command.state(), State::HalfOpen);
}

/// opossum #57, #276, #484: what one half-open episode had found was left over for the next.
#[tokio::test(start_paused = true)]
async fn bug_15_each_half_open_episode_starts_from_nothing() {
    let command = due(builder(touchy(3))).await;
    for _ in 0..3 {
        play(&command, "SSF").await;
        assert_eq!(command.state(), State::Open);
        advance(secs(1)).await;
    }
    play(&command, "SS").await;
    assert_eq!(command.state(), State::HalfOpen);
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
    trip(&command).await;
    advance(secs(1)).await;
    play(&command, "SS").await;
    assert_eq!(command.state(), State::HalfOpen);
}

/// monix #1080, rezilience #521, circuit #258: a probe that was cancelled by a timeout outside got the circuit stuck.
#[tokio::test(start_paused = true)]
async fn bug_16_a_probe_that_a_timeout_outside_cancels_gives_its_place_back() {
    let command = due(builder(touchy(1)).no_timeout()).await;
    assert!(tokio::time::timeout(ms(100), command.run(hang)).await.is_err());
    assert_eq!((command.state(), ended(&command, "cancelled")), (State::HalfOpen, 1));
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

/// OmniRoute #13836: one probe that never settled, and 49,607 refusals in six days.
#[tokio::test(start_paused = true)]
async fn bug_17_of_fifty_thousand_probes_those_that_never_settle_cost_a_lease_each() {
    let command = due(builder(touchy(1)).unlimited()).await;
    let mut lost = Vec::new();
    for n in 0..50_000 {
        if n % 100 == 0 {
            lost.push(command.admit().expect("a probe"));
            advance(secs(1) - ms(1)).await;
            assert_eq!(command.admit().map(drop).unwrap_err().reason(), Reason::ProbeLimit);
            advance(ms(1)).await;
        }
        command.admit().expect("a probe, at the end of the lease at the latest").fail();
        advance(secs(1)).await;
    }
    play(&command, "S").await;
    assert_eq!((command.state(), command.snapshot().in_flight()), (State::Closed, 500));
    drop(lost);
    assert_eq!((command.state(), command.snapshot().late_outcomes()), (State::Closed, 500));
}

/// zio-openfeature #263: a fatal error in the probe leaked its slot.
#[tokio::test(start_paused = true)]
async fn bug_18_a_panicking_probe_leaks_no_slot() {
    let command = due(builder(touchy(1)).max_concurrent(1)).await;
    for _ in 0..3 {
        play(&command, "P").await;
        assert_eq!((command.state(), command.snapshot().in_flight()), (State::Open, 0));
        advance(secs(1)).await;
    }
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

/// tower-resilience #382: the half-open check counted only the calls that had completed.
#[tokio::test(start_paused = true)]
async fn bug_19_of_sixty_four_clones_in_one_tick_only_the_probes_are_admitted() {
    let command = due(builder(touchy(2))).await;
    let clones: Vec<_> = (0..64).map(|_| command.clone()).collect();
    let mut calls: Vec<_> = clones.iter().map(|clone| Box::pin(clone.run(hang))).collect();
    let waiting = calls.iter_mut().filter_map(|call| poll(call).is_none().then_some(())).count();
    assert_eq!((waiting, command.snapshot().in_flight()), (2, 2));
}

/// safe-client-gateway #3442: half-open admitted all until failures landed, 17 times the load on what was down.
#[tokio::test(start_paused = true)]
async fn bug_20_a_dependency_that_hangs_gets_one_call_for_each_wait() {
    let command = build(builder(in_a_row(1).open_for(secs(5))).no_timeout());
    trip(&command).await;
    let opened = Instant::now();
    let starts = Arc::new(Mutex::new(Vec::new()));
    // 200 calls a second for two minutes; what gets through hangs for 30 s and fails.
    for _ in 0..24_000 {
        let (command, starts) = (command.clone(), Arc::clone(&starts));
        tokio::spawn(async move {
            let call = command.run(async || {
                starts.lock().expect("nobody panics").push(opened.elapsed());
                sleep(secs(30)).await;
                Err::<u32, _>(DOWN)
            });
            call.await
        });
        sleep(ms(5)).await;
    }
    let starts = starts.lock().expect("nobody panics");
    assert!(starts.len() > 2, "nothing was probed: {starts:?}");
    assert_eq!(starts[0], secs(5));
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= secs(5)), "{starts:?}");
}

/// zentinel #261: a balancer dropped the open target, so that it was never probed.
#[tokio::test(start_paused = true)]
async fn bug_21_a_balancer_that_goes_by_the_state_probes_a_target_that_is_due() {
    let targets = ["a", "b"].map(|name| build(Command::builder(name).breaker(in_a_row(1).open_for(secs(5)))));
    trip(&targets[0]).await;
    let opened = Instant::now();
    let mut probed = None;
    for turn in 0..60 {
        advance(ms(100)).await;
        let eligible: Vec<_> = targets.iter().filter(|target| target.state() != State::Open).collect();
        let chosen = eligible[turn % eligible.len()];
        play(chosen, "S").await;
        if chosen.name() == "a" && probed.is_none() {
            probed = Some(opened.elapsed());
        }
    }
    assert!(probed.is_some_and(|at| at >= secs(5) && at <= secs(6)), "{probed:?}");
    assert_eq!(targets[0].state(), State::Closed);
}

/// finagle #524, #527: a probe that failed to connect, and so never got a response, left the circuit stuck.
#[tokio::test(start_paused = true)]
async fn bug_22_a_probe_that_fails_before_it_has_begun_opens_the_circuit_again() {
    let command = due(builder(touchy(1))).await;
    let unconnected = command.run(|| ready(Err::<u32, _>("no route"))).await;
    assert_eq!((unconnected, command.state()), (Err(Error::Failed("no route")), State::Open));
    advance(secs(1)).await;

    let call = command.run(|| -> Ready<Result<u32, Failure>> { panic!("no socket") });
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    assert_eq!((command.state(), command.snapshot().in_flight()), (State::Open, 0));
    advance(secs(1)).await;
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

/// nv-redfish #211: a neutral result of an older call released the new probe's place.
#[tokio::test(start_paused = true)]
async fn bug_23_an_older_neutral_result_does_not_free_the_new_probes_place() {
    let command = build(builder(touchy(1)));
    let from_closed = command.admit().expect("it is closed");
    trip(&command).await;
    advance(secs(1)).await;
    let first = command.admit().expect("a probe");
    advance(secs(1)).await;
    // The lease of the first is over; the second reopens, the third belongs to the next episode.
    command.admit().expect("a probe").fail();
    advance(secs(1)).await;
    let third = command.admit().expect("a probe");
    from_closed.ignore();
    drop(first);
    assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    // jrugged #21: a failed probe closed the breaker.
    third.fail();
    assert_eq!(command.state(), State::Open);
}

// ---- permits ----

/// Yields so often, then ends.
async fn yielding(times: u32, result: Result<u32, Failure>) -> Result<u32, Failure> {
    for _ in 0..times {
        yield_now().await;
    }
    result
}

/// Hystrix #1198: an unsubscribed command leaked the semaphores of its execution and its fallback.
#[tokio::test(start_paused = true)]
async fn bug_24_a_call_dropped_at_any_poll_leaks_neither_its_slot_nor_its_fallbacks() {
    let command = build(builder(Breaker::disabled()).max_concurrent(1).max_concurrent_fallbacks(1));
    let call =
        || Box::pin(command.run(|| yielding(3, Err(DOWN))).fallback(|_| yielding(3, Ok(2)).map(|ok| Ok(ok.unwrap()))));
    for polls in 0..=6 {
        let mut dropped = call();
        for _ in 0..polls {
            assert_eq!(poll(&mut dropped), None);
        }
        let fallbacks = command.snapshot().fallbacks();
        assert_eq!(
            (command.snapshot().in_flight(), fallbacks.in_flight),
            match polls {
                0 => (0, 0),
                1..=3 => (1, 0),
                _ => (0, 1),
            }
        );
        drop(dropped);
        assert_eq!(call().await, Ok(2), "after {polls} polls");
    }
    let (snapshot, fallbacks) = (command.snapshot(), command.snapshot().fallbacks());
    assert_eq!((snapshot.in_flight(), fallbacks.in_flight, fallbacks.rejected), (0, 0, 0));
    assert_eq!((snapshot.lifetime().get("cancelled"), snapshot.lifetime().get("failure")), (3, 10));
}

/// Hystrix #1867: the timeout freed the semaphore while the work ran on.
#[tokio::test(start_paused = true)]
async fn bug_25_work_that_outlives_its_timeout_keeps_its_slot() {
    let command = build(builder(Breaker::disabled()).max_concurrent(2).timeout(secs(1)));
    let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
    let (mut calls, mut stops) = (Vec::new(), Vec::new());
    for n in 0..100 {
        let started = started.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let mut call = Box::pin(command.spawn_blocking(move || {
            started.send(n).expect("the test listens");
            // Ends when the test drops the other end.
            let _ = stopped.recv();
            Ok::<u32, Failure>(1)
        }));
        match poll(&mut call) {
            None => (calls.push(call), stops.push(stop)).1,
            Some(refused) => assert_eq!(refused.map_err(|error| error.was_started()), Err(false), "{n}"),
        }
    }
    assert_eq!(calls.len(), 2);
    let running = [has_started.recv().await, has_started.recv().await];
    assert!(running.contains(&Some(0)) && running.contains(&Some(1)), "{running:?}");
    advance(secs(1)).await;
    for call in calls {
        assert!(matches!(call.await, Err(Error::TimedOut(_))));
    }
    assert_eq!(command.snapshot().in_flight(), 2);
    for _ in 0..100 {
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    }
    assert!(has_started.try_recv().is_err(), "a third ran");

    // A call in line gets a slot as soon as the work ends.
    command.reconfigure(|config| config.bulkhead(Bulkhead::new(2).queue(1, secs(3_600)))).expect("good");
    let mut waiting = Box::pin(command.run(async || Ok::<u32, Failure>(1)));
    assert_eq!(poll(&mut waiting), None);
    drop(stops);
    assert_eq!(waiting.await, Ok(1));
}

/// Hystrix #1319: the permit was held until the subscriber of the response was done.
#[tokio::test(start_paused = true)]
async fn bug_26_a_response_future_that_is_kept_holds_no_permit_once_it_is_ready() {
    let command = build(builder(Breaker::disabled()).max_concurrent(1));
    let mut kept = Box::pin(command.run(async || Ok::<_, Failure>(1)));
    assert_eq!(poll(&mut kept), Some(Ok(1)));
    assert_eq!(command.snapshot().in_flight(), 0);
    advance(secs(60)).await;
    play(&command, "S").await;
    drop(kept);
    assert_eq!((command.snapshot().in_flight(), command.snapshot().lifetime().calls()), (0, 2));
}

/// resilience4j #332: a cancelled call did not give its permit back.
#[tokio::test(start_paused = true)]
async fn bug_27_dropped_at_any_poll_a_call_gives_its_slot_back_once() {
    let command = build(builder(Breaker::disabled()).max_concurrent(2));
    for polls in 0..=5 {
        let mut call = Box::pin(command.run(|| yielding(5, Ok(1))));
        for _ in 0..polls {
            assert_eq!(poll(&mut call), None);
        }
        drop(call);
        let both = [(); 2].map(|()| command.admit().expect("both slots are free"));
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit, "there are two, not three");
        drop(both);
    }
    assert_eq!(ended(&command, "cancelled"), 5 + 6 * 2, "a call that was never polled was never made");
}

/// resilience4j #263, #1569: two ends of one call gave the permit back twice.
#[tokio::test(start_paused = true)]
async fn bug_28_a_listener_that_panics_after_the_end_gives_nothing_back_twice() {
    let command =
        build(builder(in_a_row(1).open_for(secs(1))).max_concurrent(2).on_event(|_: &Event| panic!("listener")));
    for _ in 0..3 {
        let mut call = Box::pin(command.run(async || Err::<u32, _>(DOWN)));
        assert_eq!(poll(&mut call), Some(Err(Error::Failed(DOWN))));
        drop(call);
        assert_eq!((command.state(), command.snapshot().in_flight()), (State::Open, 0));
        command.reset();
        let both = [(); 2].map(|()| command.admit().expect("both slots are free"));
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit, "there are two, not three");
        drop(both);
    }
    assert_eq!(ended(&command, "failure"), 3);
}

/// failsafe #393: a waiter that had timed out was still handed the permit, and the capacity sank to nothing.
#[tokio::test(start_paused = true)]
async fn bug_29_slots_handed_to_waiters_whose_time_is_up_are_not_lost() {
    let command = build(builder(Breaker::disabled()).bulkhead(Bulkhead::new(8).queue(8, ms(10))));
    for round in 0..1_000 {
        let holders: Vec<_> = (0..8).map(|_| command.admit().expect("a slot")).collect();
        let mut waiters: Vec<_> = (0..8).map(|_| Box::pin(command.run(async || Ok::<u32, Failure>(1)))).collect();
        assert!(waiters.iter_mut().all(|waiter| poll(waiter).is_none()));
        advance(ms(10)).await;
        // The end of the wait and the release of the slots, in either order; and waiters that just go.
        match round % 3 {
            0 => {
                drop(holders);
                assert!(waiters.iter_mut().all(|waiter| poll(waiter).is_some()));
            }
            1 => {
                for waiter in &mut waiters {
                    let Some(Err(Error::Rejected(rejected))) = poll(waiter) else { panic!("its time is up") };
                    assert_eq!(rejected.reason(), Reason::QueueTimeout);
                }
                drop(holders);
            }
            _ => {
                drop(holders);
                drop(waiters);
            }
        }
        assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (0, 0), "round {round}");
    }
    let eight: Vec<_> = (0..8).map(|_| command.admit().expect("a slot")).collect();
    assert_eq!((eight.len(), command.admit().is_err()), (8, true));
}

/// hystrix-go #13, #67: a race of the end and the timeout lost the ticket and ran the fallback twice.
#[tokio::test(start_paused = true)]
async fn bug_30_a_call_that_ends_about_its_timeout_ends_once_with_at_most_one_fallback() {
    for took in 8..=12 {
        let command = build(builder(Breaker::disabled()).max_concurrent(1).timeout(ms(10)));
        let fallbacks = Cell::new(0);
        let result = command
            .run(async || {
                sleep(ms(took)).await;
                Ok::<_, Failure>(1)
            })
            .fallback(|_| {
                fallbacks.set(fallbacks.get() + 1);
                async { Ok(2) }
            })
            .await;
        // The operation is asked first, so a result that is there beats the timeout.
        let in_time = took <= 10;
        assert_eq!((result, fallbacks.get()), if in_time { (Ok(1), 0) } else { (Ok(2), 1) }, "{took} ms");
        let snapshot = command.snapshot();
        assert_eq!((snapshot.lifetime().calls(), snapshot.in_flight()), (1, 0));
        assert_eq!(snapshot.lifetime().get(if in_time { "success" } else { "timed_out" }), 1);
        play(&command, "S").await;
    }
}

/// opossum #72: the semaphore was not released on a timeout.
#[tokio::test(start_paused = true)]
async fn bug_31_a_timeout_at_any_moment_gives_the_slot_back() {
    let command = build(builder(Breaker::disabled()).max_concurrent(1));
    for limit in 0..=20 {
        let result = command
            .run(async || {
                sleep(ms(10)).await;
                Ok::<u32, Failure>(1)
            })
            .timeout(ms(limit))
            .await;
        match limit {
            ..10 => assert!(matches!(result, Err(Error::TimedOut(_))), "{limit} ms: {result:?}"),
            _ => assert_eq!(result, Ok(1), "{limit} ms"),
        }
        assert_eq!(command.snapshot().in_flight(), 0);
    }
    assert_eq!(command.snapshot().lifetime().calls(), 21);
}

/// tokio #904, shuttle #167, embassy #6964: a waiter that left took its permit along, or woke nobody.
#[tokio::test(start_paused = true)]
async fn bug_36_a_waiter_that_leaves_passes_its_slot_on_and_wakes_the_next() {
    for granted_before_it_leaves in [false, true] {
        let command = build(builder(Breaker::disabled()).bulkhead(Bulkhead::new(1).queue(2, secs(3_600))));
        let began = Instant::now();
        let holder = command.admit().expect("a slot");
        let mut first = Box::pin(command.run(async || Ok::<u32, Failure>(1)));
        assert_eq!(poll(&mut first), None);
        let second = tokio::spawn({
            let command = command.clone();
            async move { command.run(async || Ok::<u32, Failure>(2)).await }
        });
        yield_now().await;
        assert_eq!(command.snapshot().queue_length(), 2);
        if granted_before_it_leaves {
            holder.succeed();
            drop(first);
        } else {
            drop(first);
            holder.succeed();
        }
        assert_eq!(second.await.expect("no panic"), Ok(2));
        assert_eq!((command.snapshot().in_flight(), began.elapsed()), (0, Duration::ZERO), "it was woken at once");
    }
}

// ---- windows and time ----

/// sentinel-golang #327: an outcome was dropped, with an error, because others had rolled the window meanwhile.
#[tokio::test(start_paused = true)]
async fn bug_38_an_outcome_of_a_call_from_an_older_bucket_counts_in_the_newest() {
    let command = build(builder(rate(1.0, 1_000).window(secs(10)).buckets(10)));
    let slow = [(); 2].map(|()| command.admit().expect("it is closed"));
    for _ in 0..25 {
        advance(secs(1)).await;
        play(&command, "S").await;
    }
    let [failed, good] = slow;
    failed.fail();
    good.succeed();
    assert_eq!((health(&command), window(&command)), ((1, 12), (1, 12)));
    advance(secs(9)).await;
    assert_eq!((health(&command), window(&command)), ((1, 3), (1, 3)));
    advance(secs(1)).await;
    assert_eq!((health(&command), window(&command)), ((0, 0), (0, 0)));
}

/// asecurityteam/rolling #14: a bucket that was used again was not reset.
#[tokio::test(start_paused = true)]
async fn bug_39_no_idle_gap_brings_old_counts_back() {
    for gap in [1, 9, 10, 11, 20, (1 << 32) + 1] {
        let command = build(builder(rate(1.0, 1_000).window(ms(10)).buckets(10)));
        let mut seen = Vec::new();
        for _ in 0..3 {
            play(&command, "F").await;
            seen.push((health(&command), window(&command)));
            advance(ms(gap)).await;
        }
        let expected = match gap {
            1 => [1, 2, 3],
            9 => [1, 2, 2],
            _ => [1, 1, 1],
        };
        assert_eq!(seen, expected.map(|count| ((count, count), (count, count))), "a gap of {gap} buckets");
    }
}

/// jcommon #7, colossus #509: counts were lost at a roll, and a percentile was the largest number there is. In real
/// parallel, with a bucket for each millisecond.
#[test]
fn bug_40_figures_read_while_the_window_rolls_are_those_of_calls() {
    const CALLS: u64 = 100_000;
    let command =
        build(builder(rate(1.0, 20).window(ms(10)).buckets(10)).unlimited().latency_window(ms(12)).no_timeout());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let snapshot = command.snapshot();
                let (window, lifetime, latency) = (snapshot.window(), snapshot.lifetime(), snapshot.latency());
                for (outcome, count) in window.iter() {
                    assert!(count <= lifetime.of(outcome), "{window:?} of {lifetime:?}");
                }
                assert!(snapshot.health().total <= 3 * CALLS && snapshot.health().errors <= snapshot.health().total);
                let shares = [0.0, 0.5, 0.99, 1.0];
                assert!(shares.iter().all(|&q| latency.percentile(q) <= latency.max()), "{latency:?}");
                assert!(latency.max().is_none_or(|max| max < secs(3_600)), "{latency:?}");
            }
        });
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let command = &command;
                scope.spawn(move || {
                    for n in 0..CALLS {
                        let permit = command.admit().expect("a success in four keeps it closed");
                        if n % 4 == 0 { permit.succeed() } else { permit.ignore() }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        reader.join().expect("every figure holds");
    });
    assert_eq!((ended(&command, "success"), ended(&command, "ignored")), (3 * CALLS / 4, 3 * CALLS / 4 * 3));
}

/// governor #299, filtermail #166: a clock that read earlier on another core made for refusals out of nothing.
#[test]
fn bug_43_a_reading_of_the_clock_that_is_earlier_refuses_nobody() {
    let ahead = time_machine();
    let command = build(builder(in_a_row(2).open_for(secs(1))).max_concurrent(1));
    ahead.block_on(async {
        advance(secs(3_600)).await;
        play(&command, "FF").await;
        advance(secs(1)).await;
        play(&command, "SF").await;
    });
    for _ in 0..1_000 {
        assert_eq!(command.run_sync(|| Ok::<_, Failure>(1)), Ok(1));
        ahead.block_on(play(&command, "S"));
    }
    assert_eq!((ended(&command, "short_circuited"), ended(&command, "rejected")), (0, 0));
}

/// rustcommon #72: with many threads one came with an earlier time than another had left, and the subtraction panicked.
#[test]
fn bug_44_threads_whose_clock_readings_overtake_each_other_lose_no_call() {
    let command = build(builder(in_a_row(3).open_for(ms(1)).window(ms(4)).buckets(4)).unlimited());
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let command = &command;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..50_000 {
                    let _ = command.run_sync(|| if random.bool() { Ok(1) } else { Err(DOWN) });
                }
            });
        }
    });
    assert_eq!((command.snapshot().lifetime().calls(), command.snapshot().in_flight()), (200_000, 0));
}

/// The same with one call whose end reads earlier than its beginning.
#[test]
fn bug_44_a_call_that_ends_before_it_began_took_no_time() {
    let ahead = time_machine();
    let command = build(builder(in_a_row(1)));
    let permits = ahead.block_on(async {
        advance(secs(3_600)).await;
        [(); 2].map(|()| command.admit().expect("it is closed"))
    });
    let [first, second] = permits;
    first.succeed();
    assert_eq!(command.snapshot().latency().max(), Some(Duration::ZERO));
    second.fail();
    assert_eq!((command.state(), window(&command), command.snapshot().in_flight()), (State::Open, (1, 2), 0));
}

/// resilience4j #2038: a transition that changed nothing tried again by calling itself, until the stack was full.
#[tokio::test(start_paused = true)]
async fn bug_45_a_million_refused_transitions_take_no_stack() {
    let command = build(builder(in_a_row(1)));
    trip(&command).await;
    let timeline = Timeline::of(&command);
    for _ in 0..1_000_000 {
        assert!(command.admit().is_err());
    }
    assert_eq!((ended(&command, "short_circuited"), edges(&timeline)), (1_000_000, vec![]));
    command.reset();
    let timeline = Timeline::of(&command);
    for _ in 0..1_000_000 {
        command.clear_override();
    }
    assert_eq!((command.state(), timeline.entries()), (State::Closed, vec![]));
}

// ---- timeout and fallback ----

/// resilience4j #558, #593, #1444: a fallback on the inner layer hid the errors from the layers outside.
#[tokio::test(start_paused = true)]
async fn bug_52_the_fallback_is_outermost_in_a_command_and_hides_errors_from_another_around_it() {
    let [inner, outer] = ["inner", "outer"].map(|name| build(Command::builder(name).breaker(in_a_row(3))));
    let (ran, saved) = (Cell::new(0), Cell::new(0));
    for _ in 0..5 {
        let (ran, saved) = (&ran, &saved);
        let call = || {
            let operation = async || {
                ran.set(ran.get() + 1);
                Err::<u32, _>(DOWN)
            };
            inner.run(operation).fallback(|_| {
                saved.set(saved.get() + 1);
                async { Ok(2) }
            })
        };
        assert_eq!(outer.run(call).await, Ok(2));
    }
    assert_eq!((ran.get(), saved.get()), (3, 5), "the inner breaker saw every error and opened");
    assert_eq!((inner.state(), ended(&inner, "failure")), (State::Open, 3));
    assert_eq!((outer.state(), ended(&outer, "success")), (State::Closed, 5));

    // The other order: the errors pass through to the outer command, whose fallback comes last.
    inner.reset();
    let call = outer.run(|| inner.run(async || Err::<u32, _>(DOWN))).fallback(async |_| Ok(2));
    assert_eq!(call.await, Ok(2));
    assert_eq!((ended(&inner, "failure"), ended(&outer, "failure")), (4, 1));
}

/// resilience4j #1123, #2013: time-outs were not failures.
#[tokio::test(start_paused = true)]
async fn bug_53_twenty_timeouts_open_the_circuit() {
    let command = build(Command::builder("slow").timeout(ms(10)));
    for n in 0..20 {
        assert_eq!(command.state(), State::Closed, "after {n}");
        assert!(matches!(command.run(hang).await, Err(Error::TimedOut(_))));
    }
    assert_eq!(command.state(), State::Open);
}

/// tokio #4291: an operation that uses up its task's budget in each poll starved the timeout around it.
#[tokio::test(start_paused = true)]
async fn bug_54_an_operation_that_is_always_busy_cannot_starve_its_timeout() {
    let command = build(Command::builder("busy").timeout(ms(10)));
    let clock = tokio::spawn(async {
        // The runtime is never idle, so nobody else moves the clock.
        for _ in 0..1_000 {
            advance(ms(1)).await;
        }
    });
    let began = Instant::now();
    let result = command
        .run(async || {
            while began.elapsed() < secs(1) {
                tokio::task::consume_budget().await;
            }
            Ok::<u32, Failure>(1)
        })
        .await;
    let Err(Error::TimedOut(timed_out)) = result else { panic!("{result:?}") };
    assert!(timed_out.elapsed() >= ms(10) && timed_out.elapsed() < ms(20), "{timed_out}");
    clock.abort();
}

/// heimdall #63, #137: an attempt that had lost to the timeout still wrote its result.
#[tokio::test(start_paused = true)]
async fn bug_55_work_that_ends_after_its_timeout_changes_no_figure() {
    let command = build(builder(in_a_row(1)).bulkhead(Bulkhead::new(1).queue(1, secs(3_600))).timeout(secs(1)));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let mut call = Box::pin(command.spawn_blocking(move || {
        started.send(()).expect("the test listens");
        let _ = stopped.recv();
        Err::<u32, _>(DOWN)
    }));
    assert!(poll(&mut call).is_none());
    has_started.await.expect("it runs");
    advance(secs(1)).await;
    assert!(matches!(call.await, Err(Error::TimedOut(_))));
    let figures = || (command.snapshot().lifetime(), command.snapshot().health(), command.snapshot().generation());
    command.reset();
    let before = figures();

    // The next in line is admitted when the work has ended.
    let mut next = Box::pin(command.run(async || Ok::<u32, Failure>(1)));
    assert_eq!(poll(&mut next), None);
    assert_eq!(figures(), before);
    drop(stop);
    assert_eq!(next.await, Ok(1));
    let lifetime = command.snapshot().lifetime();
    assert_eq!((lifetime.calls(), lifetime.get("timed_out"), lifetime.get("success")), (2, 1, 1));
    assert_eq!((command.state(), health(&command), command.snapshot().late_outcomes()), (State::Closed, (0, 1), 0));
}

/// Polly #1877: one stored exception was thrown again and again, and its stack trace grew for ever.
///
/// In paused time: on a slow machine a million refusals last longer than a bucket of the window, at whose edge one
/// allocation keeps what was counted.
#[tokio::test(start_paused = true)]
async fn bug_56_a_million_refusals_are_the_same_small_value_and_allocate_nothing() {
    fn is_plain<T: Copy>(_: &T) {}

    let command = build(builder(Breaker::disabled()));
    command.force_open("down", None);
    let first = command.admit().map(drop).expect_err("forced open");
    is_plain(&first);
    assert!(size_of::<Rejected>() <= 64, "{} bytes", size_of::<Rejected>());
    let before = allocations();
    for _ in 0..1_000_000 {
        assert_eq!(command.admit().map(drop), Err(first));
    }
    assert_eq!(allocations().0 - before.0, 0);
}

// ---- listeners and memory ----

/// gobreaker #37, #119: a callback ran under the mutex, and asking for the counts from it was a deadlock.
#[test]
fn bug_58_a_listener_may_call_everything_there_is() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let own = Arc::new(OnceLock::<Command>::new());
        let listener = {
            let (own, entered) = (Arc::clone(&own), AtomicBool::new(false));
            move |event: &Event| {
                if !matches!(event, Event::Transition(_)) || entered.swap(true, Ordering::SeqCst) {
                    return;
                }
                let command = own.get().expect("it was built before it tripped");
                assert_eq!((command.name(), command.group(), command.state()), ("peer.bug", None, State::Open));
                assert_eq!(command.snapshot().retry_after().is_some(), command.admit().is_err());
                assert!(command.admit_owned().is_err());
                assert!(command.run_sync(|| Ok::<u32, Failure>(1)).is_err());
                assert!(command.run(hang).now_or_never().is_some());
                drop(command.subscribe());
                command.publish();
                command.reconfigure(|config| config.timeout(ms(7))).expect("a good configuration");
                command.force_open("listener", None);
                command.force_closed("listener", None);
                command.clear_override();
                command.reset();
                assert!(Registry::global().get(command.clone().name()).is_some());
                Registry::global().publish();
                assert_eq!(command.run_sync(|| Ok::<u32, Failure>(1)), Ok(1));
            }
        };
        let command = build(builder(in_a_row(1)).on_event(listener));
        own.set(command.clone()).expect("once");
        let timeline = Timeline::of(&command);
        let failed = command.run_sync(|| Err::<u32, _>(DOWN));
        done.send((failed, command.state(), command.snapshot().config().timeout, edges(&timeline)))
    });
    let (failed, state, timeout, edges) = is_done.recv_timeout(secs(10)).expect("no deadlock, and no panic");
    assert_eq!((failed, state, timeout), (Err(Error::Failed(DOWN)), State::Closed, Some(ms(7))));
    assert_eq!(
        edges,
        [
            (State::Closed, State::Open),
            (State::Open, State::ForcedOpen),
            (State::ForcedOpen, State::Open),
            (State::Open, State::Closed),
        ],
        "in their order, those that the listener made last"
    );
}

/// gascity #4839: callbacks moved out of the lock lost their order and ran two at once, now and then.
#[test]
fn bug_59_twenty_thousand_changes_by_four_threads_are_told_in_order_and_one_at_a_time() {
    let log = Arc::new(Mutex::new(Vec::<Transition>::new()));
    let (overlaps, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let listener = {
        let (log, overlaps, busy) = (Arc::clone(&log), Arc::clone(&overlaps), AtomicBool::new(false));
        let told = Arc::clone(&told);
        move |event: &Event| {
            if busy.swap(true, Ordering::SeqCst) {
                overlaps.fetch_add(1, Ordering::SeqCst);
            }
            if let Event::Transition(transition) = event {
                log.lock().expect("nobody panics").push(transition.clone());
                told.fetch_add(1, Ordering::SeqCst);
            }
            busy.store(false, Ordering::SeqCst);
        }
    };
    let command = build(builder(in_a_row(1).open_for(secs(3_600))).unlimited().on_event(listener));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // A circuit that no longer changes must fail the test and not hang it.
                for _ in 0..1_000_000 {
                    if told.load(Ordering::SeqCst) >= 20_000 {
                        break;
                    }
                    let _ = command.run_sync(|| Err::<u32, _>(DOWN));
                    command.reset();
                }
            });
        }
    });
    let log = log.lock().expect("nobody panics");
    let mut last = (State::Closed, 1);
    for transition in log.iter() {
        assert_eq!(transition.from, last.0);
        assert!(transition.generation > last.1, "{} after {}", transition.generation, last.1);
        last = (transition.to, transition.generation);
    }
    assert_eq!((last.0, overlaps.load(Ordering::SeqCst)), (command.state(), 0));
    assert!(log.len() >= 20_000, "{} changes", log.len());
}

/// Kevlar #24, #61: an observer that threw cut the others off.
#[tokio::test(start_paused = true)]
async fn bug_60_a_listener_that_panics_cuts_off_no_other() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let second = Arc::clone(&log);
    let command = build(builder(in_a_row(1).open_for(secs(1))).on_event(|_: &Event| panic!("the first")).on_event(
        move |event: &Event| {
            if let Event::Transition(transition) = event {
                second.lock().expect("nobody panics").push((transition.from, transition.to));
            }
        },
    ));
    let timeline = Timeline::of(&command);
    play(&command, "F").await;
    advance(secs(1)).await;
    play(&command, "S").await;
    let expected = [(State::Closed, State::Open), (State::Open, State::HalfOpen), (State::HalfOpen, State::Closed)];
    assert_eq!(*log.lock().expect("nobody panics"), expected);
    assert_eq!(edges(&timeline), expected);
}

/// resilience4j #2243, #1020: what listened to a breaker that was removed stayed for ever.
#[test]
fn bug_63_a_dropped_command_takes_its_listeners_and_all_its_memory_along() {
    let registry = Registry::new();
    let shared = Arc::new(());
    let create_and_drop = || {
        let held = Arc::clone(&shared);
        let listener = move |_: &Event| drop(Arc::clone(&held));
        let command = build(builder(in_a_row(1)).registry(&registry).on_event(listener));
        drop(command.subscribe());
        let _ = command.run_sync(|| Err::<u32, _>(DOWN));
        assert_eq!(command.state(), State::Open);
    };
    for _ in 0..100 {
        create_and_drop();
    }
    let before = allocations();
    for _ in 0..20_000 {
        create_and_drop();
    }
    let after = allocations();
    assert!(after.0 - before.0 >= 20_000, "the count of allocations does not count");
    assert_eq!(after.1, before.1, "bytes in use");
    assert_eq!((registry.commands().len(), Arc::strong_count(&shared)), (0, 1));
}

/// Hystrix #1962: timers that were cancelled stayed in the queue until their huge timeout.
#[tokio::test(start_paused = true)]
async fn bug_64_the_timers_of_calls_that_have_ended_hold_no_memory() {
    let command = build(builder(Breaker::disabled()).timeout(secs(1_000_000)));
    let call = || command.run(|| yielding(1, Ok(1)));
    for _ in 0..1_000 {
        assert_eq!(call().await, Ok(1));
    }
    // The first call that is dropped makes the place where such are counted.
    assert_eq!(command.run(pending::<Result<u32, Failure>>).now_or_never(), None);
    let before = allocations();
    for _ in 0..100_000 {
        assert_eq!(call().await, Ok(1));
    }
    assert_eq!(allocations().1, before.1, "bytes in use");
    // Dropped with a timer armed, too.
    for _ in 0..1_000 {
        assert_eq!(command.run(pending::<Result<u32, Failure>>).now_or_never(), None);
    }
    assert_eq!(allocations().1, before.1, "bytes in use");
}

/// Counts what this thread allocates, so that tests on other threads do not disturb.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<(usize, isize)> = const { Cell::new((0, 0)) };
}

/// Allocations of this thread so far, and the bytes of them that it has not freed.
fn allocations() -> (usize, isize) {
    ALLOCATED.get()
}

fn note(count: usize, bytes: isize) {
    // A thread that is ending may allocate when its locals are gone.
    let _ = ALLOCATED.try_with(|cell| cell.set((cell.get().0 + count, cell.get().1 + bytes)));
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, -(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
