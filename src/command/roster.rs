//! The list of commands that are alive, and the subscribers to all of them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use super::core::Core;
use crate::config::{Checked, Config};
use crate::error::Problems;
use crate::observe::bus::Bus;
use crate::sync::Mutex;

/// Commands in the order in which they were built. It holds none of them alive: each takes itself off when its last
/// handle is dropped.
pub(crate) struct Roster {
    entries: Mutex<Entries>,
    /// What commands have that were built lately.
    recent: Mutex<VecDeque<Weak<Checked>>>,
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

/// As many configurations are looked at for one that can be shared.
const RECENT: usize = 32;

impl Roster {
    pub(crate) fn new() -> Arc<Self> {
        let (entries, recent) = (Mutex::new(Entries::default()), Mutex::new(VecDeque::new()));
        Arc::new(Self { entries, recent, bus: Bus::new(Vec::new()) })
    }

    pub(crate) fn global() -> Arc<Self> {
        static GLOBAL: OnceLock<Arc<Roster>> = OnceLock::new();
        Arc::clone(GLOBAL.get_or_init(Self::new))
    }

    /// Checks a configuration. Commands that have the same share what comes of it: it is a good part of their memory.
    pub(super) fn check(&self, config: Config, problems: &mut Problems) -> Arc<Checked> {
        if let Some(known) = self.known(&config) {
            return known;
        }
        let settings = config.check(problems);
        let checked = Arc::new(Checked { config, settings });
        // User code is not shared: here it could be dropped under a lock.
        if problems.is_empty() && !checked.config.attempts().retry.has_user_code() {
            let mut recent = self.recent.lock();
            recent.retain(|checked| checked.strong_count() > 0);
            recent.truncate(RECENT - 1);
            recent.push_front(Arc::downgrade(&checked));
        }
        checked
    }

    fn known(&self, config: &Config) -> Option<Arc<Checked>> {
        let recent = self.recent.lock();
        recent.iter().filter_map(Weak::upgrade).find(|checked| checked.config == *config)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::breaker::config::Breaker;
    use crate::command::Command;
    use crate::command::builder::Builder;
    use crate::retry::Retry;

    fn builder(roster: &Arc<Roster>) -> Builder {
        let mut builder = Command::builder("host");
        builder.roster = Arc::clone(roster);
        builder
    }

    fn in_force(command: &Command) -> Arc<Checked> {
        command.core().family.in_force()
    }

    #[test]
    fn commands_with_the_same_configuration_share_it() {
        let roster = Roster::new();
        let limited = |limit| builder(&roster).max_concurrent(limit).build().expect("valid");
        let [one, other, another] = [7, 8, 7].map(limited);
        assert!(Arc::ptr_eq(&in_force(&one), &in_force(&another)));
        assert!(!Arc::ptr_eq(&in_force(&one), &in_force(&other)));

        other.reconfigure(|config| config.max_concurrent(7)).expect("valid");
        assert!(Arc::ptr_eq(&in_force(&one), &in_force(&other)));
        other.reconfigure(|config| config.max_concurrent(9)).expect("valid");
        let limits = [&one, &other, &another].map(|command| command.snapshot().limit());
        assert_eq!(limits, [Some(7), Some(9), Some(7)], "a change is of one command alone");
    }

    #[test]
    fn what_is_wrong_is_wrong_each_time_and_for_everyone() {
        let roster = Roster::new();
        let wrong = || builder(&roster).breaker(Breaker::error_rate(f64::NAN)).build();
        let errors = [(); 2].map(|()| wrong().expect_err("not a rate").to_string());
        assert_eq!(errors[0], errors[1]);
        let command = builder(&roster).build().expect("valid");
        command.reconfigure(|config| config.max_concurrent(0)).expect_err("not a limit");
        command.reconfigure(|config| config.max_concurrent(0)).expect_err("not a limit");
        assert_eq!(command.snapshot().limit(), Some(100));
    }

    /// An iterator's drop could come here under the lock.
    #[test]
    fn user_code_is_not_shared() {
        let roster = Roster::new();
        let retry = Retry::delays([Duration::from_millis(10)]);
        let build = || builder(&roster).retry(retry.clone()).build().expect("valid");
        assert_eq!(in_force(&build()).config, in_force(&build()).config);
        let [one, other] = [build(), build()];
        assert!(!Arc::ptr_eq(&in_force(&one), &in_force(&other)));
    }

    #[test]
    fn few_are_remembered_and_those_weakly() {
        let roster = Roster::new();
        let check = |limit| roster.check(Config::default().max_concurrent(limit), &mut Problems::default());
        let first = check(1);
        let held: Vec<_> = (2..=RECENT).map(check).collect();
        assert!(Arc::ptr_eq(&first, &check(1)), "the last of those that are looked at");
        let one_more = check(RECENT + 1);
        assert!(!Arc::ptr_eq(&first, &check(1)), "the {RECENT}th before");
        let weak = Arc::downgrade(&one_more);
        drop((held, one_more));
        assert!(weak.upgrade().is_none());
    }
}
