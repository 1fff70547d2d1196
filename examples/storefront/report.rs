//! The reckoning: what the commands were worth, without and with them side by side, and which figures decide.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::args::Args;
use crate::ledger::DEADLINE;
use crate::run::{Protection, Run};
use crate::schedule::{LENGTH, STORY};
use crate::table::{self, duration, percent};
use crate::worth::{Toll, Worth};

/// What is about to happen.
pub(crate) fn prologue(args: &Args, metrics: SocketAddr, dashboard: SocketAddr) -> String {
    format!(
        "storefront: {} faults of three suppliers in {:.1} s, first without commands, then with\n\
         {} pages per second, each with a deadline of {DEADLINE:?}; seed {}\n\
         dashboard: http://{dashboard}/ (and hystrix.stream)\n\
         metrics: http://{metrics}/metrics\n",
        STORY.len(),
        args.pace.of(LENGTH).as_secs_f64(),
        args.rate,
        args.seed,
    )
}

/// What came of it, and whether the run with commands was the better one.
pub(crate) fn epilogue(args: &Args, without: &Run, with: Option<&Run>) -> (String, bool) {
    let whole = without.is_whole() && with.is_some_and(Run::is_whole);
    let (without, with) = (Worth::of(without, args.pace), with.map(|run| Worth::of(run, args.pace)));
    let mut text = String::from("== what the commands were worth ==\n\n");
    text += &figures(&without, with.as_ref());
    let Some(with) = with.filter(|_| whole) else {
        text += "\nThe story was cut short: these are the figures so far, and no verdict.";
        return (text, false);
    };
    text += "\nFault by fault, aftermath included\n\n";
    text += &faults(args, &without, &with);
    text += "\nWhat decides\n\n";
    let better = verdict(&without, &with, &mut text);
    (text, better)
}

fn figures(without: &Worth, with: Option<&Worth>) -> String {
    let mut table = table::plain();
    let labels = [Protection::None, Protection::Commands].map(Protection::label);
    table.add_row(["", labels[0], with.map_or("", |_| labels[1])]);
    let mut row = |name: &str, figure: &dyn Fn(&Worth) -> String| {
        table.add_row([name.to_owned(), figure(without), with.map_or_else(String::new, figure)]);
    };
    let share = |count: usize, of: &Worth| format!("{count} {:>7}", percent(count, of.pages));
    row("pages asked for", &|w| w.pages.to_string());
    row("answered in time", &|w| share(w.in_time, w));
    row("  with every supplier's own answer", &|w| share(w.live, w));
    row("  with a fallback", &|w| share(w.in_time - w.live, w));
    row("too late", &|w| share(w.late, w));
    row("with an error on the page", &|w| share(w.failed, w));
    row("page latency p50", &|w| duration(w.p50));
    row("page latency p99", &|w| duration(w.p99));
    row("page latency p99.9", &|w| duration(w.p999));
    row("calls made to suppliers", &|w| w.calls.to_string());
    row("  wasted: they brought no answer", &|w| w.wasted.to_string());
    row("  time spent waiting for those", &|w| duration(w.wasted_time));
    row("calls refused instead", &|w| w.refused.to_string());
    row("hedges sent", &|w| w.hedges.sent.to_string());
    row("  that brought the answer", &|w| w.hedges.won.to_string());
    row("most calls in flight to one supplier", &|w| w.most_in_flight.to_string());
    lines(table, 1) + "\nAn error could be caught without a command as well; being late could not.\n"
}

fn faults(args: &Args, without: &Worth, with: &Worth) -> String {
    let mut table = table::plain();
    table.add_row(["", "", "", "pages", "lost", "fall-", "calls", "wasted", "good", "again", "circuit", ""]);
    table
        .add_row(["at", "supplier", "fault", "w/o", "with", "backs", "w/o", "with", "w/o", "with", "opened", "closed"]);
    let after = |time: Option<Duration>| match time {
        None => "-".to_owned(),
        Some(Duration::ZERO) => "by then".to_owned(),
        Some(time) => format!("+{}", duration(time)),
    };
    for ((act, before), toll) in STORY.iter().zip(&without.tolls).zip(&with.tolls) {
        let Toll { lost, fallbacks, wasted, opened, good_again, closed } = toll;
        table.add_row([
            format!("{:.1} s", args.pace.of(act.span.start).as_secs_f64()),
            act.supplier.to_string(),
            act.fault.to_string(),
            before.lost.to_string(),
            lost.to_string(),
            fallbacks.to_string(),
            before.wasted.to_string(),
            wasted.to_string(),
            after(before.good_again),
            after(*good_again),
            after(*opened),
            after(*closed),
        ]);
    }
    lines(table, 3)
        + "\nLost: late, or an error in this supplier's place. Fallbacks: pages on which one stood there instead.\n\
           Opened: from the start of the fault, the time to detect. Good page again, closed: from its end, the\n\
           time to recover. Until the circuit closes fallbacks stand in, also where the supplier would have\n\
           answered: what a circuit costs. Of stock's circuits, the first to open and the last to close.\n"
}

/// The three figures that a shop would buy commands for. All must be better.
fn verdict(without: &Worth, with: &Worth, text: &mut String) -> bool {
    let share = |w: &Worth| percent(w.in_time, w.pages);
    let decisions = [
        ("pages in time", share(without), share(with), with.in_time > without.in_time),
        ("page latency p99", duration(without.p99), duration(with.p99), with.p99 < without.p99),
        ("wasted calls", without.wasted.to_string(), with.wasted.to_string(), with.wasted < without.wasted),
    ];
    for (figure, before, after, better) in &decisions {
        let verdict = if *better { "better" } else { "NOT BETTER" };
        let _ = writeln!(text, "  {figure:<17} {before:>8} -> {after:<8} {verdict}");
    }
    let better = decisions.iter().all(|(.., better)| *better);
    let verdict = if better { "was" } else { "was NOT" };
    let _ = write!(text, "\nThe run with commands {verdict} the better one.");
    better
}

fn lines(table: comfy_table::Table, words: usize) -> String {
    table::text(table, words).iter().fold(String::new(), |text, line| text + line + "\n")
}
