//! A latency histogram of fixed, small size that one thread at a time adds to.
//!
//! Log-linear, in the manner of HdrHistogram: eight cells for each power of two.

use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, scaled, seeded};

/// Latencies are sorted in units of 2^14 ns, about 16 microseconds.
const UNIT_BITS: u32 = 14;
/// Eight buckets for each power of two.
const SUB_BITS: u32 = 3;
const SUBS: usize = 1 << SUB_BITS;
/// Powers of two above the linear part, up to 2^(14 + 3 + 20) ns = 137 s.
const OCTAVES: usize = scaled(20, 0);
pub(super) const CELLS: usize = SUBS + OCTAVES * SUBS;

#[inline]
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
pub(super) fn lower_bound(cell: usize) -> u64 {
    let units = match cell.checked_sub(SUBS) {
        None => cell as u64,
        Some(above) => ((SUBS + above % SUBS) as u64) << (above / SUBS),
    };
    units << UNIT_BITS
}

/// Counters of a part of the calls, on cache lines of their own. Written by one thread at a time, read by any.
#[repr(align(64))]
pub(super) struct Stripe {
    taken: AtomicBool,
    pub(super) sum: AtomicU64,
    /// Extremes since the last edge.
    pub(super) min: AtomicU64,
    pub(super) max: AtomicU64,
    pub(super) cells: [AtomicU32; CELLS],
}

impl Stripe {
    pub(super) fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            cells: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Adds a latency, unless another thread is doing so.
    #[inline]
    pub(super) fn try_add(&self, nanos: u64) -> bool {
        let free = self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if free || seeded("stripe") {
            self.add(nanos);
            self.taken.store(false, Ordering::Release);
        }
        free || seeded("stripe")
    }

    /// Needs the stripe for itself. An edge that takes the extremes meanwhile leaves this one to the slice before or
    /// after it.
    #[inline]
    pub(super) fn add(&self, nanos: u64) {
        let cell = &self.cells[cell_of(nanos)];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.sum.store(self.sum.load(Ordering::Relaxed).wrapping_add(nanos), Ordering::Relaxed);
        if nanos < self.min.load(Ordering::Relaxed) {
            self.min.store(nanos, Ordering::Relaxed);
        }
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.store(nanos, Ordering::Relaxed);
        }
    }

    /// As if another thread were adding to it, for good.
    #[cfg(test)]
    pub(super) fn hold(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripe_is_for_one_thread_at_a_time() {
        let stripe = Stripe::new();
        assert!(stripe.try_add(3) && stripe.try_add(5));
        stripe.hold();
        assert!(!stripe.try_add(7));
        let [sum, min, max] = [&stripe.sum, &stripe.min, &stripe.max].map(|of| of.load(Ordering::Relaxed));
        assert_eq!((sum, min, max), (8, 3, 5));
    }

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
}
