//! The lock-free parts under loom, as they ship: every interleaving, and every value that the memory model lets a load
//! see, of a few threads that each take a few steps.
//!
//! Run with `RUSTFLAGS="--cfg fusebox_loom" cargo test --release --lib models`. Preemptions are bounded to three for each
//! execution, which in the experience of loom's authors finds what there is to be found; what needs more than three, or
//! more than three threads, is left open. Every model is run once more with a bug planted in the code that it is about,
//! and must then fail.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use crate::breaker::circuit::{Circuit, Ending};
use crate::breaker::config::{Breaker, Rules};
use crate::breaker::machine::{Override, Ticket};
use crate::breaker::state::{Forced, State};
use crate::budget::{Bucket, Budget, Claim};
use crate::bulkhead::{Bulkhead, Capacity, Slots};
use crate::error::Problems;
use crate::outcome::Outcome;
use crate::rate_limit::config::RateLimit;
use crate::rate_limit::limiter::Limiter;
use crate::sync::{AtomicBool, Ordering, plant};
use crate::time::Stamp;
use crate::window::flow::{Entered, Flow, LaneId};

/// The model holds, and fails with its bug planted.
fn prove(bug: &'static str, model: impl Fn() + Sync + Send + Copy + 'static) {
    let explore = || {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    };
    explore();
    plant(bug);
    let failed = catch_unwind(AssertUnwindSafe(explore)).is_err();
    plant("");
    assert!(failed, "the model does not see the bug `{bug}`");
}

fn capacity(bulkhead: Bulkhead) -> Capacity {
    bulkhead.check(&mut Problems::default(), "limit")
}

fn slots(limit: usize) -> Arc<Slots> {
    Arc::new(Slots::new(capacity(Bulkhead::new(limit).queue(2, Duration::from_secs(1)))))
}

/// P1, X10: once a lower limit is set, nobody enters beyond it.
#[test]
fn a_limit_that_was_lowered_holds() {
    prove("limit", || {
        let slots = slots(2);
        let enter = |slots: &Arc<Slots>| {
            let slots = Arc::clone(slots);
            thread::spawn(move || slots.try_acquire().is_some())
        };
        let callers = [enter(&slots), enter(&slots)];
        drop(slots.resize(capacity(Bulkhead::new(1))));
        let already = slots.in_flight();
        let entered = callers.into_iter().filter_map(|caller| caller.join().ok()).filter(|&entered| entered).count();
        assert!(entered as u32 <= already.max(1), "{entered} entered, {already} of them before the change");
        assert_eq!(slots.in_flight(), entered as u32);
    });
}

/// The slot that is taken is given back by another thread.
fn release_elsewhere(slots: &Arc<Slots>) -> thread::JoinHandle<()> {
    let slots = Arc::clone(slots);
    thread::spawn(move || slots.release(LaneId::FIRST))
}

/// P2, P4: a slot that is given back while a call takes its place in line reaches that call.
#[test]
fn nobody_waits_beside_a_free_slot() {
    prove("line", || {
        let slots = slots(1);
        assert!(slots.try_acquire().is_some());
        let releaser = release_elsewhere(&slots);
        let mut place = slots.line_up().expect("room in the line");
        releaser.join().unwrap();
        let polled = Pin::new(&mut place).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready(), "it waits beside a free slot");
        slots.release(LaneId::FIRST);
        assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    });
}

/// P2, P3, P4: a call that leaves the line while a slot is handed to it passes it on.
#[test]
fn a_slot_is_not_lost_on_one_who_leaves() {
    prove("granted", || {
        let slots = slots(1);
        assert!(slots.try_acquire().is_some());
        let place = slots.line_up().expect("room in the line");
        let releaser = release_elsewhere(&slots);
        drop(place);
        releaser.join().unwrap();
        assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    });
}

/// E3: of two calls that find one token, one gets it.
#[test]
fn a_budget_is_not_overdrawn_by_two_at_once() {
    prove("budget", || {
        let bucket = std::sync::Arc::new(Bucket::new(&Budget::share(1.0).floor(0.0)));
        bucket.deposit(at(0));
        let claim = |bucket: &std::sync::Arc<Bucket>| bucket.claim(at(0)).map(Claim::spend).is_some();
        let other = {
            let bucket = std::sync::Arc::clone(&bucket);
            thread::spawn(move || claim(&bucket))
        };
        let own = claim(&bucket);
        assert!(own != other.join().unwrap(), "one token, one attempt");
    });
}

fn at(nanos: u64) -> Stamp {
    Stamp::from_nanos(nanos)
}

fn circuit(min_calls: u32) -> (std::sync::Arc<Flow>, Arc<Circuit>) {
    circuit_of(&Breaker::error_rate(0.5).min_calls(min_calls).jitter(0.0))
}

fn circuit_of(breaker: &Breaker) -> (std::sync::Arc<Flow>, Arc<Circuit>) {
    let rules: Rules = breaker.check(&mut Problems::default());
    let flow = std::sync::Arc::new(Flow::new(8));
    (flow.clone(), Arc::new(Circuit::new(at(0), std::sync::Arc::new(rules), flow, || 0.5)))
}

/// A call that the circuit has let in, with a slot.
fn enter(flow: &Flow, circuit: &Circuit) -> Ticket {
    assert_eq!(flow.try_enter(), Entered::In(LaneId::FIRST));
    circuit.admit(at(0), 1).unwrap()
}

fn end(circuit: &Circuit, ticket: Ticket, outcome: Outcome) {
    circuit.record(at(1), ticket, Ending { outcome, elapsed: 1, open_for: None, overdue: false }, Some(LaneId::FIRST));
}

/// S4, R2: a success that is being counted while the circuit goes from closed by way of open to closed is counted once,
/// and does not count for the generation that it does not belong to.
#[test]
fn a_success_counts_for_its_own_generation_only() {
    prove("tag", || {
        let (flow, circuit) = circuit(20);
        let ticket = enter(&flow, &circuit);
        let caller = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || end(&circuit, ticket, Outcome::Success))
        };
        circuit.force(at(1), Forced::Open, Override { reason: String::new(), until: Stamp::NEVER });
        circuit.clear_override(at(1));
        caller.join().unwrap();
        let view = circuit.view(at(1));
        assert_eq!((view.state, view.health.total), (State::Closed, 0));
        assert_eq!((view.lifetime.of(Outcome::Success), view.window.of(Outcome::Success)), (1, 1));
    });
}

/// S5: a failure and the success that makes the window large enough: whichever comes last, the circuit opens.
#[test]
fn the_call_that_completes_the_window_trips_it() {
    prove("due", || {
        let (flow, circuit) = circuit(2);
        let (first, second) = (enter(&flow, &circuit), enter(&flow, &circuit));
        let caller = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || end(&circuit, first, Outcome::Success))
        };
        end(&circuit, second, Outcome::Failure);
        caller.join().unwrap();
        assert_eq!(circuit.view(at(1)).state, State::Open);
    });
}

fn limiter(limit: RateLimit) -> Arc<Limiter> {
    Arc::new(Limiter::new(Some(limit.check(&mut Problems::default()))))
}

/// P1 for the rate: of calls that come at once, as many are let go as a burst has, and none twice.
#[test]
fn no_turn_is_given_twice() {
    prove("turn", || {
        let limiter = limiter(RateLimit::every(Duration::from_nanos(10)).burst(2));
        let ask = |limiter: &Arc<Limiter>| {
            let limiter = Arc::clone(limiter);
            thread::spawn(move || limiter.take(at(0)).is_ok())
        };
        let callers = [ask(&limiter), ask(&limiter)];
        let own = limiter.take(at(0)).is_ok();
        let went = callers.into_iter().filter_map(|caller| caller.join().ok()).filter(|&went| went).count();
        assert_eq!(went + usize::from(own), 2);
    });
}

/// A turn that is given back while another is being taken is never somebody else's too.
#[test]
fn a_turn_that_is_given_back_is_nobodys_or_the_next_ones() {
    prove("give back", || {
        let limiter = limiter(RateLimit::every(Duration::from_nanos(10)).wait(Duration::from_nanos(100)));
        let reserve = |limiter: &Limiter| limiter.reserve(at(0)).expect("a turn");
        let (unused, _) = reserve(&limiter);
        let other = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || reserve(&limiter).1)
        };
        limiter.give_back(unused);
        let own = reserve(&limiter).1;
        assert_ne!(own, other.join().unwrap());
    });
}

/// A waker that tells whether it was woken.
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A call that is about to wait while the circuit opens ends: it sees that, or it is woken for it.
#[test]
fn a_call_that_is_about_to_wait_does_not_miss_the_opening() {
    prove("seat", || {
        let (flow, circuit) = circuit_of(&Breaker::disabled().consecutive_failures(1).abort_on_trip(true));
        let (waits, fails) = (enter(&flow, &circuit), enter(&flow, &circuit));
        let bell = std::sync::Arc::new(Bell(AtomicBool::new(false)));
        let waker = Waker::from(std::sync::Arc::clone(&bell));
        let caller = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || {
                let lookout = circuit.lookout().expect("its rules want one");
                lookout.must_end(waits.word, &mut None, &Context::from_waker(&waker))
            })
        };
        end(&circuit, fails, Outcome::Failure);
        drop(circuit.take_facts());
        circuit.ring();
        let saw = caller.join().unwrap();
        assert!(saw || bell.0.load(Ordering::SeqCst), "it waits for ever");
    });
}
