use super::*;
use crate::sync::does_without;

fn slots(limit: u32, length: usize) -> Slots {
    Slots::new(Capacity { limit, queue: Some((length, 1)) })
}

fn place(slots: &Slots) -> InLine<'_> {
    slots.line_up().expect("room in the line")
}

fn poll(place: &mut InLine<'_>) -> Poll<LaneId> {
    Pin::new(place).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_returned_slot_goes_to_the_first_in_line_and_not_to_a_newcomer() {
    let slots = slots(1, 2);
    assert!(slots.try_acquire().is_some());
    let (mut first, mut second) = (place(&slots), place(&slots));
    assert!(slots.line_up().is_none());
    assert!(poll(&mut first).is_pending());
    slots.release(LaneId::FIRST);
    assert_eq!((slots.try_acquire(), slots.in_flight(), slots.waiting()), (None, 1, 1));
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut first).is_ready());
}

/// P4: a granted slot is passed on when its owner has gone, and a waiter that leaves frees its place.
#[test]
fn a_slot_granted_to_someone_who_left_is_passed_on() {
    let slots = slots(1, 3);
    slots.try_acquire();
    let (first, second, mut third) = (place(&slots), place(&slots), place(&slots));
    drop(second);
    assert_eq!(slots.waiting(), 2);
    slots.release(LaneId::FIRST);
    drop(first);
    assert!(poll(&mut third).is_ready());
    drop(third);
    assert_eq!((slots.in_flight(), slots.waiting()), (1, 0));
    slots.release(LaneId::FIRST);
    assert_eq!(slots.in_flight(), 0);
}

/// P1: a lower limit holds from the moment it is set; a higher one is used at once by those who wait.
#[test]
fn the_limit_changes_live_in_both_directions() {
    let slots = slots(2, 4);
    slots.try_acquire();
    slots.try_acquire();
    let (mut first, mut second) = (place(&slots), place(&slots));
    assert!(slots.resize(Capacity { limit: 1, queue: Some((4, 1)) }).is_empty());
    slots.release(LaneId::FIRST);
    assert!(poll(&mut first).is_pending(), "one is still in flight, and one is the limit");
    assert_eq!(slots.resize(Capacity { limit: 3, queue: Some((4, 1)) }).len(), 1, "one has been polled");
    assert!(poll(&mut first).is_ready() && poll(&mut second).is_ready());
    assert_eq!((slots.in_flight(), slots.waiting(), slots.limit()), (3, 0, Some(3)));
}

/// P1: where lanes have used up their shares it is decided under the lock who comes in, and the line comes first.
#[test]
fn lanes_keep_to_the_limit_and_to_the_line() {
    let slots = slots(3, 2);
    slots.flow().split(2);
    let lanes: Vec<_> = std::iter::repeat_with(|| slots.try_acquire()).map_while(|lane| lane).collect();
    assert_eq!((lanes.len(), slots.in_flight()), (3, 3));
    let mut waiting = place(&slots);
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(slots.resize(Capacity { limit: 9, queue: Some((2, 1)) }.at(2)).len(), 0);
    slots.release(lanes[0]);
    assert_eq!((slots.try_acquire(), slots.in_flight()), (None, 2));
    slots.release(lanes[1]);
    assert_eq!((slots.try_acquire(), slots.in_flight()), (None, 2), "it is the waiting call's");
    assert!(poll(&mut waiting).is_ready());
}

/// Nobody in line, nobody barred: a call that found a slot at once, or no line to stand in, leaves no bar behind.
#[test]
fn only_a_line_bars_newcomers() {
    let slots = slots(2, 1);
    let mut at_once = place(&slots);
    assert!(poll(&mut at_once).is_ready());
    assert_eq!(slots.flow().try_enter(), Entered::In(LaneId::FIRST));
    let no_line = Slots::new(Capacity::of(1));
    assert!(no_line.try_acquire().is_some() && no_line.line_up().is_none());
    assert!(!no_line.flow().leave(LaneId::FIRST).line);
}

#[test]
fn a_slot_comes_and_goes_without_the_lock_of_the_line() {
    let one = slots(1, 1);
    assert!(does_without(&one.line, || one.release(one.try_acquire().expect("it is free"))));
    let lanes = slots(64, 1);
    lanes.flow().split(2);
    lanes.release(lanes.try_acquire().expect("shares are dealt out to the first that comes"));
    let takes = |calls: usize| (0..calls).all(|_| lanes.try_acquire().is_some());
    assert!(does_without(&lanes.line, || assert!(takes(40), "where its own lane is full it looks into others")));
}

#[test]
fn without_a_limit_calls_are_still_counted() {
    let slots = Slots::new(Capacity::UNLIMITED);
    assert_eq!((slots.try_acquire().is_some(), slots.limit(), slots.in_flight()), (true, None, 1));
    slots.release(LaneId::FIRST);
    assert_eq!(slots.in_flight(), 0);
}
