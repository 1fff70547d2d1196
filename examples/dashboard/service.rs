//! Commands, callers that never rest, and suppliers that do as they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use fusebox::{Breaker, Builder, Command, ConfigError, Keyed, Keys};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// What a supplier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    /// Answers with errors.
    Fail,
    /// Takes ten times as long, which mostly is too long.
    Slow,
    /// Never answers.
    Hang,
}

/// What a supplier and its callers do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Play {
    manner: Manner,
    /// Nobody calls.
    paused: bool,
}

/// What is to change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cue {
    Supplier(Manner),
    Pause(bool),
}

/// Name, group, calls per second, usual latency in milliseconds.
const COMMANDS: [(&str, &str, u32, u64); 8] = [
    ("payments.charge", "payments", 60, 24),
    ("payments.refund", "payments", 2, 31),
    ("inventory.lookup", "stock", 120, 6),
    ("inventory.reserve", "stock", 20, 14),
    ("pricing.quote", "catalogue", 80, 9),
    ("search.products", "catalogue", 40, 45),
    ("recommendations.for_user", "catalogue", 30, 18),
    ("mail.send", "messages", 5, 70),
];

pub(crate) struct Service {
    suppliers: BTreeMap<String, watch::Sender<Play>>,
}

impl Service {
    /// Builds the commands and begins to call them.
    pub(crate) fn start(more: u32, keyed: bool) -> Result<Self, ConfigError> {
        let mut suppliers = BTreeMap::new();
        if keyed {
            // One circuit for each partner: what one of them breaks, the others do not feel.
            let partners: Keyed<String> = template("partners.api", "partners", 20).keyed(Keys::up_to(100))?;
            for partner in ["partner-a", "partner-b", "partner-c"] {
                let (tell, told) = watch::channel(Play { manner: Manner::Well, paused: false });
                let (partners, key) = (partners.clone(), partner.to_owned());
                tokio::spawn(callers(move || Command::clone(&partners.get(&key)), 20, 20, told));
                suppliers.insert(partner.to_owned(), tell);
            }
        }
        for (name, group, rate, latency) in COMMANDS {
            suppliers.insert(name.to_owned(), employ(name, group, rate, latency)?);
        }
        for n in 0..more {
            let name = format!("fleet.{n:03}");
            suppliers.insert(name.clone(), employ(&name, &format!("fleet-{}", n % 10), 2, 5)?);
        }
        Ok(Self { suppliers })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.suppliers.keys().map(String::as_str).filter(|name| !name.starts_with("fleet."))
    }

    /// Whether there is a supplier of this name to tell.
    pub(crate) fn cue(&self, name: &str, cue: Cue) -> bool {
        let Some(play) = self.suppliers.get(name) else { return false };
        play.send_modify(|play| match cue {
            Cue::Supplier(manner) => play.manner = manner,
            Cue::Pause(paused) => play.paused = paused,
        });
        true
    }
}

fn template(name: &str, group: &str, latency: u64) -> Builder {
    // An open circuit that is to be watched had better wait the same each time.
    let breaker = Breaker::error_rate(0.5).min_calls(10).open_for(Duration::from_secs(4)).growth(1.0).jitter(0.0);
    let timeout = Duration::from_millis(latency * 4);
    Command::builder(name).group(group).timeout(timeout).max_concurrent(32).breaker(breaker)
}

/// A command with its supplier and its callers.
fn employ(name: &str, group: &str, rate: u32, latency: u64) -> Result<watch::Sender<Play>, ConfigError> {
    let command = template(name, group, latency).build()?;
    let (tell, told) = watch::channel(Play { manner: Manner::Well, paused: false });
    tokio::spawn(callers(move || command.clone(), rate, latency, told));
    Ok(tell)
}

async fn callers(command: impl Fn() -> Command, rate: u32, latency: u64, play: watch::Receiver<Play>) {
    let mut tick = interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let Play { manner, paused } = *play.borrow();
        if paused {
            continue;
        }
        let command = command();
        // Half of the usual latency is certain, the rest a matter of luck.
        let latency = Duration::from_millis(latency).mul_f64(0.5 - (1.0 - fastrand::f64()).ln() / 2.0);
        tokio::spawn(async move {
            let call = command.run(async || {
                match manner {
                    Manner::Hang => std::future::pending().await,
                    Manner::Slow => sleep(latency * 10).await,
                    Manner::Well | Manner::Fail => sleep(latency).await,
                }
                if manner == Manner::Fail { Err("out of order") } else { Ok(()) }
            });
            // Whatever comes of it is on the dashboard.
            let _ = call.fallback(async |_| Ok(())).await;
        });
    }
}
