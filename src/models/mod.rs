//! The lock-free parts under loom, as they ship: every interleaving, and every value that the memory model lets a load
//! see, of a few threads that each take a few steps.
//!
//! Run with `RUSTFLAGS="--cfg fusebox_loom" cargo test --profile models --lib models`. Preemptions are bounded to two for
//! each execution, and to three in the long form, which in the experience of loom's authors finds what there is to be
//! found; `FUSEBOX_LOOM_BOUND` sets the bound, or `none`. Every model is run again with each of the bugs that are planted in the code that it is
//! about, and must then fail. Sizes are cut down ([`crate::sync::scaled`]): a histogram has eight cells, and two calls
//! make a crowd.

mod circuit;
mod figures;
mod lanes;
mod meter;
mod rate;
mod slots;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::sync::plant;
use crate::time::Stamp;

/// The model holds, and fails with any of these bugs planted.
fn prove(bugs: &[&'static str], model: impl Fn() + Sync + Send + Copy + 'static) {
    let began = Instant::now();
    let executions = explore(model);
    println!("{executions} executions in {:.1} s", began.elapsed().as_secs_f64());
    for &bug in bugs {
        plant(bug);
        let failed = catch_unwind(AssertUnwindSafe(|| explore(model))).is_err();
        plant("");
        assert!(failed, "the model does not see the bug `{bug}`");
    }
}

/// Whether the model is true in some execution.
fn ever(model: impl Fn() -> bool + Sync + Send + 'static) -> bool {
    // Not loom's, which would begin anew with each.
    let seen = Arc::new(AtomicBool::new(false));
    let see = Arc::clone(&seen);
    explore(move || {
        if model() {
            see.store(true, Ordering::Relaxed);
        }
    });
    seen.load(Ordering::Relaxed)
}

/// Runs every execution, and says how many there were.
fn explore(model: impl Fn() + Sync + Send + 'static) -> u64 {
    let executions = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = match std::env::var("FUSEBOX_LOOM_BOUND").as_deref() {
        Ok("none") => None,
        Ok(bound) => Some(bound.parse().expect("a number, or `none`")),
        Err(_) => Some(2),
    };
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    executions.load(Ordering::Relaxed)
}

fn at(nanos: u64) -> Stamp {
    Stamp::from_nanos(nanos)
}
