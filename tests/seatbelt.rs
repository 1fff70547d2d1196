//! The cases of seatbelt and tower-resilience: dropped calls, results from another era, clones, names in refusals.

mod support;

use fusebox::testing::Timeline;
use fusebox::{Breaker, Cause, Command, Event, Permit, Ramp, Reason, State};
use support::{advance, command, drain, edges, ended, health, in_a_row, ms, play, poll, rate, refused, secs};

/// Starts a call, lets it run for 10 ms and drops it.
async fn dropped(command: &Command) {
    let mut call = Box::pin(command.run(support::hang));
    assert_eq!(poll(&mut call), None, "it was admitted");
    advance(ms(10)).await;
}

#[tokio::test(start_paused = true)]
async fn s03_ten_dropped_calls_after_a_success_leave_it_closed() {
    let command = command(rate(0.5, 3));
    play(&command, "S").await;
    for _ in 0..10 {
        dropped(&command).await;
    }
    assert_eq!((command.state(), health(&command), ended(&command, "cancelled")), (State::Closed, (0, 1), 10));
}

#[tokio::test(start_paused = true)]
async fn s04_dropped_calls_never_open_it() {
    let command = command(rate(0.5, 3).consecutive_failures(3));
    for _ in 0..1_000 {
        dropped(&command).await;
    }
    assert_eq!((command.state(), ended(&command, "cancelled")), (State::Closed, 1_000));
}

#[tokio::test(start_paused = true)]
async fn s04_dropped_calls_open_it_at_the_threshold_if_they_count_as_failures() {
    let command = command(rate(0.5, 3).count_cancelled_after(ms(10)));
    dropped(&command).await;
    dropped(&command).await;
    play(&command, "C").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (2, 2)), "one had not run for 10 ms");
    dropped(&command).await;
    assert_eq!(command.state(), State::Open);
}

async fn half_open(breaker: Breaker) -> Command {
    let command = command(breaker.consecutive_failures(1).open_for(secs(1)));
    play(&command, "F").await;
    advance(secs(1)).await;
    command
}

#[tokio::test(start_paused = true)]
async fn s06_a_dropped_probe_leaves_it_half_open_with_its_place_free() {
    let command = half_open(rate(0.5, 20)).await;
    dropped(&command).await;
    assert_eq!(command.state(), State::HalfOpen);
    let next = command.admit().expect("at once, without another wait");
    assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    next.succeed();
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn s06_a_dropped_probe_opens_it_again_if_it_counts_as_a_failure() {
    let command = half_open(rate(0.5, 20).count_cancelled_after(ms(10))).await;
    dropped(&command).await;
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(1))));
}

#[tokio::test(start_paused = true)]
async fn s07_a_result_from_before_it_opened_does_not_touch_a_half_open_circuit() {
    let command = command(in_a_row(1).open_for(secs(1)));
    let [good, bad] = [(); 2].map(|()| command.admit().expect("it is closed"));
    play(&command, "F").await;
    advance(secs(1)).await;
    let probe = command.admit().expect("the probe");
    good.succeed();
    assert_eq!((command.state(), command.snapshot().late_outcomes()), (State::HalfOpen, 1));
    bad.fail();
    assert_eq!((command.state(), command.snapshot().late_outcomes()), (State::HalfOpen, 2));
    assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    probe.succeed();
    assert_eq!((command.state(), command.snapshot().late_outcomes()), (State::Closed, 2));
}

#[tokio::test(start_paused = true)]
async fn s08_a_probes_result_that_comes_after_closing_does_not_touch_the_new_window() {
    // Two of two must fail to open it again, so the first success decides.
    let command = half_open(rate(1.0, 2).probes(2)).await;
    let [first, second] = [(); 2].map(|()| command.admit().expect("a probe"));
    first.succeed();
    assert_eq!(command.state(), State::Closed);
    second.fail();
    assert_eq!((command.state(), health(&command), command.snapshot().late_outcomes()), (State::Closed, (0, 0), 1));
    assert_eq!(ended(&command, "failure"), 2);
}

/// A circuit on its ramp of 10, 25 and 50 %, each for a second and 4 calls: its one probe has just passed.
async fn ramping() -> Command {
    let ramp = Ramp::stages([0.1, 0.25, 0.5]).each(secs(1)).min_calls(4);
    let command = command(rate(0.5, 1).open_for(secs(1)).ramp(ramp));
    play(&command, "F").await;
    advance(secs(1)).await;
    play(&command, "S").await;
    assert_eq!((command.state(), stage(&command)), (State::HalfOpen, Some((1, 3))));
    command
}

/// The number of the stage, and of all stages.
fn stage(command: &Command) -> Option<(u32, u32)> {
    command.snapshot().ramp().map(|stage| (stage.number, stage.of))
}

/// So many calls come; those that get in.
fn offer(command: &Command, calls: usize) -> Vec<Permit<'_>> {
    let admitted = (0..calls).filter_map(|_| match command.admit() {
        Ok(permit) => Some(permit),
        Err(refused) => {
            assert_eq!((refused.reason(), refused.retry_after()), (Reason::Ramp, None));
            None
        }
    });
    admitted.collect()
}

#[tokio::test(start_paused = true)]
async fn s09_good_results_lead_from_stage_to_stage_and_after_the_last_one_it_closes() {
    let command = ramping().await;
    let (mut events, generation) = (command.subscribe(), command.snapshot().generation());
    for (number, admitted) in [(1, 4), (2, 10), (3, 20)] {
        assert_eq!((stage(&command), command.snapshot().generation()), (Some((number, 3)), generation));
        let calls = offer(&command, 40);
        assert_eq!(calls.len(), admitted, "stage {number}");
        calls.into_iter().for_each(Permit::succeed);
        assert_eq!(stage(&command), Some((number, 3)), "its time is not over");
        let told = command.snapshot().ramp().expect("it is on its ramp");
        assert_eq!((told.ended, told.failed, told.slow), (admitted as u32, 0, 0));
        advance(secs(1)).await;
        offer(&command, 10).into_iter().take(1).for_each(Permit::succeed);
    }
    assert_eq!((command.state(), stage(&command)), (State::Closed, None));
    let told: Vec<_> = drain(&mut events).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "peer: coming back, stage 2 of 3: 25 % of calls",
            "peer: coming back, stage 3 of 3: 50 % of calls",
            "peer: half_open -> closed: the ramp's stages passed (3)",
        ]
    );
    assert_eq!(offer(&command, 50).len(), 50);
}

#[tokio::test(start_paused = true)]
async fn s09_a_stage_fails_fast_and_the_way_back_begins_again_with_a_probe() {
    let command = ramping().await;
    let timeline = Timeline::of(&command);
    offer(&command, 40).into_iter().for_each(Permit::succeed);
    advance(secs(1)).await;
    // Let in by the first stage, one of them is bad for the second.
    let mut early = offer(&command, 20);
    assert_eq!(early.len(), 2);
    early.pop().expect("two").succeed();
    assert_eq!(stage(&command), Some((2, 3)));
    let own = offer(&command, 40);
    early.pop().expect("one").fail();
    assert_eq!((command.state(), stage(&command)), (State::HalfOpen, Some((2, 3))), "1 of 4 is not one half");
    own.into_iter().take(1).for_each(Permit::fail);
    assert_eq!((command.state(), stage(&command)), (State::Open, None), "2 of 4 are");
    let opened = &timeline.transitions()[0];
    assert_eq!(opened.cause, Cause::RampFailed { stage: 2, failed: 2, ended: 2 });
    assert_eq!(opened.cause.to_string(), "2 of 2 calls failed in stage 2 of the ramp");
    advance(secs(1)).await;
    assert_eq!(offer_probe(&command), (1, Reason::ProbeLimit));
}

/// How many of two calls a half-open circuit lets in, and why it refuses the other.
fn offer_probe(command: &Command) -> (usize, Reason) {
    let calls = [command.admit(), command.admit()];
    let refusal = calls.iter().find_map(|call| call.as_ref().err()).expect("one is refused").reason();
    (calls.iter().filter(|call| call.is_ok()).count(), refusal)
}

#[tokio::test(start_paused = true)]
async fn s10_a_stage_without_traffic_admits_one_call_for_each_of_its_lengths() {
    let command = ramping().await;
    offer(&command, 1).into_iter().for_each(Permit::succeed);
    // From here on ten calls come in each second, and one of ten is the share; then four, and one is the least.
    for (calls, lengths) in [(10, 3), (4, 3), (1, 3)] {
        for _ in 0..lengths {
            let mut admitted = 0;
            for _ in 0..calls {
                advance(secs(1) / calls).await;
                admitted += offer(&command, 1).len();
            }
            assert_eq!(admitted, 1, "of {calls} calls in a second");
        }
    }
    assert_eq!((command.state(), stage(&command)), (State::HalfOpen, Some((1, 3))), "dropped, they decided nothing");
}

#[tokio::test(start_paused = true)]
async fn s11_abandoned_results_never_advance_a_stage_and_never_close() {
    let command = ramping().await;
    for number in 1..=3 {
        offer(&command, 80).into_iter().for_each(Permit::succeed);
        advance(secs(5)).await;
        let calls = offer(&command, 200);
        assert!(calls.len() >= 20);
        for (at, call) in calls.into_iter().enumerate() {
            if at % 2 == 0 { call.ignore() } else { drop(call) }
        }
        assert_eq!((command.state(), stage(&command)), (State::HalfOpen, Some((number, 3))), "otherwise healthy");
        offer(&command, 20).into_iter().take(1).for_each(Permit::succeed);
    }
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_ramp_is_changed_live_and_starts_anew_after_an_override() {
    let command = ramping().await;
    let timeline = Timeline::of(&command);
    command.reconfigure(|c| c.map_breaker(|b| b.ramp(Ramp::stages([0.5]).min_calls(1)))).expect("a good ramp");
    let told = command.snapshot().ramp().expect("it is on its ramp still");
    assert_eq!((told.number, told.of, told.share), (1, 1, 0.5));
    command.force_closed("test", None);
    assert_eq!(stage(&command), None);
    command.clear_override();
    assert_eq!(stage(&command), None, "with a probe");
    play(&command, "S").await;
    assert_eq!(stage(&command), Some((1, 1)));
    command
        .reconfigure(|c| {
            c.map_breaker(|mut b| {
                b.ramp = None;
                b
            })
        })
        .expect("no ramp is a good one");
    assert_eq!(command.state(), State::Closed, "its probe has passed");
    assert_eq!(
        edges(&timeline),
        [
            (State::HalfOpen, State::ForcedClosed),
            (State::ForcedClosed, State::HalfOpen),
            (State::HalfOpen, State::Closed)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_ramp_that_has_lost_stages_goes_on_in_its_last() {
    let command = ramping().await;
    for _ in 0..2 {
        offer(&command, 40).into_iter().for_each(Permit::succeed);
        advance(secs(1)).await;
        offer(&command, 10).into_iter().take(1).for_each(Permit::succeed);
    }
    assert_eq!(stage(&command), Some((3, 3)));
    for (shares, last) in [(vec![0.2, 0.4], (2, 2)), (vec![0.3], (1, 1)), (vec![0.3, 0.9], (1, 2))] {
        command.reconfigure(|c| c.map_breaker(|b| b.ramp(Ramp::stages(shares)))).expect("a good ramp");
        assert_eq!(stage(&command), Some(last));
    }
}

/// What has been seen on the ramp is judged by the rules that are in force.
#[tokio::test(start_paused = true)]
async fn a_stage_that_fails_by_stricter_rules_ends_when_they_come() {
    let command = ramping().await;
    offer(&command, 1).into_iter().for_each(Permit::fail);
    assert_eq!(stage(&command), Some((1, 3)), "1 of 4 is less than half");
    let timeline = Timeline::of(&command);
    command
        .reconfigure(|c| {
            c.map_breaker(|mut b| {
                b.error_rate = Some(0.25);
                b
            })
        })
        .expect("a good rate");
    let [opened] = &timeline.transitions()[..] else { panic!("one transition") };
    assert_eq!((opened.to, opened.cause), (State::Open, Cause::RampFailed { stage: 1, failed: 1, ended: 1 }));
}

#[tokio::test(start_paused = true)]
async fn a_ramp_ends_at_once_where_a_result_asks_for_rest() {
    let command = ramping().await;
    let mut events = command.subscribe();
    offer(&command, 1).into_iter().for_each(|call| call.resolve(fusebox::Verdict::OpenFor(secs(9))));
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(9))));
    assert!(matches!(drain(&mut events)[..], [Event::Transition(_)]));
}

#[tokio::test(start_paused = true)]
async fn s12_refused_at_99_and_a_probe_at_101_milliseconds() {
    let command = command(in_a_row(1).open_for(ms(100)));
    play(&command, "F").await;
    advance(ms(99)).await;
    assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
    advance(ms(2)).await;
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn s13_a_refusal_names_its_command_and_others_are_not_affected() {
    let [a, b] = ["A", "B"].map(|name| Command::builder(name).breaker(in_a_row(3)).build().expect("good"));
    play(&a, "FFF").await;
    assert_eq!((a.state(), b.state()), (State::Open, State::Closed));
    let rejected = refused(&a).await;
    assert_eq!((rejected.command(), rejected.to_string().contains("`A`")), ("A", true));
    play(&b, "S").await;
}

#[tokio::test(start_paused = true)]
async fn s14_a_clone_refuses_when_the_original_has_tripped() {
    let original = command(in_a_row(1));
    let clone = original.clone();
    play(&original, "F").await;
    assert_eq!(refused(&clone).await.reason(), Reason::CircuitOpen);
    clone.reset();
    play(&original, "S").await;
}

#[tokio::test(start_paused = true)]
async fn s15_a_disabled_breaker_calls_for_ever_and_still_counts() {
    let command = command(Breaker::disabled());
    play(&command, &"F".repeat(1_000)).await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (1_000, 1_000)));
    assert_eq!(ended(&command, "failure"), 1_000);
}
