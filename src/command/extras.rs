//! What only some commands have, off the plain call's way.
//!
//! A command without any of it holds an empty cell, and a call looks at that once on its way in. The parts are made
//! when the configuration first asks for one of them, and stay: a part that is switched off live lets everything pass.

use crate::config::Settings;
use crate::rate_limit::limiter::Limiter;
use crate::sync::OnceLock;
use crate::time::Stamp;

#[derive(Debug)]
pub(crate) struct Extras(OnceLock<Box<Parts>>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) limiter: Limiter,
}

impl Extras {
    pub(crate) fn new(settings: &Settings) -> Self {
        let extras = Self(OnceLock::new());
        if settings.asks_for_extras() {
            extras.0.get_or_init(|| Box::new(Parts::new(settings)));
        }
        extras
    }

    /// The parts, if there ever were any.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Parts> {
        self.0.get().map(|parts| &**parts)
    }

    /// Takes new settings; one change at a time.
    pub(crate) fn reconfigure(&self, now: Stamp, settings: &Settings) {
        match self.0.get() {
            Some(parts) => parts.limiter.change(now, settings.rate),
            None if settings.asks_for_extras() => drop(self.0.set(Box::new(Parts::new(settings)))),
            None => {}
        }
    }
}

impl Parts {
    fn new(settings: &Settings) -> Self {
        Self { limiter: Limiter::new(settings.rate) }
    }
}
