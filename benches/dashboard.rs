//! What a dashboard costs the callers: 500 commands at 50,000 calls a second, with five open pages and without any.
//!
//! `cargo bench --bench dashboard` alternates between the two in one process. The cost of a call is the processor time of
//! the calling thread, as the kernel accounts it, over slices that each hold one look of the dashboard at everything. Each
//! slice is compared with the one just before it, so that what the machine does over time cancels out, and the median of
//! these ratios is the result. Its confidence interval is that of the sign test: it asks nothing of how the noise is
//! distributed. It exits with an error when all of that lies beyond 3 %.

mod support;

use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use fusebox::dashboard::{Dashboard, Peer};
use fusebox::{Command, Registry};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::{answer, done, now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;

const COMMANDS: usize = 500;
const CLIENTS: usize = 5;
/// Calls in a burst, and how often there is one: 50,000 calls a second.
const BURST: u32 = 500;
const EVERY: Duration = Duration::from_millis(10);
/// A slice is a little longer than the second between two looks.
const BURSTS: u32 = 120;
const ROUNDS: usize = 20;
/// Of so many ratios the fifth from either end bounds the median: that it lies beyond them is as likely as fewer than five
/// heads in 20 tosses of a coin, 0.6 %.
const BOUND: usize = 5;
const LIMIT: f64 = 1.03;

fn main() -> ExitCode {
    if cfg!(feature = "test-util") {
        println!("dashboard: skipped, as the feature test-util reads another clock");
        return ExitCode::SUCCESS;
    }
    let registry = Registry::new();
    let commands: Vec<_> = (0..COMMANDS)
        .map(|n| Command::builder(&format!("load.{n}")).registry(&registry).build().expect("the defaults are valid"))
        .collect();
    let Some(_) = processor_nanos() else {
        println!("dashboard: skipped, as this system does not tell the processor time of a thread");
        return ExitCode::SUCCESS;
    };
    cost(&commands);
    let (mut ratios, mut bytes) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let without = cost(&commands);
        let pages = Pages::open(&registry);
        ratios.push(cost(&commands) / without);
        bytes += pages.close();
    }
    ratios.sort_by(f64::total_cmp);
    let [least, median, most] = [BOUND - 1, ROUNDS / 2, ROUNDS - BOUND].map(|place| ratios[place]);
    println!("a call beside {CLIENTS} pages, each of which read {} bytes a slice,", bytes / ROUNDS);
    println!("takes {median:.4} times as much as without; between {least:.4} and {most:.4} with 99 % confidence");
    if least > LIMIT {
        println!("beyond {LIMIT}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The processor time of a call, in nanoseconds, the clock's reading and the pauses between bursts included.
fn cost(commands: &[Command]) -> f64 {
    let began = Instant::now();
    let before = processor_nanos().expect("it was there before");
    for burst in 0..BURSTS {
        for call in 0..BURST {
            let command = &commands[call as usize % COMMANDS];
            done(now(command.run(|| answer(Ok(1)))));
        }
        thread::sleep((EVERY * (burst + 1)).saturating_sub(began.elapsed()));
    }
    let after = processor_nanos().expect("it was there before");
    (after - before) as f64 / f64::from(BURST * BURSTS)
}

/// What this thread has had of the processors.
fn processor_nanos() -> Option<u64> {
    fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// A dashboard behind a real server, and the pages that read it.
struct Pages {
    runtime: Runtime,
    readers: Vec<tokio::task::JoinHandle<usize>>,
    dashboard: Dashboard,
}

impl Pages {
    fn open(registry: &Registry) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (dashboard, readers) = runtime.block_on(async {
            let dashboard = Dashboard::new(registry);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(serve(listener, dashboard.clone()));
            let readers: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(read(address))).collect();
            while dashboard.clients() < CLIENTS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (dashboard, readers)
        });
        Self { runtime, readers, dashboard }
    }

    /// What each page has read.
    fn close(self) -> usize {
        let Self { runtime, readers, dashboard } = self;
        dashboard.shut_down();
        runtime.block_on(async {
            let mut least = usize::MAX;
            for reader in readers {
                least = least.min(reader.await.expect("it did not panic"));
            }
            least
        })
    }
}

async fn serve(listener: TcpListener, dashboard: Dashboard) {
    while let Ok((stream, peer)) = listener.accept().await {
        let dashboard = dashboard.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let response = dashboard.clone().call(request);
            async { Ok::<_, Infallible>(response.await.expect("never fails")) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Reads a stream to its end and returns how much that was.
async fn read(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let request = b"GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it is read");
    let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        total += read;
    }
    total
}
