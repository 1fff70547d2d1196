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
    pulses: [Pulse; Supplier::COUNT],
}

impl<'r> View<'r> {
    pub(crate) fn new(protection: Protection, args: &'r Args, shop: &'r Shop, ledger: &'r Ledger) -> Self {
        let pulses = std::array::from_fn(|_| Pulse::new());
        Self { protection, args, shop, ledger, faults: [None; Supplier::COUNT], pulses }
    }

    /// The table and the lines around it.
    pub(crate) fn frame(&mut self) -> Vec<String> {
        let now = self.ledger.now();
        let rows: Vec<_> = Supplier::ALL
            .into_iter()
            .zip(&mut self.pulses)
            .map(|(supplier, pulse)| match &self.shop.care {
                Care::Commands(commands) => Row::of_command(&commands.of(supplier).snapshot(), pulse, now),
                Care::Naive { .. } => {
                    let window = self.args.pace.of(WINDOW);
                    Row::of_calls(supplier, &self.ledger.calls(supplier), window, pulse, now)
                }
            })
            .collect();
        let mut frame = vec![String::new(), self.progress(now), self.broken()];
        frame.extend(table::lines(&rows));
        frame.push(format!("latest page: {}", self.ledger.visits().latest));
        frame
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
