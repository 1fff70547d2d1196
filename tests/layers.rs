//! The layers of DESIGN.md, section 6, held against the imports of every file in `src`: a file imports from lower layers
//! and from its own folder. With them the doors: one for clocks, one for atomics, one for metrics, one for outcomes.
//!
//! A new file fails here until it has a place in the table. The checker reads text, not Rust, so it is itself tested on
//! planted violations.

use std::fs;
use std::path::Path;

/// Where every file stands, from low to high. Two files of one row know each other only if they share a folder.
const LAYERS: [&[&str]; 15] = [
    // L0: the doors to clocks, atomics and locks.
    &[
        "time.rs",
        "time/paused.rs",
        "time/scripted.rs",
        "time/timer.rs",
        "time/tsc.rs",
        "sync.rs",
        "sync/loom.rs",
        "sync/plain.rs",
        "sync/planted.rs",
        "sync/shuttle.rs",
    ],
    // L1: words, then figures made of them.
    &["name.rs", "outcome.rs", "error.rs"],
    &[
        "window/mod.rs",
        "window/counts.rs",
        "window/counts/tests.rs",
        "window/flow.rs",
        "window/flow/tests.rs",
        "window/histogram.rs",
        "window/lane.rs",
        "window/latency.rs",
        "window/latency/tests.rs",
        "window/recent.rs",
        "window/ring.rs",
    ],
    // L2: what decides. It knows no futures, no events, no command.
    &[
        "breaker/mod.rs",
        "breaker/books.rs",
        "breaker/circuit.rs",
        "breaker/circuit/unlocked.rs",
        "breaker/confidence.rs",
        "breaker/config.rs",
        "breaker/lookout.rs",
        "breaker/machine.rs",
        "breaker/machine/explore.rs",
        "breaker/ramp.rs",
        "breaker/ratio.rs",
        "breaker/rules.rs",
        "breaker/state.rs",
        "breaker/trip.rs",
        "bulkhead.rs",
        "bulkhead/tests.rs",
        "rate_limit/mod.rs",
        "rate_limit/config.rs",
        "rate_limit/limiter.rs",
        "attempts.rs",
        "backoff.rs",
        "budget.rs",
        "hedge.rs",
        "retry.rs",
    ],
    // What moves a limit or a timeout, by what calls took.
    &["adaptive/mod.rs", "adaptive/control.rs", "adaptive/law.rs", "adaptive/limit.rs", "adaptive/timeout.rs"],
    // L3: what tells.
    &["observe/mod.rs", "observe/bus.rs", "observe/event.rs", "observe/meter.rs"],
    // L4: what people hold. `config.rs` tells what it changed, so it stands above the events.
    &["config.rs"],
    &["lint/mod.rs", "lint/finding.rs"],
    &[
        "command/mod.rs",
        "command/admission.rs",
        "command/attempt.rs",
        "command/blocking.rs",
        "command/builder.rs",
        "command/core.rs",
        "command/extras.rs",
        "command/effort.rs",
        "command/fallback.rs",
        "command/family.rs",
        "command/hedged.rs",
        "command/judge.rs",
        "command/keys.rs",
        "command/marks.rs",
        "command/permit.rs",
        "command/persistence.rs",
        "command/retrying.rs",
        "command/roster.rs",
        "command/run.rs",
        "command/work.rs",
        "command/snapshot.rs",
        "command/tally.rs",
    ],
    &["ext.rs"],
    // L5. Its inherent impl on `Builder` stands in its own file, so that the builder imports nothing above it.
    &["registry.rs"],
    &["keyed/mod.rs", "keyed/entry.rs", "keyed/shards.rs"],
    // Its inherent impl on `Registry` stands there for the same reason.
    &[
        "configs/mod.rs",
        "configs/apply.rs",
        "configs/attempts.rs",
        "configs/file.rs",
        "configs/partial.rs",
        "configs/tables.rs",
        "configs/section.rs",
        "configs/value.rs",
    ],
    // What leaves that speak HTTP have in common.
    &["web/mod.rs", "web/body.rs", "web/clients.rs", "web/json.rs"],
    // L6: leaves.
    &[
        "dashboard/mod.rs",
        "dashboard/action.rs",
        "dashboard/assets.rs",
        "dashboard/builder.rs",
        "dashboard/collector.rs",
        "dashboard/gate.rs",
        "dashboard/history.rs",
        "dashboard/log.rs",
        "dashboard/service.rs",
        "dashboard/setting.rs",
        "dashboard/view.rs",
        "guide.rs",
        "hystrix_stream/mod.rs",
        "hystrix_stream/frames.rs",
        "hystrix_stream/handler.rs",
        "hystrix_stream/record.rs",
        "models/mod.rs",
        "models/circuit.rs",
        "models/figures.rs",
        "models/lanes.rs",
        "models/meter.rs",
        "models/rate.rs",
        "models/slots.rs",
        "proof.rs",
        "schedules.rs",
        "testing/mod.rs",
        "testing/clock.rs",
        "testing/diff.rs",
        "testing/script.rs",
        "testing/timeline.rs",
    ],
];

/// Files that may see everything: the root, and prose whose links are imports.
const EXEMPT: [&str; 2] = ["lib.rs", "guide.rs"];

const MAX_LINES: usize = 400;

/// Files that may be longer, and why.
const LONG: [(&str, &str); 4] = [
    ("breaker/circuit.rs", "the lock and the atomics that mirror it must be read together to be judged"),
    ("breaker/machine.rs", "every change of the one state machine, read as a whole"),
    ("breaker/machine/explore.rs", "one search: its world, its steps, and what must hold on each of them"),
    ("observe/meter.rs", "the only file that names the `metrics` facade: every series is made and described here"),
];

/// What may be named in some files only.
const DOORS: [(&str, &[&str]); 13] = [
    ("std::sync::atomic", &["sync/plain.rs", "models/mod.rs", "models/meter.rs", "schedules.rs"]),
    ("loom::", LOOM),
    ("fusebox_loom", &["sync.rs", "lib.rs"]),
    ("shuttle::", &["sync/shuttle.rs", "schedules.rs"]),
    ("fusebox_shuttle", &["sync.rs", "time.rs", "lib.rs"]),
    ("metrics::", &["observe/meter.rs", "models/meter.rs"]),
    ("tokio::time", CLOCKS),
    ("quanta", CLOCKS),
    ("Instant", CLOCKS),
    ("SystemTime::now", CLOCKS),
    ("thread::sleep", &[]),
    ("circuit.record(", &["command/permit.rs", "models/circuit.rs", "breaker/circuit/unlocked.rs"]),
    ("unsafe ", &[]),
];

/// Models run under loom, by loom's threads.
const LOOM: &[&str] = &[
    "sync/loom.rs",
    "models/mod.rs",
    "models/circuit.rs",
    "models/figures.rs",
    "models/lanes.rs",
    "models/meter.rs",
    "models/rate.rs",
    "models/slots.rs",
];

const CLOCKS: &[&str] =
    &["time.rs", "time/paused.rs", "time/scripted.rs", "time/timer.rs", "time/tsc.rs", "models/mod.rs"];

/// What some files may not name although others do: plain values are given the time, and take no lock.
const BANS: [(&str, &[&str]); 2] = [
    (
        "Stamp::now",
        &[
            "window/mod.rs",
            "window/counts.rs",
            "window/flow.rs",
            "window/histogram.rs",
            "window/lane.rs",
            "window/latency.rs",
            "window/recent.rs",
            "window/ring.rs",
            "breaker/books.rs",
            "breaker/machine.rs",
            "breaker/trip.rs",
            "breaker/confidence.rs",
            "breaker/config.rs",
            "breaker/rules.rs",
            "breaker/ramp.rs",
            "breaker/confidence.rs",
            "rate_limit/config.rs",
            "rate_limit/limiter.rs",
            "adaptive/control.rs",
            "adaptive/law.rs",
            "adaptive/limit.rs",
            "adaptive/timeout.rs",
        ],
    ),
    (
        "crate::sync",
        &[
            "adaptive/control.rs",
            "adaptive/law.rs",
            "adaptive/timeout.rs",
            "window/ring.rs",
            "window/recent.rs",
            "breaker/books.rs",
            "breaker/machine.rs",
            "breaker/ramp.rs",
            "breaker/rules.rs",
            "breaker/trip.rs",
        ],
    ),
];

/// A file: its path below `src`, and what is in it.
struct Source {
    path: String,
    text: String,
}

fn layer(path: &str) -> Option<usize> {
    LAYERS.iter().position(|files| files.contains(&path))
}

/// The folder in `src` that a file lies in, however deep.
fn folder(path: &str) -> &str {
    path.split_once('/').map_or("", |(folder, _)| folder)
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// Where `word` stands in `line` by itself, and not as the end of another word.
fn occurrences<'l>(line: &'l str, word: &str) -> impl Iterator<Item = &'l str> {
    line.match_indices(word).filter_map(|(at, found)| {
        let inside = line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        (!inside).then(|| &line[at + found.len()..])
    })
}

/// The file that the path after `crate::` leads to.
fn target(path: &str) -> Option<String> {
    let mut modules = path.split("::").map(|part| part.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '_'));
    let (first, second) = (modules.next()?, modules.next().unwrap_or_default());
    let candidates = [format!("{first}/{second}.rs"), format!("{first}.rs"), format!("{first}/mod.rs")];
    candidates.into_iter().find(|candidate| layer(candidate).is_some())
}

/// The rest of every path in `line` that begins at the root of the crate.
fn from_root(path: &str, line: &str) -> Vec<String> {
    let mut paths: Vec<_> = occurrences(line, "crate::").collect();
    if folder(path).is_empty() && line.starts_with("use super::") {
        // The parent of a file that lies in `src` is the root.
        paths.extend(occurrences(line, "super::"));
    }
    let end = |rest: &str| rest.find(|c: char| !(c.is_alphanumeric() || "_:*{".contains(c))).unwrap_or(rest.len());
    paths.into_iter().map(|rest| rest[..end(rest)].to_owned()).collect()
}

/// Whether a file at `path` may import from one at `other`.
fn may_import(path: &str, other: &str) -> bool {
    let (own, of) = (layer(path), layer(other));
    of < own || (of == own && folder(path) == folder(other))
}

fn check_imports(source: &Source, line: &str) -> Option<String> {
    let path = source.path.as_str();
    if line.contains("super::super") {
        return Some("reaches out of its folder by `super::super`".to_owned());
    }
    from_root(path, line).into_iter().find_map(|import| match target(&import) {
        None => Some(format!("`crate::{import}` is no file of the table")),
        Some(other) if !may_import(path, &other) => Some(format!("imports `{other}`, which is not below it")),
        Some(_) => None,
    })
}

/// A feature adds or removes a module, or a name; it does not change what a function does.
fn check_feature(lines: &[&str], at: usize) -> Option<String> {
    if !lines[at].contains("feature =") {
        return None;
    }
    let is_attribute = |line: &str| line.trim_start().starts_with("#[");
    let subject = lines[at..].iter().find(|line| !is_attribute(line) && !line.trim().is_empty()).copied();
    let words = ["mod ", "pub mod ", "pub(crate) mod ", "pub use ", "pub(crate) use "];
    let is_whole =
        is_attribute(lines[at]) && subject.is_some_and(|line| words.iter().any(|word| line.starts_with(word)));
    (!is_whole).then(|| "a feature on something other than `mod` or `pub use`".to_owned())
}

/// Everything that is wrong in `sources`, by file and line.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let path = source.path.as_str();
        let lines: Vec<_> = source.text.lines().map(code).collect();
        if layer(path).is_none() && !EXEMPT.contains(&path) {
            found.push(format!("{path}: has no place in the table of layers"));
        }
        let may_be_long = LONG.iter().any(|(long, _)| *long == path);
        if lines.len() > MAX_LINES && !may_be_long {
            found.push(format!("{path}: {} lines, and no reason for them", lines.len()));
        }
        for (at, line) in lines.iter().enumerate() {
            let mut report = |what: String| found.push(format!("{path}:{}: {what}", at + 1));
            if !EXEMPT.contains(&path) {
                check_imports(source, line).into_iter().for_each(&mut report);
            }
            check_feature(&lines, at).into_iter().for_each(&mut report);
            for (word, allowed) in DOORS {
                if !allowed.contains(&path) && occurrences(line, word).next().is_some() {
                    report(format!("names `{word}`, which belongs to {allowed:?}"));
                }
            }
            for (word, banned) in BANS {
                if banned.contains(&path) && occurrences(line, word).next().is_some() {
                    report(format!("names `{word}`"));
                }
            }
        }
    }
    found
}

fn read(folder: &Path, root: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            read(&path, root, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root).expect("it is below the root");
            let text = fs::read_to_string(&path).expect("it is text");
            sources.push(Source { path: below.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    read(&root, &root, &mut sources);
    sources
}

#[test]
fn every_file_keeps_to_its_layer_and_to_the_doors() {
    let found = violations(&sources());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// The table describes what is there: a row for a file that has gone, or a reason for a file that is short, is a lie.
#[test]
fn the_table_has_no_leftovers() {
    let sources = sources();
    let lines =
        |path: &str| sources.iter().find(|source| source.path == path).map(|source| source.text.lines().count());
    let named = LAYERS.iter().copied().flatten().chain(&EXEMPT);
    let gone: Vec<_> = named.filter(|path| lines(path).is_none()).collect();
    assert!(gone.is_empty(), "no such files: {gone:?}");
    for (path, reason) in LONG {
        assert!(lines(path) > Some(MAX_LINES), "{path} has {:?} lines; it needs no reason ({reason})", lines(path));
    }
    for (_, paths) in DOORS.iter().chain(&BANS) {
        assert!(paths.iter().all(|path| lines(path).is_some()), "{paths:?}");
    }
}

/// One function changes the state of the breaker: it alone begins a generation.
#[test]
fn one_function_flips_the_state() {
    let sources = sources();
    let machine = sources.iter().find(|source| source.path == "breaker/machine.rs").expect("it is there");
    let flips: Vec<_> = machine.text.lines().filter(|line| code(line).contains("generation +=")).collect();
    assert_eq!(flips.len(), 1, "{flips:?}");
    let assigned = |source: &&Source| source.text.lines().any(|line| code(line).contains("machine.phase ="));
    let outside: Vec<_> = sources.iter().filter(assigned).map(|source| source.path.as_str()).collect();
    assert_eq!(outside, ["breaker/machine.rs"]);
}

#[test]
fn there_is_no_unsafe_code() {
    let root = sources().into_iter().find(|source| source.path == "lib.rs").expect("it is there");
    assert!(root.text.contains("#![forbid(unsafe_code)]"));
}

/// The checker on planted violations: one in each of its rules, in a file that is otherwise in order.
#[test]
fn the_checker_finds_what_is_planted() {
    let planted = [
        ("window/ring.rs", "use crate::breaker::config::Rules;", "imports `breaker/config.rs`"),
        ("window/counts.rs", "use crate::command::Command;", "imports `command/mod.rs`"),
        ("breaker/trip.rs", "use crate::bulkhead::Bulkhead;", "imports `bulkhead.rs`"),
        ("bulkhead.rs", "use crate::breaker::circuit::Circuit;", "imports `breaker/circuit.rs`"),
        ("breaker/state.rs", "use crate::observe::event::Event;", "imports `observe/event.rs`"),
        ("observe/bus.rs", "use crate::command::core::Core;", "imports `command/core.rs`"),
        ("config.rs", "use crate::command::Command;", "imports `command/mod.rs`"),
        ("config.rs", "use super::command::Command;", "imports `command/mod.rs`"),
        ("command/builder.rs", "use crate::registry::Registry;", "imports `registry.rs`"),
        ("command/builder.rs", "use crate::ext::Guard;", "imports `ext.rs`"),
        ("command/run.rs", "    let _ = crate::registry::Registry::global();", "imports `registry.rs`"),
        ("command/run.rs", "    use crate::registry::*;", "imports `registry.rs`"),
        ("time.rs", "use crate::error::Problems;", "imports `error.rs`"),
        ("outcome.rs", "use crate::window::counts::Counts;", "imports `window/counts.rs`"),
        ("command/run.rs", "use crate::Command;", "is no file of the table"),
        ("command/run.rs", "use crate::{error::Error, registry::Registry};", "is no file of the table"),
        ("command/run.rs", "use super::super::registry::Registry;", "super::super"),
        ("try.rs", "", "has no place"),
        ("command/trying.rs", "", "has no place"),
        ("breaker/mod.rs", "use std::sync::atomic::AtomicU64;", "names `std::sync::atomic`"),
        ("breaker/mod.rs", "use loom::sync::Arc;", "names `loom::`"),
        ("breaker/mod.rs", "#[cfg(fusebox_loom)]", "names `fusebox_loom`"),
        ("command/core.rs", "metrics::counter!(\"calls\").increment(1);", "names `metrics::`"),
        ("command/run.rs", "use tokio::time::sleep;", "names `tokio::time`"),
        ("command/run.rs", "let now = std::time::Instant::now();", "names `Instant`"),
        ("command/run.rs", "let now = SystemTime::now();", "names `SystemTime::now`"),
        ("command/run.rs", "use quanta::Clock;", "names `quanta`"),
        ("command/run.rs", "std::thread::sleep(wait);", "names `thread::sleep`"),
        ("command/run.rs", "core.circuit.record(now, ticket, ending);", "names `circuit.record(`"),
        ("command/run.rs", "unsafe { core() }", "names `unsafe `"),
        ("window/latency.rs", "let now = Stamp::now();", "names `Stamp::now`"),
        ("breaker/machine.rs", "let now = Stamp::now();", "names `Stamp::now`"),
        ("breaker/machine.rs", "use crate::sync::Mutex;", "names `crate::sync`"),
        ("window/recent.rs", "use crate::sync::AtomicU64;", "names `crate::sync`"),
        ("command/run.rs", "#[cfg(feature = \"test-util\")]\nfn faster() {}", "a feature on something other"),
        ("command/run.rs", "    #[cfg(feature = \"test-util\")]\n    mod inner {}", "a feature on something other"),
        ("command/run.rs", "if cfg!(feature = \"test-util\") { return; }", "a feature on something other"),
        (
            "command/run.rs",
            "#[cfg_attr(feature = \"serde\", derive(Serialize))]\nstruct S;",
            "a feature on something other",
        ),
    ];
    for (path, text, expected) in planted {
        let found = violations(&[Source { path: path.to_owned(), text: text.to_owned() }]);
        assert!(found.len() == 1 && found[0].contains(expected), "{text} in {path}: {found:?}");
    }
    let long = Source { path: "command/run.rs".to_owned(), text: "\n".repeat(MAX_LINES + 1) };
    assert_eq!(violations(&[long]), ["command/run.rs: 401 lines, and no reason for them"]);
}

/// And it is quiet about what is in order, or is only talked about.
#[test]
fn the_checker_lets_pass_what_is_right() {
    let right = [
        ("command/run.rs", "use super::permit::Permit;\nuse crate::error::{Error, TimedOut};\nuse crate::time::Stamp;"),
        ("command/fallback.rs", "use crate::command::core::Core;\nuse crate::bulkhead::{Capacity, Slots};"),
        ("name.rs", "use crate::error::Problems;"),
        ("registry.rs", "use crate::command::builder::Builder;"),
        ("breaker/mod.rs", "// std::sync::atomic, metrics::counter! and Instant::now are elsewhere: crate::registry"),
        ("command/run.rs", "/// [`Registry`](crate::registry::Registry)\nlet fusebox_metrics::x = 1;"),
        ("window/ring.rs", "mod tests {\n    use super::*;\n}"),
        ("time.rs", "#[cfg(not(feature = \"test-util\"))]\n#[path = \"time/tsc.rs\"]\nmod source;"),
        ("lib.rs", "#[cfg(feature = \"test-util\")]\npub mod testing;\npub use crate::command::Command;"),
        ("guide.rs", "use crate::*;"),
    ];
    for (path, text) in right {
        let found = violations(&[Source { path: path.to_owned(), text: text.to_owned() }]);
        assert_eq!(found, Vec::<String>::new(), "{path}");
    }
}
