//! How long an answer will be: quantiles of the completed answers of like requests.
//!
//! Owns the lengths seen, per tenant, model and bound (`max_tokens`, by powers of two), per model and bound, and per model.
//! The specific counts as far as there is enough of it, the general for the rest, an assumption at last. Refuses to be relied
//! on: it weighs nodes against one another, nothing is refused or cut by it.

mod blend;
mod histogram;

use self::blend::Blend;
use self::histogram::Histogram;
use crate::ids::{ModelId, TenantId};
use crate::limits::{AnswerLimits, Limits};
use crate::recent::Recent;

#[derive(Debug)]
pub(crate) struct AnswerBook {
    lengths: Recent<Scope, Histogram>,
    limits: AnswerLimits,
    assumed: u32,
}

/// Whose answers. A bound is the binary logarithm of `max_tokens`: clients choose a handful of values, far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Model(ModelId),
    Bound(ModelId, u32),
    Tenant(ModelId, u32, TenantId),
}

impl AnswerBook {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { lengths: Recent::default(), limits: limits.answers, assumed: limits.output_tokens }
    }

    /// An answer came to its end, by itself or at its bound. One that was broken off says nothing and is not told.
    pub(crate) fn completed(&mut self, tenant: TenantId, model: ModelId, max_tokens: u32, generated: u32) {
        let tokens = generated.min(self.limits.tokens_max);
        let [own, bound, all] = scopes(tenant, model, max_tokens);
        // What ended at its bound would have gone on under another one.
        let all = (generated < max_tokens).then_some(all);
        for scope in [Some(own), Some(bound), all].into_iter().flatten() {
            if let Some(lengths) = self.lengths.touch(scope, self.limits.scopes_max, Histogram::default) {
                lengths.add(tokens, self.limits.answers_max);
            }
        }
    }

    /// Tokens to expect, in 1..=`max_tokens` (at least 1).
    pub(crate) fn mean(&self, tenant: TenantId, model: ModelId, max_tokens: u32) -> u32 {
        let mean = self.blend(tenant, model, max_tokens).mean(max_tokens);
        mean.unwrap_or(self.assumed).min(max_tokens).max(1)
    }

    /// The length that `permille` of such answers do not exceed, in 1..=`max_tokens` (at least 1).
    pub(crate) fn quantile(&self, tenant: TenantId, model: ModelId, max_tokens: u32, permille: u32) -> u32 {
        let quantile = self.blend(tenant, model, max_tokens).quantile(max_tokens, permille);
        quantile.unwrap_or(self.assumed).min(max_tokens).max(1)
    }

    fn blend(&self, tenant: TenantId, model: ModelId, max_tokens: u32) -> Blend {
        let add = |blend: Blend, scope| blend.and(self.lengths.get(&scope), self.limits.prior);
        scopes(tenant, model, max_tokens).into_iter().fold(Blend::new(), add).or(self.assumed)
    }
}

/// The most specific first.
fn scopes(tenant: TenantId, model: ModelId, max_tokens: u32) -> [Scope; 3] {
    let bound = max_tokens.checked_ilog2().unwrap_or_default();
    [Scope::Tenant(model, bound, tenant), Scope::Bound(model, bound), Scope::Model(model)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANN: TenantId = TenantId(1);
    const BOB: TenantId = TenantId(2);
    const QWEN: ModelId = ModelId(1);
    const LLAMA: ModelId = ModelId(2);

    fn taught(answers: &[(TenantId, u32, u32, usize)]) -> AnswerBook {
        let mut book = AnswerBook::new(&Limits::default());
        for (tenant, max_tokens, generated, count) in answers {
            (0..*count).for_each(|_| book.completed(*tenant, QWEN, *max_tokens, *generated));
        }
        book
    }

    #[test]
    fn the_assumption_stands_until_an_answer_has_ended() {
        let book = taught(&[]);
        assert_eq!(book.mean(ANN, QWEN, 4_096), 256);
        assert_eq!(book.quantile(ANN, QWEN, 4_096, 900), 256);
    }

    #[test]
    fn a_tenants_own_answers_count_most() {
        let book = taught(&[(ANN, 4_096, 100, 200), (BOB, 4_096, 1_000, 200)]);
        let means = [ANN, BOB, TenantId(3)].map(|tenant| book.mean(tenant, QWEN, 4_096));
        assert!(means[0].abs_diff(100) < 25 && means[1].abs_diff(1_000) < 25, "{means:?}");
        assert!(means[2].abs_diff(550) < 25, "{means:?}");
    }

    #[test]
    fn answers_under_another_bound_count_for_those_under_none_of_their_own() {
        let book = taught(&[(ANN, 4_096, 800, 200)]);
        assert!(book.mean(ANN, QWEN, 1_024).abs_diff(800) < 25);
        assert!(book.mean(BOB, QWEN, 8_192).abs_diff(800) < 25);
        assert_eq!(book.mean(ANN, LLAMA, 4_096), 256);
    }

    #[test]
    fn an_answer_that_its_bound_cut_says_nothing_of_other_bounds() {
        let book = taught(&[(ANN, 16, 16, 200)]);
        assert_eq!(book.mean(ANN, QWEN, 16), 16);
        assert_eq!(book.mean(ANN, QWEN, 4_096), 256);
    }

    #[test]
    fn a_tail_is_known_by_its_quantiles() {
        let book = taught(&[(ANN, 4_096, 100, 900), (ANN, 4_096, 2_000, 100)]);
        assert_eq!(book.quantile(ANN, QWEN, 4_096, 500), 100);
        assert_eq!(book.quantile(ANN, QWEN, 4_096, 990), 2_000);
    }

    /// The bimodal lengths of a public chat trace: half about 100 tokens, half about 400.
    #[test]
    fn two_habits_are_told_apart_by_their_quantiles() {
        let mut book = taught(&[]);
        for number in 0..400 {
            let generated = if number % 2 == 0 { 80 + number / 10 } else { 360 + number / 5 };
            book.completed(ANN, QWEN, 4_096, generated);
        }
        let quantiles = [250, 750].map(|permille| book.quantile(ANN, QWEN, 4_096, permille));
        assert!(quantiles[0].abs_diff(100) < 20 && quantiles[1].abs_diff(400) < 60, "{quantiles:?}");
    }

    #[test]
    fn models_do_not_learn_from_one_another() {
        let mut book = taught(&[(ANN, 4_096, 100, 100)]);
        (0..100).for_each(|_| book.completed(ANN, LLAMA, 4_096, 2_000));
        let means = [QWEN, LLAMA].map(|model| book.mean(ANN, model, 4_096));
        assert!(means[0] < 120 && means[1] > 1_800, "{means:?}");
    }

    #[test]
    fn a_book_without_room_keeps_to_the_assumption() {
        let mut limits = Limits { output_tokens: 77, ..Limits::default() };
        limits.answers.scopes_max = 0;
        let mut book = AnswerBook::new(&limits);
        (0..100).for_each(|_| book.completed(ANN, QWEN, 4_096, 2_000));
        assert_eq!(book.mean(ANN, QWEN, 4_096), 77);
        assert_eq!(book.mean(ANN, QWEN, 0), 1);
    }

    #[test]
    fn old_habits_are_forgotten() {
        let book = taught(&[(ANN, 4_096, 1_000, 5_000), (ANN, 4_096, 100, 2_500)]);
        assert!(book.mean(ANN, QWEN, 4_096) < 130, "{}", book.mean(ANN, QWEN, 4_096));
    }

    #[test]
    fn whom_nobody_has_heard_of_for_longest_is_forgotten_first() {
        let mut limits = Limits::default();
        limits.answers.scopes_max = 4;
        let mut book = AnswerBook::new(&limits);
        for tenant in [ANN, BOB, TenantId(3), BOB] {
            (0..50).for_each(|_| book.completed(tenant, QWEN, 4_096, 100 * tenant.0));
        }
        let known =
            [ANN, BOB, TenantId(3)].map(|tenant| book.lengths.get(&scopes(tenant, QWEN, 4_096)[0]).is_some());
        assert_eq!(known, [false, true, true]);
        assert_eq!(book.lengths.len(), 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_answer_keeps_within_what_is_allowed_and_quantiles_rise(
            answers in proptest::collection::vec((0_u32..3, 0_u32..2, any::<u32>(), any::<u32>(), 0_u32..33), 0..200),
            max_tokens in any::<u32>(), (low, high) in (0_u32..1_100, 0_u32..1_100),
        ) {
            let mut book = AnswerBook::new(&Limits::default());
            for (tenant, model, bound, generated, shift) in answers {
                let generated = generated.checked_shr(shift).unwrap_or_default();
                book.completed(TenantId(tenant), ModelId(model), bound, generated);
            }
            let (low, high) = (low.min(high), low.max(high));
            for tenant in (0..4).map(TenantId) {
                let allowed = 1..=max_tokens.max(1);
                prop_assert!(allowed.contains(&book.mean(tenant, QWEN, max_tokens)));
                let quantiles = [low, high].map(|permille| book.quantile(tenant, QWEN, max_tokens, permille));
                prop_assert!(quantiles.iter().all(|tokens| allowed.contains(tokens)));
                prop_assert!(quantiles[0] <= quantiles[1]);
            }
        }

        #[test]
        fn the_mean_of_many_answers_is_their_mean(
            answers in proptest::collection::vec(1_u32..4_000, 1..8),
        ) {
            let mut book = AnswerBook::new(&Limits::default());
            for _ in 0..(600 / answers.len()) {
                answers.iter().for_each(|generated| book.completed(ANN, QWEN, 4_096, *generated));
            }
            let mean = f64::from(answers.iter().sum::<u32>()) / answers.len() as f64;
            let told = f64::from(book.mean(ANN, QWEN, 4_096));
            prop_assert!((told - mean).abs() < 0.05 * mean + 12.0, "{told} {mean}");
        }
    }
}
