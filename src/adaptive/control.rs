//! From single calls to the next limit.
//!
//! A limit that moved with every call would follow noise. So calls are gathered into windows; a window that has enough
//! of them gives its mean to the law, and the next one begins.
//!
//! A law that compares with what calls take without a queue is as good as that figure. A minimum, as TCP Vegas has it, is
//! the luckiest window there was, and for ever; an average learns the queue. Here it is lowered by halves where a window
//! is faster, follows the calls while the limit is not what holds them back, and is otherwise measured: after
//! [`PROBE_AFTER`] windows without a faster one, one window runs with the limit lowered by more than what seems to queue,
//! an eighth at least, which empties the queue, and what calls take in it is the new figure. BBR drains its queue to the
//! same end, and Envoy's adaptive concurrency goes down to a few calls.

use super::law::{Window, queue};
use super::limit::Bounds;
use crate::time::Stamp;

/// Calls that a window must have: fewer make no mean.
const MIN_CALLS: u32 = 10;
/// Windows without a faster one before a measurement: one in thirty costs less than a hundredth of the capacity.
const PROBE_AFTER: u32 = 30;
/// And before the next, where one found calls so much faster that more of a queue may be hidden in the figure: the limit
/// may have begun far too high.
const PROBE_AGAIN: u32 = 4;

/// What a call that ended says. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It succeeded, in so long.
    Success(u64),
    /// It was given up after so long.
    TimedOut(u64),
    /// It failed, which says nothing of how long one takes that is worked on.
    Failure,
}

/// The moving limit of one command.
#[derive(Debug)]
pub(crate) struct Control {
    bounds: Bounds,
    limit: f64,
    /// What calls take without a queue; `None` before the first window.
    base: Option<f64>,
    /// Windows since that was last met.
    age: u32,
    /// The limit to go back to, while it is lowered to measure.
    probing: Option<f64>,
    gathered: Gathered,
    /// Calls from before this are left out.
    since: Stamp,
    /// The limit when it was last news.
    told: u32,
}

/// The window that is running.
#[derive(Debug)]
struct Gathered {
    from: Stamp,
    /// Calls whose time was taken.
    timed: u32,
    sum: u64,
    slowest: u64,
    in_flight: u32,
    calls: u32,
    lost: u32,
}

/// A limit that has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) to: u32,
    /// What it was when this was last told, if it has halved or doubled since.
    pub(crate) news: Option<u32>,
}

impl Control {
    pub(crate) fn new(now: Stamp, bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.start),
            base: None,
            // Nobody knows whether the limit to begin with is one at which nothing queues.
            age: PROBE_AFTER - PROBE_AGAIN,
            probing: None,
            gathered: Gathered::new(now),
            since: now,
            told: bounds.start,
        }
    }

    /// The limit now, within its bounds.
    pub(crate) fn limit(&self) -> u32 {
        (self.limit.round() as u32).clamp(self.bounds.min, self.bounds.max)
    }

    /// Takes new bounds. The limit stays where it is, unless they say otherwise or it is to start elsewhere.
    pub(crate) fn change(&mut self, now: Stamp, bounds: Bounds) {
        if bounds == self.bounds {
            return;
        }
        let limit =
            if bounds.start == self.bounds.start { self.probing.unwrap_or(self.limit) } else { bounds.start.into() };
        let told = self.told;
        *self = Self { limit: hold(limit, &bounds), base: self.base, told, ..Self::new(now, bounds) };
    }

    /// Takes in a call that ended now, with so many in flight; says so when the limit has moved.
    pub(crate) fn sample(&mut self, now: Stamp, admitted: Stamp, in_flight: u32, signal: Signal) -> Option<Moved> {
        if admitted < self.since {
            return None;
        }
        self.gathered.add(signal, in_flight, self.bounds.slow);
        let enough = if self.bounds.algorithm.has_base() { self.gathered.timed } else { self.gathered.calls };
        let span = now.nanos_since(self.gathered.from);
        if enough < MIN_CALLS || span < self.bounds.interval.max(self.gathered.mean().saturating_mul(2)) {
            return None;
        }
        let window = self.gathered.window();
        self.gathered = Gathered::new(now);
        let before = self.limit();
        self.limit = hold(self.decide(&window), &self.bounds);
        let to = self.limit();
        if to < before {
            self.since = now;
        }
        (to != before).then(|| Moved { to, news: self.news(to) })
    }

    fn decide(&mut self, window: &Window) -> f64 {
        let law = self.bounds.algorithm;
        if !law.has_base() {
            return law.next(self.limit, window, 0.0);
        }
        if let Some(before) = self.probing.take() {
            let last = self.base.replace(window.rtt);
            let was_hidden = last.is_some_and(|last| window.rtt < 0.95 * last);
            self.age = if was_hidden { PROBE_AFTER - PROBE_AGAIN } else { 0 };
            return before;
        }
        let base = self.learn(window);
        if self.age >= PROBE_AFTER {
            self.probing = Some(self.limit);
            // From what is in flight: a limit beyond that holds nobody back, and lowering it would empty no queue.
            let full = self.limit.min(f64::from(window.in_flight));
            return full - (1.25 * queue(full, window, base)).max(full / 8.0).max(1.0);
        }
        law.next(self.limit, window, base)
    }

    /// What calls take without a queue, by all that is known now.
    fn learn(&mut self, window: &Window) -> f64 {
        let base = self.base.unwrap_or(window.rtt);
        let unhindered = !window.is_used(self.limit);
        if self.base.is_some() && window.rtt <= base || unhindered {
            self.age = 0;
            *self.base.insert(base.midpoint(window.rtt))
        } else {
            self.age += 1;
            *self.base.insert(base)
        }
    }

    fn news(&mut self, to: u32) -> Option<u32> {
        // A limit that is lowered to measure is back before anybody could look.
        let is_news = self.probing.is_none() && (to >= self.told.saturating_mul(2) || to <= self.told / 2);
        is_news.then(|| std::mem::replace(&mut self.told, to))
    }
}

fn hold(limit: f64, bounds: &Bounds) -> f64 {
    limit.clamp(f64::from(bounds.min), f64::from(bounds.max))
}

impl Gathered {
    fn new(from: Stamp) -> Self {
        Self { from, timed: 0, sum: 0, slowest: 0, in_flight: 0, calls: 0, lost: 0 }
    }

    fn add(&mut self, signal: Signal, in_flight: u32, slow: u64) {
        let (rtt, lost) = match signal {
            Signal::Success(rtt) => (Some(rtt), rtt > slow),
            Signal::TimedOut(rtt) => (Some(rtt), true),
            Signal::Failure => (None, true),
        };
        if let Some(rtt) = rtt {
            self.timed = self.timed.saturating_add(1);
            self.sum = self.sum.saturating_add(rtt);
            self.slowest = self.slowest.max(rtt);
        }
        self.calls = self.calls.saturating_add(1);
        self.lost = self.lost.saturating_add(lost.into());
        self.in_flight = self.in_flight.max(in_flight);
    }

    fn mean(&self) -> u64 {
        self.sum.checked_div(self.timed.into()).unwrap_or(0)
    }

    fn window(&self) -> Window {
        let rest = f64::from(self.timed.saturating_sub(1).max(1));
        // Never zero, as it is divided by: a clock may be too coarse for a call.
        let rtt = ((self.sum - self.slowest) as f64 / rest).max(1.0);
        Window { rtt, in_flight: self.in_flight, calls: self.calls, lost: self.lost }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::adaptive::limit::AdaptiveLimit;
    use crate::error::Problems;

    const MILLI: u64 = 1_000_000;
    const AIMD: AdaptiveLimit = AdaptiveLimit::aimd(Duration::from_millis(100));

    fn bounds(limit: AdaptiveLimit, start: u32) -> Bounds {
        let mut problems = Problems::default();
        let bounds = limit.check(&mut problems, Some(start as usize));
        problems.finish().expect("within the range");
        bounds
    }

    fn at(millis: u64) -> Stamp {
        Stamp::from_nanos(millis * MILLI)
    }

    /// A control and its clock.
    struct Bench(Control, u64);

    impl Bench {
        fn new(limit: AdaptiveLimit, start: u32) -> Self {
            Self(Control::new(at(0), bounds(limit, start)), 0)
        }

        /// An interval of twenty calls that took so long and filled the limit.
        fn interval(&mut self, millis: u64) -> u32 {
            self.calls(&[Signal::Success(millis * MILLI); 20], self.0.limit())
        }

        fn intervals(&mut self, count: u32, millis: u64) {
            for _ in 0..count {
                self.interval(millis);
            }
        }

        fn calls(&mut self, signals: &[Signal], in_flight: u32) -> u32 {
            self.1 += 500;
            let now = at(self.1);
            for &signal in signals {
                self.0.sample(now, now, in_flight, signal);
            }
            self.0.limit()
        }
    }

    #[test]
    fn one_slow_call_moves_nothing() {
        for limit in [AdaptiveLimit::vegas(), AdaptiveLimit::gradient(), AIMD] {
            let mut bench = Bench::new(limit, 50);
            bench.intervals(10, 10);
            let before = bench.0.limit();
            let mut signals = [Signal::Success(10 * MILLI); 10];
            signals[4] = Signal::TimedOut(60_000 * MILLI);
            // The window lasts for as long as two of its calls take on average, so it takes some more to end it.
            bench.calls(&signals, before);
            bench.intervals(30, 10);
            assert!(bench.0.limit() >= before, "{limit:?}: {before}, then {}", bench.0.limit());
        }
    }

    /// Envoy #14997, #15008: no sample is no round trip.
    #[test]
    fn bug_41_without_samples_nothing_is_learnt_and_the_limit_stays() {
        for limit in [AdaptiveLimit::vegas(), AdaptiveLimit::gradient()] {
            let mut bench = Bench::new(limit, 50);
            assert_eq!(bench.calls(&[Signal::Failure; 100], 50), 50);
            assert_eq!(bench.calls(&[], 50), 50);
            assert_eq!(bench.0.base, None);
            bench.interval(0);
            assert!(bench.0.base >= Some(1.0), "a time of zero is not divided by");
            assert!(bench.interval(0) >= 50);
        }
    }

    /// Envoy #11579: calls from before the limit was lowered tell of a queue that is gone.
    #[test]
    fn bug_42_calls_from_before_the_limit_was_lowered_are_left_out() {
        let mut bench = Bench::new(AIMD, 50);
        assert_eq!(bench.calls(&[Signal::Failure; 10], 50), 45);
        let (before, now) = (at(bench.1 - 1), at(bench.1 + 1_000));
        for _ in 0..100 {
            assert_eq!(bench.0.sample(now, before, 50, Signal::Failure), None);
        }
        assert_eq!((bench.0.limit(), bench.0.gathered.calls), (45, 0));
    }

    /// Envoy #8524: it moves in each interval that has enough calls, however they are spread.
    #[test]
    fn bug_42_the_limit_moves_in_every_interval() {
        let mut bench = Bench::new(AIMD, 50);
        let limits: Vec<_> = (0..10).map(|_| bench.interval(10)).collect();
        assert_eq!(limits, (51..=60).collect::<Vec<_>>());
    }

    #[test]
    fn an_idle_limit_does_not_drift() {
        for limit in [AdaptiveLimit::vegas(), AdaptiveLimit::gradient(), AIMD] {
            let mut bench = Bench::new(limit, 50);
            for n in 0..1_000 {
                assert_eq!(bench.calls(&[Signal::Success((5 + n % 7) * MILLI); 20], 24), 50, "{limit:?}");
            }
        }
    }

    #[test]
    fn a_measurement_finds_a_round_trip_that_has_grown_and_gives_the_limit_back() {
        let mut bench = Bench::new(AdaptiveLimit::vegas().max(60), 50);
        bench.intervals(20, 10);
        assert_eq!(bench.0.limit(), 60);
        // Now every call takes twice as long, at any limit.
        let lowest = (0..PROBE_AFTER + 2).map(|_| bench.interval(20)).min();
        assert!(lowest < Some(40), "it takes it for a queue: {lowest:?}");
        bench.intervals(60, 20);
        assert_eq!(bench.0.limit(), 60);
    }

    #[test]
    fn what_is_told_is_a_limit_that_has_halved_or_doubled() {
        let mut bench = Bench::new(AIMD.min(1), 64);
        let mut told = Vec::new();
        for _ in 0..30 {
            bench.1 += 500;
            let now = at(bench.1);
            let moved = (0..20).filter_map(|_| bench.0.sample(now, now, 64, Signal::Failure));
            told.extend(moved.filter_map(|moved| Some((moved.news?, moved.to))));
        }
        assert!(told.len() <= 6 && told[0].0 == 64 && told.iter().all(|(from, to)| *to <= from / 2), "{told:?}");
    }

    #[test]
    fn a_change_of_bounds_keeps_the_limit_within_them() {
        let mut bench = Bench::new(AIMD, 50);
        bench.interval(10);
        bench.0.change(at(bench.1), bounds(AIMD.max(40), 50));
        assert_eq!(bench.0.limit(), 40, "the bulkhead's limit is held within the bounds too");
        bench.0.change(at(bench.1), bounds(AIMD.max(400), 40));
        assert_eq!(bench.interval(10), 41);
        bench.0.change(at(bench.1), bounds(AdaptiveLimit::vegas().max(400), 40));
        assert_eq!(bench.0.limit(), 41);
        bench.0.change(at(bench.1), bounds(AdaptiveLimit::vegas().max(400), 300));
        assert_eq!(bench.0.limit(), 300, "another start is a wish to start there");
    }

    fn signal() -> impl Strategy<Value = Signal> {
        let rtt = prop_oneof![0..10 * MILLI, 0..10_000 * MILLI, Just(u64::MAX)];
        prop_oneof![
            5 => rtt.clone().prop_map(Signal::Success),
            1 => rtt.prop_map(Signal::TimedOut),
            1 => Just(Signal::Failure),
        ]
    }

    proptest! {
        /// Envoy #9947: whatever the calls and the clock do, the limit is within its bounds.
        #[test]
        fn bug_42_the_limit_is_always_within_its_bounds(
            law in prop_oneof![
                Just(AdaptiveLimit::vegas()), Just(AdaptiveLimit::gradient()), Just(AIMD),
            ],
            (min, more, start) in (1..50_u32, 0..300_u32, 1..1_000_u32),
            calls in prop::collection::vec((signal(), 0_u32..2_000, -100_i64..1_000, 0_u64..2_000), 1..600),
        ) {
            let max = min + more;
            let mut control = Control::new(at(0), bounds(law.min(min as usize).max(max as usize), start));
            let mut now = 1_000 * MILLI;
            for (signal, in_flight, step, age) in calls {
                now = now.saturating_add_signed(step * MILLI as i64);
                let moved = control.sample(Stamp::from_nanos(now), Stamp::from_nanos(now).minus(age * MILLI), in_flight, signal);
                prop_assert!((min..=max).contains(&control.limit()));
                prop_assert!(moved.is_none_or(|moved| moved.to == control.limit()));
            }
        }
    }
}
