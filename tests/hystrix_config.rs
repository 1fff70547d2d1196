//! The cases of Hystrix's configuration, CF1 to CF4: precedence, live changes, what cannot be built, defaults.

mod support;

use std::time::Duration;

use fusebox::{Breaker, Builder, Bulkhead, Command, Config, Error, Event, Outcome, Reason, State, Window};
use support::{
    DOWN, Failure, advance, drain, fail, hang, health, ms, outcomes, play, poll, refused, secs, succeed, window,
};

fn builder() -> Builder {
    Command::builder("hystrix")
}

/// The timeout that a call of this command really has.
async fn limit(command: &Command) -> Duration {
    let Err(Error::TimedOut(late)) = command.run(hang).await else { panic!("it has to time out") };
    assert_eq!(late.elapsed(), late.limit());
    late.limit()
}

#[tokio::test(start_paused = true)]
async fn cf01_the_later_setting_wins_from_default_to_builder_to_update_to_call() {
    let untouched = builder().build().expect("a good configuration");
    assert_eq!(limit(&untouched).await, secs(1));

    let command = builder().timeout(ms(1_234)).timeout(ms(5_000)).build().expect("a good configuration");
    assert_eq!(limit(&command).await, ms(5_000));
    command.reconfigure(|config| config.timeout(ms(3_456))).expect("a good configuration");
    assert_eq!((limit(&command).await, command.snapshot().config().timeout), (ms(3_456), Some(ms(3_456))));
    let Err(Error::TimedOut(late)) = command.run(hang).timeout(ms(80)).await else { panic!("it has to time out") };
    assert_eq!((late.limit(), limit(&command).await), (ms(80), ms(3_456)), "for that call alone");
}

#[tokio::test(start_paused = true)]
async fn cf01_a_whole_configuration_replaces_what_was_set_before_it() {
    let shared = Config::default().timeout(ms(1_234)).max_concurrent(7);
    let command = builder().timeout(ms(3_456)).config(shared).max_concurrent(3).build().expect("a good configuration");
    assert_eq!((limit(&command).await, command.snapshot().limit()), (ms(1_234), Some(3)));
}

#[tokio::test(start_paused = true)]
async fn cf02_a_limit_that_is_changed_holds_from_the_next_call() {
    let command = builder().max_concurrent(2).build().expect("a good configuration");
    let mut events = command.subscribe();
    play(&command, "SSF").await;
    let mut running: Vec<_> = (0..2).map(|_| command.admit().expect("there is room")).collect();
    assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);

    command.reconfigure(|config| config.max_concurrent(3)).expect("a good configuration");
    running.push(command.admit().expect("there is room for one more"));
    assert_eq!((command.snapshot().in_flight(), command.snapshot().limit()), (3, Some(3)));

    command.reconfigure(|config| config.max_concurrent(1)).expect("a good configuration");
    assert_eq!((command.snapshot().in_flight(), command.snapshot().limit()), (3, Some(1)), "running calls may finish");
    for _ in 0..2 {
        running.pop().expect("three run").succeed();
        assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    }
    running.pop().expect("one runs").succeed();
    succeed(&command).await;

    assert_eq!(outcomes(&command), [(Outcome::Success, 6), (Outcome::Failure, 1), (Outcome::Rejected, 3)]);
    assert_eq!((health(&command), window(&command)), ((1, 7), (1, 7)));
    let changed: Vec<_> = drain(&mut events)
        .into_iter()
        .map(|event| match event {
            Event::Reconfigured { changes, .. } => changes.iter().map(|change| change.field).collect::<Vec<_>>(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(changed, [["bulkhead"], ["bulkhead"]]);
}

#[tokio::test(start_paused = true)]
async fn cf02_a_threshold_that_is_changed_judges_the_counts_that_are_there() {
    let exact = Breaker::error_rate(0.5).min_calls(10).jitter(0.0).growth(1.0);
    let command = builder().breaker(exact.clone()).build().expect("a good configuration");
    play(&command, "FFF").await;
    command.reconfigure(|config| config.breaker(exact.clone().min_calls(4))).expect("a good configuration");
    assert_eq!((command.state(), health(&command)), (State::Closed, (3, 3)), "it is calls that are judged");
    fail(&command).await;
    assert_eq!((command.state(), window(&command)), (State::Open, (4, 4)));

    // A change keeps the state and the wait that has begun; the next wait is the new one.
    command.reconfigure(|config| config.breaker(exact.min_calls(4).open_for(secs(1)))).expect("a good configuration");
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(5))));
    advance(secs(5)).await;
    fail(&command).await;
    assert_eq!((command.state(), command.snapshot().retry_after()), (State::Open, Some(secs(1))));
}

#[tokio::test(start_paused = true)]
async fn cf02_a_running_call_keeps_the_timeout_it_began_with() {
    let command = builder().timeout(ms(100)).build().expect("a good configuration");
    let mut running = Box::pin(command.run(hang));
    assert_eq!(poll(&mut running), None);
    command.reconfigure(|config| config.timeout(ms(300))).expect("a good configuration");
    let Err(Error::TimedOut(late)) = running.await else { panic!("it has to time out") };
    assert_eq!((late.limit(), late.elapsed()), (ms(100), ms(100)));
    assert_eq!(limit(&command).await, ms(300));
}

#[tokio::test(start_paused = true)]
async fn cf02_a_change_that_is_out_of_range_changes_nothing() {
    let command = builder().max_concurrent(2).build().expect("a good configuration");
    let mut events = command.subscribe();
    let before = command.snapshot().config().clone();
    let refused = command.reconfigure(|config| config.timeout(ms(300)).max_concurrent(0)).expect_err("a limit of zero");
    assert_eq!((refused.field(), refused.value()), ("max_concurrent", "0"));
    assert_eq!((command.snapshot().config(), drain(&mut events)), (&before, vec![]));
    assert_eq!((limit(&command).await, command.snapshot().limit()), (secs(1), Some(2)));
}

/// What is wrong with a builder: each field that is, with its value.
fn problems(builder: Builder) -> Vec<(&'static str, String)> {
    let error = builder.build().expect_err("it is out of range");
    for problem in error.problems() {
        assert!(!problem.allowed().is_empty());
        assert!(error.to_string().contains(&problem.to_string()));
    }
    error.problems().map(|problem| (problem.field(), problem.value().to_owned())).collect()
}

#[test]
fn cf03_what_is_out_of_range_is_named_with_its_value() {
    let with = |change: fn(Breaker) -> Breaker| builder().breaker(change(Breaker::default()));
    let cases: Vec<(Builder, &str, &str)> = vec![
        (builder().timeout(Duration::ZERO), "timeout", "0ns"),
        (builder().max_concurrent(0), "max_concurrent", "0"),
        (builder().max_concurrent(1 << 24), "max_concurrent", "16777216"),
        (builder().bulkhead(Bulkhead::new(0).queue(1, ms(1))), "bulkhead.limit", "0"),
        (builder().bulkhead(Bulkhead::new(1).queue(0, ms(1))), "bulkhead.queue.length", "0"),
        (builder().bulkhead(Bulkhead::new(1).queue(1, Duration::ZERO)), "bulkhead.queue.wait", "0ns"),
        (builder().max_concurrent_fallbacks(0), "max_concurrent_fallbacks", "0"),
        (builder().latency_window(Duration::ZERO), "latency_window", "0ns"),
        (builder().breaker(Breaker::error_rate(0.0)), "breaker.error_rate", "0"),
        (builder().breaker(Breaker::error_rate(-0.5)), "breaker.error_rate", "-0.5"),
        (builder().breaker(Breaker::error_rate(1.01)), "breaker.error_rate", "1.01"),
        (builder().breaker(Breaker::error_rate(f64::NAN)), "breaker.error_rate", "NaN"),
        (with(|b| b.min_calls(0)), "breaker.min_calls", "0"),
        (with(|b| b.probes(0)), "breaker.probes", "0"),
        (with(|b| b.consecutive_failures(0)), "breaker.consecutive_failures", "0"),
        (with(|b| b.last_calls(0)), "breaker.last_calls", "0"),
        (with(|b| b.buckets(0)), "breaker.buckets", "0"),
        (with(|b| b.window(Duration::ZERO)), "breaker.window", "0ns"),
        (with(|b| b.window(ms(205))), "breaker.window", "205ms in 10 buckets"),
        (with(|b| b.window(secs(1)).buckets(7)), "breaker.window", "1s in 7 buckets"),
        (with(|b| b.open_for(Duration::ZERO)), "breaker.open_for", "0ns"),
        (with(|b| b.max_open(secs(4))), "breaker.max_open", "4s"),
        (with(|b| b.growth(0.9)), "breaker.growth", "0.9"),
        (with(|b| b.growth(f64::INFINITY)), "breaker.growth", "inf"),
        (with(|b| b.jitter(1.0)), "breaker.jitter", "1"),
        (with(|b| b.jitter(-0.1)), "breaker.jitter", "-0.1"),
        (with(|b| b.slow_calls(1.5, ms(1))), "breaker.slow_calls.rate", "1.5"),
        (with(|b| b.slow_calls(0.5, Duration::ZERO)), "breaker.slow_calls.threshold", "0ns"),
        (with(|b| b.count_cancelled_after(Duration::ZERO)), "breaker.count_cancelled_after", "0ns"),
    ];
    for (builder, field, value) in cases {
        assert_eq!(problems(builder), [(field, value.to_owned())]);
    }
}

#[test]
fn cf03_all_that_is_wrong_is_named_at_once() {
    let wrong = builder().timeout(Duration::ZERO).breaker(Breaker::error_rate(1.5).min_calls(0).probes(0));
    let fields: Vec<_> = problems(wrong).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["timeout", "breaker.error_rate", "breaker.min_calls", "breaker.probes"]);
}

/// A span must fit the clock, which counts 584 years; a timeout that does not is none.
#[tokio::test(start_paused = true)]
async fn cf03_spans_beyond_the_clock_are_refused_and_such_a_timeout_saturates() {
    let with = |change: fn(Breaker) -> Breaker| builder().breaker(change(Breaker::default()));
    for (builder, field) in [
        (with(|b| b.open_for(Duration::MAX)), "breaker.open_for"),
        (with(|b| b.max_open(Duration::MAX)), "breaker.max_open"),
        (with(|b| b.window(Duration::MAX)), "breaker.window"),
        (with(|b| b.slow_calls(0.5, Duration::MAX)), "breaker.slow_calls.threshold"),
        (with(|b| b.count_cancelled_after(Duration::MAX)), "breaker.count_cancelled_after"),
        (builder().latency_window(Duration::MAX), "latency_window"),
        (builder().bulkhead(Bulkhead::new(1).queue(1, Duration::MAX)), "bulkhead.queue.wait"),
    ] {
        assert!(problems(builder).iter().any(|(named, _)| *named == field), "{field}");
    }

    let command = builder().timeout(Duration::MAX).build().expect("as long as it takes");
    let mut patient = Box::pin(command.run(hang));
    assert_eq!(poll(&mut patient), None);
    advance(secs(86_400 * 365)).await;
    assert_eq!(poll(&mut patient), None);
}

#[test]
fn cf03_a_name_must_be_fit_for_labels() {
    for name in ["", "a b", "prix€", "a\n", "a<b>", "a\"b", &"n".repeat(129)] {
        assert_eq!(Command::builder(name).build().expect_err("no name").field(), "name", "{name:?}");
        assert_eq!(builder().group(name).build().expect_err("no group").field(), "group", "{name:?}");
    }
    for name in ["a", "A-z_0.9:/-", &"n".repeat(128)] {
        assert_eq!(Command::builder(name).group(name).build().expect("a good name").name(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn cf04_what_is_not_set_has_its_default() {
    let command = builder().timeout(ms(30_000)).build().expect("a good configuration");
    let config = command.snapshot().config().clone();
    assert_eq!(config.timeout, Some(secs(30)));
    assert_eq!(config.bulkhead, Some(Bulkhead::new(100)));
    assert_eq!((config.max_concurrent_fallbacks, config.latency_window), (100, Some(secs(60))));
    let breaker = config.breaker.clone();
    assert_eq!((breaker.error_rate, breaker.min_calls, breaker.probes), (Some(0.5), 20, 1));
    assert_eq!(breaker.window, Window::Time { length: secs(10), buckets: 10 });
    assert_eq!((breaker.open_for, breaker.growth, breaker.max_open, breaker.jitter), (secs(5), 2.0, None, 0.2));
    assert_eq!((breaker.consecutive_failures, breaker.slow_calls), (None, None));
    assert_eq!((breaker.count_rejections, breaker.count_cancelled_after), (false, None));
    assert_eq!(config, Config::default().timeout(secs(30)), "and nothing else is different");
    assert_eq!((breaker.clone(), breaker), (Breaker::default(), Breaker::error_rate(0.5)));

    // They are in force: 100 at once, 20 calls, half of them, and a first wait of 5 s that varies by a fifth.
    let full: Vec<_> = (0..100).map(|_| command.admit().expect("there is room")).collect();
    assert_eq!(refused(&command).await.reason(), Reason::ConcurrencyLimit);
    full.into_iter().for_each(|permit| permit.ignore());
    play(&command, "SSSSSSSSSSFFFFFFFFF").await;
    assert_eq!(command.state(), State::Closed);
    assert_eq!(command.run(async || Err::<u32, Failure>(DOWN)).await, Err(Error::Failed(DOWN)));
    let wait = command.snapshot().retry_after().expect("it is open");
    assert!((secs(4)..=secs(6)).contains(&wait), "{wait:?}");
}
