//! What the Hystrix stream and the dashboard have in common: writing JSON, and serving one source of frames to a few
//! readers, over whatever HTTP server there is.
#![allow(dead_code, reason = "each feature uses its part")]

pub(crate) mod body;
pub(crate) mod clients;
pub(crate) mod json;
