//! Calls in flight that their circuit has an eye on: those that have become slow, and those that end when it opens.
//!
//! A dependency that falls silent fails nobody until the first timeout, and its circuit learns nothing until then. With
//! [`count_in_flight`](super::config::Breaker::count_in_flight) a call that has to wait arms its timer for the slow-call
//! threshold first, and tells the circuit when that has passed. With [`abort_on_trip`](super::config::Breaker::abort_on_trip)
//! it leaves its waker here, and the circuit wakes all of them when it opens. A circuit without either has no lookout, and
//! asking whether it has one is all that its calls pay.

use std::num::NonZeroU32;
use std::task::{Context, Waker};

use super::config::Rules;
use super::machine::Word;
use super::state::State;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, seeded};

#[derive(Debug)]
pub(crate) struct Lookout {
    /// From how many nanoseconds on a call in flight counts as slow.
    overdue_from: AtomicU64,
    /// Whether calls in flight end when the circuit opens.
    aborts: AtomicBool,
    /// The generation that the last opening began.
    opened: AtomicU64,
    /// Whether calls are to be woken for it.
    ringing: AtomicBool,
    seats: Mutex<Seats>,
}

/// A place for a waker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(NonZeroU32);

impl Seat {
    fn at(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    /// Calls in flight are counted in so many bits.
    pub(crate) const MASK: u32 = (1 << 24) - 1;

    /// Never zero.
    pub(crate) fn bits(self) -> u32 {
        self.0.get()
    }

    pub(crate) fn from_bits(bits: u32) -> Option<Self> {
        NonZeroU32::new(bits).map(Self)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Default for Lookout {
    fn default() -> Self {
        Self {
            overdue_from: AtomicU64::new(u64::MAX),
            aborts: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            ringing: AtomicBool::new(false),
            seats: Mutex::new(Seats { places: Vec::new(), free: None }),
        }
    }
}

impl Lookout {
    /// Whether rules like these need one.
    pub(super) fn is_wanted(rules: &Rules) -> bool {
        rules.count_in_flight || rules.abort_on_trip
    }

    /// Needs the circuit's lock: takes rules.
    pub(super) fn publish(&self, rules: &Rules) {
        let threshold = rules.slow_calls.filter(|_| rules.count_in_flight).map(|(_, threshold)| threshold);
        self.overdue_from.store(threshold.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.aborts.store(rules.abort_on_trip, Ordering::Relaxed);
    }

    /// Needs the circuit's lock: the circuit has changed its state. The calls that this ends are woken by
    /// [`Lookout::ring`], after the lock is released.
    pub(super) fn note(&self, word: Word) {
        if word.state() == State::Open && self.aborts.load(Ordering::Relaxed) {
            self.opened.store(word.generation(), Ordering::Release);
            self.ringing.store(true, Ordering::Release);
        }
    }

    /// From how many nanoseconds on a call in flight counts as slow; `u64::MAX` if none does.
    pub(crate) fn overdue_from(&self) -> u64 {
        self.overdue_from.load(Ordering::Relaxed)
    }

    /// Whether a call that was admitted under `word` has to end, as the circuit has opened since; if not, the task is woken
    /// when it does. `seat` is where its waker is.
    pub(crate) fn must_end(&self, word: Word, seat: &mut Option<Seat>, cx: &Context<'_>) -> bool {
        let early = seeded("seat").then(|| self.has_opened_since(word));
        self.attend(seat, cx);
        // In this order: an opening that does not find the waker is found here.
        early.unwrap_or_else(|| self.has_opened_since(word))
    }

    fn has_opened_since(&self, word: Word) -> bool {
        self.opened.load(Ordering::Acquire) > word.generation()
    }

    fn attend(&self, seat: &mut Option<Seat>, cx: &Context<'_>) {
        if !self.aborts.load(Ordering::Relaxed) || seat.is_some_and(|seat| self.seats.lock().has(seat, cx.waker())) {
            return;
        }
        // Cloning and dropping a waker is user code, so both happen outside the lock.
        let waker = cx.waker().clone();
        let _old = self.seats.lock().seat(seat, waker);
    }

    /// Gives a seat up.
    pub(crate) fn leave(&self, seat: Seat) {
        let _waker = self.seats.lock().leave(seat);
    }

    /// Wakes the calls that an opening has ended. Called without any lock.
    pub(super) fn ring(&self) {
        if !self.ringing.swap(false, Ordering::AcqRel) {
            return;
        }
        let wakers = self.seats.lock().rise();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Wakers by seat.
#[derive(Debug)]
struct Seats {
    places: Vec<Place>,
    /// The first one of the list of those that are free.
    free: Option<Seat>,
}

#[derive(Debug)]
enum Place {
    Taken(Waker),
    /// It was woken, and keeps its seat until it leaves.
    Woken,
    /// With the next one that is.
    Free(Option<Seat>),
}

impl Seats {
    fn has(&self, seat: Seat, waker: &Waker) -> bool {
        matches!(&self.places[seat.index()], Place::Taken(seated) if seated.will_wake(waker))
    }

    /// Seats a waker; returns the one that sat there.
    fn seat(&mut self, seat: &mut Option<Seat>, waker: Waker) -> Place {
        let seat = *seat.get_or_insert_with(|| self.take());
        std::mem::replace(&mut self.places[seat.index()], Place::Taken(waker))
    }

    fn take(&mut self) -> Seat {
        let Some(seat) = self.free else {
            self.places.push(Place::Woken);
            return Seat::at(self.places.len() as u32 - 1);
        };
        let Place::Free(next) = self.places[seat.index()] else {
            unreachable!("it is on the list of those that are free")
        };
        self.free = next;
        seat
    }

    fn leave(&mut self, seat: Seat) -> Place {
        let next = self.free.replace(seat);
        std::mem::replace(&mut self.places[seat.index()], Place::Free(next))
    }

    /// Takes all wakers.
    fn rise(&mut self) -> Vec<Waker> {
        let taken = self.places.iter_mut().filter(|place| matches!(place, Place::Taken(_)));
        let wakers = taken.filter_map(|place| match std::mem::replace(place, Place::Woken) {
            Place::Taken(waker) => Some(waker),
            _ => None,
        });
        wakers.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;
    use crate::sync::AtomicUsize;

    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn bell() -> (Arc<Bell>, Waker) {
        let bell = Arc::new(Bell(AtomicUsize::new(0)));
        (Arc::clone(&bell), Waker::from(bell))
    }

    fn open() -> Word {
        Word::from_raw(Word::FIRST.raw() + (1 << 3) + State::Open as u64)
    }

    fn lookout() -> Lookout {
        let lookout = Lookout::default();
        lookout.aborts.store(true, Ordering::Relaxed);
        lookout
    }

    /// No waker outlives the call that left it, whether it was woken or not, and seats are used again.
    #[test]
    fn wakers_are_woken_once_and_kept_no_longer_than_their_call() {
        let lookout = lookout();
        for round in 0..3 {
            let bells: Vec<_> = (0..5).map(|_| bell()).collect();
            let mut seats = [None; 5];
            for (seat, (_, waker)) in seats.iter_mut().zip(&bells) {
                lookout.attend(seat, &Context::from_waker(waker));
                lookout.attend(seat, &Context::from_waker(waker));
            }
            lookout.leave(seats[1].expect("it was seated"));
            lookout.note(open());
            lookout.ring();
            lookout.ring();
            let rung: Vec<_> = bells.iter().map(|(bell, _)| bell.0.load(Ordering::SeqCst)).collect();
            assert_eq!(rung, [1, 0, 1, 1, 1], "round {round}");
            for seat in [0, 2, 3, 4] {
                lookout.leave(seats[seat].expect("it was seated"));
            }
            assert!(bells.iter().all(|(bell, _)| Arc::strong_count(bell) == 2), "the bell's and the waker's own");
            assert_eq!(lookout.seats.lock().places.len(), 5);
        }
    }

    /// A call that moves to another task is woken there.
    #[test]
    fn the_last_waker_is_the_one_that_counts() {
        let (lookout, mut seat) = (lookout(), None);
        let ((first, was), (second, is)) = (bell(), bell());
        lookout.attend(&mut seat, &Context::from_waker(&was));
        lookout.attend(&mut seat, &Context::from_waker(&is));
        assert_eq!(Arc::strong_count(&first), 2);
        lookout.note(open());
        lookout.ring();
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
        lookout.leave(seat.expect("it was seated"));
    }

    /// A waker that nobody would wake is not kept.
    #[test]
    fn a_call_that_no_opening_ends_takes_no_seat() {
        let (lookout, mut seat) = (Lookout::default(), None);
        let (bell, waker) = bell();
        assert!(!lookout.must_end(Word::FIRST, &mut seat, &Context::from_waker(&waker)));
        assert_eq!((seat, Arc::strong_count(&bell)), (None, 2));
    }

    #[test]
    fn an_opening_ends_the_calls_of_the_generations_before_it() {
        let (lookout, waker) = (lookout(), Waker::noop());
        let must_end = |word| lookout.must_end(word, &mut None, &Context::from_waker(waker));
        assert!(!must_end(Word::FIRST));
        lookout.note(open());
        assert!(must_end(Word::FIRST) && !must_end(open()));
        assert!(!must_end(Word::from_raw(open().raw() + (1 << 3))), "a probe of the half-open circuit");
    }
}
