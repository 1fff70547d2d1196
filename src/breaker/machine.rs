//! The state machine: a plain struct that is given the time and returns facts.
//!
//! It owns the state alone, under its owner's lock. Every change goes through [`Machine::flip`], which starts a new
//! generation; a ticket carries the generation it was issued in, so a result that comes late is recognised and decides
//! nothing. A probe is a place with a lease: a probe that is lost (its task hangs, or its permit was leaked) gives way
//! when its lease ends, so a half-open circuit cannot get stuck. A ramp ([`ramp`](super::ramp)) holds no places: it counts
//! the calls that come, and cannot get stuck either.

#[cfg(test)]
mod explore;

use std::collections::VecDeque;

use super::config::Rules;
use super::ramp::{Climb, Step};
use super::state::{Cause, Forced, RampStage, State};
use super::trip::{self, Evidence};
use crate::time::Stamp;
use crate::window::counts::Health;

/// State and generation in one word, so that one load tells both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    const STATE_BITS: u32 = 3;
    const STATE_MASK: u64 = (1 << Self::STATE_BITS) - 1;

    pub(crate) const FIRST: Self = Self::new(1, State::Closed);

    const fn new(generation: u64, state: State) -> Self {
        Self(generation << Self::STATE_BITS | state as u64)
    }

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    pub(crate) const fn generation(self) -> u64 {
        self.0 >> Self::STATE_BITS
    }

    /// Whether the state is closed: what a healthy call asks.
    #[inline]
    pub(crate) const fn is_closed(self) -> bool {
        self.0 & Self::STATE_MASK == State::Closed as u64
    }

    #[inline]
    pub(crate) const fn state(self) -> State {
        State::ALL[(self.0 & Self::STATE_MASK) as usize]
    }
}

/// Admission to the circuit: the word it was issued under, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) word: Word,
    /// A [`Pass`] in one word: as it stands it would be written in two pieces and read in one, which costs each call as
    /// much as an atomic step.
    pass: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Free,
    /// A probe, by the number of its place.
    Probe(u64),
    /// One of the calls that this stage of a ramp admits.
    Stage(u64),
}

impl Ticket {
    #[inline]
    pub(crate) const fn passing(word: Word) -> Self {
        Self::new(word, Pass::Free)
    }

    const fn new(word: Word, pass: Pass) -> Self {
        let pass = match pass {
            Pass::Free => 0,
            Pass::Probe(place) => place << 2 | 1,
            Pass::Stage(stage) => stage << 2 | 2,
        };
        Self { word, pass }
    }

    const fn pass(self) -> Pass {
        match (self.pass & 3, self.pass >> 2) {
            (0, _) => Pass::Free,
            (1, place) => Pass::Probe(place),
            (_, stage) => Pass::Stage(stage),
        }
    }

    /// Whether the circuit let it pass as one of any number, and not to be judged by it.
    #[inline]
    pub(crate) const fn is_passing(self) -> bool {
        self.pass == 0
    }
}

/// Why the circuit refuses, and until when if the clock decides that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Open {
        until: Stamp,
    },
    ForcedOpen {
        until: Stamp,
    },
    ProbeLimit,
    /// The share of calls that a ramp admits is used up.
    Ramp,
}

/// An operator's hold on the circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) reason: String,
    /// [`Stamp::NEVER`] without an expiry.
    pub(crate) until: Stamp,
}

/// Something that happened, in the order in which it did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    Changed {
        from: State,
        to: State,
        cause: Cause,
        generation: u64,
        /// How long the state before had lasted, in nanoseconds.
        lasted: u64,
        /// Until when the new state refuses every call, if the clock decides that.
        refuses_until: Option<Stamp>,
        at: Stamp,
    },
    OverrideSet {
        forced: Forced,
        hold: Override,
        at: Stamp,
    },
    OverrideCleared {
        forced: Forced,
        hold: Override,
        expired: bool,
        at: Stamp,
    },
    LeaseExpired {
        generation: u64,
        at: Stamp,
    },
    /// A stage of a ramp has begun.
    Stage {
        stage: RampStage,
        generation: u64,
        at: Stamp,
    },
}

/// Nearly all circuits are closed, so what the others need lies elsewhere.
#[derive(Clone, Debug)]
enum Phase {
    Closed {
        since: Stamp,
    },
    Open {
        until: Stamp,
    },
    HalfOpen(Box<Episode>),
    /// Half-open still: its probes have passed, and a ramp leads up to closed. Never under an override: see
    /// [`Machine::flip_from`].
    Ramping(Box<Climb>),
}

/// The probes of one half-open episode.
#[derive(Clone, Debug, Default)]
struct Episode {
    evidence: Evidence,
    /// Probes whose result is awaited.
    out: Vec<Probe>,
    issued: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    id: u64,
    lease_ends: Stamp,
    /// Slow, and still out.
    overdue: bool,
}

#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    generation: u64,
    /// When the state last changed.
    changed: Stamp,
    /// Reopenings in a row that are not forgiven yet.
    level: u32,
    /// Holds, by [`Forced`]: open first, so that it wins. Boxed, like the facts: of a thousand circuits few have any.
    holds: Option<Box<[Option<Override>; 2]>>,
    #[allow(clippy::box_collection, reason = "a word in place of four, for what is seldom there")]
    facts: Option<Box<VecDeque<Fact>>>,
    draw: fn() -> f64,
}

impl Machine {
    /// A closed circuit. `draw` gives the jitter, uniform in [0, 1).
    pub(crate) fn new(now: Stamp, draw: fn() -> f64) -> Self {
        Self {
            phase: Phase::Closed { since: now },
            generation: Word::FIRST.generation(),
            changed: now,
            level: 0,
            holds: None,
            facts: None,
            draw,
        }
    }

    pub(crate) fn word(&self) -> Word {
        Word::new(self.generation, self.stored())
    }

    /// Until when [`Machine::word`] holds without a call: the end of the wait, or of the override.
    pub(crate) fn until(&self) -> Stamp {
        match (self.stored_hold(), &self.phase) {
            (Some((_, hold)), _) => hold.until,
            (None, Phase::Open { until }) => *until,
            (None, _) => Stamp::NEVER,
        }
    }

    /// The state as a call at `now` would find it. Changes nothing.
    pub(crate) fn state(&self, now: Stamp) -> State {
        match (self.hold(now), &self.phase) {
            (Some((forced, _)), _) => forced.state(),
            (None, Phase::Closed { .. }) => State::Closed,
            (None, Phase::Open { until }) if now < *until => State::Open,
            (None, Phase::Open { .. } | Phase::HalfOpen(_) | Phase::Ramping(_)) => State::HalfOpen,
        }
    }

    /// The stage of its ramp that the circuit is in.
    pub(crate) fn stage(&self, rules: &Rules) -> Option<RampStage> {
        match (&self.phase, &rules.ramp) {
            (Phase::Ramping(climb), Some(steps)) => Some(climb.show(steps)),
            _ => None,
        }
    }

    /// The override that is in force at `now`.
    pub(crate) fn hold(&self, now: Stamp) -> Option<(Forced, &Override)> {
        self.find_hold(|hold| now < hold.until)
    }

    /// A call has come, admitted or not: a ramp admits by their number.
    pub(crate) fn offer(&mut self, rules: &Rules) {
        if let (Phase::Ramping(climb), Some(steps)) = (&mut self.phase, &rules.ramp) {
            climb.offer(steps);
        }
    }

    /// Whether a call would be refused now, without taking a place: what comes between this and [`Machine::admit`]
    /// (the bulkhead) must not use up a probe.
    pub(crate) fn peek(&self, rules: &Rules, now: Stamp) -> Result<(), Refusal> {
        let climbs = |climb: &Climb| rules.ramp.as_ref().is_none_or(|steps| climb.admits(steps, now));
        match (self.state(now), &self.phase) {
            (State::ForcedOpen, _) => Err(Refusal::ForcedOpen { until: self.until() }),
            (State::Open, &Phase::Open { until }) => Err(Refusal::Open { until }),
            (State::HalfOpen, Phase::HalfOpen(episode)) if !episode.has_place(rules, now) => Err(Refusal::ProbeLimit),
            (State::HalfOpen, Phase::Ramping(climb)) if !climbs(climb) => Err(Refusal::Ramp),
            _ => Ok(()),
        }
    }

    /// Until when every call is refused, while that is so and the clock decides it.
    pub(crate) fn refuses_until(&self, now: Stamp) -> Option<Stamp> {
        let until = match (self.state(now), &self.phase) {
            (State::ForcedOpen, _) => self.until(),
            (State::Open, &Phase::Open { until }) => until,
            _ => return None,
        };
        (until != Stamp::NEVER).then_some(until)
    }

    /// Admits or refuses a call, which takes a probe's place when the circuit is half-open. `lease` is in nanoseconds.
    pub(crate) fn admit(&mut self, rules: &Rules, now: Stamp, lease: u64) -> Result<Ticket, Refusal> {
        self.expire_holds(now);
        self.peek(rules, now)?;
        if self.stored() == State::Open {
            self.flip(now, Cause::WaitOver, |machine| machine.phase = Phase::HalfOpen(Box::default()));
        }
        let word = self.word();
        let generation = self.generation;
        match &mut self.phase {
            Phase::HalfOpen(episode) if !word.state().is_passing() => {
                if episode.evict_overdue(rules, now) {
                    self.facts.get_or_insert_default().push_back(Fact::LeaseExpired { generation, at: now });
                }
                Ok(Ticket::new(word, Pass::Probe(episode.issue(now.plus(lease)))))
            }
            Phase::Ramping(climb) => {
                climb.take(now);
                Ok(Ticket::new(word, Pass::Stage(climb.stage.into())))
            }
            _ => Ok(Ticket::passing(word)),
        }
    }

    /// Whether a result under this ticket may still decide something. A result that comes late never does.
    pub(crate) fn is_current(&self, ticket: Ticket) -> bool {
        let stands = match (ticket.pass(), &self.phase) {
            (Pass::Probe(id), Phase::HalfOpen(episode)) => episode.out.iter().any(|probe| probe.id == id),
            // What is left of the probes when they have passed decides nothing more.
            (Pass::Probe(_), _) => false,
            (Pass::Free | Pass::Stage(_), _) => true,
        };
        ticket.word == self.word() && stands
    }

    /// Judges a result of a current ticket that counted; `health` and `streak` include it. `open_for`, in nanoseconds,
    /// is set when the result asks for it.
    pub(crate) fn judge(&mut self, rules: &Rules, now: Stamp, ticket: Ticket, result: Judged, health: Health) {
        match (self.stored(), result.open_for) {
            (State::Closed | State::HalfOpen, Some(wait)) => {
                self.forgive(rules, now);
                self.open(now, now.plus(wait), Cause::OpenFor { wait: trip::as_wait(wait) });
            }
            (State::Closed, None) => {
                if let Some(cause) = trip::tripped(rules, health, result.streak) {
                    self.trip(rules, now, cause);
                }
            }
            (State::HalfOpen, None) => match ticket.pass() {
                Pass::Stage(stage) => self.judge_stage(rules, now, stage, result),
                _ => self.judge_probe(rules, now, ticket, result),
            },
            // A forced circuit counts and does not judge.
            _ => {}
        }
    }

    /// A call that counted as slow while it was in flight has ended; of this generation.
    pub(crate) fn end_overdue(&mut self, ticket: Ticket) {
        if let (Phase::Ramping(climb), Pass::Stage(_)) = (&mut self.phase, ticket.pass()) {
            climb.overdue = climb.overdue.saturating_sub(1);
        }
    }

    /// A late result can do one thing: ask an open circuit to stay open longer.
    pub(crate) fn prolong(&mut self, now: Stamp, wait: u64) {
        if let (State::Open, Phase::Open { until }) = (self.stored(), &mut self.phase) {
            *until = (*until).max(now.plus(wait));
        }
    }

    /// Gives a probe's place back: its result was ignored, or it was dropped.
    pub(crate) fn give_back(&mut self, ticket: Ticket) {
        if let (Phase::HalfOpen(episode), Pass::Probe(id)) = (&mut self.phase, ticket.pass()) {
            episode.out.retain(|probe| probe.id != id);
        }
    }

    pub(crate) fn force(&mut self, now: Stamp, forced: Forced, hold: Override) {
        self.expire_holds(now);
        self.tell(Fact::OverrideSet { forced, hold: hold.clone(), at: now });
        let was = self.stored();
        self.holds.get_or_insert_default()[forced as usize] = Some(hold);
        self.flip_from(was, now, Cause::Forced);
    }

    pub(crate) fn clear_override(&mut self, now: Stamp) {
        self.expire_holds(now);
        let was = self.stored();
        if self.release(now, false, |_| true) {
            self.flip_from(was, now, Cause::Cleared);
        }
    }

    /// Back to closed, as if never tripped. An override stays: lifting one is a decision of its own.
    pub(crate) fn reset(&mut self, now: Stamp) {
        self.level = 0;
        self.close(now, Cause::Reset);
    }

    pub(crate) fn take_facts(&mut self) -> VecDeque<Fact> {
        self.facts.take().map(|facts| *facts).unwrap_or_default()
    }

    fn tell(&mut self, fact: Fact) {
        self.facts.get_or_insert_default().push_back(fact);
    }

    /// Judges the probes so far by rules that have changed. With fewer probes to come, those that have ended may be all
    /// there will be, and nothing else would ever decide. A ramp that is taken away leaves a circuit whose probes passed.
    pub(crate) fn reconsider(&mut self, rules: &Rules, now: Stamp) {
        if self.stored() != State::HalfOpen {
            return;
        }
        if let (Phase::Ramping(climb), Some(steps)) = (&mut self.phase, &rules.ramp) {
            climb.fit(steps);
        }
        match (&self.phase, &rules.ramp) {
            (Phase::Ramping(climb), None) => self.close(now, Cause::RampPassed { stages: climb.stage }),
            (Phase::Ramping(climb), Some(steps)) if climb.fails(rules, steps, 0) => self.fall(rules, now),
            _ => self.weigh(rules, now),
        }
    }

    fn judge_probe(&mut self, rules: &Rules, now: Stamp, ticket: Ticket, result: Judged) {
        let Phase::HalfOpen(episode) = &mut self.phase else { return };
        if result.overdue {
            let its_place = |probe: &&mut Probe| Pass::Probe(probe.id) == ticket.pass();
            episode.out.iter_mut().filter(its_place).for_each(|probe| probe.overdue = true);
        } else {
            episode.evidence.add(result);
            self.give_back(ticket);
        }
        self.weigh(rules, now);
    }

    fn weigh(&mut self, rules: &Rules, now: Stamp) {
        let Phase::HalfOpen(episode) = &self.phase else { return };
        let Episode { evidence, out, .. } = &**episode;
        let evidence = evidence.with_overdue(out.iter().filter(|probe| probe.overdue).count() as u32);
        let Evidence { ended, failed, slow } = evidence;
        if ended == 0 {
            return;
        }
        match (trip::verdict(rules, evidence), &rules.ramp) {
            (Some(true), None) => self.close(now, Cause::ProbesPassed { passed: ended - failed }),
            (Some(true), Some(_)) => self.climb(rules, now, 0),
            (Some(false), _) => self.reopen(rules, now, Cause::ProbesFailed { failed: failed.max(slow), ended }),
            (None, _) => {}
        }
    }

    fn judge_stage(&mut self, rules: &Rules, now: Stamp, stage: u64, result: Judged) {
        let (Phase::Ramping(climb), Some(steps)) = (&mut self.phase, &rules.ramp) else { return };
        let step = climb.judge(rules, steps, now, stage, result);
        match (step, climb.stage + 1) {
            (Step::Stay, _) => {}
            (Step::Up, next) => self.climb(rules, now, next),
            (Step::Top, stages) => self.close(now, Cause::RampPassed { stages }),
            (Step::Fall, _) => self.fall(rules, now),
        }
    }

    /// Begins a stage of the ramp. The state stays half-open, and so does the generation.
    fn climb(&mut self, rules: &Rules, now: Stamp, stage: u32) {
        let Some(steps) = &rules.ramp else { return };
        let mut climb = Climb::begin(steps, stage, now);
        if let Phase::Ramping(before) = &self.phase {
            climb.overdue = before.overdue;
        }
        self.tell(Fact::Stage { stage: climb.show(steps), generation: self.generation, at: now });
        self.phase = Phase::Ramping(Box::new(climb));
    }

    /// The stage that the circuit is in has failed.
    fn fall(&mut self, rules: &Rules, now: Stamp) {
        if let Phase::Ramping(climb) = &self.phase {
            let (stage, Evidence { ended, failed, slow }) = (climb.stage, climb.feared());
            self.reopen(rules, now, Cause::RampFailed { stage: stage + 1, failed: failed.max(slow), ended });
        }
    }

    fn close(&mut self, now: Stamp, cause: Cause) {
        self.flip(now, cause, |machine| machine.phase = Phase::Closed { since: now });
    }

    /// Opens a half-open circuit again, for longer.
    fn reopen(&mut self, rules: &Rules, now: Stamp, cause: Cause) {
        // Where the wait has stopped growing the level stops too, or an outage of a day would take a day to be forgiven.
        let grows = trip::base_wait(rules, self.level + 1) > trip::base_wait(rules, self.level);
        self.level += u32::from(grows);
        self.trip_at_level(rules, now, cause);
    }

    fn trip(&mut self, rules: &Rules, now: Stamp, cause: Cause) {
        self.forgive(rules, now);
        self.trip_at_level(rules, now, cause);
    }

    /// Takes off what a closed circuit has earned since it closed.
    fn forgive(&mut self, rules: &Rules, now: Stamp) {
        if let Phase::Closed { since } = self.phase {
            self.level -= trip::forgiven(rules, self.level, now.nanos_since(since));
        }
    }

    fn trip_at_level(&mut self, rules: &Rules, now: Stamp, cause: Cause) {
        let wait = trip::jittered(rules, trip::base_wait(rules, self.level), (self.draw)());
        self.open(now, now.plus(wait), cause);
    }

    fn open(&mut self, now: Stamp, until: Stamp, cause: Cause) {
        self.flip(now, cause, |machine| machine.phase = Phase::Open { until });
    }

    /// The one function that changes the state.
    fn flip(&mut self, now: Stamp, cause: Cause, change: impl FnOnce(&mut Self)) {
        let from = self.stored();
        change(self);
        self.flip_from(from, now, cause);
    }

    /// Starts the generation that follows a change, and returns every probe's place: under an override, and after
    /// one, the results of earlier calls decide nothing. A ramp begins anew, with probes.
    fn flip_from(&mut self, from: State, now: Stamp, cause: Cause) {
        self.generation += 1;
        if matches!(self.phase, Phase::HalfOpen(_) | Phase::Ramping(_)) {
            self.phase = Phase::HalfOpen(Box::default());
        }
        let to = self.stored();
        if from != to {
            let lasted = now.nanos_since(self.changed);
            let refuses_until = self.refuses_until(now);
            self.changed = now;
            let generation = self.generation;
            self.tell(Fact::Changed { from, to, cause, generation, lasted, refuses_until, at: now });
        }
    }

    /// The state as stored: an override or a wait that has run out still shows.
    fn stored(&self) -> State {
        match (self.stored_hold(), &self.phase) {
            (Some((forced, _)), _) => forced.state(),
            (None, Phase::Closed { .. }) => State::Closed,
            (None, Phase::Open { .. }) => State::Open,
            (None, Phase::HalfOpen(_) | Phase::Ramping(_)) => State::HalfOpen,
        }
    }

    /// The override that is stored, in force or not.
    fn stored_hold(&self) -> Option<(Forced, &Override)> {
        self.find_hold(|_| true)
    }

    fn find_hold(&self, which: impl Fn(&Override) -> bool) -> Option<(Forced, &Override)> {
        let holds = self.holds.as_ref()?;
        let forced = [Forced::Open, Forced::Closed].into_iter();
        forced.filter_map(|forced| Some((forced, holds[forced as usize].as_ref()?))).find(|(_, hold)| which(hold))
    }

    /// Ends the overrides that have run out.
    pub(crate) fn expire_holds(&mut self, now: Stamp) {
        let was = self.stored();
        if self.release(now, true, |hold| hold.until <= now) {
            self.flip_from(was, now, Cause::Expired);
        }
    }

    fn release(&mut self, now: Stamp, expired: bool, which: impl Fn(&Override) -> bool) -> bool {
        let Some(mut holds) = self.holds.take() else { return false };
        let mut released = false;
        for forced in [Forced::Open, Forced::Closed] {
            if let Some(hold) = holds[forced as usize].take_if(|hold| which(hold)) {
                self.tell(Fact::OverrideCleared { forced, hold, expired, at: now });
                released = true;
            }
        }
        self.holds = holds.iter().any(Option::is_some).then_some(holds);
        released
    }
}

/// A result that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
    /// Errors in a row, this one included.
    pub(crate) streak: u32,
    pub(crate) open_for: Option<u64>,
    /// It is none yet: the call is in flight, and slow for certain.
    pub(crate) overdue: bool,
}

impl Judged {
    pub(crate) const SUCCESS: Self = Self { failed: false, slow: false, streak: 0, open_for: None, overdue: false };
    pub(crate) const OVERDUE: Self = Self { slow: true, overdue: true, ..Self::SUCCESS };
}

impl Episode {
    /// Whether one more probe could go out. A place whose lease has ended is as good as free.
    fn has_place(&self, rules: &Rules, now: Stamp) -> bool {
        let held = self.out.iter().filter(|probe| now < probe.lease_ends).count();
        self.evidence.ended as usize + held < rules.probes as usize
    }

    /// Makes room by taking the place of the probe that is overdue longest. A probe that is overdue while nobody wants
    /// its place keeps it: a late answer is better than none.
    fn evict_overdue(&mut self, rules: &Rules, now: Stamp) -> bool {
        if self.evidence.ended as usize + self.out.len() < rules.probes as usize {
            return false;
        }
        let overdue = (0..self.out.len()).filter(|&index| self.out[index].lease_ends <= now);
        let Some(longest) = overdue.min_by_key(|&index| self.out[index].lease_ends) else { return false };
        self.out.remove(longest);
        true
    }

    fn issue(&mut self, lease_ends: Stamp) -> u64 {
        self.issued += 1;
        self.out.push(Probe { id: self.issued, lease_ends, overdue: false });
        self.issued
    }
}
