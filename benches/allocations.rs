//! Allocations of every path of a call, bytes of a command and sizes of futures, as tables.
//!
//! `cargo bench --bench allocations` exits with an error where a path allocates that must not, or a future has grown
//! beyond its limit. It measures no time, so it says the same on every machine.

mod support;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use fusebox::{
    Breaker, Budget, Builder, Bulkhead, Classify, Command, Error, Guard, Hedge, Keyed, Keys, Registry, Retry, Verdict,
};
use support::counting::{Counting, counted, sizes};
use support::{Answer, Down, PendingOnce, abandon, answer, done, full, narrow, now, open, second, tireless};
use tokio::runtime::{self, Runtime};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: u32 = 100;
const CALLS: u32 = 10_000;

/// What has gone beyond its limit.
#[derive(Default)]
struct Report {
    broken: Vec<String>,
}

impl Report {
    /// A path that must not allocate.
    fn free(&mut self, path: &str, call: impl FnMut()) {
        let count = allocations(call);
        println!("| {path} | {count} |");
        if count > 0.0 {
            self.broken.push(format!("{path}: {count} allocations a call"));
        }
    }

    /// A path with a wait: it must not allocate either, but a bucket of a window may close meanwhile, which keeps a reading.
    fn free_but_for_time(&mut self, path: &str, mut call: impl FnMut()) {
        const WAITS: u32 = 500;
        (0..WARM_UP).for_each(|_| call());
        let ((), allocations, _) = counted(|| (0..WAITS).for_each(|_| call()));
        println!("| {path} | {} |", allocations / u64::from(WAITS));
        if allocations >= u64::from(WAITS) {
            self.broken.push(format!("{path}: {allocations} allocations in {WAITS} calls"));
        }
    }

    /// Not there yet: shown beside what is aimed at, and no error.
    fn aim_at(&mut self, what: &str, aim: i64, bytes: i64) {
        println!("| {what} | {bytes} | (aim {aim}) |");
    }

    fn at_most(&mut self, what: &str, limit: i64, bytes: i64) {
        println!("| {what} | {bytes} | {limit} |");
        if bytes > limit {
            self.broken.push(format!("{what}: {bytes} bytes, more than {limit}"));
        }
    }
}

/// Allocations a call, after a warm-up.
fn allocations(mut call: impl FnMut()) -> f64 {
    (0..WARM_UP).for_each(|_| call());
    let ((), allocations, _) = counted(|| (0..CALLS).for_each(|_| call()));
    allocations as f64 / f64::from(CALLS)
}

fn main() -> ExitCode {
    if cfg!(feature = "test-util") {
        panic!("with `test-util` the clock is not the one that ships");
    }
    // Timers want a runtime.
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let mut report = Report::default();
    println!("| path | allocations a call |\n|---|--:|");
    paths(&mut report, &runtime);
    refusals(&mut report);
    allowed();
    println!("\n| bytes | measured | limit |\n|---|--:|--:|");
    commands(&mut report);
    keys(&mut report);
    futures(&mut report);
    made_of();
    for broken in &report.broken {
        eprintln!("{broken}");
    }
    if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Judges in place of `ByResult`.
struct Lenient;

impl Classify<u64, Down> for Lenient {
    fn classify(&self, result: &Answer) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Ignored }
    }
}

/// Calls that are admitted.
fn paths(report: &mut Report, runtime: &Runtime) {
    let command = full("paths");
    let failing = tireless("paths.failing");
    let generous = Budget::share(10.0).floor(1e6).burst(1_000_000);
    let patient =
        Command::builder("paths.patient").breaker(Breaker::disabled()).budget(generous).build().expect("valid");
    let lenient = Command::builder("paths.lenient").classify(Lenient).build().expect("valid");
    report.free("success", || done(now(command.run(|| answer(Ok(1))))));
    report.free("success, as a combinator", || done(now(answer(Ok(1)).guarded_by(&command))));
    report.free("success, pending once (timer armed)", || done(second(command.run(PendingOnce::default))));
    report.free("success, classifier of the command", || done(now(lenient.run(|| answer(Ok(1))))));
    report.free("ignored, classifier of the command", || done(now(lenient.run(|| answer(Err(Down))))));
    report.free("ignored, classifier of the call", || {
        done(now(failing.run(|| answer(Err(Down))).classify(|_| Verdict::Ignored)));
    });
    report.free("failure", || done(now(failing.run(|| answer(Err(Down))))));
    report.free("failure, with a fallback", || {
        done(now(failing.run(|| answer(Err(Down))).fallback(|_| async { Ok(2) })));
    });
    report.free("timed out", || {
        let late = runtime.block_on(failing.run(std::future::pending::<Answer>).timeout(Duration::ZERO));
        assert!(matches!(late, Err(Error::TimedOut(_))));
    });
    report.free("retry, success at once", || done(now(command.retry(|| answer(Ok(1))))));
    report.free_but_for_time("retry, success after a failure", || {
        let mut answers = [Err(Down), Ok(1)].into_iter();
        let again = Retry::constant(Duration::ZERO);
        done(runtime.block_on(patient.retry(|| answer(answers.next().expect("two attempts"))).with(again)));
    });
    report.free("hedge, success at once", || done(now(command.hedge(|| answer(Ok(1))))));
    report.free_but_for_time("hedge, success of the second", || {
        let mut first = true;
        let hedged = patient.hedge(|| late_if(std::mem::take(&mut first))).with(Hedge::after(Duration::ZERO));
        done(runtime.block_on(hedged));
    });
    report.free("cancelled", || abandon(command.run(PendingOnce::default)));
    report.free("admit and succeed", || command.admit().expect("a free slot").succeed());
    report.free("admit and drop", || drop(command.admit().expect("a free slot")));
    report.free("admit_owned and succeed", || command.admit_owned().expect("a free slot").succeed());
    report.free("run_sync", || done(command.run_sync(|| Ok::<_, Down>(1))));
    report.free("state", || done(command.state()));
}

/// An attempt that answers, or one that never does.
async fn late_if(late: bool) -> Answer {
    if late {
        std::future::pending::<()>().await;
    }
    Ok(1)
}

/// Calls that are not.
fn refusals(report: &mut Report) {
    let (open, narrow) = (open("refusals.open"), narrow("refusals.narrow"));
    let _only = narrow.admit().expect("a free slot");
    report.free("refused, open", || done(now(open.run(|| answer(Ok(1))))));
    report.free("refused, open, with a fallback", || {
        done(now(open.run(|| answer(Ok(1))).fallback(|_| async { Ok(2) })));
    });
    report.free("refused, open, admit", || assert!(open.admit().is_err()));
    report.free("refused, full", || done(now(narrow.run(|| answer(Ok(1))))));
    report.free("refused, full, admit", || assert!(narrow.admit().is_err()));
    let forced = full("refusals.forced");
    forced.force_open("maintenance", None);
    report.free("refused, forced open", || done(now(forced.run(|| answer(Ok(1))))));
}

/// Paths that may allocate: what for, their names say.
fn allowed() {
    let queued = Command::builder("allowed.queued").bulkhead(Bulkhead::new(1).queue(1, Duration::from_secs(1)));
    let queued = queued.build().expect("valid");
    let _only = queued.admit().expect("a free slot");
    let full = full("allowed");
    let show = |path: &str, count: f64| println!("| ({path}) | {count} |");
    show("waiting in the queue: a place in line", allocations(|| abandon(queued.run(|| answer(Ok(1))))));
    show("snapshot: the latency cells, once there are any", allocations(|| done(full.snapshot())));
    done(now(full.run(|| answer(Ok(1)))));
    show("snapshot, with latencies", allocations(|| done(full.snapshot())));
}

/// Bytes a command holds, its name and its place in the registry included: as built, after a success, and after an error.
/// What it makes on first use is part of it.
fn commands(report: &mut Report) {
    let lean = each_command("lean", |builder, _| builder.no_latency());
    report.at_most("command without latencies, built", 1024, lean.built);
    report.at_most("command without latencies, after a success", 1024, lean.after_success);
    report.aim_at("command without latencies, after an error", 1024, lean.after_error);
    let own = each_command("own", |builder, n| builder.no_latency().timeout(Duration::from_secs(n + 1)));
    report.aim_at("the same, with settings that no other has, after a success", 1024, own.after_success);
    let breaker = Breaker::error_rate(0.5).last_calls(100);
    let calls = each_command("calls", |builder, _| builder.no_latency().breaker(breaker.clone()));
    report.aim_at("the same, over the last 100 calls, after a success", 1024, calls.after_success);
    let whole = each_command("whole", |builder, _| builder);
    report.at_most("command with latencies, after an error", 4096, whole.after_error);
}

struct Bytes {
    built: i64,
    after_success: i64,
    after_error: i64,
}

fn each_command(tag: &str, configure: impl Fn(Builder, u64) -> Builder) -> Bytes {
    const MANY: u64 = 1000;
    let registry = Registry::new();
    let names: Vec<_> = (0..MANY).map(|n| format!("host-{n}.{tag}")).collect();
    let (commands, _, built) = counted(|| {
        let build = |(n, name): (u64, &String)| configure(Command::builder(name).registry(&registry), n).build();
        (0..MANY).zip(&names).map(build).map(|built| built.expect("valid")).collect::<Vec<_>>()
    });
    let more = |answered| counted(|| commands.iter().for_each(|command| done(now(command.run(|| answer(answered)))))).2;
    let (success, error) = (more(Ok(1)), more(Err(Down)));
    let each = |bytes| bytes / MANY as i64;
    Bytes { built: each(built), after_success: each(built + success), after_error: each(built + success + error) }
}

/// Where the bytes of a command are.
fn made_of() {
    let (command, built) = sizes(|| Command::builder("made.of").no_latency().build().expect("valid"));
    let ((), _, first) = counted(|| done(now(command.run(|| answer(Ok(1))))));
    println!("\nA command without latencies is made of pieces of {built:?} bytes; its first call adds {first}.");
}

/// Bytes of very many keys, with what was made for their first calls.
fn keys(report: &mut Report) {
    const MANY: usize = 100_000;
    let names: Vec<_> = (0..MANY).map(|n| format!("host-{n}.example")).collect();
    let (hosts, _, bytes) = counted(|| {
        let hosts: Keyed<String> = Command::builder("keys").keyed(Keys::up_to(MANY)).expect("valid");
        names.iter().for_each(|name| done(now(hosts.get(name).run(|| answer(Ok(1))))));
        hosts
    });
    let ((), _, more) = counted(|| {
        names.iter().for_each(|name| done(now(hosts.get(name).run(|| answer(Err(Down))))));
    });
    assert_eq!(hosts.len(), MANY);
    let aim = (64 << 20) / MANY as i64;
    report.aim_at("a key of 100,000, after a success", aim, bytes / MANY as i64);
    report.aim_at("a key of 100,000, after an error", aim, (bytes + more) / MANY as i64);
    report.free("a key, looked up", || done(hosts.get("host-7.example")));
}

/// What a call adds to the future inside it.
fn futures(report: &mut Report) {
    const LIMIT: i64 = 256;
    let command = full("futures");
    let over = |call: usize, inner: usize| call as i64 - inner as i64;
    fn inner() -> impl Future<Output = Answer> {
        let large = [1_u8; 1000];
        async move {
            tokio::task::yield_now().await;
            Ok(u64::from(large[7]))
        }
    }
    let size = size_of_val(&inner());
    report.at_most("future of run, beyond the inner one", LIMIT, over(size_of_val(&command.run(inner)), size));
    report.at_most("future of guarded_by", LIMIT, over(size_of_val(&inner().guarded_by(&command)), size));
    let judged = command.run(inner).classify(|_| Verdict::Ignored);
    report.at_most("future of run with a classifier", LIMIT, over(size_of_val(&judged), size));
    let rescued = command.run(inner).fallback(|_| async { Ok(2) });
    report.at_most("future of run with a fallback", LIMIT, over(size_of_val(&rescued), size));
    // With room for one attempt, and for two.
    report.at_most("future of retry", 2 * LIMIT, over(size_of_val(&command.retry(inner)), size));
    report.at_most("future of hedge", 4 * LIMIT, over(size_of_val(&command.hedge(inner)), 2 * size));
}
