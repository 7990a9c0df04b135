//! What a node says of itself.
//!
//! Owns the shape of a report and what of it is believed. Refuses to make a busy node look idle: what runs is counted at dispatch
//! by the ledger, never taken from here.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::ids::ModelId;
use crate::limits::BYTES_MAX;
use crate::time::Span;

/// All the models a node offers or holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeReport {
    /// A number that is another one whenever the process that reports is; zero where nobody knows. A node that was lost and comes
    /// back with the same number has not died.
    pub life: u64,
    /// Bytes that models may take there; zero where nothing is known, and then nothing is loaded or evicted by the scheduler.
    pub budget_bytes: u64,
    /// One entry per model; of two entries for one model the first counts.
    pub models: Vec<ModelReport>,
}

/// One model on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelReport {
    /// Which one.
    pub model: ModelId,
    /// Whether it can run.
    pub state: ModelState,
    /// Sequences the runtime takes at once.
    pub slots: u32,
    /// Tokens its KV cache may hold over all sequences; zero where nobody knows.
    pub kv_tokens: u32,
    /// Tokens its prefix cache may hold; zero where it has none.
    pub prefix_tokens: u32,
    /// Memory to reserve before it is loaded; zero while nobody knows.
    pub bytes: u64,
    /// How fast it is expected to be, from a table; what is measured counts more.
    pub rates: Rates,
    /// What was measured since the last report.
    pub measured: Measured,
}

/// Whether a model can run on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelState {
    /// It could be loaded.
    #[default]
    Offered,
    /// It is being loaded.
    Loading {
        /// Until it is ready, where somebody knows.
        left: Option<Span>,
    },
    /// It runs.
    Ready,
    /// It is being unloaded; its memory is still taken.
    Unloading,
    /// Loading it failed.
    Failed,
}

/// How fast a model runs on a node. A value that is not finite or not above zero counts as unknown and is replaced by the
/// one in [`crate::Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Prompt tokens per second when nothing else runs.
    pub prefill_tokens_per_s: f32,
    /// Milliseconds of a decode step with one sequence (t1).
    pub step_ms: f32,
    /// What each further sequence adds to a step, as a share of `step_ms` (beta).
    pub batch_slope: f32,
}

/// What a runtime measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Its decode steps, summed up by width.
    pub steps: Vec<StepSample>,
    /// How long the latest load took, told once.
    pub load: Option<Span>,
}

/// Decode steps of about one width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSample {
    /// How many.
    pub steps: u32,
    /// Sequences in each, as a mean.
    pub batch: f32,
    /// Tokens in the KV cache, as a mean.
    pub kv_tokens: f32,
    /// Of all of them together, prefill left out.
    pub seconds: f32,
}

impl NodeReport {
    /// What is believed of the report: the first entry of each model, up to the bounds.
    pub(crate) fn believed(
        mut self,
        models_max: usize,
        slots_max: u32,
        samples_max: usize,
    ) -> Vec<ModelReport> {
        let mut seen = BTreeSet::new();
        self.models.retain(|model| seen.insert(model.model));
        self.models.truncate(models_max);
        for model in &mut self.models {
            model.slots = model.slots.min(slots_max);
            model.bytes = model.bytes.min(BYTES_MAX);
            model.measured.steps.truncate(samples_max);
        }
        self.models
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(model: u32, slots: u32) -> ModelReport {
        let sample = StepSample { steps: 1, batch: 1.0, kv_tokens: 0.0, seconds: 0.1 };
        ModelReport {
            model: ModelId(model),
            state: ModelState::Ready,
            slots,
            kv_tokens: 0,
            prefix_tokens: 0,
            bytes: 0,
            rates: Rates::default(),
            measured: Measured { steps: vec![sample; 3], load: None },
        }
    }

    #[test]
    fn a_report_is_believed_within_bounds_only() {
        let models = vec![model(1, 9), model(1, 2), model(2, 3), model(3, 1)];
        let believed = NodeReport { models, ..NodeReport::default() }.believed(2, 8, 1);
        let told: Vec<_> =
            believed.iter().map(|model| (model.model.0, model.slots, model.measured.steps.len())).collect();
        assert_eq!(told, [(1, 8, 1), (2, 3, 1)]);
    }

    #[test]
    fn no_model_is_believed_to_be_larger_than_a_room_of_macs() {
        let absurd = ModelReport { bytes: u64::MAX, ..model(1, 1) };
        let honest = ModelReport { bytes: 5 << 30, ..model(2, 1) };
        let report = NodeReport { models: vec![absurd, honest], ..NodeReport::default() };
        let bytes: Vec<u64> = report.believed(8, 8, 8).iter().map(|model| model.bytes).collect();
        assert_eq!(bytes, [BYTES_MAX, 5 << 30]);
    }
}
