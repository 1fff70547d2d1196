//! The dashboard and the Hystrix stream in frameworks that the library itself does not know.
//!
//! A crate of its own, because these frameworks are heavy: the default build and the default tests never compile it.
//! `tests/mounts.rs` asks both over real sockets.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, OriginalUri};
use fusebox::Registry;
use fusebox::dashboard::Dashboard;
use fusebox::hystrix_stream::Handler;
use tonic::transport::server::TcpConnectInfo;

/// With axum: serve it with `into_make_service_with_connect_info::<SocketAddr>()`, or every peer is unknown.
pub fn axum(registry: &Registry) -> Router {
    let dashboard = Dashboard::builder(registry)
        .peer_from(|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0))
        .original_path(|extensions| extensions.get::<OriginalUri>().map(|uri| uri.path().to_owned()))
        .build();
    Router::new().nest_service("/ops/fusebox", dashboard).route_service("/hystrix.stream", Handler::new(registry))
}

/// With tonic, beside gRPC services: its routes are an axum router, and its server knows the peer by another name.
pub fn tonic(registry: &Registry) -> tonic::service::Routes {
    let dashboard = Dashboard::builder(registry)
        .peer_from(|extensions| extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr))
        .original_path(|extensions| extensions.get::<OriginalUri>().map(|uri| uri.path().to_owned()))
        .build();
    Router::new().nest_service("/ops/fusebox", dashboard).into()
}
