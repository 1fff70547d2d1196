//! The cases that no peer has: results that ask for rest, odd clocks, panics everywhere, permits that outlive the command.

mod support;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fusebox::{Command, Error, Event, Outcome, Reason, Registry, State, Verdict};
use futures::FutureExt;
use support::{
    DOWN, Failure, advance, command, ended, hang, health, in_a_row, message, ms, play, rate, refused, secs,
    time_machine, window,
};

#[tokio::test(start_paused = true)]
async fn a05_a_late_result_that_asks_for_rest_prolongs_an_open_circuit_and_never_shortens_it() {
    let command = command(in_a_row(1).open_for(secs(5)));
    let late: Vec<_> = (0..3).map(|_| command.admit().expect("it is closed")).collect();
    play(&command, "F").await;
    advance(secs(1)).await;
    for (permit, (asked, left)) in late.into_iter().zip([(1, 4), (30, 30), (2, 30)]) {
        permit.resolve(Verdict::OpenFor(secs(asked)));
        assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(left))));
    }
    advance(secs(30) - ms(1)).await;
    assert_eq!(refused(&command).await.retry_after(), Some(ms(1)));
    advance(ms(1)).await;
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a05_a_result_that_asks_for_rest_is_ignored_while_forced_open() {
    let command = command(in_a_row(1).open_for(secs(5)));
    let [before, during] = [(); 2].map(|()| command.admit().expect("it is closed"));
    command.force_open("maintenance", None);
    before.resolve(Verdict::OpenFor(secs(30)));
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::ForcedOpen, None));
    command.clear_override();
    assert_eq!(command.state(), State::Closed);

    // Neither is the wait below the override prolonged.
    play(&command, "F").await;
    command.force_open("maintenance", None);
    during.resolve(Verdict::OpenFor(secs(30)));
    command.clear_override();
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(5))));
}

#[tokio::test(start_paused = true)]
async fn a05_a_probe_that_asks_for_rest_opens_it_for_that_long() {
    let command = command(in_a_row(1).open_for(secs(5)).probes(3));
    play(&command, "F").await;
    advance(secs(5)).await;
    command.admit().expect("a probe").resolve(Verdict::OpenFor(secs(30)));
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(30))));
}

#[tokio::test(start_paused = true)]
async fn a07_a_year_in_one_step_clears_the_window_and_lets_a_probe_out() {
    const YEAR: u64 = 365 * 86_400;
    let closed = command(rate(0.5, 20));
    let open = command(in_a_row(1).open_for(secs(5)));
    play(&closed, "SSFF").await;
    play(&open, "F").await;
    advance(secs(YEAR)).await;
    assert_eq!((health(&closed), window(&closed), closed.state()), ((0, 0), (0, 0), State::Closed));
    play(&closed, "S").await;
    assert_eq!((health(&closed), ended(&closed, "success")), ((0, 1), 3));
    play(&open, "S").await;
    assert_eq!(open.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a07_a_million_calls_in_one_instant_are_counted_exactly() {
    let command = command(rate(1.0, 20));
    for n in 0..1_000_000 {
        let permit = command.admit().expect("it is closed");
        if n % 4 == 0 { permit.fail() } else { permit.succeed() }
    }
    assert_eq!((health(&command), window(&command)), ((250_000, 1_000_000), (250_000, 1_000_000)));
    assert_eq!(command.snapshot().lifetime().calls(), 1_000_000);
}

#[test]
fn a07_a_clock_that_goes_back_freezes_the_circuit_and_breaks_nothing() {
    let ahead = time_machine();
    let open = command(in_a_row(1).open_for(secs(5)));
    let half_open = command(in_a_row(1).open_for(secs(5)));
    ahead.block_on(async {
        advance(secs(3_600)).await;
        play(&half_open, "F").await;
        advance(secs(5)).await;
        play(&half_open, "C").await;
        play(&open, "F").await;
    });
    assert_eq!((open.state(), half_open.state()), (State::Open, State::HalfOpen));
    assert_eq!(open.admit().map(drop).unwrap_err().reason(), Reason::CircuitOpen);
    let probe = half_open.admit().expect("a probe");
    assert_eq!(half_open.admit().map(drop).unwrap_err().reason(), Reason::ProbeLimit);
    probe.succeed();
    assert_eq!(half_open.state(), State::Closed);
    ahead.block_on(async {
        assert_eq!(refused(&open).await.retry_after(), Some(secs(5)), "no time has passed");
        advance(secs(5)).await;
        play(&open, "S").await;
        assert_eq!(open.state(), State::Closed);
    });
}

#[tokio::test(start_paused = true)]
async fn a09_a_panic_in_the_classifier_is_counted_and_gives_the_permit_back() {
    let command = Command::builder("predicate").max_concurrent(1).breaker(in_a_row(3)).build().expect("good");
    for n in 1..=3 {
        let call = command.run(async || Ok::<u32, Failure>(1)).classify(|_| panic!("predicate"));
        assert_eq!(message(AssertUnwindSafe(call).catch_unwind().await), "predicate");
        assert_eq!((command.snapshot().in_flight(), ended(&command, "panicked")), (0, n));
    }
    assert_eq!(command.state(), State::Open, "a panic is an error like any other");
    advance(secs(5)).await;
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a09_a_panic_in_the_fallback_is_the_fallbacks_and_gives_both_places_back() {
    let command = Command::builder("fallback").max_concurrent(1).max_concurrent_fallbacks(1).build().expect("good");
    for n in 1..=3 {
        // Once in making the future, once in polling it, and once after it had to wait.
        let call = command.run(async || Err::<u32, _>(DOWN)).fallback(|_| {
            assert!(n > 1, "making");
            async move {
                assert!(n > 2, "polling");
                tokio::task::yield_now().await;
                panic!("waiting")
            }
        });
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
        let snapshot = command.snapshot();
        assert_eq!((snapshot.in_flight(), snapshot.fallbacks().in_flight, snapshot.fallbacks().failure), (0, 0, n));
        assert_eq!((ended(&command, "failure"), ended(&command, "panicked")), (n, 0), "the call itself failed before");
    }
    let saved = command.run(async || Err::<u32, _>(DOWN)).fallback(async |_| Ok(2)).await;
    assert_eq!(saved, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a09_a_panic_in_a_listener_touches_neither_the_call_nor_the_circuit() {
    let command = Command::builder("listener")
        .max_concurrent(1)
        .breaker(in_a_row(1).open_for(secs(1)))
        .on_event(|_: &Event| panic!("listener"))
        .build()
        .expect("good");
    play(&command, "F").await;
    assert_eq!((command.state(), command.snapshot().in_flight()), (State::Open, 0));
    assert_eq!((ended(&command, "failure"), ended(&command, "panicked")), (1, 0));
    advance(secs(1)).await;
    play(&command, "S").await;
    assert_eq!((command.state(), command.snapshot().in_flight()), (State::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a10_permits_outlive_every_handle_of_their_command() {
    let registry = Registry::new();
    let command = Command::builder("gone").registry(&registry).breaker(in_a_row(1)).build().expect("good");
    let mut permits: Vec<_> = (0..4).map(|_| command.admit_owned().expect("it is closed")).collect();
    drop(command);
    permits.pop().expect("four").succeed();
    permits.pop().expect("three").fail();
    permits.pop().expect("two").ignore();
    drop(permits);
    assert_eq!(registry.commands().len(), 0, "with the last permit the command is gone");
}

/// The peers' 10^7 calls, less in number: a debug build has to get through them.
#[test]
fn a14_figures_read_among_writers_never_shrink_and_never_exceed_the_admissions() {
    const CALLS: u64 = 250_000;
    let command = Command::builder("read").unlimited().breaker(in_a_row(3).open_for(ms(1)).window(ms(10))).build();
    let command = command.expect("a good configuration");
    let (begun, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u64)
            .map(|seed| {
                let (command, begun) = (&command, &begun);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..CALLS {
                        begun.fetch_add(1, Ordering::SeqCst);
                        let Ok(permit) = command.admit() else { continue };
                        match random.u32(0..8) {
                            0..=3 => permit.succeed(),
                            4 | 5 => permit.fail(),
                            6 => permit.ignore(),
                            _ => drop(permit),
                        }
                    }
                })
            })
            .collect();
        // Each reset begins a new generation, so that results come late all the time.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                command.reset();
            }
        });
        scope.spawn(|| {
            let mut last = command.snapshot().lifetime();
            while !done.load(Ordering::Relaxed) {
                let next = command.snapshot().lifetime();
                let limit = begun.load(Ordering::SeqCst);
                assert!(next.calls() <= limit, "{next:?} of {limit}");
                for outcome in Outcome::ALL {
                    assert!(next.of(outcome) >= last.of(outcome), "{outcome}: {last:?}, then {next:?}");
                }
                last = next;
            }
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    let snapshot = command.snapshot();
    assert_eq!((snapshot.lifetime().calls(), snapshot.in_flight()), (4 * CALLS, 0));
}

#[tokio::test(start_paused = true)]
async fn a14_every_admitted_call_is_in_exactly_one_place() {
    let command = command(in_a_row(1_000));
    let out: Vec<_> = (0..5).map(|_| command.admit().expect("it is closed")).collect();
    play(&command, "SSSFFTPIC").await;
    let snapshot = command.snapshot();
    assert_eq!((snapshot.lifetime().calls(), snapshot.in_flight()), (9, 5));
    drop(out);
    assert_eq!((ended(&command, "cancelled"), command.snapshot().in_flight()), (6, 0));
    let late = command.run(hang).timeout(ms(5)).await;
    assert!(matches!(late, Err(Error::TimedOut(_))));
    command.force_open("enough", None);
    assert_eq!(refused(&command).await.reason(), Reason::ForcedOpen);
    assert_eq!(command.snapshot().lifetime().calls(), 16);
}
