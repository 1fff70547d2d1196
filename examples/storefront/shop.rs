//! The shop page, and what it shows when a supplier does not answer.
//!
//! Both shops make the same calls. The naive one waits as long as its HTTP client lets it and has an error where an
//! answer is missing; the other makes each call through a command and has a fallback where a shop would have one. (The
//! naive one could catch its errors as well. That would mend the pages with an error and none of those that are late,
//! and so the report counts the two apart.)

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::client::{Client, Failure};
use crate::commands::Commands;
use crate::ledger::Part;
use crate::page::{More, Price, Stock, part};
use crate::schedule::Supplier;

/// Items on sale. Few, so that prices have been seen before.
pub(crate) const ITEMS: u32 = 50;
/// They are numbered from 1, and each answers for its own items.
pub(crate) const WAREHOUSES: u32 = 4;

pub(crate) struct Shop {
    prices: Client,
    stock: Client,
    recommendations: Client,
    pub(crate) care: Care,
    /// Prices in cents, by item.
    last_known: Mutex<HashMap<u32, u32>>,
}

/// How calls are made.
pub(crate) enum Care {
    /// Straight, with the one timeout that most clients are given: a generous one.
    Naive { patience: Duration },
    /// Through commands.
    Commands(Commands),
}

impl Shop {
    pub(crate) fn new(care: Care, client: impl Fn(Supplier) -> Client) -> Self {
        Self {
            prices: client(Supplier::Prices),
            stock: client(Supplier::Stock),
            recommendations: client(Supplier::Recommendations),
            care,
            last_known: Mutex::default(),
        }
    }

    /// One page: its text, and how each part of it came about, by `since`, the visit's intended start.
    pub(crate) async fn page(&self, visit: u32, since: Instant) -> (String, [Part; Supplier::COUNT]) {
        let item = visit * 7 % ITEMS + 1;
        let ((price, a), (stock, b), (more, c)) = tokio::join!(
            part(since, self.price(item, visit)),
            part(since, self.stock(item, visit)),
            part(since, self.recommendations(item, visit)),
        );
        (format!("item {item}: {price} | {stock} | {more}"), [a, b, c])
    }

    /// Falls back to the price of the last time, or else to the catalogue's: dearer for the customer than today's offer
    /// and never below cost, which is what a shop can live with for a minute.
    async fn price(&self, item: u32, visit: u32) -> Result<Price, fusebox::Error<Failure>> {
        let call = async || {
            let cents = self.prices.fetch(item, visit, |text| text.parse().ok()).await?;
            self.last_known.lock().unwrap_or_else(PoisonError::into_inner).insert(item, cents);
            Ok(Price::Today(cents))
        };
        match &self.care {
            Care::Naive { patience } => patiently(*patience, call()).await,
            Care::Commands(commands) => {
                let fallback = async |_| {
                    let last = self.last_known.lock().unwrap_or_else(PoisonError::into_inner).get(&item).copied();
                    Ok(last.map_or(Price::List(list_price(item)), Price::LastKnown))
                };
                commands.prices.hedge(call).fallback(fallback).await
            }
        }
    }

    /// Falls back to saying so: a number that was true a minute ago sells what is gone.
    async fn stock(&self, item: u32, visit: u32) -> Result<Stock, fusebox::Error<Failure>> {
        let call = || self.stock.fetch(item, visit, |text| text.parse().ok().map(Stock::Known));
        match &self.care {
            Care::Naive { patience } => patiently(*patience, call()).await,
            Care::Commands(commands) => {
                let warehouse = commands.stock.get(&warehouse_of(item));
                warehouse.retry(call).fallback(async |_| Ok(Stock::Unknown)).await
            }
        }
    }

    /// Falls back to what sells best anyway.
    async fn recommendations(&self, item: u32, visit: u32) -> Result<More, fusebox::Error<Failure>> {
        let read = |text: &str| text.split(' ').map(|id| id.parse().ok()).collect::<Option<_>>().map(More::ForThis);
        let call = || self.recommendations.fetch(item, visit, read);
        match &self.care {
            Care::Naive { patience } => patiently(*patience, call()).await,
            Care::Commands(commands) => commands.recommendations.run(call).fallback(async |_| Ok(More::Best)).await,
        }
    }
}

/// Where an item lies.
pub(crate) fn warehouse_of(item: u32) -> u32 {
    item % WAREHOUSES + 1
}

/// What the catalogue says, in cents.
pub(crate) fn list_price(item: u32) -> u32 {
    499 + item * 137 % 4000
}

async fn patiently<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, fusebox::Error<Failure>> {
    let result = timeout(patience, call).await.unwrap_or(Err(Failure::Late(patience)));
    result.map_err(fusebox::Error::Failed)
}
