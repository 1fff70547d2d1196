//! Prometheus as a process, and its HTTP API.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

/// A server with data of its own, that ends with its handle.
pub(crate) struct Prometheus {
    pub(crate) address: SocketAddr,
    _process: Child,
}

impl Prometheus {
    /// Scrapes each target once a second, and judges by the rules that ship as often: as they are, but for how long a
    /// condition must have held.
    pub(crate) async fn start(targets: &[(&str, SocketAddr)]) -> io::Result<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("rules.yml"), hurried(&rules()?))?;
        fs::write(folder.join("prometheus.yml"), config(targets))?;
        let address = free_address().await?;
        let mut process = Command::new("prometheus");
        process.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]);
        process.arg(format!("--web.listen-address={address}"));
        let process = process.current_dir(&folder).stdin(Stdio::null()).kill_on_drop(true).spawn();
        let process = process.expect("prometheus is installed: Debian has it by this name");
        let server = Self { address, _process: process };
        eventually("Prometheus answers", async || server.query("up").await.ok().filter(|up| up.len() == targets.len()))
            .await;
        Ok(server)
    }

    /// The series that an expression has now.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = self.api("query", &[("query", expression)]).await?;
        Ok(answer["result"].as_array().cloned().unwrap_or_default())
    }

    /// What a panel would draw: values second by second over the last `length`.
    pub(crate) async fn range(&self, expression: &str, length: Duration) -> Result<Vec<Value>, String> {
        let now = self.query("time()").await?;
        let now = now.first().and_then(Value::as_f64).ok_or("no time")?;
        let (start, end) = ((now - length.as_secs_f64()).to_string(), now.to_string());
        let parameters = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        let answer = self.api("query_range", &parameters).await?;
        Ok(answer["result"].as_array().cloned().unwrap_or_default())
    }

    /// All rules that are loaded.
    pub(crate) async fn rules(&self) -> Result<Vec<Value>, String> {
        let answer = self.api("rules", &[]).await?;
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    async fn api(&self, name: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let form: Vec<_> = parameters.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let path = format!("/api/v1/{name}?{}", form.join("&"));
        let text = get(self.address, &path).await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer["error"].to_string()),
        }
    }
}

/// The rules as they ship.
fn rules() -> io::Result<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus/rules.yml"))
}

/// The same rules for people who cannot wait an hour: what they wait for must have held for a second.
fn hurried(rules: &str) -> String {
    let line = |line: &str| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s\n"),
        _ => format!("{line}\n"),
    };
    let hurried: String = rules.lines().map(line).collect();
    assert_eq!(hurried.matches("for: 1s\n").count(), 6, "six of the eight alerts wait");
    hurried
}

fn config(targets: &[(&str, SocketAddr)]) -> String {
    let mut config = String::from(
        "global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [rules.yml]\nscrape_configs:\n",
    );
    for (job, address) in targets {
        config += &format!("  - {{ job_name: {job}, static_configs: [{{ targets: ['{address}'] }}] }}\n");
    }
    config
}

/// Prometheus does not tell which port it got, so it has to be told one.
async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}

/// The body of an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(HOST, address.to_string());
    let response = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().into())?)
}

/// All but letters and digits as `%xx`.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Asks until there is an answer: that takes as long as it takes another process, and a minute and a half at most.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        let mut tick = interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    timeout(Duration::from_secs(90), asked).await.unwrap_or_else(|_| panic!("not within 90 s: {what}"))
}
