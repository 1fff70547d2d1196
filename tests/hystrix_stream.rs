//! Hystrix's stream, as its servlet and its page have it: the records, their timing, and who may read them.

mod support;

use std::time::Duration;

use fusebox::hystrix_stream::{Body, Frames, Handler};
use fusebox::{Breaker, Command, Keyed, Keys, Registry};
use futures::{FutureExt, StreamExt};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use support::{advance, fail, hang, in_a_row, ms, play, poll, refused, secs};
use tower_service::Service;

/// What Hystrix's page asserts of a command; it drops the card in silence where one is missing or null.
const COMMAND_KEYS: [&str; 37] = [
    "type",
    "name",
    "group",
    "isCircuitBreakerOpen",
    "errorPercentage",
    "errorCount",
    "requestCount",
    "rollingCountBadRequests",
    "rollingCountCollapsedRequests",
    "rollingCountExceptionsThrown",
    "rollingCountFailure",
    "rollingCountFallbackFailure",
    "rollingCountFallbackRejection",
    "rollingCountFallbackSuccess",
    "rollingCountResponsesFromCache",
    "rollingCountSemaphoreRejected",
    "rollingCountShortCircuited",
    "rollingCountSuccess",
    "rollingCountThreadPoolRejected",
    "rollingCountTimeout",
    "currentConcurrentExecutionCount",
    "latencyExecute_mean",
    "latencyExecute",
    "propertyValue_circuitBreakerRequestVolumeThreshold",
    "propertyValue_circuitBreakerSleepWindowInMilliseconds",
    "propertyValue_circuitBreakerErrorThresholdPercentage",
    "propertyValue_circuitBreakerForceOpen",
    "propertyValue_circuitBreakerForceClosed",
    "propertyValue_executionIsolationStrategy",
    "propertyValue_executionIsolationThreadTimeoutInMilliseconds",
    "propertyValue_executionIsolationThreadInterruptOnTimeout",
    "propertyValue_executionIsolationSemaphoreMaxConcurrentRequests",
    "propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests",
    "propertyValue_metricsRollingStatisticalWindowInMilliseconds",
    "propertyValue_requestCacheEnabled",
    "propertyValue_requestLogEnabled",
    "reportingHosts",
];

const POOL_KEYS: [&str; 17] = [
    "type",
    "name",
    "currentTime",
    "currentActiveCount",
    "currentCompletedTaskCount",
    "currentCorePoolSize",
    "currentLargestPoolSize",
    "currentMaximumPoolSize",
    "currentPoolSize",
    "currentQueueSize",
    "currentTaskCount",
    "rollingCountThreadsExecuted",
    "rollingMaxActiveThreads",
    "rollingCountCommandRejections",
    "propertyValue_queueSizeRejectionThreshold",
    "propertyValue_metricsRollingStatisticalWindowInMilliseconds",
    "reportingHosts",
];

fn build(registry: &Registry, name: &str, breaker: Breaker) -> Command {
    Command::builder(name).registry(registry).breaker(breaker).build().expect("a good configuration")
}

/// The records of a frame, which must be nothing but records and one ping.
fn records(frame: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(frame).expect("UTF-8");
    let text = text.strip_suffix("ping: \n\n").expect("a ping at the end");
    let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("one data line"));
    events.map(|json| serde_json::from_str(json).expect("JSON")).collect()
}

/// The records of one moment, by type and name.
async fn read(registry: &Registry, kind: &str, name: &str) -> Value {
    let frame = Frames::new(registry).next().await.expect("it never ends");
    let mut found = records(&frame).into_iter().filter(|record| record["type"] == kind && record["name"] == name);
    let record = found.next().expect("a record");
    assert_eq!(found.next(), None, "one only");
    record
}

async fn open(handler: &mut Handler) -> Response<Body> {
    let request = Request::get("/hystrix.stream?delay=1&origin=http://169.254.169.254/").body(()).expect("a request");
    handler.call(request).await.expect("never fails")
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.expect("never fails").to_bytes().into()).expect("UTF-8")
}

/// Lets time pass, and the task that feeds the readers do what is due then.
async fn pass(by: Duration) {
    advance(by).await;
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// Reads what is there.
fn frames(body: &mut Body) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| body.frame().now_or_never().flatten())
        .map(|frame| frame.expect("never fails").into_data().expect("data").to_vec())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn st01_the_stream_is_of_events_that_nobody_caches() {
    let registry = Registry::new();
    let _users = build(&registry, "users", Breaker::default());
    let response = open(&mut Handler::new(&registry)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream;charset=UTF-8");
    assert!(response.headers()[CACHE_CONTROL].to_str().is_ok_and(|value| value.contains("no-cache")));
    let mut body = response.into_body();
    pass(ms(1)).await;
    let first = frames(&mut body).concat();
    assert_eq!(records(&first).len(), 2, "a command and its pool");
}

/// Each reader gets whole records in order, however many read: they are written once, by one writer.
#[tokio::test(start_paused = true)]
async fn st01_writers_never_meet_inside_a_record() {
    let registry = Registry::new();
    let _commands: Vec<_> = (0..50).map(|n| build(&registry, &format!("command.{n}"), Breaker::default())).collect();
    let mut handler = Handler::new(&registry);
    let mut bodies = Vec::new();
    for _ in 0..5 {
        bodies.push(open(&mut handler).await.into_body());
    }
    for moment in 0..6 {
        pass(ms(if moment == 0 { 1 } else { 500 })).await;
        let read: Vec<_> = bodies.iter_mut().map(|body| frames(body).concat()).collect();
        for reader in &read {
            assert_eq!(records(reader).len(), 100, "one frame each, at moment {moment}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn st02_without_commands_a_ping_keeps_the_line_alive() {
    let mut frames = Frames::new(&Registry::new());
    for _ in 0..3 {
        assert_eq!(frames.next().await.expect("it never ends"), "ping: \n\n");
    }
}

#[tokio::test(start_paused = true)]
async fn st02_frames_come_at_once_and_then_at_the_interval_and_none_pile_up() {
    let registry = Registry::new();
    let mut frames = Frames::new(&registry);
    assert!(frames.next().now_or_never().is_some());
    advance(ms(499)).await;
    assert!(frames.next().now_or_never().is_none());
    advance(ms(1)).await;
    assert!(frames.next().now_or_never().is_some());
    advance(secs(60)).await;
    assert!(frames.next().now_or_never().is_some());
    assert!(frames.next().now_or_never().is_none(), "a minute is one frame late, not 120");
}

#[tokio::test(start_paused = true)]
async fn st03_a_sixth_client_is_told_the_cap_and_gets_the_place_of_one_that_leaves() {
    let mut handler = Handler::new(&Registry::new());
    let mut responses = Vec::new();
    for _ in 0..5 {
        responses.push(open(&mut handler).await);
    }
    let sixth = open(&mut handler).await;
    assert_eq!(sixth.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(sixth).await.contains("max_clients is 5"));
    drop(responses.pop());
    assert_eq!(open(&mut handler).await.status(), StatusCode::OK);

    let mut one = Handler::new(&Registry::new()).max_clients(1);
    let _first = open(&mut one).await;
    assert_eq!(open(&mut one.clone()).await.status(), StatusCode::SERVICE_UNAVAILABLE, "clones share their readers");
}

#[tokio::test(start_paused = true)]
async fn st04_after_the_shutdown_streams_end_and_none_begin() {
    let mut handler = Handler::new(&Registry::new());
    let response = open(&mut handler).await;
    pass(ms(1)).await;
    handler.shut_down();
    let rest = response.into_body().collect().now_or_never().expect("it has ended").expect("never fails");
    assert!(rest.to_bytes().is_empty(), "what was not read yet is let go");
    assert_eq!(open(&mut handler).await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn st05_a_client_that_goes_away_frees_its_place_at_once() {
    let mut handler = Handler::new(&Registry::new());
    let response = open(&mut handler).await;
    assert_eq!(handler.clients(), 1);
    drop(response);
    assert_eq!(handler.clients(), 0);
}

#[tokio::test(start_paused = true)]
async fn st05_a_client_that_does_not_read_is_dropped_between_two_records() {
    let registry = Registry::new();
    let _users = build(&registry, "users", Breaker::default());
    let mut handler = Handler::new(&registry);
    let (mut slow, mut quick) = (open(&mut handler).await.into_body(), open(&mut handler).await.into_body());
    pass(ms(1)).await;
    assert_eq!(records(&frames(&mut slow).concat()).len(), 2, "it read once, and then no more");
    frames(&mut quick);
    for _ in 0..12 {
        pass(ms(500)).await;
        assert_eq!(records(&frames(&mut quick).concat()).len(), 2, "the other one is not disturbed");
    }
    assert_eq!(handler.clients(), 1);
    assert!(slow.frame().now_or_never().expect("it has ended").is_none());
}

/// The task that reads the commands ends with the last reader, within an interval.
#[tokio::test(start_paused = true)]
async fn st06_the_source_goes_on_for_one_of_two_and_stops_after_the_last() {
    let registry = Registry::new();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let idle = tasks();
    let mut handler = Handler::new(&registry);
    let (first, mut second) = (open(&mut handler).await, open(&mut handler).await.into_body());
    pass(ms(1)).await;
    drop(first);
    frames(&mut second);
    pass(ms(500)).await;
    assert_eq!(frames(&mut second).len(), 1);
    assert_eq!(tasks(), idle + 1);
    drop(second);
    pass(ms(500)).await;
    assert_eq!(tasks(), idle);

    let mut third = open(&mut handler).await.into_body();
    pass(ms(1)).await;
    assert_eq!(frames(&mut third).len(), 1, "and it starts again");
}

#[tokio::test(start_paused = true)]
async fn st09_no_key_is_missing_or_null_be_the_command_idle_or_busy() {
    let registry = Registry::new();
    let _idle = build(&registry, "idle", Breaker::default());
    let _bare = Command::builder("bare")
        .registry(&registry)
        .no_timeout()
        .unlimited()
        .no_latency()
        .breaker(Breaker::disabled().last_calls(7))
        .build()
        .expect("a good configuration");
    let busy = build(&registry, "busy", Breaker::error_rate(0.9));
    let mut running = Box::pin(busy.run(hang));
    assert!(poll(&mut running).is_none());
    play(&busy, "SSSSSFFTPIC").await;
    for name in ["idle", "bare", "busy"] {
        let record = read(&registry, "HystrixCommand", name).await;
        for key in COMMAND_KEYS {
            assert!(!record[key].is_null(), "{key} of {name}");
        }
        assert!(record["errorPercentage"].is_u64());
        assert_ne!(record["propertyValue_metricsRollingStatisticalWindowInMilliseconds"], 0, "{name}");
        for map in ["latencyExecute", "latencyTotal"] {
            let keys: Vec<_> = record[map].as_object().expect("a map").keys().map(String::as_str).collect();
            assert_eq!(keys.len(), 9);
            for key in ["0", "25", "50", "75", "90", "95", "99", "99.5", "100"] {
                assert!(record[map][key].is_u64(), "{key} of {name}");
            }
        }
    }
    for name in ["idle", "busy"] {
        let record = read(&registry, "HystrixThreadPool", name).await;
        for key in POOL_KEYS {
            assert!(!record[key].is_null(), "{key} of {name}");
        }
    }
}

/// GO16: of 3 calls 2 are 66 percent, not 67.
#[tokio::test(start_paused = true)]
async fn st09_the_figures_are_those_of_the_window() {
    let registry = Registry::new();
    let users = build(&registry, "users", Breaker::default());
    play(&users, "SFTI").await;
    let record = read(&registry, "HystrixCommand", "users").await;
    let expected = serde_json::json!({
        "errorPercentage": 66, "errorCount": 2, "requestCount": 3, "isCircuitBreakerOpen": false, "group": "default",
        "rollingCountSuccess": 1, "rollingCountFailure": 1, "rollingCountTimeout": 1, "rollingCountBadRequests": 1,
        "rollingCountExceptionsThrown": 2, "currentConcurrentExecutionCount": 0,
        "rollingMaxConcurrentExecutionCount": 1, "propertyValue_circuitBreakerErrorThresholdPercentage": 50,
        "propertyValue_executionIsolationThreadTimeoutInMilliseconds": 1000,
        "propertyValue_executionIsolationStrategy": "SEMAPHORE",
    });
    for (key, value) in expected.as_object().expect("a map") {
        assert_eq!(record[key], *value, "{key}");
    }
    let pool = read(&registry, "HystrixThreadPool", "users").await;
    assert_eq!((&pool["rollingCountThreadsExecuted"], &pool["currentMaximumPoolSize"]), (&4.into(), &100.into()));
    advance(secs(10)).await;
    assert_eq!(read(&registry, "HystrixCommand", "users").await["requestCount"], 0, "the window has moved on");
}

#[tokio::test(start_paused = true)]
async fn st09_open_is_open_or_half_open_after_overrides() {
    let registry = Registry::new();
    let breaker = Breaker::disabled().consecutive_failures(1).jitter(0.0);
    let users = build(&registry, "users", breaker);
    let open = async || read(&registry, "HystrixCommand", "users").await["isCircuitBreakerOpen"] == true;
    assert!(!open().await);
    fail(&users).await;
    assert!(open().await);
    refused(&users).await;
    assert_eq!(read(&registry, "HystrixCommand", "users").await["rollingCountShortCircuited"], 1);
    advance(secs(5)).await;
    assert!(open().await, "half-open");
    users.force_closed("a drill", None);
    assert!(!open().await);
    users.force_open("a drill", None);
    let record = read(&registry, "HystrixCommand", "users").await;
    assert_eq!(
        (&record["isCircuitBreakerOpen"], &record["propertyValue_circuitBreakerForceOpen"]),
        (&true.into(), &true.into())
    );
}

/// Hystrix has a command for each host or shard where fusebox has a keyed one.
#[tokio::test(start_paused = true)]
async fn each_circuit_of_a_keyed_command_is_a_command_to_hystrix() {
    let registry = Registry::new();
    let template = Command::builder("shards").registry(&registry).breaker(in_a_row(2));
    let shards: Keyed<u32> = template.keyed(Keys::up_to(200)).expect("a good configuration");
    play(&shards.get(&1), "SS").await;
    play(&shards.get(&2), "FF").await;
    for (name, open, errors) in [("shards[*]", false, 0), ("shards[1]", false, 0), ("shards[2]", true, 2)] {
        let record = read(&registry, "HystrixCommand", name).await;
        assert_eq!((&record["isCircuitBreakerOpen"], &record["errorCount"]), (&open.into(), &errors.into()), "{name}");
        assert_eq!(read(&registry, "HystrixThreadPool", name).await["name"], record["threadPool"]);
    }
    for shard in 3..=150 {
        drop(shards.get(&shard));
    }
    let frame = Frames::new(&registry).next().await.expect("it never ends");
    assert_eq!(records(&frame).len(), 2 * 101, "the worst hundred and the one that keys share");
    assert_eq!(read(&registry, "HystrixCommand", "shards[2]").await["errorCount"], 2);
}

#[tokio::test(start_paused = true)]
async fn st09_fallbacks_are_those_of_the_window() {
    let registry = Registry::new();
    let users = build(&registry, "users", Breaker::default());
    let mut frames = Frames::new(&registry);
    let mut successes = async || {
        let frame = frames.next().await.expect("it never ends");
        let record = records(&frame).into_iter().find(|record| record["type"] == "HystrixCommand").expect("a record");
        record["rollingCountFallbackSuccess"].as_u64().expect("a count")
    };
    assert_eq!(successes().await, 0);
    let call = users.run(async || Err::<u32, _>(support::DOWN)).fallback(async |_| Ok(1));
    assert_eq!(call.await, Ok(1));
    assert_eq!(successes().await, 1);
    advance(Duration::from_secs(10)).await;
    assert_eq!(successes().await, 0);
}

#[tokio::test(start_paused = true)]
async fn only_get_is_served() {
    let mut handler = Handler::new(&Registry::new());
    let request = Request::builder().method(Method::POST).body(()).expect("a request");
    let response = handler.call(request).await.expect("never fails");
    assert_eq!(
        (response.status(), &response.headers()[ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET".parse().expect("a value"))
    );
    assert_eq!(handler.clients(), 0);
}

/// Bug 65 (Hystrix #1521): a deadlock where many threads open streams and make commands at the same time.
#[test]
fn bug_65_threads_that_open_streams_and_make_commands_at_once_all_get_through() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let registry = Registry::new();
    let handler = Handler::new(&registry).max_clients(64);
    let begin = std::sync::Barrier::new(64);
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let (registry, mut handler, begin, runtime) = (&registry, handler.clone(), &begin, &runtime);
            scope.spawn(move || {
                begin.wait();
                let command = registry.get_or_insert(&format!("fresh.{}", thread % 4), |command| command);
                let response = runtime.block_on(open(&mut handler));
                let first = runtime.block_on(async { response.into_body().frame().await });
                assert!(command.is_ok() && first.is_some_and(|frame| frame.is_ok()));
            });
        }
    });
    assert_eq!(handler.clients(), 0);
}
