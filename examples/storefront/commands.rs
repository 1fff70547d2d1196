//! The shop's commands: one for each supplier, with the reason for each setting beside it.

use std::time::Duration;

use fusebox::{Breaker, Command, ConfigError, Event, Hedge, Keyed, Keys, Ramp, Retry, Snapshot};
use futures::Stream;
use futures::stream::{StreamExt, select_all};

use crate::schedule::{Pace, Supplier};
use crate::shop::WAREHOUSES;

#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) prices: Command,
    /// By warehouse.
    pub(crate) stock: Keyed<u32>,
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
                // In health no answer takes so long. One that does has stalled, and asking again is quicker than waiting
                // for it: two attempts need little more than the one that times out.
                .hedge(Hedge::after(Duration::from_millis(30)))
                .deadline(Duration::from_millis(60))
                // It falls silent at times. Calls in flight count as slow before their timeout is up, so that the circuit
                // opens that much sooner.
                .breaker(breaker(0.5).slow_calls(0.5, Duration::from_millis(30)).count_in_flight(true))
                .latency_window(pace.of(4.0))
                .build()?,
            // Each warehouse answers for itself. One circuit for all would stay closed while a quarter of the calls is lost,
            // or cut off four for the sake of one. Each sees a quarter of the calls, so limits and counts are a quarter.
            stock: Command::builder("stock")
                .group("storefront")
                .timeout(Duration::from_millis(40))
                .max_concurrent(4)
                // A page waits no longer for two attempts than for one, so the second has what the first left over. What
                // all retries together may add to the load is the budget's business.
                .deadline(Duration::from_millis(40))
                .retry(Retry::exponential(Duration::from_millis(2)).attempts(2))
                .breaker(breaker(0.5).min_calls(5).consecutive_failures(4))
                .latency_window(pace.of(4.0))
                .keyed(Keys::up_to(WAREHOUSES as usize).latencies())?,
            // Bestsellers are nearly as good, so this one gives up early, and takes its time to believe in recovery. It
            // comes back with empty caches: a probe passes, and its usual load would fell it again.
            recommendations: Command::builder("recommendations")
                .group("storefront")
                .timeout(Duration::from_millis(50))
                .max_concurrent(20)
                .breaker(breaker(0.2).ramp(Ramp::stages([0.2, 0.5]).each(pace.of(1.0))))
                .latency_window(pace.of(4.0))
                .build()?,
        })
    }

    /// Of each circuit, in the order of [`Supplier::ALL`].
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        let mut snapshots = vec![self.prices.snapshot()];
        snapshots.extend((1..=WAREHOUSES).map(|warehouse| self.stock.get(&warehouse).snapshot()));
        snapshots.push(self.recommendations.snapshot());
        snapshots
    }

    /// What happens from now on, and to whose circuit.
    pub(crate) fn subscribe(&self) -> impl Stream<Item = (Supplier, Event)> + Unpin + use<> {
        let Self { prices, stock, recommendations } = self;
        let events = [prices.subscribe(), stock.subscribe(), recommendations.subscribe()];
        select_all(
            Supplier::ALL.into_iter().zip(events).map(|(supplier, events)| events.map(move |event| (supplier, event))),
        )
    }
}
