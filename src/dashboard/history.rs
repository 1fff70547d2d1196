//! Ten minutes of one command, a sample each second.

use std::collections::VecDeque;

use crate::breaker::state::State;
use crate::command::snapshot::Snapshot;
use crate::outcome::Outcome;
use crate::window::counts::Counts;

/// Ten minutes of seconds. At 36 bytes each they are about 21 KiB per command.
pub(super) const LENGTH: usize = 600;

/// What happened in one second, and what was true at its end. Latencies are in microseconds; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) ok: u32,
    pub(super) failed: u32,
    pub(super) refused: u32,
    /// Ignored and cancelled calls.
    pub(super) other: u32,
    /// Calls that a fallback answered.
    pub(super) served: u32,
    pub(super) p50: u32,
    pub(super) p99: u32,
    pub(super) in_flight: u32,
    pub(super) state: u8,
}

#[derive(Debug)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    before: Counts,
    served_before: u64,
}

impl History {
    /// Counts from here on.
    pub(super) fn begin(snapshot: &Snapshot) -> Self {
        Self { samples: VecDeque::new(), before: snapshot.lifetime(), served_before: snapshot.fallbacks().success }
    }

    /// Adds the second that ends with `snapshot`, after `missed` seconds in which nobody looked: what happened in those
    /// is told by this one.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, missed: usize) {
        let lifetime = snapshot.lifetime();
        let served = snapshot.fallbacks().success;
        let since = |outcome: Outcome| lifetime.of(outcome).saturating_sub(self.before.of(outcome));
        let cut = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let sum = |keep: fn(Outcome) -> bool| cut(Outcome::ALL.into_iter().filter(|&o| keep(o)).map(since).sum());
        let micros = |q| snapshot.latency().percentile(q).map_or(0, |latency| cut(latency.as_micros() as u64));
        let sample = Sample {
            ok: cut(since(Outcome::Success)),
            failed: sum(Outcome::is_error),
            refused: sum(|outcome| !outcome.was_started()),
            other: sum(|outcome| matches!(outcome, Outcome::Ignored | Outcome::Cancelled)),
            served: cut(served.saturating_sub(self.served_before)),
            p50: micros(0.5),
            p99: micros(0.99),
            in_flight: cut(snapshot.in_flight() as u64),
            state: snapshot.state() as u8,
        };
        let gap = Sample { state: self.latest().state, ..Sample::default() };
        for sample in std::iter::repeat_n(gap, missed.min(LENGTH)).chain([sample]) {
            if self.samples.len() == LENGTH {
                self.samples.pop_front();
            }
            self.samples.push_back(sample);
        }
        (self.before, self.served_before) = (lifetime, served);
    }

    /// The last second.
    pub(super) fn latest(&self) -> Sample {
        self.samples.back().copied().unwrap_or(Sample { state: State::Closed as u8, ..Sample::default() })
    }

    /// The last `seconds`, oldest first.
    pub(super) fn last(&self, seconds: usize) -> impl Iterator<Item = Sample> {
        self.samples.iter().skip(self.samples.len().saturating_sub(seconds)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;

    #[test]
    fn each_second_has_what_happened_in_it_and_ten_minutes_are_kept() {
        let command = Command::builder("history").build().expect("a good configuration");
        command.run_sync(|| Ok::<_, ()>(())).expect("it succeeds");
        let mut history = History::begin(&command.snapshot());
        command.run_sync(|| Ok::<_, ()>(())).expect("it succeeds");
        command.run_sync(|| Err::<(), _>(())).expect_err("it fails");
        command.force_open("a drill", None);
        command.run_sync(|| Ok::<_, ()>(())).expect_err("it is refused");
        history.follow(&command.snapshot(), 0);
        let first = history.latest();
        assert_eq!((first.ok, first.failed, first.refused, first.other), (1, 1, 1, 0));
        assert_eq!(first.state, State::ForcedOpen as u8);

        history.follow(&command.snapshot(), 2);
        let all: Vec<_> = history.last(LENGTH).map(|sample| sample.ok + sample.failed + sample.refused).collect();
        assert_eq!(all, [3, 0, 0, 0], "two seconds were missed");
        for _ in 0..LENGTH {
            history.follow(&command.snapshot(), 0);
        }
        assert_eq!((history.last(usize::MAX).count(), history.last(2).count()), (LENGTH, 2));
        history.follow(&command.snapshot(), usize::MAX);
        assert_eq!(history.last(usize::MAX).count(), LENGTH);
    }
}
