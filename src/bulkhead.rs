//! The bulkhead: one slow dependency must not take all of a service's tasks, sockets and memory with it.
//!
//! [`Slots`] caps the calls in flight. In-flight calls, waiting calls and the limit share one word, so taking and
//! returning a slot is one compare-and-swap and the limit is exact under any interleaving, a live change of it
//! included. A refusal is one load. Calls may wait, first come first served, if a queue is configured: then a returned
//! slot is handed to the first in line without ever being free, so a newcomer cannot overtake.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::Problems;
use crate::sync::{AtomicU64, Mutex, Ordering};

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
            let fits = (1..=Word::MAX_WAITING as usize).contains(&length);
            problems.require(fits, "bulkhead.queue.length", || length, "1 to 65535 calls");
            (length.min(Word::MAX_WAITING as usize) as u64, problems.span("bulkhead.queue.wait", wait))
        });
        Capacity { limit, queue }
    }
}

/// A limit on concurrency, checked.
pub(crate) fn limit(problems: &mut Problems, field: &'static str, limit: usize) -> u64 {
    let fits = (1..Word::UNLIMITED as usize).contains(&limit);
    problems.require(fits, field, || limit, "1 to 16777214 calls");
    if fits { limit as u64 } else { 1 }
}

/// The checked form of a [`Bulkhead`], or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    limit: u64,
    /// Length, and wait in nanoseconds.
    pub(crate) queue: Option<(u64, u64)>,
}

impl Capacity {
    pub(crate) const UNLIMITED: Self = Self { limit: Word::UNLIMITED, queue: None };

    pub(crate) const fn of(limit: u64) -> Self {
        Self { limit, queue: None }
    }
}

/// In flight, limit and waiting in 24, 24 and 16 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    /// Also the most calls that may be in flight without a limit.
    const UNLIMITED: u64 = (1 << 24) - 1;
    const MAX_WAITING: u64 = (1 << 16) - 1;
    const LIMIT: u32 = 24;
    const WAITING: u32 = 48;

    const fn in_flight(self) -> u64 {
        self.0 & Self::UNLIMITED
    }

    const fn limit(self) -> u64 {
        self.0 >> Self::LIMIT & Self::UNLIMITED
    }

    const fn waiting(self) -> u64 {
        self.0 >> Self::WAITING
    }

    const fn with_limit(self, limit: u64) -> Self {
        Self(self.0 & !(Self::UNLIMITED << Self::LIMIT) | limit << Self::LIMIT)
    }

    /// Whether a newcomer may have a slot: there is one, and nobody is in line for it.
    const fn is_free(self) -> bool {
        self.in_flight() < self.limit() && self.waiting() == 0
    }
}

/// The slots of one bulkhead.
#[derive(Debug)]
pub(crate) struct Slots {
    word: AtomicU64,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    /// Most calls that may wait.
    length: u64,
    waiters: VecDeque<Arc<Waiter>>,
}

impl Slots {
    pub(crate) fn new(capacity: Capacity) -> Self {
        let length = capacity.queue.map_or(0, |(length, _)| length);
        Self {
            word: AtomicU64::new(Word(0).with_limit(capacity.limit).0),
            line: Mutex::new(Line { length, waiters: VecDeque::new() }),
        }
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        let swapped = self.word.compare_exchange_weak(from.0, to.0, Ordering::AcqRel, Ordering::Acquire);
        swapped.map(drop).map_err(Word)
    }

    /// Takes a slot if one is free; returns how many calls are in flight with this one. Each `Some` must be followed
    /// by one [`Slots::release`].
    #[inline]
    pub(crate) fn try_acquire(&self) -> Option<u32> {
        let mut word = self.load();
        while word.is_free() {
            match self.swap(word, Word(word.0 + 1)) {
                Ok(()) => return Some(word.in_flight() as u32 + 1),
                Err(seen) => word = seen,
            }
        }
        None
    }

    /// Gives a slot back, or hands it to the first in line; returns how many calls were in flight with it.
    #[inline]
    pub(crate) fn release(&self) -> u32 {
        let mut word = self.load();
        while word.waiting() == 0 {
            match self.swap(word, Word(word.0 - 1)) {
                Ok(()) => return word.in_flight() as u32,
                Err(seen) => word = seen,
            }
        }
        self.release_to_line()
    }

    #[cold]
    fn release_to_line(&self) -> u32 {
        let mut line = self.line.lock();
        let before = Word(self.word.fetch_sub(1, Ordering::AcqRel));
        let granted = self.grant(&mut line);
        drop(line);
        granted.into_iter().for_each(Waker::wake);
        before.in_flight() as u32
    }

    /// Takes the slot that is free, or a place in line, or neither.
    pub(crate) fn acquire_or_wait(self: &Arc<Self>) -> Acquired {
        let mut line = self.line.lock();
        let mut word = self.load();
        loop {
            let to = if word.is_free() {
                Word(word.0 + 1)
            } else if word.waiting() < line.length {
                Word(word.0 + (1 << Word::WAITING))
            } else {
                return Acquired::Full;
            };
            match self.swap(word, to) {
                Ok(()) if word.is_free() => return Acquired::Slot(to.in_flight() as u32),
                Ok(()) => break,
                Err(seen) => word = seen,
            }
        }
        let waiter = Arc::new(Waiter { place: Mutex::new(Place::InLine(None)) });
        line.waiters.push_back(Arc::clone(&waiter));
        Acquired::Place(InLine { slots: Arc::clone(self), waiter })
    }

    /// Takes a new capacity. A lower limit lets running calls finish, a higher one admits waiting calls at once, and
    /// a shorter line lets those who stand in it stay. Returns whom to wake.
    #[must_use = "calls that were given a slot wait to be woken"]
    pub(crate) fn resize(&self, capacity: Capacity) -> Vec<Waker> {
        let mut line = self.line.lock();
        line.length = capacity.queue.map_or(0, |(length, _)| length);
        let mut word = self.load();
        while let Err(seen) = self.swap(word, word.with_limit(capacity.limit)) {
            word = seen;
        }
        self.grant(&mut line)
    }

    /// Needs the line's lock: gives free slots to those who wait. Their wakers run user code, so they are returned, to
    /// be woken after the lock is released.
    fn grant(&self, line: &mut Line) -> Vec<Waker> {
        let mut woken = Vec::new();
        let mut word = self.load();
        while word.waiting() > 0 && word.in_flight() < word.limit() {
            match self.swap(word, Word(word.0 + 1 - (1 << Word::WAITING))) {
                Ok(()) => {
                    let first =
                        line.waiters.pop_front().expect("the word counts the line, and both change under its lock");
                    if let Place::InLine(Some(waker)) = std::mem::replace(&mut *first.place.lock(), Place::Granted) {
                        woken.push(waker);
                    }
                    word = self.load();
                }
                Err(seen) => word = seen,
            }
        }
        woken
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.load().in_flight() as u32
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.load().waiting() as u32
    }

    /// The limit, or `None` without one.
    pub(crate) fn limit(&self) -> Option<u32> {
        Some(self.load().limit()).filter(|&limit| limit != Word::UNLIMITED).map(|limit| limit as u32)
    }
}

/// What came of [`Slots::acquire_or_wait`].
#[derive(Debug)]
pub(crate) enum Acquired {
    /// A slot; so many calls are in flight with it.
    Slot(u32),
    /// A place in line.
    Place(InLine),
    /// Neither was free.
    Full,
}

/// A place in line: a future that ends when it has become a slot, which its holder must then release.
///
/// Dropped earlier, it leaves the line, and passes on a slot that was handed to it meanwhile.
#[derive(Debug)]
#[must_use = "a place in line is left when it is dropped"]
pub(crate) struct InLine {
    slots: Arc<Slots>,
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
    Granted,
    /// The slot was taken.
    Taken,
}

impl Future for InLine {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloning and dropping a waker is user code, so both happen outside the lock.
        let mut waker = Some(cx.waker().clone());
        let mut place = self.waiter.place.lock();
        match &mut *place {
            Place::InLine(waiting) => std::mem::swap(waiting, &mut waker),
            Place::Granted | Place::Taken => {
                *place = Place::Taken;
                return Poll::Ready(());
            }
        }
        drop(place);
        Poll::Pending
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut line = self.slots.line.lock();
        let place = std::mem::replace(&mut *self.waiter.place.lock(), Place::Taken);
        if matches!(place, Place::InLine(_)) {
            line.waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            self.slots.word.fetch_sub(1 << Word::WAITING, Ordering::AcqRel);
        }
        drop(line);
        if matches!(place, Place::Granted) {
            self.slots.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(limit: u64, length: u64) -> Arc<Slots> {
        Arc::new(Slots::new(Capacity { limit, queue: Some((length, 1)) }))
    }

    fn place(slots: &Arc<Slots>) -> InLine {
        match slots.acquire_or_wait() {
            Acquired::Place(place) => place,
            other => panic!("expected a place in line, got {other:?}"),
        }
    }

    fn poll(place: &mut InLine) -> Poll<()> {
        Pin::new(place).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_returned_slot_goes_to_the_first_in_line_and_not_to_a_newcomer() {
        let slots = slots(1, 2);
        assert_eq!(slots.try_acquire(), Some(1));
        let (mut first, mut second) = (place(&slots), place(&slots));
        assert!(matches!(slots.acquire_or_wait(), Acquired::Full));
        assert!(poll(&mut first).is_pending());
        slots.release();
        assert_eq!((slots.try_acquire(), slots.in_flight(), slots.waiting()), (None, 1, 1));
        assert!(poll(&mut second).is_pending());
        assert!(poll(&mut first).is_ready());
    }

    /// P4: a granted slot is passed on when its owner has gone, and a waiter that leaves frees its place.
    #[test]
    fn a_slot_granted_to_someone_who_left_is_passed_on() {
        let slots = slots(1, 3);
        slots.try_acquire();
        let (first, second, mut third) = (place(&slots), place(&slots), place(&slots));
        drop(second);
        assert_eq!(slots.waiting(), 2);
        slots.release();
        drop(first);
        assert!(poll(&mut third).is_ready());
        drop(third);
        assert_eq!((slots.in_flight(), slots.waiting()), (1, 0));
        slots.release();
        assert_eq!(slots.in_flight(), 0);
    }

    /// P1: a lower limit holds from the moment it is set; a higher one is used at once by those who wait.
    #[test]
    fn the_limit_changes_live_in_both_directions() {
        let slots = slots(2, 4);
        slots.try_acquire();
        slots.try_acquire();
        let (mut first, mut second) = (place(&slots), place(&slots));
        assert!(slots.resize(Capacity { limit: 1, queue: Some((4, 1)) }).is_empty());
        slots.release();
        assert!(poll(&mut first).is_pending(), "one is still in flight, and one is the limit");
        assert_eq!(slots.resize(Capacity { limit: 3, queue: Some((4, 1)) }).len(), 1, "one has been polled");
        assert!(poll(&mut first).is_ready() && poll(&mut second).is_ready());
        assert_eq!((slots.in_flight(), slots.waiting(), slots.limit()), (3, 0, Some(3)));
    }

    #[test]
    fn without_a_limit_calls_are_still_counted() {
        let slots = Slots::new(Capacity::UNLIMITED);
        assert_eq!((slots.try_acquire(), slots.limit()), (Some(1), None));
        assert_eq!((slots.release(), slots.in_flight()), (1, 0));
    }
}
