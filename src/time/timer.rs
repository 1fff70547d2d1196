//! Timers of tokio's.

use std::time::Duration;

use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep};

/// Ends at a deadline, whatever else its task does: it takes no part in tokio's cooperative budget, which a busy
/// operation may have used up for it ([tokio#4291](https://github.com/tokio-rs/tokio/issues/4291)).
pub(crate) type Timer = Unconstrained<Sleep>;

/// A timer that ends `nanos` after `start`.
///
/// # Panics
///
/// As [`tokio::time::sleep`] does: outside a tokio runtime, or in one whose timers are disabled.
#[inline]
pub(crate) fn timer(start: super::Stamp, nanos: u64) -> Timer {
    unconstrained(tokio::time::sleep_until(super::source::instant(start, nanos)))
}

/// `base + nanos`, or as far ahead as tokio's own "far future" when that overflows.
pub(super) fn checked(base: Instant, nanos: u64) -> Instant {
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
    base.checked_add(Duration::from_nanos(nanos)).unwrap_or(base + FAR)
}
