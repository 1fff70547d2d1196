//! `/metrics` for Prometheus: what a service does once at its start to have its commands on a dashboard.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

/// Installs the recorder and serves it on loopback until the process ends.
pub(crate) async fn serve(port: u16) -> io::Result<SocketAddr> {
    let prometheus = install().map_err(io::Error::other)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("/metrics cannot be served on port {port}: {error}")))?;
    let address = listener.local_addr()?;
    tokio::spawn(upkeep(prometheus.clone()));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let prometheus = prometheus.clone();
            let service = service_fn(move |request| {
                let response = respond(&request, &prometheus);
                async { Ok::<_, Infallible>(response) }
            });
            // A scraper that goes away is its own business.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        // Without buckets the exporter would render a summary, whose percentiles cannot be added up over instances.
        .set_buckets_for_metric(Matcher::Full("fusebox_call_duration_seconds".into()), &fusebox::DURATION_BUCKETS)?
        .install_recorder()
}

/// Samples wait in the recorder until they are put into buckets, which must happen also when nobody scrapes.
async fn upkeep(prometheus: PrometheusHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        prometheus.run_upkeep();
    }
}

fn respond(request: &Request<Incoming>, prometheus: &PrometheusHandle) -> Response<Full<Bytes>> {
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        let mut response = Response::new(Full::from("GET /metrics\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    // Gauges such as the calls in flight are sampled, not counted: bring them up to date first.
    fusebox::Registry::global().publish();
    let mut response = Response::new(Full::from(prometheus.render()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
