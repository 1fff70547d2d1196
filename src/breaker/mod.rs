//! The circuit breaker: what failing calls cost is paid once.
//!
//! A dependency that is down makes every caller wait for its timeout, hold its resources meanwhile, and add to the
//! load that keeps the dependency down. A breaker watches the outcomes, and when a rule says so it opens: calls are
//! refused at once. After a wait it lets a few calls through as probes, and their results decide.
//!
//! [`config`] is what a user says and its checked form, [`trip`] the rules, [`machine`] the states; these are plain
//! values that are given the time. [`Circuit`] is the shell around them: one lock for everything that decides, and
//! beside it copies in atomics (state, deadline, edge of the window) so that a call through a closed circuit, and a
//! refusal by an open one, take no lock.

pub(crate) mod config;
pub(crate) mod machine;
pub(crate) mod state;
pub(crate) mod trip;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::config::{Rules, Span};
use self::machine::{Fact, Judged, Machine, Override, Refusal, Ticket, Word};
use self::state::{Figures, Forced, State};
use crate::outcome::Outcome;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::Stamp;
use crate::window::counts::{Counts, Extended, Health, Reading, Tally};
use crate::window::flow::{Flow, Left};
use crate::window::recent::Recent;
use crate::window::ring::Ring;

/// What one call ended in, as far as the circuit cares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    /// Nanoseconds that the operation ran.
    pub(crate) elapsed: u64,
    /// Set when the result asks the circuit to open, in nanoseconds.
    pub(crate) open_for: Option<u64>,
}

/// What came of recording a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    /// It had been admitted before the circuit last changed, and decided nothing.
    pub(crate) late: bool,
    /// There are facts to publish.
    pub(crate) facts: bool,
    /// The call's slot was given back with the record of it.
    pub(crate) left: Option<Left>,
}

#[derive(Debug)]
pub(crate) struct Circuit {
    /// [`Word`]: state and generation. Like all atomics here but the streak, written under the lock only.
    word: AtomicU64,
    /// Until when the word stands: see [`Machine::until`].
    until: AtomicU64,
    /// Where the window's running bucket ends.
    edge: AtomicU64,
    /// From how many nanoseconds on a call is slow.
    slow_from: AtomicU64,
    /// From how many successes on, modulo 2^39, a success must be judged: see [`Core::due`].
    due: AtomicU64,
    /// Errors in a row.
    streak: AtomicU32,
    /// Whether only the last n calls count: then every outcome that counts takes the lock.
    counts_calls: AtomicBool,
    /// Whether refusals of the bulkhead count as errors.
    counts_rejections: AtomicBool,
    /// From how many nanoseconds on a cancelled call is a failure.
    cancelled_after: AtomicU64,
    tally: Tally,
    core: Mutex<Core>,
}

/// Everything that decides.
#[derive(Debug)]
struct Core {
    rules: Rules,
    machine: Machine,
    ring: Ring<Reading>,
    /// The counters when this generation began, and when that was.
    floor: (Stamp, Reading),
    /// Successes of all time.
    good: Extended,
    /// For a window of the last n calls: those of all generations, and those of this one.
    recent: Option<(Recent, Recent)>,
    /// Whether the window has been judged since it last lost a bucket.
    judged: bool,
    outbox: VecDeque<(Fact, Figures)>,
}

/// The rolling window where a breaker counts calls: it still has to show refusals over some time.
const DISPLAY: Span = Span::Time { width: 1_000_000_000, buckets: 10 };

impl Circuit {
    pub(crate) fn new(now: Stamp, rules: Rules, flow: Arc<Flow>, draw: fn() -> f64) -> Self {
        let core = Core {
            machine: Machine::new(now, draw),
            ring: new_ring(rules.span, now, Reading::default()),
            floor: (now, Reading::default()),
            good: Extended::default(),
            recent: new_recent(rules.span),
            judged: true,
            outbox: VecDeque::new(),
            rules,
        };
        let circuit = Self {
            word: AtomicU64::new(Word::FIRST.raw()),
            until: AtomicU64::new(Stamp::NEVER.as_nanos()),
            edge: AtomicU64::new(0),
            slow_from: AtomicU64::new(0),
            due: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            counts_calls: AtomicBool::new(false),
            counts_rejections: AtomicBool::new(false),
            cancelled_after: AtomicU64::new(0),
            tally: Tally::new(flow),
            core: Mutex::new(core),
        };
        circuit.publish(&circuit.core.lock());
        circuit
    }

    // ---- admission ----

    /// Whether a call would be refused now; takes no place and never a lock when closed, or open and not due.
    #[inline]
    pub(crate) fn peek(&self, now: Stamp) -> Result<(), Refusal> {
        let word = self.word();
        if word.is_closed() {
            return Ok(());
        }
        self.standing(word, now).unwrap_or_else(|| {
            let core = self.core.lock();
            core.machine.peek(&core.rules, now)
        })
    }

    /// Admits or refuses a call, which takes a probe's place when the circuit is half-open; also says whether there are
    /// facts to publish.
    #[inline]
    pub(crate) fn admit(&self, now: Stamp, timeout: u64) -> (Result<Ticket, Refusal>, bool) {
        let word = self.word();
        if word.is_closed() {
            return (Ok(Ticket::passing(word)), false);
        }
        self.admit_slow(word, now, timeout)
    }

    #[cold]
    fn admit_slow(&self, word: Word, now: Stamp, timeout: u64) -> (Result<Ticket, Refusal>, bool) {
        if let Some(verdict) = self.standing(word, now) {
            return (verdict.map(|()| Ticket::passing(word)), false);
        }
        self.decide(now, |circuit, core| {
            // Longer than the probe may run, or it would be given up while it still has its chance.
            let lease = core.rules.open_for.max(if timeout == u64::MAX { 0 } else { timeout });
            let before = core.machine.word();
            let ticket = core.machine.admit(&core.rules, now, lease);
            circuit.settle_flip(core, now, before);
            (ticket, core.has_facts())
        })
    }

    /// What a state that the clock has not ended yet says, without a lock; `None` when that takes one.
    ///
    /// The two loads are not one: between them the state may have moved on. Each was true when it was read, so the
    /// answer is one that this call could have had, and a deadline is only ever trusted to refuse before it.
    #[inline]
    fn standing(&self, word: Word, now: Stamp) -> Option<Result<(), Refusal>> {
        let until = Stamp::from_nanos(self.until.load(Ordering::Acquire));
        if now >= until {
            return None;
        }
        match word.state() {
            State::ForcedClosed => Some(Ok(())),
            State::ForcedOpen => Some(Err(Refusal::ForcedOpen { until })),
            State::Open if until != Stamp::NEVER => Some(Err(Refusal::Open { until })),
            _ => None,
        }
    }

    // ---- outcomes ----

    /// What dropping a call that has run for `elapsed` nanoseconds amounts to.
    pub(crate) fn cancelled(&self, elapsed: u64) -> Outcome {
        let blamed = elapsed >= self.cancelled_after.load(Ordering::Relaxed);
        if blamed { Outcome::Failure } else { Outcome::Cancelled }
    }

    /// Records the end of an admitted call, and gives its slot back where one step can do both: for a success of a
    /// closed circuit.
    #[inline]
    pub(crate) fn record(&self, now: Stamp, ticket: Ticket, ending: Ending, holds_slot: bool) -> Recorded {
        let slow = ending.elapsed >= self.slow_from.load(Ordering::Relaxed);
        let simple = ending.outcome == Outcome::Success && !slow && !self.counts_calls.load(Ordering::Relaxed);
        if !simple || !ticket.is_passing() || self.word() != ticket.word {
            return self.record_slow(now, ticket, ending, slow);
        }
        self.roll(now);
        let flow = self.tally.flow();
        let (before, left) = if holds_slot {
            let (before, left) = flow.leave_good();
            (before, Some(left))
        } else {
            (flow.add_good(), None)
        };
        if self.word() != ticket.word {
            return Recorded { left, ..self.retract(before) };
        }
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
        let facts = is_due(before + 1, self.due.load(Ordering::SeqCst)) && self.judge_success(now, ticket);
        Recorded { late: false, facts, left }
    }

    #[cold]
    fn judge_success(&self, now: Stamp, ticket: Ticket) -> bool {
        self.decide(now, |circuit, core| {
            if core.machine.is_current(ticket) {
                circuit.judge(core, now, ticket, Judged::SUCCESS);
            }
            core.has_facts()
        })
    }

    /// The state changed while a success was being counted: it came late, and must not count for the new generation.
    ///
    /// The word is changed before the counters are read for the new generation, and here it is read after the add, so
    /// either the new generation's reading includes this success or this thread sees the new word. It may be both.
    #[cold]
    fn retract(&self, before: u64) -> Recorded {
        let mut core = self.core.lock();
        self.tally.add_stray();
        self.tally.add_late();
        core.floor.1.add_stray(before);
        core.ring.amend(|reading| reading.add_stray(before));
        Recorded { late: true, facts: core.has_facts(), left: None }
    }

    #[cold]
    fn record_slow(&self, now: Stamp, ticket: Ticket, ending: Ending, slow: bool) -> Recorded {
        self.decide(now, |circuit, core| {
            let Ending { outcome, open_for, .. } = ending;
            let counts = outcome == Outcome::Success || outcome.is_error();
            let late = !core.machine.is_current(ticket);
            if late {
                circuit.count_late(core, outcome, counts);
                if let Some(wait) = open_for {
                    core.machine.prolong(now, wait);
                }
            } else if counts {
                circuit.count(core, outcome, slow);
                let streak = circuit.streak.load(Ordering::Relaxed);
                let failed = outcome.is_error();
                circuit.judge(core, now, ticket, Judged { failed, slow, streak, open_for });
            } else {
                circuit.tally.add(outcome);
                core.machine.give_back(ticket);
            }
            Recorded { late, facts: core.has_facts(), left: None }
        })
    }

    /// Counts a call that was refused, or that was dropped before it was admitted.
    pub(crate) fn refuse(&self, now: Stamp, outcome: Outcome) -> bool {
        self.roll(now);
        if outcome == Outcome::Rejected {
            return self.refuse_full(now);
        }
        self.tally.add(outcome);
        false
    }

    /// A refusal by the bulkhead, which counts as an error if the user wants it to.
    fn refuse_full(&self, now: Stamp) -> bool {
        self.tally.add(Outcome::Rejected);
        if !self.word().is_closed() || !self.counts_rejections.load(Ordering::Relaxed) {
            return false;
        }
        self.decide(now, |circuit, core| {
            let ticket = Ticket::passing(core.machine.word());
            if ticket.word.is_closed() {
                circuit.tally.add_bad();
                if let Some((all, fresh)) = &mut core.recent {
                    all.push(Outcome::Rejected, false);
                    fresh.push(Outcome::Rejected, false);
                }
                let streak = circuit.streak.load(Ordering::Relaxed);
                circuit.judge(core, now, ticket, Judged { failed: true, slow: false, streak, open_for: None });
            }
            core.has_facts()
        })
    }

    /// Needs the lock: counts an outcome for the circuit.
    fn count(&self, core: &mut Core, outcome: Outcome, slow: bool) {
        if outcome == Outcome::Success {
            self.tally.flow().add_good();
            self.streak.store(0, Ordering::Relaxed);
        } else {
            self.tally.add(outcome);
            self.tally.add_bad();
            self.streak.fetch_add(1, Ordering::Relaxed);
        }
        if slow {
            self.tally.add_slow();
        }
        if let Some((all, fresh)) = &mut core.recent {
            all.push(outcome, slow);
            fresh.push(outcome, slow);
        }
    }

    /// Needs the lock: counts an outcome in the totals only.
    fn count_late(&self, core: &mut Core, outcome: Outcome, counts: bool) {
        self.tally.add(outcome);
        self.tally.add_late();
        if let (true, Some((all, _))) = (counts, &mut core.recent) {
            all.push(outcome, false);
        }
    }

    /// Needs the lock: lets the machine judge, and closes the books of a generation that this ends.
    fn judge(&self, core: &mut Core, now: Stamp, ticket: Ticket, mut result: Judged) {
        loop {
            let health = core.health(&self.tally);
            let before = core.machine.word();
            core.machine.judge(&core.rules, now, ticket, result, health);
            core.judged = true;
            self.settle_flip(core, now, before);
            let due = core.due(&self.tally);
            self.due.store(due, Ordering::SeqCst);
            // A success that was counted before it could see that it was due is judged here.
            if core.machine.word() != before || !is_due(self.tally.flow().good(), due) {
                return;
            }
            result = Judged::SUCCESS;
        }
    }

    // ---- operating ----

    pub(crate) fn force(&self, now: Stamp, forced: Forced, hold: Override) {
        self.operate(now, |machine| machine.force(now, forced, hold));
    }

    pub(crate) fn clear_override(&self, now: Stamp) {
        self.operate(now, |machine| machine.clear_override(now));
    }

    /// Closes the circuit and forgets the window; lifetime totals and overrides stay.
    pub(crate) fn reset(&self, now: Stamp) {
        self.operate(now, |machine| machine.reset(now));
        self.decide(now, |circuit, core| {
            circuit.tally.flow().take_peak();
            core.ring.clear(now, circuit.tally.read());
            if let Some((all, _)) = &mut core.recent {
                all.clear();
            }
        });
    }

    /// Takes new rules; state and counts stay. A window of another shape starts empty.
    pub(crate) fn reconfigure(&self, now: Stamp, rules: Rules) {
        self.decide(now, |circuit, core| {
            if rules.span != core.rules.span {
                let reading = circuit.tally.read();
                core.ring = new_ring(rules.span, now, reading);
                core.recent = new_recent(rules.span);
                core.floor = (now, reading);
            }
            core.rules = rules;
            core.judged = false;
            let before = core.machine.word();
            core.machine.reconsider(&core.rules, now);
            circuit.settle_flip(core, now, before);
        });
    }

    fn operate(&self, now: Stamp, change: impl FnOnce(&mut Machine)) {
        self.decide(now, |circuit, core| {
            let before = core.machine.word();
            change(&mut core.machine);
            circuit.settle_flip(core, now, before);
        });
    }

    // ---- reading ----

    #[inline]
    pub(crate) fn word(&self) -> Word {
        Word::from_raw(self.word.load(Ordering::SeqCst))
    }

    pub(crate) fn state(&self, now: Stamp) -> State {
        self.core.lock().machine.state(now)
    }

    pub(crate) fn has_facts(&self) -> bool {
        self.core.lock().has_facts()
    }

    /// The facts so far, each with what the circuit had seen then.
    pub(crate) fn take_facts(&self) -> VecDeque<(Fact, Figures)> {
        std::mem::take(&mut self.core.lock().outbox)
    }

    /// Everything that can be seen, at one moment.
    pub(crate) fn view(&self, now: Stamp) -> View {
        self.decide(now, |circuit, core| View {
            state: core.machine.state(now),
            generation: core.machine.word().generation(),
            health: core.health(&circuit.tally),
            window: core.window(&circuit.tally),
            span: core.ring.span(now),
            lifetime: circuit.tally.lifetime(&mut core.good),
            late: circuit.tally.late(),
            peak: core.ring.inner().map(|reading| reading.peak).fold(circuit.tally.flow().peak(), u32::max),
            wait: core.wait(now),
            hold: core.machine.hold(now).map(|(forced, hold)| (forced, hold.clone())),
        })
    }

    // ---- the window and the lock ----

    /// Closes the buckets that have ended: a comparison, unless one has.
    #[inline]
    pub(crate) fn roll(&self, now: Stamp) {
        if now.as_nanos() >= self.edge.load(Ordering::Relaxed) {
            self.roll_slow(now);
        }
    }

    #[cold]
    fn roll_slow(&self, now: Stamp) {
        self.decide(now, |_, _| ());
    }

    /// Does something under the lock, with the window brought up to date before and the atomics after.
    fn decide<R>(&self, now: Stamp, act: impl FnOnce(&Self, &mut Core) -> R) -> R {
        let mut core = self.core.lock();
        let tally = &self.tally;
        if now >= core.ring.edge() {
            core.ring.roll(now, || tally.read_at_edge());
            core.good.follow(tally.flow().good());
            core.judged = false;
        }
        let result = act(self, &mut core);
        self.publish(&core);
        result
    }

    /// Needs the lock: if the generation has moved on from `before`, takes down what it had seen and starts afresh.
    fn settle_flip(&self, core: &mut Core, now: Stamp, before: Word) {
        let facts = core.machine.take_facts();
        if !facts.is_empty() {
            let figures = Figures {
                health: core.health(&self.tally),
                window: core.window(&self.tally),
                span: core.ring.span(now),
                wait: core.wait(now),
            };
            core.outbox.extend(facts.into_iter().map(|fact| (fact, figures.clone())));
        }
        let word = core.machine.word();
        if word != before {
            // In this order: see `retract`.
            self.word.store(word.raw(), Ordering::SeqCst);
            core.floor = (now, self.tally.read());
            core.judged = true;
            self.streak.store(0, Ordering::Relaxed);
            if let Some((_, fresh)) = &mut core.recent {
                fresh.clear();
            }
        }
    }

    /// Needs the lock: shows the atomics what has been decided.
    fn publish(&self, core: &Core) {
        let slow_from = core.rules.slow_calls.map_or(u64::MAX, |(_, threshold)| threshold);
        self.slow_from.store(slow_from, Ordering::Relaxed);
        self.counts_calls.store(core.recent.is_some(), Ordering::Relaxed);
        self.counts_rejections.store(core.rules.count_rejections, Ordering::Relaxed);
        self.cancelled_after.store(core.rules.cancelled_after, Ordering::Relaxed);
        self.edge.store(core.ring.edge().as_nanos(), Ordering::Relaxed);
        self.due.store(core.due(&self.tally), Ordering::SeqCst);
        self.until.store(core.machine.until().as_nanos(), Ordering::Release);
        debug_assert_eq!(self.word(), core.machine.word());
    }
}

/// Everything that can be seen of a circuit.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) generation: u64,
    pub(crate) health: Health,
    pub(crate) window: Counts,
    pub(crate) span: Duration,
    pub(crate) lifetime: Counts,
    pub(crate) late: u64,
    pub(crate) peak: u32,
    pub(crate) wait: Option<Duration>,
    pub(crate) hold: Option<(Forced, Override)>,
}

impl Core {
    /// The later of the window's start and this generation's.
    fn base(&self) -> &Reading {
        if self.floor.0 >= self.ring.start() { &self.floor.1 } else { self.ring.oldest() }
    }

    fn health(&self, tally: &Tally) -> Health {
        match &self.recent {
            Some((_, fresh)) => fresh.health(),
            None => tally.read().health_since(self.base()),
        }
    }

    /// Calls by outcome in the rolling window. A window of calls holds those that count; the others are shown over
    /// some seconds, because no number of calls says when they were.
    fn window(&self, tally: &Tally) -> Counts {
        let mut counts = tally.read().since(self.ring.oldest());
        if let Some((all, _)) = &self.recent {
            let counted = all.counts();
            for (outcome, count) in counted.iter() {
                if outcome == Outcome::Success || outcome.is_error() {
                    counts.set(outcome, count);
                }
            }
        }
        counts
    }

    /// From how many successes on a success must be judged.
    ///
    /// A success makes every rate smaller, so it can trip only by making the window large enough, or by being the first
    /// to come after old successes have left the window.
    fn due(&self, tally: &Tally) -> u64 {
        if self.machine.word().state() != State::Closed || self.recent.is_some() {
            return NEVER_DUE;
        }
        let good = tally.flow().good();
        let health = self.health(tally);
        let missing = u64::from(self.rules.min_calls).saturating_sub(health.total);
        match (health.errors + health.slow, missing) {
            (0, _) => NEVER_DUE,
            (_, 0) if self.judged => NEVER_DUE,
            // The next one.
            (_, missing) => (good + missing) & Flow::GOOD_MASK,
        }
    }

    fn wait(&self, now: Stamp) -> Option<Duration> {
        self.machine.refuses_until(now).filter(|&until| until != Stamp::NEVER).map(|until| until.since(now))
    }

    fn has_facts(&self) -> bool {
        !self.outbox.is_empty()
    }
}

const NEVER_DUE: u64 = u64::MAX;

/// Whether a count of successes has come to where one must be judged, both modulo 2^39.
#[inline]
fn is_due(good: u64, due: u64) -> bool {
    due != NEVER_DUE && good.wrapping_sub(due) & Flow::GOOD_MASK <= Flow::GOOD_MASK / 2
}

fn new_ring(span: Span, now: Stamp, reading: Reading) -> Ring<Reading> {
    let Span::Time { width, buckets } = (match span {
        Span::Time { .. } => span,
        Span::Calls(_) => DISPLAY,
    }) else {
        unreachable!("the display window is a time window");
    };
    Ring::new(now, width, buckets, reading)
}

fn new_recent(span: Span) -> Option<(Recent, Recent)> {
    let Span::Calls(size) = span else { return None };
    Some((Recent::new(size), Recent::new(size)))
}
