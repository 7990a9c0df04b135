//! What a runtime tells of its decode steps: sums for each width of the batch since the last report.
//!
//! Owns the sums. Refuses prefill: of a turn that did both, the runtime tells the time of either part.

/// Decode steps of one width, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepSample {
    /// Sequences in each of the steps.
    pub batch: u32,
    /// Whether no other runtime of the node had a turn between them.
    pub alone: bool,
    /// How many steps.
    pub steps: u64,
    /// KV tokens in the batch, mean over the steps.
    pub mean_kv_tokens: f64,
    /// The time of all the steps.
    pub seconds: f64,
}

/// One entry for each width and company.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<StepSample>);

impl Samples {
    /// `steps` steps of `batch` rows, which held `kv_tokens` before the first of them.
    pub(crate) fn add(&mut self, batch: u32, alone: bool, steps: u64, kv_tokens: f64, seconds: f64) {
        let mean = kv_tokens + f64::from(batch) * (steps as f64 - 1.0) / 2.0;
        let known = self.0.iter_mut().find(|sample| sample.batch == batch && sample.alone == alone);
        match known {
            Some(sample) => {
                let before = sample.mean_kv_tokens * sample.steps as f64;
                sample.steps += steps;
                sample.mean_kv_tokens = (before + mean * steps as f64) / sample.steps as f64;
                sample.seconds += seconds;
            }
            None => self.0.push(StepSample { batch, alone, steps, mean_kv_tokens: mean, seconds }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<StepSample> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_one_width_are_summed_and_others_kept_apart() {
        let mut samples = Samples::default();
        samples.add(2, true, 3, 100.0, 0.3);
        samples.add(2, true, 1, 200.0, 0.2);
        samples.add(2, false, 1, 100.0, 0.4);
        samples.add(1, true, 1, 50.0, 0.1);
        let sample = |batch, alone, steps, mean_kv_tokens, seconds| StepSample {
            batch,
            alone,
            steps,
            mean_kv_tokens,
            seconds,
        };
        let expected = [
            sample(2, true, 4, (100.0 + 102.0 + 104.0 + 200.0) / 4.0, 0.5),
            sample(2, false, 1, 100.0, 0.4),
            sample(1, true, 1, 50.0, 0.1),
        ];
        assert_eq!(samples.take(), expected);
        assert_eq!(samples.take(), []);
    }
}
