//! What the replicated registry would answer: which memory is reserved for which model.
//!
//! Owns the reservations and grants one that fits at once; the few milliseconds of a commit are nothing beside a load.
//! Refuses what does not fit.

use std::collections::BTreeMap;

use scheduler::{Command, Fact, Lane, ModelId, NodeId};

use crate::fleet::Fleet;

pub(super) struct Registry<'a> {
    fleet: &'a Fleet,
    homes: BTreeMap<Lane, u64>,
}

impl<'a> Registry<'a> {
    /// What nodes hold at the start is reserved there.
    pub(super) fn new(fleet: &'a Fleet) -> Self {
        let held = fleet.nodes.iter().flat_map(|spec| spec.holds.iter().map(|model| (spec.id, *model)));
        let homes = held.map(|(node, model)| ((node, model), bytes(fleet, node, model)));
        Self { fleet, homes: homes.collect() }
    }

    /// What a scheduler is told when it begins.
    pub(super) fn facts(&self) -> Vec<Command> {
        let facts = self.homes.iter().map(|((node, model), bytes)| Fact::Home {
            node: *node,
            model: *model,
            bytes: *bytes,
        });
        facts.map(Command::Recall).collect()
    }

    pub(super) fn reserve(&mut self, lane: Lane, bytes: u64) -> bool {
        let (from, to) = ((lane.0, ModelId(0)), (lane.0, ModelId(u32::MAX)));
        let others = self.homes.range(from..=to).filter(|(other, _)| **other != lane);
        let granted = others.map(|(_, bytes)| bytes).sum::<u64>() + bytes <= budget(self.fleet, lane.0);
        if granted {
            self.homes.insert(lane, bytes);
        }
        granted
    }

    pub(super) fn release(&mut self, lane: Lane) {
        self.homes.remove(&lane);
    }
}

/// What models may take on a node.
pub(super) fn budget(fleet: &Fleet, node: NodeId) -> u64 {
    fleet.node(node).weights_room() as u64
}

/// What a model takes there.
pub(super) fn bytes(fleet: &Fleet, node: NodeId, model: ModelId) -> u64 {
    (fleet.model(model).weights_bytes + fleet.node(node).cache_bytes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{FleetPlan, alike};

    #[test]
    fn what_is_held_at_the_start_is_reserved_and_told() {
        let fleet = FleetPlan::of(alike("M2 Max", 64.0, 2), &["8b"]).build().expect("a fleet");
        let fact = |node| {
            Command::Recall(Fact::Home {
                node: NodeId(node),
                model: ModelId(0),
                bytes: bytes(&fleet, NodeId(node), ModelId(0)),
            })
        };
        assert_eq!(Registry::new(&fleet).facts(), [fact(0), fact(1)]);
    }

    #[test]
    fn memory_is_reserved_up_to_the_budget_and_comes_back() {
        let plan = FleetPlan { placed: Some(2), ..FleetPlan::of(alike("M2 Max", 64.0, 1), &["8b"; 4]) };
        let fleet = plan.build().expect("a fleet");
        let mut registry = Registry::new(&fleet);
        let reserve = |registry: &mut Registry<'_>, model| {
            let lane = (NodeId(0), ModelId(model));
            registry.reserve(lane, bytes(&fleet, NodeId(0), ModelId(model)))
        };
        assert!(reserve(&mut registry, 2), "three fit");
        assert!(reserve(&mut registry, 2), "the same once more takes nothing");
        assert!(!reserve(&mut registry, 3), "a fourth does not");
        registry.release((NodeId(0), ModelId(0)));
        assert!(reserve(&mut registry, 3));
    }
}
