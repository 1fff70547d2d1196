//! The bulkhead: one slow dependency must not take all of a service's tasks, sockets and memory with it.
//!
//! [`Slots`] caps the calls in flight, by the word in [`Flow`]: the limit is exact under any interleaving, a live change
//! of it included, and a refusal is one load. Calls may wait, first come first served, if a queue is configured: while
//! any do, a slot that is given back goes to the first in line and newcomers get none.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::Problems;
use crate::sync::{Mutex, seeded};
use crate::window::flow::{Entered, Flow, LaneId, Left};

/// How many calls may be in flight, and whether more may wait. Plain data.
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Bulkhead, Command};
///
/// // 64 at once; up to 128 more wait, first come first served, for 20 ms at most.
/// let reports = Command::builder("reports")
///     .bulkhead(Bulkhead::new(64).queue(128, Duration::from_millis(20)))
///     .build()?;
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a bulkhead does nothing until a command is built with it"]
#[non_exhaustive]
pub struct Bulkhead {
    /// Calls in flight at once.
    pub limit: usize,
    /// Calls that may wait, and for how long; `None` refuses at once.
    pub queue: Option<(usize, Duration)>,
}

impl Bulkhead {
    /// At most `limit` calls in flight, 1 to 16,777,214; the next is refused at once.
    pub const fn new(limit: usize) -> Self {
        Self { limit, queue: None }
    }

    /// Lets `length` calls, 1 to 65,535, wait for `wait` at most, longer than 0, in the order of their arrival. The wait
    /// is not part of the call's timeout.
    pub const fn queue(self, length: usize, wait: Duration) -> Self {
        Self { queue: Some((length, wait)), ..self }
    }

    pub(crate) fn check(self, problems: &mut Problems, field: &'static str) -> Capacity {
        let limit = limit(problems, field, self.limit);
        let queue = self.queue.map(|(length, wait)| {
            problems.require((1..=MAX_LINE).contains(&length), "bulkhead.queue.length", || length, "1 to 65535 calls");
            (length.min(MAX_LINE), problems.span("bulkhead.queue.wait", wait))
        });
        Capacity { limit, queue }
    }
}

/// A limit on concurrency, checked.
pub(crate) fn limit(problems: &mut Problems, field: &'static str, limit: usize) -> u32 {
    let fits = (1..Flow::UNLIMITED as usize).contains(&limit);
    problems.require(fits, field, || limit, "1 to 16777214 calls");
    if fits { limit as u32 } else { 1 }
}

/// The longest queue: one that is longer is a leak.
const MAX_LINE: usize = u16::MAX as usize;

/// The checked form of a [`Bulkhead`], or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    limit: u32,
    /// Length, and wait in nanoseconds.
    pub(crate) queue: Option<(usize, u64)>,
}

impl Capacity {
    pub(crate) const UNLIMITED: Self = Self { limit: Flow::UNLIMITED, queue: None };

    pub(crate) const fn of(limit: u32) -> Self {
        Self { limit, queue: None }
    }

    /// The same with another limit.
    pub(crate) const fn at(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    fn line_length(self) -> usize {
        self.queue.map_or(0, |(length, _)| length)
    }
}

/// The slots of one bulkhead.
#[derive(Debug)]
pub(crate) struct Slots {
    flow: Arc<Flow>,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    /// Most calls that may wait.
    length: usize,
    waiters: Waiters,
}

/// Those who stand in line. Where nobody ever did, it takes a word.
#[derive(Debug, Default)]
#[allow(clippy::box_collection, reason = "a word in place of four, for what is seldom there")]
struct Waiters(Option<Box<VecDeque<Arc<Waiter>>>>);

impl Waiters {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiters| waiters.len())
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push_back(&mut self, waiter: Arc<Waiter>) {
        self.0.get_or_insert_default().push_back(waiter);
    }

    fn pop_front(&mut self) -> Option<Arc<Waiter>> {
        self.0.as_mut()?.pop_front()
    }

    fn remove(&mut self, waiter: &Arc<Waiter>) {
        if let Some(waiters) = &mut self.0 {
            waiters.retain(|other| !Arc::ptr_eq(other, waiter));
        }
    }
}

impl Slots {
    pub(crate) fn new(capacity: Capacity) -> Self {
        let line = Line { length: capacity.line_length(), waiters: Waiters::default() };
        Self { flow: Arc::new(Flow::new(capacity.limit)), line: Mutex::new(line) }
    }

    /// The word that the slots are counted in.
    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Takes a slot if one is free. Each that is taken must be followed by one [`Slots::release`], or by a
    /// [`Flow::leave_good`] and [`Slots::left`].
    #[inline]
    pub(crate) fn try_acquire(&self) -> Option<LaneId> {
        match self.flow.try_enter() {
            Entered::In(lane) => Some(lane),
            Entered::Full => None,
            Entered::ShareFell(lane) => {
                self.release(lane);
                self.acquire_in_turn(&self.line.lock())
            }
            Entered::Unclear => self.acquire_in_turn(&self.line.lock()),
        }
    }

    /// Needs the line's lock: takes a slot if one is free and nobody is in line for it.
    #[cold]
    fn acquire_in_turn(&self, line: &Line) -> Option<LaneId> {
        if !line.waiters.is_empty() {
            return None;
        }
        match seeded("in turn") {
            true => {}
            false => self.flow.bar(),
        }
        let lane = self.flow.enter_barred();
        self.flow.unbar();
        lane
    }

    /// Gives a slot back.
    #[inline]
    pub(crate) fn release(&self, lane: LaneId) {
        self.left(self.flow.leave(lane));
    }

    /// Follows a slot that was given back: it may be for those in line.
    #[inline]
    pub(crate) fn left(&self, left: Left) {
        if left.line && !seeded("line") {
            self.serve_line();
        }
    }

    #[cold]
    fn serve_line(&self) {
        let granted = self.grant(&mut self.line.lock());
        granted.into_iter().for_each(Waker::wake);
    }

    /// A place in line, which is a slot already if one came free meanwhile; `None` when the line is full.
    pub(crate) fn line_up(&self) -> Option<InLine<'_>> {
        let mut line = self.line.lock();
        let mut slot = None;
        if line.waiters.is_empty() {
            // Barred before looking: whoever gives a slot back from here on sees the bar, and serves the line.
            self.flow.bar();
            slot = self.flow.enter_barred();
            if slot.is_some() || line.length == 0 {
                self.flow.unbar();
            }
        }
        if slot.is_none() && line.waiters.len() >= line.length {
            return None;
        }
        let place = slot.map_or(Place::InLine(None), Place::Granted);
        let waiter = Arc::new(Waiter { place: Mutex::new(place) });
        if slot.is_none() {
            line.waiters.push_back(Arc::clone(&waiter));
        }
        Some(InLine { slots: self, waiter })
    }

    /// Takes a new capacity. A lower limit lets running calls finish, a higher one admits waiting calls at once, and
    /// a shorter line lets those who stand in it stay. Returns whom to wake.
    #[must_use = "calls that were given a slot wait to be woken"]
    pub(crate) fn resize(&self, capacity: Capacity) -> Vec<Waker> {
        let mut line = self.line.lock();
        line.length = capacity.line_length();
        self.flow.bar();
        self.flow.set_limit(capacity.limit);
        if line.waiters.is_empty() {
            self.flow.unbar();
        }
        self.grant(&mut line)
    }

    /// Needs the line's lock: gives free slots to those who wait. Their wakers run user code, so they are returned, to
    /// be woken after the lock is released.
    fn grant(&self, line: &mut Line) -> Vec<Waker> {
        let mut woken = Vec::new();
        while !line.waiters.is_empty() {
            let Some(lane) = self.flow.enter_barred() else { break };
            let first = line.waiters.pop_front().expect("it is not empty");
            if let Place::InLine(Some(waker)) = std::mem::replace(&mut *first.place.lock(), Place::Granted(lane)) {
                woken.push(waker);
            }
            if line.waiters.is_empty() {
                self.flow.unbar();
            }
        }
        woken
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.flow.in_flight()
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.line.lock().waiters.len() as u32
    }

    /// The limit, or `None` without one.
    pub(crate) fn limit(&self) -> Option<u32> {
        Some(self.flow.limit()).filter(|&limit| limit != Flow::UNLIMITED)
    }
}

/// A place in line: a future that ends when it has become a slot, which its holder must then release.
///
/// Dropped earlier, it leaves the line, and passes on a slot that was handed to it meanwhile.
#[derive(Debug)]
#[must_use = "a place in line is left when it is dropped"]
pub(crate) struct InLine<'s> {
    slots: &'s Slots,
    waiter: Arc<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    place: Mutex<Place>,
}

#[derive(Debug)]
enum Place {
    InLine(Option<Waker>),
    /// A slot was handed over and not taken yet.
    Granted(LaneId),
    /// The slot was taken.
    Taken,
}

impl Future for InLine<'_> {
    type Output = LaneId;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LaneId> {
        // Cloning and dropping a waker is user code, so both happen outside the lock.
        let mut waker = Some(cx.waker().clone());
        let mut place = self.waiter.place.lock();
        match &mut *place {
            Place::InLine(waiting) => std::mem::swap(waiting, &mut waker),
            &mut Place::Granted(lane) => {
                *place = Place::Taken;
                return Poll::Ready(lane);
            }
            Place::Taken => panic!("a place in line was polled after it had become a slot"),
        }
        drop(place);
        Poll::Pending
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut line = self.slots.line.lock();
        let place = std::mem::replace(&mut *self.waiter.place.lock(), Place::Taken);
        if matches!(place, Place::InLine(_)) {
            line.waiters.remove(&self.waiter);
            if line.waiters.is_empty() {
                self.slots.flow.unbar();
            }
        }
        drop(line);
        match place {
            Place::Granted(lane) if !seeded("granted") => self.slots.release(lane),
            _ => {}
        }
    }
}
