//! The settings that a file can have: each is a line here, and nowhere else.

use super::attempts::{self, PartialRetry, Racing, Spending};
use super::section::section;
use super::tables::{
    Moving, Queued, Rated, SlowCalls, Stages, Tuned, max_concurrent, queued, set_bulkhead, set_max_concurrent,
};
use super::value::{Auto, Span, Switch, Whole, Written};
use crate::attempts::Attempts;
use crate::breaker::config::{Breaker, Window};
use crate::config::Config;
use crate::error::Problems;
use crate::retry::Retry;

section! {
    /// Some settings of a command: those that one level of a file names. [`Configs`](crate::Configs) has the table of
    /// all keys.
    ///
    /// ```
    /// use fusebox::{Config, PartialConfig};
    ///
    /// let partial: PartialConfig = toml::from_str(r#"timeout = "250ms""#)?;
    /// let config = partial.over(Config::default().max_concurrent(8));
    /// assert_eq!(config, Config::default().max_concurrent(8).timeout(std::time::Duration::from_millis(250)));
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct PartialConfig for Config {
        timeout: Switch<Span>;
        deadline: Switch<Span> = attempts::deadline, attempts::set_deadline;
        retry: PartialRetry = attempts::retry, attempts::set_retry;
        hedge: Racing = attempts::hedge, attempts::set_hedge;
        budget: Switch<Spending> = attempts::budget, attempts::set_budget;
        max_concurrent: Switch<usize> = max_concurrent, set_max_concurrent;
        bulkhead: Switch<Queued> = queued, set_bulkhead;
        adaptive_timeout: Switch<Tuned>;
        adaptive_limit: Switch<Moving>;
        rate_limit: Switch<Rated>;
        breaker: PartialBreaker;
        max_concurrent_fallbacks: usize;
        latency_window: Switch<Span>;
    }
    exclusive: [["max_concurrent", "bulkhead"]];
}

section! {
    pub(super) struct PartialBreaker for Breaker {
        error_rate: Switch<f64>;
        min_calls: u32;
        confidence: Switch<f64>;
        window: Span = window, |setting: &Span, breaker: &mut Breaker| change(breaker, |b| b.window(setting.value()));
        buckets: u32 = buckets, |setting: &u32, breaker: &mut Breaker| change(breaker, |b| b.buckets(*setting));
        last_calls: u32 = last_calls, |setting: &u32, breaker: &mut Breaker| change(breaker, |b| b.last_calls(*setting));
        open_for: Span;
        growth: f64;
        max_open: Switch<Span, Auto>;
        jitter: f64;
        probes: u32;
        ramp: Switch<Stages>;
        consecutive_failures: Switch<u32>;
        slow_calls: Switch<SlowCalls>;
        count_in_flight: bool;
        abort_on_trip: bool;
        count_rejections: bool;
        count_cancelled_after: Switch<Span>;
    }
    exclusive: [["last_calls", "window"], ["last_calls", "buckets"]];
}

impl PartialConfig {
    /// Every setting of a configuration.
    pub fn of(config: &Config) -> Self {
        // A field that is new does not compile here until it has a line above, and a row in the table of `Configs`.
        let Config {
            timeout: _,
            adaptive_timeout: _,
            bulkhead: _,
            adaptive_limit: _,
            rate_limit: _,
            breaker,
            max_concurrent_fallbacks: _,
            latency_window: _,
            attempts: _,
        } = config;
        let Attempts { retry, hedge: _, budget: _, deadline: _ } = config.attempts();
        let Retry { attempts: _, delays: _, jitter: _, max_delay: _, timeouts: _ } = retry;
        let Breaker {
            error_rate: _,
            min_calls: _,
            confidence: _,
            window: _,
            open_for: _,
            growth: _,
            max_open: _,
            jitter: _,
            probes: _,
            ramp: _,
            consecutive_failures: _,
            slow_calls: _,
            count_in_flight: _,
            abort_on_trip: _,
            count_rejections: _,
            count_cancelled_after: _,
        } = breaker;
        Written::of(config).unwrap_or_default()
    }

    /// `config` with these settings in place of its own.
    pub fn over(&self, mut config: Config) -> Config {
        self.lay_over(&mut config);
        config
    }

    pub(super) fn of_retry(retry: PartialRetry) -> Self {
        Self { retry: Some(retry), ..Self::default() }
    }

    /// What is out of range, whatever other settings there are.
    pub(super) fn own_problem(&self) -> Option<String> {
        let mut problems = Problems::default();
        self.over(Config::default()).check(&mut problems);
        let error = problems.finish().err()?;
        error.problems().find(|problem| !problem.is_relative()).map(ToString::to_string)
    }
}

impl PartialBreaker {
    fn own_problem(self) -> Option<String> {
        PartialConfig { breaker: Some(self), ..PartialConfig::default() }.own_problem()
    }
}

fn change(breaker: &mut Breaker, by: impl FnOnce(Breaker) -> Breaker) {
    *breaker = by(std::mem::take(breaker));
}

fn window(breaker: &Breaker) -> Option<Span> {
    let Window::Time { length, .. } = breaker.window else { return None };
    Some(Whole::of(&length))
}

fn buckets(breaker: &Breaker) -> Option<u32> {
    let Window::Time { buckets, .. } = breaker.window else { return None };
    Some(buckets)
}

fn last_calls(breaker: &Breaker) -> Option<u32> {
    let Window::Calls(calls) = breaker.window else { return None };
    Some(calls)
}
