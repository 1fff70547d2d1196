//! One run of the story: suppliers, shop, visitors and script put together, watched until the last page is served.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fusebox::{Event, State};
use futures::FutureExt;
use futures::stream::{StreamExt, select_all};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::args::Args;
use crate::client::Client;
use crate::commands::Commands;
use crate::driver::{self, Crowd};
use crate::ledger::{Calls, Ledger, Visit};
use crate::schedule::{self, Cue, LENGTH, Pace, Supplier};
use crate::screen::Screen;
use crate::server::{Manner, Server};
use crate::shop::{Care, Shop};
use crate::stop::Stop;
use crate::view::View;

/// What the naive shop's HTTP client is set to, in story seconds: longer than any fault, as the customary 30 seconds
/// are.
const PATIENCE: f64 = 6.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    None,
    Commands,
}

impl Protection {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::None => "without commands",
            Self::Commands => "with commands",
        }
    }
}

/// What a run leaves behind.
pub(crate) struct Run {
    pub(crate) visits: Vec<Visit>,
    /// In the order of [`Supplier::ALL`].
    pub(crate) calls: [Calls; Supplier::COUNT],
    pub(crate) changes: Vec<Change>,
    /// Calls that a command refused.
    pub(crate) refused: u64,
    pub(crate) hedges: Hedges,
    /// Visits that were planned.
    planned: u32,
    /// For as long as its commands live, `/metrics` shows what they are like now.
    _shop: Arc<Shop>,
}

impl Run {
    /// Whether every visitor came and got a page, of whatever kind.
    pub(crate) fn is_whole(&self) -> bool {
        self.visits.len() == self.planned as usize
    }
}

/// Second attempts that were sent while the first was still running.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hedges {
    pub(crate) sent: u64,
    /// Those that brought the answer.
    pub(crate) won: u64,
}

/// A circuit changed its state.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Duration,
    pub(crate) supplier: Supplier,
    /// Which one of the supplier's circuits, if there are several.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) to: State,
}

pub(crate) async fn run(protection: Protection, args: &Args, screen: &mut Screen, stop: &Stop) -> io::Result<Run> {
    let mut servers = JoinSet::new();
    let mut suppliers = Vec::new();
    for supplier in Supplier::ALL {
        let manner = Manner { supplier, seed: args.seed, pace: args.pace };
        suppliers.push(Server::start(manner, args.supplier_ports[supplier as usize], &mut servers).await?);
    }
    screen.say(&announcement(protection, args.pace, &suppliers))?;

    let ledger = Arc::new(Ledger::open(stop.clone()));
    let care = match protection {
        Protection::None => Care::Naive { patience: args.pace.of(PATIENCE) },
        Protection::Commands => Care::Commands(Commands::new(args.pace).map_err(io::Error::other)?),
    };
    let client = |supplier| Client::new(supplier, suppliers[supplier as usize].address, Arc::clone(&ledger));
    let shop = Arc::new(Shop::new(care, client));
    let mut events = select_all(commands(&shop).map(Commands::subscribe));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut script = JoinSet::new();
    script.spawn(perform(schedule::cues(args.pace), suppliers, ledger.begun(), tell));
    let crowd = Crowd { rate: args.rate, length: args.pace.of(LENGTH), grace: args.pace.of(PATIENCE * 2.0) };
    let mut visitors = JoinSet::new();
    visitors.spawn(driver::drive(crowd, Arc::clone(&shop), Arc::clone(&ledger), stop.clone()));

    let mut view = View::new(protection, args, &shop, &ledger);
    let mut changes = Vec::new();
    let period = screen.period(args.pace);
    let mut tick = interval_at(Instant::now() + period, period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut crowd_has_left = false;
    while !crowd_has_left {
        let mut heard = None;
        tokio::select! {
            Some(event) = events.next() => heard = Some(event),
            Some(cue) = told.recv() => {
                view.faults[cue.supplier as usize] = cue.fault;
                screen.say(&view.stamped("script", &described(cue)))?;
            }
            _ = tick.tick() => screen.draw(&view.frame())?,
            Some(ended) = visitors.join_next() => {
                ended?;
                crowd_has_left = true;
            }
            Some(ended) = servers.join_next() => return Err(failure(ended)),
        }
        // All that there are, also when it was something else that happened: none may be left over at the end.
        while let Some((supplier, event)) = heard.take().or_else(|| events.next().now_or_never().flatten()) {
            changes.extend(change(&ledger, supplier, &event));
            screen.say(&view.stamped("circuit", &event.to_string()))?;
        }
    }
    screen.draw(&view.frame())?;
    screen.leave()?;
    // The next run may be told to use the same ports.
    servers.shutdown().await;
    Ok(Run {
        visits: std::mem::take(&mut ledger.visits().ended),
        calls: Supplier::ALL.map(|supplier| std::mem::take(&mut *ledger.calls(supplier))),
        changes,
        refused: commands(&shop).map_or(0, refused),
        hedges: commands(&shop).map_or_else(Hedges::default, hedges),
        planned: crowd.size(),
        _shop: Arc::clone(&shop),
    })
}

fn commands(shop: &Shop) -> Option<&Commands> {
    match &shop.care {
        Care::Naive { .. } => None,
        Care::Commands(commands) => Some(commands),
    }
}

fn refused(commands: &Commands) -> u64 {
    commands.snapshots().iter().map(|snapshot| snapshot.lifetime().refused()).sum()
}

fn hedges(commands: &Commands) -> Hedges {
    let attempts = commands.prices.snapshot().attempts();
    Hedges { sent: attempts.hedges_won + attempts.hedges_lost, won: attempts.hedges_won }
}

/// Plays the script. A task of its own, so that a slow terminal cannot delay a fault.
async fn perform(cues: Vec<Cue>, suppliers: Vec<Server>, begun: Instant, tell: mpsc::UnboundedSender<Cue>) {
    for cue in cues {
        sleep_until(begun + cue.at).await;
        suppliers[cue.supplier as usize].set(cue.fault);
        let _ = tell.send(cue);
    }
    // A supplier goes on for as long as somebody could give it a cue.
    std::future::pending().await
}

/// The time is that of reading the event: the event has only the wall clock's, which may jump.
fn change(ledger: &Ledger, supplier: Supplier, event: &Event) -> Option<Change> {
    match event {
        Event::Transition(transition) => {
            Some(Change { at: ledger.now(), supplier, key: transition.key.clone(), to: transition.to })
        }
        _ => None,
    }
}

fn announcement(protection: Protection, pace: Pace, suppliers: &[Server]) -> String {
    let care = match protection {
        Protection::None => format!("every call may take {:?}, the HTTP client's timeout", pace.of(PATIENCE)),
        Protection::Commands => "every call goes through one, with a fallback".to_owned(),
    };
    let at: Vec<_> = Supplier::ALL.iter().map(|&s| format!("{s} {}", suppliers[s as usize].address)).collect();
    format!("== {} ==  {care}\n{}\n", protection.label(), at.join(", "))
}

fn described(cue: Cue) -> String {
    match cue.fault {
        Some(fault) => format!("{}: {fault}", cue.supplier),
        None => format!("{}: recovers", cue.supplier),
    }
}

fn failure(ended: Result<io::Result<Infallible>, JoinError>) -> io::Error {
    match ended {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error,
        Err(panicked) => io::Error::other(panicked),
    }
}
