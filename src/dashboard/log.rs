//! What happened: of all commands together, and the story of each.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::action::Audit;
use super::setting::words;
use crate::breaker::state::{RampStage, State};
use crate::observe::event::{Event, Report, Transition};
use crate::web::json::{Object, Value};

/// Entries of all commands that are kept.
const ALL: usize = 500;
/// Entries per command.
const EACH: usize = 50;
/// Changes of state per command, for the timeline.
const CHANGES: usize = 300;
/// Keys of one command that are not well.
const KEYS: usize = 1000;
/// How long a key is believed to be unwell that nothing was heard of, in milliseconds. Where there are calls there is a
/// probe each minute at least; without them there is no trouble, and the key may be gone.
const KEY_SILENCE: u64 = 10 * 60 * 1000;

/// One entry, as JSON. Shared by the lists that have it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) json: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    next: u64,
    all: VecDeque<Arc<Entry>>,
    /// By name: that is what events have.
    stories: HashMap<&'static str, Story>,
}

/// What is known of a command from its events. Commands of one name share a story.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) entries: VecDeque<Arc<Entry>>,
    /// When each state began, in milliseconds since the epoch.
    pub(super) timeline: VecDeque<(u64, State)>,
    /// The transition that opened the circuit, until it closes.
    pub(super) opening: Option<Arc<Entry>>,
    /// How often it has opened again since.
    pub(super) reopenings: u32,
    /// Settings that were changed live, and when.
    pub(super) changed: HashMap<&'static str, u64>,
    /// Of a keyed command: the keys whose circuits are not closed.
    pub(super) keys: BTreeMap<Arc<str>, Unwell>,
}

/// One key of a keyed command that is not well.
#[derive(Debug)]
pub(super) struct Unwell {
    pub(super) state: State,
    /// When its trouble began, and when it was last heard of, in milliseconds since the epoch.
    pub(super) since: u64,
    heard: u64,
    /// What began it.
    pub(super) cause: Arc<Entry>,
}

impl Log {
    /// Tells an event.
    pub(super) fn tell(&mut self, event: &Event, now: SystemTime) {
        let id = self.next_id();
        let entry = Arc::new(Entry { id, json: describe(id, event, now) });
        if let Some(command) = event.command() {
            self.stories.entry(command).or_default().follow(event, &entry);
        }
        self.push(entry);
    }

    /// Tells what an operator did, or was not allowed to do.
    pub(super) fn tell_action(&mut self, audit: &Audit) {
        let id = self.next_id();
        let mut json = Vec::new();
        Object::write(&mut json, |o| {
            o.field("id", id).field("at", millis(audit.at)).field("kind", "action");
            o.field("command", &*audit.command).field("key", audit.key.as_deref());
            o.field("text", &*audit.to_string()).field("action", audit.action.as_str()).field("reason", &*audit.reason);
            o.field("who", audit.who.as_deref()).field("allowed", audit.allowed);
        });
        let entry = Arc::new(Entry { id, json });
        if let Some(story) = self.stories.get_mut(&*audit.command) {
            story.push(Arc::clone(&entry));
        }
        self.push(entry);
    }

    /// The entries after the one numbered `id`, oldest first.
    pub(super) fn after(&self, id: u64) -> impl Iterator<Item = &Entry> {
        self.all.iter().map(|entry| &**entry).filter(move |entry| entry.id > id)
    }

    /// The number of the newest entry; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.next
    }

    pub(super) fn story(&self, command: &'static str) -> Option<&Story> {
        self.stories.get(command)
    }

    /// Forgets the stories of commands that are gone, and keys that nothing was heard of for long.
    pub(super) fn retain(&mut self, alive: &HashSet<&'static str>, now: SystemTime) {
        let now = millis(now);
        self.stories.retain(|command, story| {
            story.keys.retain(|_, key| now.saturating_sub(key.heard) < KEY_SILENCE);
            alive.contains(command)
        });
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn push(&mut self, entry: Arc<Entry>) {
        push(&mut self.all, entry, ALL);
    }
}

impl Story {
    fn follow(&mut self, event: &Event, entry: &Arc<Entry>) {
        match event {
            Event::Transition(transition) => self.follow_state(transition, entry),
            Event::Reconfigured { changes, at, .. } => {
                self.changed.extend(changes.iter().map(|change| (change.field, millis(*at))));
            }
            _ => {}
        }
        self.push(Arc::clone(entry));
    }

    fn follow_state(&mut self, transition: &Transition, entry: &Arc<Entry>) {
        let at = millis(transition.at);
        // What the registry has of a keyed command is the circuit that keys share: its story is that one's.
        if let Some(key) = transition.key.as_ref().filter(|key| &***key != "*") {
            return self.follow_key(key, transition.to, at, entry);
        }
        if self.timeline.is_empty() {
            let before = transition.at.checked_sub(transition.lasted).map_or(0, millis);
            self.timeline.push_back((before, transition.from));
        }
        push(&mut self.timeline, (at, transition.to), CHANGES);
        match (transition.from, transition.to) {
            (State::HalfOpen, State::Open) if self.opening.is_some() => self.reopenings += 1,
            (_, State::Open) => (self.opening, self.reopenings) = (Some(Arc::clone(entry)), 0),
            (_, State::Closed) => (self.opening, self.reopenings) = (None, 0),
            _ => {}
        }
    }

    fn follow_key(&mut self, key: &Arc<str>, state: State, at: u64, entry: &Arc<Entry>) {
        if state == State::Closed {
            self.keys.remove(key);
        } else if let Some(unwell) = self.keys.get_mut(key) {
            (unwell.state, unwell.heard) = (state, at);
        } else if self.keys.len() < KEYS {
            let unwell = Unwell { state, since: at, heard: at, cause: Arc::clone(entry) };
            self.keys.insert(Arc::clone(key), unwell);
        }
    }

    fn push(&mut self, entry: Arc<Entry>) {
        push(&mut self.entries, entry, EACH);
    }
}

fn push<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    if list.len() == most {
        list.pop_front();
    }
    list.push_back(item);
}

pub(super) fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn describe(id: u64, event: &Event, now: SystemTime) -> Vec<u8> {
    let mut json = Vec::new();
    Object::write(&mut json, |o| {
        o.field("id", id).field("command", event.command()).field("key", event.key());
        o.field("at", millis(event.at().unwrap_or(now))).field("kind", kind(event)).field("text", &*event.to_string());
        match event {
            Event::Transition(transition) => {
                o.field("from", transition.from.as_str()).field("to", transition.to.as_str());
                o.field("cause", transition.cause.as_str()).field("cause_text", &*transition.cause.to_string());
                o.field("lasted_ms", transition.lasted.as_millis() as u64);
                o.object("report", |o| report(o, &transition.report));
            }
            Event::OverrideSet { forced, reason, until, .. } => {
                o.field("state", forced.state().as_str()).field("reason", reason.as_str());
                o.field("until", until.map(millis));
            }
            Event::OverrideCleared { forced, reason, expired, .. } => {
                o.field("state", forced.state().as_str()).field("reason", reason.as_str()).field("expired", *expired);
            }
            Event::Reconfigured { changes, .. } => {
                o.list("changes", changes, |out, change| {
                    Object::write(out, |o| {
                        o.field("field", change.field);
                        o.field("before", &*words(&change.before)).field("after", &*words(&change.after));
                    });
                });
            }
            Event::ReloadRejected { reason, .. } => {
                o.field("reason", reason.as_str());
            }
            Event::LimitAdapted { before, after, .. } => {
                o.field("before", *before).field("after", *after);
            }
            Event::TimeoutAdapted { before, after, .. } => {
                o.field("before_us", before.map(micros)).field("after_us", micros(*after));
            }
            Event::LeaseExpired { .. } => {}
            Event::RampStage { stage, .. } => {
                o.object("stage", |o| ramp(o, stage));
            }
            Event::Missed(count) => {
                o.field("count", *count);
            }
        }
    });
    json
}

/// The name of a kind of event. The page has a word for each.
const fn kind(event: &Event) -> &'static str {
    match event {
        Event::Transition(_) => "transition",
        Event::OverrideSet { .. } => "override_set",
        Event::OverrideCleared { .. } => "override_cleared",
        Event::Reconfigured { .. } => "reconfigured",
        Event::ReloadRejected { .. } => "reload_rejected",
        Event::LimitAdapted { .. } => "limit_adapted",
        Event::TimeoutAdapted { .. } => "timeout_adapted",
        Event::LeaseExpired { .. } => "lease_expired",
        Event::RampStage { .. } => "ramp_stage",
        Event::Missed(_) => "missed",
    }
}

pub(super) fn ramp(o: &mut Object<'_>, stage: &RampStage) {
    o.field("number", stage.number).field("of", stage.of).field("share", stage.share);
}

fn report(o: &mut Object<'_>, report: &Report) {
    o.field("errors", report.health.errors).field("total", report.health.total).field("slow", report.health.slow);
    o.field("span_ms", report.span.as_millis() as u64);
    o.field("p50_us", report.p50.map(micros)).field("p99_us", report.p99.map(micros));
    o.field("oldest_ms", report.oldest_in_flight.map(|age| age.as_millis() as u64));
    o.field("wait_ms", report.wait.map(|wait| wait.as_millis() as u64));
    o.object("window", |o| {
        for (outcome, count) in report.window.iter().filter(|&(_, count)| count > 0) {
            o.field(outcome.as_str(), count);
        }
    });
}

/// An entry as it stands in a list.
pub(super) fn write(out: &mut Vec<u8>, entry: &Entry) {
    crate::web::json::Raw(&entry.json).write(out);
}

#[cfg(test)]
mod tests {
    /// A kind without a word would be shown as `undefined`; the match in `kind` has no arm for what it does not know.
    #[test]
    fn the_page_has_a_word_for_each_kind_of_event() {
        let (source, page) = (include_str!("log.rs"), include_str!("page/dashboard.js"));
        let (_, names) = source.split_once("const fn kind(").expect("it is there");
        let (names, _) = names.split_once("\n}").expect("it ends");
        let kinds: Vec<_> = names.split('"').skip(1).step_by(2).chain(["action"]).collect();
        assert_eq!(kinds.len(), names.matches("=>").count() + 1, "{kinds:?}");
        let (_, words) = page.split_once("const KINDS = {").expect("it is there");
        let (words, _) = words.split_once("};").expect("it ends");
        for kind in kinds {
            assert!(words.contains(&format!("\n  {kind}: {{ word: \"")), "{kind} has none");
        }
    }
}
