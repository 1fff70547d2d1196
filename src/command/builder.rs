//! The builder of a command.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Command;
use super::core::Core;
use super::family::Family;
use super::roster::Roster;
use crate::adaptive::limit::AdaptiveLimit;
use crate::adaptive::timeout::AdaptiveTimeout;
use crate::breaker::config::Breaker;
use crate::budget::Budget;
use crate::bulkhead::Bulkhead;
use crate::config::Config;
use crate::error::{ConfigError, Problems};
use crate::hedge::Hedge;
use crate::name::Name;
use crate::observe::bus::Listener;
use crate::observe::event::Event;
use crate::outcome::ByResult;
use crate::rate_limit::config::RateLimit;
use crate::retry::Retry;

/// Builds a [`Command`]; made by [`Command::builder`]. Every setting has a default: see [`Config`] and [`Breaker`].
#[must_use = "a builder does nothing until `build`"]
pub struct Builder<C = ByResult> {
    name: String,
    group: Option<String>,
    config: Config,
    classify: C,
    listeners: Vec<Listener>,
    pub(crate) roster: Arc<Roster>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            group: None,
            config: Config::default(),
            classify: ByResult,
            listeners: Vec::new(),
            roster: Roster::global(),
        }
    }
}

impl<C> Builder<C> {
    /// The group under which dashboards show the command.
    pub fn group(mut self, group: &str) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Takes all settings from `config`, over those made so far.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// See [`Config::timeout`]. Default: 1 s.
    pub fn timeout(self, limit: Duration) -> Self {
        self.with(|config| config.timeout(limit))
    }

    /// See [`Config::no_timeout`].
    pub fn no_timeout(self) -> Self {
        self.with(Config::no_timeout)
    }

    /// See [`Config::max_concurrent`]. Default: 100.
    pub fn max_concurrent(self, limit: usize) -> Self {
        self.with(|config| config.max_concurrent(limit))
    }

    /// See [`Config::unlimited`].
    pub fn unlimited(self) -> Self {
        self.with(Config::unlimited)
    }

    /// See [`Config::bulkhead`]. Default: 100 calls, no queue.
    pub fn bulkhead(self, bulkhead: Bulkhead) -> Self {
        self.with(|config| config.bulkhead(bulkhead))
    }

    /// See [`Config::adaptive_timeout`]. Default: none.
    pub fn adaptive_timeout(self, timeout: AdaptiveTimeout) -> Self {
        self.with(|config| config.adaptive_timeout(timeout))
    }

    /// See [`Config::adaptive_limit`]. Default: none.
    pub fn adaptive_limit(self, limit: AdaptiveLimit) -> Self {
        self.with(|config| config.adaptive_limit(limit))
    }

    /// See [`Config::rate_limit`]. Default: none.
    pub fn rate_limit(self, limit: RateLimit) -> Self {
        self.with(|config| config.rate_limit(limit))
    }

    /// See [`Breaker`], with its defaults.
    pub fn breaker(self, breaker: Breaker) -> Self {
        self.with(|config| config.breaker(breaker))
    }

    /// See [`Config::max_concurrent_fallbacks`]. Default: 100.
    pub fn max_concurrent_fallbacks(self, limit: usize) -> Self {
        self.with(|config| config.max_concurrent_fallbacks(limit))
    }

    /// See [`Config::latency_window`]. Default: 60 s.
    pub fn latency_window(self, length: Duration) -> Self {
        self.with(|config| config.latency_window(length))
    }

    /// See [`Config::no_latency`].
    pub fn no_latency(self) -> Self {
        self.with(Config::no_latency)
    }

    /// See [`Config::deadline`]. Default: none.
    pub fn deadline(self, limit: Duration) -> Self {
        self.with(|config| config.deadline(limit))
    }

    /// See [`Config::retry`]. Default: 3 attempts, 50 ms doubling, full jitter.
    pub fn retry(self, retry: Retry) -> Self {
        self.with(|config| config.retry(retry))
    }

    /// See [`Config::hedge`]. Default: after the 95th percentile.
    pub fn hedge(self, hedge: Hedge) -> Self {
        self.with(|config| config.hedge(hedge))
    }

    /// See [`Config::budget`]. Default: 20 % of the calls, and 10 a second.
    pub fn budget(self, budget: Budget) -> Self {
        self.with(|config| config.budget(budget))
    }

    /// See [`Config::no_budget`].
    pub fn no_budget(self) -> Self {
        self.with(Config::no_budget)
    }

    /// What judges results; the default is [`ByResult`].
    pub fn classify<K>(self, classify: K) -> Builder<K> {
        let Self { name, group, config, classify: _, listeners, roster } = self;
        Builder { name, group, config, classify, listeners, roster }
    }

    /// Calls `listener` with every event, in order, one at a time, after all locks are released, on the thread that
    /// caused the event or on one that is just delivering an earlier one. It may call the command; one that owns a handle
    /// of it keeps it alive for good. A panic in it is caught and traced. [`Command::subscribe`] is the asynchronous form.
    ///
    /// ```
    /// use fusebox::Command;
    ///
    /// let command = Command::builder("audit").on_event(|event| eprintln!("{event}")).build()?;
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn on_event(mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// Builds an independent circuit, also when another command has the same name.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with every setting that is out of range, here or in what a file lays over it. What the builder
    /// says must hold without the file: it comes back when the file says nothing any more.
    pub fn build(self) -> Result<Command<C>, ConfigError> {
        let (core, classify) = self.prepare(None)?;
        Ok(Command { core: core.enlist(), classify: Arc::new(classify) })
    }

    /// Everything but entering the registry. `key` tells the circuit from others of its family.
    pub(crate) fn prepare(self, key: Option<Box<str>>) -> Result<(Core, C), ConfigError> {
        let Self { name, group, config, classify, listeners, roster } = self;
        let mut problems = Problems::default();
        Name::check(&mut problems, "name", &name);
        if let Some(group) = &group {
            Name::check(&mut problems, "group", group);
        }
        let own = roster.check(config, &mut problems);
        // Nothing is laid over what is wrong already, so that each problem is told once.
        let (in_force, built) = match roster.overlay().filter(|_| problems.is_empty()) {
            Some(overlay) => {
                let laid_over = overlay(own.config.clone(), &name, group.as_deref());
                (roster.check(laid_over, &mut problems), Some(own))
            }
            None => (own, None),
        };
        problems.finish()?;
        let (name, group) = (Name::intern(&name), group.as_deref().map(Name::intern));
        let family = Arc::new(Family::new(name, group, (&in_force, built), listeners, roster));
        Ok((Core::new(family, key, &in_force.settings, in_force.settings.latency_window), classify))
    }

    fn with(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.config = change(self.config);
        self
    }
}

impl<C> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("group", &self.group)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
