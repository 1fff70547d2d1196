//! Fallbacks: what a caller gets instead, within a limit of their own.
//!
//! When a dependency is down every call takes its fallback, and a fallback that is slow would hold as many tasks as
//! the dependency did. So fallbacks have their own concurrency limit; beyond it the caller gets the original error.

use std::future::{Future, Pending};

use crate::bulkhead::{Capacity, Slots};
use crate::command::core::Core;
use crate::error::Error;
use crate::observe::meter::FallbackOutcome;
use crate::sync::{AtomicU64, Ordering};

/// Something that may make a value out of an error. [`NoFallback`] and closures.
///
/// Sealed: it is named in the types of futures and has nothing to call.
pub trait Recover<T, E>: sealed::Recover<T, E> {}

impl<T, E, B: sealed::Recover<T, E>> Recover<T, E> for B {}

pub(crate) mod sealed {
    use super::*;

    pub trait Recover<T, E> {
        type Future: Future<Output = Result<T, Error<E>>>;
        fn recover(self, cause: Error<E>) -> Self::Future;
    }
}

/// No fallback: an error is the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFallback;

impl<T, E> sealed::Recover<T, E> for NoFallback {
    type Future = Pending<Result<T, Error<E>>>;

    fn recover(self, _: Error<E>) -> Self::Future {
        unreachable!("there is none to ask")
    }
}

impl<T, E, B, Fut> sealed::Recover<T, E> for B
where
    B: FnOnce(Error<E>) -> Fut,
    Fut: Future<Output = Result<T, Error<E>>>,
{
    type Future = Fut;

    fn recover(self, cause: Error<E>) -> Fut {
        self(cause)
    }
}

/// The fallbacks of one command: their slots, and how they ended.
#[derive(Debug)]
pub(crate) struct Fallbacks {
    pub(crate) slots: Slots,
    ended: [AtomicU64; 3],
}

impl Fallbacks {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { slots: Slots::new(capacity), ended: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    pub(crate) fn ended(&self, outcome: FallbackOutcome) -> u64 {
        self.ended[outcome as usize].load(Ordering::Relaxed)
    }
}

/// The slot of a running fallback. Dropped unresolved, the fallback was cancelled, which says nothing about it, unless
/// it panicked.
#[derive(Debug)]
pub(crate) struct FallbackSlot<'c> {
    core: &'c Core,
    /// Set while user code runs, and so still set if it panicked.
    pub(crate) in_user_code: bool,
}

impl<'c> FallbackSlot<'c> {
    /// A slot, or `None` when all are taken.
    pub(crate) fn take(core: &'c Core) -> Option<Self> {
        if !core.fallbacks.slots.try_acquire() {
            count(core, FallbackOutcome::Rejected);
            return None;
        }
        Some(Self { core, in_user_code: false })
    }

    pub(crate) fn resolve(mut self, succeeded: bool) {
        self.in_user_code = false;
        count(self.core, if succeeded { FallbackOutcome::Success } else { FallbackOutcome::Failure });
    }
}

impl Drop for FallbackSlot<'_> {
    fn drop(&mut self) {
        self.core.fallbacks.slots.release();
        if self.in_user_code {
            count(self.core, FallbackOutcome::Failure);
        }
    }
}

fn count(core: &Core, outcome: FallbackOutcome) {
    core.fallbacks.ended[outcome as usize].fetch_add(1, Ordering::Relaxed);
    core.meter.fallback(outcome);
}
