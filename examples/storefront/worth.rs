//! What a run was worth, in figures. Everything is counted from the ledger, by the same rules for both runs.

use std::collections::HashMap;
use std::time::Duration;

use fusebox::State;
use hdrhistogram::Histogram;

use crate::ledger::{DEADLINE, Kind, Visit};
use crate::run::{Change, Hedges, Run};
use crate::schedule::{Act, LENGTH, Pace, STORY};

pub(crate) struct Worth {
    pub(crate) pages: usize,
    /// Complete and within the deadline; `live` of them without any fallback.
    pub(crate) in_time: usize,
    pub(crate) live: usize,
    /// Complete, after the deadline.
    pub(crate) late: usize,
    /// With an error on the page.
    pub(crate) failed: usize,
    /// From the intended start to the whole page, errors included.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) calls: usize,
    /// Calls that were made and brought no answer, and the time that was spent on them.
    pub(crate) wasted: usize,
    pub(crate) wasted_time: Duration,
    pub(crate) refused: u64,
    pub(crate) hedges: Hedges,
    pub(crate) most_in_flight: usize,
    /// In the order of [`STORY`].
    pub(crate) tolls: Vec<Toll>,
}

/// What one fault cost, aftermath included: everything from its start to the supplier's next fault.
pub(crate) struct Toll {
    /// Pages on which the supplier's part was late or an error.
    pub(crate) lost: usize,
    /// Pages on which something stood in for it.
    pub(crate) fallbacks: usize,
    pub(crate) wasted: usize,
    /// Start of the fault to the opening of the circuit; of several, the first.
    pub(crate) opened: Option<Duration>,
    /// End of the fault to the first page with this supplier's own answer in time.
    pub(crate) good_again: Option<Duration>,
    /// End of the fault to the closing of the circuit that lasted; zero if it was closed by then. Of several, the last.
    pub(crate) closed: Option<Duration>,
}

impl Worth {
    pub(crate) fn of(run: &Run, pace: Pace) -> Self {
        let took = latencies(&run.visits);
        let percentile = |q| Duration::from_micros(took.value_at_quantile(q));
        let count = |which: fn(&Visit) -> bool| run.visits.iter().filter(|visit| which(visit)).count();
        let made = || run.calls.iter().flat_map(|calls| &calls.ended);
        let wasted = || made().filter(|call| !call.answered);
        Self {
            pages: run.visits.len(),
            in_time: count(Visit::is_in_time),
            live: count(|visit| visit.is_in_time() && visit.parts.iter().all(|part| part.kind == Kind::Live)),
            late: count(|visit| visit.is_complete() && !visit.is_in_time()),
            failed: count(|visit| !visit.is_complete()),
            p50: percentile(0.5),
            p99: percentile(0.99),
            p999: percentile(0.999),
            calls: made().count(),
            wasted: wasted().count(),
            wasted_time: wasted().map(|call| call.took()).sum(),
            refused: run.refused,
            hedges: run.hedges,
            most_in_flight: run.calls.iter().map(|calls| calls.most_in_flight).max().unwrap_or(0),
            tolls: STORY.iter().map(|act| Toll::of(act, run, pace)).collect(),
        }
    }
}

impl Toll {
    fn of(act: &Act, run: &Run, pace: Pace) -> Self {
        let next = STORY
            .iter()
            .filter(|other| other.supplier == act.supplier && other.span.start > act.span.start)
            .map(|other| other.span.start)
            .fold(LENGTH, f64::min);
        let [start, end, next] = [act.span.start, act.span.end, next].map(|at| pace.of(at));
        let aftermath = start..next;

        let parts = || run.visits.iter().map(|visit| (visit.intended, visit.parts[act.supplier as usize]));
        let affected = || parts().filter(|(intended, _)| aftermath.contains(intended)).map(|(_, part)| part);
        let lost = affected().filter(|part| part.kind == Kind::Failed || part.after > DEADLINE);
        let fallbacks = affected().filter(|part| part.kind == Kind::Fallback);
        let good = parts().filter(|(_, part)| part.kind == Kind::Live && part.after <= DEADLINE);
        let wasted = run.calls[act.supplier as usize]
            .ended
            .iter()
            .filter(|call| !call.answered && aftermath.contains(&call.started));
        let changes =
            || run.changes.iter().filter(|change| change.supplier == act.supplier && aftermath.contains(&change.at));
        Self {
            lost: lost.count(),
            fallbacks: fallbacks.count(),
            wasted: wasted.count(),
            good_again: good.filter_map(|(intended, part)| (intended + part.after).checked_sub(end)).min(),
            closed: all_closed(changes()).map(|at| at.saturating_sub(end)),
            opened: changes().find(|change| change.to == State::Open).map(|change| change.at - start),
        }
    }
}

/// When the last of these circuits closed, if all did.
fn all_closed<'r>(changes: impl Iterator<Item = &'r Change>) -> Option<Duration> {
    let last: HashMap<_, _> = changes.map(|change| (&change.key, change)).collect();
    last.values().all(|change| change.to == State::Closed).then(|| last.values().map(|change| change.at).max())?
}

fn latencies(visits: &[Visit]) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three significant digits are allowed");
    for visit in visits {
        histogram.record(visit.took.as_micros() as u64).expect("it grows as needed");
    }
    histogram
}
