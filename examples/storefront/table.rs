//! The live table: a row for each circuit, out of its snapshot, or, where there is none, for each supplier,
//! out of the ledger.

use std::collections::VecDeque;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use fusebox::Snapshot;

use crate::ledger::{Calls, Made};
use crate::schedule::Supplier;

const NOTHING: &str = "-";

pub(crate) struct Row {
    supplier: String,
    state: String,
    /// Calls that ended per second, refused ones included.
    rate: f64,
    error_rate: Option<f64>,
    p50: Option<Duration>,
    p99: Option<Duration>,
    in_flight: String,
    refused: String,
    fallbacks: String,
    next_probe: Option<Duration>,
}

impl Row {
    pub(crate) fn of_circuit(s: &Snapshot, pulse: &mut Pulse, now: Duration) -> Self {
        let lifetime = s.lifetime();
        Self {
            supplier: s.key().map_or_else(|| s.command().to_owned(), |key| format!("{}[{key}]", s.command())),
            state: match s.ramp() {
                Some(stage) => format!("ramp {:.0} %", stage.share * 100.0),
                None => s.state().to_string(),
            },
            rate: pulse.rate(now, lifetime.calls()),
            error_rate: s.error_rate(),
            p50: s.latency().percentile(0.5),
            p99: s.latency().percentile(0.99),
            in_flight: match s.limit() {
                Some(limit) => format!("{}/{limit}", s.in_flight()),
                None => s.in_flight().to_string(),
            },
            refused: lifetime.refused().to_string(),
            fallbacks: s.fallbacks().success.to_string(),
            next_probe: s.retry_after(),
        }
    }

    pub(crate) fn of_calls(
        supplier: Supplier,
        calls: &Calls,
        window: Duration,
        pulse: &mut Pulse,
        now: Duration,
    ) -> Self {
        let recent = || calls.ended.iter().rev().take_while(|call| call.ended + window >= now);
        let (count, errors) = (recent().count(), recent().filter(|call| !call.answered).count());
        let mut took: Vec<_> = recent().map(Made::took).collect();
        took.sort_unstable();
        let percentile = |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)));
        Self {
            supplier: supplier.to_string(),
            state: NOTHING.to_owned(),
            rate: pulse.rate(now, calls.ended.len() as u64),
            error_rate: (count > 0).then(|| errors as f64 / count as f64),
            p50: percentile(50).copied(),
            p99: percentile(99).copied(),
            in_flight: calls.in_flight.to_string(),
            refused: NOTHING.to_owned(),
            fallbacks: NOTHING.to_owned(),
            next_probe: None,
        }
    }

    fn cells(&self) -> [String; 10] {
        let time = |time: Option<Duration>| time.map_or_else(|| NOTHING.to_owned(), duration);
        [
            self.supplier.clone(),
            self.state.clone(),
            format!("{:.0}", self.rate),
            self.error_rate.map_or_else(|| NOTHING.to_owned(), |rate| format!("{:.0} %", rate * 100.0)),
            time(self.p50),
            time(self.p99),
            self.in_flight.clone(),
            self.refused.clone(),
            self.fallbacks.clone(),
            time(self.next_probe),
        ]
    }
}

/// How fast a count grows, over the last second. A rolling window would tell it less exactly: it moves in steps, so it
/// spans a little less than its length.
pub(crate) struct Pulse(VecDeque<(Duration, u64)>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self([(Duration::ZERO, 0)].into())
    }

    fn rate(&mut self, now: Duration, count: u64) -> f64 {
        self.0.push_back((now, count));
        while self.0.len() > 2 && self.0[1].0 + Duration::from_secs(1) <= now {
            self.0.pop_front();
        }
        let (then, before) = self.0[0];
        let span = now.saturating_sub(then).as_secs_f64();
        if span > 0.0 { count.saturating_sub(before) as f64 / span } else { 0.0 }
    }
}

/// Fits a terminal of 80 columns. Widths are fixed where they would vary, or the table would never stand still.
pub(crate) fn lines(rows: &[Row]) -> Vec<String> {
    let mut table = plain();
    table.add_row(["", "", "calls", "error", "", "", "in", "", "fall-", "  next"]);
    table.add_row(["supplier", "state    ", "/s", "rate", "   p50", "   p99", "flight", "refused", "backs", "probe"]);
    table.add_rows(rows.iter().map(Row::cells));
    text(table, 2)
}

/// A table without lines. Headers are rows like any other, which may then be two.
pub(crate) fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

/// The table as lines of text: after the first `words` columns come numbers, to the right.
pub(crate) fn text(mut table: Table, words: usize) -> Vec<String> {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if index >= words {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Three digits at most, with the unit.
pub(crate) fn duration(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..9_995.0 => format!("{:.2} s", millis / 1e3),
        _ => format!("{:.1} s", millis / 1e3),
    }
}

pub(crate) fn percent(part: usize, whole: usize) -> String {
    match whole {
        0 => NOTHING.to_owned(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}
