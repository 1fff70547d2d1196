//! One source of frames, a few readers.
//!
//! A reader is never waited for. Each has a short queue; one that lets it fill up is dropped, and its place is free at
//! that moment, whatever its connection still does. Frames are handed over whole, so what a reader has seen ends with a
//! whole one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::sync::Mutex;

/// Frames that a reader may be behind: some seconds, which a laptop that wakes up takes, and no more.
const BACKLOG: usize = 8;

#[derive(Clone)]
pub(crate) struct Clients(Arc<Mutex<State>>);

struct State {
    most: usize,
    closed: bool,
    /// The number of the next reader.
    next: u64,
    clients: Vec<Client>,
}

struct Client {
    number: u64,
    frames: VecDeque<Bytes>,
    waker: Option<Waker>,
}

/// Why nobody may join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are this many, the most there may be.
    Full(usize),
    Closed,
}

impl Clients {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(State { most, closed: false, next: 0, clients: Vec::new() })))
    }

    /// Takes a place until the reader is dropped, or is too slow. It begins with `first`.
    pub(crate) fn join(&self, first: Option<Bytes>) -> Result<Reader, Refused> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.clients.len() >= state.most {
            return Err(Refused::Full(state.most));
        }
        let number = state.next;
        state.next += 1;
        state.clients.push(Client { number, frames: first.into_iter().collect(), waker: None });
        drop(state);
        Ok(Reader { number, clients: self.clone() })
    }

    /// Gives a frame to every reader, and drops those that have not taken the last [`BACKLOG`] ones.
    pub(crate) fn send(&self, frame: &Bytes) {
        let mut wakers = Vec::new();
        let mut state = self.0.lock();
        state.clients.retain_mut(|client| {
            wakers.extend(client.waker.take());
            let keeps_up = client.frames.len() < BACKLOG;
            if keeps_up {
                client.frames.push_back(frame.clone());
            }
            keeps_up
        });
        drop(state);
        // Wakers are user code.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends every stream and lets nobody join any more.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let clients = std::mem::take(&mut state.clients);
        drop(state);
        clients.into_iter().filter_map(|client| client.waker).for_each(Waker::wake);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().clients.len()
    }
}

/// One reader's side.
pub(crate) struct Reader {
    number: u64,
    clients: Clients,
}

impl Reader {
    /// The next frame; `None` once this reader has been dropped, or everybody has.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut waker = Some(cx.waker().clone());
        let mut state = self.clients.0.lock();
        let Some(client) = state.clients.iter_mut().find(|client| client.number == self.number) else {
            return Poll::Ready(None);
        };
        let next = client.frames.pop_front();
        if next.is_none() {
            std::mem::swap(&mut client.waker, &mut waker);
        }
        drop(state);
        next.map_or(Poll::Pending, |frame| Poll::Ready(Some(frame)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.clients.0.lock();
        let place = state.clients.iter().position(|client| client.number == self.number);
        let gone = place.map(|place| state.clients.swap_remove(place));
        drop(state);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(reader: &mut Reader) -> Poll<Option<Bytes>> {
        reader.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn frame(n: usize) -> Bytes {
        Bytes::from(n.to_string())
    }

    #[test]
    fn a_slow_reader_loses_its_place_and_a_quick_one_gets_every_frame() {
        let clients = Clients::new(2);
        let (mut slow, mut quick) = (clients.join(None).expect("a place"), clients.join(None).expect("a place"));
        for n in 0..=BACKLOG {
            assert_eq!(clients.join(None).err(), Some(Refused::Full(2)), "before frame {n}");
            clients.send(&frame(n));
            assert_eq!(next(&mut quick), Poll::Ready(Some(frame(n))));
        }
        assert_eq!(clients.count(), 1, "the place is free before the slow one notices anything");
        assert_eq!(next(&mut slow), Poll::Ready(None));
        drop(slow);
        assert_eq!(clients.count(), 1, "and is given back once");
        assert!(clients.join(None).is_ok());
    }

    #[test]
    fn a_reader_that_goes_away_frees_its_place_at_once() {
        let clients = Clients::new(1);
        let reader = clients.join(Some(frame(0))).expect("a place");
        assert_eq!(clients.join(None).err(), Some(Refused::Full(1)));
        drop(reader);
        assert!(clients.join(None).is_ok());
    }

    #[test]
    fn closing_ends_every_stream_and_admits_nobody() {
        let clients = Clients::new(3);
        let mut reader = clients.join(None).expect("a place");
        assert_eq!(next(&mut reader), Poll::Pending);
        clients.close();
        assert_eq!(next(&mut reader), Poll::Ready(None));
        assert_eq!((clients.count(), clients.join(None).err()), (0, Some(Refused::Closed)));
    }
}
