//! Testing code that uses commands: operations that do as they are told, a record of what happened, and time under
//! control.
//!
//! A service is interesting where its dependency is not well, and that is what a test has to stage: an error, then a
//! silence, then a recovery, at known times. Here are the parts for it; the commands themselves are the real ones, with
//! their real settings.
//!
//! * [`Script`] stands in for the dependency, and counts what reaches it.
//! * [`Timeline`] records the events of a command, or of all, and compares them with what you expect, as text.
//! * [`advance`] and [`advance_to_probe`] let time pass; [`seed`] makes jitter repeat itself.
//!
//! # Time
//!
//! With the feature `test-util` every window, open wait, timeout and timestamp follows tokio's clock. Paused, it stands
//! still until a test moves it, or until every task waits for time; so an hour takes no time and no test sleeps. Without
//! a runtime, or with a running one, it is the real clock.
//!
//! # An example
//!
//! A shop asks its supplier for a price: up to three times, unless the circuit is open, and then it takes its own list's.
//! The supplier is behind a trait, as it would be anyway, so that a script can take its place.
//!
//! ```
//! use std::time::Duration;
//! use fusebox::testing::{Script, Timeline, advance_to_probe};
//! use fusebox::{Breaker, Command, ConfigError, Jitter, Retry};
//!
//! # #[derive(Clone, Debug)]
//! # struct Down;
//! trait Supplier {
//!     fn price(&self, sku: &str) -> impl Future<Output = Result<u32, Down>> + Send;
//! }
//!
//! struct Shop<S> {
//!     supplier: S,
//!     pricing: Command,
//! }
//!
//! impl<S: Supplier> Shop<S> {
//!     const LIST_PRICE: u32 = 99;
//!
//!     fn new(supplier: S) -> Result<Self, ConfigError> {
//!         let pricing = Command::builder("pricing")
//!             .timeout(Duration::from_millis(250))
//!             .retry(Retry::constant(Duration::from_millis(20)).jitter(Jitter::None))
//!             .breaker(Breaker::error_rate(0.5).min_calls(5).open_for(Duration::from_secs(5)).jitter(0.0))
//!             .build()?;
//!         Ok(Self { supplier, pricing })
//!     }
//!
//!     async fn price(&self, sku: &str) -> u32 {
//!         let call = self.pricing.retry(|| self.supplier.price(sku)).fallback(async |_| Ok(Self::LIST_PRICE));
//!         call.await.unwrap_or(Self::LIST_PRICE)
//!     }
//! }
//!
//! // ---- the test: #[tokio::test(start_paused = true)] ----
//!
//! impl Supplier for Script<u32, Down> {
//!     fn price(&self, _sku: &str) -> impl Future<Output = Result<u32, Down>> + Send {
//!         self.call()
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), ConfigError> {
//! let supplier = Script::new()
//!     .err(Down).times(2).ok(7).after(Duration::from_millis(30)) // a hiccup
//!     .err(Down).hang()                                          // an outage
//!     .ok(8);                                                    // back again
//! let shop = Shop::new(supplier.clone())?;
//! let timeline = Timeline::of(&shop.pricing);
//!
//! assert_eq!(shop.price("A-1").await, 7, "the third attempt");
//! assert_eq!(shop.price("A-1").await, 99, "the list's: it failed, then hung");
//! assert_eq!(shop.price("A-1").await, 99, "the list's: the circuit is open");
//! assert_eq!(supplier.started(), 5, "and the supplier was left alone");
//!
//! advance_to_probe(&shop.pricing).await;
//! assert_eq!(shop.price("A-1").await, 8);
//!
//! timeline.assert_eq("
//!     340ms  pricing: closed -> open: the error rate reached 50 %
//!     5.34s  pricing: open -> half_open: the wait was over
//!     5.34s  pricing: half_open -> closed: the probe passed
//! ");
//! supplier.assert_finished();
//! # Ok(())
//! # }
//! ```
//!
//! # Without a script
//!
//! To see a service with an open circuit, open it: [`force_open`](crate::Command::force_open) holds it open, and
//! `command.admit()?.resolve(Verdict::OpenFor(wait))` opens it as a failing call would. A permit is a call without an
//! operation, so `command.admit()?.fail()` in a loop trips a breaker by its own rules.

mod clock;
mod diff;
mod script;
mod timeline;

pub use clock::{advance, advance_to_probe, seed};
pub use script::Script;
pub use timeline::{Entry, Observed, Timeline};
