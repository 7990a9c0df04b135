//! One distribution out of several, the most specific first.
//!
//! Owns how far each is trusted: in proportion to its answers, against a prior of some; the rest goes to the next
//! (shrinkage). Refuses to keep what it was made of.

use super::histogram::{Bucket, Histogram, bucket_of};
use crate::limits::{ANSWER_BUCKETS, ANSWER_WEIGHT, BLEND_WHOLE};

#[derive(Clone, Copy, Debug)]
pub(super) struct Blend {
    buckets: [Bucket; ANSWER_BUCKETS],
    /// What is not given out yet.
    left: u64,
}

impl Blend {
    pub(super) fn new() -> Self {
        Self { buckets: [Bucket::default(); ANSWER_BUCKETS], left: BLEND_WHOLE }
    }

    /// The next less specific distribution.
    pub(super) fn and(mut self, histogram: Option<&Histogram>, prior: u32) -> Self {
        let Some(histogram) = histogram.filter(|histogram| histogram.weight() > 0) else { return self };
        let against = histogram.weight().saturating_add(u64::from(prior).saturating_mul(ANSWER_WEIGHT));
        let given = self.left.saturating_mul(histogram.weight()) / against;
        let scale = given.saturating_mul(BLEND_WHOLE) / histogram.weight();
        for (mine, theirs) in self.buckets.iter_mut().zip(histogram.buckets()) {
            mine.weight = mine.weight.saturating_add(theirs.weight.saturating_mul(scale) / BLEND_WHOLE);
            mine.tokens = mine.tokens.saturating_add(theirs.tokens.saturating_mul(scale) / BLEND_WHOLE);
        }
        self.left = self.left.saturating_sub(given);
        self
    }

    /// What is left goes to one length.
    pub(super) fn or(mut self, tokens: u32) -> Self {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(tokens)) {
            bucket.weight = bucket.weight.saturating_add(self.left);
            bucket.tokens = bucket.tokens.saturating_add(self.left.saturating_mul(u64::from(tokens)));
        }
        self.left = 0;
        self
    }

    pub(super) fn mean(&self, max_tokens: u32) -> Option<u32> {
        mean(self.lengths(max_tokens))
    }

    /// The length that `permille` of the answers do not exceed.
    pub(super) fn quantile(&self, max_tokens: u32, permille: u32) -> Option<u32> {
        let whole = self.lengths(max_tokens).fold(0_u64, |sum, (weight, _)| sum.saturating_add(weight));
        let rank = whole.saturating_mul(u64::from(permille.min(1_000))).div_ceil(1_000);
        let mut below = 0_u64;
        let reached = |(weight, _): &(u64, u64)| {
            below = below.saturating_add(*weight);
            below >= rank
        };
        self.lengths(max_tokens).find(reached).map(|(_, tokens)| narrowed(tokens))
    }

    /// The filled buckets, shortest first, with the mean length in each. A longer answer than allowed would be cut.
    fn lengths(&self, max_tokens: u32) -> impl Iterator<Item = (u64, u64)> {
        let filled = self.buckets.iter().filter(|bucket| bucket.weight > 0);
        filled.map(move |bucket| (bucket.weight, (bucket.tokens / bucket.weight).min(u64::from(max_tokens))))
    }
}

/// Rounded to the nearest.
fn mean(lengths: impl Iterator<Item = (u64, u64)>) -> Option<u32> {
    let add = |(weights, sum): (u64, u64), (weight, tokens): (u64, u64)| {
        (weights.saturating_add(weight), sum.saturating_add(weight.saturating_mul(tokens)))
    };
    let (weights, sum) = lengths.fold((0, 0), add);
    sum.saturating_add(weights / 2).checked_div(weights).map(narrowed)
}

fn narrowed(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(answers: &[(u32, usize)]) -> Histogram {
        let mut histogram = Histogram::default();
        for (tokens, count) in answers {
            (0..*count).for_each(|_| histogram.add(*tokens, 1_000));
        }
        histogram
    }

    fn alone(answers: &[(u32, usize)]) -> Blend {
        Blend::new().and(Some(&histogram(answers)), 0)
    }

    #[test]
    fn a_distribution_is_trusted_in_proportion_to_its_answers() {
        let mean = |count| Blend::new().and(Some(&histogram(&[(100, count)])), 8).or(300).mean(4_096);
        assert_eq!([0, 8, 24, 792].map(mean), [Some(300), Some(200), Some(150), Some(102)]);
    }

    #[test]
    fn what_the_specific_one_leaves_goes_to_the_general_one() {
        let (specific, general) = (histogram(&[(100, 8)]), histogram(&[(200, 8)]));
        let blend = Blend::new().and(Some(&specific), 8).and(None, 8).and(Some(&general), 8).or(400);
        assert_eq!(blend.mean(4_096), Some(50 + 50 + 100));
    }

    #[test]
    fn a_quantile_is_the_mean_length_of_its_bucket() {
        let blend = alone(&[(100, 50), (400, 40), (3_000, 10)]);
        let quantile = |permille| blend.quantile(4_096, permille);
        assert_eq!([0, 1, 499].map(quantile), [Some(100); 3]);
        assert_eq!([501, 899].map(quantile), [Some(400); 2]);
        assert_eq!([901, 1_000, 9_999].map(quantile), [Some(3_000); 3]);
    }

    #[test]
    fn no_length_is_beyond_what_the_request_allows() {
        let blend = alone(&[(100, 50), (1_000, 50)]);
        assert_eq!(blend.mean(300), Some(200));
        assert_eq!(blend.quantile(300, 900), Some(300));
    }

    #[test]
    fn the_longest_lengths_do_not_overflow() {
        let blend = alone(&[(1 << 20, 1_000)]);
        assert_eq!(blend.mean(u32::MAX), Some(1 << 20));
    }

    #[test]
    fn nothing_has_no_mean() {
        let blend = Blend::new();
        assert_eq!([blend.mean(9), blend.quantile(9, 500)], [None; 2]);
    }
}
