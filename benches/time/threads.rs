//! The same from one thread and from two.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId};

/// Benches `call` on one thread, and on two at once.
pub(crate) fn one_and_two(group: &mut BenchmarkGroup<'_, WallTime>, path: &str, call: impl Fn() + Sync) {
    group.bench_function(BenchmarkId::new(path, "1 thread"), |bencher| bencher.iter(&call));
    group.bench_function(BenchmarkId::new(path, "2 threads"), |bencher| bencher.iter_custom(|calls| two(calls, &call)));
}

/// What so many calls take each of two threads that make them at the same time: the mean of the two.
fn two(calls: u64, call: &(impl Fn() + Sync)) -> Duration {
    let together = Barrier::new(2);
    let run = || {
        together.wait();
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed()
    };
    thread::scope(|scope| {
        let other = scope.spawn(run);
        (run() + other.join().expect("no call panics")) / 2
    })
}
