//! Time from tokio's clock, for tests: it stands still under `tokio::time::pause` and moves with `advance`.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A day before the first read, on both clocks: a runtime that was built, and so paused, before this process first
/// looked at the clock must not find itself before the start of time.
fn start() -> (Instant, SystemTime) {
    static START: OnceLock<(Instant, SystemTime)> = OnceLock::new();
    *START.get_or_init(|| {
        const DAY: Duration = Duration::from_secs(86_400);
        let (instant, wall) = (Instant::now(), SystemTime::now());
        (instant.checked_sub(DAY).unwrap_or(instant), wall.checked_sub(DAY).unwrap_or(wall))
    })
}

pub(super) fn nanos() -> u64 {
    let elapsed = Instant::now().saturating_duration_since(start().0);
    super::saturating_nanos(elapsed)
}

/// The moment `nanos` after `stamp`, on the runtime's clock.
pub(super) fn instant(stamp: super::Stamp, nanos: u64) -> Instant {
    super::timer::checked(start().0, stamp.0.saturating_add(nanos))
}

pub(super) fn wall_clock(stamp: u64) -> SystemTime {
    start().1 + Duration::from_nanos(stamp)
}
