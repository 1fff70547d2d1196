//! Which steps of a call are spared the lock.
//!
//! Nobody sees a lock that is taken in vain: every result is the same, and calls are only slower. So what the shell
//! promises is checked while somebody holds the lock.

use super::*;
use crate::breaker::config::Breaker;
use crate::error::Problems;
use crate::sync::does_without;
use crate::window::flow::Entered;

/// How long the circuit stays open, in nanoseconds.
const WAIT: u64 = 1_000;
const SLOW: u64 = 50;

pub(super) struct Subject {
    flow: Arc<Flow>,
    pub(super) circuit: Circuit,
}

fn at(nanos: u64) -> Stamp {
    Stamp::from_nanos(nanos)
}

pub(super) fn subject(breaker: Breaker) -> Subject {
    let breaker = breaker.jitter(0.0).open_for(Duration::from_nanos(WAIT));
    let flow = Arc::new(Flow::new(64));
    let circuit = Circuit::new(at(0), Arc::new(breaker.check(&mut Problems::default())), Arc::clone(&flow), || 0.5);
    Subject { flow, circuit }
}

impl Subject {
    /// Whether `step` comes to its end while the lock is taken.
    fn needs_no_lock(&self, step: impl FnOnce(&Self) + Send) -> bool {
        does_without(&self.circuit.core, || step(self))
    }

    fn call(&self, outcome: Outcome, elapsed: u64) -> Recorded {
        assert!(matches!(self.flow.try_enter(), Entered::In(_)));
        let ticket = self.circuit.admit(at(0), 1).expect("the circuit lets it pass");
        let ending = Ending { outcome, elapsed, open_for: None, overdue: false };
        let recorded = self.circuit.record(at(elapsed), ticket, ending, Some(LaneId::FIRST));
        if recorded.left.is_none() {
            self.flow.leave(LaneId::FIRST);
        }
        recorded
    }

    fn succeeds_without_lock(&self) -> bool {
        self.needs_no_lock(|subject| assert!(!subject.call(Outcome::Success, SLOW - 1).late))
    }

    fn force(&self, forced: Forced) {
        self.circuit.force(at(0), forced, Override { reason: String::new(), until: Stamp::NEVER });
    }
}

#[test]
fn a_healthy_call_is_spared_the_lock_from_the_first_one_on() {
    let subject = subject(Breaker::error_rate(0.5).min_calls(1).slow_calls(0.5, Duration::from_nanos(SLOW)));
    assert!(subject.needs_no_lock(|Subject { circuit, .. }| {
        assert_eq!(circuit.peek(at(0)), Ok(()));
        assert!(circuit.pass().is_some() && !circuit.has_news());
        assert_eq!(circuit.wait(at(0)), u64::MAX);
        circuit.refuse(at(0), Outcome::Rejected);
        circuit.cancel(at(0));
    }));
    assert!((0..3).all(|_| subject.succeeds_without_lock()));
    assert_eq!(subject.circuit.view(at(0)).lifetime.of(Outcome::Success), 3);
}

/// After an error successes are looked at when they can matter: when the window is large enough to be judged.
#[test]
fn a_success_that_cannot_matter_is_spared_the_lock() {
    let subject = subject(Breaker::error_rate(1.0).min_calls(4));
    subject.call(Outcome::Failure, 1);
    assert!(subject.succeeds_without_lock() && subject.succeeds_without_lock());
    assert!(!subject.call(Outcome::Success, 1).late, "the fourth call completes the window");
    assert!(subject.succeeds_without_lock());
}

#[test]
fn a_success_that_is_slow_or_has_its_place_among_the_last_calls_takes_the_lock() {
    let breaker = Breaker::error_rate(0.5).slow_calls(0.5, Duration::from_nanos(SLOW));
    let slow = subject(breaker.clone());
    assert!(slow.call(Outcome::Success, SLOW).left.is_none());
    assert_eq!(slow.circuit.view(at(0)).health, Health { errors: 0, total: 1, slow: 1, overdue: 0 });
    let calls = subject(breaker.last_calls(10));
    assert!(calls.call(Outcome::Success, 1).left.is_none());
    assert_eq!(calls.circuit.view(at(0)).health, Health { errors: 0, total: 1, slow: 0, overdue: 0 });
}

#[test]
fn refusals_of_a_circuit_that_stays_open_are_spared_the_lock() {
    let subject = subject(Breaker::error_rate(0.5).min_calls(1));
    subject.call(Outcome::Failure, 0);
    let refused = Err(Refusal::Open { until: at(WAIT) });
    assert!(subject.needs_no_lock(|Subject { circuit, .. }| {
        assert_eq!(circuit.peek(at(WAIT - 1)), refused);
        assert_eq!(circuit.admit(at(WAIT - 1), 1).map(drop), refused);
        assert_eq!(circuit.wait(at(1)), WAIT - 1);
        assert!(circuit.pass().is_none());
    }));
    assert_eq!(subject.circuit.peek(at(WAIT)), Ok(()));
}

#[test]
fn an_override_is_known_without_the_lock() {
    let subject = subject(Breaker::error_rate(0.5));
    subject.force(Forced::Closed);
    assert!(subject.needs_no_lock(|Subject { circuit, .. }| {
        assert_eq!(circuit.peek(at(9)), Ok(()));
        assert!(circuit.admit(at(9), 1).is_ok_and(Ticket::is_passing));
    }));
    subject.force(Forced::Open);
    let refused = Err(Refusal::ForcedOpen { until: Stamp::NEVER });
    assert!(subject.needs_no_lock(|Subject { circuit, .. }| {
        assert_eq!(circuit.peek(at(9)), refused);
        assert_eq!(circuit.admit(at(9), 1).map(drop), refused);
        assert_eq!(circuit.wait(at(9)), u64::MAX);
    }));
}

/// What has an eye on calls in flight costs a call that waits a look at it, and is there for those who want it.
#[test]
fn a_circuit_that_watches_no_calls_has_nothing_to_watch_them_with() {
    let slow = Breaker::error_rate(0.5).slow_calls(0.5, Duration::from_nanos(SLOW));
    let watches = |breaker| subject(breaker).circuit.lookout().is_some();
    assert!(!watches(slow.clone()) && watches(slow.clone().count_in_flight(true)) && watches(slow.abort_on_trip(true)));
}

/// Where calls meet so often that it pays, the command is split into lanes; the limit is theirs together.
#[test]
fn calls_that_keep_meeting_are_parted() {
    let Subject { flow, circuit } = subject(Breaker::error_rate(0.5));
    circuit.widen(at(0));
    let entered = flow.try_enter();
    assert_eq!(entered, Entered::In(LaneId::FIRST), "there is no crowd");
    flow.leave(LaneId::FIRST);
    flow.crowd();
    circuit.widen(at(0));
    assert_eq!(flow.try_enter(), Entered::Unclear, "a lane of its own, which has no share yet");
}
