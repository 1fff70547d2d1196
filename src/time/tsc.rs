//! Time from the processor's counter, about 12 ns a read where `Instant::now` takes 30.
//!
//! The first read calibrates the counter, which can take up to 200 ms; building a command does that, no call does.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use quanta::Clock;
use tokio::time::Instant;

static CLOCK: OnceLock<(Clock, u64)> = OnceLock::new();

#[inline]
pub(super) fn nanos() -> u64 {
    let (clock, start) = CLOCK.get_or_init(|| {
        let clock = Clock::new();
        let start = clock.raw();
        (clock, start)
    });
    clock.delta_as_nanos(*start, clock.raw())
}

/// How long an anchor serves. The counter's calibration is off by some parts in a million, so a reading of both
/// clocks that is 100 ms old is off by less than a microsecond, while one kept for a day would be off by seconds.
const ANCHOR_NANOS: u64 = 100_000_000;

thread_local! {
    /// One moment on both clocks: reading it is a twentieth of the cost of `Instant::now`.
    static ANCHOR: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// The moment `nanos` after `start`, on the runtime's clock.
#[inline]
pub(super) fn instant(start: super::Stamp, nanos: u64) -> Instant {
    let fresh = |at: u64| start.0 >= at && start.0 - at <= ANCHOR_NANOS;
    let (at, base) = ANCHOR.get().filter(|&(at, _)| fresh(at)).unwrap_or_else(|| {
        let anchor = (self::nanos(), Instant::now());
        ANCHOR.set(Some(anchor));
        anchor
    });
    // After a fresh reading `start` lies before the anchor by what the first poll took.
    super::timer::checked(base, start.0.saturating_add(nanos).saturating_sub(at))
}

pub(super) fn wall_clock(stamp: u64) -> SystemTime {
    let age = Duration::from_nanos(nanos().saturating_sub(stamp));
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}
