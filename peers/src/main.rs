//! fusebox beside its peers: one process, everybody in turn, round after round.
//!
//! ```sh
//! cargo run --release -p fusebox-peers            # under a minute; prints the tables of the README
//! cargo run --release -p fusebox-peers -- --quick # seconds; that everything runs, and what must not allocate does not
//! ```
//!
//! It ends with an error where one of our calls allocates. Times are shown against their targets and never an error: a
//! machine that others use as well would fail for no reason.

mod calm;
mod race;
mod racers;
mod report;
#[path = "../../benches/support/mod.rs"]
mod support;
mod versions;

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

fn main() -> Result<ExitCode, lexopt::Error> {
    let mut plan = LONG;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("quick") => plan = QUICK,
            Long("help") => {
                println!("fusebox-peers [--quick]");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected()),
        }
    }
    let workers = AtomicUsize::new(0);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .on_thread_start(move || calm::stay_on(workers.fetch_add(1, Ordering::Relaxed) % 2))
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    Ok(report::run(plan, &runtime))
}
