//! An allocator that counts, for the thread that asks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

const KEPT: usize = 64;

/// Install it with `#[global_allocator]`.
#[derive(Debug)]
pub(crate) struct Counting;

thread_local! {
    // Constant and without a destructor: an allocator must not allocate, and must work while a thread ends.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
    /// What the last allocations took.
    static SIZES: Cell<[i64; KEPT]> = const { Cell::new([0; KEPT]) };
}

// SAFETY: everything is left to the system's allocator; the counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}

fn count(allocations: u64, bytes: i64) {
    if allocations > 0 {
        let mut sizes = SIZES.get();
        sizes[ALLOCATIONS.get() as usize % KEPT] = bytes;
        SIZES.set(sizes);
    }
    ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
    BYTES.set(BYTES.get() + bytes);
}

/// What this thread allocated while `act` ran, and how many bytes of it are left: freed ones are taken off.
pub(crate) fn counted<R>(act: impl FnOnce() -> R) -> (R, u64, i64) {
    let (allocations, bytes) = (ALLOCATIONS.get(), BYTES.get());
    let result = act();
    (result, ALLOCATIONS.get() - allocations, BYTES.get() - bytes)
}

/// The sizes of what was allocated while `act` ran, the last 64 at most: largest first.
#[allow(dead_code, reason = "not every bench asks")]
pub(crate) fn sizes<R>(act: impl FnOnce() -> R) -> (R, Vec<i64>) {
    let began = ALLOCATIONS.get();
    let result = act();
    let (ended, sizes) = (ALLOCATIONS.get(), SIZES.get());
    let mut sizes: Vec<_> =
        (began.max(ended.saturating_sub(KEPT as u64))..ended).map(|n| sizes[n as usize % KEPT]).collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    (result, sizes)
}
