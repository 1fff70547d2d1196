//! What the circuits of one name share: identity, configuration, metrics, and the line to those who listen.
//!
//! A command is a family of one. Where one command is kept per host or tenant there are many circuits, and what is the
//! same for all of them is here, once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use super::core::Core;
use super::persistence::Persistence;
use super::roster::Roster;
use super::snapshot::Totals;
use crate::breaker::state::State;
use crate::config::{Checked, Config, Settings};
use crate::error::{ConfigError, Problems};
use crate::name::Name;
use crate::observe::bus::{Bus, Listener};
use crate::observe::event::{Change, Event};
use crate::observe::meter::Meter;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Stamp;

/// A configuration that is in force, and what is left to do about it.
#[derive(Debug)]
#[must_use = "calls may wait to be woken, and nobody was told of it"]
pub(crate) struct Enacted {
    pub(crate) changes: Vec<Change>,
    pub(super) woken: Vec<Waker>,
    pub(super) at: Stamp,
    /// What was in force. It may hold user code, so it is dropped with this, outside all locks.
    pub(super) before: Arc<Checked>,
}

/// Gives all circuits of a family. No user code: it is called under a lock.
pub(crate) type Circuits = Box<dyn Fn() -> Vec<Arc<Core>> + Send + Sync>;

/// What a family has that may have many circuits.
struct Many {
    circuits: Circuits,
    /// What was counted in circuits that are gone.
    gone: Mutex<Totals>,
}

pub(crate) struct Family {
    pub(crate) name: Name,
    pub(crate) group: Option<Name>,
    pub(crate) meter: Meter,
    pub(crate) bus: Bus,
    /// Nanoseconds; `u64::MAX` without, and [`Settings::OWN_TIMEOUT`] where each circuit has its own.
    timeout: AtomicU64,
    /// Longest wait in the bulkhead's queue, in nanoseconds; 0 without a queue.
    queue_wait: AtomicU64,
    /// When a refusal was last traced.
    pub(super) traced: AtomicU64,
    /// The configuration, which may be shared with commands that have the same.
    in_force: Mutex<Arc<Checked>>,
    /// Held while another configuration is brought to all circuits, and by who must not see half of that.
    pub(super) changing: Mutex<()>,
    pub(super) persistence: Persistence,
    /// What the builder said, once something else is in force.
    built: OnceLock<Arc<Checked>>,
    /// Events that wait to be delivered, in order.
    #[allow(clippy::box_collection, reason = "a word in place of four, for what is seldom there")]
    pending: Mutex<Option<Box<VecDeque<Event>>>>,
    /// Held by the one thread that delivers, so that events keep their order.
    delivering: Mutex<()>,
    /// Where there can be more than one circuit.
    many: OnceLock<Box<Many>>,
    roster: Arc<Roster>,
    /// Its place on the roster, once it has one: what tells it from others there, also of the same name.
    pub(crate) place: OnceLock<u64>,
}

impl Drop for Family {
    fn drop(&mut self) {
        if let Some(&place) = self.place.get() {
            self.roster.strike(place);
        }
    }
}

impl Family {
    pub(crate) fn new(
        name: Name,
        group: Option<Name>,
        (in_force, built): (&Arc<Checked>, Option<Arc<Checked>>),
        listeners: Vec<Listener>,
        roster: Arc<Roster>,
    ) -> Self {
        let family = Self {
            name,
            group,
            meter: Meter::new(name, group),
            bus: Bus::new(listeners),
            timeout: AtomicU64::new(0),
            queue_wait: AtomicU64::new(0),
            traced: AtomicU64::new(0),
            in_force: Mutex::new(Arc::clone(in_force)),
            changing: Mutex::new(()),
            persistence: Persistence::default(),
            built: built.map_or_else(OnceLock::new, OnceLock::from),
            pending: Mutex::new(None),
            delivering: Mutex::new(()),
            many: OnceLock::new(),
            roster,
            place: OnceLock::new(),
        };
        family.show(&in_force.settings);
        family
    }

    pub(super) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Says that this family may have many circuits, and where they are.
    pub(crate) fn set_circuits(&self, circuits: Circuits) {
        let _only_once = self.many.set(Box::new(Many { circuits, gone: Mutex::default() }));
    }

    /// All its circuits; none for a family of one.
    pub(crate) fn circuits(&self) -> Vec<Arc<Core>> {
        self.many.get().map(|many| (many.circuits)()).unwrap_or_default()
    }

    /// Keeps what was counted in a circuit that goes.
    pub(crate) fn retire(&self, core: &Core) {
        if let Some(many) = self.many.get() {
            let totals = Totals::of(core, Stamp::now());
            many.gone.lock().add(&totals);
        }
    }

    /// What was counted in circuits that are gone.
    pub(super) fn gone(&self) -> Totals {
        self.many.get().map(|many| many.gone.lock().clone()).unwrap_or_default()
    }

    // ---- configuration ----

    #[inline]
    pub(crate) fn timeout(&self) -> u64 {
        self.timeout.load(Ordering::Relaxed)
    }

    /// Longest wait in the queue, in nanoseconds; `None` without a queue.
    pub(crate) fn queue_wait(&self) -> Option<u64> {
        Some(self.queue_wait.load(Ordering::Relaxed)).filter(|&wait| wait > 0)
    }

    /// In nanoseconds; `u64::MAX` without. Takes a lock: not for the path of every call.
    pub(crate) fn deadline(&self) -> u64 {
        self.in_force.lock().config.attempts().deadline()
    }

    /// Whether this is what is in force.
    pub(crate) fn has(&self, config: &Config) -> bool {
        self.in_force.lock().config == *config
    }

    pub(crate) fn in_force(&self) -> Arc<Checked> {
        Arc::clone(&self.in_force.lock())
    }

    /// The configuration that the builder made, whatever has been in force since.
    pub(crate) fn as_built(&self) -> Arc<Checked> {
        let in_force = self.in_force.lock();
        Arc::clone(self.built.get().unwrap_or(&in_force))
    }

    /// Checks a successor of the present configuration. Changes nothing.
    pub(crate) fn plan(&self, next: Config) -> Result<Arc<Checked>, ConfigError> {
        let mut problems = Problems::default();
        let next = self.roster.check(next, &mut problems);
        self.in_force.lock().config.allow(&next.config, &mut problems);
        problems.finish().map(|()| next)
    }

    /// Puts a configuration that was checked in force: `apply` brings it to the circuits, and says whom to wake.
    pub(crate) fn enact(&self, next: Arc<Checked>, apply: impl FnOnce(Stamp, &Settings) -> Vec<Waker>) -> Enacted {
        let at = Stamp::now();
        // One at a time, so that what is shown is what is in force.
        let _one = self.changing.lock();
        // Before the circuits are looked for: one that joins them later sees it.
        let before = {
            let mut in_force = self.in_force.lock();
            self.built.get_or_init(|| Arc::clone(&in_force));
            std::mem::replace(&mut *in_force, Arc::clone(&next))
        };
        self.persistence.follow(&next.config);
        let woken = apply(at, &next.settings);
        self.show(&next.settings);
        Enacted { changes: before.config.changes(&next.config), woken, at, before }
    }

    /// Shows calls what they read without a lock.
    fn show(&self, settings: &Settings) {
        self.timeout.store(settings.shared_timeout(), Ordering::Relaxed);
        self.queue_wait.store(settings.capacity.queue.map_or(0, |(_, wait)| wait), Ordering::Relaxed);
    }

    // ---- events ----

    /// Takes in the events that `next` gives. Under one lock with the taking, so that those of one circuit keep their
    /// order.
    pub(crate) fn collect<I: Iterator<Item = Event>>(&self, next: impl FnOnce() -> I) {
        let mut pending = self.pending.lock();
        pending.get_or_insert_default().extend(next());
    }

    /// Delivers what waits. Called without any lock; whoever comes while another thread delivers leaves its events to
    /// that one, which looks again before it goes.
    pub(crate) fn deliver(&self) {
        while let Some(turn) = self.delivering.try_lock() {
            while let Some(event) = self.next() {
                self.tell(&event);
            }
            drop(turn);
            if self.pending.lock().as_ref().is_none_or(|pending| pending.is_empty()) {
                return;
            }
        }
    }

    fn next(&self) -> Option<Event> {
        self.pending.lock().as_mut()?.pop_front()
    }

    fn tell(&self, event: &Event) {
        if let Event::Transition(transition) = event {
            let alone = self.many.get().is_none();
            self.meter.transition(transition.from, transition.to, transition.cause.as_str(), alone);
        }
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
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("name", &self.name).field("group", &self.group).finish_non_exhaustive()
    }
}
