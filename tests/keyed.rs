//! Many circuits from one template: each by itself, never more than there may be, and none lost that says something.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use fusebox::{Breaker, Builder, Command, Configs, Event, Guard, Keyed, KeyedCommand, Keys, Reason, Registry, State};
use metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use support::{DOWN, advance, drain, in_a_row, ms, play, poll, secs};

fn builder() -> Builder {
    Command::builder("hosts").breaker(in_a_row(1)).registry(&Registry::new())
}

fn up_to(limit: usize) -> Keyed<u32> {
    builder().keyed(Keys::up_to(limit)).expect("a good configuration")
}

fn fail(command: &Command) {
    command.run_sync(|| Err::<(), _>(DOWN)).expect_err("it is scripted");
}

fn succeed(command: &Command) {
    command.run_sync(|| Ok::<_, &str>(())).expect("it is admitted");
}

fn calls(command: &Command) -> u64 {
    command.snapshot().lifetime().calls()
}

// ---- each by itself ----

#[tokio::test(start_paused = true)]
async fn s13_each_key_has_a_circuit_of_its_own_and_events_say_which() {
    let hosts: Keyed<String> = builder().keyed(Keys::up_to(8)).expect("a good configuration");
    let mut events = hosts.subscribe();
    play(&hosts.get("a.example"), "F").await;
    assert_eq!(hosts.get("a.example").admit().expect_err("it is open").reason(), Reason::CircuitOpen);
    play(&hosts.get("b.example"), "SSS").await;
    let answer = async { Ok::<_, &str>(7) }.guarded_by(&hosts.get(&"b.example".to_owned())).await;
    assert_eq!((answer, hosts.get("b.example").state()), (Ok(7), State::Closed));

    let told = drain(&mut events);
    let [Event::Transition(transition)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((transition.command, told[0].key()), ("hosts", Some("a.example")));
    assert!(told[0].to_string().starts_with("hosts[a.example]: closed -> open: "), "{}", told[0]);
    let snapshot = hosts.get("a.example").snapshot();
    assert_eq!((snapshot.command(), snapshot.key(), snapshot.state()), ("hosts", Some("a.example"), State::Open));
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_circuit() {
    let hosts = up_to(4);
    for _ in 0..3 {
        play(&hosts.get(&1), "S").await;
        play(&hosts.get(&2), "S").await;
    }
    let kept = hosts.clone();
    drop(hosts);
    assert_eq!((calls(&kept.get(&1)), calls(&kept.get(&2)), kept.len()), (3, 3, 2));
    assert!(kept.find(&3).is_none(), "to look is not to make");
    assert_eq!(kept.len(), 2);
}

#[test]
fn what_is_told_of_a_key_is_short_and_inert() {
    let hosts: Keyed<String> = builder().keyed(Keys::up_to(8)).expect("a good configuration");
    for (key, shown) in [
        ("a b\r\nc", r"a b\r\nc"),
        ("<b>\u{202e}", r"<b>\u{202e}"),
        ("名", "名"),
        (&"x".repeat(1 << 20), &*"x".repeat(64)),
        ("", ""),
    ] {
        assert_eq!(hosts.get(key).snapshot().key(), Some(shown));
        assert_eq!(hosts.get(key).key().map(String::as_str), Some(key));
    }
}

// ---- never more than there may be ----

/// A11: an open circuit is worth more than a new one.
#[tokio::test(start_paused = true)]
async fn a11_when_all_are_open_a_new_key_gets_the_shared_circuit() {
    let hosts = up_to(3);
    (0..3).for_each(|key| fail(&hosts.get(&key)));
    for key in [7, 8] {
        let shared = hosts.get(&key);
        assert_eq!((shared.key(), shared.snapshot().key()), (None, Some("*")));
        succeed(&shared);
    }
    assert_eq!(calls(hosts.overflow()), 2);
    for key in 0..3 {
        assert_eq!(hosts.find(&key).expect("it is there still").state(), State::Open);
    }
    let stats = hosts.stats();
    assert_eq!((stats.keys, stats.not_closed, stats.evictions, stats.overflows), (3, 3, 0, 2));

    advance(secs(5)).await;
    assert_eq!(hosts.get(&0).state(), State::HalfOpen);
    assert_eq!(hosts.get(&7).key(), None, "not closed is not idle");
    succeed(&hosts.get(&0));
    assert_eq!(hosts.get(&7).key(), Some(&7), "it is tried anew, and one has closed");
    assert!(hosts.find(&0).is_none());
    assert_eq!(hosts.stats().evictions, 1);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_going_on_with_a_circuit_keeps_it() {
    let hosts = up_to(1);
    let taken = |what: &str| assert_eq!(hosts.get(&99).key(), None, "{what}");

    let handle = hosts.get(&1);
    taken("somebody holds a handle");
    let command = (*handle).clone();
    drop(handle);
    taken("somebody holds a plain handle");
    let permit = command.admit_owned().expect("it is closed");
    drop(command);
    taken("a call is in flight");
    permit.succeed();

    hosts.get(&1).force_open("maintenance", None);
    taken("it is forced open");
    hosts.get(&1).clear_override();
    hosts.get(&1).force_closed("maintenance", Some(secs(9)));
    taken("it is forced closed");
    hosts.get(&1).clear_override();

    let mut call = Box::pin(async { hosts.get(&1).run(support::hang).timeout(ms(30)).await });
    assert!(support::poll(&mut call).is_none());
    taken("a call runs in a future");
    drop(call);
    assert_eq!(calls(&hosts.get(&1)), 2, "it is the same one still");
    assert_eq!(hosts.get(&99).key(), Some(&99), "and goes when it is idle");
    assert!(hosts.find(&1).is_none());
}

#[test]
fn the_one_that_was_not_looked_up_for_longest_goes() {
    let hosts = up_to(4);
    (0..4).for_each(|key| drop(hosts.get(&key)));
    for (used, new, kept) in [(0, 4, [0, 2, 3, 4]), (2, 5, [0, 2, 4, 5]), (0, 6, [0, 2, 5, 6])] {
        drop(hosts.get(&used));
        drop(hosts.get(&new));
        let mut keys: Vec<_> = hosts.all().iter().map(|host| *host.key().expect("it has one")).collect();
        keys.sort_unstable();
        assert_eq!(keys, kept);
    }
}

#[test]
fn a_key_that_is_removed_begins_anew() {
    let hosts = up_to(2);
    fail(&hosts.get(&1));
    let held = hosts.get(&1);
    assert!(hosts.remove(&1) && !hosts.remove(&1) && !hosts.remove(&2));
    assert_eq!((held.state(), hosts.get(&1).state()), (State::Open, State::Closed));
    assert_eq!(hosts.len(), 1);
    drop(hosts.get(&2));
    assert_eq!(hosts.stats().evictions, 0, "its room came back");
}

#[test]
fn a_limit_that_cannot_be_is_refused() {
    for limit in [0, 1 << 24] {
        let error = builder().keyed::<u32>(Keys::up_to(limit)).expect_err("a limit out of range");
        assert_eq!((error.field(), error.allowed()), ("keys.limit", "1 to 16777214 calls"));
    }
}

/// Bugs 61 and 68: keys come and go without end; what is kept of them is bounded, and what is open stays.
#[test]
fn bug_61_keys_without_end_take_bounded_room_and_cost_no_open_circuit() {
    let hosts: Keyed<String> = builder().keyed(Keys::up_to(100)).expect("a good configuration");
    (0..50).for_each(|key| fail(&hosts.get(&format!("open-{key}"))));
    for key in 0..20_000 {
        succeed(&hosts.get(&format!("host-{key}.example")));
        if key % 997 == 0 {
            assert!(hosts.len() <= 100);
        }
    }
    let stats = hosts.stats();
    assert_eq!((stats.keys, stats.not_closed), (100, 50));
    assert_eq!(stats.evictions + stats.overflows, 20_000 - 50);
    assert!(stats.overflows < 200, "half are idle, and are found: {stats:?}");
    for key in 0..50 {
        assert_eq!(hosts.get(&format!("open-{key}")).state(), State::Open);
    }
}

/// Keys that are alive, whoever has them.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Counted(u32);

impl Counted {
    fn new(key: u32) -> Self {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Self(key)
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bug 68, with threads: at no moment is there more than the limit allows and the threads hold.
#[test]
fn bug_68_the_limit_holds_among_threads() {
    let hosts: Keyed<Counted> = builder().keyed(Keys::up_to(16)).expect("a good configuration");
    thread::scope(|scope| {
        for thread in 0..4 {
            let hosts = hosts.clone();
            scope.spawn(move || {
                for step in 0..3_000 {
                    let host = hosts.get(&Counted::new(step * 7 + thread * 1_000));
                    host.admit().expect("all are closed").succeed();
                    drop(host);
                    let (kept, alive) = (hosts.len(), ALIVE.load(Ordering::Relaxed));
                    // Each thread may have the key it asks for, one that it makes, and one that it took out.
                    assert!(kept <= 16 && alive <= 16 + 3 * 4, "{kept} are kept, and {alive} alive");
                }
            });
        }
    });
    let stats = hosts.stats();
    assert!(stats.keys <= 16 && stats.not_closed == 0, "{stats:?}");
    (0..16).for_each(|key| drop(hosts.get(&Counted::new(1_000_000 + key))));
    assert_eq!((hosts.len(), hosts.all().len()), (16, 16), "no room was lost");
    assert_eq!(hosts.stats().overflows, stats.overflows);
    drop(hosts);
    assert_eq!(ALIVE.load(Ordering::Relaxed), 0, "no key stays behind");
}

/// Bug 65: 64 threads hit a fresh key at once, and get one circuit.
#[test]
fn bug_65_a_fresh_key_is_made_once_however_many_ask() {
    for round in 0..20_u32 {
        let (hosts, start) = (up_to(1_000), Arc::new(Barrier::new(64)));
        let threads: Vec<_> = (0..64)
            .map(|_| {
                let (hosts, start) = (hosts.clone(), Arc::clone(&start));
                thread::spawn(move || {
                    start.wait();
                    succeed(&hosts.get(&round));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends well"));
        assert_eq!((calls(&hosts.get(&round)), hosts.len()), (64, 1));
    }
}

/// What becomes of a key in a step.
#[derive(Clone, Copy, Debug)]
enum Op {
    Succeed,
    Fail,
    Hold,
    Release,
    Force,
    Clear,
}

/// An open circuit is never evicted, nor one that is held or forced: over random sequences, each such key must have the
/// very circuit that it had.
#[test]
fn an_open_circuit_is_never_evicted() {
    use Op::{Clear, Fail, Force, Hold, Release, Succeed};
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let runs = Runs { cases: 256, failure_persistence: None, ..Runs::default() };
    let op = prop::sample::select(vec![Succeed, Succeed, Succeed, Fail, Hold, Release, Force, Clear]);
    let ops = prop::collection::vec((0..24_u32, op), 1..120);
    let outcome = TestRunner::new_with_rng(runs, rng).run(&(ops, 1..12_usize), |(ops, limit)| {
        let hosts = up_to(limit);
        let mut held = BTreeMap::<u32, KeyedCommand<u32>>::new();
        let (mut open, mut forced) = (BTreeSet::new(), BTreeSet::new());
        for (key, op) in ops {
            let host = hosts.get(&key);
            let own = host.key().is_some();
            prop_assert!(own || !open.contains(&key) && !forced.contains(&key) && !held.contains_key(&key));
            match op {
                Succeed => drop(host.run_sync(|| Ok::<_, &str>(()))),
                Fail if own && host.state() == State::Closed => {
                    fail(&host);
                    open.insert(key);
                }
                Hold if own => drop(held.insert(key, host)),
                Release => drop(held.remove(&key)),
                Force if own => {
                    host.force_open("test", None);
                    forced.insert(key);
                }
                Clear if own => {
                    host.clear_override();
                    forced.remove(&key);
                }
                _ => {}
            }
            prop_assert!(hosts.len() <= limit);
            for key in &open {
                let host = hosts.find(key);
                let state = host.map(|host| host.state());
                prop_assert!(matches!(state, Some(State::Open | State::ForcedOpen)), "{key}: {state:?}");
            }
            for key in &forced {
                prop_assert_eq!(hosts.find(key).map(|host| host.state()), Some(State::ForcedOpen));
            }
            for (key, handle) in &held {
                let now = hosts.find(key).expect("it is held");
                prop_assert!(std::ptr::eq::<Command>(&**handle, &*now), "{key} has another circuit");
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

// ---- keys of all kinds ----

thread_local! {
    /// Which of a key's own functions panics.
    static PANICS: Cell<&'static str> = const { Cell::new("") };
    /// What a key's own functions look into.
    static LOOKS_INTO: RefCell<Option<Keyed<Odd>>> = const { RefCell::new(None) };
}

/// A key whose code does what it must not: it panics, and it uses the very map that it is a key of. All hashes are equal.
#[derive(Debug, Eq)]
struct Odd(u32);

fn misbehave(function: &'static str) {
    assert!(PANICS.get() != function, "scripted");
    let map = LOOKS_INTO.with(|map| map.try_borrow_mut().ok().and_then(|mut map| map.take()));
    if let Some(map) = map {
        let _ = (map.get(&Odd(1_000)).key(), map.len(), map.remove(&Odd(1_001)));
        LOOKS_INTO.set(Some(map));
    }
}

impl PartialEq for Odd {
    fn eq(&self, other: &Self) -> bool {
        misbehave("eq");
        self.0 == other.0
    }
}

impl Hash for Odd {
    fn hash<H: Hasher>(&self, state: &mut H) {
        misbehave("hash");
        state.write_u8(0);
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        misbehave("display");
        self.0.fmt(f)
    }
}

impl Clone for Odd {
    fn clone(&self) -> Self {
        misbehave("clone");
        Self(self.0)
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        misbehave("drop");
    }
}

#[test]
fn keys_of_equal_hash_have_each_their_own() {
    let hosts: Keyed<Odd> = builder().keyed(Keys::up_to(8)).expect("a good configuration");
    for key in 0..8 {
        (0..=key).for_each(|_| succeed(&hosts.get(&Odd(key))));
    }
    assert!(hosts.remove(&Odd(3)) && hosts.remove(&Odd(7)) && hosts.remove(&Odd(0)));
    for key in [1, 2, 4, 5, 6] {
        assert_eq!(calls(&hosts.get(&Odd(key))), u64::from(key) + 1);
    }
    assert_eq!((calls(&hosts.get(&Odd(0))), hosts.len()), (0, 6));
}

/// X1: whichever of a key's own functions panics, it is the caller's panic alone.
#[test]
fn a_key_that_panics_harms_its_caller_alone() {
    let hosts: Keyed<Odd> = builder().keyed(Keys::up_to(2)).expect("a good configuration");
    succeed(&hosts.get(&Odd(1)));
    for function in ["hash", "eq", "display", "clone"] {
        PANICS.set(function);
        let caught = catch_unwind(AssertUnwindSafe(|| drop(hosts.get(&Odd(2)))));
        PANICS.set("");
        assert!(caught.is_err(), "{function}");
        assert_eq!((hosts.len(), calls(&hosts.get(&Odd(1)))), (1, 1), "{function}");
    }
    let held = hosts.get(&Odd(2));
    assert_eq!((held.key().map(|key| key.0), hosts.stats().overflows), (Some(2), 0), "no room was lost");
}

/// X2: a key's own functions may use the map, for they run under none of its locks.
#[test]
fn a_key_may_use_the_map_that_it_is_in() {
    let hosts: Keyed<Odd> = builder().keyed(Keys::up_to(3)).expect("a good configuration");
    LOOKS_INTO.set(Some(hosts.clone()));
    for key in 0..20 {
        succeed(&hosts.get(&Odd(key)));
        assert!(hosts.len() <= 3);
    }
    hosts.remove(&Odd(19));
    LOOKS_INTO.set(None);
}

// ---- as one command ----

#[test]
fn the_registry_and_the_metrics_have_one_command_however_many_keys() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let registry = Registry::new();
    with_local_recorder(&recorder, || {
        let template = Command::builder("hosts").breaker(in_a_row(1)).registry(&registry);
        let hosts: Keyed<u32> = template.keyed(Keys::up_to(5)).expect("a good configuration");
        (0..3).for_each(|key| fail(&hosts.get(&key)));
        (10..17).for_each(|key| succeed(&hosts.get(&key)));
        let held: Vec<_> = [20, 21].iter().map(|key| hosts.get(key)).collect();
        let permits: Vec<_> = held.iter().map(|host| host.admit().expect("it is closed")).collect();
        succeed(&hosts.get(&22));
        assert_eq!(registry.commands().len(), 1);
        registry.publish();
        drop(permits);
    });
    let text = recorder.handle().render();
    let series = |name: &str| {
        let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix("{command=\"hosts\"")?.to_owned());
        text.lines().filter_map(of).collect::<Vec<_>>()
    };
    assert!(series("fusebox_calls_total").contains(&",outcome=\"success\"} 8".to_owned()), "{text}");
    assert_eq!(series("fusebox_calls_total").len(), 9, "{text}");
    assert_eq!(series("fusebox_keyed_evictions_total"), ["} 7"], "{text}");
    assert_eq!(series("fusebox_keyed_overflow_total"), ["} 1"], "{text}");
    assert_eq!(series("fusebox_in_flight"), ["} 2"], "{text}");
    assert_eq!(
        series("fusebox_concurrency_limit"),
        ["} 600"],
        "100 for each circuit, the shared one among them: {text}"
    );
    assert_eq!(series("fusebox_window_calls"), ["} 1"], "open circuits judge anew: {text}");
    let states = series("fusebox_state");
    assert!(states.contains(&",state=\"open\"} 3".to_owned()), "{states:?}");
    assert!(states.contains(&",state=\"closed\"} 3".to_owned()), "two keys and the shared one: {states:?}");
    let label =
        "fusebox_transitions_total{command=\"hosts\",from=\"closed\",to=\"open\",cause=\"consecutive_failures\"} 3";
    assert!(text.contains(label), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_template_is_one_of_every_key() {
    let registry = Registry::new();
    let hosts: Keyed<u32> = builder().registry(&registry).keyed(Keys::up_to(4)).expect("a good configuration");
    play(&hosts.get(&1), "S").await;
    let mut events = hosts.subscribe();
    let limits = || [1, 2].map(|key| hosts.get(&key).snapshot().limit());

    hosts.reconfigure(|config| config.max_concurrent(7)).expect("a good configuration");
    assert_eq!(limits(), [Some(7); 2], "of one that was there and of one that is new");
    hosts.get(&1).reconfigure(|config| config.max_concurrent(8)).expect("a good configuration");
    assert_eq!((limits(), hosts.overflow().snapshot().limit()), ([Some(8); 2], Some(8)));
    let file: Configs = toml::from_str("commands.hosts.max_concurrent = 9").expect("a good file");
    assert_eq!(registry.apply(&file).expect("a good file").changed.len(), 1);
    assert_eq!(limits(), [Some(9); 2]);
    let refused = hosts.reconfigure(|config| config.max_concurrent(0));
    assert_eq!((refused.is_err(), limits()), (true, [Some(9); 2]));

    let told = drain(&mut events);
    assert_eq!(told.len(), 3, "one event for all: {told:?}");
    assert!(told.iter().all(|event| event.key().is_none()));
    assert_eq!(calls(&hosts.get(&1)), 1);
}

/// X10: a circuit that is made while the template changes has one or the other, and in the end the new one.
#[test]
fn a_circuit_made_during_a_change_is_not_left_behind() {
    let hosts = up_to(10_000);
    thread::scope(|scope| {
        let maker = scope.spawn(|| (0..5_000).for_each(|key| drop(hosts.get(&key))));
        let mut limit = 100;
        while !maker.is_finished() {
            limit += 1;
            hosts.reconfigure(|config| config.max_concurrent(limit)).expect("a good configuration");
        }
        maker.join().expect("it ends well");
        let wrong = hosts.all().iter().filter(|host| host.snapshot().limit() != Some(limit)).count();
        assert_eq!(wrong, 0);
    });
}

#[test]
fn a_key_has_latencies_only_if_they_are_wanted() {
    let latency = |keys: Keys| {
        let hosts: Keyed<u32> = Command::builder("hosts").keyed(keys).expect("a good configuration");
        succeed(&hosts.get(&1));
        hosts.get(&1).snapshot().latency().percentile(0.5).is_some()
    };
    assert_eq!((latency(Keys::up_to(1)), latency(Keys::up_to(1).latencies())), (false, true));
}

// ---- all together ----

#[test]
fn what_was_counted_stays_counted_when_its_key_is_gone() {
    let hosts = up_to(2);
    succeed(&hosts.get(&1));
    fail(&hosts.get(&2));
    succeed(&hosts.get(&3));
    assert_eq!((hosts.stats().evictions, hosts.find(&1).is_none()), (1, true));
    assert_eq!(calls(hosts.overflow()), 0, "the shared circuit had none of them");
    assert!(hosts.remove(&2));
    let all = hosts.snapshot();
    assert_eq!((all.lifetime().get("success"), all.lifetime().get("failure")), (2, 1));
    assert_eq!((all.window().total(), all.limit()), (1, Some(200)), "the window is of those that are there");
}

/// What runs when its key goes has not been counted yet, and would never be taken off again.
#[test]
fn a_fallback_that_outlives_its_key_does_not_run_for_ever() {
    let hosts = up_to(2);
    let host = hosts.get(&1);
    let call = host.run(async || Err::<u32, _>(DOWN)).fallback(|_| std::future::pending());
    let mut call = Box::pin(call);
    assert_eq!((poll(&mut call), hosts.snapshot().fallbacks().in_flight), (None, 1));
    assert!(hosts.remove(&1));
    drop(call);
    assert_eq!(hosts.snapshot().fallbacks().in_flight, 0);
}

#[test]
fn the_worst_keys_come_first() {
    let hosts: Keyed<u32> = builder().breaker(in_a_row(3)).keyed(Keys::up_to(8)).expect("a good configuration");
    for (key, errors) in [(1, 0), (2, 2), (3, 1), (6, 3)] {
        succeed(&hosts.get(&key));
        (0..errors).for_each(|_| fail(&hosts.get(&key)));
    }
    hosts.get(&4).force_open("a drill", None);
    hosts.get(&5).force_closed("a drill", None);
    let keys = |most| -> Vec<_> { hosts.worst(most).iter().filter_map(|key| key.key()?.parse().ok()).collect() };
    assert_eq!(keys(usize::MAX), [6, 4, 5, 2, 3, 1]);
    assert_eq!((keys(2), keys(0)), (vec![6, 4], vec![]));
    assert_eq!(hosts.worst(1)[0].window().errors(), 3);
}

#[test]
fn handles_outlive_the_map() {
    let hosts = up_to(2);
    let (one, shared) = (hosts.get(&1), hosts.overflow().clone());
    drop(hosts);
    one.reconfigure(|config| config.max_concurrent(3)).expect("a good configuration");
    assert_eq!(one.snapshot().limit(), Some(3));
    drop(shared);
    fail(&one);
    assert_eq!(one.state(), State::Open);
}

#[test]
fn they_can_be_sent_and_shared() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Keyed<String>>();
    check::<KeyedCommand<String>>();
    fn sent<T: Send>(_: &T) {}
    let hosts = up_to(1);
    let breaker = Breaker::default();
    let task = async move {
        let _ = hosts.get(&1).run(async || Ok::<_, &str>(breaker)).await;
    };
    sent(&task);
}
