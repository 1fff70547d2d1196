//! A key with its circuit, and the handle to it.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::ops::Deref;
use std::sync::Arc;

use crate::command::Command;
use crate::outcome::ByResult;

/// A key and its circuit; no key for the shared one.
pub(super) struct Entry<K, C> {
    pub(super) key: Option<K>,
    pub(super) command: Command<C>,
}

impl<K, C> Entry<K, C> {
    pub(super) fn is<Q: Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.key.as_ref().is_some_and(|own| own.borrow() == key)
    }

    /// Whether nobody would miss it: it is idle, and nobody holds it but the map.
    pub(super) fn may_go(entry: &mut Arc<Self>) -> bool {
        Arc::get_mut(entry).is_some_and(|entry| entry.command.is_idle())
    }
}

/// A key as text: in 64 characters at most, and with what is not printable escaped, as it goes into logs.
pub(super) fn label<Q: fmt::Display + ?Sized>(key: &Q) -> Box<str> {
    struct Label {
        text: String,
        left: usize,
    }

    impl fmt::Write for Label {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for c in text.chars().flat_map(char::escape_debug) {
                // An error ends the writing, however long the key is.
                self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
                self.text.push(c);
            }
            Ok(())
        }
    }

    let mut label = Label { text: String::new(), left: 64 };
    let _cut = write!(label, "{key}");
    label.text.into()
}

/// The command of one key, held: it derefs to [`Command`], and its circuit stays as long as this lives.
///
/// ```
/// # use fusebox::{Command, Guard, Keyed, Keys};
/// # async fn fetch(shard: u32) -> Result<u32, std::io::Error> { Ok(shard) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let shards: Keyed<u32> = Command::builder("shards").keyed(Keys::up_to(64))?;
/// let shard = shards.get(&7);
/// assert_eq!(shard.key(), Some(&7));
/// fetch(7).guarded_by(&shard).await?;
/// assert_eq!(shard.snapshot().lifetime().get("success"), 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "a handle does nothing until it is used"]
pub struct KeyedCommand<K, C = ByResult> {
    pub(super) entry: Arc<Entry<K, C>>,
}

impl<K, C> KeyedCommand<K, C> {
    /// The key; `None` for the circuit that is shared by those for which there was no room.
    pub fn key(&self) -> Option<&K> {
        self.entry.key.as_ref()
    }
}

impl<K, C> Deref for KeyedCommand<K, C> {
    type Target = Command<C>;

    #[inline]
    fn deref(&self) -> &Command<C> {
        &self.entry.command
    }
}

impl<K, C> Clone for KeyedCommand<K, C> {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry) }
    }
}

impl<K: fmt::Debug, C> fmt::Debug for KeyedCommand<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCommand").field("key", &self.key()).field("command", &**self).finish()
    }
}
