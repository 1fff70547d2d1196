//! The only file that names the `metrics` facade.
//!
//! A handle belongs to the recorder that made it, and one that was made before any recorder was installed is dead for
//! ever. So each command keeps its handles together with the address of the recorder they came from, looks at the
//! current recorder on every call (about 2 ns), and makes new handles when it sees another. Installing a recorder late
//! loses what was before it and nothing after, and `metrics::with_local_recorder` works as anywhere else. What an
//! address cannot tell apart are two recorders that live at the same one, one after the other, with no call of the
//! command in between under any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, Key, Label, Level, Metadata, Recorder, Unit};

use crate::breaker::state::State;
use crate::hedge::HedgeOutcome;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::retry::Fate;
use crate::sync::{AtomicU32, Mutex, OnceLock, Ordering, seeded};
use crate::window::counts::Health;

/// Buckets, in seconds, that suit `fusebox_call_duration_seconds`.
///
/// Exporters render histograms as summaries unless they are told the buckets. With `metrics-exporter-prometheus`:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
///
/// let builder = PrometheusBuilder::new()
///     .set_buckets_for_metric(Matcher::Full("fusebox_call_duration_seconds".into()), &fusebox::DURATION_BUCKETS)?;
/// # let _ = builder.build_recorder();
/// # Ok(())
/// # }
/// ```
pub const DURATION_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How a fallback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FallbackOutcome {
    Success,
    Failure,
    Rejected,
}

impl FallbackOutcome {
    pub(crate) const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Rejected];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Rejected => "rejected",
        }
    }
}

/// Figures that are sampled, not counted; summed up over the circuits of a command that has many.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Circuits in each state, in the order of [`State::ALL`].
    pub(crate) states: [u32; State::ALL.len()],
    pub(crate) in_flight: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) queue_length: u64,
    pub(crate) health: Health,
    /// The share of calls that the breaker lets through, on average; `None` without a ramp.
    pub(crate) admitted_share: Option<f64>,
    /// Keys that made room and lookups that found none, for a keyed command.
    pub(crate) keyed: bool,
    pub(crate) error_rate: Option<f64>,
    pub(crate) min_calls: u32,
    pub(crate) open_for: Duration,
    pub(crate) timeout: Option<Duration>,
    /// `None` without calls that may be attempted more than once.
    pub(crate) amplification: Option<f64>,
    /// Least and most of a limit that moves.
    pub(crate) adaptive_limit: Option<(usize, usize)>,
    /// Calls a second.
    pub(crate) rate_limit: Option<f64>,
}

/// The metrics of one command.
pub(crate) struct Meter {
    command: Name,
    group: Option<Name>,
    /// The circuit's state, as an index into [`State::ALL`], for a recorder that comes late.
    state: AtomicU32,
    /// The gauges that have had a value, one bit each.
    shown: AtomicU32,
    /// The first two recorders seen: none and the one that is installed late, as a rule. Read without a lock.
    first: OnceLock<Box<Handles>>,
    second: OnceLock<Box<Handles>>,
    /// The last one seen, where there were more.
    later: Mutex<Option<Arc<Handles>>>,
}

/// What calls use. Most of them succeed, and many a command never sees one that does not.
struct Handles {
    recorder: usize,
    successes: Counter,
    /// Of successes.
    durations: Histogram,
    rest: OnceLock<Box<Rest>>,
}

/// Handles for all that is not a success.
struct Rest {
    /// By discriminant; the first is that of successes.
    calls: [Counter; Outcome::COUNT],
    failed: Histogram,
    timed_out: Histogram,
    fallbacks: [Counter; 3],
    late: Counter,
    /// Of commands whose calls are attempted more than once.
    attempts: OnceLock<Box<[Counter; Fate::ALL.len()]>>,
    hedges: OnceLock<Box<[Counter; HedgeOutcome::ALL.len()]>>,
}

impl Meter {
    pub(crate) fn new(command: Name, group: Option<Name>) -> Self {
        let (first, second, later) = (OnceLock::new(), OnceLock::new(), Mutex::new(None));
        let state = AtomicU32::new(State::Closed as u32);
        Self { command, group, state, shown: AtomicU32::new(0), first, second, later }
    }

    /// Counts a call, and its duration in nanoseconds if it ran to an end.
    #[inline]
    pub(crate) fn call(&self, outcome: Outcome, elapsed: u64) {
        let seconds = elapsed as f64 * 1e-9;
        if outcome != Outcome::Success {
            return self.no_success(outcome, seconds);
        }
        self.with(|handles, _| {
            handles.successes.increment(1);
            handles.durations.record(seconds);
        });
    }

    #[cold]
    fn no_success(&self, outcome: Outcome, seconds: f64) {
        self.with(|handles, recorder| {
            let rest = self.rest(handles, recorder);
            rest.calls[outcome as usize].increment(1);
            match outcome {
                Outcome::Failure => rest.failed.record(seconds),
                Outcome::TimedOut => rest.timed_out.record(seconds),
                _ => {}
            }
        });
    }

    /// Counts a call that was not started.
    #[inline]
    pub(crate) fn unstarted(&self, outcome: Outcome) {
        self.with(|handles, recorder| self.rest(handles, recorder).calls[outcome as usize].increment(1));
    }

    pub(crate) fn late(&self) {
        self.with(|handles, recorder| self.rest(handles, recorder).late.increment(1));
    }

    pub(crate) fn fallback(&self, outcome: FallbackOutcome) {
        self.with(|handles, recorder| self.rest(handles, recorder).fallbacks[outcome as usize].increment(1));
    }

    /// Counts an attempt of a call that may have several. The series exist from the first one on.
    pub(crate) fn attempt(&self, fate: Fate) {
        self.with(|handles, recorder| {
            let counter = |fate: Fate| self.counter(recorder, "fusebox_attempts_total", &[("outcome", fate.as_str())]);
            let attempts = made(&self.rest(handles, recorder).attempts, || Fate::ALL.map(counter));
            attempts[fate as usize].increment(1);
        });
    }

    /// Counts a hedge that was started. As [`Meter::attempt`].
    pub(crate) fn hedge(&self, outcome: HedgeOutcome) {
        self.with(|handles, recorder| {
            let counter = |outcome: HedgeOutcome| {
                self.counter(recorder, "fusebox_hedges_total", &[("outcome", outcome.as_str())])
            };
            let hedges = made(&self.rest(handles, recorder).hedges, || HedgeOutcome::ALL.map(counter));
            hedges[outcome as usize].increment(1);
        });
    }

    /// `alone`: of the only circuit there is. How many of many are in a state is sampled.
    pub(crate) fn transition(&self, from: State, to: State, cause: &'static str, alone: bool) {
        if alone {
            self.state.store(to as u32, Ordering::Relaxed);
        }
        self.with(|_, recorder| {
            self.change(recorder, from, to, cause).increment(1);
            if alone {
                self.state(recorder);
            }
        });
    }

    /// Counts a key whose circuit made room for another.
    pub(crate) fn evicted(&self) {
        self.guarded(|recorder| self.counter(recorder, EVICTIONS, &[]).increment(1));
    }

    /// Counts a lookup of a key for which there was no room.
    pub(crate) fn overflowed(&self) {
        self.guarded(|recorder| self.counter(recorder, OVERFLOW, &[]).increment(1));
    }

    pub(crate) fn reload(&self, applied: bool) {
        let outcome = if applied { "applied" } else { "rejected" };
        self.with(|_, recorder| self.reloads(recorder, outcome).increment(1));
    }

    pub(crate) fn sample(&self, sample: &Sample) {
        if let (false, Some(state)) = (sample.keyed, sample.states.iter().position(|circuits| *circuits > 0)) {
            self.state.store(state as u32, Ordering::Relaxed);
        }
        self.with(|_, _| ());
        self.guarded(|recorder| {
            for (state, circuits) in State::ALL.into_iter().zip(sample.states) {
                self.gauge(recorder, "fusebox_state", &[("state", state.as_str())], f64::from(circuits));
            }
            if sample.keyed {
                self.counter(recorder, EVICTIONS, &[]).increment(0);
                self.counter(recorder, OVERFLOW, &[]).increment(0);
            }
            let gauges = [
                ("fusebox_in_flight", Some(sample.in_flight as f64)),
                ("fusebox_concurrency_limit", sample.limit.map(|limit| limit as f64)),
                ("fusebox_queue_length", Some(sample.queue_length as f64)),
                ("fusebox_window_calls", Some(sample.health.total as f64)),
                ("fusebox_window_error_ratio", Some(sample.health.error_rate().unwrap_or(0.0))),
                ("fusebox_config_error_rate", sample.error_rate),
                ("fusebox_config_min_calls", Some(f64::from(sample.min_calls))),
                ("fusebox_config_open_seconds", Some(sample.open_for.as_secs_f64())),
                ("fusebox_config_timeout_seconds", sample.timeout.map(|timeout| timeout.as_secs_f64())),
                ("fusebox_attempts_per_call", sample.amplification),
                ("fusebox_config_concurrency_min", sample.adaptive_limit.map(|(min, _)| min as f64)),
                ("fusebox_config_concurrency_max", sample.adaptive_limit.map(|(_, max)| max as f64)),
                ("fusebox_config_calls_per_second", sample.rate_limit),
                ("fusebox_ramp_share", sample.admitted_share),
            ];
            for (index, (name, value)) in gauges.into_iter().enumerate() {
                let shown = 1 << index;
                match value {
                    Some(value) => {
                        self.shown.fetch_or(shown, Ordering::Relaxed);
                        self.gauge(recorder, name, &[], value);
                    }
                    // A series cannot be taken back, and a limit that was lifted is an infinite one.
                    None if self.shown.load(Ordering::Relaxed) & shown != 0 => {
                        self.gauge(recorder, name, &[], f64::INFINITY);
                    }
                    None => {}
                }
            }
        });
    }

    fn state(&self, recorder: &dyn Recorder) {
        let current = self.state.load(Ordering::Relaxed);
        for state in State::ALL {
            let value = f64::from(u8::from(state as u32 == current));
            self.gauge(recorder, "fusebox_state", &[("state", state.as_str())], value);
        }
    }

    /// Runs `act` with the handles of the current recorder. A recorder that panics costs the metric, not the call.
    #[inline]
    fn with(&self, act: impl FnOnce(&Handles, &dyn Recorder)) {
        self.guarded(|recorder| self.with_those_of(recorder, act));
    }

    #[inline]
    fn with_those_of(&self, recorder: &dyn Recorder, act: impl FnOnce(&Handles, &dyn Recorder)) {
        let address = address(recorder);
        match self.second.get().or_else(|| self.first.get()) {
            Some(handles) if handles.recorder == address => act(handles, recorder),
            _ => self.with_another(recorder, address, act),
        }
    }

    /// Counts a success, and a late outcome, with this recorder.
    #[cfg(test)]
    #[allow(dead_code, reason = "for models only")]
    pub(crate) fn count_with(&self, recorder: &dyn Recorder) {
        self.with_those_of(recorder, |handles, recorder| {
            handles.successes.increment(1);
            self.rest(handles, recorder).late.increment(1);
        });
    }

    /// Whether there were so many recorders that calls take a lock.
    #[cfg(test)]
    #[allow(dead_code, reason = "for models only")]
    pub(crate) fn takes_a_lock(&self) -> bool {
        self.later.lock().is_some()
    }

    #[cold]
    fn with_another(&self, recorder: &dyn Recorder, address: usize, act: impl FnOnce(&Handles, &dyn Recorder)) {
        let is_own = |handles: &Handles| handles.recorder == address;
        if let Some(handles) = self.first.get().filter(|handles| is_own(handles)) {
            return act(handles, recorder);
        }
        let mut later = self.later.lock();
        if let Some(handles) = later.as_ref().filter(|handles| handles.recorder == address) {
            let handles = Arc::clone(handles);
            drop(later);
            return act(&handles, recorder);
        }
        // Recorders are user code: not under the lock.
        drop(later);
        let mut fresh = Box::new(self.bind(recorder, address));
        for place in [&self.first, &self.second] {
            match place.set(fresh) {
                Ok(()) => return act(place.get().expect("it was just set"), recorder),
                // Another thread was faster: with this recorder, whose handles serve both, or with one before it.
                Err(back) => match place.get() {
                    Some(handles) if seeded("handles") || is_own(handles) && !seeded("rebound") => {
                        return act(handles, recorder);
                    }
                    _ => fresh = back,
                },
            }
        }
        let handles: Arc<Handles> = Arc::from(fresh);
        later = self.later.lock();
        let previous = later.replace(Arc::clone(&handles));
        drop(later);
        drop(previous);
        act(&handles, recorder);
    }

    fn guarded(&self, act: impl FnOnce(&dyn Recorder)) {
        let _ = catch_unwind(AssertUnwindSafe(|| metrics::with_recorder(act)));
    }

    /// Makes every counter, so that each series exists at 0 from the command's first use.
    fn bind(&self, recorder: &dyn Recorder, address: usize) -> Handles {
        describe(recorder);
        self.state(recorder);
        // For their series; the handles are made anew when one is needed.
        let _ = self.bind_rest(recorder);
        for (from, to, cause) in AUTOMATIC {
            self.change(recorder, from, to, cause).increment(0);
        }
        for outcome in ["applied", "rejected"] {
            self.reloads(recorder, outcome).increment(0);
        }
        Handles {
            recorder: address,
            successes: self.calls(recorder, Outcome::Success),
            durations: self.durations(recorder, Outcome::Success),
            rest: OnceLock::new(),
        }
    }

    #[inline]
    fn rest<'h>(&self, handles: &'h Handles, recorder: &dyn Recorder) -> &'h Rest {
        made(&handles.rest, || self.bind_rest(recorder))
    }

    fn bind_rest(&self, recorder: &dyn Recorder) -> Rest {
        let fallback = |outcome: FallbackOutcome| {
            self.counter(recorder, "fusebox_fallbacks_total", &[("outcome", outcome.as_str())])
        };
        Rest {
            calls: Outcome::ALL.map(|outcome| self.calls(recorder, outcome)),
            failed: self.durations(recorder, Outcome::Failure),
            timed_out: self.durations(recorder, Outcome::TimedOut),
            fallbacks: FallbackOutcome::ALL.map(fallback),
            late: self.counter(recorder, "fusebox_late_outcomes_total", &[]),
            attempts: OnceLock::new(),
            hedges: OnceLock::new(),
        }
    }

    fn calls(&self, recorder: &dyn Recorder, outcome: Outcome) -> Counter {
        self.counter(recorder, "fusebox_calls_total", &[("outcome", outcome.as_str())])
    }

    fn durations(&self, recorder: &dyn Recorder, outcome: Outcome) -> Histogram {
        let key = self.key("fusebox_call_duration_seconds", &[("outcome", outcome.as_str())]);
        recorder.register_histogram(&key, &METADATA)
    }

    fn change(&self, recorder: &dyn Recorder, from: State, to: State, cause: &'static str) -> Counter {
        let labels = [("from", from.as_str()), ("to", to.as_str()), ("cause", cause)];
        self.counter(recorder, "fusebox_transitions_total", &labels)
    }

    fn reloads(&self, recorder: &dyn Recorder, outcome: &'static str) -> Counter {
        self.counter(recorder, "fusebox_config_reloads_total", &[("outcome", outcome)])
    }

    fn counter(&self, recorder: &dyn Recorder, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        recorder.register_counter(&self.key(name, labels), &METADATA)
    }

    fn gauge(&self, recorder: &dyn Recorder, name: &'static str, labels: &[(&'static str, &'static str)], value: f64) {
        recorder.register_gauge(&self.key(name, labels), &METADATA).set(value);
    }

    fn key(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let own = [("command", Some(self.command)), ("group", self.group)];
        let own = own.into_iter().filter_map(|(label, name)| Some(Label::from_static_parts(label, name?.as_str())));
        let given = labels.iter().map(|(label, value)| Label::from_static_parts(label, value));
        Key::from_parts(name, own.chain(given).collect::<Vec<_>>())
    }
}

/// What is made when it is first needed; not by `get_or_init`, which would call the recorder under a lock.
#[inline]
fn made<T>(cell: &OnceLock<Box<T>>, make: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(made) => made,
        None => made_first(cell, make),
    }
}

#[cold]
fn made_first<T>(cell: &OnceLock<Box<T>>, make: impl FnOnce() -> T) -> &T {
    let _ = cell.set(Box::new(make()));
    cell.get().expect("it was just set")
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("command", &self.command).finish_non_exhaustive()
    }
}

const EVICTIONS: &str = "fusebox_keyed_evictions_total";
const OVERFLOW: &str = "fusebox_keyed_overflow_total";

/// What circuits do by themselves, without an operator. Their series are there before it happens: the increase of one that
/// appears at 1 is none, and a command's first opening is the one to be told of.
const AUTOMATIC: [(State, State, &str); 10] = [
    (State::Closed, State::Open, "error_rate"),
    (State::Closed, State::Open, "consecutive_failures"),
    (State::Closed, State::Open, "slow_calls"),
    (State::Closed, State::Open, "open_for"),
    (State::Open, State::HalfOpen, "wait_over"),
    (State::HalfOpen, State::Open, "probes_failed"),
    (State::HalfOpen, State::Open, "ramp_failed"),
    (State::HalfOpen, State::Open, "open_for"),
    (State::HalfOpen, State::Closed, "probes_passed"),
    (State::HalfOpen, State::Closed, "ramp_passed"),
];

static METADATA: Metadata<'static> = Metadata::new("fusebox", Level::INFO, Some("fusebox"));

fn address(recorder: &dyn Recorder) -> usize {
    std::ptr::from_ref(recorder).cast::<()>().addr()
}

fn describe(recorder: &dyn Recorder) {
    let counters = [
        ("fusebox_calls_total", "Calls by the one outcome each ended in"),
        ("fusebox_fallbacks_total", "Fallbacks by how they ended"),
        ("fusebox_hedges_total", "Second attempts that were started, by whether they gave the answer"),
        ("fusebox_attempts_total", "Attempts of calls that may have several, by what came of them"),
        ("fusebox_transitions_total", "Changes of a circuit's state"),
        ("fusebox_late_outcomes_total", "Results that came after their circuit had changed its state"),
        ("fusebox_config_reloads_total", "Live changes of the configuration"),
        (EVICTIONS, "Keys whose circuit made room for another"),
        (OVERFLOW, "Lookups of keys for which there was no room"),
    ];
    for (name, text) in counters {
        recorder.describe_counter(name.into(), Some(Unit::Count), text.into());
    }
    let gauges = [
        (
            "fusebox_state",
            Unit::Count,
            "1 for the state that the circuit is in, 0 for the others; of a keyed command, circuits in each",
        ),
        ("fusebox_in_flight", Unit::Count, "Calls in flight"),
        ("fusebox_concurrency_limit", Unit::Count, "Most calls that may be in flight"),
        ("fusebox_queue_length", Unit::Count, "Calls that wait for a place"),
        ("fusebox_window_calls", Unit::Count, "Calls that the breaker judges by"),
        ("fusebox_window_error_ratio", Unit::Count, "Errors among the calls that the breaker judges by"),
        ("fusebox_config_error_rate", Unit::Count, "Error rate at which the breaker opens"),
        ("fusebox_config_min_calls", Unit::Count, "Calls that the breaker wants before it judges"),
        ("fusebox_config_open_seconds", Unit::Seconds, "First wait of an open circuit"),
        ("fusebox_config_timeout_seconds", Unit::Seconds, "Timeout of a call"),
        (
            "fusebox_attempts_per_call",
            Unit::Count,
            "Attempts per call that may have several, over the last ten seconds",
        ),
        ("fusebox_config_concurrency_min", Unit::Count, "Least that an adaptive concurrency limit may be"),
        ("fusebox_config_concurrency_max", Unit::Count, "Most that an adaptive concurrency limit may be"),
        ("fusebox_config_calls_per_second", Unit::Count, "Calls a second that the rate limit lets go"),
        (
            "fusebox_ramp_share",
            Unit::Count,
            "Share of the calls that a breaker with a ramp admits; of a keyed command, on average over its circuits",
        ),
    ];
    for (name, unit, text) in gauges {
        recorder.describe_gauge(name.into(), Some(unit), text.into());
    }
    let text = "Duration of the operation alone, for calls that ran to an end";
    recorder.describe_histogram("fusebox_call_duration_seconds".into(), Some(Unit::Seconds), text.into());
}
