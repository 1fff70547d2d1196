//! What operators do: force a circuit, lift that, reset it. Each action leaves an [`Audit`].

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::Value;

use crate::command::Command;
use crate::registry::Registry;

/// Longest reason, in characters: it is shown on a card.
const LONGEST_REASON: usize = 500;
/// An override without an end is the one that is forgotten.
const LONGEST_EXPIRY: u64 = 24 * 60 * 60;
const EXPIRY: u64 = 15 * 60;

/// What can be done to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// [`Command::force_open`].
    ForceOpen,
    /// [`Command::force_closed`].
    ForceClosed,
    /// [`Command::clear_override`].
    Clear,
    /// [`Command::reset`].
    Reset,
}

impl Action {
    const ALL: [Self; 4] = [Self::ForceOpen, Self::ForceClosed, Self::Clear, Self::Reset];

    /// Its name in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForceOpen => "force_open",
            Self::ForceClosed => "force_closed",
            Self::Clear => "clear",
            Self::Reset => "reset",
        }
    }

    const fn expires(self) -> bool {
        matches!(self, Self::ForceOpen | Self::ForceClosed)
    }
}

/// What somebody did, or was not allowed to do. `Display` puts it in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// What.
    pub action: Action,
    /// To which command.
    pub command: String,
    /// Of a keyed command, to which circuit; `None` for the one that keys share.
    pub key: Option<String>,
    /// Why, in their words.
    pub reason: String,
    /// For how long; `None` where the action has no end.
    pub expiry: Option<Duration>,
    /// Who, as [`Builder::authorize`](super::Builder::authorize) said.
    pub who: Option<String>,
    /// From where.
    pub peer: IpAddr,
    /// Whether it was done; otherwise the right to write was missing.
    pub allowed: bool,
    /// When.
    pub at: SystemTime,
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, command, reason, peer, .. } = self;
        f.write_str(command)?;
        if let Some(key) = &self.key {
            write!(f, "[{key}]")?;
        }
        let verb = if self.allowed { "" } else { "was refused: " };
        match &self.who {
            Some(who) => write!(f, ": {who} ({peer}) {verb}{}: {reason}", action.as_str())?,
            None => write!(f, ": {peer} {verb}{}: {reason}", action.as_str())?,
        }
        match self.expiry {
            Some(expiry) => write!(f, " (for {expiry:?})"),
            None => Ok(()),
        }
    }
}

/// A request to act, checked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) action: Action,
    pub(super) command: String,
    pub(super) key: Option<String>,
    id: Option<u64>,
    pub(super) reason: String,
    pub(super) expiry: Option<Duration>,
}

/// Why there is nothing to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    NoSuchCommand,
    NoSuchKey,
    /// Several commands have the name, and the request does not say which.
    Ambiguous,
}

impl Missing {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NoSuchCommand | Self::NoSuchKey => StatusCode::NOT_FOUND,
            Self::Ambiguous => StatusCode::CONFLICT,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchCommand => "command: there is no such one",
            Self::NoSuchKey => "key: the command has no circuit for it",
            Self::Ambiguous => "command: several have this name; say which by id",
        }
    }
}

impl Order {
    /// Reads `{"command", "id", "key", "action", "reason", "expires_in_seconds"}`. The error says what is wrong.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
        let text = |key: &str| body[key].as_str().map(str::trim).filter(|text| !text.is_empty());
        let command = text("command").ok_or("command: which one?")?.to_owned();
        let action = text("action").and_then(|name| Action::ALL.into_iter().find(|action| action.as_str() == name));
        let action = action.ok_or("action: force_open, force_closed, clear or reset")?;
        let reason = text("reason").ok_or("reason: why? It is shown to whoever looks next")?;
        if reason.chars().count() > LONGEST_REASON {
            return Err(format!("reason: at most {LONGEST_REASON} characters"));
        }
        let expiry = match &body["expires_in_seconds"] {
            Value::Null => EXPIRY,
            value => value
                .as_u64()
                .filter(|seconds| (1..=LONGEST_EXPIRY).contains(seconds))
                .ok_or(format!("expires_in_seconds: 1 to {LONGEST_EXPIRY}"))?,
        };
        let id = match &body["id"] {
            Value::Null => None,
            value => Some(value.as_u64().ok_or("id: a number of the snapshot")?),
        };
        let key = match &body["key"] {
            Value::Null => None,
            value => Some(value.as_str().ok_or("key: a text of the snapshot")?.to_owned()),
        };
        let expiry = action.expires().then(|| Duration::from_secs(expiry));
        Ok(Self { action, command, key, id, reason: reason.to_owned(), expiry })
    }

    /// The circuit that is meant: name and number must both fit, because numbers begin anew with the process.
    pub(super) fn find(&self, registry: &Registry) -> Result<Command, Missing> {
        let fits = |command: &Command| self.id.is_none_or(|id| command.core().family.place.get() == Some(&id));
        let commands = registry.commands().into_iter().filter(|command| command.name() == self.command);
        let mut found = commands.filter(fits);
        match (found.next(), found.next()) {
            (None, _) => Err(Missing::NoSuchCommand),
            (Some(_), Some(_)) => Err(Missing::Ambiguous),
            (Some(command), None) => match &self.key {
                Some(key) => of_key(&command, key).ok_or(Missing::NoSuchKey),
                None => Ok(command),
            },
        }
    }

    pub(super) fn carry_out(&self, command: &Command) {
        match self.action {
            Action::ForceOpen => command.force_open(&*self.reason, self.expiry),
            Action::ForceClosed => command.force_closed(&*self.reason, self.expiry),
            Action::Clear => command.clear_override(),
            Action::Reset => command.reset(),
        }
    }
}

/// The circuit of the key that is this text.
fn of_key(command: &Command, key: &str) -> Option<Command> {
    let mut circuits = command.core().family.circuits().into_iter();
    circuits.find(|core| core.label() == Some(key)).map(Command::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_needs_a_command_an_action_and_a_reason_and_ends_after_a_quarter_of_an_hour() {
        let parse = |json: Value| Order::parse(json.to_string().as_bytes());
        let good = serde_json::json!({"command": "db", "action": "force_open", "reason": " on fire "});
        let order = parse(good.clone()).expect("it is complete");
        assert_eq!((order.reason.as_str(), order.expiry), ("on fire", Some(Duration::from_secs(900))));
        for (key, value) in [
            ("command", Value::Null),
            ("action", "explode".into()),
            ("reason", "  ".into()),
            ("reason", "x".repeat(501).into()),
            ("expires_in_seconds", 0.into()),
            ("expires_in_seconds", 86_401.into()),
            ("expires_in_seconds", (-1).into()),
            ("expires_in_seconds", "900".into()),
            ("id", "1".into()),
            ("key", 1.into()),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            let error = parse(bad).expect_err(key);
            assert!(error.starts_with(key), "{error}");
        }
        let mut reset = good;
        reset["action"] = "reset".into();
        assert_eq!(parse(reset).expect("it is complete").expiry, None);
        assert!(Order::parse(b"force it").expect_err("not JSON").contains("JSON"));
    }
}
