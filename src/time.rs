//! The only file, with its sources, that names clocks and sleeps.
//!
//! A call reads the clock twice, and on a fast call those two reads are most of what a command costs. So the crate
//! reads the processor's counter (`time/tsc.rs`), and follows tokio's clock instead under the feature `test-util`
//! (`time/paused.rs`), where `tokio::time::pause` must drive windows, open waits and timeouts together. Under
//! `--cfg fusebox_shuttle` time is moved by the schedules themselves (`time/scripted.rs`).
//!
//! Only differences of [`Stamp`]s decide anything, and they saturate: a clock that stands still or goes back reads as
//! "no time has passed".

use std::time::{Duration, SystemTime};

#[cfg(all(not(fusebox_shuttle), feature = "test-util"))]
#[path = "time/paused.rs"]
mod source;
#[cfg(fusebox_shuttle)]
#[path = "time/scripted.rs"]
mod source;
#[cfg(all(not(fusebox_shuttle), not(feature = "test-util")))]
#[path = "time/tsc.rs"]
mod source;
#[cfg(not(fusebox_shuttle))]
#[path = "time/timer.rs"]
mod timer;

#[cfg(all(not(fusebox_shuttle), feature = "test-util"))]
pub(crate) use source::advance;
#[cfg(fusebox_shuttle)]
pub(crate) use source::{Timer, timer};
#[cfg(all(test, fusebox_shuttle))]
pub(crate) use source::{advance, restart};
#[cfg(not(fusebox_shuttle))]
pub(crate) use timer::{Timer, timer};

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
