//! The tables, as Markdown, and the targets.

use std::fs;
use std::process::ExitCode;

use fusebox::{Command, Registry};
use tokio::runtime::Runtime;

use crate::race::{Plan, Racer, Samples, alone, pairs};
use crate::racers::{own, owns, pending, pendings, refusals, refused, success, successes};
use crate::support::counting::counted;
use crate::support::{answer, done, full, now};

/// Calls over which allocations are counted.
const COUNTED: u32 = 1000;

/// Two workers never ran side by side: the machine was too busy to tell.
const UNKNOWN: &str = "?";

/// A race that is over.
struct Results {
    racers: Vec<Racer>,
    alone: Vec<Samples>,
    allocations: Vec<f64>,
}

impl Results {
    fn of(what: &str, mut racers: Vec<Racer>, plan: Plan) -> Self {
        let alone = alone(&mut racers, plan);
        let calm = alone.iter().map(Samples::calm).sum::<f64>() / alone.len() as f64;
        eprintln!("{what}: {:.0} % of the turns undisturbed", 100.0 * calm);
        let allocations = racers.iter_mut().map(allocations).collect();
        Self { racers, alone, allocations }
    }

    /// A line for each racer, in columns: name, the shortest and the median time, the ratio to the first racer,
    /// allocations.
    fn lines(&self) -> Vec<Vec<String>> {
        let each = self.racers.iter().zip(&self.alone).zip(&self.allocations);
        let line = |((racer, samples), allocations): ((&Racer, &Samples), &f64)| {
            vec![
                racer.name.clone(),
                format!("{} / {}", nanos(samples.min()), nanos(samples.median())),
                times(samples.ratio_to(&self.alone[0])),
                format!("{allocations:.0}"),
            ]
        };
        each.map(line).collect()
    }

    /// How many times as long this racer takes as that one.
    fn ratio(&self, mine: usize, theirs: usize) -> f64 {
        self.alone[mine].ratio_to(&self.alone[theirs])
    }
}

fn allocations(racer: &mut Racer) -> f64 {
    (racer.turn)(COUNTED);
    let ((), allocations, _) = counted(|| (racer.turn)(COUNTED));
    (racer.after)();
    allocations as f64 / f64::from(COUNTED)
}

/// Measures everything and prints it.
pub(crate) fn run(plan: Plan, runtime: &Runtime) -> ExitCode {
    let mut successes = Results::of("success", successes(), plan);
    let shared = pairs(&mut successes.racers, plan, runtime);
    let calm = shared.iter().flatten().map(Samples::calm).sum::<f64>() / shared.iter().flatten().count() as f64;
    eprintln!("two workers: {:.0} % of the turns undisturbed", 100.0 * calm);
    let refusals = Results::of("refused", refusals(), plan);
    let pendings = Results::of("pending once", pendings(), plan);
    let owns = Results::of("own", owns(), plan);

    println!("{}\n", machine());
    println!(
        "A call that succeeds at once, on one thread, and on two workers of a tokio runtime that share one instance:\n"
    );
    let head = ["success", "ns, min / median", "ratio", "allocations", "2 workers, ns", "ratio", "bytes"];
    let mut lines = successes.lines();
    let ours = shared[success::FULL].clone().expect("the command is shared");
    for ((line, shared), racer) in lines.iter_mut().zip(&shared).zip(&successes.racers) {
        let cells = shared.as_ref().map(|samples| (nanos(samples.median()), times(samples.ratio_to(&ours))));
        let (time, ratio) = cells.unwrap_or_default();
        line.extend([time, ratio, racer.bytes.to_string()]);
    }
    table(&head, &lines);
    println!("\nA call that an open circuit refuses:\n");
    table(&["refused", "ns, min / median", "ratio", "allocations"], &refusals.lines());
    println!("\nA call that has to wait once, so that a timer is armed and taken back:\n");
    table(&["pending once", "ns, min / median", "ratio", "allocations"], &pendings.lines());
    println!("\nfusebox with and without a recorder, and what a snapshot takes:\n");
    table(&["fusebox", "ns, min / median", "ratio", "allocations"], &owns.lines());
    println!();
    targets(&successes, &shared, &refusals, &pendings, &owns);
    broken(&[
        ("success", successes.allocations[success::FULL]),
        ("refused", refusals.allocations[refused::FUSEBOX]),
        ("pending once", pendings.allocations[pending::FUSEBOX]),
        ("no recorder", owns.allocations[own::WITHOUT]),
    ])
}

fn targets(all: &Results, shared: &[Option<Samples>], refusals: &Results, pendings: &Results, owns: &Results) {
    let mut lines = Vec::new();
    let mut target = |what: &str, most: f64, unit: &str, measured: f64| {
        let met = if measured.is_nan() {
            UNKNOWN
        } else if measured <= most {
            "met"
        } else {
            "**not met**"
        };
        let figure = |value: f64| {
            if value.is_nan() {
                UNKNOWN.to_string()
            } else {
                format!("{value:.digits$}{unit}", digits = if value < 10.0 { 2 } else { 0 })
            }
        };
        lines.push(vec![what.to_string(), figure(measured), format!("<= {}", figure(most)), met.to_string()]);
    };
    target("success: allocations", 0.0, "", all.allocations[success::FULL]);
    target("success: shortest time", 45.0, " ns", all.alone[success::FULL].min());
    target("success: against failsafe, default policy", 0.5, " x", all.ratio(success::FULL, success::FAILSAFE));
    target("success: against tower, timeout + concurrency limit", 0.5, " x", all.ratio(success::FULL, success::TOWER));
    let stack = all.ratio(success::FULL, success::TOWER_RESILIENCE_STACK);
    target("success: against tower-resilience, three layers", 0.08, " x", stack);
    let pair = |peer: usize| {
        let of = |index: usize| shared[index].as_ref().expect("they all share");
        of(success::FULL).ratio_to(of(peer))
    };
    target("2 workers: against failsafe, default policy", 0.4, " x", pair(success::FAILSAFE));
    target("2 workers: against recloser", 0.5, " x", pair(success::RECLOSER));
    target("2 workers: against seatbelt, breaker", 0.3, " x", pair(success::SEATBELT));
    target("refused: allocations", 0.0, "", refusals.allocations[refused::FUSEBOX]);
    target("refused: shortest time", 16.0, " ns", refusals.alone[refused::FUSEBOX].min());
    let peers = 1..refusals.racers.len();
    let best = peers.map(|peer| refusals.ratio(refused::FUSEBOX, peer)).fold(0.0, f64::max);
    target("refused: against the best peer", 0.45, " x", best);
    let timer = pendings.ratio(pending::FUSEBOX, pending::TIMEOUT);
    target("pending once: against tokio's `timeout` alone", 1.05, " x", timer);
    let added = owns.alone[own::WITH].beyond(&owns.alone[own::WITHOUT]);
    target("Prometheus recorder: added to a call", 60.0, " ns", added);
    target("snapshot: median time", 2000.0, " ns", owns.alone[own::SNAPSHOT].median());
    target("memory: command without latencies", 1024.0, " bytes", command_bytes("lean", 1000, true));
    target("memory: command with latencies", 4096.0, " bytes", command_bytes("whole", 1000, false));
    let many = 100_000;
    let all = command_bytes("many", many, true) * many as f64 / f64::from(1 << 20);
    target("memory: 100,000 commands without latencies", 64.0, " MiB", all);
    let command = full("targets.future");
    let inner = size_of_val(&answer(Ok(1)));
    let future = size_of_val(&command.run(|| answer(Ok(1)))) - inner;
    target("future: beyond the one inside", 256.0, " bytes", future as f64);
    table(&["target", "measured", "aim", ""], &lines);
}

/// Bytes a command takes, its name and its place in a registry included, after a first call.
fn command_bytes(kind: &str, many: usize, lean: bool) -> f64 {
    let registry = Registry::new();
    let names: Vec<_> = (0..many).map(|n| format!("host-{n}.{kind}")).collect();
    let (kept, _, bytes) = counted(|| {
        let build = |name: &String| {
            let builder = Command::builder(name).registry(&registry);
            if lean { builder.no_latency() } else { builder }.build().expect("valid")
        };
        let built: Vec<_> = names.iter().map(build).collect();
        built.iter().for_each(|command| done(now(command.run(|| answer(Ok(1))))));
        built
    });
    drop(kept);
    bytes as f64 / many as f64
}

/// Only what is the same on every machine is an error.
fn broken(allocations: &[(&str, f64)]) -> ExitCode {
    let broken: Vec<_> = allocations.iter().filter(|(_, count)| *count > 0.0).collect();
    for (path, count) in &broken {
        eprintln!("{path}: {count} allocations a call, where there must be none");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn nanos(value: f64) -> String {
    if value.is_nan() {
        UNKNOWN.to_string()
    } else if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn times(ratio: f64) -> String {
    if ratio.is_nan() {
        UNKNOWN.to_string()
    } else if ratio < 10.0 {
        format!("{ratio:.2} x")
    } else {
        format!("{ratio:.0} x")
    }
}

/// What it was measured on.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Measured on {}, {cores} cores, {}.", model.unwrap_or("an unknown processor"), std::env::consts::OS)
}

/// Prints a table whose columns line up in the source as well.
fn table(head: &[&str], lines: &[Vec<String>]) {
    let widest = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.chain([head[column].len(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<_> = (0..head.len()).map(widest).collect();
    let print = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
    };
    print(head.to_vec());
    let rule = widths.iter().enumerate().map(|(column, &width)| {
        let dashes = "-".repeat(if column == 0 { width } else { width - 1 });
        if column == 0 { dashes } else { format!("{dashes}:") }
    });
    println!("| {} |", rule.collect::<Vec<_>>().join(" | "));
    for line in lines {
        print(line.iter().map(String::as_str).collect());
    }
}
