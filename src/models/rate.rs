//! The rate limit and the budget: turns and tokens, which are taken and given back.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use super::{at, prove};
use crate::budget::{Bucket, Budget, Claim};
use crate::error::Problems;
use crate::rate_limit::config::RateLimit;
use crate::rate_limit::limiter::Limiter;

fn limiter(limit: RateLimit) -> Arc<Limiter> {
    Arc::new(Limiter::new(Some(limit.check(&mut Problems::default()))))
}

/// P1 for the rate: of calls that come at once, as many are let go as a burst has, and none twice.
#[test]
fn no_turn_is_given_twice() {
    prove(&["turn"], || {
        let limiter = limiter(RateLimit::every(Duration::from_nanos(10)).burst(2));
        let ask = |limiter: &Arc<Limiter>| {
            let limiter = Arc::clone(limiter);
            thread::spawn(move || limiter.take(at(0)).is_ok())
        };
        let callers = [ask(&limiter), ask(&limiter)];
        let own = limiter.take(at(0)).is_ok();
        let went = callers.into_iter().filter_map(|caller| caller.join().ok()).filter(|&went| went).count();
        assert_eq!(went + usize::from(own), 2);
    });
}

/// A turn that is given back while another is being taken is never somebody else's too.
#[test]
fn a_turn_that_is_given_back_is_nobodys_or_the_next_ones() {
    prove(&["give back"], || {
        let limiter = limiter(RateLimit::every(Duration::from_nanos(10)).wait(Duration::from_nanos(100)));
        let reserve = |limiter: &Limiter| limiter.reserve(at(0)).expect("a turn");
        let (unused, _) = reserve(&limiter);
        let other = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || reserve(&limiter).1)
        };
        limiter.give_back(unused);
        let own = reserve(&limiter).1;
        assert_ne!(own, other.join().unwrap());
    });
}

/// E3: of two calls that find one token, one gets it.
#[test]
fn a_budget_is_not_overdrawn_by_two_at_once() {
    prove(&["budget"], || {
        let bucket = std::sync::Arc::new(Bucket::new(&Budget::share(1.0).floor(0.0)));
        bucket.deposit(at(0));
        let claim = |bucket: &std::sync::Arc<Bucket>| bucket.claim(at(0)).map(Claim::spend).is_some();
        let other = {
            let bucket = std::sync::Arc::clone(&bucket);
            thread::spawn(move || claim(&bucket))
        };
        let own = claim(&bucket);
        assert!(own != other.join().unwrap(), "one token, one attempt");
    });
}
