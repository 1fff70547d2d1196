//! Delivery of events to listeners and subscribers.
//!
//! A listener is called at once and may be slow, panic, or call the command it listens to; so it is called after every
//! lock is released, one event at a time, and a panic in it ends with it. A subscriber reads at its own pace from a
//! bounded queue; when that is full the oldest event makes room and the subscriber is told how many it missed.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use futures::Stream;

use super::event::Event;
use crate::sync::Mutex;

/// Events that a subscriber may be behind.
const QUEUE_LENGTH: usize = 1024;

pub(crate) type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

pub(crate) struct Bus {
    listeners: Box<[Listener]>,
    #[allow(clippy::box_collection, reason = "a word in place of three, for what is seldom there")]
    subscribers: Mutex<Option<Box<Vec<Weak<Queue>>>>>,
}

impl Bus {
    pub(crate) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners: listeners.into(), subscribers: Mutex::new(None) }
    }

    pub(crate) fn subscribe(&self) -> Events {
        self.subscribe_within(QUEUE_LENGTH)
    }

    /// As [`Bus::subscribe`], for a reader that may be so many events behind.
    pub(crate) fn subscribe_within(&self, room: usize) -> Events {
        let queue = Arc::new(Queue { room, backlog: Mutex::new(Backlog::default()) });
        self.subscribers.lock().get_or_insert_default().push(Arc::downgrade(&queue));
        Events { queue }
    }

    /// Delivers one event. The order holds for the events of each thread, so those of one command must come from one
    /// thread at a time; and so must all, where there are listeners.
    pub(crate) fn deliver(&self, event: &Event) {
        for listener in &self.listeners {
            if catch_unwind(AssertUnwindSafe(|| listener(event))).is_err() {
                tracing::error!(target: "fusebox", %event, "a listener panicked");
            }
        }
        for queue in self.live() {
            queue.push(event.clone());
        }
    }

    /// The queues that still have a reader; the others are forgotten.
    fn live(&self) -> Vec<Arc<Queue>> {
        let mut subscribers = self.subscribers.lock();
        let Some(queues) = subscribers.as_mut() else { return Vec::new() };
        queues.retain(|queue| queue.strong_count() > 0);
        queues.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.live().into_iter().for_each(|queue| queue.end());
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("listeners", &self.listeners.len()).finish_non_exhaustive()
    }
}

/// The events of one command, or of [all of a registry](crate::Registry::subscribe), from the subscription on: a stream
/// that ends when the last handle of the command, or of the registry and all its commands, is dropped.
///
/// A reader that falls more than 1024 events behind loses the oldest ones and gets [`Event::Missed`] in their place.
///
/// # Cancel safety
///
/// Polling takes an event only by returning it, so dropping a `next()` loses nothing.
#[must_use = "a subscription that is not read only fills its queue"]
pub struct Events {
    queue: Arc<Queue>,
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut waker = Some(cx.waker().clone());
        let mut backlog = self.queue.backlog.lock();
        let next = backlog.next();
        if next.is_pending() {
            std::mem::swap(&mut backlog.waker, &mut waker);
        }
        // `waker` is dropped after the lock: that is user code.
        drop(backlog);
        next
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

struct Queue {
    /// Events that the reader may be behind.
    room: usize,
    backlog: Mutex<Backlog>,
}

#[derive(Default)]
struct Backlog {
    events: VecDeque<Event>,
    missed: u64,
    ended: bool,
    waker: Option<Waker>,
}

impl Queue {
    fn push(&self, event: Event) {
        let mut backlog = self.backlog.lock();
        if backlog.events.len() == self.room {
            backlog.events.pop_front();
            backlog.missed += 1;
        }
        backlog.events.push_back(event);
        let waker = backlog.waker.take();
        drop(backlog);
        wake(waker);
    }

    fn end(&self) {
        let mut backlog = self.backlog.lock();
        backlog.ended = true;
        let waker = backlog.waker.take();
        drop(backlog);
        wake(waker);
    }
}

/// A waker that panics is its task's problem, and must not become the call's.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

impl Backlog {
    fn next(&mut self) -> Poll<Option<Event>> {
        if self.missed > 0 {
            return Poll::Ready(Some(Event::Missed(std::mem::take(&mut self.missed))));
        }
        match self.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if self.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_subscriber_is_told_how_many_it_missed_and_then_gets_the_newest() {
        let bus = Bus::new(Vec::new());
        let mut events = bus.subscribe();
        for n in 0..QUEUE_LENGTH as u64 + 3 {
            bus.deliver(&Event::Missed(n));
        }
        drop(bus);
        let mut next = || Pin::new(&mut events).poll_next(&mut Context::from_waker(Waker::noop()));
        assert_eq!(next(), Poll::Ready(Some(Event::Missed(3))), "three were dropped");
        assert_eq!(next(), Poll::Ready(Some(Event::Missed(3))), "the fourth is the oldest that is left");
        assert_eq!(
            std::iter::from_fn(|| Some(next())).take_while(|next| *next != Poll::Ready(None)).count(),
            QUEUE_LENGTH - 1
        );
    }
}
