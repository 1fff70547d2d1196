//! Whole calls.

use criterion::Criterion;
use metrics::with_local_recorder;
use tokio::runtime;

use crate::support::{Down, PendingOnce, abandon, answer, done, full, narrow, now, open, prometheus, second, tireless};
use crate::threads::one_and_two;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    let command = full("call");
    one_and_two(&mut group, "success", || done(now(command.run(|| answer(Ok(1))))));
    let failing = tireless("call.failing");
    one_and_two(&mut group, "failure", || done(now(failing.run(|| answer(Err(Down))))));
    one_and_two(&mut group, "failure, with a fallback", || {
        done(now(failing.run(|| answer(Err(Down))).fallback(|_| async { Ok(2) })));
    });
    let open = open("call.open");
    one_and_two(&mut group, "refused, open", || done(now(open.run(|| answer(Ok(1))))));
    let narrow = narrow("call.narrow");
    let only = narrow.admit().expect("a free slot");
    one_and_two(&mut group, "refused, full", || done(now(narrow.run(|| answer(Ok(1))))));
    drop(only);

    // Timers want a runtime, on each of the threads.
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let timed = full("call.timed");
    one_and_two(&mut group, "pending once, the timer armed", || {
        let _entered = runtime.enter();
        done(second(timed.run(PendingOnce::default)));
    });
    one_and_two(&mut group, "cancelled, the timer armed", || {
        let _entered = runtime.enter();
        abandon(timed.run(PendingOnce::default));
    });

    // For a closure and on this thread, so that the benches before and after run without.
    let recorder = prometheus();
    let observed = full("call.observed");
    with_local_recorder(&recorder, || {
        group.bench_function("success, Prometheus recorder", |bencher| {
            bencher.iter(|| done(now(observed.run(|| answer(Ok(1))))));
            // The exporter keeps every value of a histogram until somebody asks.
            recorder.handle().run_upkeep();
        });
    });
    let observed = tireless("call.observed.failing");
    with_local_recorder(&recorder, || {
        group.bench_function("failure, Prometheus recorder", |bencher| {
            bencher.iter(|| done(now(observed.run(|| answer(Err(Down))))));
            recorder.handle().run_upkeep();
        });
    });
}
