//! A supplier: a real HTTP/1 server on loopback that breaks on cue.
//!
//! Faults that are only simulated miss what makes them hurt: half-open sockets, resets, ports where nobody listens. So
//! each fault here happens on the wire, and the client meets what it would meet in production. Latencies and errors are
//! drawn from the seed and the number of the visit, so that a visitor finds the same supplier with and without
//! commands. Only which requests stall is drawn for each request: a second attempt has another fate.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::schedule::{Fault, Pace, Supplier};
use crate::shop::{ITEMS, list_price, warehouse_of};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A running supplier.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stage: watch::Sender<Arc<Stage>>,
}

/// What the script asks for at present, and what has come since it does.
struct Stage {
    fault: Option<Fault>,
    since: Instant,
    requests: AtomicU64,
    /// Spent on answers, in nanoseconds.
    worked: AtomicU64,
}

impl Stage {
    fn new(fault: Option<Fault>) -> Arc<Self> {
        Arc::new(Self { fault, since: Instant::now(), requests: AtomicU64::new(0), worked: AtomicU64::new(0) })
    }
}

impl Server {
    /// Starts listening. The server ends with its task in `servers`, and only then.
    pub(crate) async fn start(
        manner: Manner,
        port: u16,
        servers: &mut JoinSet<io::Result<Infallible>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot listen on port {port}: {error}", manner.supplier))
        })?;
        let address = listener.local_addr()?;
        let (stage, staged) = watch::channel(Stage::new(None));
        servers.spawn(serve(listener, address, staged, manner));
        Ok(Self { address, stage })
    }

    pub(crate) fn set(&self, fault: Option<Fault>) {
        self.stage.send_replace(Stage::new(fault));
    }
}

async fn serve(
    mut listener: TcpListener,
    address: SocketAddr,
    mut stage: watch::Receiver<Arc<Stage>>,
    manner: Manner,
) -> io::Result<Infallible> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(answer(stream, stage.clone(), manner));
                }
                // Out of sockets, most likely: some will be given back.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            Ok(()) = stage.changed() => {
                if stage.borrow_and_update().fault == Some(Fault::Refused) {
                    drop(listener);
                    connections.shutdown().await;
                    listener = absent(address, &mut stage).await?;
                }
            }
        }
    }
}

/// Listens again when the fault is over. Meanwhile the port is bound and nobody listens on it: connections are refused,
/// and the port cannot be given to somebody else, least of all to a client that would then connect to itself.
async fn absent(address: SocketAddr, stage: &mut watch::Receiver<Arc<Stage>>) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let _ = stage.wait_for(|stage| stage.fault != Some(Fault::Refused)).await;
    socket.listen(1024)
}

/// Serves one connection.
async fn answer(stream: TcpStream, stage: watch::Receiver<Arc<Stage>>, manner: Manner) {
    // Whenever the supplier drops a connection the other side gets a reset, as from a process that died.
    if stream.set_zero_linger().and_then(|()| stream.set_nodelay(true)).is_err() {
        return;
    }
    let service = service_fn(move |request| {
        let stage = Arc::clone(&stage.borrow());
        async move { manner.respond(&stage, &request).await }
    });
    // An error here is a fault at work, or a client that lost patience.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// How a supplier behaves.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) supplier: Supplier,
    pub(crate) seed: u64,
    pub(crate) pace: Pace,
}

impl Manner {
    async fn respond(self, stage: &Stage, request: &Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let Some((item, visit)) = parse(request.uri().path()) else {
            return Ok(status(StatusCode::NOT_FOUND));
        };
        let number = stage.requests.fetch_add(1, Relaxed);
        let mut fate = self.fate(visit.into());
        let latency = self.latency(&mut fate);
        let text = self.text(item);
        match stage.fault {
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Lost { warehouse }) if warehouse == warehouse_of(item) => std::future::pending().await,
            Some(Fault::BrownOut { factor }) => sleep(latency * factor).await,
            Some(Fault::Stalls { one_in, factor }) if self.fate(number).u64(..one_in) == 0 => {
                sleep(latency * factor).await;
            }
            _ => sleep(latency).await,
        }
        let failed = match stage.fault {
            Some(Fault::Errors { percent }) => fate.u8(..100) < percent,
            Some(Fault::Flapping { every }) => {
                let turn = stage.since.elapsed().as_nanos() / self.pace.of(every).as_nanos();
                turn % 2 == 0
            }
            Some(Fault::Cold { warm_up }) => {
                let disturbed = stage.requests.load(Relaxed) > number + 1;
                disturbed && Duration::from_nanos(stage.worked.load(Relaxed)) < self.pace.of(warm_up)
            }
            _ => false,
        };
        if !failed {
            stage.worked.fetch_add(latency.as_nanos() as u64, Relaxed);
        }
        Ok(match stage.fault {
            _ if failed => status(StatusCode::INTERNAL_SERVER_ERROR),
            Some(Fault::Reset) => torn(text),
            _ => Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync()),
        })
    }

    fn fate(self, number: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number << 8 ^ self.supplier as u64)
    }

    /// 0.75 to 2 times the supplier's usual latency, the mean at about 1, with a tail as servers have it.
    fn latency(self, fate: &mut fastrand::Rng) -> Duration {
        let usual = match self.supplier {
            Supplier::Prices => Duration::from_millis(14),
            Supplier::Stock => Duration::from_millis(8),
            Supplier::Recommendations => Duration::from_millis(18),
        };
        let tail = -(1.0 - fate.f64()).ln() / 4.0;
        usual.mul_f64((0.75 + tail).min(2.0))
    }

    fn text(self, item: u32) -> String {
        match self.supplier {
            // Below the list price: a fallback to that costs the customer something, and shows.
            Supplier::Prices => (list_price(item) * (80 + item % 15) / 100).to_string(),
            Supplier::Stock => (item * 7 % 40).to_string(),
            Supplier::Recommendations => [5, 11, 23].map(|step| ((item + step) % ITEMS + 1).to_string()).join(" "),
        }
    }
}

/// `/item/visit`: the visit is what the supplier's fate for this request is drawn from.
fn parse(path: &str) -> Option<(u32, u32)> {
    let (item, visit) = path.strip_prefix('/')?.split_once('/')?;
    Some((item.parse().ok()?, visit.parse().ok()?))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Promises the whole text, sends half of it, and fails, upon which hyper drops the connection.
fn torn(text: String) -> Response<Body> {
    let length = text.len();
    let half = Frame::data(Bytes::from(text).slice(..length / 2));
    let fail = async {
        // Long enough for the half to be on its way before the reset.
        sleep(Duration::from_millis(1)).await;
        Err(io::Error::other("torn by the script"))
    };
    let body = StreamBody::new(stream::iter([Ok(half)]).chain(stream::once(fail)));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}
