//! Configurations made of anything: a good one makes a command that works, a bad one is refused, field by field.

use std::collections::BTreeSet;
use std::time::Duration;

use fusebox::{Breaker, Bulkhead, Command, Config, State, Window};

use super::input::{Input, in_paused_time};

/// What a good configuration is, said once more.
#[derive(Default)]
struct Expected(BTreeSet<&'static str>);

impl Expected {
    fn require(&mut self, holds: bool, field: &'static str) {
        if !holds {
            self.0.insert(field);
        }
    }

    fn span(&mut self, length: Duration, field: &'static str) {
        self.require(is_span(length), field);
    }
}

fn is_span(length: Duration) -> bool {
    length > Duration::ZERO && length <= Duration::from_nanos(u64::MAX)
}

fn is_rate(rate: f64) -> bool {
    rate > 0.0 && rate <= 1.0
}

fn length(input: &mut Input<'_>) -> Duration {
    let nano = Duration::from_nanos(1);
    let longest = Duration::from_nanos(u64::MAX);
    match input.below(10) {
        0 => Duration::ZERO,
        1 => nano,
        2 => longest,
        3 => longest + nano,
        4 => Duration::MAX,
        5 => Duration::from_nanos(input.number()),
        6 => Duration::new(input.number(), (input.number() % 1_000_000_000) as u32),
        7 => Duration::from_secs(1 + input.below(100) as u64),
        _ => Duration::from_millis(1 + input.number() % 100_000),
    }
}

fn real(input: &mut Input<'_>) -> f64 {
    let specials = [0.0, -0.0, 1.0, -1.0, 0.5, 0.999_999, 1.000_001, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, 1e300];
    match input.below(4) {
        0 => specials[input.below(specials.len())],
        1 => f64::from_bits(input.number()),
        2 => -(input.below(100) as f64) / 10.0,
        _ => (1 + input.below(100)) as f64 / 100.0,
    }
}

fn count(input: &mut Input<'_>) -> u32 {
    let specials = [0, 1, 2, 10_000, 10_001, 1_000_000, 1_000_001, u32::MAX];
    if input.flag() { specials[input.below(specials.len())] } else { 1 + input.below(200) as u32 }
}

fn size(input: &mut Input<'_>) -> usize {
    let specials = [0, 1, 65_535, 65_536, (1 << 24) - 2, (1 << 24) - 1, 1 << 24, usize::MAX >> 3, usize::MAX];
    if input.flag() { specials[input.below(specials.len())] } else { 1 + input.below(200) }
}

fn name(input: &mut Input<'_>) -> String {
    let length = [0, 1, 3, 128, 129][input.below(5)];
    let letters = ['a', 'Z', '0', '_', '.', ':', '/', '-', ' ', '"', '\n', '\u{2028}', 'é'];
    (0..length).map(|_| letters[input.below(letters.len()) * usize::from(input.below(8) == 0)]).collect()
}

fn breaker(input: &mut Input<'_>, expected: &mut Expected) -> Breaker {
    let mut breaker = Breaker::default();
    if input.flag() {
        breaker.error_rate = input.some(real);
        expected.require(breaker.error_rate.is_none_or(is_rate), "breaker.error_rate");
    }
    if input.flag() {
        breaker.min_calls = count(input);
        expected.require(breaker.min_calls > 0, "breaker.min_calls");
    }
    if input.flag() {
        breaker.confidence = input.some(real);
        let fits = breaker.confidence.is_none_or(|level| (0.5..=0.999_999).contains(&level));
        expected.require(fits, "breaker.confidence");
    }
    if input.flag() {
        breaker.window = window(input, expected);
    }
    if input.flag() {
        breaker.open_for = length(input);
        breaker.max_open = input.some(length);
        expected.span(breaker.open_for, "breaker.open_for");
        if let Some(most) = breaker.max_open {
            expected.span(most, "breaker.max_open");
            let both = is_span(most) && is_span(breaker.open_for);
            expected.require(!both || most >= breaker.open_for, "breaker.max_open");
        }
    }
    if input.flag() {
        breaker.growth = real(input);
        expected.require(breaker.growth >= 1.0 && breaker.growth < f64::INFINITY, "breaker.growth");
    }
    if input.flag() {
        breaker.jitter = real(input);
        expected.require(breaker.jitter >= 0.0 && breaker.jitter < 1.0, "breaker.jitter");
    }
    if input.flag() {
        breaker.probes = count(input);
        expected.require(breaker.probes > 0, "breaker.probes");
    }
    if input.flag() {
        breaker.consecutive_failures = input.some(count);
        expected.require(breaker.consecutive_failures != Some(0), "breaker.consecutive_failures");
    }
    if input.flag() {
        let (rate, threshold) = (real(input), length(input));
        breaker.slow_calls = Some((rate, threshold));
        expected.require(is_rate(rate), "breaker.slow_calls.rate");
        expected.span(threshold, "breaker.slow_calls.threshold");
    }
    if input.flag() {
        breaker.count_cancelled_after = input.some(length);
        breaker
            .count_cancelled_after
            .into_iter()
            .for_each(|after| expected.span(after, "breaker.count_cancelled_after"));
    }
    breaker
}

fn window(input: &mut Input<'_>, expected: &mut Expected) -> Window {
    if input.flag() {
        let calls = count(input);
        expected.require((1..=1_000_000).contains(&calls), "breaker.last_calls");
        return Window::Calls(calls);
    }
    let (length, buckets) = (length(input), count(input));
    expected.require((1..=10_000).contains(&buckets), "breaker.buckets");
    expected.span(length, "breaker.window");
    let step = Duration::from_millis(1).as_nanos() * u128::from(buckets.max(1));
    expected.require(!is_span(length) || length.as_nanos() % step == 0, "breaker.window");
    Window::Time { length, buckets }
}

fn config(input: &mut Input<'_>, expected: &mut Expected) -> Config {
    let mut config = Config::default();
    if input.flag() {
        config.timeout = input.some(length);
        expected.require(config.timeout != Some(Duration::ZERO), "timeout");
    }
    if input.flag() {
        config.bulkhead = input.some(|input| bulkhead(input, expected));
    }
    config.breaker = breaker(input, expected);
    if input.flag() {
        config.max_concurrent_fallbacks = size(input);
        expected.require(is_limit(config.max_concurrent_fallbacks), "max_concurrent_fallbacks");
    }
    if input.flag() {
        config.latency_window = input.some(length);
        config.latency_window.into_iter().for_each(|length| expected.span(length, "latency_window"));
    }
    config
}

fn is_limit(limit: usize) -> bool {
    (1..=(1 << 24) - 2).contains(&limit)
}

fn bulkhead(input: &mut Input<'_>, expected: &mut Expected) -> Bulkhead {
    let limit = size(input);
    let Some((line, wait)) = input.some(|input| (size(input), length(input))) else {
        expected.require(is_limit(limit), "max_concurrent");
        return Bulkhead::new(limit);
    };
    expected.require(is_limit(limit), "bulkhead.limit");
    expected.require((1..=65_535).contains(&line), "bulkhead.queue.length");
    expected.span(wait, "bulkhead.queue.wait");
    Bulkhead::new(limit).queue(line, wait)
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut expected = Expected::default();
    // One name for all that have a good one: names are kept for the life of the process.
    let name = if input.below(4) == 0 { name(&mut input) } else { "fuzz.config".into() };
    let inert = |letter: char| letter.is_ascii_alphanumeric() || "_.:/-".contains(letter);
    expected.require((1..=128).contains(&name.len()) && name.chars().all(inert), "name");
    let config = config(&mut input, &mut expected);
    in_paused_time(async {
        match Command::builder(&name).config(config.clone()).build() {
            Ok(command) => {
                assert!(expected.0.is_empty(), "{:?} were let pass in {config:?}", expected.0);
                works(&command);
                replaces_the_default(&config);
            }
            Err(error) => {
                let named: BTreeSet<_> = error.problems().map(|problem| problem.field()).collect();
                assert_eq!(named, expected.0, "{error} in {config:?}");
                assert!(error.problems().all(|problem| !problem.value().is_empty() && !problem.allowed().is_empty()));
                assert!(error.problems().all(|problem| problem.value().len() < 1_000));
            }
        }
    });
}

fn works(command: &Command) {
    command.admit().expect("a new command has room").succeed();
    let snapshot = command.snapshot();
    assert_eq!((snapshot.state(), snapshot.lifetime().total(), snapshot.in_flight()), (State::Closed, 1, 0));
    command.run_sync(|| Err::<(), _>("down")).expect_err("it fails");
    assert_eq!(command.snapshot().lifetime().errors(), 1);
    command.reset();
    command.admit().expect("it was reset").succeed();
}

/// What makes a command can be given to one that runs, but for what is fixed when it is built.
fn replaces_the_default(config: &Config) {
    let command = Command::builder("fuzz.config").build().expect("the defaults are good");
    let latency_window = command.snapshot().config().latency_window;
    let mut next = config.clone();
    next.latency_window = latency_window;
    command.reconfigure(|_| next.clone()).expect("it is good");
    assert_eq!(command.snapshot().config(), &next);
    command.admit().expect("it is closed").succeed();
}
