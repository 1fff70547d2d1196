//! How to use it well: the path of a call, thresholds, cancellation, errors, fallbacks, operating, metrics, testing.
//!
//! # The path of a call
//!
//! ```text
//! breaker check -> bulkhead slot -> breaker probe -> timeout -> operation -> classifier -> fallback
//! ```
//!
//! The order is fixed, so that every command in a service means the same:
//!
//! 1. The breaker is asked first, because its refusal is the cheapest answer there is.
//! 2. The bulkhead comes before the probe: a full bulkhead must not use up the one call that could close the circuit.
//! 3. The timeout covers the operation alone. Waiting in the bulkhead's queue has its own limit, and a fallback has
//!    none: it is meant to be quick, and it has a concurrency limit so that a slow one does no harm.
//! 4. The classifier sees the result, then the permit is resolved, and only then the fallback runs.
//!
//! Where another order is needed, nest commands: each sees the other's result as its own operation's.
//!
//! # Choosing thresholds
//!
//! * **Timeout.** Take the 99.9th percentile of the healthy dependency and add some room; [`Snapshot::latency`] shows
//!   it. A timeout far above it only decides how long callers wait for nothing. Attempts that time out count as errors,
//!   so too tight a timeout opens circuits.
//! * **`max_concurrent`.** By Little's law a healthy dependency has `rate x latency` calls in flight: 200 a second at
//!   50 ms are 10. Two or three times that is a bulkhead; a hundred times that is none.
//! * **`error_rate` and `min_calls`.** Small windows lie. At a true error rate of 10 % and a threshold of 50 %, a window
//!   of 4 calls reaches the threshold by chance in 5 % of all windows, one of 20 calls in less than one in 100,000. Keep
//!   `min_calls` at 20 or above, and the window long enough that it fills: `min_calls / rate` seconds at least.
//! * **`consecutive_failures`** trips where traffic is too thin for a rate: ten calls an hour never make a window.
//! * **`slow_calls`** trips on a dependency that answers, but too late to be of use, before it fills every slot; with
//!   **`count_in_flight`** also on one that does not answer at all, and then without waiting for the timeouts.
//! * **`open_for`** is how long the dependency gets to recover before it is asked again. It grows while probes fail.
//! * **`probes`.** One probe makes a quick decision on thin evidence; three to five cost a little more of a dependency
//!   that is still down, and close a circuit on more than luck.
//! * **`ramp`** is for a dependency that breaks under load: what a circuit sends when it closes is all of it at once.
//! * **`confidence`** is for thin traffic and a threshold near the usual error rate, where `min_calls` alone trips by luck.
//!
//! # What counts
//!
//! Every call ends in exactly one [`Outcome`]. Errors are failure, timed out and panicked; the rate is errors by errors
//! and successes. Nothing else enters it: not a refusal (there was no call), not a cancelled call (the caller's affair;
//! [`Breaker::count_cancelled_after`] changes that for calls that had run long), not an [ignored](Verdict::Ignored)
//! result. Say what is the caller's own mistake with a classifier, or a client that asks for a wrong id opens the circuit
//! for everyone:
//!
//! ```
//! use std::time::Duration;
//! use fusebox::{Classify, Command, Verdict};
//!
//! struct Response { status: u16, retry_after: Option<Duration> }
//!
//! struct HttpVerdict;
//! impl<E> Classify<Response, E> for HttpVerdict {
//!     fn classify(&self, result: &Result<Response, E>) -> Verdict {
//!         match result {
//!             Ok(response) => match (response.status, response.retry_after) {
//!                 (429 | 503, Some(wait)) => Verdict::OpenFor(wait),
//!                 (429 | 500.., _) => Verdict::Failure,
//!                 (400..=499, _) => Verdict::Ignored,
//!                 _ => Verdict::Success,
//!             },
//!             Err(_) => Verdict::Failure,
//!         }
//!     }
//! }
//!
//! let api: Command<HttpVerdict> = Command::builder("api").classify(HttpVerdict).build()?;
//! # Ok::<(), fusebox::ConfigError>(())
//! ```
//!
//! A value that is judged a failure is still returned: `run` never turns an `Ok` into an error.
//!
//! # Results that come late
//!
//! A call admitted before the circuit changed its state says nothing about the state after it: 500 slow calls that
//! began in good times must neither close a half-open circuit nor open a closed one. Each admission carries the
//! generation of the circuit, and a result of an older one is counted ([`Snapshot::late_outcomes`]) and decides nothing.
//!
//! # Cancellation
//!
//! Dropping a call at any point is safe: see [`Call`]. What it held is given back at once, and the outcome is recorded
//! as cancelled. A caller's own deadline around a call is therefore no error of the dependency; if it should be one,
//! give it to the call with [`Call::timeout`]. A blocking closure cannot be dropped: see [`Command::spawn_blocking`].
//!
//! A future that blocks its thread cannot be timed out by anyone; it counts with what it took when it ends.
//!
//! # Errors
//!
//! [`Error`] has three cases: it ran and failed, it ran too long, it was refused. Only the last is without effect, as it
//! never ran, unless [`Breaker::abort_on_trip`] took it back; [`Error::was_started`] tells. [`Error::retry_after`] says when a refused call is worth another try:
//! pass it on as `Retry-After`. To have one error type in a service, implement `From<Rejected>` and `From<TimedOut>` for
//! it and call [`Error::flatten`].
//!
//! `Display` of [`Error::Failed`] does not repeat its source, so print the chain, as most error reporters do:
//!
//! ```
//! fn chain(error: &dyn std::error::Error) -> String {
//!     let causes = std::iter::successors(Some(error), |error| error.source());
//!     causes.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
//! }
//!
//! let error = fusebox::Error::Failed(std::io::Error::other("connection lost"));
//! assert_eq!(chain(&error), "the guarded call failed: connection lost");
//! ```
//!
//! # Attempts
//!
//! ```text
//! [ deadline -> retry or hedge -> [ an attempt: the path of a call, up to the classifier ] ] -> fallback
//! ```
//!
//! [`Command::retry`] and [`Command::hedge`] are for operations that may be done twice. Each attempt is admitted, timed
//! and counted as a plain call is, so three attempts are three calls to the breaker, and an open circuit ends the retrying
//! of everyone. What is attempted again is a failure: not a result that is ignored, and not a timeout unless
//! [`Retry::timeouts`] says so, because the work of the one that timed out may still go on.
//!
//! * **Deadline.** Set one ([`Config::deadline`], or per call): attempts and waits add up, and callers leave. It also lets
//!   a call wait for an open circuit, where it would otherwise fail at once.
//! * **Budget.** Leave it on. With three attempts and no budget, a dependency that fails because of its load gets three
//!   times that load for as long as it fails. Commands that call one dependency can [share](Budget::shared) one.
//!   [`AttemptCounts::amplification`] shows what the dependency gets: 1.0 when all is well, 1.2 at most for long.
//! * **Backoff.** Keep the jitter. Where the dependency says when to come back, pass it on with [`Verdict::OpenFor`] if all
//!   calls should stay away, or [`Again::After`] for this one alone.
//! * **Hedges** are for reads whose slowest few are slow by chance. They do not help a dependency that is slow for all: then
//!   the percentile moves, and until it has, the budget and the share beyond the percentile hold them back.
//!
//! Where a failed call is attempted again further up as well, attempts multiply: do it in one place.
//!
//! # Fallbacks
//!
//! A good fallback needs no network: a cached value, a default, an empty list. One that calls another service should
//! guard that call with a command of its own; nesting is fine and shares nothing. Look at the cause and decline, by
//! returning it, where a made-up answer is worse than none:
//!
//! ```
//! # use fusebox::{Command, Error};
//! # async fn stock(_: &str) -> Result<u32, String> { Ok(3) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let command = Command::builder("guide.fallback").build()?;
//! let stock = command
//!     .run(|| stock("A-1"))
//!     .fallback(|cause| async move {
//!         match cause {
//!             Error::Rejected(_) | Error::TimedOut(_) => Ok(0), // "ask again later"
//!             failed => Err(failed),
//!         }
//!     })
//!     .await;
//! # assert_eq!(stock, Ok(3));
//! # Ok(())
//! # }
//! ```
//!
//! # Operating
//!
//! [`Command::force_open`] keeps calls away from a dependency under maintenance, [`Command::force_closed`] lets them
//! through while you know better than the breaker; give both an expiry, or they will be forgotten. Both are seen in
//! [`Snapshot::hold`] and as events. [`Command::reconfigure`] changes thresholds while calls run.
//!
//! # Metrics
//!
//! Everything goes through the [`metrics`] facade: install any recorder, before or after commands are built. Counters,
//! durations and the state are exact at any moment. Gauges that are sampled (in flight, window, configuration) move when
//! [`Registry::publish`] is called; call it before a scrape is answered:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
//!
//! let prometheus = PrometheusBuilder::new()
//!     .set_buckets_for_metric(Matcher::Full("fusebox_call_duration_seconds".into()), &fusebox::DURATION_BUCKETS)?
//!     .install_recorder()?;
//!
//! let answer_a_scrape = || {
//!     fusebox::Registry::global().publish();
//!     prometheus.render()
//! };
//! # answer_a_scrape();
//! # Ok(())
//! # }
//! ```
//!
//! | metric | type | label | meaning |
//! |---|---|---|---|
//! | `fusebox_calls_total` | counter | `outcome` | every call, by the one way it ended |
//! | `fusebox_call_duration_seconds` | histogram | `outcome` | the operation alone: success, failure, timed out |
//! | `fusebox_attempts_total` | counter | `outcome` | with `retry`: success, retried, exhausted, budget_denied |
//! | `fusebox_hedges_total` | counter | `outcome` | with `hedge`: won, lost |
//! | `fusebox_attempts_per_call` | gauge | | with either: operations started per call, over ten seconds |
//! | `fusebox_fallbacks_total` | counter | `outcome` | success, failure, rejected |
//! | `fusebox_state` | gauge | `state` | 1 for the state the circuit is in; of a keyed command, circuits in each |
//! | `fusebox_transitions_total` | counter | `from`, `to`, `cause` | changes of state |
//! | `fusebox_late_outcomes_total` | counter | | results of an older generation |
//! | `fusebox_in_flight`, `fusebox_concurrency_limit`, `fusebox_queue_length` | gauge | | the bulkhead; no limit series when unlimited; of a keyed command, the sums over its circuits |
//! | `fusebox_window_calls`, `fusebox_window_error_ratio` | gauge | | what the breaker judges by |
//! | `fusebox_config_error_rate`, `fusebox_config_min_calls`, `fusebox_config_open_seconds`, `fusebox_config_timeout_seconds` | gauge | | the settings, as threshold lines |
//! | `fusebox_config_concurrency_min`, `fusebox_config_concurrency_max`, `fusebox_config_calls_per_second` | gauge | | with an adaptive limit; with a rate limit |
//! | `fusebox_ramp_share` | gauge | | with a ramp: the share of calls that the breaker admits, 1 while closed, 0 while open or probing; of a keyed command, the mean over its circuits |
//! | `fusebox_keyed_evictions_total`, `fusebox_keyed_overflow_total` | counter | | of a keyed command: keys that made room; lookups that found none |
//! | `fusebox_config_reloads_total` | counter | `outcome` | applied, rejected |
//!
//! All carry `command`, and `group` where there is one. Counters are there at 0 from a command's first use, with every
//! transition that a circuit makes by itself, so that the increase of the first one is seen too.
//!
//! The repository's `monitoring/` has recording rules, alerts and a Grafana dashboard for them.
//!
//! # Testing
//!
//! Test your service with the commands that it has, and stage the dependency. Under the feature `test-util` the crate
//! follows tokio's clock, so that a test can open a circuit, let an hour pass and close it again in no time. Switch it on
//! in `dev-dependencies` only:
//!
//! ```toml
//! [dev-dependencies]
//! fusebox = { version = "0.1", features = ["test-util"] }
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! The module `testing`, which exists with that feature, has what such tests need, and a whole test as an example:
//!
//! * a `Script` stands in for the dependency: answers, errors, delays and silence, call by call. It counts what reaches
//!   it, so a test can say that a refused call never did, and when each attempt was made;
//! * a `Timeline` records what happened to the circuits, and compares it with a few lines of text;
//! * `advance` lets time pass, `advance_to_probe` exactly as much as an open circuit has left, and `seed` makes jitter
//!   repeat itself, where it is not simply switched off.
//!
//! Test what is yours: that a fallback gives the list's price, that attempts fit into the caller's deadline, that what is
//! the caller's own mistake opens nothing. Commands that are built once per process are shared by tests that run at the
//! same time; let a test build its own.

#[allow(unused_imports, reason = "for the links above")]
use crate::*;
