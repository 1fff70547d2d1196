//! The only file, with its two sources, that names clocks and sleeps.
//!
//! A call reads the clock twice, and on a fast call those two reads are most of what a command costs. So the crate
//! reads the processor's counter (`time/tsc.rs`), and follows tokio's clock instead under the feature `test-util`
//! (`time/paused.rs`), where `tokio::time::pause` must drive windows, open waits and timeouts together.
//!
//! Only differences of [`Stamp`]s decide anything, and they saturate: a clock that stands still or goes back reads as
//! "no time has passed".

use std::time::{Duration, SystemTime};

use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep};

#[cfg(feature = "test-util")]
#[path = "time/paused.rs"]
mod source;
#[cfg(not(feature = "test-util"))]
#[path = "time/tsc.rs"]
mod source;

/// A moment on the crate's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// A moment that never comes.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    #[inline]
    pub(crate) fn now() -> Self {
        Self(source::nanos())
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Nanoseconds since `earlier`; 0 when `earlier` is not earlier.
    #[inline]
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Nanoseconds until `end`; `u64::MAX` when that never comes.
    pub(crate) const fn nanos_until(self, end: Self) -> u64 {
        if end.0 == u64::MAX { u64::MAX } else { end.nanos_since(self) }
    }

    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The moment `nanos` later; [`Stamp::NEVER`] when that is beyond what the clock can show.
    #[inline]
    pub(crate) const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    pub(crate) const fn minus(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }

    /// The wall-clock time of this moment. For output only: nothing is ever decided by it.
    pub(crate) fn wall_clock(self) -> SystemTime {
        source::wall_clock(self.0)
    }
}

/// The nanoseconds of `duration`, or the longest span the clock knows (584 years).
pub(crate) fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Ends at a deadline, whatever else its task does: it takes no part in tokio's cooperative budget, which a busy
/// operation may have used up for it ([tokio#4291](https://github.com/tokio-rs/tokio/issues/4291)).
pub(crate) type Timer = Unconstrained<Sleep>;

/// A timer that ends `nanos` after `start`.
///
/// # Panics
///
/// As [`tokio::time::sleep`] does: outside a tokio runtime, or in one whose timers are disabled.
#[inline]
pub(crate) fn timer(start: Stamp, nanos: u64) -> Timer {
    unconstrained(tokio::time::sleep_until(source::instant(start, nanos)))
}

/// `base + nanos`, or as far ahead as tokio's own "far future" when that overflows.
fn checked(base: Instant, nanos: u64) -> Instant {
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
    base.checked_add(Duration::from_nanos(nanos)).unwrap_or(base + FAR)
}
