//! What ships: the standard library's.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};

/// Whether the running model has planted this bug.
#[inline(always)]
pub(crate) const fn seeded(_: &'static str) -> bool {
    false
}

/// A size that models cut down.
pub(crate) const fn scaled(ships: usize, _models: usize) -> usize {
    ships
}

pub(crate) fn spin() {
    std::hint::spin_loop();
}

std::thread_local! {
    static INDEX: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// A number that tells the calling thread from others that run at the same time: threads are numbered as they come.
#[inline]
pub(crate) fn thread_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let index = INDEX.get();
    if index != usize::MAX {
        return index;
    }
    let index = NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1);
    INDEX.set(index);
    index
}

/// Gives the calling thread another number: by the low bits of the one it has it keeps meeting another thread. As Java's
/// `Striped64` moves a thread's probe.
#[cold]
pub(crate) fn renumber_thread() {
    // Knuth's generator for MMIX; its high bits are the good ones.
    let next = (thread_index() as u64).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    INDEX.set((next >> 33) as usize);
}

/// How many threads can run at once.
pub(crate) fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}
