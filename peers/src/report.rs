//! The tables, as Markdown, and the targets.

use std::fs;
use std::time::Duration;

use fusebox::{Builder, Command, Keyed, Keys, Registry};
use tokio::runtime::Runtime;

use crate::race::{Plan, Racer, Samples, alone, pairs};
use crate::racers::{own, owns, part, parts, pending, pendings, refusals, refused, success, successes};
use crate::support::counting::counted;
use crate::support::{answer, done, full, now};
use crate::table::table;

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

/// Measures everything: what there is to show, and which of our paths allocate although none may.
pub(crate) fn run(plan: Plan, runtime: &Runtime) -> (String, Vec<&'static str>) {
    let mut successes = Results::of("success", successes(), plan);
    let shared = pairs(&mut successes.racers, plan, runtime);
    let calm = shared.iter().flatten().map(Samples::calm).sum::<f64>() / shared.iter().flatten().count() as f64;
    eprintln!("two workers: {:.0} % of the turns undisturbed", 100.0 * calm);
    let refusals = Results::of("refused", refusals(), plan);
    let pendings = Results::of("pending once", pendings(), plan);
    let owns = Results::of("own", owns(), plan);
    let parts = Results::of("parts", parts(), plan);

    let mut lines = successes.lines();
    let ours = shared[success::FULL].clone().expect("the command is shared");
    for ((line, shared), racer) in lines.iter_mut().zip(&shared).zip(&successes.racers) {
        let cells = shared.as_ref().map(|samples| (nanos(samples.median()), times(samples.ratio_to(&ours))));
        let (time, ratio) = cells.unwrap_or_default();
        line.extend([time, ratio, racer.bytes.to_string()]);
    }
    let head = ["success", "ns, min / median", "ratio", "allocations", "2 workers, ns", "ratio", "bytes"];
    let parts = [
        format!("{} A ratio is the row's time beside fusebox's in the same round, median of all rounds.", machine()),
        "A call that succeeds at once, on one thread, and on two workers of a tokio runtime that share one instance:"
            .into(),
        table(&head, &lines),
        "A call that an open circuit refuses:".into(),
        table(&["refused", head[1], head[2], head[3]], &refusals.lines()),
        "A call that has to wait once, so that a timer is armed and taken back:".into(),
        table(&["pending once", head[1], head[2], head[3]], &pendings.lines()),
        "With and without a recorder, and a snapshot:".into(),
        table(&["fusebox", head[1], head[2], head[3]], &owns.lines()),
        "What a call cannot do without, and so cannot be quicker than:".into(),
        bounds(&successes, &refusals, &pendings, &parts),
        "What was aimed at:".into(),
        targets(&successes, &shared, &refusals, &pendings, &owns),
    ];
    let ours = [
        ("success", successes.allocations[success::FULL]),
        ("success, breaker alone", successes.allocations[success::BREAKER_ALONE]),
        ("refused", refusals.allocations[refused::FUSEBOX]),
        ("pending once", pendings.allocations[pending::FUSEBOX]),
        ("no recorder", owns.allocations[own::WITHOUT]),
    ];
    let allocate = ours.into_iter().filter(|(_, count)| *count > 0.0).map(|(path, _)| path).collect();
    // A table ends its last line by itself.
    (parts.map(|part| format!("{}\n", part.trim_end())).join("\n"), allocate)
}

/// The parts, and what those of a path come to beside the path itself.
fn bounds(all: &Results, refusals: &Results, pendings: &Results, parts: &Results) -> String {
    let each = |index: usize| parts.alone[index].median();
    let alone =
        (0..parts.racers.len()).map(|index| vec![parts.racers[index].name.clone(), nanos(each(index)), "".into()]);
    let path = |name: &str, clocks: f64, writes: f64, timer: f64, whole: &Samples| {
        let sum =
            clocks * each(part::CLOCK) + writes * each(part::WRITE) + each(part::RECORDER) + timer * each(part::TIMER);
        let timer = if timer > 0.0 { " + timer" } else { "" };
        let what = format!("{name}: {clocks} x clock + {writes} x word + recorder{timer}");
        vec![what, nanos(sum), nanos(whole.median())]
    };
    let paths = [
        path("refused", 1.0, 1.0, 0.0, &refusals.alone[refused::FUSEBOX]),
        path("success", 2.0, 3.0, 0.0, &all.alone[success::FULL]),
        path("pending once", 2.0, 4.0, 1.0, &pendings.alone[pending::FUSEBOX]),
    ];
    table(&["part", "ns", "of the path's"], &alone.chain(paths).collect::<Vec<_>>())
}

fn targets(
    all: &Results,
    shared: &[Option<Samples>],
    refusals: &Results,
    pendings: &Results,
    owns: &Results,
) -> String {
    let mut lines = Vec::new();
    let mut target = |what: &str, most: f64, unit: &str, measured: f64| {
        let met = match measured {
            _ if measured.is_nan() => UNKNOWN,
            _ if measured <= most => "met",
            _ => "**not met**",
        };
        let cells = [what, &figure(measured, unit), &format!("<= {}", figure(most, unit)), met];
        lines.push(cells.map(str::to_string).to_vec());
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
    let lean = command_bytes("lean", |builder, _| builder.no_latency());
    target("memory: command without latencies, settings shared", 1024.0, " bytes", lean);
    let own = command_bytes("own", |builder, n| builder.no_latency().timeout(Duration::from_secs(n + 1)));
    target("memory: command without latencies, settings of its own", 1024.0, " bytes", own);
    target("memory: command with latencies", 4096.0, " bytes", command_bytes("whole", |builder, _| builder));
    target("memory: 100,000 keyed commands, each called", 64.0, " MiB", keyed_bytes(100_000) / f64::from(1 << 20));
    let command = full("targets.future");
    let inner = size_of_val(&answer(Ok(1)));
    let future = size_of_val(&command.run(|| answer(Ok(1)))) - inner;
    target("future: beyond the one inside", 256.0, " bytes", future as f64);
    table(&["target", "measured", "aim", ""], &lines)
}

/// Bytes a command takes beside its name, its place in a registry included, after a first call.
fn command_bytes(kind: &str, configure: impl Fn(Builder, u64) -> Builder) -> f64 {
    const MANY: u64 = 1000;
    let registry = Registry::new();
    let names: Vec<_> = (0..MANY).map(|n| format!("host-{n}.{kind}")).collect();
    // Names are kept for good, in a table that doubles now and then.
    names.iter().for_each(|name| drop(Command::builder(name).registry(&registry).build()));
    let (kept, _, bytes) = counted(|| {
        let build = |(n, name): (u64, &String)| {
            configure(Command::builder(name).registry(&registry), n).build().expect("valid")
        };
        let built: Vec<_> = (0..MANY).zip(&names).map(build).collect();
        built.iter().for_each(|command| done(now(command.run(|| answer(Ok(1))))));
        built
    });
    drop(kept);
    bytes as f64 / MANY as f64
}

/// Bytes of a command with so many keys, each of which was called.
fn keyed_bytes(many: usize) -> f64 {
    let hosts: Vec<_> = (0..many).map(|n| format!("host-{n}.example")).collect();
    let (kept, _, bytes) = counted(|| {
        let keyed: Keyed<String> = Command::builder("targets.keyed").keyed(Keys::up_to(many)).expect("valid");
        hosts.iter().for_each(|host| done(now(keyed.get(host).run(|| answer(Ok(1))))));
        keyed
    });
    assert_eq!(kept.len(), many, "each host has a circuit of its own");
    bytes as f64
}

/// Three digits that tell it from its target.
fn figure(value: f64, unit: &str) -> String {
    let digits = match value {
        _ if value.is_nan() => return UNKNOWN.to_string(),
        _ if value.fract() == 0.0 => 0,
        _ if value < 1.0 => 3,
        _ if value < 10.0 => 2,
        _ => 0,
    };
    format!("{value:.digits$}{unit}")
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
