//! Coming back gently: a circuit whose probes have passed lets a growing share of calls through.
//!
//! One probe shows that a dependency answers, not that it can bear the load that brought it down, and what a closed
//! circuit sends at once is that load and whatever has piled up behind it. A ramp goes up in stages. Each admits its share
//! of the calls, is judged by what came of them, and reopens the circuit as soon as that speaks against it.
//!
//! Which calls are admitted is decided by counting, not by a coin, as Bresenham draws a line (IBM Systems Journal 4,
//! 1965): each call that comes earns a share of an admission, and is admitted when a whole one is there. So a stage that
//! admits one in ten admits the first call, the eleventh and so on, under any load. Where calls are rare a stage admits
//! one for each of its lengths at least, so that it cannot starve.

use std::time::Duration;

use super::config::Rules;
use super::machine::Judged;
use super::ratio::Ratio;
use super::state::RampStage;
use super::trip::Evidence;
use crate::error::Problems;
use crate::time::Stamp;

/// How a circuit comes back after its probes have passed: in stages, each admitting a larger share of the calls. Plain
/// data with consuming setters.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`stages`](Self::stages) | 0.1, 0.25, 0.5 | shares in (0, 1], each larger than the one before, 1 to 100 of them |
/// | [`each`](Self::each) | 1 s | how long a stage lasts at least, longer than 0 |
/// | [`min_calls`](Self::min_calls) | 5 | results that a stage wants at least, 1 or more |
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Breaker, Command, Ramp};
///
/// let ramp = Ramp::stages([0.1, 0.25, 0.5]).each(Duration::from_secs(2)).min_calls(10);
/// let search = Command::builder("search").breaker(Breaker::error_rate(0.5).ramp(ramp)).build()?;
/// assert_eq!(search.snapshot().ramp(), None); // nothing to come back from
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a ramp does nothing until a breaker has it"]
#[non_exhaustive]
pub struct Ramp {
    /// The share of calls that each stage admits.
    pub shares: Vec<f64>,
    /// How long each stage lasts at least.
    pub each: Duration,
    /// Results that each stage wants at least.
    pub min_calls: u32,
}

impl Default for Ramp {
    fn default() -> Self {
        Self::stages([0.1, 0.25, 0.5])
    }
}

impl Ramp {
    /// A stage for each share of the calls, in (0, 1] and growing; after the last one the circuit closes.
    pub fn stages(shares: impl IntoIterator<Item = f64>) -> Self {
        Self { shares: shares.into_iter().collect(), each: Duration::from_secs(1), min_calls: 5 }
    }

    /// How long each stage lasts at least, longer than 0. A stage to which no call came for so long admits one.
    pub fn each(self, length: Duration) -> Self {
        Self { each: length, ..self }
    }

    /// Results that each stage wants at least before it can pass; 1 or more.
    pub fn min_calls(self, calls: u32) -> Self {
        Self { min_calls: calls, ..self }
    }

    pub(super) fn check(&self, problems: &mut Problems) -> Steps {
        let Self { shares, each, min_calls } = self;
        let growing = shares.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = shares.iter().all(|&share| share > 0.0 && share <= 1.0);
        problems.require(
            growing && inside && (1..=100).contains(&shares.len()),
            "breaker.ramp.shares",
            || format!("{shares:?}"),
            "1 to 100 shares in (0, 1], each larger than the one before",
        );
        problems.at_least_one("breaker.ramp.min_calls", *min_calls);
        Steps {
            shares: shares.iter().copied().map(Ratio::of).collect(),
            each: problems.span("breaker.ramp.each", *each),
            min_calls: *min_calls,
        }
    }
}

/// The checked form of a [`Ramp`].
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    /// At least one.
    shares: Box<[Ratio]>,
    /// In nanoseconds.
    each: u64,
    min_calls: u32,
}

/// Where a circuit is on its way back.
#[derive(Clone, Debug)]
pub(super) struct Climb {
    /// From 0.
    pub(super) stage: u32,
    /// When the stage began.
    pub(super) since: Stamp,
    /// When it last admitted a call, or began.
    pub(super) last: Stamp,
    /// What calls have earned, in billionths of an admission.
    pub(super) credit: u64,
    pub(super) evidence: Evidence,
    /// Calls that were admitted on this ramp and are in flight, slow already.
    pub(super) overdue: u32,
}

/// What a result makes of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    /// To the next stage.
    Up,
    /// It was the last one.
    Top,
    Fall,
}

/// A whole admission.
const WHOLE: u64 = Ratio::ONE;

impl Climb {
    pub(super) fn begin(steps: &Steps, stage: u32, now: Stamp) -> Self {
        // The first call completes an admission.
        let credit = WHOLE - steps.share(stage).billionths();
        Self { stage, since: now, last: now, credit, evidence: Evidence::default(), overdue: 0 }
    }

    /// A call comes. What bulkheads refuse is not saved up: one admission is kept for the next call, no more.
    pub(super) fn offer(&mut self, steps: &Steps) {
        self.credit = (self.credit + steps.share(self.stage).billionths()).min(2 * WHOLE - 1);
    }

    /// Whether the call that has come would be admitted.
    pub(super) fn admits(&self, steps: &Steps, now: Stamp) -> bool {
        self.credit >= WHOLE || now.nanos_since(self.last) >= steps.each
    }

    pub(super) fn take(&mut self, now: Stamp) {
        self.credit = self.credit.saturating_sub(WHOLE);
        self.last = now;
    }

    /// Weighs the result of a call that was admitted in `stage`. What is good counts for the stage that let it in alone,
    /// or a stage could pass on calls that it never bore; what is bad counts whenever it comes, or a hang would be
    /// noticed by no stage that is shorter than the timeout.
    pub(super) fn judge(&mut self, rules: &Rules, steps: &Steps, now: Stamp, stage: u64, result: Judged) -> Step {
        let (own, bad) = (stage == u64::from(self.stage), result.failed || result.slow);
        if result.overdue {
            self.overdue += 1;
        } else if own || bad {
            self.evidence.add(result);
        }
        let full = self.evidence.ended >= steps.min_calls && now.nanos_since(self.since) >= steps.each;
        match () {
            () if self.fails(rules, steps, result.streak) => Step::Fall,
            () if bad || !own || !full => Step::Stay,
            () if self.stage + 1 < steps.len() => Step::Up,
            () => Step::Top,
        }
    }

    /// Whether the rules of a closed circuit, applied to this stage, are broken: for certain, even if all the calls that
    /// it still wants succeed.
    pub(super) fn fails(&self, rules: &Rules, steps: &Steps, streak: u32) -> bool {
        let Evidence { ended, failed, slow } = self.feared();
        let reached = |rate: Ratio, part: u32| rate.reached(part.into(), ended.max(steps.min_calls).into());
        rules.consecutive_failures.is_some_and(|limit| streak >= limit)
            || rules.error_rate.is_some_and(|rate| reached(rate, failed))
            || rules.slow_calls.is_some_and(|(rate, _)| reached(rate, slow))
    }

    /// What there is, the calls that are in flight and slow included.
    pub(super) fn feared(&self) -> Evidence {
        self.evidence.with_overdue(self.overdue)
    }

    /// Goes on under rules that have changed, in the last stage if there are fewer now.
    pub(super) fn fit(&mut self, steps: &Steps) {
        self.stage = self.stage.min(steps.len() - 1);
    }

    pub(super) fn show(&self, steps: &Steps) -> RampStage {
        let Evidence { ended, failed, slow } = self.feared();
        let share = steps.share(self.stage).as_f64();
        RampStage { number: self.stage + 1, of: steps.len(), share, ended, failed, slow }
    }
}

impl Steps {
    pub(super) fn len(&self) -> u32 {
        self.shares.len() as u32
    }

    fn share(&self, stage: u32) -> Ratio {
        self.shares[stage as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::config::Breaker;

    fn rules(breaker: Breaker, ramp: Ramp) -> (Rules, Steps) {
        let mut problems = Problems::default();
        let rules = breaker.check(&mut problems);
        let steps = ramp.check(&mut problems);
        problems.finish().expect("a good configuration");
        (rules, steps)
    }

    fn at(nanos: u64) -> Stamp {
        Stamp::from_nanos(nanos)
    }

    fn offer(climb: &mut Climb, steps: &Steps, now: Stamp) -> bool {
        climb.offer(steps);
        let admitted = climb.admits(steps, now);
        if admitted {
            climb.take(now);
        }
        admitted
    }

    /// After any number of calls, the first and then as many as the share of the others says have been admitted, never
    /// more than the share of all, rounded up.
    #[test]
    fn a_stage_admits_its_share_of_the_calls_and_spreads_it_evenly() {
        for percent in 1..=100_u64 {
            let (_, steps) = rules(Breaker::default(), Ramp::stages([percent as f64 / 100.0]));
            let mut climb = Climb::begin(&steps, 0, at(0));
            let mut admitted = 0;
            for calls in 1..=1_000 {
                admitted += u64::from(offer(&mut climb, &steps, at(0)));
                assert_eq!(admitted, (calls - 1) * percent / 100 + 1, "{calls} calls at {percent} %");
                assert!(admitted <= (calls * percent).div_ceil(100), "{calls} calls at {percent} %");
            }
        }
    }

    /// S10: without enough calls for its share a stage admits one for each of its lengths.
    #[test]
    fn a_starving_stage_admits_one_call_for_each_of_its_lengths() {
        let (_, steps) = rules(Breaker::default(), Ramp::stages([0.001]).each(Duration::from_nanos(10)));
        let mut climb = Climb::begin(&steps, 0, at(0));
        let admitted: Vec<_> = (3..=40).filter(|&now| offer(&mut climb, &steps, at(now))).collect();
        assert_eq!(admitted, [3, 13, 23, 33]);
    }

    #[test]
    fn what_a_full_bulkhead_refuses_is_not_saved_up() {
        let (_, steps) = rules(Breaker::default(), Ramp::stages([0.5]));
        let mut climb = Climb::begin(&steps, 0, at(0));
        for _ in 0..100 {
            climb.offer(&steps);
            assert!(climb.admits(&steps, at(0)), "its share would allow it; the bulkhead does not");
        }
        let admitted: Vec<_> = (0..10).filter(|_| offer(&mut climb, &steps, at(0))).collect();
        assert_eq!(admitted, [0, 1, 3, 5, 7, 9], "one at once, and then its share");
    }

    const GOOD: Judged = Judged::SUCCESS;
    const BAD: Judged = Judged { failed: true, streak: 1, ..Judged::SUCCESS };

    /// Time alone passes no stage, calls alone pass none, and what is bad passes none.
    #[test]
    fn a_stage_passes_by_a_success_once_its_time_and_its_calls_are_there() {
        let (rules, steps) =
            rules(Breaker::error_rate(0.5), Ramp::stages([0.1, 0.5]).each(Duration::from_nanos(10)).min_calls(3));
        let mut climb = Climb::begin(&steps, 0, at(0));
        let mut judge = |now, stage, result| climb.judge(&rules, &steps, at(now), stage, result);
        assert_eq!([judge(9, 0, GOOD), judge(9, 0, GOOD), judge(9, 0, GOOD)], [Step::Stay; 3], "too early");
        assert_eq!(judge(10, 0, BAD), Step::Stay, "1 of 4, and no success");
        assert_eq!(judge(10, 0, GOOD), Step::Up);
        climb = Climb::begin(&steps, 1, at(10));
        let mut judge = |now, stage, result| climb.judge(&rules, &steps, at(now), stage, result);
        assert_eq!([judge(20, 1, GOOD), judge(20, 0, GOOD), judge(20, 1, GOOD)], [Step::Stay; 3], "two of its own");
        assert_eq!(judge(20, 1, GOOD), Step::Top);
    }

    /// The circuit reopens at the failure that settles it, be it from an earlier stage, and not before.
    #[test]
    fn a_stage_fails_as_soon_as_its_failures_decide() {
        let (rules, steps) = rules(Breaker::error_rate(0.5), Ramp::stages([0.1, 0.5]).min_calls(6));
        for stages in [[1, 1, 1], [0, 1, 0]] {
            let mut climb = Climb::begin(&steps, 1, at(0));
            let steps = stages.map(|stage| climb.judge(&rules, &steps, at(0), stage, BAD));
            assert_eq!(steps, [Step::Stay, Step::Stay, Step::Fall], "3 of 6");
        }
        let slow = Judged { slow: true, ..Judged::SUCCESS };
        let breaker = Breaker::disabled().slow_calls(1.0, Duration::from_secs(1)).consecutive_failures(2);
        let (rules, _) = self::rules(breaker, Ramp::default());
        let mut climb = Climb::begin(&steps, 0, at(0));
        let judged: Vec<_> = (0..6).map(|_| climb.judge(&rules, &steps, at(0), 0, slow)).collect();
        assert_eq!(judged[4..], [Step::Stay, Step::Fall]);
        let mut climb = Climb::begin(&steps, 0, at(0));
        let judged = [1, 2].map(|streak| climb.judge(&rules, &steps, at(0), 0, Judged { streak, ..BAD }));
        assert_eq!(judged, [Step::Stay, Step::Fall]);
    }
}
