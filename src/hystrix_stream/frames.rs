//! The frames, at their interval.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

use super::record::{self, Served};
use crate::breaker::config::Window;
use crate::command::snapshot::Snapshot;
use crate::registry::Registry;
use crate::time::{Stamp, Timer, saturating_nanos, timer};

/// As Hystrix has it.
const INTERVAL: Duration = Duration::from_millis(500);
/// Faster, and reading would cost what is read.
const SHORTEST: Duration = Duration::from_millis(10);

/// Circuits of a keyed command that have records, beside the one that keys share. A record is about 2 KB.
const KEYS: usize = 100;

/// The records of all commands of a registry as a stream that never ends: the first at once, and then at each interval.
///
/// Each item is complete text of the event-stream format, `data: {..}` and a blank line per record and a `ping: ` line
/// at the end. A reader that comes late gets what is true then; nothing piles up.
///
/// ```
/// use futures::StreamExt;
/// use fusebox::{Command, Registry};
/// use fusebox::hystrix_stream::Frames;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fusebox::ConfigError> {
/// let registry = Registry::new();
/// let users = Command::builder("users").registry(&registry).build()?;
/// let frame = Frames::new(&registry).next().await.expect("it never ends");
/// assert!(frame.starts_with(br#"data: {"type":"HystrixCommand","name":"users""#));
/// assert!(frame.ends_with(b"ping: \n\n"));
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When polled for a second item outside a tokio runtime that has its timers enabled.
///
/// # Cancel safety
///
/// Dropping a `next()` loses nothing.
#[must_use = "a stream does nothing until it is polled"]
pub struct Frames {
    registry: Registry,
    interval: u64,
    timer: Option<Pin<Box<Timer>>>,
    /// By place on the roster, and name.
    fallbacks: HashMap<(u64, String), Rolling>,
}

impl Frames {
    /// The records of `registry`, every 500 ms.
    pub fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), interval: 0, timer: None, fallbacks: HashMap::new() }.interval(INTERVAL)
    }

    /// How often there are records; at least 10 ms, and what is shorter is taken as that.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: saturating_nanos(interval.max(SHORTEST)), ..self }
    }

    fn frame(&mut self, now: Stamp) -> Bytes {
        let (time, mut out) = (now.wall_clock(), Vec::new());
        let mut fallbacks = HashMap::new();
        for command in self.registry.commands() {
            let Some(&place) = command.core().family.place.get() else { continue };
            for snapshot in iter::once(command.snapshot()).chain(command.worst_keys(KEYS)) {
                let circuit = (place, record::name(&snapshot));
                let mut rolling = self.fallbacks.remove(&circuit).unwrap_or_default();
                let recent = rolling.follow(now, saturating_nanos(window(&snapshot)), Served::of(&snapshot));
                record::command(&mut out, &circuit.1, &snapshot, recent, time);
                record::pool(&mut out, &circuit.1, &snapshot, time);
                fallbacks.insert(circuit, rolling);
            }
        }
        // Those of commands that are gone go with this.
        self.fallbacks = fallbacks;
        out.extend_from_slice(b"ping: \n\n");
        out.into()
    }
}

/// The length of the rolling window; the 10 s of a window of the last n calls are those of its other outcomes.
pub(super) fn window(snapshot: &Snapshot) -> Duration {
    match snapshot.config().breaker.window {
        Window::Time { length, .. } => length,
        Window::Calls(_) => Duration::from_secs(10),
    }
}

impl Stream for Frames {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        if let Some(timer) = &mut this.timer {
            ready!(timer.as_mut().poll(cx));
        }
        let now = Stamp::now();
        this.timer = Some(Box::pin(timer(now, this.interval)));
        Poll::Ready(Some(this.frame(now)))
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("interval", &Duration::from_nanos(self.interval)).finish_non_exhaustive()
    }
}

/// What fallbacks did in the rolling window. A command has totals alone, so the window is made of what was read before:
/// it begins with the first reading.
#[derive(Default)]
struct Rolling(VecDeque<(Stamp, Served)>);

impl Rolling {
    fn follow(&mut self, now: Stamp, window: u64, latest: Served) -> Served {
        self.0.push_back((now, latest));
        // The newest of those that the window has left behind is where it begins.
        while self.0.get(1).is_some_and(|&(at, _)| now.nanos_since(at) >= window) {
            self.0.pop_front();
        }
        latest.since(self.0[0].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(success: u64) -> Served {
        Served { success, failure: 0, rejected: 0 }
    }

    #[test]
    fn fallbacks_leave_the_window_after_its_length() {
        let mut rolling = Rolling::default();
        let mut at = |seconds: u64, total| rolling.follow(Stamp::from_nanos(seconds), 10, served(total)).success;
        assert_eq!(at(0, 5), 0, "what was before the first reading is not known to be recent");
        assert_eq!((at(4, 7), at(9, 8), at(10, 8)), (2, 3, 3));
        assert_eq!((at(14, 9), at(20, 9), at(40, 9)), (2, 1, 0));
    }
}
