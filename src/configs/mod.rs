//! Configuration from files: thresholds are an operator's, and change without a build.
//!
//! A file has up to three levels: settings for all commands, for those of a group, and for one command. What a level
//! does not name is left as the level before it has it, and what no level names is left as the builder has it.
//! [`PartialConfig`] is one level, [`Configs`] the file, [`Registry::apply`](crate::Registry::apply) puts it in force,
//! and [`ConfigFile`] follows it while it changes.

mod apply;
mod attempts;
mod file;
mod partial;
mod section;
mod tables;
mod value;

use std::collections::BTreeMap;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

pub use self::apply::{ApplyError, Changed, Reload};
pub use self::file::{ConfigFile, ReloadError};
pub use self::partial::PartialConfig;
use crate::config::Config;
use crate::error::{ConfigError, Problems};
use crate::name::Name;

/// The configurations of many commands, as a file has them: in TOML, JSON or any other self-describing format of serde.
///
/// ```
/// use std::time::Duration;
/// use fusebox::Configs;
///
/// let configs: Configs = toml::from_str(r#"
///     [default]
///     timeout = "1s"
///     breaker.error_rate = 0.4
///
///     [groups.pricing]
///     timeout = "250ms"
///
///     [commands."pricing.fetch"]
///     max_concurrent = 64
///     breaker.consecutive_failures = 10
/// "#)?;
///
/// let config = configs.resolve("pricing.fetch", Some("pricing"))?;
/// assert_eq!(config.timeout, Some(Duration::from_millis(250)));
/// assert_eq!((config.breaker.error_rate, config.breaker.min_calls), (Some(0.4), 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Keys
///
/// Each is optional at each level: `default`, then `groups.NAME`, then `commands."NAME"`. Durations are written as
/// `"250ms"` or `"1m 30s"`. `"off"` is what it says, and so
/// is `"auto"`. A key that is not in this table is an error, and so is a value that
/// is out of range; where the format knows its lines, the error names the line.
///
/// | key | value | default |
/// |---|---|---|
/// | `timeout` | duration longer than 0, or `"off"` | `"1s"` |
/// | `deadline` | duration longer than 0, or `"off"` | `"off"` |
/// | `retry.attempts` | at least 1, the first included | 3 |
/// | `retry.exponential` | first delay, from which they grow | `"50ms"` |
/// | `retry.growth` | factor of at least 1 | 2.0 |
/// | `retry.constant` | in place of `exponential` and `growth`: a delay | |
/// | `retry.jitter` | `"none"`, `"full"`, `"equal"`, `"decorrelated"`, or a share in [0, 1] | `"full"`; 0.2 where delays are made constant |
/// | `retry.max_delay` | duration, at least the first delay, or `"auto"`: 10 s where delays grow, or the first if longer | `"auto"` |
/// | `retry.timeouts` | `true` or `false` | `false` |
/// | `hedge` | `{ after }`, or `{ percentile, warm_up }` | |
/// | `hedge.after` | duration | |
/// | `hedge.percentile` | share in (0, 1) | 0.95 |
/// | `hedge.warm_up` | calls, at least 1 | 100 |
/// | `budget` | `{ share, floor, burst }`, or `"off"` | |
/// | `budget.share` | extra attempts per call in [0, 10] | 0.2 |
/// | `budget.floor` | extra attempts per second in [0, 1000000] | 10.0 |
/// | `budget.burst` | 1 to 1000000000 extra attempts | 100 |
/// | `max_concurrent` | 1 to 16777214 calls, or `"off"` | 100 |
/// | `bulkhead` | in place of `max_concurrent`: `{ limit, queue }`, or `"off"` | |
/// | `bulkhead.limit` | 1 to 16777214 calls | |
/// | `bulkhead.queue` | `{ length, wait }`; without it a full bulkhead refuses at once | none |
/// | `bulkhead.queue.length` | 1 to 65535 calls | |
/// | `bulkhead.queue.wait` | duration longer than 0 | |
/// | `adaptive_timeout` | `{ percentile, factor, min, max, interval, warm_up }`, or `"off"` | `"off"` |
/// | `adaptive_timeout.percentile` | share in (0, 1) | |
/// | `adaptive_timeout.factor` | greater than 1; without it 2 | |
/// | `adaptive_timeout.min` | duration longer than 0; without it `"10ms"` | |
/// | `adaptive_timeout.max` | duration longer than 0; without it `timeout` | |
/// | `adaptive_timeout.interval` | duration longer than 0; without it `"10s"` | |
/// | `adaptive_timeout.warm_up` | at least 1 call; without it 100 | |
/// | `adaptive_limit` | `{ algorithm, slow, min, max, interval }`, or `"off"` | `"off"` |
/// | `adaptive_limit.algorithm` | `"vegas"`, `"gradient"` or `"aimd"` | |
/// | `adaptive_limit.slow` | for `"aimd"`, and there needed: duration longer than 0 | |
/// | `adaptive_limit.min` | 1 to 16777214 calls; without it 4 | |
/// | `adaptive_limit.max` | 1 to 16777214 calls; without it 200 | |
/// | `adaptive_limit.interval` | duration longer than 0; without it `"250ms"` | |
/// | `rate_limit` | `{ calls, period, burst, wait }`, or `"off"` | `"off"` |
/// | `rate_limit.calls` | at least 1, and at most one a nanosecond | |
/// | `rate_limit.period` | duration longer than 0 | |
/// | `rate_limit.burst` | at least 1; without it as many as `calls` | |
/// | `rate_limit.wait` | duration longer than 0; without it a call beyond the rate is refused at once | none |
/// | `max_concurrent_fallbacks` | 1 to 16777214 calls | 100 |
/// | `latency_window` | duration longer than 0, or `"off"`; cannot be changed live | `"60s"` |
/// | `breaker.error_rate` | rate in (0, 1], or `"off"` | 0.5 |
/// | `breaker.min_calls` | at least 1 | 20 |
/// | `breaker.confidence` | level in [0.5, 0.999999], or `"off"` | `"off"` |
/// | `breaker.window` | duration that divides into buckets of whole milliseconds | `"10s"` |
/// | `breaker.buckets` | 1 to 10000 | 10 |
/// | `breaker.last_calls` | in place of `window` and `buckets`: 1 to 1000000 calls | |
/// | `breaker.open_for` | duration longer than 0 | `"5s"` |
/// | `breaker.growth` | factor of at least 1 | 2.0 |
/// | `breaker.max_open` | duration, at least `breaker.open_for`, or `"auto"`: 60 s, or `open_for` if longer | `"auto"` |
/// | `breaker.jitter` | share in [0, 1) | 0.2 |
/// | `breaker.probes` | at least 1 | 1 |
/// | `breaker.ramp` | `{ shares, each, min_calls }`, or `"off"` | `"off"` |
/// | `breaker.ramp.shares` | list of shares in (0, 1], each larger than the one before | |
/// | `breaker.ramp.each` | duration longer than 0; 1 s where it is not named | |
/// | `breaker.ramp.min_calls` | at least 1; 5 where it is not named | |
/// | `breaker.consecutive_failures` | at least 1, or `"off"` | `"off"` |
/// | `breaker.slow_calls` | `{ rate, threshold }`, or `"off"` | `"off"` |
/// | `breaker.slow_calls.rate` | rate in (0, 1] | |
/// | `breaker.slow_calls.threshold` | duration longer than 0 | |
/// | `breaker.count_in_flight` | `true` or `false`; needs `breaker.slow_calls` | `false` |
/// | `breaker.abort_on_trip` | `true` or `false` | `false` |
/// | `breaker.count_rejections` | `true` or `false` | `false` |
/// | `breaker.count_cancelled_after` | duration longer than 0, or `"off"` | `"off"` |
///
/// `budget`, `bulkhead`, `rate_limit`, `breaker.ramp` and `breaker.slow_calls` are replaced as a whole by the level that names them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Configs {
    /// For every command.
    pub default: PartialConfig,
    /// For the commands of a group, by its name.
    #[serde(deserialize_with = "by_name", skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, PartialConfig>,
    /// For one command, by its name.
    #[serde(deserialize_with = "by_name", skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<String, PartialConfig>,
}

impl Configs {
    /// The configuration of a command whose builder sets nothing.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if settings of several levels do not go together.
    pub fn resolve(&self, name: &str, group: Option<&str>) -> Result<Config, ConfigError> {
        let config = self.over(Config::default(), name, group);
        let mut problems = Problems::default();
        config.check(&mut problems);
        problems.finish().map(|()| config)
    }

    /// `config` under what the file says of a command: default, then group, then command.
    pub fn over(&self, config: Config, name: &str, group: Option<&str>) -> Config {
        let levels = [group.and_then(|group| self.groups.get(group)), self.commands.get(name)];
        let config = self.default.over(config);
        levels.into_iter().flatten().fold(config, |config, level| level.over(config))
    }
}

/// Settings by names that a command or a group can have.
fn by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, PartialConfig>, D::Error> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Known(String);

    impl<'de> Deserialize<'de> for Known {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let name = String::deserialize(deserializer)?;
            let mut problems = Problems::default();
            Name::check(&mut problems, "name", &name);
            problems.finish().map(|()| Self(name)).map_err(de::Error::custom)
        }
    }

    let levels = BTreeMap::<Known, PartialConfig>::deserialize(deserializer)?;
    Ok(levels.into_iter().map(|(Known(name), level)| (name, level)).collect())
}
