//! Configuration from files: what a file says, what is wrong with it and in which line, and how it gets into force.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use fusebox::{
    AdaptiveLimit, AdaptiveTimeout, Algorithm, Breaker, Budget, Bulkhead, Changed, Command, Config, Configs, Event,
    Hedge, Jitter, PartialConfig, Ramp, RateLimit, Registry, Reload, Retry, State, Window,
};
use metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use support::{advance, drain, in_a_row, ms, outcomes, play, secs, window};

const EXAMPLE: &str = include_str!("../examples/fusebox.toml");

fn parse(text: &str) -> Configs {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The error of a file: the line that it names, and what it says last.
fn refused(text: &str) -> (usize, String) {
    let error = toml::from_str::<Configs>(text).expect_err(text).to_string();
    let line = error.split_once("at line ").and_then(|(_, rest)| rest.split_once(',')).expect("a line").0;
    (line.parse().expect("a number"), error.trim_end().lines().last().expect("a message").to_owned())
}

// ---- what a file says ----

#[test]
fn cf01_the_later_level_wins_from_default_to_group_to_command() {
    let configs = parse(
        r#"
        default = { timeout = "5s", max_concurrent = 7, max_concurrent_fallbacks = 9 }
        groups.shop = { timeout = "1234ms", max_concurrent = 8 }
        commands."shop.price" = { timeout = "3456ms" }
        "#,
    );
    let resolve = |name, group| {
        let config = configs.resolve(name, group).expect("a good configuration");
        (config.timeout.expect("one"), config.bulkhead.expect("one").limit, config.max_concurrent_fallbacks)
    };
    assert_eq!(resolve("shop.price", Some("shop")), (ms(3_456), 8, 9));
    assert_eq!(resolve("shop.price", Some("other")), (ms(3_456), 7, 9));
    assert_eq!(resolve("shop.stock", Some("shop")), (ms(1_234), 8, 9));
    assert_eq!(resolve("shop.stock", None), (secs(5), 7, 9));
}

#[test]
fn cf04_what_no_level_names_has_its_default() {
    let configs = parse(r#"commands.x.timeout = "30s""#);
    assert_eq!(configs.resolve("x", None), Ok(Config::default().timeout(secs(30))));
    assert_eq!(parse("").resolve("x", Some("y")), Ok(Config::default()));
}

#[test]
fn the_example_says_what_it_seems_to() {
    let configs = parse(EXAMPLE);
    let fetch = configs.resolve("pricing.fetch", Some("pricing")).expect("a good configuration");
    let breaker =
        Breaker::error_rate(0.5).last_calls(100).max_open(secs(60)).slow_calls(0.8, ms(100)).consecutive_failures(10);
    let expected = Config::default()
        .timeout(ms(250))
        .deadline(secs(1))
        .retry(Retry::exponential(ms(20)).attempts(4))
        .hedge(Hedge::after(ms(30)))
        .budget(Budget::share(0.1))
        .bulkhead(Bulkhead::new(64).queue(128, ms(20)))
        .max_concurrent_fallbacks(50)
        .breaker(breaker);
    assert_eq!(fetch, expected);

    let nightly = configs.resolve("reports.nightly", None).expect("a good configuration");
    let breaker = Breaker::disabled().max_open(secs(60)).count_rejections(true).count_cancelled_after(secs(2));
    assert_eq!(nightly, Config::default().no_timeout().unlimited().max_concurrent_fallbacks(50).breaker(breaker));
}

#[test]
fn a_ramp_is_its_shares_and_has_defaults_for_the_rest() {
    let ramp = |text: &str| parse(text).resolve("x", None).expect("a good configuration").breaker.ramp;
    let short = ramp("default.breaker.ramp = { shares = [0.2, 0.4] }");
    assert_eq!(short, Some(Box::new(Ramp::stages([0.2, 0.4]))));
    let long = ramp(r#"default.breaker.ramp = { shares = [1], each = "3s", min_calls = 9 }"#);
    assert_eq!(long, Some(Box::new(Ramp::stages([1.0]).each(secs(3)).min_calls(9))));
    let off = ramp("default.breaker.ramp = { shares = [0.2] }\ncommands.x.breaker.ramp = \"off\"");
    assert_eq!(off, None);
}

#[test]
fn other_formats_will_do() {
    let json = r#"{"commands": {"x": {"timeout": "off", "breaker": {"min_calls": 5, "error_rate": 1}}}}"#;
    let configs: Configs = serde_json::from_str(json).expect("a good file");
    let expected = Config::default().no_timeout().breaker(Breaker::error_rate(1.0).min_calls(5));
    assert_eq!(configs.resolve("x", None), Ok(expected));

    let error = serde_json::from_str::<Configs>("{\n  \"default\": {\n    \"breaker\": {\"probes\": 0}\n  }\n}");
    let error = error.expect_err("no probes, no recovery").to_string();
    assert!(error.starts_with("breaker.probes is 0, allowed: at least 1 at line 3"), "{error}");
}

// ---- what is wrong, and where ----

#[test]
fn a_key_that_is_unknown_is_refused_at_every_level_with_its_line() {
    for (text, line, key) in [
        ("\ndefaults = {}", 2, "`defaults`"),
        ("[default]\ntimeout = \"1s\"\ntimout = \"1s\"", 3, "`timout`"),
        ("[groups.a]\nbreaker.min_call = 3", 2, "`min_call`"),
        ("[commands.a.breaker]\nprobes = 1\n\nslow = 3", 4, "`slow`"),
        ("[default]\nbulkhead = { limit = 1, length = 3 }", 2, "`length`"),
        ("[default]\nbulkhead = { limit = 1, queue = { length = 3, wait = \"1s\", fifo = true } }", 2, "`fifo`"),
        ("[default]\nbreaker.slow_calls = { rate = 0.5, threshold = \"1s\", min = 3 }", 2, "`min`"),
    ] {
        let (at, message) = refused(text);
        assert_eq!(at, line, "{text}");
        assert!(message.starts_with(&format!("unknown field {key}, expected ")), "{message}");
    }
}

/// CF3, X9: as from a builder, and with the line.
#[test]
fn cf03_what_is_out_of_range_is_named_with_its_value_its_range_and_its_line() {
    for (setting, expected) in [
        (r#"timeout = "0s""#, "timeout is 0ns, allowed: longer than 0"),
        ("max_concurrent = 0", "max_concurrent is 0, allowed: 1 to 16777214 calls"),
        ("max_concurrent_fallbacks = 16777215", "max_concurrent_fallbacks is 16777215, allowed: 1 to 16777214 calls"),
        (r#"latency_window = "0ms""#, "latency_window is 0ns, allowed: longer than 0 and at most 584 years"),
        (
            r#"adaptive_limit = { algorithm = "vegas", min = 9, max = 3 }"#,
            "adaptive_limit.min is 9, allowed: at most adaptive_limit.max",
        ),
        (r#"adaptive_limit = { algorithm = "aimd" }"#, "`aimd` needs `slow`, from when on a call is too slow"),
        (r#"adaptive_limit = { algorithm = "vegas", slow = "1s" }"#, "`slow` is for the algorithm `aimd`"),
        (
            "adaptive_timeout = { percentile = 0.99, factor = 1.0 }",
            "adaptive_timeout.factor is 1, allowed: a finite factor greater than 1",
        ),
        (
            r#"rate_limit = { calls = 0, period = "1s", burst = 1 }"#,
            "rate_limit.calls is 0, allowed: at least 1, and at most one a nanosecond",
        ),
        (
            r#"bulkhead = { limit = 0, queue = { length = 1, wait = "1s" } }"#,
            "bulkhead.limit is 0, allowed: 1 to 16777214 calls",
        ),
        (
            r#"bulkhead = { limit = 1, queue = { length = 65536, wait = "1s" } }"#,
            "bulkhead.queue.length is 65536, allowed: 1 to 65535 calls",
        ),
        ("breaker.error_rate = 50", "breaker.error_rate is 50, allowed: a rate in (0, 1]"),
        ("breaker.error_rate = nan", "breaker.error_rate is NaN, allowed: a rate in (0, 1]"),
        ("breaker.min_calls = 0", "breaker.min_calls is 0, allowed: at least 1"),
        (
            r#"breaker.window = "700years""#,
            "breaker.window is 22090320000s, allowed: longer than 0 and at most 584 years",
        ),
        ("breaker.buckets = 10001", "breaker.buckets is 10001, allowed: 1 to 10000"),
        ("breaker.last_calls = 0", "breaker.last_calls is 0, allowed: 1 to 1000000 calls"),
        (r#"breaker.open_for = "0s""#, "breaker.open_for is 0ns, allowed: longer than 0 and at most 584 years"),
        ("breaker.growth = 0.5", "breaker.growth is 0.5, allowed: a finite factor of at least 1"),
        ("breaker.jitter = 1", "breaker.jitter is 1, allowed: a share in [0, 1)"),
        ("breaker.probes = 0", "breaker.probes is 0, allowed: at least 1"),
        (r#"deadline = "0s""#, "deadline is 0ns, allowed: longer than 0"),
        ("retry.attempts = 0", "retry.attempts is 0, allowed: at least 1"),
        ("retry.growth = 0.5", "retry.growth is 0.5, allowed: a finite factor of at least 1"),
        ("retry.jitter = 2", "retry.jitter is 2, allowed: a share in [0, 1]"),
        ("hedge = { percentile = 1.0 }", "hedge.percentile is 1, allowed: a share in (0, 1)"),
        ("budget = { share = 11 }", "budget.share is 11, allowed: extra attempts per call in [0, 10]"),
        ("breaker.consecutive_failures = 0", "breaker.consecutive_failures is 0, allowed: at least 1"),
        (
            r#"breaker.slow_calls = { rate = 2.0, threshold = "1s" }"#,
            "breaker.slow_calls.rate is 2, allowed: a rate in (0, 1]",
        ),
    ] {
        let (line, message) = refused(&format!("[commands.a]\n\n{setting}"));
        assert_eq!((line, message.as_str()), (3, expected), "{setting}");
    }
}

#[test]
fn what_is_of_another_kind_is_refused_with_what_is_wanted() {
    const DURATION: &str = r#"expected a duration such as "250ms" or "1m 30s""#;
    for (setting, expected) in [
        ("timeout = 250", format!("invalid type: integer `250`, {DURATION}")),
        (r#"timeout = "fast""#, format!(r#"invalid value: string "fast", {DURATION}"#)),
        (r#"breaker.window = "off""#, format!(r#"invalid value: string "off", {DURATION}"#)),
        ("timeout = []", r#"invalid type: sequence, expected a setting, or "off""#.to_owned()),
        (r#"max_concurrent = "many""#, r#"invalid type: string "many", expected usize"#.to_owned()),
        ("max_concurrent = -1", "invalid value: integer `-1`, expected usize".to_owned()),
        ("breaker.min_calls = 1.5", "invalid type: floating point `1.5`, expected u32".to_owned()),
        ("breaker = 3", "invalid type: integer `3`, expected a table of settings".to_owned()),
        (
            r#"retry.jitter = "some""#,
            r#"invalid value: string "some", expected "none", "full", "equal", "decorrelated", or a share"#.to_owned(),
        ),
        (r#"bulkhead = { queue = { length = 1, wait = "1s" } }"#, "missing field `limit`".to_owned()),
    ] {
        let (line, message) = refused(&format!("[default]\n{setting}"));
        assert_eq!((line, message), (2, expected), "{setting}");
    }
}

#[test]
fn keys_that_say_the_same_exclude_each_other() {
    for (settings, pair) in [
        ("max_concurrent = 3\nbulkhead = { limit = 3 }", "`max_concurrent` and `bulkhead`"),
        ("retry.constant = \"1s\"\nretry.growth = 2.0", "`growth` and `constant`"),
        ("breaker.last_calls = 3\nbreaker.window = \"10s\"", "`last_calls` and `window`"),
        ("breaker.buckets = 3\nbreaker.last_calls = 3", "`last_calls` and `buckets`"),
    ] {
        let (_, message) = refused(&format!("[default]\n{settings}"));
        assert_eq!(message, format!("{pair} exclude each other"));
    }
    let levels = parse("default.breaker.last_calls = 3\ncommands.a.breaker.window = \"5s\"");
    let window = levels.resolve("a", None).expect("a good configuration").breaker.window;
    assert_eq!(window, Window::Time { length: secs(5), buckets: 10 }, "on two levels the later one wins");
}

#[test]
fn a_name_that_no_command_can_have_is_refused() {
    let (line, message) = refused("[default]\n[commands.\"a b\"]\ntimeout = \"1s\"");
    assert_eq!(line, 2);
    assert_eq!(message, r#"name is "a b", allowed: 1 to 128 characters out of A-Z a-z 0-9 _ . : / -"#);
}

/// What a level says alone may become right by another level, so it is judged when all are known.
#[test]
fn settings_of_two_levels_that_do_not_go_together_are_found_when_they_meet() {
    let configs = parse(
        r#"
        default.breaker.buckets = 3
        commands.good.breaker.window = "15s"
        commands.bad.breaker.window = "10s"
        commands.worse.breaker = { window = "9s", max_open = "4s" }
        "#,
    );
    assert!(configs.resolve("good", None).is_ok());
    let error = configs.resolve("bad", None).expect_err("10 s in 3 buckets");
    assert_eq!((error.field(), error.value()), ("breaker.window", "10s in 3 buckets"));
    let error = configs.resolve("worse", None).expect_err("5 s is longer than the longest");
    assert_eq!((error.field(), error.value()), ("breaker.max_open", "4s"));
}

// ---- the schema and the round trip ----

/// The keys that a file can have, as its errors list them.
fn keys(prefix: &str, parent: &str) -> BTreeSet<String> {
    let (_, message) = refused(&format!("[default]\n{parent}"));
    let list = message.split_once("expected ").expect("what is known").1.trim_start_matches("one of ");
    list.split(", ")
        .flat_map(|keys| keys.split(" or "))
        .map(|key| format!("{prefix}{}", key.trim_matches('`')))
        .collect()
}

/// A row of the table in the docs: key, and default if it has one.
fn rows() -> Vec<(String, Option<String>)> {
    let docs = include_str!("../src/configs/mod.rs");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("/// | `")?.split(" | ");
        let key = cells.next()?.trim_end_matches('`').to_owned();
        let default = cells.nth(1).map(|cell| cell.trim_end_matches(" |"));
        let literal =
            default.and_then(|cell| cell.split([',', ';']).next()).map(|cell| cell.trim_matches('`').to_owned());
        Some((key, literal.filter(|cell| !cell.is_empty() && cell != "|" && cell != "none")))
    };
    docs.lines().filter_map(row).collect()
}

#[test]
fn the_table_of_keys_has_every_key_and_its_default() {
    let documented: BTreeSet<_> = rows().into_iter().map(|(key, _)| key).collect();
    let mut known = keys("", "x = 0");
    known.extend(keys("breaker.", "breaker.x = 0"));
    known.extend(keys("breaker.slow_calls.", "breaker.slow_calls = { x = 0 }"));
    known.extend(keys("breaker.ramp.", "breaker.ramp = { x = 0 }"));
    known.extend(keys("bulkhead.", "bulkhead = { x = 0 }"));
    known.extend(keys("bulkhead.queue.", "bulkhead = { limit = 1, queue = { x = 0 } }"));
    known.extend(keys("rate_limit.", "rate_limit = { x = 0 }"));
    known.extend(keys("retry.", "retry.x = 0"));
    known.extend(keys("budget.", "budget = { x = 0 }"));
    known.extend(keys("hedge.", "hedge = { x = 0 }"));
    known.extend(keys("adaptive_limit.", "adaptive_limit = { x = 0 }"));
    known.extend(keys("adaptive_timeout.", "adaptive_timeout = { x = 0 }"));
    known.remove("breaker");
    known.remove("retry");
    assert_eq!(documented, known);

    for (key, default) in rows() {
        let Some(default) = default else { continue };
        let text = format!("default.{key} = {default}");
        let config = parse(&text).resolve("a", None).expect("a good configuration");
        assert_eq!(config, Config::default(), "{text}");
    }
    assert!(rows().iter().filter(|(_, default)| default.is_some()).count() >= 15);
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..100_000_u64).prop_map(Duration::from_millis),
        (1..u64::MAX).prop_map(Duration::from_nanos),
        Just(Duration::from_nanos(u64::MAX)),
    ]
}

prop_compose! {
    fn breakers()(
        error_rate in proptest::option::of(0.001..=1.0),
        (min_calls, probes) in (1..1_000_u32, 1..9_u32),
        confidence in proptest::option::of(0.5..0.999),
        window in prop_oneof![
            (1..100_u32).prop_map(Window::Calls),
            (1..60_u64, 1..60_u32).prop_map(|(width, buckets)| {
                Window::Time { length: ms(width) * buckets, buckets }
            }),
        ],
        open_for in span(),
        (growth, jitter) in (1.0..9.0, 0.0..1.0),
        has_max in any::<bool>(),
        ramp in proptest::option::of((0.001..=1.0, span(), 1..u32::MAX)),
        consecutive_failures in proptest::option::of(1..u32::MAX),
        slow_calls in proptest::option::of((0.001..=1.0, span())),
        (count_in_flight, abort_on_trip, count_rejections) in any::<(bool, bool, bool)>(),
        count_cancelled_after in proptest::option::of(span()),
    ) -> Breaker {
        let mut breaker = Breaker::default();
        breaker.error_rate = error_rate;
        breaker.min_calls = min_calls;
        breaker.probes = probes;
        breaker.confidence = confidence;
        breaker.window = window;
        breaker.open_for = open_for;
        breaker.growth = growth;
        breaker.jitter = jitter;
        breaker.max_open = has_max.then_some(open_for);
        breaker.ramp = ramp.map(|(share, each, calls)| {
            Box::new(Ramp::stages([share / 2.0, share]).each(each).min_calls(calls))
        });
        breaker.consecutive_failures = consecutive_failures;
        breaker.slow_calls = slow_calls;
        breaker.count_in_flight = count_in_flight && slow_calls.is_some();
        breaker.abort_on_trip = abort_on_trip;
        breaker.count_rejections = count_rejections;
        breaker.count_cancelled_after = count_cancelled_after;
        breaker
    }
}

prop_compose! {
    fn attempts()(
        deadline in proptest::option::of(span()),
        budget in proptest::option::of((0.0..=10.0, 0.0..1e6, 1..1_000_000_000_u32)),
        delay in span(),
        growth in proptest::option::of(1.0..9.0),
        jitter in prop_oneof![
            prop::sample::select(vec![Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated]),
            (0.0..=1.0).prop_map(Jitter::Spread),
        ],
        (attempts, timeouts, has_max) in (1..u32::MAX, any::<bool>(), any::<bool>()),
    ) -> Config {
        let retry = growth.map_or_else(|| Retry::constant(delay), |growth| Retry::exponential(delay).growth(growth));
        let retry = retry.attempts(attempts).timeouts(timeouts).jitter(jitter);
        let config = Config::default().retry(if has_max { retry.max_delay(delay) } else { retry });
        let config = deadline.into_iter().fold(config, Config::deadline);
        match budget {
            None => config.no_budget(),
            Some((share, floor, burst)) => config.budget(Budget::share(share).floor(floor).burst(burst)),
        }
    }
}

prop_compose! {
    fn configs()(
        attempts in attempts(),
        timeout in proptest::option::of(span()),
        bulkhead in proptest::option::of((1..9_999_usize, proptest::option::of((1..65_535_usize, span())))),
        tuning in proptest::option::of((0.001..0.999, 1.001..9.0, (span(), any::<bool>()), span(), 1..u32::MAX)),
        moving in proptest::option::of((
            prop_oneof![Just(Algorithm::Vegas), Just(Algorithm::Gradient), span().prop_map(Algorithm::Aimd)],
            (1..9_999_usize, 0..9_999_usize),
            span(),
        )),
        rate in proptest::option::of((1..999_u32, 1..99_999_u64, 1..999_u32, proptest::option::of(span()))),
        breaker in breakers(),
        max_concurrent_fallbacks in 1..9_999_usize,
        latency_window in proptest::option::of(span()),
    ) -> Config {
        let mut config = attempts.breaker(breaker).max_concurrent_fallbacks(max_concurrent_fallbacks);
        config.timeout = timeout;
        config.latency_window = latency_window;
        config.adaptive_timeout = tuning.map(|(percentile, factor, (min, has_max), interval, warm_up)| {
            let timeout = AdaptiveTimeout::percentile(percentile).factor(factor).min(min);
            let timeout = timeout.interval(interval).warm_up(warm_up);
            Box::new(if has_max { timeout.max(min) } else { timeout })
        });
        if config.adaptive_timeout.is_some() {
            config.latency_window = latency_window.or(Some(secs(60)));
        }
        config.adaptive_limit = moving.map(|(algorithm, (min, more), interval)| {
            let mut limit = AdaptiveLimit::vegas().min(min).max(min + more).interval(interval);
            limit.algorithm = algorithm;
            Box::new(limit)
        });
        config.rate_limit = rate.map(|(calls, period, burst, wait)| {
            let limit = RateLimit::new(calls, ms(period)).burst(burst);
            Box::new(wait.map_or(limit, |longest| limit.wait(longest)))
        });
        config.bulkhead = bulkhead.map(|(limit, queue)| {
            let bulkhead = Bulkhead::new(limit);
            queue.map_or(bulkhead, |(length, wait)| bulkhead.queue(length, wait))
        });
        config
    }
}

#[test]
fn every_configuration_survives_a_round_trip_through_a_file() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Runs { cases: 256, failure_persistence: None, ..Runs::default() }, rng);
    let outcome = runner.run(&(configs(), configs()), |(config, other)| {
        let mut file = Configs::default();
        file.default = PartialConfig::of(&other);
        file.commands.insert("a".to_owned(), PartialConfig::of(&config));
        file.groups.insert("b".to_owned(), PartialConfig::of(&other));
        let text = toml::to_string(&file).expect("it can be written");
        let read: Configs = toml::from_str(&text).map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
        prop_assert_eq!(&read, &file, "{}", text);
        let json = serde_json::to_string(&file).expect("it can be written");
        prop_assert_eq!(&serde_json::from_str::<Configs>(&json).expect("it can be read"), &file, "{}", json);

        // What is said in full leaves nothing to the other levels.
        prop_assert_eq!(read.resolve("a", Some("b")), Ok(config), "{}", text);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

// ---- into force ----

/// A shop with two commands, each with something of its own in the code.
struct Shop {
    registry: Registry,
    price: Command,
    stock: Command,
}

impl Shop {
    fn new() -> Self {
        let registry = Registry::new();
        let builder = |name: &str| Command::builder(name).group("shop").registry(&registry);
        let price = builder("shop.price").breaker(in_a_row(3)).max_concurrent(4).build().expect("valid");
        let stock = builder("shop.stock").timeout(ms(700)).build().expect("valid");
        Self { registry, price, stock }
    }

    fn limits(&self) -> (Option<usize>, Option<usize>) {
        (self.price.snapshot().limit(), self.stock.snapshot().limit())
    }
}

fn fields(changed: &[Changed]) -> Vec<(&str, Vec<&str>)> {
    changed.iter().map(|c| (c.command, c.changes.iter().map(|change| change.field).collect())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_file_lies_over_what_the_builder_says_and_gives_it_back() {
    let shop = Shop::new();
    let (price, stock) = (shop.price.snapshot().config().clone(), shop.stock.snapshot().config().clone());
    let file = parse("groups.shop.max_concurrent = 9\ncommands.\"shop.price\".breaker.probes = 2");
    let reload = shop.registry.apply(&file).expect("a good file");
    assert_eq!(
        fields(&reload.changed),
        [("shop.price", vec!["bulkhead", "breaker.probes"]), ("shop.stock", vec!["bulkhead"])]
    );
    let expected = price.clone().max_concurrent(9).map_breaker(|breaker| breaker.probes(2));
    assert_eq!(shop.price.snapshot().config(), &expected, "the rule of the builder stays");
    assert_eq!(shop.stock.snapshot().config(), &stock.clone().max_concurrent(9));

    assert_eq!(shop.registry.apply(&file), Ok(Reload::default()), "nothing is new");
    shop.registry.apply(&Configs::default()).expect("a good file");
    assert_eq!((shop.price.snapshot().config(), shop.stock.snapshot().config()), (&price, &stock));
}

#[tokio::test(start_paused = true)]
async fn cf02_a_file_changes_the_next_call_and_no_count() {
    let shop = Shop::new();
    play(&shop.price, "SFF").await;
    let running = shop.price.admit().expect("there is room");
    shop.registry.apply(&parse("default.max_concurrent = 1")).expect("a good file");
    assert!(shop.price.admit().is_err(), "one is the limit now");
    running.fail();
    assert_eq!(shop.price.state(), State::Open, "the row went on");
    assert_eq!(shop.price.snapshot().lifetime().get("failure"), 3);
}

/// X10, P28: what one command cannot have, none gets.
#[tokio::test(start_paused = true)]
async fn p28_a_file_that_is_wrong_for_one_command_changes_none_and_says_so_to_all_that_it_meant() {
    let shop = Shop::new();
    let other = Command::builder("other").registry(&shop.registry).build().expect("valid");
    shop.registry.apply(&parse("groups.shop.max_concurrent = 5")).expect("a good file");
    let mut events = [&shop.price, &shop.stock, &other].map(Command::subscribe);

    let file = parse("groups.shop.max_concurrent = 6\ncommands.\"shop.stock\".breaker.window = \"15ms\"");
    let error = shop.registry.apply(&file).expect_err("15 ms do not divide");
    let at_fault: Vec<_> = error.problems().map(|(command, error)| (command, error.field())).collect();
    assert_eq!(at_fault, [("shop.stock", "breaker.window")]);
    assert_eq!(
        error.to_string(),
        "command `shop.stock`: breaker.window is 15ms in 10 buckets, allowed: a length that divides into buckets of \
         whole milliseconds"
    );
    assert_eq!(shop.limits(), (Some(5), Some(5)), "the last good one stays");
    let told = events.each_mut().map(drain);
    for (command, told) in [("shop.price", &told[0]), ("shop.stock", &told[1])] {
        let [Event::ReloadRejected { command: name, reason, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*name, reason), (command, &error.to_string()));
    }
    assert_eq!(told[2], [], "it was not meant");

    let late = Command::builder("shop.late").group("shop").registry(&shop.registry).build().expect("valid");
    assert_eq!(late.snapshot().limit(), Some(5), "and stays for those to come");
}

#[tokio::test(start_paused = true)]
async fn each_change_is_told_once_with_what_it_is() {
    let shop = Shop::new();
    let mut events = [&shop.price, &shop.stock].map(Command::subscribe);
    let file = parse("commands.\"shop.stock\".timeout = \"80ms\"");
    shop.registry.apply(&file).expect("a good file");
    shop.registry.apply(&file).expect("a good file");
    assert_eq!(drain(&mut events[0]), []);
    let told = drain(&mut events[1]);
    let [Event::Reconfigured { changes, .. }] = &told[..] else { panic!("{told:?}") };
    let change = &changes[0];
    assert_eq!((changes.len(), change.field), (1, "timeout"));
    assert_eq!((change.before.as_str(), change.after.as_str()), ("Some(700ms)", "Some(80ms)"));
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_counted_for_each_command_that_it_meant() {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        let shop = Shop::new();
        shop.registry.apply(&parse("commands.\"shop.price\".max_concurrent = 3")).expect("a good file");
        shop.registry.apply(&parse("commands.\"shop.price\".breaker.window = \"15ms\"")).expect_err("15 ms");
        shop.registry.apply(&parse("commands.\"shop.price\".max_concurrent = 3")).expect("nothing is new");
    });
    let text = recorder.handle().render();
    let counted = |command: &str, outcome: &str| {
        let labels = format!("{{command=\"{command}\",group=\"shop\",outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix("fusebox_config_reloads_total")?.strip_prefix(&labels))
    };
    assert_eq!(counted("shop.price", "applied"), Some("1"), "{text}");
    assert_eq!(counted("shop.price", "rejected"), Some("1"), "{text}");
    assert_eq!(counted("shop.stock", "applied"), None, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_built_later_is_under_the_file_too() {
    let shop = Shop::new();
    let file = parse("default.max_concurrent = 2\ncommands.late.timeout = \"off\"\ncommands.typo.timeout = \"1s\"");
    let reload = shop.registry.apply(&file).expect("a good file");
    assert_eq!(reload.unmatched, ["late", "typo"]);

    let late = shop.registry.get_or_insert("late", |builder| builder.max_concurrent(50)).expect("valid");
    let config = late.snapshot().config().clone();
    assert_eq!((config.timeout, late.snapshot().limit()), (None, Some(2)));
    shop.registry.apply(&Configs::default()).expect("a good file");
    assert_eq!(late.snapshot().config(), &Config::default().max_concurrent(50), "what its builder said comes back");

    let elsewhere = Command::builder("late").registry(&Registry::new()).build().expect("valid");
    assert_eq!(elsewhere.snapshot().limit(), Some(100), "a file is its registry's");
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_by_hand_stays_until_the_file_changes() {
    let shop = Shop::new();
    let file = |limit: usize| parse(&format!("default.max_concurrent = {limit}"));
    shop.price.reconfigure(|config| config.timeout(ms(5))).expect("valid");
    shop.registry.apply(&file(6)).expect("a good file");
    assert_eq!(shop.price.snapshot().config().timeout, Some(secs(1)), "as its builder has it");
    shop.price.reconfigure(|config| config.max_concurrent(1)).expect("valid");
    assert_eq!(shop.limits(), (Some(1), Some(6)));
    shop.registry.apply(&file(7)).expect("a good file");
    assert_eq!(shop.limits(), (Some(7), Some(7)));
}

#[tokio::test(start_paused = true)]
async fn a_latency_window_is_refused_live_and_holds_for_those_to_come() {
    let file = parse("default.latency_window = \"30s\"");
    let shop = Shop::new();
    let error = shop.registry.apply(&file).expect_err("it cannot be changed live");
    assert_eq!(error.problems().map(|(command, _)| command).collect::<Vec<_>>(), ["shop.price", "shop.stock"]);

    let registry = Registry::new();
    registry.apply(&file).expect("there are no commands yet");
    let command = Command::builder("a").registry(&registry).build().expect("valid");
    assert_eq!(command.snapshot().config().latency_window, Some(secs(30)));
    assert_eq!(registry.apply(&file), Ok(Reload::default()));
}

/// What a builder says comes back when no file says anything any more, so it has to hold by itself.
#[test]
fn no_file_repairs_a_builder() {
    let registry = Registry::new();
    registry.apply(&parse("default.max_concurrent = 5")).expect("there are no commands yet");
    let error = Command::builder("orders").max_concurrent(0).registry(&registry).build().expect_err("not a limit");
    assert!(error.to_string().contains("max_concurrent"), "{error}");
    assert_eq!(error.to_string().matches("max_concurrent").count(), 1, "told once: {error}");
    let orders = Command::builder("orders").max_concurrent(3).registry(&registry).build().expect("valid");
    assert_eq!(orders.snapshot().limit(), Some(5));
    registry.apply(&Configs::default()).expect("what the builder said");
    assert_eq!(orders.snapshot().limit(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_apply_a_file_itself() {
    let registry = Registry::new();
    let inner = registry.clone();
    let listener = move |event: &Event| {
        if matches!(event, Event::Reconfigured { .. }) {
            inner.apply(&parse("default.max_concurrent = 3")).expect("a good file");
        }
    };
    let command = Command::builder("a").registry(&registry).on_event(listener).build().expect("valid");
    registry.apply(&parse("default.max_concurrent = 2")).expect("a good file");
    assert_eq!(command.snapshot().limit(), Some(3));
}

/// The window starts empty in its new shape; what was counted over the life of the command is all there.
#[tokio::test(start_paused = true)]
async fn a_window_changes_its_shape_live_and_no_lifetime_count_is_lost() {
    let registry = Registry::new();
    let command = Command::builder("reshaped").breaker(Breaker::disabled()).registry(&registry).build();
    let command = &command.expect("valid");
    let mut all = String::new();
    for shape in ["last_calls = 4", "window = \"6s\"", "buckets = 5", "last_calls = 9", "window = \"10s\""] {
        play(command, "SSFTPICS").await;
        all.push_str("SSFTPICS");
        let (before, late) = (outcomes(command), command.admit().expect("there is room"));
        registry.apply(&parse(&format!("default.breaker.{shape}"))).expect("a good file");
        assert_eq!(outcomes(command), before, "{shape}");
        assert_eq!(window(command), (0, 0), "{shape}");
        late.succeed();
        all.push('S');
        assert_eq!(window(command), (0, 1), "a call that was running is counted in the new window: {shape}");
        advance(secs(20)).await;
    }
    let lifetime = command.snapshot().lifetime();
    let count = |letter: char| all.chars().filter(|c| *c == letter).count() as u64;
    for (letter, outcome) in [
        ('S', "success"),
        ('F', "failure"),
        ('T', "timed_out"),
        ('P', "panicked"),
        ('I', "ignored"),
        ('C', "cancelled"),
    ] {
        assert_eq!(lifetime.get(outcome), count(letter), "{outcome}");
    }
    assert_eq!(command.state(), State::Closed);
}
