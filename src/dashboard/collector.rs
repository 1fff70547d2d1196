//! Reads every command once a second, for all who look together.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};

use super::action::Audit;
use super::history::History;
use super::log::Log;
use super::view;
use crate::breaker::state::State;
use crate::command::Command;
use crate::command::family::Family;
use crate::command::snapshot::Snapshot;
use crate::config::Checked;
use crate::observe::bus::Events;
use crate::registry::Registry;
use crate::sync::Mutex;
use crate::time::{Stamp, timer};
use crate::web::clients::Clients;

const SECOND: u64 = 1_000_000_000;

/// What all handles of one dashboard share.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) clients: Clients,
    board: Mutex<Board>,
    /// Whether a task collects.
    collecting: Mutex<bool>,
}

/// What is known.
pub(super) struct Board {
    /// Tells a page that it talks to another process than before.
    pub(super) instance: u64,
    pub(super) tick: u64,
    pub(super) now: SystemTime,
    /// By place on the roster: names need not be distinct.
    pub(super) tracks: BTreeMap<u64, Track>,
    pub(super) log: Log,
    events: Events,
    /// The newest entry of the log that has been sent.
    sent: u64,
    /// When there was a tick, by the monotonic clock.
    last: Option<Stamp>,
    /// What the stream sent last: a new reader begins with it.
    frame: Option<Bytes>,
}

/// A command's place on the roster, itself with the number of its keys, and its family.
type Look<'a> = (u64, (Snapshot, Option<usize>), &'a Arc<Family>);

/// One command.
pub(super) struct Track {
    /// With the figures of its keys, if it has keys.
    pub(super) snapshot: Snapshot,
    /// How many keys it has; `None` for a command without.
    pub(super) keys: Option<usize>,
    /// What the builder said.
    pub(super) built: Arc<Checked>,
    pub(super) history: History,
    /// When its present state was first seen, or began.
    pub(super) since: SystemTime,
}

impl Shared {
    pub(super) fn new(registry: &Registry, max_clients: usize) -> Arc<Self> {
        Arc::new(Self {
            registry: registry.clone(),
            clients: Clients::new(max_clients),
            board: Mutex::new(Board {
                instance: fastrand::u64(..1 << 53),
                tick: 0,
                now: Stamp::now().wall_clock(),
                tracks: BTreeMap::new(),
                log: Log::default(),
                events: registry.subscribe(),
                sent: 0,
                last: None,
                frame: None,
            }),
            collecting: Mutex::new(false),
        })
    }

    /// Starts the task that collects, unless it runs or there is no runtime yet.
    pub(super) fn collect(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if std::mem::replace(&mut *self.collecting.lock(), true) {
            return;
        }
        // The first look is here, so that whoever has just built the dashboard finds something.
        let now = Stamp::now();
        self.look(now);
        runtime.spawn(run(Collector(Arc::downgrade(self)), now));
    }

    /// What is known, for a response.
    pub(super) fn board<T>(&self, read: impl FnOnce(&Board) -> T) -> T {
        read(&self.board.lock())
    }

    /// The command of this place on the roster.
    pub(super) fn command(&self, place: u64) -> Option<Command> {
        self.registry.commands().into_iter().find(|command| command.core().family.place.get() == Some(&place))
    }

    pub(super) fn latest_frame(&self) -> Option<Bytes> {
        self.board.lock().frame.clone()
    }

    pub(super) fn tell_action(&self, audit: &Audit) {
        self.board.lock().log.tell_action(audit);
    }

    /// One look at everything.
    fn look(&self, now: Stamp) {
        // Handles are dropped after the lock: the last one of a command takes listeners with it, which are user code.
        let commands = self.registry.commands();
        let looks = commands.iter().filter_map(|command| {
            let family = &command.core().family;
            Some((*family.place.get()?, command.overview(), family))
        });
        let mut board = self.board.lock();
        board.follow(now, looks);
        let frame = Bytes::from(board.next_frame());
        board.frame = Some(frame.clone());
        drop(board);
        self.clients.send(&frame);
    }
}

impl Board {
    fn follow<'a>(&mut self, now: Stamp, looks: impl Iterator<Item = Look<'a>>) {
        let elapsed = self.last.map_or(SECOND, |last| now.nanos_since(last));
        // A process that was stopped for a while has seconds of which it knows nothing.
        let missed =
            usize::try_from(elapsed.saturating_add(SECOND / 2) / SECOND).unwrap_or(usize::MAX).saturating_sub(1);
        (self.last, self.now, self.tick) = (Some(now), now.wall_clock(), self.tick + 1);
        while let Some(event) = self.events.next().now_or_never().flatten() {
            self.log.tell(&event, self.now);
        }
        let mut before = std::mem::take(&mut self.tracks);
        for (place, (snapshot, keys), family) in looks {
            let track = match before.remove(&place) {
                Some(track) => track.follow(snapshot, keys, missed, self.now),
                None => Track {
                    built: family.as_built(),
                    history: History::begin(&snapshot),
                    snapshot,
                    keys,
                    since: self.now,
                },
            };
            self.tracks.insert(place, track);
        }
        let alive: HashSet<_> = self.tracks.values().map(|track| track.snapshot.command()).collect();
        self.log.retain(&alive, self.now);
        for track in self.tracks.values_mut() {
            let story = self.log.story(track.snapshot.command());
            // The event knows to the millisecond what a look knows to the second. Two commands of one name share a
            // story; then the state must fit at least.
            if let Some(&(at, state)) = story.and_then(|story| story.timeline.back()) {
                if state == track.snapshot.state() {
                    track.since = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(at);
                }
            }
        }
    }

    fn next_frame(&mut self) -> Vec<u8> {
        let mut frame = b"data: ".to_vec();
        view::tick(&mut frame, self, self.sent);
        frame.extend_from_slice(b"\n\n");
        self.sent = self.log.newest();
        frame
    }
}

impl Track {
    fn follow(mut self, snapshot: Snapshot, keys: Option<usize>, missed: usize, now: SystemTime) -> Self {
        self.history.follow(&snapshot, missed);
        let since = if self.state() == snapshot.state() { self.since } else { now };
        Self { snapshot, keys, since, ..self }
    }

    pub(super) fn state(&self) -> State {
        self.snapshot.state()
    }
}

/// The task that collects. It keeps nothing alive, and says when it ends: should its runtime end it, the next request
/// starts another.
struct Collector(Weak<Shared>);

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            *shared.collecting.lock() = false;
        }
    }
}

async fn run(collector: Collector, mut last: Stamp) {
    loop {
        timer(last, SECOND).await;
        let Some(shared) = collector.0.upgrade() else { return };
        let now = Stamp::now();
        shared.look(now);
        // At an even pace, but what was missed is not made up for.
        last = if now.nanos_since(last) < 2 * SECOND { last.plus(SECOND) } else { now };
    }
}
