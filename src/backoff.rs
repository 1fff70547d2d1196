//! How long to wait before the next attempt.
//!
//! Waits grow, so that a dependency in trouble gets room to recover, and they are random, so that callers that failed
//! together do not come back together. The kinds of jitter are those of Marc Brooker's "Exponential Backoff And Jitter"
//! (AWS Architecture Blog, 2015), and the even spread that a breaker's open wait has too.
//!
//! Growth is capped before it is multiplied, so no number of attempts overflows, and the cap holds after jitter too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Problems;
use crate::time::saturating_nanos;

/// How the waits between attempts follow each other.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Delays {
    /// All the same.
    Constant(Duration),
    /// Each is the one before times `growth`.
    #[non_exhaustive]
    Exponential {
        /// Before the second attempt.
        first: Duration,
        /// At least 1.
        growth: f64,
    },
    /// Those of an iterator; where it ends, so do the attempts.
    Each(Series),
}

/// Waits that an iterator gives, from its start for each call.
#[derive(Clone)]
pub struct Series(Arc<dyn Fn() -> Waits + Send + Sync>);

type Waits = Box<dyn Iterator<Item = Duration> + Send>;

impl Series {
    pub(crate) fn new<I>(waits: I) -> Self
    where
        I: IntoIterator<Item = Duration> + Clone + Send + Sync + 'static,
        I::IntoIter: Send + 'static,
    {
        Self(Arc::new(move || Box::new(waits.clone().into_iter())))
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an iterator")
    }
}

/// Two are equal if one is a clone of the other.
impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// How chance changes a wait of `d`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// Not at all. A fleet that fails together then comes back together.
    None,
    /// Anything from 0 to `d`: the least load on the dependency, by Brooker's simulations.
    Full,
    /// Half of `d`, and anything up to the other half: never nearly at once.
    Equal,
    /// Anything from the first wait to three times the wait before, up to the longest; growth is then its own.
    Decorrelated,
    /// `d`, give or take this share of it, in [0, 1]: `Spread(0.2)` is 80 % to 120 %.
    Spread(f64),
}

/// Where a policy names no longest wait and its waits grow.
const DEFAULT_MAX: u64 = 10_000_000_000;

/// Delays, jitter and a cap: how long to wait, attempt after attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff<'p> {
    pub(crate) delays: &'p Delays,
    pub(crate) jitter: Jitter,
    pub(crate) max: Option<Duration>,
}

impl Backoff<'_> {
    /// How many waits there are, of so many at most, and the most that they can come to; `None` where that cannot be told
    /// in reasonable time.
    pub(crate) fn longest(self, waits: u32) -> Option<(u32, Duration)> {
        const MANY: u32 = 10_000;
        let mut schedule = Schedule::default();
        let mut sum = Duration::ZERO;
        for count in 0..waits {
            if count == MANY {
                return None;
            }
            // Of every kind of jitter, the most is what 1 draws.
            let Some(wait) = schedule.next(self, || 1.0) else { return Some((count, sum)) };
            sum = sum.saturating_add(Duration::from_nanos(wait));
        }
        Some((waits, sum))
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        if let &Delays::Exponential { growth, .. } = self.delays {
            let fits = growth >= 1.0 && growth.is_finite();
            problems.require(fits, "retry.growth", || growth, "a finite factor of at least 1");
        }
        if let Jitter::Spread(share) = self.jitter {
            problems.require((0.0..=1.0).contains(&share), "retry.jitter", || share, "a share in [0, 1]");
        }
        if let (Delays::Constant(first) | Delays::Exponential { first, .. }, Some(max)) = (self.delays, self.max) {
            problems.relate(max >= *first, "retry.max_delay", || format!("{max:?}"), "at least the first delay");
        }
    }

    /// The wait before attempt `n + 2`, in nanoseconds, before chance has changed it.
    fn plain(&self, n: u32, max: u64) -> Option<u64> {
        match *self.delays {
            Delays::Constant(wait) => Some(saturating_nanos(wait).min(max)),
            Delays::Exponential { first, growth } => Some(grown(saturating_nanos(first), growth, n, max)),
            Delays::Each(_) => None,
        }
    }

    /// In nanoseconds.
    fn max(&self) -> u64 {
        match (self.delays, self.max) {
            (_, Some(max)) => saturating_nanos(max),
            (&Delays::Exponential { first, .. }, None) => saturating_nanos(first).max(DEFAULT_MAX),
            (Delays::Constant(_) | Delays::Each(_), None) if self.jitter == Jitter::Decorrelated => DEFAULT_MAX,
            (Delays::Constant(_) | Delays::Each(_), None) => u64::MAX,
        }
    }
}

/// `first` times `growth` to the power of `n`, at most `max`.
fn grown(first: u64, growth: f64, n: u32, max: u64) -> u64 {
    // NaN and factors below 1, which a policy that was never checked may have, are 1. The power itself saturates, at
    // infinity; it is compared before it is multiplied, since 0 times infinity is no number.
    let factor = growth.max(1.0).powi(i32::try_from(n).unwrap_or(i32::MAX));
    if first == 0 {
        0
    } else if factor >= max as f64 / first as f64 {
        max
    } else {
        ((first as f64 * factor) as u64).min(max)
    }
}

/// A part of `whole` in proportion to `share`, in [0, 1].
fn part(whole: u64, share: f64) -> u64 {
    ((whole as f64 * share) as u64).min(whole)
}

/// Where one call is in its backoff.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Waits so far.
    count: u32,
    /// The last one, in nanoseconds, as it came out.
    last: Option<u64>,
    series: Option<Waits>,
}

impl Schedule {
    /// The next wait, in nanoseconds; `None` when there is none. `random` is uniform in [0, 1].
    pub(crate) fn next(&mut self, backoff: Backoff<'_>, random: impl FnOnce() -> f64) -> Option<u64> {
        let max = backoff.max();
        let plain = match backoff.delays {
            Delays::Each(series) => {
                let wait = self.series.get_or_insert_with(|| (series.0)()).next()?;
                saturating_nanos(wait).min(max)
            }
            _ => backoff.plain(self.count, max)?,
        };
        let wait = match backoff.jitter {
            Jitter::None => plain,
            Jitter::Full => part(plain, random()),
            Jitter::Equal => plain / 2 + part(plain - plain / 2, random()),
            Jitter::Spread(share) => {
                let share = share.clamp(0.0, 1.0);
                let share = if share.is_nan() { 0.0 } else { share };
                let room = part(plain, share);
                (plain - room).saturating_add(part(room, random()).saturating_mul(2))
            }
            Jitter::Decorrelated => {
                let least =
                    if let Delays::Exponential { .. } = backoff.delays { backoff.plain(0, max)? } else { plain };
                let most = self.last.unwrap_or(least).saturating_mul(3).clamp(least, max.max(least));
                least + part(most - least, random())
            }
        };
        let wait = wait.min(max);
        self.count = self.count.saturating_add(1);
        self.last = Some(wait);
        Some(wait)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("count", &self.count).field("last", &self.last).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MS;

    fn backoff(delays: &Delays, jitter: Jitter, max: Option<u64>) -> Backoff<'_> {
        Backoff { delays, jitter, max: max.map(Duration::from_nanos) }
    }

    fn exponential(first: u64, growth: f64) -> Delays {
        Delays::Exponential { first: Duration::from_nanos(first), growth }
    }

    fn waits(backoff: Backoff<'_>, random: &[f64]) -> Vec<u64> {
        let mut schedule = Schedule::default();
        random.iter().map_while(|&random| schedule.next(backoff, || random)).collect()
    }

    /// P21: 25 % either way around a second.
    #[test]
    fn p21_an_even_spread_lies_around_the_wait() {
        let constant = Delays::Constant(Duration::from_secs(1));
        let backoff = backoff(&constant, Jitter::Spread(0.25), None);
        assert_eq!(waits(backoff, &[0.0, 0.4, 0.6, 1.0]), [750 * MS, 950 * MS, 1050 * MS, 1250 * MS]);
    }

    /// P22: a linear backoff is an iterator, and the third wait of three seconds is spread over 2.25 to 3.75.
    #[test]
    fn p22_an_iterator_is_spread_alike() {
        let linear = Delays::Each(Series::new((1..=3).map(Duration::from_secs)));
        for (random, third) in [(0.0, 2250 * MS), (1.0, 3750 * MS)] {
            assert_eq!(waits(backoff(&linear, Jitter::Spread(0.25), None), &[random; 9])[2..], [third]);
        }
    }

    /// P23: powers of two, and a cap that holds after jitter.
    #[test]
    fn p23_exponential_waits_double_up_to_the_longest() {
        let doubling = exponential(SECOND, 2.0);
        let plain = backoff(&doubling, Jitter::None, None);
        assert_eq!(waits(plain, &[0.5; 6]), [1, 2, 4, 8, 10, 10].map(|secs| secs * SECOND));
        let spread = backoff(&doubling, Jitter::Spread(0.5), Some(3 * SECOND));
        assert_eq!(waits(spread, &[1.0; 3]), [1500 * MS, 3000 * MS, 3000 * MS]);
    }

    /// P24 and bugs 46, 47: attempt 32, 64, 1025 and the last that can be counted neither panic nor wrap to nothing.
    #[test]
    fn p24_whatever_the_attempt_a_wait_is_positive_and_saturates() {
        for growth in [1.0, 1.5, 2.0, 10.0, f64::MAX] {
            let delays = exponential(1, growth);
            let backoff = backoff(&delays, Jitter::None, Some(u64::MAX));
            let mut before = 0;
            for n in (0..=1025).chain([i32::MAX as u32, i32::MAX as u32 + 1, u32::MAX]) {
                let wait = Schedule { count: n, ..Schedule::default() }.next(backoff, || 0.5).expect("it has no end");
                assert!(wait >= before && wait > 0, "{growth}: {wait} after {before}");
                before = wait;
            }
            assert!(growth == 1.0 || before == u64::MAX, "{growth}: {before}");
        }
    }

    #[test]
    fn decorrelated_waits_lie_between_the_first_and_three_times_the_last() {
        let delays = exponential(100 * MS, 2.0);
        let backoff = backoff(&delays, Jitter::Decorrelated, Some(2 * SECOND));
        assert_eq!(waits(backoff, &[1.0; 4]), [300 * MS, 900 * MS, 2000 * MS, 2000 * MS]);
        assert_eq!(waits(backoff, &[1.0, 1.0, 0.0, 1.0]), [300 * MS, 900 * MS, 100 * MS, 300 * MS]);
    }

    #[test]
    fn an_iterator_begins_anew_for_each_call_and_ends_the_waits_with_itself() {
        let delays = Delays::Each(Series::new([1, 2].map(Duration::from_nanos)));
        let backoff = backoff(&delays, Jitter::None, None);
        for _ in 0..2 {
            assert_eq!(waits(backoff, &[0.5; 9]), [1, 2]);
        }
    }

    #[test]
    fn a_policy_that_was_never_checked_does_no_harm() {
        for growth in [f64::NAN, -1.0, 0.0, f64::INFINITY] {
            for jitter in [Jitter::Spread(f64::NAN), Jitter::Spread(-3.0), Jitter::Spread(7.0), Jitter::Decorrelated] {
                for random in [0.0, 1.0] {
                    let all = waits(backoff(&exponential(SECOND, growth), jitter, Some(MS)), &[random; 4]);
                    assert!(all.iter().all(|&wait| wait <= MS), "{growth} {jitter:?}: {all:?}");
                }
            }
        }
    }

    proptest! {
        /// E3: whatever the policy and the attempt, a wait lies within its bounds.
        #[test]
        fn every_wait_lies_within_its_bounds(
            first in prop_oneof![0..10 * SECOND, any::<u64>()],
            growth in 1.0..8.0_f64,
            max in prop_oneof![0..60 * SECOND, any::<u64>()],
            share in 0.0..=1.0_f64,
            kind in 0..5_usize,
            count in prop_oneof![0..70_u32, any::<u32>()],
            last in prop::option::of(any::<u64>()),
            random in 0.0..=1.0_f64,
        ) {
            let jitter = [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated, Jitter::Spread(share)][kind];
            let delays = exponential(first, growth);
            let backoff = backoff(&delays, jitter, Some(max));
            let plain = grown(first, growth, count, max);
            let mut schedule = Schedule { count, last, series: None };
            let wait = schedule.next(backoff, || random).expect("it has no end");
            // What floating point cannot tell apart.
            let slack = plain / (1 << 50) + 2;
            let (least, most) = match jitter {
                Jitter::None => (plain, plain),
                Jitter::Full => (0, plain),
                Jitter::Equal => (plain / 2, plain),
                Jitter::Spread(_) => (part(plain, 1.0 - share), plain.saturating_add(part(plain, share))),
                Jitter::Decorrelated => (first.min(max), max),
            };
            prop_assert!(wait <= max);
            prop_assert!(wait >= least.saturating_sub(slack) && wait <= most.saturating_add(slack), "{wait}: {least}..{most}");
            prop_assert_eq!(schedule.count, count.saturating_add(1));
        }
    }
}
