//! What both model checkers need beside atomics and locks.

use std::cell::Cell;

use super::Mutex;
use super::imp::{AtomicBool, Ordering};

std::thread_local! {
    static PLANTED: Cell<&'static str> = const { Cell::new("") };
}

/// Whether the running model has planted this bug. Both checkers run a model's threads on one thread of the system.
pub(crate) fn seeded(bug: &'static str) -> bool {
    PLANTED.get() == bug
}

/// Plants a bug for the models that this thread runs; none by an empty name.
#[allow(dead_code, reason = "for models only")]
pub(crate) fn plant(bug: &'static str) {
    PLANTED.set(bug);
}

/// A size that models cut down: each cell more is one more place where threads can interleave.
pub(crate) const fn scaled(_ships: usize, models: usize) -> usize {
    models
}

pub(crate) fn processors() -> usize {
    2
}

/// The standard library's, made of what a checker can see into: a value is there for those who see the flag, and who
/// sets it first is decided under a lock.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    is_set: AtomicBool,
    turn: Mutex<()>,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { is_set: AtomicBool::new(false), turn: Mutex::new(()), value: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.is_set.load(Ordering::Acquire).then(|| self.value.get().expect("it is set before the flag is"))
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _turn = self.turn.lock();
        self.value.set(value)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            let _turn = self.turn.lock();
            if self.value.get().is_none() {
                let _ = self.value.set(init());
                self.is_set.store(true, Ordering::Release);
            }
        }
        self.value.get().expect("it was just set")
    }
}

/// The number inside a thread's id, which neither checker shows otherwise: the last one it hashes.
pub(crate) fn number(id: impl std::hash::Hash) -> usize {
    #[derive(Default)]
    struct Last(u64);
    impl std::hash::Hasher for Last {
        fn write(&mut self, bytes: &[u8]) {
            let mut number = [0; 8];
            number[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
            self.0 = u64::from_le_bytes(number);
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut last = Last::default();
    id.hash(&mut last);
    std::hash::Hasher::finish(&last) as usize
}
