//! How many answers of each length there were, the old ones fading.
//!
//! Owns 24 buckets, each half as wide again as the one before, with the mean length in each. Whole numbers only. Refuses to
//! remember for ever: above a number of answers all counts are halved.

use crate::limits::{ANSWER_BUCKETS, ANSWER_LENGTHS, ANSWER_WEIGHT};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Histogram {
    buckets: [Bucket; ANSWER_BUCKETS],
    /// Of all buckets, in `ANSWER_WEIGHT` per answer.
    weight: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) weight: u64,
    /// Tokens times weight.
    pub(super) tokens: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, tokens: u32, answers_max: u32) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(tokens)) {
            bucket.weight = bucket.weight.saturating_add(ANSWER_WEIGHT);
            bucket.tokens = bucket.tokens.saturating_add(ANSWER_WEIGHT.saturating_mul(u64::from(tokens)));
            self.weight = self.weight.saturating_add(ANSWER_WEIGHT);
        }
        if self.weight > u64::from(answers_max).saturating_mul(ANSWER_WEIGHT) {
            self.halve();
        }
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    fn halve(&mut self) {
        self.weight = 0;
        for bucket in &mut self.buckets {
            let weight = bucket.weight / 2;
            // In proportion, not by half: where a weight was odd the mean would drift.
            bucket.tokens = bucket.tokens.saturating_mul(weight) / bucket.weight.max(1);
            bucket.weight = weight;
            self.weight = self.weight.saturating_add(weight);
        }
    }
}

pub(super) fn bucket_of(tokens: u32) -> usize {
    ANSWER_LENGTHS.partition_point(|longest| *longest < tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(answers: &[(u32, usize)], answers_max: u32) -> Histogram {
        let mut histogram = Histogram::default();
        for (tokens, count) in answers {
            (0..*count).for_each(|_| histogram.add(*tokens, answers_max));
        }
        histogram
    }

    /// The filled buckets: number, weight, mean length.
    fn filled(histogram: &Histogram) -> Vec<(usize, u64, u64)> {
        let buckets = histogram.buckets().enumerate().filter(|(_, bucket)| bucket.weight > 0);
        buckets.map(|(number, bucket)| (number, bucket.weight, bucket.tokens / bucket.weight)).collect()
    }

    #[test]
    fn each_bucket_is_half_as_wide_again_as_the_one_before() {
        let buckets = [0, 8, 9, 12, 13, 18, 19, 100, 256, 4_096, 100_000, u32::MAX].map(bucket_of);
        assert_eq!(buckets, [0, 0, 1, 1, 2, 2, 3, 7, 9, 16, 23, 23]);
    }

    #[test]
    fn a_bucket_keeps_the_mean_of_its_answers() {
        let histogram = histogram(&[(100, 2), (130, 1), (400, 1)], 99);
        assert_eq!(filled(&histogram), [(7, 48, 110), (10, 16, 400)]);
        assert_eq!(histogram.weight(), 64);
    }

    #[test]
    fn above_its_bound_everything_counts_half() {
        let histogram = histogram(&[(100, 6), (400, 3)], 8);
        assert_eq!(filled(&histogram), [(7, 48, 100), (10, 24, 400)]);
        assert_eq!(histogram.weight(), 72);
    }

    #[test]
    fn what_is_not_seen_again_fades_away() {
        let once = histogram(&[(5_000, 1), (100, 16)], 8);
        assert_eq!(filled(&once), [(7, 64, 100), (16, 2, 5_000)]);
        let gone = histogram(&[(5_000, 1), (100, 40)], 8);
        assert_eq!(filled(&gone), [(7, 114, 100)]);
    }

    #[test]
    fn without_room_nothing_is_kept_for_long() {
        assert!(histogram(&[(100, 9)], 0).weight() < 2 * ANSWER_WEIGHT);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_mean_leaves_its_bucket_and_no_weight_is_lost(
            answers in proptest::collection::vec(0_u32..100_000, 0..300), answers_max in 1_u32..64,
        ) {
            let mut histogram = Histogram::default();
            answers.iter().for_each(|tokens| histogram.add(*tokens, answers_max));
            for (number, _, mean) in filled(&histogram) {
                let longest = |number: usize| ANSWER_LENGTHS.get(number).map_or(u64::MAX, |tokens| u64::from(*tokens));
                prop_assert!(mean <= longest(number));
                prop_assert!(number == 0 || mean >= longest(number - 1));
            }
            let weights: u64 = histogram.buckets().map(|bucket| bucket.weight).sum();
            prop_assert_eq!(histogram.weight(), weights);
            prop_assert!(weights <= u64::from(answers_max) * ANSWER_WEIGHT);
        }
    }
}
