//! The cases of Hystrix's circuit breaker, CB1 to CB30: what opens it, the open wait, probes, overrides, transitions.

mod support;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fusebox::testing::Timeline;
use fusebox::{Breaker, Cause, Command, Error, Event, Outcome, Reason, State};
use futures::future::{join, join_all};
use support::{
    DOWN, advance, after, edges, ended, fail, hang, health, ms, outcomes, play, refused, secs, succeed, window,
};

/// Hystrix's unit settings, with exact waits that do not grow.
fn unit(volume: u32) -> Breaker {
    Breaker::error_rate(0.4).min_calls(volume).window(ms(5_000)).open_for(ms(200)).growth(1.0).jitter(0.0)
}

fn build(breaker: Breaker) -> Command {
    Command::builder("hystrix").timeout(ms(500)).breaker(breaker).build().expect("a good configuration")
}

/// Opened this moment by four failures.
async fn open(breaker: Breaker) -> Command {
    let command = build(breaker.min_calls(4));
    play(&command, "FFFF").await;
    assert_eq!(command.state(), State::Open);
    command
}

async fn refused_thrice(command: &Command) {
    for _ in 0..3 {
        assert_eq!(refused(command).await.reason(), Reason::CircuitOpen);
    }
}

#[tokio::test(start_paused = true)]
async fn cb01_half_of_eight_calls_open_it() {
    let command = build(unit(8));
    play(&command, "SSSS").await;
    play(&command, "FFF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (3, 7)));
    fail(&command).await;
    assert_eq!((command.state(), window(&command)), (State::Open, (4, 8)));
    assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
}

/// What a fallback or a caller sees of the call that trips is that call's own error.
#[tokio::test(start_paused = true)]
async fn cb01_the_call_that_opens_it_gets_its_own_result() {
    let command = build(unit(1));
    assert_eq!(command.run(async || Err::<u32, _>(DOWN)).await, Err(Error::Failed(DOWN)));
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn cb02_the_order_of_results_is_of_no_account() {
    let command = build(unit(8));
    play(&command, "SSFSFSF").await;
    assert_eq!(command.state(), State::Closed);
    fail(&command).await;
    assert_eq!((command.state(), window(&command)), (State::Open, (4, 8)));
}

#[tokio::test(start_paused = true)]
async fn cb04_four_timeouts_open_it() {
    let command = build(unit(4));
    for _ in 0..4 {
        assert_eq!(command.state(), State::Closed);
        let Err(Error::TimedOut(late)) = command.run(hang).await else { panic!("it has to time out") };
        assert_eq!((late.limit(), late.elapsed()), (ms(500), ms(500)));
    }
    assert_eq!((command.state(), outcomes(&command)), (State::Open, vec![(Outcome::TimedOut, 4)]));
}

#[tokio::test(start_paused = true)]
async fn cb05_timeouts_among_successes_open_it() {
    let command = build(unit(9));
    play(&command, "SSTSTTST").await;
    assert_eq!(command.state(), State::Closed);
    play(&command, "T").await;
    assert_eq!((command.state(), window(&command)), (State::Open, (5, 9)));
}

#[tokio::test(start_paused = true)]
async fn cb06_of_two_calls_after_the_wait_one_is_the_probe() {
    let command = open(unit(4)).await;
    advance(ms(250)).await;
    let probe = command.admit().expect("the wait is over");
    assert_eq!(command.state(), State::HalfOpen);
    let second = command.admit().expect_err("the one probe is out");
    assert_eq!((second.reason(), command.state()), (Reason::ProbeLimit, State::HalfOpen));
    probe.succeed();
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn cb08_it_closes_with_the_first_probe_that_succeeds() {
    let command = open(unit(4)).await;
    for _ in 0..2 {
        refused_thrice(&command).await;
        advance(ms(199)).await;
        refused_thrice(&command).await;
        advance(ms(1)).await;
        fail(&command).await;
        assert_eq!(command.state(), State::Open);
    }
    refused_thrice(&command).await;
    advance(ms(200)).await;
    succeed(&command).await;
    assert_eq!(command.state(), State::Closed);
    play(&command, "SSS").await;
    assert_eq!(ended(&command, "short_circuited"), 15);
}

#[tokio::test(start_paused = true)]
async fn cb09_below_the_volume_threshold_no_rate_opens_it() {
    let command = build(unit(5));
    play(&command, "FFFF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (4, 4)));
    fail(&command).await;
    assert_eq!(command.state(), State::Open, "it was the volume that held it");
}

#[tokio::test(start_paused = true)]
async fn cb10_opens_at_the_twentieth_failure() {
    let command = build(Breaker::error_rate(0.5).min_calls(20));
    play(&command, &"F".repeat(19)).await;
    assert_eq!(command.state(), State::Closed);
    fail(&command).await;
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn cb11_the_error_threshold_is_inclusive() {
    let half = build(Breaker::error_rate(0.5).min_calls(20));
    play(&half, &"SF".repeat(10)).await;
    assert_eq!((half.state(), window(&half)), (State::Open, (10, 20)));

    let less = build(Breaker::error_rate(0.5).min_calls(20));
    play(&less, &"S".repeat(51)).await;
    play(&less, &"F".repeat(49)).await;
    assert_eq!((less.state(), health(&less)), (State::Closed, (49, 100)));
    fail(&less).await;
    assert_eq!((less.state(), health(&less)), (State::Closed, (50, 101)));
    fail(&less).await;
    assert_eq!((less.state(), window(&less)), (State::Open, (51, 102)));
}

#[tokio::test(start_paused = true)]
async fn cb13_thresholds_of_zero_cannot_be_built_and_no_traffic_opens_nothing() {
    for (breaker, field) in
        [(unit(0), "breaker.min_calls"), (Breaker::error_rate(0.0).min_calls(1), "breaker.error_rate")]
    {
        let refused = Command::builder("hystrix").breaker(breaker).build().expect_err("zero is out of range");
        assert_eq!(refused.field(), field);
    }

    let touchiest = build(Breaker::error_rate(f64::MIN_POSITIVE).min_calls(1));
    for _ in 0..30 {
        advance(secs(1)).await;
        assert_eq!(touchiest.state(), State::Closed);
    }
    play(&touchiest, "SICS").await;
    assert_eq!(touchiest.state(), State::Closed, "none of these is an error");
    fail(&touchiest).await;
    assert_eq!(touchiest.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn cb14_the_wait_is_over_at_its_very_end() {
    const INSTANT: Duration = Duration::from_nanos(1);
    let command = open(unit(4).open_for(ms(5_000))).await;
    advance(ms(5_000) - INSTANT).await;
    assert_eq!((command.state(), refused(&command).await.retry_after()), (State::Open, Some(INSTANT)));
    advance(INSTANT).await;
    assert_eq!(command.state(), State::HalfOpen);
    succeed(&command).await;
    assert_eq!(command.state(), State::Closed);

    let command = open(unit(4).open_for(ms(5_000))).await;
    advance(ms(5_001)).await;
    succeed(&command).await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn cb16_a_probe_that_times_out_restarts_the_wait_when_it_does() {
    let command = open(unit(4)).await;
    advance(ms(250)).await;
    let Err(Error::TimedOut(late)) = command.run(hang).await else { panic!("it has to time out") };
    assert_eq!(late.elapsed(), ms(500));
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(ms(200))));
    advance(ms(199)).await;
    assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
    advance(ms(1)).await;
    succeed(&command).await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn cb19_calls_refused_beside_the_probe_do_not_keep_it_from_closing() {
    let command = open(unit(4)).await;
    advance(ms(200)).await;
    let probe = command.run(|| after(ms(200), Ok(1)));
    let crowd = async {
        for _ in 0..50 {
            assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
            tokio::time::sleep(ms(3)).await;
        }
    };
    assert_eq!(join(probe, crowd).await, (Ok(1), ()));
    assert_eq!((command.state(), ended(&command, "short_circuited")), (State::Closed, 50));
    succeed(&command).await;
}

#[tokio::test(start_paused = true)]
async fn cb23_forced_open_wins_over_everything() {
    for script in ["", "SSSS", "SFS", "FFFF"] {
        for closed_first in [true, false] {
            let command = build(unit(4));
            play(&command, script).await;
            if closed_first {
                command.force_closed("test", None);
                command.force_open("test", None);
            } else {
                command.force_open("test", None);
                command.force_closed("test", None);
            }
            assert_eq!(command.state(), State::ForcedOpen);
            // No wait ends it, and no probe is let out.
            advance(secs(3600)).await;
            assert_eq!(refused(&command).await.reason(), Reason::ForcedOpen);
            assert_eq!((command.state(), ended(&command, "short_circuited")), (State::ForcedOpen, 1));
            assert_eq!(command.snapshot().lifetime().calls(), script.len() as u64 + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cb24_forced_closed_admits_and_counts_all_and_the_real_state_applies_after_it() {
    let command = build(unit(4));
    command.force_closed("test", None);
    play(&command, &"F".repeat(100)).await;
    assert_eq!((command.state(), window(&command)), (State::ForcedClosed, (100, 100)));
    command.clear_override();
    assert_eq!(command.state(), State::Closed, "it never tripped, and old figures do not open it");
    play(&command, "FFF").await;
    assert_eq!(command.state(), State::Closed);
    fail(&command).await;
    assert_eq!(command.state(), State::Open);

    command.force_closed("test", None);
    play(&command, "FFFF").await;
    advance(ms(199)).await;
    command.clear_override();
    assert_eq!((command.state(), refused(&command).await.retry_after()), (State::Open, Some(ms(1))));
}

#[tokio::test(start_paused = true)]
async fn cb25_a_disabled_breaker_refuses_nothing_and_counts_everything() {
    let command = build(Breaker::disabled());
    let timeline = Timeline::of(&command);
    play(&command, &"F".repeat(90)).await;
    play(&command, "TTTTTPPPPP").await;
    assert_eq!((command.state(), edges(&timeline)), (State::Closed, vec![]));
    assert_eq!((health(&command), window(&command)), ((100, 100), (100, 100)));
    let expected = [(Outcome::Failure, 90), (Outcome::TimedOut, 5), (Outcome::Panicked, 5)];
    assert_eq!(outcomes(&command), expected);
}

#[tokio::test(start_paused = true)]
async fn cb26_handles_of_one_command_share_its_circuit_and_no_other_does() {
    let command = build(unit(3));
    let other = build(unit(3));
    let handles = [command.clone(), command.clone(), command.clone()];
    for handle in &handles {
        assert_eq!(handle.state(), State::Closed);
        fail(handle).await;
    }
    assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
    assert_eq!(refused(&handles[0]).await.reason(), Reason::CircuitOpen);
    assert_eq!((other.name(), other.state()), (command.name(), State::Closed));
    play(&other, "FF").await;
    assert_eq!(other.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn cb27_reading_the_state_changes_nothing_and_uses_no_probe() {
    let command = open(unit(4)).await;
    let (generation, timeline) = (command.snapshot().generation(), Timeline::of(&command));
    advance(ms(200)).await;
    for _ in 0..1_000 {
        assert_eq!(command.state(), State::HalfOpen);
        assert_eq!(command.snapshot().state(), State::HalfOpen);
    }
    assert_eq!((command.snapshot().generation(), edges(&timeline)), (generation, vec![]));
    let probe = command.admit().expect("the probe is still there");
    assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    probe.succeed();
    assert_eq!(edges(&timeline), [(State::Open, State::HalfOpen), (State::HalfOpen, State::Closed)]);
}

#[tokio::test(start_paused = true)]
async fn cb28_closing_empties_the_health_window_and_no_other_count() {
    let command = open(unit(4)).await;
    advance(ms(200)).await;
    succeed(&command).await;
    assert_eq!((command.state(), health(&command), window(&command)), (State::Closed, (0, 0), (4, 5)));
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Failure, 4)]);
    play(&command, "FFF").await;
    assert_eq!((command.state(), health(&command), window(&command)), (State::Closed, (3, 3), (7, 8)));
    advance(ms(5_000)).await;
    assert_eq!((window(&command), ended(&command, "failure")), ((0, 0), 7));
}

#[tokio::test(start_paused = true)]
async fn cb29_of_ten_calls_at_once_exactly_the_three_probes_get_through() {
    let command = open(unit(4).probes(3)).await;
    advance(ms(200)).await;
    let results = join_all((0..10).map(|_| command.run(|| after(ms(50), Ok(1))))).await;
    assert_eq!(results[..3], [Ok(1), Ok(1), Ok(1)]);
    for result in &results[3..] {
        let Err(Error::Rejected(rejected)) = result else { panic!("{result:?}") };
        assert_eq!(rejected.reason(), Reason::ProbeLimit);
    }
    assert_eq!((command.state(), ended(&command, "short_circuited")), (State::Closed, 7));
}

/// At 40 % two failures of three reopen, so one failure is forgiven.
#[tokio::test(start_paused = true)]
async fn cb29_three_probes_are_judged_as_soon_as_the_rest_cannot_change_it() {
    for (script, verdict) in [("SS", State::Closed), ("SFS", State::Closed), ("FF", State::Open), ("FSF", State::Open)]
    {
        let command = open(unit(4).probes(3)).await;
        advance(ms(200)).await;
        let mut probes: Vec<_> = (0..3).map(|_| command.admit().expect("there are three")).collect();
        for letter in script.chars() {
            assert_eq!(command.state(), State::HalfOpen, "{letter} of {script}");
            let probe = probes.remove(0);
            if letter == 'S' { probe.succeed() } else { probe.fail() }
        }
        assert_eq!(command.state(), verdict, "{script}");
        let late = probes.len() as u64;
        probes.into_iter().for_each(|probe| probe.fail());
        assert_eq!((command.state(), command.snapshot().late_outcomes()), (verdict, late), "{script}");
    }
}

#[tokio::test(start_paused = true)]
async fn cb30_every_transition_is_told_once_in_order_with_its_reason_and_counts_outside_all_locks() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let own: Arc<OnceLock<Command>> = Arc::default();
    let (listener_log, listener_own) = (Arc::clone(&log), Arc::clone(&own));
    let command = Command::builder("hystrix")
        .breaker(unit(4))
        .on_event(move |event| {
            let Event::Transition(t) = event else { return };
            // Under a lock of the command's this would not return.
            let own = listener_own.get().expect("it is set before any call");
            assert_eq!((own.state(), own.snapshot().generation()), (t.to, t.generation));
            let (health, window) = (t.report.health, t.report.window);
            let counts = ((health.errors, health.total), (window.errors(), window.total()));
            listener_log.lock().expect("no listener panics").push((t.from, t.to, t.cause, counts));
        })
        .build()
        .expect("a good configuration");
    own.set(command.clone()).expect("it is set once");

    play(&command, "SSFF").await;
    advance(ms(200)).await;
    fail(&command).await;
    advance(ms(200)).await;
    succeed(&command).await;
    succeed(&command).await;
    command.force_open("test", None);
    refused(&command).await;
    command.clear_override();

    use State::{Closed, ForcedOpen, HalfOpen, Open};
    let threshold = 0.4;
    let expected = [
        (Closed, Open, Cause::ErrorRate { threshold }, ((2, 4), (2, 4))),
        (Open, HalfOpen, Cause::WaitOver, ((0, 0), (2, 4))),
        (HalfOpen, Open, Cause::ProbesFailed { failed: 1, ended: 1 }, ((1, 1), (3, 5))),
        (Open, HalfOpen, Cause::WaitOver, ((0, 0), (3, 5))),
        (HalfOpen, Closed, Cause::ProbesPassed { passed: 1 }, ((0, 1), (3, 6))),
        (Closed, ForcedOpen, Cause::Forced, ((0, 1), (3, 7))),
        (ForcedOpen, Closed, Cause::Cleared, ((0, 0), (3, 7))),
    ];
    assert_eq!(*log.lock().expect("no listener panics"), expected);
}
