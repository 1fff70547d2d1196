//! A file that is followed while it changes.
//!
//! It is looked at, not listened to: notifications differ by system, do not cross network file systems, and miss what
//! happens to a link on the way to the file. A look reads the whole file by its path, so it sees through a rename and
//! through the link that Kubernetes swaps under a mounted ConfigMap.
//!
//! Who writes in place leaves the file empty or half-written for a moment, and half of a configuration is often a good
//! one. So a change is taken when two looks in a row have found the same.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{ApplyError, Configs, Reload};
use crate::registry::Registry;
use crate::time::{Stamp, saturating_nanos, timer};

/// Why a file changed nothing. The last good configuration stays in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The file could not be read: it is missing, no regular file, longer than 1 MiB, or not UTF-8.
    #[error("the configuration file could not be read")]
    Read(#[source] io::Error),
    /// It is not what the format or [`Configs`] wants; the source says where.
    #[error("the configuration file could not be understood")]
    Parse(#[source] Box<dyn Error + Send + Sync>),
    /// A command cannot have its configuration.
    #[error("the configuration file could not be applied")]
    Apply(#[source] ApplyError),
}

/// A file with [`Configs`] that is put in force, and again whenever it has changed.
///
/// `parse` makes configurations of its text, in whichever format. A file that cannot be read, understood or applied
/// changes nothing, and is reported: as an error, as [`Event::ReloadRejected`](crate::Event::ReloadRejected) to the
/// commands, in `fusebox_config_reloads_total` and by tracing.
///
/// ```no_run
/// use std::time::Duration;
/// use fusebox::{ConfigFile, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut file = ConfigFile::new("/etc/shop/fusebox.toml", |text: &str| toml::from_str(text));
/// file.load(Registry::global())?; // at the start it has to be good
/// tokio::spawn(file.follow(Registry::global().clone(), Duration::from_secs(5)));
/// # Ok(())
/// # }
/// ```
#[must_use = "a file is read by `load`, `look`, `changed` or `follow`"]
pub struct ConfigFile<P> {
    path: Arc<Path>,
    parse: P,
    /// What was last acted upon, be it good or bad.
    taken: Option<Content>,
    /// What was new at the last look.
    fresh: Option<Content>,
    /// When [`ConfigFile::changed`] looks again.
    due: Option<Stamp>,
}

/// The longest file that is read: a path that leads to something else must not fill the memory.
const MAX_LEN: u64 = 1 << 20;
/// Looks that follow each other faster show nothing more.
const LEAST_WAIT: Duration = Duration::from_millis(10);

impl<P, E> ConfigFile<P>
where
    P: Fn(&str) -> Result<Configs, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    /// A file, which is not read yet.
    pub fn new(path: impl Into<PathBuf>, parse: P) -> Self {
        Self { path: path.into().into(), parse, taken: None, fresh: None, due: None }
    }

    /// Reads the file now and puts it in force. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// A [`ReloadError`]; then nothing has changed.
    pub fn load(&mut self, registry: &Registry) -> Result<Reload, ReloadError> {
        self.take(Content::of(&self.path), registry)
    }

    /// Looks once whether the file has changed, and puts in force what two looks in a row have found. `None` while
    /// there is nothing new. Blocks while it reads; [`ConfigFile::changed`] does not.
    ///
    /// # Errors
    ///
    /// A [`ReloadError`], once for each content of the file that is not good; then nothing has changed.
    pub fn look(&mut self, registry: &Registry) -> Option<Result<Reload, ReloadError>> {
        self.notice(Content::of(&self.path), registry)
    }

    /// Waits until the file has changed, and puts it in force. It looks every `every`, at least 10 ms, on tokio's
    /// blocking pool, so that a change is seen within twice that time.
    ///
    /// # Errors
    ///
    /// As [`ConfigFile::look`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has changed nothing; called again, it goes on with the wait that it was in.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one whose timers are disabled.
    pub async fn changed(&mut self, registry: &Registry, every: Duration) -> Result<Reload, ReloadError> {
        loop {
            let wait = saturating_nanos(every.max(LEAST_WAIT));
            let due = *self.due.get_or_insert_with(|| Stamp::now().plus(wait));
            timer(due, 0).await;
            let path = Arc::clone(&self.path);
            let read = tokio::task::spawn_blocking(move || Content::of(&path)).await;
            let content = read.unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Content::Unreadable(io::ErrorKind::Interrupted, "the runtime is shutting down".into()),
            });
            self.due = None;
            if let Some(outcome) = self.notice(content, registry) {
                return outcome;
            }
        }
    }

    /// [`ConfigFile::changed`], again and again: a task to spawn. What becomes of a change is in the events of the
    /// commands, the metrics and the log.
    ///
    /// # Panics
    ///
    /// As [`ConfigFile::changed`].
    pub async fn follow(mut self, registry: Registry, every: Duration) -> Infallible {
        loop {
            // Reported already.
            let _ = self.changed(&registry, every).await;
        }
    }

    fn notice(&mut self, content: Content, registry: &Registry) -> Option<Result<Reload, ReloadError>> {
        if self.taken.as_ref() == Some(&content) {
            self.fresh = None;
            return None;
        }
        if self.fresh.as_ref() != Some(&content) {
            self.fresh = Some(content);
            return None;
        }
        Some(self.take(content, registry))
    }

    fn take(&mut self, content: Content, registry: &Registry) -> Result<Reload, ReloadError> {
        let outcome = self.apply(&content, registry);
        (self.taken, self.fresh) = (Some(content), None);
        let path = self.path.display();
        match &outcome {
            Ok(reload) => {
                let (changed, unmatched) = (reload.changed.len(), &reload.unmatched);
                tracing::info!(target: "fusebox", %path, changed, ?unmatched, "configuration applied");
            }
            Err(error) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(target: "fusebox", %path, %error, cause, "the last good configuration stays");
            }
        }
        outcome
    }

    fn apply(&self, content: &Content, registry: &Registry) -> Result<Reload, ReloadError> {
        let configs = match content {
            Content::Text(text) => (self.parse)(text).map_err(|error| ReloadError::Parse(error.into())),
            Content::Unreadable(kind, why) => Err(ReloadError::Read(io::Error::new(*kind, why.clone()))),
        };
        match configs {
            Ok(configs) => registry.apply(&configs).map_err(ReloadError::Apply),
            Err(error) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                registry.refuse(&format!("{error}: {cause}"));
                Err(error)
            }
        }
    }
}

impl<P> fmt::Debug for ConfigFile<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a look finds.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Text(String),
    Unreadable(io::ErrorKind, String),
}

impl Content {
    fn of(path: &Path) -> Self {
        match read(path) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Unreadable(error.kind(), error.to_string()),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut text = String::new();
    let length = File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 1 MiB"));
    }
    Ok(text)
}
