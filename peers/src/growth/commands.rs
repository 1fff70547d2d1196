//! More and more commands alive: memory, the time to build them, and to look at all of them.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use fusebox::{Command, Registry};

use crate::plot::{Line, Plot, short};
use crate::processor::busy;
use crate::support::counting::counted;
use crate::support::{answer, done, now};
use crate::table::table;

/// What each of so many commands takes.
struct Each {
    many: usize,
    bytes: f64,
    build: f64,
    call: f64,
    snapshot: f64,
}

pub(crate) fn measure(quick: bool, plot: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let most = if quick { 1000 } else { 100_000 };
    let steps = (0..=5).map(|power| 10_usize.pow(power)).filter(|many| *many <= most);
    let all: Vec<_> = steps.map(each).collect();
    let line = |each: &Each| {
        vec![
            short(each.many as f64),
            format!("{:.0}", each.bytes),
            format!("{:.1}", each.bytes * each.many as f64 / f64::from(1 << 20)),
            format!("{:.0}", each.build),
            format!("{:.0}", each.call),
            format!("{:.0}", each.snapshot),
            format!("{:.2}", each.snapshot * each.many as f64 / 1e6),
        ]
    };
    println!("Commands alive, without latencies:\n");
    let head =
        ["commands", "bytes each", "MiB", "ns to build one", "ns a call, in turn", "ns to snapshot one", "ms for all"];
    println!("{}", table(&head, &all.iter().map(line).collect::<Vec<_>>()));
    let of = |name, figure: fn(&Each) -> f64| {
        let points = all.iter().map(|each| (each.many as f64, figure(each))).collect();
        Line { name, points }
    };
    let lines = [
        of("bytes", |each| each.bytes),
        of("ns to build", |each| each.build),
        of("ns of a call, all in turn", |each| each.call),
        of("ns to snapshot", |each| each.snapshot),
    ];
    let (title, across, up) = ("Commands alive: what each of them takes", "commands", "bytes or ns, each");
    plot.map_or(Ok(()), |file| Plot { title, across, up, base: 10.0, lines: &lines }.draw(file))
}

fn each(many: usize) -> Each {
    // As often as it takes for the clock to see something, and the best run; by the time on a processor, as others use
    // the machine as well.
    let runs = (1000 / many).clamp(3, 200);
    let reading = (0..100).map(|_| busy().abs_diff(busy())).min().unwrap_or_default();
    let took = |start: Duration| (busy() - start).saturating_sub(reading);
    let (mut build, mut call, mut snapshot, mut bytes) = (Duration::MAX, Duration::MAX, Duration::MAX, 0);
    for run in 0..runs {
        let registry = Registry::new();
        let names: Vec<_> = (0..many).map(|n| format!("host-{n}.{many}.{run}")).collect();
        let call_all = |built: &[Command]| built.iter().for_each(|command| done(now(command.run(|| answer(Ok(1))))));
        let (built, _, held) = counted(|| {
            let new = |name: &String| Command::builder(name).no_latency().registry(&registry).build().expect("valid");
            let start = busy();
            let built: Vec<_> = names.iter().map(new).collect();
            build = build.min(took(start));
            // What is made on first use is part of it.
            call_all(&built);
            built
        });
        bytes = held;
        let start = busy();
        call_all(&built);
        call = call.min(took(start));
        let start = busy();
        registry.commands().iter().for_each(|command| done(command.snapshot()));
        snapshot = snapshot.min(took(start));
    }
    let of_one = |all: Duration| all.as_nanos() as f64 / many as f64;
    Each {
        many,
        bytes: bytes as f64 / many as f64,
        build: of_one(build),
        call: of_one(call),
        snapshot: of_one(snapshot),
    }
}
