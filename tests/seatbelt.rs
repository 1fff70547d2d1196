//! The cases of seatbelt and tower-resilience: dropped calls, results from another era, clones, names in refusals.

mod support;

use fusebox::{Breaker, Command, Reason, State};
use support::{advance, command, ended, health, in_a_row, ms, play, poll, rate, refused, secs};

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
