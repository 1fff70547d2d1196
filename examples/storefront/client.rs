//! The shop's HTTP client, the same in both runs: keep-alive connections out of a bounded pool, and no opinion about
//! faults.
//!
//! The bound matters. A service without timeouts worth the name does not die of slow calls but of what they hold: here,
//! as in most services, that is connections, and calls to a silent supplier take them all.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::ledger::Ledger;
use crate::schedule::Supplier;

/// Connections to one supplier, a customary size. In health two are in use.
const POOL: usize = 50;

/// Why a supplier gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no connection")]
    Unreachable(#[source] io::Error),
    #[error("connection lost")]
    Broken(#[from] hyper::Error),
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("unreadable answer")]
    Unreadable,
    #[error("no answer in {0:?}")]
    Late(Duration),
}

pub(crate) struct Client {
    supplier: Supplier,
    address: SocketAddr,
    ledger: Arc<Ledger>,
    pool: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

type Connection = SendRequest<Empty<Bytes>>;

impl Client {
    pub(crate) fn new(supplier: Supplier, address: SocketAddr, ledger: Arc<Ledger>) -> Self {
        Self { supplier, address, ledger, pool: Semaphore::new(POOL), idle: Mutex::default() }
    }

    /// One call: an answer about `item` in the supplier's words, parsed by `read`. Dropping it closes the connection.
    pub(crate) async fn fetch<T>(
        &self,
        item: u32,
        visit: u32,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        let entry = self.ledger.enter(self.supplier);
        let body = self.get(&format!("/{item}/{visit}")).await?;
        let value = std::str::from_utf8(&body).ok().and_then(read).ok_or(Failure::Unreadable)?;
        entry.answered();
        Ok(value)
    }

    async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        let _place = self.pool.acquire().await.expect("the pool is never closed");
        let mut connection = self.connection().await?;
        let request = Request::get(path)
            .header(HOST, self.address.to_string())
            .body(Empty::new())
            .expect("numbers make a valid path");
        let response = connection.send_request(request).await?;
        let status = response.status();
        // Read in any case: a connection with half an answer in it is of no use to the next call.
        let body = response.into_body().collect().await?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        if status.is_success() { Ok(body) } else { Err(Failure::Status(status)) }
    }

    /// An idle connection that is still alive, or a new one.
    async fn connection(&self) -> Result<Connection, Failure> {
        while let Some(mut connection) = self.take_idle() {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(self.address).await.map_err(Failure::Unreachable)?;
        stream.set_nodelay(true).map_err(Failure::Unreachable)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the connection, whose errors the request gets.
        tokio::spawn(driver);
        Ok(connection)
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}
