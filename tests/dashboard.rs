//! The dashboard's server: whom it lets in, what it does for them, and what it tells.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusebox::dashboard::{Access, Audit, Body, Builder, Dashboard, Peer};
use fusebox::{Breaker, Command, Keyed, Keys, Registry, State};
use futures::FutureExt;
use http::header::{ALLOW, CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use support::{advance, fail, in_a_row, ms, play, refused, secs};
use tower_service::Service;

const LOCAL: &str = "127.0.0.1:50000";

fn build(registry: &Registry, name: &str) -> Command {
    Command::builder(name).registry(registry).breaker(in_a_row(1)).build().expect("a good configuration")
}

/// A request as a browser on this machine makes it.
fn local(method: Method, path: &str) -> http::request::Builder {
    from(LOCAL, method, path)
}

fn from(peer: &str, method: Method, path: &str) -> http::request::Builder {
    let peer: SocketAddr = peer.parse().expect("an address");
    Request::builder().method(method).uri(path).header(HOST, "localhost:8080").extension(Peer(peer))
}

async fn send(dashboard: &Dashboard, request: http::request::Builder) -> Response<Body> {
    send_with(dashboard, request, String::new()).await
}

async fn send_with(dashboard: &Dashboard, request: http::request::Builder, body: String) -> Response<Body> {
    dashboard.clone().call(request.body(Full::<Bytes>::from(body)).expect("a request")).await.expect("never fails")
}

async fn get(dashboard: &Dashboard, path: &str) -> Response<Body> {
    send(dashboard, local(Method::GET, path)).await
}

async fn status(dashboard: &Dashboard, request: http::request::Builder) -> StatusCode {
    send(dashboard, request).await.status()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.expect("never fails").to_bytes().into()).expect("UTF-8")
}

async fn read(dashboard: &Dashboard, path: &str) -> Value {
    serde_json::from_str(&text(get(dashboard, path).await).await).expect("JSON")
}

/// An order as the page sends it.
fn post() -> http::request::Builder {
    local(Method::POST, "/action")
        .header(CONTENT_TYPE, "application/json")
        .header("x-fusebox-action", "1")
        .header(ORIGIN, "http://localhost:8080")
        .header("sec-fetch-site", "same-origin")
}

fn order(command: &str, action: &str) -> String {
    json!({ "command": command, "action": action, "reason": "a drill" }).to_string()
}

/// Lets time pass, and the task that collects do what is due then.
async fn pass(by: Duration) {
    advance(by).await;
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// The events that a stream has by now, as JSON.
fn events(body: &mut Body) -> Vec<Value> {
    std::iter::from_fn(|| body.frame().now_or_never().flatten())
        .map(|frame| {
            let data = frame.expect("never fails").into_data().expect("data");
            let text = std::str::from_utf8(&data).expect("UTF-8");
            let line = text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).expect("one event");
            assert!(!line.contains(['\r', '\n']), "one line");
            serde_json::from_str(line).expect("JSON")
        })
        .collect()
}

fn actor(registry: &Registry) -> Builder {
    Dashboard::builder(registry).enable_actions()
}

// ---- who may come in ----

#[tokio::test(start_paused = true)]
async fn remote_peers_are_refused_unless_they_are_allowed() {
    let dashboard = Dashboard::new(&Registry::new());
    for (peer, expected) in [
        ("127.0.0.1:1", StatusCode::OK),
        ("127.8.9.1:1", StatusCode::OK),
        ("[::1]:1", StatusCode::OK),
        ("[::ffff:127.0.0.1]:1", StatusCode::OK),
        ("192.0.2.1:1", StatusCode::FORBIDDEN),
        ("[::ffff:192.0.2.1]:1", StatusCode::FORBIDDEN),
        ("[2001:db8::1]:1", StatusCode::FORBIDDEN),
        ("0.0.0.0:1", StatusCode::FORBIDDEN),
    ] {
        for path in ["/", "/dashboard.js", "/snapshot.json", "/stream", "/command.json?id=0"] {
            let status = status(&dashboard, from(peer, Method::GET, path)).await;
            let expected = if path.starts_with("/command") && expected == StatusCode::OK {
                StatusCode::NOT_FOUND
            } else {
                expected
            };
            assert_eq!(status, expected, "{peer} {path}");
        }
    }
    let open = Dashboard::builder(&Registry::new()).allow_peers(|peer| peer == IpAddr::from([192, 0, 2, 1])).build();
    assert_eq!(status(&open, from("[::ffff:192.0.2.1]:1", Method::GET, "/")).await, StatusCode::OK);
    assert_eq!(status(&open, from(LOCAL, Method::GET, "/")).await, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_peer_is_refused_even_where_all_peers_are_allowed() {
    let dashboard = Dashboard::builder(&Registry::new()).allow_peers(|_| true).build();
    let request = Request::get("/").header(HOST, "localhost");
    assert_eq!(status(&dashboard, request).await, StatusCode::FORBIDDEN);

    #[derive(Clone)]
    struct ConnectInfo(SocketAddr);
    let theirs = Dashboard::builder(&Registry::new())
        .peer_from(|extensions| extensions.get::<ConnectInfo>().map(|info| info.0))
        .build();
    let request = || Request::get("/").header(HOST, "localhost");
    let known = request().extension(ConnectInfo(LOCAL.parse().expect("an address")));
    assert_eq!(status(&theirs, known).await, StatusCode::OK);
    assert_eq!(status(&theirs, request()).await, StatusCode::FORBIDDEN);
}

/// Behind a proxy on this machine every peer is a local one.
#[tokio::test(start_paused = true)]
async fn what_a_proxy_passes_on_is_refused_until_it_is_expected() {
    let registry = Registry::new();
    let (closed, open) = (Dashboard::new(&registry), Dashboard::builder(&registry).behind_proxy().build());
    for header in ["forwarded", "via", "x-forwarded-for", "x-real-ip"] {
        let request = || local(Method::GET, "/snapshot.json").header(header, "192.0.2.1");
        assert_eq!(status(&closed, request()).await, StatusCode::FORBIDDEN, "{header}");
        assert_eq!(status(&open, request()).await, StatusCode::OK, "{header}");
    }
}

/// Under a name that an attacker's DNS points at this machine, a page of theirs would be of the same origin.
#[tokio::test(start_paused = true)]
async fn a_foreign_host_is_refused() {
    let dashboard = Dashboard::builder(&Registry::new()).allow_host("Ops.Example").build();
    let request = |host: &str| {
        let mut request = local(Method::GET, "/snapshot.json");
        request.headers_mut().expect("headers").insert(HOST, host.parse().expect("a value"));
        request
    };
    for host in ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:8080", "[::1]:8080", "ops.example:443"] {
        assert_eq!(status(&dashboard, request(host)).await, StatusCode::OK, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "evil.example:localhost",
        "localhost@evil.example",
        "evil.example@localhost",
        "127.0.0.2",
        "",
        "[::2]",
    ] {
        assert_eq!(status(&dashboard, request(host)).await, StatusCode::FORBIDDEN, "{host:?}");
    }
    let none = Request::get("/").extension(Peer(LOCAL.parse().expect("an address")));
    assert_eq!(status(&dashboard, none).await, StatusCode::FORBIDDEN, "without any");
    let two = request("localhost").header(HOST, "evil.example");
    assert_eq!(status(&dashboard, two).await, StatusCode::FORBIDDEN, "with two");

    let http2 = |uri: &str| Request::get(uri.to_owned()).extension(Peer(LOCAL.parse().expect("an address")));
    assert_eq!(status(&dashboard, http2("http://localhost:8080/")).await, StatusCode::OK, "from the URI");
    assert_eq!(status(&dashboard, http2("http://evil.example/")).await, StatusCode::FORBIDDEN);
    let both = http2("http://localhost/").header(HOST, "evil.example");
    assert_eq!(status(&dashboard, both).await, StatusCode::FORBIDDEN, "they differ");
}

#[tokio::test(start_paused = true)]
async fn requests_of_other_sites_are_refused_but_their_links_work() {
    let dashboard = actor(&Registry::new()).build();
    let with = |path: &str, headers: &[(&str, &str)]| {
        headers.iter().fold(local(Method::GET, path), |request, &(name, value)| request.header(name, value))
    };
    for (path, headers, expected) in [
        ("/", vec![("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")], StatusCode::OK),
        (
            "/",
            vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
            StatusCode::OK,
        ),
        (
            "/",
            vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            StatusCode::FORBIDDEN,
        ),
        ("/stream", vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")], StatusCode::FORBIDDEN),
        ("/stream", vec![("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")], StatusCode::FORBIDDEN),
        ("/stream", vec![("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")], StatusCode::OK),
        ("/snapshot.json", vec![("origin", "http://evil.example")], StatusCode::FORBIDDEN),
        ("/snapshot.json", vec![("origin", "null")], StatusCode::FORBIDDEN),
        ("/snapshot.json", vec![("origin", "http://localhost:9999")], StatusCode::FORBIDDEN),
        ("/snapshot.json", vec![("origin", "ftp://localhost:8080")], StatusCode::FORBIDDEN),
        ("/snapshot.json", vec![("origin", "http://localhost:8080")], StatusCode::OK),
    ] {
        assert_eq!(status(&dashboard, with(path, &headers)).await, expected, "{path} {headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rights_to_read_and_to_write_are_two() {
    let registry = Registry::new();
    let db = build(&registry, "db");
    let heard: Arc<Mutex<Vec<Audit>>> = Arc::default();
    let audits = Arc::clone(&heard);
    let dashboard = actor(&registry)
        .authorize(|request| match request.headers.get("x-user").and_then(|user| user.to_str().ok()) {
            Some("alice") => Access::write().by("alice"),
            Some(user) => Access::read().by(user),
            None => Access::none(),
        })
        .on_audit(move |audit| audits.lock().expect("not poisoned").push(audit.clone()))
        .build();
    for path in ["/", "/snapshot.json", "/stream"] {
        assert_eq!(status(&dashboard, local(Method::GET, path)).await, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(
            status(&dashboard, local(Method::GET, path).header("x-user", "bob")).await,
            StatusCode::OK,
            "{path}"
        );
    }
    let snapshot = async |user| {
        let response = send(&dashboard, local(Method::GET, "/snapshot.json").header("x-user", user)).await;
        let snapshot: Value = serde_json::from_str(&text(response).await).expect("JSON");
        snapshot["actions"].as_str().expect("a word").to_owned()
    };
    assert_eq!((snapshot("alice").await.as_str(), snapshot("bob").await.as_str()), ("allowed", "denied"));

    let refused = send_with(&dashboard, post().header("x-user", "bob"), order("db", "force_open")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(db.state(), State::Closed);
    let done = send_with(&dashboard, post().header("x-user", "alice"), order("db", "force_open")).await;
    assert_eq!((done.status(), db.state()), (StatusCode::OK, State::ForcedOpen));

    let heard = std::mem::take(&mut *heard.lock().expect("not poisoned"));
    let told: Vec<_> =
        heard.iter().map(|audit| (audit.who.as_deref(), audit.allowed, audit.command.as_str())).collect();
    assert_eq!(told, [(Some("bob"), false, "db"), (Some("alice"), true, "db")], "one audit for each");
    let log = read_log(&dashboard, "alice").await;
    let actions: Vec<_> = log.iter().filter(|entry| entry["kind"] == "action").collect();
    assert_eq!(actions.len(), 2);
    assert_eq!((&actions[1]["who"], &actions[1]["reason"]), (&json!("alice"), &json!("a drill")));
}

async fn read_log(dashboard: &Dashboard, user: &str) -> Vec<Value> {
    let response = send(dashboard, local(Method::GET, "/snapshot.json").header("x-user", user)).await;
    let mut snapshot: Value = serde_json::from_str(&text(response).await).expect("JSON");
    std::mem::take(snapshot["events"].as_array_mut().expect("a list"))
}

// ---- acting ----

#[tokio::test(start_paused = true)]
async fn without_being_enabled_nothing_can_be_done() {
    let registry = Registry::new();
    let db = build(&registry, "db");
    let dashboard = Dashboard::new(&registry);
    assert_eq!(read(&dashboard, "/snapshot.json").await["actions"], "off");
    assert_eq!(send_with(&dashboard, post(), order("db", "force_open")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(db.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_action_needs_a_post_of_json_with_the_header_from_the_same_origin() {
    let registry = Registry::new();
    let db = build(&registry, "db");
    let dashboard = actor(&registry).build();
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS, Method::HEAD] {
        let response = send_with(&dashboard, local(method.clone(), "/action"), order("db", "force_open")).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(response.headers()[ALLOW], "POST");
    }
    let without = |name: &str| {
        let mut request = post();
        request.headers_mut().expect("headers").remove(name);
        request
    };
    let with = |name: &'static str, value: &str| {
        let mut request = post();
        request.headers_mut().expect("headers").insert(name, value.parse().expect("a value"));
        request
    };
    for (request, expected, what) in [
        (without("x-fusebox-action"), StatusCode::FORBIDDEN, "the header"),
        (without("content-type"), StatusCode::UNSUPPORTED_MEDIA_TYPE, "a content type"),
        (with("content-type", "text/plain"), StatusCode::UNSUPPORTED_MEDIA_TYPE, "JSON"),
        (with("origin", "http://evil.example"), StatusCode::FORBIDDEN, "our origin"),
        (with("origin", "null"), StatusCode::FORBIDDEN, "an origin"),
        (with("sec-fetch-site", "cross-site"), StatusCode::FORBIDDEN, "our site"),
        (with("sec-fetch-site", "same-site"), StatusCode::FORBIDDEN, "our very origin"),
    ] {
        let response = send_with(&dashboard, request, order("db", "force_open")).await;
        assert_eq!((response.status(), db.state()), (expected, State::Closed), "without {what}");
    }
    let long = json!({ "command": "db", "action": "reset", "reason": "x".repeat(10_000) }).to_string();
    assert_eq!(send_with(&dashboard, post(), long).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let nameless = json!({ "command": "db", "action": "force_open", "reason": " " }).to_string();
    assert_eq!(send_with(&dashboard, post(), nameless).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(db.state(), State::Closed);
    assert_eq!(send_with(&dashboard, post(), order("db", "force_open")).await.status(), StatusCode::OK);
    assert_eq!(db.state(), State::ForcedOpen);

    // A script on this machine has no origin; what no page can send is enough.
    let mut script = without("origin");
    script.headers_mut().expect("headers").remove("sec-fetch-site");
    assert_eq!(send_with(&dashboard, script, order("db", "clear")).await.status(), StatusCode::OK);
    assert_eq!(db.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_is_forced_ends_by_itself_after_a_quarter_of_an_hour() {
    let registry = Registry::new();
    let db = build(&registry, "db");
    let dashboard = actor(&registry).build();
    send_with(&dashboard, post(), order("db", "force_open")).await;
    advance(secs(899)).await;
    assert_eq!(db.state(), State::ForcedOpen);
    advance(secs(1)).await;
    assert_eq!(db.state(), State::Closed);

    let brief = json!({"command": "db", "action": "force_closed", "reason": "a drill", "expires_in_seconds": 5});
    send_with(&dashboard, post(), brief.to_string()).await;
    fail(&db).await;
    assert_eq!(db.state(), State::ForcedClosed);
    advance(secs(5)).await;
    assert_eq!(db.state(), State::Closed);

    fail(&db).await;
    assert_eq!(db.state(), State::Open);
    send_with(&dashboard, post(), order("db", "reset")).await;
    assert_eq!(db.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_action_meets_the_command_that_was_meant_or_none() {
    let registry = Registry::new();
    let twins = [build(&registry, "twin"), build(&registry, "twin")];
    let dashboard = actor(&registry).build();
    let response = send_with(&dashboard, post(), order("twin", "force_open")).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let snapshot = read(&dashboard, "/snapshot.json").await;
    let second = json!({"command": "twin", "id": snapshot["commands"][1]["id"], "action": "force_open", "reason": "r"});
    assert_eq!(send_with(&dashboard, post(), second.to_string()).await.status(), StatusCode::OK);
    assert_eq!(twins.each_ref().map(Command::state), [State::Closed, State::ForcedOpen]);

    // Numbers begin anew when a service restarts: an old page's number may now be another command's.
    let stale = json!({"command": "other", "id": snapshot["commands"][0]["id"], "action": "force_open", "reason": "r"});
    assert_eq!(send_with(&dashboard, post(), stale.to_string()).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(twins[0].state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_stops_no_action() {
    let registry = Registry::new();
    let db = build(&registry, "db");
    let dashboard = actor(&registry).on_audit(|_| panic!("scripted")).build();
    assert_eq!(send_with(&dashboard, post(), order("db", "force_open")).await.status(), StatusCode::OK);
    assert_eq!(db.state(), State::ForcedOpen);
    assert_eq!(get(&dashboard, "/").await.status(), StatusCode::OK);
}

// ---- the stream ----

#[tokio::test(start_paused = true)]
async fn a_sixth_stream_is_told_the_cap_and_gets_the_place_of_one_that_leaves() {
    let dashboard = Dashboard::new(&Registry::new());
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(get(&dashboard, "/stream").await);
    }
    let sixth = get(&dashboard, "/stream").await;
    assert_eq!(sixth.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(sixth).await.contains("max_clients is 5"));
    streams.pop();
    assert_eq!((dashboard.clients(), get(&dashboard, "/stream").await.status()), (4, StatusCode::OK));
    dashboard.shut_down();
    assert_eq!(get(&dashboard, "/stream").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_dropped_between_two_events() {
    let registry = Registry::new();
    let _db = build(&registry, "db");
    let dashboard = Dashboard::new(&registry);
    let (mut slow, mut quick) =
        (get(&dashboard, "/stream").await.into_body(), get(&dashboard, "/stream").await.into_body());
    assert_eq!(events(&mut slow).len(), 1, "whole, and then no more is read");
    for _ in 0..12 {
        let looks = events(&mut quick);
        assert_eq!(looks.len(), 1, "the other one is not disturbed");
        pass(secs(1)).await;
    }
    assert_eq!(dashboard.clients(), 1, "its place is free");
    assert!(slow.frame().now_or_never().expect("it has ended").is_none());
}

#[tokio::test(start_paused = true)]
async fn everybody_gets_the_same_look_once_a_second() {
    let registry = Registry::new();
    let db = build(&registry, "db");
    let dashboard = Dashboard::new(&registry);
    let mut bodies = [get(&dashboard, "/stream").await.into_body(), get(&dashboard, "/stream").await.into_body()];
    bodies.iter_mut().for_each(|body| drop(events(body)));
    play(&db, "SSS").await;
    fail(&db).await;
    let late = build(&registry, "late");
    pass(ms(999)).await;
    assert!(bodies.iter_mut().all(|body| events(body).is_empty()));
    pass(ms(1)).await;
    let looks = bodies.each_mut().map(events);
    assert_eq!(looks[0], looks[1]);
    let [look] = looks[0].as_slice() else { panic!("one look a second") };
    let [first, second] = look["commands"].as_array().expect("a list").as_slice() else { panic!("two commands") };
    assert_eq!((&first["name"], &first["state"], &first["second"]["ok"]), (&json!("db"), &json!("open"), &json!(3)));
    assert_eq!((&first["second"]["failed"], &first["opening"]["cause"]), (&json!(1), &json!("consecutive_failures")));
    assert_eq!(second["name"], "late", "made after the dashboard");
    assert_eq!(look["events"][0]["kind"], "transition");

    drop(late);
    pass(secs(1)).await;
    let look = &events(&mut bodies[0])[0];
    assert_eq!((look["commands"].as_array().map(Vec::len), &look["events"]), (Some(1), &json!([])));
}

#[tokio::test(start_paused = true)]
async fn a_dashboard_that_is_dropped_collects_no_more() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let idle = tasks();
    let registry = Registry::new();
    let dashboard = Dashboard::new(&registry);
    let other = dashboard.clone();
    assert_eq!(tasks(), idle + 1, "one task for all clones");
    drop((dashboard, other));
    pass(secs(1)).await;
    assert_eq!(tasks(), idle);
}

/// Built before there is a runtime, as a static may be.
#[test]
fn without_a_runtime_the_first_request_begins_to_collect() {
    let registry = Registry::new();
    let _db = build(&registry, "db");
    let dashboard = Dashboard::new(&registry);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("it");
    for _ in 0..2 {
        // Each runtime takes its task with it when it goes.
        runtime().block_on(async {
            assert_eq!(read(&dashboard, "/snapshot.json").await["commands"][0]["name"], "db");
            let mut stream = get(&dashboard, "/stream").await.into_body();
            events(&mut stream);
            pass(secs(1)).await;
            assert_eq!(events(&mut stream).len(), 1);
        });
    }
}

// ---- what it tells ----

#[tokio::test(start_paused = true)]
async fn a_command_has_its_history_its_story_and_its_settings() {
    let registry = Registry::new();
    let breaker = in_a_row(2).open_for(secs(3));
    let db = Command::builder("db").group("stores").registry(&registry).breaker(breaker).build().expect("good");
    let dashboard = Dashboard::new(&registry);
    play(&db, "SS").await;
    pass(secs(1)).await;
    play(&db, "FT").await;
    pass(secs(1)).await;
    db.reconfigure(|config| config.timeout(ms(300))).expect("good");
    advance(secs(2)).await;
    fail(&db).await;
    pass(secs(1)).await;

    let id = &read(&dashboard, "/snapshot.json").await["commands"][0]["id"];
    let detail = read(&dashboard, &format!("/command.json?id={id}")).await;
    let command = &detail["command"];
    assert_eq!(
        (&command["state"], &command["reopenings"], &command["group"]),
        (&json!("open"), &json!(1), &json!("stores"))
    );
    assert_eq!(command["opening"]["report"]["window"], json!({ "success": 2, "failure": 1, "timed_out": 1 }));
    let history = &detail["history"];
    assert_eq!(history["ok"].as_array().map(|ok| ok[0].clone()), Some(json!(2)));
    assert_eq!(history["failed"].as_array().map(|failed| failed[1].clone()), Some(json!(2)));
    let states: Vec<_> = detail["timeline"].as_array().expect("a list").iter().map(|change| &change["state"]).collect();
    assert_eq!(states, ["closed", "open", "half_open", "open"]);
    assert!(!detail["histogram"].as_array().expect("a list").is_empty());
    assert_eq!(detail["lifetime"]["success"], 2);
    let setting = |field: &str| {
        let config = detail["config"].as_array().expect("a list");
        let setting = config.iter().find(|setting| setting["field"] == field).expect("a setting");
        (setting["value"].as_str().expect("text").to_owned(), setting["source"].as_str().expect("text").to_owned())
    };
    assert_eq!(setting("timeout"), ("300ms".to_owned(), "changed live".to_owned()));
    assert_eq!(setting("breaker.open_for"), ("3s".to_owned(), "set when built".to_owned()));
    assert_eq!(setting("max_concurrent_fallbacks"), ("100".to_owned(), "default".to_owned()));
    assert_eq!(detail["events"].as_array().map(Vec::len), Some(4), "three transitions and a change of settings");

    for query in ["", "?id=", "?id=99", "?id=-1", "?name=db"] {
        assert_eq!(get(&dashboard, &format!("/command.json{query}")).await.status(), StatusCode::NOT_FOUND, "{query}");
    }
}

/// What the registry has of a keyed command is the circuit that keys share; the keys are known by their events, and their
/// calls are counted together.
#[tokio::test(start_paused = true)]
async fn keys_that_are_not_well_are_named_with_their_command() {
    let registry = Registry::new();
    let breaker = in_a_row(1).open_for(secs(3));
    let command = Command::builder("hosts").registry(&registry).breaker(breaker);
    let hosts: Keyed<String> = command.keyed(Keys::up_to(8).latencies()).expect("a good configuration");
    let dashboard = Dashboard::new(&registry);
    for host in ["b.example", "a.example", "c.example"] {
        hosts.get(host).run(async || Err::<(), _>("down")).await.expect_err("scripted");
    }
    advance(secs(3)).await;
    hosts.get("c.example").run(async || Ok::<_, &str>(())).await.expect("scripted");
    pass(secs(1)).await;
    let card = async || read(&dashboard, "/snapshot.json").await["commands"][0].take();
    let hosts_card = card().await;
    assert_eq!(
        (&hosts_card["state"], &hosts_card["opening"]),
        (&json!("closed"), &Value::Null),
        "no key speaks for all"
    );
    assert_eq!(hosts_card["keys_unwell"], 2);
    let keys: Vec<_> = hosts_card["keys"].as_array().expect("a list").iter().map(|key| &key["key"]).collect();
    assert_eq!(keys, ["a.example", "b.example"]);
    assert_eq!(hosts_card["keys"][0]["cause"]["cause"], "consecutive_failures");
    assert_eq!(
        (&hosts_card["second"]["ok"], &hosts_card["limit"]),
        (&json!(1), &json!(400)),
        "three keys, and the rest"
    );
    let detail = read(&dashboard, &format!("/command.json?id={}", hosts_card["id"])).await;
    assert_eq!(detail["lifetime"]["failure"], 3);
    let calls = detail["histogram"].as_array().expect("a list").iter().map(|bucket| bucket["calls"].as_u64());
    assert_eq!(calls.sum::<Option<u64>>(), Some(4));
    for _ in 0..10 {
        pass(secs(60)).await;
    }
    assert_eq!(card().await["keys_unwell"], 0, "nobody has called them for ten minutes");
}

/// The circuit that keys share has next to no calls: what the page shows of the command is the sum, and of each key its own.
#[tokio::test(start_paused = true)]
async fn a_keyed_command_has_the_figures_of_all_keys_and_of_each() {
    let registry = Registry::new();
    let breaker = in_a_row(2).open_for(secs(30));
    let command = Command::builder("hosts").registry(&registry).max_concurrent(4).breaker(breaker);
    let hosts: Keyed<String> = command.keyed(Keys::up_to(200).latencies()).expect("a good configuration");
    let dashboard = Dashboard::new(&registry);
    for (host, script) in [("well.example", "SSSS"), ("ill.example", "SF"), ("dead.example", "FF")] {
        play(&hosts.get(host), script).await;
    }
    refused(&hosts.get("dead.example")).await;
    let held = hosts.get("well.example");
    let permit = held.admit().expect("it is closed");
    pass(secs(1)).await;

    let card = read(&dashboard, "/snapshot.json").await["commands"][0].take();
    assert_eq!((&card["keys_total"], &card["keys_unwell"]), (&json!(3), &json!(1)));
    assert_eq!(card["second"], json!({ "ok": 5, "failed": 3, "refused": 1, "other": 0, "served": 0 }));
    assert_eq!((&card["error_rate"], &card["in_flight"], &card["limit"]), (&json!(0.375), &json!(1), &json!(16)));
    assert!(card["latency"]["p99_us"].is_u64());

    let detail = read(&dashboard, &format!("/command.json?id={}", card["id"])).await;
    let fields = ["key", "state", "calls", "errors", "error_rate", "in_flight", "limit"];
    let shown: Vec<_> = (0..3).map(|at| json!(fields.map(|field| detail["keys"][at][field].clone()))).collect();
    let expected = [
        json!(["dead.example", "open", 3, 2, 1, 0, 4]),
        json!(["ill.example", "closed", 2, 1, 0.5, 0, 4]),
        json!(["well.example", "closed", 4, 0, 0, 1, 4]),
    ];
    assert_eq!(shown, expected);
    let wait = detail["keys"][0]["retry_after_ms"].as_u64().expect("a countdown");
    assert!((20_000..=30_000).contains(&wait), "{wait}");
    drop(permit);

    for n in 0..150 {
        drop(hosts.get(&format!("{n}.example")));
    }
    pass(secs(1)).await;
    let detail = read(&dashboard, &format!("/command.json?id={}", card["id"])).await;
    assert_eq!(
        (detail["command"]["keys_total"].as_u64(), detail["keys"].as_array().map(Vec::len)),
        (Some(153), Some(100))
    );
    assert_eq!(detail["keys"][0]["key"], "dead.example");
}

#[tokio::test(start_paused = true)]
async fn an_action_can_be_for_one_key() {
    let registry = Registry::new();
    let hosts: Keyed<String> =
        Command::builder("hosts").registry(&registry).keyed(Keys::up_to(8)).expect("a good configuration");
    let (mine, other) = (hosts.get("a.example"), hosts.get("b.example"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let dashboard = actor(&registry).on_audit(move |audit| ears.lock().unwrap().push(audit.to_string())).build();
    let force = |key: &str| json!({ "command": "hosts", "key": key, "action": "force_open", "reason": "a drill" });
    assert_eq!(send_with(&dashboard, post(), force("c.example").to_string()).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(send_with(&dashboard, post(), force("a.example").to_string()).await.status(), StatusCode::OK);
    assert_eq!((mine.state(), other.state()), (State::ForcedOpen, State::Closed));
    assert_eq!(hosts.overflow().state(), State::Closed);
    let heard = heard.lock().unwrap();
    assert!(heard.iter().all(|line| line.starts_with("hosts[a.example]: ")) && heard.len() == 1, "{heard:?}");
}

/// O1: what an operator types reaches every reader as it was typed, and is one event of the stream.
#[tokio::test(start_paused = true)]
async fn o1_hostile_reasons_come_through_as_they_are() {
    for hostile in [
        "\"\\\r\n\u{2028}\u{2029}\0</script><img src=x onerror=alert(1)>",
        "data: {}\n\nevent: x\nid: 1\nretry: 1",
        "\u{202e}\u{feff}{{constructor.constructor('alert(1)')()}}",
        "&lt;script&gt;",
        &"\u{1f4a5}".repeat(500),
    ] {
        let registry = Registry::new();
        let db = build(&registry, "db");
        let dashboard = actor(&registry).build();
        let mut stream = get(&dashboard, "/stream").await.into_body();
        events(&mut stream);
        let order = json!({"command": "db", "action": "force_open", "reason": hostile}).to_string();
        assert_eq!(send_with(&dashboard, post(), order).await.status(), StatusCode::OK);
        pass(secs(1)).await;
        let look = &events(&mut stream)[0];
        assert_eq!(look["commands"][0]["hold"]["reason"], hostile);
        let reasons: Vec<_> = look["events"].as_array().expect("a list").iter().map(|event| &event["reason"]).collect();
        assert!(reasons.contains(&&json!(hostile)));
        assert_eq!(read(&dashboard, "/snapshot.json").await["commands"][0]["hold"]["reason"], hostile);
        assert_eq!(db.state(), State::ForcedOpen);
    }
}

/// O4: errors may hold anything, a password among others.
#[tokio::test(start_paused = true)]
async fn o4_errors_of_operations_appear_nowhere() {
    let registry = Registry::new();
    let db = Command::builder("db").registry(&registry).breaker(in_a_row(1)).build().expect("a good configuration");
    let dashboard = Dashboard::new(&registry);
    let mut stream = get(&dashboard, "/stream").await.into_body();
    db.run(async || Err::<(), _>("password=hunter2")).await.expect_err("scripted");
    pass(secs(1)).await;
    let all = [
        json!(events(&mut stream)),
        read(&dashboard, "/snapshot.json").await,
        read(&dashboard, "/command.json?id=0").await,
    ];
    assert_eq!(all[0][1]["commands"][0]["second"]["failed"], 1);
    assert!(all.iter().all(|json| !json.to_string().contains("hunter2")));
}

// ---- the page ----

#[tokio::test(start_paused = true)]
async fn no_response_has_a_cors_header_and_each_has_those_that_protect() {
    let registry = Registry::new();
    let _db = build(&registry, "db");
    let dashboard = actor(&registry).build();
    let foreign = local(Method::OPTIONS, "/action")
        .header(ORIGIN, "http://evil.example")
        .header("access-control-request-method", "POST");
    let mut responses =
        vec![send(&dashboard, foreign).await, send_with(&dashboard, post(), order("db", "reset")).await];
    responses.push(send_with(&dashboard, post(), "{".to_owned()).await);
    responses.push(send(&dashboard, from("192.0.2.1:1", Method::GET, "/")).await);
    for path in [
        "/",
        "/dashboard.js",
        "/dashboard.css",
        "/snapshot.json",
        "/command.json?id=0",
        "/stream",
        "/x",
        "/x.y",
        "/action",
    ] {
        responses.push(get(&dashboard, path).await);
    }
    for response in responses {
        let headers: &HeaderMap = response.headers();
        assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{headers:?}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value);
        }
        let policy = headers["content-security-policy"].to_str().expect("text");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"), "{policy}");
        for (needed, value) in [("frame-ancestors", "'none'"), ("base-uri", "'none'"), ("form-action", "'none'")] {
            assert!(policy.contains(&format!("{needed} {value}")), "{policy}");
        }
    }
}

/// Nothing inline, nothing from elsewhere, nothing absolute, no text that becomes markup.
#[tokio::test(start_paused = true)]
async fn the_page_is_three_files_that_refer_to_each_other_by_relative_addresses() {
    let dashboard = Dashboard::new(&Registry::new());
    let html = text(get(&dashboard, "/").await).await;
    assert_eq!(html.matches("<script").count(), 1);
    for banned in ["<style", "style=", "javascript:", "src=\"/", "href=\"/", "src=\"http", "href=\"http"] {
        assert!(!html.contains(banned), "{banned}");
    }
    let handler = html.split_whitespace().find(|word| word.starts_with("on") && word.contains("=\""));
    assert_eq!(handler, None, "an inline handler");
    let script = text(get(&dashboard, "/dashboard.js").await).await;
    for banned in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "fetch(\"/",
        "fetch(`/",
        "EventSource(\"/",
        "cssText",
    ] {
        assert!(!script.contains(banned), "{banned}");
    }
    assert!(script.lines().count() <= 900, "{} lines", script.lines().count());
    let style = text(get(&dashboard, "/dashboard.css").await).await;
    assert!(!style.contains("url(") && !style.contains("@import"));
}

#[tokio::test(start_paused = true)]
async fn it_mounts_at_any_path_and_sends_on_to_the_slash() {
    let dashboard = Dashboard::new(&Registry::new());
    for mount in ["", "/fusebox", "/a/b/c"] {
        for (file, kind) in [
            ("", "text/html"),
            ("dashboard.js", "text/javascript"),
            ("dashboard.css", "text/css"),
            ("snapshot.json", "application/json"),
        ] {
            let response = get(&dashboard, &format!("{mount}/{file}")).await;
            assert_eq!(response.status(), StatusCode::OK, "{mount}/{file}");
            assert!(response.headers()[CONTENT_TYPE].to_str().is_ok_and(|found| found.starts_with(kind)));
        }
    }
    let response = get(&dashboard, "/ops/fusebox?x=1").await;
    assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
    assert_eq!(response.headers()[LOCATION], "./fusebox/");
    assert_eq!(get(&dashboard, "/javascript:alert(1)").await.headers()[LOCATION], "./javascript:alert(1)/");
    assert_eq!(get(&dashboard, "/favicon.ico").await.status(), StatusCode::NOT_FOUND);

    #[derive(Clone)]
    struct OriginalUri(&'static str);
    let nested = Dashboard::builder(&Registry::new())
        .original_path(|extensions| extensions.get::<OriginalUri>().map(|uri| uri.0.to_owned()))
        .build();
    let cut = |original| local(Method::GET, "/").extension(OriginalUri(original));
    assert_eq!(send(&nested, cut("/fusebox")).await.headers()[LOCATION], "./fusebox/");
    assert_eq!(send(&nested, cut("/fusebox/")).await.status(), StatusCode::OK);
}

/// Bug 67 (nflx-2018-001): a dashboard that fetched what its caller named. Nothing here takes an address.
#[tokio::test(start_paused = true)]
async fn bug_67_no_parameter_makes_the_server_fetch_anything() {
    let registry = Registry::new();
    let _db = build(&registry, "db");
    let dashboard = Dashboard::new(&registry);
    let plain = text(get(&dashboard, "/command.json?id=0").await).await;
    let asked = "/command.json?id=0&origin=http://127.0.0.1:1/&url=http://127.0.0.1:1/&proxy=http://127.0.0.1:1/";
    assert_eq!(text(get(&dashboard, asked).await).await, plain);
    assert_eq!(get(&dashboard, "/proxy.stream?origin=http://127.0.0.1:1/").await.status(), StatusCode::NOT_FOUND);
}

/// A command with every kind of limit off shows itself without inventing numbers.
#[tokio::test(start_paused = true)]
async fn what_there_is_not_is_null() {
    let registry = Registry::new();
    let _bare = Command::builder("bare")
        .registry(&registry)
        .no_timeout()
        .unlimited()
        .no_latency()
        .breaker(Breaker::disabled())
        .build()
        .expect("a good configuration");
    let dashboard = Dashboard::new(&registry);
    let bare = &read(&dashboard, "/snapshot.json").await["commands"][0];
    for key in ["group", "limit", "timeout_ms", "error_rate", "retry_after_ms", "oldest_ms", "hold", "opening"] {
        assert!(bare[key].is_null() && bare.get(key).is_some(), "{key}");
    }
    assert!(bare["health"]["threshold"].is_null() && bare["latency"]["p99_us"].is_null());
}
