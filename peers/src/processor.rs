//! What the system says about processors, and is told.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// How long this thread has been on a processor.
pub(crate) fn busy() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// Keeps this thread on one processor: a scheduler with much to do else runs two threads one after the other on the same.
pub(crate) fn stay_on(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor);
    // Where that is not allowed, fewer turns are calm.
    let _ = sched_setaffinity(None, &only);
}
