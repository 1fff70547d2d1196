//! Shuttle's: many threads, at random, one step at a time.

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

#[cfg(test)]
pub(crate) use super::planted::plant;
pub(crate) use super::planted::{OnceLock, processors, scaled, seeded};

pub(crate) fn spin() {
    shuttle::thread::yield_now();
}

/// Schedules have few threads, and know them by their numbers.
pub(crate) fn renumber_thread() {}

/// Which of the schedule's threads runs: the first is 0.
pub(crate) fn thread_index() -> usize {
    super::planted::number(shuttle::thread::current().id())
}
