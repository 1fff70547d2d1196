//! The dashboard and the Hystrix stream, served by plain hyper.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fusebox::Registry;
use fusebox::dashboard::{Access, Body, Dashboard, Peer};
use fusebox::hystrix_stream::Handler;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_service::Service;

/// What visitors may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// There are no actions.
    OnlyLook,
    /// There are, and not for them.
    NotAct,
    Act,
}

/// Serves until the process ends.
pub(crate) async fn start(port: u16, may: May) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    let dashboard = Dashboard::builder(Registry::global());
    let dashboard = if may == May::OnlyLook { dashboard } else { dashboard.enable_actions() };
    // A real service would look at a session or a certificate here.
    let access = if may == May::Act { Access::write() } else { Access::read() };
    let dashboard = dashboard.authorize(move |_| access.clone().by("whoever is at this machine")).build();
    let site = Site { dashboard, stream: Handler::new(Registry::global()) };
    tokio::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let site = site.clone();
            let service = service_fn(move |mut request| {
                // Only the accept loop knows who it is.
                Request::extensions_mut(&mut request).insert(Peer(peer));
                site.clone().respond(request)
            });
            // A browser that goes away is its own business.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

#[derive(Clone)]
struct Site {
    dashboard: Dashboard,
    stream: Handler,
}

impl Site {
    async fn respond(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        match request.uri().path() {
            // The second is where Hystrix's own page looks for it.
            "/hystrix.stream" | "/proxy.stream" => self.stream.call(request).await,
            path if path.starts_with("/fusebox") => self.dashboard.call(request).await,
            _ => Ok(elsewhere()),
        }
    }
}

fn elsewhere() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(b"the dashboard is at fusebox/\n")));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/fusebox/"));
    response
}
