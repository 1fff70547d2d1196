//! What a configuration allows and probably does not mean.
//!
//! A value out of range is an error. Here are the settings that work, each by itself, and together do not do what they
//! are for: a rule that can never fire, a wait that outlasts what it waits for.

use std::fmt;
use std::time::Duration;

use crate::breaker::config::Window;
use crate::config::Config;

/// Something in a configuration that is allowed and hardly meant. `Display` says what it comes to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// A call may take for ever.
    NoTimeout,
    /// A call may wait for a slot longer than it may run.
    #[non_exhaustive]
    WaitBeyondTimeout {
        /// Longest wait in the bulkhead's queue.
        wait: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// No rule ever opens the circuit.
    NeverOpens,
    /// At the rate of calls that was given, the window never holds enough of them to be judged.
    #[non_exhaustive]
    MinCallsUnreachable {
        /// Calls before a rate is looked at.
        min_calls: u32,
        /// Calls that the window holds on average.
        expected: f64,
        /// Length of the window.
        window: Duration,
    },
    /// The window holds fewer calls than there must be, so their number is all that counts.
    #[non_exhaustive]
    MinCallsBeyondWindow {
        /// Calls before a rate is looked at.
        min_calls: u32,
        /// Calls that the window holds.
        last_calls: u32,
    },
    /// The circuit asks again before an attempt from before it opened must have ended.
    #[non_exhaustive]
    OpenShorterThanTimeout {
        /// First wait of the open circuit.
        open_for: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// No call is slow that is not an error already: it times out first.
    #[non_exhaustive]
    SlowBeyondTimeout {
        /// From when on a call is slow.
        threshold: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// No cancelled call is ever blamed: it times out first.
    #[non_exhaustive]
    CancelledBeyondTimeout {
        /// From when on a cancelled call is a failure.
        after: Duration,
        /// How long one attempt may take.
        timeout: Duration,
    },
    /// All that opened together ask again together.
    NoJitter,
}

impl Finding {
    /// The setting to look at first, as a path.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::NoTimeout => "timeout",
            Self::WaitBeyondTimeout { .. } => "bulkhead.queue.wait",
            Self::NeverOpens => "breaker.error_rate",
            Self::MinCallsUnreachable { .. } | Self::MinCallsBeyondWindow { .. } => "breaker.min_calls",
            Self::OpenShorterThanTimeout { .. } => "breaker.open_for",
            Self::SlowBeyondTimeout { .. } => "breaker.slow_calls",
            Self::CancelledBeyondTimeout { .. } => "breaker.count_cancelled_after",
            Self::NoJitter => "breaker.jitter",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.setting())?;
        match self {
            Self::NoTimeout => f.write_str("without one a call may take for ever, and holds its slot for as long"),
            Self::WaitBeyondTimeout { wait, timeout } => {
                write!(f, "a call may wait {wait:?} for a slot in which it may then run for {timeout:?}")
            }
            Self::NeverOpens => f.write_str("no rule ever opens the circuit"),
            Self::MinCallsUnreachable { min_calls, expected, window } => {
                write!(f, "{window:?} hold {expected:.1} calls at this rate and never {min_calls}")?;
                f.write_str("; a longer window, fewer calls, or consecutive_failures would open it")
            }
            Self::MinCallsBeyondWindow { min_calls, last_calls } => {
                write!(
                    f,
                    "the window holds {last_calls} calls, so a rate is looked at from that on, not from {min_calls}"
                )
            }
            Self::OpenShorterThanTimeout { open_for, timeout } => {
                write!(f, "after {open_for:?} it asks again while calls that began before may run for {timeout:?}")
            }
            Self::SlowBeyondTimeout { threshold, timeout } => {
                write!(f, "no call takes {threshold:?} without an error: it times out after {timeout:?}")
            }
            Self::CancelledBeyondTimeout { after, timeout } => {
                write!(f, "no call is dropped after {after:?}: it times out after {timeout:?}")
            }
            Self::NoJitter => f.write_str("without it, all that opened together ask again together"),
        }
    }
}

/// The most that one call can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorstCase {
    /// How long a call can take, its waits included and its fallback not; `None` without a bound.
    pub time: Option<Duration>,
    /// How many attempts it can make: the amplification of load when everything fails.
    pub attempts: u32,
}

impl Config {
    /// The most that one call can cost.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fusebox::{Bulkhead, Config};
    /// # let ms = Duration::from_millis;
    /// let config = Config::default().timeout(ms(250)).bulkhead(Bulkhead::new(8).queue(16, ms(20)));
    /// assert_eq!(config.worst_case().time, Some(ms(270)));
    /// assert_eq!(config.worst_case().attempts, 1);
    /// ```
    pub fn worst_case(&self) -> WorstCase {
        let turn = self.rate_limit.as_ref().and_then(|limit| limit.wait).unwrap_or_default();
        let wait = turn.saturating_add(self.queue_wait().unwrap_or_default());
        WorstCase { time: self.timeout.map(|timeout| timeout.saturating_add(wait)), attempts: 1 }
    }

    /// What is allowed and hardly meant, in no order of weight. With the number of calls a second that are expected, or
    /// [measured](crate::Snapshot::rate), it also says which rules that traffic can never fill.
    ///
    /// ```
    /// use std::time::Duration;
    /// use fusebox::{Breaker, Config, Finding};
    ///
    /// let config = Config::default().breaker(Breaker::error_rate(0.5).min_calls(20).window(Duration::from_secs(10)));
    /// assert_eq!(config.lint(None), []);
    ///
    /// let findings = config.lint(Some(0.5));
    /// assert!(matches!(findings[..], [Finding::MinCallsUnreachable { min_calls: 20, .. }]));
    /// assert_eq!(
    ///     findings[0].to_string(),
    ///     "breaker.min_calls: 10s hold 5.0 calls at this rate and never 20; \
    ///      a longer window, fewer calls, or consecutive_failures would open it",
    /// );
    /// ```
    pub fn lint(&self, calls_per_second: Option<f64>) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.lint_times(&mut findings);
        self.lint_rules(calls_per_second, &mut findings);
        findings
    }

    fn lint_times(&self, findings: &mut Vec<Finding>) {
        let breaker = &self.breaker;
        let Some(timeout) = self.timeout else {
            findings.push(Finding::NoTimeout);
            return;
        };
        if let Some(wait) = self.queue_wait().filter(|&wait| wait > timeout) {
            findings.push(Finding::WaitBeyondTimeout { wait, timeout });
        }
        if self.can_open() && breaker.open_for < timeout {
            findings.push(Finding::OpenShorterThanTimeout { open_for: breaker.open_for, timeout });
        }
        if let Some((_, threshold)) = breaker.slow_calls.filter(|&(_, threshold)| threshold >= timeout) {
            findings.push(Finding::SlowBeyondTimeout { threshold, timeout });
        }
        if let Some(after) = breaker.count_cancelled_after.filter(|&after| after >= timeout) {
            findings.push(Finding::CancelledBeyondTimeout { after, timeout });
        }
    }

    fn lint_rules(&self, calls_per_second: Option<f64>, findings: &mut Vec<Finding>) {
        let breaker = &self.breaker;
        if !self.can_open() {
            findings.push(Finding::NeverOpens);
            return;
        }
        if breaker.jitter == 0.0 {
            findings.push(Finding::NoJitter);
        }
        if breaker.error_rate.is_none() && breaker.slow_calls.is_none() {
            return;
        }
        let min_calls = breaker.min_calls;
        match breaker.window {
            Window::Calls(last_calls) if last_calls < min_calls => {
                findings.push(Finding::MinCallsBeyondWindow { min_calls, last_calls });
            }
            Window::Calls(_) => {}
            Window::Time { length: window, .. } => {
                let expected = calls_per_second.map(|rate| rate * window.as_secs_f64());
                if let Some(expected) = expected.filter(|&expected| expected < f64::from(min_calls)) {
                    findings.push(Finding::MinCallsUnreachable { min_calls, expected, window });
                }
            }
        }
    }

    fn can_open(&self) -> bool {
        let breaker = &self.breaker;
        breaker.error_rate.is_some() || breaker.slow_calls.is_some() || breaker.consecutive_failures.is_some()
    }

    fn queue_wait(&self) -> Option<Duration> {
        self.bulkhead.and_then(|bulkhead| bulkhead.queue).map(|(_, wait)| wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::config::Breaker;
    use crate::bulkhead::Bulkhead;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn with(breaker: Breaker) -> Config {
        Config::default().breaker(breaker)
    }

    /// Each finding, by a configuration that has nothing else, and the nearest one that has not even that.
    #[test]
    fn each_finding_is_found_alone_and_not_one_step_before() {
        let queue = |wait| Config::default().bulkhead(Bulkhead::new(1).queue(1, wait));
        let slow = |threshold| with(Breaker::default().slow_calls(0.5, threshold));
        let dropped = |after| with(Breaker::default().count_cancelled_after(after));
        let open = |wait| with(Breaker::default().open_for(wait));
        let last = |calls| with(Breaker::default().last_calls(calls));
        let in_a_row = || Breaker::disabled().consecutive_failures(5);
        let (second, late) = (ms(1_000), ms(1_001));
        let window = ms(10_000);
        for (found, quiet, rate, finding) in [
            (Config::default().no_timeout(), Config::default(), None, Finding::NoTimeout),
            (queue(late), queue(second), None, Finding::WaitBeyondTimeout { wait: late, timeout: second }),
            (with(Breaker::disabled()), with(in_a_row()), None, Finding::NeverOpens),
            (
                with(Breaker::default()),
                with(Breaker::default().min_calls(19)),
                Some(1.9),
                Finding::MinCallsUnreachable { min_calls: 20, expected: 19.0, window },
            ),
            (last(19), last(20), Some(0.0), Finding::MinCallsBeyondWindow { min_calls: 20, last_calls: 19 }),
            (open(ms(999)), open(second), None, Finding::OpenShorterThanTimeout { open_for: ms(999), timeout: second }),
            (slow(second), slow(ms(999)), None, Finding::SlowBeyondTimeout { threshold: second, timeout: second }),
            (
                dropped(second),
                dropped(ms(999)),
                None,
                Finding::CancelledBeyondTimeout { after: second, timeout: second },
            ),
            (with(Breaker::default().jitter(0.0)), with(Breaker::default().jitter(0.01)), None, Finding::NoJitter),
        ] {
            assert_eq!(found.lint(rate), std::slice::from_ref(&finding));
            assert_eq!(quiet.lint(rate), [], "beside {finding}");
            let said = finding.to_string();
            assert!(said.starts_with(finding.setting()) && said.len() > finding.setting().len() + 20, "{said}");
        }
    }

    /// What traffic cannot fill is of no account where no rate is looked at; and a rate that is none finds nothing.
    #[test]
    fn the_rate_of_calls_matters_only_to_rules_by_rate() {
        assert_eq!(with(Breaker::disabled().consecutive_failures(5)).lint(Some(0.0)), []);
        assert_eq!(Config::default().lint(Some(f64::NAN)), []);
        let slow_alone = Breaker::disabled().slow_calls(0.5, ms(10));
        assert_eq!(with(slow_alone).lint(Some(0.0)).len(), 1);
    }

    #[test]
    fn the_worst_case_counts_the_wait_for_a_slot_and_has_no_end_without_a_timeout() {
        let queue = Config::default().bulkhead(Bulkhead::new(1).queue(1, ms(20)));
        assert_eq!(queue.worst_case(), WorstCase { time: Some(ms(1_020)), attempts: 1 });
        assert_eq!(queue.no_timeout().worst_case().time, None);
        assert_eq!(Config::default().timeout(Duration::MAX).worst_case().time, Some(Duration::MAX));
    }
}
