//! Names of commands and groups: checked once, then free to copy.
//!
//! A name goes into metric labels, JSON, HTML and every error, so it is limited to characters that are inert in all
//! of them. An error must carry the name without an allocation and without touching a shared reference count (on two
//! threads that alone costs more than the rest of a refusal), so each distinct name is kept for the life of the
//! process. Take names from a fixed set, as for any metric label; never build one from user input.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use crate::error::Problems;
use crate::sync::Global;

/// The longest name, in bytes.
const MAX_LEN: usize = 128;

/// One pointer wide: every refusal returns one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name(&'static &'static str);

impl Name {
    /// Checks `text`; `field` is what a [`ConfigError`](crate::ConfigError) calls it.
    pub(crate) fn check(problems: &mut Problems, field: &'static str, text: &str) {
        let inert = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
        problems.require(
            (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(inert),
            field,
            || shown(text),
            "1 to 128 characters out of A-Z a-z 0-9 _ . : / -",
        );
    }

    /// Interns `text`, which has been checked.
    pub(crate) fn intern(text: &str) -> Self {
        static NAMES: LazyLock<Global<HashMap<&'static str, Name>>> = LazyLock::new(Global::default);
        let mut names = NAMES.lock();
        if let Some(&known) = names.get(text) {
            return known;
        }
        let kept: &'static str = Box::leak(text.into());
        let name = Self(Box::leak(Box::new(kept)));
        names.insert(kept, name);
        name
    }

    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// A refused name, quoted with its oddities escaped, and cut: it may be megabytes long.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(32).collect();
    let more = if cut.len() < text.len() { format!(" ... ({} bytes)", text.len()) } else { String::new() };
    format!("{cut:?}{more}")
}
