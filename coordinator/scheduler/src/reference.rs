//! What work takes on a typical node: the mean over the nodes that hold a model.
//!
//! Owns one figure per model for a prompt token and for an answer token, in node time. They make requests comparable (which is
//! smaller, how long is the line) before anybody knows where each will run. Refuses to know single nodes: `placement` scores those.

use alloc::collections::BTreeMap;

use crate::ids::ModelId;
use crate::limits::TYPICAL_SHARE;
use crate::time::Span;

/// Node time of a model's work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// Of a prompt token.
    pub(crate) prefill_s: f64,
    /// Of an answer token, in a batch as wide as it usually is.
    pub(crate) decode_s: f64,
    /// Nodes that hold the model.
    pub(crate) nodes: u32,
}

/// What a model's requests are like, as a running mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Typical {
    /// Prompt tokens that had to be computed.
    pub(crate) uncached: f64,
    pub(crate) generated: f64,
}

#[derive(Debug)]
pub(crate) struct Reference {
    paces: BTreeMap<ModelId, Pace>,
    typical: BTreeMap<ModelId, Typical>,
    /// Of a model that no node holds.
    assumed: Pace,
    models_max: usize,
}

impl Reference {
    pub(crate) fn new(assumed_prefill_s: f64, assumed_decode_s: f64, models_max: usize) -> Self {
        let assumed = Pace { prefill_s: assumed_prefill_s, decode_s: assumed_decode_s, nodes: 0 };
        Self { paces: BTreeMap::new(), typical: BTreeMap::new(), assumed, models_max }
    }

    /// The nodes that hold the model, each with its seconds for a prompt token and for an answer token.
    pub(crate) fn measured(&mut self, model: ModelId, nodes: impl Iterator<Item = (f64, f64)>) {
        let before = self.pace(model);
        let (mut prefill_s, mut decode_s, mut count) = (0.0, 0.0, 0_u32);
        for (prefill, decode) in nodes {
            (prefill_s, decode_s, count) = (prefill_s + prefill, decode_s + decode, count.saturating_add(1));
        }
        if self.paces.len() >= self.models_max && !self.paces.contains_key(&model) {
            return;
        }
        let share = f64::from(count.max(1));
        // A model that no node holds any more keeps its pace: it will be loaded where it was before.
        let pace = match count {
            0 => Pace { nodes: 0, ..before },
            _ => Pace { prefill_s: prefill_s / share, decode_s: decode_s / share, nodes: count },
        };
        self.paces.insert(model, pace);
    }

    /// A request was answered.
    pub(crate) fn completed(&mut self, model: ModelId, uncached: u32, generated: u32) {
        if self.typical.len() >= self.models_max && !self.typical.contains_key(&model) {
            return;
        }
        let (uncached, generated) = (f64::from(uncached), f64::from(generated));
        let typical = self.typical.entry(model).or_insert(Typical { uncached, generated });
        typical.uncached += (uncached - typical.uncached) * TYPICAL_SHARE;
        typical.generated += (generated - typical.generated) * TYPICAL_SHARE;
    }

    /// `None` before the first answer.
    pub(crate) fn typical(&self, model: ModelId) -> Option<Typical> {
        self.typical.get(&model).copied()
    }

    pub(crate) fn pace(&self, model: ModelId) -> Pace {
        self.paces.get(&model).copied().unwrap_or(self.assumed)
    }

    /// Node time of a request.
    pub(crate) fn work(&self, model: ModelId, prompt_tokens: u32, output_tokens: u32) -> Span {
        let pace = self.pace(model);
        let seconds = f64::from(prompt_tokens) * pace.prefill_s + f64::from(output_tokens) * pace.decode_s;
        // The cast saturates, and takes NaN for zero.
        Span((seconds * 1e6) as u64)
    }

    /// How long so much node time takes when all nodes that hold the model share it.
    pub(crate) fn shared(&self, model: ModelId, work: Span) -> Span {
        Span(work.0.checked_div(u64::from(self.pace(model).nodes.max(1))).unwrap_or(work.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId(1);

    fn reference() -> Reference {
        Reference::new(0.01, 0.1, 1)
    }

    #[test]
    fn a_model_that_no_node_holds_is_assumed_to_be_slow() {
        assert_eq!(reference().work(MODEL, 100, 10), Span::from_s(2));
        assert_eq!(reference().shared(MODEL, Span::from_s(2)), Span::from_s(2));
    }

    #[test]
    fn work_is_that_of_the_mean_node_and_is_shared_by_all() {
        let mut reference = reference();
        reference.measured(MODEL, [(0.001, 0.01), (0.003, 0.03)].into_iter());
        assert_eq!(reference.work(MODEL, 1_000, 100), Span::from_s(4));
        assert_eq!(reference.shared(MODEL, Span::from_s(4)), Span::from_s(2));
    }

    #[test]
    fn a_model_that_leaves_its_last_node_keeps_its_pace() {
        let mut reference = reference();
        reference.measured(MODEL, [(0.001, 0.01)].into_iter());
        reference.measured(MODEL, core::iter::empty());
        assert_eq!(reference.pace(MODEL), Pace { prefill_s: 0.001, decode_s: 0.01, nodes: 0 });
    }

    #[test]
    fn what_is_typical_follows_what_is_seen() {
        let mut reference = reference();
        assert_eq!(reference.typical(MODEL), None);
        reference.completed(MODEL, 1_000, 100);
        assert_eq!(reference.typical(MODEL), Some(Typical { uncached: 1_000.0, generated: 100.0 }));
        (0..400).for_each(|_| reference.completed(MODEL, 200, 300));
        let typical = reference.typical(MODEL).expect("seen");
        assert!(
            (typical.uncached - 200.0).abs() < 2.0 && (typical.generated - 300.0).abs() < 1.0,
            "{typical:?}"
        );
        reference.completed(ModelId(2), 1, 1);
        assert_eq!(reference.typical(ModelId(2)), None, "models are bounded");
    }

    #[test]
    fn models_beyond_the_bound_are_assumed() {
        let mut reference = reference();
        reference.measured(MODEL, [(0.001, 0.01)].into_iter());
        reference.measured(ModelId(2), [(0.001, 0.01)].into_iter());
        assert_eq!(reference.work(ModelId(2), 100, 10), Span::from_s(2));
    }

    #[test]
    fn absurd_figures_end_at_the_end_of_time() {
        let mut reference = reference();
        reference.measured(MODEL, [(f64::MAX, f64::MAX)].into_iter());
        assert_eq!(reference.work(MODEL, 9, 9), Span(u64::MAX));
        reference.measured(MODEL, [(f64::NAN, 0.0)].into_iter());
        assert_eq!(reference.work(MODEL, 9, 9), Span::ZERO);
    }
}
