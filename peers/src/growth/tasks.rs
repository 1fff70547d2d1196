//! One command, shared by more and more tasks on two workers.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fusebox::Command;
use tokio::runtime::{self, Runtime};
use tokio::sync::Barrier;

use crate::plot::{Line, Plot};
use crate::processor::{busy, stay_on};
use crate::support::{answer, done, full};
use crate::table::table;

const WORKERS: usize = 2;
const TASKS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Calls of a task between two points at which it lets others run.
const STRETCH: u32 = 256;

/// What one round of all tasks took.
struct Round {
    calls: u32,
    wall: Duration,
    busy: Duration,
}

impl Round {
    /// Whether as many workers as there was work for ran nearly all of the time.
    fn calm(&self, tasks: usize) -> bool {
        self.busy.as_secs_f64() >= 0.9 * tasks.min(WORKERS) as f64 * self.wall.as_secs_f64()
    }

    /// Nanoseconds on a processor for each call.
    fn nanos(&self) -> f64 {
        self.busy.as_nanos() as f64 / f64::from(self.calls)
    }
}

pub(crate) fn measure(quick: bool, plot: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let started = AtomicUsize::new(0);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_time()
        .on_thread_start(move || stay_on(started.fetch_add(1, Ordering::Relaxed) % WORKERS))
        .build()?;
    let command = full("growth.tasks");
    let rounds = if quick { 3 } else { 100 };
    let mut all = vec![Vec::new(); TASKS.len()];
    // In turn, so that whatever disturbs the machine disturbs all alike.
    for _ in 0..rounds {
        for (tasks, figures) in TASKS.iter().zip(&mut all) {
            let tries = (0..8).map(|_| round(&runtime, &command, *tasks)).find(|round| round.calm(*tasks));
            figures.extend(tries.map(|round| round.nanos()));
        }
    }
    let medians: Vec<_> = all.into_iter().map(median).collect();
    let line = |(tasks, median): (&usize, &Option<f64>)| {
        vec![tasks.to_string(), median.map_or("?".to_string(), |nanos| format!("{nanos:.0}"))]
    };
    println!("One command shared by tasks on two workers, each call a success at once:\n");
    println!(
        "{}",
        table(&["tasks", "ns a call, of one worker"], &TASKS.iter().zip(&medians).map(line).collect::<Vec<_>>())
    );
    let points = TASKS.iter().zip(&medians).filter_map(|(tasks, median)| Some((*tasks as f64, (*median)?)));
    let lines = [Line { name: "ns a call, median", points: points.collect() }];
    let (title, across, up) = ("One command shared by tasks, two workers", "tasks", "ns a call");
    plot.map_or(Ok(()), |file| Plot { title, across, up, base: 2.0, lines: &lines }.draw(file))
}

fn round(runtime: &Runtime, command: &Command, tasks: usize) -> Round {
    const CALLS: usize = 32_768;
    let stretches = CALLS / STRETCH as usize / tasks;
    let together = Arc::new(Barrier::new(tasks));
    let spawned: Vec<_> = (0..tasks)
        .map(|_| {
            let (command, together) = (command.clone(), Arc::clone(&together));
            runtime.spawn(async move {
                together.wait().await;
                let (start, mut spent) = (Instant::now(), Duration::ZERO);
                for _ in 0..stretches {
                    let from = busy();
                    for _ in 0..STRETCH {
                        done(command.run(|| answer(Ok(1))).await);
                    }
                    spent += busy() - from;
                    tokio::task::yield_now().await;
                }
                (start, Instant::now(), spent)
            })
        })
        .collect();
    let ended = runtime.block_on(async {
        let mut ended = Vec::with_capacity(tasks);
        for task in spawned {
            ended.push(task.await.expect("no call panics"));
        }
        ended
    });
    let from = ended.iter().map(|(start, ..)| *start).min().expect("there are tasks");
    let until = ended.iter().map(|(_, end, _)| *end).max().expect("there are tasks");
    let calls = STRETCH * (stretches * tasks) as u32;
    Round { calls, wall: until - from, busy: ended.iter().map(|(.., busy)| *busy).sum() }
}

/// None where no round was undisturbed.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}
