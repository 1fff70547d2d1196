//! The only door to atomics and locks.
//!
//! Under `--cfg fusebox_loom` and `--cfg fusebox_shuttle` the same names come from a model checker, so that the models
//! check the very code that ships. [`Mutex`] ignores poisoning: no user code runs under any lock of this crate, so a
//! panic cannot leave one of them half-changed, and a service must not lose its circuit because one task died.
//!
//! [`seeded`] marks the lines without which a model must fail. It is `false` but under those flags, where each model
//! plants its own bug. [`scaled`] marks sizes that models cut down.

#[cfg(fusebox_loom)]
#[path = "sync/loom.rs"]
mod imp;
#[cfg(not(any(fusebox_loom, fusebox_shuttle)))]
#[path = "sync/plain.rs"]
mod imp;
#[cfg(fusebox_shuttle)]
#[path = "sync/shuttle.rs"]
mod imp;
#[cfg(any(fusebox_loom, fusebox_shuttle))]
#[path = "sync/planted.rs"]
mod planted;

#[cfg(all(test, any(fusebox_loom, fusebox_shuttle)))]
pub(crate) use imp::plant;
pub(crate) use imp::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, OnceLock, Ordering, processors, renumber_thread, scaled, seeded,
    spin, thread_index,
};

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

/// Whether `step` comes to its end while somebody else holds `lock`.
#[cfg(test)]
pub(crate) fn does_without<T: Send>(lock: &Mutex<T>, step: impl FnOnce() + Send) -> bool {
    let held = lock.lock();
    std::thread::scope(|scope| {
        let (done, ended) = std::sync::mpsc::channel();
        scope.spawn(move || {
            step();
            done.send(()).ok();
        });
        // So long only if it does not.
        let free = ended.recv_timeout(std::time::Duration::from_secs(5)).is_ok();
        drop(held);
        free
    })
}

/// A mutex for what is one in the process: it is taken for an instant, and lives longer than any model.
#[derive(Debug, Default)]
pub(crate) struct Global<T>(std::sync::Mutex<T>);

impl<T> Global<T> {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
