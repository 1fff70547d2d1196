//! Loom's: every interleaving, and every value that the memory model lets a load see.

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use loom::sync::{Mutex, MutexGuard};

#[cfg(test)]
pub(crate) use super::planted::plant;
pub(crate) use super::planted::{OnceLock, processors, scaled, seeded};

pub(crate) fn spin() {
    loom::thread::yield_now();
}

/// Models have few threads, and know them by their numbers.
pub(crate) fn renumber_thread() {}

/// Which of the model's threads runs: the first is 0.
pub(crate) fn thread_index() -> usize {
    super::planted::number(loom::thread::current().id())
}
