//! How calls of more than one attempt are written in a file.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::partial::PartialConfig;
use super::section::section;
use super::value::{Auto, Span, Switch, Whole, Written};
use crate::backoff::{Delays, Jitter};
use crate::budget::Budget;
use crate::config::Config;
use crate::hedge::Hedge;
use crate::retry::Retry;

section! {
    /// Delays of an iterator have no form in a file.
    pub(super) struct PartialRetry for Retry {
        attempts: u32;
        exponential: Span = exponential, set_exponential;
        growth: f64 = growth, |setting: &f64, retry: &mut Retry| *retry = std::mem::take(retry).growth(*setting);
        constant: Span = constant, set_constant;
        jitter: Chance;
        max_delay: Switch<Span, Auto>;
        timeouts: bool;
    }
    exclusive: [["exponential", "constant"], ["growth", "constant"]];
}

impl PartialRetry {
    fn own_problem(self) -> Option<String> {
        PartialConfig::of_retry(self).own_problem()
    }
}

fn exponential(retry: &Retry) -> Option<Span> {
    let Delays::Exponential { first, .. } = &retry.delays else { return None };
    Some(Whole::of(first))
}

fn growth(retry: &Retry) -> Option<f64> {
    let Delays::Exponential { growth, .. } = retry.delays else { return None };
    Some(growth)
}

fn constant(retry: &Retry) -> Option<Span> {
    let Delays::Constant(delay) = &retry.delays else { return None };
    Some(Whole::of(delay))
}

/// Delays of another kind come with the jitter that is usual for them.
fn set_exponential(setting: &Span, retry: &mut Retry) {
    match &mut retry.delays {
        Delays::Exponential { first, .. } => *first = setting.value(),
        _ => replace_delays(retry, Retry::exponential(setting.value())),
    }
}

fn set_constant(setting: &Span, retry: &mut Retry) {
    match &mut retry.delays {
        Delays::Constant(delay) => *delay = setting.value(),
        _ => replace_delays(retry, Retry::constant(setting.value())),
    }
}

fn replace_delays(retry: &mut Retry, by: Retry) {
    (retry.delays, retry.jitter) = (by.delays, by.jitter);
}

/// A kind of jitter by its name, or a share by which a delay varies either way.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Chance(Jitter);

const NAMES: [(&str, Jitter); 4] =
    [("none", Jitter::None), ("full", Jitter::Full), ("equal", Jitter::Equal), ("decorrelated", Jitter::Decorrelated)];

impl Whole for Chance {
    type Value = Jitter;

    fn of(jitter: &Jitter) -> Self {
        Self(*jitter)
    }

    fn value(&self) -> Jitter {
        self.0
    }
}

impl Serialize for Chance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Jitter::Spread(share) = self.0 {
            return serializer.serialize_f64(share);
        }
        let (name, _) = NAMES.iter().find(|(_, jitter)| *jitter == self.0).expect("every kind has a name");
        serializer.serialize_str(name)
    }
}

impl<'de> Deserialize<'de> for Chance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrShare;

        impl Visitor<'_> for NameOrShare {
            type Value = Chance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""none", "full", "equal", "decorrelated", or a share"#)
            }

            fn visit_f64<E: de::Error>(self, share: f64) -> Result<Chance, E> {
                Ok(Chance(Jitter::Spread(share)))
            }

            fn visit_i64<E: de::Error>(self, share: i64) -> Result<Chance, E> {
                self.visit_f64(share as f64)
            }

            fn visit_u64<E: de::Error>(self, share: u64) -> Result<Chance, E> {
                self.visit_f64(share as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Chance, E> {
                let known = NAMES.iter().find(|(name, _)| *name == text);
                known
                    .map(|(_, jitter)| Chance(*jitter))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(NameOrShare)
    }
}

/// A budget. What is not named of it is as usual; a budget that is shared cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Spending {
    share: f64,
    floor: f64,
    burst: u32,
}

impl Default for Spending {
    fn default() -> Self {
        Whole::of(&Budget::default())
    }
}

impl Whole for Spending {
    type Value = Budget;

    fn of(budget: &Budget) -> Self {
        Self { share: budget.share, floor: budget.floor, burst: budget.burst }
    }

    fn value(&self) -> Budget {
        Budget::share(self.share).floor(self.floor).burst(self.burst)
    }
}

/// A hedge: `{ after }`, or `{ percentile, warm_up }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Race", into = "Race")]
pub(super) struct Racing(Hedge);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Race {
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percentile: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_up: Option<u32>,
}

impl TryFrom<Race> for Racing {
    type Error = &'static str;

    fn try_from(Race { after, percentile, warm_up }: Race) -> Result<Self, &'static str> {
        match (after, percentile) {
            (Some(_), Some(_)) => Err("`after` and `percentile` exclude each other"),
            (Some(_), None) if warm_up.is_some() => Err("`after` and `warm_up` exclude each other"),
            (Some(after), None) => Ok(Self(Hedge::after(after.value()))),
            (None, percentile) => {
                let hedge = percentile.map_or_else(Hedge::default, Hedge::percentile);
                Ok(Self(warm_up.into_iter().fold(hedge, Hedge::warm_up)))
            }
        }
    }
}

impl From<Racing> for Race {
    fn from(Racing(hedge): Racing) -> Self {
        match hedge {
            Hedge::After(delay) => Self { after: Some(Whole::of(&delay)), percentile: None, warm_up: None },
            Hedge::Percentile { share, warm_up } => {
                Self { after: None, percentile: Some(share), warm_up: Some(warm_up) }
            }
        }
    }
}

impl Whole for Racing {
    type Value = Hedge;

    fn of(hedge: &Hedge) -> Self {
        Self(*hedge)
    }

    fn value(&self) -> Hedge {
        self.0
    }
}

// ---- where they are in a configuration ----

pub(super) fn hedge(config: &Config) -> Option<Racing> {
    Written::of(&config.attempts().hedge)
}

pub(super) fn set_hedge(setting: &Racing, config: &mut Config) {
    *config = std::mem::take(config).map_attempts(|attempts| setting.lay_over(&mut attempts.hedge));
}

pub(super) fn deadline(config: &Config) -> Option<Switch<Span>> {
    Written::of(&config.attempts().deadline)
}

pub(super) fn set_deadline(setting: &Switch<Span>, config: &mut Config) {
    *config = std::mem::take(config).map_attempts(|attempts| setting.lay_over(&mut attempts.deadline));
}

pub(super) fn retry(config: &Config) -> Option<PartialRetry> {
    Written::of(&config.attempts().retry)
}

pub(super) fn set_retry(setting: &PartialRetry, config: &mut Config) {
    *config = std::mem::take(config).map_attempts(|attempts| setting.lay_over(&mut attempts.retry));
}

pub(super) fn budget(config: &Config) -> Option<Switch<Spending>> {
    Written::of(&config.attempts().budget)
}

pub(super) fn set_budget(setting: &Switch<Spending>, config: &mut Config) {
    *config = std::mem::take(config).map_attempts(|attempts| setting.lay_over(&mut attempts.budget));
}
