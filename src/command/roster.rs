//! The list of commands that are alive, and the subscribers to all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use super::core::Core;
use crate::config::Config;
use crate::observe::bus::Bus;
use crate::sync::Mutex;

/// Commands in the order in which they were built. It holds none of them alive: each takes itself off when its last
/// handle is dropped.
pub(crate) struct Roster {
    entries: Mutex<Entries>,
    /// Gets every event of every command on the list, later ones included.
    pub(crate) bus: Bus,
}

/// Lays settings over those of a builder, for a command of this name and group. No user code: it is called under locks.
pub(crate) type Overlay = Arc<dyn Fn(Config, &str, Option<&str>) -> Config + Send + Sync>;

#[derive(Default)]
struct Entries {
    next: u64,
    commands: BTreeMap<u64, Weak<Core>>,
    /// For commands that are yet to be built.
    overlay: Option<Overlay>,
}

impl Roster {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { entries: Mutex::new(Entries::default()), bus: Bus::new(Vec::new()) })
    }

    pub(crate) fn global() -> Arc<Self> {
        static GLOBAL: OnceLock<Arc<Roster>> = OnceLock::new();
        Arc::clone(GLOBAL.get_or_init(Self::new))
    }

    /// Puts a command on the list; `make` makes it for its place there, under what lies over builders at that moment. It
    /// is called under the lock.
    pub(super) fn enlist(&self, make: impl FnOnce(u64, Option<&Overlay>) -> Arc<Core>) -> Arc<Core> {
        let mut entries = self.entries.lock();
        let place = entries.next;
        entries.next += 1;
        let core = make(place, entries.overlay.as_ref());
        entries.commands.insert(place, Arc::downgrade(&core));
        core
    }

    pub(super) fn overlay(&self) -> Option<Overlay> {
        self.entries.lock().overlay.clone()
    }

    /// From here on commands are built under `overlay`; returns those that are on the list at that moment.
    #[allow(dead_code, reason = "for the feature `serde`")]
    pub(crate) fn set_overlay(&self, overlay: Overlay) -> Vec<Arc<Core>> {
        let mut entries = self.entries.lock();
        let before = entries.overlay.replace(overlay);
        let alive = entries.alive();
        drop(entries);
        drop(before);
        alive
    }

    pub(super) fn strike(&self, place: u64) {
        let struck = self.entries.lock().commands.remove(&place);
        drop(struck);
    }

    /// Those alive. They are collected before anything is done with them: dropping the last handle of one strikes it,
    /// which takes the same lock.
    pub(crate) fn alive(&self) -> Vec<Arc<Core>> {
        self.entries.lock().alive()
    }
}

impl Entries {
    fn alive(&self) -> Vec<Arc<Core>> {
        self.commands.values().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").finish_non_exhaustive()
    }
}
