//! The page, and the headers of every response.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::web::body::Body;

const HTML: &str = include_str!("page/dashboard.html");
const SCRIPT: &str = include_str!("page/dashboard.js");
const STYLE: &str = include_str!("page/dashboard.css");

/// What every response carries, whatever it is. The policy allows the page its own script, its own style and requests to
/// where it came from; nothing inline, no frames, and no text that becomes markup.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// A file of the page, by its name.
pub(super) fn file(name: &str) -> Option<Response<Body>> {
    let (kind, text) = match name {
        "" => ("text/html;charset=UTF-8", HTML),
        "dashboard.js" => ("text/javascript;charset=UTF-8", SCRIPT),
        "dashboard.css" => ("text/css;charset=UTF-8", STYLE),
        _ => return None,
    };
    Some(response(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()).into()))
}

pub(super) fn json(status: StatusCode, json: Vec<u8>) -> Response<Body> {
    response(status, "application/json", Bytes::from(json).into())
}

pub(super) fn text(status: StatusCode, text: &str) -> Response<Body> {
    response(status, "text/plain;charset=UTF-8", Bytes::from(format!("{text}\n")).into())
}

pub(super) fn stream(body: Body) -> Response<Body> {
    let mut response = response(StatusCode::OK, "text/event-stream;charset=UTF-8", body);
    // Proxies that collect a response before they pass it on would hold back the stream for ever.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

pub(super) fn only(method: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "not by this method");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// To the same address with a slash at the end; relative, because nobody here knows what the whole address is.
pub(super) fn with_slash(segment: &str) -> Option<Response<Body>> {
    let mut response = text(StatusCode::PERMANENT_REDIRECT, "the page is one slash further");
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(format!("./{segment}/")).ok()?);
    Some(response)
}

fn response(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
