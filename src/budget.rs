//! How many attempts beyond the first a dependency gets.
//!
//! Retries help against faults that are rare and make those that are not worse: with three attempts a call, a dependency
//! that fails under load gets three times the load, and does not come back while its callers keep that up. So calls pay
//! for attempts: each call puts a share of a token into a bucket, each attempt beyond its first takes a whole one out, and
//! where there is none there is no attempt. In the long run extra attempts are at most that share of the calls, and a
//! small floor lets commands with few calls retry at all. The idea is that of Finagle's `RetryBudget`; its expiry of old
//! deposits is here a limit on how much is saved up, as in gRPC's retry throttling, so that a good hour does not pay for
//! a storm.
//!
//! A token is taken before the wait for the attempt, so attempts that sleep are counted, and one that never starts gives
//! it back.

use std::fmt;
use std::sync::Arc;

use crate::error::Problems;
use crate::sync::{AtomicU64, Ordering, seeded};
use crate::time::Stamp;

/// What a command spends on attempts beyond the first: its retries and hedges together. Plain data with consuming
/// setters.
///
/// | setting | default | unit and range |
/// |---|---|---|
/// | [`share`](Self::share) | 0.2 | extra attempts per call that may have some, in [0, 10] |
/// | [`floor`](Self::floor) | 10 | extra attempts per second, whatever the calls; in [0, 1,000,000] |
/// | [`burst`](Self::burst) | 100 | extra attempts that are saved up, 1 to 1,000,000,000 |
///
/// A call is paid in when it begins; plain calls, which cannot be attempted again, pay nothing. To begin with there is
/// what ten seconds of the floor give, and never more than `burst`.
///
/// Each command has a budget of its own, also where several are built with one value, unless it is made
/// [`shared`](Self::shared).
///
/// ```
/// use fusebox::{Budget, Command};
///
/// // Two commands that call one dependency, and together may make one extra attempt for ten calls.
/// let budget = Budget::share(0.1).floor(1.0).shared();
/// let read = Command::builder("db.read").budget(budget.clone()).build()?;
/// let write = Command::builder("db.write").budget(budget).build()?;
/// # Ok::<(), fusebox::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a budget does nothing until a command is built with it"]
#[non_exhaustive]
pub struct Budget {
    /// Extra attempts per call.
    pub share: f64,
    /// Extra attempts per second.
    pub floor: f64,
    /// Extra attempts that are saved up.
    pub burst: u32,
    shared: Option<Shared>,
}

const MAX_SHARE: f64 = 10.0;
const MAX_FLOOR: f64 = 1e6;
const MAX_BURST: u32 = 1_000_000_000;
/// Seconds of the floor that are there to begin with.
const HEAD_START: f64 = 10.0;

impl Default for Budget {
    fn default() -> Self {
        Self { share: 0.2, floor: 10.0, burst: 100, shared: None }
    }
}

impl Budget {
    /// Extra attempts per call, in [0, 10]: 0.2 lets one call in five have one.
    pub fn share(share: f64) -> Self {
        Self { share, ..Self::default() }
    }

    /// Extra attempts per second that are allowed whatever the number of calls, in [0, 1,000,000].
    pub fn floor(self, per_second: f64) -> Self {
        Self { floor: per_second, shared: None, ..self }
    }

    /// The most extra attempts that are saved up for bad moments, 1 to 1,000,000,000.
    pub fn burst(self, attempts: u32) -> Self {
        Self { burst: attempts, shared: None, ..self }
    }

    /// One budget that all commands have in common which are built with this value or a clone of it. A setter that is
    /// called on it afterwards makes another.
    pub fn shared(self) -> Self {
        let bucket = Arc::new(Bucket::new(&self));
        Self { shared: Some(Shared(bucket)), ..self }
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        let fits = (0.0..=MAX_SHARE).contains(&self.share);
        problems.require(fits, "budget.share", || self.share, "extra attempts per call in [0, 10]");
        let fits = (0.0..=MAX_FLOOR).contains(&self.floor);
        problems.require(fits, "budget.floor", || self.floor, "extra attempts per second in [0, 1000000]");
        let fits = (1..=MAX_BURST).contains(&self.burst);
        problems.require(fits, "budget.burst", || self.burst, "1 to 1000000000 extra attempts");
    }

    /// The tokens of this budget: those that are shared, or `own` ones, which then follow its settings.
    pub(crate) fn bucket(&self, own: Option<Arc<Bucket>>) -> Arc<Bucket> {
        match (&self.shared, own) {
            (Some(Shared(bucket)), _) => Arc::clone(bucket),
            (None, Some(own)) => {
                own.tune(self);
                own
            }
            (None, None) => Arc::new(Bucket::new(self)),
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }
}

#[derive(Clone)]
struct Shared(Arc<Bucket>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shared")
    }
}

/// A token, in the millionths that are counted in.
const TOKEN: u64 = 1_000_000;

/// The tokens of a budget. Lock-free; what is taken was there, under any interleaving.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// In millionths of a token.
    balance: AtomicU64,
    /// Up to when the floor has been paid in; [`Stamp::NEVER`] before the first use.
    paid: AtomicU64,
    /// Millionths of a token per call.
    share: AtomicU64,
    /// Millionths of a token per second.
    floor: AtomicU64,
    /// Most that is saved up, in millionths of a token; with what is short of one more, which is not lost.
    burst: AtomicU64,
}

impl Bucket {
    pub(crate) fn new(budget: &Budget) -> Self {
        let zero = || AtomicU64::new(0);
        let bucket = Self {
            balance: zero(),
            paid: AtomicU64::new(Stamp::NEVER.as_nanos()),
            share: zero(),
            floor: zero(),
            burst: zero(),
        };
        bucket.tune(budget);
        bucket.add(millionths(budget.floor.min(MAX_FLOOR) * HEAD_START));
        bucket
    }

    /// Follows other settings. What has been saved up stays, as far as it may.
    pub(crate) fn tune(&self, budget: &Budget) {
        self.share.store(millionths(budget.share.min(MAX_SHARE)), Ordering::Relaxed);
        self.floor.store(millionths(budget.floor.min(MAX_FLOOR)), Ordering::Relaxed);
        let burst = u64::from(budget.burst.clamp(1, MAX_BURST)) * TOKEN;
        self.burst.store(burst + TOKEN - 1, Ordering::Relaxed);
        self.add(0);
    }

    /// A call begins, which may come to need more than one attempt.
    pub(crate) fn deposit(&self, now: Stamp) {
        self.pay_floor(now);
        self.add(self.share.load(Ordering::Relaxed));
    }

    /// Pays in so many tokens.
    pub(crate) fn credit(&self, tokens: f64) {
        self.add(millionths(tokens));
    }

    /// Takes a token for one more attempt, if there is one.
    pub(crate) fn claim(self: &Arc<Self>, now: Stamp) -> Option<Claim> {
        self.pay_floor(now);
        self.take().then(|| Claim(Some(Arc::clone(self))))
    }

    fn take(&self) -> bool {
        if seeded("budget") {
            let balance = self.balance.load(Ordering::Relaxed);
            let enough = balance >= TOKEN;
            self.balance.store(balance - if enough { TOKEN } else { 0 }, Ordering::Relaxed);
            return enough;
        }
        let less = |balance: u64| balance.checked_sub(TOKEN);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn add(&self, amount: u64) {
        let burst = self.burst.load(Ordering::Relaxed);
        let more = |balance: u64| Some(balance.saturating_add(amount).min(burst)).filter(|&sum| sum != balance);
        // An error says that nothing changes: the bucket is full.
        let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Pays in what the floor has come to by `now`. Of several threads that see the same time pass, one does.
    fn pay_floor(&self, now: Stamp) {
        const SECOND: u128 = 1_000_000_000;
        let floor = u128::from(self.floor.load(Ordering::Relaxed));
        let paid = self.paid.load(Ordering::Relaxed);
        let claim_time = |until: Stamp| {
            self.paid.compare_exchange(paid, until.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if paid == Stamp::NEVER.as_nanos() {
            claim_time(now);
            return;
        }
        let passed = u128::from(now.nanos_since(Stamp::from_nanos(paid)));
        let due = passed * floor / SECOND;
        if due == 0 {
            // Without a floor time passes unpaid, so that one that is set later begins there.
            if floor == 0 && passed > 0 {
                claim_time(now);
            }
            return;
        }
        // The time that was paid for and no more: what is too short for a millionth waits for the next one.
        let for_it = (due * SECOND).div_ceil(floor).min(passed) as u64;
        if claim_time(Stamp::from_nanos(paid).plus(for_it)) {
            self.add(u64::try_from(due).unwrap_or(u64::MAX));
        }
    }

    #[cfg(test)]
    pub(crate) fn tokens(&self) -> f64 {
        self.balance.load(Ordering::Relaxed) as f64 / TOKEN as f64
    }
}

/// Rounds to the nearest; NaN and what is below 0, which a budget that was never checked may have, is 0.
fn millionths(tokens: f64) -> u64 {
    (tokens * TOKEN as f64).round() as u64
}

/// A token that was taken for an attempt. Dropped before the attempt has started, it goes back.
#[derive(Debug)]
#[must_use = "a token that is dropped goes back"]
pub(crate) struct Claim(Option<Arc<Bucket>>);

impl Claim {
    /// The attempt starts.
    pub(crate) fn spend(mut self) {
        self.0 = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(bucket) = &self.0 {
            bucket.add(TOKEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Stamp {
        Stamp::from_nanos(nanos)
    }

    fn bucket(share: f64, floor: f64, burst: u32) -> Arc<Bucket> {
        Arc::new(Bucket::new(&Budget::share(share).floor(floor).burst(burst)))
    }

    fn spend(bucket: &Arc<Bucket>, now: u64) -> bool {
        bucket.claim(at(now)).map(Claim::spend).is_some()
    }

    /// Bug 48: tower's budget truncated 0.6 to "always". Every percentage, paid in and taken out by turns, and all at
    /// once after it was saved up.
    #[test]
    fn bug_48_extra_attempts_are_the_share_of_the_calls_to_one_in_a_hundred() {
        for percent in 1..=100_u32 {
            let expected = f64::from(percent) * 100.0;
            let (by_turns, saved) =
                (bucket(f64::from(percent) / 100.0, 0.0, 1), bucket(f64::from(percent) / 100.0, 0.0, 10_000));
            let mut taken = 0_u32;
            for _ in 0..10_000 {
                by_turns.deposit(at(0));
                saved.deposit(at(0));
                taken += u32::from(spend(&by_turns, 0));
            }
            let at_once = (0..10_000).take_while(|_| spend(&saved, 0)).count();
            for taken in [f64::from(taken), at_once as f64] {
                assert!((taken / expected - 1.0).abs() <= 0.01, "{percent} %: {taken}");
            }
        }
    }

    /// Bug 49: a call counts from its beginning, so that one alone, with a share of 1, has its retry.
    #[test]
    fn bug_49_one_call_with_a_share_of_one_has_one_retry() {
        let bucket = bucket(1.0, 0.0, 100);
        bucket.deposit(at(0));
        assert_eq!([spend(&bucket, 0), spend(&bucket, 0)], [true, false]);
    }

    #[test]
    fn the_floor_is_paid_by_the_clock_and_saved_up_to_the_burst() {
        let bucket = bucket(0.0, 10.0, 100);
        let all = |now| (0..).take_while(|_| spend(&bucket, now)).count();
        assert_eq!([all(0), all(SECOND / 10 - 1), all(SECOND / 10), all(SECOND)], [100, 0, 1, 9]);
        assert_eq!([all(8 * SECOND), all(1000 * SECOND), all(1000 * SECOND)], [70, 100, 0]);
        assert_eq!(all(500 * SECOND), 0, "a clock that goes back pays nothing");
    }

    #[test]
    fn a_token_whose_attempt_never_started_goes_back() {
        let bucket = bucket(1.0, 0.0, 100);
        bucket.deposit(at(0));
        let claim = bucket.claim(at(0)).expect("there is one");
        assert_eq!((bucket.tokens(), bucket.claim(at(0)).is_none()), (0.0, true));
        drop(claim);
        assert_eq!(bucket.tokens(), 1.0);
        bucket.claim(at(0)).expect("it is back").spend();
        assert_eq!(bucket.tokens(), 0.0);
    }

    #[test]
    fn other_settings_keep_what_was_saved_up_as_far_as_they_may() {
        let (own, settings) = (bucket(1.0, 5.0, 100), Budget::share(0.5).floor(0.0).burst(20));
        let same = settings.bucket(Some(Arc::clone(&own)));
        assert!(Arc::ptr_eq(&same, &own));
        assert_eq!(same.tokens().floor(), 20.0);
        let shared = settings.shared();
        assert!(Arc::ptr_eq(&shared.bucket(Some(own)), &shared.clone().bucket(None)));
        assert_ne!(shared, shared.clone().burst(21));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Deposit,
        Claim,
        Spend,
        Return,
        Pass(u64),
    }

    proptest! {
        /// E3: whatever the order, attempts are paid for: by deposits, by the floor, and by what was there to begin with.
        #[test]
        fn a_budget_is_never_overdrawn(
            share in 0.0..2.0_f64,
            floor in 0.0..50.0_f64,
            burst in 1..200_u32,
            steps in prop::collection::vec(
                prop_oneof![
                    3 => Just(Step::Deposit),
                    3 => Just(Step::Claim),
                    2 => Just(Step::Spend),
                    1 => Just(Step::Return),
                    1 => (0..3 * SECOND).prop_map(Step::Pass),
                ],
                0..400,
            ),
        ) {
            let bucket = bucket(share, floor, burst);
            let (mut now, mut paid, mut spent, mut held) = (0, bucket.tokens(), 0.0, Vec::new());
            prop_assert!(paid < f64::from(burst) + 1.0);
            bucket.deposit(at(0));
            paid += share;
            for step in steps {
                match step {
                    Step::Deposit => { bucket.deposit(at(now)); paid += share; }
                    Step::Claim => held.extend(bucket.claim(at(now))),
                    Step::Spend => if let Some(claim) = held.pop() { claim.spend(); spent += 1.0; },
                    Step::Return => drop(held.pop()),
                    Step::Pass(nanos) => { now += nanos; paid += nanos as f64 * 1e-9 * floor; }
                }
                prop_assert!(bucket.tokens() + held.len() as f64 + spent <= paid + 0.01);
                prop_assert!(bucket.tokens() < f64::from(burst) + 1.0);
            }
        }
    }
}
