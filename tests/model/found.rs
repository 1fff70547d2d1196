//! What the model found, each in the shortest sequence that shows it.

use std::time::Duration;

use fusebox::{Breaker, Builder, Command, Event, Events, Forced, Registry, State, Transition, Verdict};
use futures::{FutureExt, StreamExt};
use tokio::time::advance;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Opens at the first error, for 10 ms, and twice as long with each reopening.
fn builder() -> Builder {
    let breaker = Breaker::disabled().consecutive_failures(1).open_for(ms(10)).growth(2.0).jitter(0.0);
    Command::builder("found").registry(&Registry::new()).breaker(breaker)
}

fn told(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).collect()
}

fn transitions(events: &mut Events) -> Vec<Transition> {
    let transition = |event| if let Event::Transition(transition) = event { Some(transition) } else { None };
    told(events).into_iter().filter_map(transition).collect()
}

/// "An expiry is noticed by the first call after it": its events wait for nothing else.
#[tokio::test(start_paused = true)]
async fn an_expiry_is_told_with_the_call_that_notices_it() {
    let command = builder().build().unwrap();
    command.force_closed("test", Some(ms(1)));
    let mut events = command.subscribe();
    advance(ms(1)).await;
    let _call = command.admit().unwrap();
    let told = told(&mut events);
    assert!(matches!(told[0], Event::OverrideCleared { forced: Forced::Closed, expired: true, .. }), "{told:?}");
    assert!(matches!(&told[1], Event::Transition(to) if to.to == State::Closed), "{told:?}");
}

/// The same when that call is refused, because the circuit beneath is open.
#[tokio::test(start_paused = true)]
async fn a_refused_call_notices_an_expiry_too() {
    let command = builder().build().unwrap();
    command.admit().unwrap().fail();
    command.force_closed("test", Some(ms(1)));
    let mut events = command.subscribe();
    advance(ms(1)).await;
    assert!(command.admit().is_err());
    let states: Vec<_> = transitions(&mut events).iter().map(|to| (to.from, to.to)).collect();
    assert_eq!(states, [(State::ForcedClosed, State::Open)]);
}

/// A report is of its own transition, also when one step makes two: "how long calls will be refused; `None` when they are
/// not", and of the calls admitted since the state last changed.
#[tokio::test(start_paused = true)]
async fn each_of_two_transitions_at_once_has_its_own_report() {
    let command = builder().build().unwrap();
    command.force_closed("first", Some(ms(1)));
    command.admit().unwrap().succeed();
    let mut events = command.subscribe();
    advance(ms(1)).await;
    command.force_open("second", Some(ms(5)));
    let reports = transitions(&mut events).into_iter().map(|to| (to.to, to.report.wait, to.report.health.total));
    let reports: Vec<_> = reports.collect();
    assert_eq!(reports, [(State::Closed, None, 1), (State::ForcedOpen, Some(ms(5)), 0)]);
}

/// "After closing, each step is forgiven once the circuit has stayed closed for as long as that step's wait": however it
/// opened next.
#[tokio::test(start_paused = true)]
async fn steps_are_forgiven_before_a_rest_that_was_asked_for_too() {
    let command = builder().build().unwrap();
    // One reopening in a row, with a wait of 20 ms, and closed.
    command.admit().unwrap().fail();
    advance(ms(10)).await;
    command.admit().unwrap().fail();
    assert_eq!(command.snapshot().retry_after(), Some(ms(20)));
    advance(ms(20)).await;
    command.admit().unwrap().succeed();
    // It stays closed for much longer; then a result asks for a rest of a millisecond, after which all is well.
    advance(ms(10_000)).await;
    command.admit().unwrap().resolve(Verdict::OpenFor(ms(1)));
    advance(ms(1)).await;
    command.admit().unwrap().succeed();
    command.admit().unwrap().resolve(Verdict::Failure);
    assert_eq!(command.snapshot().retry_after(), Some(ms(10)), "nothing is left to be paid for");
}

/// The override in force is shown, also when one that covered it has run out.
#[tokio::test(start_paused = true)]
async fn an_override_is_shown_when_the_one_above_it_has_run_out() {
    let command = builder().build().unwrap();
    command.force_closed("below", None);
    command.force_open("above", Some(ms(1)));
    advance(ms(1)).await;
    let snapshot = command.snapshot();
    assert_eq!(snapshot.state(), State::ForcedClosed);
    assert_eq!(snapshot.hold().map(|hold| hold.reason.as_str()), Some("below"));
}

/// "Most calls in flight at once in the rolling window": a peak leaves with its bucket, also over an idle gap.
#[tokio::test(start_paused = true)]
async fn a_peak_does_not_outlive_its_window() {
    let command = builder().build().unwrap();
    let _stays = command.admit().unwrap();
    drop(command.admit().unwrap());
    advance(Duration::from_secs(10)).await;
    assert_eq!(command.snapshot().peak_in_flight(), 1);
}

/// "A window of another shape starts empty."
#[tokio::test(start_paused = true)]
async fn a_new_window_knows_no_old_peak() {
    let command = builder().build().unwrap();
    let _stays = command.admit().unwrap();
    drop(command.admit().unwrap());
    command
        .reconfigure(|now| {
            let breaker = now.breaker.clone().window(Duration::from_secs(20));
            now.breaker(breaker)
        })
        .unwrap();
    assert_eq!(command.snapshot().peak_in_flight(), 1);
}

/// A refusal by the bulkhead that counts enters the error rate, and is part of no run: where the rule for runs came after
/// the run, it waits for the next call. Here the model was wrong, once in half a million sequences.
#[test]
fn a_rejection_ends_no_run_of_errors() {
    let breaker = Breaker::disabled().count_rejections(true);
    let command =
        Command::builder("found").registry(&Registry::new()).breaker(breaker).max_concurrent(1).build().unwrap();
    command.admit().unwrap().fail();
    command.reconfigure(|config| config.map_breaker(|breaker| breaker.consecutive_failures(1))).unwrap();
    let only = command.admit().unwrap();
    assert!(command.admit().is_err());
    assert_eq!(command.state(), State::Closed);
    only.fail();
    assert_eq!(command.state(), State::Open);
}
