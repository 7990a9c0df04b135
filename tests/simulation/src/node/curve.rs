//! The time of many rounds in one formula.
//!
//! Owns the closed form: a round is one step of every runtime at work on a node, and between two changes each round takes
//! longer than the one before by the same amount, since every row's cache and a prefill's context grow evenly. So `n` rounds
//! take an arithmetic series. Refuses to know why a round takes its time.

use std::ops::Add;

/// `seconds(n) = lead + n*first + growth*n*(n-1)/2`, and nothing for no round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Curve {
    /// Once, before the first round.
    pub(crate) lead: f64,
    /// The first round.
    pub(crate) first: f64,
    /// What each round takes longer than the one before.
    pub(crate) growth: f64,
}

impl Curve {
    pub(crate) fn seconds(self, rounds: u64) -> f64 {
        if rounds == 0 {
            return 0.0;
        }
        let n = rounds as f64;
        self.lead + n * self.first + self.growth * n * (n - 1.0) / 2.0
    }

    /// The rounds that are over after `seconds`.
    pub(crate) fn rounds_within(self, seconds: f64) -> u64 {
        // By the series itself: what is left after the lead has been rounded.
        if self.first <= 0.0 || seconds < self.seconds(1) {
            return 0;
        }
        let left = seconds - self.lead;
        let linear = self.first - self.growth / 2.0;
        let guess = if self.growth > 0.0 {
            ((linear * linear + 2.0 * self.growth * left).sqrt() - linear) / self.growth
        } else {
            left / self.first
        };
        self.corrected(guess as u64, seconds)
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { lead: self.lead * factor, first: self.first * factor, growth: self.growth * factor }
    }

    /// The square root may be off by a rounding error; the series itself decides.
    fn corrected(self, mut rounds: u64, seconds: f64) -> u64 {
        while rounds > 0 && self.seconds(rounds) > seconds {
            rounds -= 1;
        }
        while self.seconds(rounds + 1) <= seconds {
            rounds += 1;
        }
        rounds
    }
}

impl Add for Curve {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            lead: self.lead + other.lead,
            first: self.first + other.first,
            growth: self.growth + other.growth,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_series_is_the_sum_of_its_rounds() {
        let curve = Curve { lead: 5.0, first: 2.0, growth: 0.5 };
        assert_eq!(curve.seconds(0), 0.0);
        assert_eq!(curve.seconds(1), 5.0 + 2.0);
        assert_eq!(curve.seconds(3), 5.0 + 2.0 + 2.5 + 3.0);
    }

    #[test]
    fn a_round_counts_when_it_is_over() {
        let curve = Curve { lead: 5.0, first: 2.0, growth: 0.5 };
        assert_eq!(curve.rounds_within(6.9), 0);
        assert_eq!(curve.rounds_within(7.0), 1);
        assert_eq!(curve.rounds_within(9.4), 1);
        assert_eq!(curve.rounds_within(9.5), 2);
        assert_eq!(Curve::default().rounds_within(9.5), 0);
        // The sum of these two, less the first, is less than the second.
        let curve = Curve { lead: 0.7917321325032816, first: 0.23543461792567286, growth: 0.0 };
        assert_eq!(curve.rounds_within(curve.seconds(1)), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn rounds_and_seconds_are_each_other_s_inverse(
            lead in 0.0..1.0_f64, first in 0.001..1.0_f64, growth in 0.0..0.1_f64, rounds in 1_u64..5_000,
        ) {
            let curve = Curve { lead, first, growth };
            let seconds = curve.seconds(rounds);
            prop_assert_eq!(curve.rounds_within(seconds), rounds);
            prop_assert_eq!(curve.rounds_within(seconds + first / 2.0), rounds);
            prop_assert_eq!(curve.rounds_within(seconds - first / 2.0), rounds - 1);
        }
    }
}
