//! How long prompts and answers are: tables of quantiles, straight lines between them.
//!
//! Owns the tables of the public traces that the workloads are modelled on: Azure LLM inference 2023 (Splitwise, ISCA 2024)
//! and Mooncake's conversation trace (FAST 2025). Refuses the traces themselves.

use crate::random::Random;

/// Pairs of a share and the length that this share stays below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quantiles(pub(super) &'static [(f64, f64)]);

/// Azure's chat service: prompts.
pub(super) const AZURE_CHAT_PROMPT: Quantiles = Quantiles(&[
    (0.0, 2.0),
    (0.05, 181.0),
    (0.10, 207.0),
    (0.25, 396.0),
    (0.40, 703.0),
    (0.50, 1_020.0),
    (0.60, 1_071.0),
    (0.75, 1_189.0),
    (0.90, 2_735.0),
    (0.95, 4_083.0),
    (0.99, 4_142.0),
    (0.999, 6_212.0),
    (1.0, 14_050.0),
]);

/// Azure's chat service: answers, which have two modes.
pub(super) const AZURE_CHAT_ANSWER: Quantiles = Quantiles(&[
    (0.0, 7.0),
    (0.05, 41.0),
    (0.10, 54.0),
    (0.25, 85.0),
    (0.40, 103.0),
    (0.50, 129.0),
    (0.60, 177.0),
    (0.75, 395.0),
    (0.90, 424.0),
    (0.95, 451.0),
    (0.99, 601.0),
    (1.0, 1_000.0),
]);

/// Azure's code completion: prompts.
pub(super) const AZURE_CODE_PROMPT: Quantiles = Quantiles(&[
    (0.0, 3.0),
    (0.05, 75.0),
    (0.10, 147.0),
    (0.25, 578.0),
    (0.40, 1_075.0),
    (0.50, 1_469.0),
    (0.60, 1_909.0),
    (0.75, 2_745.0),
    (0.90, 5_194.0),
    (0.95, 7_315.0),
    (1.0, 7_437.0),
]);

/// Azure's code completion: answers.
pub(super) const AZURE_CODE_ANSWER: Quantiles = Quantiles(&[
    (0.0, 6.0),
    (0.25, 9.0),
    (0.40, 11.0),
    (0.50, 13.0),
    (0.60, 16.0),
    (0.75, 23.0),
    (0.90, 52.0),
    (0.95, 80.0),
    (0.99, 210.0),
    (0.999, 560.0),
    (1.0, 1_899.0),
]);

/// Mooncake's conversations: what the first turn adds to the system prompt.
pub(super) const CONVERSATION_FIRST: Quantiles = Quantiles(&[
    (0.0, 22.0),
    (0.10, 330.0),
    (0.25, 1_650.0),
    (0.50, 4_730.0),
    (0.75, 10_450.0),
    (0.90, 31_200.0),
    (0.97, 65_000.0),
    (0.99, 91_000.0),
    (1.0, 125_000.0),
]);

/// Mooncake's conversations: what each further turn adds to all before it.
pub(super) const CONVERSATION_FURTHER: Quantiles = Quantiles(&[
    (0.0, 12.0),
    (0.25, 240.0),
    (0.50, 1_800.0),
    (0.75, 7_200.0),
    (0.90, 16_800.0),
    (1.0, 36_000.0),
]);

/// Mooncake's conversations: answers.
pub(super) const CONVERSATION_ANSWER: Quantiles = Quantiles(&[
    (0.0, 1.0),
    (0.10, 20.0),
    (0.25, 120.0),
    (0.50, 310.0),
    (0.75, 465.0),
    (0.90, 650.0),
    (0.99, 1_150.0),
    (1.0, 2_000.0),
]);

impl Quantiles {
    /// A length, times `scale`, at least one token.
    pub(super) fn draw(&self, random: &mut Random, scale: f64) -> u32 {
        ((self.at(random.unit()) * scale).round() as u32).max(1)
    }

    /// The length that the given share stays below.
    pub(super) fn at(&self, share: f64) -> f64 {
        let above = self.0.partition_point(|(limit, _)| *limit <= share).clamp(1, self.0.len() - 1);
        let ((low, from), (high, to)) = (self.0[above - 1], self.0[above]);
        from + (to - from) * ((share - low) / (high - low)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Quantiles = Quantiles(&[(0.0, 10.0), (0.5, 20.0), (1.0, 100.0)]);

    #[test]
    fn between_two_quantiles_is_a_straight_line() {
        let values = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| STEPS.at(share));
        assert_eq!(values, [10.0, 15.0, 20.0, 60.0, 100.0]);
    }

    #[test]
    fn lengths_are_scaled_and_never_zero() {
        let mut random = Random::new(1, crate::random::Purpose::Lengths, 0);
        assert!((0..100).all(|_| (5..=50).contains(&STEPS.draw(&mut random, 0.5))));
        assert_eq!(STEPS.draw(&mut random, 1e-9), 1);
    }

    fn mean(table: Quantiles) -> f64 {
        let pairs = table.0.windows(2);
        pairs.map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0).sum()
    }

    /// The means that are published with the traces.
    #[test]
    fn the_tables_have_the_means_of_their_traces() {
        let near = |table, wanted: f64| assert!((mean(table) / wanted - 1.0).abs() < 0.05, "{}", mean(table));
        near(AZURE_CHAT_PROMPT, 1_155.0);
        near(AZURE_CHAT_ANSWER, 211.0);
        near(AZURE_CODE_PROMPT, 2_048.0);
        near(AZURE_CODE_ANSWER, 28.0);
        near(CONVERSATION_ANSWER, 343.0);
    }

    #[test]
    fn every_table_rises_from_nothing_to_all() {
        let tables = [
            AZURE_CHAT_PROMPT,
            AZURE_CHAT_ANSWER,
            AZURE_CODE_PROMPT,
            AZURE_CODE_ANSWER,
            CONVERSATION_FIRST,
            CONVERSATION_FURTHER,
            CONVERSATION_ANSWER,
        ];
        for table in tables {
            assert!(table.0.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
            assert_eq!((table.0[0].0, table.0[table.0.len() - 1].0), (0.0, 1.0));
        }
    }
}
