//! An embedded dashboard: one page that says which dependency is sick, since when, why its circuit opened, and what is
//! being done about it.
//!
//! Needs the feature `dashboard`. [`Dashboard`] is a [`tower_service::Service`] without a framework: it mounts in axum,
//! tonic or plain hyper, at any path. While it lives it reads a snapshot of each command once a second, for all who look
//! together, and keeps ten minutes of them (about 21 KiB per command), so that the page has a past when somebody opens
//! it. Calls are not touched.
//!
//! A [keyed](crate::Keyed) command has one card, with the figures of all its circuits together and the state of the one
//! that keys share; keys whose circuits are not closed are named on it, from their events. Its own page has the figures of
//! its keys, the worst 100 of them. To add up takes time in proportion to the number of keys, once a second.
//!
//! # Mounting
//!
//! The server must say where a request comes from: by a [`Peer`] among the extensions of the request, or by an extension
//! of its own that [`Builder::peer_from`] reads. With hyper:
//!
//! ```
//! use fusebox::Registry;
//! use fusebox::dashboard::{Dashboard, Peer};
//! use tower_service::Service;
//!
//! # use http_body_util::Empty;
//! # use http::StatusCode;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let dashboard = Dashboard::new(Registry::global());
//!
//! // In the accept loop: `let (stream, peer) = listener.accept().await?;`, and then per request, in a `service_fn`:
//! # let peer = "127.0.0.1:50000".parse().unwrap();
//! # let mut request = http::Request::get("/ops/fusebox/").header("host", "localhost").body(Empty::<&[u8]>::new()).unwrap();
//! request.extensions_mut().insert(Peer(peer));
//! let response = dashboard.clone().call(request).await.unwrap();
//! # assert_eq!(response.status(), StatusCode::OK);
//! # }
//! ```
//!
//! With axum, and so with tonic, whose routes are an axum router (and whose extension is `TcpConnectInfo`); the workspace
//! member `mounts` has both, tested:
//!
//! ```text
//! let dashboard = Dashboard::builder(Registry::global())
//!     .peer_from(|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0))
//!     .original_path(|extensions| extensions.get::<OriginalUri>().map(|uri| uri.path().to_owned()))
//!     .build();
//! let app = Router::new().nest_service("/fusebox", dashboard);
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
//! ```
//!
//! `nest_service` hides the path that was asked for, and with it whether a slash ended it; `original_path` brings it
//! back, so that `/fusebox` can be sent on to `/fusebox/`. The page asks by relative addresses alone.
//!
//! # What is where
//!
//! | below the mount | what |
//! |---|---|
//! | | the page, `dashboard.js`, `dashboard.css` |
//! | `snapshot.json` | every command, with the last two minutes, and the latest entries of the log |
//! | `command.json?id=` | one command: ten minutes, timeline, histogram, keys, events, configuration |
//! | `stream` | server-sent events: every command, once a second |
//! | `action` | `POST {"command", "key", "action", "reason", "expires_in_seconds"}` |
//!
//! # Security
//!
//! By default it is read-only and for this machine alone. Peers that are not on loopback are refused, and all are while
//! the peer is not known; a `Host` other than `localhost`, `127.0.0.1` or `[::1]` is refused (DNS rebinding); a request
//! that another site's page makes is refused; no CORS header is ever sent. Actions need
//! [`Builder::enable_actions`], a POST with a JSON body and the header `x-fusebox-action`, and the right to write, which
//! [`Builder::authorize`] can tell from the right to read. Each action leaves an [`Audit`]: an event for
//! [`tracing`], for [`Builder::on_audit`] and in the page's own log. There is a cap on streams, and readers that do not
//! read are dropped. The page runs under a content security policy that forbids everything but its own two files; names
//! and reasons reach it as JSON and are shown as text. Errors of operations appear nowhere: only their counts do.
//!
//! A proxy on the same machine makes every peer a local one. What says that it was forwarded is refused until
//! [`Builder::behind_proxy`]; a proxy that does not say so cannot be told from a local peer, so mount the dashboard where
//! no proxy leads, or let the proxy authenticate and check that with [`Builder::authorize`].

mod action;
mod assets;
mod builder;
mod collector;
mod gate;
mod history;
mod log;
mod service;
mod setting;
mod view;

pub use self::action::{Action, Audit};
pub use self::builder::Builder;
pub use self::gate::{Access, Peer, Rights};
pub use self::service::Dashboard;
pub use crate::web::body::Body;
