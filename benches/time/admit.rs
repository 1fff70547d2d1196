//! The two steps, without a future around them.

use criterion::Criterion;
use fusebox::{Command, Verdict};

use crate::support::{done, full, open, tireless};
use crate::threads::one_and_two;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    let command = full("admit");
    one_and_two(&mut group, "and succeed", || command.admit().expect("a free slot").succeed());
    one_and_two(&mut group, "and ignore", || command.admit().expect("a free slot").resolve(Verdict::Ignored));
    one_and_two(&mut group, "and drop", || drop(command.admit().expect("a free slot")));
    one_and_two(&mut group, "owned, and succeed", || command.admit_owned().expect("a free slot").succeed());
    let failing = tireless("admit.failing");
    one_and_two(&mut group, "and fail", || failing.admit().expect("a free slot").fail());
    let open = open("admit.open");
    one_and_two(&mut group, "refused, open", || done(open.admit().map(drop)));

    // What each part of a command costs.
    let bare = Command::builder("admit.bare").no_latency().no_timeout().unlimited().build().expect("valid");
    one_and_two(&mut group, "and succeed: breaker alone", || bare.admit().expect("no limit").succeed());
    let bulkhead = Command::builder("admit.bulkhead").no_latency().no_timeout().build().expect("valid");
    one_and_two(&mut group, "and succeed: breaker and bulkhead", || bulkhead.admit().expect("a free slot").succeed());
}
