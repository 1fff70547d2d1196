//! The rate limit: a dependency that takes so many calls a second must not be sent more, however many are wanted.
//!
//! [`config`] is what a user says, [`limiter`] the lock-free cell that decides.

pub(crate) mod config;
pub(crate) mod limiter;
