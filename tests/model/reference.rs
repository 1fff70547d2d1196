//! What a command should do, written from the rules and not from the code: a list of everything that ever ended, an
//! enum for the circuit, and a loop for every question. Nothing here is fast, packed or clever.
//!
//! All times are nanoseconds since the command was built.

use std::time::Duration;

use fusebox::{Cause, Forced, Health, Outcome, Reason, State, Verdict};

pub(crate) const MS: u64 = 1_000_000;

/// What a test may set. Rates are whole percentages, so that "reached" needs no floating point here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) error_rate: Option<u64>,
    pub(crate) min_calls: u64,
    pub(crate) shape: Shape,
    pub(crate) open_for: u64,
    pub(crate) growth: u64,
    pub(crate) max_open: Option<u64>,
    pub(crate) probes: usize,
    pub(crate) consecutive: Option<u32>,
    pub(crate) slow: Option<(u64, u64)>,
    pub(crate) count_rejections: bool,
    pub(crate) cancelled_after: Option<u64>,
    pub(crate) limit: Option<usize>,
    pub(crate) timeout: Option<u64>,
}

impl Settings {
    fn differ(&self, next: &Self) -> Vec<&'static str> {
        let mut fields = [
            ("breaker.consecutive_failures", self.consecutive != next.consecutive),
            ("breaker.count_rejections", self.count_rejections != next.count_rejections),
            ("breaker.error_rate", self.error_rate != next.error_rate),
            ("breaker.growth", self.growth != next.growth),
            ("breaker.max_open", self.max_open != next.max_open),
            ("breaker.min_calls", self.min_calls != next.min_calls),
            ("breaker.open_for", self.open_for != next.open_for),
            ("breaker.probes", self.probes != next.probes),
            ("breaker.slow_calls", self.slow != next.slow),
            ("breaker.window", self.shape != next.shape),
            ("bulkhead", self.limit != next.limit),
            ("timeout", self.timeout != next.timeout),
        ]
        .to_vec();
        fields.retain(|(_, differs)| *differs);
        fields.into_iter().map(|(field, _)| field).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Time { width: u64, buckets: u64 },
    Calls(usize),
}

/// How a caller ends what it was admitted for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    Verdict(Verdict),
    Dropped,
    Panicked,
}

/// Calls by outcome, in the order of [`Outcome::ALL`].
pub(crate) type Tally = [u64; 9];

/// Everything that can be seen without changing anything.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) window: Tally,
    pub(crate) span: Duration,
    pub(crate) lifetime: Tally,
    pub(crate) health: Health,
    pub(crate) late: u64,
    pub(crate) in_flight: usize,
    pub(crate) peak: usize,
    pub(crate) limit: Option<usize>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) hold: Option<(Forced, Option<Duration>)>,
}

/// An event, without what only tells commands and wall-clock times apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Transition {
        from: State,
        to: State,
        cause: Cause,
        lasted: Duration,
        health: Health,
        window: Tally,
        span: Duration,
        wait: Option<Duration>,
    },
    OverrideSet(Forced),
    OverrideCleared {
        forced: Forced,
        expired: bool,
    },
    /// The settings that changed, sorted.
    Reconfigured(Vec<&'static str>),
    LeaseExpired,
}

impl Seen {
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Transition { from, to, cause, .. } => format!("{from} -> {to}: {}", cause.as_str()),
            Self::OverrideSet(_) => "override set".into(),
            Self::OverrideCleared { .. } => "override cleared".into(),
            Self::Reconfigured(_) => "reconfigured".into(),
            Self::LeaseExpired => "lease expired".into(),
        }
    }
}

/// The circuit as it is beneath any override.
#[derive(Clone, Debug)]
enum Circuit {
    Closed { since: u64 },
    Open { until: u64 },
    HalfOpen(Episode),
}

/// From the first probe to the verdict.
#[derive(Clone, Debug, Default)]
struct Episode {
    /// Calls that are out, in the order of their admission, with the end of their lease.
    out: Vec<(usize, u64)>,
    failed: u64,
    slow: u64,
    ended: u64,
}

/// A call that ended, or never began.
#[derive(Debug)]
struct Record {
    at: u64,
    outcome: Outcome,
    /// Set if the circuit judges by it: in which generation, and how it looked.
    judged: Option<Judged>,
}

#[derive(Clone, Copy, Debug)]
struct Judged {
    generation: u64,
    error: bool,
    slow: bool,
}

#[derive(Debug)]
struct Running {
    id: usize,
    since: u64,
    generation: u64,
}

#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) now: u64,
    pub(crate) settings: Settings,
    circuit: Circuit,
    /// Until when an operator holds it open, and closed; `u64::MAX` is for good.
    held_open: Option<u64>,
    held_closed: Option<u64>,
    /// Grows with every change of the effective state; outcomes of calls from another generation decide nothing.
    generation: u64,
    /// Errors in a row, in this generation.
    streak: u32,
    /// Reopenings in a row that were not forgiven yet.
    steps: usize,
    log: Vec<Record>,
    /// The window holds nothing of the log before this index.
    forgotten: usize,
    /// When the first bucket began.
    window_start: u64,
    /// The window has held nothing since.
    begun: u64,
    /// When the state last changed.
    changed: u64,
    late: u64,
    running: Vec<Running>,
    /// How many calls were in flight, since when.
    levels: Vec<(u64, usize)>,
    admitted: usize,
    events: Vec<Seen>,
}

impl Reference {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            now: 0,
            settings,
            circuit: Circuit::Closed { since: 0 },
            held_open: None,
            held_closed: None,
            generation: 0,
            streak: 0,
            steps: 0,
            log: Vec::new(),
            forgotten: 0,
            window_start: 0,
            begun: 0,
            changed: 0,
            late: 0,
            running: Vec::new(),
            levels: vec![(0, 0)],
            admitted: 0,
            events: Vec::new(),
        }
    }

    // ---- what is seen ----

    pub(crate) fn view(&self) -> View {
        View {
            state: self.state(),
            window: self.window(),
            span: self.span(),
            lifetime: tally(self.log.iter()),
            health: self.health(),
            late: self.late,
            in_flight: self.running.len(),
            peak: self.peak(),
            limit: self.settings.limit,
            retry_after: self.wait(),
            hold: self.hold(),
        }
    }

    pub(crate) fn take_events(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.events)
    }

    /// What the circuit would do with a call now: an open circuit whose wait is over reads as half-open.
    pub(crate) fn state(&self) -> State {
        match (self.hold(), &self.circuit) {
            (Some((forced, _)), _) => forced.state(),
            (None, Circuit::Closed { .. }) => State::Closed,
            (None, Circuit::Open { until }) if self.now < *until => State::Open,
            (None, _) => State::HalfOpen,
        }
    }

    /// Forced open > forced closed > automatic.
    fn hold(&self) -> Option<(Forced, Option<Duration>)> {
        let left = |until: &u64| (*until != u64::MAX).then(|| Duration::from_nanos(until - self.now));
        let open = self.held_open.as_ref().filter(|until| self.now < **until);
        let closed = self.held_closed.as_ref().filter(|until| self.now < **until);
        open.map(|until| (Forced::Open, left(until))).or(closed.map(|until| (Forced::Closed, left(until))))
    }

    /// How long calls will be refused, where the clock decides that.
    fn wait(&self) -> Option<Duration> {
        match (self.hold(), &self.circuit) {
            (Some((Forced::Open, left)), _) => left,
            (None, Circuit::Open { until }) if self.now < *until => Some(Duration::from_nanos(until - self.now)),
            _ => None,
        }
    }

    /// The next moment at which time alone changes something: where a generator likes to look.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let mut moments: Vec<u64> = self.held_open.into_iter().chain(self.held_closed).collect();
        // Where a running call becomes slow, and where dropping it becomes a failure.
        let ages = [self.settings.slow.map(|(_, threshold)| threshold), self.settings.cancelled_after];
        for age in ages.into_iter().flatten() {
            moments.extend(self.running.iter().map(|call| call.since + age));
        }
        match &self.circuit {
            Circuit::Open { until } => moments.push(*until),
            Circuit::HalfOpen(episode) => moments.extend(episode.out.iter().map(|&(_, end)| end)),
            Circuit::Closed { since } => {
                // Where steps are forgiven, one after the other.
                let mut at = *since;
                for step in (1..=self.steps).rev() {
                    at = at.saturating_add(self.grown(step));
                    moments.push(at);
                }
            }
        }
        moments.into_iter().filter(|&at| at > self.now && at != u64::MAX).min()
    }

    /// Width and number of the buckets of the rolling window; in a window of calls they serve the outcomes that such a
    /// window does not hold.
    pub(crate) fn buckets(&self) -> (u64, u64) {
        match self.settings.shape {
            Shape::Time { width, buckets } => (width, buckets),
            Shape::Calls(_) => (1_000 * MS, 10),
        }
    }

    /// The start of the bucket that comes next.
    pub(crate) fn next_edge(&self) -> u64 {
        let (width, _) = self.buckets();
        self.window_start + ((self.now - self.window_start) / width + 1) * width
    }

    /// The running bucket and the n - 1 before it; buckets are half-open.
    fn is_recent(&self, at: u64) -> bool {
        let (width, buckets) = self.buckets();
        let bucket = |at: u64| (at - self.window_start) / width;
        bucket(at) + buckets > bucket(self.now)
    }

    /// Since when the window holds what was: between n - 1 and n buckets, less while it is young.
    fn window_begin(&self) -> u64 {
        let (width, buckets) = self.buckets();
        let running = (self.now - self.window_start) / width;
        let start = self.window_start + (running + 1).saturating_sub(buckets) * width;
        start.max(self.begun)
    }

    fn span(&self) -> Duration {
        Duration::from_nanos(self.now - self.window_begin())
    }

    /// Most calls in flight at once in the window: those that were when it began, and every change since.
    fn peak(&self) -> usize {
        let begin = self.window_begin();
        let at_begin = self.levels.iter().rev().find(|&&(since, _)| since < begin);
        let inside = self.levels.iter().filter(|&&(since, _)| since >= begin);
        at_begin.into_iter().chain(inside).map(|&(_, level)| level).max().unwrap_or(0)
    }

    fn window(&self) -> Tally {
        let log = &self.log[self.forgotten..];
        let recent = |record: &&Record| self.is_recent(record.at);
        let Shape::Calls(n) = self.settings.shape else { return tally(log.iter().filter(recent)) };
        // A refusal that counts takes a place too; it is shown with the others, by time.
        let takes_place = |record: &&Record| counts(record.outcome) || record.judged.is_some();
        let places = last(n, log.iter().filter(takes_place).collect());
        let others = log.iter().filter(recent).filter(|record| !counts(record.outcome));
        tally(places.filter(|record| counts(record.outcome)).chain(others))
    }

    /// The calls in the window that count and that were admitted since the state last changed.
    fn health(&self) -> Health {
        let log = self.log[self.forgotten..].iter();
        let own = log.filter_map(|record| Some((record.at, record.judged?)));
        let own: Vec<_> = own.filter(|(_, judged)| judged.generation == self.generation).collect();
        let held: Vec<_> = match self.settings.shape {
            // Late calls take no place here: they would push out what decides.
            Shape::Calls(n) => last(n, own).collect(),
            Shape::Time { .. } => own.into_iter().filter(|&(at, _)| self.is_recent(at)).collect(),
        };
        let mut health = Health::default();
        for (_, judged) in held {
            health.total += 1;
            health.errors += u64::from(judged.error);
            health.slow += u64::from(judged.slow);
        }
        health
    }

    // ---- calls ----

    /// Admits a call and gives it a number, or refuses it.
    pub(crate) fn admit(&mut self) -> Result<usize, (Reason, Option<Duration>)> {
        // A call notices that an override is over; of one that another covers it knows nothing.
        if self.held_open.or(self.held_closed).is_some_and(|until| self.now >= until) {
            self.notice_expiry();
        }
        let full = self.settings.limit.is_some_and(|limit| self.running.len() >= limit);
        match self.state() {
            State::Open => return self.refuse(Outcome::ShortCircuited, Reason::CircuitOpen),
            State::ForcedOpen => return self.refuse(Outcome::ShortCircuited, Reason::ForcedOpen),
            State::HalfOpen if !self.has_probe() => {
                return self.refuse(Outcome::ShortCircuited, Reason::ProbeLimit);
            }
            // A full bulkhead must never use up a probe.
            _ if full => return self.refuse(Outcome::Rejected, Reason::ConcurrencyLimit),
            State::HalfOpen => self.take_probe(),
            _ => {}
        }
        let id = self.admitted;
        self.admitted += 1;
        self.levels.push((self.now, self.running.len() + 1));
        self.running.push(Running { id, since: self.now, generation: self.generation });
        Ok(id)
    }

    fn refuse(&mut self, outcome: Outcome, reason: Reason) -> Result<usize, (Reason, Option<Duration>)> {
        let wait = self.wait();
        let judged = Judged { generation: self.generation, error: true, slow: false };
        let closed = self.state_as_noticed() == State::Closed;
        let counts = outcome == Outcome::Rejected && self.settings.count_rejections && closed;
        self.log.push(Record { at: self.now, outcome, judged: counts.then_some(judged) });
        if counts {
            // It enters the error rate, and is part of no run: no call was made.
            self.judge_closed(0);
        }
        Err((reason, wait))
    }

    /// Places in an episode: each probe that ended with a say keeps its place, and so does each that is out, until its
    /// lease is over and somebody needs it.
    fn has_probe(&self) -> bool {
        match &self.circuit {
            Circuit::HalfOpen(episode) => {
                let in_time = episode.out.iter().filter(|(_, end)| self.now < *end).count();
                (episode.ended as usize) + in_time < self.settings.probes
            }
            _ => true,
        }
    }

    fn take_probe(&mut self) {
        if let Circuit::Open { .. } = self.circuit {
            self.change(Circuit::HalfOpen(Episode::default()), Cause::WaitOver);
        }
        let lease = self.settings.timeout.unwrap_or(0).max(self.settings.open_for);
        let (id, end, probes) = (self.admitted, self.now.saturating_add(lease), self.settings.probes);
        let Circuit::HalfOpen(episode) = &mut self.circuit else { unreachable!("it just became half-open") };
        if episode.ended as usize + episode.out.len() >= probes {
            let longest = (0..episode.out.len()).min_by_key(|&at| episode.out[at].1).expect("one is overdue");
            episode.out.remove(longest);
            self.events.push(Seen::LeaseExpired);
        }
        episode.out.push((id, end));
    }

    /// Ends a running call.
    pub(crate) fn end(&mut self, id: usize, how: How) {
        let at = self.running.iter().position(|call| call.id == id).expect("it runs");
        let call = self.running.remove(at);
        self.levels.push((self.now, self.running.len()));
        let took = self.now - call.since;
        let outcome = match how {
            How::Verdict(Verdict::Success) => Outcome::Success,
            How::Verdict(Verdict::Failure | Verdict::OpenFor(_)) => Outcome::Failure,
            How::Verdict(Verdict::Ignored) => Outcome::Ignored,
            How::Panicked => Outcome::Panicked,
            How::Dropped if self.settings.cancelled_after.is_some_and(|after| took >= after) => Outcome::Failure,
            How::Dropped => Outcome::Cancelled,
        };
        let wait = match how {
            How::Verdict(Verdict::OpenFor(wait)) if !wait.is_zero() => Some(wait),
            _ => None,
        };
        let has_say = self.is_current(&call);
        let counts = counts(outcome);
        let slow = self.settings.slow.is_some_and(|(_, threshold)| took >= threshold);
        let judged = Judged { generation: self.generation, error: outcome.is_error(), slow };
        self.log.push(Record { at: self.now, outcome, judged: (has_say && counts).then_some(judged) });
        if let Circuit::HalfOpen(episode) = &mut self.circuit {
            episode.out.retain(|&(probe, _)| probe != id);
        }
        if !has_say {
            self.late += 1;
            self.ask_for_rest(wait);
        } else if counts {
            self.streak = if judged.error { self.streak + 1 } else { 0 };
            self.judge(judged, wait);
        }
    }

    /// Whether a call's outcome decides: it was admitted in this generation and, as a probe, kept its place.
    fn is_current(&self, call: &Running) -> bool {
        let keeps_place = match &self.circuit {
            Circuit::HalfOpen(episode) if self.hold_as_noticed().is_none() => {
                episode.out.iter().any(|&(id, _)| id == call.id)
            }
            _ => true,
        };
        call.generation == self.generation && keeps_place
    }

    /// `OpenFor` of a call from before: while the circuit is open already, the later deadline wins.
    fn ask_for_rest(&mut self, wait: Option<Duration>) {
        let (Some(wait), None) = (wait, self.hold_as_noticed()) else { return };
        if let Circuit::Open { until } = &mut self.circuit {
            *until = (*until).max(self.now.saturating_add(nanos(wait)));
        }
    }

    fn judge(&mut self, judged: Judged, wait: Option<Duration>) {
        if self.hold_as_noticed().is_some() {
            return;
        }
        if let Some(wait) = wait {
            return self.open(Cause::OpenFor { wait });
        }
        match self.circuit {
            Circuit::HalfOpen(_) => self.judge_probe(judged),
            _ => self.judge_closed(self.streak),
        }
    }

    /// Each rule is independent, and any of them trips. `streak` is how many errors in a row end here.
    fn judge_closed(&mut self, streak: u32) {
        let Circuit::Closed { .. } = self.circuit else { return };
        if self.hold_as_noticed().is_some() {
            return;
        }
        let health = self.health();
        let enough = match self.settings.shape {
            // A rate needs no more calls than a window of calls can hold.
            Shape::Calls(n) => health.total >= self.settings.min_calls.min(n as u64),
            Shape::Time { .. } => health.total >= self.settings.min_calls,
        };
        let reached = |rate: u64, part: u64| enough && part * 100 >= health.total * rate;
        let by_rate = self.settings.error_rate.filter(|&rate| reached(rate, health.errors));
        let in_a_row = self.settings.consecutive.filter(|&failures| streak >= failures);
        let by_slow = self.settings.slow.filter(|&(rate, _)| reached(rate, health.slow));
        // Which of several is named is not laid down; this is the order of the code.
        if in_a_row.is_some() {
            self.open(Cause::ConsecutiveFailures { failures: streak });
        } else if let Some(rate) = by_rate {
            self.open(Cause::ErrorRate { threshold: rate as f64 / 100.0 });
        } else if let Some((rate, _)) = by_slow {
            self.open(Cause::SlowCalls { threshold: rate as f64 / 100.0 });
        }
    }

    /// The trip rate applied to the number of probes: reopen as soon as it is reached, close as soon as it cannot be.
    fn judge_probe(&mut self, judged: Judged) {
        let Circuit::HalfOpen(episode) = &mut self.circuit else { unreachable!("only a probe is judged so") };
        episode.ended += 1;
        episode.failed += u64::from(judged.error);
        episode.slow += u64::from(judged.slow);
        self.weigh_probes();
    }

    fn weigh_probes(&mut self) {
        let n = self.settings.probes as u64;
        let Circuit::HalfOpen(Episode { failed, slow, ended, .. }) = self.circuit else {
            unreachable!("it is half-open")
        };
        if ended == 0 {
            return;
        }
        let left = n.saturating_sub(ended);
        let by_error = |failed: u64| match self.settings.error_rate {
            Some(rate) => failed * 100 >= n * rate,
            None => failed >= 1,
        };
        let by_slow = |slow: u64| self.settings.slow.is_some_and(|(rate, _)| slow * 100 >= n * rate);
        if by_error(failed) || by_slow(slow) {
            self.open(Cause::ProbesFailed { failed: failed.max(slow) as u32, ended: ended as u32 });
        } else if !by_error(failed + left) && !by_slow(slow + left) {
            let cause = Cause::ProbesPassed { passed: (ended - failed) as u32 };
            self.change(Circuit::Closed { since: self.now }, cause);
        }
    }

    /// The wait after so many reopenings in a row.
    fn grown(&self, steps: usize) -> u64 {
        let Settings { open_for, growth, max_open, .. } = self.settings;
        let most = max_open.unwrap_or_else(|| open_for.max(60_000 * MS));
        open_for.saturating_mul(growth.saturating_pow(steps as u32)).min(most)
    }

    /// Opens, for as long as the cause says or for a wait that grows with each reopening in a row.
    fn open(&mut self, cause: Cause) {
        let mut wait = self.grown(self.steps);
        if let Circuit::Closed { since } = self.circuit {
            // Each step is forgiven once the circuit has stayed closed for as long as that step's wait.
            let mut closed_for = self.now - since;
            while self.steps > 0 && closed_for >= wait {
                closed_for -= wait;
                self.steps -= 1;
                wait = self.grown(self.steps);
            }
        } else if matches!(cause, Cause::ProbesFailed { .. }) && self.grown(self.steps + 1) > wait {
            // A reopening after which the wait cannot be longer is no step.
            self.steps += 1;
            wait = self.grown(self.steps);
        }
        if let Cause::OpenFor { wait: asked } = cause {
            wait = nanos(asked);
        }
        self.change(Circuit::Open { until: self.now.saturating_add(wait) }, cause);
    }

    // ---- operators ----

    pub(crate) fn force(&mut self, forced: Forced, expiry: Option<u64>) {
        self.notice_expiry();
        let (from, seen) = (self.state_as_noticed(), self.seen());
        *self.held(forced) = Some(expiry.map_or(u64::MAX, |expiry| self.now.saturating_add(expiry)));
        self.events.push(Seen::OverrideSet(forced));
        self.begin_anew(from, seen, Cause::Forced);
    }

    pub(crate) fn clear(&mut self) {
        self.notice_expiry();
        self.lift(|_| true, false, Cause::Cleared);
    }

    /// An expiry is noticed by the first call after it, and by an operator.
    fn notice_expiry(&mut self) {
        let now = self.now;
        self.lift(|until| now >= until, true, Cause::Expired);
    }

    fn lift(&mut self, which: impl Fn(u64) -> bool, expired: bool, cause: Cause) {
        let (from, seen) = (self.state_as_noticed(), self.seen());
        let before = self.events.len();
        for forced in [Forced::Open, Forced::Closed] {
            if self.held(forced).take_if(|until| which(*until)).is_some() {
                self.events.push(Seen::OverrideCleared { forced, expired });
            }
        }
        if self.events.len() > before {
            self.begin_anew(from, seen, cause);
        }
    }

    fn held(&mut self, forced: Forced) -> &mut Option<u64> {
        match forced {
            Forced::Open => &mut self.held_open,
            Forced::Closed => &mut self.held_closed,
        }
    }

    /// Closes the circuit and forgets the window and the growth. An override stays.
    pub(crate) fn reset(&mut self) {
        self.steps = 0;
        self.change(Circuit::Closed { since: self.now }, Cause::Reset);
        self.forget();
    }

    pub(crate) fn reconfigure(&mut self, settings: Settings) {
        let changed = self.settings.differ(&settings);
        if settings.shape != self.settings.shape {
            self.forget();
            self.window_start = self.now;
        }
        self.settings = settings;
        // With fewer probes to come, those that have ended may be all there will be: nothing else would ever decide.
        if self.state_as_noticed() == State::HalfOpen {
            self.weigh_probes();
        }
        self.events.push(Seen::Reconfigured(changed));
    }

    /// The window starts empty, but for the calls that are in flight.
    fn forget(&mut self) {
        self.forgotten = self.log.len();
        self.begun = self.now;
        self.levels = vec![(self.now, self.running.len())];
    }

    // ---- how it changes ----

    fn hold_as_noticed(&self) -> Option<Forced> {
        self.held_open.map(|_| Forced::Open).or(self.held_closed.map(|_| Forced::Closed))
    }

    /// As [`Reference::state`], before the clock is looked at.
    fn state_as_noticed(&self) -> State {
        match (self.hold_as_noticed(), &self.circuit) {
            (Some(forced), _) => forced.state(),
            (None, Circuit::Closed { .. }) => State::Closed,
            (None, Circuit::Open { .. }) => State::Open,
            (None, Circuit::HalfOpen(_)) => State::HalfOpen,
        }
    }

    fn change(&mut self, to: Circuit, cause: Cause) {
        let (from, seen) = (self.state_as_noticed(), self.seen());
        self.circuit = to;
        self.begin_anew(from, seen, cause);
    }

    /// What the circuit had seen.
    fn seen(&self) -> (Health, Tally) {
        (self.health(), self.window())
    }

    /// A new generation, in which earlier calls have no say. Only a change of the state is told.
    fn begin_anew(&mut self, from: State, (health, window): (Health, Tally), cause: Cause) {
        self.generation += 1;
        self.streak = 0;
        if let Circuit::HalfOpen(episode) = &mut self.circuit {
            *episode = Episode::default();
        }
        let to = self.state_as_noticed();
        if from != to {
            let lasted = Duration::from_nanos(self.now - self.changed);
            self.changed = self.now;
            let (span, wait) = (self.span(), self.wait());
            self.events.push(Seen::Transition { from, to, cause, lasted, health, window, span, wait });
        }
    }
}

/// Whether an outcome enters a rate.
fn counts(outcome: Outcome) -> bool {
    outcome == Outcome::Success || outcome.is_error()
}

fn last<T>(n: usize, all: Vec<T>) -> impl Iterator<Item = T> {
    let skipped = all.len().saturating_sub(n);
    all.into_iter().skip(skipped)
}

fn tally<'r>(records: impl Iterator<Item = &'r Record>) -> Tally {
    let mut tally = [0; 9];
    for record in records {
        let at = Outcome::ALL.iter().position(|&outcome| outcome == record.outcome).expect("ALL has all");
        tally[at] += 1;
    }
    tally
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
