//! The cases of Hystrix's rolling counters, RN3 to RN18, and of its percentiles, RP1 to RP15.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use fusebox::{Breaker, Command, Latency, Outcome};
use support::{Failure, advance, counting, ended, ms, on_threads, outcomes, play, record, secs, succeed, window};
use tokio::runtime;

fn build(breaker: Breaker) -> Command {
    Command::builder("hystrix").breaker(breaker).unlimited().no_timeout().build().expect("a good configuration")
}

/// 200 ms in 10 buckets.
fn rolling() -> Command {
    build(counting(10, ms(20)))
}

/// Calls in the rolling window.
fn sum(command: &Command) -> u64 {
    command.snapshot().window().total()
}

/// Has so many calls in flight at once, for no time.
fn overlap(command: &Command, calls: usize) {
    let permits: Vec<_> = (0..calls).map(|_| command.admit().expect("there is no limit")).collect();
    permits.into_iter().for_each(|permit| permit.succeed());
}

fn peak(command: &Command) -> usize {
    command.snapshot().peak_in_flight()
}

/// Keeps threads that work in blocks from being done before the clock has moved: one block a step at most.
#[derive(Default)]
struct Pace(AtomicU64);

impl Pace {
    fn steps(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn step(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    fn blocks(&self, blocks: u64, mut work: impl FnMut()) {
        let start = self.steps();
        for block in 0..blocks {
            while self.steps() < start + block {
                std::thread::yield_now();
            }
            work();
        }
    }
}

// ---- rolling counters ----

#[tokio::test(start_paused = true)]
async fn rn03_each_event_stays_in_its_own_bucket() {
    let command = rolling();
    succeed(&command).await;
    advance(ms(60)).await;
    succeed(&command).await;
    assert_eq!(sum(&command), 2);
    // Three buckets lie between them: so long the second one stays longer.
    for (by, expected) in [(139, 2), (1, 1), (59, 1), (1, 0)] {
        advance(ms(by)).await;
        assert_eq!(sum(&command), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn rn04_each_kind_is_counted_apart() {
    let command = rolling();
    play(&command, "SFSTSFS").await;
    let snapshot = command.snapshot();
    for counts in [snapshot.window(), snapshot.lifetime()] {
        assert_eq!((counts.get("success"), counts.get("failure"), counts.get("timed_out")), (4, 2, 1));
        assert_eq!((counts.calls(), counts.total(), counts.errors()), (7, 7, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn rn06_reading_alone_moves_the_window() {
    let command = rolling();
    succeed(&command).await;
    advance(ms(60)).await;
    assert_eq!(sum(&command), 1);
    advance(ms(200)).await;
    assert_eq!((sum(&command), ended(&command, "success")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn rn07_a_reset_empties_the_window() {
    let command = rolling();
    play(&command, "SF").await;
    advance(ms(30)).await;
    play(&command, "SF").await;
    assert_eq!(window(&command), (2, 4));
    command.reset();
    assert_eq!(window(&command), (0, 0));
    succeed(&command).await;
    assert_eq!((window(&command), outcomes(&command)), ((0, 1), vec![(Outcome::Success, 3), (Outcome::Failure, 2)]));
}

#[tokio::test(start_paused = true)]
async fn rn08_the_rolling_peak_is_the_highest_of_all_buckets() {
    let command = rolling();
    overlap(&command, 10);
    assert_eq!(peak(&command), 10);
    advance(ms(60)).await;
    assert_eq!(peak(&command), 10, "the running bucket is empty");
    overlap(&command, 20);
    assert_eq!(peak(&command), 20);
}

/// The empty buckets between the two have a peak of nothing, so the higher one leaves with its own bucket.
#[tokio::test(start_paused = true)]
async fn rn08_a_peak_leaves_the_window_with_its_bucket() {
    let command = rolling();
    overlap(&command, 20);
    advance(ms(60)).await;
    overlap(&command, 10);
    advance(ms(139)).await;
    assert_eq!(peak(&command), 20);
    advance(ms(1)).await;
    assert_eq!(peak(&command), 10, "200 ms after the twenty began");
    advance(ms(60)).await;
    assert_eq!(peak(&command), 0, "200 ms after the ten began");
}

/// The same when nothing happens in between but a reading.
#[tokio::test(start_paused = true)]
async fn rn08_a_peak_that_is_read_late_leaves_the_window_with_its_bucket() {
    let command = rolling();
    overlap(&command, 10);
    advance(ms(180)).await;
    assert_eq!(peak(&command), 10, "in the last bucket of its window");
    advance(ms(20)).await;
    assert_eq!(peak(&command), 0, "the window has passed");
}

#[tokio::test(start_paused = true)]
async fn rn09_the_peak_of_a_bucket_is_its_highest() {
    let command = rolling();
    [10, 30, 20].into_iter().for_each(|calls| overlap(&command, calls));
    assert_eq!(peak(&command), 30);
    advance(ms(60)).await;
    [30, 50].into_iter().for_each(|calls| overlap(&command, calls));
    assert_eq!(peak(&command), 50);
    advance(ms(140)).await;
    assert_eq!(peak(&command), 50, "only the first bucket has left");
}

#[tokio::test(start_paused = true)]
async fn rn10_a_peak_of_successive_buckets_outlasts_those_before_it() {
    let command = rolling();
    for calls in [10, 30, 40, 15] {
        overlap(&command, calls);
        advance(ms(20)).await;
    }
    // It is 80 ms; the forty began at 40, the fifteen at 60.
    for (by, expected) in [(0, 40), (159, 40), (1, 15), (19, 15), (1, 0)] {
        advance(ms(by)).await;
        assert_eq!(peak(&command), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn rn11_a_window_of_two_buckets_always_holds_two() {
    let command = build(counting(2, ms(10)));
    let span = || command.snapshot().window_span();
    assert_eq!(span(), Duration::ZERO);
    for roll in 0..20 {
        succeed(&command).await;
        assert_eq!(sum(&command), if roll == 0 { 1 } else { 2 });
        advance(ms(4)).await;
        assert_eq!(span(), if roll == 0 { ms(4) } else { ms(14) }, "the bucket before and the running one");
        advance(ms(6)).await;
        assert_eq!((sum(&command), span()), (1, ms(10)), "the running one has just begun");
    }
}

#[tokio::test(start_paused = true)]
async fn rn12_lifetime_totals_survive_rolling_and_reset() {
    for resets in [[0, 0], [5, 15]] {
        let command = build(counting(2, ms(10)));
        for roll in 1..=20 {
            succeed(&command).await;
            if resets.contains(&roll) {
                command.reset();
                assert_eq!(sum(&command), 0);
            }
            advance(ms(10)).await;
        }
        assert_eq!(ended(&command, "success"), 20);
        advance(secs(3600)).await;
        assert_eq!((sum(&command), ended(&command, "success")), (0, 20));
    }
}

#[test]
fn rn14_a_window_that_does_not_divide_into_its_buckets_cannot_be_built() {
    let odd = Breaker::disabled().window(ms(205)).buckets(10);
    let error = Command::builder("hystrix").breaker(odd).build().expect_err("20.5 ms is no bucket");
    assert_eq!((error.field(), error.value()), ("breaker.window", "205ms in 10 buckets"));
    build(Breaker::disabled().window(ms(210)).buckets(10));
}

#[tokio::test(start_paused = true)]
async fn rn15_after_exactly_one_window_the_first_event_is_gone() {
    let command = rolling();
    succeed(&command).await;
    advance(ms(199)).await;
    assert_eq!(sum(&command), 1);
    advance(ms(1)).await;
    succeed(&command).await;
    assert_eq!((sum(&command), ended(&command, "success")), (1, 2));

    // And with nothing at all in between.
    let command = rolling();
    succeed(&command).await;
    advance(ms(200)).await;
    assert_eq!(sum(&command), 0);
}

#[tokio::test(start_paused = true)]
async fn rn17_a_million_increments_by_eight_threads_are_counted_exactly_while_the_window_rolls() {
    const THREADS: u64 = 8;
    const BLOCKS: u64 = 125;
    const BLOCK: u64 = 1_000;
    let command = rolling();
    let pace = Arc::new(Pace::default());
    let (worker, paced) = (command.clone(), Arc::clone(&pace));
    let work = move |_| {
        paced.blocks(BLOCKS, || {
            for call in 0..BLOCK {
                let result = worker.run_sync(|| if call % 4 == 0 { Err(()) } else { Ok(()) });
                assert_eq!(result.is_err(), call % 4 == 0);
            }
        });
    };
    let (mut seen, mut rolled) = (0, false);
    on_threads(THREADS, ms(7), work, || {
        pace.step();
        let snapshot = command.snapshot();
        let (rolling, lifetime) = (snapshot.window(), snapshot.lifetime());
        for (outcome, count) in rolling.iter() {
            assert!(count <= lifetime.of(outcome), "{outcome}: {count} of {lifetime:?}");
        }
        assert!(lifetime.calls() >= seen, "{seen} before, {lifetime:?}");
        seen = lifetime.calls();
        rolled |= rolling.calls() < seen;
    })
    .await;

    assert!(rolled, "the window moved on while they ran");
    let quarter = THREADS * BLOCKS * BLOCK / 4;
    assert_eq!(outcomes(&command), [(Outcome::Success, 3 * quarter), (Outcome::Failure, quarter)]);
    advance(ms(200)).await;
    assert_eq!(sum(&command), 0);
    succeed(&command).await;
    assert_eq!(sum(&command), 1);
}

/// A runtime's paused clock may be hours ahead of the real one, which is what is read outside of it.
#[test]
fn rn18_when_the_clock_jumps_back_events_go_to_the_newest_bucket() {
    let paused = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let command = build(Breaker::error_rate(1.0).min_calls(1_000).window(ms(200)));
    let call = || command.run_sync(|| Ok::<_, Failure>(1)).expect("it is closed");
    paused.block_on(async {
        call();
        advance(secs(7_200)).await;
        call();
        assert_eq!(sum(&command), 1);
    });

    // Two hours earlier.
    call();
    command.run_sync(|| Err::<(), _>("down")).unwrap_err();
    let snapshot = command.snapshot();
    assert_eq!((snapshot.window().errors(), snapshot.window().total(), snapshot.lifetime().total()), (1, 3, 4));
    let latency = snapshot.latency().clone();

    paused.block_on(async {
        assert_eq!(sum(&command), 3, "in the bucket that was the newest");
        advance(ms(200)).await;
        assert_eq!(sum(&command), 0);
    });
    assert_eq!(latency.count(), 3, "the first is two hours old");
}

// ---- percentiles ----

fn latency(command: &Command) -> Latency {
    command.snapshot().latency().clone()
}

/// With samples of so many milliseconds, recorded at once.
async fn sampled(millis: &[u64]) -> Latency {
    let command = build(Breaker::disabled());
    record(&command, &millis.iter().copied().map(ms).collect::<Vec<_>>()).await;
    latency(&command)
}

/// Whether a percentile is `expected` within the stated error of the histogram.
fn is_near(found: Option<Duration>, expected: Duration) -> bool {
    let found = found.expect("there are samples").as_secs_f64();
    (found / expected.as_secs_f64() - 1.0).abs() <= 0.0625
}

#[track_caller]
fn assert_percentiles(latency: &Latency, expected: &[(f64, u64)]) {
    for &(percent, millis) in expected {
        let found = latency.percentile(percent / 100.0);
        assert!(is_near(found, ms(millis)), "p{percent} is {found:?}, not {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn rp01_samples_of_the_running_bucket_are_seen_at_once() {
    let command = build(Breaker::disabled());
    record(&command, &[ms(1_000), ms(1_000), ms(1_000), ms(2_000)]).await;
    assert_percentiles(&latency(&command), &[(50.0, 1_000)]);
    advance(ms(6_000)).await;
    assert_percentiles(&latency(&command), &[(50.0, 1_000)]);
}

#[tokio::test(start_paused = true)]
async fn rp02_new_samples_join_those_that_are_there() {
    let command = build(Breaker::disabled());
    record(&command, &[1_000, 1_000, 1_000, 2_000].map(ms)).await;
    advance(ms(6_000)).await;
    record(&command, &[1_000, 500, 200, 200, 1_600, 200, 1_600, 1_600].map(ms)).await;
    let all = latency(&command);
    assert_eq!((all.count(), all.mean().map(|mean| mean.as_millis())), (12, Some(991)));
    assert_percentiles(&all, &[(25.0, 200), (50.0, 1_000), (75.0, 1_600), (100.0, 2_000)]);
}

#[tokio::test(start_paused = true)]
async fn rp03_a_minute_without_calls_leaves_no_percentile() {
    let command = build(Breaker::disabled());
    record(&command, &[1_000, 1_000, 1_000, 2_000, 4_000].map(ms)).await;
    advance(ms(6_000)).await;
    assert_percentiles(&latency(&command), &[(50.0, 1_000), (80.0, 2_000), (81.0, 4_000)]);
    advance(ms(60_000)).await;
    let none = latency(&command);
    assert_eq!((none.count(), none.percentile(0.5), none.mean(), none.max(), none.min()), (0, None, None, None, None));
}

/// What RN8 says of counters holds for the extremes too: they are of the window, and exact.
#[tokio::test(start_paused = true)]
async fn rp03_the_extremes_leave_the_window_with_their_slice() {
    let command = build(Breaker::disabled());
    record(&command, &[ms(1), ms(4_000)]).await;
    // Nothing happens for most of the window of a minute in four slices.
    advance(secs(45)).await;
    record(&command, &[ms(100)]).await;
    assert_eq!((latency(&command).min(), latency(&command).max()), (Some(ms(1)), Some(ms(4_000))));
    advance(secs(11)).await;
    let left = latency(&command);
    assert_eq!((left.count(), left.mean()), (1, Some(ms(100))));
    assert_eq!((left.min(), left.max()), (Some(ms(100)), Some(ms(100))));
}

#[tokio::test(start_paused = true)]
async fn rp04_the_median_of_a_symmetric_sample_is_its_middle() {
    assert_percentiles(&sampled(&[100, 100, 100, 100, 200, 200, 200, 300, 300, 300, 300]).await, &[(50.0, 200)]);
}

#[tokio::test(start_paused = true)]
async fn rp05_one_outlier_does_not_move_the_median() {
    let latency = sampled(&[100, 100, 100, 100, 100, 500, 100, 100, 100, 100, 100]).await;
    assert_percentiles(&latency, &[(50.0, 100), (100.0, 500)]);
    assert_eq!(latency.max(), Some(ms(500)));
}

/// By nearest rank: the sixth of eleven, where interpolation gives 175.
#[tokio::test(start_paused = true)]
async fn rp06_the_median_does_not_depend_on_the_order() {
    for samples in
        [[50, 75, 100, 125, 160, 170, 180, 200, 210, 300, 500], [210, 50, 500, 125, 180, 75, 170, 300, 100, 200, 160]]
    {
        let command = build(Breaker::disabled());
        for sample in samples {
            record(&command, &[ms(sample)]).await;
        }
        assert_percentiles(&latency(&command), &[(50.0, 170)]);
    }
}

#[tokio::test(start_paused = true)]
async fn rp08_percentiles_of_three_and_of_two() {
    assert_percentiles(&sampled(&[1, 2, 3]).await, &[(50.0, 2), (75.0, 3)]);
    assert_percentiles(&sampled(&[1, 2]).await, &[(25.0, 1), (75.0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn rp09_percentiles_out_of_range_are_clamped() {
    let latency = sampled(&[10, 30, 20, 40]).await;
    let expected = [(25.0, 10), (30.0, 20), (50.0, 20), (75.0, 30), (-1.0, 10), (101.0, 40)];
    assert_percentiles(&latency, &expected);
    assert_eq!(latency.percentile(-1.0), latency.percentile(0.0));
    assert_eq!(latency.percentile(f64::INFINITY), latency.percentile(1.0));
    assert_eq!(latency.percentile(f64::NAN), None);
}

/// Twelve close values, of which the ninetieth percentile lies between two: within the error they are one.
#[tokio::test(start_paused = true)]
async fn rp10_the_values_of_nist() {
    const MICROS: [u64; 12] =
        [951_772, 951_567, 951_937, 951_959, 951_442, 950_610, 951_591, 951_195, 951_065, 950_925, 951_990, 951_682];
    let command = build(Breaker::disabled());
    record(&command, &MICROS.map(Duration::from_micros)).await;
    let latency = latency(&command);
    assert!(is_near(latency.percentile(0.9), Duration::from_micros(951_983)));
    assert!(is_near(latency.percentile(1.0), Duration::from_micros(951_990)));
    let extremes = (Some(Duration::from_micros(950_610)), Some(Duration::from_micros(951_990)));
    assert_eq!((latency.min(), latency.max()), extremes);
    assert_eq!(latency.mean(), Some(Duration::from_micros(MICROS.iter().sum()) / 12));
}

#[tokio::test(start_paused = true)]
async fn rp11_without_latency_figures_there_are_none() {
    let command = Command::builder("hystrix").no_latency().build().expect("a good configuration");
    record(&command, &[ms(100), ms(200)]).await;
    play(&command, "SFT").await;
    let latency = latency(&command);
    assert_eq!((latency.count(), latency.percentile(0.5), latency.mean(), latency.max()), (0, None, None, None));
    assert_eq!(command.snapshot().lifetime().calls(), 5);
    command.reset();
}

#[tokio::test(start_paused = true)]
async fn rp12_a_thousand_samples_of_ten_threads_are_a_thousand() {
    let command = build(Breaker::disabled());
    let worker = command.clone();
    let work = move |_| (0..100).for_each(|_| worker.run_sync(|| Ok::<_, Failure>(())).expect("it is closed"));
    on_threads(10, Duration::ZERO, work, || ()).await;
    assert_eq!(latency(&command).count(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn rp13_a_million_samples_under_a_reader_and_a_moving_clock() {
    const THREADS: u64 = 10;
    const TASKS: u64 = 100;
    const SAMPLES: u64 = 1_000;
    let command = build(Breaker::disabled());
    let (written, pace) = (Arc::new(AtomicU64::new(0)), Arc::new(Pace::default()));
    let mut overtaken = false;
    let (worker, counter, paced) = (command.clone(), Arc::clone(&written), Arc::clone(&pace));
    let work = move |_| {
        paced.blocks(TASKS, || {
            for _ in 0..SAMPLES {
                worker.run_sync(|| Ok::<_, Failure>(())).expect("it is closed");
                counter.fetch_add(1, SeqCst);
            }
        });
    };
    on_threads(THREADS, ms(900), work, || {
        pace.step();
        let before = written.load(SeqCst);
        let latency = latency(&command);
        overtaken |= latency.count() < before;
        // Each thread may have recorded its sample and not yet its outcome.
        assert!(latency.count() <= command.snapshot().lifetime().calls() + THREADS);
        let (Some(min), Some(max)) = (latency.min(), latency.max()) else { return };
        for q in [0.0, 0.5, 0.99, 1.0] {
            let percentile = latency.percentile(q).expect("there are samples");
            assert!((min..=max).contains(&percentile), "{percentile:?} at {q}, of {min:?} to {max:?}");
        }
    })
    .await;
    assert!(overtaken, "samples left the window while others came");
    assert_eq!(ended(&command, "success"), THREADS * TASKS * SAMPLES);
    advance(secs(60)).await;
    assert_eq!(latency(&command).count(), 0);
}

/// The shapes of two real services: most calls in a narrow band, a few in a long tail.
#[tokio::test(start_paused = true)]
async fn rp14_a_long_tail_shows_in_the_high_percentiles_alone() {
    let micros = |typical: u64, spread: u64, tail: u64| -> Vec<Duration> {
        let sample = |n: u64| match n {
            // 12 of 1000, growing.
            0..12 => tail + n * tail / 4,
            _ => typical + n * 7919 % spread,
        };
        (0..1_000).map(sample).map(Duration::from_micros).collect()
    };
    let between = |found: Option<Duration>, from, to| (ms(from)..=ms(to)).contains(&found.expect("there are samples"));

    let quick = build(Breaker::disabled());
    record(&quick, &micros(1_200, 1_700, 22_000)).await;
    assert!(between(latency(&quick).percentile(0.5), 1, 5));
    assert!(between(latency(&quick).percentile(0.995), 20, 100));

    let slow = build(Breaker::disabled());
    record(&slow, &micros(55_000, 22_000, 450_000)).await;
    assert!(between(latency(&slow).percentile(0.5), 50, 90));
    assert!(between(latency(&slow).percentile(0.99), 400, 2_000));
}

/// Each sample is twice the one before, so that a percentile tells its rank.
#[tokio::test(start_paused = true)]
async fn rp15_percentiles_are_by_nearest_rank() {
    let ranks = [
        (1, 0.0, 1),
        (2, 50.0, 1),
        (2, 51.0, 2),
        (5, 30.0, 2),
        (5, 40.0, 2),
        (5, 50.0, 3),
        (11, 25.0, 3),
        (11, 50.0, 6),
        (11, 75.0, 9),
        (11, 100.0, 11),
    ];
    for (samples, percent, rank) in ranks {
        let latency = sampled(&(1..=samples).map(|n| 1 << n).collect::<Vec<_>>()).await;
        assert_eq!(latency.count(), samples);
        assert_percentiles(&latency, &[(percent, 1 << rank)]);
    }
}
