//! The circuit: what its atomics say beside what its lock decides.

use std::sync::Arc as StdArc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use super::{at, prove};
use crate::breaker::circuit::{Circuit, Ending, Recorded};
use crate::breaker::config::Breaker;
use crate::breaker::machine::{Fact, Override, Refusal, Ticket};
use crate::breaker::rules::Span;
use crate::breaker::state::{Forced, State};
use crate::error::Problems;
use crate::outcome::Outcome;
use crate::sync::{AtomicBool, Ordering};
use crate::time::Stamp;
use crate::window::flow::{Entered, Flow, LaneId};

/// How long the circuit stays open, in nanoseconds.
const WAIT: u64 = 1_000;

#[derive(Clone)]
pub(super) struct Subject {
    flow: StdArc<Flow>,
    pub(super) circuit: Arc<Circuit>,
}

impl Subject {
    pub(super) fn new(breaker: Breaker) -> Self {
        let breaker = breaker.jitter(0.0).open_for(Duration::from_nanos(WAIT));
        let mut rules = breaker.check(&mut Problems::default());
        if let Span::Time { width, .. } = &mut rules.span {
            *width = 10; // The configuration wants milliseconds.
        }
        let flow = StdArc::new(Flow::new(8));
        Self { flow: flow.clone(), circuit: Arc::new(Circuit::new(at(0), StdArc::new(rules), flow, || 0.5)) }
    }

    /// A call that is let in at `now`, with a slot.
    pub(super) fn enter(&self, now: u64) -> Result<Ticket, Refusal> {
        assert_eq!(self.flow.try_enter(), Entered::In(LaneId::FIRST));
        self.circuit.admit(at(now), 1)
    }

    pub(super) fn end(&self, now: u64, ticket: Ticket, outcome: Outcome) -> Recorded {
        let ending = Ending { outcome, elapsed: 1, open_for: None, overdue: false };
        self.circuit.record(at(now), ticket, ending, Some(LaneId::FIRST))
    }

    pub(super) fn end_elsewhere(&self, now: u64, ticket: Ticket, outcome: Outcome) -> thread::JoinHandle<Recorded> {
        let subject = self.clone();
        thread::spawn(move || subject.end(now, ticket, outcome))
    }

    fn force(&self, now: u64, forced: Forced, until: Stamp) {
        self.circuit.force(at(now), forced, Override { reason: String::new(), until });
    }

    fn changes(&self) -> Vec<(State, State, Option<Stamp>)> {
        let facts = self.circuit.take_facts().into_iter();
        facts
            .filter_map(|(fact, _)| match fact {
                Fact::Changed { from, to, refuses_until, .. } => Some((from, to, refuses_until)),
                _ => None,
            })
            .collect()
    }
}

/// S4, R2: a success that is being counted while the circuit goes from closed by way of open to closed is counted once,
/// and does not count for the generation that it does not belong to.
#[test]
fn a_success_counts_for_its_own_generation_only() {
    prove(&["tag"], || {
        let subject = Subject::new(Breaker::error_rate(0.5));
        let ticket = subject.enter(0).unwrap();
        let caller = subject.end_elsewhere(1, ticket, Outcome::Success);
        subject.force(1, Forced::Open, Stamp::NEVER);
        subject.circuit.clear_override(at(1));
        caller.join().unwrap();
        let view = subject.circuit.view(at(1));
        assert_eq!((view.state, view.health.total), (State::Closed, 0));
        assert_eq!((view.lifetime.of(Outcome::Success), view.window.of(Outcome::Success)), (1, 1));
    });
}

/// S5: a failure and the success that makes the window large enough: whichever comes last, the circuit opens.
#[test]
fn the_call_that_completes_the_window_trips_it() {
    prove(&["due"], || {
        let subject = Subject::new(Breaker::error_rate(0.5).min_calls(2));
        let (first, second) = (subject.enter(0).unwrap(), subject.enter(0).unwrap());
        let caller = subject.end_elsewhere(1, first, Outcome::Success);
        subject.end(1, second, Outcome::Failure);
        caller.join().unwrap();
        assert_eq!(subject.circuit.view(at(1)).state, State::Open);
    });
}

/// S4, S5, S6, R2: of two failures that could trip and a success beside them, one trips; the deadline is the winner's,
/// it is told once, and what comes after it counts in the figures and for nothing else.
#[test]
fn outcomes_that_race_a_trip_are_counted_and_decide_nothing() {
    prove(&["late"], || {
        let subject = Subject::new(Breaker::disabled().consecutive_failures(1));
        let tickets = [(); 3].map(|()| subject.enter(0).unwrap());
        let others = [(1, Outcome::Failure), (2, Outcome::Success)]
            .map(|(n, outcome)| subject.end_elsewhere(n, tickets[n as usize], outcome));
        let mut late = u64::from(subject.end(3, tickets[0], Outcome::Failure).late);
        late += others.map(|other| u64::from(other.join().unwrap().late)).into_iter().sum::<u64>();
        let view = subject.circuit.view(at(5));
        assert_eq!((view.state, view.generation, view.health.total, view.late), (State::Open, 2, 0, late));
        let lifetime = view.lifetime;
        assert_eq!((lifetime.of(Outcome::Failure), lifetime.of(Outcome::Success), lifetime.calls()), (2, 1, 3));
        let changes = subject.changes();
        let &[(State::Closed, State::Open, Some(until))] = changes.as_slice() else { panic!("{changes:?}") };
        assert!([at(1 + WAIT), at(3 + WAIT)].contains(&until));
        assert_eq!(view.wait, Some(until.since(at(5))));
    });
}

/// S1, S2, S4: of a probe's result and the call that takes its place when its lease has ended, one decides and never both.
#[test]
fn a_probe_decides_or_loses_its_place() {
    prove(&["evicted"], || {
        let subject = Subject::new(Breaker::disabled().consecutive_failures(1));
        let ticket = subject.enter(0).unwrap();
        subject.end(0, ticket, Outcome::Failure);
        let probe = subject.enter(WAIT).unwrap();
        let lease_ends = 2 * WAIT;
        assert_eq!(subject.enter(lease_ends - 1), Err(Refusal::ProbeLimit));
        let result = subject.end_elsewhere(lease_ends, probe, Outcome::Success);
        let other = subject.enter(lease_ends).expect("the lease has ended");
        let late = result.join().unwrap().late;
        let state = subject.circuit.view(at(lease_ends)).state;
        match other.is_passing() {
            true => assert_eq!((late, state), (false, State::Closed)),
            false => assert_eq!((late, state), (true, State::HalfOpen)),
        }
        assert!(!subject.end(lease_ends, other, Outcome::Success).late);
        assert_eq!(subject.circuit.view(at(lease_ends)).state, State::Closed);
        assert_eq!(subject.changes().len(), 3);
    });
}

/// S9: an override that has run out lets nobody in, although the open circuit beneath it has a deadline that is still to
/// come, and although another call is just ending it.
///
/// The bug was there once: the word was the override's, and the deadline beside it already the open circuit's.
#[test]
fn an_override_that_has_run_out_lets_nobody_in() {
    prove(&["standing"], || {
        let subject = Subject::new(Breaker::disabled().consecutive_failures(1));
        let ticket = subject.enter(0).unwrap();
        subject.end(0, ticket, Outcome::Failure);
        subject.force(0, Forced::Closed, at(10));
        let other = {
            let subject = subject.clone();
            thread::spawn(move || subject.circuit.peek(at(10)))
        };
        let open = Err(Refusal::Open { until: at(WAIT) });
        assert_eq!(subject.circuit.peek(at(10)), open);
        assert_eq!(other.join().unwrap(), open);
    });
}

/// S4, S9: a call that is admitted while the circuit is forced one way and back belongs to one of the states that there
/// were, and what it ends in counts for that one alone.
#[test]
fn a_call_beside_an_override_belongs_to_one_state() {
    prove(&["late"], || {
        let subject = Subject::new(Breaker::disabled().consecutive_failures(1));
        let caller = {
            let subject = subject.clone();
            thread::spawn(move || subject.enter(1).map(|ticket| subject.end(1, ticket, Outcome::Failure).late))
        };
        subject.force(1, Forced::Open, Stamp::NEVER);
        assert!(subject.circuit.peek(at(1)).is_err(), "it is forced open");
        let admitted = caller.join().unwrap();
        subject.circuit.clear_override(at(1));
        let view = subject.circuit.view(at(1));
        // It tripped the circuit before the override came, or it came late, or it was refused.
        let tripped = admitted == Ok(false);
        assert_eq!(view.state, if tripped { State::Open } else { State::Closed });
        assert_eq!((view.late, view.health.total), (u64::from(admitted == Ok(true)), 0));
    });
}

/// A waker that tells whether it was woken.
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: StdArc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A call that is about to wait while the circuit opens ends: it sees that, or it is woken for it.
#[test]
fn a_call_that_is_about_to_wait_does_not_miss_the_opening() {
    prove(&["seat"], || {
        let subject = Subject::new(Breaker::disabled().consecutive_failures(1).abort_on_trip(true));
        let (waits, fails) = (subject.enter(0).unwrap(), subject.enter(0).unwrap());
        let bell = StdArc::new(Bell(AtomicBool::new(false)));
        let waker = Waker::from(StdArc::clone(&bell));
        let caller = {
            let subject = subject.clone();
            thread::spawn(move || {
                let lookout = subject.circuit.lookout().expect("its rules want one");
                lookout.must_end(waits.word, &mut None, &Context::from_waker(&waker))
            })
        };
        subject.end(1, fails, Outcome::Failure);
        drop(subject.circuit.take_facts());
        subject.circuit.ring();
        let saw = caller.join().unwrap();
        assert!(saw || bell.0.load(Ordering::SeqCst), "it waits for ever");
    });
}
