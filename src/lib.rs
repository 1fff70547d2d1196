//! Hystrix-style commands for async services.
//!
//! A [`Command`] wraps a fallible call to something that can break: an HTTP or gRPC service, a database, a queue. It
//! tracks the error rate in a rolling window and opens a circuit, caps concurrency, enforces a timeout, runs a
//! fallback, and tells dashboards what it sees.
//!
//! ```
//! use std::time::Duration;
//! use fusebox::{Breaker, Command, Guard};
//!
//! # async fn price(sku: &str) -> Result<u32, std::io::Error> { Ok(sku.len() as u32) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Once: a plain value, cheap to clone; clones share one circuit.
//! let pricing = Command::builder("pricing.fetch")
//!     .timeout(Duration::from_millis(250))
//!     .max_concurrent(64)
//!     .breaker(Breaker::error_rate(0.5).open_for(Duration::from_secs(5)))
//!     .build()?;
//!
//! // As a function: the closure is called only if the call is admitted.
//! let a = pricing.run(|| price("A-1")).await?;
//!
//! // As a combinator, with a fallback for whatever goes wrong.
//! let b = price("B-22").guarded_by(&pricing).fallback(async |_| Ok(0)).await?;
//! # assert_eq!((a, b), (3, 4));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod adaptive;
mod attempts;
mod backoff;
mod breaker;
mod budget;
mod bulkhead;
mod command;
mod config;
#[cfg(feature = "serde")]
mod configs;
#[cfg(feature = "dashboard")]
pub mod dashboard;
mod error;
mod ext;
pub mod guide;
mod hedge;
#[cfg(feature = "hystrix-stream")]
pub mod hystrix_stream;
mod keyed;
mod lint;
#[cfg(all(test, fusebox_loom))]
mod models;
mod name;
mod observe;
mod outcome;
pub mod proof;
mod rate_limit;
mod registry;
mod retry;
#[cfg(all(test, fusebox_shuttle))]
mod schedules;
#[allow(clippy::disallowed_types, reason = "the door to locks")]
mod sync;
#[cfg(all(feature = "test-util", not(fusebox_shuttle)))]
pub mod testing;
#[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the door to clocks")]
mod time;
#[cfg(any(feature = "dashboard", feature = "hystrix-stream"))]
mod web;
mod window;

pub use adaptive::limit::{AdaptiveLimit, Algorithm};
pub use adaptive::timeout::AdaptiveTimeout;
pub use attempts::Attempts;
pub use backoff::{Delays, Jitter, Series};
pub use breaker::config::{Breaker, Window};
pub use breaker::ramp::Ramp;
pub use breaker::state::{Cause, Forced, RampStage, State};
pub use budget::Budget;
pub use bulkhead::Bulkhead;
pub use command::Command;
pub use command::blocking::{Blocking, Running};
pub use command::builder::Builder;
pub use command::effort::Alone;
pub use command::fallback::{NoFallback, Recover, Rescue};
pub use command::hedged::{Hedged, Pair};
pub use command::judge::{ByVerdict, Judge, When};
pub use command::permit::Permit;
pub use command::retrying::Retrying;
pub use command::run::Call;
pub use command::snapshot::{FallbackCounts, Hold, Snapshot};
pub use command::tally::AttemptCounts;
pub use command::work::{ByCommand, Given, Repeat, Work};
pub use config::Config;
#[cfg(feature = "serde")]
pub use configs::{ApplyError, Changed, ConfigFile, Configs, PartialConfig, Reload, ReloadError};
pub use error::{ConfigError, Error, Problem, Reason, Rejected, TimedOut};
pub use ext::Guard;
pub use hedge::Hedge;
pub use keyed::{Keyed, KeyedCommand, KeyedStats, Keys};
pub use lint::WorstCase;
pub use lint::finding::Finding;
pub use observe::bus::Events;
pub use observe::event::{Change, Event, Report, Transition};
pub use observe::meter::DURATION_BUCKETS;
pub use outcome::{Again, ByResult, Classify, Outcome, Verdict};
pub use rate_limit::config::RateLimit;
pub use registry::Registry;
pub use retry::Retry;
pub use window::counts::{Counts, Health};
pub use window::latency::Latency;

/// The README's examples run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
