//! Calls in flight and successes so far, in lanes.
//!
//! Most commands have one [`Lane`]. Where several threads meet at its word all the time, the word itself becomes the
//! cost: it travels between their processors for every call. Then, and only then, the command is split into more, as
//! Java's `LongAdder` is into cells: each lane has its own word and a share of the limit, a thread keeps to its lane, and
//! looks into the others when its own is full. The shares never add up to more than the limit, so the limit stays exact.

#[cfg(test)]
mod tests;

use std::iter;

pub(crate) use super::lane::{Entered, LaneId, Left};
use super::lane::{GOOD_MASK, Lane, MOST_IN_FLIGHT};
use crate::sync::{AtomicU32, OnceLock, Ordering, processors, renumber_thread, scaled, seeded, thread_index};

/// No larger than a cache line, which is read only once there are more lanes: then no call begins in the first.
#[derive(Debug)]
pub(crate) struct Flow {
    first: Lane,
    more: OnceLock<Box<More>>,
    limit: AtomicU32,
    /// How often two calls met at the first lane since the last bucket edge.
    meetings: AtomicU32,
}

/// A power of two, behind one thin pointer.
#[derive(Debug)]
struct More(Box<[Apart]>);

/// A lane with a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Apart(Lane);

/// More lanes than this cost more to sum up than they save.
const MOST_LANES: usize = 16;
/// A lane with a smaller share is often full while others are not.
const LEAST_SHARE: u32 = scaled(16, 1) as u32;
/// Meetings within one bucket that are no accident.
const CROWD: u32 = scaled(64, 1) as u32;

impl Flow {
    /// No limit; also the most calls that can be in flight without one.
    pub(crate) const UNLIMITED: u32 = MOST_IN_FLIGHT;
    /// Successes are counted modulo this, less one.
    pub(crate) const GOOD_MASK: u64 = GOOD_MASK;

    pub(crate) fn new(limit: u32) -> Self {
        // Counted here and not by the first calls that meet: those of workers that are each kept on one processor would
        // see no more than that.
        let _ = processors();
        let (first, more) = (Lane::new(limit), OnceLock::new());
        Self { first, more, limit: AtomicU32::new(limit), meetings: AtomicU32::new(0) }
    }

    // ---- slots ----

    /// Takes a slot if one is free and no newcomer is barred.
    #[inline]
    pub(crate) fn try_enter(&self) -> Entered {
        let home = self.home();
        match self.lane(home).enter(home, || self.meet()) {
            Entered::Full | Entered::Unclear if self.more.get().is_some() => self.enter_elsewhere(home),
            entered => entered,
        }
    }

    #[cold]
    fn enter_elsewhere(&self, home: LaneId) -> Entered {
        if self.in_flight() >= self.limit() {
            return Entered::Full;
        }
        // It is new, or there were more in flight than may be when shares were dealt out.
        if self.lane(home).share() == 0 {
            return Entered::Unclear;
        }
        for (id, lane) in (0..).map(LaneId).zip(self.lanes()) {
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
        self.lane(lane).leave()
    }

    /// Counts a success of a generation and gives its slot back; neither if another generation has begun.
    #[inline]
    pub(crate) fn leave_good(&self, lane: LaneId, generation: u64) -> Option<Left> {
        let mut met = false;
        let left = self.lane(lane).leave_good(generation, || {
            met = true;
            self.meet();
        })?;
        Some(Left { crowded: met && self.is_crowded(), ..left })
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.lanes().map(Lane::in_flight).sum()
    }

    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    // ---- the line: all of these under its lock ----

    /// Bars newcomers, who would overtake those in line, or come in while shares change.
    pub(crate) fn bar(&self) {
        let all = if seeded("bar") { 1 } else { MOST_LANES + 1 };
        self.lanes().take(all).for_each(Lane::bar);
    }

    /// The limit that [`Flow::unbar`] deals out. Newcomers must be barred: from then on none enters beyond it.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    /// Takes a slot if fewer calls are in flight than may be, while newcomers are barred.
    pub(crate) fn enter_barred(&self) -> Option<LaneId> {
        let free = self.in_flight() < self.limit();
        free.then(|| {
            self.first.force_enter();
            LaneId::FIRST
        })
    }

    /// Deals out the limit and lets newcomers in again. Each lane gets what it has in flight, and those where calls begin
    /// get equal parts of the rest; with more in flight than may be, none gets anything.
    pub(crate) fn unbar(&self) {
        // Looked up once: lanes that are added meanwhile are nobody's yet, and must not get the share of one that is
        // alone.
        let lanes = self.lanes();
        let again = || if seeded("deal") { self.lanes() } else { lanes.clone() };
        let (limit, more) = (self.limit(), lanes.clone().count() as u32 - 1);
        let mut taken = [0; MOST_LANES + 1];
        for (taken, lane) in taken.iter_mut().zip(again()) {
            *taken = lane.in_flight();
        }
        let rest = limit.checked_sub(taken.iter().sum());
        for (n, (taken, lane)) in (0..).zip(taken.iter().zip(again())) {
            lane.set_share(match rest {
                _ if more == 0 || limit == Self::UNLIMITED => limit,
                Some(_) if n == 0 => *taken,
                Some(rest) => taken + rest / more + u32::from(n <= rest % more),
                None => 0,
            });
        }
        again().for_each(Lane::unbar);
    }

    // ---- successes: all of these under the circuit's lock ----

    /// Counts a success that is known to belong to the current generation.
    pub(crate) fn add_good(&self) {
        self.first.add_good();
    }

    /// Starts a generation: from here on only its own successes are counted.
    pub(crate) fn begin_generation(&self, generation: u64) {
        self.lanes().for_each(|lane| lane.begin_generation(generation));
    }

    /// Successes so far, modulo 2^34. Needs no lock.
    pub(crate) fn good(&self) -> u64 {
        self.sum_good(Lane::good)
    }

    /// As [`Flow::good`], read by writes: a call that enters or leaves later sees what was stored before this, and one
    /// that did so earlier is seen by it. Plain loads promise only the second. Needs no lock.
    #[cold]
    pub(crate) fn settled_good(&self) -> u64 {
        self.sum_good(Lane::settled_good)
    }

    fn sum_good(&self, of: impl Fn(&Lane) -> u64) -> u64 {
        self.lanes().map(of).fold(0, u64::wrapping_add) & GOOD_MASK
    }

    // ---- refusals ----

    /// Counts a refusal, by its place among them; whether it is time to [`Flow::widen`].
    #[inline]
    pub(crate) fn refuse(&self, refusal: usize) -> bool {
        let mut met = false;
        self.lane(self.home()).refuse(refusal, || {
            met = true;
            self.meet();
        });
        met && self.is_crowded()
    }

    /// Refusals so far.
    pub(crate) fn refused(&self, refusal: usize) -> u64 {
        self.lanes().map(|lane| lane.refused(refusal)).fold(0, u64::wrapping_add)
    }

    // ---- lanes ----

    /// Where the calls of this thread go.
    #[inline]
    fn home(&self) -> LaneId {
        self.more.get().map_or(LaneId::FIRST, |more| LaneId(1 + (thread_index() & (more.0.len() - 1)) as u8))
    }

    #[inline]
    fn lane(&self, LaneId(id): LaneId) -> &Lane {
        match usize::from(id).checked_sub(1) {
            None => &self.first,
            Some(n) => &self.more.get().expect("a lane that exists").0[n].0,
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> + Clone {
        iter::once(&self.first)
            .chain(self.more.get().into_iter().flat_map(|more| more.0.iter()).map(|Apart(lane)| lane))
    }

    /// A call met another at its lane: where there are more, this thread may be better off in another.
    #[cold]
    fn meet(&self) {
        if self.more.get().is_some() {
            renumber_thread();
        } else {
            self.meetings.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn is_crowded(&self) -> bool {
        let is_crowd = self.more.get().is_none() && self.meetings.load(Ordering::Relaxed) >= CROWD;
        is_crowd && self.lanes_wanted() > 1 && !seeded("deaf")
    }

    /// As many lanes as there are processors, two at least where calls do meet, and the limit has shares for.
    fn lanes_wanted(&self) -> usize {
        let most = processors().next_power_of_two().clamp(2, MOST_LANES);
        let shares = (self.limit() / LEAST_SHARE).max(1);
        most.min(1 << shares.ilog2())
    }

    /// Adds lanes. They have no share of the limit: whoever comes first has it dealt out. Under the circuit's lock, so that
    /// no generation begins meanwhile.
    pub(crate) fn widen(&self) {
        if self.is_crowded() {
            self.split(self.lanes_wanted());
        }
    }

    /// As [`Flow::widen`], whether calls meet or not.
    pub(crate) fn split(&self, lanes: usize) {
        let more = iter::repeat_with(|| Apart(self.first.beside())).take(lanes);
        let _ = self.more.set(Box::new(More(more.collect())));
    }

    // ---- the peak ----

    /// Most calls in flight at once since the last bucket edge. With lanes it is the sum of their peaks, which may not
    /// have been at the same moment.
    pub(crate) fn peak(&self) -> u32 {
        self.lanes().map(Lane::peak).sum()
    }

    /// The peak so far; the next one starts from nothing. Calls that stay in flight across the edge show again when
    /// they end.
    pub(crate) fn take_peak(&self) -> u32 {
        let peak = self.peak();
        self.lanes().for_each(Lane::forget_peak);
        self.meetings.store(0, Ordering::Relaxed);
        peak
    }

    #[cfg(test)]
    pub(crate) fn set_good(&self, good: u64) {
        self.first.set_good(good);
    }

    /// As if calls had met as often as makes a crowd.
    #[cfg(test)]
    pub(crate) fn crowd(&self) {
        self.meetings.store(CROWD, Ordering::Relaxed);
    }
}
