//! The state machine, exhaustively.
//!
//! Every interleaving of up to three callers with every way a call can end (success, failure, a request to open,
//! ignored or cancelled, lost for good), with time, overrides, reset and a live change of the number of probes and of the
//! ramp, and with calls that become slow while they are in flight, driven through the real [`Machine`] by breadth-first search over all distinct states. The checks hold on every edge, not on
//! sampled runs. What concurrency adds is that the shell calls the machine under a lock, one step at a time; that is
//! checked apart.
//!
//! The search is only worth something if it can fail, so it is also run over shells with a bug planted in each.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::*;
use crate::breaker::config::Breaker;
use crate::breaker::ramp::Ramp;
use crate::error::Problems;

const MIN_CALLS: u32 = 2;
const OPEN_FOR: u64 = 2;
const LEASE: u64 = 3;
/// Shorter than the wait, so that what a stage admits, and what it refuses, comes while it lasts.
const STAGE: u64 = 1;
const STAGES: [f64; 2] = [0.5, 1.0];
/// A stage is followed for so many results: more of them bring nothing new, and would never end.
const RESULTS: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Admit,
    /// A call in flight has become slow.
    Overdue(usize),
    End(usize, End),
    Tick,
    Force(Forced, Option<u64>),
    Clear,
    Reset,
    Rules(Wanted),
}

/// What may change live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    probes: u32,
    ramp: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Success,
    Failure,
    OpenFor(u64),
    /// Ignored or cancelled: it gives its place back and decides nothing.
    Neutral,
    /// Leaked: nobody ever hears of it again.
    Lost,
}

/// How far a search goes: the callers there are, and what may change live.
#[derive(Clone, Copy, Debug)]
struct Scope {
    callers: usize,
    wanted: &'static [Wanted],
    /// Whether calls become slow, in place of what an operator does and of results that ask for rest.
    slow: bool,
}

const ONE_PROBE: Wanted = Wanted { probes: 1, ramp: false };

const TWO_PROBES: Wanted = Wanted { probes: 2, ramp: false };
const RAMP: Wanted = Wanted { probes: 1, ramp: true };

const PROBES: Scope = Scope { callers: 3, wanted: &[ONE_PROBE, TWO_PROBES], slow: false };

/// A ramp has more states than probes have, and holds nothing that a third caller could want.
const RAMPS: Scope = Scope { callers: 2, wanted: &[ONE_PROBE, RAMP, Wanted { probes: 2, ramp: true }], slow: false };

const SLOW: Scope = Scope { callers: 3, wanted: &[TWO_PROBES, RAMP], slow: true };

/// A bug in the shell around the machine, which the search must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Nothing,
    LateResultsDecide,
    NeutralKeepsItsPlace,
    LeaseNeverEnds,
    AdmitsUnasked,
    NeutralIsSuccess,
    StagesAreNotTold,
    OffersAreForgotten,
    OverdueForEver,
}

/// Who is in flight.
#[derive(Clone, Copy, Debug)]
struct Caller {
    ticket: Ticket,
    /// The machine counts it as slow already.
    overdue: bool,
}

/// The machine with the little of its shell that matters: who is in flight, and what this generation has seen.
#[derive(Debug)]
struct World {
    machine: Machine,
    scope: Scope,
    rules: Rules,
    wanted: Wanted,
    now: Stamp,
    in_flight: Vec<Caller>,
    lost: bool,
    health: Health,
    /// The most probes that were allowed while probes were let out: lowering the number calls none back.
    most_probes: u32,
    /// The state that the facts so far add up to.
    told: State,
}

/// What distinguishes worlds: times as they are from now on, generations as "current or not".
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    phase: (u8, [u64; 3], Leases, [u32; 5]),
    holds: [Option<u64>; 2],
    in_flight: Vec<(bool, Option<usize>, Option<u32>, bool)>,
    lost: bool,
    health: [u64; 4],
    wanted: Wanted,
    most_probes: u32,
}

/// How long each probe has, and whether it is slow.
type Leases = Vec<(u64, bool)>;

fn rules(scope: Scope, Wanted { probes, ramp }: Wanted) -> Rules {
    let mut breaker = Breaker::error_rate(0.5).min_calls(MIN_CALLS).probes(probes);
    if scope.slow {
        breaker = breaker.slow_calls(0.5, Duration::from_nanos(1)).count_in_flight(true);
    }
    if ramp {
        breaker = breaker.ramp(Ramp::stages(STAGES).each(Duration::from_nanos(STAGE)).min_calls(2));
    }
    breaker.growth(1.0).jitter(0.0).open_for(Duration::from_nanos(OPEN_FOR)).check(&mut Problems::default())
}

impl World {
    fn new(scope: Scope) -> Self {
        let now = Stamp::from_nanos(0);
        let machine = Machine::new(now, || 0.5);
        let (health, told) = (Health::default(), State::Closed);
        let wanted = ONE_PROBE;
        let (rules, in_flight) = (rules(scope, wanted), Vec::new());
        Self { machine, scope, rules, wanted, now, in_flight, lost: false, health, most_probes: 1, told }
    }

    fn fork(&self) -> Self {
        let Machine { ref phase, generation, changed, level, ref holds, ref facts, draw } = self.machine;
        let machine = Machine {
            phase: phase.clone(),
            generation,
            changed,
            level,
            holds: holds.clone(),
            facts: facts.clone(),
            draw,
        };
        Self { machine, rules: self.rules.clone(), in_flight: self.in_flight.clone(), ..*self }
    }

    fn key(&self) -> Key {
        let left = |until: Stamp| if until == Stamp::NEVER { u64::MAX } else { until.nanos_since(self.now) };
        let out = match &self.machine.phase {
            Phase::HalfOpen(episode) => episode.out.as_slice(),
            _ => &[],
        };
        let phase = match &self.machine.phase {
            Phase::Closed { .. } => (0, [0; 3], Vec::new(), [0; 5]),
            Phase::Open { until } => (1, [left(*until), 0, 0], Vec::new(), [0; 5]),
            Phase::HalfOpen(episode) => {
                let leases = out.iter().map(|probe| (left(probe.lease_ends), probe.overdue)).collect();
                let Evidence { ended, failed, slow } = episode.evidence;
                (2, [0; 3], leases, [0, ended, failed, slow, 0])
            }
            Phase::Ramping(climb) => {
                let Climb { stage, since, last, credit, evidence, overdue } = **climb;
                let Evidence { ended, failed, slow } = evidence;
                let moments = [since, last].map(|moment| left(moment.plus(STAGE)));
                (3, [moments[0], moments[1], credit], Vec::new(), [stage, ended, failed, slow, overdue])
            }
        };
        let place = |ticket: &Ticket| out.iter().position(|probe| Pass::Probe(probe.id) == ticket.pass());
        let mut in_flight: Vec<_> = self
            .in_flight
            .iter()
            .map(|Caller { ticket, overdue }| {
                (ticket.word == self.machine.word(), place(ticket), stage_of(ticket), *overdue)
            })
            .collect();
        in_flight.sort_unstable();
        Key {
            phase,
            holds: self
                .machine
                .holds
                .as_deref()
                .map_or([None; 2], |holds| holds.each_ref().map(|hold| hold.as_ref().map(|hold| left(hold.until)))),
            in_flight,
            lost: self.lost,
            health: [self.health.errors, self.health.total, self.health.slow, self.health.overdue]
                .map(|count| count.min(MIN_CALLS.into())),
            wanted: self.wanted,
            most_probes: self.most_probes,
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Tick, Step::Clear, Step::Reset];
        steps.extend(self.scope.wanted.iter().copied().map(Step::Rules));
        for forced in [Forced::Open, Forced::Closed].into_iter().filter(|_| !self.scope.slow) {
            steps.extend([Step::Force(forced, None), Step::Force(forced, Some(1))]);
        }
        let enough = matches!(&self.machine.phase, Phase::Ramping(climb) if climb.evidence.ended >= RESULTS);
        if self.in_flight.len() < self.scope.callers && !enough {
            steps.push(Step::Admit);
        }
        for caller in 0..self.in_flight.len() {
            let ends = [End::Success, End::Failure, End::OpenFor(1), End::OpenFor(3), End::Neutral, End::Lost];
            let asks = |end: &End| matches!(end, End::OpenFor(_));
            let ends = ends.into_iter().filter(|end| !(self.scope.slow && asks(end)));
            steps.extend(ends.map(|end| Step::End(caller, end)));
            if self.scope.slow && !self.in_flight[caller].overdue {
                steps.push(Step::Overdue(caller));
            }
        }
        steps
    }

    /// Takes a step and checks everything that must hold across it.
    fn take(&mut self, step: Step, planted: Planted) -> Result<(), String> {
        let (word, state, now) = (self.machine.word(), self.machine.state(self.now), self.now);
        let until = self.machine.until();
        let stage = self.stage();
        let caller = if let Step::End(caller, _) = step { Some(self.in_flight[caller].ticket) } else { None };
        let mut late = false;
        match step {
            Step::Tick => self.now = now.plus(1),
            Step::Clear => self.machine.clear_override(now),
            Step::Reset => self.machine.reset(now),
            Step::Rules(wanted) => {
                (self.rules, self.wanted) = (rules(self.scope, wanted), wanted);
                self.most_probes = self.most_probes.max(wanted.probes);
                self.machine.reconsider(&self.rules, now);
            }
            Step::Force(forced, expiry) => {
                let until = expiry.map_or(Stamp::NEVER, |expiry| now.plus(expiry));
                self.machine.force(now, forced, Override { reason: String::new(), until });
            }
            Step::Admit => {
                let lease = if planted == Planted::LeaseNeverEnds { u64::MAX } else { LEASE };
                if planted != Planted::OffersAreForgotten {
                    self.machine.offer(&self.rules);
                }
                let peeked = self.machine.peek(&self.rules, now);
                let mut admitted = self.machine.admit(&self.rules, now, lease);
                check(peeked == admitted.map(drop), "peek and admit disagree")?;
                if planted == Planted::AdmitsUnasked && admitted == Err(Refusal::ProbeLimit) {
                    admitted = Ok(Ticket::new(self.machine.word(), Pass::Probe(0)));
                }
                let refuses = matches!(state, State::Open | State::ForcedOpen);
                check(!(refuses && admitted.is_ok()), "admitted although open")?;
                check(!(state.is_passing() && admitted.is_err()), "refused although closed")?;
                self.in_flight.extend(admitted.map(|ticket| Caller { ticket, overdue: false }));
            }
            Step::Overdue(caller) => {
                let ticket = self.in_flight[caller].ticket;
                late = !self.machine.is_current(ticket);
                if !late {
                    self.in_flight[caller].overdue = true;
                    self.count_overdue(1);
                    self.machine.judge(&self.rules, now, ticket, Judged::OVERDUE, self.health);
                }
            }
            Step::End(caller, end) => {
                let Caller { mut ticket, overdue } = self.in_flight.swap_remove(caller);
                if overdue && ticket.word == word && end != End::Lost && planted != Planted::OverdueForEver {
                    self.count_overdue(-1);
                    self.machine.end_overdue(ticket);
                }
                if let (Planted::StagesAreNotTold, Phase::Ramping(climb), Pass::Stage(_)) =
                    (planted, &self.machine.phase, ticket.pass())
                {
                    ticket = Ticket::new(ticket.word, Pass::Stage(climb.stage.into()));
                }
                late = !self.machine.is_current(ticket);
                self.end(ticket, end, overdue, late && planted != Planted::LateResultsDecide, planted);
            }
        }
        self.listen(word)?;
        self.check_stage(step, stage, caller)?;
        self.check_edge(step, word, late, until)?;
        self.check_world(planted)
    }

    fn end(&mut self, ticket: Ticket, end: End, slow: bool, late: bool, planted: Planted) {
        let judged = |failed, open_for| Judged { failed, slow, open_for, ..Judged::SUCCESS };
        match (end, late) {
            (End::Lost, _) => self.lost = true,
            (End::OpenFor(wait), true) => self.machine.prolong(self.now, wait),
            (_, true) => {}
            (End::Neutral, false) if planted == Planted::NeutralKeepsItsPlace => {}
            (End::Neutral, false) if planted == Planted::NeutralIsSuccess => self.judge(ticket, judged(false, None)),
            (End::Neutral, false) => self.machine.give_back(ticket),
            (End::Success, false) => self.judge(ticket, judged(false, None)),
            (End::Failure, false) => self.judge(ticket, judged(true, None)),
            (End::OpenFor(wait), false) => self.judge(ticket, judged(true, Some(wait))),
        }
    }

    fn judge(&mut self, ticket: Ticket, result: Judged) {
        self.health.total += 1;
        self.health.errors += u64::from(result.failed);
        self.health.slow += u64::from(result.slow);
        self.machine.judge(&self.rules, self.now, ticket, result, self.health);
    }

    /// As the books do.
    fn count_overdue(&mut self, more: i64) {
        for count in [&mut self.health.total, &mut self.health.slow, &mut self.health.overdue] {
            *count = count.saturating_add_signed(more);
        }
    }

    /// Reads the facts: each change starts where the one before it ended, and the last one ends where the machine is.
    fn listen(&mut self, before: Word) -> Result<(), String> {
        for fact in self.machine.take_facts() {
            if let Fact::Changed { from, to, .. } = fact {
                check(from == self.told && from != to, "a transition does not follow from the one before it")?;
                let closed_rightly = (from, to) != (State::Open, State::Closed);
                check(closed_rightly || self.machine.generation > before.generation(), "open to closed at once")?;
                self.told = to;
            }
        }
        check(self.told == self.machine.stored(), "a change of state was not told")
    }

    /// The stage of the ramp that the machine is in.
    fn stage(&self) -> Option<u32> {
        if let Phase::Ramping(climb) = &self.machine.phase { Some(climb.stage) } else { None }
    }

    /// Up the ramp by a success that the stage below let in, one stage at a time; down never but to open.
    fn check_stage(&self, step: Step, before: Option<u32>, caller: Option<Ticket>) -> Result<(), String> {
        let after = self.stage();
        let rises = match (before, after) {
            (None, Some(after)) => after == 0,
            (Some(before), Some(after)) => after == before + 1,
            // From the last stage to closed; to anything else is no rise.
            (Some(_), None) => self.machine.stored() == State::Closed && !matches!(step, Step::Reset | Step::Rules(_)),
            (None, None) => false,
        };
        if rises {
            let by_success = matches!(step, Step::End(_, End::Success));
            // Probes that are judged again because fewer are wanted have passed by their successes.
            check(
                by_success || before.is_none() && matches!(step, Step::Rules(_)),
                "a stage passed without a success",
            )?;
            let own = caller.is_none_or(|ticket| stage_of(&ticket) == before);
            check(own, "a stage passed by a call of another")?;
        }
        check(rises || after.is_none() || after == before, "the ramp leads down, or leaves a stage out")
    }

    fn check_edge(&mut self, step: Step, before: Word, late: bool, until: Stamp) -> Result<(), String> {
        let after = self.machine.word();
        if after != before {
            self.most_probes = self.rules.probes;
            self.health = Health::default();
            check(after.generation() > before.generation(), "a generation was used twice")?;
        }
        let by_call = matches!(step, Step::End(..));
        if late {
            check(after == before, "a late result changed the state")?;
            let prolonged = matches!(step, Step::End(_, End::OpenFor(_))) && before.state() == State::Open;
            let kept = self.machine.until() == until || prolonged && self.machine.until() > until;
            check(kept, "a late result moved the deadline")?;
        }
        let opened = after.state() == State::Open;
        check(!matches!(step, Step::Overdue(_)) || after == before || opened, "what hangs did more than to open")?;
        if by_call && after.state() == State::Closed && before.state() != State::Closed {
            let probe_passed = before.state() == State::HalfOpen && matches!(step, Step::End(_, End::Success));
            check(probe_passed, "closed without a probe's success")?;
        }
        check(step != Step::Tick || after == before, "time alone changed the state")
    }

    fn check_world(&self, planted: Planted) -> Result<(), String> {
        if let Phase::HalfOpen(episode) = &self.machine.phase {
            let leased = |Caller { ticket, .. }: &&Caller| {
                let place = episode.out.iter().find(|probe| Pass::Probe(probe.id) == ticket.pass());
                place.map_or(ticket.pass() == Pass::Probe(0), |probe| self.now < probe.lease_ends)
            };
            let current = self.in_flight.iter().filter(|caller| caller.ticket.word == self.machine.word());
            check(current.filter(leased).count() <= self.most_probes as usize, "more probes than places")?;
            check(self.lost || episode.out.len() <= self.in_flight.len(), "a place is held by nobody")?;
        }
        // With no further result, a call that waits long enough is admitted: nothing wedges.
        let forever = self
            .machine
            .stored_hold()
            .is_some_and(|(forced, hold)| forced == Forced::Open && hold.until == Stamp::NEVER);
        let mut later = self.fork();
        later.now = self.now.plus(OPEN_FOR.max(LEASE) + 3);
        later.machine.offer(&later.rules);
        let admitted = later.machine.admit(&later.rules, later.now, LEASE).is_ok();
        check(forever || admitted, "wedged")?;
        if let Phase::Ramping(climb) = &self.machine.phase {
            let counts = |caller: &&Caller| caller.overdue && caller.ticket.word == self.machine.word();
            let on_it =
                self.in_flight.iter().filter(counts).filter(|caller| stage_of(&caller.ticket).is_some()).count();
            let right = if self.lost { climb.overdue as usize >= on_it } else { climb.overdue as usize == on_it };
            check(right, "what hangs is not what is in flight")?;
        }
        // A ramp is worth its name only if the next call, or the one after it, gets in without any time passing.
        if let Phase::Ramping(_) = self.machine.phase {
            let mut now = self.fork();
            let admits = |world: &mut Self| {
                if planted != Planted::OffersAreForgotten {
                    world.machine.offer(&world.rules);
                }
                world.machine.admit(&world.rules, world.now, LEASE).is_ok()
            };
            check(admits(&mut now) || admits(&mut now), "a stage of one half refused two calls in a row")?;
        }
        Ok(())
    }
}

/// The stage that a call was admitted in.
fn stage_of(ticket: &Ticket) -> Option<u32> {
    if let Pass::Stage(stage) = ticket.pass() { u32::try_from(stage).ok() } else { None }
}

fn check(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// States and edges seen, or the shortest way to a violation.
fn explore(scope: Scope, planted: Planted) -> Result<(usize, usize), (String, Vec<Step>)> {
    let mut seen = HashSet::from([World::new(scope).key()]);
    let mut frontier = VecDeque::from([(World::new(scope), Vec::new())]);
    let mut edges = 0;
    while let Some((world, path)) = frontier.pop_front() {
        for step in world.steps() {
            edges += 1;
            let mut next = world.fork();
            let way = || [path.as_slice(), &[step]].concat();
            next.take(step, planted).map_err(|violation| (violation, way()))?;
            if seen.insert(next.key()) {
                frontier.push_back((next, way()));
            }
        }
    }
    Ok((seen.len(), edges))
}

/// S1 to S6, S9, R4: on every edge of the whole state space.
#[test]
fn every_reachable_state_keeps_the_promises() {
    for (scope, least) in [(PROBES, 8_000), (RAMPS, 8_000), (SLOW, 8_000)] {
        let found = explore(scope, Planted::Nothing);
        let (states, edges) = found.unwrap_or_else(|(violation, way)| panic!("{violation}: {way:?}"));
        println!("{states} states, {edges} edges");
        assert!(states > least, "the search has collapsed: {states} states");
    }
}

#[test]
fn the_search_finds_each_planted_bug() {
    for (scope, planted, expected) in [
        (PROBES, Planted::LateResultsDecide, "a late result changed the state"),
        (PROBES, Planted::NeutralKeepsItsPlace, "a place is held by nobody"),
        (PROBES, Planted::LeaseNeverEnds, "wedged"),
        (PROBES, Planted::AdmitsUnasked, "more probes than places"),
        (PROBES, Planted::NeutralIsSuccess, "closed without a probe's success"),
        (RAMPS, Planted::StagesAreNotTold, "a stage passed by a call of another"),
        (RAMPS, Planted::OffersAreForgotten, "a stage of one half refused two calls in a row"),
        (SLOW, Planted::OverdueForEver, "what hangs is not what is in flight"),
    ] {
        let (violation, way) = explore(scope, planted).expect_err("a planted bug was not found");
        assert_eq!(violation, expected, "{planted:?} by {way:?}");
    }
}
