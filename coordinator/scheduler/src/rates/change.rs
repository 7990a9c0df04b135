//! Accident or lasting change: the cumulative sum of surprises in one direction (CUSUM, Page 1954).
//!
//! Owns two sums, one for slower and one for faster than predicted. A pause (a swap, a compilation) adds once and is worn off
//! by the samples after it; a change adds with every sample until it is told. Refuses to add a sample that ran beside the one
//! added last: one pause slows all that run through it, which makes it no more lasting.

use super::fit::Sample;
use crate::limits::RateLimits;
use crate::time::At;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    slower: Sum,
    faster: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    score: f64,
    /// The smallest surprise that was added.
    least: f64,
    /// When the sample added last had ended.
    ended: At,
}

impl Change {
    /// Takes in by what share a sample exceeded its prediction. Returns the least that a lasting change may be put at, once
    /// there is one, and begins anew.
    pub(super) fn observe(
        &mut self,
        surprise: f64,
        deviation: f64,
        sample: &Sample,
        limits: &RateLimits,
    ) -> Option<f64> {
        let slower = self.slower.observe(surprise, deviation, sample, limits);
        let faster = self.faster.observe(-surprise, deviation, sample, limits);
        let lasting = slower.or(faster.map(|surprise| -surprise));
        if lasting.is_some() {
            *self = Self::default();
        }
        lasting
    }
}

impl Sum {
    fn observe(
        &mut self,
        surprise: f64,
        deviation: f64,
        sample: &Sample,
        limits: &RateLimits,
    ) -> Option<f64> {
        let (began, ended) = sample.span;
        let beyond = sample.weight * ((surprise / deviation).min(limits.surprise) - limits.change_slack);
        if beyond <= 0.0 {
            self.score = (self.score + beyond).max(0.0);
        } else if self.score <= 0.0 {
            *self = Self { score: beyond, least: surprise, ended };
        } else if began >= self.ended {
            *self = Self { score: self.score + beyond, least: self.least.min(surprise), ended };
        }
        (self.score >= limits.change_score).then_some(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(began: u64, ended: u64, weight: f64) -> Sample {
        Sample { features: [1.0, 0.0, 0.0], seconds: 1.0, weight, span: (At(began), At(ended)) }
    }

    /// What comes of surprises in mean deviations, of samples that last one microsecond each, one after another.
    fn lasting(surprises: &[f64]) -> Vec<Option<f64>> {
        weighed(surprises, 1.0)
    }

    fn weighed(surprises: &[f64], weight: f64) -> Vec<Option<f64>> {
        let limits = RateLimits::default();
        let mut change = Change::default();
        let samples = (0..).map(|start| sample(start, start + 1, weight));
        surprises
            .iter()
            .zip(samples)
            .map(|(surprise, sample)| change.observe(*surprise, 1.0, &sample, &limits))
            .collect()
    }

    #[test]
    fn three_great_surprises_in_a_row_are_a_change_and_the_least_of_them_is_believed() {
        assert_eq!(lasting(&[90.0, 11.0, 13.0]), [None, None, Some(11.0)]);
        assert_eq!(lasting(&[-4.0, -9.0, -6.0]), [None, None, Some(-4.0)]);
    }

    #[test]
    fn a_small_change_takes_longer_to_tell() {
        assert_eq!(lasting(&[2.0; 6]), [None, None, None, None, None, Some(2.0)]);
    }

    #[test]
    fn what_is_within_the_noise_is_no_change_however_long_it_lasts() {
        assert_eq!(lasting(&[1.0; 500]), [None; 500]);
        assert_eq!(lasting(&[-0.9; 500]), [None; 500]);
    }

    #[test]
    fn samples_as_predicted_wear_a_pause_off() {
        assert_eq!(lasting(&[99.0, 0.0, 0.0, 99.0, 0.0, 0.0, 99.0, 0.0, 0.0, 99.0]), [None; 10]);
        assert_eq!(lasting(&[99.0, 99.0, 0.0, 99.0, 99.0]), [None, None, None, None, Some(99.0)]);
    }

    #[test]
    fn poor_samples_take_longer_to_tell_a_change() {
        assert_eq!(weighed(&[9.0; 6], 0.5), [None, None, None, None, None, Some(9.0)]);
    }

    #[test]
    fn slower_and_faster_make_no_sum() {
        assert_eq!(lasting(&[3.0, -3.0, 3.0, -3.0, 3.0, -3.0]), [None; 6]);
    }

    #[test]
    fn after_a_change_the_sums_begin_anew() {
        assert_eq!(lasting(&[3.0; 6]), [None, None, Some(3.0), None, None, Some(3.0)]);
    }

    #[test]
    fn samples_that_ran_through_the_same_pause_are_added_once() {
        let limits = RateLimits::default();
        let mut change = Change::default();
        let mut told = |began, ended| change.observe(9.0, 1.0, &sample(began, ended, 1.0), &limits);
        assert_eq!([told(0, 10), told(1, 10), told(5, 12), told(9, 14)], [None; 4]);
        assert_eq!(told(10, 20), None);
        assert_eq!(told(20, 30), Some(9.0));
    }
}
