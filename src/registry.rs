//! Finding commands: those that are alive, and the one of a name.

use std::fmt;
use std::sync::Arc;

use crate::command::Command;
use crate::command::builder::Builder;
use crate::command::roster::Roster;
use crate::error::ConfigError;
use crate::observe::bus::Events;
use crate::sync::Mutex;

/// The commands that are alive. It keeps none of them alive: a command whose last handle is dropped disappears.
///
/// Every command is in the [global](Registry::global) registry unless it was built [for another](Builder::registry).
///
/// ```
/// use fusebox::{Command, Registry};
///
/// let registry = Registry::new();
/// let orders = Command::builder("orders").registry(&registry).build()?;
/// let users = registry.get_or_insert("users", |command| command.max_concurrent(8))?;
/// let same = registry.get_or_insert("users", |command| command)?;
/// assert_eq!(same.snapshot().limit(), Some(8));
///
/// let names: Vec<_> = registry.commands().iter().map(Command::name).collect();
/// assert_eq!(names, ["orders", "users"]);
/// drop(orders);
/// assert_eq!(registry.commands().len(), 1);
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    pub(crate) roster: Arc<Roster>,
    /// Held while a name is looked up and its command made, so that it is made once; and while configurations are put
    /// in force, so that two files do not mix.
    pub(crate) making: Arc<Mutex<()>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self { roster: Roster::new(), making: Arc::new(Mutex::new(())) }
    }

    /// The registry that every command is in unless it was built for another.
    pub fn global() -> &'static Self {
        static GLOBAL: std::sync::OnceLock<Registry> = std::sync::OnceLock::new();
        GLOBAL.get_or_init(|| Self { roster: Roster::global(), making: Arc::new(Mutex::new(())) })
    }

    /// The commands that are alive, in the order in which they were built. Names need not be distinct. The handles
    /// judge by [`ByResult`](crate::ByResult), whatever the command was built with; state and figures are shared.
    pub fn commands(&self) -> Vec<Command> {
        self.roster.alive().into_iter().map(Command::of).collect()
    }

    /// The command of this name that was built first, if one is alive.
    pub fn get(&self, name: &str) -> Option<Command> {
        self.commands().into_iter().find(|command| command.name() == name)
    }

    /// The one command of this name: the one that is alive, or else a new one that `configure` sets up. Threads that
    /// ask at the same time get the same.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if the command has to be made and its configuration is out of range.
    pub fn get_or_insert(
        &self,
        name: &str,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Result<Command, ConfigError> {
        if let Some(found) = self.get(name) {
            return Ok(found);
        }
        // User code, be it the drop of a listener, runs before the lock is taken or after it is released, so that it may
        // use the registry itself.
        let (new, _) = configure(Command::builder(name).registry(self)).prepare(None)?;
        let making = self.making.lock();
        let alive = self.roster.alive();
        let (found, superfluous) = match alive.iter().find(|core| core.name().as_str() == name) {
            Some(core) => (Arc::clone(core), Some(new)),
            None => (new.enlist(), None),
        };
        drop(making);
        drop((superfluous, alive));
        Ok(Command::of(found))
    }

    /// The events of all commands from now on, as one stream: also of commands that are built later. Those of one command
    /// come in order; a reader that falls more than 1024 events behind is told how many it missed.
    ///
    /// ```
    /// use futures::{FutureExt, StreamExt};
    /// use fusebox::{Command, Registry};
    ///
    /// let registry = Registry::new();
    /// let mut events = registry.subscribe();
    /// let late = Command::builder("late").registry(&registry).build()?;
    /// late.force_open("a drill", None);
    /// let event = events.next().now_or_never().flatten().expect("it has happened");
    /// assert_eq!(event.command(), Some("late"));
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn subscribe(&self) -> Events {
        self.roster.bus.subscribe()
    }

    /// Brings the sampled metrics of every command up to date; call it before a scrape is answered.
    pub fn publish(&self) {
        self.commands().iter().for_each(Command::publish);
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.commands()).finish()
    }
}

impl<C> Builder<C> {
    /// Builds the command for this registry in place of the global one.
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.roster = Arc::clone(&registry.roster);
        self
    }
}
