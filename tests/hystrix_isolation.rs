//! The cases of Hystrix's isolation, IS1 to IS11: the bulkhead, its queue, the limit on fallbacks.

mod support;

use std::cell::Cell;
use std::collections::HashSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusebox::{Breaker, Builder, Bulkhead, Command, Error, Outcome, Reason, State, Verdict};
use futures::FutureExt;
use futures::future::{join, join_all};
use support::{
    DOWN, Failure, advance, after, ended, fallbacks, hang, health, ms, on_threads, outcomes, poll, rate, secs, succeed,
};
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;

fn builder() -> Builder {
    Command::builder("hystrix").breaker(Breaker::disabled())
}

fn build(bulkhead: Bulkhead) -> Command {
    builder().bulkhead(bulkhead).build().expect("a good configuration")
}

/// One call at a time, so many more in line for at most a minute.
fn one_and(length: usize) -> Bulkhead {
    Bulkhead::new(1).queue(length, secs(60))
}

fn rejected<T>(result: Result<T, Error<Failure>>) -> Reason {
    match result {
        Err(Error::Rejected(rejected)) => rejected.reason(),
        _ => panic!("expected a refusal"),
    }
}

/// Counts who is inside, and the most there ever were.
#[derive(Default)]
struct Gate {
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    fn enter(&self) {
        let inside = self.inside.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(inside, SeqCst);
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn is01_the_third_call_finds_slot_and_queue_full() {
    let command = build(one_and(1));
    let call = || command.run(|| after(ms(500), Ok(1)));
    let third = async {
        let start = Instant::now();
        assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (1, 1));
        let never = || command.run(async || -> Result<u32, Failure> { panic!("a refused operation ran") });
        assert_eq!(rejected(never().await), Reason::ConcurrencyLimit);
        assert_eq!(never().fallback(async |_| Ok(2)).await, Ok(2));
        assert_eq!(never().fallback(async |_| Err(Error::Failed("no cache"))).await, Err(Error::Failed("no cache")));
        start.elapsed()
    };
    let ((first, second), waited) = join(join(call(), call()), third).await;
    assert_eq!((first, second, waited), (Ok(1), Ok(1), Duration::ZERO));
    assert_eq!(outcomes(&command), [(Outcome::Success, 2), (Outcome::Rejected, 3)]);
    assert_eq!((fallbacks(&command), command.snapshot().latency().max()), ((1, 1, 0), Some(ms(500))));
}

#[tokio::test(start_paused = true)]
async fn is02_one_number_limits_the_queue_and_can_be_changed_live() {
    let command = build(one_and(1));
    let running = command.admit().expect("there is room");
    let mut first = Box::pin(command.run(|| after(ms(1), Ok(1))));
    assert_eq!(poll(&mut first), None);
    assert_eq!(rejected(command.run(hang).await), Reason::ConcurrencyLimit);

    command.reconfigure(|config| config.bulkhead(one_and(10))).expect("a good configuration");
    let mut more: Vec<_> = (0..9).map(|n| Box::pin(command.run(move || after(ms(1), Ok(n))))).collect();
    assert!(more.iter_mut().all(|call| poll(call).is_none()));
    assert_eq!(command.snapshot().queue_length(), 10);
    assert_eq!(rejected(command.run(hang).await), Reason::ConcurrencyLimit);

    // Shorter than what stands in it: those stay, nobody joins.
    command.reconfigure(|config| config.bulkhead(one_and(2))).expect("a good configuration");
    assert_eq!(command.snapshot().queue_length(), 10);
    assert_eq!(rejected(command.run(hang).await), Reason::ConcurrencyLimit);
    running.succeed();
    assert_eq!(first.await, Ok(1));
    assert_eq!(join_all(more).await, (0..9).map(Ok).collect::<Vec<_>>());
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn is03_without_a_queue_the_refusal_comes_at_once() {
    let command = build(Bulkhead::new(1));
    let first = command.run(|| after(ms(200), Ok(1)));
    let second = async {
        let start = Instant::now();
        let mut refused = pin!(command.run(async || -> Result<u32, Failure> { panic!("a refused operation ran") }));
        let result = refused.as_mut().now_or_never().expect("it never waits");
        (rejected(result), start.elapsed())
    };
    assert_eq!(join(first, second).await, (Ok(1), (Reason::ConcurrencyLimit, Duration::ZERO)));
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Rejected, 1)]);
    assert_eq!(fallbacks(&command), (0, 0, 0));
    succeed(&command).await;
}

#[tokio::test(start_paused = true)]
async fn is04_a_fallback_that_is_refused_leaves_the_original_error() {
    let command = builder().max_concurrent_fallbacks(1).build().expect("a good configuration");
    let slow = |_| async { after(ms(800), Ok(2)).await.map_err(Error::Failed) };
    let first = command.run(async || Err(DOWN)).fallback(slow);
    let second = async {
        let start = Instant::now();
        let never = async |_| panic!("a refused fallback ran");
        assert_eq!(
            command.run(async || Err::<u32, _>("also down")).fallback(never).await,
            Err(Error::Failed("also down"))
        );
        let never = async |_| panic!("a refused fallback ran");
        let late = command.run(hang).timeout(Duration::ZERO).fallback(never).await;
        assert!(matches!(late, Err(Error::TimedOut(_))));
        start.elapsed()
    };
    assert_eq!(join(first, second).await, (Ok(2), Duration::ZERO));
    assert_eq!(outcomes(&command), [(Outcome::Failure, 2), (Outcome::TimedOut, 1)]);
    assert_eq!(fallbacks(&command), (1, 0, 2));
    assert_eq!(command.run(async || Err(DOWN)).fallback(slow).await, Ok(2), "its slot is free again");
}

#[tokio::test(start_paused = true)]
async fn is06_ten_threads_never_meet_behind_one_permit() {
    const THREADS: u64 = 10;
    const ROUNDS: u64 = 100;
    // The clock may move by more than a timeout while a thread is inside.
    let command = builder().max_concurrent(1).no_timeout().build().expect("a good configuration");
    let gate = Arc::new(Gate::default());
    let (worker, inside) = (command.clone(), Arc::clone(&gate));
    let work = move |_| {
        let mut done = 0;
        while done < ROUNDS {
            let result = worker.run_sync(|| {
                inside.enter();
                std::thread::yield_now();
                inside.leave();
                Ok::<_, Failure>(())
            });
            match result {
                Ok(()) => done += 1,
                Err(error) => {
                    assert_eq!(rejected::<()>(Err(error)), Reason::ConcurrencyLimit);
                    std::thread::yield_now();
                }
            }
        }
    };
    on_threads(THREADS, ms(1), work, || ()).await;
    assert_eq!((gate.most.load(SeqCst), ended(&command, "success")), (1, THREADS * ROUNDS));
    assert_eq!(command.snapshot().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn is06_ten_tasks_in_line_behind_one_permit_all_get_through() {
    let command = build(one_and(10));
    let gate = Arc::new(Gate::default());
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let (command, gate) = (command.clone(), Arc::clone(&gate));
        tasks.spawn(async move {
            for round in 0..100 {
                let operation = async || {
                    gate.enter();
                    if round % 3 == 0 {
                        yield_now().await
                    } else {
                        tokio::time::sleep(ms(round % 5)).await
                    }
                    gate.leave();
                    Ok::<_, Failure>(())
                };
                command.run(operation).await.expect("there is room in the line");
            }
        });
    }
    tasks.join_all().await;
    assert_eq!((gate.most.load(SeqCst), outcomes(&command)), (1, vec![(Outcome::Success, 1_000)]));
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn is07_a_call_that_is_dropped_in_line_leaves_it_and_never_runs() {
    let command = build(one_and(1));
    let running = command.admit().expect("there is room");
    let mut queued = Box::pin(command.run(async || -> Result<u32, Failure> { panic!("it was dropped") }));
    assert_eq!((poll(&mut queued), command.snapshot().queue_length()), (None, 1));
    drop(queued);
    assert_eq!((command.snapshot().queue_length(), command.snapshot().in_flight()), (0, 1));
    assert_eq!(outcomes(&command), [(Outcome::Cancelled, 1)]);
    running.succeed();
    assert_eq!(command.snapshot().in_flight(), 0);
    succeed(&command).await;
    assert_eq!((health(&command), command.snapshot().latency().count()), ((0, 2), 2), "it never started");
}

/// Dropped after the slot was given to it and before it knows.
#[tokio::test(start_paused = true)]
async fn is07_a_call_that_is_dropped_with_a_slot_granted_gives_it_back() {
    let command = build(one_and(2));
    let running = command.admit().expect("there is room");
    let mut first = Box::pin(command.run(async || -> Result<u32, Failure> { panic!("it was dropped") }));
    let mut second = Box::pin(command.run(async || Ok::<_, Failure>(2)));
    assert_eq!((poll(&mut first), poll(&mut second)), (None, None));
    running.succeed();
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (1, 1));
    drop(first);
    assert_eq!((second.await, command.snapshot().in_flight()), (Ok(2), 0));
    assert_eq!(outcomes(&command), [(Outcome::Success, 2), (Outcome::Cancelled, 1)]);
}

/// 100,000 calls that end in every way there is, at random, through every state of the circuit: what they held comes
/// back, and the figures agree to the last call with a tally that is kept beside them.
#[tokio::test(start_paused = true)]
async fn is10_whatever_becomes_of_calls_nothing_is_leaked() {
    const ROUNDS: usize = 500;
    const CALLS: usize = 200;
    let command = builder()
        .bulkhead(Bulkhead::new(3).queue(2, ms(40)))
        .timeout(ms(30))
        .max_concurrent_fallbacks(1)
        .breaker(rate(0.5, 4).window(ms(1_000)).open_for(ms(20)).probes(2))
        .build()
        .expect("a good configuration");
    let mut draw = fastrand::Rng::with_seed(10);
    let tally = Tally::default();
    let mut seen = HashSet::new();
    for _ in 0..ROUNDS {
        let mut open = Vec::new();
        let mut made = 0;
        while made < CALLS || !open.is_empty() {
            if made < CALLS && open.len() < 8 {
                open.push(random_call(&command, &tally, &mut draw));
                made += 1;
            }
            let at = draw.usize(0..open.len());
            if draw.u8(0..16) == 0 || open[at].poll() {
                open.swap_remove(at);
            }
            if draw.bool() {
                advance(ms(draw.u64(0..8))).await;
            }
            seen.insert(command.state());
        }

        let snapshot = command.snapshot();
        assert_eq!((snapshot.in_flight(), snapshot.queue_length(), snapshot.fallbacks().in_flight), (0, 0, 0));
        assert_eq!(snapshot.lifetime().iter().map(|(_, count)| count).collect::<Vec<_>>(), tally.counts());
        if command.state() != State::Open {
            // If it is half-open, no place of a probe was lost.
            drop(command.admit().expect("nothing is in flight"));
            tally.note(Outcome::Cancelled);
        }
    }

    assert_eq!(seen, HashSet::from([State::Closed, State::Open, State::HalfOpen]));
    let never: Vec<_> = Outcome::ALL.into_iter().zip(tally.counts()).filter(|&(_, count)| count < 100).collect();
    assert_eq!(never, [(Outcome::RateLimited, 0)], "every outcome was frequent");
    let (good, bad, refused) = fallbacks(&command);
    assert!(good == 0 && bad > 100 && refused > 100, "{bad} fallbacks declined, {refused} were refused");
}

/// How calls ended, as their callers saw it.
#[derive(Default)]
struct Tally([Cell<u64>; Outcome::ALL.len()]);

impl Tally {
    fn note(&self, outcome: Outcome) {
        let count = &self.0[outcome as usize];
        count.set(count.get() + 1);
    }

    fn counts(&self) -> Vec<u64> {
        self.0.iter().map(Cell::get).collect()
    }
}

type Ended = Option<Result<u32, Error<Failure>>>;

/// A call that is polled by hand, and noted once: in its fallback if it comes that far, or when it ends or is dropped.
struct Scripted<'t> {
    /// Polled once; never after its end.
    call: Pin<Box<dyn Future<Output = Result<u32, Error<Failure>>> + 't>>,
    tally: &'t Tally,
    ignored: bool,
    polled: bool,
    noted: Rc<Cell<bool>>,
}

impl Scripted<'_> {
    /// Whether it has ended.
    fn poll(&mut self) -> bool {
        self.polled = true;
        let polled: Result<Ended, _> = catch_unwind(AssertUnwindSafe(|| self.call.as_mut().now_or_never()));
        let outcome = match polled {
            Ok(None) => return false,
            Ok(Some(Ok(_) | Err(Error::Failed(_)))) if self.ignored => Outcome::Ignored,
            Ok(Some(Ok(_))) => Outcome::Success,
            Ok(Some(Err(error))) => outcome_of(&error),
            Err(_) => Outcome::Panicked,
        };
        self.note(outcome);
        true
    }

    fn note(&self, outcome: Outcome) {
        if !self.noted.replace(true) {
            self.tally.note(outcome);
        }
    }
}

impl Drop for Scripted<'_> {
    fn drop(&mut self) {
        if self.polled {
            self.note(Outcome::Cancelled);
        }
    }
}

fn outcome_of(error: &Error<Failure>) -> Outcome {
    match error {
        Error::Failed(_) => Outcome::Failure,
        Error::TimedOut(_) => Outcome::TimedOut,
        Error::Rejected(rejected) => match rejected.reason() {
            Reason::ConcurrencyLimit | Reason::QueueTimeout => Outcome::Rejected,
            _ => Outcome::ShortCircuited,
        },
    }
}

fn random_call<'t>(command: &'t Command, tally: &'t Tally, draw: &mut fastrand::Rng) -> Scripted<'t> {
    let (way, takes, ignored) = (draw.u8(0..8), draw.u64(0..3) * 10, draw.u8(0..8) == 0);
    let operation = move || async move {
        if takes > 0 {
            tokio::time::sleep(ms(takes)).await;
        }
        match way {
            0..=4 => Ok(1),
            5 => Err(DOWN),
            // A panic, without a message for each of them.
            6 => resume_unwind(Box::new(())),
            _ => hang().await,
        }
    };
    let verdict = move |result: &Result<u32, Failure>| match result {
        _ if ignored => Verdict::Ignored,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Failure,
    };
    let noted = Rc::new(Cell::new(false));
    let noting = Rc::clone(&noted);
    let decline = async move |cause| {
        if !noting.replace(true) {
            tally.note(outcome_of(&cause));
        }
        yield_now().await;
        Err(cause)
    };
    let call = Box::pin(command.run(operation).classify(verdict).fallback(decline));
    Scripted { call, tally, ignored, polled: false, noted }
}

/// A queue must have a length: without one there is no waiting. One that is longer than its calls is patient is the case.
#[tokio::test(start_paused = true)]
async fn is11_a_call_in_line_is_refused_when_its_wait_ends_and_not_before() {
    let none = builder().bulkhead(Bulkhead::new(1).queue(0, ms(10))).build().expect_err("a queue of nobody");
    assert_eq!(none.field(), "bulkhead.queue.length");

    let command = build(Bulkhead::new(1).queue(5, ms(10)));
    let running = command.admit().expect("there is room");
    let mut waiting = Box::pin(command.run(async || -> Result<u32, Failure> { panic!("a refused operation ran") }));
    assert_eq!(poll(&mut waiting), None);
    advance(ms(9)).await;
    assert_eq!((poll(&mut waiting), command.snapshot().queue_length()), (None, 1));
    advance(ms(1)).await;
    assert_eq!(poll(&mut waiting).map(rejected), Some(Reason::QueueTimeout));
    assert_eq!((outcomes(&command), command.snapshot().queue_length()), (vec![(Outcome::Rejected, 1)], 0));
    running.succeed();
    assert_eq!(command.snapshot().in_flight(), 0);

    let start = Instant::now();
    let _running = command.admit().expect("there is room");
    assert_eq!(rejected(command.run(hang).await), Reason::QueueTimeout);
    assert_eq!(start.elapsed(), ms(10));
}

#[tokio::test(start_paused = true)]
async fn is11_those_in_line_are_served_in_the_order_in_which_they_came() {
    let command = build(one_and(5));
    let running = command.admit().expect("there is room");
    let order = Mutex::new(Vec::new());
    let mut calls: Vec<_> = (0..5)
        .map(|n| {
            let order = &order;
            Box::pin(command.run(move || {
                order.lock().expect("nobody panics").push(n);
                after(ms(10), Ok(n))
            }))
        })
        .collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_none()));
    running.succeed();
    assert_eq!(rejected(command.admit().map(drop).map_err(Error::Rejected)), Reason::ConcurrencyLimit, "no overtaking");
    // Polled from the last to the first: it is the line that decides.
    calls.reverse();
    assert_eq!(join_all(calls).await, [4, 3, 2, 1, 0].map(Ok));
    assert_eq!(*order.lock().expect("nobody panics"), [0, 1, 2, 3, 4]);
    assert_eq!(command.snapshot().peak_in_flight(), 1);
}

/// A wait in line is no part of the call's timeout, nor of its latency.
#[tokio::test(start_paused = true)]
async fn is11_the_timeout_begins_with_the_slot() {
    let command = builder().timeout(ms(50)).bulkhead(one_and(1)).build().expect("a good configuration");
    let calls = join(command.run(|| after(ms(40), Ok(1))), command.run(|| after(ms(40), Ok(2))));
    assert_eq!(calls.await, (Ok(1), Ok(2)));
    assert_eq!(command.snapshot().latency().max(), Some(ms(40)));
}
