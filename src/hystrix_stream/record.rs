//! The two kinds of record, field by field.
//!
//! Hystrix's page silently draws nothing for a record in which a key is missing or null, so none is left out, whatever
//! the command is configured with and however idle it is.

use std::time::{Duration, SystemTime};

use super::frames::window;
use crate::breaker::state::State;
use crate::command::snapshot::Snapshot;
use crate::outcome::Outcome;
use crate::web::json::Object;
use crate::window::counts::Counts;
use crate::window::latency::Latency;

/// What stands for "no limit": the largest number that its readers know.
const UNLIMITED: usize = i32::MAX as usize;

/// How fallbacks ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Served {
    pub(super) success: u64,
    pub(super) failure: u64,
    pub(super) rejected: u64,
}

impl Served {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let fallbacks = snapshot.fallbacks();
        Self { success: fallbacks.success, failure: fallbacks.failure, rejected: fallbacks.rejected }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            success: self.success - earlier.success,
            failure: self.failure - earlier.failure,
            rejected: self.rejected - earlier.rejected,
        }
    }
}

fn event(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"data: ");
    Object::write(out, fill);
    out.extend_from_slice(b"\n\n");
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

/// What a circuit is called: each of a keyed command has its key with it, as in events.
pub(super) fn name(snapshot: &Snapshot) -> String {
    match snapshot.key() {
        Some(key) => format!("{}[{key}]", snapshot.command()),
        None => snapshot.command().to_owned(),
    }
}

/// The record of a command. `served` is of the rolling window.
pub(super) fn command(out: &mut Vec<u8>, name: &str, snapshot: &Snapshot, served: Served, time: SystemTime) {
    let (counts, config) = (snapshot.window(), snapshot.config());
    let of = |outcome| counts.of(outcome);
    let rejected = of(Outcome::Rejected) + of(Outcome::RateLimited);
    let rejected_errors = if config.breaker.count_rejections { of(Outcome::Rejected) } else { 0 };
    let (errors, total) = (counts.errors() + rejected_errors, counts.total() + rejected_errors);
    let timeout = snapshot.timeout().map_or(0, millis);
    let rules = &config.breaker;
    let enabled =
        rules.error_rate.or(rules.slow_calls.map(|(rate, _)| rate)).is_some() || rules.consecutive_failures.is_some();
    event(out, |o| {
        o.field("type", "HystrixCommand")
            .field("name", name)
            .field("group", snapshot.group().unwrap_or("default"))
            .field("currentTime", since_epoch(time))
            .field(
                "isCircuitBreakerOpen",
                matches!(snapshot.state(), State::Open | State::HalfOpen | State::ForcedOpen),
            )
            .field("errorPercentage", (errors * 100).checked_div(total).unwrap_or(0))
            .field("errorCount", errors)
            .field("requestCount", total)
            .field("rollingCountBadRequests", of(Outcome::Ignored))
            .field("rollingCountCollapsedRequests", 0_u32)
            .field("rollingCountEmit", 0_u32)
            // What reached the callers.
            .field("rollingCountExceptionsThrown", (counts.errors() + counts.refused()).saturating_sub(served.success))
            .field("rollingCountFailure", of(Outcome::Failure) + of(Outcome::Panicked))
            .field("rollingCountFallbackEmit", 0_u32)
            .field("rollingCountFallbackFailure", served.failure)
            .field("rollingCountFallbackMissing", 0_u32)
            .field("rollingCountFallbackRejection", served.rejected)
            .field("rollingCountFallbackSuccess", served.success)
            .field("rollingCountResponsesFromCache", 0_u32)
            .field("rollingCountSemaphoreRejected", rejected)
            .field("rollingCountShortCircuited", of(Outcome::ShortCircuited))
            .field("rollingCountSuccess", of(Outcome::Success))
            .field("rollingCountThreadPoolRejected", 0_u32)
            .field("rollingCountTimeout", of(Outcome::TimedOut))
            .field("currentConcurrentExecutionCount", snapshot.in_flight())
            .field("rollingMaxConcurrentExecutionCount", snapshot.peak_in_flight());
        latency(o, snapshot.latency());
        o.field("propertyValue_circuitBreakerRequestVolumeThreshold", rules.min_calls)
            .field("propertyValue_circuitBreakerSleepWindowInMilliseconds", millis(rules.open_for))
            .field(
                "propertyValue_circuitBreakerErrorThresholdPercentage",
                rules.error_rate.map_or(100, |rate| (rate * 100.0) as u32),
            )
            .field("propertyValue_circuitBreakerForceOpen", snapshot.state() == State::ForcedOpen)
            .field("propertyValue_circuitBreakerForceClosed", snapshot.state() == State::ForcedClosed)
            .field("propertyValue_circuitBreakerEnabled", enabled)
            .field("propertyValue_executionIsolationStrategy", "SEMAPHORE")
            .field("propertyValue_executionIsolationThreadTimeoutInMilliseconds", timeout)
            .field("propertyValue_executionTimeoutInMilliseconds", timeout)
            .field("propertyValue_executionIsolationThreadInterruptOnTimeout", true)
            .field("propertyValue_executionIsolationThreadPoolKeyOverride", None::<u32>)
            .field(
                "propertyValue_executionIsolationSemaphoreMaxConcurrentRequests",
                snapshot.limit().unwrap_or(UNLIMITED),
            )
            .field("propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests", config.max_concurrent_fallbacks)
            .field("propertyValue_metricsRollingStatisticalWindowInMilliseconds", millis(window(snapshot)).max(1))
            .field("propertyValue_requestCacheEnabled", false)
            .field("propertyValue_requestLogEnabled", false)
            .field("reportingHosts", 1_u32)
            .field("threadPool", name);
    });
}

fn latency(o: &mut Object<'_>, latency: &Latency) {
    let at = |q| latency.percentile(q).map_or(0, millis);
    let mean = latency.mean().map_or(0, millis);
    // Of the operation alone: there is no thread to wait for, so the two are the same.
    for (key, key_of_mean) in [("latencyExecute", "latencyExecute_mean"), ("latencyTotal", "latencyTotal_mean")] {
        o.field(key_of_mean, mean).object(key, |o| {
            o.field("0", at(0.0)).field("25", at(0.25)).field("50", at(0.5)).field("75", at(0.75));
            o.field("90", at(0.9)).field("95", at(0.95)).field("99", at(0.99)).field("99.5", at(0.995));
            o.field("100", at(1.0));
        });
    }
}

/// The record of a command's bulkhead, if it has one.
pub(super) fn pool(out: &mut Vec<u8>, name: &str, snapshot: &Snapshot, time: SystemTime) {
    let Some(limit) = snapshot.limit() else { return };
    let started = |counts: &Counts| counts.calls() - counts.refused();
    let completed = started(&snapshot.lifetime());
    let queue = snapshot.config().bulkhead.and_then(|bulkhead| bulkhead.queue).map_or(0, |(length, _)| length);
    event(out, |o| {
        o.field("type", "HystrixThreadPool")
            .field("name", name)
            .field("currentTime", since_epoch(time))
            .field("currentActiveCount", snapshot.in_flight())
            .field("currentCompletedTaskCount", completed)
            .field("currentCorePoolSize", limit)
            .field("currentLargestPoolSize", snapshot.peak_in_flight())
            .field("currentMaximumPoolSize", limit)
            .field("currentPoolSize", limit)
            .field("currentQueueSize", snapshot.queue_length())
            .field("currentTaskCount", completed + snapshot.in_flight() as u64)
            .field("rollingCountThreadsExecuted", started(&snapshot.window()))
            .field("rollingMaxActiveThreads", snapshot.peak_in_flight())
            .field("rollingCountCommandRejections", snapshot.window().of(Outcome::Rejected))
            .field("propertyValue_queueSizeRejectionThreshold", queue)
            .field("propertyValue_metricsRollingStatisticalWindowInMilliseconds", millis(window(snapshot)).max(1))
            .field("reportingHosts", 1_u32);
    });
}
