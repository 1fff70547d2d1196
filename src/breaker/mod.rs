//! The circuit breaker: what failing calls cost is paid once.
//!
//! A dependency that is down makes every caller wait for its timeout, hold its resources meanwhile, and add to the
//! load that keeps the dependency down. A breaker watches the outcomes, and when a rule says so it opens: calls are
//! refused at once. After a wait it lets a few calls through as probes, and their results decide.
//!
//! [`config`] is what a user says and [`rules`] its checked form, [`trip`] what opens a circuit, [`confidence`] how sure a
//! rate must be, [`machine`] the states, [`ramp`] the way from half-open to closed, [`books`] what was seen; these are
//! plain values that are given the time. [`circuit`] is the shell around them: one lock for everything that decides, and
//! beside it copies in atomics (state, deadline, edge of the window) so that a call through a closed circuit, and a
//! refusal by an open one, take no lock. [`lookout`] has an eye on calls in flight, for those circuits that want it.

pub(crate) mod books;
pub(crate) mod circuit;
pub(crate) mod confidence;
pub(crate) mod config;
pub(crate) mod lookout;
pub(crate) mod machine;
pub(crate) mod ramp;
pub(crate) mod ratio;
pub(crate) mod rules;
pub(crate) mod state;
pub(crate) mod trip;
