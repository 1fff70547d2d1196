//! What the crate gives to those who test their own code: that it tells the truth, and that what it says of a mistake can
//! be read.

mod support;

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use fusebox::testing::{Script, Timeline, advance, advance_to_probe, seed};
use fusebox::{Breaker, Cause, Command, Error, Event, Guard, Hedge, Jitter, Keyed, Keys, Registry, Retry, State};
use futures::FutureExt;
use support::{DOWN, Failure, command, in_a_row, ms, outcomes, poll, secs};
use tokio::time::{Instant, sleep};

/// What a panic says, with the lines of this file as `here`, and without its own.
fn says(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("a panic");
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).expect("a message");
    without_lines(&text)
}

/// `tests/testing.rs:12:34` as `here`.
fn without_lines(text: &str) -> String {
    let mut parts = text.split(file!());
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        all.push_str("here");
        all.push_str(part.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit()));
    }
    all
}

/// The same of a future, which is polled once.
fn polled<F: Future>(future: F) -> String {
    says(|| drop(future.now_or_never()))
}

// ---- scripts ----

#[tokio::test(start_paused = true)]
async fn steps_are_played_in_order_as_often_as_they_say() {
    let script = Script::new().err(DOWN).times(2).ok(1).with(|| Ok(2)).ok(3).forever();
    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push(script.call().await);
    }
    assert_eq!(answers, [Err(DOWN), Err(DOWN), Ok(1), Ok(2), Ok(3), Ok(3), Ok(3)]);
    assert_eq!((script.started(), script.ended(), script.running(), script.dropped()), (7, 7, 0, 0));
    script.assert_finished();
}

#[tokio::test(start_paused = true)]
async fn steps_take_the_time_that_they_say() {
    advance(ms(5)).await;
    let script = Script::new().ok(1).after(ms(30)).err(DOWN).after(ms(1)).times(2).ok(4);
    let begun = Instant::now();
    for elapsed in [30, 31, 32, 32] {
        let _ = script.call().await;
        assert_eq!(begun.elapsed(), ms(elapsed));
    }
    assert_eq!(script.starts(), [ms(0), ms(30), ms(31), ms(32)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_ended_from_outside() {
    let (command, script) = (command(Breaker::disabled()), Script::<u32, Failure>::new().hang().times(2));
    let mut call = Box::pin(command.run(|| script.call()));
    assert_eq!((poll(&mut call), script.running()), (None, 1));
    drop(call);
    assert_eq!((script.running(), script.dropped()), (0, 1));
    let late = command.run(|| script.call()).timeout(ms(80)).await;
    assert!(matches!(late, Err(Error::TimedOut(late)) if late.elapsed() == ms(80)));
    assert_eq!((script.started(), script.ended(), script.running(), script.dropped()), (2, 0, 0, 2));
    script.assert_finished();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_has_ended() {
    let (command, script) = (command(Breaker::disabled()), Script::<u32, Failure>::new().panic("lost my mind"));
    assert_eq!(polled(command.run(|| script.call())), "lost my mind");
    assert_eq!((outcomes(&command).len(), script.ended()), (1, 1));
    script.assert_finished();
    let script = Script::<u32, Failure>::new().with(|| panic!("in the answer"));
    assert_eq!((polled(script.call()), script.ended()), ("in the answer".to_owned(), 1));
}

/// A call starts with its first poll: made is not started, be it a closure's or a combinator's.
#[tokio::test(start_paused = true)]
async fn a_refused_call_was_never_started() {
    let (command, script) = (command(Breaker::disabled()), Script::<u32, Failure>::new());
    command.force_open("a drill", None);
    assert!(command.run(|| script.call()).await.is_err());
    assert!(script.call().guarded_by(&command).await.is_err());
    drop(script.call());
    assert_eq!(script.started(), 0);
    script.assert_finished();
}

#[tokio::test(start_paused = true)]
async fn clones_play_one_script_on_any_thread() {
    let script = Script::<_, Failure>::new().ok(1).times(40);
    let calls = (0..40).map(|_| {
        let script = script.clone();
        std::thread::spawn(move || script.call().now_or_never())
    });
    let calls: Vec<_> = calls.collect();
    assert!(calls.into_iter().all(|call| call.join().expect("no panic") == Some(Ok(1))));
    script.assert_finished();
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_end_panics_and_names_both_places() {
    let script = Script::new().ok(1).err(DOWN);
    assert_eq!((script.call().await, script.call().await), (Ok(1), Err(DOWN)));
    let text = catch_unwind(AssertUnwindSafe(|| script.call().now_or_never())).expect_err("a panic");
    let (text, line) = (text.downcast_ref::<String>().expect("a message"), line!());
    assert!(text.contains(&format!("at {}:{}:", file!(), line - 1)), "{text}");
    assert!(text.contains(&format!("of {}:{}:", file!(), line - 3)), "{text}");
    let says = polled(script.call());
    assert_eq!(says, "the script of here is over after 2 calls, and was called once more at here");
    // Somebody may have caught it.
    assert_eq!(script.started(), 2);
    let expected = "
the script of here has 2 calls beyond its end:

   1. ok   played 1 of 1
   2. err  played 1 of 1
";
    assert_eq!(self::says(|| script.assert_finished()), expected.trim_start());
}

#[tokio::test(start_paused = true)]
async fn a_script_that_is_not_finished_says_what_is_left() {
    let script = Script::new().err(DOWN).times(2).ok(1).after(ms(30)).panic("no").hang().after(ms(1)).times(2);
    let script = script.with(|| Ok(1)).forever();
    assert_eq!(script.call().await, Err(DOWN));
    let expected = "
the script of here has 5 calls missing:

   1. err              played 1 of 2
   2. ok, after 30ms   played 0 of 1
   3. panic \"no\"       played 0 of 1
   4. hang, after 1ms  played 0 of 2
   5. with             played 0, for ever
";
    assert_eq!(says(|| script.assert_finished()), expected.trim_start());
    assert_eq!(script.call().await, Err(DOWN));
    let mut slow = Box::pin(script.call());
    assert_eq!(poll(&mut slow), None);
    let first = says(|| script.assert_finished()).lines().next().map(str::to_owned);
    assert_eq!(first.as_deref(), Some("the script of here has 3 calls missing, 1 call running:"));
}

#[test]
fn scripts_that_make_no_sense_are_refused() {
    let script = Script::<u32, Failure>::new;
    assert_eq!(says(|| drop(script().after(ms(1)))), "`after` changes the step before it, and there is none");
    assert_eq!(says(|| drop(script().forever())), "`forever` changes the step before it, and there is none");
    assert_eq!(says(|| drop(script().ok(1).times(0))), "times is 0, allowed: at least 1");
    let expected = "`hang` follows a step that is played for ever, and would never be reached";
    assert_eq!(says(|| drop(script().ok(1).forever().hang())), expected);
}

#[test]
fn a_script_needs_no_runtime_unless_it_takes_time() {
    let script = Script::new().ok(1).err(DOWN);
    assert_eq!(script.call().now_or_never(), Some(Ok(1)));
    let debug = without_lines(&format!("{script:?}"));
    assert_eq!(debug, "Script { place: here, steps: 2, started: 1, running: 0 }");
}

#[tokio::test(start_paused = true)]
async fn a_race_can_be_scripted() {
    let command = Command::builder("race").no_budget().build().expect("valid");
    let script = Script::<_, Failure>::new().ok(1).after(ms(500)).ok(2).after(ms(20));
    assert_eq!(command.hedge(|| script.call()).with(Hedge::after(ms(30))).await, Ok(2));
    assert_eq!((script.starts(), script.ended(), script.dropped()), (vec![ms(0), ms(30)], 1, 1));
}

// ---- timelines ----

/// Opens, fails its probe, and comes back.
async fn ups_and_downs(command: &Command) {
    let script = Script::new().err(DOWN).after(ms(10)).times(3).ok(1);
    for _ in 0..4 {
        let _ = command.run(|| script.call()).await;
        if command.state() == State::Open {
            advance_to_probe(command).await;
        }
    }
    script.assert_finished();
}

#[tokio::test(start_paused = true)]
async fn a_timeline_tells_what_happened_when_and_why() {
    let command = command(in_a_row(2).open_for(secs(1)));
    let before = Timeline::of(&command);
    advance(secs(1)).await;
    let timeline = Timeline::of(&command);
    timeline.assert_eq("");
    ups_and_downs(&command).await;
    timeline.assert_eq(
        "
        20ms   peer: closed -> open: 2 errors in a row

        1.02s  peer: open -> half_open: the wait was over
        1.03s  peer: half_open -> open: the probe failed
        2.03s  peer: open -> half_open: the wait was over
        2.03s  peer: half_open -> closed: the probe passed
        ",
    );
    let lines = timeline.to_string();
    assert_eq!(lines.lines().next(), Some("20ms peer: closed -> open: 2 errors in a row"));
    timeline.assert_eq(&lines);
    assert_eq!(before.entries()[0].at, ms(1020));
    command.force_open("a drill", Some(secs(60)));
    assert_eq!(timeline.entries().len(), 7);
    assert_eq!(timeline.transitions()[0].cause, Cause::ConsecutiveFailures { failures: 2 });
    let edges: Vec<_> = timeline.transitions()[4..].iter().map(|change| (change.from, change.to)).collect();
    assert_eq!(edges, [(State::HalfOpen, State::Closed), (State::Closed, State::ForcedOpen)]);
}

/// A mistake is shown where it is, among what is right, in the form in which it is written.
#[tokio::test(start_paused = true)]
async fn a_timeline_that_is_not_as_expected_says_where() {
    let command = command(in_a_row(2).open_for(secs(1)));
    let timeline = Timeline::of(&command);
    ups_and_downs(&command).await;
    let wrong = says(|| {
        timeline.assert_eq(
            "
            20ms peer: closed -> open: 2 errors in a row
            1020ms peer: open -> half_open: the wait was over
            1.03s peer: half_open -> closed: the probe passed
            2.03s peer: open -> half_open: the wait was over
            2.03s peer: half_open -> closed: the probe passed
            ",
        );
    });
    let expected = "
the timeline is not as expected (- expected, + happened):

    20ms    peer: closed -> open: 2 errors in a row
-   1020ms  peer: open -> half_open: the wait was over
-   1.03s   peer: half_open -> closed: the probe passed
+   1.02s   peer: open -> half_open: the wait was over
+   1.03s   peer: half_open -> open: the probe failed
    2.03s   peer: open -> half_open: the wait was over
    2.03s   peer: half_open -> closed: the probe passed
";
    assert_eq!(wrong, expected.trim_start());

    let quiet = Timeline::of(&command);
    let wrong = says(|| quiet.assert_eq("5ms peer: closed -> open: 2 errors in a row"));
    assert!(wrong.ends_with(":\n\n-   5ms  peer: closed -> open: 2 errors in a row\n"), "{wrong}");
    command.force_closed("two\n  lines", None);
    let wrong = says(|| quiet.assert_eq("nothing"));
    let expected = "
-   nothing
+   0ms  peer: forced_closed by an operator: two lines
+   0ms  peer: closed -> forced_closed: an operator forced it
";
    assert!(wrong.ends_with(expected), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_and_a_keyed_command_have_timelines_too() {
    let registry = Registry::new();
    let everything = Timeline::of(&registry);
    let breaker = in_a_row(1).open_for(secs(1));
    let hosts: Keyed<String> =
        Command::builder("hosts").breaker(breaker).registry(&registry).keyed(Keys::up_to(8)).expect("valid");
    let of_hosts = Timeline::of(&hosts);
    let db = Command::builder("db").registry(&registry).build().expect("valid");
    db.force_open("a drill", None);
    advance(ms(1)).await;
    hosts.get("a").admit().expect("it is closed").fail();
    of_hosts.assert_eq("1ms hosts[a]: closed -> open: a single error");
    everything.assert_eq(
        "
        0ms  db: forced_open by an operator: a drill
        0ms  db: closed -> forced_open: an operator forced it
        1ms  hosts[a]: closed -> open: a single error
        ",
    );
}

/// A subscriber may be 1024 events behind.
#[tokio::test(start_paused = true)]
async fn a_timeline_loses_nothing_however_long_nobody_looks() {
    let command = command(Breaker::disabled());
    let timeline = Timeline::of(&command);
    for _ in 0..2000 {
        command.force_open("on", None);
        command.clear_override();
    }
    let entries = timeline.entries();
    assert_eq!((entries.len(), timeline.transitions().len()), (8000, 4000));
    assert!(!entries.iter().any(|entry| matches!(entry.event, Event::Missed(_))));
}

/// What happened last is still there when its command is not.
#[test]
fn a_timeline_outlives_its_command_and_needs_no_runtime() {
    let command = command(Breaker::disabled());
    let timeline = Timeline::of(&command);
    command.force_open("a drill", None);
    drop(command);
    assert_eq!(timeline.entries().len(), 2);
    assert!(format!("{timeline:?}").contains("a drill"));
}

// ---- time ----

/// What is due on the way runs on the way, and what it starts in turn too.
#[tokio::test(start_paused = true)]
async fn time_passes_from_timer_to_timer() {
    let command = command(Breaker::disabled());
    let script = Script::<u32, Failure>::new().hang().times(3);
    let call = tokio::spawn({
        let (command, script) = (command.clone(), script.clone());
        let policy = Retry::constant(ms(20)).jitter(Jitter::None).timeouts(true);
        async move { command.retry(|| script.call()).with(policy).timeout(ms(100)).await }
    });
    advance(ms(339)).await;
    assert_eq!((script.starts(), call.is_finished()), (vec![ms(0), ms(120), ms(240)], false));
    advance(ms(1)).await;
    assert!(call.is_finished());
    let Err(Error::TimedOut(late)) = call.await.expect("no panic") else { panic!("it hangs") };
    assert_eq!(late.elapsed(), ms(100));
    // tokio's own jumps: there is one attempt, and it finds out at the end.
    let script = Script::<u32, Failure>::new().hang().times(3);
    let call = tokio::spawn({
        let script = script.clone();
        let policy = Retry::constant(ms(20)).jitter(Jitter::None).timeouts(true);
        async move { command.retry(|| script.call()).with(policy).timeout(ms(100)).await }
    });
    tokio::task::yield_now().await;
    tokio::time::advance(ms(340)).await;
    assert!(!call.is_finished() && script.started() < 3);
}

#[tokio::test(start_paused = true)]
async fn time_passes_to_the_nanosecond() {
    for by in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(1500), ms(1), ms(50), secs(86_400)] {
        let begun = Instant::now();
        advance(by).await;
        assert_eq!(begun.elapsed(), by);
    }
}

/// Everyone is served at the end of it: each before the next millisecond, and those whom they wake.
#[tokio::test(start_paused = true)]
async fn all_that_is_due_has_run_when_time_has_passed() {
    let local = tokio::task::LocalSet::new();
    let run = async {
        let begun = Instant::now();
        let woken = Rc::new(Cell::new(0));
        for n in 0..500_u64 {
            let woken = Rc::clone(&woken);
            tokio::task::spawn_local(async move {
                sleep(ms(9 + n % 2)).await;
                assert_eq!(begun.elapsed(), ms(9 + n % 2));
                // A chain of tasks, each of which wakes the next.
                for _ in 0..5 {
                    tokio::task::spawn_local(async {}).await.expect("no panic");
                }
                woken.set(woken.get() + 1);
            });
        }
        advance(ms(10)).await;
        woken.get()
    };
    assert_eq!(local.run_until(run).await, 500);
}

#[tokio::test(start_paused = true)]
async fn blocking_work_is_done_before_time_passes() {
    let command = command(Breaker::disabled());
    let call = tokio::spawn(async move { command.spawn_blocking(|| Ok::<u32, Failure>(1)).timeout(secs(1)).await });
    advance(secs(10)).await;
    assert_eq!(call.now_or_never().map(|end| end.expect("no panic")), Some(Ok(1)));
}

#[tokio::test]
async fn time_that_runs_is_not_moved() {
    let panic = AssertUnwindSafe(advance(secs(1))).catch_unwind().await.expect_err("a panic");
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("a message");
    assert!(text.contains("not frozen"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_probe_is_exact_whatever_the_jitter() {
    let command = command(Breaker::disabled().consecutive_failures(1).open_for(secs(1)).jitter(0.5));
    let mut waits = Vec::new();
    for _ in 0..8 {
        command.admit().expect("it is closed").fail();
        let left = command.snapshot().retry_after().expect("it is open");
        advance(left - Duration::from_nanos(1)).await;
        assert!(command.admit().is_err());
        assert_eq!(advance_to_probe(&command).await, Duration::from_nanos(1));
        assert_eq!(advance_to_probe(&command).await, Duration::ZERO);
        command.admit().expect("a probe").succeed();
        assert_eq!(command.state(), State::Closed);
        waits.push(left);
    }
    waits.dedup();
    assert!(waits.len() > 1, "{waits:?}");
    command.force_open("a drill", Some(secs(9)));
    assert_eq!(advance_to_probe(&command).await, secs(9));
    assert_eq!(command.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_waits_for_nothing_has_no_probe() {
    let command = command(Breaker::disabled());
    let expected = "command `peer` is closed, so there is no wait that leads to a probe";
    assert_eq!(polled(advance_to_probe(&command)), expected);
    command.force_open("a drill", None);
    assert!(polled(advance_to_probe(&command)).contains("is forced_open, so"));
}

/// Open waits and waits between attempts.
#[tokio::test(start_paused = true)]
async fn chance_repeats_itself_from_a_seed_on() {
    let play = async |start: u64| {
        seed(start);
        let command = command(Breaker::disabled().consecutive_failures(3).jitter(0.5));
        let script = Script::<u32, _>::new().err(DOWN).times(3);
        let _ = command.retry(|| script.call()).with(Retry::exponential(secs(1))).await;
        (script.starts(), advance_to_probe(&command).await)
    };
    let (first, again, other) = (play(1).await, play(1).await, play(2).await);
    assert_eq!(first, again);
    assert!(first.0 != other.0 && first.1 != other.1, "{first:?} {other:?}");
}

/// A future of a script's can be sent, kept, and made by a trait's method.
#[tokio::test(start_paused = true)]
async fn a_script_stands_in_for_a_client() {
    trait Client {
        fn fetch(&self, id: u32) -> impl Future<Output = Result<u32, Failure>> + Send;
    }
    impl Client for Script<u32, Failure> {
        fn fetch(&self, _id: u32) -> impl Future<Output = Result<u32, Failure>> + Send {
            self.call()
        }
    }
    async fn service(client: impl Client + Send + Sync + 'static) -> u32 {
        tokio::spawn(async move { client.fetch(1).await }).await.expect("no panic").unwrap_or(0)
    }
    let script = Script::new().ok(5);
    assert_eq!(service(script.clone()).await, 5);
    script.assert_finished();
    // Nothing is asked of values but what a step needs.
    struct Plain;
    let script = Script::<Plain, Plain>::new().with(|| Err(Plain)).hang();
    assert!(script.call().await.is_err());
    let boxed: std::pin::Pin<Box<dyn Future<Output = Result<Plain, Plain>> + Send>> = Box::pin(script.call());
    drop(boxed);
}
