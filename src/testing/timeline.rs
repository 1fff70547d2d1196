//! What happened to a command, when, and why; and how that differs from what should have.

use std::fmt;
use std::time::{Duration, SystemTime};

use futures::{FutureExt, StreamExt};

use super::diff::{Line, diff};
use crate::command::Command;
use crate::keyed::Keyed;
use crate::observe::bus::Events;
use crate::observe::event::{Event, Transition};
use crate::registry::Registry;
use crate::sync::Mutex;
use crate::time::Stamp;

/// Records every event from its making on, with the time since then. It loses none, however many there are.
///
/// As text it has one line for each: the time, the command with its key, what happened, and why.
///
/// ```
/// use std::time::Duration;
/// use fusebox::testing::{Timeline, advance, advance_to_probe};
/// use fusebox::{Breaker, Command};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let db = Command::builder("db").breaker(Breaker::disabled().consecutive_failures(2).jitter(0.0)).build()?;
/// let timeline = Timeline::of(&db);
///
/// db.admit()?.fail();
/// advance(Duration::from_millis(20)).await;
/// db.admit()?.fail();
/// advance_to_probe(&db).await;
/// db.admit()?.succeed();
///
/// timeline.assert_eq("
///     20ms   db: closed -> open: 2 errors in a row
///     5.02s  db: open -> half_open: the wait was over
///     5.02s  db: half_open -> closed: the probe passed
/// ");
/// # Ok(())
/// # }
/// ```
pub struct Timeline {
    begun: SystemTime,
    record: Mutex<Record>,
}

struct Record {
    /// Those that were not looked at yet.
    events: Events,
    entries: Vec<Entry>,
}

/// An event on a [`Timeline`]. `Display` puts it in one line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// When it happened, since the timeline was made.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

/// What there can be a [`Timeline`] of: a [`Command`], a [`Keyed`] command, or a [`Registry`] with all its commands.
pub trait Observed: Sealed {}

impl<C> Observed for Command<C> {}
impl<K, C> Observed for Keyed<K, C> {}
impl Observed for Registry {}

/// Only this crate can lose no event.
pub trait Sealed {
    /// The events from now on, however far behind their reader is.
    fn record(&self) -> Events;
}

impl<C> Sealed for Command<C> {
    fn record(&self) -> Events {
        self.core().family.bus.subscribe_within(usize::MAX)
    }
}

impl<K, C> Sealed for Keyed<K, C> {
    fn record(&self) -> Events {
        self.overflow().record()
    }
}

impl Sealed for Registry {
    fn record(&self) -> Events {
        self.roster.bus.subscribe_within(usize::MAX)
    }
}

impl Timeline {
    /// Begins to record the events of a command, of all keys of a keyed one, or of all commands of a registry. In the
    /// [global](Registry::global) one are also those of tests that run at the same time.
    pub fn of(observed: &impl Observed) -> Self {
        let record = Record { events: observed.record(), entries: Vec::new() };
        Self { begun: Stamp::now().wall_clock(), record: Mutex::new(record) }
    }

    /// All events so far.
    pub fn entries(&self) -> Vec<Entry> {
        let mut record = self.record.lock();
        let Record { events, entries } = &mut *record;
        while let Some(event) = events.next().now_or_never().flatten() {
            let at = event.at().and_then(|at| at.duration_since(self.begun).ok()).unwrap_or_default();
            entries.push(Entry { at, event });
        }
        entries.clone()
    }

    /// The changes of state among them.
    pub fn transitions(&self) -> Vec<Transition> {
        let transition = |entry: Entry| match entry.event {
            Event::Transition(transition) => Some(transition),
            _ => None,
        };
        self.entries().into_iter().filter_map(transition).collect()
    }

    /// Asserts that this is what has happened so far, and nothing else, line by line. How much white space is between
    /// words, and around lines, does not matter, nor do empty lines; `""` is that nothing has happened.
    ///
    /// # Panics
    ///
    /// If something else has happened. The message has both, as a difference that can be read, and pasted.
    #[track_caller]
    pub fn assert_eq(&self, expected: &str) {
        let came: Vec<_> = self.entries().iter().map(|entry| words(&entry.to_string())).collect();
        let expected: Vec<_> = expected.lines().map(words).filter(|line| !line.is_empty()).collect();
        assert!(expected == came, "{}", complaint(&diff(&expected, &came)));
    }
}

/// Its words, with one space between them.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn complaint(lines: &[Line<'_>]) -> String {
    let time = |line: &str| line.split_once(' ').map_or(0, |(time, _)| time.chars().count());
    let parts = lines.iter().map(|&line| match line {
        Line::Both(line) => (' ', line),
        Line::Expected(line) => ('-', line),
        Line::Came(line) => ('+', line),
    });
    let parts: Vec<_> = parts.collect();
    let width = parts.iter().map(|(_, line)| time(line)).max().unwrap_or_default();
    let mut text = String::from("the timeline is not as expected (- expected, + happened):\n");
    for (sign, line) in parts {
        let (time, event) = line.split_once(' ').unwrap_or((line, ""));
        text.push_str(format!("\n{sign}   {time:<width$}  {event}").trim_end());
    }
    text.push('\n');
    text
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, event } = self;
        if at.is_zero() { write!(f, "0ms {event:#}") } else { write!(f, "{at:?} {event:#}") }
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries().iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}
