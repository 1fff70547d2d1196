//! The breaker's options, each off by default: trips that are sure of their rate, calls in flight that count, and calls in
//! flight that end when the circuit opens.

mod support;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use fusebox::testing::{Script, Timeline};
use fusebox::{Breaker, Bulkhead, Cause, Command, Config, Error, Event, Outcome, Ramp, Reason, State, Verdict};
use futures::{FutureExt, StreamExt};
use support::{DOWN, Failure, advance, command, ended, hang, health, ms, play, poll, rate, secs};
use tokio::sync::oneshot;

#[tokio::test(start_paused = true)]
async fn a_rate_that_may_be_luck_trips_only_without_a_level_of_confidence() {
    let (plain, sure) = (command(rate(0.5, 4)), command(rate(0.5, 4).confidence(0.95)));
    for command in [&plain, &sure] {
        play(command, "SFSF").await;
    }
    assert_eq!((plain.state(), sure.state()), (State::Open, State::Closed));
    play(&sure, "SSFFFF").await;
    assert_eq!((sure.state(), health(&sure)), (State::Closed, (6, 10)));
    let timeline = Timeline::of(&sure);
    play(&sure, "FFFF").await;
    assert_eq!((sure.state(), health(&sure)), (State::Closed, (10, 14)), "it takes 11 of 14");
    play(&sure, "F").await;
    let [opened] = &timeline.transitions()[..] else { panic!("one transition") };
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

// ---- waits that grow ----

/// A wait that has stopped growing adds nothing to be forgiven: an outage of any length is over after the longest wait.
#[tokio::test(start_paused = true)]
async fn a_long_outage_is_forgiven_like_a_short_one() {
    let command = command(rate(1.0, 1).open_for(secs(1)).growth(2.0).max_open(secs(2)));
    play(&command, "F").await;
    for _ in 0..10 {
        advance(secs(2)).await;
        play(&command, "F").await;
        assert_eq!(command.snapshot().retry_after(), Some(secs(2)));
    }
    advance(secs(2)).await;
    play(&command, "S").await;
    assert_eq!(command.state(), State::Closed);
    advance(secs(2)).await;
    play(&command, "F").await;
    assert_eq!(command.snapshot().retry_after(), Some(secs(1)));
}

// ---- calls in flight ----

/// Slow from 100 ms on, at half of the calls, from `min_calls` on; and no other rule.
fn slow(min_calls: u32) -> Breaker {
    let breaker = Breaker::disabled().min_calls(min_calls).jitter(0.0).growth(1.0).open_for(secs(1));
    breaker.slow_calls(0.5, ms(100)).count_in_flight(true)
}

/// So many calls that hang, polled once.
fn hanging(command: &Command, calls: usize) -> Vec<Hanging<'_>> {
    let mut calls: Vec<Hanging<'_>> = (0..calls).map(|_| Box::pin(command.run(hang)) as Hanging<'_>).collect();
    for call in &mut calls {
        assert_eq!(poll(call), None);
    }
    calls
}

type Hanging<'c> = Pin<Box<dyn Future<Output = Result<u32, Error<Failure>>> + 'c>>;

/// Moves time on and polls all calls, as a runtime would; none may end.
async fn wait(calls: &mut [Hanging<'_>], by: Duration) {
    advance(by).await;
    for call in calls {
        assert_eq!(poll(call), None);
    }
}

/// Errors, total, slow, overdue.
fn figures(command: &Command) -> [u64; 4] {
    let health = command.snapshot().health();
    [health.errors, health.total, health.slow, health.overdue]
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_falls_silent_opens_the_circuit_at_the_slow_threshold_without_any_traffic() {
    let command = command(slow(20));
    let mut events = command.subscribe();
    play(&command, "SSSSSSSSSS").await;
    let calls = (0..10).map(|_| {
        let command = command.clone();
        tokio::spawn(async move { command.run(hang).timeout(secs(5)).await })
    });
    let calls: Vec<_> = calls.collect();
    let began = tokio::time::Instant::now();
    tokio::time::sleep(ms(99)).await;
    assert_eq!(command.state(), State::Closed);
    let Some(Event::Transition(opened)) = events.next().await else { panic!("a transition") };
    assert_eq!(began.elapsed(), ms(100));
    assert_eq!(opened.cause, Cause::SlowCalls { threshold: 0.5 });
    let health = opened.report.health;
    assert_eq!((health.errors, health.total, health.slow, health.overdue), (0, 20, 10, 10));
    assert!(opened.to_string().contains("10 were slow, 10 of them still in flight"), "{opened}");
    for call in calls {
        assert!(matches!(call.await.expect("it ends"), Err(Error::TimedOut(t)) if t.elapsed() == secs(5)));
    }
    assert_eq!((ended(&command, "timed_out"), command.snapshot().late_outcomes()), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn without_the_option_a_silent_dependency_is_noticed_by_its_timeouts() {
    let command = command(slow(1).count_in_flight(false));
    let mut calls = hanging(&command, 1);
    wait(&mut calls, ms(999)).await;
    assert_eq!((command.state(), figures(&command)), (State::Closed, [0; 4]));
    advance(ms(1)).await;
    assert!(matches!(poll(&mut calls[0]), Some(Err(Error::TimedOut(_)))));
    assert_eq!(command.state(), State::Open);
}

/// A call whose timeout is no longer than the threshold ends by it, and has not been provisional before.
#[tokio::test(start_paused = true)]
async fn a_call_that_ends_at_the_threshold_is_judged_by_its_end() {
    let command = command(slow(1));
    let mut call = Box::pin(command.run(hang).timeout(ms(100)));
    assert_eq!(poll(&mut call), None);
    advance(ms(100)).await;
    assert!(matches!(poll(&mut call), Some(Err(Error::TimedOut(_)))));
    let snapshot = command.snapshot();
    assert_eq!((snapshot.state(), snapshot.late_outcomes()), (State::Open, 0));
}

#[tokio::test(start_paused = true)]
async fn the_true_outcome_takes_the_place_of_the_provisional_one() {
    for breaker in [slow(99), slow(99).last_calls(100)] {
        let command = command(breaker);
        let (done, answer) = oneshot::channel();
        let mut answered: Hanging<'_> = Box::pin(command.run(|| async { answer.await.expect("an answer") }));
        assert_eq!(poll(&mut answered), None);
        let mut calls = hanging(&command, 3);
        wait(&mut calls, ms(99)).await;
        assert_eq!(figures(&command), [0, 0, 0, 0]);
        wait(&mut calls, ms(1)).await;
        assert_eq!(poll(&mut answered), None);
        assert_eq!(figures(&command), [0, 4, 4, 4]);
        wait(&mut calls, ms(500)).await;
        assert_eq!(figures(&command), [0, 4, 4, 4], "once");

        done.send(Ok(1)).expect("it waits");
        assert_eq!(poll(&mut answered), Some(Ok(1)));
        assert_eq!(figures(&command), [0, 4, 4, 3]);
        calls.pop();
        assert_eq!(figures(&command), [0, 3, 3, 2], "dropped, it has not counted");
        advance(ms(400)).await;
        for mut call in calls {
            assert!(matches!(poll(&mut call), Some(Err(Error::TimedOut(t))) if t.elapsed() == secs(1)));
        }
        assert_eq!(figures(&command), [2, 3, 3, 0]);
        assert_eq!(command.snapshot().in_flight(), 0);
    }
}

/// What counted provisionally in one generation is neither taken off nor added in another.
#[tokio::test(start_paused = true)]
async fn a_provisional_outcome_ends_with_its_generation() {
    let command = command(slow(99));
    let mut calls = hanging(&command, 4);
    wait(&mut calls, ms(100)).await;
    assert_eq!(figures(&command), [0, 4, 4, 4]);
    command.reset();
    assert_eq!(figures(&command), [0; 4]);
    let mut next = hanging(&command, 2);
    wait(&mut next, ms(100)).await;
    wait(&mut calls, ms(0)).await;
    assert_eq!(figures(&command), [0, 2, 2, 2]);
    drop(calls);
    assert_eq!(figures(&command), [0, 2, 2, 2], "theirs was another generation");
    assert_eq!(command.snapshot().late_outcomes(), 4);
    drop(next);
    assert_eq!(figures(&command), [0; 4]);
}

/// A live change of the rules loses no count, and does not count twice.
#[tokio::test(start_paused = true)]
async fn a_live_change_keeps_what_counts_provisionally() {
    let command = command(slow(99));
    let (done, answer) = oneshot::channel();
    let mut answered: Hanging<'_> = Box::pin(command.run(|| async { answer.await.expect("an answer") }));
    assert_eq!(poll(&mut answered), None);
    advance(ms(100)).await;
    assert_eq!(poll(&mut answered), None);
    let change = |breaker: Breaker| command.reconfigure(|c| c.breaker(breaker)).expect("a good configuration");
    change(slow(99).last_calls(5));
    assert_eq!(figures(&command), [0, 1, 1, 1]);
    change(slow(99).slow_calls(0.5, secs(9)));
    assert_eq!(figures(&command), [0, 1, 1, 1]);
    // By the rules of now it is not slow, and takes the way of a call that never was.
    done.send(Ok(1)).expect("it waits");
    assert_eq!(poll(&mut answered), Some(Ok(1)));
    assert_eq!(figures(&command), [0, 1, 0, 0]);
    // Armed for the threshold, and then nobody asks any more.
    change(slow(99));
    let mut calls = hanging(&command, 1);
    change(slow(99).count_in_flight(false));
    wait(&mut calls, ms(100)).await;
    assert_eq!(figures(&command), [0, 1, 0, 0]);
    advance(ms(900)).await;
    assert!(matches!(poll(&mut calls[0]), Some(Err(Error::TimedOut(_)))));
}

/// Calls in flight are the newest of the last n: old successes do not hide them.
#[tokio::test(start_paused = true)]
async fn among_the_last_n_calls_those_in_flight_take_the_places_of_the_oldest() {
    let command = command(slow(10).last_calls(10));
    play(&command, "SSSSSSSSSS").await;
    let mut calls = hanging(&command, 5);
    wait(&mut calls[..4], ms(100)).await;
    assert_eq!((command.state(), figures(&command)), (State::Closed, [0, 10, 4, 4]));
    let timeline = Timeline::of(&command);
    assert_eq!(poll(&mut calls[4]), None);
    assert_eq!(timeline.transitions()[0].cause, Cause::SlowCalls { threshold: 0.5 });
}

/// A call that hangs is no success that would thin the errors out.
#[tokio::test(start_paused = true)]
async fn calls_in_flight_do_not_hide_the_calls_that_fail() {
    let mut breaker = slow(4).slow_calls(1.0, ms(100));
    breaker.error_rate = Some(0.5);
    let command = command(breaker);
    play(&command, "SF").await;
    let mut calls = hanging(&command, 10);
    wait(&mut calls, ms(100)).await;
    assert_eq!((command.state(), figures(&command)), (State::Closed, [1, 12, 10, 10]), "2 have ended, of 4 wanted");
    assert_eq!(command.snapshot().health().error_rate(), Some(0.5));
    let timeline = Timeline::of(&command);
    play(&command, "FS").await;
    assert_eq!(timeline.transitions()[0].cause, Cause::ErrorRate { threshold: 0.5 });
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_opens_the_circuit_again_at_the_threshold() {
    let command = command(slow(1).consecutive_failures(1));
    play(&command, "F").await;
    advance(secs(1)).await;
    let timeline = Timeline::of(&command);
    let mut probe = hanging(&command, 1);
    wait(&mut probe, ms(100)).await;
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(1))));
    assert_eq!(timeline.transitions()[1].cause, Cause::ProbesFailed { failed: 1, ended: 1 });
}

/// Of three probes two must be slow: one that hangs does not decide, and gives its place back when it is dropped.
#[tokio::test(start_paused = true)]
async fn probes_that_hang_decide_as_soon_as_there_are_enough_of_them() {
    let command = command(slow(1).consecutive_failures(1).probes(3));
    play(&command, "F").await;
    advance(secs(1)).await;
    let mut probes = hanging(&command, 1);
    wait(&mut probes, ms(100)).await;
    probes.clear();
    probes = hanging(&command, 3);
    wait(&mut probes[..1], ms(100)).await;
    assert_eq!(command.state(), State::HalfOpen);
    assert_eq!(poll(&mut probes[1]), None);
    assert_eq!(command.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_stage_of_a_ramp_fails_by_calls_that_hang() {
    let command = command(slow(1).consecutive_failures(9).ramp(Ramp::stages([1.0]).min_calls(4)));
    command.force_open("test", Some(ms(1)));
    command.reconfigure(|c| c.map_breaker(|b| b.consecutive_failures(1))).expect("a good configuration");
    advance(ms(1)).await;
    play(&command, "F").await;
    command.reconfigure(|c| c.map_breaker(|b| b.consecutive_failures(9))).expect("a good configuration");
    advance(secs(1)).await;
    play(&command, "S").await;
    let timeline = Timeline::of(&command);
    let mut calls = hanging(&command, 3);
    wait(&mut calls[..1], ms(100)).await;
    let stage = command.snapshot().ramp().expect("it is on its ramp");
    assert_eq!((stage.ended, stage.slow), (1, 1));
    drop(calls.remove(0));
    assert_eq!(command.snapshot().ramp().map(|stage| stage.slow), Some(0), "dropped, it has not counted");
    assert_eq!(poll(&mut calls[0]), None);
    assert_eq!(command.state(), State::HalfOpen);
    assert_eq!(poll(&mut calls[1]), None);
    assert_eq!(timeline.transitions()[0].cause, Cause::RampFailed { stage: 1, failed: 2, ended: 2 });
}

/// What is ready at once arms no timer: it needs no runtime.
#[test]
fn calls_that_are_ready_at_once_pay_for_no_timer() {
    let command = command(slow(1));
    let answer = command.run(async || Ok::<_, Failure>(1)).now_or_never();
    assert_eq!(answer, Some(Ok(1)));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_timeout_counts_too_and_a_shorter_timeout_goes_first() {
    let command = command(slow(99));
    let mut endless: Hanging<'_> = Box::pin(command.run(hang).no_timeout());
    let mut short: Hanging<'_> = Box::pin(command.run(hang).timeout(ms(100)));
    assert_eq!((poll(&mut endless), poll(&mut short)), (None, None));
    advance(ms(100)).await;
    assert!(matches!(poll(&mut short), Some(Err(Error::TimedOut(_)))));
    assert_eq!((poll(&mut endless), figures(&command)), (None, [1, 2, 2, 1]));
    advance(secs(1_000)).await;
    assert_eq!((poll(&mut endless), figures(&command)), (None, [0, 1, 1, 1]), "it never leaves the window");
}

/// The timeout holds to the moment after the alarm, however late the task is polled.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_polled_late_times_out_all_the_same() {
    let command = command(slow(99));
    let mut calls = hanging(&command, 1);
    advance(secs(3)).await;
    assert!(matches!(poll(&mut calls[0]), Some(Err(Error::TimedOut(t))) if t.limit() == secs(1)));
    assert_eq!(figures(&command), [1, 1, 1, 0]);
}

/// Random lives of calls, resets and changes of the window among them: what is overdue is what is in flight, old enough and
/// of this generation.
#[tokio::test(start_paused = true)]
async fn what_is_overdue_is_what_is_in_flight_and_old_enough() {
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..40 {
        let never = slow(1_000_000);
        let command = command(if round % 2 == 0 { never.window(secs(3_600)) } else { never.last_calls(100_000) });
        let mut calls: Vec<(Hanging<'_>, Option<oneshot::Sender<_>>, Duration, u32)> = Vec::new();
        let (mut now, mut generation, mut ended) = (Duration::ZERO, 0, [0_u64; 3]);
        for _ in 0..120 {
            match random.u32(..10) {
                0..3 => {
                    let (done, answer) = oneshot::channel();
                    let mut call: Hanging<'_> =
                        Box::pin(command.run(|| async { answer.await.expect("an answer") }).no_timeout());
                    assert_eq!(poll(&mut call), None);
                    calls.push((call, Some(done), now, generation));
                }
                3..6 => {
                    let by = ms(random.u64(..80));
                    advance(by).await;
                    now += by;
                    for (call, ..) in &mut calls {
                        assert_eq!(poll(call), None);
                    }
                }
                6..9 if !calls.is_empty() => {
                    let (mut call, done, began, of) = calls.swap_remove(random.usize(..calls.len()));
                    let result = [Ok(1), Err("down")][random.usize(..2)];
                    if random.bool() {
                        done.expect("once").send(result).expect("it waits");
                        assert!(poll(&mut call).is_some());
                        if of == generation {
                            ended[0] += u64::from(result.is_err());
                            ended[1] += 1;
                            ended[2] += u64::from(now - began >= ms(100));
                        }
                    }
                }
                9 if random.u32(..4) == 0 => {
                    command.reset();
                    (generation, ended) = (generation + 1, [0; 3]);
                }
                _ => {}
            }
            let is_overdue = |(_, _, began, of): &&(_, _, Duration, u32)| *of == generation && now - *began >= ms(100);
            let overdue = calls.iter().filter(is_overdue).count() as u64;
            assert_eq!(figures(&command), [ended[0], ended[1] + overdue, ended[2] + overdue, overdue]);
        }
        drop(calls);
        assert_eq!((figures(&command)[3], command.snapshot().in_flight()), (0, 0));
    }
}

// ---- abort on trip ----

/// Trips at the first failure, and ends what is in flight then.
fn aborting() -> Breaker {
    support::in_a_row(1).open_for(secs(2)).abort_on_trip(true)
}

/// An operation that hangs, and tells when it is dropped.
struct Dropped(Rc<Cell<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn aborted(result: Option<Result<u32, Error<Failure>>>) -> bool {
    let Some(Err(error)) = result else { return false };
    let Error::Rejected(rejected) = error else { return false };
    assert!(error.was_started() && rejected.was_started());
    assert_eq!((error.retry_after(), rejected.command()), (rejected.retry_after(), "peer"));
    assert_eq!(rejected.reason().to_string(), "the circuit opened while the call was in flight");
    rejected.reason() == Reason::Aborted
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_end_at_the_moment_the_circuit_opens() {
    let command = command(aborting());
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let command = command.clone();
            tokio::spawn(async move { (command.run(hang).no_timeout().await, tokio::time::Instant::now()) })
        })
        .collect();
    tokio::time::sleep(ms(70)).await;
    let opened = tokio::time::Instant::now();
    play(&command, "F").await;
    for call in calls {
        let (result, at) = call.await.expect("it ends");
        assert!(aborted(Some(result)));
        assert_eq!((at, result.unwrap_err().retry_after()), (opened, Some(secs(2))));
    }
    let snapshot = command.snapshot();
    assert_eq!((snapshot.state(), snapshot.in_flight(), snapshot.late_outcomes()), (State::Open, 0, 5));
    assert_eq!(support::outcomes(&command), [(Outcome::Failure, 1), (Outcome::Cancelled, 5)]);
}

#[tokio::test(start_paused = true)]
async fn without_the_option_calls_in_flight_run_on() {
    let command = command(aborting().abort_on_trip(false));
    let mut calls = hanging(&command, 3);
    play(&command, "F").await;
    wait(&mut calls, ms(999)).await;
    assert_eq!(command.snapshot().in_flight(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_operation_is_dropped_at_once_and_before_its_slot_is_given_back() {
    let (command, dropped) = (command(aborting()), Rc::new(Cell::new(0)));
    let guard = Dropped(Rc::clone(&dropped));
    let mut call: Hanging<'_> = Box::pin(command.run(|| async move {
        let _guard = guard;
        hang().await
    }));
    assert_eq!(poll(&mut call), None);
    play(&command, "F").await;
    assert!(aborted(poll(&mut call)));
    assert_eq!((dropped.get(), command.snapshot().in_flight()), (1, 0), "while its future lives on");
    drop(call);
    assert_eq!((dropped.get(), ended(&command, "cancelled")), (1, 1));
}

/// The trip that the calls cause by themselves ends them too.
#[tokio::test(start_paused = true)]
async fn calls_that_are_overdue_end_with_the_trip_that_they_are() {
    let command = command(slow(5).abort_on_trip(true));
    let mut calls = hanging(&command, 5);
    advance(ms(100)).await;
    let ended: Vec<_> = calls.iter_mut().map(poll).collect();
    assert_eq!(ended.iter().filter(|result| result.is_some()).count(), 1, "the last one trips it");
    assert!(aborted(ended[4]));
    assert!(calls[..4].iter_mut().all(|call| aborted(poll(call))));
    assert_eq!((figures(&command), command.snapshot().in_flight()), ([0; 4], 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_ends_the_others_and_none_of_the_next_ones() {
    let command = command(aborting().probes(3));
    play(&command, "F").await;
    advance(secs(2)).await;
    let mut probes = hanging(&command, 2);
    play(&command, "F").await;
    advance(secs(2)).await;
    let mut next = hanging(&command, 2);
    assert!(probes.iter_mut().all(|call| aborted(poll(call))), "although it is half-open again");
    wait(&mut next, ms(10)).await;
    assert_eq!(command.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_forces_it_open_ends_no_call() {
    let command = command(aborting());
    let mut calls = hanging(&command, 2);
    command.force_open("maintenance", None);
    wait(&mut calls, ms(10)).await;
    command.clear_override();
    wait(&mut calls, ms(10)).await;
    play(&command, "F").await;
    assert!(calls.iter_mut().all(|call| aborted(poll(call))), "in flight is in flight, whatever was in between");
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_there_wins_and_a_fallback_sees_why_the_others_ended() {
    let command = command(aborting());
    let (done, answer) = oneshot::channel();
    let mut answered: Hanging<'_> = Box::pin(command.run(|| async { answer.await.expect("an answer") }));
    let mut rescued: Hanging<'_> = Box::pin(
        command.run(hang).fallback(|cause| async move { if aborted(Some(Err(cause))) { Ok(7) } else { Err(cause) } }),
    );
    let mut falling: Hanging<'_> = Box::pin(command.run(async || Ok(1)).classify(|_| Verdict::Success));
    assert_eq!((poll(&mut answered), poll(&mut rescued), poll(&mut falling)), (None, None, Some(Ok(1))));
    play(&command, "F").await;
    done.send(Ok(1)).expect("it waits");
    assert_eq!((poll(&mut answered), poll(&mut rescued)), (Some(Ok(1)), Some(Ok(7))));
    assert_eq!((ended(&command, "success"), ended(&command, "cancelled")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn those_in_line_for_a_slot_are_refused_as_soon_as_the_calls_before_them_have_ended() {
    let config = Config::default().bulkhead(Bulkhead::new(2).queue(3, secs(60))).breaker(aborting());
    let command = Command::builder("peer").config(config).build().expect("a good configuration");
    let mut running = hanging(&command, 1);
    let permit = command.admit().expect("the other slot");
    let mut waiting = hanging(&command, 3);
    permit.fail();
    assert!(aborted(poll(&mut running[0])));
    for call in &mut waiting {
        let Some(Err(Error::Rejected(rejected))) = poll(call) else { panic!("it is refused") };
        assert_eq!((rejected.reason(), rejected.was_started()), (Reason::CircuitOpen, false));
    }
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (0, 0));
}

#[tokio::test]
async fn blocking_work_that_is_aborted_holds_its_slot_until_it_ends() {
    let command = command(aborting());
    let (end, told) = mpsc::channel::<()>();
    let mut call = Box::pin(command.spawn_blocking(move || told.recv().map(|()| 1).map_err(|_| "gone")));
    assert_eq!(poll(&mut call), None);
    play(&command, "F").await;
    assert!(aborted(poll(&mut call)));
    assert_eq!((command.snapshot().in_flight(), ended(&command, "cancelled")), (1, 1));
    end.send(()).expect("it waits");
    while command.snapshot().in_flight() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A waker that counts.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Dropped after any number of polls, by its own task or another, a call leaves no waker behind, and no slot.
#[tokio::test(start_paused = true)]
async fn no_waker_outlives_its_call() {
    let command = command(aborting());
    for polls in 0..4 {
        for trips in [false, true] {
            command.reset();
            let bells: Vec<_> = (0..3).map(|_| Arc::new(Bell::default())).collect();
            let wakers: Vec<_> = bells.iter().cloned().map(Waker::from).collect();
            let mut call = Box::pin(command.run(hang).no_timeout());
            for at in 0..polls {
                assert!(call.as_mut().poll(&mut Context::from_waker(&wakers[at % 3])).is_pending());
            }
            if trips {
                play(&command, "F").await;
            }
            let rung: Vec<_> = bells.iter().map(|bell| bell.0.load(Ordering::SeqCst)).collect();
            let last = polls.checked_sub(1).map(|at| at % 3);
            let expected: Vec<_> = (0..3).map(|at| u32::from(trips && Some(at) == last)).collect();
            assert_eq!(rung, expected, "{polls} polls");
            drop(call);
            assert_eq!(command.snapshot().in_flight(), 0);
            assert!(bells.iter().all(|bell| Arc::strong_count(bell) == 2), "{polls} polls: this one and the waker's");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn switched_on_live_it_is_in_force_from_the_next_poll_on() {
    let command = command(aborting().abort_on_trip(false));
    let mut calls = hanging(&command, 2);
    command.reconfigure(|c| c.map_breaker(|b| b.abort_on_trip(true))).expect("a good configuration");
    wait(&mut calls[..1], ms(10)).await;
    play(&command, "F").await;
    assert!(calls.iter_mut().all(|call| aborted(poll(call))), "neither has a result, and both look when polled");
}

/// On threads: whatever the trip meets, a call that is about to wait, that waits or that is polled, it ends.
#[test]
fn calls_on_many_threads_all_end_when_the_circuit_opens() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().expect("threads");
    for _ in 0..60 {
        let command = Command::builder("peer").breaker(aborting()).unlimited().build().expect("a good configuration");
        let started = Arc::new(AtomicU32::new(0));
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let (command, started) = (command.clone(), Arc::clone(&started));
                runtime.spawn(async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    command.run(hang).no_timeout().await
                })
            })
            .collect();
        while started.load(Ordering::SeqCst) < 32 {
            std::thread::yield_now();
        }
        command.run_sync(|| Err::<(), _>(DOWN)).expect_err("it fails");
        for call in calls {
            let result = runtime.block_on(call).expect("it ends");
            let refused = matches!(result, Err(Error::Rejected(r)) if r.reason() == Reason::CircuitOpen);
            assert!(refused || aborted(Some(result)));
        }
        assert_eq!(command.snapshot().in_flight(), 0);
    }
}

/// An attempt that was aborted had begun, so it counts as one; the next one waits for the circuit.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_aborted_is_made_again_when_the_circuit_is_due() {
    let (command, script) = (command(aborting()), Script::<_, Failure>::new().hang().ok(1));
    let mut call = Box::pin(command.retry(|| script.call()));
    assert_eq!(poll(&mut call), None);
    play(&command, "F").await;
    for _ in 0..2 {
        assert_eq!((poll(&mut call), script.started()), (None, 1));
        advance(ms(999)).await;
    }
    advance(ms(2)).await;
    assert_eq!((poll(&mut call), script.started()), (Some(Ok(1)), 2));
    assert_eq!((command.state(), ended(&command, "cancelled")), (State::Closed, 1));
}
