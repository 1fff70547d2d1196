//! How sure a rule must be before it trips: the lower confidence bound of a rate, held against the threshold.
//!
//! Eleven errors in twenty calls reach a threshold of 50 %, and say little: a dependency whose true rate is 40 % shows
//! them in one window of eight. The lower bound of E. B. Wilson's score interval ("Probable inference, the law of
//! succession, and statistical inference", Journal of the American Statistical Association 22, 1927) is the least true
//! rate that the figures still allow at a level of confidence. It reaches a threshold `r` exactly if the errors exceed
//! what `r` predicts by `z` standard deviations of that prediction, `errors - n r >= z sqrt(n r (1 - r))`, and this,
//! squared, is a comparison of whole numbers.

use super::ratio::Ratio;
use crate::error::Problems;

/// A level of confidence, one-sided, as the square of its standard normal quantile in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confidence {
    z_squared: u64,
}

impl Confidence {
    /// More than this is not in what a window can show.
    const MOST: f64 = 0.999_999;

    pub(super) fn check(problems: &mut Problems, level: f64) -> Self {
        let fits = (0.5..=Self::MOST).contains(&level);
        problems.require(fits, "breaker.confidence", || level, "a level in [0.5, 0.999999]");
        let z = if fits { quantile(level) } else { 0.0 };
        Self { z_squared: (z * z * Ratio::ONE as f64).round() as u64 }
    }

    /// Whether the lower bound of the rate `part / whole` reaches `rate`. All that is reaches a rate of 1: nothing could
    /// exceed it.
    pub(crate) fn reached(self, rate: Ratio, part: u64, whole: u64) -> bool {
        let (one, rate) = (u128::from(Ratio::ONE), u128::from(rate.billionths()));
        let (part, whole) = (u128::from(part) * one, u128::from(whole));
        let Some(excess) = part.checked_sub(whole * rate) else { return false };
        // Both in billionths, squared. A window of 2^32 calls at the highest level stays below 2^126.
        let variance = (whole * rate * (one - rate)).saturating_mul(self.z_squared.into()).div_ceil(one);
        part > 0 && excess.saturating_mul(excess) >= variance
    }
}

/// The standard normal quantile of `level`, in [0.5, 1), by Newton's method. Above the median the distribution is
/// concave, so from 0 every step falls short of the root and none goes past it.
fn quantile(level: f64) -> f64 {
    let mut z = 0.0;
    for _ in 0..32 {
        z += (level - distribution(z)) / density(z);
    }
    z
}

fn density(z: f64) -> f64 {
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// The standard normal distribution for `z` of at least 0, by the series in G. Marsaglia, "Evaluating the normal
/// distribution", Journal of Statistical Software 11 (4), 2004.
fn distribution(z: f64) -> f64 {
    let (mut term, mut sum, mut n) = (z, z, 1.0);
    while term > sum * f64::EPSILON {
        n += 2.0;
        term *= z * z / n;
        sum += term;
    }
    0.5 + sum * density(z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::config::{Breaker, Rules};
    use crate::breaker::trip::tripped;
    use crate::outcome::Outcome;
    use crate::window::recent::Recent;

    fn confidence(level: f64) -> Confidence {
        let mut problems = Problems::default();
        let confidence = Confidence::check(&mut problems, level);
        problems.finish().expect("a good level");
        confidence
    }

    /// Against the tables.
    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (level, expected) in [
            (0.5, 0.0),
            (0.841_344_746_068_543, 1.0),
            (0.9, 1.281_551_565_544_600_4),
            (0.95, 1.644_853_626_951_472_2),
            (0.975, 1.959_963_984_540_054),
            (0.99, 2.326_347_874_040_840_8),
            (0.999, 3.090_232_306_167_813),
            (0.999_999, 4.753_424_308_822_899),
        ] {
            assert!((quantile(level) - expected).abs() < 1e-9, "{level}: {}", quantile(level));
        }
    }

    /// The comparison of whole numbers says what Wilson's formula does, wherever that is not within a rounding of the
    /// threshold.
    #[test]
    fn a_threshold_is_reached_when_wilsons_lower_bound_reaches_it() {
        let mut decided = [0, 0];
        for level in [0.8, 0.95, 0.999] {
            let (sure, z) = (confidence(level), quantile(level));
            for percent in [1, 10, 29, 50, 75, 99] {
                let rate = Ratio::check(&mut Problems::default(), "", f64::from(percent) / 100.0);
                for whole in 1..=120_u64 {
                    for part in 0..=whole {
                        let (n, p) = (whole as f64, part as f64 / whole as f64);
                        let centre = p + z * z / (2.0 * n);
                        let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
                        let bound = (centre - spread) / (1.0 + z * z / n);
                        if (bound - rate.as_f64()).abs() > 1e-9 {
                            let reached = sure.reached(rate, part, whole);
                            assert_eq!(reached, bound > rate.as_f64(), "{part} of {whole} at {percent} %, {level}");
                            decided[usize::from(reached)] += 1;
                        }
                    }
                }
            }
        }
        assert!(decided.iter().all(|&times| times > 10_000), "{decided:?}");
    }

    /// A success can make no bound higher and an error none lower: the circuit looks at successes only when they matter.
    #[test]
    fn errors_speak_for_a_rate_and_successes_against_it() {
        let (sure, rate) = (confidence(0.95), Ratio::check(&mut Problems::default(), "", 0.3));
        for whole in 0..200 {
            for part in 0..=whole {
                if sure.reached(rate, part, whole) {
                    assert!(sure.reached(rate, part + 1, whole + 1), "an error more than {part} of {whole}");
                } else {
                    assert!(!sure.reached(rate, part, whole + 1), "a success more than {part} of {whole}");
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_neither_overflow_nor_trip_on_nothing() {
        let rates = [f64::MIN_POSITIVE, 0.5, 1.0].map(|rate| Ratio::check(&mut Problems::default(), "", rate));
        for rate in rates {
            for sure in [confidence(0.5), confidence(0.999_999)] {
                assert!(sure.reached(rate, u32::MAX.into(), u32::MAX.into()));
                assert!(!sure.reached(rate, 0, u32::MAX.into()) && !sure.reached(rate, 0, 0));
                let _no_overflow = sure.reached(rate, u64::MAX, u64::MAX);
            }
        }
        // At the median the bound is the rate itself.
        assert!(confidence(0.5).reached(rates[1], 1, 2) && !confidence(0.5).reached(rates[1], 1, 3));
        assert!(confidence(0.95).reached(rates[2], 1, 1) && !confidence(0.95).reached(rates[2], 99, 100));
    }

    /// The figures in the docs of [`Breaker::confidence`].
    #[test]
    fn three_of_three_and_fourteen_of_twenty_are_no_luck_at_95_percent() {
        let (sure, half) = (confidence(0.95), Ratio::check(&mut Problems::default(), "", 0.5));
        for (whole, least) in [(2, None), (3, Some(3)), (20, Some(14)), (100, Some(59))] {
            assert_eq!((0..=whole).find(|&part| sure.reached(half, part, whole)), least, "of {whole}");
        }
    }

    const LEVELS: [Option<f64>; 5] = [None, Some(0.9), Some(0.95), Some(0.99), Some(0.999)];
    const MARKS: [u64; 3] = [100, 1_000, 4_000];

    /// How many of 1,000 circuits have tripped after so many calls, by level and mark, at a true error rate below the
    /// threshold: each looks at its last 200 calls after every one, from the 20th on.
    fn false_trips(true_rate: f64, seed: u64) -> [[u32; MARKS.len()]; LEVELS.len()] {
        let rules = LEVELS.map(|level| -> Rules {
            let breaker = Breaker::error_rate(0.5).min_calls(20).last_calls(200);
            let breaker = level.into_iter().fold(breaker, Breaker::confidence);
            breaker.check(&mut Problems::default())
        });
        let (mut counts, mut state) = ([[0; MARKS.len()]; LEVELS.len()], seed);
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let mut draw = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
        };
        for _ in 0..1_000 {
            let (mut recent, mut standing) = (Recent::new(200), [true; LEVELS.len()]);
            for call in 1..=MARKS[MARKS.len() - 1] {
                let failed = draw() < true_rate;
                recent.push(if failed { Outcome::Failure } else { Outcome::Success }, false);
                // A success trips nothing that was not tripped before.
                if !failed && call != 20 {
                    continue;
                }
                for (level, rules) in rules.iter().enumerate() {
                    if standing[level] && tripped(rules, recent.health(), 0).is_some() {
                        standing[level] = false;
                        for (mark, count) in MARKS.iter().zip(&mut counts[level]) {
                            *count += u32::from(call <= *mark);
                        }
                    }
                }
                if standing == [false; LEVELS.len()] {
                    break;
                }
            }
        }
        counts
    }

    /// The table in the docs of [`Breaker::confidence`] is what comes out here.
    #[test]
    fn false_alarms_are_as_rare_as_the_docs_say() {
        let (docs, mut missing) = (include_str!("config.rs"), Vec::new());
        for (true_rate, seed) in [(0.3, 3), (0.4, 4), (0.45, 5)] {
            let counts = false_trips(true_rate, seed);
            for (mark, calls) in MARKS.iter().enumerate() {
                let cells = counts.map(|marks| format!("{:.1} %", f64::from(marks[mark]) / 10.0)).join(" | ");
                let row = format!("    /// | {true_rate:.2} | {calls} | {cells} |");
                missing.extend((!docs.lines().any(|line| line == row)).then_some(row));
            }
            // A higher level never trips where a lower one does not.
            for pair in counts.windows(2) {
                assert!(pair[0].iter().zip(&pair[1]).all(|(lower, higher)| lower >= higher), "{counts:?}");
            }
        }
        assert!(missing.is_empty(), "not in the docs:\n{}", missing.join("\n"));
    }
}
