//! Requests and what answers them.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Extensions, Method, Request, Response, StatusCode};
use tower_service::Service;

use super::action::{Audit, Order};
use super::builder::Builder;
use super::collector::Shared;
use super::gate::{Gate, Refusal, Rights, Visitor};
use super::{assets, view};
use crate::registry::Registry;
use crate::time::Stamp;
use crate::web::body::{Body, collect};
use crate::web::clients::Refused;
use crate::web::json::Object;

/// An order is a few words.
const LONGEST_BODY: usize = 8 * 1024;

type OriginalPath = dyn Fn(&Extensions) -> Option<String> + Send + Sync;
type Hear = dyn Fn(&Audit) + Send + Sync;

#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) original_path: Option<Arc<OriginalPath>>,
    pub(super) audit: Option<Arc<Hear>>,
}

/// The dashboard of a registry, as a [`tower_service::Service`] that any HTTP server can call. Clones are one dashboard.
///
/// It collects from when it is built until its last clone is dropped. The [module](super) says how to mount it, what it
/// serves and whom it lets in.
#[derive(Clone)]
pub struct Dashboard {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    hooks: Hooks,
}

impl Dashboard {
    /// A dashboard of `registry`, read-only and for this machine.
    pub fn new(registry: &Registry) -> Self {
        Self::builder(registry).build()
    }

    /// Sets one up.
    pub fn builder(registry: &Registry) -> Builder {
        Builder::new(registry)
    }

    pub(super) fn start(shared: Arc<Shared>, gate: Gate, hooks: Hooks) -> Self {
        shared.collect();
        Self { shared, gate: Arc::new(gate), hooks }
    }

    /// How many streams are read now.
    pub fn clients(&self) -> usize {
        self.shared.clients.count()
    }

    /// Ends all streams and lets none begin: part of a graceful shutdown, which would wait for streams for ever.
    pub fn shut_down(&self) {
        self.shared.clients.close();
    }

    /// Whatever needs no body.
    fn respond(&self, request: &Parts) -> Result<Step, Refusal> {
        let visitor = self.gate.admit(request)?;
        self.shared.collect();
        let original = self.hooks.original_path.as_ref().and_then(|find| find(&request.extensions));
        let path = original.as_deref().unwrap_or(request.uri.path());
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        if name == "action" {
            if request.method != Method::POST {
                return Ok(assets::only("POST").into());
            }
            self.gate.admit_action(request)?;
            return Ok(Step::Act(visitor));
        }
        if request.method != Method::GET {
            return Ok(assets::only("GET").into());
        }
        if let Some(file) = assets::file(name) {
            return Ok(file.into());
        }
        let found = match name {
            "snapshot.json" => Some(self.snapshot(&visitor)),
            "command.json" => self.command(request.uri.query()),
            "stream" => Some(self.stream()),
            // The mount itself, without its slash.
            segment if !segment.contains('.') => assets::with_slash(segment),
            _ => None,
        };
        Ok(found.unwrap_or_else(|| assets::text(StatusCode::NOT_FOUND, "there is nothing here")).into())
    }

    fn snapshot(&self, visitor: &Visitor) -> Response<Body> {
        let actions = match visitor.access.rights {
            _ if !self.gate.actions => "off",
            Rights::Write => "allowed",
            _ => "denied",
        };
        let mut json = Vec::new();
        self.shared.board(|board| view::snapshot(&mut json, board, actions));
        assets::json(StatusCode::OK, json)
    }

    fn command(&self, query: Option<&str>) -> Option<Response<Body>> {
        let id = query?.split('&').find_map(|pair| pair.strip_prefix("id="))?.parse().ok()?;
        // Before the board is locked: there may be many keys.
        let keys = self.shared.command(id)?.worst_keys(view::KEYS_IN_FULL);
        let mut json = Vec::new();
        self.shared.board(|board| view::command(&mut json, board, id, &keys))?;
        Some(assets::json(StatusCode::OK, json))
    }

    fn stream(&self) -> Response<Body> {
        match self.shared.clients.join(self.shared.latest_frame()) {
            Ok(reader) => assets::stream(reader.into()),
            Err(Refused::Full(most)) => {
                let text = format!("{most} pages are open already, and max_clients is {most}");
                assets::text(StatusCode::SERVICE_UNAVAILABLE, &text)
            }
            Err(Refused::Closed) => assets::text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
        }
    }

    fn act(&self, visitor: Visitor, body: &[u8]) -> Response<Body> {
        let order = match Order::parse(body) {
            Ok(order) => order,
            Err(error) => return answer(StatusCode::BAD_REQUEST, Some(&error)),
        };
        let command = match order.find(&self.shared.registry) {
            Ok(command) => command,
            Err(missing) => return answer(missing.status(), Some(missing.as_str())),
        };
        let allowed = visitor.access.rights == Rights::Write;
        if allowed {
            order.carry_out(&command);
        }
        self.audit(&Audit {
            action: order.action,
            command: order.command,
            key: order.key,
            reason: order.reason,
            expiry: order.expiry,
            who: visitor.access.who,
            peer: visitor.peer,
            allowed,
            at: Stamp::now().wall_clock(),
        });
        match allowed {
            true => answer(StatusCode::OK, None),
            false => answer(StatusCode::FORBIDDEN, Some("you may look, but not act")),
        }
    }

    fn audit(&self, audit: &Audit) {
        tracing::warn!(target: "fusebox::audit", who = audit.who.as_deref(), allowed = audit.allowed, "{audit}");
        self.shared.tell_action(audit);
        if let Some(hear) = &self.hooks.audit {
            if catch_unwind(AssertUnwindSafe(|| hear(audit))).is_err() {
                tracing::error!(target: "fusebox", "the hook for audits panicked");
            }
        }
    }
}

/// What comes after a request's head.
enum Step {
    Answer(Response<Body>),
    Act(Visitor),
}

impl From<Response<Body>> for Step {
    fn from(response: Response<Body>) -> Self {
        Self::Answer(response)
    }
}

fn answer(status: StatusCode, error: Option<&str>) -> Response<Body> {
    let mut json = Vec::new();
    Object::write(&mut json, |o| {
        o.field("ok", error.is_none());
        if let Some(error) = error {
            o.field("error", error);
        }
    });
    assets::json(status, json)
}

impl<B> Service<Request<B>> for Dashboard
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        match self.respond(&head) {
            Ok(Step::Answer(response)) => Box::pin(ready(Ok(response))),
            Ok(Step::Act(visitor)) => {
                let dashboard = self.clone();
                Box::pin(async move {
                    Ok(match collect(body, LONGEST_BODY).await {
                        Some(body) => dashboard.act(visitor, &body),
                        None => answer(StatusCode::PAYLOAD_TOO_LARGE, Some("the body is too long, or was cut off")),
                    })
                })
            }
            Err(Refusal { status, why }) => Box::pin(ready(Ok(assets::text(status, why)))),
        }
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("gate", &self.gate).field("clients", &self.clients()).finish_non_exhaustive()
    }
}
