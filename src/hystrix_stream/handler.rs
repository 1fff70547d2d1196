//! The stream over HTTP.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tower_service::Service;

use super::frames::Frames;
use crate::registry::Registry;
use crate::sync::Mutex;
use crate::web::body::Body;
use crate::web::clients::{Clients, Reader, Refused};

/// As Hystrix has it.
const MAX_CLIENTS: usize = 5;

/// Serves the stream to a few readers at a time, whatever the path: a [`tower_service::Service`] that any HTTP server can
/// call. Clones share their readers.
///
/// The records are made once for all readers, by a task that runs only while there are any. A reader that falls eight
/// intervals behind is dropped, between two records; one that goes away frees its place at once.
///
/// | setting | default |
/// |---|---|
/// | [`max_clients`](Self::max_clients) | 5; the next gets a 503 that names the cap |
/// | [`interval`](Self::interval) | 500 ms |
///
/// # Panics
///
/// `call` panics outside a tokio runtime, as [`tokio::spawn`] does, and the task it spawns needs timers.
#[derive(Clone)]
pub struct Handler {
    registry: Registry,
    interval: Option<Duration>,
    clients: Clients,
    source: Arc<Mutex<bool>>,
}

impl Handler {
    /// Serves the commands of `registry`.
    pub fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            interval: None,
            clients: Clients::new(MAX_CLIENTS),
            source: Arc::new(Mutex::new(false)),
        }
    }

    /// How many may read at once. Clones made before keep their own readers and their own cap.
    pub fn max_clients(self, most: usize) -> Self {
        Self { clients: Clients::new(most), source: Arc::new(Mutex::new(false)), ..self }
    }

    /// How often there are records: see [`Frames::interval`].
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: Some(interval), ..self }
    }

    /// How many read now.
    pub fn clients(&self) -> usize {
        self.clients.count()
    }

    /// Ends all streams and answers 503 from now on: part of a graceful shutdown, which would wait for streams for ever.
    pub fn shut_down(&self) {
        self.clients.close();
    }

    fn respond(&self, method: &Method) -> Response<Body> {
        if method != Method::GET {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into());
        }
        match self.clients.join(None) {
            Ok(reader) => {
                self.start();
                stream(reader)
            }
            Err(Refused::Full(most)) => {
                let text = format!("{most} clients read this stream already, and max_clients is {most}\n");
                plain(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            Err(Refused::Closed) => plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into()),
        }
    }

    /// Starts the task that feeds the readers, unless it runs.
    fn start(&self) {
        if std::mem::replace(&mut *self.source.lock(), true) {
            return;
        }
        let frames = Frames::new(&self.registry);
        let frames = match self.interval {
            Some(interval) => frames.interval(interval),
            None => frames,
        };
        let source = Source { running: Arc::clone(&self.source), ended: false };
        tokio::spawn(feed(frames, self.clients.clone(), source));
    }
}

/// Feeds the readers for as long as there are any.
async fn feed(mut frames: Frames, clients: Clients, mut source: Source) {
    while let Some(frame) = frames.next().await {
        clients.send(&frame);
        // Under the lock that a reader which joins looks under: it finds a task that goes on, or none.
        let mut running = source.running.lock();
        if clients.count() == 0 {
            *running = false;
            drop(running);
            source.ended = true;
            return;
        }
    }
}

/// The task that feeds the readers. Should its runtime end it, the next reader starts another.
struct Source {
    running: Arc<Mutex<bool>>,
    /// It has said so itself, and another may run by now.
    ended: bool,
}

impl Drop for Source {
    fn drop(&mut self) {
        if !self.ended {
            *self.running.lock() = false;
        }
    }
}

fn stream(reader: Reader) -> Response<Body> {
    let mut response = Response::new(Body::from(reader));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream;charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, max-age=0, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // Proxies that collect a response before they pass it on would hold back the stream for ever.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

impl<B> Service<Request<B>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.respond(request.method())))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("clients", &self.clients()).finish_non_exhaustive()
    }
}
