//! Metrics as a scrape shows them: names, labels and values of every series, through the exporter that people use.
//!
//! `OBSERVABILITY.md`, section 1, is the list. Every expected value follows from the script of the test, which runs in
//! paused time, so that durations are exact too.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, pending, ready};
use std::time::Duration;

use fusebox::{
    Breaker, Budget, Bulkhead, Command, DURATION_BUCKETS, Error, Hedge, Outcome, Ramp, Registry, Retry, Verdict,
};
use futures::FutureExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("fusebox_call_duration_seconds".into()), &DURATION_BUCKETS)
        .expect("there are buckets")
        .build_recorder()
}

/// Runs a story in paused time on this thread, which is where a local recorder is installed.
fn play(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(story);
}

/// One scrape: the value of every series, by its full name.
struct Scrape {
    text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(recorder: &PrometheusRecorder) -> Self {
        let handle = recorder.handle();
        handle.run_upkeep();
        let text = handle.render();
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let value = value.parse().expect("a number");
            assert_eq!(series.insert(name.to_owned(), value), None, "{name} twice");
        }
        Self { text, series }
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.series.get(name).copied()
    }

    /// Every series of this metric, by the labels that are not the command's own.
    fn all(&self, metric: &str) -> Vec<(&str, f64)> {
        let own = r#"command="shop.price",group="shop""#;
        self.series
            .iter()
            .filter_map(|(name, &value)| {
                let labels = name.strip_prefix(metric)?.strip_prefix('{')?.strip_suffix('}')?;
                let rest = labels.strip_prefix(own).expect("the labels of the command come first");
                Some((rest.strip_prefix(',').unwrap_or(rest), value))
            })
            .collect()
    }

    /// The transitions that there were.
    fn changes(&self) -> Vec<(&str, f64)> {
        let mut changes = self.all("fusebox_transitions_total");
        changes.retain(|(_, value)| *value > 0.0);
        changes
    }

    /// Name and type of every metric.
    fn types(&self) -> Vec<(&str, &str)> {
        let mut types: Vec<_> = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.split_once(' ').expect("a name and a type"))
            .collect();
        types.sort_unstable();
        types
    }
}

fn shop(breaker: Breaker) -> Command {
    Command::builder("shop.price")
        .group("shop")
        .timeout(ms(100))
        .bulkhead(Bulkhead::new(2))
        .max_concurrent_fallbacks(1)
        .breaker(breaker)
        .registry(&Registry::new())
        .build()
        .expect("a good configuration")
}

type Answer = Result<u32, &'static str>;

async fn after(wait: u64, answer: Answer) -> Answer {
    tokio::time::sleep(ms(wait)).await;
    answer
}

async fn hang() -> Answer {
    pending().await
}

/// The whole story: every outcome, every fallback, a trip, a late result, a probe, an operator, two reloads.
async fn story(command: &Command, scrape: impl Fn() -> Scrape) {
    // Success after 0, 3 and 30 ms; failure after 0 and 60 ms; a timeout after 100 ms.
    command.run(|| ready(Answer::Ok(1))).await.expect("it is up");
    command.run(|| after(3, Ok(1))).await.expect("it is up");
    command.run(|| after(30, Ok(1))).await.expect("it is up");
    command.run(|| ready(Answer::Err("down"))).await.expect_err("it is down");
    command.run(|| after(60, Err("down"))).await.expect_err("it is down");
    command.run(hang).await.expect_err("it hangs");
    // A panic; an ignored result, twice; a call that is dropped.
    let panic = command.run(|| -> std::future::Ready<Answer> { std::panic::resume_unwind(Box::new(())) });
    assert!(std::panic::AssertUnwindSafe(panic).catch_unwind().await.is_err());
    for answer in [Ok(1), Err("not found")] {
        let _ = command.run(|| ready(answer)).classify(|_| Verdict::Ignored).await;
    }
    assert!(command.run(hang).now_or_never().is_none());
    // A full bulkhead, three times: a fallback that helps, one that declines, and one for which there is no room.
    let (first, second) = (command.admit().expect("one"), command.admit().expect("two"));
    command.run(hang).fallback(|_| ready(Ok(0))).await.expect("the fallback's");
    command.run(hang).fallback(|cause| ready(Err(cause))).await.expect_err("it declined");
    let mut slow = Box::pin(command.run(hang).fallback(|_| pending()));
    assert!(slow.as_mut().now_or_never().is_none());
    command.run(hang).fallback(|_| ready(Ok(0))).await.expect_err("one fallback runs already");
    drop(slow);
    // Errors: 2 failures, a timeout, a panic, and the first permit: 5 of 8 are the rate.
    command.publish();
    let before = scrape();
    assert_eq!(before.all("fusebox_window_calls"), [("", 7.0)]);
    assert_eq!(before.all("fusebox_window_error_ratio"), [("", 4.0 / 7.0)]);
    assert_eq!(before.all("fusebox_in_flight"), [("", 2.0)]);
    first.fail();
    // The second permit comes late. Three calls are refused by the circuit.
    second.succeed();
    for _ in 0..3 {
        command.run(hang).await.expect_err("the circuit is open");
    }
    tokio::time::advance(ms(5_000)).await;
    command.run(|| ready(Answer::Ok(1))).await.expect("the probe passes");
    command.force_open("maintenance", None);
    command.run(hang).await.expect_err("it is forced open");
    command.clear_override();
    command.reconfigure(|c| c.timeout(ms(250))).expect("a good configuration");
    command.reconfigure(|c| c.max_concurrent(3)).expect("a good configuration");
    command.reconfigure(|c| c.max_concurrent(0)).expect_err("a bad one");
}

fn five_of_eight() -> Breaker {
    Breaker::error_rate(0.625).min_calls(8).open_for(ms(5_000)).jitter(0.0)
}

/// R1, O3: every series of the list, with its labels and the value that the story gave it, and no other.
#[test]
fn a_scrape_shows_every_series_by_name_label_and_value() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        play(async {
            let command = shop(five_of_eight());
            story(&command, || Scrape::of(&recorder)).await;
            command.publish();
            let total = command.snapshot().lifetime().calls() as f64;
            let scrape = Scrape::of(&recorder);

            assert_eq!(
                scrape.all("fusebox_calls_total"),
                [
                    (r#"outcome="cancelled""#, 1.0),
                    (r#"outcome="failure""#, 3.0),
                    (r#"outcome="ignored""#, 2.0),
                    (r#"outcome="panicked""#, 1.0),
                    (r#"outcome="rate_limited""#, 0.0),
                    (r#"outcome="rejected""#, 4.0),
                    (r#"outcome="short_circuited""#, 4.0),
                    (r#"outcome="success""#, 5.0),
                    (r#"outcome="timed_out""#, 1.0),
                ]
            );
            let sum: f64 = scrape.all("fusebox_calls_total").iter().map(|(_, value)| value).sum();
            assert_eq!((sum, total), (21.0, 21.0), "every call ends in exactly one outcome");
            assert_eq!(
                scrape.all("fusebox_fallbacks_total"),
                [(r#"outcome="failure""#, 1.0), (r#"outcome="rejected""#, 1.0), (r#"outcome="success""#, 1.0)]
            );
            assert_eq!(
                scrape.all("fusebox_state"),
                [
                    (r#"state="closed""#, 1.0),
                    (r#"state="forced_closed""#, 0.0),
                    (r#"state="forced_open""#, 0.0),
                    (r#"state="half_open""#, 0.0),
                    (r#"state="open""#, 0.0),
                ]
            );
            assert_eq!(
                scrape.all("fusebox_transitions_total"),
                [
                    (r#"from="closed",to="forced_open",cause="forced""#, 1.0),
                    (r#"from="closed",to="open",cause="consecutive_failures""#, 0.0),
                    (r#"from="closed",to="open",cause="error_rate""#, 1.0),
                    (r#"from="closed",to="open",cause="open_for""#, 0.0),
                    (r#"from="closed",to="open",cause="slow_calls""#, 0.0),
                    (r#"from="forced_open",to="closed",cause="cleared""#, 1.0),
                    (r#"from="half_open",to="closed",cause="probes_passed""#, 1.0),
                    (r#"from="half_open",to="closed",cause="ramp_passed""#, 0.0),
                    (r#"from="half_open",to="open",cause="open_for""#, 0.0),
                    (r#"from="half_open",to="open",cause="probes_failed""#, 0.0),
                    (r#"from="half_open",to="open",cause="ramp_failed""#, 0.0),
                    (r#"from="open",to="half_open",cause="wait_over""#, 1.0),
                ]
            );
            assert_eq!(scrape.all("fusebox_late_outcomes_total"), [("", 1.0)]);
            assert_eq!(
                scrape.all("fusebox_config_reloads_total"),
                [(r#"outcome="applied""#, 2.0), (r#"outcome="rejected""#, 1.0)]
            );
            for (gauge, value) in [
                ("fusebox_in_flight", 0.0),
                ("fusebox_concurrency_limit", 3.0),
                ("fusebox_queue_length", 0.0),
                ("fusebox_window_calls", 0.0),
                ("fusebox_window_error_ratio", 0.0),
                ("fusebox_config_error_rate", 0.625),
                ("fusebox_config_min_calls", 8.0),
                ("fusebox_config_open_seconds", 5.0),
                ("fusebox_config_timeout_seconds", 0.25),
            ] {
                assert_eq!(scrape.all(gauge), [("", value)], "{gauge}");
            }
            assert_eq!(
                scrape.types(),
                [
                    ("fusebox_call_duration_seconds", "histogram"),
                    ("fusebox_calls_total", "counter"),
                    ("fusebox_concurrency_limit", "gauge"),
                    ("fusebox_config_error_rate", "gauge"),
                    ("fusebox_config_min_calls", "gauge"),
                    ("fusebox_config_open_seconds", "gauge"),
                    ("fusebox_config_reloads_total", "counter"),
                    ("fusebox_config_timeout_seconds", "gauge"),
                    ("fusebox_fallbacks_total", "counter"),
                    ("fusebox_in_flight", "gauge"),
                    ("fusebox_late_outcomes_total", "counter"),
                    ("fusebox_queue_length", "gauge"),
                    ("fusebox_state", "gauge"),
                    ("fusebox_transitions_total", "counter"),
                    ("fusebox_window_calls", "gauge"),
                    ("fusebox_window_error_ratio", "gauge"),
                ]
            );
            for (name, _) in scrape.types() {
                assert!(scrape.text.contains(&format!("# HELP {name} ")), "{name} is described");
            }
        });
    });
}

/// The buckets of `DURATION_BUCKETS`, cumulative, and for calls that ran only.
#[test]
fn durations_come_out_in_buckets() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        play(async {
            story(&shop(five_of_eight()), || Scrape::of(&recorder)).await;
        });
    });
    let scrape = Scrape::of(&recorder);
    // By outcome: count, sum, and in milliseconds what each call took. A permit is held for the 100 ms of the timeout
    // and no longer in this story: both were admitted after it.
    for (outcome, took) in [("success", &[0, 3, 30, 0, 0][..]), ("failure", &[0, 60, 0][..]), ("timed_out", &[100][..])]
    {
        let series = |suffix: &str, more: &str| {
            let labels = format!(r#"command="shop.price",group="shop",outcome="{outcome}"{more}"#);
            scrape.get(&format!("fusebox_call_duration_seconds_{suffix}{{{labels}}}"))
        };
        assert_eq!(series("count", ""), Some(took.len() as f64), "{outcome}");
        let sum = took.iter().sum::<u64>() as f64 / 1_000.0;
        assert!(series("sum", "").is_some_and(|seen| (seen - sum).abs() < 1e-9), "{outcome}: {:?}", series("sum", ""));
        for bound in DURATION_BUCKETS {
            let within = took.iter().filter(|&&took| took as f64 / 1_000.0 <= bound).count() as f64;
            assert_eq!(series("bucket", &format!(r#",le="{bound}""#)), Some(within), "{outcome}, up to {bound} s");
        }
        assert_eq!(series("bucket", r#",le="+Inf""#), Some(took.len() as f64));
    }
    let outcomes = scrape.series.keys().filter(|name| name.starts_with("fusebox_call_duration_seconds_count")).count();
    assert_eq!(outcomes, 3, "none for calls that did not run to an end");
}

/// After the first call every outcome is there, at 0: a rate over a series that appears at 1 misses the first one.
#[test]
fn every_series_exists_at_zero_from_the_first_call() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        let command = shop(Breaker::default());
        command.run_sync(|| Ok::<_, ()>(())).expect("it is up");
        let scrape = Scrape::of(&recorder);
        for outcome in Outcome::ALL {
            let name = format!(r#"fusebox_calls_total{{command="shop.price",group="shop",outcome="{outcome}"}}"#);
            assert_eq!(scrape.get(&name), Some(f64::from(u8::from(outcome == Outcome::Success))), "{name}");
        }
        let zeros: Vec<_> = scrape.all("fusebox_fallbacks_total").into_iter().map(|(_, value)| value).collect();
        assert_eq!(zeros, [0.0; 3]);
        assert_eq!(scrape.all("fusebox_late_outcomes_total"), [("", 0.0)]);
        assert_eq!(
            scrape.all("fusebox_config_reloads_total"),
            [(r#"outcome="applied""#, 0.0), (r#"outcome="rejected""#, 0.0)]
        );
        let changes = scrape.all("fusebox_transitions_total");
        assert!(changes.len() == 10 && changes.iter().all(|(_, value)| *value == 0.0), "{changes:?}");
        assert_eq!(scrape.all("fusebox_state").iter().map(|(_, value)| value).sum::<f64>(), 1.0);
    });
}

/// No group, no label of it.
#[test]
fn a_command_without_a_group_has_no_group_label() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        let command = Command::builder("alone").build().expect("a good name");
        command.run_sync(|| Ok::<_, ()>(())).expect("it is up");
    });
    let scrape = Scrape::of(&recorder);
    assert_eq!(scrape.get(r#"fusebox_calls_total{command="alone",outcome="success"}"#), Some(1.0));
    assert!(!scrape.text.contains("group="));
}

fn calls(recorder: &PrometheusRecorder, outcome: &str) -> Option<f64> {
    Scrape::of(recorder)
        .get(&format!(r#"fusebox_calls_total{{command="shop.price",group="shop",outcome="{outcome}"}}"#))
}

/// A command is used before anybody records; a recorder that comes later gets all that comes after it, and the state
/// that the circuit is in.
#[test]
fn a_recorder_that_comes_late_gets_everything_after_it() {
    let command = shop(Breaker::error_rate(0.5).min_calls(5).open_for(Duration::from_secs(3_600)));
    for _ in 0..4 {
        command.run_sync(|| Err::<(), _>(())).expect_err("it is down");
    }
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        assert_eq!(Scrape::of(&recorder).series, BTreeMap::new());
        command.run_sync(|| Err::<(), _>(())).expect_err("it is down");
        command.run_sync(|| Ok::<_, ()>(())).expect_err("it is open");
    });
    assert_eq!((calls(&recorder, "failure"), calls(&recorder, "short_circuited")), (Some(1.0), Some(1.0)));
    let scrape = Scrape::of(&recorder);
    assert_eq!(scrape.changes(), [(r#"from="closed",to="open",cause="error_rate""#, 1.0)]);

    // Another one, after the opening: it sees no transition, and the state all the same.
    let later = self::recorder();
    with_local_recorder(&later, || command.run_sync(|| Ok::<_, ()>(())).expect_err("it is open"));
    let scrape = Scrape::of(&later);
    assert_eq!(scrape.changes(), []);
    let open: Vec<_> = scrape.all("fusebox_state").into_iter().filter(|&(_, value)| value == 1.0).collect();
    assert_eq!(open, [(r#"state="open""#, 1.0)]);
    assert_eq!(calls(&recorder, "short_circuited"), Some(1.0), "the first one gets no more");
}

/// Three recorders in turns: each gets its own calls and no others.
#[test]
fn recorders_can_take_turns() {
    let recorders = [recorder(), recorder(), recorder()];
    let command = shop(Breaker::disabled());
    let mut expected = [0.0; 3];
    for turn in 0..50_usize {
        let which = turn * turn % 7 % 3;
        with_local_recorder(&recorders[which], || command.run_sync(|| Ok::<_, ()>(())).expect("it is up"));
        expected[which] += 1.0;
        // And one that nobody records.
        command.run_sync(|| Ok::<_, ()>(())).expect("it is up");
    }
    assert!(expected.iter().all(|&calls| calls > 0.0));
    assert_eq!(recorders.each_ref().map(|recorder| calls(recorder, "success").unwrap_or_default()), expected);
    assert_eq!(command.snapshot().lifetime().of(Outcome::Success), 100);
}

/// Panics in whatever it is asked, from the given request on.
struct Panicky {
    left: Cell<u32>,
}

impl Panicky {
    fn step(&self) {
        match self.left.get() {
            0 => std::panic::resume_unwind(Box::new("recorder")),
            left => self.left.set(left - 1),
        }
    }
}

struct PanickyHandle;

impl metrics::CounterFn for PanickyHandle {
    fn increment(&self, _: u64) {
        std::panic::resume_unwind(Box::new("counter"));
    }
    fn absolute(&self, _: u64) {}
}

impl metrics::HistogramFn for PanickyHandle {
    fn record(&self, _: f64) {
        std::panic::resume_unwind(Box::new("histogram"));
    }
}

impl metrics::GaugeFn for PanickyHandle {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, _: f64) {
        std::panic::resume_unwind(Box::new("gauge"));
    }
}

impl Recorder for Panicky {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.step();
    }
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.step();
    }
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.step();
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.step();
        Counter::from_arc(std::sync::Arc::new(PanickyHandle))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.step();
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.step();
        Histogram::from_arc(std::sync::Arc::new(PanickyHandle))
    }
}

/// X1: wherever a recorder panics, the call ends as it would have, is counted, and gives everything back; and a sound
/// recorder afterwards gets its figures.
#[test]
fn a_recorder_that_panics_costs_no_call() {
    // The first uses of a recorder take 65 requests or so: let it panic at each of them, and in the handles after.
    for sound_requests in (0..80).chain([u32::MAX]) {
        let panicky = Panicky { left: Cell::new(sound_requests) };
        let command = shop(five_of_eight());
        with_local_recorder(&panicky, || {
            play(async {
                assert_eq!(command.run(|| ready(Answer::Ok(1))).await, Ok(1));
                assert_eq!(command.run(|| after(5, Err("down"))).await, Err(Error::Failed("down")));
                assert!(matches!(command.run(hang).await, Err(Error::TimedOut(_))));
                assert!(command.run(hang).now_or_never().is_none());
                assert_eq!(command.run(|| ready(Err("down"))).fallback(|_| ready(Ok(7))).await, Ok(7));
                command.force_open("test", None);
                assert!(matches!(command.run(hang).await, Err(Error::Rejected(_))));
                command.clear_override();
                command.reconfigure(|c| c.max_concurrent(1)).expect("a good configuration");
                command.publish();
            });
        });
        let lifetime = command.snapshot().lifetime();
        let expected = [("success", 1), ("failure", 2), ("timed_out", 1), ("cancelled", 1), ("short_circuited", 1)];
        assert_eq!(expected.map(|(outcome, _)| (outcome, lifetime.get(outcome))), expected, "after {sound_requests}");
        assert_eq!((lifetime.calls(), command.snapshot().in_flight()), (6, 0));
        assert_eq!(command.snapshot().fallbacks().in_flight, 0);
        let sound = recorder();
        with_local_recorder(&sound, || command.run_sync(|| Ok::<_, ()>(())).expect("it is up"));
        assert_eq!(calls(&sound, "success"), Some(1.0));
    }
}

/// Gauges are samples: `publish` takes them, of one command or of all in a registry.
#[test]
fn sampled_gauges_are_up_to_date_after_publish() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        play(async {
            let registry = Registry::new();
            let command = Command::builder("shop.price")
                .group("shop")
                .bulkhead(Bulkhead::new(2).queue(5, ms(100)))
                .no_timeout()
                .registry(&registry)
                .build()
                .expect("a good configuration");
            let held = [command.admit().expect("one"), command.admit().expect("two")];
            let mut waiting = [0; 3].map(|_| Box::pin(command.run(hang)));
            for call in &mut waiting {
                assert!(call.as_mut().now_or_never().is_none());
            }
            let seen = || {
                let scrape = Scrape::of(&recorder);
                ["fusebox_in_flight", "fusebox_queue_length", "fusebox_concurrency_limit"]
                    .map(|gauge| scrape.all(gauge).first().map(|&(_, value)| value))
            };
            assert_eq!(seen(), [None; 3], "nobody has asked for a sample yet");
            registry.publish();
            assert_eq!(seen(), [Some(2.0), Some(3.0), Some(2.0)]);
            drop((held, waiting));
            assert_eq!(seen(), [Some(2.0), Some(3.0), Some(2.0)], "a sample stands until the next");
            command.publish();
            assert_eq!(seen(), [Some(0.0), Some(0.0), Some(2.0)]);
            let scrape = Scrape::of(&recorder);
            assert_eq!(scrape.all("fusebox_config_timeout_seconds"), [], "there is no timeout to draw");
        });
    });
}

/// The state of a circuit whose wait is over, as of an operator's hold that has run out, is a sample too.
#[test]
fn the_state_is_one_of_five_at_every_step() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        play(async {
            let command = shop(Breaker::error_rate(1.0).min_calls(1).open_for(ms(100)).jitter(0.0));
            let check = |expected: &str| {
                assert_eq!(command.state().as_str(), expected);
                let scrape = Scrape::of(&recorder);
                let states = scrape.all("fusebox_state");
                let on: Vec<_> = states.iter().filter(|(_, value)| *value == 1.0).map(|(label, _)| *label).collect();
                assert_eq!(on, [format!(r#"state="{expected}""#)]);
                assert_eq!(states.iter().filter(|(_, value)| *value == 0.0).count(), 4);
            };
            command.run_sync(|| Ok::<_, ()>(())).expect("it is up");
            check("closed");
            command.run(|| ready(Answer::Err("down"))).await.expect_err("it is down");
            command.run_sync(|| Err::<(), _>(())).ok();
            command.force_open("test", None);
            check("forced_open");
            command.force_closed("test", None);
            check("forced_open");
            command.clear_override();
            command.reset();
            check("closed");
            command.force_closed("test", Some(ms(50)));
            check("forced_closed");
            tokio::time::advance(ms(50)).await;
            command.publish();
            check("closed");
            command.run_sync(|| Ok::<_, ()>(())).expect("it is up");
            check("closed");
            command.reset();
            command.run_sync(|| Err::<(), _>(())).expect_err("it is down");
            check("open");
            tokio::time::advance(ms(100)).await;
            command.publish();
            check("half_open");
            command.run_sync(|| Ok::<_, ()>(())).expect("the probe passes");
            check("closed");
        });
    });
}

/// There is nothing to draw where there is no limit and no rule.
#[test]
fn what_is_not_configured_has_no_series() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        let command =
            Command::builder("shop.price").group("shop").unlimited().no_timeout().breaker(Breaker::disabled());
        let command = command.build().expect("a good configuration");
        command.run_sync(|| Ok::<_, ()>(())).expect("it is up");
        command.publish();
    });
    let scrape = Scrape::of(&recorder);
    for gauge in ["fusebox_concurrency_limit", "fusebox_config_timeout_seconds", "fusebox_config_error_rate"] {
        assert_eq!(scrape.all(gauge), [], "{gauge}");
    }
    assert_eq!(scrape.all("fusebox_in_flight"), [("", 0.0)]);
    assert_eq!(scrape.all("fusebox_window_calls"), [("", 1.0)]);
}

/// A limit that is lifted live must not stand in the scrape for ever.
#[test]
fn a_limit_that_is_lifted_leaves_no_stale_series() {
    let recorder = recorder();
    with_local_recorder(&recorder, || {
        let command = shop(Breaker::default());
        command.publish();
        assert_eq!(Scrape::of(&recorder).all("fusebox_concurrency_limit"), [("", 2.0)]);
        command.reconfigure(fusebox::Config::unlimited).expect("a good configuration");
        command.publish();
        assert_ne!(Scrape::of(&recorder).all("fusebox_concurrency_limit"), [("", 2.0)]);
    });
}

/// A ramp is followed by the share that it admits: none while open and probing, then its stages, then all.
#[test]
fn a_ramp_is_followed_by_the_share_that_it_admits() {
    let recorder = recorder();
    play(async {
        let ramp = Ramp::stages([0.25, 0.5]).each(ms(1_000)).min_calls(1);
        let breaker = Breaker::disabled().consecutive_failures(1).open_for(ms(5_000)).jitter(0.0).ramp(ramp);
        let command = with_local_recorder(&recorder, || shop(breaker));
        let share = || {
            with_local_recorder(&recorder, || command.publish());
            Scrape::of(&recorder).all("fusebox_ramp_share").first().map(|&(_, share)| share)
        };
        // Before the stage that it enters last, with as many calls as let its share through once.
        let offer = |calls| {
            for _ in 0..calls {
                let _ = command.run_sync(|| Ok::<_, ()>(()));
            }
        };
        assert_eq!(share(), Some(1.0));
        command.run_sync(|| Err::<(), _>(())).expect_err("it is down");
        assert_eq!(share(), Some(0.0));
        tokio::time::advance(ms(5_000)).await;
        assert_eq!(share(), Some(0.0), "the wait is over, and nothing has been admitted");
        let mut shares = Vec::new();
        for _ in 0..3 {
            offer(4);
            shares.extend(share());
            tokio::time::advance(ms(1_000)).await;
        }
        offer(4);
        shares.extend(share());
        assert_eq!(shares, [0.25, 0.5, 1.0, 1.0]);
        command.reconfigure(|config| config.breaker(Breaker::disabled())).expect("a good configuration");
        assert_ne!(share(), Some(1.0), "a ramp that is taken away leaves no stale series");
    });
    let plain = self::recorder();
    with_local_recorder(&plain, || shop(Breaker::default()).publish());
    assert_eq!(Scrape::of(&plain).all("fusebox_ramp_share"), []);
}

/// Attempts and hedges have series from the first call on that may have several, and not before.
#[test]
fn attempts_and_hedges_are_counted_once_there_are_any() {
    let recorder = recorder();
    play(async {
        with_local_recorder(&recorder, || {
            let command =
                Command::builder("shop.price").group("shop").budget(Budget::share(0.5).floor(0.0)).build().unwrap();
            command.run(|| ready(Answer::Ok(1))).now_or_never().unwrap().unwrap();
            command.publish();
            let before = Scrape::of(&recorder);
            for metric in ["fusebox_attempts_total", "fusebox_hedges_total", "fusebox_attempts_per_call"] {
                assert_eq!(before.all(metric), [], "{metric}");
            }
            // Two calls pay for one retry, nobody for the third attempt, and the next three for a hedge.
            let succeed = || command.retry(|| ready(Answer::Ok(1))).now_or_never().unwrap().unwrap();
            succeed();
            let mut call = Box::pin(command.retry(|| ready(Answer::Err("down"))).with(Retry::delays([ms(0), ms(0)])));
            while call.as_mut().now_or_never().is_none() {}
            assert_eq!((succeed(), succeed()), (1, 1));
            let mut call = Box::pin(command.hedge(hang).with(Hedge::after(ms(0))).retry(Retry::default()));
            assert!(call.as_mut().now_or_never().is_none());
            drop(call);
            command.publish();
            let after = Scrape::of(&recorder);
            let attempts = [
                (r#"outcome="budget_denied""#, 1.0),
                (r#"outcome="exhausted""#, 0.0),
                (r#"outcome="retried""#, 1.0),
                (r#"outcome="success""#, 3.0),
            ];
            assert_eq!(after.all("fusebox_attempts_total"), attempts);
            assert_eq!(after.all("fusebox_attempts_per_call"), [("", 7.0 / 5.0)]);
            let hedges = [(r#"outcome="lost""#, 1.0), (r#"outcome="won""#, 0.0)];
            assert_eq!(after.all("fusebox_hedges_total"), hedges);
        });
    });
}
