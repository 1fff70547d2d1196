//! Faults over a real loopback socket, on the real clock: what a dependency that is down, hangs, resets or breaks off
//! looks like from a command.
//!
//! The protocol is a line each way: `GET\n`, and `LENGTH\nBODY`. Where a server is silent, time passes, because that
//! silence is the fault; no other test waits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fusebox::{Breaker, Command, Error, Event, Events, Reason, State};
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Answer,
    /// Promises five bytes, sends two and closes.
    HalfABody,
    /// Closes with a reset.
    Reset,
    /// Closes without a word.
    Close,
    /// Says nothing until the other side hangs up.
    Silent,
    /// Sends half, waits until it is told to go on, and sends the rest.
    Slow,
}

struct Server {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    /// A slow answer is half sent.
    half_sent: Notify,
    go_on: Notify,
    /// The client of a silent server hung up.
    hung_up: Notify,
}

impl Server {
    async fn start(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let (mode, current) = watch::channel(mode);
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                loop {
                    let (socket, _) = listener.accept().await.expect("loopback");
                    shared.accepted.fetch_add(1, SeqCst);
                    let mode = *current.borrow();
                    tokio::spawn(serve(socket, mode, Arc::clone(&shared)));
                }
            }
        });
        Self { address, mode, shared, task }
    }

    /// A server that was there a moment ago: nobody listens on its port.
    async fn gone() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("loopback")
    }

    fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: TcpStream, mode: Mode, shared: Arc<Shared>) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    let mut request = String::new();
    socket.read_line(&mut request).await?;
    assert_eq!(request, "GET\n");
    match mode {
        Mode::Answer => socket.write_all(b"5\nhello").await,
        Mode::HalfABody => socket.write_all(b"5\nhe").await,
        Mode::Close => Ok(()),
        // A reset is what closing without lingering sends.
        Mode::Reset => socket.get_ref().set_zero_linger(),
        Mode::Silent => {
            assert_eq!(socket.read(&mut [0]).await?, 0, "the client hangs up");
            shared.hung_up.notify_one();
            Ok(())
        }
        Mode::Slow => {
            socket.write_all(b"5\nhe").await?;
            shared.half_sent.notify_one();
            shared.go_on.notified().await;
            socket.write_all(b"llo").await
        }
    }
}

async fn fetch(address: SocketAddr) -> io::Result<String> {
    let mut socket = BufReader::new(TcpStream::connect(address).await?);
    socket.write_all(b"GET\n").await?;
    let mut length = String::new();
    if socket.read_line(&mut length).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let length = length.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    String::from_utf8(body).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Far more than loopback takes: no test may reach it.
const AMPLE: Duration = Duration::from_secs(30);

fn command(breaker: Breaker) -> Command {
    Command::builder("sockets").timeout(AMPLE).breaker(breaker).build().expect("a good configuration")
}

/// Outcomes of all time that are not 0.
fn outcomes(command: &Command) -> Vec<(&'static str, u64)> {
    let lifetime = command.snapshot().lifetime();
    lifetime.iter().filter(|&(_, count)| count > 0).map(|(outcome, count)| (outcome.as_str(), count)).collect()
}

fn kind(result: Result<String, Error<io::Error>>) -> io::ErrorKind {
    match result {
        Err(Error::Failed(error)) => error.kind(),
        other => panic!("expected a failure of the operation, got {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_a_success() {
    let (server, command) = (Server::start(Mode::Answer).await, command(Breaker::default()));
    assert_eq!(command.run(|| fetch(server.address)).await.expect("it answers"), "hello");
    assert_eq!(outcomes(&command), [("success", 1)]);
    let latency = command.snapshot().latency().max().expect("one call");
    assert!(latency > Duration::ZERO && latency < AMPLE);
}

#[tokio::test]
async fn a_refused_connection_is_a_failure() {
    let (address, command) = (Server::gone().await, command(Breaker::default()));
    assert_eq!(kind(command.run(|| fetch(address)).await), io::ErrorKind::ConnectionRefused);
    assert_eq!(outcomes(&command), [("failure", 1)]);
}

#[tokio::test]
async fn a_reset_is_a_failure() {
    let (server, command) = (Server::start(Mode::Reset).await, command(Breaker::default()));
    assert_eq!(kind(command.run(|| fetch(server.address)).await), io::ErrorKind::ConnectionReset);
    assert_eq!(outcomes(&command), [("failure", 1)]);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    let command = command(Breaker::default());
    for mode in [Mode::HalfABody, Mode::Close] {
        let server = Server::start(mode).await;
        assert_eq!(kind(command.run(|| fetch(server.address)).await), io::ErrorKind::UnexpectedEof, "{mode:?}");
    }
    assert_eq!(outcomes(&command), [("failure", 2)]);
}

/// E6: the call ends at its limit and not before it, and its connection is closed with it.
#[tokio::test]
async fn a_silent_server_is_a_timeout_and_the_connection_is_given_up() {
    const LIMIT: Duration = Duration::from_millis(50);
    let (server, command) = (Server::start(Mode::Silent).await, command(Breaker::default()));
    let begun = Instant::now();
    let result = command.run(|| fetch(server.address)).timeout(LIMIT).await;
    let took = begun.elapsed();
    let Err(Error::TimedOut(late)) = result else { panic!("expected a timeout, got {result:?}") };
    assert_eq!((late.limit(), late.command()), (LIMIT, "sockets"));
    assert!(LIMIT <= late.elapsed() && late.elapsed() <= took, "{late}, seen from outside {took:?}");
    assert_eq!(outcomes(&command), [("timed_out", 1)]);
    assert_eq!(command.snapshot().in_flight(), 0);
    server.shared.hung_up.notified().await;
}

/// E6, P2: the same for a caller that goes away.
#[tokio::test]
async fn a_dropped_call_hangs_up() {
    let (server, command) = (Server::start(Mode::Silent).await, command(Breaker::default()));
    let task = tokio::spawn({
        let (command, address) = (command.clone(), server.address);
        async move { command.run(|| fetch(address)).await }
    });
    while server.accepted() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(command.snapshot().in_flight(), 1);
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    server.shared.hung_up.notified().await;
    assert_eq!((outcomes(&command), command.snapshot().in_flight()), (vec![("cancelled", 1)], 0));
}

#[tokio::test]
async fn slow_and_complete_is_a_success() {
    let (server, command) = (Server::start(Mode::Slow).await, command(Breaker::default()));
    let call = command.run(|| fetch(server.address));
    let meanwhile = async {
        server.shared.half_sent.notified().await;
        assert_eq!((command.snapshot().in_flight(), outcomes(&command)), (1, vec![]));
        server.shared.go_on.notify_one();
    };
    let (result, ()) = tokio::join!(call, meanwhile);
    assert_eq!(result.expect("it answers in the end"), "hello");
    assert_eq!(outcomes(&command), [("success", 1)]);
}

fn edges(events: &mut Events) -> Vec<(State, State)> {
    std::iter::from_fn(|| events.next().now_or_never().flatten())
        .filter_map(|event| if let Event::Transition(t) = event { Some((t.from, t.to)) } else { None })
        .collect()
}

/// P6, S6: an outage opens the circuit, which spares the dependency; a failed probe keeps it open; and once the
/// dependency is back the next probe closes it.
#[tokio::test]
async fn an_outage_opens_the_circuit_and_a_recovery_closes_it() {
    const REST: Duration = Duration::from_millis(20);
    let breaker = Breaker::error_rate(0.5).min_calls(4).open_for(REST).growth(1.0).jitter(0.0);
    let (server, command) = (Server::start(Mode::Answer).await, command(breaker));
    let mut events = command.subscribe();
    let call = || command.run(|| fetch(server.address));

    for _ in 0..2 {
        call().await.expect("it is up");
    }
    server.mode.send_replace(Mode::Reset);
    for _ in 0..2 {
        call().await.expect_err("it is down");
    }
    assert_eq!(edges(&mut events), [(State::Closed, State::Open)], "2 of 4");
    let accepted = server.accepted();
    assert_eq!(accepted, 4);

    // The wait is real and short, and must not be over before all of these are refused.
    command.force_open("until the test has looked", None);
    for _ in 0..10 {
        let Err(Error::Rejected(rejected)) = call().await else { panic!("expected a refusal") };
        assert_eq!(rejected.reason(), Reason::ForcedOpen);
    }
    assert_eq!(server.accepted(), accepted, "no refused call reaches the dependency");
    command.clear_override();
    edges(&mut events);

    for (mode, ended) in [(Mode::HalfABody, State::Open), (Mode::Answer, State::Closed)] {
        server.mode.send_replace(mode);
        // The clocks of the circuit and of the sleep are two: a little longer than it says.
        let wait = command.snapshot().retry_after().unwrap_or_default();
        assert!(wait <= REST);
        tokio::time::sleep(wait + Duration::from_millis(2)).await;
        assert_eq!(command.state(), State::HalfOpen);
        assert_eq!(call().await.is_ok(), mode == Mode::Answer);
        assert_eq!(edges(&mut events), [(State::Open, State::HalfOpen), (State::HalfOpen, ended)]);
    }
    assert_eq!(server.accepted(), accepted + 2, "one probe for each time it was due");
    assert_eq!(outcomes(&command), [("success", 3), ("failure", 3), ("short_circuited", 10)]);
    assert_eq!(command.snapshot().in_flight(), 0);
}
