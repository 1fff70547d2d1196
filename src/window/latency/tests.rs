use std::thread;

use super::*;

fn millis(samples: &[u64]) -> Latency {
    let latencies = Latencies::new(Stamp::from_nanos(0), 60_000_000_000);
    for sample in samples {
        latencies.record(Stamp::from_nanos(0), sample * 1_000_000);
    }
    latencies.summary(Stamp::from_nanos(0))
}

fn near(found: Option<Duration>, millis: f64) -> bool {
    (found.expect("a value").as_secs_f64() * 1e3 / millis - 1.0).abs() <= 0.0625
}

#[test]
fn latencies_of_several_circuits_add_up() {
    let mut whole = Latency::default();
    for part in [&[][..], &[3, 70], &[], &[1], &[70, 200]] {
        whole.add(&millis(part));
    }
    assert_eq!(whole, millis(&[3, 70, 1, 70, 200]));
}

/// RP4, RP5, RP6, RP8, RP9, within the stated error.
#[test]
fn percentiles_by_nearest_rank() {
    assert!(near(millis(&[100, 100, 100, 100, 200, 200, 200, 300, 300, 300, 300]).percentile(0.5), 200.0));
    assert!(near(millis(&[[100; 10].as_slice(), &[500]].concat()).percentile(0.5), 100.0));
    assert!(near(millis(&[50, 75, 100, 125, 160, 170, 180, 200, 210, 300, 500]).percentile(0.5), 170.0));
    assert!(near(millis(&[1, 2, 3]).percentile(0.5), 2.0) && near(millis(&[1, 2, 3]).percentile(0.75), 3.0));
    let four = millis(&[10, 30, 20, 40]);
    for (q, expected) in [(0.25, 10.0), (0.3, 20.0), (0.5, 20.0), (0.75, 30.0), (-0.1, 10.0), (1.1, 40.0)] {
        assert!(near(four.percentile(q), expected), "p{q}: {:?}", four.percentile(q));
    }
}

/// HM20: the mean is exact, also above what 32 bits of nanoseconds hold; R3: percentiles lie within what was seen.
#[test]
fn mean_and_extremes_are_exact() {
    let latency = millis(&[100, 200, 9_000]);
    assert_eq!(latency.mean(), Some(Duration::from_millis(3_100)));
    assert_eq!((latency.min(), latency.max()), (Some(Duration::from_millis(100)), Some(Duration::from_millis(9_000))));
    assert_eq!((latency.percentile(0.0), latency.percentile(1.0)), (latency.min(), latency.max()));
}

/// RP3, RP11: no data is no value, not zero.
#[test]
fn an_empty_window_has_no_values() {
    let empty = millis(&[]);
    assert_eq!((empty.count(), empty.percentile(0.5), empty.mean(), empty.max()), (0, None, None, None));
    let latencies = Latencies::new(Stamp::from_nanos(0), 60);
    latencies.record(Stamp::from_nanos(0), 5);
    assert_eq!(latencies.summary(Stamp::from_nanos(59)).count(), 1);
    assert_eq!(latencies.summary(Stamp::from_nanos(60)), Latency::default());
    latencies.record(Stamp::from_nanos(61), 5);
    latencies.reset(Stamp::from_nanos(61));
    assert_eq!(latencies.summary(Stamp::from_nanos(61)), Latency::default());
}

/// R2: a latency that finds its stripe taken is counted once, in another, and in the last resort if all are.
#[test]
fn a_latency_that_meets_another_is_counted_all_the_same() {
    let latencies = Latencies::new(Stamp::from_nanos(0), 60);
    let summary = || latencies.summary(Stamp::from_nanos(0));
    latencies.first.hold();
    latencies.record(Stamp::from_nanos(0), 5);
    assert_eq!((summary().count(), summary().mean()), (1, Some(Duration::from_nanos(5))));
    latencies.stripes().for_each(Stripe::hold);
    latencies.record(Stamp::from_nanos(0), 7);
    assert_eq!((summary().count(), summary().mean()), (2, Some(Duration::from_nanos(6))));
}

#[test]
fn threads_that_meet_too_often_get_stripes_of_their_own() {
    let latencies = Latencies::new(Stamp::from_nanos(0), 60);
    (0..CROWD).for_each(|_| latencies.add_elsewhere(5));
    assert!(latencies.more.get().is_none());
    latencies.add_elsewhere(5);
    assert!(latencies.more.get().is_some());
    let before = latencies.stripes().map(|stripe| stripe.sum.load(Ordering::Relaxed)).collect::<Vec<_>>();
    for _ in 0..100 {
        thread::scope(|scope| drop(scope.spawn(|| latencies.record(Stamp::from_nanos(0), 5))));
    }
    let used = latencies.stripes().zip(before).filter(|(stripe, sum)| stripe.sum.load(Ordering::Relaxed) > *sum);
    assert_eq!(used.count(), latencies.stripes().count(), "by threads in turn");
    assert_eq!(latencies.summary(Stamp::from_nanos(0)).count(), u64::from(CROWD) + 101);
}

#[test]
fn a_reading_keeps_no_empty_cells_at_its_ends() {
    let latencies = Latencies::new(Stamp::from_nanos(0), 60);
    let read = || latencies.read(|extreme, _| extreme.load(Ordering::Relaxed));
    assert_eq!((read().from, read().cells.len()), (CELLS, 0));
    for cell in [20, 22] {
        latencies.record(Stamp::from_nanos(0), lower_bound(cell));
    }
    assert_eq!((read().from, &*read().cells), (20, [1, 0, 1].as_slice()));
}

/// R3: of a call that is being recorded the extremes are those of its cell.
#[test]
fn a_call_in_its_cell_alone_has_values_within_its_bounds() {
    let latencies = Latencies::new(Stamp::from_nanos(0), 60);
    // Not the last one, of few or many.
    let cell = CELLS - 2;
    latencies.first.cells[cell].store(1, Ordering::Relaxed);
    let latency = latencies.summary(Stamp::from_nanos(0));
    let [from, to] = [cell, cell + 1].map(|cell| Some(Duration::from_nanos(lower_bound(cell))));
    assert_eq!((latency.count(), latency.min(), latency.max(), latency.mean()), (1, from, to, from));
}

#[test]
fn buckets_are_those_with_calls_and_the_last_has_no_upper_bound() {
    let latency = millis(&[1, 1, 2, 200_000]);
    let buckets: Vec<_> = latency.buckets().collect();
    assert_eq!(buckets.iter().map(|(_, calls)| *calls).collect::<Vec<_>>(), [2, 1, 1]);
    for ((took, _), millis) in buckets.iter().zip([1, 2, 200_000]) {
        assert!(took.contains(&Duration::from_millis(millis)), "{took:?}");
    }
    let widths = buckets.iter().map(|(took, _)| (took.end - took.start).as_nanos()).collect::<Vec<_>>();
    assert_eq!(widths[..2], [1 << 16, 1 << 17]);
    assert_eq!(buckets[2].0.end, Duration::from_nanos(u64::MAX));
}
