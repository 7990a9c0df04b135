//! Which pins are kept: those that fit their node's budget together.
//!
//! Owns the order in which pins are honoured: first those that are resident, then by model. A pin that does not fit behind
//! those before it is refused, not half kept. The room of an honoured pin is set aside until the model is there. Refuses to
//! make that room (`wants`, `evict`).

use alloc::vec::Vec;

use super::Residency;
use super::replica::Phase;
use crate::ids::{Lane, ModelId, NodeId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) model: ModelId,
    /// What it needs; `None` when the node does not offer it.
    pub(super) bytes: Option<u64>,
    /// Resident, or on the way there.
    pub(super) present: bool,
    /// What the pins before it leave of the budget.
    pub(super) left: u64,
}

impl Pin {
    pub(super) fn is_honoured(&self) -> bool {
        self.bytes.is_some_and(|bytes| self.present || bytes <= self.left)
    }
}

impl Residency {
    /// The pins of a node in the order in which they are honoured.
    pub(super) fn pins(&self, node: NodeId) -> Vec<Pin> {
        let mut left = self.memory.budget(node);
        let mut pins: Vec<Pin> = self.policies.pins_on(node).map(|model| self.pin((node, model))).collect();
        pins.sort_by_key(|pin| (!pin.present, pin.model));
        for pin in &mut pins {
            pin.left = left;
            if let (Some(bytes), true) = (pin.bytes, pin.is_honoured()) {
                left = left.saturating_sub(bytes);
            }
        }
        pins
    }

    /// What is set aside on a node: pins that are honoured and not there.
    pub(super) fn missing_pins(&self, node: NodeId) -> Vec<(ModelId, u64)> {
        let missing = self.pins(node).into_iter().filter(|pin| pin.is_honoured() && !pin.present);
        missing.filter_map(|pin| Some((pin.model, pin.bytes?))).collect()
    }

    fn pin(&self, lane: Lane) -> Pin {
        let replica = self.memory.get(lane).filter(|replica| match replica.phase {
            Phase::Failed | Phase::Leaving { .. } => false,
            Phase::Intended { .. }
            | Phase::Asked { .. }
            | Phase::Reserved
            | Phase::Loading { .. }
            | Phase::Ready => true,
        });
        let bytes = replica.map(|replica| replica.bytes).or(self.offers.get(lane).map(|offer| offer.bytes));
        Pin { model: lane.1, bytes, present: replica.is_some(), left: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ResidencyLimits;
    use crate::residency::ResidentState;
    use crate::residency::stage_tests::{GIB, Stage, s};

    const NODE: NodeId = NodeId(1);

    /// A node with room for two of the three models pinned there.
    fn stage() -> Stage {
        let mut stage = Stage::new(ResidencyLimits::default());
        stage.node(1, 20);
        for model in 1..=3 {
            stage.offer(1, model, 10, 2);
            stage.pin(1, model);
        }
        stage
    }

    fn missing(stage: &Stage) -> Vec<u32> {
        stage.planner.missing_pins(NODE).into_iter().map(|(model, _)| model.0).collect()
    }

    #[test]
    fn pins_are_honoured_by_model_while_they_fit() {
        assert_eq!(missing(&stage()), [1, 2]);
        let mut stage = stage();
        stage.offer(1, 1, 21, 2);
        assert_eq!(missing(&stage), [2, 3], "one that does not fit takes nothing from those after it");
    }

    #[test]
    fn a_pin_that_is_there_comes_before_the_others() {
        let mut stage = stage();
        stage.ready(0, 1, 3);
        assert_eq!(missing(&stage), [1]);
        stage.ready(0, 1, 1);
        assert_eq!(missing(&stage), [0; 0]);
    }

    #[test]
    fn a_pin_that_failed_or_leaves_is_missing() {
        for state in [ResidentState::Failed { until: s(9) }, ResidentState::Unloading] {
            let mut stage = stage();
            stage.reports(0, 1, 1, state);
            assert_eq!(missing(&stage), [1, 2], "{state:?}");
        }
        let mut stage = stage();
        stage.reports(0, 1, 1, ResidentState::Loading { ready_at: s(9) });
        assert_eq!(missing(&stage), [2]);
    }

    #[test]
    fn a_pin_of_what_the_node_does_not_have_sets_nothing_aside() {
        let mut stage = stage();
        stage.planner.withdrawn(NODE, ModelId(1));
        assert_eq!(missing(&stage), [2, 3]);
        assert_eq!(stage.planner.missing_pins(NodeId(2)), []);
    }

    #[test]
    fn a_resident_pin_stays_honoured_when_its_budget_is_gone() {
        let mut stage = stage();
        stage.ready(0, 1, 1);
        stage.node(1, 5);
        let pins: Vec<_> =
            stage.planner.pins(NODE).iter().map(|pin| (pin.model.0, pin.is_honoured(), pin.left)).collect();
        assert_eq!(pins, [(1, true, 5 * GIB), (2, false, 0), (3, false, 0)]);
    }
}
