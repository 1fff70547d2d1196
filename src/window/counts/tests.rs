use super::*;

fn tally() -> Tally {
    Tally::new(Arc::new(Flow::new(1)))
}

/// X8, T5: readings that straddle the 32-bit edge still differ by what happened between them.
#[test]
fn differences_are_exact_across_the_wrap_of_a_reading() {
    let tally = tally();
    let edge = u64::from(u32::MAX) - 1;
    tally.flow.set_good(edge);
    tally.more().bad.store(edge, Ordering::Release);
    tally.more().others[Outcome::Failure as usize].store(edge, Ordering::Release);
    let before = tally.read_at_edge(&Reading::default());
    for _ in 0..5 {
        tally.flow.add_good();
        tally.add_bad();
        tally.add(Outcome::Failure);
    }
    let counts = tally.read().since(&before);
    assert_eq!((counts.of(Outcome::Success), counts.errors(), counts.total()), (5, 5, 10));
    assert_eq!(tally.read().health_since(&before), Health { errors: 5, total: 10, slow: 0, overdue: 0 });
}

/// Of what seldom changes there is one copy, and none of nothing.
#[test]
fn readings_share_what_has_not_changed() {
    let tally = tally();
    tally.flow.add_good();
    let clean = tally.read_at_edge(&Reading::default());
    assert!(clean.rare.is_none());
    tally.add_bad();
    let first = tally.read_at_edge(&clean);
    tally.flow.add_good();
    let second = tally.read_at_edge(&first);
    tally.add_slow();
    let third = tally.read_at_edge(&second);
    let rare = [&first, &second, &third].map(|reading| reading.rare.as_ref().expect("an error"));
    assert!(Arc::ptr_eq(rare[0], rare[1]) && !Arc::ptr_eq(rare[1], rare[2]));
}

#[test]
fn a_rate_is_a_share_of_what_counts() {
    let tally = tally();
    assert_eq!(tally.lifetime(&mut Extended::default()).error_rate(), None);
    tally.flow.set_good(3);
    [Outcome::TimedOut, Outcome::Ignored, Outcome::Cancelled].into_iter().for_each(|outcome| tally.add(outcome));
    (0..2).for_each(|refusal| _ = tally.flow.refuse(refusal));
    let lifetime = tally.lifetime(&mut Extended::default());
    assert_eq!((lifetime.error_rate(), lifetime.refused(), lifetime.calls()), (Some(0.25), 2, 8));
}

/// X8: the lifetime total goes on where the word wraps.
#[test]
fn lifetime_totals_outlive_the_word() {
    let (tally, mut good) = (tally(), Extended::default());
    for lap in 0..3 {
        for low in [0, Flow::GOOD_MASK / 2, Flow::GOOD_MASK] {
            tally.flow.set_good(low);
            let expected = lap * (Flow::GOOD_MASK + 1) + low;
            assert_eq!(tally.lifetime(&mut good).of(Outcome::Success), expected);
        }
    }
}

#[test]
fn figures_of_several_circuits_add_up() {
    let mut health = Health { errors: 1, total: 20, slow: 300, overdue: 4_000 };
    health.add(&Health { errors: 2, total: 30, slow: 400, overdue: 5_000 });
    assert_eq!(health, Health { errors: 3, total: 50, slow: 700, overdue: 9_000 });
    let mut counts = Counts::default();
    for count in [3, 5] {
        let mut other = Counts::default();
        other.set(Outcome::Success, count);
        other.set(Outcome::TimedOut, 10 * count);
        counts.add(&other);
    }
    assert_eq!((counts.of(Outcome::Success), counts.of(Outcome::TimedOut), counts.calls()), (8, 80, 88));
}
