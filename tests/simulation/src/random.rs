//! The one source of chance: a seeded generator with a stream of its own for each purpose.
//!
//! Owns the streams, so that a fault more does not change the lengths of the prompts. Refuses the system's entropy: the same
//! seed gives the same bytes. The distributions come from `rand_distr`.

use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, Gamma, StandardNormal};
use rand_pcg::Pcg64Mcg;
use scheduler::RequestId;

use crate::limits::NOISE_SIGMA;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// When requests arrive.
    Arrivals = 1,
    /// How long prompts and answers are.
    Lengths = 2,
    /// Who asks for which model, and how urgently.
    Choices = 3,
    /// How much one request's work differs from the mean.
    Noise = 4,
    /// When nodes, runtimes and loads fail.
    Faults = 5,
    /// What a policy leaves to chance.
    Policy = 6,
    /// How wrong a chip table is.
    Table = 7,
}

/// A stream of chance.
#[derive(Clone, Debug)]
pub struct Random(Pcg64Mcg);

impl Random {
    /// The stream of `seed` for one purpose; `number` tells streams of the same purpose apart.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, number: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(mixed(mixed(mixed(seed) ^ purpose as u64) ^ number)))
    }

    /// Between zero and one, one excluded.
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// A whole number below `bound`; zero when that is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    /// Exponential, of mean one.
    pub fn exponential(&mut self) -> f64 {
        Exp1.sample(&mut self.0)
    }

    /// Gamma, of mean one and the given coefficient of variation: 1 is exponential, more is bursty, zero is a clock.
    pub fn gamma(&mut self, variation: f64) -> f64 {
        let scale = variation * variation;
        Gamma::new(1.0 / scale, scale).map_or(1.0, |gamma| gamma.sample(&mut self.0))
    }

    /// Log-normal, of the given median and standard deviation of the logarithm.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let normal: f64 = StandardNormal.sample(&mut self.0);
        median * (sigma * normal).exp()
    }

    /// A number of trials until the first success, at least one, of the given mean.
    pub fn geometric(&mut self, mean: f64) -> u32 {
        let mut trials = 1;
        while trials < GEOMETRIC_MAX && self.unit() * mean >= 1.0 {
            trials += 1;
        }
        trials
    }

    /// An index into `weights`, each as probable as its share of their sum.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len().saturating_sub(1)
    }
}

/// A conversation with more turns than this has left every context window.
const GEOMETRIC_MAX: u32 = 200;

/// Zipf's weights for `count` ranks: the n-th has the share `n^-exponent`.
#[must_use]
pub fn zipf(count: usize, exponent: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// How many times the mean the work of one request takes, whoever runs it.
#[must_use]
pub fn noise(seed: u64, request: RequestId) -> f64 {
    Random::new(seed, Purpose::Noise, request.0).log_normal(1.0, NOISE_SIGMA)
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection that leaves no pattern of small seeds.
#[must_use]
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 40_000;

    fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = std::iter::repeat_with(draw).take(DRAWS).collect();
        let mean = values.iter().sum::<f64>() / DRAWS as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / DRAWS as f64;
        (mean, variance.sqrt() / mean)
    }

    fn stream() -> Random {
        Random::new(7, Purpose::Arrivals, 0)
    }

    fn assert_near(value: f64, wanted: f64, share: f64) {
        assert!((value - wanted).abs() <= wanted * share, "{value} is not {wanted}");
    }

    #[test]
    fn the_same_seed_gives_the_same_stream_and_another_purpose_another() {
        let draw = |purpose, number| Random::new(7, purpose, number).below(u64::MAX);
        assert_eq!(draw(Purpose::Faults, 3), draw(Purpose::Faults, 3));
        assert_ne!(draw(Purpose::Faults, 3), draw(Purpose::Noise, 3));
        assert_ne!(draw(Purpose::Faults, 3), draw(Purpose::Faults, 4));
    }

    #[test]
    fn gamma_has_mean_one_and_the_variation_that_was_asked_for() {
        for variation in [0.5, 1.0, 3.5] {
            let mut random = stream();
            let (mean, seen) = moments(|| random.gamma(variation));
            assert_near(mean, 1.0, 0.06);
            assert_near(seen, variation, 0.06);
        }
        assert_eq!(stream().gamma(0.0), 1.0);
    }

    #[test]
    fn exponential_has_mean_and_variation_one() {
        let mut random = stream();
        let (mean, variation) = moments(|| random.exponential());
        assert_near(mean, 1.0, 0.03);
        assert_near(variation, 1.0, 0.03);
    }

    #[test]
    fn half_of_a_log_normal_is_below_its_median() {
        let mut random = stream();
        let below = (0..DRAWS).filter(|_| random.log_normal(123.0, 1.5) < 123.0).count();
        assert_near(below as f64, DRAWS as f64 / 2.0, 0.03);
    }

    #[test]
    fn a_geometric_number_has_its_mean_and_is_at_least_one() {
        let mut random = stream();
        let (mean, _) = moments(|| f64::from(random.geometric(1.63)));
        assert_near(mean, 1.63, 0.02);
        assert_eq!(stream().geometric(1.0), 1);
    }

    #[test]
    fn a_weighted_choice_follows_its_weights() {
        let mut random = stream();
        let mut counts = [0_u32; 3];
        (0..DRAWS).for_each(|_| counts[random.weighted(&[1.0, 0.0, 3.0])] += 1);
        assert_near(f64::from(counts[0]), DRAWS as f64 / 4.0, 0.05);
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn zipf_weights_fall_with_the_rank_and_sum_to_one() {
        let weights = zipf(4, 1.0);
        assert_near(weights[0] / weights[3], 4.0, 1e-9);
        assert_near(weights.iter().sum(), 1.0, 1e-9);
    }
}
