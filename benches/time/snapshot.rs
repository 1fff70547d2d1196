//! What looking costs.

use std::hint::black_box;

use criterion::Criterion;
use fusebox::{Command, Registry};

use crate::support::{answer, done, full, now};
use crate::threads::one_and_two;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    let command = full("snapshot");
    group.bench_function("before the first call", |bencher| bencher.iter(|| command.snapshot()));
    for _ in 0..10_000 {
        done(now(command.run(|| answer(Ok(1)))));
    }
    group.bench_function("after many", |bencher| bencher.iter(|| command.snapshot()));
    let lean = Command::builder("snapshot.lean").no_latency().build().expect("valid");
    group.bench_function("without latencies", |bencher| bencher.iter(|| lean.snapshot()));
    one_and_two(&mut group, "state", || done(command.state()));

    let registry = Registry::new();
    let many: Vec<_> = (0..1000)
        .map(|n| Command::builder(&format!("snapshot.{n}")).registry(&registry).build().expect("valid"))
        .collect();
    group.bench_function("of a thousand commands", |bencher| {
        bencher.iter(|| registry.commands().iter().for_each(|command| done(command.snapshot())));
    });
    black_box(many);
}
