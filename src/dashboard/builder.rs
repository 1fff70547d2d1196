//! Setting a dashboard up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Extensions;
use http::request::Parts;

use super::action::Audit;
use super::collector::Shared;
use super::gate::{Access, Gate};
use super::service::{Dashboard, Hooks};
use crate::registry::Registry;

const MAX_CLIENTS: usize = 5;

/// Sets up a [`Dashboard`]; made by [`Dashboard::builder`].
///
/// | setting | default |
/// |---|---|
/// | [`enable_actions`](Self::enable_actions) | off: read-only |
/// | [`allow_peers`](Self::allow_peers) | those on loopback |
/// | [`behind_proxy`](Self::behind_proxy) | off: what says that it was forwarded is refused |
/// | [`allow_host`](Self::allow_host) | `localhost`, `127.0.0.1`, `[::1]`, on any port |
/// | [`authorize`](Self::authorize) | whoever gets that far may do everything that is enabled |
/// | [`peer_from`](Self::peer_from) | the extension [`Peer`](super::Peer) |
/// | [`max_clients`](Self::max_clients) | 5 streams at a time |
///
/// ```
/// use fusebox::Registry;
/// use fusebox::dashboard::{Access, Dashboard};
///
/// let dashboard = Dashboard::builder(Registry::global())
///     .enable_actions()
///     .authorize(|request| match request.headers.get("x-user").and_then(|user| user.to_str().ok()) {
///         Some(user) if user == "alice" => Access::write().by(user),
///         Some(user) => Access::read().by(user),
///         None => Access::none(),
///     })
///     .on_audit(|audit| eprintln!("{audit}"))
///     .build();
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    registry: Registry,
    gate: Gate,
    hooks: Hooks,
    max_clients: usize,
}

impl Builder {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), gate: Gate::default(), hooks: Hooks::default(), max_clients: MAX_CLIENTS }
    }

    /// Lets the page force circuits open or closed, lift that, and reset them. Without [`authorize`](Self::authorize)
    /// everybody may who may see the page.
    pub fn enable_actions(mut self) -> Self {
        self.gate.actions = true;
        self
    }

    /// Decides by the request's head, before its body is read, what somebody may do and who it is. It runs for every
    /// request and must not block; what takes time belongs into a layer in front, which leaves an extension.
    pub fn authorize(mut self, decide: impl Fn(&Parts) -> Access + Send + Sync + 'static) -> Self {
        self.gate.authorize = Arc::new(decide);
        self
    }

    /// Which peers may come at all, in place of those on loopback. An IPv4 address is always given as one.
    pub fn allow_peers(mut self, allow: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.gate.allow_peers = Arc::new(allow);
        self
    }

    /// Also serves what a proxy passes on. Its requests come from the proxy's address, so let it authenticate whom it lets
    /// through, and check that with [`authorize`](Self::authorize).
    pub fn behind_proxy(mut self) -> Self {
        self.gate.proxied = true;
        self
    }

    /// Where to find the peer's address, in place of the extension [`Peer`](super::Peer). `None` refuses the request.
    pub fn peer_from(mut self, find: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        self.gate.peer_from = Arc::new(find);
        self
    }

    /// One more name, without a port, under which the dashboard may be asked for; an IPv6 address in brackets.
    pub fn allow_host(mut self, host: &str) -> Self {
        self.gate.hosts.push(host.trim_end_matches('.').to_owned());
        self
    }

    /// Where to find the path that was asked for, when a router in front has cut it.
    pub fn original_path(mut self, find: impl Fn(&Extensions) -> Option<String> + Send + Sync + 'static) -> Self {
        self.hooks.original_path = Some(Arc::new(find));
        self
    }

    /// How many streams may be read at once: one for each open page. The next is told so.
    pub fn max_clients(mut self, most: usize) -> Self {
        self.max_clients = most;
        self
    }

    /// Hears of every action, and of those that were refused for want of the right. Called after the action and outside
    /// all locks; a panic in it is caught and traced.
    pub fn on_audit(mut self, hear: impl Fn(&Audit) + Send + Sync + 'static) -> Self {
        self.hooks.audit = Some(Arc::new(hear));
        self
    }

    /// Builds it, and begins to collect if there is a tokio runtime; otherwise the first request begins.
    pub fn build(self) -> Dashboard {
        let Self { registry, gate, hooks, max_clients } = self;
        Dashboard::start(Shared::new(&registry, max_clients), gate, hooks)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("gate", &self.gate)
            .field("max_clients", &self.max_clients)
            .finish_non_exhaustive()
    }
}
