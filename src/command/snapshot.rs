//! What can be seen of a command at one moment.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::extras;
use super::fallback::Fallbacks;
use super::tally::AttemptCounts;
use crate::breaker::config::Window;
use crate::breaker::machine::Override;
use crate::breaker::state::{Forced, RampStage, State};
use crate::config::{Checked, Config};
use crate::name::Name;
use crate::observe::meter::FallbackOutcome;
use crate::outcome::Outcome;
use crate::time::Stamp;
use crate::window::counts::{Counts, Health};
use crate::window::latency::Latency;

/// A command at one moment: plain data, which no later call changes.
///
/// ```
/// use fusebox::{Command, State};
///
/// let command = Command::builder("inventory").group("shop").build()?;
/// command.run_sync(|| Err::<(), _>("down")).ok();
///
/// let s = command.snapshot();
/// assert_eq!((s.command(), s.group(), s.state()), ("inventory", Some("shop"), State::Closed));
/// assert_eq!((s.window().errors(), s.window().total(), s.error_rate()), (1, 1, Some(1.0)));
/// assert_eq!((s.in_flight(), s.limit(), s.retry_after()), (0, Some(100), None));
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    command: Name,
    group: Option<Name>,
    key: Option<Arc<str>>,
    state: State,
    generation: u64,
    window: Counts,
    span: Duration,
    lifetime: Counts,
    health: Health,
    late: u64,
    latency: Latency,
    in_flight: u32,
    peak: u32,
    queued: u32,
    limit: Option<u32>,
    timeout: Option<Duration>,
    ramp: Option<RampStage>,
    retry_after: Option<Duration>,
    oldest_in_flight: Option<Duration>,
    hold: Option<Hold>,
    fallbacks: FallbackCounts,
    attempts: AttemptCounts,
    config: Arc<Checked>,
}

/// An operator's hold on a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// Which way.
    pub forced: Forced,
    /// Why, in the operator's words.
    pub reason: String,
    /// How long it has left; `None` without an expiry.
    pub expires_in: Option<Duration>,
}

/// How fallbacks ended, over the life of a command, and how many run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackCounts {
    /// They gave a value.
    pub success: u64,
    /// They returned an error, the cause included, or panicked.
    pub failure: u64,
    /// They were not run: too many were running.
    pub rejected: u64,
    /// They are running now.
    pub in_flight: usize,
}

/// What is counted over the life of a circuit.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    lifetime: Counts,
    late: u64,
    fallbacks: FallbackCounts,
}

impl Totals {
    pub(super) fn of(core: &Core, now: Stamp) -> Self {
        let view = core.circuit.view(now);
        // What still runs is no total.
        let fallbacks = FallbackCounts { in_flight: 0, ..FallbackCounts::of(&core.fallbacks) };
        Self { lifetime: view.lifetime, late: view.late, fallbacks }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.lifetime.add(&other.lifetime);
        self.late += other.late;
        self.fallbacks.add(other.fallbacks);
    }
}

impl FallbackCounts {
    fn of(fallbacks: &Fallbacks) -> Self {
        Self {
            success: fallbacks.ended(FallbackOutcome::Success),
            failure: fallbacks.ended(FallbackOutcome::Failure),
            rejected: fallbacks.ended(FallbackOutcome::Rejected),
            in_flight: fallbacks.in_flight() as usize,
        }
    }

    fn add(&mut self, other: Self) {
        self.success += other.success;
        self.failure += other.failure;
        self.rejected += other.rejected;
        self.in_flight += other.in_flight;
    }
}

impl Snapshot {
    pub(super) fn of(core: &Core) -> Self {
        let now = Stamp::now();
        // So that nobody sees half of a change.
        let _unchanged = core.family.changing.lock();
        let config = core.family.in_force();
        let view = core.circuit.view(now);
        let limit = core.slots.limit();
        let in_flight = core.slots.in_flight();
        let hold = view.hold.map(|(forced, Override { reason, until })| Hold {
            forced,
            reason,
            expires_in: (until != Stamp::NEVER).then(|| until.since(now)),
        });
        Self {
            command: core.name(),
            group: core.family.group,
            key: core.key(),
            state: view.state,
            generation: view.generation,
            window: view.window,
            span: view.span,
            lifetime: view.lifetime,
            health: view.health,
            late: view.late,
            latency: core.latencies.as_ref().map(|latencies| latencies.summary(now)).unwrap_or_default(),
            in_flight,
            peak: view.peak.max(in_flight),
            queued: core.slots.waiting(),
            limit,
            timeout: extras::shown(core.timeout_in_force(&config.config)),
            ramp: view.stage,
            retry_after: view.wait,
            oldest_in_flight: core.eldest.age(now),
            hold,
            fallbacks: FallbackCounts::of(&core.fallbacks),
            attempts: core.family.persistence.counts(now),
            config,
        }
    }

    /// Adds what was counted in circuits that are gone.
    pub(super) fn add_totals(&mut self, gone: &Totals) {
        self.lifetime.add(&gone.lifetime);
        self.late += gone.late;
        self.fallbacks.add(gone.fallbacks);
    }

    /// Adds the figures of another circuit of the family: whatever is counted, and what is longest. Attempts are counted
    /// for all of them already.
    pub(super) fn add(&mut self, other: &Core, now: Stamp) {
        let view = other.circuit.view(now);
        self.window.add(&view.window);
        self.lifetime.add(&view.lifetime);
        self.health.add(&view.health);
        self.late += view.late;
        if let Some(latencies) = &other.latencies {
            self.latency.add(&latencies.summary(now));
        }
        let in_flight = other.slots.in_flight();
        self.in_flight += in_flight;
        self.peak += view.peak.max(in_flight);
        self.queued += other.slots.waiting();
        // All have one or none has: they share a configuration.
        self.limit = self.limit.zip(other.slots.limit()).map(|(sum, limit)| sum.saturating_add(limit));
        self.oldest_in_flight = self.oldest_in_flight.max(other.eldest.age(now));
        self.fallbacks.add(FallbackCounts::of(&other.fallbacks));
    }

    /// Name of the command.
    pub fn command(&self) -> &'static str {
        self.command.as_str()
    }

    /// Its group, if it has one.
    pub fn group(&self) -> Option<&'static str> {
        self.group.map(Name::as_str)
    }

    /// Of a [keyed](crate::Keyed) command, which one, as in [`Event::key`](crate::Event::key).
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What the circuit did with a call at this moment.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often the circuit has begun anew; grows with each change of its state.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Calls by outcome in the rolling window, whatever the circuit has been through meanwhile. With
    /// [`last_calls`](crate::Breaker::last_calls) the outcomes that count are those of the last n calls, and the
    /// others, which no such window holds, those of the last 10 seconds.
    pub fn window(&self) -> Counts {
        self.window
    }

    /// How much time the rolling window spans: between all but one and all of its buckets, less while the command is
    /// young.
    pub fn window_span(&self) -> Duration {
        self.span
    }

    /// Calls per second over the rolling window, refused ones included; `None` while it spans no time, and for a window
    /// of the last n calls.
    pub fn rate(&self) -> Option<f64> {
        let timed = matches!(self.config().breaker.window, Window::Time { .. });
        (timed && !self.span.is_zero()).then(|| self.window.calls() as f64 / self.span.as_secs_f64())
    }

    /// Calls by outcome since the command was built. Never shrinks.
    pub fn lifetime(&self) -> Counts {
        self.lifetime
    }

    /// Errors by total in the rolling window, in [0, 1]; `None` without calls. After a recovery it still holds what was
    /// before: hold [`Snapshot::health`] against the threshold, not this. Where
    /// [rejections count](crate::Breaker::count_rejections) they do here too.
    pub fn error_rate(&self) -> Option<f64> {
        let rejected = if self.config().breaker.count_rejections { self.window.of(Outcome::Rejected) } else { 0 };
        let total = self.window.total() + rejected;
        (total > 0).then(|| (self.window.errors() + rejected) as f64 / total as f64)
    }

    /// What the circuit judges by: the calls in the window that count and that were admitted since its state last
    /// changed.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Calls that ended after the circuit had changed the state in which they were admitted, over the life of the
    /// command. They are counted by their outcome and decide nothing.
    pub fn late_outcomes(&self) -> u64 {
        self.late
    }

    /// How long operations took; empty with [`no_latency`](Config::no_latency).
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// Most calls in flight at once in the rolling window. Of a command that many threads use at the same time it is an
    /// upper bound: each group of threads has its own peak, and these are added up.
    pub fn peak_in_flight(&self) -> usize {
        self.peak as usize
    }

    /// Calls that wait for a slot.
    pub fn queue_length(&self) -> usize {
        self.queued as usize
    }

    /// Most calls that may be in flight; `None` without a limit. It moves with an
    /// [adaptive limit](Config::adaptive_limit).
    pub fn limit(&self) -> Option<usize> {
        self.limit.map(|limit| limit as usize)
    }

    /// The stage of its [`Ramp`](crate::Ramp) that a half-open circuit is in, once its probes have passed.
    pub fn ramp(&self) -> Option<RampStage> {
        self.ramp
    }

    /// How long a call that begins now may take; `None` without a limit. It moves with an
    /// [adaptive timeout](Config::adaptive_timeout).
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How long calls will be refused; `None` when they are not, or not by the clock.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Age of the oldest call in flight that is known: see [`Report`](crate::Report::oldest_in_flight).
    pub fn oldest_in_flight(&self) -> Option<Duration> {
        self.oldest_in_flight
    }

    /// The override in force, if there is one.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// How fallbacks ended.
    pub fn fallbacks(&self) -> FallbackCounts {
        self.fallbacks
    }

    /// How often calls were attempted that may be more than once.
    pub fn attempts(&self) -> AttemptCounts {
        self.attempts
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config.config
    }
}
