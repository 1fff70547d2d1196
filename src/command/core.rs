//! What all handles of one command share.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use super::fallback::Fallbacks;
use super::roster::Roster;
use crate::breaker::circuit::Circuit;
use crate::breaker::machine::Fact;
use crate::breaker::state::{Figures, State};
use crate::bulkhead::Slots;
use crate::config::{Config, Settings};
use crate::error::ConfigError;
use crate::name::Name;
use crate::observe::bus::{Bus, Listener};
use crate::observe::event::{Change, Event, Report, Transition};
use crate::observe::meter::{Meter, Sample};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Stamp;
use crate::window::latency::Latencies;

/// A configuration that was checked.
#[derive(Debug)]
pub(crate) struct Plan {
    next: Config,
    settings: Settings,
}

/// A configuration that is in force, and what is left to do about it.
#[derive(Debug)]
#[must_use = "calls may wait to be woken, and nobody was told of it"]
pub(crate) struct Enacted {
    pub(crate) changes: Vec<Change>,
    woken: Vec<Waker>,
    at: Stamp,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) name: Name,
    pub(crate) group: Option<Name>,
    pub(crate) circuit: Circuit,
    pub(crate) slots: Slots,
    pub(crate) latencies: Option<Box<Latencies>>,
    pub(crate) fallbacks: Fallbacks,
    pub(crate) eldest: Eldest,
    pub(crate) meter: Meter,
    pub(crate) bus: Bus,
    /// Nanoseconds; `u64::MAX` without.
    timeout: AtomicU64,
    /// Longest wait in the bulkhead's queue, in nanoseconds; 0 without a queue.
    queue_wait: AtomicU64,
    pub(super) config: Mutex<Config>,
    /// What the builder said, once something else is in force.
    built: OnceLock<Box<Config>>,
    /// Events that are not the circuit's own.
    notices: Mutex<VecDeque<Event>>,
    /// Held by the one thread that delivers, so that events keep their order.
    delivering: Mutex<()>,
    /// When a refusal was last traced.
    pub(super) traced: AtomicU64,
    roster: Arc<Roster>,
    /// Its place on the roster, once it has one: what tells it from others there, also of the same name.
    pub(crate) place: Option<u64>,
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.roster.strike(place);
        }
    }
}

impl Core {
    pub(crate) fn new(
        name: Name,
        group: Option<Name>,
        (config, built): (Config, Option<Config>),
        settings: Settings,
        listeners: Vec<Listener>,
        roster: Arc<Roster>,
    ) -> Self {
        let now = Stamp::now();
        let slots = Slots::new(settings.capacity);
        Self {
            name,
            group,
            circuit: Circuit::new(now, settings.rules, Arc::clone(slots.flow()), fastrand::f64),
            slots,
            latencies: settings.latency_window.map(|window| Box::new(Latencies::new(now, window))),
            fallbacks: Fallbacks::new(settings.fallbacks),
            eldest: Eldest::default(),
            meter: Meter::new(name, group),
            bus: Bus::new(listeners),
            timeout: AtomicU64::new(settings.timeout),
            queue_wait: AtomicU64::new(settings.capacity.queue.map_or(0, |(_, wait)| wait)),
            config: Mutex::new(config),
            built: built.map_or_else(OnceLock::new, |built| OnceLock::from(Box::new(built))),
            notices: Mutex::new(VecDeque::new()),
            delivering: Mutex::new(()),
            traced: AtomicU64::new(0),
            roster,
            place: None,
        }
    }

    /// Enters the registry.
    pub(crate) fn enlist(mut self) -> Arc<Self> {
        let roster = Arc::clone(&self.roster);
        roster.enlist(|place, overlay| {
            self.place = Some(place);
            // A file may have been applied since the builder looked. Nobody knows this command yet, so nobody is told.
            if let Some(overlay) = overlay {
                let next = overlay(self.config_as_built(), self.name.as_str(), self.group.map(Name::as_str));
                if next != self.config() {
                    let _ = self.plan(next).map(|plan| self.enact(plan));
                }
            }
            Arc::new(self)
        })
    }

    // ---- configuration ----

    pub(crate) fn timeout(&self) -> u64 {
        self.timeout.load(Ordering::Relaxed)
    }

    /// Longest wait in the queue, in nanoseconds; `None` without a queue.
    pub(crate) fn queue_wait(&self) -> Option<u64> {
        Some(self.queue_wait.load(Ordering::Relaxed)).filter(|&wait| wait > 0)
    }

    pub(crate) fn config(&self) -> Config {
        self.config.lock().clone()
    }

    /// The configuration that the builder made, whatever has been in force since.
    pub(crate) fn config_as_built(&self) -> Config {
        let config = self.config.lock();
        self.built.get().map_or_else(|| config.clone(), |built| Config::clone(built))
    }

    /// Takes the configuration that `change` makes of the present one, or none of it.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(Config) -> Config) -> Result<(), ConfigError> {
        let plan = self.plan(change(self.config()));
        self.meter.reload(plan.is_ok());
        self.announce_change(self.enact(plan?));
        Ok(())
    }

    /// Checks a successor of the present configuration. Changes nothing.
    pub(crate) fn plan(&self, next: Config) -> Result<Plan, ConfigError> {
        let settings = self.config.lock().succeed(&next)?;
        Ok(Plan { next, settings })
    }

    /// Puts a configuration that was checked in force, and leaves it to [`Core::announce_change`] to run user code.
    pub(crate) fn enact(&self, Plan { next, settings }: Plan) -> Enacted {
        let now = Stamp::now();
        // One at a time, so that what is shown is what is in force.
        let mut config = self.config.lock();
        let changes = config.changes(&next);
        let before = std::mem::replace(&mut *config, next);
        self.built.get_or_init(|| Box::new(before));
        self.timeout.store(settings.timeout, Ordering::Relaxed);
        self.queue_wait.store(settings.capacity.queue.map_or(0, |(_, wait)| wait), Ordering::Relaxed);
        self.circuit.reconfigure(now, settings.rules);
        self.fallbacks.resize(settings.fallbacks);
        Enacted { changes, woken: self.slots.resize(settings.capacity), at: now }
    }

    /// Called without any lock.
    pub(crate) fn announce_change(&self, Enacted { changes, woken, at }: Enacted) {
        woken.into_iter().for_each(Waker::wake);
        self.notify(Event::Reconfigured { command: self.name.as_str(), changes, at: at.wall_clock() });
    }

    /// Called without any lock: delivers an event that is not the circuit's own.
    pub(crate) fn notify(&self, event: Event) {
        self.notices.lock().push_back(event);
        self.publish();
    }

    // ---- events ----

    /// Delivers what has happened. Called without any lock; whoever comes while another thread delivers leaves its
    /// events to that one, which looks again before it goes.
    pub(crate) fn publish(&self) {
        while let Some(turn) = self.delivering.try_lock() {
            for (fact, figures) in self.circuit.take_facts() {
                self.announce(&fact, figures);
            }
            let notices = std::mem::take(&mut *self.notices.lock());
            notices.iter().for_each(|event| self.deliver(event));
            drop(turn);
            if !self.circuit.has_news() && self.notices.lock().is_empty() {
                return;
            }
        }
    }

    fn announce(&self, fact: &Fact, figures: Figures) {
        if let &Fact::Changed { from, to, cause, .. } = fact {
            self.meter.transition(from, to, cause.as_str());
        }
        self.deliver(&self.event(fact, figures));
    }

    fn deliver(&self, event: &Event) {
        match event {
            Event::Transition(transition) if matches!(transition.to, State::Open | State::ForcedOpen) => {
                let (from, to) = (transition.from.as_str(), transition.to.as_str());
                tracing::warn!(target: "fusebox", command = %self.name, from, to, "{event}");
            }
            _ => tracing::info!(target: "fusebox", command = %self.name, "{event}"),
        }
        self.bus.deliver(event);
        self.roster.bus.deliver(event);
    }

    fn event(&self, fact: &Fact, figures: Figures) -> Event {
        let command = self.name.as_str();
        match fact {
            &Fact::Changed { from, to, cause, generation, lasted, refuses_until, at } => {
                Event::Transition(Transition {
                    command,
                    group: self.group.map(Name::as_str),
                    from,
                    to,
                    cause,
                    at: at.wall_clock(),
                    lasted: Duration::from_nanos(lasted),
                    generation,
                    report: self.report(at, figures, refuses_until.map(|until| until.since(at))),
                })
            }
            Fact::OverrideSet { forced, hold, at } => Event::OverrideSet {
                command,
                forced: *forced,
                reason: hold.reason.clone(),
                until: (hold.until != Stamp::NEVER).then(|| at.wall_clock() + hold.until.since(*at)),
                at: at.wall_clock(),
            },
            Fact::OverrideCleared { forced, hold, expired, at } => Event::OverrideCleared {
                command,
                forced: *forced,
                reason: hold.reason.clone(),
                expired: *expired,
                at: at.wall_clock(),
            },
            &Fact::LeaseExpired { generation, at } => Event::LeaseExpired { command, generation, at: at.wall_clock() },
        }
    }

    fn report(&self, at: Stamp, figures: Figures, wait: Option<Duration>) -> Report {
        let latency = self.latencies.as_ref().map(|latencies| latencies.summary(at)).unwrap_or_default();
        Report {
            health: figures.health,
            window: figures.window,
            span: figures.span,
            p50: latency.percentile(0.5),
            p99: latency.percentile(0.99),
            oldest_in_flight: self.eldest.age(at),
            wait,
        }
    }

    /// Brings the sampled metrics up to date.
    pub(crate) fn sample(&self) {
        let view = self.circuit.view(Stamp::now());
        let config = self.config();
        self.meter.sample(&Sample {
            state: view.state,
            in_flight: self.slots.in_flight(),
            limit: self.slots.limit(),
            queue_length: self.slots.waiting(),
            window_calls: view.health.total,
            window_error_ratio: view.health.error_rate().unwrap_or(0.0),
            error_rate: config.breaker.error_rate,
            min_calls: config.breaker.min_calls,
            open_for: config.breaker.open_for,
            timeout: config.timeout,
        });
    }
}

/// The oldest call in flight, as far as one word can know it.
///
/// A call that has to wait claims the word if it is free, and frees it when it ends; all others pay one load. So what
/// is shown is the age of a call that is in flight, and in a hang, where calls stop ending, of the first that hung or
/// nearly so.
#[derive(Debug, Default)]
pub(crate) struct Eldest(AtomicU64);

impl Eldest {
    /// Whether the call that began at `start` is now the one that is tracked; it must then [`Eldest::release`].
    #[inline]
    pub(crate) fn claim(&self, start: Stamp) -> bool {
        let start = start.as_nanos().max(1);
        self.0.load(Ordering::Relaxed) == 0
            && self.0.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn release(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(crate) fn age(&self, now: Stamp) -> Option<Duration> {
        let start = self.0.load(Ordering::Relaxed);
        (start != 0).then(|| now.since(Stamp::from_nanos(start)))
    }
}
