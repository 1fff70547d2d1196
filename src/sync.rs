//! The only door to atomics and locks.
//!
//! Under `--cfg fusebox_loom` the same names come from loom, so that the models check the very code that ships.
//! [`Mutex`] ignores poisoning: no user code runs under any lock of this crate, so a panic cannot leave one of them
//! half-changed, and a service must not lose its circuit because one task died.
//!
//! [`seeded`] marks the lines without which a model must fail. It is `false` but under that cfg, where each model plants
//! its own bug.

#[cfg(all(test, fusebox_loom))]
pub(crate) use imp::plant;
pub(crate) use imp::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, SPINS, processors, seeded, spin, thread_index,
};

#[cfg(not(fusebox_loom))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    /// Whether the running model has planted this bug.
    #[inline(always)]
    pub(crate) const fn seeded(_: &'static str) -> bool {
        false
    }

    /// How often to look again for what another thread holds for some nanoseconds.
    pub(crate) const SPINS: usize = 64;

    pub(crate) fn spin() {
        std::hint::spin_loop();
    }

    /// A number that tells the calling thread from others that run at the same time: threads are numbered as they come.
    #[inline]
    pub(crate) fn thread_index() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        std::thread_local! {
            static INDEX: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
        }
        let index = INDEX.get();
        if index != usize::MAX {
            return index;
        }
        let index = NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1);
        INDEX.set(index);
        index
    }

    /// How many threads can run at once.
    pub(crate) fn processors() -> usize {
        static COUNT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

#[cfg(fusebox_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    std::thread_local! {
        static PLANTED: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
    }

    /// Whether the running model has planted this bug. Loom runs a model's threads on one thread of the system.
    pub(crate) fn seeded(bug: &'static str) -> bool {
        PLANTED.get() == bug
    }

    /// Plants a bug for the models that this thread runs; none by an empty name.
    #[allow(dead_code, reason = "for models only")]
    pub(crate) fn plant(bug: &'static str) {
        PLANTED.set(bug);
    }

    /// Every time is one more interleaving.
    pub(crate) const SPINS: usize = 1;

    pub(crate) fn spin() {
        loom::thread::yield_now();
    }

    /// Which of the model's threads runs.
    pub(crate) fn thread_index() -> usize {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        loom::thread::current().id().hash(&mut hasher);
        hasher.finish() as usize
    }

    pub(crate) fn processors() -> usize {
        2
    }
}

/// A mutex without poisoning.
#[derive(Debug)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> imp::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The guard, or `None` when somebody else holds it at this moment.
    pub(crate) fn try_lock(&self) -> Option<imp::MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}
