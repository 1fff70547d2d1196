//! Was the machine ours while something was measured?
//!
//! A turn in which another process had the processor says nothing about the code. The time that the thread spent on a
//! processor, beside the time that passed, tells such turns apart. (The time of the whole process would not: it counts
//! the other threads by the last tick of the scheduler, and a turn is shorter than that.)

use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::processor::busy;

/// A start, by the clock on the wall and by the one that stands still while somebody else runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    thread: ThreadId,
    wall: Instant,
    busy: Duration,
}

/// What passed since then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    from: Instant,
    pub(crate) wall: Duration,
    /// Whether this thread ran nearly all of the time.
    pub(crate) calm: bool,
}

impl Start {
    pub(crate) fn now() -> Self {
        let busy = busy();
        Self { thread: thread::current().id(), wall: Instant::now(), busy }
    }

    /// A task may have gone to another thread meanwhile: that is no calm turn either.
    pub(crate) fn passed(&self) -> Passed {
        let wall = self.wall.elapsed();
        let busy = busy().saturating_sub(self.busy);
        let calm = thread::current().id() == self.thread && busy.as_secs_f64() >= 0.96 * wall.as_secs_f64();
        Passed { from: self.wall, wall, calm }
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
