//! A keyed command seen from outside: all its circuits together, and those that are worst off.
//!
//! What watches a registry finds one command there, whose own circuit is the one that keys share. Its figures are next to
//! nothing: the calls are counted where their keys are.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Command;
use super::core::Core;
use super::snapshot::Snapshot;
use crate::breaker::state::State;
use crate::time::Stamp;

impl<C> Command<C> {
    /// The circuits of its keys, worst first and `most` at most; empty for a command without keys.
    pub(crate) fn worst_keys(&self, most: usize) -> Vec<Snapshot> {
        let now = Stamp::now();
        let circuits = self.circuits_of_keys().unwrap_or_default();
        let mut ranked: Vec<_> = circuits.iter().map(|core| (Rank::of(core, now), core)).collect();
        ranked.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        ranked.iter().take(most).map(|(_, core)| Snapshot::of(core)).collect()
    }

    /// As [`Command::snapshot`], with the figures of all keys added up; state, wait and override stay those of the
    /// circuit that keys share. With it, how many keys there are; `None` for a command without.
    pub(crate) fn overview(&self) -> (Snapshot, Option<usize>) {
        let mut overview = self.snapshot();
        let circuits = self.circuits_of_keys();
        let now = Stamp::now();
        circuits.iter().flatten().for_each(|core| overview.add(core, now));
        overview.add_totals(&self.core().family.gone());
        (overview, circuits.map(|circuits| circuits.len()))
    }

    fn circuits_of_keys(&self) -> Option<Vec<Arc<Core>>> {
        let mut circuits = self.core().family.circuits();
        let shared = circuits.iter().position(|core| Arc::ptr_eq(core, self.core()))?;
        circuits.swap_remove(shared);
        Some(circuits)
    }
}

/// How bad it is with a circuit: the least is the worst. What is alike goes by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'c> {
    state: u8,
    errors: Reverse<u64>,
    calls: Reverse<u64>,
    key: Option<&'c str>,
}

impl<'c> Rank<'c> {
    fn of(core: &'c Core, now: Stamp) -> Self {
        let view = core.circuit.view(now);
        let state = match view.state {
            State::Open => 0,
            State::ForcedOpen => 1,
            State::HalfOpen => 2,
            State::ForcedClosed => 3,
            State::Closed => 4,
        };
        Self { state, errors: Reverse(view.window.errors()), calls: Reverse(view.window.calls()), key: core.label() }
    }
}
