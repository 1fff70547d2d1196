//! Time, and chance, under control.

use std::time::Duration;

use crate::breaker::state::State;
use crate::command::Command;

/// Lets so much time pass, as it would: timers that are due on the way are due one after the other, and what waits for
/// them runs at its time. Then runs what is due at the end.
///
/// `tokio::time::advance` jumps instead: whoever waits finds out afterwards, and reads the time of the end. Here a call
/// with a timeout of 1 s that is spawned before 10 s pass has timed out after 1 s, and so its retry begins when it should.
///
/// Blocking work holds the clock, as it does for every sleeper in paused time: 10 s pass when it is done. To see a call of
/// [`spawn_blocking`](crate::Command::spawn_blocking) time out, jump.
///
/// ```
/// use std::time::Duration;
/// use fusebox::testing::advance;
/// use tokio::time::{Instant, sleep};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let begun = Instant::now();
/// let task = tokio::spawn(async move {
///     sleep(Duration::from_secs(1)).await;
///     begun.elapsed()
/// });
/// advance(Duration::from_secs(10)).await;
/// assert!(task.is_finished());
/// assert_eq!(task.await.unwrap(), Duration::from_secs(1));
/// # }
/// ```
///
/// # Cancel safety
///
/// Dropped on the way, it leaves the clock where it is.
///
/// # Panics
///
/// Unless time is paused: see `tokio::time::pause`, or `#[tokio::test(start_paused = true)]`.
pub async fn advance(by: Duration) {
    crate::time::advance(by).await;
}

/// Lets the wait of an open circuit pass, to the moment from which the next call is its probe, and returns how long that
/// was. Also for a circuit that is forced open with an expiry. Jitter is no obstacle. In a circuit that is half-open
/// already no time passes.
///
/// ```
/// use fusebox::testing::advance_to_probe;
/// use fusebox::{Breaker, Command, State};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let db = Command::builder("db").breaker(Breaker::error_rate(0.5).min_calls(1)).build()?;
/// db.admit()?.fail();
/// assert_eq!(db.state(), State::Open);
///
/// advance_to_probe(&db).await;
/// db.admit()?.succeed();
/// assert_eq!(db.state(), State::Closed);
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// As [`advance`].
///
/// # Panics
///
/// If the circuit waits for nothing that comes by itself: it is closed, or forced open without an expiry. And unless time
/// is paused.
pub async fn advance_to_probe<C>(command: &Command<C>) -> Duration {
    let snapshot = command.snapshot();
    let wait = match (snapshot.retry_after(), snapshot.state()) {
        (Some(wait), _) => wait,
        (None, State::HalfOpen) => Duration::ZERO,
        (None, state) => panic!("command `{}` is {state}, so there is no wait that leads to a probe", command.name()),
    };
    advance(wait).await;
    wait
}

/// Makes chance repeat itself, for this thread: the jitter of open waits and of waits between attempts. Call it at the
/// beginning of a test whose figures depend on it. Where jitter is not the point, switch it off: `Breaker::jitter(0.0)`,
/// `Retry::jitter(Jitter::None)`.
///
/// ```
/// use fusebox::testing::{advance_to_probe, seed};
/// use fusebox::{Breaker, Command};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut waits = Vec::new();
/// for _ in 0..2 {
///     seed(7);
///     let db = Command::builder("db").breaker(Breaker::error_rate(0.5).min_calls(1).jitter(0.5)).build()?;
///     db.admit()?.fail();
///     waits.push(advance_to_probe(&db).await);
/// }
/// assert_eq!(waits[0], waits[1]);
/// # Ok(())
/// # }
/// ```
pub fn seed(seed: u64) {
    fastrand::seed(seed);
}
