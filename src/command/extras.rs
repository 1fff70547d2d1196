//! What only some commands have, off the plain call's way.
//!
//! A command without any of it holds an empty cell, which a call looks at once on its way in and once on its way out.
//! The parts are made when the configuration first asks for one of them, and stay: a part that is switched off live does
//! nothing.

use std::task::Waker;
use std::time::Duration;

use super::core::Core;
use crate::adaptive::control::{Control, Moved, Signal};
use crate::adaptive::timeout::Tuning;
use crate::breaker::state::State;
use crate::bulkhead::{Capacity, Slots};
use crate::config::{Config, Extra, Settings};
use crate::observe::event::Event;
use crate::outcome::Outcome;
use crate::rate_limit::limiter::Limiter;
use crate::sync::{AtomicU64, Mutex, OnceLock, Ordering};
use crate::time::{Stamp, saturating_nanos};

#[derive(Debug)]
pub(crate) struct Extras(OnceLock<Box<Parts>>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) limiter: Limiter,
    /// A limit on calls in flight that moves, and the capacity that it is a part of. Held while the limit is set, so that a later one is not overtaken.
    control: Mutex<(Option<Control>, Capacity)>,
    /// The timeout in force, in nanoseconds; `u64::MAX` without.
    timeout: AtomicU64,
    /// When the timeout is next to be computed; [`Stamp::NEVER`] while it is fixed.
    due: AtomicU64,
    tuner: Mutex<Tuner>,
}

/// What becomes of a fixed timeout.
#[derive(Debug)]
struct Tuner {
    tuning: Option<Tuning>,
    /// The timeout that it began with.
    fixed: u64,
    /// The timeout when it was last news.
    told: u64,
}

/// A call that ended, as far as limits and timeouts learn from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) admitted: Stamp,
    pub(crate) at: Stamp,
    pub(crate) outcome: Outcome,
    /// Nanoseconds.
    pub(crate) elapsed: u64,
}

impl Extras {
    pub(crate) fn new(now: Stamp, settings: &Settings) -> Self {
        let extras = Self(OnceLock::new());
        extras.add(now, settings);
        extras
    }

    fn add(&self, now: Stamp, settings: &Settings) {
        if let Some(extra) = &settings.extra {
            self.0.get_or_init(|| Box::new(Parts::new(now, settings, extra)));
        }
    }

    /// The parts, if there ever were any.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Parts> {
        self.0.get().map(|parts| &**parts)
    }

    /// Takes new settings, one change at a time, the limit on calls in flight included. Returns whom to wake.
    pub(crate) fn reconfigure(&self, now: Stamp, settings: &Settings, slots: &Slots) -> Vec<Waker> {
        match self.0.get() {
            Some(parts) => parts.reconfigure(now, settings, slots),
            None => {
                self.add(now, settings);
                slots.resize(settings.capacity)
            }
        }
    }
}

impl Parts {
    fn new(now: Stamp, settings: &Settings, extra: &Extra) -> Self {
        let (timeout, Extra { tuning, bounds, rate }) = (settings.timeout, *extra);
        Self {
            limiter: Limiter::new(rate),
            control: Mutex::new((bounds.map(|bounds| Control::new(now, bounds)), settings.capacity)),
            timeout: AtomicU64::new(timeout),
            due: AtomicU64::new(first_due(now, tuning).as_nanos()),
            tuner: Mutex::new(Tuner { tuning, fixed: timeout, told: timeout }),
        }
    }

    pub(crate) fn timeout(&self) -> u64 {
        self.timeout.load(Ordering::Relaxed)
    }

    fn reconfigure(&self, now: Stamp, settings: &Settings, slots: &Slots) -> Vec<Waker> {
        let Extra { tuning, bounds, rate } = settings.extra.as_deref().copied().unwrap_or_default();
        self.limiter.change(now, rate);
        self.retune(now, settings.timeout, tuning);
        let mut moving = self.control.lock();
        let (control, capacity) = &mut *moving;
        let limit = bounds.map(|bounds| match &mut *control {
            Some(control) => {
                control.change(now, bounds);
                control.limit()
            }
            none => none.insert(Control::new(now, bounds)).limit(),
        });
        if limit.is_none() {
            *control = None;
        }
        *capacity = limit.map_or(settings.capacity, |limit| settings.capacity.at(limit));
        slots.resize(*capacity)
    }

    /// A timeout that has been found stays, within its new bounds; another fixed timeout begins anew.
    fn retune(&self, now: Stamp, fixed: u64, tuning: Option<Tuning>) {
        let mut tuner = self.tuner.lock();
        let next = match tuning {
            Some(tuning) if tuner.tuning.is_some() && fixed == tuner.fixed => {
                let current = self.timeout();
                if current == tuner.fixed { current } else { tuning.hold(current) }
            }
            _ => fixed,
        };
        if tuning != tuner.tuning {
            self.due.store(first_due(now, tuning).as_nanos(), Ordering::Relaxed);
        }
        *tuner = Tuner { tuning, fixed, told: next };
        self.timeout.store(next, Ordering::Relaxed);
    }
}

/// The first interval is not waited for: the warm-up is a number of calls.
fn first_due(now: Stamp, tuning: Option<Tuning>) -> Stamp {
    if tuning.is_some() { now } else { Stamp::NEVER }
}

impl Core {
    /// Takes in a call that has given its slot back. Called without any lock.
    #[cold]
    pub(super) fn learn(&self, parts: &Parts, call: Ended) {
        if let Some(moved) = self.move_limit(parts, call) {
            let (command, key, (before, after), at) = (self.name().as_str(), self.key(), moved, call.at.wall_clock());
            self.notify(Event::LimitAdapted { command, key, before, after, at });
        }
        if call.at.as_nanos() >= parts.due.load(Ordering::Relaxed) {
            if let Some((before, after)) = self.tune(parts, call.at) {
                let (command, key, at) = (self.name().as_str(), self.key(), call.at.wall_clock());
                self.notify(Event::TimeoutAdapted { command, key, before, after, at });
            }
        }
    }

    /// The limit before and after, if that is news.
    fn move_limit(&self, parts: &Parts, call: Ended) -> Option<(usize, usize)> {
        let signal = match call.outcome {
            Outcome::Success => Signal::Success(call.elapsed),
            Outcome::TimedOut => Signal::TimedOut(call.elapsed),
            Outcome::Failure | Outcome::Panicked => Signal::Failure,
            _ => return None,
        };
        // A window wants some calls, not all: one that meets another here is left out, and waits for nobody.
        let mut moving = parts.control.try_lock()?;
        let (control, capacity) = &mut *moving;
        let in_flight = self.slots.in_flight() + 1;
        let Moved { to, news } = control.as_mut()?.sample(call.at, call.admitted, in_flight, signal)?;
        let woken = self.slots.resize(capacity.at(to));
        drop(moving);
        woken.into_iter().for_each(Waker::wake);
        news.map(|before| (before as usize, to as usize))
    }

    /// Computes the timeout anew; the one before and the one after, if that is news.
    fn tune(&self, parts: &Parts, now: Stamp) -> Option<(Option<Duration>, Duration)> {
        let mut tuner = parts.tuner.try_lock()?;
        let tuning = tuner.tuning?;
        if now.as_nanos() < parts.due.load(Ordering::Relaxed) || self.circuit.state(now) != State::Closed {
            return None;
        }
        let found = tuning.timeout(&self.latencies.as_ref()?.summary(now));
        // In the warm-up every call looks whether it is over: the window has few of them then.
        let after = found?;
        parts.due.store(now.plus(tuning.interval).as_nanos(), Ordering::Relaxed);
        parts.timeout.store(after, Ordering::Relaxed);
        let is_news = after >= tuner.told.saturating_mul(2) || after <= tuner.told / 2;
        is_news.then(|| (shown(std::mem::replace(&mut tuner.told, after)), Duration::from_nanos(after)))
    }

    /// The timeout that a call has which says nothing else, in nanoseconds; `u64::MAX` without.
    #[inline]
    pub(crate) fn timeout(&self) -> u64 {
        let shared = self.family.timeout();
        if shared == Settings::OWN_TIMEOUT { self.own_timeout() } else { shared }
    }

    #[cold]
    fn own_timeout(&self) -> u64 {
        self.extras.get().map_or_else(|| fixed_timeout(&self.family.in_force().config), Parts::timeout)
    }

    /// As [`Core::timeout`], while no other configuration takes the place of this.
    pub(super) fn timeout_in_force(&self, config: &Config) -> u64 {
        let own = self.extras.get().filter(|_| config.adaptive_timeout.is_some());
        own.map_or_else(|| fixed_timeout(config), Parts::timeout)
    }
}

fn fixed_timeout(config: &Config) -> u64 {
    config.timeout.map_or(u64::MAX, saturating_nanos)
}

/// A timeout in nanoseconds, as people see it.
pub(super) fn shown(timeout: u64) -> Option<Duration> {
    (timeout != u64::MAX).then(|| Duration::from_nanos(timeout))
}
