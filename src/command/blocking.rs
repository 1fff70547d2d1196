//! Blocking work, on the caller's thread or on tokio's blocking pool.
//!
//! A closure that blocks cannot be stopped. What it holds it holds until it ends, whatever its caller was told
//! meanwhile, so its slot stays taken until then: a bulkhead that counted patience instead of work would let a hung
//! disk collect every thread of the pool.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use super::core::Core;
use super::permit::{Permit, SlotOfWork};
use super::run::sealed::Work;
use crate::error::Error;
use crate::outcome::{Classify, Outcome, Verdict};

/// A closure for tokio's blocking pool.
#[derive(Debug)]
pub struct Blocking<F> {
    pub(crate) core: Arc<Core>,
    pub(crate) closure: F,
}

impl<F, T, E> Work for Blocking<F>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Ok = T;
    type Err = E;
    type Future = Running<T, E>;

    fn start(self, permit: &mut Permit<'_>) -> Running<T, E> {
        let Self { core, closure } = self;
        permit.hand_over_slot();
        let slot = SlotOfWork(core);
        Running(tokio::task::spawn_blocking(move || {
            let _until_it_ends = slot;
            closure()
        }))
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
