//! Commands: a fallible call to something that can break, wrapped once.
//!
//! Everything here is built around one guard. A call is admitted ([`admission`]), which gives a [`permit`]; the permit
//! is resolved or dropped, and either records exactly one outcome and gives back what the call held. The future in
//! [`run`] adds the [`fallback`] to one [`attempt`] of whatever [`work`] there is, that in [`retrying`] makes several, alone or
//! [in pairs](hedged); [`blocking`] is for work without a future.

pub(crate) mod admission;
mod attempt;
pub(crate) mod blocking;
pub(crate) mod builder;
pub(crate) mod core;
pub(crate) mod effort;
pub(crate) mod extras;
pub(crate) mod fallback;
pub(crate) mod family;
pub(crate) mod hedged;
pub(crate) mod judge;
pub(crate) mod keys;
mod marks;
pub(crate) mod permit;
mod persistence;
pub(crate) mod retrying;
pub(crate) mod roster;
pub(crate) mod run;
pub(crate) mod snapshot;
pub(crate) mod tally;
pub(crate) mod work;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use self::blocking::Blocking;
use self::builder::Builder;
use self::core::Core;
use self::effort::Alone;
use self::hedged::Hedged;
use self::permit::Permit;
use self::retrying::Retrying;
use self::run::Call;
use self::snapshot::Snapshot;
use self::work::ByCommand;
use crate::breaker::machine::Override;
use crate::breaker::state::{Forced, State};
use crate::config::Config;
use crate::error::{ConfigError, Error, Rejected};
use crate::observe::bus::Events;
use crate::outcome::{ByResult, Classify};
use crate::time::{Stamp, saturating_nanos};

/// A fallible call to something that can break, protected: a circuit breaker, a bulkhead, a timeout and a fallback
/// around whatever it runs, and figures of all of it.
///
/// Define it once, as a plain value. It is cheap to clone, and clones share one circuit. `C` judges results; see
/// [`Classify`].
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Breaker, Command};
///
/// # async fn fetch(sku: &str) -> Result<u32, std::io::Error> { Ok(sku.len() as u32) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pricing = Command::builder("pricing.fetch")
///     .timeout(Duration::from_millis(250))
///     .max_concurrent(64)
///     .breaker(Breaker::error_rate(0.5).min_calls(20))
///     .build()?;
///
/// let price = pricing.run(|| fetch("A-1")).await?;
/// # assert_eq!(price, 3);
/// # Ok(())
/// # }
/// ```
pub struct Command<C = ByResult> {
    core: Arc<Core>,
    classify: Arc<C>,
}

impl Command {
    /// Starts a command. `name` is its label on dashboards: 1 to 128 characters out of `A-Z a-z 0-9 _ . : / -`. Take
    /// names from a fixed set: each distinct one is kept for the life of the process.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    pub(crate) fn of(core: Arc<Core>) -> Self {
        Self::new(core, Arc::new(ByResult))
    }
}

impl<C> Command<C> {
    pub(crate) fn new(core: Arc<Core>, classify: Arc<C>) -> Self {
        Self { core, classify }
    }

    /// Whether this is the only handle, and nothing is going on.
    pub(crate) fn is_idle(&mut self) -> bool {
        Arc::get_mut(&mut self.core).is_some_and(|core| core.is_idle())
    }

    // ---- calling ----

    /// Runs an operation under the protection of this command. The closure is called on the first poll, and only if
    /// the call is admitted.
    ///
    /// The returned [`Call`] has options for this call alone, and says what is cancel safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let command = fusebox::Command::builder("docs.run").build()?;
    /// let answer = command
    ///     .run(async || Ok::<_, std::io::Error>(42))
    ///     .timeout(std::time::Duration::from_millis(80))
    ///     .await?;
    /// # assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn run<F, Fut, T, E>(&self, operation: F) -> Call<'_, F, ByCommand<'_, C>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        Call::new(&self.core, operation, ByCommand(&self.classify))
    }

    /// Runs an operation that may be attempted more than once: the closure makes it anew for each attempt. How often, and
    /// with which waits, the command's [`Retry`](crate::Retry) says, or the call's own; a budget and a deadline hold all
    /// attempts together.
    ///
    /// Only for operations that may be done twice. The returned [`Retrying`] has options for this call alone, and says
    /// what is attempted again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use fusebox::{Command, Retry};
    ///
    /// # async fn fetch(sku: &str) -> Result<u32, std::io::Error> { Ok(sku.len() as u32) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pricing = Command::builder("docs.retry").build()?;
    /// let price = pricing
    ///     .retry(|| fetch("A-1"))
    ///     .with(Retry::exponential(Duration::from_millis(20)).attempts(3))
    ///     .deadline(Duration::from_secs(1))
    ///     .fallback(async |_| Ok(99))
    ///     .await?;
    /// # assert_eq!(price, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry<F, Fut, T, E>(&self, operation: F) -> Retrying<'_, F, Alone<'_, Fut>, ByCommand<'_, C>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        Retrying::new(&self.core, operation, ByCommand(&self.classify))
    }

    /// Runs an operation of which a second attempt is started when the first takes long, or fails: the command's
    /// [`Hedge`](crate::Hedge) says when, or the call's own. The first success is the answer, and the other attempt is
    /// dropped before it is returned; it counts as cancelled, which is no error.
    ///
    /// Only for operations that may be done twice. The second attempt is admitted by circuit and bulkhead for itself, is
    /// paid for out of the [`Budget`](crate::Budget), and not started where that is empty. If both fail, the error of the
    /// one that failed last is the call's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use fusebox::{Command, Hedge};
    ///
    /// # async fn search(text: &str) -> Result<usize, std::io::Error> { Ok(text.len()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let command = Command::builder("docs.hedge").build()?;
    /// let found = command.hedge(|| search("tea")).with(Hedge::after(Duration::from_millis(30))).await?;
    /// # assert_eq!(found, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hedge<F, Fut, T, E>(&self, operation: F) -> Hedged<'_, F, ByCommand<'_, C>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        Retrying::hedged(&self.core, operation, ByCommand(&self.classify))
    }

    /// Runs a closure on this thread: breaker and bulkhead apply, and there is no waiting in a queue. It cannot be
    /// stopped, so one that takes longer than the timeout counts as timed out and its result is returned all the same.
    /// Needs no runtime.
    ///
    /// ```
    /// # let db = fusebox::Command::builder("docs.run_sync").build()?;
    /// let row = db.run_sync(|| Ok::<_, std::io::Error>("a row"))?;
    /// # assert_eq!(row, "a row");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with the closure's error, or [`Error::Rejected`].
    ///
    /// # Panics
    ///
    /// When the closure or the classifier panics, after that was counted.
    pub fn run_sync<F, T, E>(&self, operation: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Result<T, E>,
        C: Classify<T, E>,
    {
        self.core.run_sync(&*self.classify, operation)
    }

    /// Runs a closure on tokio's blocking pool. After a timeout or a drop the caller is free, while the closure goes on
    /// and holds its slot until it ends: the limit is on work, not on patience.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cpu = fusebox::Command::builder("docs.spawn_blocking").build()?;
    /// let sum = cpu.spawn_blocking(|| Ok::<_, std::io::Error>((1..=10_u32).sum::<u32>())).await?;
    /// # assert_eq!(sum, 55);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// The returned future panics with the closure's panic, when it is polled outside a tokio runtime, and when the
    /// runtime shuts down before the closure was started.
    pub fn spawn_blocking<F, T, E>(&self, operation: F) -> Call<'_, Blocking<F, T, E>, ByCommand<'_, C>>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        C: Classify<T, E>,
    {
        let work = Blocking::new(Arc::clone(&self.core), operation);
        Call::new(&self.core, work, ByCommand(&self.classify))
    }

    /// Admits one call whose course the caller follows by itself: a stream, a body, a callback of somebody else's. The
    /// [`Permit`] must be resolved with what became of it. No timeout and no queue apply. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Rejected`], with the reason.
    #[inline]
    pub fn admit(&self) -> Result<Permit<'_>, Rejected> {
        self.core.admit()
    }

    /// As [`Command::admit`], with a permit that borrows nothing and can be sent anywhere.
    ///
    /// # Errors
    ///
    /// [`Rejected`], with the reason.
    pub fn admit_owned(&self) -> Result<Permit<'static>, Rejected> {
        self.core.admit_owned()
    }

    // ---- observing ----

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.core.name().as_str()
    }

    /// Its group, if it has one.
    pub fn group(&self) -> Option<&'static str> {
        self.core.family.group.map(crate::name::Name::as_str)
    }

    /// What the circuit would do with a call now: an open circuit whose wait is over reads as half-open, although only
    /// a call makes it so. Reading changes nothing.
    pub fn state(&self) -> State {
        self.core.circuit.state(Stamp::now())
    }

    /// Everything that can be seen of the command, at one moment.
    ///
    /// Takes well under two microseconds, of which a call that ends in an error might have to wait for a part; a
    /// successful call never waits.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.core)
    }

    /// The events from now on, as a stream. See [`Event`](crate::Event).
    pub fn subscribe(&self) -> Events {
        self.core.family.bus.subscribe()
    }

    /// Brings the metrics that are sampled (in flight, limit, window, configuration) up to date. Call it before a
    /// scrape is answered, or [`Registry::publish`](crate::Registry::publish) for all commands at once. Counters,
    /// histograms and the state need no such call.
    pub fn publish(&self) {
        self.core.sample();
    }

    // ---- operating ----

    /// Changes the configuration live: `change` gets the present one and returns the next. The circuit keeps its state
    /// and counts, and running calls keep the settings they began with; a window of another shape starts empty. All or
    /// nothing. Of two changes at once the later one wins whole.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let pricing = fusebox::Command::builder("docs.reconfigure").build()?;
    /// pricing.reconfigure(|c| c.timeout(Duration::from_millis(150)).max_concurrent(32))?;
    /// assert_eq!(pricing.snapshot().limit(), Some(32));
    ///
    /// let refused = pricing.reconfigure(|c| c.max_concurrent(0)).unwrap_err();
    /// assert_eq!(refused.field(), "max_concurrent");
    /// assert_eq!(pricing.snapshot().limit(), Some(32));
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with every setting that is out of range; the present configuration then stays.
    pub fn reconfigure(&self, change: impl FnOnce(Config) -> Config) -> Result<(), ConfigError> {
        self.core.reconfigure(change)
    }

    /// Holds the circuit open: every call is refused, and no probe is let out, until the override is lifted or `expiry`
    /// has passed. Wins over [`Command::force_closed`]. Beyond 584 years an expiry is none.
    pub fn force_open(&self, reason: impl Into<String>, expiry: Option<Duration>) {
        self.force(Forced::Open, reason.into(), expiry);
    }

    /// Holds the circuit closed: every call is admitted and counted, and none trips, until the override is lifted or
    /// `expiry` has passed. Bulkhead and timeout still apply.
    pub fn force_closed(&self, reason: impl Into<String>, expiry: Option<Duration>) {
        self.force(Forced::Closed, reason.into(), expiry);
    }

    fn force(&self, forced: Forced, reason: String, expiry: Option<Duration>) {
        let now = Stamp::now();
        let until = now.plus(expiry.map_or(u64::MAX, saturating_nanos));
        self.core.circuit.force(now, forced, Override { reason, until });
        self.core.publish();
    }

    /// Lifts every override. The circuit is then what it would have been without; it judges by new calls alone, so the
    /// figures of a circuit that was held closed do not open it.
    pub fn clear_override(&self) {
        self.core.circuit.clear_override(Stamp::now());
        self.core.publish();
    }

    /// Closes the circuit and forgets the rolling window, the latencies and the growth of the open wait. Lifetime
    /// totals stay, and so does an override: see [`Command::clear_override`].
    pub fn reset(&self) {
        let now = Stamp::now();
        self.core.circuit.reset(now);
        if let Some(latencies) = &self.core.latencies {
            latencies.reset(now);
        }
        self.core.publish();
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn classifier(&self) -> &C {
        &self.classify
    }

    pub(crate) fn shared_classifier(&self) -> &Arc<C> {
        &self.classify
    }
}

impl<C> Clone for Command<C> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), classify: Arc::clone(&self.classify) }
    }
}

impl<C> fmt::Debug for Command<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("name", &self.name()).field("state", &self.state()).finish_non_exhaustive()
    }
}
