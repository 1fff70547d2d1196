//! Calls in flight and successes so far, in one word.
//!
//! A healthy call touches shared memory on the way in and on the way out, and on a busy command those two touches are
//! most of its cost. So what goes in and what comes out share a word: admission is one compare-and-swap, which keeps
//! the limit exact under any interleaving, and the end of a successful call is one add, which counts the success and
//! gives the slot back at once.

use crate::sync::{AtomicU32, AtomicU64, Ordering, seeded};

/// One word, the limit that admission holds it against, and the peak it has reached: whoever needs one of them needs
/// the cache line anyway.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Flow {
    /// From the low end: 24 bits in flight, one that says that calls wait, 39 of successes, which wrap out of the top.
    word: AtomicU64,
    limit: AtomicU32,
    /// Most calls in flight at once since the last bucket edge.
    peak: AtomicU32,
}

/// What a call that leaves found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Calls wait for a slot, and the one that was given back is theirs.
    pub(crate) line: bool,
}

impl Flow {
    /// No limit; also the most calls that can be in flight without one.
    pub(crate) const UNLIMITED: u32 = (1 << 24) - 1;
    const LINE: u64 = 1 << 24;
    const GOOD: u32 = 25;
    const GOOD_ONE: u64 = 1 << Self::GOOD;
    /// Successes are counted modulo this, less one.
    pub(crate) const GOOD_MASK: u64 = u64::MAX >> Self::GOOD;

    pub(crate) fn new(limit: u32) -> Self {
        Self { word: AtomicU64::new(0), limit: AtomicU32::new(limit), peak: AtomicU32::new(0) }
    }

    /// Takes a slot if one is free and nobody is in line for it.
    #[inline]
    pub(crate) fn try_enter(&self) -> Entered {
        self.enter_unless(Self::LINE)
    }

    /// Takes a slot if one is free, on behalf of the first in line.
    pub(crate) fn enter_from_line(&self) -> Entered {
        self.enter_unless(0)
    }

    #[inline]
    fn enter_unless(&self, barred: u64) -> Entered {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let in_flight = in_flight(word);
            if word & barred != 0 || in_flight >= self.limit() {
                return Entered::No;
            }
            match self.word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.note(in_flight + 1);
                    // A limit that was lowered meanwhile must not be passed after it was.
                    return if in_flight < self.limit() || seeded("limit") { Entered::Yes } else { Entered::LimitFell };
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// Gives a slot back.
    #[inline]
    pub(crate) fn leave(&self) -> Left {
        self.left(self.word.fetch_sub(1, Ordering::AcqRel))
    }

    /// Counts a success and gives its slot back; also returns how many successes there were before.
    #[inline]
    pub(crate) fn leave_good(&self) -> (u64, Left) {
        let before = self.word.fetch_add(Self::GOOD_ONE - 1, Ordering::AcqRel);
        (before >> Self::GOOD, self.left(before))
    }

    /// Counts a success that holds no slot; returns how many there were before.
    pub(crate) fn add_good(&self) -> u64 {
        self.word.fetch_add(Self::GOOD_ONE, Ordering::AcqRel) >> Self::GOOD
    }

    #[inline]
    fn left(&self, before: u64) -> Left {
        self.note(in_flight(before));
        Left { line: before & Self::LINE != 0 }
    }

    /// Bars newcomers, who would overtake those in line; `false` if a slot came free meanwhile. Called, as
    /// [`Flow::end_line`] is, under the line's lock.
    pub(crate) fn begin_line(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        if word & Self::LINE != 0 {
            return true;
        }
        in_flight(word) >= self.limit()
            && self.word.compare_exchange(word, word | Self::LINE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn end_line(&self) {
        self.word.fetch_and(!Self::LINE, Ordering::AcqRel);
    }

    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// From its return on no call enters beyond the new limit.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
        self.settled_good();
    }

    /// Successes so far, modulo 2^39, read by a write: a call that enters or leaves later sees what was stored before
    /// this, and one that did so earlier is seen by it. A plain load promises only the second.
    pub(crate) fn settled_good(&self) -> u64 {
        self.word.fetch_add(0, Ordering::AcqRel) >> Self::GOOD
    }

    pub(crate) fn in_flight(&self) -> u32 {
        in_flight(self.word.load(Ordering::Acquire))
    }

    /// Successes so far, modulo 2^39.
    pub(crate) fn good(&self) -> u64 {
        self.word.load(Ordering::Acquire) >> Self::GOOD
    }

    #[inline]
    fn note(&self, in_flight: u32) {
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    pub(crate) fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The peak so far; the next one starts from nothing. Calls that stay in flight across the edge show again when
    /// they end.
    pub(crate) fn take_peak(&self) -> u32 {
        self.peak.swap(0, Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn set_good(&self, good: u64) {
        self.word.store(good << Self::GOOD, Ordering::Release);
    }
}

/// What came of asking for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Yes,
    No,
    /// A slot was taken beyond a limit that has just been lowered: it must be given back.
    LimitFell,
}

fn in_flight(word: u64) -> u32 {
    word as u32 & Flow::UNLIMITED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_counts_and_gives_its_slot_back_at_once() {
        let flow = Flow::new(2);
        assert_eq!([flow.try_enter(), flow.try_enter(), flow.try_enter()], [Entered::Yes, Entered::Yes, Entered::No]);
        assert_eq!(flow.leave_good().0, 0);
        flow.leave();
        assert_eq!((flow.in_flight(), flow.good(), flow.peak()), (0, 1, 2));
    }

    /// T5, X8: successes wrap out of the top of the word and touch nothing else.
    #[test]
    fn the_count_of_successes_wraps_alone() {
        let flow = Flow::new(2);
        flow.set_good(Flow::GOOD_MASK);
        flow.try_enter();
        flow.try_enter();
        assert_eq!(flow.leave_good().0, Flow::GOOD_MASK);
        assert_eq!((flow.in_flight(), flow.good()), (1, 0));
    }

    #[test]
    fn newcomers_get_nothing_while_there_is_a_line() {
        let flow = Flow::new(1);
        assert!(!flow.begin_line(), "there is a free slot to take instead");
        flow.try_enter();
        assert!(flow.begin_line());
        assert!(flow.leave().line);
        assert_eq!((flow.try_enter(), flow.enter_from_line()), (Entered::No, Entered::Yes));
        flow.end_line();
        assert!(!flow.leave().line);
        assert_eq!(flow.try_enter(), Entered::Yes);
    }
}
