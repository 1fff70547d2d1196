//! Settings that follow the dependency: a concurrency limit and a timeout that are measured, not guessed.
//!
//! Both are plain values that are given what calls took and say what to do next; they know no clock, no lock and no
//! command. [`limit`] and [`timeout`] are what a user says. [`control`] gathers calls into windows and asks a [`law`]
//! for the next limit.

pub(crate) mod control;
pub(crate) mod law;
pub(crate) mod limit;
pub(crate) mod timeout;
