//! The rolling window and the latency histogram.

use loom::sync::Arc;
use loom::thread;

use super::circuit::Subject;
use super::{at, prove};
use crate::breaker::config::Breaker;
use crate::outcome::Outcome;
use crate::window::latency::Latencies;

/// R2, R3: two calls end on either side of a bucket's edge while somebody reads: no count is lost or doubled, and each
/// stays for as long as its bucket does.
#[test]
fn no_count_is_lost_or_doubled_where_a_bucket_ends() {
    prove(&["count", "roll"], || {
        // Ten buckets of ten nanoseconds.
        let subject = Subject::new(Breaker::error_rate(0.5));
        let (first, second) = (subject.enter(0).unwrap(), subject.enter(0).unwrap());
        let before = subject.end_elsewhere(9, first, Outcome::Success);
        subject.end(10, second, Outcome::Success);
        let seen = subject.circuit.view(at(10));
        assert!((1..=2).contains(&seen.window.total()) && seen.window.total() <= seen.lifetime.total());
        before.join().unwrap();
        for (now, expected) in [(10, 2..=2), (99, 2..=2), (100, 1..=2), (110, 0..=0)] {
            let view = subject.circuit.view(at(now));
            assert!(expected.contains(&view.window.total()), "{} at {now}", view.window.total());
            assert_eq!((view.health.total, view.lifetime.total()), (view.window.total(), 2));
        }
    });
}

/// R2: errors take the lock, successes do not, and the window has both.
#[test]
fn successes_and_errors_add_up_where_a_bucket_ends() {
    prove(&["count"], || {
        let subject = Subject::new(Breaker::disabled());
        let tickets = [(); 3].map(|()| subject.enter(0).unwrap());
        let other = subject.end_elsewhere(9, tickets[0], Outcome::Success);
        subject.end(10, tickets[1], Outcome::Failure);
        subject.end(10, tickets[2], Outcome::Success);
        other.join().unwrap();
        let view = subject.circuit.view(at(10));
        assert_eq!((view.health.errors, view.health.total, view.window.total(), view.lifetime.total()), (1, 3, 3, 3));
    });
}

/// R2, R3: two threads meet at one stripe of the histogram, where a slice ends and while somebody reads: both latencies
/// are in, and the figures agree. Which slice an extreme goes to that is recorded at its edge is open.
#[test]
fn no_latency_is_lost_where_threads_meet() {
    prove(&["stripe"], || {
        // Four slices of ten nanoseconds.
        let latencies = Arc::new(Latencies::new(at(0), 40));
        let record = |now: u64, nanos: u64| {
            let latencies = Arc::clone(&latencies);
            thread::spawn(move || latencies.record(at(now), nanos))
        };
        let (first, second) = (record(9, 3), record(10, 5));
        let seen = latencies.summary(at(10));
        assert!(seen.count() <= 2 && seen.min() <= seen.max());
        first.join().unwrap();
        second.join().unwrap();
        let both = latencies.summary(at(10));
        assert!(both.count() == 2 && both.min() <= both.mean() && both.mean() <= both.max(), "{both:?}");
        assert_eq!(latencies.summary(at(50)).count(), 0);
    });
}
