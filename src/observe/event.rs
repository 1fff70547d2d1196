//! Events: what happened to a circuit, why, and what it had seen.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::breaker::state::{Cause, Forced, RampStage, State};
use crate::window::counts::{Counts, Health};

/// Something that happened to a command. `Display` puts it in one line, and its alternate form, `{:#}`, leaves out what a
/// transition had seen.
///
/// Events of one command are delivered in order and exactly once, after every lock is released.
///
/// ```
/// use futures::StreamExt;
/// use fusebox::{Command, Event, State};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fusebox::ConfigError> {
/// let vendor = Command::builder("vendor").build()?;
/// let mut events = vendor.subscribe();
/// vendor.force_open("maintenance", None);
///
/// let Some(Event::OverrideSet { reason, .. }) = events.next().await else { panic!() };
/// assert_eq!(reason, "maintenance");
/// let Some(Event::Transition(transition)) = events.next().await else { panic!() };
/// assert_eq!((transition.from, transition.to), (State::Closed, State::ForcedOpen));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "nearly all events are transitions: a box would save nobody anything")]
pub enum Event {
    /// The circuit changed its state.
    Transition(Transition),
    /// An operator forced the circuit open or closed.
    #[non_exhaustive]
    OverrideSet {
        /// Name of the command.
        command: &'static str,
        /// Of a keyed command, which one: see [`Event::key`].
        key: Option<Arc<str>>,
        /// Which way.
        forced: Forced,
        /// Why, in the operator's words.
        reason: String,
        /// When it ends by itself.
        until: Option<SystemTime>,
        /// When it was set.
        at: SystemTime,
    },
    /// An override ended.
    #[non_exhaustive]
    OverrideCleared {
        /// Name of the command.
        command: &'static str,
        /// Of a keyed command, which one: see [`Event::key`].
        key: Option<Arc<str>>,
        /// Which one.
        forced: Forced,
        /// Why it had been set.
        reason: String,
        /// Whether it ran out, rather than being lifted.
        expired: bool,
        /// When. An expiry is noticed by the first call after it.
        at: SystemTime,
    },
    /// The configuration was changed live.
    #[non_exhaustive]
    Reconfigured {
        /// Name of the command.
        command: &'static str,
        /// What changed.
        changes: Vec<Change>,
        /// When.
        at: SystemTime,
    },
    /// A file of configurations was refused, so this command keeps the one it has.
    #[non_exhaustive]
    ReloadRejected {
        /// Name of the command.
        command: &'static str,
        /// What is wrong with it, which may lie in another command of the same file.
        reason: String,
        /// When.
        at: SystemTime,
    },
    /// An [adaptive limit](crate::AdaptiveLimit) has halved or doubled since this was last told.
    #[non_exhaustive]
    LimitAdapted {
        /// Name of the command.
        command: &'static str,
        /// Of a keyed command, which one: see [`Event::key`].
        key: Option<Arc<str>>,
        /// The limit when this was last told, or to begin with.
        before: usize,
        /// The limit since.
        after: usize,
        /// When.
        at: SystemTime,
    },
    /// An [adaptive timeout](crate::AdaptiveTimeout) has halved or doubled since this was last told.
    #[non_exhaustive]
    TimeoutAdapted {
        /// Name of the command.
        command: &'static str,
        /// Of a keyed command, which one: see [`Event::key`].
        key: Option<Arc<str>>,
        /// The timeout when this was last told, or to begin with; `None` if there was none.
        before: Option<Duration>,
        /// The timeout since.
        after: Duration,
        /// When.
        at: SystemTime,
    },
    /// A probe did not end within its lease, and another call took its place.
    #[non_exhaustive]
    LeaseExpired {
        /// Name of the command.
        command: &'static str,
        /// Of a keyed command, which one: see [`Event::key`].
        key: Option<Arc<str>>,
        /// Generation of the half-open episode.
        generation: u64,
        /// When the place was taken.
        at: SystemTime,
    },
    /// A half-open circuit began a stage of its [`Ramp`](crate::Ramp).
    #[non_exhaustive]
    RampStage {
        /// Name of the command.
        command: &'static str,
        /// Of a keyed command, which one: see [`Event::key`].
        key: Option<Arc<str>>,
        /// The stage that began.
        stage: RampStage,
        /// Generation of the half-open episode.
        generation: u64,
        /// When it began.
        at: SystemTime,
    },
    /// This subscriber was too slow, and so many events before the next one were dropped for it.
    Missed(u64),
}

/// A change of state that explains itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// Name of the command.
    pub command: &'static str,
    /// Of a keyed command, which one: see [`Event::key`].
    pub key: Option<Arc<str>>,
    /// Its group, if it has one.
    pub group: Option<&'static str>,
    /// The state before.
    pub from: State,
    /// The state since.
    pub to: State,
    /// Which rule or action it was.
    pub cause: Cause,
    /// When, by the wall clock.
    pub at: SystemTime,
    /// How long the state before had lasted, by the monotonic clock.
    pub lasted: Duration,
    /// The generation that began: it grows with each change, so transitions of one command can be told apart and
    /// ordered.
    pub generation: u64,
    /// What the circuit had seen.
    pub report: Report,
}

/// What a circuit had seen when it changed its state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// What it judged by.
    pub health: Health,
    /// Calls by outcome in the rolling window.
    pub window: Counts,
    /// How much time this window spans.
    pub span: Duration,
    /// Median latency over the latency window.
    pub p50: Option<Duration>,
    /// 99th percentile of the latency.
    pub p99: Option<Duration>,
    /// Age of the oldest call in flight that is known. One long call at a time is tracked, so an older one may exist
    /// for as long as the tracked one lasts.
    pub oldest_in_flight: Option<Duration>,
    /// How long calls will be refused; `None` when they are not, or not by the clock.
    pub wait: Option<Duration>,
}

/// One setting that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The setting, as a path.
    pub field: &'static str,
    /// Its value before.
    pub before: String,
    /// Its value since.
    pub after: String,
}

impl Event {
    /// Of a [keyed](crate::Keyed) command, which one: its key as text, in 64 characters at most and with what is not
    /// printable escaped. `None` for what concerns all of them, and for a command without keys; `"*"` is the circuit that
    /// keys share for which there was no room.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Transition(transition) => transition.key.as_deref(),
            Self::OverrideSet { key, .. }
            | Self::OverrideCleared { key, .. }
            | Self::RampStage { key, .. }
            | Self::LimitAdapted { key, .. }
            | Self::TimeoutAdapted { key, .. }
            | Self::LeaseExpired { key, .. } => key.as_deref(),
            Self::Reconfigured { .. } | Self::ReloadRejected { .. } | Self::Missed(_) => None,
        }
    }

    /// Name of the command; `None` for [`Event::Missed`].
    pub fn command(&self) -> Option<&'static str> {
        match self {
            Self::Transition(transition) => Some(transition.command),
            Self::OverrideSet { command, .. }
            | Self::OverrideCleared { command, .. }
            | Self::Reconfigured { command, .. }
            | Self::ReloadRejected { command, .. }
            | Self::LimitAdapted { command, .. }
            | Self::TimeoutAdapted { command, .. }
            | Self::LeaseExpired { command, .. }
            | Self::RampStage { command, .. } => Some(command),
            Self::Missed(_) => None,
        }
    }

    /// When it happened, by the wall clock; `None` for [`Event::Missed`].
    pub fn at(&self) -> Option<SystemTime> {
        match self {
            Self::Transition(transition) => Some(transition.at),
            Self::OverrideSet { at, .. }
            | Self::OverrideCleared { at, .. }
            | Self::Reconfigured { at, .. }
            | Self::ReloadRejected { at, .. }
            | Self::LimitAdapted { at, .. }
            | Self::TimeoutAdapted { at, .. }
            | Self::LeaseExpired { at, .. }
            | Self::RampStage { at, .. } => Some(*at),
            Self::Missed(_) => None,
        }
    }
}

/// A command and, if it is one of many, its key.
struct Subject<'e>(&'static str, &'e Option<Arc<str>>);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            None => f.write_str(self.0),
            Some(key) => write!(f, "{}[{key}]", self.0),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transition(transition) => transition.fmt(f),
            Self::OverrideSet { command, key, forced, reason, until, at } => {
                let command = Subject(command, key);
                write!(f, "{command}: {} by an operator: {reason}", forced.state())?;
                match until.and_then(|until| until.duration_since(*at).ok()) {
                    Some(left) => write!(f, " (for {left:?})"),
                    None => Ok(()),
                }
            }
            Self::OverrideCleared { command, key, forced, reason, expired, .. } => {
                let command = Subject(command, key);
                let how = if *expired { "expired" } else { "was lifted" };
                write!(f, "{command}: {} {how} (it was: {reason})", forced.state())
            }
            Self::Reconfigured { command, changes, .. } => {
                write!(f, "{command}: reconfigured")?;
                changes.iter().try_for_each(|c| write!(f, "; {} {} -> {}", c.field, c.before, c.after))
            }
            Self::ReloadRejected { command, reason, .. } => write!(f, "{command}: keeps its configuration: {reason}"),
            Self::LimitAdapted { command, key, before, after, .. } => {
                let command = Subject(command, key);
                write!(f, "{command}: {after} calls at once from now on, {before} before")
            }
            Self::TimeoutAdapted { command, key, before, after, .. } => {
                let command = Subject(command, key);
                write!(f, "{command}: calls time out after {after:.1?} from now on, ")?;
                match before {
                    Some(before) => write!(f, "{before:.1?} before"),
                    None => f.write_str("never before"),
                }
            }
            Self::LeaseExpired { command, key, generation, .. } => {
                let command = Subject(command, key);
                write!(f, "{command}: a probe of generation {generation} was given up; another call takes its place")
            }
            Self::RampStage { command, key, stage, .. } => {
                write!(f, "{}: coming back, {stage}", Subject(command, key))
            }
            Self::Missed(count) => write!(f, "{count} events were missed"),
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, key, from, to, cause, report, .. } = self;
        let command = Subject(command, key);
        write!(f, "{command}: {from} -> {to}: {cause}")?;
        if f.alternate() {
            return Ok(());
        }
        // The figures are news where they decided; probes are told by their cause.
        if *from == State::Closed && *to == State::Open {
            let health = report.health;
            write!(f, "; {} of {} calls failed", health.errors, health.total)?;
            if health.slow > 0 {
                write!(f, ", {} were slow", health.slow)?;
            }
            if health.overdue > 0 {
                write!(f, ", {} of them still in flight", health.overdue)?;
            }
            if let (Some(p50), Some(p99)) = (report.p50, report.p99) {
                write!(f, "; p50 {p50:.1?}, p99 {p99:.1?}")?;
            }
            if let Some(age) = report.oldest_in_flight {
                write!(f, "; oldest in flight {age:.1?}")?;
            }
        }
        match report.wait {
            Some(wait) => write!(f, "; next probe in {wait:.1?}"),
            None => Ok(()),
        }
    }
}
