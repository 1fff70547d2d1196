//! What a call makes again and again: one attempt alone, or [two](super::hedged::Pair) that race.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::attempt::Attempt;
use super::core::Core;
use super::persistence::Journey;
use super::work::Repeat;
use crate::error::Error;
use crate::outcome::{Classify, Verdict};

/// What an effort has to work with.
pub struct Scope<'s, 'c, W, K> {
    pub(super) core: &'c Core,
    pub(super) operation: &'s mut W,
    pub(super) classify: &'s K,
    pub(super) journey: &'s mut Journey,
}

impl<W, K> fmt::Debug for Scope<'_, '_, W, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("command", &self.core.name()).finish_non_exhaustive()
    }
}

pub(crate) mod sealed {
    use super::*;

    pub trait Effort<'c, W: Repeat, K>: Sized {
        /// One that has not begun. `timeout` is in nanoseconds; `None` is the command's.
        fn fresh(timeout: Option<u64>) -> Self;

        /// Goes on with it; a result sets the verdict, which a refusal and a timeout leave alone.
        fn poll(
            self: Pin<&mut Self>,
            scope: Scope<'_, 'c, W, K>,
            verdict: &mut Verdict,
            cx: &mut Context<'_>,
        ) -> Poll<Result<W::Ok, Error<W::Err>>>;
    }
}

/// One attempt at a time.
#[pin_project]
pub struct Alone<'c, F>(#[pin] Attempt<'c, (), F>);

impl<'c, W, K> sealed::Effort<'c, W, K> for Alone<'c, W::Future>
where
    W: Repeat,
    K: Classify<W::Ok, W::Err>,
{
    fn fresh(timeout: Option<u64>) -> Self {
        Self(Attempt::new((), timeout))
    }

    fn poll(
        self: Pin<&mut Self>,
        scope: Scope<'_, 'c, W, K>,
        verdict: &mut Verdict,
        cx: &mut Context<'_>,
    ) -> Poll<Result<W::Ok, Error<W::Err>>> {
        let Scope { core, operation, classify, journey } = scope;
        let until = journey.until();
        let make = |(), _: &mut _| {
            journey.start(core);
            operation.again()
        };
        self.project().0.poll(core, classify, until, make, verdict, cx)
    }
}

impl<F> fmt::Debug for Alone<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alone").field(&self.0.stage()).finish()
    }
}
