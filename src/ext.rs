//! The combinator form: a future is guarded where it is made.

use std::future::Future;

use crate::command::Command;
use crate::command::run::Call;
use crate::command::work::{ByCommand, Given};
use crate::outcome::Classify;

/// Adds [`guarded_by`](Guard::guarded_by) to every future of a `Result`.
pub trait Guard: Future + Sized {
    /// Runs this future under the protection of `command`: it is polled only if the call is admitted.
    ///
    /// ```
    /// use fusebox::{Command, Guard};
    ///
    /// # async fn price(sku: &str) -> Result<u32, std::io::Error> { Ok(sku.len() as u32) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pricing = Command::builder("docs.guarded_by").build()?;
    /// let price = price("A-1").guarded_by(&pricing).await?;
    /// # assert_eq!(price, 3);
    /// # Ok(())
    /// # }
    /// ```
    fn guarded_by<T, E, C>(self, command: &Command<C>) -> Call<'_, Given<Self>, ByCommand<'_, C>>
    where
        Self: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        Call::new(command.core(), Given(self), ByCommand(command.classifier()))
    }
}

impl<Fut: Future> Guard for Fut {}
