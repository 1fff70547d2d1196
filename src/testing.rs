//! Testing code that uses commands: time under control.
//!
//! With the feature `test-util` every window, open wait, timeout and timestamp follows tokio's clock. Paused, it stands
//! still until a test moves it, or until every task waits for time; so an hour takes no time and no test sleeps. Without
//! a runtime, or with a running one, it is the real clock.
//!
//! Jitter is random: set it to 0 where a test wants an exact open wait.
//!
//! ```
//! use std::time::Duration;
//! use fusebox::{Breaker, Command, State};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let breaker = Breaker::error_rate(0.5).min_calls(1).open_for(Duration::from_secs(3600)).jitter(0.0);
//! let command = Command::builder("db").breaker(breaker).build()?;
//! command.run(async || Err::<(), _>("down")).await.unwrap_err();
//! assert_eq!(command.state(), State::Open);
//!
//! tokio::time::advance(Duration::from_secs(3600)).await;
//! command.run(async || Ok::<_, std::io::Error>(())).await?;
//! assert_eq!(command.state(), State::Closed);
//! # Ok(())
//! # }
//! ```
