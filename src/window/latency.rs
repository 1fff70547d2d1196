//! Rolling latency percentiles in a fixed, small space.
//!
//! A log-linear histogram in the manner of HdrHistogram: eight buckets for each power of two. Like the counts, its
//! cells only go up and a rolling percentile is read off the difference to an older reading.
//!
//! Precision: a percentile is off by at most 6.25 % of its value (8 microseconds below 131 microseconds). Mean, minimum
//! and maximum are exact; beyond 137 seconds only they are.

#[cfg(test)]
mod tests;

use std::fmt;
use std::iter;
use std::ops::Range;
use std::time::Duration;

use super::histogram::{CELLS, Stripe, lower_bound};
use super::ring::{self, Ring};
use crate::sync::{
    AtomicU32, AtomicU64, Mutex, OnceLock, Ordering, processors, renumber_thread, scaled, spin, thread_index,
};
use crate::time::Stamp;

/// The window in four parts: each takes up to 700 bytes.
const SLICES: usize = 4;

/// Latencies of one command.
///
/// To record one takes its stripe, which is for one thread at a time, adds to it, and lets go of it: one atomic
/// read-modify-write where separate adds would take two. A stripe that is taken is never waited for in line: threads that
/// meet too often get stripes of their own.
pub(crate) struct Latencies {
    /// Where the running slice ends, as the ring has it.
    edge: AtomicU64,
    first: Stripe,
    more: OnceLock<Box<More>>,
    /// How often two calls met at the first stripe since the last edge.
    meetings: AtomicU32,
    ring: Mutex<Ring<Reading>>,
}

struct More {
    /// One less than a power of two.
    stripes: Box<[Stripe]>,
    /// For those who find all others taken; under the ring's lock.
    last_resort: Stripe,
}

/// Meetings within one slice that are no accident.
const CROWD: u32 = scaled(256, 1) as u32;
/// How often to look again for what another thread holds for some nanoseconds.
const SPINS: usize = scaled(64, 1);
/// As many stripes as processors, up to this.
const MOST_STRIPES: usize = 16;

/// The counters at one moment, without the empty cells below and above those in use: latencies of one command lie close
/// together, and most of the range stays empty for ever.
#[derive(Clone, Debug)]
struct Reading {
    /// The first cell that is kept.
    from: usize,
    cells: Box<[u32]>,
    sum: u64,
    /// Extremes of the slice that ended here.
    min: u64,
    max: u64,
}

impl ring::Reading for Reading {
    fn idle(&self) -> Self {
        Self { min: u64::MAX, max: 0, ..self.clone() }
    }
}

impl Latencies {
    /// `window` nanoseconds, at least one per slice.
    pub(crate) fn new(now: Stamp, window: u64) -> Self {
        let ring = Ring::new(now, (window / SLICES as u64).max(1), SLICES, Reading::empty());
        Self {
            edge: AtomicU64::new(ring.edge().as_nanos()),
            first: Stripe::new(),
            more: OnceLock::new(),
            meetings: AtomicU32::new(0),
            ring: Mutex::new(ring),
        }
    }

    #[inline]
    pub(crate) fn record(&self, now: Stamp, nanos: u64) {
        if now.as_nanos() >= self.edge.load(Ordering::Relaxed) {
            self.roll(now);
        }
        let own = match self.more.get() {
            None => &self.first,
            Some(more) => more.stripes.get(thread_index() & more.stripes.len()).unwrap_or(&self.first),
        };
        if !own.try_add(nanos) {
            self.add_elsewhere(nanos);
        }
    }

    #[cold]
    fn add_elsewhere(&self, nanos: u64) {
        if self.more.get().is_none() && self.meetings.fetch_add(1, Ordering::Relaxed) < CROWD {
            for _ in 0..SPINS {
                if self.first.try_add(nanos) {
                    return;
                }
                spin();
            }
        }
        let more = self.more.get_or_init(|| Box::new(More::new()));
        renumber_thread();
        if !self.stripes().any(|stripe| stripe.try_add(nanos)) {
            let _turn = self.ring.lock();
            more.last_resort.add(nanos);
        }
    }

    /// Those that any thread may take.
    fn stripes(&self) -> impl Iterator<Item = &Stripe> {
        iter::once(&self.first).chain(self.more.get().into_iter().flat_map(|more| more.stripes.iter()))
    }

    #[cold]
    fn roll(&self, now: Stamp) {
        let mut ring = self.ring.lock();
        self.roll_locked(&mut ring, now);
    }

    fn roll_locked(&self, ring: &mut Ring<Reading>, now: Stamp) {
        ring.roll(now, |_| {
            self.meetings.store(0, Ordering::Relaxed);
            self.read(|extreme, nothing| extreme.swap(nothing, Ordering::Relaxed))
        });
        self.edge.store(ring.edge().as_nanos(), Ordering::Relaxed);
    }

    /// The counters of this moment, and the extremes since the last edge as `take` finds them.
    fn read(&self, take: impl Fn(&AtomicU64, u64) -> u64) -> Reading {
        let (mut cells, mut sum, mut min, mut max) = ([0_u32; CELLS], 0_u64, u64::MAX, 0);
        for stripe in self.stripes().chain(self.more.get().map(|more| &more.last_resort)) {
            for (total, cell) in cells.iter_mut().zip(&stripe.cells) {
                *total = total.wrapping_add(cell.load(Ordering::Relaxed));
            }
            sum = sum.wrapping_add(stripe.sum.load(Ordering::Relaxed));
            min = min.min(take(&stripe.min, u64::MAX));
            max = max.max(take(&stripe.max, 0));
        }
        let from = cells.iter().position(|&n| n > 0).unwrap_or(CELLS);
        let to = cells.iter().rposition(|&n| n > 0).map_or(from, |last| last + 1);
        Reading { from, cells: cells[from..to].into(), sum, min, max }
    }

    pub(crate) fn reset(&self, now: Stamp) {
        let mut ring = self.ring.lock();
        let reading = self.read(|extreme, nothing| {
            extreme.store(nothing, Ordering::Relaxed);
            nothing
        });
        ring.clear(now, reading);
    }

    /// The figures of the window that ends now.
    pub(crate) fn summary(&self, now: Stamp) -> Latency {
        let mut ring = self.ring.lock();
        self.roll_locked(&mut ring, now);
        let mut latest = self.read(|extreme, _| extreme.load(Ordering::Relaxed));
        for ended in ring.inner() {
            latest.min = latest.min.min(ended.min);
            latest.max = latest.max.max(ended.max);
        }
        let oldest = ring.oldest();
        let cells: [u32; CELLS] = std::array::from_fn(|cell| latest.of(cell).wrapping_sub(oldest.of(cell)));
        // The total comes from the cells themselves: a count that races with this reading must not push a percentile
        // past the last cell.
        let count = cells.iter().map(|&n| u64::from(n)).sum();
        if count == 0 {
            return Latency::default();
        }
        if latest.min > latest.max {
            // What was just recorded is in its cell before it is among the extremes.
            let is_used = |&n: &u32| n > 0;
            latest.min = cells.iter().position(is_used).map_or(0, lower_bound);
            latest.max = cells.iter().rposition(is_used).map_or(0, |last| lower_bound(last + 1));
        }
        Latency {
            cells: Some(cells.into()),
            count,
            sum: latest.sum.wrapping_sub(oldest.sum),
            min: latest.min,
            max: latest.max,
        }
    }
}

impl Reading {
    fn empty() -> Self {
        Self { from: 0, cells: Box::default(), sum: 0, min: u64::MAX, max: 0 }
    }

    fn of(&self, cell: usize) -> u32 {
        cell.checked_sub(self.from).and_then(|n| self.cells.get(n)).copied().unwrap_or(0)
    }
}

impl More {
    fn new() -> Self {
        let stripes = processors().next_power_of_two().clamp(2, MOST_STRIPES);
        Self { stripes: iter::repeat_with(Stripe::new).take(stripes - 1).collect(), last_resort: Stripe::new() }
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies").finish_non_exhaustive()
    }
}

/// How long operations took, over the latency window: of the operation alone, and of every call that was started.
///
/// A percentile is off by at most 6.25 % (8 microseconds below 131 microseconds); mean, minimum and maximum are exact.
/// The window moves in four steps, so it spans between three quarters of its length and the whole.
///
/// ```
/// # let command = fusebox::Command::builder("docs.latency").build()?;
/// # command.run_sync(|| Ok::<_, std::io::Error>(()))?;
/// let snapshot = command.snapshot();
/// let latency = snapshot.latency();
/// assert_eq!(latency.count(), 1);
/// assert!(latency.percentile(0.99) <= latency.max());
/// assert!(latency.buckets().all(|(took, calls)| took.start < took.end && calls == 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Latency {
    cells: Option<Box<[u32]>>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Latency {
    /// Adds those of another circuit.
    pub(crate) fn add(&mut self, other: &Self) {
        let (Some(cells), Some(more)) = (&mut self.cells, &other.cells) else {
            if self.cells.is_none() {
                *self = other.clone();
            }
            return;
        };
        cells.iter_mut().zip(more).for_each(|(own, more)| *own = own.saturating_add(*more));
        (self.count, self.sum) = (self.count + other.count, self.sum.saturating_add(other.sum));
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
    }

    /// Calls in the window.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latency that a share `q` of the calls did not exceed: 0.5 is the median. By nearest rank; `q` is clamped to
    /// [0, 1]. `None` without calls, or when `q` is not a number.
    pub fn percentile(&self, q: f64) -> Option<Duration> {
        let cells = self.cells.as_ref().filter(|_| !q.is_nan())?;
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut below = 0;
        for (cell, &n) in cells.iter().enumerate() {
            let n = u64::from(n);
            if below + n >= rank {
                let middle = lower_bound(cell).midpoint(lower_bound(cell + 1));
                return Some(Duration::from_nanos(middle.clamp(self.min, self.max)));
            }
            below += n;
        }
        self.max()
    }

    /// How many calls took how long: the bounds of each bucket of the histogram that has calls, from below and to above,
    /// and their number. The last bucket, from 128 seconds on, has no upper bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Range<Duration>, u64)> {
        let cells = self.cells.iter().flat_map(|cells| cells.iter().enumerate());
        cells.filter(|&(_, &calls)| calls > 0).map(|(cell, &calls)| {
            let above = if cell + 1 < CELLS { lower_bound(cell + 1) } else { u64::MAX };
            (Duration::from_nanos(lower_bound(cell))..Duration::from_nanos(above), u64::from(calls))
        })
    }

    /// The mean; `None` without calls.
    pub fn mean(&self) -> Option<Duration> {
        // A call that is being recorded may be in one of the two and not yet in the other.
        let mean = self.sum.checked_div(self.count)?;
        Some(Duration::from_nanos(mean.clamp(self.min, self.max)))
    }

    /// The longest; `None` without calls.
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then_some(Duration::from_nanos(self.max))
    }

    /// The shortest; `None` without calls.
    pub fn min(&self) -> Option<Duration> {
        (self.count > 0).then_some(Duration::from_nanos(self.min))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p50", &self.percentile(0.5))
            .field("p99", &self.percentile(0.99))
            .field("max", &self.max())
            .finish()
    }
}
