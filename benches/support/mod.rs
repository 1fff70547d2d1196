//! What the benches share: commands in known states, futures, and the ways to poll them.
//!
//! Each bench uses a part of it.
#![allow(dead_code)]

pub(crate) mod counting;

use std::fmt;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fusebox::{Breaker, Command, DURATION_BUCKETS};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

const HOUR: Duration = Duration::from_secs(3600);

/// The error of every operation here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down;

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("down")
    }
}

impl std::error::Error for Down {}

pub(crate) type Answer = Result<u64, Down>;

/// An operation that is ready at once, with a result that the compiler cannot know.
#[inline]
pub(crate) fn answer(result: Answer) -> Ready<Answer> {
    // In two pieces: as a whole it would be written in two and read in one, which stalls.
    let (works, value) = (black_box(result.is_ok()), black_box(result.unwrap_or_default()));
    ready(if works { Ok(value) } else { Err(Down) })
}

/// An operation that is pending once. It wakes nobody: who polls it by hand polls it twice.
#[derive(Debug, Default)]
pub(crate) struct PendingOnce {
    polled: bool,
}

impl Future for PendingOnce {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        if std::mem::replace(&mut self.polled, true) { Poll::Ready(black_box(Ok(1))) } else { Poll::Pending }
    }
}

/// Polls a future where it lies, which must be ready.
#[inline]
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future is not ready"),
    }
}

/// Polls a future twice where it lies: it must be pending once.
#[inline]
pub(crate) fn second<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending());
    match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future is pending twice"),
    }
}

/// Takes a result that nobody reads, in a way that the compiler must not leave out.
#[inline]
pub(crate) fn done<R>(result: R) {
    let _ = black_box(result);
}

/// Polls a future once where it lies, and drops it: it must be pending.
pub(crate) fn abandon<F: Future>(future: F) {
    assert!(pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// Everything on, all defaults: breaker, bulkhead, timeout, latency histogram.
pub(crate) fn full(name: &str) -> Command {
    Command::builder(name).build().expect("the defaults are valid")
}

/// One that no number of failures opens: it has seen a success, and its rate is 1. The rule is evaluated all the same.
pub(crate) fn tireless(name: &str) -> Command {
    let command = Command::builder(name)
        .breaker(Breaker::error_rate(1.0).window(10 * HOUR))
        .build()
        .expect("the configuration is valid");
    now(command.run(|| answer(Ok(1)))).expect("the circuit is closed");
    command
}

/// One whose circuit has tripped and stays open.
pub(crate) fn open(name: &str) -> Command {
    let command = Command::builder(name)
        .breaker(Breaker::error_rate(1.0).min_calls(1).open_for(HOUR))
        .build()
        .expect("the configuration is valid");
    now(command.run(|| answer(Err(Down)))).expect_err("the operation failed");
    command
}

/// One with a single slot; whoever holds a permit of it has filled it.
pub(crate) fn narrow(name: &str) -> Command {
    Command::builder(name).max_concurrent(1).build().expect("the configuration is valid")
}

/// A recorder as the README sets it up. Installing one is for ever; `metrics::with_local_recorder` costs a call the same.
pub(crate) fn prometheus() -> PrometheusRecorder {
    let durations = Matcher::Full("fusebox_call_duration_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &DURATION_BUCKETS);
    builder.expect("there are buckets").build_recorder()
}
