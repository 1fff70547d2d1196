//! The handles of metrics, which belong to the recorder that made them.

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::sync::Arc;
use loom::thread;
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::prove;
use crate::name::Name;
use crate::observe::meter::Meter;

/// Counts successes and late outcomes, and nothing else.
#[derive(Clone, Default)]
struct Fake(StdArc<Count>);

#[derive(Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for Fake {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let is_success = key.labels().any(|label| (label.key(), label.value()) == ("outcome", "success"));
        let counts = key.name() == "fusebox_late_outcomes_total" || is_success && key.name() == "fusebox_calls_total";
        if counts { Counter::from_arc(self.0.clone()) } else { Counter::noop() }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Counts with one recorder after the other, each of which stays where it is.
fn count_elsewhere<const N: usize>(meter: &Arc<Meter>, recorders: [&StdArc<Fake>; N]) -> thread::JoinHandle<()> {
    let (meter, recorders) = (Arc::clone(meter), recorders.map(StdArc::clone));
    thread::spawn(move || recorders.iter().for_each(|recorder| meter.count_with(&**recorder)))
}

fn counted(recorder: &Fake) -> u64 {
    recorder.0.0.load(Ordering::Relaxed)
}

/// Whatever recorder a thread sees, what it counts goes there, once; and where one is installed late, as happens in every
/// service, no call takes a lock for it.
///
/// Two threads that made the first calls at once each bound handles of the first recorder, and left no place for those
/// of the one that was installed later: every call from then on took a lock.
#[test]
fn each_count_goes_to_the_recorder_that_was_there() {
    prove(&["handles", "rebound"], || {
        let meter = Arc::new(Meter::new(Name::intern("models"), None));
        let [none, installed] = [(); 2].map(|()| StdArc::<Fake>::default());
        let other = count_elsewhere(&meter, [&none, &installed]);
        meter.count_with(&*none);
        other.join().unwrap();
        meter.count_with(&*installed);
        assert_eq!((counted(&none), counted(&installed)), (4, 4));
        assert!(!meter.takes_a_lock());
    });
}

/// With more recorders than that, of threads that have their own, a lock is taken and no count goes astray.
#[test]
fn a_third_recorder_gets_its_counts_too() {
    prove(&["handles"], || {
        let meter = Arc::new(Meter::new(Name::intern("models"), None));
        let [first, second, third] = [(); 3].map(|()| StdArc::<Fake>::default());
        let others = [count_elsewhere(&meter, [&first]), count_elsewhere(&meter, [&second])];
        meter.count_with(&*third);
        others.into_iter().for_each(|other| other.join().unwrap());
        meter.count_with(&*first);
        assert_eq!([&first, &second, &third].map(|recorder| counted(recorder)), [4, 2, 2]);
    });
}
