//! The list of commands that are alive, and the subscribers to all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use super::core::Core;
use crate::observe::bus::Bus;
use crate::sync::Mutex;

/// Commands in the order in which they were built. It holds none of them alive: each takes itself off when its last
/// handle is dropped.
#[derive(Debug)]
pub(crate) struct Roster {
    entries: Mutex<Entries>,
    /// Gets every event of every command on the list, later ones included.
    pub(crate) bus: Bus,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    commands: BTreeMap<u64, Weak<Core>>,
}

impl Roster {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { entries: Mutex::new(Entries::default()), bus: Bus::new(Vec::new()) })
    }

    pub(crate) fn global() -> Arc<Self> {
        static GLOBAL: OnceLock<Arc<Roster>> = OnceLock::new();
        Arc::clone(GLOBAL.get_or_init(Self::new))
    }

    /// Puts a command on the list; `make` makes it for its place there.
    pub(super) fn enlist(&self, make: impl FnOnce(u64) -> Arc<Core>) -> Arc<Core> {
        let mut entries = self.entries.lock();
        let place = entries.next;
        entries.next += 1;
        let core = make(place);
        entries.commands.insert(place, Arc::downgrade(&core));
        core
    }

    pub(super) fn strike(&self, place: u64) {
        let struck = self.entries.lock().commands.remove(&place);
        drop(struck);
    }

    /// Those alive. They are collected before anything is done with them: dropping the last handle of one strikes it,
    /// which takes the same lock.
    pub(crate) fn alive(&self) -> Vec<Arc<Core>> {
        self.entries.lock().commands.values().filter_map(Weak::upgrade).collect()
    }
}
