//! Instructions of a call, counted by valgrind: the same on a busy machine as on a quiet one, so that CI can hold them
//! against limits.
//!
//! ```sh
//! cargo install --locked gungraun-runner --version 0.20.0   # once; and valgrind, from the distribution
//! cargo bench -p fusebox-benches --bench instructions
//! ```
//!
//! Each bench makes a thousand calls, so that the count printed, read in thousands, is that of one call. Its limit stands
//! beside it, in instructions of one call on x86-64, as measured with the stable compiler of the day; three percent are
//! allowed on top for the compilers to come. Where a change is worth more, or a compiler does worse, put the new count
//! there and say why in the commit. Lower a limit when its count has become lower: it guards what it is close to.
//!
//! Valgrind hides the processor's own counter of time, so the clock is read through the system call here: dearer than it
//! is otherwise, and by the same number of instructions each time.

mod support;

use fusebox::{Command, Registry};
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use metrics_exporter_prometheus::PrometheusRecorder;
use support::{Down, PendingOnce, abandon, answer, done, full, narrow, now, open, prometheus, second, tireless};
use tokio::runtime::{self, Runtime};

const CALLS: u64 = 1000;
const SLACK_PERCENT: u64 = 3;

/// Fails the bench when a call takes more.
fn at_most(a_call: u64) -> LibraryBenchmarkConfig {
    let limit = a_call * CALLS * (100 + SLACK_PERCENT) / 100;
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, limit)]));
    config
}

/// After its first calls, which make what is made on first use.
fn used(command: Command) -> Command {
    for _ in 0..10 {
        done(now(command.run(|| answer(Ok(1)))));
    }
    command
}

fn closed() -> Command {
    used(full("closed"))
}

fn failing() -> Command {
    let command = tireless("failing");
    for _ in 0..10 {
        done(now(command.run(|| answer(Err(Down)))));
    }
    command
}

/// Timers want a runtime.
fn timed() -> (Runtime, Command) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let command = {
        let _entered = runtime.enter();
        let command = closed();
        done(second(command.run(PendingOnce::default)));
        command
    };
    (runtime, command)
}

fn observed() -> (PrometheusRecorder, Command) {
    let recorder = prometheus();
    let command = metrics::with_local_recorder(&recorder, closed);
    (recorder, command)
}

/// After a first command, which calibrates the clock: that takes as many instructions as it takes time.
fn empty() -> Registry {
    drop(full("first"));
    Registry::new()
}

fn shut() -> Command {
    used(open("shut"))
}

// What a bench is given is given back, so that dropping it does not count.

#[library_benchmark]
#[bench::call(args = (closed()), config = at_most(406))]
fn success(command: Command) -> Command {
    (0..CALLS).for_each(|_| done(now(command.run(|| answer(Ok(1))))));
    command
}

#[library_benchmark]
#[bench::call(args = (observed()), config = at_most(659))]
fn success_with_prometheus((recorder, command): (PrometheusRecorder, Command)) -> (PrometheusRecorder, Command) {
    metrics::with_local_recorder(&recorder, || {
        (0..CALLS).for_each(|_| done(now(command.run(|| answer(Ok(1))))));
    });
    (recorder, command)
}

#[library_benchmark]
#[bench::call(args = (timed()), config = at_most(1206))]
fn pending_once((runtime, command): (Runtime, Command)) -> (Runtime, Command) {
    let entered = runtime.enter();
    (0..CALLS).for_each(|_| done(second(command.run(PendingOnce::default))));
    drop(entered);
    (runtime, command)
}

#[library_benchmark]
#[bench::call(args = (timed()), config = at_most(1560))]
fn cancelled((runtime, command): (Runtime, Command)) -> (Runtime, Command) {
    let entered = runtime.enter();
    (0..CALLS).for_each(|_| abandon(command.run(PendingOnce::default)));
    drop(entered);
    (runtime, command)
}

#[library_benchmark]
#[bench::call(args = (failing()), config = at_most(1434))]
fn failure(command: Command) -> Command {
    (0..CALLS).for_each(|_| done(now(command.run(|| answer(Err(Down))))));
    command
}

#[library_benchmark]
#[bench::call(args = (failing()), config = at_most(1588))]
fn failure_with_fallback(command: Command) -> Command {
    (0..CALLS).for_each(|_| done(now(command.run(|| answer(Err(Down))).fallback(|_| async { Ok(2) }))));
    command
}

#[library_benchmark]
#[bench::call(args = (shut()), config = at_most(266))]
fn refused_open(command: Command) -> Command {
    (0..CALLS).for_each(|_| done(now(command.run(|| answer(Ok(1))))));
    command
}

#[library_benchmark]
#[bench::call(args = (used(narrow("narrow"))), config = at_most(365))]
fn refused_full(command: Command) -> Command {
    let only = command.admit().expect("a free slot");
    (0..CALLS).for_each(|_| done(now(command.run(|| answer(Ok(1))))));
    drop(only);
    command
}

#[library_benchmark]
#[bench::call(args = (closed()), config = at_most(331))]
fn admit_and_succeed(command: Command) -> Command {
    (0..CALLS).for_each(|_| command.admit().expect("a free slot").succeed());
    command
}

#[library_benchmark]
#[bench::call(args = (closed()), config = at_most(6610))]
fn snapshot(command: Command) -> Command {
    (0..CALLS).for_each(|_| done(command.snapshot()));
    command
}

#[library_benchmark]
#[bench::call(args = (empty()), config = at_most(6319))]
fn build(registry: Registry) -> Vec<Command> {
    let build = |n| Command::builder(&format!("host-{n}")).registry(&registry).build().expect("valid");
    (0..CALLS).map(build).collect()
}

library_benchmark_group!(
    name = a_call,
    benchmarks = [
        success,
        success_with_prometheus,
        pending_once,
        cancelled,
        failure,
        failure_with_fallback,
        refused_open,
        refused_full,
        admit_and_succeed
    ]
);
library_benchmark_group!(name = around, benchmarks = [snapshot, build]);
main!(library_benchmark_groups = [a_call, around]);
