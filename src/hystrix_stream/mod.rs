//! `hystrix.stream`: what Hystrix's own dashboard, Turbine and everything else that grew around them read.
//!
//! Needs the feature `hystrix-stream`. [`Handler`] serves the stream with any HTTP server that takes a
//! [`tower_service::Service`]; [`Frames`] is the stream itself.
//!
//! Every 500 ms there is one `HystrixCommand` record per command and one `HystrixThreadPool` record per bulkhead, idle or
//! not, each as a server-sent event of its own, and a `ping: ` line, which keeps proxies from giving up. What Hystrix
//! counts and fusebox does not (collapsed requests, cached responses, emitted values) is 0. A refusal by the bulkhead or a
//! rate limit is a `SemaphoreRejected`, a panic a `Failure`, an ignored result a `BadRequest`; half-open is open.
//!
//! Each circuit of a [keyed](crate::Keyed) command is a command to Hystrix, `name[key]`, and the one that keys share is
//! `name[*]`. Of more than 100 keys the worst 100 have records: those that are not closed, then those with most errors.
//!
//! With axum, beside Hystrix's dashboard, whose page asks for `../proxy.stream?origin=..`: served at that path this
//! handler takes the place of the Java proxy. It never looks at the query, so it cannot be told to fetch anything.
//!
//! ```
//! use fusebox::Registry;
//! use fusebox::hystrix_stream::Handler;
//! use http::{Request, StatusCode, header::CONTENT_TYPE};
//! use tower_service::Service;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // axum: Router::new().route_service("/hystrix.stream", handler)
//! let mut handler = Handler::new(Registry::global());
//! let response = handler.call(Request::new(())).await.unwrap();
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream;charset=UTF-8");
//! # }
//! ```
//!
//! Whoever reaches the handler reads names, figures and settings of every command: mount it where only operators come.

mod frames;
mod handler;
mod record;

pub use self::frames::Frames;
pub use self::handler::Handler;
pub use crate::web::body::Body;
