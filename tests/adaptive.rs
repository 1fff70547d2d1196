//! A concurrency limit and a timeout that follow the dependency, through the public API and in paused time.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fusebox::{
    AdaptiveLimit, AdaptiveTimeout, Breaker, Builder, Bulkhead, Command, Config, Error, Event, Registry, State,
};
use support::{Failure, advance, after, drain, hang, in_a_row, ms, poll, record, secs, succeed};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

// ---- the concurrency limit ----

/// A dependency that works on so many calls at once, each for `each` give or take a fifth; the others queue in it.
struct Dependency {
    places: Semaphore,
    each: AtomicU64,
    in_it: AtomicU32,
    most: AtomicU32,
}

impl Dependency {
    fn new(capacity: usize, each: Duration) -> Arc<Self> {
        let each = AtomicU64::new(each.as_micros() as u64);
        let (in_it, most) = (AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { places: Semaphore::new(capacity), each, in_it, most })
    }

    async fn serve(&self, spread: f64) -> Result<u32, Failure> {
        let in_it = self.in_it.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(in_it, Ordering::Relaxed);
        let place = self.places.acquire().await.expect("it is never closed");
        let micros = self.each.load(Ordering::Relaxed) as f64 * (0.8 + 0.4 * spread);
        tokio::time::sleep(Duration::from_micros(micros as u64)).await;
        drop(place);
        self.in_it.fetch_sub(1, Ordering::Relaxed);
        Ok(1)
    }
}

/// More callers than the dependency could ever serve, each of whom comes again at once, or soon after a refusal.
fn crowd(command: &Command, dependency: &Arc<Dependency>, callers: u64) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for caller in 0..callers {
        let (command, dependency) = (command.clone(), Arc::clone(dependency));
        let mut random = fastrand::Rng::with_seed(caller);
        crowd.spawn(async move {
            loop {
                let spread = random.f64();
                if command.run(|| dependency.serve(spread)).await.is_err() {
                    tokio::time::sleep(ms(random.u64(50..150))).await;
                }
            }
        });
    }
    crowd
}

fn adaptive(limit: AdaptiveLimit, start: usize) -> Command {
    Command::builder("adaptive")
        .registry(&Registry::new())
        .max_concurrent(start)
        .adaptive_limit(limit)
        .no_timeout()
        .breaker(Breaker::disabled())
        .build()
        .expect("a good configuration")
}

/// The mean of the limit over so many seconds.
async fn mean_limit(command: &Command, seconds: u64) -> f64 {
    let mut sum = 0;
    for _ in 0..seconds * 10 {
        tokio::time::sleep(ms(100)).await;
        sum += command.snapshot().limit().expect("one");
    }
    sum as f64 / (seconds * 10) as f64
}

/// The limit comes near the capacity from below and from above, and follows it when it changes.
async fn follows(limit: AdaptiveLimit, near: std::ops::RangeInclusive<f64>) {
    for start in [4, 150] {
        let dependency = Dependency::new(30, ms(40));
        let command = adaptive(limit, start);
        let mut callers = crowd(&command, &dependency, 110);
        tokio::time::sleep(secs(25)).await;
        let found = mean_limit(&command, 5).await / 30.0;
        assert!(near.contains(&found), "{limit:?} from {start}: {found:.2} times the capacity");

        dependency.places.acquire_many(15).await.expect("it is never closed").forget();
        tokio::time::sleep(secs(20)).await;
        let found = mean_limit(&command, 5).await / 15.0;
        assert!(near.contains(&found), "{limit:?} after a fall: {found:.2} times the capacity");

        dependency.places.add_permits(35);
        tokio::time::sleep(secs(25)).await;
        let found = mean_limit(&command, 5).await / 50.0;
        assert!(near.contains(&found), "{limit:?} after a rise: {found:.2} times the capacity");
        callers.shutdown().await;
        assert_eq!(command.snapshot().in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn vegas_finds_the_capacity_and_follows_it() {
    follows(AdaptiveLimit::vegas(), 0.9..=1.6).await;
}

#[tokio::test(start_paused = true)]
async fn the_gradient_finds_the_capacity_and_follows_it() {
    follows(AdaptiveLimit::gradient(), 0.9..=1.9).await;
}

#[tokio::test(start_paused = true)]
async fn aimd_finds_the_capacity_and_follows_it() {
    follows(AdaptiveLimit::aimd(ms(60)), 0.9..=1.4).await;
}

/// P1: whatever the limit does, no more are in the dependency than it ever was.
#[tokio::test(start_paused = true)]
async fn the_limit_holds_while_it_moves() {
    let dependency = Dependency::new(10, ms(20));
    let command = adaptive(AdaptiveLimit::vegas().min(2).max(30), 20);
    let mut callers = crowd(&command, &dependency, 100);
    for _ in 0..600 {
        let before = command.snapshot().limit().expect("one").max(command.snapshot().in_flight());
        dependency.most.store(0, Ordering::Relaxed);
        tokio::time::sleep(ms(50)).await;
        let most = dependency.most.load(Ordering::Relaxed) as usize;
        assert!(most <= before.max(command.snapshot().limit().expect("one")), "{most} where {before} may be");
        assert!((2..=30).contains(&command.snapshot().limit().expect("one")));
    }
    callers.shutdown().await;
}

/// Those who wait for a slot get it when the limit rises, not only when a slot is given back.
#[tokio::test(start_paused = true)]
async fn a_limit_that_rises_lets_those_in_line_in() {
    let limit = AdaptiveLimit::aimd(secs(1)).min(1);
    let command = Command::builder("adaptive").bulkhead(Bulkhead::new(2).queue(9, secs(60))).adaptive_limit(limit);
    let command = command.build().unwrap();
    let long = command.admit().unwrap();
    advance(ms(300)).await;
    for _ in 0..9 {
        succeed(&command).await;
    }
    let short = command.admit().unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(command.run(hang))).collect();
    assert!(waiting.iter_mut().all(|call| poll(call).is_none()));
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (2, 2));
    short.succeed();
    assert_eq!(command.snapshot().limit(), Some(3));
    assert_eq!((command.snapshot().in_flight(), command.snapshot().queue_length()), (3, 0));
    long.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_hangs_brings_the_limit_down_to_its_minimum_and_tells_of_it() {
    let limit = AdaptiveLimit::aimd(ms(50)).min(5);
    let command = Command::builder("adaptive").timeout(ms(100)).breaker(Breaker::disabled()).adaptive_limit(limit);
    let command = command.build().unwrap();
    let mut events = command.subscribe();
    for _ in 0..100 {
        futures::future::join_all((0..command.snapshot().limit().unwrap()).map(|_| command.run(hang))).await;
        advance(ms(250)).await;
    }
    assert_eq!(command.snapshot().limit(), Some(5));
    let told: Vec<_> = drain(&mut events).iter().map(ToString::to_string).collect();
    assert!((2..=5).contains(&told.len()), "{told:?}");
    assert!(told[0].ends_with("calls at once from now on, 100 before"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_is_switched_on_and_off_live() {
    let command = Command::builder("plain").max_concurrent(10).build().unwrap();
    let moving = AdaptiveLimit::aimd(secs(1)).min(1).max(50);
    command.reconfigure(|c| c.adaptive_limit(moving)).unwrap();
    let grow = async || {
        advance(secs(1)).await;
        let held: Vec<_> = (0..10).map(|_| command.admit().unwrap()).collect();
        advance(ms(10)).await;
        held.into_iter().for_each(|permit| permit.succeed());
    };
    grow().await;
    assert_eq!(command.snapshot().limit(), Some(11));
    command.reconfigure(|c| c.timeout(ms(77))).unwrap();
    assert_eq!(command.snapshot().limit(), Some(11), "another setting leaves it where it is");
    command.reconfigure(|c| c.adaptive_limit(moving.max(8))).unwrap();
    assert_eq!(command.snapshot().limit(), Some(8));
    command.reconfigure(|c| c.no_adaptive_limit()).unwrap();
    assert_eq!(command.snapshot().limit(), Some(10));
    advance(secs(1)).await;
    (0..100).for_each(|_| command.admit().unwrap().succeed());
    assert_eq!(command.snapshot().limit(), Some(10));
    command.reconfigure(|c| c.unlimited().adaptive_limit(moving)).unwrap();
    assert_eq!(command.snapshot().limit(), Some(50), "without a limit to begin with it begins at its maximum");
}

// ---- the timeout ----

fn tuned(timeout: AdaptiveTimeout, rest: impl FnOnce(Builder) -> Builder) -> Command {
    rest(Command::builder("tuned").adaptive_timeout(timeout)).build().expect("a good configuration")
}

fn p90() -> AdaptiveTimeout {
    AdaptiveTimeout::percentile(0.9).factor(2.0).warm_up(20)
}

fn timeout(command: &Command) -> Duration {
    command.snapshot().timeout().expect("one")
}

/// Within the error of the histogram.
fn is_near(found: Duration, expected: Duration) -> bool {
    (found.as_secs_f64() / expected.as_secs_f64() - 1.0).abs() <= 0.07
}

#[tokio::test(start_paused = true)]
async fn the_timeout_is_fixed_in_the_warm_up_and_follows_the_percentile_from_then_on() {
    let command = tuned(p90(), |b| b.timeout(secs(1)));
    record(&command, &[ms(50); 19]).await;
    assert_eq!(timeout(&command), secs(1));
    record(&command, &[ms(50)]).await;
    assert!(is_near(timeout(&command), ms(100)), "{:?}", timeout(&command));
    let late = command.run(hang).await;
    assert!(matches!(late, Err(Error::TimedOut(t)) if t.limit() == timeout(&command)), "{late:?}");
    let own = command.run(hang).timeout(ms(7)).await;
    assert!(matches!(own, Err(Error::TimedOut(t)) if t.limit() == ms(7)), "a call's own word counts more: {own:?}");
}

#[tokio::test(start_paused = true)]
async fn the_timeout_moves_once_in_an_interval() {
    let command = tuned(p90().interval(secs(10)), |b| b.timeout(secs(1)));
    record(&command, &[ms(50); 20]).await;
    let first = timeout(&command);
    record(&command, &[ms(90); 80]).await;
    advance(secs(9)).await;
    succeed(&command).await;
    assert_eq!(timeout(&command), first);
    advance(secs(1)).await;
    succeed(&command).await;
    assert!(is_near(timeout(&command), ms(180)), "{:?}", timeout(&command));
}

#[tokio::test(start_paused = true)]
async fn the_timeout_is_held_within_its_bounds_and_never_zero() {
    let command = tuned(p90().min(ms(30)), |b| b.timeout(ms(400)));
    record(&command, &[Duration::ZERO; 50]).await;
    assert_eq!(timeout(&command), ms(30));
    advance(secs(70)).await;
    record(&command, &[ms(350); 50]).await;
    assert_eq!(timeout(&command), ms(400), "the fixed one is the longest unless another is named");
    command.reconfigure(|c| c.adaptive_timeout(p90().max(ms(200)))).unwrap();
    succeed(&command).await;
    assert_eq!(timeout(&command), ms(200));
}

/// A timeout that is too short for what the dependency has become grows by itself.
#[tokio::test(start_paused = true)]
async fn a_timeout_that_has_become_too_short_grows() {
    let command = tuned(p90().interval(secs(1)), |b| b.timeout(secs(5)).breaker(Breaker::disabled()));
    record(&command, &[ms(10); 50]).await;
    assert!(timeout(&command) <= ms(22));
    let mut calls = 0;
    while command.run(|| after(ms(500), Ok(1))).await.is_err() {
        advance(ms(200)).await;
        calls += 1;
        assert!(calls < 1_000, "{:?}", timeout(&command));
    }
    assert!(timeout(&command) > ms(500));
}

#[tokio::test(start_paused = true)]
async fn without_calls_the_timeout_keeps_its_last_value() {
    let command = tuned(p90(), |b| b.timeout(secs(1)));
    record(&command, &[ms(50); 20]).await;
    let found = timeout(&command);
    advance(secs(3_600)).await;
    succeed(&command).await;
    assert_eq!(timeout(&command), found, "one call is no percentile");
    command.reset();
    succeed(&command).await;
    assert_eq!(timeout(&command), found);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_is_frozen_while_the_circuit_is_not_closed() {
    let breaker = in_a_row(3).open_for(secs(30));
    let command = tuned(p90().interval(ms(1)), |b| b.timeout(secs(1)).breaker(breaker));
    record(&command, &[ms(50); 20]).await;
    let found = timeout(&command);
    let held: Vec<_> = (0..50).map(|_| command.admit().unwrap()).collect();
    support::play(&command, "FFF").await;
    assert_eq!(command.state(), State::Open);
    advance(ms(450)).await;
    held.into_iter().for_each(|permit| permit.succeed());
    assert_eq!(timeout(&command), found, "open");
    advance(secs(30)).await;
    let probe = command.admit().unwrap();
    assert_eq!((command.state(), timeout(&command)), (State::HalfOpen, found));
    advance(ms(450)).await;
    probe.succeed();
    assert_eq!(command.state(), State::Closed);
    succeed(&command).await;
    assert!(timeout(&command) > found, "closed again: {:?}", timeout(&command));
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_timeout_is_switched_on_and_off_live_and_told_when_it_has_halved() {
    let command = Command::builder("plain").timeout(secs(1)).build().unwrap();
    record(&command, &[ms(50); 30]).await;
    let mut events = command.subscribe();
    command.reconfigure(|c| c.adaptive_timeout(p90())).unwrap();
    assert_eq!(timeout(&command), secs(1));
    succeed(&command).await;
    let found = timeout(&command);
    assert!(is_near(found, ms(100)));
    let told = drain(&mut events);
    assert!(
        matches!(told[1], Event::TimeoutAdapted { before, after, .. } if before == Some(secs(1)) && after == found)
    );
    command.reconfigure(|c| c.max_concurrent(77)).unwrap();
    assert_eq!(timeout(&command), found, "another setting leaves it where it is");
    command.reconfigure(|c| c.timeout(ms(800))).unwrap();
    assert_eq!(timeout(&command), ms(800), "another fixed timeout is where it begins anew");
    command.reconfigure(|c| c.no_adaptive_timeout()).unwrap();
    advance(secs(20)).await;
    record(&command, &[ms(50); 30]).await;
    assert_eq!(timeout(&command), ms(800));
}

#[test]
fn what_is_out_of_range_is_named() {
    let fields = |builder: Builder| {
        let error = builder.build().unwrap_err();
        error.problems().map(|problem| problem.field()).collect::<Vec<_>>()
    };
    let builder = || Command::builder("adaptive");
    let limit = |limit| fields(builder().adaptive_limit(limit));
    assert_eq!(limit(AdaptiveLimit::vegas().min(0)), ["adaptive_limit.min"]);
    assert_eq!(limit(AdaptiveLimit::vegas().max(0)), ["adaptive_limit.max", "adaptive_limit.min"]);
    assert_eq!(limit(AdaptiveLimit::vegas().min(5).max(4)), ["adaptive_limit.min"]);
    assert_eq!(limit(AdaptiveLimit::gradient().max(1 << 24)), ["adaptive_limit.max"]);
    assert_eq!(limit(AdaptiveLimit::gradient().interval(Duration::ZERO)), ["adaptive_limit.interval"]);
    assert_eq!(limit(AdaptiveLimit::aimd(Duration::ZERO)), ["adaptive_limit.slow"]);
    let timeout = |timeout| fields(builder().adaptive_timeout(timeout));
    for p in [0.0, 1.0, f64::NAN, -1.0] {
        assert_eq!(timeout(AdaptiveTimeout::percentile(p)), ["adaptive_timeout.percentile"]);
    }
    for factor in [1.0, 0.0, f64::NAN, f64::INFINITY] {
        assert_eq!(timeout(p90().factor(factor)), ["adaptive_timeout.factor"]);
    }
    assert_eq!(timeout(p90().min(Duration::ZERO)), ["adaptive_timeout.min"]);
    assert_eq!(timeout(p90().min(ms(9)).max(ms(8))), ["adaptive_timeout.max"]);
    assert_eq!(timeout(p90().interval(Duration::MAX)), ["adaptive_timeout.interval"]);
    assert_eq!(timeout(p90().warm_up(0)), ["adaptive_timeout.warm_up"]);
    assert_eq!(fields(builder().no_latency().adaptive_timeout(p90())), ["adaptive_timeout"]);
    assert!(builder().no_timeout().adaptive_timeout(p90()).build().is_ok());
}

#[test]
fn the_worst_case_of_an_attempt_is_the_longest_timeout() {
    let config = Config::default().timeout(ms(250)).adaptive_timeout(p90().max(secs(2)));
    assert_eq!(config.worst_case().attempt, Some(secs(2)));
}
