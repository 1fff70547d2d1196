//! What others get to see: events, metrics, and how they are delivered.
//!
//! Nothing here decides anything, and nothing here runs under a lock that a call could wait for.

pub(crate) mod bus;
pub(crate) mod event;
pub(crate) mod meter;
