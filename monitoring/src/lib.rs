//! A service in which everything goes wrong that an alert is there for, and everything else happens that is measured.
//!
//! `tests/prometheus.rs` has the real Prometheus scrape it beside the storefront, whose suppliers break more as suppliers
//! do. A crate of its own: it needs Prometheus, which the default build and the default tests must do without.

use std::future::{pending, ready};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fusebox::{AdaptiveLimit, Breaker, Budget, Builder, Bulkhead, Command, ConfigError, Hedge, Keyed, Keys, RateLimit};
use fusebox::{Ramp, Retry, State};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

// As the storefront serves it: what is checked is what people are shown.
#[path = "../../examples/storefront/metrics.rs"]
mod metrics;

const DOWN: Result<(), &str> = Err("down");
const UP: Result<(), &str> = Ok(());

/// The service, for as long as it is held.
#[derive(Debug)]
pub struct Service {
    /// Where `/metrics` is.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Service {
    /// Installs the recorder, serves it on loopback, and begins to call.
    pub async fn start() -> io::Result<Self> {
        let address = metrics::serve(0).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(down(command("down", |builder| builder.breaker(in_a_row(3, Duration::from_secs(1))))?));
        tasks.spawn(flapping(command("flapping", |builder| builder.breaker(in_a_row(1, Duration::from_millis(50))))?));
        tasks.spawn(flapping(command("recovering", |builder| {
            let ramp = Ramp::stages([0.5]).each(Duration::from_secs(1));
            builder.breaker(in_a_row(1, Duration::from_secs(1)).ramp(ramp))
        })?));
        tasks.spawn(held(command("held", |builder| builder)?));
        tasks.spawn(shaky(command("shaky", |builder| builder)?));
        tasks.spawn(full(command("full", |builder| {
            builder.no_timeout().bulkhead(Bulkhead::new(2).queue(3, Duration::from_secs(1)))
        })?));
        tasks.spawn(persistent(command("persistent", |builder| {
            builder
                .adaptive_limit(AdaptiveLimit::vegas())
                .rate_limit(RateLimit::per_second(100))
                .breaker(Breaker::disabled())
                .budget(Budget::share(1.0))
        })?));
        tasks.spawn(reloaded(command("reloaded", |builder| builder)?));
        let hosts = Command::builder("hosts").group("monitoring").breaker(in_a_row(1, Duration::from_secs(60)));
        tasks.spawn(keyed(hosts.keyed(Keys::up_to(4)).map_err(io::Error::other)?));
        Ok(Self { address, _tasks: tasks })
    }
}

fn command(name: &str, settings: impl FnOnce(Builder) -> Builder) -> io::Result<Command> {
    let command: Result<_, ConfigError> = settings(Command::builder(name).group("monitoring")).build();
    command.map_err(io::Error::other)
}

fn in_a_row(failures: u32, wait: Duration) -> Breaker {
    Breaker::error_rate(0.5).consecutive_failures(failures).open_for(wait).growth(1.0).jitter(0.0)
}

/// A hundred a second, numbered.
struct Turns {
    tick: Interval,
    count: u32,
}

impl Turns {
    fn new() -> Self {
        let mut tick = interval(Duration::from_millis(10));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tick, count: 0 }
    }

    async fn next(&mut self) -> u32 {
        self.tick.tick().await;
        self.count += 1;
        self.count
    }
}

/// A dependency that is down, and a fallback that is no better.
async fn down(command: Command) {
    let mut turns = Turns::new();
    loop {
        turns.next().await;
        let _ = command.run(|| ready(DOWN)).fallback(async |cause| Err(cause)).await;
    }
}

/// Passes each probe, and each stage of a ramp, and fails right after it.
async fn flapping(command: Command) {
    let mut turns = Turns::new();
    loop {
        turns.next().await;
        let answer = if command.state() == State::Closed { DOWN } else { UP };
        let _ = command.run(|| ready(answer)).fallback(async |_| Ok(())).await;
    }
}

/// An operator holds it open, and forgets.
async fn held(command: Command) {
    command.force_open("maintenance", None);
    let mut turns = Turns::new();
    loop {
        turns.next().await;
        let _ = command.run(|| ready(UP)).await;
    }
}

/// Four in ten calls fail: too few to open the circuit.
async fn shaky(command: Command) {
    let mut turns = Turns::new();
    loop {
        let turn = turns.next().await;
        let answer = if turn % 5 < 2 { DOWN } else { UP };
        let _ = command.run(|| ready(answer)).await;
    }
}

/// Two calls never end; the others wait in vain.
async fn full(command: Command) {
    let hang = || command.run(pending::<Result<(), &str>>);
    let more = async {
        let mut turns = Turns::new();
        loop {
            turns.next().await;
            let _ = hang().await;
        }
    };
    let _ = tokio::join!(hang(), hang(), more);
}

/// Calls that are attempted again, until one is worth it; and hedged ones.
async fn persistent(command: Command) {
    let mut turns = Turns::new();
    loop {
        let turn = turns.next().await;
        let mut attempt = 0;
        let retried = command.retry(|| {
            attempt += 1;
            ready(if attempt <= turn % 4 { DOWN } else { UP })
        });
        let _ = retried.with(Retry::delays([Duration::ZERO; 2])).await;
        // Every other time the first attempt is the slower one.
        let mut slow = turn % 2 == 0;
        let answer = || {
            let took = if std::mem::take(&mut slow) { 40 } else { 4 };
            async move {
                sleep(Duration::from_millis(took)).await;
                UP
            }
        };
        let _ = command.hedge(answer).with(Hedge::after(Duration::from_millis(2))).await;
    }
}

/// A configuration that changes to and fro, and one that is refused each time.
async fn reloaded(command: Command) {
    let mut turns = Turns::new();
    loop {
        let turn = turns.next().await;
        let _ = command.reconfigure(|config| config.timeout(Duration::from_millis(100 + u64::from(turn % 2))));
        let _ = command.reconfigure(|config| config.max_concurrent(0));
        let _ = command.run(|| ready(UP)).await;
    }
}

/// More hosts than there is room for; three are down, and keep their circuits.
async fn keyed(hosts: Keyed<u32>) {
    let held = [0, 1, 2].map(|host| hosts.get(&host));
    let mut turns = Turns::new();
    loop {
        let turn = turns.next().await;
        for host in &held {
            let _ = host.run(|| ready(DOWN)).await;
        }
        let one = hosts.get(&(3 + turn % 50));
        let another = hosts.get(&(60 + turn % 50));
        let _ = tokio::join!(one.run(|| ready(UP)), another.run(|| ready(UP)));
    }
}
