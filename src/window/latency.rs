//! Rolling latency percentiles in a fixed, small space.
//!
//! A log-linear histogram in the manner of HdrHistogram: eight buckets for each power of two. Like the counts, its
//! cells only go up and a rolling percentile is read off the difference to an older reading.
//!
//! Precision: a percentile is off by at most 6.25 % of its value (8 microseconds below 131 microseconds). Mean, minimum
//! and maximum are exact; beyond 137 seconds only they are.

use std::fmt;
use std::time::Duration;

use super::ring::{self, Ring};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::Stamp;

/// Latencies are sorted in units of 2^14 ns, about 16 microseconds.
const UNIT_BITS: u32 = 14;
/// Eight buckets for each power of two.
const SUB_BITS: u32 = 3;
const SUBS: usize = 1 << SUB_BITS;
/// Powers of two above the linear part, up to 2^(14 + 3 + 20) ns = 137 s.
const OCTAVES: usize = 20;
const CELLS: usize = SUBS + OCTAVES * SUBS;
/// The window in four parts: five sets of cells are what fits in the 4 KiB that a command may take.
const SLICES: usize = 4;

fn cell_of(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    if units < SUBS as u64 {
        return units as usize;
    }
    let octave = units.ilog2() - SUB_BITS;
    let sub = (units >> octave) as usize - SUBS;
    (SUBS + octave as usize * SUBS + sub).min(CELLS - 1)
}

/// The nanoseconds at which a cell begins.
fn lower_bound(cell: usize) -> u64 {
    let units = match cell.checked_sub(SUBS) {
        None => cell as u64,
        Some(above) => ((SUBS + above % SUBS) as u64) << (above / SUBS),
    };
    units << UNIT_BITS
}

/// Latencies of one command: lock-free to record, with a lock at the edges of its slices.
pub(crate) struct Latencies {
    /// Where the running slice ends, as the ring has it.
    edge: AtomicU64,
    ring: Mutex<Ring<Reading>>,
    live: Live,
}

/// What calls write to, apart from what they only read.
#[repr(align(64))]
struct Live {
    sum: AtomicU64,
    /// Extremes since the last edge.
    min: AtomicU64,
    max: AtomicU64,
    cells: [AtomicU32; CELLS],
}

#[derive(Clone, Debug)]
struct Reading {
    cells: [u32; CELLS],
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
        let empty = Reading { cells: [0; CELLS], sum: 0, min: u64::MAX, max: 0 };
        let ring = Ring::new(now, (window / SLICES as u64).max(1), SLICES, empty);
        let live = Live {
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            cells: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        Self { edge: AtomicU64::new(ring.edge().as_nanos()), ring: Mutex::new(ring), live }
    }

    #[inline]
    pub(crate) fn record(&self, now: Stamp, nanos: u64) {
        if now.as_nanos() >= self.edge.load(Ordering::Relaxed) {
            self.roll(now);
        }
        self.live.cells[cell_of(nanos)].fetch_add(1, Ordering::Relaxed);
        self.live.sum.fetch_add(nanos, Ordering::Relaxed);
        if nanos < self.live.min.load(Ordering::Relaxed) {
            self.live.min.fetch_min(nanos, Ordering::Relaxed);
        }
        if nanos > self.live.max.load(Ordering::Relaxed) {
            self.live.max.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    #[cold]
    fn roll(&self, now: Stamp) {
        let mut ring = self.ring.lock();
        self.roll_locked(&mut ring, now);
    }

    fn roll_locked(&self, ring: &mut Ring<Reading>, now: Stamp) {
        ring.roll(now, || {
            let mut reading = self.read();
            reading.min = self.live.min.swap(u64::MAX, Ordering::Relaxed);
            reading.max = self.live.max.swap(0, Ordering::Relaxed);
            reading
        });
        self.edge.store(ring.edge().as_nanos(), Ordering::Relaxed);
    }

    fn read(&self) -> Reading {
        Reading {
            cells: std::array::from_fn(|cell| self.live.cells[cell].load(Ordering::Relaxed)),
            sum: self.live.sum.load(Ordering::Relaxed),
            min: self.live.min.load(Ordering::Relaxed),
            max: self.live.max.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn reset(&self, now: Stamp) {
        let mut ring = self.ring.lock();
        let mut reading = self.read();
        self.live.min.store(u64::MAX, Ordering::Relaxed);
        self.live.max.store(0, Ordering::Relaxed);
        (reading.min, reading.max) = (u64::MAX, 0);
        ring.clear(now, reading);
    }

    /// The figures of the window that ends now.
    pub(crate) fn summary(&self, now: Stamp) -> Latency {
        let mut ring = self.ring.lock();
        self.roll_locked(&mut ring, now);
        let mut latest = self.read();
        for ended in ring.inner() {
            latest.min = latest.min.min(ended.min);
            latest.max = latest.max.max(ended.max);
        }
        let oldest = ring.oldest();
        let cells: [u32; CELLS] = std::array::from_fn(|cell| latest.cells[cell].wrapping_sub(oldest.cells[cell]));
        // The total comes from the cells themselves: a count that races with this reading must not push a percentile
        // past the last cell.
        let count = cells.iter().map(|&n| u64::from(n)).sum();
        if count == 0 || latest.min > latest.max {
            return Latency::default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_tile_the_range_without_gap_or_overlap() {
        for cell in 0..CELLS {
            let from = lower_bound(cell);
            assert_eq!(cell_of(from), cell);
            assert!(cell == 0 || cell_of(from - 1) == cell - 1);
        }
        assert_eq!(cell_of(u64::MAX), CELLS - 1);
        assert_eq!(lower_bound(CELLS), 1 << 37);
    }

    fn millis(samples: &[u64]) -> Latency {
        let latencies = Latencies::new(Stamp::from_nanos(0), 60_000_000_000);
        for sample in samples {
            latencies.record(Stamp::from_nanos(0), sample * 1_000_000);
        }
        latencies.summary(Stamp::from_nanos(0))
    }

    fn near(found: Option<Duration>, millis: f64) -> bool {
        (found.expect("a value").as_secs_f64() * 1e3 / millis - 1.0).abs() <= 0.0625
    }

    /// RP4, RP5, RP6, RP8, RP9, within the stated error.
    #[test]
    fn percentiles_by_nearest_rank() {
        assert!(near(millis(&[100, 100, 100, 100, 200, 200, 200, 300, 300, 300, 300]).percentile(0.5), 200.0));
        assert!(near(millis(&[[100; 10].as_slice(), &[500]].concat()).percentile(0.5), 100.0));
        assert!(near(millis(&[50, 75, 100, 125, 160, 170, 180, 200, 210, 300, 500]).percentile(0.5), 170.0));
        assert!(near(millis(&[1, 2, 3]).percentile(0.5), 2.0) && near(millis(&[1, 2, 3]).percentile(0.75), 3.0));
        let four = millis(&[10, 30, 20, 40]);
        for (q, expected) in [(0.25, 10.0), (0.3, 20.0), (0.5, 20.0), (0.75, 30.0), (-0.1, 10.0), (1.1, 40.0)] {
            assert!(near(four.percentile(q), expected), "p{q}: {:?}", four.percentile(q));
        }
    }

    /// HM20: the mean is exact, also above what 32 bits of nanoseconds hold; R3: percentiles lie within what was seen.
    #[test]
    fn mean_and_extremes_are_exact() {
        let latency = millis(&[100, 200, 9_000]);
        assert_eq!(latency.mean(), Some(Duration::from_millis(3_100)));
        assert_eq!(
            (latency.min(), latency.max()),
            (Some(Duration::from_millis(100)), Some(Duration::from_millis(9_000)))
        );
        assert_eq!((latency.percentile(0.0), latency.percentile(1.0)), (latency.min(), latency.max()));
    }

    /// RP3, RP11: no data is no value, not zero.
    #[test]
    fn an_empty_window_has_no_values() {
        let empty = millis(&[]);
        assert_eq!((empty.count(), empty.percentile(0.5), empty.mean(), empty.max()), (0, None, None, None));
        let latencies = Latencies::new(Stamp::from_nanos(0), 60);
        latencies.record(Stamp::from_nanos(0), 5);
        assert_eq!(latencies.summary(Stamp::from_nanos(59)).count(), 1);
        assert_eq!(latencies.summary(Stamp::from_nanos(60)), Latency::default());
        latencies.record(Stamp::from_nanos(61), 5);
        latencies.reset(Stamp::from_nanos(61));
        assert_eq!(latencies.summary(Stamp::from_nanos(61)), Latency::default());
    }
}
