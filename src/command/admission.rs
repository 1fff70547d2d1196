//! How a call gets in: breaker, rate limit, bulkhead, probe, in this order, or a refusal that is counted here.
//!
//! The bulkhead comes before the probe, so that a full one uses up no probe; and a call that is refused at one of these
//! gives back what it got at those before.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::core::Core;
use super::extras::Parts;
use super::permit::Permit;
use crate::breaker::machine::{Refusal, Ticket};
use crate::bulkhead::InLine;
use crate::error::{Reason, Rejected};
use crate::outcome::Outcome;
use crate::rate_limit::limiter::Turn;
use crate::sync::Ordering;
use crate::time::{Stamp, Timer, timer};
use crate::window::flow::LaneId;

/// What a call that is let in gets: the circuit's word for it, and a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    pub(crate) ticket: Ticket,
    pub(crate) lane: LaneId,
}

/// Why a call does not start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    Circuit(Refusal),
    /// Beyond the rate, before this time.
    Rate {
        until: Stamp,
    },
    /// No slot, and no place in line.
    Full,
    /// A place in line, and no slot in time.
    Waited,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Circuit(refusal)
    }
}

impl Core {
    /// Admits a call at once or refuses it.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Permit<'_>, Rejected> {
        let now = Stamp::now();
        if let Some(permit) = self.pass(now) {
            return Ok(permit);
        }
        match self.enter(now, self.timeout()) {
            Ok(admission) => Ok(Permit::borrowed(self, admission, now)),
            Err(refused) => Err(self.refuse(now, refused)),
        }
    }

    /// As [`Core::admit`], with a permit that keeps the command alive.
    pub(crate) fn admit_owned(self: &Arc<Self>) -> Result<Permit<'static>, Rejected> {
        let now = Stamp::now();
        match self.enter(now, self.timeout()) {
            Ok(admission) => Ok(Permit::owned(Arc::clone(self), admission, now)),
            Err(refused) => Err(self.refuse(now, refused)),
        }
    }

    /// Admits a call as nearly all are: by a closed circuit with a free slot and nothing else to ask. `None` says nothing.
    ///
    /// It goes before [`Core::enter`], which could do it all, because what that returns is a choice of many things and so
    /// is built in memory.
    #[inline(always)]
    pub(crate) fn pass(&self, now: Stamp) -> Option<Permit<'_>> {
        if !self.circuit.word().is_closed() || self.extras.get().is_some() {
            return None;
        }
        self.circuit.roll(now);
        let lane = self.slots.try_acquire()?;
        let Some(ticket) = self.circuit.pass() else {
            self.slots.release(lane);
            return None;
        };
        Some(Permit::plain(self, Admission { ticket, lane }, now))
    }

    /// Admits a call at once or says why not; a refusal is not counted yet. `timeout` is in nanoseconds.
    #[inline(always)]
    pub(crate) fn enter(&self, now: Stamp, timeout: u64) -> Result<Admission, Refused> {
        self.circuit.peek(now)?;
        self.circuit.roll(now);
        if let Some(parts) = self.extras.get() {
            return self.enter_by_rate(parts, now, timeout);
        }
        self.take_slot(now, timeout)
    }

    #[cold]
    fn enter_by_rate(&self, parts: &Parts, now: Stamp, timeout: u64) -> Result<Admission, Refused> {
        let turn = parts.limiter.take(now).map_err(|until| Refused::Rate { until })?;
        self.take_slot(now, timeout).inspect_err(|_| parts.limiter.give_back(turn))
    }

    #[inline(always)]
    fn take_slot(&self, now: Stamp, timeout: u64) -> Result<Admission, Refused> {
        let lane = self.slots.try_acquire().ok_or(Refused::Full)?;
        self.take_ticket(now, timeout, lane)
    }

    /// The last part, for a call that has a slot.
    #[inline(always)]
    fn take_ticket(&self, now: Stamp, timeout: u64, lane: LaneId) -> Result<Admission, Refused> {
        let admitted = self.circuit.admit(now, timeout);
        if admitted.is_err() {
            self.slots.release(lane);
        }
        if self.circuit.has_news() {
            self.publish();
        }
        Ok(Admission { ticket: admitted?, lane })
    }

    /// A place in which a call can wait that [`Core::enter`] did not admit and that must end by `until`, and for how long
    /// at most, in nanoseconds: if all it lacks is a turn or a slot, and there is one to wait for.
    #[inline]
    pub(crate) fn line_up(&self, now: Stamp, refused: Refused, until: Stamp) -> Option<(Place<'_>, u64)> {
        match refused {
            Refused::Full => self.line_up_for_slot(now, until),
            Refused::Rate { .. } => self.line_up_for_turn(now, until),
            Refused::Circuit(_) | Refused::Waited => None,
        }
    }

    /// A call in this line has had its turn by the rate, which it does not get back from there.
    #[cold]
    fn line_up_for_slot(&self, now: Stamp, until: Stamp) -> Option<(Place<'_>, u64)> {
        let patience = self.family.queue_wait()?;
        let until = self.end_of_call(now, until);
        let turn = match self.extras.get() {
            Some(parts) => Some((parts, parts.limiter.take(now).ok()?)),
            None => None,
        };
        let Some(in_line) = self.slots.line_up() else {
            turn.inspect(|(parts, turn)| parts.limiter.give_back(*turn));
            return None;
        };
        Some((Place::new(self, Stage::Slot(in_line), until), patience.min(now.nanos_until(until))))
    }

    #[cold]
    fn line_up_for_turn(&self, now: Stamp, until: Stamp) -> Option<(Place<'_>, u64)> {
        let parts = self.extras.get()?;
        let until = self.end_of_call(now, until);
        let (turn, go) = parts.limiter.reserve(now)?;
        if go >= until {
            parts.limiter.give_back(turn);
            return None;
        }
        let stage = Stage::Turn(Box::new(Reserved { turn, parts }));
        Some((Place::new(self, stage, until), go.nanos_since(now)))
    }

    /// A plain call knows its timeout, and not that there is a deadline for it and its waits together.
    fn end_of_call(&self, now: Stamp, until: Stamp) -> Stamp {
        if until == Stamp::NEVER { now.plus(self.family.deadline()) } else { until }
    }

    /// Counts a refusal and tells the caller what it needs to know of it.
    pub(crate) fn refuse(&self, now: Stamp, refused: Refused) -> Rejected {
        let (outcome, reason, until) = match refused {
            Refused::Circuit(Refusal::Open { until }) => (Outcome::ShortCircuited, Reason::CircuitOpen, until),
            Refused::Circuit(Refusal::ForcedOpen { until }) => (Outcome::ShortCircuited, Reason::ForcedOpen, until),
            Refused::Circuit(Refusal::ProbeLimit) => (Outcome::ShortCircuited, Reason::ProbeLimit, Stamp::NEVER),
            Refused::Circuit(Refusal::Ramp) => (Outcome::ShortCircuited, Reason::Ramp, Stamp::NEVER),
            Refused::Rate { until } => (Outcome::RateLimited, Reason::RateLimited, until),
            Refused::Full => (Outcome::Rejected, Reason::ConcurrencyLimit, Stamp::NEVER),
            Refused::Waited => (Outcome::Rejected, Reason::QueueTimeout, Stamp::NEVER),
        };
        self.circuit.refuse(now, outcome);
        self.unstarted(outcome);
        let wait = if until == Stamp::NEVER { u64::MAX } else { until.nanos_since(now) };
        let rejected = Rejected::new(self.name(), reason, wait);
        if tracing::enabled!(target: "fusebox", tracing::Level::DEBUG) {
            self.trace(now, rejected);
        }
        rejected
    }

    /// Follows the count of a call that was not started.
    #[inline]
    fn unstarted(&self, outcome: Outcome) {
        self.family.meter.unstarted(outcome);
        if self.circuit.has_news() {
            self.publish();
        }
    }

    /// At most one line a second: a refusal is the command's normal work while its dependency is down.
    #[cold]
    fn trace(&self, now: Stamp, rejected: Rejected) {
        const EVERY: u64 = 1_000_000_000;
        let last = self.family.traced.load(Ordering::Relaxed);
        if last != 0 && now.nanos_since(Stamp::from_nanos(last)) < EVERY {
            return;
        }
        if self.family.traced.compare_exchange(last, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::debug!(target: "fusebox", command = %self.name(), reason = %rejected.reason(), "refused");
        }
    }
}

/// Where a call waits. Dropped there, the call was cancelled.
#[derive(Debug)]
pub(crate) struct Place<'c> {
    core: &'c Core,
    stage: Stage<'c>,
    /// When the call must have ended.
    until: Stamp,
    counted: bool,
}

/// What it waits for.
#[derive(Debug)]
enum Stage<'c> {
    /// Its turn by the rate, until the timer ends.
    Turn(Box<Reserved<'c>>),
    /// A slot, until it has one or the timer ends.
    Slot(InLine<'c>),
}

#[derive(Debug)]
struct Reserved<'c> {
    turn: Turn,
    parts: &'c Parts,
}

impl<'c> Place<'c> {
    fn new(core: &'c Core, stage: Stage<'c>, until: Stamp) -> Self {
        Self { core, stage, until, counted: false }
    }

    /// A permit, or a refusal: the wait was too long, or the circuit has opened meanwhile. `timer` is armed with what
    /// [`Core::line_up`] gave; `timeout`, in nanoseconds, is cut down to what the wait has left of the call's time.
    pub(crate) fn poll(
        &mut self,
        mut timer: Pin<&mut Option<Timer>>,
        timeout: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Permit<'c>, Rejected>> {
        if let Stage::Turn(_) = self.stage {
            ready!(wait(timer.as_mut(), cx));
            if let Poll::Ready(ended) = self.take_turn(timer.as_mut(), timeout) {
                return Poll::Ready(ended);
            }
        }
        let Stage::Slot(in_line) = &mut self.stage else { panic!("a place was polled after its end") };
        let granted = Pin::new(in_line).poll(cx);
        if granted.is_pending() && wait(timer, cx).is_pending() {
            return Poll::Pending;
        }
        let (core, now) = (self.core, Stamp::now());
        let admission = match granted {
            Poll::Ready(lane) => core.take_ticket(now, self.cut(now, timeout), lane),
            Poll::Pending => Err(Refused::Waited),
        };
        Poll::Ready(self.end(now, admission))
    }

    /// The turn has come: goes on as a call does that did not have to wait for it, if need be to the bulkhead's line.
    fn take_turn(
        &mut self,
        mut timer: Pin<&mut Option<Timer>>,
        timeout: &mut u64,
    ) -> Poll<Result<Permit<'c>, Rejected>> {
        let (core, now) = (self.core, Stamp::now());
        let timeout = self.cut(now, timeout);
        let entered = core.circuit.peek(now).map_err(Refused::from).and_then(|()| {
            core.circuit.roll(now);
            core.take_slot(now, timeout)
        });
        if let (Err(Refused::Full), Some(patience)) = (&entered, core.family.queue_wait()) {
            if let Some(in_line) = core.slots.line_up() {
                self.stage = Stage::Slot(in_line);
                timer.set(Some(self::timer(now, patience.min(now.nanos_until(self.until)))));
                return Poll::Pending;
            }
        }
        if entered.is_err() {
            self.give_back();
        }
        Poll::Ready(self.end(now, entered))
    }

    fn cut(&self, now: Stamp, timeout: &mut u64) -> u64 {
        *timeout = (*timeout).min(now.nanos_until(self.until));
        *timeout
    }

    fn end(&mut self, now: Stamp, admission: Result<Admission, Refused>) -> Result<Permit<'c>, Rejected> {
        self.counted = true;
        match admission {
            Ok(admission) => Ok(Permit::borrowed(self.core, admission, now)),
            Err(refused) => Err(self.core.refuse(now, refused)),
        }
    }

    /// A turn that is not used.
    fn give_back(&mut self) {
        if let Stage::Turn(reserved) = &self.stage {
            reserved.parts.limiter.give_back(reserved.turn);
        }
    }
}

fn wait(timer: Pin<&mut Option<Timer>>, cx: &mut Context<'_>) -> Poll<()> {
    timer.as_pin_mut().expect("armed with the place").poll(cx)
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.give_back();
            self.core.circuit.cancel(Stamp::now());
            self.core.unstarted(Outcome::Cancelled);
        }
    }
}
