//! Decode steps summed up by width, over the life of a model on this Mac.
//!
//! Owns the sums, their differences, and their bound: beyond so many widths, a new one joins its neighbour, which a step time that
//! is a line in the width does not mind. Refuses to forget, for somebody may not have been told yet, and figures that cannot be.
//! Pure.

use std::collections::BTreeMap;

use super::frames::StepStats;
use super::rates::usable;
use crate::limits;

/// All steps up to a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StepSums {
    widths: BTreeMap<u32, Sum>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    steps: u64,
    rows: f64,
    kv_tokens: f64,
    seconds: f64,
}

/// Steps of one width, or of neighbouring ones: how many, rows and tokens in the KV cache as means, seconds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StepSample {
    pub(crate) steps: u32,
    pub(crate) batch: f32,
    pub(crate) kv_tokens: f32,
    pub(crate) seconds: f32,
}

impl StepSums {
    /// Takes in one step, if it decoded.
    pub(crate) fn add(&mut self, stats: StepStats) {
        let StepStats(_, _, seconds, batch, kv_tokens) = stats;
        if batch > 0 && usable(seconds) {
            let width = self.place(batch);
            self.widths.entry(width).or_default().add(batch, kv_tokens, seconds);
        }
    }

    /// What came after an earlier moment of the same sums, the narrowest first.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<StepSample> {
        let before = |width| earlier.widths.get(width).copied().unwrap_or_default();
        let news = self.widths.iter().map(|(width, sum)| sum.less(before(width)));
        news.filter(|sum| sum.steps > 0).map(Sum::sample).collect()
    }

    /// Under which width a step is summed up.
    fn place(&self, batch: u32) -> u32 {
        if self.widths.contains_key(&batch) || self.widths.len() < limits::STEP_WIDTHS_MAX {
            return batch;
        }
        let below = self.widths.range(..batch).next_back();
        let neighbours = below.into_iter().chain(self.widths.range(batch..).next());
        neighbours.map(|(width, _)| *width).min_by_key(|width| width.abs_diff(batch)).unwrap_or(batch)
    }
}

impl Sum {
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
    fn add(&mut self, batch: u32, kv_tokens: u64, seconds: f64) {
        self.steps = self.steps.saturating_add(1);
        self.rows += f64::from(batch);
        self.kv_tokens += kv_tokens as f64;
        self.seconds += seconds;
    }

    /// Years of steps leave nine digits to a difference of seconds, and a count is exact.
    fn less(self, before: Self) -> Self {
        Self {
            steps: self.steps.saturating_sub(before.steps),
            rows: self.rows - before.rows,
            kv_tokens: self.kv_tokens - before.kv_tokens,
            seconds: self.seconds - before.seconds,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a sample needs seven digits, not sixteen")]
    #[expect(clippy::cast_precision_loss, reason = "a count of steps is far below 2^52")]
    fn sample(self) -> StepSample {
        let mean = |sum: f64| (sum / self.steps.max(1) as f64) as f32;
        StepSample {
            steps: u32::try_from(self.steps).unwrap_or(u32::MAX),
            batch: mean(self.rows),
            kv_tokens: mean(self.kv_tokens),
            seconds: self.seconds as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(seconds: f64, batch: u32, kv_tokens: u64) -> StepStats {
        StepStats(0.0, 0, seconds, batch, kv_tokens)
    }

    /// All of them.
    fn told(sums: &StepSums) -> Vec<StepSample> {
        sums.since(&StepSums::default())
    }

    fn summed(steps: &[StepStats]) -> StepSums {
        steps.iter().fold(StepSums::default(), |mut sums, step| {
            sums.add(*step);
            sums
        })
    }

    #[test]
    fn steps_are_summed_up_by_width_and_a_difference_has_what_came_between() {
        let mut sums =
            summed(&[decode(0.5, 1, 100), decode(0.25, 2, 300), decode(0.5, 1, 102), decode(0.25, 2, 302)]);
        let sample = |steps, batch, kv_tokens, seconds| StepSample { steps, batch, kv_tokens, seconds };
        assert_eq!(told(&sums), [sample(2, 1.0, 101.0, 1.0), sample(2, 2.0, 301.0, 0.5)]);
        let earlier = sums.clone();
        assert_eq!(sums.since(&earlier), []);
        sums.add(decode(0.5, 1, 7));
        sums.add(decode(0.25, 4, 9));
        assert_eq!(sums.since(&earlier), [sample(1, 1.0, 7.0, 0.5), sample(1, 4.0, 9.0, 0.25)]);
    }

    #[test]
    fn prefill_and_figures_that_cannot_be_are_no_decode_steps() {
        let prefill = StepStats(0.5, 256, 0.0, 0, 900);
        let both = StepStats(9.0, 256, 0.5, 2, 900);
        let sums = summed(&[prefill, decode(f64::NAN, 1, 1), decode(-1.0, 1, 1), decode(1e9, 1, 1), both]);
        let sample = StepSample { steps: 1, batch: 2.0, kv_tokens: 900.0, seconds: 0.5 };
        assert_eq!(told(&sums), [sample], "its prefill is left out");
    }

    #[test]
    fn a_width_too_many_joins_its_nearest_neighbour_in_a_difference_too() {
        let widths = u32::try_from(limits::STEP_WIDTHS_MAX).expect("small");
        let steps: Vec<_> = (1..=widths).map(|width| decode(0.5, width * 10, 0)).collect();
        let mut sums = summed(&steps);
        let earlier = sums.clone();
        for width in [1, 13, 17, 1_000] {
            sums.add(decode(0.5, width, 0));
        }
        let counted = |samples: &[StepSample]| {
            samples.iter().map(|sample| (sample.steps, sample.batch)).collect::<Vec<_>>()
        };
        let samples = counted(&told(&sums));
        assert_eq!(samples.len(), limits::STEP_WIDTHS_MAX);
        // 1, 10 and 13; 17 and 20.
        assert_eq!((samples[0], samples[1], samples.last()), ((3, 8.0), (2, 18.5), Some(&(2, 660.0))));
        assert_eq!(counted(&sums.since(&earlier)), [(2, 7.0), (1, 17.0), (1, 1_000.0)]);
    }

    #[test]
    fn more_steps_than_a_sample_can_count_keep_their_mean() {
        let steps = u64::from(u32::MAX) * 4;
        let full = Sum { steps, rows: 2.0 * f64::from(u32::MAX) * 4.0, kv_tokens: 0.0, seconds: 1.0 };
        let sums = StepSums { widths: [(2, full)].into() };
        assert_eq!(told(&sums), [StepSample { steps: u32::MAX, batch: 2.0, kv_tokens: 0.0, seconds: 1.0 }]);
    }

    proptest! {
        #[test]
        fn whoever_asks_when_no_step_is_lost_and_none_is_told_twice(
            steps in prop::collection::vec((1u32..200, 0u64..100_000, any::<bool>()), 0..300),
        ) {
            let (mut sums, mut mark) = (StepSums::default(), StepSums::default());
            let mut heard = Vec::new();
            for (batch, kv_tokens, report) in &steps {
                sums.add(decode(0.5, *batch, *kv_tokens));
                if *report {
                    heard.extend(sums.since(&mark));
                    mark = sums.clone();
                }
            }
            heard.extend(sums.since(&mark));
            for heard in [heard, told(&sums)] {
                let count: u32 = heard.iter().map(|sample| sample.steps).sum();
                prop_assert_eq!(usize::try_from(count).expect("fits"), steps.len());
                let rows: f64 =
                    heard.iter().map(|sample| f64::from(sample.batch) * f64::from(sample.steps)).sum();
                let expected: f64 = steps.iter().map(|(batch, _, _)| f64::from(*batch)).sum();
                prop_assert!((rows - expected).abs() <= expected * 1e-6, "{rows} is not {expected}");
            }
        }

        #[test]
        fn samples_are_bounded_and_are_numbers(
            steps in prop::collection::vec((any::<f64>(), any::<u32>(), any::<u64>()), 0..300),
        ) {
            let mut sums = StepSums::default();
            for (seconds, batch, kv_tokens) in steps {
                sums.add(decode(seconds, batch, kv_tokens));
            }
            let samples = told(&sums);
            prop_assert!(samples.len() <= limits::STEP_WIDTHS_MAX);
            for sample in samples {
                let figures = [sample.batch, sample.kv_tokens, sample.seconds];
                prop_assert!(sample.steps > 0 && figures.iter().all(|figure| figure.is_finite()), "{sample:?}");
            }
        }
    }
}
