//! A crowded command's lanes: one limit, dealt out in shares.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::slots::{capacity, is_granted, release_elsewhere, slots};
use super::{ever, prove};
use crate::bulkhead::Slots;
use crate::sync::plant;
use crate::window::flow::{Flow, LaneId};

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

/// P1, P2, P3: a command that is split while its shares are dealt out never has more slots than its limit, and loses none.
///
/// The bug was there once: a deal that found one lane by counting, and more a moment later, gave each the whole limit.
#[test]
fn a_split_makes_no_slot_and_loses_none() {
    prove(&["deal"], || {
        let (slots, holders) = (slots(1), Holders::default());
        let other = {
            let (slots, holders) = (Arc::clone(&slots), Arc::clone(&holders));
            thread::spawn(move || {
                drop(slots.resize(capacity(1)));
                pass_through(&slots, &holders, 1);
            })
        };
        slots.flow().split(2);
        pass_through(&slots, &holders, 1);
        other.join().unwrap();
        all_are_back(&slots, 1);
    });
}

/// P1, P2, P3: a slot that is looked for from a lane without one is given once, whoever comes to its own lane meanwhile.
#[test]
fn lanes_share_what_is_left() {
    prove(&["in turn"], || {
        let (slots, holders) = (slots(2), Holders::default());
        slots.flow().split(2);
        // The one that is left is in one lane's share, and not in the other's.
        let held = slots.try_acquire().expect("nobody is in");
        holders.fetch_add(1, Ordering::SeqCst);
        let callers = [(); 2].map(|()| pass_through_elsewhere(&slots, &holders, 2));
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        slots.release(held);
        all_are_back(&slots, 2);
    });
}

/// P4: whichever lane a slot comes back to, it reaches the call that waits.
#[test]
fn nobody_waits_beside_a_slot_in_another_lane() {
    prove(&["bar"], || {
        let slots = slots(2);
        slots.flow().split(2);
        let taken = [(); 2].map(|()| slots.try_acquire().expect("a slot"));
        let apart = taken.into_iter().find(|&lane| lane != LaneId::FIRST).expect("they are in different lanes");
        let releaser = release_elsewhere(&slots, apart);
        let place = slots.line_up().expect("room in the line");
        releaser.join().unwrap();
        assert!(is_granted(place), "it waits beside a free slot");
    });
}

/// P1, X10: a limit that is lowered while a call comes to its lane holds from then on.
#[test]
fn a_limit_that_was_lowered_holds_in_every_lane() {
    prove(&["limit"], || {
        let slots = slots(2);
        slots.flow().split(2);
        let held = slots.try_acquire().expect("nobody is in");
        // This thread's lane has the share that is left.
        let other = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || {
                drop(slots.resize(capacity(1)));
                slots.in_flight()
            })
        };
        let entered = slots.try_acquire().is_some();
        let already = other.join().unwrap();
        assert!(!entered || already == 2, "it entered beyond the limit");
        slots.release(held);
        assert_eq!(slots.in_flight(), u32::from(entered));
    });
}

/// Whether a call that meets another in a crowd ever hears of it.
fn is_heard(call: fn(&Flow) -> bool) -> bool {
    ever(move || {
        let flow = Arc::new(Flow::new(Flow::UNLIMITED));
        flow.crowd();
        let other = {
            let flow = Arc::clone(&flow);
            thread::spawn(move || call(&flow))
        };
        call(&flow) | other.join().unwrap()
    })
}

/// Be it when it leaves or when it is refused. Without it no command would ever be split.
#[test]
fn who_meets_another_hears_of_the_crowd() {
    let calls: [fn(&Flow) -> bool; 2] = [
        |flow| {
            flow.try_enter();
            flow.leave_good(LaneId::FIRST, 0).is_some_and(|left| left.crowded)
        },
        |flow| flow.refuse(0),
    ];
    for call in calls {
        assert!(is_heard(call));
        plant("deaf");
        let heard = is_heard(call);
        plant("");
        assert!(!heard, "the model does not see the bug `deaf`");
    }
}
