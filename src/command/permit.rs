//! The one place where the outcome of a call is recorded.
//!
//! Whatever becomes of a call, its permit is resolved or dropped, and either records exactly one outcome and gives back
//! everything the call held: its slot, and its probe if it had one. So cancellation, panic and timeout need no code of
//! their own.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::admission::Admission;
use super::core::Core;
use super::extras::Ended;
use super::marks::{Alarm, Marks};
use crate::breaker::circuit::Ending;
use crate::breaker::lookout::Lookout;
use crate::breaker::machine::Ticket;
use crate::error::{Error, Reason, Rejected, TimedOut};
use crate::outcome::{Outcome, Verdict};
use crate::time::{Stamp, Timer, saturating_nanos, timer};
use crate::window::flow::LaneId;

/// Leave to make one call. Resolve it with what became of the call; dropped unresolved, the call counts as cancelled,
/// or as panicked if the drop is part of a panic.
///
/// Made by [`Command::admit`](crate::Command::admit) and [`Command::admit_owned`](crate::Command::admit_owned). A
/// permit that is leaked with `std::mem::forget` holds its slot for good; a probe's place comes back all the same, when
/// its lease ends.
///
/// ```
/// use fusebox::{Command, Verdict};
///
/// let stream = Command::builder("orders.stream").build()?;
/// let permit = stream.admit()?;
/// // ... read the stream to its end, then
/// permit.succeed();
///
/// stream.admit()?.resolve(Verdict::Failure);
/// drop(stream.admit()?); // cancelled
/// let lifetime = stream.snapshot().lifetime();
/// assert_eq!((lifetime.get("success"), lifetime.get("failure"), lifetime.get("cancelled")), (1, 1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a permit that is dropped at once records a cancelled call"]
pub struct Permit<'c> {
    core: CoreRef<'c>,
    ticket: Ticket,
    admitted: Stamp,
    /// Not resolved yet.
    open: bool,
    slot: Option<LaneId>,
    watch: Watch,
    marks: Marks,
}

/// How a permit tells, when it is dropped, whether its own call panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// It lies on the stack of the code that it is for: a panic that drops it is that code's.
    Stack,
    /// It lies in a future that is not being polled: whoever panics, it is not the call.
    Idle,
    /// The future is being polled, or was when a panic unwound out of it.
    UserCode,
}

#[derive(Debug)]
enum CoreRef<'c> {
    Borrowed(&'c Core),
    Owned(Arc<Core>),
}

impl Deref for CoreRef<'_> {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        match self {
            Self::Borrowed(core) => core,
            Self::Owned(core) => core,
        }
    }
}

impl Permit<'static> {
    pub(crate) fn owned(core: Arc<Core>, admission: Admission, at: Stamp) -> Self {
        let marks = Marks::lesson(core.extras.get().is_some());
        Permit::with(CoreRef::Owned(core), admission, at, marks)
    }
}

impl<'c> Permit<'c> {
    #[inline]
    pub(crate) fn borrowed(core: &'c Core, admission: Admission, at: Stamp) -> Self {
        Self::with(CoreRef::Borrowed(core), admission, at, Marks::lesson(core.extras.get().is_some()))
    }

    /// Of a command that has no extras.
    #[inline]
    pub(crate) fn plain(core: &'c Core, admission: Admission, at: Stamp) -> Self {
        Self::with(CoreRef::Borrowed(core), admission, at, Marks::NONE)
    }

    #[inline]
    fn with(core: CoreRef<'c>, Admission { ticket, lane }: Admission, admitted: Stamp, marks: Marks) -> Self {
        Self { core, ticket, admitted, open: true, slot: Some(lane), watch: Watch::Stack, marks }
    }

    /// The call succeeded.
    #[inline]
    pub fn succeed(self) {
        self.resolve(Verdict::Success);
    }

    /// The call failed.
    pub fn fail(self) {
        self.resolve(Verdict::Failure);
    }

    /// The call says nothing about the dependency.
    pub fn ignore(self) {
        self.resolve(Verdict::Ignored);
    }

    /// Records the verdict on the call.
    #[inline]
    pub fn resolve(mut self, verdict: Verdict) {
        let elapsed = self.elapsed();
        self.settle_verdict(verdict, elapsed);
    }

    /// Nanoseconds since the admission, by a fresh reading of the clock.
    #[inline]
    pub(crate) fn elapsed(&self) -> u64 {
        Stamp::now().nanos_since(self.admitted)
    }

    pub(crate) fn admitted(&self) -> Stamp {
        self.admitted
    }

    #[cfg(test)]
    #[allow(dead_code, reason = "for schedules only")]
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    #[inline]
    pub(crate) fn settle_verdict(&mut self, verdict: Verdict, elapsed: u64) {
        let (outcome, open_for) = match verdict {
            Verdict::Success => (Outcome::Success, None),
            Verdict::Failure => (Outcome::Failure, None),
            Verdict::Ignored => (Outcome::Ignored, None),
            Verdict::OpenFor(wait) => (Outcome::Failure, Some(saturating_nanos(wait)).filter(|&wait| wait > 0)),
        };
        self.settle(outcome, elapsed, open_for);
    }

    /// Records the outcome, once, and gives everything back. User code (recorders, listeners) comes last.
    #[inline]
    pub(crate) fn settle(&mut self, outcome: Outcome, elapsed: u64, open_for: Option<u64>) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let core = &*self.core;
        let now = self.admitted.plus(elapsed);
        if let Some(latencies) = &core.latencies {
            latencies.record(now, elapsed);
        }
        let ending = Ending { outcome, elapsed, open_for, overdue: self.marks.is_overdue() };
        let recorded = core.circuit.record(now, self.ticket, ending, self.slot);
        match (recorded.left, self.slot) {
            (Some(left), _) => core.slots.left(left),
            (None, Some(lane)) => core.slots.release(lane),
            (None, None) => {}
        }
        if self.marks != Marks::NONE {
            self.give_back_marks(Ended { admitted: self.admitted, at: now, outcome, elapsed });
        }
        core.family.meter.call(outcome, elapsed);
        if recorded.late {
            core.family.meter.late();
        }
        if core.circuit.has_news() {
            core.publish();
        }
    }

    /// What waiting brought: the place of the oldest one, and the waker's seat. And what the call has taught.
    fn give_back_marks(&self, ended: Ended) {
        let core = &*self.core;
        if self.marks.is_eldest() {
            core.eldest.release();
        }
        if let (Some(seat), Some(lookout)) = (self.marks.seat(), core.circuit.lookout()) {
            lookout.leave(seat);
        }
        if let (true, Some(parts)) = (self.marks.is_lesson(), core.extras.get()) {
            core.learn(parts, ended);
        }
    }

    #[inline]
    pub(crate) fn watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// The call has to wait: from now on it may be the oldest one in flight.
    #[inline]
    pub(crate) fn note_waiting(&mut self) {
        if !self.marks.is_eldest() && self.core.eldest.claim(self.admitted) {
            self.marks.set_eldest();
        }
    }

    /// Whether the circuit has an eye on calls in flight.
    #[inline]
    pub(crate) fn is_looked_after(&self) -> bool {
        self.core.circuit.lookout().is_some()
    }

    /// Polls the timer of a call that is [looked after](Self::is_looked_after), and arms it where that is not done; ready
    /// when the call has to end. It is set for the moment from which on the call is slow, then for the timeout.
    #[cold]
    pub(crate) fn poll_alarms(
        &mut self,
        mut timer: Pin<&mut Option<Timer>>,
        limit: u64,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if self.must_end(cx) {
                self.marks.set_alarm(Alarm::Aborted);
                return Poll::Ready(());
            }
            if timer.is_none() {
                let Some(nanos) = self.next_alarm(limit) else { return Poll::Pending };
                timer.set(Some(self::timer(self.admitted, nanos)));
            }
            ready!(timer.as_mut().as_pin_mut().expect("it is armed").poll(cx));
            if self.marks.alarm() != Alarm::Slow {
                return Poll::Ready(());
            }
            timer.set(None);
            self.become_overdue();
        }
    }

    /// In nanoseconds since the admission.
    fn next_alarm(&mut self, limit: u64) -> Option<u64> {
        let slow = self.core.circuit.lookout().map_or(u64::MAX, Lookout::overdue_from);
        if self.marks.alarm() == Alarm::Timeout && slow < limit {
            self.marks.set_alarm(Alarm::Slow);
            return Some(slow);
        }
        Some(limit).filter(|&limit| limit != u64::MAX)
    }

    /// Whether the circuit has opened since, and wants calls to end then; if not, it wakes the task when it does.
    fn must_end(&mut self, cx: &Context<'_>) -> bool {
        let lookout = self.core.circuit.lookout();
        let mut seat = self.marks.seat();
        let must_end = lookout.is_some_and(|lookout| lookout.must_end(self.ticket.word, &mut seat, cx));
        self.marks.set_seat(seat);
        must_end
    }

    /// Ends a call that has no result, because its timer or its circuit ended it, and says so. In nanoseconds.
    #[cold]
    pub(crate) fn give_up<E>(&mut self, limit: u64, elapsed: u64) -> Error<E> {
        let name = self.core.name();
        if self.marks.alarm() == Alarm::Aborted {
            let wait = self.core.circuit.wait(self.admitted.plus(elapsed));
            self.settle(Outcome::Cancelled, elapsed, None);
            return Error::Rejected(Rejected::new(name, Reason::Aborted, wait));
        }
        self.settle(Outcome::TimedOut, elapsed, None);
        Error::TimedOut(TimedOut::new(name, limit, elapsed))
    }

    fn become_overdue(&mut self) {
        let counts = self.core.circuit.overdue(Stamp::now(), self.ticket);
        self.marks.set_alarm(if counts { Alarm::Overdue } else { Alarm::Passed });
        if self.core.circuit.has_news() {
            self.core.publish();
        }
    }

    /// Settles a call that nobody has resolved.
    #[cold]
    fn abandon(&mut self) {
        let elapsed = self.elapsed();
        let panicked = match self.watch {
            Watch::Stack => std::thread::panicking(),
            Watch::Idle => false,
            Watch::UserCode => true,
        };
        let outcome = if panicked { Outcome::Panicked } else { self.core.circuit.cancelled(elapsed) };
        self.settle(outcome, elapsed, None);
    }

    /// Leaves the slot to work that outlives the call.
    pub(crate) fn hand_over_slot(&mut self, core: Arc<Core>) -> SlotOfWork {
        SlotOfWork { core, slot: self.slot.take() }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.open {
            self.abandon();
        }
    }
}

/// The slot of work that cannot be stopped: it stays taken until the work ends, however long its caller waits.
#[derive(Debug)]
pub(crate) struct SlotOfWork {
    core: Arc<Core>,
    slot: Option<LaneId>,
}

impl Drop for SlotOfWork {
    fn drop(&mut self) {
        if let Some(lane) = self.slot {
            self.core.slots.release(lane);
        }
    }
}
