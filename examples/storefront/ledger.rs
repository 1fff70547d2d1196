//! The books of one run: every visit and every call that was really made, kept apart from the commands' own figures.
//!
//! The run without commands has no snapshots to look at, and a comparison is fair only if both sides are measured by
//! the same stick. So the client writes down each call and the driver each visit, and the report is made of nothing
//! else.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::schedule::Supplier;
use crate::stop::Stop;

/// A page that takes longer is of no use: the visitor has gone.
pub(crate) const DEADLINE: Duration = Duration::from_millis(100);

/// All times are from the beginning of the run. What an early stop cuts short is not entered.
pub(crate) struct Ledger {
    begun: Instant,
    stop: Stop,
    calls: [Mutex<Calls>; Supplier::COUNT],
    visits: Mutex<Visits>,
}

/// Calls to one supplier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    /// In the order in which they ended.
    pub(crate) ended: Vec<Made>,
    pub(crate) in_flight: usize,
    pub(crate) most_in_flight: usize,
}

/// A call that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    /// Whether it brought an answer; an error and an abandoned call are none.
    pub(crate) answered: bool,
}

impl Made {
    pub(crate) fn took(&self) -> Duration {
        self.ended.saturating_sub(self.started)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Visits {
    pub(crate) ended: Vec<Visit>,
    /// The last page as the visitor saw it.
    pub(crate) latest: String,
}

/// A page that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// When it was due to be asked for, however late that really happened.
    pub(crate) intended: Duration,
    /// From then until the page was complete.
    pub(crate) took: Duration,
    /// In the order of [`Supplier::ALL`].
    pub(crate) parts: [Part; Supplier::COUNT],
}

impl Visit {
    /// Complete and within the deadline.
    pub(crate) fn is_in_time(&self) -> bool {
        self.is_complete() && self.took <= DEADLINE
    }

    /// Nothing on the page is an error.
    pub(crate) fn is_complete(&self) -> bool {
        self.parts.iter().all(|part| part.kind != Kind::Failed)
    }
}

/// One supplier's part of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) kind: Kind,
    /// From the visit's intended start.
    pub(crate) after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Live,
    Fallback,
    Failed,
}

impl Ledger {
    /// Opens the books: the run begins now.
    pub(crate) fn open(stop: Stop) -> Self {
        Self { begun: Instant::now(), stop, calls: Default::default(), visits: Mutex::default() }
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Enters a call that starts now.
    pub(crate) fn enter(&self, supplier: Supplier) -> Entry<'_> {
        let mut calls = lock(&self.calls[supplier as usize]);
        calls.in_flight += 1;
        calls.most_in_flight = calls.most_in_flight.max(calls.in_flight);
        Entry { ledger: self, supplier, started: self.now(), answered: false }
    }

    pub(crate) fn calls(&self, supplier: Supplier) -> MutexGuard<'_, Calls> {
        lock(&self.calls[supplier as usize])
    }

    pub(crate) fn visits(&self) -> MutexGuard<'_, Visits> {
        lock(&self.visits)
    }
}

/// A call in flight. Dropped, it was abandoned: a timeout drops the future that holds this.
#[must_use = "it ends the call when it is dropped"]
pub(crate) struct Entry<'l> {
    ledger: &'l Ledger,
    supplier: Supplier,
    started: Duration,
    answered: bool,
}

impl Entry<'_> {
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let made = Made { started: self.started, ended: self.ledger.now(), answered: self.answered };
        let mut calls = self.ledger.calls(self.supplier);
        calls.in_flight -= 1;
        if !self.ledger.stop.is_requested() {
            calls.ended.push(made);
        }
    }
}

/// The books are in order after each line, so a panic elsewhere is no reason to close them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
