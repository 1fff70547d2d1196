//! What a command can run, and what it judges by when a call says nothing else.

use std::future::Future;

use super::permit::Permit;
use crate::outcome::{Again, Classify, Verdict};

/// Something that a command can run: a closure that makes a future, a future, a blocking closure.
///
/// Sealed: it is named in the types of futures and has nothing to call.
pub trait Work: sealed::Work {}

impl<W: sealed::Work> Work for W {}

/// Work that can be done more than once: a closure that makes a future each time it is called.
///
/// Sealed, as [`Work`] is.
pub trait Repeat: Work + sealed::Repeat {}

impl<W: Work + sealed::Repeat> Repeat for W {}

pub(crate) mod sealed {
    use super::*;

    pub trait Work {
        type Ok;
        type Err;
        type Future: Future<Output = Result<Self::Ok, Self::Err>>;
        fn start(self, permit: &mut Permit<'_>) -> Self::Future;
    }

    pub trait Repeat: Work {
        fn again(&mut self) -> Self::Future;
    }
}

impl<F, Fut, T, E> sealed::Work for F
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Ok = T;
    type Err = E;
    type Future = Fut;

    #[inline]
    fn start(self, _: &mut Permit<'_>) -> Fut {
        self()
    }
}

impl<F, Fut, T, E> sealed::Repeat for F
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    fn again(&mut self) -> Fut {
        self()
    }
}

/// A future that exists already.
#[derive(Debug)]
pub struct Given<Fut>(pub(crate) Fut);

impl<Fut, T, E> sealed::Work for Given<Fut>
where
    Fut: Future<Output = Result<T, E>>,
{
    type Ok = T;
    type Err = E;
    type Future = Fut;

    #[inline]
    fn start(self, _: &mut Permit<'_>) -> Fut {
        self.0
    }
}

/// Judges by the classifier that the command was built with.
#[derive(Debug)]
pub struct ByCommand<'c, C>(pub(crate) &'c C);

impl<T, E, C: Classify<T, E>> Classify<T, E> for ByCommand<'_, C> {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        self.0.classify(result)
    }

    fn again(&self, result: &Result<T, E>, verdict: Verdict) -> Again {
        self.0.again(result, verdict)
    }
}
