//! When a call gets a second attempt while its first is still running.
//!
//! Of many calls a few are slow for no fault of their own: a queue, a pause, a lost packet. A second attempt, sent when the
//! first has taken longer than most do, cuts that tail at little cost: Dean and Barroso, "The Tail at Scale" (2013), who
//! send it after the 95th percentile. In a brown-out every call is slow and every one would get a second attempt, so two
//! things hold hedges back: the budget that they share with retries, and, where the delay is a percentile, the share of
//! calls that lie beyond it.

use std::time::Duration;

use crate::error::{ConfigError, Problems};

/// When a second attempt is sent. Plain data.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`percentile`](Self::percentile), [`after`](Self::after) | the 95th percentile | a share in (0, 1); any delay |
/// | [`warm_up`](Self::warm_up) | 100 | calls in the latency window before a percentile is trusted, at least 1 |
///
/// ```
/// use std::time::Duration;
/// use fusebox::{Command, Hedge};
///
/// let search = Command::builder("search").hedge(Hedge::percentile(0.99).warm_up(500)).build()?;
/// let fixed = Hedge::after(Duration::from_millis(30));
/// # let _ = (search, fixed);
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "a policy does nothing until a command or a call has it"]
#[non_exhaustive]
pub enum Hedge {
    /// When the first attempt has run for so long.
    After(Duration),
    /// When the first attempt has run longer than this share of the command's calls does.
    #[non_exhaustive]
    Percentile {
        /// In (0, 1).
        share: f64,
        /// Calls in the latency window before there are any hedges.
        warm_up: u32,
    },
}

impl Default for Hedge {
    fn default() -> Self {
        Self::percentile(0.95)
    }
}

impl Hedge {
    /// When the first attempt has run for `delay` since its admission. Zero sends both at once; one that never passes
    /// ([`Duration::MAX`]) sends the second only when the first has failed.
    pub const fn after(delay: Duration) -> Self {
        Self::After(delay)
    }

    /// When the first attempt has run longer than this share, in (0, 1), of the command's own calls over its
    /// [latency window](crate::Config::latency_window). No more than the rest of the calls is hedged, in the long run,
    /// however slow they become. A command that keeps no latencies sends no hedges.
    pub const fn percentile(share: f64) -> Self {
        Self::Percentile { share, warm_up: 100 }
    }

    /// How many calls the latency window must hold before there are hedges, at least 1. Without meaning for a fixed
    /// delay.
    pub const fn warm_up(self, calls: u32) -> Self {
        match self {
            Self::Percentile { share, .. } => Self::Percentile { share, warm_up: calls },
            after @ Self::After(_) => after,
        }
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        if let Self::Percentile { share, warm_up } = *self {
            problems.require(share > 0.0 && share < 1.0, "hedge.percentile", || share, "a share in (0, 1)");
            problems.at_least_one("hedge.warm_up", warm_up);
        }
    }

    /// The share of calls that may be hedged; all of them with a fixed delay. One out of range is none.
    pub(crate) fn ration(&self) -> f64 {
        match *self {
            Self::After(_) => 1.0,
            Self::Percentile { share, .. } if share > 0.0 && share < 1.0 => 1.0 - share,
            Self::Percentile { .. } => 0.0,
        }
    }

    /// Checks without building.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with every setting that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.check(&mut problems);
        problems.finish()
    }
}

/// What became of a hedge that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HedgeOutcome {
    /// It gave the call its answer.
    Won,
    /// The first attempt did, or neither, or the call was dropped.
    Lost,
}

impl HedgeOutcome {
    pub(crate) const ALL: [Self; 2] = [Self::Won, Self::Lost];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
        }
    }
}
