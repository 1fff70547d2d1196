//! fusebox beside its peers: one process, everybody in turn, round after round.
//!
//! ```sh
//! cargo run --release -p fusebox-peers             # about a minute; prints the tables
//! cargo run --release -p fusebox-peers -- --readme # and puts them into README.md
//! cargo run --release -p fusebox-peers -- --quick  # seconds; that everything runs, and what must not allocate does not
//! ```
//!
//! It ends with an error where one of our calls allocates. Times are shown against their targets and never an error: a
//! machine that others use as well would fail for no reason. Leave it alone with the machine all the same; a turn in which
//! it was not does not count, and two workers that never ran side by side are shown as `?`.

mod calm;
mod processor;
mod race;
mod racers;
mod report;
#[path = "../../benches/support/mod.rs"]
mod support;
mod table;
mod versions;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lexopt::prelude::*;
use race::Plan;
use support::counting::Counting;
use tokio::runtime;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LONG: Plan = Plan { rounds: 1500, turn: Duration::from_micros(200) };
const QUICK: Plan = Plan { rounds: 40, turn: Duration::from_micros(50) };

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (mut plan, mut readme) = (LONG, false);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("quick") => plan = QUICK,
            Long("readme") => readme = true,
            Long("help") => {
                println!("fusebox-peers [--quick] [--readme]");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let workers = AtomicUsize::new(0);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .on_thread_start(move || processor::stay_on(workers.fetch_add(1, Ordering::Relaxed) % 2))
        .build()?;
    let _entered = runtime.enter();
    let (tables, allocate) = report::run(plan, &runtime);
    print!("{tables}");
    if readme {
        put_into_readme(&tables)?;
    }
    for path in &allocate {
        eprintln!("{path}: it allocates, which it must not");
    }
    Ok(if allocate.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replaces what stands between the two marks.
fn put_into_readme(tables: &str) -> Result<(), Box<dyn Error>> {
    const MARKS: [&str; 2] = ["<!-- measured -->\n", "<!-- until here -->\n"];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(&file)?;
    let (before, rest) = text.split_once(MARKS[0]).ok_or("README.md has no mark where the tables begin")?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or("README.md has no mark where the tables end")?;
    fs::write(&file, [before, MARKS[0], "\n", tables, "\n", MARKS[1], after].concat())?;
    Ok(())
}
