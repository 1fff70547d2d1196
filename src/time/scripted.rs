//! Time that a schedule moves by itself: it stands still until somebody advances it.
//!
//! A schedule's threads all run on one thread of the system, so the clock is that thread's.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

/// Time has gone on for a while: nothing may depend on its beginning at 0.
const START: u64 = 1 << 40;

struct Clock {
    now: u64,
    /// Those who wait, and until when.
    waiting: Vec<(u64, Waker)>,
}

thread_local! {
    static CLOCK: RefCell<Clock> = const { RefCell::new(Clock { now: START, waiting: Vec::new() }) };
}

pub(super) fn nanos() -> u64 {
    CLOCK.with_borrow(|clock| clock.now)
}

pub(super) fn wall_clock(stamp: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(stamp)
}

/// Begins anew, with nobody waiting.
#[allow(dead_code, reason = "for schedules only")]
pub(crate) fn restart() {
    let before = CLOCK.replace(Clock { now: START, waiting: Vec::new() });
    drop(before);
}

/// Moves the clock, and wakes those whose time has come.
#[allow(dead_code, reason = "for schedules only")]
pub(crate) fn advance(nanos: u64) {
    let due: Vec<(u64, Waker)> = CLOCK.with_borrow_mut(|clock| {
        clock.now += nanos;
        let (due, waiting) = std::mem::take(&mut clock.waiting).into_iter().partition(|(until, _)| *until <= clock.now);
        clock.waiting = waiting;
        due
    });
    due.into_iter().for_each(|(_, waker)| waker.wake());
}

#[derive(Debug)]
pub(crate) struct Timer {
    deadline: u64,
}

pub(crate) fn timer(start: super::Stamp, nanos: u64) -> Timer {
    Timer { deadline: start.plus(nanos).as_nanos() }
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        CLOCK.with_borrow_mut(|clock| {
            if clock.now >= self.deadline {
                return Poll::Ready(());
            }
            clock.waiting.push((self.deadline, cx.waker().clone()));
            Poll::Pending
        })
    }
}
