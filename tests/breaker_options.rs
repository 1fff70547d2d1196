//! The breaker's options, each off by default: trips that are sure of their rate.

mod support;

use fusebox::{Cause, State};
use support::{command, health, play, rate, transitions};

#[tokio::test(start_paused = true)]
async fn a_rate_that_may_be_luck_trips_only_without_a_level_of_confidence() {
    let (plain, sure) = (command(rate(0.5, 4)), command(rate(0.5, 4).confidence(0.95)));
    for command in [&plain, &sure] {
        play(command, "SFSF").await;
    }
    assert_eq!((plain.state(), sure.state()), (State::Open, State::Closed));
    play(&sure, "SSFFFF").await;
    assert_eq!((sure.state(), health(&sure)), (State::Closed, (6, 10)));
    let mut events = sure.subscribe();
    play(&sure, "FFFF").await;
    assert_eq!((sure.state(), health(&sure)), (State::Closed, (10, 14)), "it takes 11 of 14");
    play(&sure, "F").await;
    let [opened] = &transitions(&mut events)[..] else { panic!("one transition") };
    assert_eq!((opened.cause, opened.report.health.errors), (Cause::ErrorRate { threshold: 0.5 }, 11));
}

#[tokio::test(start_paused = true)]
async fn a_level_of_confidence_is_changed_live_and_does_not_replace_min_calls() {
    let command = command(rate(0.5, 7).confidence(0.999));
    play(&command, "FFFFFF").await;
    command.reconfigure(|c| c.map_breaker(|b| b.confidence(0.95))).expect("a good level");
    assert_eq!((command.state(), command.snapshot().config().breaker.confidence), (State::Closed, Some(0.95)));
    play(&command, "S").await;
    assert_eq!(command.state(), State::Open, "6 of 7");
}
