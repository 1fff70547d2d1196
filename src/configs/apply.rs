//! Putting configurations in force: for all commands of a registry, or for none.

use std::fmt;
use std::sync::Arc;

use super::Configs;
use crate::command::core::Core;
use crate::command::family::Enacted;
use crate::config::Checked;
use crate::error::ConfigError;
use crate::name::Name;
use crate::observe::event::{Change, Event};
use crate::registry::Registry;
use crate::time::Stamp;

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reload {
    /// The commands that have another configuration now, in the order in which they were built.
    pub changed: Vec<Changed>,
    /// Commands that the file names and that are not alive: built later, or misspelled.
    pub unmatched: Vec<String>,
}

/// A command that has another configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Its name.
    pub command: &'static str,
    /// What changed.
    pub changes: Vec<Change>,
}

/// Configurations that were not put in force: everything that is wrong, by command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError {
    // Never empty.
    problems: Vec<(&'static str, ConfigError)>,
}

impl ApplyError {
    /// The commands whose configuration is wrong, and what is wrong with it.
    pub fn problems(&self) -> impl Iterator<Item = (&'static str, &ConfigError)> {
        self.problems.iter().map(|(command, error)| (*command, error))
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (command, error)) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}command `{command}`: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApplyError {}

impl Registry {
    /// Puts configurations in force for every command of this registry: those that are alive, at once, and those that
    /// are built from here on. The file's settings lie over those of a command's builder; what a command was told by
    /// [`reconfigure`](crate::Command::reconfigure) meanwhile is over. As there, circuits keep their state and counts.
    ///
    /// All or nothing: if one command cannot have its configuration, all keep theirs. Each that changes gets an
    /// [`Event::Reconfigured`]; each that would have changed and does not, an [`Event::ReloadRejected`].
    ///
    /// ```
    /// use fusebox::{Command, Configs, Registry};
    ///
    /// let registry = Registry::new();
    /// let orders = Command::builder("orders").max_concurrent(8).registry(&registry).build()?;
    ///
    /// let configs: Configs = toml::from_str(r#"commands.orders.max_concurrent = 16"#)?;
    /// let reload = registry.apply(&configs)?;
    /// assert_eq!(reload.changed[0].command, "orders");
    /// assert_eq!(orders.snapshot().limit(), Some(16));
    ///
    /// registry.apply(&Configs::default())?;
    /// assert_eq!(orders.snapshot().limit(), Some(8), "what no file says is as the builder has it");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// An [`ApplyError`] with every command that cannot have its configuration: settings that do not go together, or a
    /// `latency_window` other than the one that the command was built with.
    pub fn apply(&self, configs: &Configs) -> Result<Reload, ApplyError> {
        // Held until listeners have been called, and dropped after the lock: the last handle of a command runs user code.
        let (alive, newcomers);
        let applied = {
            let _one_at_a_time = self.making.lock();
            alive = self.roster.alive();
            let planned = plan(configs, &alive);
            newcomers = if planned.is_ok() { self.set_overlay(configs, &alive) } else { Vec::new() };
            // Those that were built since: they do not take part in the decision, and keep what they have if they must.
            let later = plan(configs, &newcomers).unwrap_or_default();
            planned.map(|plans| plans.into_iter().chain(later).map(enact).collect::<Vec<_>>())
        };
        match applied {
            Ok(enacted) => {
                let mut reload = Reload { changed: Vec::new(), unmatched: unmatched(configs, &alive) };
                for (core, enacted) in enacted {
                    core.family.meter.reload(true);
                    let command = core.name().as_str();
                    reload.changed.push(Changed { command, changes: enacted.changes.clone() });
                    core.announce_change(enacted);
                }
                Ok(reload)
            }
            Err((concerned, error)) => {
                refuse(&concerned, &error.to_string());
                Err(error)
            }
        }
    }

    /// Says to every command that a file with configurations was refused before it was known what it says of them.
    pub(super) fn refuse(&self, reason: &str) {
        refuse(&self.roster.alive().iter().collect::<Vec<_>>(), reason);
    }

    /// Lays `configs` over commands that are built from here on. Returns those that are alive and not among `known`.
    fn set_overlay(&self, configs: &Configs, known: &[Arc<Core>]) -> Vec<Arc<Core>> {
        let configs = configs.clone();
        let mut alive = self.roster.set_overlay(Arc::new(move |config, name, group| configs.over(config, name, group)));
        alive.retain(|core| !known.iter().any(|known| Arc::ptr_eq(core, known)));
        alive
    }
}

/// Commands with what they are to have.
type Plans<'c> = Vec<(&'c Arc<Core>, Arc<Checked>)>;

/// What would change; or what is wrong, and whom it concerns.
fn plan<'c>(configs: &Configs, alive: &'c [Arc<Core>]) -> Result<Plans<'c>, (Vec<&'c Arc<Core>>, ApplyError)> {
    let (mut plans, mut concerned, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for core in alive {
        let (name, group) = (core.name().as_str(), core.family.group.map(Name::as_str));
        let next = configs.over(core.family.as_built().config.clone(), name, group);
        if core.family.has(&next) {
            continue;
        }
        concerned.push(core);
        match core.family.plan(next) {
            Ok(plan) => plans.push((core, plan)),
            Err(error) => problems.push((name, error)),
        }
    }
    if problems.is_empty() { Ok(plans) } else { Err((concerned, ApplyError { problems })) }
}

fn enact((core, plan): (&Arc<Core>, Arc<Checked>)) -> (&Arc<Core>, Enacted) {
    (core, core.enact(plan))
}

fn refuse(concerned: &[&Arc<Core>], reason: &str) {
    let at = Stamp::now().wall_clock();
    for core in concerned {
        core.family.meter.reload(false);
        core.notify(Event::ReloadRejected { command: core.name().as_str(), reason: reason.to_owned(), at });
    }
}

fn unmatched(configs: &Configs, alive: &[Arc<Core>]) -> Vec<String> {
    let is_alive = |name: &str| alive.iter().any(|core| core.name().as_str() == name);
    configs.commands.keys().filter(|name| !is_alive(name)).cloned().collect()
}
