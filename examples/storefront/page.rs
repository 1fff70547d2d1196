//! What a page shows: a supplier's own answer, or what stands in for it, and marked as such.

use std::fmt;
use std::future::Future;

use tokio::time::Instant;

use crate::client::Failure;
use crate::ledger::{Kind, Part};

/// A part of the page: its text, and how it came about.
pub(crate) async fn part<T: Shown>(
    since: Instant,
    call: impl Future<Output = Result<T, fusebox::Error<Failure>>>,
) -> (String, Part) {
    let result = call.await;
    let after = since.elapsed();
    let (text, kind) = match result {
        Ok(shown) => (shown.to_string(), if shown.is_live() { Kind::Live } else { Kind::Fallback }),
        Err(fusebox::Error::Failed(failure)) => (format!("error: {failure}"), Kind::Failed),
        Err(error) => (format!("error: {error}"), Kind::Failed),
    };
    (text, Part { kind, after })
}

/// Something that a page shows.
pub(crate) trait Shown: fmt::Display {
    /// Whether it is the supplier's answer to this very call.
    fn is_live(&self) -> bool;
}

/// In cents.
pub(crate) enum Price {
    Today(u32),
    LastKnown(u32),
    List(u32),
}

impl Shown for Price {
    fn is_live(&self) -> bool {
        matches!(self, Self::Today(_))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Today(cents) | Self::LastKnown(cents) | Self::List(cents)) = self;
        write!(f, "{}.{:02}", cents / 100, cents % 100)?;
        match self {
            Self::Today(_) => Ok(()),
            Self::LastKnown(_) => f.write_str(" (last known)"),
            Self::List(_) => f.write_str(" (list price)"),
        }
    }
}

pub(crate) enum Stock {
    Known(u32),
    Unknown,
}

impl Shown for Stock {
    fn is_live(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

impl fmt::Display for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(count) => write!(f, "{count} in stock"),
            Self::Unknown => f.write_str("stock not known"),
        }
    }
}

pub(crate) enum More {
    ForThis(Vec<u32>),
    Best,
}

impl Shown for More {
    fn is_live(&self) -> bool {
        matches!(self, Self::ForThis(_))
    }
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForThis(items) => write!(f, "goes with {items:?}"),
            Self::Best => f.write_str("our bestsellers"),
        }
    }
}
