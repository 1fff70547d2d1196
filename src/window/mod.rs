//! Rolling figures, made of counters that only go up.
//!
//! The usual rolling counter is a ring of buckets that are zeroed and reused, and its bugs are the usual ones: a count
//! lost between "add" and "zero", a bucket that was not zeroed after an idle hour, a lifetime total that disagrees
//! with the window. Here nothing is ever zeroed. Every event adds one to one lifetime counter; at each bucket edge the
//! [`ring`] keeps a reading of the counters; and a rolling sum is the difference of two readings. Lifetime totals are
//! exact because they are all there is, and a window cannot lose or double a count because differences telescope.
//!
//! [`counts`] are the counters of outcomes, with those of healthy calls in [`flow`], and [`latency`] those of a histogram,
//! all lock-free; [`recent`] is the other kind of window, which holds the last n calls. Nothing here reads a clock:
//! callers pass the time.

pub(crate) mod counts;
pub(crate) mod flow;
mod histogram;
mod lane;
pub(crate) mod latency;
pub(crate) mod recent;
pub(crate) mod ring;
