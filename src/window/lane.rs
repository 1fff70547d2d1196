//! One word that calls go through, in and out.
//!
//! A healthy call touches shared memory on the way in and on the way out, and those two touches are a good part of its
//! cost. So what goes in and what comes out share a word: admission is one compare-and-swap, which keeps the limit exact
//! under any interleaving, and so is the end of a successful call, which counts the success and gives the slot back at
//! once.

use std::array;

use crate::outcome::Outcome;
use crate::sync::{AtomicU32, AtomicU64, Ordering, seeded};

/// The word, the limit that admission holds it against, and the peak it has reached: whoever needs one of them needs the
/// cache line anyway.
#[derive(Debug)]
pub(super) struct Lane {
    /// From the low end: 24 bits in flight, one that bars newcomers, 5 of the generation that successes are counted
    /// for, 34 of successes, which wrap out of the top.
    word: AtomicU64,
    share: AtomicU32,
    /// Most calls in flight at once since the last bucket edge.
    peak: AtomicU32,
    /// Calls that were refused: they are many where little else happens, and must cost next to nothing.
    refused: [AtomicU64; Outcome::REFUSALS],
}

/// Where a slot was taken, and must be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneId(pub(super) u8);

impl LaneId {
    pub(crate) const FIRST: Self = Self(0);
}

/// What came of asking for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    In(LaneId),
    Full,
    /// Newcomers are barred, or no lane has room although fewer calls are in flight than may be: to be decided under
    /// the line's lock.
    Unclear,
    /// A slot was taken beyond a share that has just been lowered: it must be given back.
    ShareFell(LaneId),
}

/// What a call that leaves found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Newcomers are barred: calls wait for a slot, and the one that was given back is theirs.
    pub(crate) line: bool,
    /// Calls meet here so often that it pays to part them.
    pub(crate) crowded: bool,
}

/// As many as fit into their part of the word.
pub(super) const MOST_IN_FLIGHT: u32 = (1 << 24) - 1;
/// Successes are counted modulo this, less one.
pub(super) const GOOD_MASK: u64 = u64::MAX >> GOOD;

const BAR: u64 = 1 << 24;
const TAG: u32 = 25;
const TAG_MASK: u64 = 0b1_1111 << TAG;
const GOOD: u32 = 30;
const GOOD_ONE: u64 = 1 << GOOD;

impl Lane {
    pub(super) fn new(share: u32) -> Self {
        let refused = array::from_fn(|_| AtomicU64::new(0));
        Self { word: AtomicU64::new(0), share: AtomicU32::new(share), peak: AtomicU32::new(0), refused }
    }

    /// A lane with no share and no successes, for the same generation.
    pub(super) fn beside(&self) -> Self {
        let lane = Self::new(0);
        lane.word.store(self.word.load(Ordering::Acquire) & TAG_MASK, Ordering::Release);
        lane
    }

    /// Takes a slot. `meet` is told of every other call that came in between.
    #[inline]
    pub(super) fn enter(&self, id: LaneId, mut meet: impl FnMut()) -> Entered {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let in_flight = in_flight(word);
            if in_flight >= self.share() {
                return Entered::Full;
            }
            if word & BAR != 0 {
                return Entered::Unclear;
            }
            match self.word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.note(in_flight + 1);
                    // A share that was lowered meanwhile must not be passed after it was.
                    let holds = in_flight < self.share() || seeded("limit");
                    return if holds { Entered::In(id) } else { Entered::ShareFell(id) };
                }
                Err(seen) => word = seen,
            }
            meet();
        }
    }

    /// Takes a slot whatever the share.
    pub(super) fn force_enter(&self) {
        self.note(in_flight(self.word.fetch_add(1, Ordering::AcqRel)) + 1);
    }

    /// Gives a slot back.
    #[inline]
    pub(super) fn leave(&self) -> Left {
        self.left(self.word.fetch_sub(1, Ordering::AcqRel))
    }

    /// Counts a success of a generation and gives its slot back; neither if another generation has begun.
    #[inline]
    pub(super) fn leave_good(&self, generation: u64, mut meet: impl FnMut()) -> Option<Left> {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & TAG_MASK == tag(generation) || seeded("tag") {
            let after = word.wrapping_add(GOOD_ONE - 1);
            if seeded("count") {
                self.word.store(after, Ordering::Release);
                return Some(self.left(word));
            }
            match self.word.compare_exchange_weak(word, after, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(self.left(word)),
                Err(seen) => word = seen,
            }
            meet();
        }
        None
    }

    #[inline]
    fn left(&self, before: u64) -> Left {
        self.note(in_flight(before));
        Left { line: before & BAR != 0, crowded: false }
    }

    #[inline]
    fn note(&self, in_flight: u32) {
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        in_flight(self.word.load(Ordering::Acquire))
    }

    pub(super) fn bar(&self) {
        self.word.fetch_or(BAR, Ordering::AcqRel);
    }

    pub(super) fn unbar(&self) {
        self.word.fetch_and(!BAR, Ordering::AcqRel);
    }

    #[inline]
    pub(super) fn share(&self) -> u32 {
        self.share.load(Ordering::Acquire)
    }

    /// Newcomers must be barred.
    pub(super) fn set_share(&self, share: u32) {
        self.share.store(share, Ordering::Release);
    }

    /// Successes so far.
    pub(super) fn good(&self) -> u64 {
        self.word.load(Ordering::Acquire) >> GOOD
    }

    /// Successes so far, read by a write: whoever comes later sees what was stored before this.
    pub(super) fn settled_good(&self) -> u64 {
        self.word.fetch_add(0, Ordering::AcqRel) >> GOOD
    }

    pub(super) fn add_good(&self) {
        self.word.fetch_add(GOOD_ONE, Ordering::AcqRel);
    }

    /// From here on only successes of this generation are counted.
    pub(super) fn begin_generation(&self, generation: u64) {
        let retag = |word: u64| Some(word & !TAG_MASK | tag(generation));
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, retag).ok();
    }

    /// Counts a refusal, by its place among them. An add would do, but would not tell of others that came in between.
    #[inline]
    pub(super) fn refuse(&self, refusal: usize, mut meet: impl FnMut()) {
        let refused = &self.refused[refusal];
        let mut count = refused.load(Ordering::Relaxed);
        while let Err(seen) =
            refused.compare_exchange_weak(count, count.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed)
        {
            count = seen;
            meet();
        }
    }

    pub(super) fn refused(&self, refusal: usize) -> u64 {
        self.refused[refusal].load(Ordering::Acquire)
    }

    pub(super) fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    pub(super) fn forget_peak(&self) {
        self.peak.store(0, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn set_good(&self, good: u64) {
        self.word.store(good << GOOD, Ordering::Release);
    }
}

fn in_flight(word: u64) -> u32 {
    word as u32 & MOST_IN_FLIGHT
}

fn tag(generation: u64) -> u64 {
    generation << TAG & TAG_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: fn() = || ();

    fn enter(lane: &Lane) -> bool {
        lane.enter(LaneId::FIRST, NOBODY) == Entered::In(LaneId::FIRST)
    }

    #[test]
    fn a_success_counts_and_gives_its_slot_back_at_once() {
        let lane = Lane::new(2);
        assert_eq!([enter(&lane), enter(&lane), enter(&lane)], [true, true, false]);
        assert!(lane.leave_good(0, NOBODY).is_some());
        lane.leave();
        assert_eq!((lane.in_flight(), lane.good(), lane.peak()), (0, 1, 2));
    }

    /// S4: what comes too late for its generation is neither counted nor given back here.
    #[test]
    fn a_success_of_another_generation_changes_nothing() {
        let lane = Lane::new(2);
        enter(&lane);
        lane.leave_good(0, NOBODY);
        enter(&lane);
        lane.begin_generation(1);
        assert_eq!((lane.in_flight(), lane.good()), (1, 1));
        assert!(lane.leave_good(0, NOBODY).is_none());
        assert_eq!((lane.in_flight(), lane.good()), (1, 1));
        assert!(lane.leave_good(1, NOBODY).is_some());
        assert_eq!((lane.in_flight(), lane.good()), (0, 2));
    }

    /// T5, X8: successes wrap out of the top of the word and touch nothing else.
    #[test]
    fn the_count_of_successes_wraps_alone() {
        let lane = Lane::new(2);
        lane.set_good(GOOD_MASK);
        lane.begin_generation(u64::MAX);
        assert!(enter(&lane) && enter(&lane));
        assert!(lane.leave_good(u64::MAX, NOBODY).is_some());
        assert_eq!((lane.in_flight(), lane.good()), (1, 0));
        lane.add_good();
        assert_eq!((lane.in_flight(), lane.good(), lane.settled_good()), (1, 1, 1));
    }

    #[test]
    fn newcomers_get_nothing_while_they_are_barred() {
        let lane = Lane::new(2);
        lane.bar();
        assert_eq!(lane.enter(LaneId::FIRST, NOBODY), Entered::Unclear);
        lane.force_enter();
        assert!(lane.leave().line);
        lane.unbar();
        assert!(enter(&lane) && !lane.leave().line);
    }

    #[test]
    fn a_lane_beside_another_starts_with_its_generation_alone() {
        let lane = Lane::new(2);
        lane.begin_generation(7);
        enter(&lane);
        lane.add_good();
        let beside = lane.beside();
        assert_eq!((beside.in_flight(), beside.good(), beside.share()), (0, 0, 0));
        beside.set_share(1);
        assert!(enter(&beside) && beside.leave_good(7, NOBODY).is_some());
    }
}
