//! Configurations, good and bad: a bad one is refused when it is made, by a sentence that names the field, the value and
//! what is allowed; and it is refused whole.

use std::time::Duration;

use fusebox::{Breaker, Bulkhead, Command, Config, ConfigError, Event, Events, Ramp, Verdict, Window};
use futures::{FutureExt, StreamExt};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn nanos(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

/// One nanosecond more than fits.
const TOO_LONG: Duration = nanos(u64::MAX).saturating_add(nanos(1));

fn with(breaker: Breaker) -> Config {
    Config::default().breaker(breaker)
}

fn rate(rate: f64) -> Config {
    with(Breaker::error_rate(rate))
}

fn breaker() -> Breaker {
    Breaker::default()
}

fn limit(limit: usize) -> Config {
    Config::default().max_concurrent(limit)
}

fn queue(length: usize, wait: Duration) -> Config {
    Config::default().bulkhead(Bulkhead::new(8).queue(length, wait))
}

fn build(config: Config) -> Result<Command, ConfigError> {
    Command::builder("config").config(config).build()
}

/// What was refused, in the words of the accessors: one line for each problem.
fn lines(error: &ConfigError) -> Vec<String> {
    let line = |p: &fusebox::Problem| format!("{} is {}, allowed: {}", p.field(), p.value(), p.allowed());
    let lines: Vec<_> = error.problems().map(line).collect();
    assert_eq!(lines[0], format!("{} is {}, allowed: {}", error.field(), error.value(), error.allowed()));
    assert_eq!(error.to_string(), lines.join("; "), "`Display` says the same");
    lines
}

const RATE: &str = "a rate in (0, 1]";
const LEVEL: &str = "a level in [0.5, 0.999999]";
const SHARES: &str = "1 to 100 shares in (0, 1], each larger than the one before";
const SPAN: &str = "longer than 0 and at most 584 years";
const CALLS: &str = "1 to 16777214 calls";
const ONE: &str = "at least 1";
const LAST: &str = "1 to 1000000 calls";
const BUCKETS: &str = "1 to 10000";
const WHOLE: &str = "a length that divides into buckets of whole milliseconds";
const FACTOR: &str = "a finite factor of at least 1";
const SHARE: &str = "a share in [0, 1)";

/// Every configuration that cannot work, each wrong in one way: field, value, what is allowed.
fn bad() -> Vec<(Config, &'static str, &'static str, &'static str)> {
    const FOREVER: &str = "18446744073709551615.999999999s";
    const CENTURIES: &str = "18446744073.709551616s";
    vec![
        // Below one half a lower bound is none, and nothing is certain.
        (with(breaker().confidence(0.0)), "breaker.confidence", "0", LEVEL),
        (with(breaker().confidence(0.499)), "breaker.confidence", "0.499", LEVEL),
        (with(breaker().confidence(1.0)), "breaker.confidence", "1", LEVEL),
        (with(breaker().confidence(95.0)), "breaker.confidence", "95", LEVEL),
        (with(breaker().confidence(f64::NAN)), "breaker.confidence", "NaN", LEVEL),
        // Nothing says what is slow.
        (with(breaker().count_in_flight(true)), "breaker.count_in_flight", "true", "only with breaker.slow_calls"),
        // A ramp leads upwards.
        (with(breaker().ramp(Ramp::stages([]))), "breaker.ramp.shares", "[]", SHARES),
        (with(breaker().ramp(Ramp::stages([0.5, 0.25]))), "breaker.ramp.shares", "[0.5, 0.25]", SHARES),
        (with(breaker().ramp(Ramp::stages([0.5, 0.5]))), "breaker.ramp.shares", "[0.5, 0.5]", SHARES),
        (with(breaker().ramp(Ramp::stages([0.0, 0.5]))), "breaker.ramp.shares", "[0.0, 0.5]", SHARES),
        (with(breaker().ramp(Ramp::stages([0.5, 1.5]))), "breaker.ramp.shares", "[0.5, 1.5]", SHARES),
        (with(breaker().ramp(Ramp::stages([f64::NAN]))), "breaker.ramp.shares", "[NaN]", SHARES),
        (with(breaker().ramp(Ramp::default().each(Duration::ZERO))), "breaker.ramp.each", "0ns", SPAN),
        (with(breaker().ramp(Ramp::default().min_calls(0))), "breaker.ramp.min_calls", "0", ONE),
        // A rate is a share of the calls, above 0.
        (rate(0.0), "breaker.error_rate", "0", RATE),
        (rate(-0.0), "breaker.error_rate", "-0", RATE),
        (rate(-0.5), "breaker.error_rate", "-0.5", RATE),
        (rate(1.0 + f64::EPSILON), "breaker.error_rate", "1.0000000000000002", RATE),
        (rate(50.0), "breaker.error_rate", "50", RATE),
        (rate(100.1), "breaker.error_rate", "100.1", RATE),
        (rate(f64::NAN), "breaker.error_rate", "NaN", RATE),
        (rate(f64::INFINITY), "breaker.error_rate", "inf", RATE),
        (rate(f64::NEG_INFINITY), "breaker.error_rate", "-inf", RATE),
        (with(breaker().slow_calls(0.0, ms(1))), "breaker.slow_calls.rate", "0", RATE),
        (with(breaker().slow_calls(1.5, ms(1))), "breaker.slow_calls.rate", "1.5", RATE),
        (with(breaker().slow_calls(-1.0, ms(1))), "breaker.slow_calls.rate", "-1", RATE),
        (with(breaker().slow_calls(f64::NAN, ms(1))), "breaker.slow_calls.rate", "NaN", RATE),
        (with(breaker().slow_calls(f64::INFINITY, ms(1))), "breaker.slow_calls.rate", "inf", RATE),
        (with(breaker().slow_calls(0.5, Duration::ZERO)), "breaker.slow_calls.threshold", "0ns", SPAN),
        (with(breaker().slow_calls(0.5, Duration::MAX)), "breaker.slow_calls.threshold", FOREVER, SPAN),
        // Counts.
        (with(breaker().min_calls(0)), "breaker.min_calls", "0", ONE),
        (with(breaker().probes(0)), "breaker.probes", "0", ONE),
        (with(breaker().consecutive_failures(0)), "breaker.consecutive_failures", "0", ONE),
        (with(Breaker::disabled().consecutive_failures(0)), "breaker.consecutive_failures", "0", ONE),
        (with(breaker().last_calls(0)), "breaker.last_calls", "0", LAST),
        // The window.
        (with(breaker().buckets(0)), "breaker.buckets", "0", BUCKETS),
        (with(breaker().window(Duration::ZERO)), "breaker.window", "0ns", SPAN),
        (with(breaker().window(Duration::MAX)), "breaker.window", FOREVER, SPAN),
        (with(breaker().window(TOO_LONG)), "breaker.window", CENTURIES, SPAN),
        (with(breaker().buckets(3)), "breaker.window", "10s in 3 buckets", WHOLE),
        (with(breaker().buckets(7)), "breaker.window", "10s in 7 buckets", WHOLE),
        (with(breaker().window(ms(5))), "breaker.window", "5ms in 10 buckets", WHOLE),
        (with(breaker().window(ms(9))), "breaker.window", "9ms in 10 buckets", WHOLE),
        (with(breaker().window(ms(15))), "breaker.window", "15ms in 10 buckets", WHOLE),
        (with(breaker().window(nanos(10))), "breaker.window", "10ns in 10 buckets", WHOLE),
        (with(breaker().window(secs(1) + nanos(1))), "breaker.window", "1.000000001s in 10 buckets", WHOLE),
        (with(breaker().window(secs(1)).buckets(1_001)), "breaker.window", "1s in 1001 buckets", WHOLE),
        (with(breaker().last_calls(1_000_001)), "breaker.last_calls", "1000001", LAST),
        (with(breaker().window(secs(10_001)).buckets(10_001)), "breaker.buckets", "10001", BUCKETS),
        // The wait.
        (with(breaker().open_for(Duration::ZERO)), "breaker.open_for", "0ns", SPAN),
        (with(breaker().open_for(Duration::MAX)), "breaker.open_for", FOREVER, SPAN),
        (with(breaker().open_for(TOO_LONG)), "breaker.open_for", CENTURIES, SPAN),
        (with(breaker().max_open(secs(4))), "breaker.max_open", "4s", "at least breaker.open_for"),
        (with(breaker().max_open(nanos(1))), "breaker.max_open", "1ns", "at least breaker.open_for"),
        (with(breaker().growth(0.999)), "breaker.growth", "0.999", FACTOR),
        (with(breaker().growth(0.0)), "breaker.growth", "0", FACTOR),
        (with(breaker().growth(-2.0)), "breaker.growth", "-2", FACTOR),
        (with(breaker().growth(f64::NAN)), "breaker.growth", "NaN", FACTOR),
        (with(breaker().growth(f64::INFINITY)), "breaker.growth", "inf", FACTOR),
        (with(breaker().jitter(1.0)), "breaker.jitter", "1", SHARE),
        (with(breaker().jitter(2.5)), "breaker.jitter", "2.5", SHARE),
        (with(breaker().jitter(-0.1)), "breaker.jitter", "-0.1", SHARE),
        (with(breaker().jitter(f64::NAN)), "breaker.jitter", "NaN", SHARE),
        (with(breaker().jitter(f64::INFINITY)), "breaker.jitter", "inf", SHARE),
        (with(breaker().count_cancelled_after(Duration::MAX)), "breaker.count_cancelled_after", FOREVER, SPAN),
        // Limits.
        (limit(0), "max_concurrent", "0", CALLS),
        (limit(16_777_215), "max_concurrent", "16777215", CALLS),
        (limit(usize::MAX), "max_concurrent", "18446744073709551615", CALLS),
        (Config::default().max_concurrent_fallbacks(0), "max_concurrent_fallbacks", "0", CALLS),
        (
            Config::default().max_concurrent_fallbacks(usize::MAX),
            "max_concurrent_fallbacks",
            "18446744073709551615",
            CALLS,
        ),
        (Config::default().bulkhead(Bulkhead::new(0).queue(1, ms(1))), "bulkhead.limit", "0", CALLS),
        (Config::default().bulkhead(Bulkhead::new(1 << 24).queue(1, ms(1))), "bulkhead.limit", "16777216", CALLS),
        (queue(0, ms(1)), "bulkhead.queue.length", "0", "1 to 65535 calls"),
        (queue(65_536, ms(1)), "bulkhead.queue.length", "65536", "1 to 65535 calls"),
        (queue(usize::MAX, ms(1)), "bulkhead.queue.length", "18446744073709551615", "1 to 65535 calls"),
        (queue(1, Duration::ZERO), "bulkhead.queue.wait", "0ns", SPAN),
        (queue(1, Duration::MAX), "bulkhead.queue.wait", FOREVER, SPAN),
        // Times.
        (Config::default().timeout(Duration::ZERO), "timeout", "0ns", "longer than 0"),
        (Config::default().latency_window(Duration::ZERO), "latency_window", "0ns", SPAN),
        (Config::default().latency_window(Duration::MAX), "latency_window", FOREVER, SPAN),
        (Config::default().latency_window(TOO_LONG), "latency_window", CENTURIES, SPAN),
    ]
}

/// X9, T2: each bad configuration is refused, for its one reason, wherever it comes in.
#[test]
fn every_bad_configuration_is_refused_by_field_value_and_range() {
    let bad = bad();
    assert!(bad.len() >= 60);
    for (config, field, value, allowed) in bad {
        let expected = [format!("{field} is {value}, allowed: {allowed}")];
        assert_eq!(lines(&build(config.clone()).expect_err(&expected[0])), expected);

        let validated = config.breaker.validate().map_err(|error| lines(&error));
        assert_eq!(validated.err().is_some_and(|found| found == expected), field.starts_with("breaker."), "{field}");

        let command = build(Config::default()).expect("a good configuration");
        let error = command.reconfigure(|_| config.clone()).expect_err(&expected[0]);
        let fixed = "what the command was built with: it cannot be changed live";
        let (changed, all) = (config.latency_window != Some(secs(60)), lines(&error));
        assert_eq!(all[..1], expected, "by `reconfigure`");
        assert_eq!(all.len(), if changed { 2 } else { 1 });
        assert_eq!(changed, all.last().is_some_and(|line| line.ends_with(fixed)), "{all:?}");
    }
}

/// Whoever mends the configuration must not have to guess again: a wait that is too long is not also too short.
#[test]
fn a_longest_wait_beyond_the_clock_is_reported_once_and_for_what_it_is() {
    for wait in [TOO_LONG, Duration::MAX] {
        let error = build(with(breaker().max_open(wait))).expect_err("it does not fit the clock");
        assert_eq!(lines(&error), [format!("breaker.max_open is {wait:?}, allowed: {SPAN}")]);
    }
}

#[test]
fn all_problems_of_the_settings_are_reported_at_once() {
    let breaker = Breaker::error_rate(f64::NAN)
        .min_calls(0)
        .buckets(0)
        .window(Duration::ZERO)
        .open_for(Duration::ZERO)
        .growth(0.5)
        .jitter(1.0)
        .probes(0)
        .consecutive_failures(0)
        .slow_calls(2.0, Duration::ZERO)
        .count_cancelled_after(Duration::ZERO);
    let config = Config::default()
        .timeout(Duration::ZERO)
        .bulkhead(Bulkhead::new(0).queue(0, Duration::ZERO))
        .max_concurrent_fallbacks(0)
        .latency_window(Duration::ZERO)
        .breaker(breaker);
    let expected = [
        "timeout is 0ns, allowed: longer than 0",
        "bulkhead.limit is 0, allowed: 1 to 16777214 calls",
        "bulkhead.queue.length is 0, allowed: 1 to 65535 calls",
        "bulkhead.queue.wait is 0ns, allowed: longer than 0 and at most 584 years",
        "breaker.error_rate is NaN, allowed: a rate in (0, 1]",
        "breaker.open_for is 0ns, allowed: longer than 0 and at most 584 years",
        "breaker.growth is 0.5, allowed: a finite factor of at least 1",
        "breaker.jitter is 1, allowed: a share in [0, 1)",
        "breaker.min_calls is 0, allowed: at least 1",
        "breaker.probes is 0, allowed: at least 1",
        "breaker.consecutive_failures is 0, allowed: at least 1",
        "breaker.buckets is 0, allowed: 1 to 10000",
        "breaker.window is 0ns, allowed: longer than 0 and at most 584 years",
        "breaker.slow_calls.rate is 2, allowed: a rate in (0, 1]",
        "breaker.slow_calls.threshold is 0ns, allowed: longer than 0 and at most 584 years",
        "breaker.count_cancelled_after is 0ns, allowed: longer than 0 and at most 584 years",
        "max_concurrent_fallbacks is 0, allowed: 1 to 16777214 calls",
        "latency_window is 0ns, allowed: longer than 0 and at most 584 years",
    ];
    assert_eq!(lines(&build(config).expect_err("nothing in it is good")), expected);
}

/// X9: "returns all errors". A bad name is one of them.
#[test]
fn a_bad_name_and_a_bad_group_are_reported_together_with_bad_settings() {
    let error = Command::builder("").group("a b").timeout(Duration::ZERO).build().expect_err("three times bad");
    let fields: Vec<_> = error.problems().map(fusebox::Problem::field).collect();
    assert_eq!(fields, ["name", "group", "timeout"]);
}

/// O1: a name is inert wherever it is shown, because a name that is not is none.
#[test]
fn a_name_is_made_of_characters_that_mean_nothing_anywhere() {
    let all = (0..=char::MAX as u32).filter_map(char::from_u32);
    let is_good = |c: char| c.is_ascii_alphanumeric() || "_.:/-".contains(c);
    for c in all.filter(|c| c.is_ascii() || (*c as u32) % 257 == 0 || "\u{2028}\u{2029}\u{85}éßЖ名".contains(*c)) {
        let name = format!("a{c}b");
        assert_eq!(Command::builder(&name).build().is_ok(), is_good(c), "{c:?} in a name");
        assert_eq!(Command::builder("a").group(&name).build().is_ok(), is_good(c), "{c:?} in a group");
    }
    let longest = "x".repeat(128);
    let command = Command::builder(&longest).group(&longest).build().expect("128 characters fit");
    assert_eq!((command.name(), command.group()), (longest.as_str(), Some(longest.as_str())));
}

/// O1, X9: what is shown of a bad name is short, and has its oddities escaped.
#[test]
fn a_bad_name_is_refused_and_shown_in_a_safe_form() {
    const ALLOWED: &str = "1 to 128 characters out of A-Z a-z 0-9 _ . : / -";
    let (long, huge, wide) = ("x".repeat(129), "y".repeat(1 << 20), "é".repeat(100));
    let names = [
        ("", r#""""#),
        (" ", r#"" ""#),
        ("a b", r#""a b""#),
        ("say \"hi\"", r#""say \"hi\"""#),
        ("it's", r#""it's""#),
        ("back\\slash", r#""back\\slash""#),
        ("two\r\nlines", r#""two\r\nlines""#),
        ("tab\t", r#""tab\t""#),
        ("nul\0", r#""nul\0""#),
        ("sep\u{2028}", r#""sep\u{2028}""#),
        ("bell\u{7}", r#""bell\u{7}""#),
        ("\u{202e}evil", r#""\u{202e}evil""#),
        ("</script>", r#""</script>""#),
        ("{label=\"x\"}", r#""{label=\"x\"}""#),
        ("naïve", r#""naïve""#),
        (&long, r#""xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" ... (129 bytes)"#),
        (&huge, r#""yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" ... (1048576 bytes)"#),
        (&wide, r#""éééééééééééééééééééééééééééééééé" ... (200 bytes)"#),
    ];
    for (name, shown) in names {
        for (field, built) in
            [("name", Command::builder(name).build()), ("group", Command::builder("fine").group(name).build())]
        {
            let error = built.expect_err(shown);
            assert_eq!((error.field(), error.value(), error.allowed()), (field, shown, ALLOWED));
            assert!(!error.to_string().contains(['\r', '\n', '\0', '\u{2028}', '\u{202e}']));
        }
    }
}

/// Every configuration at the edge of what is allowed: it builds, is shown as it was given, can be taken live, and
/// calls work under it.
#[test]
fn the_edges_of_the_ranges_are_inside() {
    let longest = nanos(u64::MAX);
    let longest_window = ms(u64::MAX / 10_000_000 * 10);
    let good = [
        rate(1.0),
        rate(f64::MIN_POSITIVE),
        rate(1e-9),
        with(breaker().min_calls(1)),
        with(breaker().min_calls(u32::MAX)),
        with(breaker().window(ms(10))),
        with(breaker().window(ms(1)).buckets(1)),
        with(breaker().window(secs(1)).buckets(1_000)),
        with(breaker().window(longest_window)),
        with(breaker().last_calls(1)),
        with(breaker().last_calls(10_000).min_calls(u32::MAX)),
        with(breaker().open_for(nanos(1))),
        with(breaker().open_for(longest)),
        with(breaker().open_for(secs(60))),
        with(breaker().open_for(secs(61))),
        with(breaker().max_open(secs(5))),
        with(breaker().max_open(longest)),
        with(breaker().growth(1.0)),
        with(breaker().growth(f64::MAX)),
        with(breaker().jitter(0.0)),
        with(breaker().jitter(1.0 - f64::EPSILON)),
        with(breaker().probes(u32::MAX)),
        with(breaker().consecutive_failures(1)),
        with(breaker().consecutive_failures(u32::MAX)),
        with(breaker().slow_calls(1.0, nanos(1))),
        with(breaker().slow_calls(f64::MIN_POSITIVE, longest)),
        with(breaker().count_cancelled_after(nanos(1))),
        with(breaker().count_cancelled_after(longest)),
        with(breaker().count_rejections(true)),
        with(Breaker::disabled()),
        limit(1),
        limit(16_777_214),
        Config::default().unlimited(),
        queue(1, nanos(1)),
        queue(65_535, longest),
        Config::default().max_concurrent_fallbacks(1),
        Config::default().max_concurrent_fallbacks(16_777_214),
        Config::default().timeout(longest),
        Config::default().timeout(Duration::MAX),
        Config::default().no_timeout(),
    ];
    let fixed = [
        Config::default().latency_window(nanos(1)),
        Config::default().latency_window(longest),
        Config::default().no_latency(),
    ];
    let live = build(Config::default()).expect("the defaults are good");
    for (config, is_fixed) in good.into_iter().map(|c| (c, false)).chain(fixed.into_iter().map(|c| (c, true))) {
        let built = build(config.clone()).unwrap_or_else(|error| panic!("{config:?}: {error}"));
        let reconfigured = live.reconfigure(|_| config.clone());
        assert_eq!(reconfigured.is_err(), is_fixed, "{config:?}: {reconfigured:?}");
        for command in if is_fixed { vec![&built] } else { vec![&built, &live] } {
            let snapshot = command.snapshot();
            assert_eq!(*snapshot.config(), config);
            assert_eq!(snapshot.limit(), config.bulkhead.map(|bulkhead| bulkhead.limit));
            command.reset();
            for verdict in [Verdict::Success, Verdict::Failure, Verdict::Ignored] {
                if let Ok(permit) = command.admit() {
                    permit.resolve(verdict);
                }
            }
            command.reset();
            command.run_sync(|| Ok::<_, ()>(())).unwrap_or_else(|error| panic!("{config:?}: {error}"));
        }
    }
}

/// The table of defaults: DESIGN.md, section 5.
#[test]
fn the_defaults_are_what_the_table_says() {
    let expected = Config::default()
        .timeout(secs(1))
        .max_concurrent(100)
        .max_concurrent_fallbacks(100)
        .latency_window(secs(60))
        .breaker(Breaker::error_rate(0.5).min_calls(20).window(secs(10)).buckets(10).open_for(secs(5)).growth(2.0));
    let command = Command::builder("defaults").build().expect("the defaults are good");
    for config in [&Config::default(), &expected, command.snapshot().config()] {
        let Config { timeout, bulkhead, breaker, max_concurrent_fallbacks, latency_window, .. } = config.clone();
        assert_eq!((timeout, latency_window), (Some(secs(1)), Some(secs(60))));
        assert_eq!((bulkhead, max_concurrent_fallbacks), (Some(Bulkhead::new(100)), 100));
        assert_eq!(bulkhead.and_then(|bulkhead| bulkhead.queue), None);
        assert_eq!(breaker, Breaker::default());
    }
    let Breaker { error_rate, min_calls, window, open_for, growth, max_open, jitter, probes, .. } = Breaker::default();
    assert_eq!((error_rate, min_calls), (Some(0.5), 20));
    assert_eq!(window, Window::Time { length: secs(10), buckets: 10 });
    // No longest wait of its own is 60 s: see `the_longest_wait_is_a_minute_where_none_is_given`.
    assert_eq!((open_for, growth, max_open, jitter, probes), (secs(5), 2.0, None, 0.2, 1));
    let Breaker { consecutive_failures, slow_calls, count_rejections, count_cancelled_after, .. } = Breaker::default();
    assert_eq!((consecutive_failures, slow_calls, count_rejections, count_cancelled_after), (None, None, false, None));
    assert!(!Breaker::default().count_in_flight && !Breaker::default().abort_on_trip);
    assert_eq!((Breaker::default().confidence, Breaker::default().ramp), (None, None));
    let Ramp { shares, each, min_calls, .. } = Ramp::default();
    assert_eq!((shares, each, min_calls), (vec![0.1, 0.25, 0.5], secs(1), 5));
    let mut without_a_rule = Breaker::default();
    without_a_rule.error_rate = None;
    assert_eq!(Breaker::disabled(), without_a_rule);
}

/// With the greatest growth the second wait is the longest.
#[test]
fn the_longest_wait_is_a_minute_where_none_is_given() {
    for (open_for, expected) in [(nanos(1), secs(60)), (secs(61), secs(61))] {
        let breaker = Breaker::error_rate(1.0).min_calls(1).open_for(open_for).growth(f64::MAX).jitter(0.0);
        let command = build(with(breaker)).expect("a good configuration");
        command.admit().expect("it is closed").fail();
        let first = command.snapshot().retry_after();
        if open_for == nanos(1) {
            // The wait is over as soon as anybody looks.
            while command.state() != fusebox::State::HalfOpen {}
            command.admit().expect("it is due").fail();
            let wait = command.snapshot().retry_after().expect("it is open");
            assert!(wait <= expected && wait > expected - secs(30), "{wait:?}");
        } else {
            assert!(first.is_some_and(|wait| wait <= expected && wait > expected - secs(30)), "{first:?}");
        }
    }
}

/// The README repeats the defaults: the two must not drift apart.
#[test]
fn the_readme_lists_every_default() {
    let readme = include_str!("../README.md");
    let rows = [
        "| `timeout` | 1 s |",
        "| `max_concurrent` | 100 |",
        "| `max_concurrent_fallbacks` | 100 |",
        "| `latency_window` | 60 s |",
        "| `Breaker::error_rate` | 0.5 |",
        "| `min_calls` | 20 |",
        "| `confidence` | off |",
        "| `window`, `buckets` | 10 s, 10 |",
        "| `open_for` | 5 s |",
        "| `growth`, `max_open` | 2.0, 60 s |",
        "| `jitter` | 0.2 |",
        "| `probes` | 1 |",
        "| `ramp` | off |",
        "| `consecutive_failures` | off |",
        "| `slow_calls` | off |",
        "| `count_in_flight` | off |",
        "| `abort_on_trip` | off |",
        "| `count_rejections` | off |",
        "| `count_cancelled_after` | off |",
    ];
    for row in rows {
        assert_eq!(readme.lines().filter(|line| line.starts_with(row)).count(), 1, "{row}");
    }
}

fn drain(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).collect()
}

/// X10: a change that is refused in one part is refused whole, and nobody hears of it.
#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let config = Config::default()
        .bulkhead(Bulkhead::new(3).queue(2, ms(20)))
        .breaker(Breaker::error_rate(0.5).min_calls(3).open_for(secs(3_600)));
    let command = build(config.clone()).expect("a good configuration");
    let mut events = command.subscribe();
    for verdict in [Verdict::Success, Verdict::Failure] {
        command.admit().expect("it is closed").resolve(verdict);
    }
    let held = command.admit().expect("it is closed");
    let seen = |command: &Command| {
        let s = command.snapshot();
        let (queue, fallbacks) = (s.queue_length(), s.fallbacks());
        (
            s.state(),
            s.generation(),
            s.lifetime(),
            s.health(),
            s.in_flight(),
            s.limit(),
            queue,
            fallbacks,
            s.config().clone(),
        )
    };
    let before = seen(&command);

    // Most of it would be fine, and would show at once.
    let refused = command.reconfigure(|c| {
        c.timeout(ms(1)).max_concurrent(1).breaker(Breaker::error_rate(0.5).min_calls(1).probes(0)).no_latency()
    });
    let fields: Vec<_> = refused.expect_err("two of it are bad").problems().map(|p| p.field()).collect();
    assert_eq!(fields, ["breaker.probes", "latency_window"]);

    assert_eq!(seen(&command), before);
    assert_eq!(drain(&mut events), [], "nothing happened");
    let more: Vec<_> = std::iter::from_fn(|| command.admit().ok()).collect();
    assert_eq!(more.len(), 2, "the old limit is in force");
    drop(more);
    held.fail();
    assert_eq!(command.state(), fusebox::State::Open, "the old rule is in force: 2 of 3");
}

/// What was changed is told, as before and after, and only that.
#[test]
fn a_change_that_is_taken_tells_what_it_changed() {
    type Case = (fn(Config) -> Config, &'static [(&'static str, &'static str, &'static str)]);
    let bulkhead_100 = "Some(Bulkhead { limit: 100, queue: None })";
    let cases: [Case; 17] = [
        (|c| c.timeout(ms(150)), &[("timeout", "Some(1s)", "Some(150ms)")]),
        (|c| c.no_timeout(), &[("timeout", "Some(1s)", "None")]),
        (|c| c.unlimited(), &[("bulkhead", "Some(Bulkhead { limit: 100, queue: None })", "None")]),
        (|c| c.max_concurrent_fallbacks(7), &[("max_concurrent_fallbacks", "100", "7")]),
        (|c| c.breaker(breaker().min_calls(21)), &[("breaker.min_calls", "20", "21")]),
        (|c| c.breaker(breaker().confidence(0.95)), &[("breaker.confidence", "None", "Some(0.95)")]),
        (
            |c| c.breaker(breaker().last_calls(50)),
            &[("breaker.window", "Time { length: 10s, buckets: 10 }", "Calls(50)")],
        ),
        (|c| c.breaker(breaker().open_for(secs(6))), &[("breaker.open_for", "5s", "6s")]),
        (
            |c| c.breaker(breaker().growth(3.0).max_open(secs(90)).jitter(0.0)),
            &[
                ("breaker.growth", "2.0", "3.0"),
                ("breaker.max_open", "None", "Some(90s)"),
                ("breaker.jitter", "0.2", "0.0"),
            ],
        ),
        (|c| c.breaker(breaker().probes(2)), &[("breaker.probes", "1", "2")]),
        (
            |c| c.breaker(breaker().ramp(Ramp::stages([0.5]).each(secs(3)))),
            &[("breaker.ramp", "None", "Some(Ramp { shares: [0.5], each: 3s, min_calls: 5 })")],
        ),
        (|c| c.breaker(breaker().consecutive_failures(9)), &[("breaker.consecutive_failures", "None", "Some(9)")]),
        (|c| c.breaker(breaker().slow_calls(0.5, ms(5))), &[("breaker.slow_calls", "None", "Some((0.5, 5ms))")]),
        (
            |c| c.breaker(breaker().slow_calls(0.5, ms(5)).count_in_flight(true)),
            &[("breaker.slow_calls", "None", "Some((0.5, 5ms))"), ("breaker.count_in_flight", "false", "true")],
        ),
        (|c| c.breaker(breaker().abort_on_trip(true)), &[("breaker.abort_on_trip", "false", "true")]),
        (
            |c| c.breaker(breaker().count_rejections(true).count_cancelled_after(secs(2))),
            &[("breaker.count_rejections", "false", "true"), ("breaker.count_cancelled_after", "None", "Some(2s)")],
        ),
        (|c| c.breaker(Breaker::disabled()), &[("breaker.error_rate", "Some(0.5)", "None")]),
    ];
    for (change, expected) in cases {
        let command = build(Config::default()).expect("the defaults are good");
        let mut events = command.subscribe();
        command.reconfigure(change).expect("a good configuration");
        let [Event::Reconfigured { command: name, changes, .. }] = &drain(&mut events)[..] else {
            panic!("one event for one change")
        };
        let told: Vec<_> = changes.iter().map(|c| (c.field, &*c.before, &*c.after)).collect();
        assert_eq!((*name, &told[..]), ("config", expected));
        assert_eq!(*command.snapshot().config(), change(Config::default()), "and it is in force");
    }
    assert_eq!(format!("{:?}", Config::default().bulkhead), bulkhead_100);
}

/// The state and the counts stay, and what is new is in force for the next call.
#[test]
fn a_change_keeps_the_state_and_the_counts() {
    let command = build(with(Breaker::error_rate(0.5).min_calls(10))).expect("a good configuration");
    for _ in 0..3 {
        command.admit().expect("it is closed").fail();
    }
    let generation = command.snapshot().generation();
    command.reconfigure(|c| c.breaker(Breaker::error_rate(0.5).min_calls(4)).max_concurrent(1)).expect("it is good");
    let snapshot = command.snapshot();
    assert_eq!((snapshot.health().errors, snapshot.window().errors(), snapshot.generation()), (3, 3, generation));
    let held = command.admit().expect("there is one slot");
    assert!(command.admit().is_err(), "and only one");
    held.fail();
    assert_eq!(command.state(), fusebox::State::Open, "four of four, three of them from before");
}
