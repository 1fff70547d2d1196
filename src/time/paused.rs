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

/// Moves the paused clock by so much, and stops at every timer that is due on the way, so that its task runs at its time
/// and not at the end.
///
/// # Panics
///
/// As `tokio::time::advance` does, unless time is paused.
pub(crate) async fn advance(by: Duration) {
    // Timers are due in steps of this.
    const TICK: Duration = Duration::from_millis(1);
    settle().await;
    let end = super::timer::checked(Instant::now(), super::saturating_nanos(by));
    // A sleeper is woken when nobody has anything left to do before, and up to two steps late: a timer is due at the end
    // of its step, and a clock that stands between two steps is moved by whole ones.
    tokio::time::sleep_until(end.checked_sub(2 * TICK).unwrap_or(end)).await;
    settle().await;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        tokio::time::advance(left.min(TICK)).await;
        settle().await;
    }
}

/// Lets all tasks run that are ready, and those that they wake in turn; time stands still.
async fn settle() {
    // Each round runs 61 tasks or all, if these are fewer: tokio says no more than that of when there are none.
    const ROUNDS: u32 = 64;
    for _ in 0..ROUNDS {
        tokio::time::advance(Duration::ZERO).await;
    }
}
