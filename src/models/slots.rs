//! The bulkhead's slots and its line.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use super::prove;
use crate::bulkhead::{Bulkhead, Capacity, InLine, Slots};
use crate::error::Problems;
use crate::window::flow::LaneId;

pub(super) fn capacity(limit: usize) -> Capacity {
    Bulkhead::new(limit).queue(2, Duration::from_secs(1)).check(&mut Problems::default(), "limit")
}

pub(super) fn slots(limit: usize) -> Arc<Slots> {
    Arc::new(Slots::new(capacity(limit)))
}

/// The slot that is taken is given back by another thread.
pub(super) fn release_elsewhere(slots: &Arc<Slots>, lane: LaneId) -> thread::JoinHandle<()> {
    let slots = Arc::clone(slots);
    thread::spawn(move || slots.release(lane))
}

pub(super) fn is_granted(mut place: InLine<'_>) -> bool {
    Pin::new(&mut place).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// P1, X10: once a lower limit is set, nobody enters beyond it.
#[test]
fn a_limit_that_was_lowered_holds() {
    prove(&["limit"], || {
        let slots = slots(2);
        let enter = |slots: &Arc<Slots>| {
            let slots = Arc::clone(slots);
            thread::spawn(move || slots.try_acquire().is_some())
        };
        let callers = [enter(&slots), enter(&slots)];
        drop(slots.resize(capacity(1)));
        let already = slots.in_flight();
        let entered = callers.into_iter().filter_map(|caller| caller.join().ok()).filter(|&entered| entered).count();
        assert!(entered as u32 <= already.max(1), "{entered} entered, {already} of them before the change");
        assert_eq!(slots.in_flight(), entered as u32);
    });
}

/// P2, P4: a slot that is given back while a call takes its place in line reaches that call.
#[test]
fn nobody_waits_beside_a_free_slot() {
    prove(&["line"], || {
        let slots = slots(1);
        assert!(slots.try_acquire().is_some());
        let releaser = release_elsewhere(&slots, LaneId::FIRST);
        let place = slots.line_up().expect("room in the line");
        releaser.join().unwrap();
        assert!(is_granted(place), "it waits beside a free slot");
        slots.release(LaneId::FIRST);
        assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    });
}

/// P2, P3, P4: a call that leaves the line while a slot is handed to it passes it on.
#[test]
fn a_slot_is_not_lost_on_one_who_leaves() {
    prove(&["granted"], || {
        let slots = slots(1);
        assert!(slots.try_acquire().is_some());
        let place = slots.line_up().expect("room in the line");
        let releaser = release_elsewhere(&slots, LaneId::FIRST);
        drop(place);
        releaser.join().unwrap();
        assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    });
}
