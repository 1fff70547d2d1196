//! Visitors: an open loop at a fixed rate.
//!
//! A load generator that waits for one answer before it sends the next request slows down together with what it
//! measures, and so leaves out the very requests that would have suffered ("coordinated omission"). Visitors here come
//! when they are due, whether or not earlier ones were served, and their patience is counted from that moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::ledger::{Ledger, Visit};
use crate::shop::Shop;
use crate::stop::Stop;

/// How many visitors, how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// Per second.
    pub(crate) rate: u32,
    /// How long visitors keep coming.
    pub(crate) length: Duration,
    /// How long the last ones are waited for.
    pub(crate) grace: Duration,
}

impl Crowd {
    pub(crate) fn size(self) -> u32 {
        (self.length.as_millis() * u128::from(self.rate) / 1000) as u32
    }

    fn due(self, visit: u32) -> Duration {
        Duration::from_secs_f64(f64::from(visit) / f64::from(self.rate))
    }
}

/// Sends the whole crowd and returns when the last page is in the ledger.
pub(crate) async fn drive(crowd: Crowd, shop: Arc<Shop>, ledger: Arc<Ledger>, stop: Stop) {
    let mut pages = JoinSet::new();
    for visit in 0..crowd.size() {
        let intended = crowd.due(visit);
        let due = ledger.begun() + intended;
        tokio::select! {
            () = sleep_until(due) => {}
            () = stop.requested() => break,
        }
        pages.spawn(attend(visit, intended, Arc::clone(&shop), Arc::clone(&ledger), stop.clone()));
        while pages.try_join_next().is_some() {}
    }
    let all = async { while pages.join_next().await.is_some() {} };
    // By then every call has run into its own timeout, so nothing is ever cut short here.
    let _ = timeout(crowd.grace, all).await;
}

/// One visit, from its intended start into the ledger.
async fn attend(visit: u32, intended: Duration, shop: Arc<Shop>, ledger: Arc<Ledger>, stop: Stop) {
    let since: Instant = ledger.begun() + intended;
    let (latest, parts) = tokio::select! {
        page = shop.page(visit, since) => page,
        () = stop.requested() => return,
    };
    let took = since.elapsed();
    let mut visits = ledger.visits();
    visits.latest = latest;
    visits.ended.push(Visit { intended, took, parts });
}
