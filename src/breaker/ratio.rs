//! A rate that is compared exactly.

use crate::error::Problems;

/// A rate in billionths, so that "reached" is a comparison of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio(u32);

impl Ratio {
    pub(super) const ONE: u64 = 1_000_000_000;

    /// The least rate there is: any part at all reaches it.
    pub(crate) const LEAST: Self = Self(1);

    /// Rounds down, so that 2 of 3 reaches 2.0 / 3.0; the thousandth of a billionth absorbs what a decimal such as
    /// 0.29 loses in binary.
    pub(super) fn check(problems: &mut Problems, field: &'static str, rate: f64) -> Self {
        problems.require(rate > 0.0 && rate <= 1.0, field, || rate, "a rate in (0, 1]");
        Self::of(rate)
    }

    /// The nearest one there is.
    pub(super) fn of(rate: f64) -> Self {
        Self(((rate * Self::ONE as f64 + 1e-3) as u32).clamp(1, Self::ONE as u32))
    }

    /// Whether `part` of `whole` reaches this rate.
    pub(crate) fn reached(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(Self::ONE) >= u128::from(whole) * u128::from(self.0)
    }

    /// In billionths.
    pub(super) const fn billionths(self) -> u64 {
        self.0 as u64
    }

    pub(crate) fn as_f64(self) -> f64 {
        f64::from(self.0) / Self::ONE as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "29 of 100 reaches 0.29": every two-digit percentage, and every fraction up to thirds of a hundred.
    #[test]
    fn a_rate_is_reached_exactly_at_its_fraction() {
        for whole in 1..=300_u64 {
            for part in 1..=whole {
                let rate = Ratio::check(&mut Problems::default(), "", part as f64 / whole as f64);
                assert!(rate.reached(part, whole), "{part} of {whole}");
                assert!(!rate.reached(part - 1, whole), "{} of {whole}", part - 1);
            }
        }
        assert!(Ratio::check(&mut Problems::default(), "", 0.29).reached(29, 100));
        assert!(Ratio::check(&mut Problems::default(), "", 0.1 + 0.2).reached(3, 10));
    }
}
