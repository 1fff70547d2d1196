//! One way to stop early: ctrl-c asks, everything that waits hears of it and winds up by itself.
//!
//! Nothing is torn down from outside, so every page and every call still gets into the books and the figures of an
//! interrupted run are true as far as they go.

use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Asks everybody to stop at the first ctrl-c.
    pub(crate) fn on_ctrl_c() -> Self {
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            // Without a signal handler ctrl-c ends the process the hard way, which needs no help from here.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            ask.send_replace(true);
            // The receivers must not take the end of this task for the signal.
            ask.closed().await;
        });
        Self(asked)
    }

    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the request; at once if it was made.
    pub(crate) async fn requested(&self) {
        let _ = self.0.clone().wait_for(|asked| *asked).await;
    }
}
