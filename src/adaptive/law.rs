//! The laws by which a limit moves: from the present limit and one window of calls to the next limit, and nothing else.

use super::limit::Algorithm;

/// What one window of calls was like. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    /// The mean of what its calls took, without the slowest.
    pub(super) rtt: f64,
    /// Most calls in flight.
    pub(super) in_flight: u32,
    /// Calls that ended in success, failure or timeout.
    pub(super) calls: u32,
    /// Those of them that failed, timed out or were slow.
    pub(super) lost: u32,
}

/// How much longer than without a queue calls may take before the gradient falls below one.
const TOLERANCE: f64 = 1.5;
/// The queue that the gradient allows for, so that a limit can grow while the gradient is one.
const HEADROOM: f64 = 4.0;
/// The share of a step that the gradient takes, so that it does not swing.
const SMOOTHING: f64 = 0.2;

impl Algorithm {
    /// The next limit, not yet held within its bounds. `base` is what calls take without a queue.
    pub(super) fn next(self, limit: f64, window: &Window, base: f64) -> f64 {
        let used = window.is_used(limit);
        match self {
            Self::Aimd(_) if u64::from(window.lost) * 10 > u64::from(window.calls) => limit * 0.9,
            Self::Aimd(_) if used => limit + 1.0,
            Self::Vegas if used => {
                let step = limit.log10().max(1.0);
                match queue(limit, window, base) {
                    queue if queue < 3.0 * step => limit + step,
                    queue if queue > 6.0 * step => limit - step,
                    _ => limit,
                }
            }
            Self::Gradient if used => {
                let gradient = (TOLERANCE * base / window.rtt).clamp(0.5, 1.0);
                limit + SMOOTHING * (limit * gradient + HEADROOM - limit)
            }
            _ => limit,
        }
    }

    /// Whether it compares what calls take with what they take without a queue.
    pub(super) fn has_base(self) -> bool {
        !matches!(self, Self::Aimd(_))
    }
}

impl Window {
    /// An idle limit says nothing: calls were neither many nor slow because of it.
    pub(super) fn is_used(&self, limit: f64) -> bool {
        f64::from(self.in_flight) * 2.0 >= limit.floor()
    }
}

/// The calls that wait in the dependency, by Little's law.
pub(super) fn queue(limit: f64, window: &Window, base: f64) -> f64 {
    limit * (1.0 - base / window.rtt).max(0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BASE: f64 = 1e7;
    const AIMD: Algorithm = Algorithm::Aimd(Duration::from_millis(100));

    fn window(rtt: f64, in_flight: u32, lost: u32) -> Window {
        Window { rtt: rtt * BASE, in_flight, calls: 100, lost }
    }

    /// F32.
    #[test]
    fn f32_at_20_a_flat_round_trip_gives_21_a_double_one_19_and_a_third_more_holds() {
        let next = |rtt| Algorithm::Vegas.next(20.0, &window(rtt, 20, 0), BASE).round() as u32;
        assert_eq!([next(1.0), next(2.0), next(1.3)], [21, 19, 20]);
    }

    #[test]
    fn the_gradient_follows_the_ratio_and_never_halves_faster_than_its_smoothing() {
        let next = |rtt| Algorithm::Gradient.next(100.0, &window(rtt, 100, 0), BASE);
        assert!((next(1.0) - 100.8).abs() < 1e-9 && (next(1.5) - 100.8).abs() < 1e-9);
        assert!((next(2.0) - 95.8).abs() < 1e-9);
        assert!((next(1e6) - 90.8).abs() < 1e-9);
    }

    #[test]
    fn aimd_adds_one_and_takes_a_tenth() {
        let next = |lost| AIMD.next(50.0, &window(1.0, 50, lost), BASE);
        assert_eq!([next(0), next(10), next(11)], [51.0, 51.0, 45.0]);
    }

    #[test]
    fn a_limit_that_is_not_used_stays() {
        for law in [Algorithm::Vegas, Algorithm::Gradient, AIMD] {
            assert_eq!(law.next(50.0, &window(1.0, 24, 0), BASE), 50.0);
            assert!(law.next(50.0, &window(1.0, 25, 0), BASE) > 50.0);
        }
        assert_eq!(Algorithm::Vegas.next(50.0, &window(9.0, 24, 0), BASE), 50.0);
    }
}
