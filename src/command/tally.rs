//! Attempts, counted.

use crate::hedge::HedgeOutcome;
use crate::retry::Fate;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Stamp;
use crate::window::ring::{self, Ring};

/// Attempts of all time, and those of late.
#[derive(Debug)]
pub(super) struct Tally {
    calls: AtomicU64,
    pub(super) started: AtomicU64,
    pub(super) fates: [AtomicU64; 4],
    pub(super) hedges: [AtomicU64; 2],
    pub(super) hedges_denied: AtomicU64,
    /// Where the running slice of `recent` ends.
    edge: AtomicU64,
    recent: Mutex<Ring<Reading>>,
}

/// Calls and started attempts at one moment, modulo 2^32.
#[derive(Clone, Copy, Debug)]
struct Reading([u32; 2]);

impl ring::Reading for Reading {
    fn idle(&self) -> Self {
        *self
    }
}

/// What "of late" is: ten seconds, in tenths.
const SLICE: u64 = 1_000_000_000;
const SLICES: usize = 10;

impl Tally {
    pub(super) fn new(now: Stamp) -> Self {
        let zero = || AtomicU64::new(0);
        let ring = Ring::new(now, SLICE, SLICES, Reading([0; 2]));
        Self {
            calls: zero(),
            started: zero(),
            fates: std::array::from_fn(|_| zero()),
            hedges: std::array::from_fn(|_| zero()),
            hedges_denied: zero(),
            edge: AtomicU64::new(ring.edge().as_nanos()),
            recent: Mutex::new(ring),
        }
    }

    pub(super) fn call(&self, now: Stamp) {
        if now.as_nanos() >= self.edge.load(Ordering::Relaxed) {
            self.roll(&mut self.recent.lock(), now);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Needs the ring's lock.
    fn roll(&self, ring: &mut Ring<Reading>, now: Stamp) {
        ring.roll(now, |_| self.read());
        self.edge.store(ring.edge().as_nanos(), Ordering::Relaxed);
    }

    fn read(&self) -> Reading {
        Reading([&self.calls, &self.started].map(|counter| counter.load(Ordering::Relaxed) as u32))
    }

    pub(super) fn counts(&self, now: Stamp) -> AttemptCounts {
        let mut ring = self.recent.lock();
        self.roll(&mut ring, now);
        let (Reading([calls, started]), Reading([calls_then, started_then])) = (self.read(), *ring.oldest());
        drop(ring);
        let [success, retried, exhausted, budget_denied] =
            Fate::ALL.map(|fate| self.fates[fate as usize].load(Ordering::Relaxed));
        AttemptCounts {
            calls: self.calls.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            success,
            retried,
            exhausted,
            budget_denied,
            hedges_won: self.hedges[HedgeOutcome::Won as usize].load(Ordering::Relaxed),
            hedges_lost: self.hedges[HedgeOutcome::Lost as usize].load(Ordering::Relaxed),
            hedges_denied: self.hedges_denied.load(Ordering::Relaxed),
            recent: [calls.wrapping_sub(calls_then), started.wrapping_sub(started_then)],
        }
    }
}

/// The attempts of the calls that may have several, over the life of a command.
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Command, Retry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let users = Command::builder("users").build()?;
/// let mut answers = [Err(std::io::Error::other("reset")), Ok(7)].into_iter();
/// let user = users.retry(|| std::future::ready(answers.next().unwrap())).with(Retry::constant(Duration::ZERO)).await?;
///
/// let attempts = users.snapshot().attempts();
/// assert_eq!((user, attempts.calls, attempts.started), (7, 1, 2));
/// assert_eq!((attempts.retried, attempts.success), (1, 1));
/// assert_eq!(attempts.amplification(), Some(2.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptCounts {
    /// Calls that may have several attempts.
    pub calls: u64,
    /// Operations that they have started.
    pub started: u64,
    /// Attempts that gave their call its answer.
    pub success: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Attempts that failed and were the last: not worth another, or attempts or time were used up.
    pub exhausted: u64,
    /// Attempts that failed and were the last because the budget was empty.
    pub budget_denied: u64,
    /// Second attempts that were started while the first ran, or when it had failed, and gave the call its answer.
    pub hedges_won: u64,
    /// Second attempts that were started and did not.
    pub hedges_lost: u64,
    /// Second attempts that were not started because the budget was empty, or more calls were slow than a percentile
    /// leaves.
    pub hedges_denied: u64,
    /// Of the last ten seconds: calls, and operations started.
    recent: [u32; 2],
}

impl AttemptCounts {
    /// Operations started per call, over the last ten seconds; `None` without calls. Above 1 the dependency gets more
    /// load than its callers have work for it; the budget holds it at 1 + share, in the long run. Of calls that are
    /// mostly refused it is less than 1.
    pub fn amplification(&self) -> Option<f64> {
        let [calls, started] = self.recent;
        (calls > 0).then(|| f64::from(started) / f64::from(calls))
    }

    /// For a series, which cannot be taken back when there are no calls for a while.
    pub(super) fn shown_amplification(&self) -> Option<f64> {
        self.amplification().or((self.calls > 0).then_some(1.0))
    }
}
