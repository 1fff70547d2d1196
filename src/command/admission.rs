//! How a call gets in: breaker, bulkhead, probe, in this order, or a refusal that is counted here.
//!
//! The bulkhead comes before the probe, so that a full one uses up no probe; and a call that the circuit then refuses
//! gives its slot back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::core::Core;
use super::permit::Permit;
use crate::breaker::machine::{Refusal, Ticket};
use crate::bulkhead::InLine;
use crate::error::{Reason, Rejected};
use crate::outcome::Outcome;
use crate::sync::Ordering;
use crate::time::{Stamp, Timer};
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
        match self.enter(now, self.family.timeout()) {
            Ok(admission) => Ok(Permit::borrowed(self, admission, now)),
            Err(refused) => Err(self.refuse(now, refused)),
        }
    }

    /// As [`Core::admit`], with a permit that keeps the command alive.
    pub(crate) fn admit_owned(self: &Arc<Self>) -> Result<Permit<'static>, Rejected> {
        let now = Stamp::now();
        match self.enter(now, self.family.timeout()) {
            Ok(admission) => Ok(Permit::owned(Arc::clone(self), admission, now)),
            Err(refused) => Err(self.refuse(now, refused)),
        }
    }

    /// Admits a call at once or says why not; a refusal is not counted yet. `timeout` is in nanoseconds.
    #[inline(always)]
    pub(crate) fn enter(&self, now: Stamp, timeout: u64) -> Result<Admission, Refused> {
        self.circuit.peek(now)?;
        self.circuit.roll(now);
        let lane = self.slots.try_acquire().ok_or(Refused::Full)?;
        self.take_ticket(now, timeout, lane)
    }

    /// The second half, for a call that has a slot.
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

    /// A place in line and the longest wait there, in nanoseconds, for a call that [`Core::enter`] did not admit: if
    /// only a slot is missing, there is a queue, and it has room.
    #[inline]
    pub(crate) fn line_up(&self, refused: Refused) -> Option<(Place<'_>, u64)> {
        match refused {
            Refused::Full => self.place_in_line(),
            _ => None,
        }
    }

    #[cold]
    fn place_in_line(&self) -> Option<(Place<'_>, u64)> {
        let patience = self.family.queue_wait()?;
        let in_line = self.slots.line_up()?;
        Some((Place { core: self, in_line, counted: false }, patience))
    }

    /// Counts a refusal and tells the caller what it needs to know of it.
    pub(crate) fn refuse(&self, now: Stamp, refused: Refused) -> Rejected {
        let (outcome, reason, until) = match refused {
            Refused::Circuit(Refusal::Open { until }) => (Outcome::ShortCircuited, Reason::CircuitOpen, until),
            Refused::Circuit(Refusal::ForcedOpen { until }) => (Outcome::ShortCircuited, Reason::ForcedOpen, until),
            Refused::Circuit(Refusal::ProbeLimit) => (Outcome::ShortCircuited, Reason::ProbeLimit, Stamp::NEVER),
            Refused::Circuit(Refusal::Ramp) => (Outcome::ShortCircuited, Reason::Ramp, Stamp::NEVER),
            Refused::Full => (Outcome::Rejected, Reason::ConcurrencyLimit, Stamp::NEVER),
            Refused::Waited => (Outcome::Rejected, Reason::QueueTimeout, Stamp::NEVER),
        };
        self.circuit.refuse(now, outcome);
        self.unstarted(outcome);
        let retry_after = (until != Stamp::NEVER).then(|| until.since(now));
        let rejected = Rejected::new(self.name(), reason, retry_after);
        if tracing::enabled!(target: "fusebox", tracing::Level::DEBUG) {
            self.trace(now, rejected);
        }
        rejected
    }

    /// Follows the count of a call that was not started.
    #[inline]
    fn unstarted(&self, outcome: Outcome) {
        self.family.meter.call(outcome, 0);
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

/// A call's place in the bulkhead's line. Dropped there, the call was cancelled.
#[derive(Debug)]
pub(crate) struct Place<'c> {
    core: &'c Core,
    in_line: InLine<'c>,
    counted: bool,
}

impl<'c> Place<'c> {
    /// A permit, or a refusal: the wait was too long, or the circuit has opened meanwhile.
    pub(crate) fn poll(
        &mut self,
        patience: Pin<&mut Timer>,
        timeout: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Permit<'c>, Rejected>> {
        let granted = Pin::new(&mut self.in_line).poll(cx);
        if granted.is_pending() && patience.poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.counted = true;
        let (core, now) = (self.core, Stamp::now());
        let admission = match granted {
            Poll::Ready(lane) => core.take_ticket(now, timeout, lane),
            Poll::Pending => Err(Refused::Waited),
        };
        Poll::Ready(match admission {
            Ok(admission) => Ok(Permit::borrowed(core, admission, now)),
            Err(refused) => Err(core.refuse(now, refused)),
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.core.circuit.cancel(Stamp::now());
            self.core.unstarted(Outcome::Cancelled);
        }
    }
}
