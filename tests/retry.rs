//! Calls that are attempted more than once: when, after what wait, how often, at whose cost.
//!
//! In paused time, so every wait is exact. Where chance has a part it is seeded.

mod support;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, ready};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusebox::{
    Again, Breaker, Budget, Bulkhead, Classify, Command, Error, Jitter, Outcome, Reason, Retry, State, Verdict,
};
use futures::FutureExt;
use futures::future::join_all;
use support::*;
use tokio::time::Instant;

/// A command that opens for a second at so many errors in a row, and whose attempts nothing limits but their policy.
fn supplier(failures: u32) -> Command {
    Command::builder("retry").breaker(in_a_row(failures).open_for(secs(1))).no_budget().build().expect("valid")
}

fn patient() -> Command {
    supplier(1000)
}

/// Waits of exactly 10 ms.
fn every_10ms() -> Retry {
    Retry::constant(ms(10)).jitter(Jitter::None)
}

type Script = fusebox::testing::Script<u32, Failure>;

/// Attempts: success, retried, exhausted, denied by the budget.
fn fates<C>(command: &Command<C>) -> [u64; 4] {
    let attempts = command.snapshot().attempts();
    [attempts.success, attempts.retried, attempts.exhausted, attempts.budget_denied]
}

// ---- when, and how often ----

#[tokio::test(start_paused = true)]
async fn a_failure_is_followed_by_another_attempt_until_one_succeeds() {
    let (command, script) = (patient(), Script::new().err(DOWN).times(2).ok(7));
    let policy = Retry::exponential(ms(20)).jitter(Jitter::None);
    assert_eq!(command.retry(|| script.call()).with(policy).await, Ok(7));
    assert_eq!(starts(&script), [0, 20, 60]);
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Failure, 2)]);
    assert_eq!(fates(&command), [1, 2, 0, 0]);
    assert_eq!(command.snapshot().attempts().amplification(), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn with_all_attempts_used_the_last_error_is_the_calls() {
    let (command, script) = (patient(), Script::new().err("first").err("second").err("third").ok(1));
    assert_eq!(command.retry(|| script.call()).with(every_10ms()).await, Err(Error::Failed("third")));
    assert_eq!((starts(&script), fates(&command)), (vec![0, 10, 20], [0, 2, 1, 0]));
    // One attempt is a plain call, and none is one.
    for attempts in [0, 1] {
        let script = Script::new().err(DOWN).forever();
        let once = command.retry(|| script.call()).with(every_10ms().attempts(attempts)).await;
        assert_eq!((once, script.started()), (Err(Error::Failed(DOWN)), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_the_commands_or_the_calls_own_and_can_change_live() {
    let command = Command::builder("retry").retry(every_10ms().attempts(2)).build().expect("valid");
    let attempts = async |own: Option<Retry>| {
        let script = Script::new().err(DOWN).forever();
        let call = command.retry(|| script.call());
        let call = if let Some(own) = own { call.with(own) } else { call };
        assert_eq!(call.await, Err(Error::Failed(DOWN)));
        script.started()
    };
    assert_eq!((attempts(None).await, attempts(Some(every_10ms().attempts(4))).await), (2, 4));
    command.reconfigure(|config| config.retry(every_10ms().attempts(3))).expect("valid");
    assert_eq!(attempts(None).await, 3);
    let refused = command.reconfigure(|config| config.retry(Retry::default().attempts(0))).unwrap_err();
    assert_eq!((refused.field(), attempts(None).await), ("retry.attempts", 3));
}

#[test]
fn policies_that_cannot_work_are_refused_with_their_field() {
    let field = |retry: Retry| Command::builder("retry").retry(retry).build().unwrap_err().field();
    assert_eq!(field(Retry::default().attempts(0)), "retry.attempts");
    assert_eq!(field(Retry::default().growth(0.5)), "retry.growth");
    assert_eq!(field(Retry::default().growth(f64::NAN)), "retry.growth");
    assert_eq!(field(Retry::default().max_delay(ms(1))), "retry.max_delay");
    assert_eq!(field(Retry::default().jitter(Jitter::Spread(1.5))), "retry.jitter");
    let field = |budget: Budget| Command::builder("retry").budget(budget).build().unwrap_err().field();
    assert_eq!(field(Budget::share(-0.1)), "budget.share");
    assert_eq!(field(Budget::share(f64::NAN)), "budget.share");
    assert_eq!(field(Budget::default().floor(f64::INFINITY)), "budget.floor");
    assert_eq!(field(Budget::default().burst(0)), "budget.burst");
    assert_eq!(Command::builder("retry").deadline(Duration::ZERO).build().unwrap_err().field(), "deadline");
}

#[tokio::test(start_paused = true)]
async fn an_iterator_of_delays_begins_anew_for_each_call_and_its_end_is_the_end() {
    let command = patient();
    let policy = Retry::delays([ms(1), ms(10), ms(100)]);
    for _ in 0..2 {
        let script = Script::new().err(DOWN).forever();
        assert!(command.retry(|| script.call()).with(policy.clone()).await.is_err());
        assert_eq!(starts(&script), [0, 1, 11, 111]);
    }
    let script = Script::new().err(DOWN).forever();
    assert!(command.retry(|| script.call()).with(policy.attempts(2)).await.is_err());
    assert_eq!(starts(&script), [0, 1]);
}

/// E3: ignored results are final, also for a closure that wants everything again.
#[tokio::test(start_paused = true)]
async fn an_ignored_result_is_never_attempted_again() {
    let (command, script) = (patient(), Script::new().err("not found").forever());
    let call = command.retry(|| script.call()).with(every_10ms());
    let call = call.classify(|_| Verdict::Ignored).when(|_| true).fallback(async |_| Ok(2));
    assert_eq!(call.await, Err(Error::Failed("not found")), "and no fallback");
    assert_eq!((script.started(), fates(&command)), (1, [1, 0, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn timeouts_are_attempted_again_only_where_the_policy_says_so() {
    let command = patient();
    for (policy, attempts) in [(every_10ms(), 1), (every_10ms().timeouts(true), 3)] {
        let script = Script::new().hang().forever();
        let late = command.retry(|| script.call()).with(policy.clone()).timeout(ms(5)).await;
        assert!(matches!(late, Err(Error::TimedOut(_))), "{late:?}");
        assert_eq!(script.started(), attempts);
        // A closure that looks at errors alone does not opt in by accident.
        let script = Script::new().hang().forever();
        let call = command.retry(|| script.call()).with(policy).timeout(ms(5)).when(|result| result.is_err());
        let late = call.await;
        assert!(matches!(late, Err(Error::TimedOut(_))), "{late:?}");
        assert_eq!(script.started(), attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closure_picks_errors_and_values_and_names_the_wait() {
    let command = patient();
    let script = Script::new().ok(0).err("busy").err("gone").ok(9);
    let call = command.retry(|| script.call()).with(every_10ms().attempts(9));
    let end = call
        .when(|result| match result {
            Err(Error::Failed("busy")) => Again::After(ms(300)),
            Err(_) => Again::No,
            Ok(0) => Again::Yes,
            Ok(_) => Again::No,
        })
        .await;
    assert_eq!((end, starts(&script)), (Err(Error::Failed("gone")), vec![0, 10, 310]));
    assert_eq!(fates(&command), [0, 2, 1, 0]);
}

struct Http;

impl Classify<u32, Failure> for Http {
    fn classify(&self, result: &Result<u32, Failure>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }

    fn again(&self, result: &Result<u32, Failure>, verdict: Verdict) -> Again {
        match result {
            Err("not implemented") => Again::No,
            Ok(503) => Again::After(ms(70)),
            _ => verdict.into(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_commands_classifier_says_what_is_worth_another_attempt() {
    let command = Command::builder("retry").classify(Http).build().expect("valid");
    let script = Script::new().err(DOWN).ok(503).err("not implemented").ok(1);
    let end = command.retry(|| script.call()).with(every_10ms().attempts(9)).await;
    assert_eq!((end, starts(&script)), (Err(Error::Failed("not implemented")), vec![0, 10, 80]));
}

// ---- the circuit ----

/// F20, adapted: refusals cost no attempt. Without a deadline nobody has said that the caller would wait.
#[tokio::test(start_paused = true)]
async fn f20_seven_attempts_through_the_breaker_make_three_executions() {
    let (command, script) = (supplier(3), Script::new().err(DOWN).forever());
    let end = command.retry(|| script.call()).with(every_10ms().attempts(7)).await;
    let Err(Error::Rejected(rejected)) = end else { panic!("{end:?}") };
    assert_eq!((rejected.reason(), starts(&script)), (Reason::CircuitOpen, vec![0, 10, 20]));
    assert_eq!(outcomes(&command), [(Outcome::Failure, 3), (Outcome::ShortCircuited, 1)]);
    assert_eq!(fates(&command), [0, 3, 1, 0]);
    // With a deadline that lies beyond the wait, the same call outlasts it.
    let (command, script) = (supplier(3), Script::new().err(DOWN).times(3).ok(1));
    let end = command.retry(|| script.call()).with(every_10ms().attempts(7)).deadline(secs(3)).await;
    assert_eq!((end, starts(&script), command.state()), (Ok(1), vec![0, 10, 20, 1020], State::Closed));
}

/// F21: a call of three attempts inside a breaker is one failure of that breaker.
#[tokio::test(start_paused = true)]
async fn f21_a_breaker_around_three_attempts_sees_one_failure() {
    let (outer, inner, script) = (supplier(1000), patient(), Script::new().err(DOWN).forever());
    let call = outer.run(|| inner.retry(|| script.call()).with(every_10ms()));
    assert!(matches!(call.await, Err(Error::Failed(Error::Failed(DOWN)))));
    assert_eq!((outcomes(&outer), outcomes(&inner)), (vec![(Outcome::Failure, 1)], vec![(Outcome::Failure, 3)]));
}

/// A12: 200 ms left, a deadline in 1 s: it waits those 200 ms and no less, and has used one attempt.
#[tokio::test(start_paused = true)]
async fn a12_a_refusal_with_a_known_wait_is_waited_for_and_costs_no_attempt() {
    let command = supplier(1);
    fail(&command).await;
    advance(ms(800)).await;
    let script = Script::new().ok(1).forever();
    let call = command.retry(|| script.call()).with(every_10ms().attempts(1)).deadline(secs(1));
    assert_eq!((call.await, starts(&script)), (Ok(1), vec![200]));
    let attempts = command.snapshot().attempts();
    assert_eq!((attempts.calls, attempts.started, fates(&command)), (1, 1, [1, 0, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_the_deadline_is_refused_at_once() {
    let command = supplier(1);
    fail(&command).await;
    for deadline in [ms(10), ms(999), secs(1)] {
        let begun = Instant::now();
        let call = command.retry(hang).deadline(deadline).await;
        assert!(matches!(call, Err(Error::Rejected(rejected)) if rejected.reason() == Reason::CircuitOpen), "{call:?}");
        assert_eq!(begun.elapsed(), Duration::ZERO, "{deadline:?}");
    }
}

/// `OpenFor` opens the circuit and names the wait in one: the next attempt is made when that has passed, as the probe.
#[tokio::test(start_paused = true)]
async fn a_retry_after_that_opens_the_circuit_is_waited_for() {
    let (command, script) = (patient(), Script::new().err("busy").ok(1));
    let classify = |result: &Result<u32, Failure>| match result {
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::OpenFor(ms(400)),
    };
    let call = command.retry(|| script.call()).classify(classify).with(every_10ms());
    assert_eq!((call.await, starts(&script), command.state()), (Ok(1), vec![0, 400], State::Closed));
    assert_eq!(ended(&command, "short_circuited"), 0);
    // Not beyond the deadline, where it ends at once.
    let (script, begun) = (Script::new().err("busy").ok(1), Instant::now());
    let call = command.retry(|| script.call()).classify(classify).with(every_10ms()).deadline(ms(400));
    assert_eq!((call.await, begun.elapsed()), (Err(Error::Failed("busy")), Duration::ZERO));
}

/// An operator's hold without an end is not worth an attempt; one with an end is waited for like any other.
#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_forced_open_is_not_asked_again() {
    let command = patient();
    command.force_open("maintenance", None);
    let call = command.retry(hang).deadline(secs(9)).await;
    assert!(matches!(call, Err(Error::Rejected(rejected)) if rejected.reason() == Reason::ForcedOpen));
    assert_eq!(ended(&command, "short_circuited"), 1);
    command.force_open("maintenance", Some(ms(500)));
    let script = Script::new().ok(1).forever();
    assert_eq!(command.retry(|| script.call()).deadline(secs(9)).await, Ok(1));
    assert_eq!(starts(&script), [500]);
}

/// A full bulkhead says nothing of when to come back: such a refusal is an attempt, and costs the dependency nothing.
#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_is_tried_again_and_costs_nothing_of_the_budget() {
    let budget = Budget::share(0.0).floor(0.0);
    let command = Command::builder("retry").max_concurrent(1).budget(budget).build().expect("valid");
    let only = command.admit_owned().expect("a free slot");
    let script = Script::new().ok(1).forever();
    let call = command.retry(|| script.call()).with(every_10ms());
    let free = async {
        tokio::time::sleep(ms(15)).await;
        drop(only);
    };
    let (end, ()) = tokio::join!(call, free);
    assert_eq!((end, starts(&script), ended(&command, "rejected")), (Ok(1), vec![20], 2));
    assert_eq!(fates(&command), [1, 2, 0, 0]);
}

// ---- permits, timeouts, the deadline ----

/// Nothing is held between attempts.
#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_next_attempt_holds_no_permit() {
    let command = Command::builder("retry").max_concurrent(1).build().expect("valid");
    let script = Script::new().err(DOWN).ok(1);
    let mut call = Box::pin(command.retry(|| script.call()).with(every_10ms()));
    assert_eq!(poll(&mut call), None);
    assert_eq!(command.snapshot().in_flight(), 0);
    assert_eq!(command.run(async || Ok::<_, Failure>(5)).await, Ok(5));
    assert_eq!(call.await, Ok(1));
}

/// E3: whatever there is to wait for, the deadline is kept: by attempts, whose time is cut to what is left, by waits,
/// which do not begin if they cannot end in time, and by the bulkhead's queue.
#[tokio::test(start_paused = true)]
async fn the_deadline_is_never_passed() {
    let command = patient();
    let (slow, begun) = (Script::new().err(DOWN).after(ms(60)).forever(), Instant::now());
    let end = command.retry(|| slow.call()).with(every_10ms().attempts(9)).deadline(ms(100)).await;
    let Err(Error::TimedOut(late)) = end else { panic!("{end:?}") };
    assert_eq!((late.limit(), begun.elapsed(), slow.started()), (ms(30), ms(100), 2));
    // A wait that would end at the deadline or later is not begun.
    let begun = Instant::now();
    let end = command.retry(|| slow.call()).with(every_10ms()).deadline(ms(70)).await;
    assert_eq!((end, begun.elapsed()), (Err(Error::Failed(DOWN)), ms(60)));
    // In the queue, and by the command's own deadline; what the queue has taken the operation does not get.
    let queued = Command::builder("retry").bulkhead(Bulkhead::new(1).queue(1, secs(9))).deadline(ms(100));
    let queued = queued.build().expect("valid");
    let only = queued.admit_owned().expect("a free slot");
    let begun = Instant::now();
    let end = queued.retry(hang).await;
    assert!(matches!(end, Err(Error::Rejected(rejected)) if rejected.reason() == Reason::QueueTimeout), "{end:?}");
    assert_eq!(begun.elapsed(), ms(100));
    let begun = Instant::now();
    let plain = queued.run(hang);
    let free = async {
        tokio::time::sleep(ms(30)).await;
        drop(only);
    };
    let (end, ()) = tokio::join!(plain, free);
    let Err(Error::TimedOut(late)) = end else { panic!("{end:?}") };
    assert_eq!((late.limit(), begun.elapsed()), (ms(70), ms(100)), "a plain call keeps it too");
}

/// F38: a deadline around attempts that are slow ends them all once.
#[tokio::test(start_paused = true)]
async fn f38_a_deadline_around_attempts_ends_them_all_once() {
    let (command, slow) = (patient(), Script::new().hang().forever());
    let policy = every_10ms().attempts(9).timeouts(true);
    let begun = Instant::now();
    let end = command.retry(|| slow.call()).with(policy).timeout(ms(40)).deadline(ms(120)).await;
    assert!(matches!(end, Err(Error::TimedOut(late)) if late.limit() == ms(20)), "{end:?}");
    assert_eq!((begun.elapsed(), slow.started()), (ms(120), 3));
    advance(secs(60)).await;
    assert_eq!((slow.started(), ended(&command, "timed_out")), (3, 3));
}

/// The fallback comes once, last, with the error of the last attempt, and outside the deadline.
#[tokio::test(start_paused = true)]
async fn the_fallback_runs_once_with_the_last_error() {
    let (command, script) = (patient(), Script::new().err("first").err("second").err("third"));
    let seen = RefCell::new(Vec::new());
    let call = command.retry(|| script.call()).with(every_10ms()).deadline(ms(25)).fallback(|cause| {
        seen.borrow_mut().push(cause);
        after(ms(500), Ok(2)).map(|result| result.map_err(Error::Failed))
    });
    assert_eq!(call.await, Ok(2));
    assert_eq!((seen.take(), fallbacks(&command)), (vec![Error::Failed("third")], (1, 0, 0)));
}

/// P25: cancelled before it begins a call was never made; cancelled in a wait it makes no further attempt, and leaves
/// nothing behind.
#[tokio::test(start_paused = true)]
async fn p25_a_call_that_is_dropped_makes_no_further_attempt() {
    let budget = Budget::share(1.0).floor(0.0);
    let command = Command::builder("retry").budget(budget).build().expect("valid");
    let script = Script::new().err(DOWN).forever();
    drop(command.retry(|| script.call()).with(every_10ms()));
    assert_eq!((script.started(), command.snapshot().attempts().calls), (0, 0));
    for _ in 0..5 {
        let mut call = Box::pin(command.retry(|| script.call()).with(every_10ms()));
        assert_eq!(poll(&mut call), None);
        drop(call);
        advance(secs(1)).await;
    }
    assert_eq!((script.started(), command.snapshot().in_flight()), (5, 0));
    assert_eq!(fates(&command), [0, 5, 0, 0], "each was to be followed by another");
    // Five calls paid in and took nothing out in the end: so this one may have five attempts more.
    assert!(command.retry(|| script.call()).with(every_10ms().attempts(99)).await.is_err());
    assert_eq!((script.started(), fates(&command)[3]), (5 + 7, 1));
}

/// P2, R1, E6: a call that waits in line, runs, waits for its next attempt, runs again and falls back, dropped after any
/// number of milliseconds: nothing is held, every attempt has one outcome, and the command works.
#[tokio::test(start_paused = true)]
async fn a_call_can_be_dropped_at_every_point() {
    let mut ends = Vec::new();
    for millis in 0..80 {
        let bulkhead = Bulkhead::new(1).queue(1, secs(1));
        let command = Command::builder("retry").bulkhead(bulkhead).budget(Budget::share(1.0).floor(0.0));
        let command = command.breaker(Breaker::disabled()).build().expect("valid");
        let only = command.admit_owned().expect("a free slot");
        let holder = tokio::spawn(async move {
            tokio::time::sleep(ms(10)).await;
            only.ignore();
        });
        let slow = Script::new().err(DOWN).after(ms(15)).times(2);
        let fall_back = |_| async {
            tokio::time::sleep(ms(15)).await;
            Ok(2)
        };
        let call = command.retry(|| slow.call()).with(every_10ms().attempts(2)).fallback(fall_back);
        let end = tokio::time::timeout(ms(millis), call).await;
        holder.await.expect("no panic");
        let snapshot = command.snapshot();
        let held = (snapshot.in_flight(), snapshot.queue_length(), snapshot.fallbacks().in_flight);
        assert_eq!(held, (0, 0, 0), "after {millis} ms");
        let lifetime = snapshot.lifetime();
        let of = |outcome| lifetime.of(outcome);
        assert_eq!(of(Outcome::Failure) + of(Outcome::Cancelled), lifetime.calls() - 1, "after {millis} ms");
        let made = slow.started() as u64;
        assert!(made <= 2 && of(Outcome::Failure) <= made, "after {millis} ms");
        let attempts = snapshot.attempts();
        assert_eq!(attempts.started, made, "after {millis} ms");
        assert_eq!(command.run(async || Ok::<_, Failure>(3)).await, Ok(3), "after {millis} ms");
        // One call has paid for one retry: unless that was started, it is still paid for.
        let script = Script::new().err(DOWN).forever();
        assert!(command.retry(|| script.call()).with(every_10ms().attempts(9)).await.is_err());
        let paid = if millis == 0 && attempts.calls == 0 { 0 } else { 1 };
        let spent = made.saturating_sub(1);
        assert_eq!(script.started() as u64, 2 + paid - spent, "after {millis} ms");
        ends.push((made, end.is_ok()));
    }
    ends.dedup();
    assert_eq!(ends, [(0, false), (1, false), (2, false), (2, true)], "every stage was dropped in");
}

// ---- the budget ----

/// F25, by tokens: of two calls with a share of one half, one has a retry and the other its last error.
#[tokio::test(start_paused = true)]
async fn f25_the_second_retry_is_denied_by_the_budget() {
    let budget = Budget::share(0.5).floor(0.0);
    let command = Command::builder("retry").budget(budget).build().expect("valid");
    let scripts = ["a", "b"].map(|error| Script::new().err(error).after(ms(1)).forever());
    let calls = scripts.iter().map(|script| command.retry(|| script.call()).with(every_10ms()));
    let ends = join_all(calls).await;
    assert_eq!(ends, [Err(Error::Failed("a")), Err(Error::Failed("b"))]);
    assert_eq!(scripts.each_ref().map(Script::started), [2, 1]);
    assert_eq!(fates(&command), [0, 1, 0, 2]);
}

/// Attempts count while they sleep: a budget that is only charged when they start would let them all begin to wait.
#[tokio::test(start_paused = true)]
async fn attempts_that_sleep_are_counted() {
    let command = Command::builder("retry").breaker(Breaker::disabled()).budget(Budget::share(0.2).floor(0.0));
    let command = command.build().expect("valid");
    let policy = Retry::constant(secs(1)).jitter(Jitter::None);
    let calls = (0..100).map(|_| command.retry(|| ready(Err::<u32, _>(DOWN))).with(policy.clone()));
    join_all(calls).await;
    assert_eq!((ended(&command, "failure"), command.snapshot().attempts().amplification()), (120, Some(1.2)));
}

#[tokio::test(start_paused = true)]
async fn a_shared_budget_holds_its_commands_together_and_own_ones_are_apart() {
    let attempts = async |budget: Budget| {
        let mut all = 0;
        for name in ["read", "write"] {
            let command = Command::builder(name).budget(budget.clone()).build().expect("valid");
            let script = Script::new().err(DOWN).forever();
            assert!(command.retry(|| script.call()).with(every_10ms().attempts(99)).await.is_err());
            all += script.started();
        }
        all
    };
    // Two tokens to begin with for each bucket.
    assert_eq!(attempts(Budget::share(0.0).floor(0.2)).await, 2 * (1 + 2));
    assert_eq!(attempts(Budget::share(0.0).floor(0.2).shared()).await, 2 + 2);
}

/// By default a fifth of the calls may be attempted again, with a floor of ten a second.
#[tokio::test(start_paused = true)]
async fn the_budget_is_on_by_default_and_can_be_taken_away_live() {
    let command = Command::builder("retry").breaker(Breaker::disabled()).build().expect("valid");
    let load = async || {
        let before = ended(&command, "failure");
        for _ in 0..1000 {
            let call = command.retry(|| ready(Err::<u32, _>(DOWN))).with(Retry::constant(Duration::ZERO));
            assert!(call.await.is_err());
        }
        ended(&command, "failure") - before
    };
    // Waits of nothing take a millisecond of tokio's at most, so that the floor gives little beside its head start.
    let with_budget = load().await;
    assert!((1300..1310).contains(&with_budget), "{with_budget}");
    command.reconfigure(|config| config.no_budget()).expect("valid");
    assert_eq!(load().await, 3000);
}

/// A change of other settings, or of the budget's own, is no new budget.
#[tokio::test(start_paused = true)]
async fn a_live_change_keeps_what_the_budget_has_left() {
    let command = Command::builder("retry").budget(Budget::share(0.0).floor(0.3)).build().expect("valid");
    let attempts = async || {
        let script = Script::new().err(DOWN).forever();
        assert!(command.retry(|| script.call()).with(every_10ms().attempts(99)).await.is_err());
        script.started()
    };
    assert_eq!(attempts().await, 1 + 3);
    command.reconfigure(|config| config.timeout(ms(20))).expect("valid");
    assert_eq!(attempts().await, 1);
    command.reconfigure(|config| config.budget(Budget::share(1.0).floor(0.0))).expect("valid");
    assert_eq!(attempts().await, 1 + 1);
    let mut events = command.subscribe();
    command.reconfigure(|config| config.no_budget().retry(every_10ms().attempts(2))).expect("valid");
    let changes = drain(&mut events).iter().map(ToString::to_string).collect::<String>();
    assert!(changes.contains("; retry Retry {") && changes.contains("; budget Some(Budget {"), "{changes}");
}

// ---- what it is all for ----

/// A dependency that serves so many requests at a time, each in `work`, and keeps those beyond in a queue; whoever gives
/// up leaves its request there, to be worked on for nobody, as servers do.
struct Overloaded {
    work: Duration,
    free_at: RefCell<Vec<Instant>>,
}

impl Overloaded {
    fn new(servers: usize, work: Duration) -> Self {
        Self { work, free_at: RefCell::new(vec![Instant::now(); servers]) }
    }

    /// A request that is answered when its turn has come and gone, whether it is waited for or not.
    fn request(&self) -> impl Future<Output = Result<u32, Failure>> + use<> {
        let mut servers = self.free_at.borrow_mut();
        let first = servers.iter_mut().min().expect("there are servers");
        *first = (*first).max(Instant::now()) + self.work;
        let done = *first;
        async move {
            tokio::time::sleep_until(done).await;
            Ok(1)
        }
    }

    /// How far behind it is.
    fn behind(&self) -> Duration {
        let servers = self.free_at.borrow();
        servers.iter().min().expect("there are servers").saturating_duration_since(Instant::now())
    }
}

/// An outage, and who calls meanwhile: 250 calls a second to a dependency that has room for 400. Every call times out after
/// 200 ms, and a timeout is retried.
#[derive(Clone, Copy, Debug)]
struct Outage {
    /// For how long the dependency stands still.
    stands: Duration,
    attempts: u32,
}

impl Outage {
    const CALLS: u32 = 250;

    /// Whether all is well again twenty seconds later: no call waits, and every one of the last five seconds succeeded.
    async fn is_over(self, command: &Command) -> bool {
        let dependency = Rc::new(Overloaded::new(40, ms(100)));
        let policy = Retry::exponential(ms(20)).attempts(self.attempts).timeouts(true);
        let late = Rc::new(Cell::new(0));
        let calls = async {
            for tick in 0..20 * Self::CALLS {
                if tick == Self::CALLS {
                    let until = Instant::now() + self.stands;
                    dependency.free_at.borrow_mut().iter_mut().for_each(|free| *free = until);
                }
                let (command, dependency, policy) = (command.clone(), Rc::clone(&dependency), policy.clone());
                let late = Rc::clone(&late);
                tokio::task::spawn_local(async move {
                    let end = command.retry(|| dependency.request()).with(policy).await;
                    late.set(late.get() + u32::from(tick >= 15 * Self::CALLS && end.is_err()));
                });
                tokio::time::sleep(secs(1) / Self::CALLS).await;
            }
        };
        tokio::task::LocalSet::new().run_until(calls).await;
        dependency.behind() < ms(100) && late.get() == 0
    }
}

/// Pauses that a dependency could make up for in seconds. With the budget that commands have by default it does. Without
/// one its callers' retries are more than it can serve, for ever: the storm keeps itself up long after its cause has gone.
/// (The breaker, which would end it too, is off.)
#[tokio::test(start_paused = true)]
async fn no_outage_becomes_a_retry_storm() {
    fastrand::seed(7);
    let build = || Command::builder("storm").breaker(Breaker::disabled()).unlimited().timeout(ms(200));
    let mut storms = 0;
    for stands in [ms(50), ms(500), secs(1), secs(2)] {
        for attempts in [2, 4] {
            let outage = Outage { stands, attempts };
            assert!(outage.is_over(&build().build().expect("valid")).await, "{outage:?}");
            storms += u32::from(!outage.is_over(&build().no_budget().build().expect("valid")).await);
        }
    }
    assert_eq!(storms, 6, "of eight outages never end without a budget");
}

// ---- the types ----

/// X6: a call can be spawned, from a closure that borrows what the task owns.
#[tokio::test(start_paused = true)]
async fn a_retrying_call_can_be_spawned() {
    fn sent<F: Future + Send>(future: F) -> F {
        future
    }
    let command = patient();
    let sku = Arc::new(Mutex::new(String::from("A-1")));
    let task = tokio::spawn(sent(async move {
        let fetch = async |sku: &Mutex<String>| {
            tokio::task::yield_now().await;
            if sku.lock().unwrap().len() == 3 { Ok(3) } else { Err(DOWN) }
        };
        let call = command.retry(|| fetch(&sku)).with(every_10ms()).deadline(secs(1)).when(|result| result.is_err());
        call.classify(|_| Verdict::Success).fallback(async |_| Ok(9)).await
    }));
    assert_eq!(task.await.expect("no panic"), Ok(3));
}

/// A policy that is given to a call is not checked, and does no harm.
#[tokio::test(start_paused = true)]
async fn a_nonsensical_policy_of_one_call_does_no_harm() {
    let command = patient();
    let policies = [
        Retry::exponential(Duration::MAX).growth(f64::NAN).jitter(Jitter::Spread(f64::NAN)),
        Retry::exponential(Duration::MAX).jitter(Jitter::Decorrelated).max_delay(Duration::MAX),
        Retry::delays([Duration::MAX]),
    ];
    for policy in policies {
        let end = command.retry(|| ready(Err::<u32, _>(DOWN))).with(policy).deadline(secs(1)).await;
        assert_eq!(end, Err(Error::Failed(DOWN)));
    }
    let mut call = Box::pin(command.retry(pending::<Result<u32, Failure>>).deadline(Duration::MAX).no_timeout());
    assert_eq!(poll(&mut call), None);
    advance(Duration::from_secs(1 << 30)).await;
    assert_eq!(poll(&mut call), None);
}
