//! The limiter: when a call may go, decided in one word.
//!
//! [`Limiter`] is the generic cell rate algorithm, in the form of virtual scheduling (ATM Forum, Traffic Management
//! Specification 4.0, 1996; ITU-T I.371), as the crate `governor` has it in memory: one word holds the time at which the
//! next call would be due if calls came evenly, and a call may go as soon as it is early by no more than a burst. A
//! compare-and-swap moves the word by one interval for each call, so the bound is exact under any interleaving: whatever
//! the clock does, never more than `burst + span / interval` calls are let go in any span of time.
//!
//! A call that may wait takes its turn by moving the word too, and learns when it may go: those who wait are in line
//! without a list. A turn that is not used after all is given back only while it is the last one: a later turn was
//! fixed with this one in mind, and whoever came next would go at the same time as its owner.

use super::config::Rate;
use crate::sync::{AtomicU32, AtomicU64, Ordering, seeded};
use crate::time::Stamp;

/// Times fill 62 bits of the word, 146 years of nanoseconds.
const LAST: u64 = u64::MAX >> EPOCH_BITS;
/// The other two tell apart turns from before and after a change of the rate.
const EPOCH_BITS: u32 = 2;
const EPOCH: u64 = (1 << EPOCH_BITS) - 1;

/// The limiter of one command, on a cache line of its own: every call writes it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Limiter {
    /// When the next call is due, and the epoch in the low bits.
    word: AtomicU64,
    /// 0 without a limit.
    interval: AtomicU64,
    burst: AtomicU32,
    wait: AtomicU64,
}

/// A call's turn: the word before and after it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    before: u64,
    after: u64,
}

impl Turn {
    /// Where there is no limit.
    const NONE: Self = Self { before: 0, after: 0 };
}

impl Limiter {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        let (interval, burst, wait) = rate.map_or((0, 1, 0), |rate| (rate.interval, rate.burst, rate.wait));
        Self {
            word: AtomicU64::new(0),
            interval: AtomicU64::new(interval),
            burst: AtomicU32::new(burst),
            wait: AtomicU64::new(wait),
        }
    }

    /// A turn that has come, or when there will be one.
    pub(crate) fn take(&self, now: Stamp) -> Result<Turn, Stamp> {
        self.book(now, 0).map(|(turn, _)| turn)
    }

    /// A turn that comes within the longest wait, and when it does.
    pub(crate) fn reserve(&self, now: Stamp) -> Option<(Turn, Stamp)> {
        let wait = self.wait.load(Ordering::Relaxed);
        if wait == 0 { None } else { self.book(now, wait).ok() }
    }

    /// A turn and its time; or the time that it would have had, which is too late.
    fn book(&self, now: Stamp, patience: u64) -> Result<(Turn, Stamp), Stamp> {
        let now = now.as_nanos().min(LAST);
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let interval = self.interval.load(Ordering::Acquire);
            if interval == 0 {
                return Ok((Turn::NONE, Stamp::from_nanos(now)));
            }
            let early = interval.saturating_mul(u64::from(self.burst.load(Ordering::Relaxed) - 1));
            let (due, epoch) = (word >> EPOCH_BITS, word & EPOCH);
            let go = due.saturating_sub(early).max(now);
            let base = due.max(now);
            if base + interval > LAST {
                return Err(Stamp::NEVER);
            }
            if go - now > patience {
                return Err(Stamp::from_nanos(go));
            }
            let turn = Turn { before: base << EPOCH_BITS | epoch, after: (base + interval) << EPOCH_BITS | epoch };
            match self.word.compare_exchange_weak(word, turn.after, Ordering::AcqRel, Ordering::Acquire) {
                Err(seen) if !seeded("turn") => word = seen,
                _ => return Ok((turn, Stamp::from_nanos(go))),
            }
        }
    }

    /// Gives back a turn that is not used, if it is the last one.
    pub(crate) fn give_back(&self, turn: Turn) {
        if seeded("give back") {
            self.word.fetch_sub(turn.after - turn.before, Ordering::AcqRel);
            return;
        }
        let _ = self.word.compare_exchange(turn.after, turn.before, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes a new rate; one change at a time. Calls that wait keep the time that they were given. What was used up
    /// stays so, but for no longer than the new burst takes to fill: a rate of one an hour must not go on for an hour.
    pub(crate) fn change(&self, now: Stamp, rate: Option<Rate>) {
        let Rate { interval, burst, wait } = rate.unwrap_or(Rate { interval: 0, burst: 1, wait: 0 });
        self.wait.store(wait, Ordering::Relaxed);
        let same = self.interval.load(Ordering::Relaxed) == interval && self.burst.load(Ordering::Relaxed) == burst;
        if same {
            return;
        }
        // In this order: a call that sees the new interval sees the new burst too, and one that sees the old interval
        // with the new burst is let go by a rate that lies between the two configurations.
        self.burst.store(burst, Ordering::Relaxed);
        self.interval.store(interval, Ordering::Release);
        let full = now.as_nanos().saturating_add(interval.saturating_mul(u64::from(burst)));
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let due = (word >> EPOCH_BITS).min(full);
            Some(due << EPOCH_BITS | (word + 1) & EPOCH)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Problems;
    use crate::rate_limit::config::RateLimit;

    const MILLI: u64 = 1_000_000;

    fn checked(limit: RateLimit) -> Rate {
        let mut problems = Problems::default();
        let rate = limit.check(&mut problems);
        problems.finish().expect("within the range");
        rate
    }

    fn limiter(limit: RateLimit) -> Limiter {
        Limiter::new(Some(checked(limit)))
    }

    fn at(millis: u64) -> Stamp {
        Stamp::from_nanos(millis * MILLI)
    }

    fn millis(span: u64) -> Duration {
        Duration::from_millis(span)
    }

    /// How many of many calls at one moment are let go.
    fn admitted(limiter: &Limiter, now: Stamp) -> usize {
        std::iter::from_fn(|| limiter.take(now).ok()).count()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let limiter = limiter(RateLimit::per_second(100).burst(20));
        assert_eq!(admitted(&limiter, at(0)), 20);
        assert_eq!(limiter.take(at(0)), Err(at(10)));
        assert_eq!(limiter.take(at(9)), Err(at(10)));
        assert_eq!(admitted(&limiter, at(10)), 1);
        assert_eq!(admitted(&limiter, at(35)), 2);
        assert_eq!(admitted(&limiter, at(10_000)), 20, "no pause saves up more than a burst");
    }

    #[test]
    fn turns_are_given_in_the_order_in_which_they_are_asked_for() {
        let limiter = limiter(RateLimit::every(millis(500)).wait(millis(3_000)));
        let turns: Vec<_> = std::iter::from_fn(|| limiter.reserve(at(0))).map(|(_, go)| go).collect();
        assert_eq!(turns, [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000].map(at));
        assert_eq!(limiter.take(at(0)), Err(at(3_500)));
    }

    #[test]
    fn a_turn_is_given_back_only_while_it_is_the_last() {
        let limiter = limiter(RateLimit::every(millis(10)).wait(millis(50)));
        let reserve = || limiter.reserve(at(0)).expect("a turn");
        let (first, second, third) = (reserve(), reserve(), reserve());
        assert_eq!([first.1, second.1, third.1], [0, 10, 20].map(at));
        limiter.give_back(second.0);
        assert_eq!(reserve().1, at(30), "the third keeps its time, so the second's is lost");
        let (fifth, sixth) = (reserve(), reserve());
        limiter.give_back(sixth.0);
        limiter.give_back(fifth.0);
        assert_eq!(reserve().1, fifth.1);
    }

    #[test]
    fn what_is_given_back_after_a_pause_is_one_turn_and_no_more() {
        let limiter = limiter(RateLimit::per_second(100).burst(3));
        let turn = limiter.take(at(5_000)).expect("a turn");
        limiter.give_back(turn);
        limiter.give_back(turn);
        assert_eq!(admitted(&limiter, at(5_000)), 3);
    }

    /// A turn of another rate is never given back, also when the word happens to be what it was.
    #[test]
    fn a_change_keeps_what_was_used_and_ends_old_turns() {
        let limiter = limiter(RateLimit::every(millis(10)).wait(millis(50)));
        let reserve = || limiter.reserve(at(0)).expect("a turn").0;
        let (_, second) = (reserve(), reserve());
        limiter.change(at(0), Some(checked(RateLimit::every(millis(5)).wait(millis(50)))));
        assert_eq!(limiter.reserve(at(0)).map(|(_, go)| go), Some(at(5)), "an empty bucket of the new rate");
        let (third, fourth) = (reserve(), reserve());
        assert_eq!(third.after >> EPOCH_BITS, 15 * MILLI);
        limiter.give_back(second);
        assert_eq!(limiter.word.load(Ordering::Relaxed), fourth.after);
    }

    #[test]
    fn a_change_of_the_wait_alone_keeps_the_turns_that_were_given() {
        let rate = RateLimit::every(millis(10)).wait(millis(50));
        let limiter = limiter(rate);
        assert!((0..5).all(|_| limiter.reserve(at(0)).is_some()));
        limiter.change(at(0), Some(checked(rate.wait(millis(100)))));
        assert_eq!(limiter.reserve(at(0)).map(|(_, go)| go), Some(at(50)));
    }

    #[test]
    fn a_slow_rate_does_not_outlive_its_change() {
        let limiter = limiter(RateLimit::new(1, Duration::from_secs(3_600)));
        assert_eq!(admitted(&limiter, at(0)), 1);
        limiter.change(at(1), Some(checked(RateLimit::per_second(100).burst(2))));
        assert_eq!(limiter.take(at(1)), Err(at(11)), "the burst is used up, and one call is due in an interval");
        limiter.change(at(1), None);
        assert!((0..1_000).all(|_| limiter.take(at(1)).is_ok()));
    }

    /// T1, T3: a clock that stands, goes back or jumps lets nothing more through.
    #[test]
    fn no_clock_gets_more_than_the_burst() {
        let limiter = limiter(RateLimit::per_second(10).burst(2));
        assert_eq!(admitted(&limiter, at(1_000)), 2);
        assert_eq!([admitted(&limiter, at(1_000)), admitted(&limiter, at(0))], [0, 0]);
        assert_eq!(admitted(&limiter, at(1_100)), 1);
        let far = Stamp::from_nanos(LAST - 100 * MILLI);
        assert_eq!(admitted(&limiter, far), 1, "the last turn that can be written down");
        assert_eq!(limiter.take(Stamp::NEVER), Err(Stamp::NEVER));
    }

    #[test]
    fn a_rate_that_does_not_divide_is_rounded_to_the_safe_side() {
        assert_eq!(checked(RateLimit::per_second(3)).interval, 333_333_334);
        assert_eq!(checked(RateLimit::per_second(1_000_000_000)).interval, 1);
        let limiter = limiter(RateLimit::per_second(u32::MAX / 5).burst(1));
        assert_eq!(admitted(&limiter, Stamp::from_nanos(7)), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// By so many nanoseconds, either way.
        Clock(i64),
        Take,
        Reserve,
        /// Gives back one of the turns that are still held.
        GiveBack(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => prop_oneof![(-50_i64..200).prop_map(Step::Clock), (-5_000_i64..20_000).prop_map(Step::Clock)],
            4 => Just(Step::Take),
            4 => Just(Step::Reserve),
            2 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        ]
    }

    proptest! {
        /// In any span of time, however it is chosen, no more calls go than the rate and the burst allow: for any order
        /// of calls, waits and turns given back, and for a clock that jumps both ways.
        #[test]
        fn never_more_than_rate_times_span_and_a_burst(
            calls in 1_u32..50, period in 50_u64..5_000, burst in 1_u32..8, wait in 1_u64..2_000,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let limit = RateLimit::new(calls, Duration::from_nanos(period)).burst(burst).wait(Duration::from_nanos(wait));
            let limiter = limiter(limit);
            let (mut now, mut held) = (1_000_000_u64, Vec::new());
            for step in steps {
                let clock = Stamp::from_nanos(now);
                match step {
                    Step::Clock(by) => now = now.saturating_add_signed(by),
                    Step::Take => held.extend(limiter.take(clock).ok().map(|turn| (turn, clock))),
                    Step::Reserve => {
                        let reserved = limiter.reserve(clock);
                        prop_assert!(reserved.is_none_or(|(_, go)| go.nanos_since(clock) <= wait));
                        held.extend(reserved);
                    }
                    Step::GiveBack(which) if !held.is_empty() => {
                        let (turn, _) = held.remove(which.index(held.len()));
                        limiter.give_back(turn);
                    }
                    Step::GiveBack(_) => {}
                }
            }
            let mut went: Vec<_> = held.iter().map(|(_, go)| go.as_nanos()).collect();
            went.sort_unstable();
            for (first, start) in went.iter().enumerate() {
                for (count, end) in (1_u64..).zip(&went[first..]) {
                    let allowed = u64::from(burst) * period + (end - start) * u64::from(calls);
                    prop_assert!(count * period <= allowed, "{count} calls in {} ns", end - start);
                }
            }
        }
    }
}
