//! Invariants that no peer's case and no other file here holds: what counts as an error, herds, composition.

use std::collections::HashSet;
use std::time::Duration;

use fusebox::{Breaker, Command, Error, Outcome, State, Verdict};
use tokio::time::advance;

fn breaker() -> Breaker {
    Breaker::error_rate(1.0).min_calls(1).open_for(Duration::from_secs(5))
}

/// R6: one function says what counts, and the rate, the snapshot and the breaker follow it for every outcome there is.
#[tokio::test(start_paused = true)]
async fn every_outcome_counts_as_its_definition_says() {
    for outcome in Outcome::ALL {
        let command = Command::builder("r6").max_concurrent(1).breaker(breaker().min_calls(2)).build().unwrap();
        let run = || match outcome {
            Outcome::Success => command.admit().unwrap().succeed(),
            Outcome::Failure => command.admit().unwrap().fail(),
            Outcome::Ignored => command.admit().unwrap().ignore(),
            Outcome::Cancelled => drop(command.admit().unwrap()),
            Outcome::Panicked => {
                let panics = || command.run_sync(|| -> Result<(), ()> { std::panic::resume_unwind(Box::new(())) });
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
            }
            Outcome::Rejected => {
                let holder = command.admit().unwrap();
                assert!(command.admit().is_err());
                holder.ignore();
            }
            Outcome::ShortCircuited => {
                command.force_open("test", None);
                assert!(command.admit().is_err());
                command.clear_override();
            }
            _ => {}
        };
        if outcome == Outcome::RateLimited {
            continue; // There is no rate limit yet.
        }
        for _ in 0..2 {
            match outcome {
                Outcome::TimedOut => {
                    let call = command.run(std::future::pending::<Result<(), ()>>);
                    assert!(matches!(call.timeout(Duration::from_millis(1)).await, Err(Error::TimedOut(_))));
                }
                _ => run(),
            }
        }
        let snapshot = command.snapshot();
        assert_eq!(snapshot.lifetime().of(outcome), 2, "{outcome}");
        assert_eq!(snapshot.window().errors(), if outcome.is_error() { 2 } else { 0 }, "{outcome}");
        assert_eq!(snapshot.window().refused(), if outcome.was_started() { 0 } else { 2 }, "{outcome}");
        let expected = if outcome.is_error() { State::Open } else { State::Closed };
        assert_eq!(snapshot.state(), expected, "{outcome}");
    }
}

/// O5: a thousand circuits that open in the same millisecond do not probe in the same one. With jitter of 20 % the
/// waits spread over two seconds; a thousand draws leave no tenth of that with more than twice its share.
#[tokio::test(start_paused = true)]
async fn a_herd_does_not_probe_together() {
    fastrand::seed(5);
    let waits: Vec<_> = (0..1_000)
        .map(|_| {
            let command = Command::builder("o5").no_latency().breaker(breaker()).build().unwrap();
            command.admit().unwrap().fail();
            command.snapshot().retry_after().expect("it is open")
        })
        .collect();
    let (from, to) = (Duration::from_secs(4), Duration::from_secs(6));
    assert!(waits.iter().all(|wait| (from..=to).contains(wait)));
    let mut tenths = [0; 10];
    for wait in &waits {
        tenths[((*wait - from).as_millis() as usize / 200).min(9)] += 1;
    }
    assert!(tenths.iter().all(|&n| n > 0 && n <= 200), "{tenths:?}");
    assert!(waits.iter().map(Duration::as_micros).collect::<HashSet<_>>().len() > 900);
}

/// S8 (Sentinel #1638): where an inner command refuses, the outer one's probe is not spent on it, if its classifier
/// says that a call which never started says nothing.
#[tokio::test(start_paused = true)]
async fn a_probe_that_never_reached_the_dependency_is_given_back() {
    let outer = Command::builder("s8.outer")
        .breaker(breaker().jitter(0.0))
        .classify(|result: &Result<(), Error<&str>>| match result {
            Ok(()) => Verdict::Success,
            Err(error) if !error.was_started() => Verdict::Ignored,
            Err(_) => Verdict::Failure,
        })
        .build()
        .unwrap();
    let inner = Command::builder("s8.inner").max_concurrent(1).build().unwrap();
    outer.run(|| inner.run(async || Err("down"))).await.unwrap_err();
    advance(Duration::from_secs(5)).await;

    let holder = inner.admit().unwrap();
    assert!(matches!(outer.run(|| inner.run(async || Ok(()))).await, Err(Error::Failed(Error::Rejected(_)))));
    assert_eq!(outer.state(), State::HalfOpen);
    drop(holder);
    outer.run(|| inner.run(async || Ok(()))).await.unwrap();
    assert_eq!(outer.state(), State::Closed);
}

/// S8, the same inside one command: a full bulkhead uses up no probe.
#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_uses_up_no_probe() {
    let command = Command::builder("s8").max_concurrent(1).breaker(breaker().jitter(0.0)).build().unwrap();
    let holder = command.admit().unwrap();
    command.admit_owned().expect_err("one is the limit");
    command.reconfigure(|c| c.max_concurrent(2)).unwrap();
    command.admit().unwrap().fail();
    command.reconfigure(|c| c.max_concurrent(1)).unwrap();
    advance(Duration::from_secs(5)).await;
    command.admit().expect_err("the bulkhead is full");
    drop(holder);
    command.admit().unwrap().succeed();
    assert_eq!(command.state(), State::Closed);
}
