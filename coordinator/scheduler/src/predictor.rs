//! How long an answer will be: the running mean of each model's completed answers.
//!
//! Owns that mean. Refuses to be relied on: it only weighs nodes against one another, nothing is refused or cut by it.

use alloc::collections::BTreeMap;

use crate::ids::ModelId;
use crate::limits::ANSWER_MEAN_SHARE as SHARE;

#[derive(Debug, Default)]
pub(crate) struct Predictor {
    /// Tokens times `SHARE`, so that whole numbers do.
    means: BTreeMap<ModelId, u64>,
}

impl Predictor {
    pub(crate) fn completed(&mut self, model: ModelId, generated: u32, assumed: u32, models_max: usize) {
        if !self.means.contains_key(&model) && self.means.len() >= models_max {
            return;
        }
        let mean = self.means.entry(model).or_insert(u64::from(assumed).saturating_mul(SHARE));
        *mean = (*mean).saturating_sub(*mean / SHARE).saturating_add(u64::from(generated));
    }

    /// Tokens to expect, at least one and at most what the request allows.
    pub(crate) fn output_tokens(&self, model: ModelId, max_tokens: u32, assumed: u32) -> u32 {
        let mean = self.means.get(&model).map_or(u64::from(assumed), |mean| mean / SHARE);
        u32::try_from(mean).unwrap_or(u32::MAX).min(max_tokens).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId(1);

    fn taught(answers: &[u32]) -> Predictor {
        let mut predictor = Predictor::default();
        answers.iter().for_each(|generated| predictor.completed(MODEL, *generated, 256, 1));
        predictor
    }

    #[test]
    fn the_assumption_stands_until_an_answer_has_ended() {
        assert_eq!(Predictor::default().output_tokens(MODEL, 4_096, 256), 256);
    }

    #[test]
    fn the_mean_moves_towards_what_is_seen() {
        assert_eq!(taught(&[16]).output_tokens(MODEL, 4_096, 256), 241);
        assert_eq!(taught(&[800; 100]).output_tokens(MODEL, 4_096, 256), 799);
        assert_eq!(taught(&[0; 200]).output_tokens(MODEL, 4_096, 256), 1);
    }

    #[test]
    fn no_answer_is_longer_than_the_request_allows() {
        assert_eq!(taught(&[]).output_tokens(MODEL, 10, 256), 10);
        assert_eq!(taught(&[]).output_tokens(MODEL, 0, 256), 1);
    }

    #[test]
    fn models_beyond_the_bound_keep_the_assumption() {
        let mut predictor = taught(&[16]);
        predictor.completed(ModelId(2), 16, 256, 1);
        assert_eq!(predictor.output_tokens(ModelId(2), 4_096, 256), 256);
    }
}
