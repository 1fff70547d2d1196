//! What a user says about a breaker.

use std::time::Duration;

use super::ramp::Ramp;
pub(crate) use super::rules::{Rules, Span};
use crate::error::{ConfigError, Problems};

/// When a circuit opens, for how long, and what closes it again. Plain data with consuming setters.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`error_rate`](Self::error_rate) | 0.5 | errors / total, in (0, 1] |
/// | [`min_calls`](Self::min_calls) | 20 | calls in the window before a rate is looked at, at least 1 |
/// | [`confidence`](Self::confidence) | off | level at which a rate must be known to reach its threshold, in [0.5, 0.999999] |
/// | [`window`](Self::window), [`buckets`](Self::buckets) | 10 s, 10 | each bucket a whole number of milliseconds |
/// | [`last_calls`](Self::last_calls) | off | a window of the last n calls instead, 1 to 1,000,000 |
/// | [`open_for`](Self::open_for) | 5 s | first wait, longer than 0 |
/// | [`growth`](Self::growth) | 2.0 | factor for each reopening in a row, at least 1 |
/// | [`max_open`](Self::max_open) | 60 s, or `open_for` if longer | longest wait, at least `open_for` |
/// | [`jitter`](Self::jitter) | 0.2 | share by which a wait varies either way, in [0, 1) |
/// | [`probes`](Self::probes) | 1 | calls that a half-open circuit admits, at least 1 |
/// | [`ramp`](Self::ramp) | off | after the probes, stages that admit a growing share of calls: see [`Ramp`] |
/// | [`consecutive_failures`](Self::consecutive_failures) | off | errors in a row, at least 1 |
/// | [`slow_calls`](Self::slow_calls) | off | slow / total in (0, 1], and the duration that is slow |
/// | [`count_in_flight`](Self::count_in_flight) | off | a call in flight is slow from the slow-call threshold on |
/// | [`abort_on_trip`](Self::abort_on_trip) | off | calls in flight end when the circuit opens |
/// | [`count_rejections`](Self::count_rejections) | off | bulkhead refusals count as errors, as in Hystrix |
/// | [`count_cancelled_after`](Self::count_cancelled_after) | off | a call cancelled after this long is a failure |
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Breaker, Command};
///
/// let search = Command::builder("search")
///     .breaker(
///         Breaker::error_rate(0.25)
///             .min_calls(50)
///             .window(Duration::from_secs(30))
///             .open_for(Duration::from_secs(2))
///             .consecutive_failures(10)
///             .slow_calls(0.8, Duration::from_millis(200)),
///     )
///     .build()?;
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a breaker does nothing until a command is built with it"]
#[non_exhaustive]
pub struct Breaker {
    /// Error rate that trips it; `None` without that rule.
    pub error_rate: Option<f64>,
    /// Calls in the window before a rate is looked at.
    pub min_calls: u32,
    /// Level of confidence at which a rate must reach its threshold; `None` takes the rate as it is.
    pub confidence: Option<f64>,
    /// What a rate is taken over.
    pub window: Window,
    /// First wait of an open circuit.
    pub open_for: Duration,
    /// Factor by which the wait grows with each reopening in a row.
    pub growth: f64,
    /// Longest wait; `None` is 60 s, or `open_for` if that is longer.
    pub max_open: Option<Duration>,
    /// Share by which a wait varies either way.
    pub jitter: f64,
    /// Calls that a half-open circuit admits.
    pub probes: u32,
    /// How it comes back when its probes have passed; `None` closes at once. Boxed: most breakers have none.
    pub ramp: Option<Box<Ramp>>,
    /// Errors in a row that trip it; `None` without that rule.
    pub consecutive_failures: Option<u32>,
    /// Slow-call rate that trips it, and the duration from which a call is slow; `None` without that rule.
    pub slow_calls: Option<(f64, Duration)>,
    /// Whether a call counts as slow as soon as it is, and not when it ends.
    pub count_in_flight: bool,
    /// Whether calls in flight end when the circuit opens.
    pub abort_on_trip: bool,
    /// Whether bulkhead refusals count as errors.
    pub count_rejections: bool,
    /// How long a call must have run for its cancellation to be a failure; `None` if it never is.
    pub count_cancelled_after: Option<Duration>,
}

/// What a rate is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The calls of the last `length`, in `buckets` steps.
    Time {
        /// Length of the window.
        length: Duration,
        /// Steps in which it moves.
        buckets: u32,
    },
    /// The last n calls.
    Calls(u32),
}

/// The steps of a time window where none are given.
const BUCKETS: u32 = 10;

impl Default for Breaker {
    fn default() -> Self {
        Self {
            error_rate: Some(0.5),
            min_calls: 20,
            confidence: None,
            window: Window::Time { length: Duration::from_secs(10), buckets: BUCKETS },
            open_for: Duration::from_secs(5),
            growth: 2.0,
            max_open: None,
            jitter: 0.2,
            probes: 1,
            ramp: None,
            consecutive_failures: None,
            slow_calls: None,
            count_in_flight: false,
            abort_on_trip: false,
            count_rejections: false,
            count_cancelled_after: None,
        }
    }
}

impl Breaker {
    /// Trips when errors / total reaches `rate`, in (0, 1], over at least [`min_calls`](Self::min_calls) calls. The
    /// comparison is exact: 29 errors of 100 calls reach 0.29.
    pub fn error_rate(rate: f64) -> Self {
        Self { error_rate: Some(rate), ..Self::default() }
    }

    /// No rule trips it; it counts, and obeys overrides. Rules can be added: with
    /// [`consecutive_failures`](Self::consecutive_failures) alone it is a breaker of that one rule.
    pub fn disabled() -> Self {
        Self { error_rate: None, ..Self::default() }
    }

    /// Calls the window must hold before the error rate or the slow-call rate is looked at; at least 1.
    pub fn min_calls(self, calls: u32) -> Self {
        Self { min_calls: calls, ..self }
    }

    /// Trips by a rate only when its lower confidence bound at this level, in [0.5, 0.999999], reaches the threshold: when
    /// so high a rate is hardly luck. The bound is that of Wilson's score interval, one-sided. Off by default.
    ///
    /// [`min_calls`](Self::min_calls) must be reached as well. At a threshold of 0.5 and a level of 0.95 nothing but
    /// errors trips from 3 calls on, 14 errors of 20 do, and 59 of 100. A threshold of 1 is reached by nothing but
    /// errors, as without this. Probes, and errors in a row, are judged as without it.
    ///
    /// The level is that of one look, and the circuit looks after every call: over many calls, a false alarm is more
    /// likely than one look makes it. So many of 1,000 simulated circuits had tripped although the true error rate was
    /// below their threshold of 0.5 (`min_calls(20)`, `last_calls(200)`; a test repeats it):
    ///
    /// | true rate | calls | `min_calls` alone | 0.9 | 0.95 | 0.99 | 0.999 |
    /// |--:|--:|--:|--:|--:|--:|--:|
    /// | 0.30 | 100 | 7.6 % | 0.3 % | 0.2 % | 0.0 % | 0.0 % |
    /// | 0.30 | 1000 | 7.6 % | 0.3 % | 0.2 % | 0.0 % | 0.0 % |
    /// | 0.30 | 4000 | 7.6 % | 0.3 % | 0.2 % | 0.0 % | 0.0 % |
    /// | 0.40 | 100 | 35.6 % | 4.7 % | 1.8 % | 0.1 % | 0.0 % |
    /// | 0.40 | 1000 | 41.3 % | 4.7 % | 1.8 % | 0.1 % | 0.0 % |
    /// | 0.40 | 4000 | 56.5 % | 4.8 % | 1.8 % | 0.1 % | 0.0 % |
    /// | 0.45 | 100 | 61.3 % | 10.6 % | 4.5 % | 0.5 % | 0.1 % |
    /// | 0.45 | 1000 | 90.5 % | 18.6 % | 8.0 % | 1.1 % | 0.1 % |
    /// | 0.45 | 4000 | 99.9 % | 41.8 % | 21.2 % | 3.0 % | 0.1 % |
    ///
    /// ```
    /// # use fusebox::{Breaker, Command, State};
    /// let sure = Breaker::error_rate(0.5).min_calls(5).confidence(0.95);
    /// let command = Command::builder("docs.confidence").breaker(sure).build()?;
    /// for _ in 0..3 {
    ///     command.run_sync(|| Ok::<_, ()>(())).ok();
    ///     command.run_sync(|| Err::<(), _>("down")).ok();
    /// }
    /// assert_eq!(command.state(), State::Closed); // 3 of 6 may be luck
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn confidence(self, level: f64) -> Self {
        Self { confidence: Some(level), ..self }
    }

    /// Takes rates over the calls of the last `length`, which moves in [`buckets`](Self::buckets) steps.
    pub fn window(self, length: Duration) -> Self {
        let buckets = match self.window {
            Window::Time { buckets, .. } => buckets,
            Window::Calls(_) => BUCKETS,
        };
        Self { window: Window::Time { length, buckets }, ..self }
    }

    /// Steps in which a time window moves, 1 to 10,000; each must be a whole number of milliseconds long. Without
    /// meaning for a window of [`last_calls`](Self::last_calls).
    pub fn buckets(self, buckets: u32) -> Self {
        match self.window {
            Window::Time { length, .. } => Self { window: Window::Time { length, buckets }, ..self },
            Window::Calls(_) => self,
        }
    }

    /// Takes rates over exactly the last `calls` calls instead, 1 to 1,000,000. Only calls that count are held: successes
    /// and errors. A rate needs no more than `calls` calls, whatever [`min_calls`](Self::min_calls) says.
    ///
    /// Recording such a call takes a short lock, where a time window is lock-free.
    pub fn last_calls(self, calls: u32) -> Self {
        Self { window: Window::Calls(calls), ..self }
    }

    /// How long the circuit stays open the first time, before jitter; longer than 0.
    pub fn open_for(self, wait: Duration) -> Self {
        Self { open_for: wait, ..self }
    }

    /// The factor by which the wait grows with each reopening in a row, at least 1. After closing, each step is
    /// forgiven once the circuit has stayed closed for as long as that step's wait.
    pub fn growth(self, factor: f64) -> Self {
        Self { growth: factor, ..self }
    }

    /// The longest wait, jitter included; at least `open_for`.
    pub fn max_open(self, wait: Duration) -> Self {
        Self { max_open: Some(wait), ..self }
    }

    /// The share by which each wait varies either way, in [0, 1), so that a fleet that opened together does not probe
    /// together. 0 makes waits exact.
    pub fn jitter(self, share: f64) -> Self {
        Self { jitter: share, ..self }
    }

    /// How many calls a half-open circuit admits to decide; at least 1. The verdict is the error rate applied to this
    /// number: the circuit reopens as soon as failures reach `error_rate * probes`, and closes as soon as that can no
    /// longer happen. The slow-call rate is applied alike. Without an error rate one failure reopens.
    pub fn probes(self, probes: u32) -> Self {
        Self { probes, ..self }
    }

    /// Comes back gently: when its probes have passed, the circuit stays half-open and admits a growing share of the calls,
    /// in stages, before it closes. Off by default.
    ///
    /// A stage passes with the first success after it has lasted for [`Ramp::each`] and has [`Ramp::min_calls`] results.
    /// It fails, and the circuit opens again at once, when its results break a rule of the closed circuit: when errors
    /// reach `error_rate` times its results, or times `min_calls` while there are fewer; slow calls and errors in a row
    /// alike, [`confidence`](Self::confidence) aside. An error counts in whichever stage it comes, a success only for the
    /// stage that admitted it; ignored and cancelled calls decide nothing. Refusals bear
    /// [`Reason::Ramp`](crate::Reason::Ramp).
    ///
    /// A ramp that is taken away live closes a circuit that is on it.
    pub fn ramp(self, ramp: Ramp) -> Self {
        Self { ramp: Some(Box::new(ramp)), ..self }
    }

    /// Also trips at this many errors in a row, at least 1, whatever the rates and the window are.
    pub fn consecutive_failures(self, failures: u32) -> Self {
        Self { consecutive_failures: Some(failures), ..self }
    }

    /// Also trips when slow / total reaches `rate`, in (0, 1], over at least [`min_calls`](Self::min_calls) calls. A
    /// call is slow if it took `threshold` or longer, however it ended.
    pub fn slow_calls(self, rate: f64, threshold: Duration) -> Self {
        Self { slow_calls: Some((rate, threshold)), ..self }
    }

    /// Counts a call as slow from the moment on at which it is, so that a dependency that falls silent opens the circuit
    /// after the threshold of [`slow_calls`](Self::slow_calls), which it needs, and not a timeout later; no traffic is
    /// needed for it. Off by default.
    ///
    /// Such a call is [overdue](crate::Health::overdue): it counts for the slow-call rate, among a window's last calls as one
    /// that ended just now, and for no other rule. When it ends, its outcome takes the place of that; dropped or ignored, it
    /// has not counted. A probe, or a call on a ramp, that is overdue speaks against closing alike.
    ///
    /// A call arms its timer for the threshold when it first has to wait, if its timeout is longer, so also a call without
    /// a timeout needs tokio's timers then. What has no timer counts when it ends:
    /// [`admit`](crate::Command::admit), [`run_sync`](crate::Command::run_sync).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fusebox::{Breaker, Command};
    /// let breaker = Breaker::error_rate(0.5).slow_calls(0.8, Duration::from_millis(200)).count_in_flight(true);
    /// let search = Command::builder("search").timeout(Duration::from_secs(5)).breaker(breaker).build()?;
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn count_in_flight(self, count: bool) -> Self {
        Self { count_in_flight: count, ..self }
    }

    /// Ends the calls in flight at the moment the circuit opens: their callers, and what they hold, need not wait for
    /// timeouts that are all but certain. Off by default.
    ///
    /// The operation is dropped, and the caller gets [`Error::Rejected`](crate::Error::Rejected) with
    /// [`Reason::Aborted`](crate::Reason::Aborted), of which [`was_started`](crate::Error::was_started) is true, or what
    /// the fallback makes of it. The call counts as cancelled, without blame: what opened the circuit has been counted.
    /// A result that is there when the call is next polled is returned all the same.
    ///
    /// It ends what has to wait in [`run`](crate::Command::run), [`guarded_by`](crate::Guard::guarded_by) and
    /// [`spawn_blocking`](crate::Command::spawn_blocking), whose closure goes on and holds its slot. A permit taken by
    /// hand is its holder's affair, a fallback runs on, and an operator who forces the circuit open ends nothing. Switched
    /// on live, it is in force for a call in flight from its next poll on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fusebox::{Breaker, Command};
    /// let breaker = Breaker::error_rate(0.5).abort_on_trip(true);
    /// let reports = Command::builder("reports").timeout(Duration::from_secs(30)).breaker(breaker).build()?;
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn abort_on_trip(self, abort: bool) -> Self {
        Self { abort_on_trip: abort, ..self }
    }

    /// Counts refusals of the bulkhead as errors, as Hystrix does. Off by default: a full bulkhead says that there are
    /// many calls, not that they fail.
    pub fn count_rejections(self, count: bool) -> Self {
        Self { count_rejections: count, ..self }
    }

    /// Counts a call that its caller dropped after it had run for `after` or longer as a failure. Off by default: the
    /// caller's own deadline or mood says little about the dependency.
    pub fn count_cancelled_after(self, after: Duration) -> Self {
        Self { count_cancelled_after: Some(after), ..self }
    }

    /// Checks without building.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with every setting that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.check(&mut problems);
        problems.finish()
    }
}
