//! One circuit with all that belongs to it: what all handles of a command share.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::extras::{self, Extras};
use super::fallback::Fallbacks;
use super::family::{Enacted, Family};
use crate::breaker::circuit::Circuit;
use crate::breaker::machine::Fact;
use crate::breaker::state::Figures;
use crate::bulkhead::Slots;
use crate::config::{Checked, Config, Settings};
use crate::error::ConfigError;
use crate::name::Name;
use crate::observe::event::{Event, Report, Transition};
use crate::observe::meter::Sample;
use crate::sync::{AtomicU64, Ordering};
use crate::time::Stamp;
use crate::window::counts::Health;
use crate::window::latency::Latencies;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) family: Arc<Family>,
    /// Which one of its family, as text; `None` in a family of one.
    key: Option<Box<str>>,
    pub(crate) circuit: Circuit,
    pub(crate) slots: Slots,
    pub(crate) latencies: Option<Box<Latencies>>,
    /// What only some commands have: one look tells a call that there is none of it.
    pub(crate) extras: Extras,
    pub(crate) fallbacks: Fallbacks,
    pub(crate) eldest: Eldest,
}

impl Core {
    /// A circuit of a family, with the settings that the family has now; latencies are its own affair.
    pub(crate) fn new(
        family: Arc<Family>,
        key: Option<Box<str>>,
        settings: &Settings,
        latency_window: Option<u64>,
    ) -> Self {
        let now = Stamp::now();
        let (slots, extras) = (Slots::new(settings.capacity), Extras::new(now, settings));
        Self {
            family,
            key,
            circuit: Circuit::new(now, Arc::clone(&settings.rules), Arc::clone(slots.flow()), fastrand::f64),
            slots,
            latencies: latency_window.map(|window| Box::new(Latencies::new(now, window))),
            extras,
            fallbacks: Fallbacks::new(settings.fallbacks),
            eldest: Eldest::default(),
        }
    }

    /// Enters the registry, as the one circuit of its family.
    pub(crate) fn enlist(self) -> Arc<Self> {
        let roster = Arc::clone(self.family.roster());
        roster.enlist(|place, overlay| {
            let family = &self.family;
            family.place.set(place).expect("a family is enlisted once");
            // A file may have been applied since the builder looked. Nobody knows this command yet, so nobody is told.
            if let Some(overlay) = overlay {
                let as_built = family.as_built().config.clone();
                let next = overlay(as_built, family.name.as_str(), family.group.map(Name::as_str));
                if !family.has(&next) {
                    let _ = family.plan(next).map(|plan| self.enact(plan));
                }
            }
            Arc::new(self)
        })
    }

    pub(crate) fn name(&self) -> Name {
        self.family.name
    }

    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.label().map(Arc::from)
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Nothing is going on that would be lost with it: it is closed, no call is in flight or waits, and all was told.
    pub(crate) fn is_idle(&self) -> bool {
        let at_rest = self.circuit.word().is_closed() && !self.circuit.has_news();
        at_rest && self.slots.in_flight() == 0 && self.slots.waiting() == 0
    }

    // ---- configuration ----

    /// Takes the configuration that `change` makes of the present one, or none of it.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(Config) -> Config) -> Result<(), ConfigError> {
        let family = &self.family;
        let plan = family.plan(change(family.in_force().config.clone()));
        family.meter.reload(plan.is_ok());
        self.announce_change(self.enact(plan?));
        Ok(())
    }

    /// Puts a configuration that was checked in force for the whole family, and leaves it to [`Core::announce_change`]
    /// to run user code.
    pub(crate) fn enact(&self, plan: Arc<Checked>) -> Enacted {
        self.family.enact(plan, |now, settings| {
            let mut woken = self.apply(now, settings);
            for other in self.family.circuits().iter().filter(|other| !std::ptr::eq(&***other, self)) {
                woken.extend(other.apply(now, settings));
            }
            woken
        })
    }

    /// Called without any lock.
    pub(crate) fn announce_change(&self, Enacted { changes, woken, at, before }: Enacted) {
        drop(before);
        woken.into_iter().for_each(Waker::wake);
        self.notify(Event::Reconfigured { command: self.name().as_str(), changes, at: at.wall_clock() });
    }

    /// Takes the settings in force. Called without any lock.
    pub(crate) fn catch_up(&self) {
        let unchanged = self.family.changing.lock();
        let woken = self.apply(Stamp::now(), &self.family.in_force().settings);
        drop(unchanged);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Takes new settings, and says whom to wake.
    fn apply(&self, now: Stamp, settings: &Settings) -> Vec<Waker> {
        self.circuit.reconfigure(now, Arc::clone(&settings.rules));
        self.fallbacks.resize(settings.fallbacks);
        self.extras.reconfigure(now, settings, &self.slots)
    }

    // ---- events ----

    /// Delivers what has happened. Called without any lock.
    pub(crate) fn publish(&self) {
        self.publish_with(None);
    }

    /// Called without any lock: delivers an event that is not the circuit's own.
    pub(crate) fn notify(&self, event: Event) {
        self.publish_with(Some(event));
    }

    fn publish_with(&self, last: Option<Event>) {
        self.family.collect(|| {
            let facts = self.circuit.take_facts().into_iter();
            facts.map(|(fact, figures)| self.event(&fact, figures)).chain(last)
        });
        self.circuit.ring();
        self.family.deliver();
    }

    fn event(&self, fact: &Fact, figures: Figures) -> Event {
        let (command, key) = (self.name().as_str(), self.key());
        match fact {
            &Fact::Changed { from, to, cause, generation, lasted, refuses_until, at } => {
                Event::Transition(Transition {
                    command,
                    key,
                    group: self.family.group.map(Name::as_str),
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
                key,
                forced: *forced,
                reason: hold.reason.clone(),
                until: (hold.until != Stamp::NEVER).then(|| at.wall_clock() + hold.until.since(*at)),
                at: at.wall_clock(),
            },
            Fact::OverrideCleared { forced, hold, expired, at } => Event::OverrideCleared {
                command,
                key,
                forced: *forced,
                reason: hold.reason.clone(),
                expired: *expired,
                at: at.wall_clock(),
            },
            &Fact::Stage { stage, generation, at } => {
                Event::RampStage { command, key, stage, generation, at: at.wall_clock() }
            }
            &Fact::LeaseExpired { generation, at } => {
                Event::LeaseExpired { command, key, generation, at: at.wall_clock() }
            }
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

    /// Brings the sampled metrics of the whole family up to date.
    pub(crate) fn sample(&self) {
        let (now, in_force, circuits) = (Stamp::now(), self.family.in_force(), self.family.circuits());
        let config = &in_force.config;
        let mut sample = Sample {
            states: Default::default(),
            in_flight: 0,
            limit: None,
            queue_length: 0,
            health: Health::default(),
            admitted_share: config.breaker.ramp.is_some().then_some(0.0),
            keyed: !circuits.is_empty(),
            error_rate: config.breaker.error_rate,
            min_calls: config.breaker.min_calls,
            open_for: config.breaker.open_for,
            timeout: extras::shown(self.timeout()),
            adaptive_limit: config.adaptive_limit.as_ref().map(|limit| (limit.min, limit.max)),
            rate_limit: config.rate_limit.as_ref().map(|limit| limit.rate()),
            amplification: self.family.persistence.counts(now).shown_amplification(),
        };
        if circuits.is_empty() {
            self.add_to(&mut sample, now);
        }
        circuits.iter().for_each(|circuit| circuit.add_to(&mut sample, now));
        sample.admitted_share = sample.admitted_share.map(|sum| sum / circuits.len().max(1) as f64);
        self.family.meter.sample(&sample);
    }

    fn add_to(&self, sample: &mut Sample, now: Stamp) {
        let view = self.circuit.view(now);
        sample.states[view.state as usize] += 1;
        sample.in_flight += u64::from(self.slots.in_flight());
        // All have one or none has: they share a configuration.
        sample.limit = self.slots.limit().map(|limit| u64::from(limit) + sample.limit.unwrap_or(0));
        sample.queue_length += u64::from(self.slots.waiting());
        sample.health.errors += view.health.errors;
        sample.health.total += view.health.total;
        sample.admitted_share = sample.admitted_share.map(|sum| sum + view.admitted_share());
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
