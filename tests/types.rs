//! What holds by type: auto traits, inference without annotations, sizes. Most of this file has passed when it compiles.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, ready};
use std::mem::{size_of, size_of_val};
use std::rc::Rc;
use std::time::Duration;

use fusebox::{
    Breaker, Builder, Bulkhead, ByResult, Call, Change, Classify, Command, Config, ConfigError, Counts, Error, Event,
    Events, Guard, Health, Hold, Latency, Outcome, Permit, Problem, Reason, Registry, Rejected, Report, Snapshot,
    State, TimedOut, Transition, Verdict, Window,
};

fn is_send<T: Send>(value: T) -> T {
    value
}

fn is_static<T: 'static>(value: T) -> T {
    value
}

fn shared<T: Send + Sync + 'static>() {}
fn sent<T: Send + 'static>() {}
fn cloned<T: Clone>() {}
fn unpinned<T: Unpin>() {}
fn shown<T: fmt::Debug>() {}
fn error<T: StdError + Send + Sync + 'static>() {}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn command() -> Command {
    Command::builder("types").build().expect("a good name")
}

/// X6: handles are shared freely, values are sent anywhere, errors are standard errors.
#[test]
fn auto_traits() {
    shared::<Command>();
    shared::<Command<fn(&Result<u32, Oops>) -> Verdict>>();
    shared::<Registry>();
    shared::<Permit<'static>>();
    sent::<Builder>();
    sent::<Events>();
    unpinned::<Events>();
    shared::<(Snapshot, Config, Breaker, Bulkhead, Window, Counts, Health, Latency, Hold)>();
    shared::<(Event, Transition, Report, Change, State, Outcome, Verdict, Reason)>();
    shared::<(fusebox::Ramp, fusebox::RampStage)>();
    shared::<(Rejected, TimedOut, ConfigError, Problem, Error<Oops>, ByResult)>();

    error::<Rejected>();
    error::<TimedOut>();
    error::<ConfigError>();
    error::<Error<Oops>>();
    error::<Error<std::io::Error>>();

    cloned::<(Command, Registry, Snapshot, Config, Breaker, Bulkhead, Event, Rejected, TimedOut, Error<Oops>)>();
    shown::<(Command, Builder, Registry, Snapshot, Config, Events, Permit<'static>, Error<Oops>)>();
    shown::<Builder<fn()>>();
    // A command and its clones do not ask the classifier to be cloned.
    struct NotClone;
    cloned::<Command<NotClone>>();
}

/// X6: what a test holds goes to its tasks and threads, whatever values there are in it.
#[cfg(feature = "test-util")]
#[test]
fn auto_traits_for_tests() {
    use fusebox::testing::{Entry, Script, Timeline};
    shared::<(Script<Rc<u32>, Rc<Oops>>, Timeline, Entry)>();
    cloned::<(Script<Rc<u32>, Rc<Oops>>, Entry)>();
    shown::<(Script<Rc<u32>, Rc<Oops>>, Timeline, Entry)>();
    drop(is_send(is_static(Script::<Rc<u32>, Rc<Oops>>::new().call())));
}

/// X6: a call asks its user for no more than it needs: what borrows may borrow, what is not `Send` may stay.
#[tokio::test]
async fn a_call_asks_for_nothing_it_does_not_need() {
    let command = command();
    // Neither `Send`, nor `'static`, nor `Clone`, nor `Unpin`, nor an error.
    struct Plain<'a>(&'a str);
    let (local, text) = (Rc::new(1), String::from("borrowed"));
    let value = command.run(async || Ok::<_, Plain<'_>>(Rc::clone(&local))).await;
    assert!(value.is_ok());
    let failed = command.run(async || Err::<Rc<u32>, _>(Plain(&text))).await;
    assert!(matches!(failed, Err(Error::Failed(Plain("borrowed")))));
    let consumed = command.run(move || async move { Ok::<_, Plain<'static>>(local) }).await;
    assert!(consumed.is_ok_and(|value| *value == 1));
}

/// X6: every form of a call is `Send` when what it runs is.
#[tokio::test]
async fn calls_are_send_and_spawn() {
    let command = command();
    let task = tokio::spawn({
        let command = command.clone();
        async move {
            let run = is_send(command.run(|| price("A-1"))).await?;
            let guarded = is_send(price("A-1").guarded_by(&command)).await?;
            let limited = is_send(command.run(|| price("A-1")).timeout(ms(80))).await?;
            let judged = is_send(command.run(|| price("A-1")).classify(|_| Verdict::Ignored)).await?;
            let helped = is_send(command.run(|| price("")).fallback(|_| async { Ok(3) })).await?;
            let blocking = is_send(is_static(command.clone()).spawn_blocking(|| Ok::<_, Oops>(3))).await?;
            Ok::<_, Error<Oops>>([run, guarded, limited, judged, helped, blocking])
        }
    });
    assert_eq!(task.await.expect("it does not panic"), Ok([3; 6]));

    let permit = command.admit_owned().expect("it is closed");
    tokio::spawn(async move { permit.succeed() }).await.expect("it does not panic");
    assert_eq!(command.snapshot().in_flight(), 0);
}

/// X6: the same where the error type holds a lifetime, be it `'static`, as `&'static str` and `Box<dyn Error>` do.
///
/// In an `async` block the compiler forgets which lifetime a type names, so a bound of `Call` that names the error type
/// would ask the closure for all of them: "implementation of `FnOnce` is not general enough".
#[tokio::test]
async fn calls_with_a_fallback_spawn_whatever_their_error_is() {
    type AnyError = Box<dyn StdError + Send + Sync>;
    let command = command();
    let task = tokio::spawn(async move {
        let work = async || Err::<u32, AnyError>("down".into());
        command.run(work).fallback(|_| async { Ok(3) }).await
    });
    assert!(matches!(task.await.expect("it does not panic"), Ok(3)));
}

/// A trait object, as a service that keeps calls in a collection has them.
#[tokio::test]
async fn calls_can_be_boxed() {
    let command = command();
    type Boxed<'a> = std::pin::Pin<Box<dyn Future<Output = Result<u32, Error<Oops>>> + Send + 'a>>;
    let calls: Vec<Boxed<'_>> = vec![
        Box::pin(command.run(|| price("A-1"))),
        Box::pin(price("A-1").guarded_by(&command).no_timeout()),
        Box::pin(command.run(|| price("")).fallback(async |_| Ok(3))),
    ];
    for call in calls {
        assert_eq!(call.await, Ok(3));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oops {
    NotFound,
    Busy(Option<Duration>),
}

impl Oops {
    fn is_not_found(&self) -> bool {
        *self == Self::NotFound
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy(wait) = *self { wait } else { None }
    }
}

impl fmt::Display for Oops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("oops")
    }
}

impl StdError for Oops {}

async fn price(sku: &str) -> Result<u32, Oops> {
    tokio::task::yield_now().await;
    if sku.is_empty() { Err(Oops::NotFound) } else { Ok(sku.len() as u32) }
}

struct HttpVerdict;

impl<T> Classify<T, Oops> for HttpVerdict {
    fn classify(&self, result: &Result<T, Oops>) -> Verdict {
        match result {
            Err(error) if error.is_not_found() => Verdict::Ignored,
            Err(error) => error.retry_after().map_or(Verdict::Failure, Verdict::OpenFor),
            Ok(_) => Verdict::Success,
        }
    }
}

/// DESIGN.md, section 2: the snippets, as they stand there.
#[tokio::test]
async fn the_snippets_of_the_design_compile() -> Result<(), Box<dyn StdError + Send + Sync>> {
    let mins = |n: u64| Duration::from_secs(60 * n);
    let pricing = Command::builder("pricing.fetch")
        .group("pricing")
        .timeout(Duration::from_millis(250))
        .max_concurrent(64)
        .breaker(
            Breaker::error_rate(0.5)
                .min_calls(20)
                .window(Duration::from_secs(10))
                .buckets(10)
                .open_for(Duration::from_secs(5))
                .growth(2.0)
                .max_open(Duration::from_secs(60))
                .jitter(0.2)
                .probes(1)
                .consecutive_failures(10)
                .slow_calls(0.8, Duration::from_millis(100)),
        )
        .max_concurrent_fallbacks(32)
        .build()?;

    let sku = String::from("A-1");
    let by_run = pricing.run(|| price(&sku)).await?;
    let by_guard = price(&sku).guarded_by(&pricing).await?;
    let by_options = pricing
        .run(|| price(&sku))
        .timeout(Duration::from_millis(80))
        .classify(|r| match r {
            Err(e) if e.is_not_found() => Verdict::Ignored,
            Err(e) => e.retry_after().map_or(Verdict::Failure, Verdict::OpenFor),
            Ok(_) => Verdict::Success,
        })
        .fallback(|_cause| async move { Ok(99) })
        .await?;
    // In the other order, and on a future.
    let by_options_too = price(&sku)
        .guarded_by(&pricing)
        .fallback(async |cause| Err(cause))
        .classify(|r| if r.is_ok() { Verdict::Success } else { Verdict::Failure })
        .no_timeout()
        .await?;
    assert_eq!([by_run, by_guard, by_options, by_options_too], [3; 4]);

    let row = pricing.run_sync(|| Ok::<_, Oops>("row"))?;
    let sum = pricing.spawn_blocking(move || Ok::<_, Oops>(sku.len())).await?;
    assert_eq!((row, sum), ("row", 3));

    let permit = pricing.admit()?;
    permit.succeed();
    pricing.admit()?.fail();
    pricing.admit()?.ignore();
    pricing.admit_owned()?.resolve(Verdict::Success);

    let http: Command<HttpVerdict> = Command::builder("http").classify(HttpVerdict).build()?;
    assert_eq!(http.run(|| price("")).await, Err(Error::Failed(Oops::NotFound)));
    assert_eq!(http.snapshot().lifetime().get("ignored"), 1);
    let busy = Oops::Busy(Some(mins(1)));
    assert_eq!(http.run(|| ready(Err::<u32, _>(busy))).await, Err(Error::Failed(busy)));
    assert_eq!(http.state(), State::Open);

    let answer = match pricing.run(|| price("A-1")).await {
        Ok(v) => v,
        Err(Error::Failed(e)) => return Err(e.into()),
        Err(Error::TimedOut(t)) => panic!("{:?} {:?} {}", t.limit(), t.elapsed(), t.command()),
        Err(Error::Rejected(r)) => match r.reason() {
            Reason::CircuitOpen | Reason::ForcedOpen | Reason::ProbeLimit => panic!("{:?}", r.retry_after()),
            Reason::ConcurrencyLimit | Reason::QueueTimeout | Reason::RateLimited => panic!("{}", r.command()),
            _ => unreachable!(),
        },
    };
    assert_eq!(answer, 3);

    pricing.reconfigure(|c| c.timeout(ms(150)))?;
    pricing.force_open("vendor maintenance", Some(mins(15)));
    pricing.force_closed(String::from("over"), None);
    pricing.clear_override();
    pricing.reset();
    let s = pricing.snapshot();
    let _: (Counts, Counts, Option<f64>, &Latency) = (s.window(), s.lifetime(), s.error_rate(), s.latency());
    let _: (usize, Option<usize>, Option<Duration>, &Config) = (s.in_flight(), s.limit(), s.retry_after(), s.config());
    let _: (u64, u64, u64) = (s.lifetime().get("timed_out"), s.window().errors(), s.window().total());
    let _: (Option<Duration>, Option<Duration>, Option<Duration>) =
        (s.latency().percentile(0.99), s.latency().mean(), s.latency().max());
    let events = pricing.subscribe();
    let _: &dyn futures::Stream<Item = Event> = &events;
    assert_eq!(pricing.state(), State::Closed);
    Ok(())
}

/// `Error<E>`: what it gives, and how `?` takes it.
#[test]
fn errors_convert_and_report() {
    #[derive(Debug, PartialEq)]
    enum ApiError {
        Price(Oops),
        Unavailable(&'static str),
        Late(Duration),
    }
    impl From<Oops> for ApiError {
        fn from(oops: Oops) -> Self {
            Self::Price(oops)
        }
    }
    impl From<Rejected> for ApiError {
        fn from(rejected: Rejected) -> Self {
            Self::Unavailable(rejected.command())
        }
    }
    impl From<TimedOut> for ApiError {
        fn from(late: TimedOut) -> Self {
            Self::Late(late.limit())
        }
    }

    let command = command();
    let failed = |error| command.run_sync(|| Err::<(), _>(error)).expect_err("it failed");
    command.force_open("test", Some(Duration::from_secs(60)));
    let refused = failed(Oops::NotFound);
    command.force_closed("test", None);
    command.clear_override();
    let failed = failed(Oops::NotFound);

    assert_eq!((failed.was_started(), refused.was_started()), (true, false));
    assert_eq!(failed.retry_after(), None);
    assert!(refused.retry_after().is_some_and(|wait| wait <= Duration::from_secs(60)));
    assert_eq!((failed.into_failed(), refused.into_failed()), (Some(Oops::NotFound), None));
    assert_eq!(failed.map(ApiError::from).flatten(), ApiError::Price(Oops::NotFound));
    assert_eq!(refused.map(ApiError::from).flatten(), ApiError::Unavailable("types"));
    assert_eq!(failed.map(|_| 7), Error::Failed(7));

    // `source()` gives the cause and `Display` does not repeat it.
    assert_eq!(failed.to_string(), "the guarded call failed");
    assert_eq!(failed.source().map(ToString::to_string).as_deref(), Some("oops"));
    assert_eq!(refused.to_string(), "command `types` refused the call: the circuit is forced open");
    assert!(refused.source().is_none());

    let boxed: Box<dyn StdError + Send + Sync> = failed.into();
    assert!(boxed.downcast_ref::<Error<Oops>>().is_some());
    let plain = |error: Error<Oops>| -> Result<(), Box<dyn StdError>> { Err(error)? };
    assert!(plain(refused).is_err_and(|error| error.is::<Error<Oops>>()));
}

/// A type-erased command can be kept in a struct without a parameter, by its default.
#[test]
fn a_command_needs_no_parameter_where_it_is_kept() {
    type Judge = fn(&Result<u32, Oops>) -> Verdict;
    struct Service {
        pricing: Command,
        search: Command<Judge>,
    }
    let judge: Judge = |_| Verdict::Ignored;
    let search = Command::builder("search").classify(judge).build().expect("a good name");
    let service = Service { pricing: command(), search };
    assert_eq!(service.pricing.run_sync(|| Ok::<_, Oops>(1)), Ok(1));
    assert_eq!(service.search.run_sync(|| Err(Oops::NotFound)), Err(Error::Failed(Oops::NotFound)));
    assert_eq!(service.search.snapshot().lifetime().get("ignored"), 1);
}

/// A future of a kilobyte, as a client's request is.
async fn large() -> Result<u32, Oops> {
    let buffer = [1_u8; 1024];
    tokio::task::yield_now().await;
    Ok(u32::from(buffer[1023]))
}

/// PERFORMANCE.md: a call is at most 256 bytes plus the future that it guards.
#[test]
fn a_call_is_as_large_as_its_operation_and_little_more() {
    const OVERHEAD: usize = 256;
    let command = command();
    let queued = Command::builder("queued").bulkhead(Bulkhead::new(1).queue(1, ms(1))).build().expect("it is good");
    let small = || ready(Ok::<u32, Oops>(1));
    let (least, most) = (size_of_val(&small()), size_of_val(&large()));
    assert!(most > 1024);
    let sizes = [
        ("run", size_of_val(&command.run(small)), least),
        ("run, large", size_of_val(&command.run(large)), most),
        ("run, queue", size_of_val(&queued.run(large)), most),
        ("run, timeout", size_of_val(&command.run(large).timeout(ms(1))), most),
        ("run, classify", size_of_val(&command.run(large).classify(|_| Verdict::Success)), most),
        ("run, fallback", size_of_val(&command.run(large).fallback(|_| ready(Ok(1)))), most),
        (
            "run, large fallback",
            size_of_val(&command.run(small).fallback(|_| async { large().await.map_err(Error::Failed) })),
            most + 64,
        ),
        ("spawn_blocking", size_of_val(&command.spawn_blocking(|| Ok::<u32, Oops>(1))), 0),
    ];
    for (form, size, inner) in sizes {
        assert!(size <= inner + OVERHEAD, "{form}: {size} bytes for a future of {inner}");
    }
}

/// The same for the combinator, which is given the future and need not make it.
#[test]
fn a_guarded_future_is_as_large_as_the_future_and_little_more() {
    const OVERHEAD: usize = 256;
    let command = command();
    let most = size_of_val(&large());
    for (form, size) in [
        ("guarded_by", size_of_val(&large().guarded_by(&command))),
        ("guarded_by, fallback", size_of_val(&large().guarded_by(&command).fallback(|_| ready(Ok(1))))),
    ] {
        assert!(size <= most + OVERHEAD, "{form}: {size} bytes for a future of {most}");
    }
}

/// Bug 56: a refusal is a small value, the same however many came before it, and an error adds nothing to its largest
/// case.
#[test]
fn errors_are_small() {
    assert!(size_of::<Rejected>() <= 40, "{}", size_of::<Rejected>());
    assert!(size_of::<TimedOut>() <= 48, "{}", size_of::<TimedOut>());
    assert!(size_of::<Error<()>>() <= 56, "{}", size_of::<Error<()>>());
    assert!(size_of::<Error<Box<dyn StdError>>>() <= 56);
    assert_eq!(size_of::<Command>(), 2 * size_of::<usize>());
    assert!(size_of::<Permit<'static>>() <= 64, "{}", size_of::<Permit<'static>>());
}

/// The type of a call can be named where a struct has to hold one.
#[tokio::test]
async fn a_call_can_be_named() {
    type Work = std::future::Ready<Result<u32, Oops>>;
    fn named(command: &Command) -> Call<'_, fn() -> Work, fusebox::ByCommand<'_, ByResult>> {
        command.run((|| ready(Ok(1))) as fn() -> Work)
    }
    assert_eq!(named(&command()).await, Ok(1));
}

/// The same for blocking work: its `'static` bounds are asked where the call is made, not where it is polled.
#[tokio::test]
async fn blocking_calls_spawn_whatever_their_error_is() {
    let command = command();
    let task = tokio::spawn(async move { command.spawn_blocking(|| Ok::<u32, &'static str>(1)).await });
    assert_eq!(task.await.expect("it does not panic"), Ok(1));
}
