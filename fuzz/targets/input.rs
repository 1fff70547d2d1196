//! Bytes, read as a script: where they end the script ends.

use std::future::Future;
use std::time::Duration;

pub(crate) struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    pub(crate) fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A number below `below`; 0 at the end.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        usize::from(self.byte().unwrap_or(0)) % below
    }

    /// Eight bytes; zeros at the end.
    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte().unwrap_or(0));
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    pub(crate) fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }
}

/// Plays a script in paused time, on a clock of its own.
pub(crate) fn in_paused_time(script: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(script);
}

pub(crate) async fn advance(nanos: u64) {
    tokio::time::advance(Duration::from_nanos(nanos)).await;
}
