use std::thread;

use super::*;

fn widened(limit: u32, lanes: usize) -> Flow {
    let flow = Flow::new(limit);
    flow.split(lanes);
    flow
}

fn enter_all(flow: &Flow) -> Vec<LaneId> {
    iter::from_fn(|| match flow.try_enter() {
        Entered::In(lane) => Some(lane),
        Entered::Unclear => {
            flow.bar();
            let entered = flow.enter_barred();
            flow.unbar();
            entered
        }
        _ => None,
    })
    .collect()
}

/// P1: whatever the lanes, as many calls get in as may, and never one more.
#[test]
fn lanes_share_the_limit_and_keep_to_it() {
    for (lanes, mut limit) in [(2, 1), (2, 2), (4, 3), (4, 64), (16, 100)] {
        let flow = widened(limit, lanes);
        let entered = enter_all(&flow);
        assert_eq!((entered.len() as u32, flow.in_flight(), flow.peak()), (limit, limit, limit));
        assert_eq!(flow.try_enter(), Entered::Full);
        for &lane in entered.iter().rev() {
            flow.leave(lane);
            let again = enter_all(&flow);
            assert_eq!((again.len(), flow.in_flight()), (1, limit), "the one that came free, wherever it is");
            flow.leave(again[0]);
            limit -= 1;
            flow.bar();
            flow.set_limit(limit);
            flow.unbar();
        }
    }
}

/// P1: what is dealt out is the limit, to the last: each lane keeps what it has, and those where calls begin get equal
/// parts of the rest.
#[test]
fn shares_add_up_to_the_limit() {
    for lanes in [2, 4, MOST_LANES] {
        for limit in 1..70 {
            let flow = widened(limit, lanes);
            for _ in 0..limit {
                flow.bar();
                assert!(flow.lanes().all(|lane| lane.enter(LaneId::FIRST, || ()) != Entered::In(LaneId::FIRST)));
                flow.enter_barred();
                flow.unbar();
                let (shares, held): (Vec<_>, Vec<_>) = flow.lanes().map(|l| (l.share(), l.in_flight())).unzip();
                assert_eq!((shares.iter().sum::<u32>(), shares[0]), (limit, held[0]), "{lanes} lanes");
                let parts = || shares[1..].iter().zip(&held[1..]).map(|(share, held)| share - held);
                assert!(parts().max() <= parts().min().map(|least| least + 1), "{lanes} lanes, {limit}: {shares:?}");
                flow.try_enter();
            }
        }
    }
}

#[test]
fn meetings_make_a_crowd_where_there_is_room_for_more_lanes() {
    let most = processors().next_power_of_two().clamp(2, MOST_LANES);
    for (limit, lanes) in [(1, 1), (31, 1), (32, 2), (63, 2), (64, 4), (300, 16), (Flow::UNLIMITED, 16)] {
        let flow = Flow::new(limit);
        assert_eq!(flow.lanes_wanted(), most.min(lanes), "a limit of {limit}");
        (1..CROWD).for_each(|_| flow.meet());
        assert!(!flow.is_crowded());
        flow.meet();
        assert_eq!(flow.is_crowded(), most.min(lanes) > 1);
        flow.take_peak();
        assert!(!flow.is_crowded(), "they were in another bucket");
        flow.crowd();
        flow.widen();
        assert!(!flow.is_crowded(), "it has been split, or cannot be");
        assert_eq!(flow.lanes().count(), if most.min(lanes) > 1 { 1 + most.min(lanes) } else { 1 });
    }
}

/// The first lane then has what is in flight there, and no share for newcomers.
#[test]
fn no_call_begins_in_the_first_lane_where_there_are_more() {
    let flow = widened(64, 2);
    let homes = || thread::scope(|scope| scope.spawn(|| flow.home()).join().expect("a lane"));
    assert!((0..20).all(|_| [LaneId(1), LaneId(2)].contains(&homes())));
}

/// Only a call that has met another looks whether there is a crowd, and a calm one is no matter.
#[test]
fn who_meets_nobody_hears_of_no_crowd() {
    let flow = Flow::new(64);
    flow.crowd();
    flow.try_enter();
    assert!(!flow.leave_good(LaneId::FIRST, 0).expect("of its generation").crowded && !flow.refuse(0));
}

/// P1, X10: a limit that is lowered below what is in flight lets nobody in before enough have left.
#[test]
fn a_lowered_limit_holds_across_lanes() {
    let flow = widened(64, 4);
    let entered = enter_all(&flow);
    flow.bar();
    flow.set_limit(3);
    flow.unbar();
    for lane in &entered[3..] {
        assert_eq!(enter_all(&flow), []);
        flow.leave(*lane);
    }
    assert_eq!(enter_all(&flow), []);
    flow.leave(entered[0]);
    assert_eq!(enter_all(&flow).len(), 1);
}

/// What a call reads of it must not lie on a line that others write.
#[test]
fn it_is_no_larger_than_a_cache_line() {
    assert_eq!((size_of::<Flow>(), size_of::<Apart>()), (64, 64));
}

#[test]
fn lanes_count_together() {
    let flow = widened(64, 4);
    flow.set_good(GOOD_MASK);
    let entered = enter_all(&flow);
    assert!(entered[1..].iter().all(|&lane| flow.leave_good(lane, 0).is_some()));
    assert_eq!(flow.good(), 62);
    flow.begin_generation(9);
    assert_eq!((flow.good(), flow.settled_good()), (62, 62));
}
