//! Blocking work, on the caller's thread or on tokio's blocking pool.
//!
//! A closure that blocks cannot be stopped. What it holds it holds until it ends, whatever its caller was told
//! meanwhile, so its slot stays taken until then: a bulkhead that counted patience instead of work would let a hung
//! disk collect every thread of the pool.

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use super::core::Core;
use super::permit::{Permit, SlotOfWork};
use super::work::sealed::Work;
use crate::error::Error;
use crate::outcome::{Classify, Outcome, Verdict};

/// A closure for tokio's blocking pool.
pub struct Blocking<F, T, E> {
    core: Arc<Core>,
    closure: F,
    /// Known where the bounds are. On the impl of `Work` they would be bounds with lifetimes on a future's types, which
    /// a compiler that checks whether a task is `Send` cannot see through.
    spawn: fn(F, SlotOfWork) -> JoinHandle<Result<T, E>>,
}

impl<F, T, E> Blocking<F, T, E>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    pub(crate) fn new(core: Arc<Core>, closure: F) -> Self {
        let spawn = |closure: F, slot| {
            tokio::task::spawn_blocking(move || {
                let _until_it_ends: SlotOfWork = slot;
                closure()
            })
        };
        Self { core, closure, spawn }
    }
}

impl<F, T, E> Work for Blocking<F, T, E> {
    type Ok = T;
    type Err = E;
    type Future = Running<T, E>;

    fn start(self, permit: &mut Permit<'_>) -> Running<T, E> {
        Running((self.spawn)(self.closure, permit.hand_over_slot(self.core)))
    }
}

impl<F, T, E> fmt::Debug for Blocking<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}

/// A closure on tokio's blocking pool.
///
/// # Panics
///
/// With the closure's panic; and if the runtime shut down before the closure was started.
#[derive(Debug)]
pub struct Running<T, E>(JoinHandle<Result<T, E>>);

impl<T, E> Future for Running<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => panic!("the runtime shut down before a blocking call was started"),
        }))
    }
}

impl Core {
    /// Runs a closure on the caller's thread. One that took too long counts as timed out, and its result is returned
    /// all the same: it is there.
    pub(crate) fn run_sync<T, E>(
        &self,
        classify: &impl Classify<T, E>,
        closure: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let limit = self.timeout();
        let mut permit = self.admit()?;
        let result = closure();
        let verdict = classify.classify(&result);
        let elapsed = permit.elapsed();
        match verdict {
            Verdict::Success | Verdict::Failure if elapsed >= limit => permit.settle(Outcome::TimedOut, elapsed, None),
            _ => permit.settle_verdict(verdict, elapsed),
        }
        result.map_err(Error::Failed)
    }
}
