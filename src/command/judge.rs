//! Who says whether another attempt is worth making.

use std::fmt;

use crate::error::{Error, Reason};
use crate::outcome::{Again, Classify, Verdict};

/// Says whether another attempt is worth making: [`ByVerdict`], or a closure as a [`When`].
///
/// Sealed: it is named in the types of futures and has nothing to call.
pub trait Judge<T, E, K>: sealed::Judge<T, E, K> {}

impl<T, E, K, J: sealed::Judge<T, E, K>> Judge<T, E, K> for J {}

pub(crate) mod sealed {
    use super::*;

    pub trait Judge<T, E, K> {
        /// Gives the result back with what it says of it. Not asked about ignored results.
        fn judge(&self, classify: &K, result: Result<T, Error<E>>, verdict: Verdict) -> (Result<T, Error<E>>, Again);
    }
}

/// What the classifier says ([`Classify::again`]). A timeout is worth another attempt if the policy says so, and so is a
/// refusal, but for that of an operator.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByVerdict;

impl<T, E, K: Classify<T, E>> sealed::Judge<T, E, K> for ByVerdict {
    fn judge(&self, classify: &K, result: Result<T, Error<E>>, verdict: Verdict) -> (Result<T, Error<E>>, Again) {
        // A classifier knows the operation's own result, so that is taken out and put back.
        let own = match result {
            Ok(value) => Ok(value),
            Err(Error::Failed(error)) => Err(error),
            Err(Error::Rejected(rejected)) => {
                let again = match (rejected.reason(), rejected.retry_after()) {
                    (Reason::ForcedOpen, None) => Again::No,
                    (Reason::Aborted, Some(wait)) => Again::After(wait),
                    _ => Again::Yes,
                };
                return (Err(rejected.into()), again);
            }
            Err(Error::TimedOut(timed_out)) => return (Err(timed_out.into()), Again::Yes),
        };
        let again = classify.again(&own, verdict);
        (own.map_err(Error::Failed), again)
    }
}

/// A closure that sees the whole result.
pub struct When<P>(pub(super) P);

impl<T, E, K, P, A> sealed::Judge<T, E, K> for When<P>
where
    P: Fn(&Result<T, Error<E>>) -> A,
    A: Into<Again>,
{
    fn judge(&self, _: &K, result: Result<T, Error<E>>, _: Verdict) -> (Result<T, Error<E>>, Again) {
        let again = (self.0)(&result).into();
        (result, again)
    }
}

impl<P> fmt::Debug for When<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("When").finish_non_exhaustive()
    }
}
