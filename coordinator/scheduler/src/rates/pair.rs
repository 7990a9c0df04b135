//! Whether a second sequence pays at all: the mean decode step with one and with two.
//!
//! Owns these two means. They guard against a stack that is slower with two than with one after the other, which a straight
//! line through many widths would smooth over. Refuses to conclude from one of them alone.

use crate::limits::RateLimits;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    single_s: Option<f64>,
    double_s: Option<f64>,
}

impl Pair {
    /// Takes in the mean step of a sample; only one that ran at very nearly one or two sequences throughout says anything.
    pub(super) fn observe(&mut self, batch: f64, step_s: f64, limits: &RateLimits) {
        let near = |width: f64| (batch - width).abs() <= limits.pair_tolerance;
        if near(1.0) {
            self.single_s = Some(moved(self.single_s, step_s, limits.pair_share));
        } else if near(2.0) {
            self.double_s = Some(moved(self.double_s, step_s, limits.pair_share));
        }
    }

    /// Whether two sequences together take less time than one after the other.
    pub(super) fn pays(&self) -> Option<bool> {
        Some(self.double_s? < 2.0 * self.single_s?)
    }
}

/// No sample counts for more than twice or less than half the mean: a pause is not how long a step takes.
fn moved(mean: Option<f64>, step_s: f64, share: f64) -> f64 {
    mean.map_or(step_s, |mean| mean + share * (step_s.max(mean / 2.0).min(mean * 2.0) - mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pays(samples: &[(f64, f64)]) -> Option<bool> {
        let limits = RateLimits::default();
        let mut pair = Pair::default();
        samples.iter().for_each(|(batch, step_s)| pair.observe(*batch, *step_s, &limits));
        pair.pays()
    }

    #[test]
    fn nothing_is_known_before_both_widths_were_seen() {
        assert_eq!(pays(&[]), None);
        assert_eq!(pays(&[(1.0, 0.02)]), None);
        assert_eq!(pays(&[(2.0, 0.02)]), None);
        assert_eq!(pays(&[(1.0, 0.02), (1.5, 0.03), (2.6, 0.01)]), None);
    }

    #[test]
    fn two_pay_when_they_take_less_than_twice_as_long_as_one() {
        assert_eq!(pays(&[(1.0, 0.020), (2.0, 0.025)]), Some(true));
        assert_eq!(pays(&[(1.02, 0.020), (1.98, 0.041)]), Some(false));
        assert_eq!(pays(&[(1.0, 0.020), (2.0, 0.040)]), Some(false));
    }

    #[test]
    fn one_pause_does_not_forbid_the_second_sequence() {
        assert_eq!(pays(&[(1.0, 0.020), (2.0, 0.025), (2.0, 2.5)]), Some(true));
    }

    #[test]
    fn a_lasting_change_is_followed() {
        let mut samples = vec![(1.0, 0.020), (2.0, 0.025)];
        samples.extend([(2.0, 0.045); 20]);
        assert_eq!(pays(&samples), Some(false));
        samples.extend([(2.0, 0.030); 20]);
        assert_eq!(pays(&samples), Some(true));
    }
}
