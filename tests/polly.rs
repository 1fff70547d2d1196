//! The cases of Polly: thresholds, manual isolation, the rolling health, order of callbacks, undecided probes.

mod support;

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use fusebox::testing::Timeline;
use fusebox::{Breaker, Cause, Command, Error, Event, Reason, Registry, State, Verdict};
use support::{DOWN, advance, command, drain, edges, ended, health, in_a_row, ms, play, rate, refused, secs, window};

#[tokio::test(start_paused = true)]
async fn p01_the_tenth_failure_is_returned_and_the_eleventh_call_is_refused() {
    let command = command(rate(0.5, 10).window(secs(10)).open_for(secs(1)));
    let timeline = Timeline::of(&command);
    play(&command, "FFFFFFFFFF").await;
    assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
    assert_eq!(edges(&timeline), [(State::Closed, State::Open)]);
}

#[tokio::test(start_paused = true)]
async fn p05_a_wait_that_a_result_asks_for_wins_over_the_configured_one() {
    let command = command(in_a_row(1).open_for(secs(30)));
    let timeline = Timeline::of(&command);
    command.admit().expect("closed").resolve(Verdict::OpenFor(secs(2)));
    assert_eq!(command.snapshot().retry_after(), Some(secs(2)));
    assert_eq!(timeline.transitions()[0].cause, Cause::OpenFor { wait: secs(2) });

    advance(secs(2)).await;
    play(&command, "F").await;
    assert_eq!(command.snapshot().retry_after(), Some(secs(30)), "a plain failure takes the configured one");
}

#[tokio::test(start_paused = true)]
async fn p07_the_transition_bears_the_figures_that_tripped_it() {
    let command = Command::builder("figures").group("peers").breaker(rate(0.5, 10)).build().expect("good");
    let timeline = Timeline::of(&command);
    play(&command, "SSSSSFFT").await;
    advance(secs(3)).await;
    play(&command, "IPCF").await;
    let [opened] = &timeline.transitions()[..] else { panic!("it opened once") };
    assert_eq!((opened.command, opened.group), ("figures", Some("peers")));
    assert_eq!(opened.cause, Cause::ErrorRate { threshold: 0.5 });
    let report = &opened.report;
    assert_eq!((report.health.errors, report.health.total, report.health.error_rate()), (5, 10, Some(0.5)));
    assert_eq!(
        (report.window.get("failure"), report.window.get("timed_out"), report.window.get("panicked")),
        (3, 1, 1)
    );
    assert_eq!((report.window.get("ignored"), report.window.get("cancelled")), (1, 1));
    assert_eq!((report.span, opened.lasted, report.wait), (secs(3), secs(3), Some(secs(5))));
}

#[tokio::test(start_paused = true)]
async fn p08_both_the_volume_and_the_rate_must_be_reached() {
    for (script, state) in [
        ("SSSSSSSSSS", State::Closed),
        ("SSSSSSSSSF", State::Open),
        ("FSSSSSSSSS", State::Open),
        ("SSSSSSSSF", State::Closed),
    ] {
        let command = command(rate(0.1, 10));
        play(&command, script).await;
        assert_eq!(command.state(), state, "{script}");
    }
}

#[tokio::test(start_paused = true)]
async fn p09_a_failed_probe_has_no_part_in_what_a_closed_circuit_judges_by() {
    for (breaker, shown) in [(rate(0.5, 2), (3, 4)), (rate(0.5, 2).last_calls(3), (2, 3))] {
        let command = command(breaker.open_for(secs(1)));
        play(&command, "FF").await;
        for probe in ["F", "S"] {
            advance(secs(1)).await;
            play(&command, probe).await;
        }
        assert_eq!((command.state(), health(&command)), (State::Closed, (0, 0)));
        assert_eq!(window(&command), shown, "the rolling window shows them");
        play(&command, "F").await;
        assert_eq!((command.state(), health(&command)), (State::Closed, (1, 1)), "two calls are needed: this is one");
    }
}

#[tokio::test(start_paused = true)]
async fn p10_isolation_ends_only_when_it_is_lifted() {
    let command = command(in_a_row(1));
    command.force_open("isolated", None);
    for _ in 0..4 {
        let rejected = refused(&command).await;
        assert_eq!((rejected.reason(), rejected.retry_after()), (Reason::ForcedOpen, None));
        advance(secs(86_400 * 100)).await;
    }
    assert_eq!(command.state(), State::ForcedOpen);
    command.clear_override();
    assert_eq!(command.state(), State::Closed);
    play(&command, "S").await;
}

#[tokio::test(start_paused = true)]
async fn p11_one_loop_over_a_registry_isolates_all_its_commands() {
    let registry = Registry::new();
    let [one, two] =
        ["one", "two"].map(|name| Command::builder(name).registry(&registry).build().expect("a good configuration"));
    let outsider = command(Breaker::default());
    for command in registry.commands() {
        command.force_open("both", None);
    }
    assert_eq!((one.state(), two.state(), outsider.state()), (State::ForcedOpen, State::ForcedOpen, State::Closed));
    for command in registry.commands() {
        command.clear_override();
    }
    assert_eq!((one.state(), two.state()), (State::Closed, State::Closed));
}

#[tokio::test(start_paused = true)]
async fn p14_a_trip_by_a_result_leaves_a_refusal_without_an_inner_cause() {
    #[derive(Debug, thiserror::Error)]
    #[error("never made")]
    struct Never;

    let command = Command::builder("status")
        .breaker(in_a_row(1))
        .classify(|result: &Result<u16, Never>| match result {
            Ok(500..) => Verdict::Failure,
            _ => Verdict::Success,
        })
        .build()
        .expect("a good configuration");
    assert_eq!(command.run(async || Ok(503)).await.expect("it is the caller's"), 503);
    let refused = command.run(async || Ok(200)).await.expect_err("it is open");
    assert!(matches!(refused, Error::Rejected(_)));
    assert!(refused.source().is_none());
}

#[tokio::test(start_paused = true)]
async fn p16_a_late_success_does_not_end_isolation() {
    let command = command(in_a_row(1));
    let late = command.admit().expect("it is closed");
    command.force_open("isolated", None);
    late.succeed();
    assert_eq!((command.state(), command.snapshot().late_outcomes()), (State::ForcedOpen, 1));
}

#[tokio::test(start_paused = true)]
async fn p17_throughput_falls_by_one_for_each_idle_second() {
    let command = command(rate(1.0, 1_000).window(secs(10)).buckets(10));
    for _ in 0..10 {
        play(&command, "S").await;
        advance(secs(1)).await;
    }
    for left in (0..10).rev() {
        assert_eq!((health(&command), window(&command)), ((0, left), (0, left)));
        advance(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p18_the_health_follows_the_window_as_time_advances() {
    let command = command(rate(1.0, 1_000).window(secs(10)).buckets(10));
    let mut second = 0;
    for (at, script, expected) in [
        (0, "SF", (2, Some(0.5), 1)),
        (1, "SF", (4, Some(0.5), 2)),
        (2, "SSSS", (8, Some(0.25), 2)),
        (10, "SS", (8, Some(0.125), 1)),
        (11, "", (6, Some(0.0), 0)),
        (21, "", (0, None, 0)),
    ] {
        advance(secs(at - second)).await;
        second = at;
        play(&command, script).await;
        let health = command.snapshot().health();
        assert_eq!((health.total, health.error_rate(), health.errors), expected, "at {at} s");
    }
}

#[tokio::test(start_paused = true)]
async fn p19_one_window_later_nothing_is_left() {
    let command = command(rate(1.0, 1_000).window(secs(10)));
    play(&command, "SF").await;
    advance(secs(10)).await;
    assert_eq!((health(&command), window(&command), command.snapshot().error_rate()), ((0, 0), (0, 0), None));
}

#[tokio::test(start_paused = true)]
async fn p20_a_slow_callback_gets_the_changes_in_order_and_one_at_a_time() {
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let log = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let (log, busy) = (Arc::clone(&log), AtomicBool::new(false));
        move |event: &Event| {
            let Event::Transition(transition) = event else { return };
            assert!(!busy.swap(true, Ordering::SeqCst), "two events at once");
            if transition.to == State::Open {
                entered.send(()).expect("the test waits for it");
                // Ends too when the test has failed and dropped its end.
                let _ = may_go_on.lock().expect("nobody panics").recv();
            }
            log.lock().expect("nobody panics").push(transition.to);
            busy.store(false, Ordering::SeqCst);
        }
    };
    let command =
        Command::builder("slow").breaker(in_a_row(1).open_for(secs(1))).on_event(listener).build().expect("good");

    let (tripper, runtime) = (command.clone(), tokio::runtime::Handle::current());
    let opening = std::thread::spawn(move || {
        let _paused_clock = runtime.enter();
        tripper.run_sync(|| Err::<u32, _>(DOWN))
    });
    has_entered.recv_timeout(secs(10)).expect("the circuit opens");
    advance(secs(1)).await;
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed, "a slow callback holds up no call");
    assert_eq!(*log.lock().expect("nobody panics"), []);

    go_on.send(()).expect("the callback waits for it");
    assert_eq!(opening.join().expect("no panic"), Err(Error::Failed(DOWN)));
    assert_eq!(*log.lock().expect("nobody panics"), [State::Open, State::HalfOpen, State::Closed]);
}

#[tokio::test(start_paused = true)]
async fn p27_a_timeout_inside_the_operation_is_its_own_affair() {
    let command = Command::builder("inner").timeout(secs(1)).build().expect("good");
    let result = command.run(|| tokio::time::timeout(ms(10), std::future::pending::<u32>())).await;
    assert!(matches!(result, Err(Error::Failed(_))), "{result:?}");
    assert_eq!((ended(&command, "failure"), ended(&command, "timed_out")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn p28_a_change_that_is_invalid_in_one_part_changes_nothing() {
    let command = command(in_a_row(2));
    let mut events = command.subscribe();
    let before = command.snapshot().config().clone();
    play(&command, "F").await;
    let error = command
        .reconfigure(|config| config.timeout(ms(7)).max_concurrent(3).breaker(in_a_row(1).probes(0)))
        .expect_err("no probes, no recovery");
    assert_eq!((error.field(), error.value()), ("breaker.probes", "0"));
    assert_eq!((command.snapshot().config(), command.snapshot().limit()), (&before, Some(100)));
    assert_eq!(drain(&mut events), Vec::<Event>::new());
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open, "the row went on");
}

#[tokio::test(start_paused = true)]
async fn p29_a_probe_without_a_verdict_leaves_it_half_open_and_gives_its_place_back() {
    for undecided in ["I", "C"] {
        let command = command(in_a_row(1).open_for(secs(1)));
        play(&command, "F").await;
        advance(secs(1)).await;
        play(&command, undecided).await;
        assert_eq!(command.state(), State::HalfOpen, "{undecided}");
        play(&command, undecided).await;
        play(&command, "S").await;
        assert_eq!(command.state(), State::Closed, "{undecided}");
    }
}

#[tokio::test(start_paused = true)]
async fn p30_a_probe_that_never_returns_is_given_up_when_its_lease_ends() {
    // The lease is the longer of the timeout and the wait.
    for (timeout, wait, lease) in [(secs(1), secs(5), secs(5)), (secs(7), secs(5), secs(7))] {
        let command =
            Command::builder("lease").timeout(timeout).breaker(in_a_row(1).open_for(wait)).build().expect("good");
        let mut events = command.subscribe();
        play(&command, "F").await;
        advance(wait).await;
        let lost = command.admit().expect("the probe");
        advance(lease - ms(1)).await;
        assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
        advance(ms(1)).await;
        play(&command, "S").await;
        assert_eq!(command.state(), State::Closed);
        let given_up = drain(&mut events).iter().filter(|event| matches!(event, Event::LeaseExpired { .. })).count();
        assert_eq!(given_up, 1);
        lost.fail();
        assert_eq!((command.state(), health(&command)), (State::Closed, (0, 0)));
    }
}
