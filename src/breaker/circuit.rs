//! The shell around the state machine: one lock, and atomics beside it that spare calls the lock.

#[cfg(test)]
mod unlocked;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::books::{Books, Due};
use super::config::Rules;
use super::lookout::Lookout;
use super::machine::{Fact, Judged, Machine, Override, Refusal, Ticket, Word};
use super::state::{Figures, Forced, RampStage, State};
use crate::outcome::Outcome;
use crate::sync::{AtomicBool, AtomicU64, Mutex, OnceLock, Ordering, seeded};
use crate::time::Stamp;
use crate::window::counts::{Counts, Health, Tally};
use crate::window::flow::{Flow, LaneId, Left};

/// What one call ended in, as far as the circuit cares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    /// Nanoseconds that the operation ran.
    pub(crate) elapsed: u64,
    /// Set when the result asks the circuit to open, in nanoseconds.
    pub(crate) open_for: Option<u64>,
    /// Whether the call counted before it ended: see [`Circuit::overdue`].
    pub(crate) overdue: bool,
}

/// What came of recording a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    /// It had been admitted before the circuit last changed, and decided nothing.
    pub(crate) late: bool,
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
    /// From how many nanoseconds on the success of a call takes the lock: because it is slow, or, from 0 on, because only
    /// the last n calls count, each in its place.
    slow_from: AtomicU64,
    /// From how many successes on one must be judged: [`Due`].
    due: AtomicU64,
    streak: Streak,
    /// Whether refusals of the bulkhead count as errors.
    counts_rejections: AtomicBool,
    /// From how many nanoseconds on a cancelled call is a failure.
    cancelled_after: AtomicU64,
    /// Whether facts wait to be published.
    news: AtomicBool,
    /// Made when the rules first want one.
    lookout: OnceLock<Box<Lookout>>,
    tally: Tally,
    core: Mutex<Core>,
}

/// Errors in a row, below the low bits of the generation they belong to: a success that comes late ends no run but its
/// own generation's.
#[derive(Debug)]
struct Streak(AtomicU64);

impl Streak {
    const ERRORS: u64 = u32::MAX as u64;

    fn new(word: Word) -> Self {
        Self(AtomicU64::new(Self::of(word)))
    }

    fn of(word: Word) -> u64 {
        word.generation() << 32
    }

    /// Needs the lock: starts a generation.
    fn begin(&self, word: Word) {
        self.0.store(Self::of(word), Ordering::Relaxed);
    }

    /// Needs the lock: one more error; returns how many that makes.
    fn grow(&self) -> u32 {
        let saturated = self.0.load(Ordering::Relaxed) & Self::ERRORS == Self::ERRORS;
        (self.0.fetch_add(u64::from(!saturated), Ordering::Relaxed) + u64::from(!saturated)) as u32
    }

    /// A success of the generation of `word`.
    #[inline]
    fn end(&self, word: Word) {
        let mut seen = self.0.load(Ordering::Relaxed);
        while seen & Self::ERRORS != 0 && seen & !Self::ERRORS == Self::of(word) {
            match self.0.compare_exchange(seen, Self::of(word), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

/// Everything that decides.
#[derive(Debug)]
struct Core {
    /// The same for all circuits of one configuration.
    rules: Arc<Rules>,
    machine: Machine,
    books: Books,
    #[allow(clippy::box_collection, reason = "a word in place of four, for what is seldom there")]
    outbox: Option<Box<VecDeque<(Fact, Figures)>>>,
}

impl Circuit {
    pub(crate) fn new(now: Stamp, rules: Arc<Rules>, flow: Arc<Flow>, draw: fn() -> f64) -> Self {
        flow.begin_generation(Word::FIRST.generation());
        let (machine, books) = (Machine::new(now, draw), Books::new(now, rules.span));
        let core = Core { rules, machine, books, outbox: None };
        let circuit = Self {
            word: AtomicU64::new(Word::FIRST.raw()),
            until: AtomicU64::new(Stamp::NEVER.as_nanos()),
            edge: AtomicU64::new(0),
            slow_from: AtomicU64::new(0),
            due: AtomicU64::new(0),
            streak: Streak::new(Word::FIRST),
            counts_rejections: AtomicBool::new(false),
            cancelled_after: AtomicU64::new(0),
            news: AtomicBool::new(false),
            lookout: OnceLock::new(),
            tally: Tally::new(flow),
            core: Mutex::new(core),
        };
        circuit.publish(&circuit.core.lock());
        circuit
    }

    // ---- admission ----

    /// A call comes: whether it would be refused now. Takes no place, and never a lock when closed, or open and not due.
    #[inline]
    pub(crate) fn peek(&self, now: Stamp) -> Result<(), Refusal> {
        let word = self.word();
        if word.is_closed() {
            return Ok(());
        }
        self.standing(word, now).unwrap_or_else(|| self.peek_slow(now))
    }

    #[cold]
    fn peek_slow(&self, now: Stamp) -> Result<(), Refusal> {
        self.expire_then(now, |core| {
            core.machine.offer(&core.rules);
            core.machine.peek(&core.rules, now)
        })
    }

    /// Admits a call if the circuit is closed.
    #[inline(always)]
    pub(crate) fn pass(&self) -> Option<Ticket> {
        let word = self.word();
        word.is_closed().then(|| Ticket::passing(word))
    }

    /// Admits or refuses a call, which takes a probe's place when the circuit is half-open.
    #[inline]
    pub(crate) fn admit(&self, now: Stamp, timeout: u64) -> Result<Ticket, Refusal> {
        let word = self.word();
        if word.is_closed() {
            return Ok(Ticket::passing(word));
        }
        self.admit_slow(word, now, timeout)
    }

    #[cold]
    fn admit_slow(&self, word: Word, now: Stamp, timeout: u64) -> Result<Ticket, Refusal> {
        if let Some(verdict) = self.standing(word, now) {
            return verdict.map(|()| Ticket::passing(word));
        }
        self.expire_then(now, |core| {
            // Longer than the probe may run, or it would be given up while it still has its chance.
            let lease = core.rules.open_for.max(if timeout == u64::MAX { 0 } else { timeout });
            core.machine.admit(&core.rules, now, lease)
        })
    }

    /// What a state that the clock has not ended yet says, without a lock; `None` when that takes one.
    ///
    /// A word and the deadline of another would not do: the wait of an open circuit, say, would keep the override before
    /// it in force. So the word is read again, and [`Circuit::decide`] takes a deadline away before it changes the word:
    /// one that is found between two readings of the same word belongs to it.
    #[inline]
    fn standing(&self, word: Word, now: Stamp) -> Option<Result<(), Refusal>> {
        let until = Stamp::from_nanos(self.until.load(Ordering::Acquire));
        let moved_on = self.word() != word && !seeded("standing");
        if now >= until || moved_on {
            return None;
        }
        match word.state() {
            State::ForcedClosed => Some(Ok(())),
            State::ForcedOpen => Some(Err(Refusal::ForcedOpen { until })),
            State::Open => Some(Err(Refusal::Open { until })),
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
    pub(crate) fn record(&self, now: Stamp, ticket: Ticket, ending: Ending, slot: Option<LaneId>) -> Recorded {
        let simple = ending.outcome == Outcome::Success
            && ending.elapsed < self.slow_from.load(Ordering::Relaxed)
            && !ending.overdue;
        let Some(lane) = slot.filter(|_| simple && ticket.is_passing() && self.word() == ticket.word) else {
            return self.record_slow(now, ticket, ending);
        };
        if !seeded("roll") {
            self.roll(now);
        }
        // A generation that begins from here on changes what the lane expects, so that a success is counted for its own
        // generation or not at all.
        let Some(left) = self.tally.flow().leave_good(lane, ticket.word.generation()) else {
            return self.record_slow(now, ticket, ending);
        };
        self.streak.end(ticket.word);
        let due = Due::from_raw(self.due.load(Ordering::Acquire));
        if due != Due::NEVER && due.is_reached(self.tally.flow().settled_good()) {
            self.judge_success(now, ticket);
        }
        if left.crowded {
            self.widen(now);
        }
        Recorded { late: false, left: Some(left) }
    }

    /// Many threads use this circuit at once.
    #[cold]
    fn widen(&self, now: Stamp) {
        self.decide(now, |_| self.tally.flow().widen());
    }

    #[cold]
    fn judge_success(&self, now: Stamp, ticket: Ticket) {
        self.decide(now, |core| {
            if core.machine.is_current(ticket) {
                self.judge(core, now, ticket, Judged::SUCCESS);
            }
        });
    }

    #[cold]
    fn record_slow(&self, now: Stamp, ticket: Ticket, ending: Ending) -> Recorded {
        self.decide(now, |core| {
            let Ending { outcome, open_for, .. } = ending;
            let slow = core.rules.slow_calls.is_some_and(|(_, threshold)| ending.elapsed >= threshold);
            let counts = outcome == Outcome::Success || outcome.is_error();
            // Under the lock: whether a probe's place has been given to another is not in the word.
            let late = match seeded("evicted") {
                true => core.machine.word() != ticket.word,
                false => !core.machine.is_current(ticket) && !seeded("late"),
            };
            if ending.overdue && ticket.word == core.machine.word() {
                core.books.end_overdue();
                core.machine.end_overdue(ticket);
            }
            if counts {
                core.books.push(outcome, slow && !late, late);
            }
            if late {
                self.tally.add(outcome);
                self.tally.add_late();
                if let Some(wait) = open_for {
                    core.machine.prolong(now, wait);
                }
            } else if counts {
                let streak = self.count(ticket.word, outcome, slow);
                let failed = outcome.is_error();
                self.judge(core, now, ticket, Judged { failed, slow, streak, open_for, overdue: false });
            } else {
                self.tally.add(outcome);
                core.machine.give_back(ticket);
            }
            Recorded { late, left: None }
        })
    }

    /// A call in flight has become slow: it counts so until its outcome takes the place of this, or another generation
    /// begins. Whether it does.
    #[cold]
    pub(crate) fn overdue(&self, now: Stamp, ticket: Ticket) -> bool {
        self.decide(now, |core| {
            let counts = core.rules.count_in_flight && core.machine.is_current(ticket);
            if counts {
                core.books.add_overdue();
                self.judge(core, now, ticket, Judged::OVERDUE);
            }
            counts
        })
    }

    /// Counts a call that was dropped before it was admitted.
    pub(crate) fn cancel(&self, now: Stamp) {
        self.roll(now);
        self.tally.add(Outcome::Cancelled);
    }

    /// Counts a call that was refused.
    #[inline]
    pub(crate) fn refuse(&self, now: Stamp, outcome: Outcome) {
        self.roll(now);
        if self.tally.flow().refuse(outcome as usize - Outcome::FIRST_REFUSAL) {
            self.widen(now);
        }
        if outcome == Outcome::Rejected && self.counts_rejections.load(Ordering::Relaxed) {
            self.count_rejection(now);
        }
    }

    /// A refusal by the bulkhead that counts as an error.
    #[cold]
    fn count_rejection(&self, now: Stamp) {
        self.decide(now, |core| {
            let ticket = Ticket::passing(core.machine.word());
            if ticket.word.is_closed() {
                core.books.push(Outcome::Rejected, false, false);
                self.tally.add_bad();
                // By the books alone: it was no call, and is part of no run.
                self.judge(core, now, ticket, Judged::SUCCESS);
            }
        });
    }

    /// Needs the lock: counts an outcome for the circuit, and returns how many errors in a row that makes.
    fn count(&self, word: Word, outcome: Outcome, slow: bool) -> u32 {
        if slow {
            self.tally.add_slow();
        }
        if outcome == Outcome::Success {
            self.tally.flow().add_good();
            self.streak.end(word);
            return 0;
        }
        self.tally.add(outcome);
        self.tally.add_bad();
        self.streak.grow()
    }

    /// Needs the lock: lets the machine judge.
    fn judge(&self, core: &mut Core, now: Stamp, ticket: Ticket, mut result: Judged) {
        loop {
            let health = core.books.health(&self.tally);
            core.machine.judge(&core.rules, now, ticket, result, health);
            core.books.set_judged(Some(health));
            let due = core.due(&self.tally);
            self.due.store(due.raw(), Ordering::Release);
            // A success that was counted before it could see that it was due is judged here.
            if !core.machine.is_current(ticket) || !due.is_reached(self.tally.flow().settled_good()) || seeded("due") {
                return;
            }
            result = Judged::SUCCESS;
        }
    }

    // ---- operating ----

    pub(crate) fn force(&self, now: Stamp, forced: Forced, hold: Override) {
        self.expire_then(now, |core| core.machine.force(now, forced, hold));
    }

    pub(crate) fn clear_override(&self, now: Stamp) {
        self.expire_then(now, |core| core.machine.clear_override(now));
    }

    /// Closes the circuit and forgets the window; lifetime totals and overrides stay.
    pub(crate) fn reset(&self, now: Stamp) {
        self.decide(now, |core| core.machine.reset(now));
        self.decide(now, |core| core.books.clear(now, &self.tally));
    }

    /// Takes new rules; state and counts stay. A window of another shape starts empty.
    pub(crate) fn reconfigure(&self, now: Stamp, rules: Arc<Rules>) {
        self.decide(now, |core| {
            if rules.span != core.rules.span {
                core.books.reshape(now, rules.span, &self.tally);
            }
            core.rules = rules;
            core.books.set_judged(None);
            core.machine.reconsider(&core.rules, now);
        });
    }

    // ---- reading ----

    #[inline]
    pub(crate) fn word(&self) -> Word {
        Word::from_raw(self.word.load(Ordering::Acquire))
    }

    pub(crate) fn state(&self, now: Stamp) -> State {
        self.core.lock().machine.state(now)
    }

    /// What has an eye on calls in flight, if the rules have ever wanted one.
    #[inline]
    pub(crate) fn lookout(&self) -> Option<&Lookout> {
        self.lookout.get().map(Box::as_ref)
    }

    /// Whether facts wait to be published.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// Wakes the calls that an opening among the facts has ended. Follows [`Circuit::take_facts`], and is called without
    /// any lock.
    pub(crate) fn ring(&self) {
        if let Some(lookout) = self.lookout() {
            lookout.ring();
        }
    }

    /// How long an open circuit refuses calls, in nanoseconds and without a lock; `u64::MAX` if nothing is known.
    pub(crate) fn wait(&self, now: Stamp) -> u64 {
        match self.standing(self.word(), now) {
            Some(Err(Refusal::Open { until } | Refusal::ForcedOpen { until })) if until != Stamp::NEVER => {
                until.nanos_since(now)
            }
            _ => u64::MAX,
        }
    }

    /// The facts so far, each with what the circuit had seen then.
    pub(crate) fn take_facts(&self) -> VecDeque<(Fact, Figures)> {
        let mut core = self.core.lock();
        self.news.store(false, Ordering::Release);
        core.outbox.take().map(|outbox| *outbox).unwrap_or_default()
    }

    /// Everything that can be seen, at one moment.
    pub(crate) fn view(&self, now: Stamp) -> View {
        let tally = &self.tally;
        self.decide(now, |core| View {
            state: core.machine.state(now),
            generation: core.machine.word().generation(),
            health: core.books.health(tally),
            window: core.books.window(tally),
            span: core.books.span(now),
            lifetime: core.books.lifetime(tally),
            late: tally.late(),
            peak: core.books.peak(tally),
            stage: core.machine.stage(&core.rules),
            wait: core.machine.refuses_until(now).map(|until| until.since(now)),
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
        self.decide(now, |_| ());
    }

    /// Does something under the lock: the window is brought up to date before, and after it facts are taken down, a
    /// generation that began gets clean books, and the atomics are shown what was decided.
    fn decide<R>(&self, now: Stamp, act: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.core.lock();
        core.books.roll(now, &self.tally);
        let before = core.machine.word();
        let result = act(&mut core);
        self.take_down(&mut core, now);
        if core.machine.word() != before {
            // In this order: no deadline may be taken for another word's, and no call of the new generation may end
            // before its successes are expected.
            let word = core.machine.word();
            self.until.store(0, Ordering::Release);
            core.books.begin_generation(now, word.generation(), &self.tally);
            self.streak.begin(word);
            if let Some(lookout) = self.lookout() {
                lookout.note(word);
            }
            self.word.store(word.raw(), Ordering::Release);
        }
        self.publish(&core);
        result
    }

    /// As [`Circuit::decide`], once overrides that have run out are ended: a step of its own, with its own report.
    fn expire_then<R>(&self, now: Stamp, act: impl FnOnce(&mut Core) -> R) -> R {
        self.decide(now, |core| core.machine.expire_holds(now));
        self.decide(now, act)
    }

    /// Needs the lock: puts what has happened into the outbox, with what the circuit had seen.
    fn take_down(&self, core: &mut Core, now: Stamp) {
        let facts = core.machine.take_facts();
        if facts.is_empty() {
            return;
        }
        let figures = Figures {
            health: core.books.health(&self.tally),
            window: core.books.window(&self.tally),
            span: core.books.span(now),
        };
        let outbox = core.outbox.get_or_insert_default();
        outbox.extend(facts.into_iter().map(|fact| (fact, figures.clone())));
        self.news.store(true, Ordering::Release);
    }

    /// Needs the lock: shows the atomics what has been decided.
    fn publish(&self, core: &Core) {
        let slow_from = core.rules.slow_calls.map_or(u64::MAX, |(_, threshold)| threshold);
        let slow_from = if core.books.counts_calls() { 0 } else { slow_from };
        self.slow_from.store(slow_from, Ordering::Relaxed);
        if Lookout::is_wanted(&core.rules) || self.lookout().is_some() {
            self.lookout.get_or_init(Box::default).publish(&core.rules);
        }
        self.counts_rejections.store(core.rules.count_rejections, Ordering::Relaxed);
        self.cancelled_after.store(core.rules.cancelled_after, Ordering::Relaxed);
        self.edge.store(core.books.edge().as_nanos(), Ordering::Relaxed);
        self.due.store(core.due(&self.tally).raw(), Ordering::Release);
        self.until.store(core.machine.until().as_nanos(), Ordering::Release);
    }
}

impl Core {
    fn due(&self, tally: &Tally) -> Due {
        if self.machine.word().is_closed() { self.books.due(&self.rules, tally) } else { Due::NEVER }
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
    pub(crate) stage: Option<RampStage>,
    pub(crate) wait: Option<Duration>,
    pub(crate) hold: Option<(Forced, Override)>,
}

impl View {
    /// The share of calls that the state lets through, probes aside.
    pub(crate) fn admitted_share(&self) -> f64 {
        let whole = if self.state.is_passing() { 1.0 } else { 0.0 };
        self.stage.map_or(whole, |stage| stage.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::config::Breaker;

    #[test]
    fn what_share_of_calls_gets_in_is_the_states_affair_or_the_stages() {
        let mut view = unlocked::subject(Breaker::error_rate(0.5)).circuit.view(Stamp::from_nanos(0));
        let passing = [State::Closed, State::ForcedClosed];
        for state in State::ALL {
            view.state = state;
            assert_eq!(view.admitted_share(), if passing.contains(&state) { 1.0 } else { 0.0 }, "{state}");
        }
        view.stage = Some(RampStage { number: 1, of: 2, share: 0.25, ended: 0, failed: 0, slow: 0 });
        assert_eq!(view.admitted_share(), 0.25);
    }

    /// S4, X8: a late success ends no other generation's run, and a run that is as long as can be counted stays so.
    #[test]
    fn a_run_of_errors_is_ended_by_its_own_generation_only() {
        let words = [Word::FIRST, Word::from_raw(Word::FIRST.raw() + (1 << 3))];
        let streak = Streak::new(words[0]);
        assert_eq!([streak.grow(), streak.grow()], [1, 2]);
        streak.begin(words[1]);
        assert_eq!(streak.grow(), 1);
        streak.end(words[0]);
        assert_eq!(streak.grow(), 2);
        streak.end(words[1]);
        assert_eq!(streak.grow(), 1);
        streak.0.fetch_or(Streak::ERRORS, Ordering::Relaxed);
        assert_eq!([streak.grow(), streak.grow()], [u32::MAX; 2]);
    }
}
