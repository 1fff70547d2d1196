//! Real threads, as a service has them: no paused time, no model, many calls.
//!
//! Every thread tallies what came of its calls by what it saw itself. The figures of the command must then agree with
//! the tallies to the last call, and while the threads run nothing that can be seen may contradict itself. The
//! interleavings differ from run to run; what is asserted holds for all of them.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use fusebox::{
    Breaker, Bulkhead, Cause, Command, Config, Error, Event, Events, Outcome, Reason, Registry, Snapshot, State,
    Verdict,
};
use futures::{FutureExt, StreamExt};

const THREADS: u64 = 4;

/// Calls by outcome, as their callers saw them end.
type Tally = [u64; Outcome::ALL.len()];

/// A generator of its own for each thread, so that a run needs no lock.
struct Draw(u64);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % n
    }
}

/// Held by whoever is past the bulkhead: counts them, and remembers whether there ever were too many.
struct Inside<'g>(&'g Gate);

#[derive(Default)]
struct Gate {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

/// Fails the test, in place of hanging it, when `test` has come to a standstill.
fn within_a_minute(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(test));
        done.send(()).expect("somebody waits");
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("it stands still: a deadlock, or a call that is never woken");
    worker.join().unwrap_or_else(|panic| resume_unwind(panic));
}

fn classify(result: &Result<u32, &'static str>) -> Verdict {
    match result {
        Ok(_) => Verdict::Success,
        Err("ignored") => Verdict::Ignored,
        Err(_) => Verdict::Failure,
    }
}

/// Makes one call in one of eight ways and returns how it ended.
fn call<C>(command: &Command<C>, gate: &Gate, way: u64) -> Outcome
where
    C: fusebox::Classify<u32, &'static str>,
{
    let sync = |result: Result<u32, &'static str>| {
        command.run_sync(|| {
            let _inside = gate.enter();
            result
        })
    };
    let refused = |reason| match reason {
        Reason::ConcurrencyLimit | Reason::QueueTimeout => Outcome::Rejected,
        _ => Outcome::ShortCircuited,
    };
    let ended = match way {
        0..=3 => {
            let (result, outcome) = match way {
                0 | 1 => (Ok(1), Outcome::Success),
                2 => (Err("down"), Outcome::Failure),
                _ => (Err("ignored"), Outcome::Ignored),
            };
            sync(result).map(|_| outcome).or_else(|error| match error {
                Error::Failed(_) => Ok(outcome),
                Error::Rejected(rejected) => Err(rejected),
                Error::TimedOut(_) => panic!("what ran is returned"),
            })
        }
        4 => {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                command.run_sync(|| -> Result<u32, &'static str> {
                    let _inside = gate.enter();
                    resume_unwind(Box::new(()))
                })
            }));
            match unwound {
                Err(_) => Ok(Outcome::Panicked),
                Ok(Err(Error::Rejected(rejected))) => Err(rejected),
                Ok(other) => panic!("a panic became {other:?}"),
            }
        }
        _ => command.admit().map(|permit| {
            drop(gate.enter());
            match way {
                5 => {
                    permit.succeed();
                    Outcome::Success
                }
                6 => {
                    permit.fail();
                    Outcome::Failure
                }
                _ => {
                    drop(permit);
                    Outcome::Cancelled
                }
            }
        }),
    };
    ended.unwrap_or_else(|rejected| refused(rejected.reason()))
}

/// R3: what one snapshot says does not contradict itself.
fn check_consistent(snapshot: &Snapshot) {
    let (window, lifetime, health) = (snapshot.window(), snapshot.lifetime(), snapshot.health());
    for (outcome, count) in window.iter() {
        assert!(count <= lifetime.of(outcome), "{outcome}: {count} in the window, {} ever", lifetime.of(outcome));
    }
    assert_eq!(window.total(), window.errors() + window.of(Outcome::Success));
    assert!(health.errors <= health.total && health.total <= lifetime.total(), "{health:?} of {lifetime:?}");
    assert_eq!(snapshot.error_rate().is_none(), window.total() == 0, "an empty window has no rate");
    assert!(snapshot.error_rate().is_none_or(|rate| (0.0..=1.0).contains(&rate)));
    assert!(snapshot.in_flight() <= snapshot.peak_in_flight());
    let latency = snapshot.latency();
    if let (Some(min), Some(max)) = (latency.min(), latency.max()) {
        for q in [0.0, 0.5, 0.99, 1.0] {
            let percentile = latency.percentile(q).expect("there are calls");
            assert!((min..=max).contains(&percentile), "{percentile:?} at {q}, of {min:?} to {max:?}");
        }
    }
}

/// P1, P2, P3, R1, R2, R3, A14: more than a million calls of every kind on four threads, a limit of three.
#[test]
fn a_million_mixed_calls_are_limited_and_counted_to_the_last_one() {
    const LIMIT: usize = 3;
    const ROUNDS: u64 = 130_000;
    // Short windows, so that buckets end all the time.
    let breaker = Breaker::disabled().window(Duration::from_millis(100));
    let command = Command::builder("threads.mixed")
        .max_concurrent(LIMIT)
        .no_timeout()
        .breaker(breaker)
        .latency_window(Duration::from_millis(40))
        .classify(classify as fn(&Result<u32, &'static str>) -> Verdict)
        .build()
        .expect("a good configuration");
    let gate = Gate::default();
    let (begun, ended, running) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(THREADS));

    let work = |seed: u64| {
        let mut draw = Draw::new(seed);
        let mut tally = Tally::default();
        for _ in 0..ROUNDS {
            // Up to three permits are held across the call, as by a thread that reads several streams: alone they fill
            // the bulkhead, and any two threads overfill it.
            let depth = draw.below(4);
            begun.fetch_add(depth + 1, SeqCst);
            let mut held = Vec::new();
            for _ in 0..depth {
                match command.admit() {
                    Ok(permit) => held.push((gate.enter(), permit)),
                    Err(rejected) => {
                        assert_eq!(rejected.reason(), Reason::ConcurrencyLimit);
                        tally[Outcome::Rejected as usize] += 1;
                    }
                }
            }
            tally[call(&command, &gate, draw.below(8)) as usize] += 1;
            for (inside, permit) in held {
                drop(inside);
                let (verdict, outcome) = match draw.below(3) {
                    0 => (Verdict::Success, Outcome::Success),
                    1 => (Verdict::Failure, Outcome::Failure),
                    _ => (Verdict::Ignored, Outcome::Ignored),
                };
                permit.resolve(verdict);
                tally[outcome as usize] += 1;
            }
            ended.fetch_add(depth + 1, SeqCst);
        }
        running.fetch_sub(1, SeqCst);
        tally
    };
    let watch = || {
        let mut last = command.snapshot();
        let mut looks = 0;
        while running.load(SeqCst) > 0 {
            let at_least = ended.load(SeqCst);
            let snapshot = command.snapshot();
            let at_most = begun.load(SeqCst);
            check_consistent(&snapshot);
            let lifetime = snapshot.lifetime();
            assert!((at_least..=at_most).contains(&lifetime.calls()), "{at_least}..={at_most} calls, {lifetime:?}");
            assert!(snapshot.in_flight() <= LIMIT && snapshot.peak_in_flight() <= LIMIT);
            for (outcome, count) in lifetime.iter() {
                assert!(count >= last.lifetime().of(outcome), "{outcome} shrank from {:?}", last.lifetime());
            }
            assert_eq!(snapshot.late_outcomes(), 0, "the circuit never changed");
            last = snapshot;
            looks += 1;
        }
        looks
    };
    let (tallies, looks) = thread::scope(|scope| {
        let watcher = scope.spawn(watch);
        let workers: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || work(seed))).collect();
        let tallies: Vec<Tally> = workers.into_iter().map(|worker| worker.join().expect("no check fails")).collect();
        (tallies, watcher.join().expect("every snapshot is sound"))
    });

    let snapshot = command.snapshot();
    assert!(begun.load(SeqCst) >= 1_000_000, "{begun:?}");
    assert!(looks > 0, "somebody looked meanwhile");
    for outcome in Outcome::ALL {
        let expected = tallies.iter().map(|tally| tally[outcome as usize]).sum::<u64>();
        assert_eq!(snapshot.lifetime().of(outcome), expected, "{outcome}");
        let none = matches!(outcome, Outcome::TimedOut | Outcome::ShortCircuited | Outcome::RateLimited);
        assert_eq!(expected == 0, none, "{outcome}: {expected}");
    }
    assert_eq!(snapshot.lifetime().calls(), begun.load(SeqCst));
    assert_eq!((snapshot.in_flight(), snapshot.queue_length(), gate.now.load(SeqCst)), (0, 0, 0));
    assert_eq!(gate.most.load(SeqCst), LIMIT, "never above the limit, and up to it");
    let permits: Vec<_> = std::iter::from_fn(|| command.admit().ok()).collect();
    assert_eq!(permits.len(), LIMIT, "all of the capacity is left, and no more");
}

/// R3: a mean lies between the extremes, also while calls end on the threads beside.
#[test]
fn the_mean_latency_lies_between_the_shortest_and_the_longest() {
    let command = Command::builder("threads.mean")
        .breaker(Breaker::disabled())
        .latency_window(Duration::from_micros(40))
        .build()
        .expect("a good configuration");
    let running = AtomicU64::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    command.run_sync(|| Ok::<_, ()>(())).expect("four calls fit");
                }
                running.fetch_sub(1, SeqCst);
            });
        }
        while running.load(SeqCst) > 0 {
            let snapshot = command.snapshot();
            let latency = snapshot.latency();
            let (Some(min), Some(mean), Some(max)) = (latency.min(), latency.mean(), latency.max()) else { continue };
            assert!((min..=max).contains(&mean), "{mean:?}, of {min:?} to {max:?} in {} calls", latency.count());
        }
    });
}

/// What a listener saw, and whether it was ever called twice at once.
#[derive(Default)]
struct Log {
    inside: AtomicBool,
    overlapped: AtomicBool,
    seen: Mutex<Vec<Event>>,
}

impl Log {
    fn note(&self, event: &Event) {
        self.overlapped.fetch_or(self.inside.swap(true, SeqCst), SeqCst);
        self.seen.lock().expect("no listener panics").push(event.clone());
        self.inside.store(false, SeqCst);
    }
}

/// S3: the changes that may happen at all, and what may cause them.
fn is_legal(from: State, to: State, cause: Cause) -> bool {
    use State::{Closed, ForcedClosed, ForcedOpen, HalfOpen, Open};
    match (from, to) {
        (Closed, Open) => matches!(cause, Cause::ErrorRate { .. } | Cause::OpenFor { .. }),
        (Open, HalfOpen) => cause == Cause::WaitOver,
        (HalfOpen, Open) => matches!(cause, Cause::ProbesFailed { .. } | Cause::OpenFor { .. }),
        (HalfOpen, Closed) => matches!(cause, Cause::ProbesPassed { .. } | Cause::Reset),
        (Open, Closed) => cause == Cause::Reset,
        (ForcedOpen, ForcedClosed) => cause == Cause::Expired,
        (_, ForcedOpen | ForcedClosed) => cause == Cause::Forced,
        (ForcedOpen | ForcedClosed, _) => matches!(cause, Cause::Cleared | Cause::Expired),
        _ => false,
    }
}

/// The transitions among `events` are one chain: each begins where the last one ended, in a later generation.
fn check_chain(events: &[Event]) -> (State, usize) {
    let (mut state, mut generation, mut transitions) = (Some(State::Closed), 1, 0);
    for event in events {
        match event {
            Event::Transition(t) => {
                assert!(state.is_none_or(|state| state == t.from), "{t} does not follow {state:?}");
                assert!(t.generation > generation, "generation {} after {generation}", t.generation);
                assert!(is_legal(t.from, t.to, t.cause), "{t}");
                (state, generation, transitions) = (Some(t.to), t.generation, transitions + 1);
            }
            Event::Missed(_) => state = None,
            _ => {}
        }
    }
    (state.unwrap_or(State::Closed), transitions)
}

fn drain(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).collect()
}

fn restless(probes: u32) -> Breaker {
    let shortest = Duration::from_nanos(1);
    Breaker::error_rate(0.5)
        .min_calls(2)
        .window(Duration::from_millis(10))
        .open_for(shortest)
        .growth(1.0)
        .probes(probes)
}

/// S5, S9, C11, C13, bug 59, X2: a circuit that trips and recovers all the time, while an operator does everything an
/// operator can do.
#[test]
fn a_restless_circuit_under_a_restless_operator_tells_one_story() {
    within_a_minute(|| {
        const CALLS: u64 = 30_000;
        const ACTIONS: u64 = 6_000;
        let log = Arc::new(Log::default());
        let listener = Arc::clone(&log);
        let command = Command::builder("threads.restless")
            .unlimited()
            .no_timeout()
            .breaker(restless(2))
            .on_event(move |event| listener.note(event))
            .build()
            .expect("a good configuration");
        let mut subscription = command.subscribe();
        let (gate, running) = (Gate::default(), AtomicU64::new(THREADS));

        let work = |seed: u64| {
            let mut draw = Draw::new(seed);
            let mut tally = Tally::default();
            for _ in 0..CALLS {
                match draw.below(10) {
                    8 => match command.admit() {
                        Ok(permit) => {
                            permit.resolve(Verdict::OpenFor(Duration::from_nanos(1)));
                            tally[Outcome::Failure as usize] += 1;
                        }
                        Err(_) => tally[Outcome::ShortCircuited as usize] += 1,
                    },
                    9 => thread::yield_now(),
                    // Without a classifier of its own an ignored error is a failure.
                    3 => tally[call(&command, &gate, 2) as usize] += 1,
                    way => tally[call(&command, &gate, way) as usize] += 1,
                }
            }
            running.fetch_sub(1, SeqCst);
            tally
        };
        let operate = || {
            let mut draw = Draw::new(99);
            let soon = Some(Duration::from_micros(20));
            for _ in 0..ACTIONS {
                match draw.below(8) {
                    0 => command.force_open("test", soon),
                    1 => command.force_closed("test", soon),
                    2 => command.force_open("test", None),
                    3 => command.force_closed("test", None),
                    4 | 5 => command.clear_override(),
                    6 => command.reset(),
                    _ => {
                        let probes = 1 + draw.below(3) as u32;
                        command.reconfigure(|c| c.breaker(restless(probes))).expect("a good configuration");
                    }
                }
            }
            command.clear_override();
        };
        let read = |subscription: &mut Events| {
            let (mut seen, mut generation, mut lifetime) = (Vec::new(), 0, 0);
            while running.load(SeqCst) > 0 {
                seen.extend(drain(subscription));
                let snapshot = command.snapshot();
                check_consistent(&snapshot);
                assert!(snapshot.generation() >= generation && snapshot.lifetime().calls() >= lifetime);
                (generation, lifetime) = (snapshot.generation(), snapshot.lifetime().calls());
            }
            seen
        };
        let (tallies, mut seen) = thread::scope(|scope| {
            let operator = scope.spawn(operate);
            let reader = scope.spawn(|| read(&mut subscription));
            let workers: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || work(seed))).collect();
            let tallies: Vec<Tally> = workers.into_iter().map(|w| w.join().expect("no check fails")).collect();
            operator.join().expect("no action panics");
            (tallies, reader.join().expect("every snapshot is sound"))
        });

        // R1: every call has ended in exactly one outcome.
        let snapshot = command.snapshot();
        for outcome in Outcome::ALL {
            let expected = tallies.iter().map(|tally| tally[outcome as usize]).sum::<u64>();
            assert_eq!(snapshot.lifetime().of(outcome), expected, "{outcome}");
        }
        assert_eq!((snapshot.in_flight(), snapshot.hold()), (0, None));
        assert!(snapshot.late_outcomes() <= snapshot.lifetime().calls());

        // S2: left alone, it closes: each call that is due is admitted, and three good ones are enough.
        let passed = (0..1_000).filter(|_| command.run_sync(|| Ok::<_, ()>(())).is_ok()).count();
        assert_eq!((command.state(), passed >= 3), (State::Closed, true), "{passed} calls passed");

        assert!(!log.overlapped.load(SeqCst), "one event at a time");
        let log = std::mem::take(&mut *log.seen.lock().expect("no listener panics"));
        let (last, transitions) = check_chain(&log);
        assert_eq!(last, State::Closed);
        assert!(transitions > 1_000, "{transitions} transitions");
        let count = |events: &[Event], which: fn(&Event) -> bool| events.iter().filter(|e| which(e)).count();
        assert!(count(&log, |e| matches!(e, Event::Reconfigured { .. })) > 0);
        assert!(count(&log, |e| matches!(e, Event::Transition(t) if t.to == State::HalfOpen)) > 0, "it was never due");
        let (set, cleared) = (
            count(&log, |e| matches!(e, Event::OverrideSet { .. })),
            count(&log, |e| matches!(e, Event::OverrideCleared { .. })),
        );
        assert!(cleared <= set && cleared > 0, "{cleared} overrides ended, {set} were set");

        // The subscriber read the same story, or was told how much of it is missing.
        seen.extend(drain(&mut subscription));
        check_chain(&seen);
        let missed = |event: &Event| if let Event::Missed(count) = event { *count } else { 0 };
        let told: u64 = seen.iter().map(missed).sum();
        assert_eq!(seen.iter().filter(|event| missed(event) == 0).count() as u64 + told, log.len() as u64);
        drop(command);
        assert_eq!(subscription.next().now_or_never(), Some(None), "the stream ends with the command");
    });
}

/// Every event is delivered by the time that those who caused it are done: none waits for the next call to come by. The
/// listener dawdles, so that others come while it is busy.
#[test]
fn no_event_is_left_for_the_next_call_to_deliver() {
    within_a_minute(|| {
        const ROUNDS: u64 = 500;
        let heard = Arc::new(AtomicU64::new(0));
        let listener = Arc::clone(&heard);
        let command = Command::builder("threads.events")
            .on_event(move |_| {
                thread::yield_now();
                listener.fetch_add(1, SeqCst);
            })
            .build()
            .expect("a good configuration");
        let barrier = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (command, barrier, heard) = (&command, &barrier, &heard);
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        barrier.wait();
                        command.reconfigure(|c| c.timeout(Duration::from_secs(1 + thread))).expect("it is good");
                        barrier.wait();
                        assert_eq!(heard.load(SeqCst), round * THREADS, "in round {round}");
                    }
                });
            }
        });
    });
}

/// C11: a hundred failures at once trip it once, and a hundred calls at once let one probe out.
#[test]
fn many_threads_trip_it_once() {
    const CROWD: u64 = 100;
    for round in 0..20 {
        let breaker = Breaker::error_rate(0.5).min_calls(1).open_for(Duration::from_secs(3_600));
        let command = Command::builder("threads.crowd").unlimited().breaker(breaker).build().expect("it is good");
        let mut events = command.subscribe();
        let barrier = Barrier::new(CROWD as usize);
        let admitted: Vec<_> = (0..CROWD).map(|_| command.admit().expect("it is closed")).collect();
        thread::scope(|scope| {
            for permit in admitted {
                scope.spawn(|| {
                    barrier.wait();
                    permit.fail();
                });
            }
        });
        let changes: Vec<_> = drain(&mut events);
        assert_eq!(changes.len(), 1, "round {round}: {changes:?}");
        assert_eq!(command.snapshot().late_outcomes(), CROWD - 1, "the others came late");
        assert_eq!(command.snapshot().lifetime().of(Outcome::Failure), CROWD);
    }
}

/// X10: a configuration is in force whole or not at all, and so it is seen.
#[test]
fn nobody_sees_half_of_a_reconfiguration() {
    let (small, large) = (3_usize, 5_usize);
    let shape = |limit: usize| {
        Config::default()
            .max_concurrent(limit)
            .timeout(Duration::from_secs(limit as u64))
            .breaker(Breaker::error_rate(0.5).min_calls(limit as u32))
    };
    let command = Command::builder("threads.reload").config(shape(small)).build().expect("a good configuration");
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000 {
                let limit = if round % 2 == 0 { large } else { small };
                command.reconfigure(|_| shape(limit)).expect("a good configuration");
            }
            running.store(false, SeqCst);
        });
        while running.load(SeqCst) {
            let snapshot = command.snapshot();
            let limit = snapshot.limit().expect("there is one");
            assert_eq!(*snapshot.config(), shape(limit), "the limit in force is {limit}");
        }
    });
    assert_eq!(command.snapshot().limit(), Some(small));
}

/// `None` when the caller lost its patience, after it had polled the call at least once.
async fn give_up_after<F: Future>(steps: u64, call: F) -> Option<F::Output> {
    let patience = async {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        output = call => Some(output),
        () = patience => None,
    }
}

/// P1, P4, bugs 29 and 36: calls that wait in line, time out there, are handed a slot and have gone, while the limit goes
/// down and up. Nobody is forgotten, and no capacity is lost.
#[test]
fn a_line_that_people_leave_at_random_moves_on() {
    within_a_minute(|| {
        const LIMIT: usize = 4;
        const TASKS: u64 = 64;
        const CALLS: u64 = 2_000;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
        let bulkhead = |limit| Bulkhead::new(limit).queue(24, Duration::from_millis(1));
        let command = Command::builder("threads.queue")
            .bulkhead(bulkhead(LIMIT))
            .no_timeout()
            .breaker(Breaker::disabled())
            .build()
            .expect("a good configuration");
        let gate = Arc::new(Gate::default());
        let task = |seed: u64| {
            let (command, gate) = (command.clone(), Arc::clone(&gate));
            async move {
                let mut draw = Draw::new(seed);
                let mut tally = Tally::default();
                for _ in 0..CALLS {
                    let steps = draw.below(4);
                    let gate = &*gate;
                    let call = command.run(|| async move {
                        let _inside = gate.enter();
                        for _ in 0..steps {
                            tokio::task::yield_now().await;
                        }
                        if steps == 3 { Err("down") } else { Ok(steps) }
                    });
                    let ended = match draw.below(3) {
                        0 => give_up_after(draw.below(6), call).await,
                        _ => Some(call.await),
                    };
                    let outcome = match ended {
                        Some(Ok(_)) => Outcome::Success,
                        Some(Err(Error::Failed(_))) => Outcome::Failure,
                        Some(Err(Error::Rejected(_))) => Outcome::Rejected,
                        Some(Err(Error::TimedOut(_))) => Outcome::TimedOut,
                        None => Outcome::Cancelled,
                    };
                    tally[outcome as usize] += 1;
                }
                tally
            }
        };
        let tallies: Vec<Tally> = runtime.expect("a runtime").block_on(async {
            let tasks: Vec<_> = (0..TASKS).map(|seed| tokio::spawn(task(seed))).collect();
            let resize = |limit| {
                command.reconfigure(|c| c.bulkhead(bulkhead(limit))).expect("a good configuration");
            };
            while tasks.iter().any(|task| !task.is_finished()) {
                resize(LIMIT / 2);
                tokio::task::yield_now().await;
                resize(LIMIT);
                tokio::task::yield_now().await;
            }
            let mut tallies = Vec::new();
            for task in tasks {
                tallies.push(task.await.expect("no task panics"));
            }
            tallies
        });

        let snapshot = command.snapshot();
        for outcome in Outcome::ALL {
            let expected = tallies.iter().map(|tally| tally[outcome as usize]).sum::<u64>();
            assert_eq!(snapshot.lifetime().of(outcome), expected, "{outcome}");
        }
        assert_eq!(snapshot.lifetime().calls(), TASKS * CALLS);
        assert_eq!((snapshot.in_flight(), snapshot.queue_length(), gate.now.load(SeqCst)), (0, 0, 0));
        assert_eq!(gate.most.load(SeqCst), LIMIT, "never above the limit, and up to it");
        for outcome in [Outcome::Success, Outcome::Rejected, Outcome::Cancelled] {
            assert!(snapshot.lifetime().of(outcome) > 0, "the test made no {outcome} call");
        }
        let permits: Vec<_> = std::iter::from_fn(|| command.admit().ok()).collect();
        assert_eq!(permits.len(), LIMIT, "all of the capacity is left, and no more");
    });
}

/// GO12, bug 65: a hundred threads ask for one name at once, and get one circuit.
#[test]
fn go12_a_hundred_threads_that_ask_for_one_name_share_one_circuit() {
    within_a_minute(|| {
        const CROWD: usize = 100;
        for round in 0..10 {
            let registry = Registry::new();
            let barrier = Barrier::new(CROWD);
            thread::scope(|scope| {
                for _ in 0..CROWD {
                    scope.spawn(|| {
                        barrier.wait();
                        let command = registry.get_or_insert("one.name", |builder| builder).expect("a good name");
                        command.run_sync(|| Ok::<_, ()>(())).expect("it is closed");
                        // All hold it until all have it: it must not disappear and be made again.
                        barrier.wait();
                        assert_eq!(command.snapshot().lifetime().calls(), CROWD as u64, "round {round}");
                    });
                }
            });
            assert_eq!(registry.commands().len(), 0, "and it goes with the last of them");
        }
    });
}
