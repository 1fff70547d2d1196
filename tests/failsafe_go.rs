//! The cases of failsafe-go: thresholds by count and by ratio, half-open trials, delays, nesting, manual changes.

mod support;

use std::cell::Cell;

use fusebox::testing::{Script, Timeline};
use fusebox::{Bulkhead, Cause, Command, Error, Event, Forced, Reason, State, Verdict};
use support::{
    DOWN, Failure, advance, command, drain, ended, hang, health, in_a_row, ms, play, poll, rate, refused, secs, window,
};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn f01_a_threshold_of_one_opens_at_the_first_failure() {
    let command = command(in_a_row(1));
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn f02_a_threshold_of_three_takes_three_in_a_row() {
    let command = command(in_a_row(3));
    play(&command, "FSFF").await;
    assert_eq!(command.state(), State::Closed);
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn f03_two_failures_of_the_last_three_open_it() {
    let command = command(rate(2.0 / 3.0, 3).last_calls(3));
    play(&command, "FS").await;
    assert_eq!(command.state(), State::Closed);
    play(&command, "F").await;
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn f04_alternating_results_never_make_three_of_four() {
    let command = command(rate(0.75, 4).last_calls(4));
    play(&command, &"SF".repeat(20)).await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (2, 4)));
}

#[tokio::test(start_paused = true)]
async fn f05_alternating_results_never_make_two_in_a_row() {
    let command = command(in_a_row(2));
    play(&command, &"SF".repeat(20)).await;
    assert_eq!((command.state(), ended(&command, "failure")), (State::Closed, 20));
}

#[tokio::test(start_paused = true)]
async fn f06_five_of_ten_is_judged_when_there_are_ten() {
    let command = command(rate(0.5, 10).last_calls(10));
    play(&command, "SFSFSFS").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (3, 7)));
    play(&command, "FF").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (5, 9)), "five failures, but only nine calls");
    play(&command, "S").await;
    assert_eq!(command.state(), State::Open, "a success can be the call that completes the ten");
}

#[tokio::test(start_paused = true)]
async fn f07_the_window_holds_exactly_the_last_ten() {
    let command = command(rate(0.5, 10).last_calls(10));
    play(&command, "SFSFSFS").await;
    play(&command, "SSSSSSFSSSSFSSS").await;
    assert_eq!((command.state(), health(&command), window(&command)), (State::Closed, (2, 10), (2, 10)));
    assert_eq!(command.snapshot().error_rate(), Some(0.2));
    assert_eq!(command.snapshot().lifetime().total(), 22);
}

/// A circuit that is due for its probes.
async fn half_open(breaker: fusebox::Breaker) -> Command {
    let command = command(breaker.consecutive_failures(1).open_for(secs(1)));
    play(&command, "F").await;
    advance(secs(1)).await;
    assert_eq!(command.state(), State::HalfOpen);
    command
}

#[tokio::test(start_paused = true)]
async fn f08_one_probe_decides_by_default() {
    for (probe, state) in [("F", State::Open), ("S", State::Closed)] {
        let command = half_open(rate(0.5, 20)).await;
        play(&command, probe).await;
        assert_eq!(command.state(), state, "{probe}");
    }
}

#[tokio::test(start_paused = true)]
async fn f09_three_successes_close_it_and_one_failure_opens_it_at_once() {
    for (probes, state) in [("SS", State::HalfOpen), ("SSF", State::Open), ("F", State::Open), ("SSS", State::Closed)] {
        let command = half_open(rate(0.3, 20).probes(3)).await;
        play(&command, probes).await;
        assert_eq!(command.state(), state, "{probes}");
    }
}

#[tokio::test(start_paused = true)]
async fn f12_the_rate_over_the_probes_decides_and_not_the_rule_that_tripped() {
    // One failure in a row opened it, and would again if it had a say: 60 % of three takes two.
    let command = half_open(rate(0.6, 20).probes(3)).await;
    play(&command, "SF").await;
    assert_eq!(command.state(), State::HalfOpen);
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn f13_a_ratio_of_three_in_five_is_tried_on_five_probes() {
    for (probes, state) in [
        ("FFF", State::Open),
        ("FSFS", State::HalfOpen),
        ("FSFSF", State::Open),
        ("FSFSS", State::Closed),
        ("SS", State::HalfOpen),
        ("SSS", State::Closed),
    ] {
        let command = half_open(rate(0.6, 5).last_calls(5).probes(5)).await;
        play(&command, probes).await;
        assert_eq!(command.state(), state, "{probes}");
    }
}

#[tokio::test(start_paused = true)]
async fn f14_three_probes_out_leave_no_place_for_five_more() {
    let command = half_open(rate(0.5, 20).probes(3)).await;
    let probes: Vec<_> = (0..3).map(|_| command.admit().expect("a probe")).collect();
    for _ in 0..5 {
        assert_eq!(refused(&command).await.reason(), Reason::ProbeLimit);
    }
    assert_eq!(command.snapshot().in_flight(), 3);
    for probe in probes {
        probe.succeed();
    }
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn f15_denied_at_once_and_permitted_after_the_delay() {
    let command = command(in_a_row(1).open_for(ms(100)));
    let timeline = Timeline::of(&command);
    play(&command, "F").await;
    assert_eq!(refused(&command).await.reason(), Reason::CircuitOpen);
    advance(ms(110)).await;
    let permit = command.admit().expect("the wait is over");
    assert_eq!(command.state(), State::HalfOpen);
    assert_eq!(
        timeline.transitions().last().map(|last| (last.to, last.cause)),
        Some((State::HalfOpen, Cause::WaitOver))
    );
    permit.ignore();
}

#[tokio::test(start_paused = true)]
async fn f16_the_remaining_delay_counts_down_while_open_and_is_none_otherwise() {
    let command = command(in_a_row(1).open_for(ms(100)));
    let remaining = || command.snapshot().retry_after();
    assert_eq!(remaining(), None);
    play(&command, "F").await;
    for left in (1..=100).rev() {
        assert_eq!((remaining(), refused(&command).await.retry_after()), (Some(ms(left)), Some(ms(left))));
        advance(ms(1)).await;
    }
    assert_eq!((command.state(), remaining()), (State::HalfOpen, None));
    let probe = command.admit().expect("a probe");
    assert_eq!((refused(&command).await.retry_after(), remaining()), (None, None));
    probe.succeed();
    assert_eq!((command.state(), remaining()), (State::Closed, None));
}

#[tokio::test(start_paused = true)]
async fn f17_a_failure_can_carry_its_own_delay() {
    let command = command(in_a_row(1).open_for(secs(30)));
    let result = command
        .run(async || Err::<u32, _>(secs(2)))
        .classify(|result| result.map_or_else(Verdict::OpenFor, |_| Verdict::Success))
        .await;
    assert_eq!(result, Err(Error::Failed(secs(2))));
    assert_eq!(command.snapshot().retry_after(), Some(secs(2)));
    advance(secs(2) - ms(1)).await;
    assert_eq!(command.state(), State::Open);
    advance(ms(1)).await;
    assert_eq!(command.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn f19_a_rate_is_judged_from_the_third_call_on_whatever_that_is() {
    for (third, rate_reached) in [("F", 1.0), ("S", 2.0 / 3.0)] {
        let command = command(rate(0.5, 3).window(ms(200)));
        let timeline = Timeline::of(&command);
        play(&command, "FF").await;
        assert_eq!(command.state(), State::Closed);
        play(&command, third).await;
        assert_eq!(command.state(), State::Open, "{third}");
        let opened = timeline.transitions().pop().expect("it opened");
        assert_eq!(opened.report.health.error_rate(), Some(rate_reached));
    }
    let command = command(rate(0.5, 3).window(ms(200)));
    play(&command, "FF").await;
    advance(ms(200)).await;
    play(&command, "F").await;
    assert_eq!((command.state(), health(&command)), (State::Closed, (1, 1)), "the period is over");
}

#[tokio::test(start_paused = true)]
async fn f20_seven_attempts_through_the_breaker_make_three_executions() {
    let command = command(in_a_row(3));
    let (script, mut last) = (Script::new().err(DOWN).forever(), Ok(0));
    for _ in 0..7 {
        last = command.run(|| script.call()).await;
    }
    let Err(Error::Rejected(rejected)) = last else { panic!("{last:?}") };
    assert_eq!((script.started(), rejected.reason()), (3, Reason::CircuitOpen));
}

#[tokio::test(start_paused = true)]
async fn f21_three_attempts_inside_the_breaker_are_one_failure() {
    let command = command(in_a_row(2));
    let attempts = Cell::new(0);
    let call = || {
        command.run(async || {
            let mut last = Ok(0);
            for _ in 0..3 {
                attempts.set(attempts.get() + 1);
                last = Err(DOWN);
            }
            last
        })
    };
    assert_eq!(call().await, Err(Error::Failed(DOWN)));
    assert_eq!((attempts.get(), command.state(), health(&command)), (3, State::Closed, (1, 1)));
    assert_eq!(call().await, Err(Error::Failed(DOWN)));
    assert_eq!((attempts.get(), command.state()), (6, State::Open));
}

#[tokio::test(start_paused = true)]
async fn f22_of_nested_breakers_only_the_one_for_this_error_trips() {
    #[derive(Debug, PartialEq)]
    enum Kind {
        A,
        B,
    }
    let inner = Command::builder("for.a")
        .breaker(in_a_row(3))
        .classify(|result: &Result<u32, Kind>| match result {
            Err(Kind::A) => Verdict::Failure,
            Err(Kind::B) => Verdict::Ignored,
            Ok(_) => Verdict::Success,
        })
        .build()
        .expect("a good configuration");
    let outer = Command::builder("for.b")
        .breaker(in_a_row(3))
        .classify(|result: &Result<u32, Error<Kind>>| match result {
            Err(Error::Failed(Kind::B)) => Verdict::Failure,
            Err(_) => Verdict::Ignored,
            Ok(_) => Verdict::Success,
        })
        .build()
        .expect("a good configuration");

    for _ in 0..3 {
        let failed = outer.run(|| inner.run(async || Err(Kind::A))).await;
        assert_eq!(failed, Err(Error::Failed(Error::Failed(Kind::A))));
    }
    assert_eq!((inner.state(), outer.state()), (State::Open, State::Closed));
    for _ in 0..3 {
        let refused = outer.run(|| inner.run(async || Ok(1))).await;
        let Err(Error::Failed(Error::Rejected(rejected))) = refused else { panic!("{refused:?}") };
        assert_eq!(rejected.command(), "for.a");
    }
    assert_eq!((outer.state(), health(&outer)), (State::Closed, (0, 0)));

    inner.reset();
    for _ in 0..3 {
        let failed = outer.run(|| inner.run(async || Err(Kind::B))).await;
        assert_eq!(failed, Err(Error::Failed(Error::Failed(Kind::B))));
    }
    assert_eq!((inner.state(), outer.state()), (State::Closed, State::Open));
}

#[tokio::test(start_paused = true)]
async fn f24_manual_changes_are_announced_and_repeats_change_no_state() {
    let command = command(in_a_row(1));
    let timeline = Timeline::of(&command);

    command.force_open("one", None);
    command.force_open("two", None);
    let hold = command.snapshot().hold().cloned().expect("it is held");
    assert_eq!((hold.forced, hold.reason.as_str()), (Forced::Open, "two"), "the later reason stands");
    advance(ms(1)).await;
    command.clear_override();

    advance(ms(1)).await;
    command.force_closed("three", None);
    command.force_closed("four", None);
    advance(ms(1)).await;
    command.clear_override();

    advance(ms(1)).await;
    play(&command, "F").await;
    command.reset();
    timeline.assert_eq(
        "
        0ms  peer: forced_open by an operator: one
        0ms  peer: closed -> forced_open: an operator forced it
        0ms  peer: forced_open by an operator: two
        1ms  peer: forced_open was lifted (it was: two)
        1ms  peer: forced_open -> closed: an operator lifted the override
        2ms  peer: forced_closed by an operator: three
        2ms  peer: closed -> forced_closed: an operator forced it
        2ms  peer: forced_closed by an operator: four
        3ms  peer: forced_closed was lifted (it was: four)
        3ms  peer: forced_closed -> closed: an operator lifted the override
        4ms  peer: closed -> open: a single error
        4ms  peer: open -> closed: an operator reset it
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn f24_closing_what_is_closed_and_clearing_what_is_not_held_emit_nothing() {
    let command = command(in_a_row(1));
    let mut events = command.subscribe();
    command.reset();
    command.clear_override();
    assert_eq!(drain(&mut events), Vec::<Event>::new());
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn f35_a_caller_who_leaves_the_queue_was_never_run_and_takes_no_slot() {
    let command = Command::builder("queue").bulkhead(Bulkhead::new(1).queue(1, secs(1))).build().expect("good");
    let holder = command.admit().expect("a slot");
    let ran = Cell::new(false);
    let mut waiting = Box::pin(command.run(async || {
        ran.set(true);
        Ok::<_, Failure>(1)
    }));
    assert_eq!(poll(&mut waiting), None);
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (1, 1));
    drop(waiting);
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (1, 0));
    assert_eq!((ran.get(), ended(&command, "cancelled")), (false, 1));
    holder.succeed();
    assert_eq!(command.snapshot().in_flight(), 0);
    play(&command, "S").await;
}

#[tokio::test(start_paused = true)]
async fn f38_a_timeout_around_attempts_ends_them_all_once() {
    let command = Command::builder("attempts").timeout(ms(100)).build().expect("good");
    let attempts = Cell::new(0);
    let result = command
        .run(async || {
            loop {
                attempts.set(attempts.get() + 1);
                sleep(ms(40)).await;
                if attempts.get() == 7 {
                    return Err::<u32, _>(DOWN);
                }
            }
        })
        .await;
    let Err(Error::TimedOut(timed_out)) = result else { panic!("{result:?}") };
    assert_eq!((timed_out.limit(), timed_out.elapsed(), attempts.get()), (ms(100), ms(100), 3));
    advance(secs(1)).await;
    assert_eq!((attempts.get(), ended(&command, "timed_out")), (3, 1));
    assert_eq!(command.snapshot().lifetime().calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn f39_the_fallback_of_an_open_circuit_sees_why() {
    let command = command(in_a_row(1));
    play(&command, "F").await;
    let cause = Cell::new(None);
    let result = command
        .run(hang)
        .fallback(|error| {
            cause.set(Some(error));
            async { Ok(2) }
        })
        .await;
    assert_eq!(result, Ok(2));
    let Some(Error::Rejected(rejected)) = cause.take() else { panic!("the fallback did not see the refusal") };
    assert_eq!(rejected.reason(), Reason::CircuitOpen);
}
