//! The settings in force, in words, and where each comes from.

use super::collector::Track;
use super::log::Story;
use crate::config::Config;

pub(super) struct Setting {
    pub(super) field: &'static str,
    pub(super) value: String,
    pub(super) default: String,
    pub(super) source: &'static str,
    pub(super) changed_at: Option<u64>,
}

/// The settings in force, what each would be by default, and where it comes from.
pub(super) fn settings(track: &Track, story: Option<&Story>) -> Vec<Setting> {
    let in_force = track.snapshot.config().settings().into_iter();
    let others = track.built.config.settings().into_iter().zip(Config::default().settings());
    in_force
        .zip(others)
        .map(|((field, value), ((_, built), (_, default)))| {
            let changed_at = story.and_then(|story| story.changed.get(field)).copied();
            let source = match changed_at {
                Some(_) => "changed live",
                // By a configuration file that was there before the dashboard.
                None if value != built => "changed since it was built",
                None if value != default => "set when built",
                None => "default",
            };
            Setting { field, value: words(&value), default: words(&default), source, changed_at }
        })
        .collect()
}

/// Types that the name of the setting names already.
const PLAIN: [&str; 9] =
    ["Some", "Time", "Bulkhead", "AdaptiveTimeout", "AdaptiveLimit", "RateLimit", "Ramp", "Retry", "Budget"];

/// A value as people write it, from how Rust does: without brackets and names that only Rust needs.
pub(super) fn words(debug: &str) -> String {
    let mut words = String::new();
    // What ends each bracket that is open.
    let mut ends = Vec::new();
    let mut rest = debug;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"_.".contains(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if !PLAIN.contains(&name) {
            words += &word(name);
        }
        if let Some((inside, (begin, end))) = bracket(name, after) {
            words += begin;
            ends.push(end);
            rest = inside;
        } else if let Some(after) = after.strip_prefix(" }").or_else(|| after.strip_prefix(')')) {
            words += ends.pop().unwrap_or_default();
            rest = after;
        } else {
            let after = after.strip_prefix(':').unwrap_or(after);
            let mark = after.chars().next().map_or(0, char::len_utf8);
            words += &after[..mark];
            rest = &after[mark..];
        }
    }
    words
}

/// If a bracket opens here: what is inside and beyond, and how it begins and ends in words.
fn bracket<'t>(name: &str, text: &'t str) -> Option<(&'t str, (&'static str, &'static str))> {
    let fields = text.strip_prefix(" { ").map(|inside| (inside, (" (", ")")));
    let (inside, ends) =
        fields.or_else(|| Some((text.strip_prefix('(')?, if name.is_empty() { ("(", ")") } else { (" ", "") })))?;
    Some((inside, if PLAIN.contains(&name) { ("", "") } else { ends }))
}

fn word(name: &str) -> String {
    match name {
        "None" | "false" => "off".to_owned(),
        "true" => "on".to_owned(),
        "4294967295" => "any number".to_owned(),
        _ => name.to_lowercase().replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::adaptive::limit::AdaptiveLimit;
    use crate::breaker::config::Breaker;
    use crate::breaker::ramp::Ramp;
    use crate::budget::Budget;
    use crate::bulkhead::Bulkhead;
    use crate::hedge::Hedge;
    use crate::rate_limit::config::RateLimit;
    use crate::retry::Retry;

    #[test]
    fn values_read_as_people_write_them() {
        let ms = Duration::from_millis;
        let breaker = Breaker::error_rate(0.2).ramp(Ramp::stages([0.2, 0.5])).slow_calls(0.5, ms(30));
        let config = Config::default()
            .timeout(ms(50))
            .bulkhead(Bulkhead::new(20).queue(5, ms(10)))
            .adaptive_limit(AdaptiveLimit::aimd(ms(30)))
            .rate_limit(RateLimit::per_second(10))
            .breaker(breaker.count_in_flight(true))
            .retry(Retry::exponential(ms(2)).attempts(2))
            .hedge(Hedge::after(ms(30)))
            .budget(Budget::share(0.1));
        let settings = config.settings();
        let shown = |field: &str| settings.iter().find(|(known, _)| *known == field).map(|(_, value)| words(value));
        for (field, expected) in [
            ("timeout", "50ms"),
            ("bulkhead", "limit 20, queue (5, 10ms)"),
            ("adaptive_limit", "algorithm aimd 30ms, min 4, max 200, interval 250ms"),
            ("adaptive_timeout", "off"),
            ("rate_limit", "calls 10, period 1s, burst 10, wait off"),
            ("breaker.window", "length 10s, buckets 10"),
            ("breaker.ramp", "shares [0.2, 0.5], each 1s, min calls 5"),
            ("breaker.slow_calls", "(0.5, 30ms)"),
            ("breaker.count_in_flight", "on"),
            ("hedge", "after 30ms"),
            ("budget", "share 0.1, floor 10.0, burst 100, shared off"),
        ] {
            assert_eq!(shown(field).as_deref(), Some(expected), "{field}");
        }
        let retry = "attempts 2, delays exponential (first 2ms, growth 2.0), jitter full, max delay off, timeouts off";
        assert_eq!(shown("retry").as_deref(), Some(retry));
        assert!(settings.iter().all(|(_, value)| !words(value).contains(['{', '}', '_', ':'])));
    }
}
