//! Who takes part, each in the form that its documentation recommends, with the same operation inside.
//!
//! Every one is tried before it races: a call must end as it should, so that no figure is of a call that did not happen.

use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use circuitbreaker_rs::{CircuitBreaker as RsBreaker, DefaultPolicy};
use failsafe::futures::CircuitBreaker as _;
use failsafe::{backoff, failure_policy};
use fusebox::Command;
use layered::{Execute, Service as _, Stack as _};
use metrics_exporter_prometheus::PrometheusRecorder;
use recloser::{AsyncRecloser, Recloser};
use seatbelt::breaker::Breaker as SeatbeltBreaker;
use seatbelt::timeout::Timeout as SeatbeltTimeout;
use seatbelt::{RecoveryInfo, ResilienceContext};
use tick::Clock;
use tower::{Service as _, ServiceBuilder, ServiceExt as _};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

use crate::race::{Racer, STRETCH};
use crate::support::counting::counted;
use crate::support::{Answer, Down, PendingOnce, answer, done, full, now, open, prometheus, second};
use crate::versions;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const CONCURRENT: usize = 100;

/// A racer on one thread: its name, how to make instance number `n`, a call of it, how to poll that, and how it ends.
macro_rules! racer {
    ($name:expr, |$n:pat_param| $make:expr, |$instance:pat_param| $call:expr, $poll:ident, $ends:ident) => {{
        let make = |$n: usize| $make;
        let name = $name.to_string();
        let bytes = bytes_each(make, |$instance| assert!($poll($call).$ends()));
        let mut racing = make(0);
        {
            let $instance = &mut racing;
            assert!($poll($call).$ends(), "{name}: the call does not end as it should");
        }
        let turn = Box::new(move |calls: u32| {
            let $instance = &mut racing;
            for _ in 0..calls {
                done($poll($call));
            }
        });
        Racer { name, turn, worker: None, bytes, after: || () }
    }};
}

/// A racer on one thread whose instance two workers can share.
macro_rules! shared {
    ($name:expr, |$n:pat_param| $make:expr, |$instance:pat_param| $call:expr) => {{
        let shared = (|$n: usize| $make)(0);
        let mut racer = racer!($name, |$n| $make, |$instance| $call, now, is_ok);
        racer.worker = Some(Box::new(move |meeting| {
            let mut own = shared.clone();
            Box::pin(async move {
                let $instance = &mut own;
                let mut running = meeting.start().await;
                while running.goes_on() {
                    for _ in 0..STRETCH {
                        done($call.await);
                    }
                    running.ran(STRETCH);
                }
                running.end()
            })
        }));
        racer
    }};
}

/// Heap and handle of one instance that has been called, as the mean of many.
fn bytes_each<T>(make: impl Fn(usize) -> T, call: impl Fn(&mut T)) -> i64 {
    const MANY: usize = 1000;
    let (kept, _, bytes) = counted(|| {
        let mut all: Vec<T> = (0..MANY).map(&make).collect();
        all.iter_mut().for_each(&call);
        all
    });
    drop(kept);
    bytes / MANY as i64
}

fn named(package: &str, what: &str) -> String {
    format!(
        "{} {}{what}",
        package.replace("tower-resilience-circuitbreaker", "tower-resilience"),
        versions::of(package)
    )
}

/// Ends with a success at once.
pub(crate) mod success {
    pub(crate) const FULL: usize = 0;
    pub(crate) const BREAKER_ALONE: usize = 1;
    pub(crate) const FAILSAFE: usize = 2;
    pub(crate) const RECLOSER: usize = 4;
    pub(crate) const SEATBELT: usize = 6;
    pub(crate) const TOWER_RESILIENCE_STACK: usize = 9;
    pub(crate) const TOWER: usize = 10;
}

pub(crate) fn successes() -> Vec<Racer> {
    vec![
        shared!("**fusebox**: everything on, as by default", |n| full(&format!("success.{n}")), |command| command
            .run(|| answer(Ok(1)))),
        shared!("fusebox, breaker alone", |n| breaker_alone(n), |command| command.run(|| answer(Ok(1)))),
        shared!(named("failsafe", ", default policy"), |_| failsafe::Config::new().build(), |breaker| breaker
            .call(answer(Ok(1)))),
        shared!(
            named("failsafe", ", consecutive failures alone"),
            |_| failsafe::Config::new()
                .failure_policy(failure_policy::consecutive_failures(5, backoff::constant(SECOND)))
                .build(),
            |breaker| breaker.call(answer(Ok(1)))
        ),
        shared!(named("recloser", ""), |_| AsyncRecloser::from(Recloser::default()), |breaker| breaker
            .call(answer(Ok(1)))),
        shared!(named("circuitbreaker-rs", ""), |_| rs_breaker(), |breaker| breaker.call_async(|| answer(Ok(1)))),
        shared!(named("seatbelt", ", breaker"), |_| seatbelt_breaker(), |service| service.execute(())),
        shared!(named("seatbelt", ", breaker + timeout"), |_| seatbelt_both(|| answer(Ok(1))), |service| service
            .execute(())),
        shared!(
            named("tower-resilience-circuitbreaker", ", breaker"),
            |_| ServiceBuilder::new()
                .layer(CircuitBreakerLayer::builder().build().expect("valid"))
                .service_fn(|()| answer(Ok(1))),
            |service| async { service.ready().await?.call(()).await }
        ),
        shared!(
            named("tower-resilience-circuitbreaker", ", breaker + bulkhead + timeout"),
            |_| ServiceBuilder::new()
                .layer(CircuitBreakerLayer::builder().build().expect("valid"))
                .layer(BulkheadLayer::builder().max_concurrent_calls(CONCURRENT).build().expect("valid"))
                .layer(TimeLimiterLayer::builder().timeout_duration(SECOND).cancel_running_future(true).build())
                .service_fn(|()| answer(Ok(1))),
            |service| async { service.ready().await?.call(()).await }
        ),
        shared!(
            named("tower", ", timeout + concurrency limit, no breaker"),
            |_| ServiceBuilder::new().timeout(SECOND).concurrency_limit(CONCURRENT).service_fn(|()| answer(Ok(1))),
            |service| async { service.ready().await?.call(()).await }
        ),
        shared!(named("tokio", ", `timeout` alone"), |_| (), |_| tokio::time::timeout(SECOND, answer(Ok(1)))),
        // What the race itself takes.
        shared!("no protection, the operation alone", |_| (), |_| answer(Ok(1))),
    ]
}

/// Is refused by an open circuit.
pub(crate) mod refused {
    pub(crate) const FUSEBOX: usize = 0;
}

pub(crate) fn refusals() -> Vec<Racer> {
    vec![
        racer!("**fusebox**", |n| open(&format!("refused.{n}")), |command| command.run(|| answer(Ok(1))), now, is_err),
        racer!(
            named("failsafe", ", consecutive failures alone"),
            |_| {
                let policy = failure_policy::consecutive_failures(1, backoff::constant(HOUR));
                let breaker = failsafe::Config::new().failure_policy(policy).build();
                now(breaker.call(answer(Err(Down)))).expect_err("the operation failed");
                breaker
            },
            |breaker| breaker.call(answer(Ok(1))),
            now,
            is_err
        ),
        racer!(
            named("recloser", ""),
            |_| {
                let breaker = AsyncRecloser::from(Recloser::custom().closed_len(1).open_wait(HOUR).build());
                for _ in 0..2 {
                    now(breaker.call(answer(Err(Down)))).expect_err("the operation failed");
                }
                breaker
            },
            |breaker| breaker.call(answer(Ok(1))),
            now,
            is_err
        ),
        racer!(
            named("circuitbreaker-rs", ""),
            |_| {
                let breaker = RsBreaker::<DefaultPolicy, Down>::builder().cooldown(HOUR).build();
                breaker.force_open();
                breaker
            },
            |breaker| breaker.call_async(|| answer(Ok(1))),
            now,
            is_err
        ),
        racer!(named("seatbelt", ""), |_| seatbelt_open(), |service| service.execute(true), now, is_err),
        racer!(
            named("tower-resilience-circuitbreaker", ""),
            |_| {
                let breaker = CircuitBreakerLayer::builder().wait_duration_in_open(HOUR);
                let mut service = ServiceBuilder::new()
                    .layer(breaker.build().expect("valid"))
                    .service_fn(|works: bool| answer(if works { Ok(1) } else { Err(Down) }));
                for _ in 0..CONCURRENT {
                    now(async { service.ready().await?.call(false).await }).expect_err("the operation failed");
                }
                service
            },
            |service| async { service.ready().await?.call(true).await },
            now,
            is_err
        ),
    ]
}

/// Waits once, so that a timer is armed.
pub(crate) mod pending {
    pub(crate) const FUSEBOX: usize = 0;
    pub(crate) const TIMEOUT: usize = 1;
}

pub(crate) fn pendings() -> Vec<Racer> {
    vec![
        racer!(
            "**fusebox**: everything on, as by default",
            |n| full(&format!("pending.{n}")),
            |command| command.run(PendingOnce::default),
            second,
            is_ok
        ),
        racer!(
            named("tokio", ", `timeout` alone"),
            |_| (),
            |_| tokio::time::timeout(SECOND, PendingOnce::default()),
            second,
            is_ok
        ),
        racer!(
            named("seatbelt", ", breaker + timeout"),
            |_| seatbelt_both(PendingOnce::default),
            |service| service.execute(()),
            second,
            is_ok
        ),
        racer!(
            named("tower-resilience-circuitbreaker", ", breaker + bulkhead + timeout"),
            |_| ServiceBuilder::new()
                .layer(CircuitBreakerLayer::builder().build().expect("valid"))
                .layer(BulkheadLayer::builder().max_concurrent_calls(CONCURRENT).build().expect("valid"))
                .layer(TimeLimiterLayer::builder().timeout_duration(SECOND).cancel_running_future(true).build())
                .service_fn(|()| PendingOnce::default()),
            |service| async { service.ready().await?.call(()).await },
            second,
            is_ok
        ),
        racer!(
            named("tower", ", timeout + concurrency limit, no breaker"),
            |_| ServiceBuilder::new()
                .timeout(SECOND)
                .concurrency_limit(CONCURRENT)
                .service_fn(|()| PendingOnce::default()),
            |service| async { service.ready().await?.call(()).await },
            second,
            is_ok
        ),
    ]
}

/// Ours, without a recorder and with one; and what else the targets name.
pub(crate) mod own {
    pub(crate) const WITHOUT: usize = 0;
    pub(crate) const WITH: usize = 1;
    pub(crate) const SNAPSHOT: usize = 2;
}

pub(crate) fn owns() -> Vec<Racer> {
    let mut without = racer!(
        "call, no recorder installed",
        |n| full(&format!("own.without.{n}")),
        |command| command.run(|| answer(Ok(1))),
        now,
        is_ok
    );
    let mut with = racer!(
        "call, Prometheus recorder installed",
        |n| full(&format!("own.with.{n}")),
        |command| command.run(|| answer(Ok(1))),
        now,
        is_ok
    );
    let mut turn = std::mem::replace(&mut with.turn, Box::new(|_| ()));
    with.turn = Box::new(move |calls| metrics::with_local_recorder(recorder(), || turn(calls)));
    // As the exporter does every few seconds: brings what the histograms hold into their buckets.
    with.after = || recorder().handle().run_upkeep();
    without.after = with.after;
    let snapshot = racer!(
        "snapshot",
        |n| {
            let command = full(&format!("own.snapshot.{n}"));
            now(command.run(|| answer(Ok(1)))).expect("a success");
            command
        },
        |command| std::future::ready(Some(command.snapshot())),
        now,
        is_some
    );
    vec![without, with, snapshot]
}

/// What no call can do without, one at a time: the bounds of what there is to gain.
pub(crate) mod part {
    pub(crate) const CLOCK: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const RECORDER: usize = 2;
    pub(crate) const TIMER: usize = 3;
}

pub(crate) fn parts() -> Vec<Racer> {
    fn part(name: &str, mut act: impl FnMut() + 'static) -> Racer {
        let turn = Box::new(move |calls: u32| (0..calls).for_each(|_| act()));
        Racer { name: name.into(), turn, worker: None, bytes: 0, after: || () }
    }
    let word = AtomicU64::new(0);
    vec![
        part(&named("quanta", ", the clock, read once"), || done(quanta::Instant::now())),
        part("a word, read, modified and written", move || done(word.fetch_add(1, Ordering::AcqRel))),
        part(&named("metrics", ", the recorder, looked up"), || {
            metrics::with_recorder(|recorder| done(std::ptr::from_ref(recorder).addr()));
        }),
        part(&named("tokio", ", a timer, armed and taken back"), || {
            let timer = pin!(tokio::time::sleep(SECOND));
            done(timer.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }),
    ]
}

fn recorder() -> &'static PrometheusRecorder {
    static RECORDER: OnceLock<PrometheusRecorder> = OnceLock::new();
    RECORDER.get_or_init(prometheus)
}

fn breaker_alone(n: usize) -> Command {
    let command = Command::builder(&format!("alone.{n}")).no_timeout().unlimited().no_latency();
    command.build().expect("valid")
}

fn rs_breaker() -> RsBreaker<DefaultPolicy, Down> {
    RsBreaker::<DefaultPolicy, Down>::builder().build()
}

fn recovery(result: &Answer) -> RecoveryInfo {
    if result.is_ok() { RecoveryInfo::never() } else { RecoveryInfo::retry() }
}

fn seatbelt_breaker() -> impl layered::Service<(), Out = Answer> + Clone + 'static {
    let context = ResilienceContext::new(clock()).name("peers");
    let breaker = SeatbeltBreaker::layer("breaker", &context);
    let breaker = breaker.recovery_with(|result: &Answer, _| recovery(result)).rejected_input_error(|_, _| Down);
    (breaker, Execute::new(|()| answer(Ok(1)))).into_service()
}

fn seatbelt_both<F>(operation: fn() -> F) -> impl layered::Service<(), Out = Answer> + Clone + 'static
where
    F: Future<Output = Answer> + Send + 'static,
{
    let context = ResilienceContext::new(clock()).name("peers");
    let breaker = SeatbeltBreaker::layer("breaker", &context);
    let breaker = breaker.recovery_with(|result: &Answer, _| recovery(result)).rejected_input_error(|_, _| Down);
    let timeout = SeatbeltTimeout::layer("timeout", &context).timeout_error(|_| Down).timeout(SECOND);
    (breaker, timeout, Execute::new(move |()| operation())).into_service()
}

fn seatbelt_open() -> impl layered::Service<bool, Out = Answer> + Clone + 'static {
    let context = ResilienceContext::new(clock()).name("peers");
    let breaker = SeatbeltBreaker::layer("breaker", &context)
        .recovery_with(|result: &Answer, _| recovery(result))
        .rejected_input_error(|_, _| Down)
        .min_throughput(1)
        .break_duration(HOUR);
    let operation = Execute::new(|works: bool| answer(if works { Ok(1) } else { Err(Down) }));
    let service = (breaker, operation).into_service();
    for _ in 0..100 {
        now(service.execute(false)).expect_err("the operation failed");
    }
    service
}

/// One for all: it keeps a task that drives its timers.
fn clock() -> &'static Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(Clock::new_tokio)
}
