//! What a configuration allows and probably does not mean.
//!
//! A value out of range is an error. Here are the settings that work, each by itself, and together do not do what they
//! are for: a rule that can never fire, a wait that outlasts what it waits for.

pub(crate) mod finding;

use std::time::Duration;

use self::finding::Finding;
use crate::attempts::Attempts;
use crate::breaker::config::Window;
use crate::config::Config;

/// The most that one call can cost.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct WorstCase {
    /// How long one attempt can take, and so a call without retries: its waits included, its fallback not. `None`
    /// without a bound.
    pub attempt: Option<Duration>,
    /// How long a call by [`Command::retry`](crate::Command::retry) can take, unless the dependency asks for longer
    /// waits; `None` without a bound.
    pub time: Option<Duration>,
    /// How many attempts such a call can make.
    pub attempts: u32,
    /// How many attempts there are for each such call when all fail, in the long run and apart from the budget's floor:
    /// so many times the load.
    pub amplification: f64,
}

impl Config {
    /// The most that one call can cost.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fusebox::{Bulkhead, Config, Retry};
    /// # let ms = Duration::from_millis;
    /// let config = Config::default()
    ///     .timeout(ms(250))
    ///     .bulkhead(Bulkhead::new(8).queue(16, ms(20)))
    ///     .retry(Retry::exponential(ms(100)).attempts(3));
    /// let worst = config.worst_case();
    /// assert_eq!(worst.attempt, Some(ms(270)));
    /// assert_eq!((worst.time, worst.attempts), (Some(ms(270 * 3 + 100 + 200)), 3));
    /// assert_eq!(worst.amplification, 1.2); // by the usual budget
    /// assert_eq!(config.deadline(ms(600)).worst_case().time, Some(ms(600)));
    /// ```
    pub fn worst_case(&self) -> WorstCase {
        let Attempts { retry, budget, deadline, .. } = self.attempts();
        let turn = self.rate_limit.as_ref().and_then(|limit| limit.wait).unwrap_or_default();
        let waits = self.queue_wait().unwrap_or_default().saturating_add(turn);
        let longest = self.adaptive_timeout.as_ref().and_then(|timeout| timeout.max).unwrap_or_default();
        let alone = self.timeout.map(|timeout| timeout.max(longest).saturating_add(waits));
        let most = retry.attempts.saturating_sub(1);
        let delays = retry.backoff().longest(most);
        let retries = delays.map_or(most, |(retries, _)| retries);
        let all = alone
            .zip(delays)
            .map(|(attempt, (_, delays))| attempt.saturating_mul(retries.saturating_add(1)).saturating_add(delays));
        let bounded = |time: Option<Duration>| time.into_iter().chain(*deadline).min();
        WorstCase {
            attempt: bounded(alone),
            time: bounded(all),
            attempts: retries.saturating_add(1),
            amplification: 1.0 + budget.as_ref().map_or(f64::INFINITY, |budget| budget.share).min(f64::from(retries)),
        }
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
        self.lint_attempts(calls_per_second, &mut findings);
        self.lint_rules(calls_per_second, &mut findings);
        findings
    }

    fn lint_times(&self, findings: &mut Vec<Finding>) {
        let breaker = &self.breaker;
        // What has no timeout is bounded by its deadline, if it has one.
        let Some(timeout) = self.timeout.or(self.attempts().deadline) else {
            findings.push(Finding::NoTimeout);
            return;
        };
        if let Some(wait) = self.queue_wait().filter(|&wait| wait > timeout) {
            findings.push(Finding::WaitBeyondTimeout { wait, timeout });
        }
        if self.can_open() && breaker.open_for < timeout && !breaker.abort_on_trip {
            findings.push(Finding::OpenShorterThanTimeout { open_for: breaker.open_for, timeout });
        }
        if let Some((_, threshold)) = breaker.slow_calls.filter(|&(_, threshold)| threshold >= timeout) {
            findings.push(Finding::SlowBeyondTimeout { threshold, timeout });
        }
        if let Some(after) = breaker.count_cancelled_after.filter(|&after| after >= timeout) {
            findings.push(Finding::CancelledBeyondTimeout { after, timeout });
        }
    }

    fn lint_attempts(&self, calls_per_second: Option<f64>, findings: &mut Vec<Finding>) {
        let Attempts { retry, budget, deadline, .. } = self.attempts();
        let exceeded = self.timeout.zip(*deadline).filter(|(timeout, deadline)| timeout >= deadline);
        if let Some((timeout, deadline)) = exceeded {
            findings.push(Finding::TimeoutBeyondDeadline { timeout, deadline });
        }
        if budget.is_none() && retry.attempts > 1 {
            findings.push(Finding::RetriesWithoutBudget { attempts: retry.attempts });
        }
        if let (Some(limit), Some(expected)) = (&self.rate_limit, calls_per_second) {
            let limit = f64::from(limit.calls) / limit.period.as_secs_f64();
            if expected > limit {
                findings.push(Finding::CallsBeyondRateLimit { limit, expected });
            }
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
    use crate::budget::Budget;
    use crate::bulkhead::Bulkhead;
    use crate::rate_limit::config::RateLimit;
    use crate::retry::Retry;

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
            (Config::default().no_timeout(), Config::default().no_timeout().deadline(second), None, Finding::NoTimeout),
            (
                Config::default().deadline(second),
                Config::default().deadline(late),
                None,
                Finding::TimeoutBeyondDeadline { timeout: second, deadline: second },
            ),
            (
                Config::default().retry(Retry::default().attempts(2)).no_budget(),
                Config::default().retry(Retry::default().attempts(1)).no_budget(),
                None,
                Finding::RetriesWithoutBudget { attempts: 2 },
            ),
            (
                Config::default().rate_limit(RateLimit::per_second(5)),
                Config::default().rate_limit(RateLimit::per_second(6)),
                Some(6.0),
                Finding::CallsBeyondRateLimit { limit: 5.0, expected: 6.0 },
            ),
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
            (
                open(ms(999)),
                with(Breaker::default().open_for(ms(999)).abort_on_trip(true)),
                None,
                Finding::OpenShorterThanTimeout { open_for: ms(999), timeout: second },
            ),
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
    fn the_worst_case_counts_every_wait_and_ends_with_the_deadline() {
        let second = ms(1_000);
        let plain = Config::default().retry(Retry::default().attempts(1));
        let worst = |config: &Config| (config.worst_case().attempt, config.worst_case().time);
        assert_eq!(worst(&plain), (Some(second), Some(second)));
        let queue = plain.clone().bulkhead(Bulkhead::new(1).queue(1, ms(20)));
        let turn = queue.clone().rate_limit(RateLimit::per_second(1).wait(ms(3)));
        assert_eq!((worst(&queue).0, worst(&turn).0), (Some(ms(1_020)), Some(ms(1_023))));
        assert_eq!(worst(&turn.clone().no_timeout()), (None, None));
        assert_eq!(worst(&turn.no_timeout().deadline(second)), (Some(second), Some(second)));
        assert_eq!(worst(&plain.clone().timeout(Duration::MAX)).0, Some(Duration::MAX));

        let delays = |retry: Retry| plain.clone().timeout(ms(100)).retry(retry).worst_case().time;
        assert_eq!(delays(Retry::exponential(ms(10)).attempts(4)), Some(ms(400 + 10 + 20 + 40)));
        assert_eq!(delays(Retry::exponential(ms(10)).attempts(4).max_delay(ms(15))), Some(ms(400 + 10 + 15 + 15)));
        assert_eq!(delays(Retry::constant(ms(10)).attempts(3)), Some(ms(300 + 12 + 12)), "each may be a fifth longer");
        assert_eq!(delays(Retry::exponential(ms(10)).attempts(u32::MAX)), None);
        assert_eq!(delays(Retry::delays([ms(1), ms(2)]).attempts(9)), Some(ms(300 + 3)), "the delays end before");
    }

    #[test]
    fn the_load_grows_by_the_budget_or_by_all_attempts() {
        let four = Config::default().retry(Retry::default().attempts(4));
        let by = |config: Config| (config.worst_case().attempts, config.worst_case().amplification);
        assert_eq!(by(four.clone()), (4, 1.2));
        assert_eq!(by(four.clone().budget(Budget::share(9.0))), (4, 4.0));
        assert_eq!(by(four.no_budget()), (4, 4.0));
        assert_eq!(by(Config::default().retry(Retry::default().attempts(1)).no_budget()), (1, 1.0));
    }
}
