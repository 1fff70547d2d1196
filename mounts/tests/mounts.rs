//! Both frameworks over real sockets: the page below its mount, the way to its slash, the stream, and who is let in.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{Request, Response, StatusCode};
use fusebox::{Command, Registry};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;

#[derive(Clone, Copy)]
enum Http {
    One,
    Two,
}

async fn get(http: Http, address: SocketAddr, path: &str) -> Response<Incoming> {
    let stream = TokioIo::new(TcpStream::connect(address).await.expect("the server listens"));
    match http {
        Http::One => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1");
            tokio::spawn(connection);
            let request = Request::get(path).header("host", address.to_string());
            sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request")).await.expect("a response")
        }
        Http::Two => {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
            let (mut sender, connection) = handshake.await.expect("HTTP/2");
            tokio::spawn(connection);
            let request = Request::get(format!("http://{address}{path}"));
            sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request")).await.expect("a response")
        }
    }
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.expect("whole").to_bytes().into()).expect("UTF-8")
}

/// What must hold in either framework.
async fn check(http: Http, address: SocketAddr) {
    let page = get(http, address, "/ops/fusebox/").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(text(page).await.contains("dashboard.js"));
    let script = get(http, address, "/ops/fusebox/dashboard.js").await;
    assert_eq!(
        (script.status(), &script.headers()[CONTENT_TYPE]),
        (StatusCode::OK, &"text/javascript;charset=UTF-8".parse().expect("a value"))
    );
    let bare = get(http, address, "/ops/fusebox").await;
    assert_eq!(
        (bare.status(), &bare.headers()[LOCATION]),
        (StatusCode::PERMANENT_REDIRECT, &"./fusebox/".parse().expect("a value"))
    );
    assert!(text(get(http, address, "/ops/fusebox/snapshot.json").await).await.contains("\"mounted\""));
    let mut stream = get(http, address, "/ops/fusebox/stream").await.into_body();
    let first = stream.frame().await.expect("a frame").expect("whole").into_data().expect("data");
    assert!(first.starts_with(b"data: {"));

    // There are five places. A page that is closed gives its own back as soon as the server hears of it.
    let mut pages = Vec::new();
    for _ in 1..5 {
        pages.push(get(http, address, "/ops/fusebox/stream").await);
    }
    assert_eq!(get(http, address, "/ops/fusebox/stream").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(pages.pop());
    let asked =
        async { while get(http, address, "/ops/fusebox/stream").await.status() == StatusCode::SERVICE_UNAVAILABLE {} };
    timeout(Duration::from_secs(10), asked).await.expect("the place is free");
}

fn registry() -> (Registry, Command) {
    let registry = Registry::new();
    let command = Command::builder("mounted").registry(&registry).build().expect("the defaults are valid");
    (registry, command)
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[tokio::test]
async fn axum_serves_the_dashboard_below_a_mount_and_the_stream_beside_it() {
    let ((registry, _command), (listener, address)) = (registry(), listener().await);
    let app = fusebox_mounts::axum(&registry).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, app).into_future());
    check(Http::One, address).await;
    let mut stream = get(Http::One, address, "/hystrix.stream").await.into_body();
    let first = stream.frame().await.expect("a frame").expect("whole").into_data().expect("data");
    assert!(first.starts_with(b"data: {\"type\":\"HystrixCommand\""));
}

#[tokio::test]
async fn axum_without_connect_info_lets_nobody_in() {
    let ((registry, _command), (listener, address)) = (registry(), listener().await);
    tokio::spawn(axum::serve(listener, fusebox_mounts::axum(&registry)).into_future());
    assert_eq!(get(Http::One, address, "/ops/fusebox/").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn tonic_serves_the_dashboard_beside_its_services_over_http_2() {
    let ((registry, _command), (listener, address)) = (registry(), listener().await);
    let server = tonic::transport::Server::builder().add_routes(fusebox_mounts::tonic(&registry));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    check(Http::Two, address).await;
}
