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
pub(crate) use imp::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, seeded};

#[cfg(not(fusebox_loom))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    /// Whether the running model has planted this bug.
    #[inline(always)]
    pub(crate) const fn seeded(_: &'static str) -> bool {
        false
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
}

/// A mutex without poisoning.
#[derive(Debug)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

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
