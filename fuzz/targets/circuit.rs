//! A whole command under any sequence of calls, time and an operator's acts: what must hold at every step.

use std::collections::HashMap;
use std::time::Duration;

use fusebox::{Breaker, Bulkhead, Command, Event, Events, Outcome, Permit, State, Verdict};
use futures::{FutureExt, StreamExt};

use super::input::{Input, advance, in_paused_time};

const MILLI: u64 = 1_000_000;
const TIMEOUT: u64 = 3 * MILLI;

/// A call in flight, and what its caller knows of it.
struct Held<'c> {
    permit: Permit<'c>,
    generation: u64,
    /// When it may have to give way, if it is a probe.
    lease_ends: Option<u64>,
}

struct World<'c> {
    command: &'c Command,
    events: Events,
    now: u64,
    open_for: u64,
    /// The highest that applied in this generation: fewer probes, or a lower limit, call nobody back.
    probes: u32,
    limit: usize,
    held: Vec<Held<'c>>,
    told: HashMap<Outcome, u64>,
    state: State,
    generation: u64,
    /// Until when an open circuit refuses, whatever ends meanwhile.
    open_until: u64,
}

impl<'c> World<'c> {
    fn note(&mut self, outcome: Outcome) {
        *self.told.entry(outcome).or_default() += 1;
    }

    fn admit(&mut self) {
        let before = self.command.state();
        let admitted = self.command.admit();
        match admitted {
            Ok(permit) => {
                assert!(self.held.len() < self.limit, "P1: one more than the limit");
                assert!(!matches!(before, State::Open | State::ForcedOpen), "admitted while {before}");
                let generation = self.command.snapshot().generation();
                let lease = self.open_for.max(TIMEOUT);
                let lease_ends = (before == State::HalfOpen).then_some(self.now + lease);
                self.held.push(Held { permit, generation, lease_ends });
            }
            Err(rejected) => {
                assert!(
                    !(before == State::Closed && self.held.len() < self.limit),
                    "refused without a reason: {rejected}"
                );
                self.note(match rejected.reason() {
                    fusebox::Reason::ConcurrencyLimit => Outcome::Rejected,
                    _ => Outcome::ShortCircuited,
                });
            }
        }
        self.check(None);
    }

    fn end(&mut self, input: &mut Input<'_>) {
        let Held { permit, generation, .. } = self.held.swap_remove(input.below(self.held.len()));
        let late = generation != self.command.snapshot().generation();
        let wait = [1, MILLI, 4 * MILLI][input.below(3)];
        let (verdict, outcome) = match input.below(6) {
            0 | 1 => (Some(Verdict::Success), Outcome::Success),
            2 => (Some(Verdict::Failure), Outcome::Failure),
            3 => (Some(Verdict::OpenFor(Duration::from_nanos(wait))), Outcome::Failure),
            4 => (Some(Verdict::Ignored), Outcome::Ignored),
            _ => (None, Outcome::Cancelled),
        };
        match verdict {
            Some(verdict) => permit.resolve(verdict),
            None => drop(permit),
        }
        self.note(outcome);
        self.check(Some((late, outcome, verdict)));
    }

    /// What must hold after every step; `ended` says how a call ended, if one did.
    fn check(&mut self, ended: Option<(bool, Outcome, Option<Verdict>)>) {
        let snapshot = self.command.snapshot();
        // P2: what is taken is held.
        assert_eq!((snapshot.in_flight(), snapshot.queue_length()), (self.held.len(), 0));
        // R1: each call ended in one way, the one its caller knows.
        for outcome in Outcome::ALL {
            assert_eq!(snapshot.lifetime().of(outcome), self.told.get(&outcome).copied().unwrap_or(0), "{outcome}");
        }
        let health = snapshot.health();
        assert!(health.errors <= health.total && snapshot.window().calls() <= snapshot.lifetime().calls());
        // S5: each transition follows the one before it.
        let (before, generation) = (self.state, self.generation);
        while let Some(Some(event)) = self.events.next().now_or_never() {
            let Event::Transition(transition) = event else { continue };
            assert_eq!(transition.from, self.state);
            assert!(transition.generation > self.generation, "S5: told out of order");
            let by_hand = matches!(transition.cause.as_str(), "reset" | "forced" | "cleared" | "expired");
            // S3: by a probe, or by hand.
            assert!(by_hand || transition.to != State::Closed || transition.from == State::HalfOpen);
            (self.state, self.generation) = (transition.to, transition.generation);
            if transition.to == State::Open {
                self.open_until = snapshot.retry_after().map_or(0, |wait| self.now + wait.as_nanos() as u64);
            }
        }
        if let Some((late, outcome, verdict)) = ended {
            // S4, R4: what comes late, or says nothing, changes nothing.
            let silent = late || !(outcome == Outcome::Success || outcome.is_error());
            assert!(!silent || (self.state, self.generation) == (before, generation), "it was to decide nothing");
            assert!(!(self.state == State::Closed && before != State::Closed) || outcome == Outcome::Success);
            if let Some(Verdict::OpenFor(wait)) = verdict.filter(|_| self.state == State::Open) {
                // The later deadline wins.
                self.open_until = self.open_until.max(self.now + wait.as_nanos() as u64);
            }
        }
        // S6: nothing but an operator shortens a wait.
        if self.state == State::Open && self.now < self.open_until {
            assert_eq!(snapshot.retry_after(), Some(Duration::from_nanos(self.open_until - self.now)));
        }
        // S1: as many probes as there are places, those aside that may have given way.
        if snapshot.state() == State::HalfOpen {
            let current = self.held.iter().filter(|held| held.generation == snapshot.generation());
            let out = current.filter(|held| held.lease_ends.is_some_and(|ends| self.now < ends)).count();
            assert!(out <= self.probes as usize, "S1: {out} probes");
        }
    }

    /// A live change of the rules.
    fn reconfigure(&mut self, probes: u32, limit: usize) {
        let change = |breaker: Breaker| breaker.probes(probes);
        let bulkhead = Bulkhead::new(limit);
        self.command.reconfigure(|c| c.map_breaker(change).bulkhead(bulkhead)).expect("a good configuration");
        self.limit = limit;
        self.probes = self.probes.max(probes);
    }

    /// S2: with every call gone, and time, it closes again.
    async fn recover(mut self) {
        while let Some(held) = self.held.pop() {
            drop(held);
            self.note(Outcome::Cancelled);
        }
        self.check(None);
        self.command.clear_override();
        for _ in 0..=self.probes {
            advance(self.open_for.max(TIMEOUT) + 5 * MILLI).await;
            self.command.admit().expect("nothing wedges").succeed();
        }
        assert_eq!(self.command.state(), State::Closed);
    }
}

pub(crate) fn run(data: &[u8]) {
    in_paused_time(play(Input::new(data)));
}

async fn play(mut input: Input<'_>) {
    let rules = input.below(4);
    let breaker = match rules {
        0 => Breaker::error_rate(0.5).min_calls(2),
        1 => Breaker::error_rate(1.0).min_calls(3),
        2 => Breaker::disabled().consecutive_failures(2),
        _ => Breaker::error_rate(0.3).min_calls(1).last_calls(4),
    };
    let (probes, limit) = (1 + input.below(3) as u32, 1 + input.below(4));
    let open_for = [1, MILLI, 3 * MILLI, 1_000 * MILLI][input.below(4)];
    let command = Command::builder("fuzz.circuit")
        .bulkhead(Bulkhead::new(limit))
        .timeout(Duration::from_nanos(TIMEOUT))
        .breaker(breaker.probes(probes).open_for(Duration::from_nanos(open_for)).growth(1.0).jitter(0.0))
        .build()
        .expect("a good configuration");
    let mut world = World {
        command: &command,
        events: command.subscribe(),
        now: 0,
        open_for,
        probes,
        limit,
        held: Vec::new(),
        told: HashMap::new(),
        state: State::Closed,
        generation: 1,
        open_until: 0,
    };
    while let Some(op) = input.byte() {
        match op % 12 {
            0..=3 => world.admit(),
            4..=6 if !world.held.is_empty() => world.end(&mut input),
            7 => {
                let by = [1, MILLI - 1, MILLI, open_for - 1, open_for, open_for.max(TIMEOUT), 1 << 50][input.below(7)];
                let by = by.min((1 << 60) - world.now);
                advance(by).await;
                world.now += by;
                world.check(None);
            }
            8 => {
                let expiry = input.some(|input| Duration::from_nanos([1, MILLI, open_for][input.below(3)]));
                if input.flag() {
                    command.force_open("fuzz", expiry);
                } else {
                    command.force_closed("fuzz", expiry);
                }
                world.check(None);
            }
            9 => {
                command.clear_override();
                world.check(None);
            }
            10 => {
                command.reset();
                world.check(None);
            }
            11 => {
                let (probes, limit) = (1 + input.below(3) as u32, 1 + input.below(4));
                world.reconfigure(probes, limit);
                world.check(None);
            }
            _ => {}
        }
    }
    world.recover().await;
}
