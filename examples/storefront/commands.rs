//! The shop's commands: one for each supplier, with the reason for each setting beside it.

use std::time::Duration;

use fusebox::{Breaker, Command, ConfigError, Retry};

use crate::schedule::{Pace, Supplier};

#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) prices: Command,
    pub(crate) stock: Command,
    pub(crate) recommendations: Command,
}

impl Commands {
    pub(crate) fn new(pace: Pace) -> Result<Self, ConfigError> {
        // Windows and waits follow the story's pace. The window is short, so that a fault that is over is soon
        // forgotten. Eight errors in a row are the quicker sign of a supplier that is dead rather than ill: the rate
        // would need half a window of them.
        let breaker = |error_rate| {
            Breaker::error_rate(error_rate)
                .min_calls(20)
                .window(pace.of(2.0))
                .consecutive_failures(8)
                .open_for(pace.of(0.4))
                .max_open(pace.of(1.0))
        };
        // Timeouts leave half of the page's deadline for what comes after, and lie well above a healthy p99. Limits are
        // about four times what the timeout lets through at 100 pages per second.
        Ok(Self {
            prices: Command::builder("prices")
                .group("storefront")
                .timeout(Duration::from_millis(50))
                .max_concurrent(20)
                // It falls silent at times. Calls in flight count as slow before their timeout is up, so that the circuit
                // opens that much sooner.
                .breaker(breaker(0.5).slow_calls(0.5, Duration::from_millis(30)).count_in_flight(true))
                .latency_window(pace.of(4.0))
                .build()?,
            stock: Command::builder("stock")
                .group("storefront")
                .timeout(Duration::from_millis(40))
                .max_concurrent(16)
                // A page waits no longer for two attempts than for one, so the second has what the first left over. What
                // all retries together may add to the load is the budget's business.
                .deadline(Duration::from_millis(40))
                .retry(Retry::exponential(Duration::from_millis(2)).attempts(2))
                .breaker(breaker(0.5))
                .latency_window(pace.of(4.0))
                .build()?,
            // Bestsellers are nearly as good, so this one gives up early, and three probes have to pass before it
            // believes in recovery: one alone would, seven times out of ten, while three in ten answers fail.
            recommendations: Command::builder("recommendations")
                .group("storefront")
                .timeout(Duration::from_millis(50))
                .max_concurrent(20)
                .breaker(breaker(0.2).probes(3))
                .latency_window(pace.of(4.0))
                .build()?,
        })
    }

    pub(crate) fn of(&self, supplier: Supplier) -> &Command {
        match supplier {
            Supplier::Prices => &self.prices,
            Supplier::Stock => &self.stock,
            Supplier::Recommendations => &self.recommendations,
        }
    }
}
