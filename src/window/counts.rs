//! Outcomes, counted.
//!
//! [`Tally`] holds a counter for each outcome that only goes up; successes and refusals, which there are most of, are
//! counted in [`Flow`]. [`Reading`] is what the ring keeps of them, and [`Counts`] is what people see.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::flow::Flow;
use super::ring;
use crate::outcome::Outcome;
use crate::sync::{AtomicU64, Ordering};

/// Lifetime counters.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Has the successes that count for the circuit.
    flow: Arc<Flow>,
    /// Made for the first call that is anything else: of a thousand circuits many never see one.
    more: OnceLock<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// Errors that count for the circuit; each is counted in `others` as well.
    bad: AtomicU64,
    /// Calls that took too long and count for the circuit; each is counted as a success or an error as well.
    slow: AtomicU64,
    /// Successes that came late, and do not count for the circuit.
    late_good: AtomicU64,
    /// Every outcome that came late, whatever it was.
    late: AtomicU64,
    /// Outcomes of calls that were started, by discriminant; the first place is [`Outcome::Success`]'s and stays 0.
    others: [AtomicU64; Outcome::FIRST_REFUSAL],
}

impl Tally {
    pub(crate) fn new(flow: Arc<Flow>) -> Self {
        Self { flow, more: OnceLock::new() }
    }

    #[inline]
    pub(crate) fn flow(&self) -> &Flow {
        &self.flow
    }

    fn more(&self) -> &More {
        self.more.get_or_init(Box::default)
    }

    fn read_more(&self, counter: impl FnOnce(&More) -> &AtomicU64) -> u64 {
        self.more.get().map_or(0, |more| counter(more).load(Ordering::Acquire))
    }

    pub(crate) fn add_bad(&self) {
        self.more().bad.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn add_slow(&self) {
        self.more().slow.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts an outcome that has no say in the circuit's state, or whose say is counted apart.
    pub(crate) fn add(&self, outcome: Outcome) {
        let more = self.more();
        match outcome {
            Outcome::Success => &more.late_good,
            other => &more.others[other as usize],
        }
        .fetch_add(1, Ordering::AcqRel);
    }

    fn of(&self, outcome: usize) -> u64 {
        match outcome.checked_sub(Outcome::FIRST_REFUSAL) {
            None => self.read_more(|more| &more.others[outcome]),
            Some(refusal) => self.flow.refused(refusal),
        }
    }

    pub(crate) fn add_late(&self) {
        self.more().late.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn late(&self) -> u64 {
        self.read_more(|more| &more.late)
    }

    /// All calls of all time, by outcome. The word of [`Flow`] has room for 34 bits of successes; `good` follows it.
    pub(crate) fn lifetime(&self, good: &mut Extended) -> Counts {
        let mut by_outcome = std::array::from_fn(|outcome| self.of(outcome));
        let good = good.follow(self.flow.good());
        by_outcome[Outcome::Success as usize] = good + self.read_more(|more| &more.late_good);
        Counts { by_outcome }
    }

    /// The counters as the ring keeps them, with the peak of the bucket that ends here.
    pub(crate) fn read_at_edge(&self, before: &Reading) -> Reading {
        Reading { peak: self.flow.take_peak(), ..self.read().keep(before) }
    }

    /// Starts a generation, with the counters as it finds them: from here on no success of another one is counted as
    /// good.
    pub(crate) fn begin_generation(&self, generation: u64) -> Reading {
        self.flow.begin_generation(generation);
        self.read().keep(&Reading::default())
    }

    /// The counters of this moment.
    pub(crate) fn read(&self) -> Counters {
        Counters {
            good: self.flow.good() as u32,
            rare: Rare {
                bad: self.read_more(|more| &more.bad) as u32,
                slow: self.read_more(|more| &more.slow) as u32,
                late_good: self.read_more(|more| &more.late_good) as u32,
                others: std::array::from_fn(|outcome| self.of(outcome) as u32),
            },
        }
    }
}

/// A 34-bit counter, followed often enough to know its high bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extended(u64);

impl Extended {
    /// The whole count, given its low bits.
    pub(crate) fn follow(&mut self, low: u64) -> u64 {
        self.0 += low.wrapping_sub(self.0) & Flow::GOOD_MASK;
        self.0
    }
}

/// The counters at one moment.
///
/// Only the low 32 bits are kept, which halves the ring: differences are taken modulo 2^32 and so are exact as long as
/// one window holds fewer than 4,294,967,296 calls of one outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    good: u32,
    rare: Rare,
}

/// What does not change while all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rare {
    bad: u32,
    slow: u32,
    late_good: u32,
    others: [u32; Outcome::COUNT],
}

impl Rare {
    const NONE: Self = Self { bad: 0, slow: 0, late_good: 0, others: [0; Outcome::COUNT] };
}

/// What the ring keeps of [`Counters`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    good: u32,
    /// Most calls in flight at once in the bucket that ended here.
    pub(crate) peak: u32,
    /// Shared with the readings before and after that have the same; [`Rare::NONE`] has no place at all.
    rare: Option<Arc<Rare>>,
}

impl ring::Reading for Reading {
    fn idle(&self) -> Self {
        self.clone().without_peak()
    }
}

impl Reading {
    pub(crate) fn without_peak(self) -> Self {
        Self { peak: 0, ..self }
    }

    fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&Rare::NONE)
    }
}

impl Counters {
    /// For the ring, after the reading before.
    fn keep(&self, before: &Reading) -> Reading {
        let rare = match self.rare {
            Rare::NONE => None,
            rare if rare == *before.rare() => before.rare.clone(),
            rare => Some(Arc::new(rare)),
        };
        Reading { good: self.good, peak: 0, rare }
    }

    /// Calls by outcome since `earlier`.
    pub(crate) fn since(&self, earlier: &Reading) -> Counts {
        let (now, then) = (&self.rare, earlier.rare());
        let mut by_outcome: [_; Outcome::COUNT] =
            std::array::from_fn(|outcome| u64::from(now.others[outcome].wrapping_sub(then.others[outcome])));
        by_outcome[Outcome::Success as usize] =
            u64::from(self.good.wrapping_sub(earlier.good)) + u64::from(now.late_good.wrapping_sub(then.late_good));
        Counts { by_outcome }
    }

    /// What counted for the circuit since `earlier`.
    pub(crate) fn health_since(&self, earlier: &Reading) -> Health {
        let (now, then) = (&self.rare, earlier.rare());
        let errors = u64::from(now.bad.wrapping_sub(then.bad));
        let good = u64::from(self.good.wrapping_sub(earlier.good));
        Health { errors, total: errors + good, slow: u64::from(now.slow.wrapping_sub(then.slow)), overdue: 0 }
    }
}

/// What the circuit judges by: calls that count, and how many of them were errors or slow.
///
/// ```
/// # let command = fusebox::Command::builder("docs.health").build()?;
/// let health = command.snapshot().health();
/// assert_eq!((health.errors, health.total, health.error_rate()), (0, 0, None));
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Calls that failed, timed out or panicked.
    pub errors: u64,
    /// Those and the successes.
    pub total: u64,
    /// Those among all of them that took at least the slow-call threshold.
    pub slow: u64,
    /// Those among the slow ones that are in flight still, and may yet become a success or an error: see
    /// [`Breaker::count_in_flight`](crate::Breaker::count_in_flight).
    pub overdue: u64,
}

impl Health {
    /// Errors divided by total, in [0, 1]; `None` without calls. Calls in flight are left out: they are neither errors nor
    /// successes yet.
    pub fn error_rate(&self) -> Option<f64> {
        ratio(self.errors, self.ended())
    }

    /// Adds that of another circuit.
    pub(crate) fn add(&mut self, other: &Self) {
        self.errors += other.errors;
        self.total += other.total;
        self.slow += other.slow;
        self.overdue += other.overdue;
    }

    /// Calls that have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.total - self.overdue
    }

    /// With so many calls in flight that count as slow.
    pub(crate) fn with_overdue(self, overdue: u64) -> Self {
        Self { total: self.total + overdue, slow: self.slow + overdue, overdue, ..self }
    }
}

/// Calls by outcome, over a window or over the life of a command.
///
/// ```
/// # let command = fusebox::Command::builder("docs.counts").build()?;
/// let lifetime = command.snapshot().lifetime();
/// assert_eq!(lifetime.get("timed_out"), 0);
/// assert_eq!(lifetime.of(fusebox::Outcome::TimedOut), 0);
/// assert_eq!(lifetime.error_rate(), None);
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    by_outcome: [u64; Outcome::COUNT],
}

impl Counts {
    /// Adds those of another circuit.
    pub(crate) fn add(&mut self, other: &Self) {
        self.by_outcome.iter_mut().zip(other.by_outcome).for_each(|(own, more)| *own += more);
    }

    /// Calls that ended in `outcome`.
    pub const fn of(&self, outcome: Outcome) -> u64 {
        self.by_outcome[outcome as usize]
    }

    /// Calls that ended in the outcome of this name ([`Outcome::as_str`]); 0 for a name that is none.
    pub fn get(&self, outcome: &str) -> u64 {
        self.iter().find(|(known, _)| known.as_str() == outcome).map_or(0, |(_, count)| count)
    }

    /// Calls that count against the dependency: failure, timed out, panicked.
    pub fn errors(&self) -> u64 {
        self.iter().filter(|(outcome, _)| outcome.is_error()).map(|(_, count)| count).sum()
    }

    /// Calls that enter the error rate: [`Counts::errors`] and successes.
    pub fn total(&self) -> u64 {
        self.errors() + self.of(Outcome::Success)
    }

    /// Calls that were refused: by the circuit, the bulkhead or the rate limit.
    pub fn refused(&self) -> u64 {
        self.iter().filter(|(outcome, _)| !outcome.was_started()).map(|(_, count)| count).sum()
    }

    /// All calls, refused, ignored and cancelled ones included.
    pub fn calls(&self) -> u64 {
        self.by_outcome.iter().sum()
    }

    /// [`Counts::errors`] divided by [`Counts::total`], in [0, 1]; `None` without calls.
    pub fn error_rate(&self) -> Option<f64> {
        ratio(self.errors(), self.total())
    }

    /// Every outcome with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.by_outcome)
    }

    pub(crate) fn set(&mut self, outcome: Outcome, count: u64) {
        self.by_outcome[outcome as usize] = count;
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|&(_, count)| count > 0)).finish()
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
