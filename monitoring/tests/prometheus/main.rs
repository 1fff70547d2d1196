//! The real Prometheus scrapes a service in which everything happens, and the storefront through its faults. All that we
//! ship for it must hold there: the exposition, the rules, the alerts, and every query of the dashboard.
//!
//! It takes about a minute, because the storefront's story does. Conditions are waited for, never times.

mod dashboard;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fusebox_monitoring::Service;
use serde_json::Value;
use server::{Prometheus, eventually, get};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// The storefront, and the address of its `/metrics`.
async fn storefront() -> (Child, SocketAddr) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--release", "--package", "fusebox", "--example", "storefront", "--", "--plain"]);
    let mut process = cargo.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("cargo runs");
    let mut lines = BufReader::new(process.stdout.take().expect("it is a pipe")).lines();
    let address = loop {
        let line = lines.next_line().await.expect("it is text").expect("it says where its metrics are");
        if let Some(address) = line.strip_prefix("metrics: http://").and_then(|rest| rest.strip_suffix("/metrics")) {
            break address.parse().expect("an address");
        }
    };
    // It must not be held up by a pipe that is full.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (process, address)
}

/// Whether `promtool` has anything to say about a scrape.
async fn check_metrics(address: SocketAddr) {
    let scrape = get(address, "/metrics").await.expect("a scrape");
    assert!(scrape.contains("\nfusebox_calls_total{"), "{scrape}");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = promtool.spawn().expect("promtool is installed: it comes with Debian's package prometheus");
    let mut input = process.stdin.take().expect("it is a pipe");
    input.write_all(scrape.as_bytes()).await.expect("it reads");
    drop(input);
    let output = process.wait_with_output().await.expect("it ends");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}");
    println!("promtool check metrics, {} lines of {address}: nothing to say", scrape.lines().count());
}

/// A series by its labels, and its last value that is a number.
fn reading(series: &Value) -> Option<(String, f64)> {
    let number = |point: &Value| point[1].as_str()?.parse::<f64>().ok().filter(|value| !value.is_nan());
    let value = match series["values"].as_array() {
        Some(points) => points.iter().rev().find_map(number)?,
        None => number(&series["value"])?,
    };
    Some((series["metric"].to_string(), value))
}

/// Every alert fires in a service that gives it reason to.
async fn check_alerts(prometheus: &Prometheus, since: Instant) {
    let rules = prometheus.rules().await.expect("the rules");
    let alerts = rules.iter().filter(|rule| rule["type"] == "alerting").map(|rule| rule["name"].clone());
    let mut waiting: Vec<_> = alerts.collect();
    assert_eq!(waiting.len(), 8);
    let firing = r#"count by (alertname, command) (ALERTS{alertstate="firing",job="service"})"#;
    eventually("every alert has fired", async || {
        for alert in prometheus.query(firing).await.ok()? {
            if let Some(at) = waiting.iter().position(|name| *name == alert["metric"]["alertname"]) {
                println!(
                    "{:5.1} s: {} fires for {}",
                    since.elapsed().as_secs_f64(),
                    waiting.remove(at),
                    alert["metric"]["command"]
                );
            }
        }
        waiting.is_empty().then_some(())
    })
    .await;
}

/// Every rule is in good health and has something to say.
async fn check_rules(prometheus: &Prometheus) {
    let rules = prometheus.rules().await.expect("the rules");
    println!("\n{:50} {:>6}", "rule", "series");
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let (name, query) = (rule["name"].as_str().expect("a name"), rule["query"].as_str().expect("a query"));
        let answer = prometheus.query(query).await.expect("an answer");
        let readings: Vec<_> = answer.iter().filter_map(reading).collect();
        println!("{name:50} {:6}", readings.len());
        assert!(!readings.is_empty(), "{name} has no data: {query}");
    }
}

/// Every query of the dashboard is answered with data.
async fn check_dashboard(prometheus: &Prometheus) {
    let queries = dashboard::queries();
    assert!(queries.len() > 40, "{} queries", queries.len());
    println!("\n{:50} {:>6}  {:>12} of", "query", "series", "last value");
    for query in queries {
        let readings = eventually(&format!("data for {}: {}", query.place, query.expression), async || {
            let answer = prometheus.range(&query.expression, Duration::from_secs(15)).await.expect("an answer");
            let readings: Vec<_> = answer.iter().filter_map(reading).collect();
            (!readings.is_empty()).then_some(readings)
        })
        .await;
        let (labels, value) = &readings[readings.len() - 1];
        println!("{:50} {:6}  {value:12.5} {labels}", query.place, readings.len());
    }
}

/// The storefront's first supplier browns out: the circuit opens, the alert fires, and ends after the recovery.
async fn check_outage(prometheus: &Prometheus, since: Instant) {
    let alert = r#"ALERTS{alertname="CircuitOpen",alertstate="firing",job="storefront",command="prices"}"#;
    let fires = async || !prometheus.query(alert).await.expect("an answer").is_empty();
    eventually("CircuitOpen fires for the storefront", async || fires().await.then_some(())).await;
    println!("\n{:5.1} s: {alert}", since.elapsed().as_secs_f64());
    let causes = r#"fusebox_transitions_total{job="storefront",command="prices",to="open"} > 0"#;
    let causes: BTreeMap<_, _> = prometheus.query(causes).await.expect("data").iter().filter_map(reading).collect();
    assert!(!causes.is_empty(), "an alert without an opening");
    causes.iter().for_each(|(labels, count)| println!("         {count} {labels}"));
    eventually("CircuitOpen ends with the outage", async || (!fires().await).then_some(())).await;
    println!("{:5.1} s: it fires no longer", since.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_sees_everything() {
    let service = Service::start().await.expect("it starts");
    let (_storefront, storefront) = storefront().await;
    let since = Instant::now();
    let targets = [("service", service.address), ("storefront", storefront)];
    let prometheus = Prometheus::start(&targets).await.expect("it starts");
    check_metrics(service.address).await;
    check_alerts(&prometheus, since).await;
    check_rules(&prometheus).await;
    check_outage(&prometheus, since).await;
    check_dashboard(&prometheus).await;
    check_metrics(storefront).await;
}
