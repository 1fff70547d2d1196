//! What a circuit has seen: the window, this generation's part of it, and when the next success matters.

use std::time::Duration;

use super::config::{Rules, Span};
use crate::outcome::Outcome;
use crate::time::Stamp;
use crate::window::counts::{Counts, Extended, Health, Reading, Tally};
use crate::window::flow::Flow;
use crate::window::recent::Recent;
use crate::window::ring::Ring;

/// Kept under the circuit's lock, beside the counters in [`Tally`] that calls add to without it.
#[derive(Debug)]
pub(crate) struct Books {
    ring: Ring<Reading>,
    /// The counters when this generation began, and when that was.
    floor: (Stamp, Reading),
    /// Successes of all time.
    good: Extended,
    /// For a window of the last n calls.
    recent: Option<Box<LastCalls>>,
    /// How many calls the window held when the rules last judged it; [`Books::UNJUDGED`] if it has lost some since, or the rules have
    /// changed.
    judged: u64,
    /// Calls of this generation in flight that count as slow.
    overdue: u32,
}

#[derive(Debug)]
struct LastCalls {
    /// Of all generations: what people see.
    all: Recent,
    /// Of this one: what is judged by.
    fresh: Recent,
}

impl Books {
    /// More calls than there will ever be.
    const UNJUDGED: u64 = u64::MAX;

    pub(crate) fn new(now: Stamp, span: Span) -> Self {
        let ring = new_ring(now, span, Reading::default());
        Self {
            ring,
            floor: (now, Reading::default()),
            good: Extended::default(),
            recent: new_recent(span),
            judged: Self::UNJUDGED,
            overdue: 0,
        }
    }

    /// Where the running bucket ends.
    pub(crate) fn edge(&self) -> Stamp {
        self.ring.edge()
    }

    /// Whether outcomes that count must be [pushed](Books::push) one by one.
    pub(crate) fn counts_calls(&self) -> bool {
        self.recent.is_some()
    }

    /// Closes the buckets that have ended.
    pub(crate) fn roll(&mut self, now: Stamp, tally: &Tally) {
        if now >= self.ring.edge() {
            self.ring.roll(now, |before| tally.read_at_edge(before));
            self.good.follow(tally.flow().good());
            self.judged = Self::UNJUDGED;
        }
    }

    /// Adds an outcome that counts to a window of calls; for the circuit too, unless it came late.
    pub(crate) fn push(&mut self, outcome: Outcome, slow: bool, late: bool) {
        let Some(recent) = &mut self.recent else { return };
        recent.all.push(outcome, slow);
        if !late {
            recent.fresh.push(outcome, slow);
        }
    }

    /// A call in flight counts as slow from here on.
    pub(crate) fn add_overdue(&mut self) {
        self.overdue += 1;
    }

    /// It has ended, and is counted by its outcome instead; of this generation.
    pub(crate) fn end_overdue(&mut self) {
        self.overdue -= 1;
    }

    /// From here on only new calls count for the circuit.
    pub(crate) fn begin_generation(&mut self, now: Stamp, generation: u64, tally: &Tally) {
        self.floor = (now, tally.begin_generation(generation));
        self.judged = Self::UNJUDGED;
        self.overdue = 0;
        if let Some(recent) = &mut self.recent {
            recent.fresh.clear();
        }
    }

    /// Forgets the window, but no lifetime total.
    pub(crate) fn clear(&mut self, now: Stamp, tally: &Tally) {
        self.ring.clear(now, fresh_reading(tally));
        if let Some(recent) = &mut self.recent {
            recent.all.clear();
        }
    }

    /// Takes a window of another shape, which starts empty.
    pub(crate) fn reshape(&mut self, now: Stamp, span: Span, tally: &Tally) {
        let reading = fresh_reading(tally);
        self.ring = new_ring(now, span, reading.clone());
        self.recent = new_recent(span);
        self.floor = (now, reading);
    }

    /// The rules have judged by this, or have changed and not judged yet.
    pub(crate) fn set_judged(&mut self, health: Option<Health>) {
        self.judged = health.map_or(Self::UNJUDGED, |health| health.total);
    }

    /// What the circuit judges by.
    pub(crate) fn health(&self, tally: &Tally) -> Health {
        match &self.recent {
            Some(recent) => recent.fresh.health_with(self.overdue.into()),
            None => tally.read().health_since(self.base()).with_overdue(self.overdue.into()),
        }
    }

    /// The later of the window's start and this generation's.
    fn base(&self) -> &Reading {
        if self.floor.0 >= self.ring.start() { &self.floor.1 } else { self.ring.oldest() }
    }

    /// Calls by outcome in the rolling window. A window of calls holds those that count; the others are shown over
    /// some seconds, because no number of calls says when they were.
    pub(crate) fn window(&self, tally: &Tally) -> Counts {
        let mut counts = tally.read().since(self.ring.oldest());
        if let Some(recent) = &self.recent {
            for (outcome, count) in recent.all.counts().iter() {
                if outcome == Outcome::Success || outcome.is_error() {
                    counts.set(outcome, count);
                }
            }
        }
        counts
    }

    /// How much time the rolling window spans.
    pub(crate) fn span(&self, now: Stamp) -> Duration {
        self.ring.span(now)
    }

    /// Most calls in flight at once in the rolling window.
    pub(crate) fn peak(&self, tally: &Tally) -> u32 {
        self.ring.inner().map(|reading| reading.peak).fold(tally.flow().peak(), u32::max)
    }

    pub(crate) fn lifetime(&mut self, tally: &Tally) -> Counts {
        tally.lifetime(&mut self.good)
    }

    /// From how many successes on, modulo 2^34, a success of a closed circuit must be judged.
    ///
    /// A success makes every rate smaller, so it can trip only by making the window large enough, or by being the first
    /// to come after old successes have left the window.
    pub(crate) fn due(&self, rules: &Rules, tally: &Tally) -> Due {
        if self.recent.is_some() {
            return Due::NEVER;
        }
        let good = tally.flow().good();
        let health = self.health(tally);
        let judged = self.judged == health.total;
        // With none missing, the next one; and the last one, if it was counted after the judgement.
        let due = |(part, total)| {
            let missing = u64::from(rules.min_calls).saturating_sub(total);
            (part > 0 && !(missing == 0 && judged)).then_some(missing)
        };
        let rates = [(health.errors, health.ended()), (health.slow, health.total)];
        rates.into_iter().filter_map(due).min().map_or(Due::NEVER, |missing| Due::at(good + missing))
    }
}

/// A count of successes, modulo 2^34, from which on they matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due(u64);

impl Due {
    pub(crate) const NEVER: Self = Self(u64::MAX);

    fn at(good: u64) -> Self {
        Self(good & Flow::GOOD_MASK)
    }

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// Whether that many successes are enough. Which of two numbers modulo 2^34 is ahead, the shorter way tells.
    #[inline]
    pub(crate) fn is_reached(self, good: u64) -> bool {
        self != Self::NEVER && good.wrapping_sub(self.0) & Flow::GOOD_MASK <= Flow::GOOD_MASK / 2
    }
}

/// Where calls are counted, the rolling window still has to show refusals over some time.
const DISPLAY: (u64, usize) = (1_000_000_000, 10);

/// The counters, with the running peak forgotten.
fn fresh_reading(tally: &Tally) -> Reading {
    tally.read_at_edge(&Reading::default()).without_peak()
}

fn new_ring(now: Stamp, span: Span, reading: Reading) -> Ring<Reading> {
    let (width, buckets) = match span {
        Span::Time { width, buckets } => (width, buckets),
        Span::Calls(_) => DISPLAY,
    };
    Ring::new(now, width, buckets, reading)
}

fn new_recent(span: Span) -> Option<Box<LastCalls>> {
    let Span::Calls(size) = span else { return None };
    Some(Box::new(LastCalls { all: Recent::new(size), fresh: Recent::new(size) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T5: the comparison holds where the count of successes wraps.
    #[test]
    fn due_is_reached_across_the_wrap() {
        for due in [0, 1, Flow::GOOD_MASK - 1, Flow::GOOD_MASK] {
            let reached = |ahead: u64| Due::at(due).is_reached(due.wrapping_add(ahead) & Flow::GOOD_MASK);
            assert!(reached(0) && reached(1) && reached(1_000_000));
            assert!(!reached(u64::MAX) && !reached(1_000_000_u64.wrapping_neg()));
        }
        assert!(!Due::NEVER.is_reached(Flow::GOOD_MASK));
    }
}
