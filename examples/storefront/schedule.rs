//! The script: who breaks when, and how. Data, so that it can be read at a glance and both runs get the very same.
//!
//! Times are in story seconds. [`Pace`] turns them into real ones, and with them every setting whose size follows from
//! the script's: the breakers' windows and waits, the naive client's patience. What a supplier takes to answer, a
//! command's timeout and the page's deadline are real and stay as they are at any pace.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use Fault::{BrownOut, Cold, Errors, Flapping, Lost, Refused, Reset, Silence, Stalls};
use Supplier::{Prices, Recommendations, Stock};

/// Every kind of fault once, then everything at once. Each ends in recovery, though once in a cold start first.
#[rustfmt::skip]
pub(crate) const STORY: [Act; 12] = [
    act( 3.0 ..  7.0, Prices,          BrownOut { factor: 10 }),
    act( 8.0 .. 12.0, Recommendations, Errors { percent: 30 }),
    act(13.0 .. 17.0, Stock,           Refused),
    act(18.0 .. 21.0, Prices,          Stalls { one_in: 8, factor: 10 }),
    act(22.0 .. 25.0, Stock,           Lost { warehouse: 2 }),
    act(26.0 .. 28.0, Recommendations, Reset),
    act(28.0 .. 32.0, Recommendations, Cold { warm_up: 0.25 }),
    act(33.0 .. 37.0, Prices,          Silence),
    act(35.0 .. 39.0, Stock,           Flapping { every: 1.0 }),
    act(41.0 .. 45.0, Prices,          Refused),
    act(41.0 .. 45.0, Stock,           Silence),
    act(41.0 .. 45.0, Recommendations, Errors { percent: 30 }),
];

/// The story's length. What follows the last fault is long enough for the naive client to be rid of its stuck calls.
pub(crate) const LENGTH: f64 = 50.0;

/// A supplier of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supplier {
    Prices,
    Stock,
    Recommendations,
}

impl Supplier {
    pub(crate) const ALL: [Self; 3] = [Prices, Stock, Recommendations];
    pub(crate) const COUNT: usize = Self::ALL.len();

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Prices => "prices",
            Stock => "stock",
            Recommendations => "recommendations",
        }
    }
}

impl fmt::Display for Supplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A way to break.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Answers, but takes `factor` times as long.
    BrownOut { factor: u32 },
    /// Takes `factor` times as long over one request in so many. Which ones has nothing to do with what they ask.
    Stalls { one_in: u64, factor: u32 },
    /// Answers this share of requests with status 500.
    Errors { percent: u8 },
    /// Nobody listens on the port.
    Refused,
    /// Sends half the body and resets the connection.
    Reset,
    /// Accepts connections and requests, and never answers. A request that met this fault stays without an answer.
    Silence,
    /// The same for what one warehouse has; all is well with the others.
    Lost { warehouse: u32 },
    /// Is back with empty caches: until it has spent `warm_up` story seconds on answers, it fails at what it is doing when
    /// the next request comes. Its usual load keeps it cold.
    Cold { warm_up: f64 },
    /// All errors and all well, in turns of `every` story seconds, beginning with errors.
    Flapping { every: f64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrownOut { factor } => f.pad(&format!("brown-out, x{factor}")),
            Stalls { one_in, .. } => f.pad(&format!("stalls, 1 in {one_in}")),
            Errors { percent } => f.pad(&format!("{percent} % errors")),
            Refused => f.pad("conn. refused"),
            Reset => f.pad("reset mid-body"),
            Silence => f.pad("silence"),
            Lost { .. } => f.pad("warehouse lost"),
            Cold { .. } => f.pad("cold start"),
            Flapping { .. } => f.pad("flapping"),
        }
    }
}

/// One fault of one supplier.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    /// In story seconds.
    pub(crate) span: Range<f64>,
    pub(crate) supplier: Supplier,
    pub(crate) fault: Fault,
}

const fn act(span: Range<f64>, supplier: Supplier, fault: Fault) -> Act {
    Act { span, supplier, fault }
}

/// How fast the story is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace(f64);

impl Pace {
    pub(crate) const FULL: Self = Self(1.0);
    /// Two runs of 10 seconds.
    pub(crate) const SHORT: Self = Self(0.2);

    /// Real time for story time, in steps of 10 ms: a breaker's window must divide into buckets of whole milliseconds.
    pub(crate) fn of(self, story_seconds: f64) -> Duration {
        Duration::from_millis((story_seconds * self.0 * 100.0).round() as u64 * 10)
    }
}

/// A moment at which a supplier changes its behaviour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cue {
    pub(crate) at: Duration,
    pub(crate) supplier: Supplier,
    /// `None` is recovery.
    pub(crate) fault: Option<Fault>,
}

/// The script as what to do next.
pub(crate) fn cues(pace: Pace) -> Vec<Cue> {
    let mut cues: Vec<_> = STORY
        .iter()
        .flat_map(|act| {
            [(act.span.start, Some(act.fault)), (act.span.end, None)].map(|(at, fault)| Cue {
                at: pace.of(at),
                supplier: act.supplier,
                fault,
            })
        })
        .collect();
    cues.sort_by_key(|cue| cue.at);
    cues
}
