//! Many circuits from one template: one for each host, tenant or shard.
//!
//! When one host of many is down, a circuit that they share either stays closed and sends a share of all calls to their
//! death, or opens and cuts off the others. So each gets a circuit of its own, made on first use. Keys come from
//! outside, so their number is bounded: an idle circuit makes room for a new key, and where none is idle the new keys
//! share one. What is the same for all, name, metrics, listeners and configuration, is there once.

mod entry;
mod shards;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Weak};

pub use self::entry::KeyedCommand;
use self::entry::{Entry, label};
use self::shards::Shards;
use crate::breaker::state::State;
use crate::command::Command;
use crate::command::builder::Builder;
use crate::command::core::Core;
use crate::command::snapshot::Snapshot;
use crate::config::Config;
use crate::error::{ConfigError, Problems};
use crate::observe::bus::Events;
use crate::outcome::ByResult;
use crate::sync::{AtomicU64, Ordering};

/// How many keys a [`Keyed`] command may have, and what it keeps of each. Plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "keys do nothing until a command is built with them"]
#[non_exhaustive]
pub struct Keys {
    /// Most circuits at once, the one that keys share not counted.
    pub limit: usize,
    /// Whether each keeps latency figures; off by default.
    pub latencies: bool,
}

impl Keys {
    /// At most `limit` keys, 1 to 16,777,214. Each takes about 650 bytes and the key itself; 80 more once there was an
    /// error, and 160 more while its window holds calls.
    pub const fn up_to(limit: usize) -> Self {
        Self { limit, latencies: false }
    }

    /// Keeps latency figures of each key, over the template's [`latency_window`](Config::latency_window): 1 to 3.5 KiB a
    /// key. Off by default, whatever the template says.
    pub const fn latencies(self) -> Self {
        Self { latencies: true, ..self }
    }
}

/// A command with a circuit for each key: a host, a tenant, a shard.
///
/// The circuits are made on first use, from one template. They share its name, and so its metrics and its place in the
/// registry; each has its own breaker, bulkhead and figures. It is cheap to clone, and clones share all circuits.
///
/// ```
/// use fusebox::{Command, Keyed, Keys};
///
/// # async fn fetch(host: &str) -> Result<String, std::io::Error> { Ok(host.to_owned()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hosts: Keyed<String> = Command::builder("http.client").max_concurrent(32).keyed(Keys::up_to(10_000))?;
///
/// let host = "a.example";
/// let page = hosts.get(host).run(|| fetch(host)).await?;
///
/// hosts.get("b.example").force_open("moved", None);
/// assert!(hosts.get("b.example").admit().is_err());
/// assert!(hosts.get("a.example").admit().is_ok());
/// # assert_eq!(page, "a.example");
/// # Ok(())
/// # }
/// ```
///
/// # Room
///
/// There are never more circuits than [`Keys::limit`], and one more that is shared. A new key takes the room of one that
/// is idle: closed, without an override, no call in flight or waiting, and nobody holding a handle of it. Among 8 such,
/// the one that was not looked up for longest goes, and its figures go too. If none of 64 that are looked
/// at is idle, the key gets the shared circuit, and is tried anew with the next lookup. An open circuit is never taken
/// out: whoever knows that a key is gone for good can [remove](Self::remove) it.
///
/// Evictions are counted in `fusebox_keyed_evictions_total`, lookups that ended at the shared circuit in
/// `fusebox_keyed_overflow_total`. All keys count in the same series; what is told of one is in its
/// [`snapshot`](Command::snapshot) and in events, by [`Event::key`](crate::Event::key).
///
/// # Cost
///
/// A lookup hashes the key, takes a lock of one shard for some nanoseconds and clones one `Arc`; keep the handle where
/// the same key is used often. `Hash`, `Eq`, `Display` and `ToOwned` of the key never run under a lock, so one that
/// panics harms its caller alone.
pub struct Keyed<K, C = ByResult> {
    inner: Arc<Inner<K, C>>,
}

struct Inner<K, C> {
    hasher: RandomState,
    shards: Shards<Entry<K, C>>,
    overflow: Arc<Entry<K, C>>,
    limit: usize,
    latencies: bool,
    evictions: AtomicU64,
    overflows: AtomicU64,
}

/// What can be seen of a [`Keyed`] command as a whole, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedStats {
    /// Circuits that have a key.
    pub keys: usize,
    /// Those that are not closed.
    pub not_closed: usize,
    /// Keys so far whose circuit made room for another.
    pub evictions: u64,
    /// Lookups so far of keys for which there was no room.
    pub overflows: u64,
}

impl<C> Builder<C> {
    /// Makes this the template of a command with a circuit for each key. See [`Keyed`].
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with every setting that is out of range.
    pub fn keyed<K>(self, keys: Keys) -> Result<Keyed<K, C>, ConfigError>
    where
        K: Send + Sync + 'static,
        C: Send + Sync + 'static,
    {
        let mut problems = Problems::default();
        crate::bulkhead::limit(&mut problems, "keys.limit", keys.limit);
        problems.finish()?;
        let (core, classify) = if keys.latencies { self } else { self.no_latency() }.prepare(Some("*".into()))?;
        let command = Command::new(core.enlist(), Arc::new(classify));
        let inner = Arc::new(Inner {
            hasher: RandomState::new(),
            shards: Shards::new(keys.limit),
            overflow: Arc::new(Entry { key: None, command }),
            limit: keys.limit,
            latencies: keys.latencies,
            evictions: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        });
        let all: Weak<Inner<K, C>> = Arc::downgrade(&inner);
        inner.core().family.set_circuits(Box::new(move || all.upgrade().map_or_else(Vec::new, |inner| inner.cores())));
        Ok(Keyed { inner })
    }
}

impl<K, C> Keyed<K, C> {
    /// The circuit of a key: the one that it has, or a new one, or the one that is shared by those for which there is no
    /// room. Threads that ask for a new key at the same time get the same. The key can be borrowed: `&str` for `String`.
    ///
    /// As long as the handle is held, its circuit is not taken out.
    pub fn get<Q>(&self, key: &Q) -> KeyedCommand<K, C>
    where
        K: Borrow<Q> + Hash + Eq,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Display + ?Sized,
    {
        let inner = &*self.inner;
        let hash = inner.hasher.hash_one(key);
        let entry = inner.shards.find(hash, |entry| entry.is(key)).unwrap_or_else(|| inner.make(hash, key));
        KeyedCommand { entry }
    }

    /// The circuit of a key, if it has one.
    pub fn find<Q>(&self, key: &Q) -> Option<KeyedCommand<K, C>>
    where
        K: Borrow<Q> + Hash + Eq,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hasher.hash_one(key);
        self.inner.shards.find(hash, |entry| entry.is(key)).map(|entry| KeyedCommand { entry })
    }

    /// Takes the circuit of a key out, whatever its state. Calls that hold it end with it; the next lookup makes a new
    /// one. Says whether there was one.
    pub fn remove<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q> + Hash + Eq,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hasher.hash_one(key);
        let found = self.inner.shards.find(hash, |entry| entry.is(key));
        found.is_some_and(|entry| {
            let removed = self.inner.shards.remove(hash, &entry);
            if removed {
                self.inner.core().family.retire(entry.command.core());
            }
            removed
        })
    }

    /// The circuits of all keys, in no order: of those that were there when it was called.
    pub fn all(&self) -> Vec<KeyedCommand<K, C>> {
        self.inner.shards.all().into_iter().map(|entry| KeyedCommand { entry }).collect()
    }

    /// The circuit that keys share for which there is no room. It stands for all of them in the registry.
    pub fn overflow(&self) -> &Command<C> {
        &self.inner.overflow.command
    }

    /// How many circuits have a key; while other threads make some, those are counted already.
    pub fn len(&self) -> usize {
        self.inner.shards.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many may.
    pub fn limit(&self) -> usize {
        self.inner.limit
    }

    /// Figures of the whole. Takes time in proportion to the number of keys.
    ///
    /// ```
    /// # use fusebox::{Command, Keyed, Keys};
    /// let tenants: Keyed<u32> = Command::builder("tenants").keyed(Keys::up_to(1))?;
    /// drop(tenants.get(&1));
    /// let held = tenants.get(&2); // in place of the first
    /// assert_eq!(tenants.get(&3).key(), None); // no room
    /// let stats = tenants.stats();
    /// assert_eq!((stats.keys, stats.evictions, stats.overflows), (1, 1, 1));
    /// # drop(held);
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn stats(&self) -> KeyedStats {
        let all = self.inner.shards.all();
        KeyedStats {
            keys: self.len(),
            not_closed: all.iter().filter(|entry| entry.command.state() != State::Closed).count(),
            evictions: self.inner.evictions.load(Ordering::Relaxed),
            overflows: self.inner.overflows.load(Ordering::Relaxed),
        }
    }

    /// All circuits together: what is counted of each key is added up, limits included, and of ages and peaks there are
    /// upper bounds. State, wait and override are those of the [circuit that keys share](Self::overflow). Over the life of
    /// the command it also counts what keys had counted that made room for others or were [removed](Self::remove). Takes
    /// time in proportion to the number of keys.
    ///
    /// ```
    /// # use fusebox::{Command, Keyed, Keys};
    /// let shards: Keyed<u32> = Command::builder("shards").max_concurrent(8).keyed(Keys::up_to(64))?;
    /// shards.get(&1).run_sync(|| Err::<(), _>("down")).ok();
    /// shards.get(&2).run_sync(|| Ok::<_, &str>(())).ok();
    /// let all = shards.snapshot();
    /// assert_eq!((all.window().errors(), all.window().total(), all.limit()), (1, 2, Some(24)));
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        self.inner.overflow.command.overview().0
    }

    /// The keys that are worst off, `most` at most: those that are open, forced open, half-open or forced closed come
    /// first, in this order, and among equals those with most errors in the window, then those with most calls. Which
    /// one it is says [`Snapshot::key`]. Takes time in proportion to the number of keys.
    ///
    /// ```
    /// # use fusebox::{Command, Keyed, Keys, State};
    /// # let shards: Keyed<u32> = Command::builder("shards").keyed(Keys::up_to(64))?;
    /// shards.get(&1).run_sync(|| Err::<(), _>("down")).ok();
    /// shards.get(&2).force_open("moved", None);
    /// drop(shards.get(&3));
    /// let keys: Vec<_> = shards.worst(2).iter().map(|key| key.key().map(str::to_owned)).collect();
    /// assert_eq!(keys, [Some("2".to_owned()), Some("1".to_owned())]);
    /// # Ok::<(), fusebox::ConfigError>(())
    /// ```
    pub fn worst(&self, most: usize) -> Vec<Snapshot> {
        self.inner.overflow.command.worst_keys(most)
    }

    /// As [`Command::reconfigure`], for the template and every circuit made from it. Takes time in proportion to the
    /// number of keys.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with every setting that is out of range; nothing has changed then.
    pub fn reconfigure(&self, change: impl FnOnce(Config) -> Config) -> Result<(), ConfigError> {
        self.inner.overflow.command.reconfigure(change)
    }

    /// The events of all keys from now on, as a stream.
    pub fn subscribe(&self) -> Events {
        self.inner.overflow.command.subscribe()
    }
}

impl<K, C> Inner<K, C> {
    fn core(&self) -> &Arc<Core> {
        self.overflow.command.core()
    }

    fn cores(&self) -> Vec<Arc<Core>> {
        let keyed = self.shards.all().into_iter().map(|entry| Arc::clone(entry.command.core()));
        std::iter::once(Arc::clone(self.core())).chain(keyed).collect()
    }

    #[cold]
    fn make<Q>(&self, hash: u64, key: &Q) -> Arc<Entry<K, C>>
    where
        K: Borrow<Q> + Eq,
        Q: Eq + ToOwned<Owned = K> + fmt::Display + ?Sized,
    {
        let family = &self.core().family;
        let Some((room, gone)) = self.shards.make_room(Entry::may_go) else {
            self.overflows.fetch_add(1, Ordering::Relaxed);
            family.meter.overflowed();
            return Arc::clone(&self.overflow);
        };
        if let Some(gone) = &gone {
            family.retire(gone.command.core());
            self.evictions.fetch_add(1, Ordering::Relaxed);
            family.meter.evicted();
        }
        drop(gone);
        let in_force = family.in_force();
        let latency_window = in_force.settings.latency_window.filter(|_| self.latencies);
        let core = Core::new(Arc::clone(family), Some(label(key)), &in_force.settings, latency_window);
        let command = Command::new(Arc::new(core), Arc::clone(self.overflow.command.shared_classifier()));
        let entry = Arc::new(Entry { key: Some(key.to_owned()), command });
        if let Some(found) = self.shards.put(room, hash, &entry, |entry| entry.is(key)) {
            return found;
        }
        if !Arc::ptr_eq(&family.in_force(), &in_force) {
            // Changed since its settings were read, and it may have come too late to be found.
            entry.command.core().catch_up();
        }
        entry
    }
}

impl<K, C> Clone for Keyed<K, C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K, C> fmt::Debug for Keyed<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("name", &self.overflow().name())
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}
