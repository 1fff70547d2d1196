//! The time of every path, on one thread and on two that share a command.
//!
//! ```sh
//! cargo bench -p fusebox-benches --bench time              # all of it, some minutes
//! cargo bench -p fusebox-benches --bench time -- refused   # what has that in its name
//! ```
//!
//! Times are of the machine they were taken on. For how they compare see `peers/`, and for what CI holds against limits
//! `benches/instructions.rs`.

mod admit;
mod call;
mod snapshot;
#[path = "../support/mod.rs"]
mod support;
mod threads;
mod window;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, call::bench, admit::bench, window::bench, snapshot::bench);
criterion_main!(benches);
