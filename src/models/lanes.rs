//! A crowded command's lanes: one limit, dealt out in shares.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::prove;
use super::slots::{is_granted, release_elsewhere, slots};
use crate::bulkhead::Slots;

/// How many hold a slot, counted by those who do.
type Holders = Arc<AtomicU32>;

/// Takes a slot, if there is one, and gives it back.
fn pass_through(slots: &Slots, holders: &AtomicU32, limit: u32) {
    if let Some(lane) = slots.try_acquire() {
        assert!(holders.fetch_add(1, Ordering::SeqCst) < limit, "one more than may be");
        holders.fetch_sub(1, Ordering::SeqCst);
        slots.release(lane);
    }
}

fn pass_through_elsewhere(slots: &Arc<Slots>, holders: &Holders, limit: u32) -> thread::JoinHandle<()> {
    let (slots, holders) = (Arc::clone(slots), Arc::clone(holders));
    thread::spawn(move || pass_through(&slots, &holders, limit))
}

/// As many slots as the limit says are free, and not one more.
fn all_are_back(slots: &Slots, limit: usize) {
    assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    let taken: Vec<_> = std::iter::from_fn(|| slots.try_acquire()).take(limit + 1).collect();
    assert_eq!(taken.len(), limit);
    taken.into_iter().for_each(|lane| slots.release(lane));
    assert_eq!(slots.in_flight(), 0);
}

/// P1, P2, P3: a command that is split while calls come and go never has more slots than its limit, and loses none.
///
/// The bug was there once: a deal that found one lane by counting, and two a moment later, gave both the whole limit.
#[test]
fn a_split_makes_no_slot_and_loses_none() {
    prove(&["deal"], || {
        let (slots, holders) = (slots(1), Holders::default());
        let callers = [(); 2].map(|()| pass_through_elsewhere(&slots, &holders, 1));
        slots.flow().split(2);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        all_are_back(&slots, 1);
    });
}

/// P1, P2, P3: a slot that is looked for from a lane without one is given once, whoever comes to its own lane meanwhile.
#[test]
fn lanes_share_one_slot() {
    prove(&["in turn"], || {
        let (slots, holders) = (slots(1), Holders::default());
        slots.flow().split(2);
        all_are_back(&slots, 1);
        let callers = [(); 2].map(|()| pass_through_elsewhere(&slots, &holders, 1));
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        all_are_back(&slots, 1);
    });
}

/// P4: whichever lane a slot comes back to, it reaches the call that waits.
#[test]
fn nobody_waits_beside_a_slot_in_another_lane() {
    prove(&["bar"], || {
        let slots = slots(2);
        slots.flow().split(2);
        all_are_back(&slots, 2);
        let taken = [(); 2].map(|()| slots.try_acquire().expect("a slot in each lane"));
        assert_ne!(taken[0], taken[1]);
        let releaser = release_elsewhere(&slots, taken[1]);
        let place = slots.line_up().expect("room in the line");
        releaser.join().unwrap();
        assert!(is_granted(place), "it waits beside a free slot");
    });
}

/// P1, X10: a limit that is lowered while lanes change hands holds from then on.
#[test]
fn a_limit_that_was_lowered_holds_in_every_lane() {
    prove(&["limit"], || {
        let slots = slots(2);
        slots.flow().split(2);
        all_are_back(&slots, 2);
        let callers = [(); 2].map(|()| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || slots.try_acquire().is_some())
        });
        drop(slots.resize(super::slots::capacity(1)));
        let already = slots.in_flight();
        let entered: u32 = callers.map(|caller| u32::from(caller.join().unwrap())).into_iter().sum();
        assert!(entered <= already.max(1), "{entered} entered, {already} of them before the change");
        assert_eq!(slots.in_flight(), entered);
    });
}
