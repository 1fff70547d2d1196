//! The command against a reference model.
//!
//! A circuit breaker goes wrong in sequences: a probe that is cancelled after an override was lifted in the window that
//! a reconfiguration made empty. Nobody writes such a test by hand. So sequences are drawn at random, a real command and
//! a deliberately naive [`reference`] both live through them in paused time, and after every step everything that can be
//! seen of the one must be what the rules make of the other: whether a call was admitted, or why not and for how long;
//! the state; the window, the lifetime and the health by outcome; the calls in flight; the events with their causes and
//! figures.
//!
//! Held here, by their ids in the list of invariants: P1, P3 (the limit, under live change too), R1 to R4 (every call ends
//! once, in one outcome), S1 to S5 and S9 (probes, no wedge, generations, one cause each), T1 and T3 (edges and idle gaps), X10.
//!
//! `FUSEBOX_MODEL_CASES` raises the number of sequences, `FUSEBOX_MODEL_SEED` draws others. A failure prints the
//! shortest sequence that fails.

mod found;
mod reference;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusebox::{
    Breaker, Bulkhead, Command, Config, Event, Events, Forced, Outcome, Permit, Reason, Registry, State, Verdict,
};
use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use reference::{How, MS, Reference, Seen, Settings, Shape, Tally, View};

/// One step of a sequence. Calls are chosen by an index that wraps, moments by what they are the edge of.
#[derive(Clone, Debug)]
enum Op {
    Admit,
    /// Admits so many times, and ends each call at once.
    Calls(usize, How),
    End(usize, How),
    Advance(Step),
    Force(Forced, Option<u64>),
    Clear,
    Reset,
    Reconfigure(Change),
    /// Compares what can be seen, in the sequences that do not after every step.
    Look,
}

#[derive(Clone, Debug)]
enum Step {
    Nothing,
    Millis(u64),
    Hour,
    /// The start of the next bucket but so many, or a nanosecond before or after it.
    Edge(u64, Side),
    /// An idle gap of so many buckets, counted from the length of the window: n - 1, n, n + 1, 2n.
    Window(Gap),
    /// The end of the next open wait, lease or override.
    Deadline(Side),
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Before,
    At,
    After,
}

#[derive(Clone, Copy, Debug)]
enum Gap {
    OneLess,
    Exactly,
    OneMore,
    Twice,
}

#[derive(Clone, Debug)]
enum Change {
    ErrorRate(Option<u64>),
    MinCalls(u64),
    Shape(Shape),
    OpenFor(u64),
    Growth(u64),
    Probes(usize),
    Consecutive(Option<u32>),
    Slow(Option<(u64, u64)>),
    CountRejections(bool),
    Limit(Option<usize>),
    Timeout(Option<u64>),
    Nothing,
}

impl Side {
    fn of(self, moment: u64) -> u64 {
        match self {
            Self::Before => moment - 1,
            Self::At => moment,
            Self::After => moment + 1,
        }
    }
}

impl Step {
    /// How far it goes from here.
    fn nanos(&self, reference: &Reference) -> u64 {
        let (width, buckets) = reference.buckets();
        let until = |moment: u64| moment.saturating_sub(reference.now);
        match self {
            Self::Nothing => 0,
            Self::Millis(millis) => millis * MS,
            Self::Hour => 3_600_000 * MS,
            Self::Edge(skipped, side) => until(side.of(reference.next_edge() + skipped * width)),
            Self::Window(Gap::OneLess) => (buckets - 1) * width,
            Self::Window(Gap::Exactly) => buckets * width,
            Self::Window(Gap::OneMore) => (buckets + 1) * width,
            Self::Window(Gap::Twice) => 2 * buckets * width,
            Self::Deadline(side) => reference.next_deadline().map_or(0, |moment| until(side.of(moment))),
        }
    }
}

impl Change {
    fn apply(&self, settings: &Settings) -> Settings {
        let mut next = settings.clone();
        match self.clone() {
            Self::ErrorRate(rate) => next.error_rate = rate,
            Self::MinCalls(calls) => next.min_calls = calls,
            Self::Shape(shape) => next.shape = shape,
            Self::OpenFor(wait) => next.open_for = wait,
            Self::Growth(factor) => next.growth = factor,
            Self::Probes(probes) => next.probes = probes,
            Self::Consecutive(failures) => next.consecutive = failures,
            Self::Slow(slow) => next.slow = slow,
            Self::CountRejections(count) => next.count_rejections = count,
            Self::Limit(limit) => next.limit = limit,
            Self::Timeout(limit) => next.timeout = limit,
            Self::Nothing => {}
        }
        next.max_open = next.max_open.map(|most| most.max(next.open_for));
        next
    }
}

/// The settings as a user writes them.
fn config(settings: &Settings, base: Config) -> Config {
    let span = Duration::from_nanos;
    let mut breaker = match settings.error_rate {
        Some(rate) => Breaker::error_rate(rate as f64 / 100.0),
        None => Breaker::disabled(),
    };
    breaker = breaker
        .min_calls(settings.min_calls as u32)
        .open_for(span(settings.open_for))
        .growth(settings.growth as f64)
        .jitter(0.0)
        .probes(settings.probes as u32)
        .count_rejections(settings.count_rejections);
    breaker = match settings.shape {
        Shape::Time { width, buckets } => breaker.window(span(width * buckets)).buckets(buckets as u32),
        Shape::Calls(calls) => breaker.last_calls(calls as u32),
    };
    breaker.max_open = settings.max_open.map(span);
    breaker.consecutive_failures = settings.consecutive;
    breaker.slow_calls = settings.slow.map(|(rate, threshold)| (rate as f64 / 100.0, span(threshold)));
    breaker.count_cancelled_after = settings.cancelled_after.map(span);
    let config = match settings.limit {
        Some(limit) => base.bulkhead(Bulkhead::new(limit)),
        None => base.unlimited(),
    };
    let config = match settings.timeout {
        Some(limit) => config.timeout(span(limit)),
        None => config.no_timeout(),
    };
    config.breaker(breaker)
}

// ---- the two, side by side ----

/// How often the sequences came to each thing that can happen: a model that never gets there proves nothing.
#[derive(Default)]
struct Reached(RefCell<BTreeMap<String, u32>>);

impl Reached {
    fn note(&self, what: impl Into<String>) {
        *self.0.borrow_mut().entry(what.into()).or_default() += 1;
    }

    fn expect(&self, cases: u32, what: &str) {
        let times = self.0.borrow().get(what).copied().unwrap_or(0);
        assert!(times >= cases / 200, "{what} came {times} times in {cases} sequences");
    }
}

struct Pair<'r> {
    command: Command,
    reference: Reference,
    permits: Vec<(usize, Permit<'static>)>,
    heard: Arc<Mutex<Vec<Event>>>,
    events: Events,
    /// Of the last transition.
    generation: u64,
    /// Where the last transition led.
    state: State,
    calls: u64,
    reached: &'r Reached,
    /// Whether everything is compared after each step. Not looking matters too: a look may bring a window up to date,
    /// and so hide that a call does not.
    watched: bool,
}

type Checked = Result<(), TestCaseError>;

impl<'r> Pair<'r> {
    fn new(settings: Settings, watched: bool, reached: &'r Reached) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let command = Command::builder("model")
            .registry(&Registry::new())
            .config(config(&settings, Config::default().no_latency()))
            .on_event(move |event| ear.lock().unwrap().push(event.clone()))
            .build()
            .expect("a good configuration");
        let events = command.subscribe();
        let reference = Reference::new(settings);
        Self {
            generation: command.snapshot().generation(),
            state: State::Closed,
            command,
            reference,
            permits: Vec::new(),
            heard,
            events,
            calls: 0,
            reached,
            watched,
        }
    }

    async fn step(&mut self, op: &Op) -> Checked {
        match op {
            Op::Admit => self.admit()?,
            Op::Calls(times, how) => {
                for _ in 0..*times {
                    let before = self.permits.len();
                    self.admit()?;
                    if self.permits.len() > before {
                        self.end(before, *how);
                    }
                }
            }
            Op::End(at, how) => {
                if !self.permits.is_empty() {
                    self.end(at % self.permits.len(), *how);
                }
            }
            Op::Advance(step) => {
                let nanos = step.nanos(&self.reference);
                tokio::time::advance(Duration::from_nanos(nanos)).await;
                self.reference.now += nanos;
            }
            Op::Force(forced, expiry) => {
                self.reference.force(*forced, *expiry);
                let expiry = expiry.map(Duration::from_nanos);
                match forced {
                    Forced::Open => self.command.force_open("test", expiry),
                    Forced::Closed => self.command.force_closed("test", expiry),
                }
            }
            Op::Clear => {
                self.reference.clear();
                self.command.clear_override();
            }
            Op::Reset => {
                self.reference.reset();
                self.command.reset();
            }
            Op::Reconfigure(change) => {
                let next = change.apply(&self.reference.settings);
                self.command.reconfigure(|now| config(&next, now)).expect("a good configuration");
                self.reference.reconfigure(next);
            }
            Op::Look => self.look()?,
        }
        self.listen()?;
        if self.watched { self.look() } else { Ok(()) }
    }

    fn admit(&mut self) -> Checked {
        let expected = self.reference.admit();
        let seen = self.command.admit_owned();
        let refusal = seen.as_ref().map(|_| ()).map_err(|refused| (refused.reason(), refused.retry_after()));
        prop_assert_eq!(refusal, expected.map(|_| ()), "admission");
        if let Err((reason, _)) = refusal {
            self.reached.note(format!("{reason:?}"));
        }
        self.calls += 1;
        if let (Ok(id), Ok(permit)) = (expected, seen) {
            self.permits.push((id, permit));
        }
        Ok(())
    }

    fn end(&mut self, at: usize, how: How) {
        let (id, permit) = self.permits.remove(at);
        self.reference.end(id, how);
        match how {
            How::Verdict(Verdict::Success) => permit.succeed(),
            How::Verdict(Verdict::Failure) => permit.fail(),
            How::Verdict(Verdict::Ignored) => permit.ignore(),
            How::Verdict(verdict) => permit.resolve(verdict),
            How::Dropped => drop(permit),
            // `resume_unwind` unwinds as `panic!` does, and prints nothing.
            How::Panicked => {
                let call = AssertUnwindSafe(move || {
                    let _permit = permit;
                    resume_unwind(Box::new("the call panicked"));
                });
                assert!(catch_unwind(call).is_err());
            }
        }
    }

    /// The events of this step: the same to listener and subscriber, as the model has them, in an unbroken chain.
    fn listen(&mut self) -> Checked {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let mut read = Vec::new();
        while let Some(Some(event)) = self.events.next().now_or_never() {
            read.push(event);
        }
        prop_assert_eq!(&heard, &read, "listener and subscriber");
        for event in &heard {
            // S5: every transition starts where the last one led, in a generation that is new.
            if let Event::Transition(transition) = event {
                prop_assert_eq!(transition.from, self.state, "chain of transitions");
                prop_assert!(transition.generation > self.generation, "generation stood still: {transition:?}");
                (self.state, self.generation) = (transition.to, transition.generation);
            }
        }
        let seen: Vec<Seen> = heard.iter().map(simplified).collect();
        for event in &seen {
            self.reached.note(event.kind());
        }
        prop_assert_eq!(seen, self.reference.take_events(), "events");
        Ok(())
    }

    fn look(&mut self) -> Checked {
        let snapshot = self.command.snapshot();
        let seen = View {
            state: snapshot.state(),
            window: tally(&snapshot.window()),
            span: snapshot.window_span(),
            lifetime: tally(&snapshot.lifetime()),
            health: snapshot.health(),
            late: snapshot.late_outcomes(),
            in_flight: snapshot.in_flight(),
            peak: snapshot.peak_in_flight(),
            limit: snapshot.limit(),
            retry_after: snapshot.retry_after(),
            hold: snapshot.hold().map(|hold| (hold.forced, hold.expires_in)),
        };
        prop_assert_eq!(&seen, &self.reference.view(), "view");
        prop_assert_eq!(self.command.state(), seen.state, "state() and snapshot()");
        self.reached.note(if seen.late > 0 { "late" } else { "in time" });
        prop_assert!(snapshot.generation() >= self.generation, "generation went back");
        // R1: every call is in flight or ended once.
        prop_assert_eq!(snapshot.lifetime().calls() + seen.in_flight as u64, self.calls, "conservation of calls");
        Ok(())
    }

    /// S2: whatever came before, and though the calls that are out never end, one hour of rest is enough: a call is
    /// admitted, and good ones close the circuit.
    async fn heal(mut self) -> Checked {
        self.look()?;
        self.command.clear_override();
        self.command.reconfigure(Config::unlimited).expect("a good configuration");
        tokio::time::advance(Duration::from_secs(3600)).await;
        let (hung, was) = (self.permits.len(), self.command.state());
        for _ in 0..self.reference.settings.probes {
            let admitted = self.command.admit();
            prop_assert!(admitted.is_ok(), "wedged: {:?}", self.command.snapshot());
            admitted.unwrap().succeed();
            if was == State::Closed {
                // The last n calls do not grow old: there even a success may trip, by being enough.
                return Ok(());
            }
        }
        prop_assert_eq!((self.command.state(), self.command.snapshot().in_flight()), (State::Closed, hung), "no cure");
        drop(self.permits);
        let end = self.command.snapshot();
        prop_assert_eq!((end.state(), end.in_flight()), (State::Closed, 0), "late calls decide nothing and leave");
        Ok(())
    }
}

fn tally(counts: &fusebox::Counts) -> Tally {
    Outcome::ALL.map(|outcome| counts.of(outcome))
}

fn simplified(event: &Event) -> Seen {
    match event {
        Event::Transition(transition) => Seen::Transition {
            from: transition.from,
            to: transition.to,
            cause: transition.cause,
            lasted: transition.lasted,
            health: transition.report.health,
            window: tally(&transition.report.window),
            span: transition.report.span,
            wait: transition.report.wait,
        },
        Event::OverrideSet { forced, .. } => Seen::OverrideSet(*forced),
        Event::OverrideCleared { forced, expired, .. } => Seen::OverrideCleared { forced: *forced, expired: *expired },
        Event::Reconfigured { changes, .. } => {
            let mut fields: Vec<_> = changes.iter().map(|change| change.field).collect();
            fields.sort_unstable();
            Seen::Reconfigured(fields)
        }
        Event::LeaseExpired { .. } => Seen::LeaseExpired,
        other => unreachable!("no sequence gives {other:?}"),
    }
}

// ---- generators ----

fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![Just(29), Just(33), Just(50), Just(67), Just(100), 1..=100_u64]
}

fn millis(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = u64> {
    range.prop_map(|millis| millis * MS)
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        3 => (millis(1..=40), 1..=6_u64).prop_map(|(width, buckets)| Shape::Time { width, buckets }),
        1 => (1..=8_usize).prop_map(Shape::Calls),
    ]
}

fn slow() -> impl Strategy<Value = Option<(u64, u64)>> {
    prop_oneof![Just(None), (rate(), millis(1..=40)).prop_map(Some)]
}

fn consecutive() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![2 => Just(None), 1 => (1..=5_u32).prop_map(Some)]
}

fn limit() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![1 => Just(None), 3 => (1..=6_usize).prop_map(Some)]
}

fn timeout() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 4 => millis(1..=200).prop_map(Some)]
}

fn error_rate() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 3 => rate().prop_map(Some)]
}

prop_compose! {
    fn settings()(
        (error_rate, min_calls, shape) in (error_rate(), 1..=6_u64, shape()),
        (open_for, growth) in (millis(1..=100), 1..=3_u64),
        most in prop_oneof![2 => Just(None), 1 => millis(0..=300).prop_map(Some)],
        (probes, consecutive, slow) in (1..=4_usize, consecutive(), slow()),
        count_rejections in prop::bool::weighted(0.3),
        cancelled_after in prop_oneof![3 => Just(None), 1 => millis(1..=40).prop_map(Some)],
        (limit, timeout) in (limit(), timeout()),
    ) -> Settings {
        let max_open = most.map(|more| open_for + more);
        Settings {
            error_rate, min_calls, shape, open_for, growth, max_open, probes, consecutive, slow, count_rejections,
            cancelled_after, limit, timeout,
        }
    }
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        5 => Just(How::Verdict(Verdict::Success)),
        6 => Just(How::Verdict(Verdict::Failure)),
        2 => Just(How::Verdict(Verdict::Ignored)),
        2 => (0..=150_u64).prop_map(|wait| How::Verdict(Verdict::OpenFor(Duration::from_millis(wait)))),
        2 => Just(How::Dropped),
        1 => Just(How::Panicked),
    ]
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Before), Just(Side::At), Just(Side::After)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Nothing),
        4 => (1..=60_u64).prop_map(Step::Millis),
        1 => Just(Step::Hour),
        4 => (0..=2_u64, side()).prop_map(|(skipped, side)| Step::Edge(skipped, side)),
        3 => prop_oneof![Just(Gap::OneLess), Just(Gap::Exactly), Just(Gap::OneMore), Just(Gap::Twice)]
            .prop_map(Step::Window),
        8 => side().prop_map(Step::Deadline),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        error_rate().prop_map(Change::ErrorRate),
        (1..=6_u64).prop_map(Change::MinCalls),
        shape().prop_map(Change::Shape),
        millis(1..=100).prop_map(Change::OpenFor),
        (1..=3_u64).prop_map(Change::Growth),
        (1..=4_usize).prop_map(Change::Probes),
        consecutive().prop_map(Change::Consecutive),
        slow().prop_map(Change::Slow),
        any::<bool>().prop_map(Change::CountRejections),
        limit().prop_map(Change::Limit),
        timeout().prop_map(Change::Timeout),
        Just(Change::Nothing),
    ]
}

/// Everything that can be done.
fn any_op() -> impl Strategy<Value = Op> {
    let expiry = || prop_oneof![1 => Just(None), 2 => millis(0..=80).prop_map(Some)];
    prop_oneof![
        24 => Just(Op::Admit),
        20 => (1..=6_usize, how()).prop_map(|(times, how)| Op::Calls(times, how)),
        30 => (any::<prop::sample::Index>(), how()).prop_map(|(at, how)| Op::End(at.index(64), how)),
        24 => step().prop_map(Op::Advance),
        2 => expiry().prop_map(|expiry| Op::Force(Forced::Open, expiry)),
        3 => expiry().prop_map(|expiry| Op::Force(Forced::Closed, expiry)),
        3 => Just(Op::Clear),
        2 => Just(Op::Reset),
        4 => change().prop_map(Op::Reconfigure),
        2 => Just(Op::Look),
    ]
}

/// Batches of calls that fill and leave the buckets of a window, and nothing else.
fn rolling_op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        6 => Just(How::Verdict(Verdict::Success)),
        4 => Just(How::Verdict(Verdict::Failure)),
        1 => Just(How::Verdict(Verdict::Ignored)),
    ];
    prop_oneof![
        3 => (1..=6_usize, how).prop_map(|(times, how)| Op::Calls(times, how)),
        2 => (0..=1_u64, side()).prop_map(|(skipped, side)| Op::Advance(Step::Edge(skipped, side))),
        1 => side().prop_map(|side| Op::Advance(Step::Deadline(side))),
    ]
}

/// A circuit that opens, probes, reopens and closes, with waits that grow and are forgiven.
fn cycling_op() -> impl Strategy<Value = Op> {
    let at_the_end = prop_oneof![1 => Just(Side::Before), 4 => Just(Side::At)];
    prop_oneof![
        4 => how().prop_map(|how| Op::Calls(1, how)),
        1 => (1..=4_usize).prop_map(|times| Op::Calls(times, How::Verdict(Verdict::Success))),
        1 => Just(Op::Admit),
        1 => (any::<prop::sample::Index>(), how()).prop_map(|(at, how)| Op::End(at.index(64), how)),
        5 => at_the_end.prop_map(|side| Op::Advance(Step::Deadline(side))),
    ]
}

/// Wild sequences reach every pair of things, and few reach far: so some do one kind of thing for long.
fn sequence() -> impl Strategy<Value = (Settings, Vec<Op>)> {
    let rolling = (settings(), 34..=80_u64, 1..=6_u64, (1..=20_u64, 2..=4_u64)).prop_map(
        |(settings, rate, min_calls, (width, buckets))| Settings {
            error_rate: Some(rate),
            min_calls,
            shape: Shape::Time { width: width * MS, buckets },
            consecutive: None,
            limit: None,
            ..settings
        },
    );
    let cycling =
        (settings(), 2..=3_u64, prop_oneof![2 => Just(1), 1 => 2..=4_usize]).prop_map(|(settings, growth, probes)| {
            Settings { growth, probes, consecutive: Some(1), max_open: None, ..settings }
        });
    prop_oneof![
        3 => (settings(), prop::collection::vec(any_op(), 1..=100)),
        1 => (rolling, prop::collection::vec(rolling_op(), 1..=60)),
        1 => (cycling, prop::collection::vec(cycling_op(), 1..=60)),
    ]
}

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Draws the sequences, from a seed that is fixed unless the environment says otherwise.
fn runner(cases: u32) -> TestRunner {
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&number("FUSEBOX_MODEL_SEED", 1).to_le_bytes());
    let runs = Runs { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Runs::default() };
    TestRunner::new_with_rng(runs, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

fn live(settings: Settings, watched: bool, ops: &[Op], reached: &Reached) -> Checked {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::new(settings, watched, reached);
        for (at, op) in ops.iter().enumerate() {
            pair.step(op).await.map_err(|why| TestCaseError::fail(format!("step {at}, {op:?}: {why}")))?;
        }
        pair.heal().await
    })
}

#[test]
fn a_command_does_what_the_reference_does() {
    let cases = number("FUSEBOX_MODEL_CASES", 4_000);
    let sequences = (sequence(), prop::bool::weighted(0.7));
    let reached = Reached::default();
    let outcome = runner(cases).run(&sequences, |((settings, ops), watched)| live(settings, watched, &ops, &reached));
    if let Err(why) = outcome {
        panic!("{why}");
    }
    for reason in [Reason::CircuitOpen, Reason::ForcedOpen, Reason::ProbeLimit, Reason::ConcurrencyLimit] {
        reached.expect(cases, &format!("{reason:?}"));
    }
    let edges = [
        "closed -> open: error_rate",
        "closed -> open: consecutive_failures",
        "closed -> open: slow_calls",
        "closed -> open: open_for",
        "open -> half_open: wait_over",
        "half_open -> open: probes_failed",
        "half_open -> open: open_for",
        "half_open -> closed: probes_passed",
        "half_open -> closed: reset",
        "open -> closed: reset",
        "open -> forced_open: forced",
        "half_open -> forced_closed: forced",
        "forced_open -> forced_closed: expired",
        "forced_closed -> forced_open: forced",
        "forced_open -> open: cleared",
        "forced_open -> closed: expired",
        "forced_closed -> half_open: cleared",
        "lease expired",
        "late",
    ];
    edges.into_iter().for_each(|edge| reached.expect(cases, edge));
}
