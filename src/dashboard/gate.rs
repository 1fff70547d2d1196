//! Who may come in.
//!
//! A dashboard knows every dependency of a service and, with actions, can cut each of them off; and any web page that an
//! operator's browser shows can send requests to loopback. So the rules are those of a closed door: peers on this
//! machine only, nobody when the peer is unknown, only under names that are ours (a rebound DNS name is not), nothing at
//! another site's request, and changes only by what no other site's page can send.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{Extensions, HeaderMap, Method, StatusCode};

/// The address that a request came from, as the server that accepted the connection knows it. Put it into the extensions
/// of each request; without it the dashboard refuses all. [`Builder::peer_from`](super::Builder::peer_from) is for
/// servers that have such an extension of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Nothing: not even the page.
    None,
    /// See everything.
    Read,
    /// See everything, and act where [actions are enabled](super::Builder::enable_actions).
    Write,
}

/// The answer of [`Builder::authorize`](super::Builder::authorize): what somebody may do, and who it is.
///
/// ```
/// use fusebox::dashboard::{Access, Rights};
///
/// let access = Access::write().by("alice");
/// assert_eq!((access.rights, access.who.as_deref()), (Rights::Write, Some("alice")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// What they may do.
    pub rights: Rights,
    /// Who they are, for the audit.
    pub who: Option<String>,
}

impl Access {
    /// Nothing.
    pub const fn none() -> Self {
        Self { rights: Rights::None, who: None }
    }

    /// To see.
    pub const fn read() -> Self {
        Self { rights: Rights::Read, who: None }
    }

    /// To see and to act.
    pub const fn write() -> Self {
        Self { rights: Rights::Write, who: None }
    }

    /// Says who it is.
    pub fn by(self, who: impl Into<String>) -> Self {
        Self { who: Some(who.into()), ..self }
    }
}

/// A header that pages of other sites cannot send without asking first, which nobody here answers.
pub(super) const ACTION_HEADER: &str = "x-fusebox-action";

/// What proxies add: the peer is then the proxy, and whoever asks may be anywhere.
const PROXIED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

type FindPeer = dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync;
type AllowPeer = dyn Fn(IpAddr) -> bool + Send + Sync;
type Authorize = dyn Fn(&Parts) -> Access + Send + Sync;

/// The rules, and the hooks that change them.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) actions: bool,
    /// Whether a proxy may stand between.
    pub(super) proxied: bool,
    pub(super) hosts: Vec<String>,
    pub(super) peer_from: Arc<FindPeer>,
    pub(super) allow_peers: Arc<AllowPeer>,
    pub(super) authorize: Arc<Authorize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            actions: false,
            proxied: false,
            hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into(),
            peer_from: Arc::new(|extensions| extensions.get::<Peer>().map(|peer| peer.0)),
            allow_peers: Arc::new(|peer| peer.is_loopback()),
            // Where actions are off, there is nothing to write.
            authorize: Arc::new(|_| Access::write()),
        }
    }
}

/// What somebody who is in may do.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) access: Access,
    pub(super) peer: IpAddr,
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const fn forbidden(why: &'static str) -> Refusal {
    Refusal { status: StatusCode::FORBIDDEN, why }
}

impl Gate {
    /// Whether the request may see anything at all.
    pub(super) fn admit(&self, request: &Parts) -> Result<Visitor, Refusal> {
        let peer = (self.peer_from)(&request.extensions).ok_or(forbidden("the address of the peer is not known"))?;
        // An IPv4 peer on a socket that listens for both kinds comes as an IPv6 address.
        let peer = peer.ip().to_canonical();
        if !(self.allow_peers)(peer) {
            return Err(forbidden("not for peers at this address"));
        }
        if !self.proxied && PROXIED.iter().any(|name| request.headers.contains_key(*name)) {
            return Err(forbidden("behind a proxy it is not known who asks"));
        }
        let host = host(request).ok_or(forbidden("no valid host is named"))?;
        let name = host.host().trim_end_matches('.');
        if !self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return Err(forbidden("not under this host name"));
        }
        check_site(request, &host)?;
        let access = (self.authorize)(request);
        if access.rights < Rights::Read {
            return Err(forbidden("not without the right to read"));
        }
        Ok(Visitor { access, peer })
    }

    /// Whether a visitor may act by this request.
    pub(super) fn admit_action(&self, request: &Parts) -> Result<(), Refusal> {
        if !self.actions {
            return Err(forbidden("actions are not enabled here"));
        }
        if !request.headers.contains_key(ACTION_HEADER) {
            return Err(forbidden("the header x-fusebox-action is missing"));
        }
        let json = text(&request.headers, CONTENT_TYPE.as_str()).is_some_and(|value| {
            value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
        if !json {
            return Err(Refusal {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                why: "the body must be application/json",
            });
        }
        Ok(())
    }
}

/// The name that the client believes to talk to. HTTP/2 has it in the URI, and both must agree where both are there.
fn host(request: &Parts) -> Option<Authority> {
    let named = |text: &str| text.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'));
    let mut headers = request.headers.get_all(HOST).iter();
    let header = match headers.next() {
        Some(value) => Some(named(value.to_str().ok()?)?),
        None => None,
    };
    if headers.next().is_some() {
        return None;
    }
    let target = match request.uri.authority() {
        Some(authority) => Some(named(authority.as_str())?),
        None => None,
    };
    match (header, target) {
        (Some(header), Some(target)) if header != target => None,
        (header, target) => header.or(target),
    }
}

/// Browsers say on whose behalf they ask. A link from elsewhere may lead to the page; anything else must come from it.
fn check_site(request: &Parts, host: &Authority) -> Result<(), Refusal> {
    let headers = &request.headers;
    let navigates = request.method == Method::GET
        && text(headers, "sec-fetch-mode") == Some("navigate")
        && text(headers, "sec-fetch-dest") == Some("document");
    let site = text(headers, "sec-fetch-site");
    let foreign = headers.contains_key("sec-fetch-site") && !matches!(site, Some("same-origin" | "none"));
    if foreign && !navigates {
        return Err(forbidden("not at another site's request"));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let same = origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(scheme, rest)| {
            matches!(scheme, "http" | "https") && rest.parse::<Authority>().is_ok_and(|origin| origin == *host)
        });
        if !same {
            return Err(forbidden("not from another origin"));
        }
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("actions", &self.actions).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}
