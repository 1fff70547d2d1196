//! The rolling window and the latency figures, against lists of what happened.

use std::collections::HashMap;
use std::time::Duration;

use fusebox::{Breaker, Bulkhead, Command, Outcome, Permit, Window};

use super::input::{Input, advance, in_paused_time};

const MILLI: u64 = 1_000_000;
/// The latency window has four slices.
const SLICES: u64 = 4;

/// Where a window of counted calls shows the calls that it does not count.
const DISPLAY: Shape = Shape { width: 1_000 * MILLI, buckets: 10 };

#[derive(Clone, Copy)]
struct Shape {
    width: u64,
    buckets: u64,
}

impl Shape {
    /// Whether what happened at `then` is still in the window at `now`, for a window that began at `begun`.
    fn holds(self, begun: u64, then: u64, now: u64) -> bool {
        let bucket = |moment: u64| (moment - begun) / self.width;
        bucket(then) + self.buckets > bucket(now)
    }
}

#[derive(Clone, Copy)]
struct Event {
    at: u64,
    outcome: Outcome,
    /// It was admitted in the generation that it ended in.
    generation: Option<u64>,
}

/// What there was, in lists that nothing leaves.
struct Oracle {
    now: u64,
    /// When the window began, and its shape; `None` where the last n calls count.
    begun: u64,
    shape: Option<Shape>,
    last_calls: usize,
    slice: u64,
    events: Vec<Event>,
    /// Moment and length of every call that ended.
    latencies: Vec<(u64, u64)>,
    lifetime: HashMap<Outcome, u64>,
    generation: u64,
}

impl Oracle {
    fn record(&mut self, outcome: Outcome, admitted: Option<(u64, u64)>) {
        *self.lifetime.entry(outcome).or_default() += 1;
        let generation = admitted.map(|(_, generation)| generation).filter(|&issued| issued == self.generation);
        self.events.push(Event { at: self.now, outcome, generation });
        if let Some((at, _)) = admitted {
            self.latencies.push((self.now, self.now - at));
        }
    }

    fn counts(outcome: Outcome) -> bool {
        outcome == Outcome::Success || outcome.is_error()
    }

    fn window(&self, outcome: Outcome) -> u64 {
        let timed = |shape: Shape| {
            let live = |event: &&Event| event.outcome == outcome && shape.holds(self.begun, event.at, self.now);
            self.events.iter().filter(live).count() as u64
        };
        match self.shape {
            Some(shape) => timed(shape),
            None if !Self::counts(outcome) => timed(DISPLAY),
            None => self.last(|_| true).iter().filter(|event| event.outcome == outcome).count() as u64,
        }
    }

    /// The last calls that count, out of those that are `wanted`.
    fn last(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let counting = self.events.iter().rev().filter(|event| Self::counts(event.outcome) && wanted(event));
        counting.take(self.last_calls).copied().collect()
    }

    /// Errors and total that the circuit judges by.
    fn health(&self) -> (u64, u64) {
        let current = |event: &Event| event.generation == Some(self.generation);
        let seen = match self.shape {
            Some(shape) => {
                let live = |event: &&Event| {
                    Self::counts(event.outcome) && current(event) && shape.holds(self.begun, event.at, self.now)
                };
                self.events.iter().filter(live).copied().collect()
            }
            None => self.last(current),
        };
        let errors = seen.iter().filter(|event| event.outcome.is_error()).count();
        (errors as u64, seen.len() as u64)
    }

    fn check(&self, command: &Command) {
        let snapshot = command.snapshot();
        for outcome in Outcome::ALL {
            let ever = self.lifetime.get(&outcome).copied().unwrap_or(0);
            assert_eq!(snapshot.lifetime().of(outcome), ever, "{outcome} of all time");
            assert_eq!(snapshot.window().of(outcome), self.window(outcome), "{outcome} in the window");
        }
        let health = snapshot.health();
        assert_eq!((health.errors, health.total), self.health());

        let slices = Shape { width: self.slice, buckets: SLICES };
        let live = self.latencies.iter().filter(|&&(at, _)| slices.holds(0, at, self.now));
        let mut live: Vec<_> = live.map(|&(_, nanos)| nanos).collect();
        live.sort_unstable();
        let latency = snapshot.latency();
        let nanos = |found: Option<Duration>| found.map(|found| found.as_nanos() as u64);
        assert_eq!(latency.count(), live.len() as u64);
        assert_eq!((nanos(latency.min()), nanos(latency.max())), (live.first().copied(), live.last().copied()));
        let mean = live.iter().sum::<u64>().checked_div(live.len() as u64);
        assert_eq!(nanos(latency.mean()), mean);
        let median = nanos(latency.percentile(0.5));
        assert_eq!(median.is_some(), !live.is_empty());
        assert!(live.is_empty() || median >= live.first().copied() && median <= live.last().copied());
    }
}

fn window(input: &mut Input<'_>) -> Window {
    if input.below(4) == 0 {
        return Window::Calls(1 + input.below(6) as u32);
    }
    let (buckets, width) = (1 + input.below(5) as u32, [1, 2, 7, 1_000][input.below(4)]);
    Window::Time { length: Duration::from_millis(width * u64::from(buckets)), buckets }
}

fn shape(window: Window) -> (Option<Shape>, usize) {
    match window {
        Window::Time { length, buckets } => {
            let width = length.as_nanos() as u64 / u64::from(buckets);
            (Some(Shape { width, buckets: buckets.into() }), 0)
        }
        Window::Calls(calls) => (None, calls as usize),
    }
}

/// A step in time that ends before, at or behind an edge, of one bucket or of many.
fn step(input: &mut Input<'_>, width: u64, buckets: u64) -> u64 {
    let many = [0, 1, buckets - 1, buckets, buckets + 1, 2 * buckets, u64::from(u32::MAX), 1 << 32][input.below(8)];
    let whole = many.saturating_mul(width).min(1 << 55);
    match input.below(4) {
        0 => whole,
        1 => whole + 1,
        2 => whole.saturating_sub(1),
        _ => whole + input.number() % (2 * width),
    }
}

pub(crate) fn run(data: &[u8]) {
    in_paused_time(play(Input::new(data)));
}

async fn play(mut input: Input<'_>) {
    let (given, limit) = (window(&mut input), 1 + input.below(3));
    let slice = [1, 5, 1_000][input.below(3)] * MILLI;
    let mut breaker = Breaker::disabled();
    breaker.window = given;
    let command = Command::builder("fuzz.window")
        .bulkhead(Bulkhead::new(limit))
        .breaker(breaker)
        .latency_window(Duration::from_nanos(slice * SLICES))
        .build()
        .expect("a good configuration");
    let (shape_now, last_calls) = shape(given);
    let mut oracle = Oracle {
        now: 0,
        begun: 0,
        shape: shape_now,
        last_calls,
        slice,
        events: Vec::new(),
        latencies: Vec::new(),
        lifetime: HashMap::new(),
        generation: 1,
    };
    let mut held: Vec<(Permit<'_>, (u64, u64))> = Vec::new();
    while let Some(op) = input.byte() {
        match op % 10 {
            0..=2 => {
                let Shape { width, buckets } = oracle.shape.unwrap_or(DISPLAY);
                // A clock of 64 bits of nanoseconds has an end.
                let by = step(&mut input, width, buckets).min((1 << 61) - oracle.now);
                advance(by).await;
                oracle.now += by;
            }
            3 | 4 => match command.admit() {
                Ok(permit) => held.push((permit, (oracle.now, oracle.generation))),
                Err(_) => oracle.record(Outcome::Rejected, None),
            },
            5 | 6 if !held.is_empty() => {
                let (permit, admitted) = held.swap_remove(input.below(held.len()));
                let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Ignored, Outcome::Cancelled];
                let outcome = outcomes[input.below(4)];
                match outcome {
                    Outcome::Success => permit.succeed(),
                    Outcome::Failure => permit.fail(),
                    Outcome::Ignored => permit.ignore(),
                    _ => drop(permit),
                }
                oracle.record(outcome, Some(admitted));
            }
            7 => {
                command.reset();
                oracle.generation += 1;
                oracle.events.clear();
                oracle.latencies.clear();
            }
            8 => {
                let next = window(&mut input);
                let is_other = command.snapshot().config().breaker.window != next;
                let mut breaker = Breaker::disabled();
                breaker.window = next;
                command.reconfigure(|config| config.breaker(breaker)).expect("a good configuration");
                if is_other {
                    oracle.events.clear();
                    oracle.begun = oracle.now;
                    (oracle.shape, oracle.last_calls) = shape(next);
                }
            }
            _ => oracle.check(&command),
        }
    }
    oracle.check(&command);
    for (permit, admitted) in held {
        permit.succeed();
        oracle.record(Outcome::Success, Some(admitted));
    }
    oracle.check(&command);
    assert_eq!(command.snapshot().in_flight(), 0);
}
