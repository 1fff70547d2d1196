//! Calls that get a second attempt while the first runs: when, at whose cost, and what becomes of the other.
//!
//! In paused time, so every delay is exact.

mod support;

use std::cell::RefCell;
use std::future::{Future, ready};
use std::time::Duration;

use fusebox::testing::Script;
use fusebox::{Breaker, Budget, Bulkhead, Command, Error, Hedge, Jitter, Outcome, Retry, Verdict};
use futures::future::join_all;
use support::*;
use tokio::time::Instant;

fn supplier() -> Command {
    Command::builder("hedge").breaker(Breaker::disabled()).no_budget().build().expect("valid")
}

/// Operations that take their time, one after the other, and what became of them.
struct Race {
    script: Script<u32, Failure>,
    begun: Instant,
}

impl Race {
    /// After so many milliseconds, that result; the last one for ever.
    fn new(runs: &[(u64, Result<u32, Failure>)]) -> Self {
        let run = |script: Script<_, _>, &(millis, result)| script.with(move || result).after(ms(millis));
        Self { script: runs.iter().fold(Script::new(), run).forever(), begun: Instant::now() }
    }

    fn next(&self) -> impl Future<Output = Result<u32, Failure>> + use<> {
        self.script.call()
    }

    /// When each was started, how long the race took, and how many of its operations are still there.
    fn seen(&self) -> (Vec<u128>, u128, usize) {
        (starts(&self.script), self.begun.elapsed().as_millis(), self.script.running())
    }
}

/// Hedges: won, lost, denied.
fn hedges<C>(command: &Command<C>) -> [u64; 3] {
    let attempts = command.snapshot().attempts();
    [attempts.hedges_won, attempts.hedges_lost, attempts.hedges_denied]
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_that_is_quick_is_alone() {
    let (command, race) = (supplier(), Race::new(&[(29, Ok(1))]));
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).await, Ok(1));
    assert_eq!((race.seen(), hedges(&command)), ((vec![0], 29, 0), [0, 0, 0]));
    // A call that is hedged and not retried counts no attempts of a retry.
    let attempts = command.snapshot().attempts();
    assert_eq!((attempts.calls, attempts.started, attempts.success), (1, 1, 0));
}

/// E4: the first success wins; the loser is gone before the winner is returned, its permit is back, and it is cancelled
/// without blame, also where cancelled calls count.
#[tokio::test(start_paused = true)]
async fn the_second_attempt_wins_and_the_first_is_cancelled_without_blame() {
    let breaker = Breaker::disabled().consecutive_failures(1).count_cancelled_after(ms(1));
    let command = Command::builder("hedge").breaker(breaker).no_budget().build().expect("valid");
    let race = Race::new(&[(500, Ok(1)), (20, Ok(2))]);
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).await, Ok(2));
    assert_eq!((race.seen(), hedges(&command)), ((vec![0, 30], 50, 0), [1, 0, 0]));
    assert_eq!(outcomes(&command), [(Outcome::Success, 1), (Outcome::Cancelled, 1)]);
    assert_eq!(command.snapshot().in_flight(), 0);
    // And the other way round.
    let race = Race::new(&[(40, Ok(1)), (500, Ok(2))]);
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).await, Ok(1));
    assert_eq!((race.seen(), hedges(&command)), ((vec![0, 30], 40, 0), [1, 1, 0]));
    assert_eq!(outcomes(&command), [(Outcome::Success, 2), (Outcome::Cancelled, 2)]);
}

/// P26: with a delay of zero both start at once; with one that never ends the second starts when the first has failed.
#[tokio::test(start_paused = true)]
async fn p26_no_delay_starts_both_at_once_and_an_infinite_one_only_after_a_failure() {
    let (command, race) = (supplier(), Race::new(&[(20, Ok(1)), (10, Ok(2))]));
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(Duration::ZERO)).await, Ok(2));
    assert_eq!(race.seen(), (vec![0, 0], 10, 0));
    let race = Race::new(&[(20, Err(DOWN)), (10, Ok(2))]);
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(Duration::MAX)).await, Ok(2));
    assert_eq!(race.seen(), (vec![0, 20], 30, 0));
    let race = Race::new(&[(900, Ok(1)), (10, Ok(2))]);
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(Duration::MAX)).await, Ok(1));
    assert_eq!(race.seen(), (vec![0], 900, 0));
}

/// A first attempt that fails before the delay is followed at once, as in Polly and gRPC.
#[tokio::test(start_paused = true)]
async fn a_failure_before_the_delay_starts_the_second_attempt_at_once() {
    let (command, race) = (supplier(), Race::new(&[(5, Err("first")), (5, Err("second"))]));
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).await, Err(Error::Failed("second")));
    assert_eq!((race.seen(), hedges(&command)), ((vec![0, 5], 10, 0), [0, 1, 0]));
    // Not after a result that says nothing of the dependency, nor after a refusal.
    let race = Race::new(&[(5, Err("not found"))]);
    let call = command.hedge(|| race.next()).with(Hedge::after(ms(30))).classify(|_| Verdict::Ignored);
    assert_eq!((call.await, race.seen()), (Err(Error::Failed("not found")), (vec![0], 5, 0)));
    command.force_open("maintenance", None);
    let race = Race::new(&[(5, Ok(1))]);
    assert!(matches!(command.hedge(|| race.next()).with(Hedge::after(ms(1))).await, Err(Error::Rejected(_))));
    assert_eq!((race.seen().0.len(), ended(&command, "short_circuited")), (0, 1));
}

/// A failure while the other attempt runs decides nothing.
#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_the_other_attempt() {
    for runs in [[(40, Err("slow")), (60, Ok(2))], [(80, Ok(2)), (5, Err("quick"))]] {
        let (command, race) = (supplier(), Race::new(&runs));
        assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).await, Ok(2));
        assert_eq!(race.seen().0, [0, 30]);
    }
    // A timeout too: each attempt has its own.
    let (command, race) = (supplier(), Race::new(&[(900, Ok(1)), (60, Ok(2))]));
    assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).timeout(ms(70)).await, Ok(2));
    assert_eq!(
        (race.seen(), outcomes(&command)),
        ((vec![0, 30], 90, 0), vec![(Outcome::Success, 1), (Outcome::TimedOut, 1)])
    );
}

/// F26: with an empty budget no hedge is sent, and the first attempt's result is the call's.
#[tokio::test(start_paused = true)]
async fn f26_with_an_empty_budget_there_is_no_second_attempt() {
    let command = Command::builder("hedge").budget(Budget::share(0.0).floor(0.0)).build().expect("valid");
    for result in [Ok(1), Err(DOWN)] {
        let race = Race::new(&[(500, result)]);
        assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).await, result.map_err(Error::Failed));
        assert_eq!(race.seen(), (vec![0], 500, 0));
    }
    assert_eq!((hedges(&command), command.snapshot().attempts().amplification()), ([0, 0, 2], Some(1.0)));
}

/// F27: no hedges before the command knows its own latency; then at the percentile that it has learnt.
#[tokio::test(start_paused = true)]
async fn f27_a_percentile_hedges_only_after_its_warm_up() {
    let command = supplier();
    let policy = Hedge::percentile(0.9).warm_up(20);
    for _ in 0..20 {
        let race = Race::new(&[(100, Ok(1))]);
        assert_eq!(command.hedge(|| race.next()).with(policy).await, Ok(1));
        assert_eq!(race.seen(), (vec![0], 100, 0));
    }
    let race = Race::new(&[(900, Ok(1)), (10, Ok(2))]);
    assert_eq!(command.hedge(|| race.next()).with(policy).await, Ok(2));
    let (starts, ..) = race.seen();
    assert!(starts.len() == 2 && (100..=107).contains(&starts[1]), "{starts:?}");
    // Without latencies there is nothing to learn from.
    let blind = Command::builder("hedge").no_latency().build().expect("valid");
    let race = Race::new(&[(900, Ok(1))]);
    assert_eq!(blind.hedge(|| race.next()).with(policy).await, Ok(1));
    assert_eq!(race.seen().0, [0]);
}

/// F28: there are no negative delays here; a percentile that is none sends no hedge, and the command refuses to be built
/// with it.
#[tokio::test(start_paused = true)]
async fn f28_a_percentile_out_of_range_sends_no_hedge() {
    let command = supplier();
    record(&command, &[ms(10); 100]).await;
    for share in [-0.5, 1.5, f64::NAN] {
        let race = Race::new(&[(900, Ok(1))]);
        assert_eq!(command.hedge(|| race.next()).with(Hedge::percentile(share)).await, Ok(1));
        assert_eq!(race.seen().0, [0], "{share}");
        let refused = Command::builder("hedge").hedge(Hedge::percentile(share)).build().unwrap_err();
        assert_eq!(refused.field(), "hedge.percentile");
    }
    let refused = Command::builder("hedge").hedge(Hedge::default().warm_up(0)).build().unwrap_err();
    assert_eq!(refused.field(), "hedge.warm_up");
}

/// Bug 51: in a brown-out, where all calls take ten times as long, a policy of the slowest five in a hundred hedges no
/// more than these.
#[tokio::test(start_paused = true)]
async fn bug_51_a_brown_out_does_not_hedge_all_calls() {
    let command = Command::builder("hedge").breaker(Breaker::disabled()).unlimited().build().expect("valid");
    let call = async |millis: u64| {
        let race = Race::new(&[(millis, Ok(1))]);
        assert_eq!(command.hedge(|| race.next()).with(Hedge::percentile(0.95)).await, Ok(1));
        race.script.started() - 1
    };
    for n in 0..1000 {
        call(10 + n % 5).await;
    }
    let before = hedges(&command);
    let mut hedged = 0;
    for _ in 0..100 {
        hedged += join_all((0..20).map(|_| call(100))).await.into_iter().sum::<usize>();
    }
    // Five in a hundred of 2000, and ten that were saved up.
    assert!((90..=110).contains(&hedged), "{hedged}");
    assert!(hedges(&command)[2] > before[2], "the others were denied");
}

/// Bug 34: a hedge that is not needed holds nothing that others wait for.
#[tokio::test(start_paused = true)]
async fn bug_34_hedges_do_not_use_up_the_bulkhead() {
    let bulkhead = Bulkhead::new(4).queue(64, secs(60));
    let command = Command::builder("hedge").breaker(Breaker::disabled()).bulkhead(bulkhead).no_budget();
    let command = command.build().expect("valid");
    for _ in 0..100 {
        let call = async |n: u64| {
            let race = Race::new(&[(1 + n % 4, Ok(1))]);
            command.hedge(|| race.next()).with(Hedge::after(ms(2))).await
        };
        assert!(join_all((0..10).map(call)).await.iter().all(|end| *end == Ok(1)));
        let snapshot = command.snapshot();
        assert_eq!((snapshot.in_flight(), snapshot.queue_length()), (0, 0));
    }
    assert!(command.snapshot().peak_in_flight() <= 4);
}

/// A second attempt is admitted for itself: where there is no room it is not started, costs nothing, and its refusal is
/// not the call's.
#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_is_refused_is_of_no_account() {
    let command = Command::builder("hedge").max_concurrent(1).budget(Budget::share(1.0).floor(0.0));
    let command = command.build().expect("valid");
    for result in [Ok(1), Err(DOWN)] {
        let race = Race::new(&[(50, result)]);
        assert_eq!(command.hedge(|| race.next()).with(Hedge::after(ms(30))).await, result.map_err(Error::Failed));
        assert_eq!(race.seen().0, [0]);
    }
    assert_eq!((hedges(&command), ended(&command, "rejected")), ([0, 0, 0], 2));
    // Both calls' tokens are still there.
    command.reconfigure(|config| config.max_concurrent(9)).expect("valid");
    for hedged in [2, 2, 2, 1] {
        let race = Race::new(&[(50, Err(DOWN)), (50, Err(DOWN))]);
        let call = command.hedge(|| race.next()).with(Hedge::after(ms(30)));
        assert!(call.await.is_err());
        command.reconfigure(|config| config.budget(Budget::share(0.0).floor(0.0))).expect("valid");
        assert_eq!(race.seen().0.len(), hedged);
    }
}

/// With retry, what is attempted again is two attempts that have both failed; the deadline holds for all of them.
#[tokio::test(start_paused = true)]
async fn retried_calls_can_be_hedged() {
    let policy = Retry::constant(ms(10)).jitter(Jitter::None);
    let (command, race) = (supplier(), Race::new(&[(40, Err(DOWN)), (20, Err(DOWN)), (900, Ok(1)), (5, Ok(2))]));
    let call = command.retry(|| race.next()).with(policy.clone()).hedge(Hedge::after(ms(30)));
    assert_eq!((call.await, race.seen()), (Ok(2), (vec![0, 30, 60, 90], 95, 0)));
    assert_eq!((hedges(&command), command.snapshot().attempts().retried), ([1, 1, 0], 1));
    let race = Race::new(&[(900, Ok(1))]);
    let call = command.hedge(|| race.next()).with(Hedge::after(ms(30))).retry(policy.timeouts(true)).deadline(ms(70));
    assert!(matches!(call.await, Err(Error::TimedOut(_))));
    assert_eq!(race.seen(), (vec![0, 30], 70, 0));
}

/// The fallback comes last, once, with the error of the attempt that failed last.
#[tokio::test(start_paused = true)]
async fn the_fallback_follows_both_attempts() {
    let (command, race) = (supplier(), Race::new(&[(60, Err("last")), (10, Err("first"))]));
    let seen = RefCell::new(Vec::new());
    let call = command.hedge(|| race.next()).with(Hedge::after(ms(30))).fallback(|cause| {
        seen.borrow_mut().push(cause);
        ready(Ok(9))
    });
    assert_eq!(call.await, Ok(9));
    assert_eq!((seen.take(), fallbacks(&command)), (vec![Error::Failed("last")], (1, 0, 0)));
}

/// P25, E6: dropped after any number of milliseconds, a race leaves no attempt, no permit and no token behind.
#[tokio::test(start_paused = true)]
async fn p25_a_race_can_be_dropped_at_any_time() {
    let command = Command::builder("hedge").breaker(Breaker::disabled()).budget(Budget::share(1.0).floor(0.0));
    let command = command.build().expect("valid");
    let mut started = 0;
    for millis in 0..100 {
        let race = Race::new(&[(60, Err(DOWN)), (50, Err(DOWN))]);
        let call = command.hedge(|| race.next()).with(Hedge::after(ms(30)));
        let _ = tokio::time::timeout(ms(millis), call).await;
        let (starts, _, alive) = race.seen();
        started += starts.len() as u64;
        assert_eq!((alive, command.snapshot().in_flight()), (0, 0), "after {millis} ms");
        let [won, lost, denied] = hedges(&command);
        let lifetime = command.snapshot().lifetime();
        assert_eq!((lifetime.calls(), won, denied), (started, 0, 0), "after {millis} ms");
        assert_eq!(lost, started - command.snapshot().attempts().calls, "after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_can_be_spawned() {
    let command = supplier();
    let task = tokio::spawn(async move {
        let sku = String::from("A-1");
        let fetch = async |sku: &str| {
            tokio::task::yield_now().await;
            Ok::<_, Failure>(sku.len())
        };
        command.hedge(|| fetch(&sku)).with(Hedge::after(ms(1))).when(|result| result.is_err()).await
    });
    assert_eq!(task.await.expect("no panic"), Ok(3));
}
