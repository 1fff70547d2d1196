//! Races: everybody takes a short turn, many times over, so that whatever disturbs the machine disturbs all alike.
//!
//! The clock is read once per turn and not once per call. A ratio is taken within each round, between turns that are
//! milliseconds apart, and its median is what is shown.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::calm::{Passed, Start};

/// Runs so many calls.
pub(crate) type Turn = Box<dyn FnMut(u32)>;
/// Runs calls on one of two workers; its future ends with the lap.
pub(crate) type Worker = Box<dyn Fn(Arc<Meeting>) -> Pin<Box<dyn Future<Output = Lap> + Send>>>;

/// One who takes part in a race.
pub(crate) struct Racer {
    pub(crate) name: String,
    pub(crate) turn: Turn,
    pub(crate) worker: Option<Worker>,
    pub(crate) bytes: i64,
    /// Runs after each turn, off the clock.
    pub(crate) after: fn(),
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
}

/// One turn: nanoseconds a call, and whether nobody else took the processor meanwhile.
#[derive(Clone, Copy, Debug)]
struct Sample {
    nanos: f64,
    calm: bool,
}

/// All turns of one racer.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    pub(crate) fn min(&self) -> f64 {
        self.figures().into_iter().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.figures())
    }

    /// This racer's time as a multiple of the other's.
    pub(crate) fn ratio_to(&self, other: &Self) -> f64 {
        let within_rounds = self.against(other, |mine, theirs| mine / theirs);
        if within_rounds.is_nan() { self.median() / other.median() } else { within_rounds }
    }

    /// Nanoseconds that this racer takes longer than the other.
    pub(crate) fn beyond(&self, other: &Self) -> f64 {
        self.against(other, |mine, theirs| mine - theirs)
    }

    /// The share of turns that nobody disturbed.
    pub(crate) fn calm(&self) -> f64 {
        self.0.iter().filter(|sample| sample.calm).count() as f64 / self.0.len() as f64
    }

    fn against(&self, other: &Self, compare: fn(f64, f64) -> f64) -> f64 {
        let rounds = || self.0.iter().zip(&other.0);
        let pick = |calm: bool| -> Vec<f64> {
            let counts = rounds().filter(|(mine, theirs)| !calm || (mine.calm && theirs.calm));
            let compared = counts.map(|(mine, theirs)| compare(mine.nanos, theirs.nanos));
            compared.filter(|figure| figure.is_finite()).collect()
        };
        let calm = pick(true);
        let figures = if calm.len() < ENOUGH { pick(false) } else { calm };
        if figures.len() < ENOUGH { f64::NAN } else { median(figures) }
    }

    fn figures(&self) -> Vec<f64> {
        let calm: Vec<_> = self.0.iter().filter(|sample| sample.calm).map(|sample| sample.nanos).collect();
        if calm.len() < ENOUGH { self.0.iter().map(|sample| sample.nanos).collect() } else { calm }
    }
}

/// With fewer undisturbed turns than these, all turns count.
const ENOUGH: usize = 8;

/// Of those that were measured.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.retain(|figure| figure.is_finite());
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Everybody in turn, on this thread.
pub(crate) fn alone(racers: &mut [Racer], plan: Plan) -> Vec<Samples> {
    let calls: Vec<_> = racers.iter_mut().map(|racer| calibrate(racer, plan.turn)).collect();
    let mut all = vec![Samples(Vec::new()); racers.len()];
    for _ in 0..plan.rounds {
        for ((racer, samples), &calls) in racers.iter_mut().zip(&mut all).zip(&calls) {
            // The others have been in the caches meanwhile.
            (racer.turn)(calls / 8 + 1);
            let passed = timed(|| (racer.turn)(calls));
            (racer.after)();
            samples.0.push(Sample { nanos: nanos(passed.wall, calls), calm: passed.calm && passed.awake });
        }
    }
    all
}

/// Everybody in turn, on two workers of the runtime at once; nothing for those who have no worker. On a busy machine two
/// threads seldom run side by side: a turn in which they did not is tried again.
pub(crate) fn pairs(racers: &mut [Racer], plan: Plan, runtime: &Runtime) -> Vec<Option<Samples>> {
    const TRIES: usize = 12;
    // A processor that was idle is slow to begin with, where it is a virtual one above all.
    const LONGER: u32 = 20;
    let calls: Vec<_> = racers.iter_mut().map(|racer| calibrate(racer, LONGER * plan.turn)).collect();
    let mut all: Vec<_> = racers.iter().map(|racer| racer.worker.as_ref().map(|_| Samples(Vec::new()))).collect();
    for _ in 0..plan.rounds.div_ceil(LONGER) {
        for ((racer, samples), &calls) in racers.iter().zip(&mut all).zip(&calls) {
            if let (Some(worker), Some(samples)) = (&racer.worker, samples) {
                let mut tries = (0..TRIES).map(|_| together(worker, calls, runtime));
                let sample = tries.find(|sample| sample.calm);
                samples.0.push(sample.unwrap_or(Sample { nanos: f64::NAN, calm: false }));
            }
        }
    }
    all
}

fn together(worker: &Worker, calls: u32, runtime: &Runtime) -> Sample {
    let meeting = Arc::new(Meeting { here: AtomicU32::new(0), over: AtomicBool::new(false), calls });
    let [one, two] = [(); 2].map(|()| runtime.spawn(worker(Arc::clone(&meeting))));
    let [one, two] = runtime.block_on(async { [one.await.expect("no panic"), two.await.expect("no panic")] });
    let calm = one.passed.calm && two.passed.calm && one.passed.beside(&two.passed);
    Sample { nanos: nanos(one.passed.wall + two.passed.wall, one.calls + two.calls), calm }
}

/// Where two workers wait for each other, so that they race through all of their calls side by side.
#[derive(Debug)]
pub(crate) struct Meeting {
    here: AtomicU32,
    over: AtomicBool,
    calls: u32,
}

impl Meeting {
    /// Returns when both are here. It yields: the two may have been given to the same worker.
    pub(crate) async fn start(self: Arc<Self>) -> Running {
        self.here.fetch_add(1, Ordering::AcqRel);
        while self.here.load(Ordering::Acquire) < 2 {
            tokio::task::yield_now().await;
        }
        Running { start: Start::now(), calls: 0, meeting: self }
    }
}

/// One of two workers at work.
#[derive(Debug)]
pub(crate) struct Running {
    start: Start,
    calls: u32,
    meeting: Arc<Meeting>,
}

/// What one worker did.
#[derive(Debug)]
pub(crate) struct Lap {
    passed: Passed,
    calls: u32,
}

/// Calls between two looks at whether the other has ended.
pub(crate) const STRETCH: u32 = 32;

impl Running {
    /// Whether to run another stretch.
    pub(crate) fn goes_on(&self) -> bool {
        self.calls < self.meeting.calls && !self.meeting.over.load(Ordering::Relaxed)
    }

    pub(crate) fn ran(&mut self, calls: u32) {
        self.calls += calls;
    }

    pub(crate) fn end(self) -> Lap {
        let passed = self.start.passed();
        self.meeting.over.store(true, Ordering::Relaxed);
        Lap { passed, calls: self.calls }
    }
}

/// How many calls fill a turn.
fn calibrate(racer: &mut Racer, turn: Duration) -> u32 {
    const PROBE: u32 = 500;
    (racer.turn)(PROBE);
    let best = (0..5).map(|_| timed(|| (racer.turn)(PROBE)).wall).min().unwrap_or_default();
    (racer.after)();
    let calls = turn.as_secs_f64() / nanos(best, PROBE).max(0.1) * 1e9;
    (calls as u32).clamp(STRETCH, 10_000_000)
}

fn timed(act: impl FnOnce()) -> Passed {
    let start = Start::now();
    act();
    start.passed()
}

fn nanos(wall: Duration, calls: u32) -> f64 {
    wall.as_nanos() as f64 / f64::from(calls.max(1))
}
