//! Settings that are tables of their own: what is not said in one is as in the constructor of what it stands for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{Span, Switch, Whole};
use crate::adaptive::limit::{AdaptiveLimit, Algorithm};
use crate::adaptive::timeout::AdaptiveTimeout;
use crate::breaker::ramp::Ramp;
use crate::bulkhead::Bulkhead;
use crate::config::Config;
use crate::rate_limit::config::RateLimit;

/// A bulkhead, with its queue if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queued {
    limit: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Queue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    length: usize,
    wait: Span,
}

impl Whole for Queued {
    type Value = Bulkhead;

    fn of(bulkhead: &Bulkhead) -> Self {
        let queue = bulkhead.queue.map(|(length, wait)| Queue { length, wait: Whole::of(&wait) });
        Self { limit: bulkhead.limit, queue }
    }

    fn value(&self) -> Bulkhead {
        let bulkhead = Bulkhead::new(self.limit);
        self.queue.map_or(bulkhead, |queue| bulkhead.queue(queue.length, queue.wait.value()))
    }
}

/// Without a queue a bulkhead is its limit.
pub(super) fn max_concurrent(config: &Config) -> Option<Switch<usize>> {
    match config.bulkhead {
        Some(bulkhead) if bulkhead.queue.is_some() => None,
        plain => Some(Whole::of(&plain.map(|bulkhead| bulkhead.limit))),
    }
}

pub(super) fn set_max_concurrent(setting: &Switch<usize>, config: &mut Config) {
    config.bulkhead = setting.value().map(Bulkhead::new);
}

pub(super) fn queued(config: &Config) -> Option<Switch<Queued>> {
    config.bulkhead.filter(|bulkhead| bulkhead.queue.is_some()).map(|bulkhead| Whole::of(&Some(bulkhead)))
}

pub(super) fn set_bulkhead(setting: &Switch<Queued>, config: &mut Config) {
    config.bulkhead = setting.value();
}

/// A rate limit. What is not said of it is as in [`RateLimit::new`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rated {
    calls: u32,
    period: Span,
    burst: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait: Option<Span>,
}

impl Whole for Rated {
    type Value = Box<RateLimit>;

    fn of(limit: &Box<RateLimit>) -> Self {
        let RateLimit { calls, period, burst, wait } = **limit;
        Self { calls, period: Whole::of(&period), burst: Some(burst), wait: wait.as_ref().map(Whole::of) }
    }

    fn value(&self) -> Box<RateLimit> {
        let limit = RateLimit::new(self.calls, self.period.value());
        let limit = self.burst.into_iter().fold(limit, RateLimit::burst);
        Box::new(self.wait.iter().map(Whole::value).fold(limit, RateLimit::wait))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlowCalls {
    rate: f64,
    threshold: Span,
}

impl Whole for SlowCalls {
    type Value = (f64, Duration);

    fn of(&(rate, threshold): &(f64, Duration)) -> Self {
        Self { rate, threshold: Whole::of(&threshold) }
    }

    fn value(&self) -> (f64, Duration) {
        (self.rate, self.threshold.value())
    }
}

/// A ramp. What is not said of it is as in [`Ramp::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stages {
    shares: Vec<f64>,
    each: Option<Span>,
    min_calls: Option<u32>,
}

impl Whole for Stages {
    type Value = Box<Ramp>;

    fn of(ramp: &Box<Ramp>) -> Self {
        Self { shares: ramp.shares.clone(), each: Some(Whole::of(&ramp.each)), min_calls: Some(ramp.min_calls) }
    }

    fn value(&self) -> Box<Ramp> {
        let ramp = Ramp::stages(self.shares.iter().copied());
        let ramp = self.each.iter().map(Whole::value).fold(ramp, Ramp::each);
        Box::new(self.min_calls.into_iter().fold(ramp, Ramp::min_calls))
    }
}

/// An adaptive timeout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tuned {
    percentile: f64,
    factor: Option<f64>,
    min: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<Span>,
    interval: Option<Span>,
    warm_up: Option<u32>,
}

impl Whole for Tuned {
    type Value = Box<AdaptiveTimeout>;

    fn of(timeout: &Box<AdaptiveTimeout>) -> Self {
        let AdaptiveTimeout { percentile, factor, min, max, interval, warm_up } = **timeout;
        let span = |span: Duration| Some(Whole::of(&span));
        let (min, max, interval) = (span(min), max.and_then(span), span(interval));
        Self { percentile, factor: Some(factor), min, max, interval, warm_up: Some(warm_up) }
    }

    fn value(&self) -> Box<AdaptiveTimeout> {
        let timeout = AdaptiveTimeout::percentile(self.percentile);
        let timeout = self.factor.into_iter().fold(timeout, AdaptiveTimeout::factor);
        let timeout = self.min.iter().map(Whole::value).fold(timeout, AdaptiveTimeout::min);
        let timeout = self.max.iter().map(Whole::value).fold(timeout, AdaptiveTimeout::max);
        let timeout = self.interval.iter().map(Whole::value).fold(timeout, AdaptiveTimeout::interval);
        Box::new(self.warm_up.into_iter().fold(timeout, AdaptiveTimeout::warm_up))
    }
}

/// An adaptive limit. With `slow` it is the algorithm `aimd`, and only then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "AnyMoving")]
pub(super) struct Moving {
    algorithm: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow: Option<Span>,
    min: Option<usize>,
    max: Option<usize>,
    interval: Option<Span>,
}

/// As it is read, before its parts are held against each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyMoving {
    algorithm: Kind,
    slow: Option<Span>,
    min: Option<usize>,
    max: Option<usize>,
    interval: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Vegas,
    Gradient,
    Aimd,
}

impl TryFrom<AnyMoving> for Moving {
    type Error = &'static str;

    fn try_from(any: AnyMoving) -> Result<Self, &'static str> {
        let AnyMoving { algorithm, slow, min, max, interval } = any;
        match (algorithm, slow) {
            (Kind::Aimd, None) => Err("`aimd` needs `slow`, from when on a call is too slow"),
            (Kind::Vegas | Kind::Gradient, Some(_)) => Err("`slow` is for the algorithm `aimd`"),
            _ => Ok(Self { algorithm, slow, min, max, interval }),
        }
    }
}

impl Whole for Moving {
    type Value = Box<AdaptiveLimit>;

    fn of(limit: &Box<AdaptiveLimit>) -> Self {
        let AdaptiveLimit { algorithm, min, max, interval } = **limit;
        let (algorithm, slow) = match algorithm {
            Algorithm::Vegas => (Kind::Vegas, None),
            Algorithm::Gradient => (Kind::Gradient, None),
            Algorithm::Aimd(slow) => (Kind::Aimd, Some(Whole::of(&slow))),
        };
        Self { algorithm, slow, min: Some(min), max: Some(max), interval: Some(Whole::of(&interval)) }
    }

    fn value(&self) -> Box<AdaptiveLimit> {
        let limit = match (self.algorithm, &self.slow) {
            (Kind::Aimd, Some(slow)) => AdaptiveLimit::aimd(slow.value()),
            (Kind::Gradient, _) => AdaptiveLimit::gradient(),
            _ => AdaptiveLimit::vegas(),
        };
        let limit = self.min.into_iter().fold(limit, AdaptiveLimit::min);
        let limit = self.max.into_iter().fold(limit, AdaptiveLimit::max);
        Box::new(self.interval.iter().map(Whole::value).fold(limit, AdaptiveLimit::interval))
    }
}
