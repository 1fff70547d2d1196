//! A window that fills: what a call costs that finds so many before it, and a look at them.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use fusebox::{Breaker, Command};

use crate::plot::{Line, Plot, short};
use crate::support::{Down, answer, done, now};
use crate::table::table;

const HOUR: Duration = Duration::from_secs(3600);
/// Calls between two readings of the clock.
const BATCH: u64 = 1000;

/// A step: the fewest nanoseconds of a batch, for each call or look in it.
struct Step {
    fill: u64,
    success: f64,
    failure: f64,
    snapshot: f64,
}

pub(crate) fn measure(quick: bool, plot: Option<&Path>) -> Result<(), Box<dyn Error>> {
    // Nothing leaves this window while it is measured.
    let command = Command::builder("growth.window").breaker(Breaker::error_rate(1.0).window(10 * HOUR)).build()?;
    let most = if quick { 100_000 } else { 10_000_000 };
    let batches = if quick { 5 } else { 50 };
    let mut all = Vec::new();
    let mut fill = 0;
    for goal in [0, 10_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000].into_iter().filter(|goal| *goal <= most)
    {
        while fill < goal {
            done(now(command.run(|| answer(Ok(1)))));
            fill += 1;
        }
        let success = best(batches, || done(now(command.run(|| answer(Ok(1))))));
        let failure = best(batches, || done(now(command.run(|| answer(Err(Down))))));
        let snapshot = best(batches, || done(command.snapshot()));
        fill += 2 * batches * BATCH;
        all.push(Step { fill: goal, success, failure, snapshot });
    }
    assert_eq!(command.snapshot().window().total(), fill, "each call is in the window once");
    let line = |step: &Step| {
        let figures = [step.success, step.failure, step.snapshot].map(|nanos| format!("{nanos:.0}"));
        [vec![short(step.fill as f64)], figures.to_vec()].concat()
    };
    println!("A window that fills:\n");
    let head = ["calls before", "ns a success", "ns a failure", "ns a snapshot"];
    println!("{}", table(&head, &all.iter().map(line).collect::<Vec<_>>()));
    let of = |name, figure: fn(&Step) -> f64| {
        // The axis has no place for zero.
        let points = all.iter().map(|step| (step.fill.max(BATCH) as f64, figure(step))).collect();
        Line { name, points }
    };
    let lines = [
        of("a success", |step| step.success),
        of("a failure", |step| step.failure),
        of("a snapshot", |step| step.snapshot),
    ];
    let (title, across, up) = ("A window that fills", "calls in the window", "ns");
    plot.map_or(Ok(()), |file| Plot { title, across, up, base: 10.0, lines: &lines }.draw(file))
}

fn best(batches: u64, mut act: impl FnMut()) -> f64 {
    let batch = |_| {
        let start = Instant::now();
        (0..BATCH).for_each(|_| act());
        start.elapsed()
    };
    let best = (0..batches).map(batch).min().unwrap_or_default();
    best.as_nanos() as f64 / BATCH as f64
}
