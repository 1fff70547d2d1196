//! The rules, the alerts and the dashboard of `monitoring/` name what the crate exports, by metric, label and value: a
//! series that is renamed here and not there would leave an alert that never fires. And nothing is exported that no panel
//! shows.
//!
//! What the real Prometheus says of them is checked in `monitoring/tests`; this needs nothing but the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use fusebox::{AdaptiveLimit, Breaker, Command, DURATION_BUCKETS, Hedge, Keys, Ramp, RateLimit, Registry};
use metrics::with_local_recorder;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde_json::Value;

/// What a scrape has: the labels of each series by its name, and the values of each label.
#[derive(Default)]
struct Exported(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

/// What Prometheus puts on every series that it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];

/// Whose values are the user's.
const FREE: [&str; 4] = ["command", "group", "instance", "job"];

impl Exported {
    fn read(scrape: &str) -> Self {
        let mut exported = Self::default();
        for line in scrape.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, rest) = line.split_once('{').expect("each series has labels");
            let labels = exported.0.entry(name.to_owned()).or_default();
            let (pairs, _) = rest.rsplit_once('}').expect("labels end");
            for pair in pairs.split(',') {
                let (label, value) = pair.split_once('=').expect("a label and a value");
                labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
            }
        }
        exported
    }

    /// Every metric, a histogram by the name of its own.
    fn metrics(&self) -> BTreeSet<&str> {
        self.0.keys().map(|series| metric(series)).collect()
    }

    fn has_label(&self, label: &str) -> bool {
        SCRAPED.contains(&label) || self.0.values().any(|labels| labels.contains_key(label))
    }

    /// What is wrong with a text in which expressions stand.
    fn complaints(&self, text: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        for (name, matchers) in selectors(text) {
            let Some(labels) = self.0.get(name) else {
                complaints.push(format!("no series {name}"));
                continue;
            };
            for (label, operator, value) in matchers {
                match labels.get(label) {
                    None if SCRAPED.contains(&label) => {}
                    None => complaints.push(format!("{name} has no label {label}")),
                    Some(_) if FREE.contains(&label) => {}
                    Some(values) => {
                        let alternatives =
                            if operator.contains('~') { value.split('|').collect() } else { vec![value] };
                        let unknown = alternatives.into_iter().filter(|&value| !values.contains(value));
                        complaints.extend(unknown.map(|value| format!("{name} has no {label} {value}")));
                    }
                }
            }
        }
        let unknown = named_labels(text).into_iter().filter(|label| !self.has_label(label));
        complaints.extend(unknown.map(|label| format!("no label {label}")));
        complaints
    }
}

fn metric(series: &str) -> &str {
    let suffix = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| series.strip_suffix(suffix));
    suffix.unwrap_or(series)
}

/// Label, operator and value of one condition of a selector.
type Condition<'t> = (&'t str, &'t str, &'t str);

/// The names that stand in `text`, of series and of what rules record.
fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.match_indices("fusebox_").filter_map(move |(at, _)| {
        let start = text[..at].rfind(|c| !is_name(c)).map_or(0, |before| before + 1);
        let end = text[at..].find(|c| !is_name(c)).map_or(text.len(), |length| at + length);
        // One that holds the word twice is met twice.
        (!text[start..at].contains("fusebox_")).then(|| (end, &text[start..end]))
    })
}

/// The series that `text` selects, and by which conditions. What rules record has a colon in its name and is not among them.
fn selectors(text: &str) -> Vec<(&str, Vec<Condition<'_>>)> {
    let series = names(text).filter(|(_, name)| !name.contains(':'));
    let conditions = |end: usize| {
        let braced = text[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        braced.map_or(Vec::new(), |(inside, _)| inside.split(',').map(condition).collect())
    };
    series.map(|(end, name)| (name, conditions(end))).collect()
}

fn condition(text: &str) -> Condition<'_> {
    let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| text.contains(operator)).expect("an operator");
    let (label, value) = text.split_once(operator).expect("it is there");
    (label.trim(), operator, value.trim().trim_matches('"'))
}

/// The labels by which `text` groups and joins, and those that its templates print.
fn named_labels(text: &str) -> Vec<&str> {
    let lists = ["by (", "without (", "on (", "ignoring ("].into_iter().flat_map(|word| {
        text.match_indices(word)
            .filter_map(move |(at, _)| text[at + word.len()..].split_once(')'))
            .map(|(list, _)| list)
    });
    let printed = text.match_indices("{{").filter_map(|(at, _)| text[at + 2..].split_once("}}")).map(|(name, _)| name);
    let printed = printed.filter_map(|name| match name.trim().strip_prefix("$labels.") {
        Some(label) => Some(label),
        // In a rule the value, in a legend a label.
        None => Some(name.trim()).filter(|name| !name.starts_with('$')),
    });
    lists.flat_map(|list| list.split(',').map(str::trim)).chain(printed).collect()
}

async fn slow() -> Result<(), ()> {
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(())
}

/// A scrape of everything that is exported.
fn scrape() -> String {
    let durations = Matcher::Full("fusebox_call_duration_seconds".into());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(durations, &DURATION_BUCKETS).expect("buckets");
    let recorder = recorder.build_recorder();
    with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let registry = Registry::new();
            let builder = |name| Command::builder(name).group("group").registry(&registry);
            let command = builder("command")
                .adaptive_limit(AdaptiveLimit::vegas())
                .rate_limit(RateLimit::per_second(100))
                .breaker(Breaker::default().ramp(Ramp::stages([0.5])))
                .build()
                .expect("a good configuration");
            command.retry(slow).await.expect("it is up");
            command.hedge(slow).with(Hedge::after(Duration::from_millis(1))).await.expect("it is up");
            let keyed = builder("keyed").keyed::<u32>(Keys::up_to(1)).expect("a good configuration");
            keyed.get(&1).run(slow).await.expect("it is up");
            registry.publish();
        });
    });
    let handle = recorder.handle();
    handle.run_upkeep();
    handle.render()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is there")
}

/// The rules without their comments, which may name what they like.
fn rules() -> String {
    let rules = read("monitoring/prometheus/rules.yml");
    rules.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// The dashboard's texts in which series or labels stand, with the panel, annotation or variable they belong to.
fn dashboard() -> Vec<(String, String)> {
    fn collect(value: &Value, place: &str, texts: &mut Vec<(String, String)>) {
        const TEXTS: [&str; 5] = ["expr", "query", "legendFormat", "titleFormat", "textFormat"];
        let name = ["title", "name"].into_iter().find_map(|key| value[key].as_str());
        let place = name.unwrap_or(place);
        for (key, inner) in value.as_object().into_iter().flatten() {
            match inner.as_str() {
                Some(text) if TEXTS.contains(&key.as_str()) => texts.push((place.to_owned(), text.to_owned())),
                Some(labels) if key == "tagKeys" => texts.push((place.to_owned(), format!("by ({labels})"))),
                _ => collect(inner, place, texts),
            }
        }
        value.as_array().into_iter().flatten().for_each(|inner| collect(inner, place, texts));
    }
    let mut texts = Vec::new();
    let dashboard = serde_json::from_str(&read("monitoring/grafana/fusebox.json")).expect("it is JSON");
    collect(&dashboard, "", &mut texts);
    texts
}

/// The scrape of this test has everything: a metric that is added to the crate is added to it, and then to a panel.
#[test]
fn the_scrape_has_every_metric_of_the_crate() {
    let source = read("src/observe/meter.rs");
    let named: BTreeSet<_> = source
        .split('"')
        .filter(|text| text.starts_with("fusebox_") && text.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    let scrape = scrape();
    assert_eq!(Exported::read(&scrape).metrics(), named);
}

#[test]
fn rules_and_alerts_name_what_is_exported() {
    let (rules, scrape) = (rules(), scrape());
    assert!(selectors(&rules).len() > 10, "{rules}");
    assert_eq!(Exported::read(&scrape).complaints(&rules), Vec::<String>::new());
}

/// Each recorded series is recorded once and used by an alert, or by a rule that is.
#[test]
fn what_rules_record_is_what_they_use() {
    let rules = rules();
    let recorded: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let used: BTreeSet<_> = names(&rules).map(|(_, name)| name).filter(|name| name.contains(':')).collect();
    assert_eq!(recorded.iter().copied().collect::<BTreeSet<_>>(), used);
    for name in recorded {
        assert!(names(&rules).filter(|&(_, used)| used == name).count() > 1, "{name} is recorded for nobody");
    }
}

#[test]
fn panels_variables_and_annotations_name_what_is_exported() {
    let (scrape, texts) = (scrape(), dashboard());
    let exported = Exported::read(&scrape);
    assert!(texts.len() > 80, "{} texts", texts.len());
    for (place, text) in texts {
        assert_eq!(exported.complaints(&text), Vec::<String>::new(), "{place}: {text}");
    }
}

/// A query that forgets a variable shows what was not asked for.
#[test]
fn every_query_of_the_dashboard_minds_every_variable() {
    for (place, text) in dashboard() {
        for (name, conditions) in selectors(&text).into_iter().filter(|_| !text.starts_with("label_values(")) {
            for own in [("group", "=~", "$group"), ("command", "=~", "$command"), ("instance", "=~", "$instance")] {
                assert!(conditions.contains(&own), "{place}: {name} without {own:?}");
            }
        }
    }
}

#[test]
fn every_metric_is_in_a_panel() {
    let (scrape, texts) = (scrape(), dashboard());
    let shown: BTreeSet<_> =
        texts.iter().flat_map(|(_, text)| selectors(text)).map(|(series, _)| metric(series)).collect();
    assert_eq!(Exported::read(&scrape).metrics(), shown);
}

/// The checker on planted mistakes, and on what is right.
#[test]
fn the_checker_finds_what_is_planted() {
    let scrape = scrape();
    let exported = Exported::read(&scrape);
    for (text, expected) in [
        ("rate(fusebox_call_total[5m])", "no series fusebox_call_total"),
        ("rate(fusebox_call_duration_seconds[5m])", "no series fusebox_call_duration_seconds"),
        (r#"fusebox_state{status="open"}"#, "fusebox_state has no label status"),
        (r#"fusebox_state{state="opened"}"#, "fusebox_state has no state opened"),
        (r#"fusebox_state{group=~"$group",state=~"open|half-open"}"#, "fusebox_state has no state half-open"),
        (r#"fusebox_calls_total{outcome!="timeout"}"#, "fusebox_calls_total has no outcome timeout"),
        ("sum by (command, pod) (fusebox_in_flight)", "no label pod"),
        ("{{command}} {{host}}", "no label host"),
        ("{{ $labels.name }} has {{ $value | humanize }}", "no label name"),
    ] {
        assert_eq!(exported.complaints(text), [expected], "{text}");
    }
    for text in [
        r#"sum by (le, job) (rate(fusebox_call_duration_seconds_bucket{instance="a",outcome="success"}[5m]))"#,
        r#"sum without (state) (fusebox_state{state=~"open|half_open",command="any name"}) > instance:fusebox_x:ratio"#,
        "{{ $labels.command }} and {{command}}: {{ $value }}",
    ] {
        assert_eq!(exported.complaints(text), Vec::<String>::new(), "{text}");
    }
}
