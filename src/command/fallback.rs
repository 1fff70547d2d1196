//! Fallbacks: what a caller gets instead, within a limit of their own.
//!
//! When a dependency is down every call takes its fallback, and a fallback that is slow would hold as many tasks as
//! the dependency did. So fallbacks have their own concurrency limit; beyond it the caller gets the original error.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;

use crate::bulkhead::{Capacity, Slots};
use crate::command::core::Core;
use crate::error::Error;
use crate::observe::meter::FallbackOutcome;
use crate::sync::{AtomicU64, Mutex, OnceLock, Ordering};
use crate::window::flow::LaneId;

/// Something that may make a value out of an error: [`NoFallback`], or a closure as a [`Rescue`].
///
/// Sealed: it is named in the types of futures and has nothing to call.
pub trait Recover: sealed::Recover {}

impl<B: sealed::Recover> Recover for B {}

pub(crate) mod sealed {
    use super::*;

    /// Names no error type. A [`Call`](crate::Call) is bound by this trait, and a compiler that checks whether a task is
    /// `Send` cannot see through a bound that names one with a lifetime in it.
    pub trait Recover {
        type Running;
    }

    pub trait RecoverFrom<T, E>: Recover {
        fn recover(self, cause: Error<E>) -> Self::Running;
        fn poll(running: Pin<&mut Self::Running>, cx: &mut Context<'_>) -> Poll<Result<T, Error<E>>>;
    }
}

/// No fallback: an error is the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFallback;

impl sealed::Recover for NoFallback {
    type Running = Infallible;
}

impl<T, E> sealed::RecoverFrom<T, E> for NoFallback {
    fn recover(self, _: Error<E>) -> Infallible {
        unreachable!("there is none to ask")
    }

    fn poll(running: Pin<&mut Infallible>, _: &mut Context<'_>) -> Poll<Result<T, Error<E>>> {
        match *running {}
    }
}

/// A closure that makes a fallback.
pub struct Rescue<B, Fut> {
    closure: B,
    makes: PhantomData<fn() -> Fut>,
}

impl<B, Fut> Rescue<B, Fut> {
    pub(crate) fn new(closure: B) -> Self {
        Self { closure, makes: PhantomData }
    }
}

impl<B, Fut> sealed::Recover for Rescue<B, Fut> {
    type Running = Fut;
}

impl<T, E, B, Fut> sealed::RecoverFrom<T, E> for Rescue<B, Fut>
where
    B: FnOnce(Error<E>) -> Fut,
    Fut: Future<Output = Result<T, Error<E>>>,
{
    fn recover(self, cause: Error<E>) -> Fut {
        (self.closure)(cause)
    }

    fn poll(running: Pin<&mut Fut>, cx: &mut Context<'_>) -> Poll<Result<T, Error<E>>> {
        running.poll(cx)
    }
}

impl<B, Fut> fmt::Debug for Rescue<B, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rescue").finish_non_exhaustive()
    }
}

/// The fallbacks of one command: their slots, and how they ended. Made when first needed: most commands never are in
/// need of one.
#[derive(Debug)]
pub(crate) struct Fallbacks {
    /// Held while they are made or the limit changes, so that neither misses the other.
    limit: Mutex<u32>,
    made: OnceLock<Box<Made>>,
}

#[derive(Debug)]
struct Made {
    slots: Slots,
    ended: [AtomicU64; 3],
}

impl Fallbacks {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: Mutex::new(limit), made: OnceLock::new() }
    }

    fn made(&self) -> &Made {
        self.made.get().map_or_else(|| self.make(), |made| &**made)
    }

    #[cold]
    fn make(&self) -> &Made {
        let limit = self.limit.lock();
        let ended = std::array::from_fn(|_| AtomicU64::new(0));
        self.made.get_or_init(|| Box::new(Made { slots: Slots::new(Capacity::of(*limit)), ended }))
    }

    pub(crate) fn resize(&self, next: u32) {
        let mut limit = self.limit.lock();
        *limit = next;
        if let Some(made) = self.made.get() {
            let waiting = made.slots.resize(Capacity::of(next));
            debug_assert!(waiting.is_empty(), "fallbacks do not queue");
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.made.get().map_or(0, |made| made.slots.in_flight())
    }

    pub(crate) fn ended(&self, outcome: FallbackOutcome) -> u64 {
        self.made.get().map_or(0, |made| made.ended[outcome as usize].load(Ordering::Relaxed))
    }
}

/// A fallback that runs, in its slot.
#[pin_project]
pub(crate) struct Falling<'c, R> {
    #[pin]
    fallback: R,
    /// Taken when the fallback ends.
    slot: Option<FallbackSlot<'c>>,
}

impl<'c, R> Falling<'c, R> {
    /// Starts the fallback, or gives the cause back: there is none, or no slot for it.
    pub(super) fn start<T, E, B>(core: &'c Core, fallback: Option<B>, cause: Error<E>) -> Result<Self, Error<E>>
    where
        B: sealed::RecoverFrom<T, E, Running = R>,
    {
        let Some(fallback) = fallback else { return Err(cause) };
        let Some(mut slot) = FallbackSlot::take(core) else { return Err(cause) };
        slot.in_user_code = true;
        let fallback = fallback.recover(cause);
        slot.in_user_code = false;
        Ok(Self { fallback, slot: Some(slot) })
    }

    /// The result, and the slot, to be resolved once the fallback has been dropped.
    pub(super) fn poll<B, T, E>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<(Result<T, Error<E>>, FallbackSlot<'c>)>
    where
        B: sealed::RecoverFrom<T, E, Running = R>,
    {
        let this = self.project();
        let running = this.slot.as_mut().expect("held until the fallback ends");
        running.in_user_code = true;
        let ended = B::poll(this.fallback, cx);
        running.in_user_code = false;
        let result = ready!(ended);
        Poll::Ready((result, this.slot.take().expect("held until now")))
    }
}

/// The slot of a running fallback. Dropped unresolved, the fallback was cancelled, which says nothing about it, unless
/// it panicked.
#[derive(Debug)]
pub(crate) struct FallbackSlot<'c> {
    core: &'c Core,
    lane: LaneId,
    /// Set while user code runs, and so still set if it panicked.
    pub(crate) in_user_code: bool,
}

impl<'c> FallbackSlot<'c> {
    /// A slot, or `None` when all are taken.
    pub(crate) fn take(core: &'c Core) -> Option<Self> {
        let Some(lane) = core.fallbacks.made().slots.try_acquire() else {
            count(core, FallbackOutcome::Rejected);
            return None;
        };
        Some(Self { core, lane, in_user_code: false })
    }

    pub(crate) fn resolve(mut self, succeeded: bool) {
        self.in_user_code = false;
        count(self.core, if succeeded { FallbackOutcome::Success } else { FallbackOutcome::Failure });
    }
}

impl Drop for FallbackSlot<'_> {
    fn drop(&mut self) {
        self.core.fallbacks.made().slots.release(self.lane);
        if self.in_user_code {
            count(self.core, FallbackOutcome::Failure);
        }
    }
}

fn count(core: &Core, outcome: FallbackOutcome) {
    core.fallbacks.made().ended[outcome as usize].fetch_add(1, Ordering::Relaxed);
    core.family.meter.fallback(outcome);
}
