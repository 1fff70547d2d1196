//! The whole path of a call under shuttle: more threads and longer ones than loom can exhaust, at random.
//!
//! Run with `RUSTFLAGS="--cfg fusebox_shuttle" cargo test --profile models --lib schedules`. In each schedule four
//! threads make calls of every kind against one command, a fifth operates it, and each of them moves the clock; every
//! access to an atomic and every lock is a place where another thread may go on. `FUSEBOX_SCHEDULES` and `FUSEBOX_SEED`
//! change the run; a failure prints its schedule, which `shuttle::replay` plays again. Memory order is not looked at:
//! that is what loom is for.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::StreamExt;
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner, future, thread};

use crate::breaker::config::Breaker;
use crate::breaker::machine::Ticket;
use crate::breaker::state::State;
use crate::bulkhead::Bulkhead;
use crate::command::Command;
use crate::error::{Error, Reason};
use crate::observe::bus::Events;
use crate::observe::event::Event;
use crate::outcome::{Outcome, Verdict};
use crate::registry::Registry;
use crate::sync::plant;
use crate::time::{Stamp, advance, restart};

const MILLI: u64 = 1_000_000;
const CALLERS: usize = 4;
const CALLS: usize = 4;
/// The highest limit that the operator sets.
const LIMIT: usize = 2;
/// Also how long a probe's lease is.
const OPEN_FOR: u64 = 2 * MILLI;

/// What the callers know.
struct World {
    command: Command,
    running: AtomicUsize,
    ended: [AtomicU64; Outcome::COUNT],
    /// Calls that ran on their caller's thread: only the command knows whether they were too late, as others move the
    /// clock too.
    ended_sync: AtomicU64,
    /// Probes that are held: the ticket, and when the lease ends.
    probes: std::sync::Mutex<Vec<(Ticket, Stamp)>>,
}

/// An operation in flight.
struct Running<'w>(&'w World);

impl<'w> Running<'w> {
    fn begin(world: &'w World) -> Self {
        // P1: by the operations' own count.
        assert!(world.running.fetch_add(1, SeqCst) < LIMIT, "more in flight than the limit");
        Self(world)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn draw(below: u64) -> u64 {
    shuttle::rand::thread_rng().gen_range(0..below)
}

fn classify(result: &Result<u32, u32>) -> Verdict {
    match result {
        Err(0) => Verdict::Ignored,
        Err(1) => Verdict::OpenFor(Duration::from_nanos(3 * MILLI)),
        Err(_) => Verdict::Failure,
        Ok(_) => Verdict::Success,
    }
}

impl World {
    fn new() -> Self {
        let breaker = Breaker::disabled()
            .consecutive_failures(2)
            .window(Duration::from_millis(4))
            .buckets(2)
            .open_for(Duration::from_nanos(OPEN_FOR))
            .growth(1.0)
            .jitter(0.0);
        let command = Command::builder("schedules")
            .registry(&Registry::new())
            .breaker(breaker)
            .timeout(Duration::from_nanos(OPEN_FOR))
            .bulkhead(Bulkhead::new(LIMIT).queue(2, Duration::from_millis(2)))
            .max_concurrent_fallbacks(1)
            .build()
            .expect("a good configuration");
        let ended = std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            command,
            running: AtomicUsize::new(0),
            ended,
            ended_sync: AtomicU64::new(0),
            probes: std::sync::Mutex::default(),
        }
    }

    fn note(&self, outcome: Outcome) {
        self.ended[outcome as usize].fetch_add(1, SeqCst);
    }

    /// Counts a call by what its caller was told.
    fn told(&self, result: &Result<u32, Error<u32>>) {
        self.note(match result {
            Ok(_) => Outcome::Success,
            Err(Error::Failed(0)) => Outcome::Ignored,
            Err(Error::Failed(_)) => Outcome::Failure,
            Err(Error::TimedOut(_)) => Outcome::TimedOut,
            Err(Error::Rejected(rejected)) => refusal(rejected.reason()),
        });
    }

    /// Takes some steps, between which time may pass, and ends one way or another.
    async fn operation(&self) -> Result<u32, u32> {
        let _running = Running::begin(self);
        for _ in 0..draw(3) {
            future::yield_now().await;
            advance(draw(3) * MILLI / 2);
        }
        match draw(6) {
            n @ 0..4 => Err(n as u32),
            n => Ok(n as u32),
        }
    }

    fn call(&self) {
        match draw(5) {
            0 => self.told(&future::block_on(self.command.run(|| self.operation()).classify(classify))),
            1 => self.call_with_fallback(),
            2 => self.call_and_leave(),
            3 => self.hold_a_permit(),
            _ => self.call_on_this_thread(),
        }
        advance(draw(2) * MILLI);
    }

    fn call_with_fallback(&self) {
        let mut cause = None;
        let call = self.command.run(|| self.operation()).classify(classify);
        let call = call.fallback(|error| {
            cause = Some(error);
            async {
                future::yield_now().await;
                Ok(9)
            }
        });
        let result = future::block_on(call);
        // E1: a fallback has the cause, or there was none to have.
        self.told(&cause.map_or(result, Err));
    }

    /// Polls a few times, and drops the call.
    fn call_and_leave(&self) {
        let polls = draw(4);
        let mut call = pin!(self.command.run(|| self.operation()).classify(classify));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..polls {
            if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
                return self.told(&result);
            }
            thread::yield_now();
        }
        if polls > 0 {
            self.note(Outcome::Cancelled);
        }
    }

    fn hold_a_permit(&self) {
        let permit = match self.command.admit() {
            Ok(permit) => permit,
            Err(rejected) => return self.note(refusal(rejected.reason())),
        };
        let running = Running::begin(self);
        let ticket = permit.ticket();
        if !ticket.is_passing() {
            self.note_probe(ticket, permit.admitted().plus(OPEN_FOR));
        }
        thread::yield_now();
        advance(draw(2) * MILLI);
        let verdict = [Verdict::Success, Verdict::Failure, Verdict::Ignored].get(draw(4) as usize).copied();
        self.probes.lock().expect("nobody panicked").retain(|&(held, _)| held != ticket);
        drop(running);
        match verdict {
            Some(verdict) => permit.resolve(verdict),
            None => drop(permit),
        }
        self.note(match verdict {
            Some(Verdict::Success) => Outcome::Success,
            Some(Verdict::Failure) => Outcome::Failure,
            Some(_) => Outcome::Ignored,
            None => Outcome::Cancelled,
        });
    }

    /// S1: one probe at a time, as long as its lease lasts.
    fn note_probe(&self, ticket: Ticket, lease_ends: Stamp) {
        let mut probes = self.probes.lock().expect("nobody panicked");
        let now = Stamp::now();
        if now >= lease_ends {
            return; // Its place is as good as free, and may be taken already.
        }
        let beside = probes.iter().filter(|&&(other, ends)| other.word == ticket.word && now < ends).count();
        assert_eq!(beside, 0, "two probes at once");
        probes.push((ticket, lease_ends));
    }

    fn call_on_this_thread(&self) {
        let result = self.command.run_sync(|| {
            let _running = Running::begin(self);
            advance(draw(3) * MILLI);
            if draw(2) == 0 { Ok(1) } else { Err(2) }
        });
        match result {
            Err(Error::Rejected(rejected)) => self.note(refusal(rejected.reason())),
            _ => drop(self.ended_sync.fetch_add(1, SeqCst)),
        }
    }

    fn operate(&self) {
        let expiry = Some(Duration::from_millis(1));
        match draw(8) {
            0 => self.command.force_open("drill", expiry),
            1 => self.command.force_closed("drill", expiry),
            2 => self.command.clear_override(),
            3 => self.command.reset(),
            4 => self.reconfigure(1),
            5 => self.reconfigure(LIMIT),
            6 => self.check_snapshot(),
            _ => advance(draw(6) * MILLI),
        }
    }

    fn reconfigure(&self, limit: usize) {
        let bulkhead = Bulkhead::new(limit).queue(2, Duration::from_millis(2));
        self.command.reconfigure(|config| config.bulkhead(bulkhead)).expect("a good configuration");
    }

    /// R3: what is read while calls go on agrees with itself.
    fn check_snapshot(&self) {
        let snapshot = self.command.snapshot();
        let (window, lifetime, health) = (snapshot.window(), snapshot.lifetime(), snapshot.health());
        assert!(window.calls() <= lifetime.calls());
        assert!(health.errors <= health.total && health.total <= lifetime.total());
        assert!(snapshot.latency().min() <= snapshot.latency().max());
    }

    fn check(&self, events: Events) {
        let snapshot = self.command.snapshot();
        // P2, P3: everything was given back.
        assert_eq!((snapshot.in_flight(), snapshot.queue_length(), snapshot.fallbacks().in_flight), (0, 0, 0));
        // R1: each call ended in one outcome, the one that its caller was told.
        let lifetime = snapshot.lifetime();
        let told = |outcome: Outcome| self.ended[outcome as usize].load(SeqCst);
        let by_time = [Outcome::Success, Outcome::Failure, Outcome::TimedOut];
        for outcome in Outcome::ALL {
            assert!(lifetime.of(outcome) >= told(outcome), "{outcome}: {lifetime:?}");
            assert!(by_time.contains(&outcome) || lifetime.of(outcome) == told(outcome), "{outcome}: {lifetime:?}");
        }
        assert_eq!(lifetime.calls(), Outcome::ALL.map(told).iter().sum::<u64>() + self.ended_sync.load(SeqCst));
        self.check_recovery();
        self.check_story(events);
    }

    /// S2, P3: put right, it takes as many calls as it may, and not one more.
    fn check_recovery(&self) {
        self.command.clear_override();
        self.command.reset();
        self.reconfigure(LIMIT);
        let permits = [(); LIMIT].map(|()| self.command.admit().expect("it is closed, and there is room"));
        assert!(self.command.admit().is_err(), "one more than the limit");
        permits.into_iter().for_each(|permit| permit.succeed());
        assert_eq!((self.command.state(), self.command.snapshot().in_flight()), (State::Closed, 0));
    }

    /// S3, S5: each transition was told once, in order, and none leads from open to closed but by an operator.
    fn check_story(&self, events: Events) {
        let told: Vec<_> = future::block_on(events.take_until(std::future::ready(())).collect());
        let (mut state, mut generation) = (State::Closed, 1);
        for event in &told {
            let Event::Transition(transition) = event else { continue };
            assert_eq!(transition.from, state, "{told:?}");
            assert!(transition.generation > generation, "{told:?}");
            let by_hand = matches!(transition.cause.as_str(), "reset" | "forced" | "cleared" | "expired");
            assert!(by_hand || (state, transition.to) != (State::Open, State::Closed), "{told:?}");
            (state, generation) = (transition.to, transition.generation);
        }
        assert_eq!(state, State::Closed, "{told:?}");
    }
}

fn refusal(reason: Reason) -> Outcome {
    match reason {
        Reason::ConcurrencyLimit | Reason::QueueTimeout => Outcome::Rejected,
        _ => Outcome::ShortCircuited,
    }
}

/// One schedule: four callers and an operator.
fn play() {
    restart();
    let world = Arc::new(World::new());
    let events = world.command.subscribe();
    let mut threads: Vec<_> = (0..CALLERS)
        .map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..CALLS).for_each(|_| world.call()))
        })
        .collect();
    let operated = Arc::clone(&world);
    threads.push(thread::spawn(move || (0..CALLS).for_each(|_| operated.operate())));
    threads.into_iter().for_each(|thread| thread.join().expect("it ended well"));
    world.check(events);
    restart();
}

fn run(scheduler: impl Scheduler + 'static, persistence: FailurePersistence) {
    let mut config = Config::new();
    config.failure_persistence = persistence;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(play);
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

fn schedules() -> usize {
    number("FUSEBOX_SCHEDULES", 100_000) as usize
}

fn seed() -> u64 {
    number("FUSEBOX_SEED", 1)
}

#[test]
fn calls_keep_the_promises_in_random_schedules() {
    println!("{} schedules from seed {}", schedules(), seed());
    run(RandomScheduler::new_from_seed(seed(), schedules()), FailurePersistence::Print);
}

/// Priorities that change three times: bugs that need few, but particular, preemptions (Burckhardt et al., 2010).
#[test]
fn calls_keep_the_promises_under_changing_priorities() {
    println!("{} schedules from seed {}", schedules() / 5, seed());
    run(PctScheduler::new_from_seed(seed(), 3, schedules() / 5), FailurePersistence::Print);
}

/// What the models of loom plant, where more threads and longer ones can reach it.
#[test]
fn the_schedules_find_each_planted_bug() {
    let is_found = |bug: &'static str| {
        plant(bug);
        let search = || run(RandomScheduler::new_from_seed(seed(), 20_000), FailurePersistence::None);
        let found = std::panic::catch_unwind(search).is_err();
        plant("");
        found
    };
    let missed: Vec<_> = PLANTED.into_iter().filter(|&bug| !is_found(bug)).collect();
    assert!(missed.is_empty(), "no schedule shows {missed:?}");
}

/// The others need an interleaving, or a look inside, that no caller has.
const PLANTED: [&str; 3] = ["line", "granted", "count"];
