//! Calls in flight and successes so far, in one word.
//!
//! A healthy call touches shared memory on the way in and on the way out, and on a busy command those two touches are
//! most of its cost. So what goes in and what comes out share a word: admission is one compare-and-swap, which keeps
//! the limit exact under any interleaving, and so is the end of a successful call, which counts the success and gives
//! the slot back at once.
//!
//! Where several threads meet at that word all the time, the word itself becomes the cost: it travels between their
//! processors for every call. Then, and only then, the command is split into lanes, as Java's `LongAdder` is into cells:
//! each lane has its own word and a share of the limit, a thread keeps to its lane, and looks into the others when its
//! own is full. The shares never add up to more than the limit, so the limit stays exact.

use std::array;
use std::iter;
use std::sync::OnceLock;

use crate::outcome::Outcome;
use crate::sync::{AtomicU32, AtomicU64, Ordering, processors, seeded, thread_index};

#[derive(Debug)]
pub(crate) struct Flow {
    first: Lane,
    /// One less than a power of two.
    more: OnceLock<Box<[Lane]>>,
    limit: AtomicU32,
    /// How often two calls met at the first lane since the last bucket edge.
    meetings: AtomicU32,
}

/// A word, the limit that admission holds it against, and the peak it has reached: whoever needs one of them needs the
/// cache line anyway.
#[derive(Debug)]
#[repr(align(64))]
struct Lane {
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
pub(crate) struct LaneId(u8);

/// What a call that leaves found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Calls wait for a slot, and the one that was given back is theirs.
    pub(crate) line: bool,
    /// Calls meet here so often that it is time to [`Flow::widen`].
    pub(crate) crowded: bool,
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

const BAR: u64 = 1 << 24;
const TAG: u32 = 25;
const TAG_MASK: u64 = 0b1_1111 << TAG;
const GOOD: u32 = 30;
const GOOD_ONE: u64 = 1 << GOOD;

/// Lanes beyond this cost more to sum up than they save.
const MOST_LANES: usize = 16;
/// A lane with a smaller share is often full while others are not.
const LEAST_SHARE: u32 = 16;
/// Meetings within one bucket that are no accident.
const CROWD: u32 = 64;

impl Flow {
    /// No limit; also the most calls that can be in flight without one.
    pub(crate) const UNLIMITED: u32 = (1 << 24) - 1;
    /// Successes are counted modulo this, less one.
    pub(crate) const GOOD_MASK: u64 = u64::MAX >> GOOD;

    pub(crate) fn new(limit: u32) -> Self {
        let (first, more) = (Lane::new(0, limit), OnceLock::new());
        Self { first, more, limit: AtomicU32::new(limit), meetings: AtomicU32::new(0) }
    }

    // ---- slots ----

    /// Takes a slot if one is free and no newcomer is barred.
    #[inline]
    pub(crate) fn try_enter(&self) -> Entered {
        let Some(more) = self.more.get() else {
            return self.first.enter(LaneId::FIRST, || self.meet());
        };
        let home = LaneId((thread_index() & more.len()) as u8);
        match self.lane(home).enter(home, || ()) {
            Entered::Full | Entered::Unclear => self.enter_elsewhere(home),
            entered => entered,
        }
    }

    #[cold]
    fn enter_elsewhere(&self, home: LaneId) -> Entered {
        if self.in_flight() >= self.limit() {
            return Entered::Full;
        }
        // It is new, or there were more in flight than may be when shares were dealt out.
        if self.lane(home).share.load(Ordering::Relaxed) == 0 {
            return Entered::Unclear;
        }
        for (id, lane) in self.lanes() {
            match lane.enter(id, || ()) {
                Entered::Full | Entered::Unclear => {}
                entered => return entered,
            }
        }
        Entered::Unclear
    }

    /// Gives a slot back.
    #[inline]
    pub(crate) fn leave(&self, lane: LaneId) -> Left {
        let lane = self.lane(lane);
        lane.left(lane.word.fetch_sub(1, Ordering::AcqRel), false)
    }

    /// Counts a success of a generation and gives its slot back; neither if another generation has begun.
    #[inline]
    pub(crate) fn leave_good(&self, lane: LaneId, generation: u64) -> Option<Left> {
        let lane = self.lane(lane);
        let mut word = lane.word.load(Ordering::Relaxed);
        let mut crowded = false;
        while word & TAG_MASK == tag(generation) || seeded("tag") {
            match lane.word.compare_exchange_weak(word, Self::after_good(word), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(lane.left(word, crowded)),
                Err(seen) => word = seen,
            }
            crowded = self.meet();
        }
        None
    }

    /// One more success, one less in flight; the count wraps out of the top.
    #[inline]
    fn after_good(word: u64) -> u64 {
        word.wrapping_add(GOOD_ONE - 1)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.lanes().map(|(_, lane)| in_flight(lane.word.load(Ordering::Acquire))).sum()
    }

    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    // ---- the line: all of these under its lock ----

    /// Bars newcomers, who would overtake those in line, or come in while shares change.
    pub(crate) fn bar(&self) {
        self.lanes().for_each(|(_, lane)| {
            lane.word.fetch_or(BAR, Ordering::AcqRel);
        });
    }

    /// Lets newcomers in again, and deals out the limit to the lanes: to each what it has in flight, and an equal part
    /// of the rest. With more in flight than may be, none gets anything.
    pub(crate) fn unbar(&self) {
        let limit = self.limit();
        let mut taken = [0; MOST_LANES];
        for (taken, (_, lane)) in taken.iter_mut().zip(self.lanes()) {
            *taken = in_flight(lane.word.load(Ordering::Acquire));
        }
        let rest = limit.checked_sub(taken.iter().sum());
        let lanes = self.lanes().count() as u32;
        for (n, (_, lane)) in self.lanes().enumerate() {
            let share = match rest {
                _ if lanes == 1 || limit == Self::UNLIMITED => limit,
                None => 0,
                Some(rest) => taken[n] + rest / lanes + u32::from((n as u32) < rest % lanes),
            };
            lane.share.store(share, Ordering::Release);
        }
        self.lanes().for_each(|(_, lane)| {
            lane.word.fetch_and(!BAR, Ordering::AcqRel);
        });
    }

    /// Takes a slot if fewer calls are in flight than may be, while newcomers are barred.
    pub(crate) fn enter_barred(&self) -> Option<LaneId> {
        if self.in_flight() >= self.limit() {
            return None;
        }
        self.first.note(in_flight(self.first.word.fetch_add(1, Ordering::AcqRel)) + 1);
        Some(LaneId::FIRST)
    }

    /// The limit that [`Flow::unbar`] deals out. Newcomers must be barred: from then on none enters beyond it.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    // ---- successes ----

    /// Counts a success that holds no slot, for the generation that is current. Under the circuit's lock, as all below.
    pub(crate) fn add_good(&self) {
        self.first.word.fetch_add(GOOD_ONE, Ordering::AcqRel);
    }

    /// Starts a generation: from here on only its own successes are counted here. Returns those so far, as
    /// [`Flow::good`] does.
    pub(crate) fn begin_generation(&self, generation: u64) -> u64 {
        let retag = |word: u64| Some(word & !TAG_MASK | tag(generation));
        let goods = self.lanes().map(|(_, lane)| {
            let before = lane.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, retag);
            before.unwrap_or_else(|word| word) >> GOOD
        });
        goods.fold(0, u64::wrapping_add) & Self::GOOD_MASK
    }

    /// Successes so far, modulo 2^34.
    pub(crate) fn good(&self) -> u64 {
        let goods = self.lanes().map(|(_, lane)| lane.word.load(Ordering::Acquire) >> GOOD);
        goods.fold(0, u64::wrapping_add) & Self::GOOD_MASK
    }

    /// As [`Flow::good`], read by writes: a call that enters or leaves later sees what was stored before this, and one
    /// that did so earlier is seen by it. Plain loads promise only the second.
    #[cold]
    pub(crate) fn settled_good(&self) -> u64 {
        let goods = self.lanes().map(|(_, lane)| lane.word.fetch_add(0, Ordering::AcqRel) >> GOOD);
        goods.fold(0, u64::wrapping_add) & Self::GOOD_MASK
    }

    // ---- refusals ----

    /// Counts a refusal, by its place among them; whether it is time to [`Flow::widen`].
    #[inline]
    pub(crate) fn refuse(&self, refusal: usize) -> bool {
        let Some(more) = self.more.get() else {
            return self.refuse_together(refusal);
        };
        let home = LaneId((thread_index() & more.len()) as u8);
        self.lane(home).refused[refusal].fetch_add(1, Ordering::AcqRel);
        false
    }

    /// An add would do, but would not tell that calls meet here.
    #[inline]
    fn refuse_together(&self, refusal: usize) -> bool {
        let refused = &self.first.refused[refusal];
        let mut count = refused.load(Ordering::Relaxed);
        let mut crowded = false;
        loop {
            match refused.compare_exchange_weak(count, count.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return crowded,
                Err(seen) => count = seen,
            }
            crowded = self.meet();
        }
    }

    /// Refusals so far.
    pub(crate) fn refused(&self, refusal: usize) -> u64 {
        let counts = self.lanes().map(|(_, lane)| lane.refused[refusal].load(Ordering::Acquire));
        counts.fold(0, u64::wrapping_add)
    }

    // ---- lanes ----

    /// A call met another at the word; whether that happens all the time.
    #[cold]
    fn meet(&self) -> bool {
        let meetings = self.meetings.fetch_add(1, Ordering::Relaxed);
        meetings >= CROWD && self.more.get().is_none() && self.lanes_wanted() > 1
    }

    /// As many lanes as there are processors and the limit has shares for.
    fn lanes_wanted(&self) -> usize {
        let most = processors().next_power_of_two().min(MOST_LANES);
        let shares = (self.limit() / LEAST_SHARE).max(1);
        most.min(1 << shares.ilog2())
    }

    /// Adds lanes. They have no share of the limit: those who come to them first deal it out. Under the circuit's lock,
    /// so that no generation begins meanwhile.
    pub(crate) fn widen(&self) {
        let lanes = self.lanes_wanted();
        if lanes > 1 && self.more.get().is_none() {
            let tag = self.first.word.load(Ordering::Acquire) & TAG_MASK;
            let _ = self.more.set(iter::repeat_with(|| Lane::new(tag, 0)).take(lanes - 1).collect());
        }
    }

    #[inline]
    fn lane(&self, LaneId(id): LaneId) -> &Lane {
        match usize::from(id).checked_sub(1) {
            None => &self.first,
            Some(n) => &self.more.get().expect("a lane that exists")[n],
        }
    }

    fn lanes(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        let more = self.more.get().map_or(&[][..], |more| more);
        (0..).map(LaneId).zip(iter::once(&self.first).chain(more))
    }

    // ---- the peak ----

    /// Most calls in flight at once since the last bucket edge. With lanes it is the sum of their peaks, which may not
    /// have been at the same moment.
    pub(crate) fn peak(&self) -> u32 {
        let peaks: u32 = self.lanes().map(|(_, lane)| lane.peak.load(Ordering::Relaxed)).sum();
        peaks.min(self.limit().max(self.in_flight()))
    }

    /// The peak so far; the next one starts from nothing. Calls that stay in flight across the edge show again when
    /// they end.
    pub(crate) fn take_peak(&self) -> u32 {
        let peak = self.peak();
        self.lanes().for_each(|(_, lane)| lane.peak.store(0, Ordering::Relaxed));
        self.meetings.store(0, Ordering::Relaxed);
        peak
    }

    #[cfg(test)]
    pub(crate) fn set_good(&self, good: u64) {
        self.first.word.store(good << GOOD, Ordering::Release);
    }
}

impl LaneId {
    pub(crate) const FIRST: Self = Self(0);
}

impl Lane {
    fn new(tag: u64, share: u32) -> Self {
        let refused = array::from_fn(|_| AtomicU64::new(0));
        Self { word: AtomicU64::new(tag), share: AtomicU32::new(share), peak: AtomicU32::new(0), refused }
    }

    #[inline]
    fn enter<R>(&self, id: LaneId, meet: impl Fn() -> R) -> Entered {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let in_flight = in_flight(word);
            if in_flight >= self.share.load(Ordering::Acquire) {
                return Entered::Full;
            }
            if word & BAR != 0 {
                return Entered::Unclear;
            }
            match self.word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.note(in_flight + 1);
                    // A share that was lowered meanwhile must not be passed after it was.
                    let holds = in_flight < self.share.load(Ordering::Acquire) || seeded("limit");
                    return if holds { Entered::In(id) } else { Entered::ShareFell(id) };
                }
                Err(seen) => word = seen,
            }
            meet();
        }
    }

    #[inline]
    fn left(&self, before: u64, crowded: bool) -> Left {
        self.note(in_flight(before));
        Left { line: before & BAR != 0, crowded }
    }

    #[inline]
    fn note(&self, in_flight: u32) {
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }
}

fn in_flight(word: u64) -> u32 {
    word as u32 & Flow::UNLIMITED
}

fn tag(generation: u64) -> u64 {
    generation << TAG & TAG_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN: Entered = Entered::In(LaneId::FIRST);

    #[test]
    fn a_success_counts_and_gives_its_slot_back_at_once() {
        let flow = Flow::new(2);
        assert_eq!([flow.try_enter(), flow.try_enter(), flow.try_enter()], [IN, IN, Entered::Full]);
        assert!(flow.leave_good(LaneId::FIRST, 0).is_some());
        flow.leave(LaneId::FIRST);
        assert_eq!((flow.in_flight(), flow.good(), flow.peak()), (0, 1, 2));
    }

    /// S4: what comes too late for its generation is neither counted nor given back here.
    #[test]
    fn a_success_of_another_generation_changes_nothing() {
        let flow = Flow::new(2);
        flow.try_enter();
        flow.leave_good(LaneId::FIRST, 0);
        flow.try_enter();
        assert_eq!(flow.begin_generation(1), 1);
        assert!(flow.leave_good(LaneId::FIRST, 0).is_none());
        assert_eq!((flow.in_flight(), flow.good()), (1, 1));
        assert!(flow.leave_good(LaneId::FIRST, 1).is_some());
        assert_eq!((flow.in_flight(), flow.good()), (0, 2));
    }

    /// T5, X8: successes wrap out of the top of the word and touch nothing else.
    #[test]
    fn the_count_of_successes_wraps_alone() {
        let flow = Flow::new(2);
        flow.set_good(Flow::GOOD_MASK);
        flow.begin_generation(u64::MAX);
        flow.try_enter();
        flow.try_enter();
        assert!(flow.leave_good(LaneId::FIRST, u64::MAX).is_some());
        assert_eq!((flow.in_flight(), flow.good()), (1, 0));
    }

    #[test]
    fn newcomers_get_nothing_while_they_are_barred() {
        let flow = Flow::new(2);
        flow.try_enter();
        flow.bar();
        assert_eq!((flow.try_enter(), flow.enter_barred()), (Entered::Unclear, Some(LaneId::FIRST)));
        assert!(flow.leave(LaneId::FIRST).line);
        flow.unbar();
        assert!(!flow.leave(LaneId::FIRST).line);
        assert_eq!(flow.try_enter(), IN);
    }

    fn widened(limit: u32, lanes: usize) -> Flow {
        let flow = Flow::new(limit);
        assert!(flow.more.set((1..lanes).map(|_| Lane::new(0, 0)).collect()).is_ok());
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

    #[test]
    fn lanes_count_together() {
        let flow = widened(64, 4);
        flow.set_good(Flow::GOOD_MASK);
        let entered = enter_all(&flow);
        assert!(entered[1..].iter().all(|&lane| flow.leave_good(lane, 0).is_some()));
        assert_eq!(flow.good(), 62);
        assert_eq!(flow.begin_generation(9), 62);
        assert_eq!(flow.settled_good(), 62);
    }
}
