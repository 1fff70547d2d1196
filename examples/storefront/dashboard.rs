//! The page on which the circuits can be watched, and beside it the stream for Hystrix's own page, on loopback: what a
//! service mounts behind its other internal pages.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fusebox::Registry;
use fusebox::dashboard::{Dashboard, Peer};
use fusebox::hystrix_stream::Handler;
use futures::future::Either;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_service::Service;

/// Serves it until the process ends. Anybody at this machine may force the circuits: it is only a play.
pub(crate) async fn serve(port: u16) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        io::Error::new(error.kind(), format!("the dashboard cannot be served on port {port}: {error}"))
    })?;
    let address = listener.local_addr()?;
    let dashboard = Dashboard::builder(Registry::global()).enable_actions().build();
    let stream = Handler::new(Registry::global());
    tokio::spawn(async move {
        loop {
            let Ok((connection, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (dashboard, stream) = (dashboard.clone(), stream.clone());
            let service = service_fn(move |mut request: Request<Incoming>| match request.uri().path() {
                // The second is where Hystrix's page looks for it.
                "/hystrix.stream" | "/proxy.stream" => Either::Left(stream.clone().call(request)),
                _ => {
                    // It lets in whom it knows to be at this machine, and only the accept loop can tell.
                    request.extensions_mut().insert(Peer(peer));
                    Either::Right(dashboard.clone().call(request))
                }
            });
            // A browser that goes away is its own business.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
        }
    });
    Ok(address)
}
