//! How many dispatches may be retries: a token bucket that first dispatches fill.
//!
//! Owns the bucket, in tenths of a retry, so that whole numbers do. Each first dispatch earns a tenth, and each retry costs
//! ten; so retries are a tenth of the work, and a cluster in which everything fails is not stormed by its own retries
//! (linkerd's retry budget). A reserve, slowly refilled, lets a quiet cluster survive the death of a Mac. Refuses to save up
//! more than the reserve: what a busy hour earned is not spent in one bad minute. So over any time at all
//!
//! ```text
//! retries <= reserve + what was refilled + a tenth of the first dispatches in that time
//! ```

use crate::limits::RetryLimits;
use crate::time::{At, Span};

/// What a retry costs, in tenths of itself.
const RETRY: u32 = 10;

#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryBudget {
    tenths: u32,
    /// Up to when the refill is counted.
    refilled: At,
}

impl RetryBudget {
    /// Full.
    pub(crate) fn new(limits: &RetryLimits) -> Self {
        Self { tenths: full(limits), refilled: At(0) }
    }

    /// A request is dispatched for the first time.
    pub(crate) fn deposit(&mut self, at: At, limits: &RetryLimits) {
        self.refill(at, limits);
        self.add(limits.earned_tenths, limits);
    }

    /// Whether a request may be dispatched again; if so, that is paid for.
    pub(crate) fn withdraw(&mut self, at: At, limits: &RetryLimits) -> bool {
        self.refill(at, limits);
        match self.tenths.checked_sub(RETRY) {
            Some(left) => {
                self.tenths = left;
                true
            }
            None => false,
        }
    }

    /// Retries left as of the latest call.
    pub(crate) fn left(&self) -> u32 {
        self.tenths / RETRY
    }

    /// Whole steps only; what is left of the time counts for the next one.
    fn refill(&mut self, at: At, limits: &RetryLimits) {
        let step = limits.refill_tenth.max(Span(1));
        let steps = at.since(self.refilled).0 / step.0;
        self.refilled = self.refilled + step.times(steps);
        self.add(u32::try_from(steps).unwrap_or(u32::MAX), limits);
    }

    fn add(&mut self, tenths: u32, limits: &RetryLimits) {
        self.tenths = self.tenths.saturating_add(tenths).min(full(limits));
    }
}

fn full(limits: &RetryLimits) -> u32 {
    limits.reserve.saturating_mul(RETRY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RetryLimits = RetryLimits { reserve: 2, earned_tenths: 1, refill_tenth: Span::from_s(1) };

    fn at(s: u64) -> At {
        At(s * 1_000_000)
    }

    /// How many retries in a row are allowed.
    fn burst(budget: &mut RetryBudget, at: At, limits: &RetryLimits) -> u32 {
        let mut allowed = 0;
        while budget.withdraw(at, limits) {
            allowed += 1;
        }
        allowed
    }

    fn empty(limits: &RetryLimits) -> RetryBudget {
        let mut budget = RetryBudget::new(limits);
        burst(&mut budget, at(0), limits);
        budget
    }

    #[test]
    fn the_death_of_one_mac_with_two_full_batches_does_not_exhaust_the_reserve() {
        let limits = RetryLimits::default();
        let mut budget = RetryBudget::new(&limits);
        assert_eq!(budget.left(), 64);
        assert_eq!(burst(&mut budget, at(0), &limits), 64);
        assert_eq!(budget.left(), 0);
    }

    #[test]
    fn ten_first_dispatches_earn_one_retry() {
        let mut budget = empty(&LIMITS);
        for _ in 0..9 {
            budget.deposit(at(0), &LIMITS);
        }
        assert!(!budget.withdraw(at(0), &LIMITS));
        budget.deposit(at(0), &LIMITS);
        assert!(budget.withdraw(at(0), &LIMITS));
        assert!(!budget.withdraw(at(0), &LIMITS));
    }

    #[test]
    fn no_more_is_saved_up_than_the_reserve() {
        let mut budget = RetryBudget::new(&LIMITS);
        for _ in 0..1_000 {
            budget.deposit(at(0), &LIMITS);
        }
        assert_eq!(burst(&mut budget, at(10_000), &LIMITS), 2);
    }

    #[test]
    fn the_reserve_grows_back_slowly_and_no_time_is_lost_between() {
        let mut budget = empty(&LIMITS);
        let ms = |ms: u64| At(ms * 1_000);
        let allowed =
            [9_999, 10_000, 14_500, 19_999, 20_000, 20_001].map(|then| budget.withdraw(ms(then), &LIMITS));
        assert_eq!(allowed, [false, true, false, false, true, false]);
    }

    #[test]
    fn a_refused_retry_costs_nothing() {
        let mut budget = empty(&LIMITS);
        for _ in 0..100 {
            assert!(!budget.withdraw(at(9), &LIMITS));
        }
        assert!(budget.withdraw(at(10), &LIMITS));
    }

    #[test]
    fn the_ends_of_the_number_range_are_survived() {
        let limits = RetryLimits { reserve: u32::MAX, earned_tenths: u32::MAX, refill_tenth: Span::ZERO };
        let mut budget = RetryBudget::new(&limits);
        budget.deposit(At(u64::MAX), &limits);
        assert!(budget.withdraw(At(u64::MAX), &limits));
        assert!(budget.withdraw(At(0), &limits));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn over_any_minute_retries_stay_within_the_reserve_the_refill_and_a_tenth_of_the_work(
            steps in proptest::collection::vec((0_u64..4_000, 0_u32..30, 0_u32..12), 1..80),
            reserve in 0_u32..20,
        ) {
            let limits = RetryLimits { reserve, ..RetryLimits::default() };
            let (mut budget, mut now, mut history) = (RetryBudget::new(&limits), At(0), Vec::new());
            for (ms, deposits, wanted) in steps {
                now = now + Span::from_ms(ms);
                (0..deposits).for_each(|_| budget.deposit(now, &limits));
                let retries: u32 = (0..wanted).map(|_| u32::from(budget.withdraw(now, &limits))).sum();
                prop_assert!(budget.left() <= reserve);
                prop_assert!(retries == wanted || budget.left() == 0, "refused with a retry left");
                history.push((now, deposits, retries));
            }
            for (start, ..) in &history {
                let minute: Vec<_> = history.iter().filter(|(at, ..)| at >= start && at.since(*start) <= Span::from_s(60)).collect();
                let deposits: u32 = minute.iter().map(|(_, deposits, _)| deposits).sum();
                let retries: u32 = minute.iter().map(|(.., retries)| retries).sum();
                // Sixty steps of the refill, and one that was almost over when the minute began.
                prop_assert!(10 * retries <= 10 * reserve + 61 + deposits);
            }
        }

        #[test]
        fn a_full_reserve_is_there_again_after_ten_minutes_of_rest(spent in 0_u32..200, s in 640_u64..10_000) {
            let limits = RetryLimits::default();
            let mut budget = RetryBudget::new(&limits);
            for _ in 0..spent {
                budget.withdraw(at(1), &limits);
            }
            prop_assert_eq!(burst(&mut budget, at(1 + s), &limits), 64);
        }
    }
}
