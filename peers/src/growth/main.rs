//! What grows with the work, and what does not: tasks that share a command, commands alive, calls in a window.
//!
//! ```sh
//! cargo run --release -p fusebox-peers --bin growth
//! ```
//!
//! It prints tables and writes the plots of `benches/plots/`. With `--quick` it takes smaller steps and writes nothing.

mod commands;
mod plot;
#[path = "../processor.rs"]
mod processor;
#[path = "../../../benches/support/mod.rs"]
mod support;
#[path = "../table.rs"]
mod table;
mod tasks;
mod window;

use std::error::Error;
use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use support::counting::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Box<dyn Error>> {
    let mut quick = false;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("quick") => quick = true,
            Long("help") => {
                println!("growth [--quick]");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let plots = (!quick).then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/plots"));
    let plot = |name: &str| -> Option<PathBuf> { Some(plots.as_ref()?.join(name)) };
    tasks::measure(quick, plot("tasks.svg").as_deref())?;
    commands::measure(quick, plot("commands.svg").as_deref())?;
    window::measure(quick, plot("window.svg").as_deref())
}
