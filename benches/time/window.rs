//! Windows of every kind: an outcome recorded costs the same however long one is, and however full.

use std::time::Duration;

use criterion::Criterion;
use fusebox::{Breaker, Command};

use crate::support::{answer, done, now};
use crate::threads::one_and_two;

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window");
    let breaker = || Breaker::error_rate(1.0);
    let windows = [
        ("10 s in 10 buckets", breaker()),
        ("10 hours in 100 buckets", breaker().window(10 * HOUR).buckets(100)),
        ("10 ms in 10 buckets, turning all the time", breaker().window(Duration::from_millis(10))),
        ("last 100 calls", breaker().last_calls(100)),
        ("last 10,000 calls", breaker().last_calls(10_000)),
        ("10 s in 10 buckets, and slow calls", breaker().slow_calls(1.0, HOUR)),
    ];
    for (kind, breaker) in windows {
        let command = Command::builder("window").no_latency().breaker(breaker).build().expect("valid");
        done(now(command.run(|| answer(Ok(1)))));
        one_and_two(&mut group, &format!("success: {kind}"), || command.admit().expect("a free slot").succeed());
        // Failures alone would open it.
        one_and_two(&mut group, &format!("failure and success: {kind}"), || {
            command.admit().expect("a free slot").fail();
            command.admit().expect("a free slot").succeed();
        });
    }
}
