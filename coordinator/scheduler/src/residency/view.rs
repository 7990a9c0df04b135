//! What the rest of the scheduler looks like at the moment of a plan.
//!
//! Owns the shape of what the planner is lent: who waits, what runs where, how fast nodes are. Refuses to be kept: the queue and
//! the ledger own these facts, and a copy would be wrong a moment later.

use alloc::collections::BTreeMap;

use crate::ids::{Lane, ModelId, NodeId};
use crate::time::{At, Span};

/// Borrowed for one plan.
pub(crate) struct PlanView<'a> {
    /// Models somebody waits for.
    pub(crate) waiting: BTreeMap<ModelId, Waiting>,
    /// Replicas that were sent something since they became ready.
    pub(crate) lanes: BTreeMap<Lane, Use>,
    /// The work a node does for the model in one second, in the node-seconds in which work is counted here. What is not finite or
    /// not above zero counts as one.
    pub(crate) speed: &'a dyn Fn(NodeId, ModelId) -> f64,
}

/// Those who wait for one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) count: u32,
    /// All their work together, in node-seconds.
    pub(crate) work: Span,
    /// When the first of them arrived.
    pub(crate) oldest: At,
}

/// The use of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) in_flight: u32,
    /// How long what is in flight keeps its node busy from now.
    pub(crate) busy: Span,
    /// The latest dispatch or end of an attempt.
    pub(crate) last_use: At,
    /// Prefill that the prefixes cached there are likely to save, and that an eviction loses.
    pub(crate) prefix_value: Span,
}

impl PlanView<'_> {
    pub(crate) fn lane(&self, lane: Lane) -> Use {
        self.lanes.get(&lane).copied().unwrap_or_default()
    }

    pub(crate) fn speed(&self, (node, model): Lane) -> f64 {
        let speed = (self.speed)(node, model);
        if speed.is_finite() && speed > 0.0 { speed } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(speed: &dyn Fn(NodeId, ModelId) -> f64) -> PlanView<'_> {
        PlanView { waiting: BTreeMap::new(), lanes: BTreeMap::new(), speed }
    }

    #[test]
    fn a_speed_that_means_nothing_counts_as_one() {
        let lane = (NodeId(1), ModelId(1));
        for absurd in [f64::NAN, f64::INFINITY, 0.0, -2.0] {
            assert!((view(&|_, _| absurd).speed(lane) - 1.0).abs() < f64::EPSILON);
        }
        assert!((view(&|_, _| 2.5).speed(lane) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_replica_that_was_never_used_is_not_busy() {
        assert_eq!(view(&|_, _| 1.0).lane((NodeId(1), ModelId(1))), Use::default());
    }
}
