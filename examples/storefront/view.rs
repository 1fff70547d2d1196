//! What there is to see of a run while it goes on.

use std::time::Duration;

use crate::args::Args;
use crate::ledger::{Ledger, Visit};
use crate::run::Protection;
use crate::schedule::{Fault, LENGTH, Supplier};
use crate::shop::{Care, Shop};
use crate::table::{self, Pulse, Row};

/// What the figures of the naive shop are taken over, in story seconds: the same as a command's window.
const WINDOW: f64 = 2.0;

pub(crate) struct View<'r> {
    protection: Protection,
    args: &'r Args,
    shop: &'r Shop,
    ledger: &'r Ledger,
    /// What the script has broken, in the order of [`Supplier::ALL`].
    pub(crate) faults: [Option<Fault>; Supplier::COUNT],
    /// Of each row.
    pulses: Vec<Pulse>,
}

impl<'r> View<'r> {
    pub(crate) fn new(protection: Protection, args: &'r Args, shop: &'r Shop, ledger: &'r Ledger) -> Self {
        Self { protection, args, shop, ledger, faults: [None; Supplier::COUNT], pulses: Vec::new() }
    }

    /// The table and the lines around it.
    pub(crate) fn frame(&mut self) -> Vec<String> {
        let now = self.ledger.now();
        let mut frame = vec![String::new(), self.progress(now), self.broken()];
        frame.extend(table::lines(&self.rows(now)));
        frame.push(format!("latest page: {}", self.ledger.visits().latest));
        frame
    }

    fn rows(&mut self, now: Duration) -> Vec<Row> {
        match &self.shop.care {
            Care::Commands(commands) => {
                let snapshots = commands.snapshots();
                self.pulses.resize_with(snapshots.len(), Pulse::new);
                let circuits = snapshots.iter().zip(&mut self.pulses);
                circuits.map(|(snapshot, pulse)| Row::of_circuit(snapshot, pulse, now)).collect()
            }
            Care::Naive { .. } => {
                let window = self.args.pace.of(WINDOW);
                self.pulses.resize_with(Supplier::COUNT, Pulse::new);
                let suppliers = Supplier::ALL.into_iter().zip(&mut self.pulses);
                suppliers.map(|(s, pulse)| Row::of_calls(s, &self.ledger.calls(s), window, pulse, now)).collect()
            }
        }
    }

    /// A line for the log.
    pub(crate) fn stamped(&self, who: &str, what: &str) -> String {
        format!("{:6.2} s  {who:<7}  {what}", self.ledger.now().as_secs_f64())
    }

    fn progress(&self, now: Duration) -> String {
        let visits = self.ledger.visits();
        let pages = visits.ended.len();
        let in_time = visits.ended.iter().filter(|visit| Visit::is_in_time(visit)).count();
        format!(
            "{:.1} of {:.1} s {}: {pages} pages, {} in time",
            now.as_secs_f64(),
            self.args.pace.of(LENGTH).as_secs_f64(),
            self.protection.label(),
            table::percent(in_time, pages),
        )
    }

    fn broken(&self) -> String {
        let broken: Vec<_> = Supplier::ALL
            .into_iter()
            .filter_map(|supplier| self.faults[supplier as usize].map(|fault| format!("{supplier} ({fault})")))
            .collect();
        format!("broken now: {}", if broken.is_empty() { "nothing".to_owned() } else { broken.join(", ") })
    }
}
