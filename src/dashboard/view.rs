//! What is known, as JSON.

use std::time::Duration;

use super::collector::{Board, Track};
use super::history::{LENGTH, Sample};
use super::log::{self, Story, micros, millis};
use super::setting::settings;
use crate::breaker::state::State;
use crate::command::snapshot::Snapshot;
use crate::web::json::{Object, Raw, Value};

/// Seconds of history on a card.
const ON_A_CARD: usize = 120;
/// Keys that are named on a card; the others are counted.
const KEYS: usize = 5;
/// Keys of which a command's own page has the figures.
pub(super) const KEYS_IN_FULL: usize = 100;
/// Entries of the log that a page begins with.
const ENTRIES: usize = 200;

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One second's message: every command, and what is new in the log.
pub(super) fn tick(out: &mut Vec<u8>, board: &Board, sent: u64) {
    Object::write(out, |o| {
        head(o, board);
        o.list("commands", &board.tracks, |out, (&id, track)| {
            Object::write(out, |o| card(o, id, track, board.log.story(track.snapshot.command())));
        });
        o.list("events", board.log.after(sent), log::write);
    });
}

/// Everything a page needs to begin with. `actions` is what the one who asks may do.
pub(super) fn snapshot(out: &mut Vec<u8>, board: &Board, actions: &'static str) {
    Object::write(out, |o| {
        head(o, board);
        o.field("version", env!("CARGO_PKG_VERSION")).field("actions", actions);
        o.list("commands", &board.tracks, |out, (&id, track)| {
            Object::write(out, |o| {
                card(o, id, track, board.log.story(track.snapshot.command()));
                o.object("recent", |o| {
                    series(o, "ok", track, ON_A_CARD, |s| s.ok);
                    series(o, "failed", track, ON_A_CARD, |s| s.failed);
                    series(o, "refused", track, ON_A_CARD, |s| s.refused);
                });
            });
        });
        o.list("events", board.log.after(board.log.newest().saturating_sub(ENTRIES as u64)), log::write);
    });
}

/// Everything about one command; `None` when there is none of this number.
pub(super) fn command(out: &mut Vec<u8>, board: &Board, id: u64, keys: &[Snapshot]) -> Option<()> {
    let track = board.tracks.get(&id)?;
    let story = board.log.story(track.snapshot.command());
    Object::write(out, |o| {
        head(o, board);
        o.object("command", |o| card(o, id, track, story));
        o.list("keys", keys, |out, snapshot| {
            Object::write(out, |o| key(o, snapshot));
        });
        o.object("history", |o| {
            series(o, "ok", track, LENGTH, |s| s.ok);
            series(o, "failed", track, LENGTH, |s| s.failed);
            series(o, "refused", track, LENGTH, |s| s.refused);
            series(o, "served", track, LENGTH, |s| s.served);
            series(o, "p50_us", track, LENGTH, |s| s.p50);
            series(o, "p99_us", track, LENGTH, |s| s.p99);
            series(o, "in_flight", track, LENGTH, |s| s.in_flight);
            o.list("state", track.history.last(LENGTH), |out, sample| {
                let state = State::ALL.get(usize::from(sample.state)).map(|state| state.as_str());
                state.write(out);
            });
        });
        o.list("timeline", story.iter().flat_map(|story| &story.timeline), |out, &(at, state)| {
            Object::write(out, |o| {
                o.field("at", at).field("state", state.as_str());
            });
        });
        o.list("histogram", track.snapshot.latency().buckets(), |out, (took, calls)| {
            Object::write(out, |o| {
                o.field("from_us", micros(took.start)).field("to_us", micros(took.end)).field("calls", calls);
            });
        });
        o.object("lifetime", |o| {
            for (outcome, count) in track.snapshot.lifetime().iter() {
                o.field(outcome.as_str(), count);
            }
            o.field("late", track.snapshot.late_outcomes());
        });
        o.list("config", settings(track, story), |out, setting| {
            Object::write(out, |o| {
                o.field("field", setting.field).field("value", &*setting.value).field("default", &*setting.default);
                o.field("source", setting.source).field("changed_at", setting.changed_at);
            });
        });
        o.list("events", story.iter().flat_map(|story| &story.entries), |out, entry| log::write(out, entry));
    });
    Some(())
}

fn head(o: &mut Object<'_>, board: &Board) {
    o.field("instance", board.instance).field("tick", board.tick).field("now", millis(board.now));
}

fn series(o: &mut Object<'_>, key: &'static str, track: &Track, seconds: usize, of: fn(Sample) -> u32) {
    o.list(key, track.history.last(seconds), |out, sample| of(sample).write(out));
}

/// What a card shows.
fn card(o: &mut Object<'_>, id: u64, track: &Track, story: Option<&Story>) {
    let (snapshot, second) = (&track.snapshot, track.history.latest());
    o.field("id", id).field("name", snapshot.command()).field("group", snapshot.group());
    o.field("state", snapshot.state().as_str()).field("since", millis(track.since));
    standing(o, snapshot);
    o.object("second", |o| {
        o.field("ok", second.ok).field("failed", second.failed).field("refused", second.refused);
        o.field("other", second.other).field("served", second.served);
    });
    let (health, breaker) = (snapshot.health(), &snapshot.config().breaker);
    o.object("health", |o| {
        o.field("errors", health.errors).field("total", health.total).field("slow", health.slow);
        o.field("min_calls", breaker.min_calls).field("threshold", breaker.error_rate);
        o.field("consecutive_failures", breaker.consecutive_failures);
    });
    o.field("error_rate", snapshot.error_rate()).field("rate", snapshot.rate());
    let latency = snapshot.latency();
    o.object("latency", |o| {
        for (key, q) in [("p50_us", 0.5), ("p95_us", 0.95), ("p99_us", 0.99)] {
            o.field(key, latency.percentile(q).map(micros));
        }
        o.field("max_us", latency.max().map(micros));
    });
    o.field("timeout_ms", snapshot.timeout().map(milliseconds));
    o.field("in_flight", snapshot.in_flight())
        .field("limit", snapshot.limit())
        .field("queued", snapshot.queue_length());
    o.field("oldest_ms", snapshot.oldest_in_flight().map(milliseconds));
    // What opened the circuit, for as long as it has not closed again.
    let opening = story.and_then(|story| story.opening.as_ref());
    o.field("opening", opening.map(|entry| Raw(&entry.json)));
    o.field("reopenings", story.map_or(0, |story| story.reopenings));
    o.field("keys_total", track.keys);
    o.field("keys_unwell", story.map_or(0, |story| story.keys.len()));
    o.list("keys", story.iter().flat_map(|story| &story.keys).take(KEYS), |out, (key, unwell)| {
        Object::write(out, |o| {
            o.field("key", &**key).field("state", unwell.state.as_str()).field("since", unwell.since);
            o.field("cause", Raw(&unwell.cause.json));
        });
    });
}

/// One circuit of a keyed command.
fn key(o: &mut Object<'_>, snapshot: &Snapshot) {
    o.field("key", snapshot.key()).field("state", snapshot.state().as_str());
    o.field("rate", snapshot.rate()).field("calls", snapshot.window().calls());
    o.field("errors", snapshot.window().errors()).field("error_rate", snapshot.error_rate());
    o.field("in_flight", snapshot.in_flight())
        .field("limit", snapshot.limit())
        .field("queued", snapshot.queue_length());
    o.field("p99_us", snapshot.latency().percentile(0.99).map(micros));
    standing(o, snapshot);
}

/// What is being done with a circuit that is not closed.
fn standing(o: &mut Object<'_>, snapshot: &Snapshot) {
    o.field("retry_after_ms", snapshot.retry_after().map(milliseconds));
    match snapshot.ramp() {
        Some(stage) => o.object("ramp", |o| log::ramp(o, &stage)),
        None => o.field("ramp", None::<u32>),
    };
    match snapshot.hold() {
        Some(hold) => o.object("hold", |o| {
            o.field("state", hold.forced.state().as_str()).field("reason", hold.reason.as_str());
            o.field("expires_in_ms", hold.expires_in.map(milliseconds));
        }),
        None => o.field("hold", None::<u32>),
    };
}
