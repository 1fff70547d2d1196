//! Was the machine ours while something was measured?
//!
//! A turn in which another process had the processor says nothing about the code. The time for which the thread could
//! have run and was not let, beside the time that passed, tells such turns apart; that one of two threads sleeps on a
//! lock is the code's own affair. (Where the system does not say it, whatever time the thread did not spend on a
//! processor counts. The time of the whole process would not do: it counts the other threads by the last tick of the
//! scheduler, and a turn is shorter than that.)

use std::fs;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::processor::busy;

/// A start, by the clock on the wall and by those of the thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    thread: ThreadId,
    wall: Instant,
    busy: Duration,
    kept_waiting: Option<Duration>,
}

/// What passed since then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    from: Instant,
    pub(crate) wall: Duration,
    /// Whether this thread ran nearly always when it could.
    pub(crate) calm: bool,
    /// Whether it ran nearly all of the time: it did not sleep either, and no other machine had the processor.
    pub(crate) awake: bool,
}

impl Start {
    pub(crate) fn now() -> Self {
        let (kept_waiting, busy) = (kept_waiting(), busy());
        Self { thread: thread::current().id(), wall: Instant::now(), busy, kept_waiting }
    }

    /// A task may have gone to another thread meanwhile: that is no calm turn either.
    pub(crate) fn passed(&self) -> Passed {
        let wall = self.wall.elapsed();
        let busy = busy().saturating_sub(self.busy);
        let lost = match (self.kept_waiting, kept_waiting()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => wall.saturating_sub(busy),
        };
        let stayed = thread::current().id() == self.thread;
        let few = |time: Duration| stayed && time.as_secs_f64() <= 0.04 * wall.as_secs_f64();
        Passed { from: self.wall, wall, calm: few(lost), awake: few(wall.saturating_sub(busy)) }
    }
}

impl Passed {
    /// Whether the two ran side by side, and not one after the other on the only processor that was free.
    pub(crate) fn beside(&self, other: &Self) -> bool {
        let until = (self.from + self.wall).min(other.from + other.wall);
        let both = until.saturating_duration_since(self.from.max(other.from));
        both.as_secs_f64() >= 0.96 * self.wall.max(other.wall).as_secs_f64()
    }
}

/// How long this thread stood in line for a processor. `None` where the system does not say.
fn kept_waiting() -> Option<Duration> {
    let known = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut figures = known.split_whitespace().map(|figure| figure.parse().ok());
    // Where nothing is counted, the thread has not run either.
    let _ran: u64 = figures.next()?.filter(|&ran| ran > 0)?;
    figures.next()?.map(Duration::from_nanos)
}
