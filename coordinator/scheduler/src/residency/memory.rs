//! Whose bytes lie where: the budget of each node and the replicas that share it.
//!
//! Owns the one sum that must never exceed a budget. Two sums are kept apart: what is *taken* (promised, whether loaded or not),
//! and what is *committed* (what will be taken once those leaving are gone and those intended have come). A newcomer must fit
//! both to be proposed at once, and the second to be intended. Refuses to choose.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::action::ReservationId;
use super::replica::{Phase, Replica};
use crate::ids::{Lane, ModelId, NodeId};

/// A node, as the planner needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) node: NodeId,
    /// What its models may hold together.
    pub(crate) budget_bytes: u64,
    /// Connected, not draining, no breaker open. What is reserved on a node that is not usable stays reserved.
    pub(crate) usable: bool,
    /// Connected, and to be emptied: it serves what it holds until another node does.
    pub(crate) draining: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    nodes: BTreeMap<NodeId, Node>,
    replicas: BTreeMap<Lane, Replica>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Node {
    /// `None` until somebody has described it.
    budget: Option<u64>,
    usable: bool,
    draining: bool,
}

impl Memory {
    /// Whether the node is another one than before.
    pub(crate) fn node(&mut self, facts: NodeFacts, nodes_max: usize) -> bool {
        let node = Node { budget: Some(facts.budget_bytes), usable: facts.usable, draining: facts.draining };
        self.admits(facts.node, nodes_max) && self.nodes.insert(facts.node, node) != Some(node)
    }

    /// Whether the node was there before.
    pub(crate) fn lose(&mut self, node: NodeId) -> bool {
        let Some(node) = self.nodes.get_mut(&node) else { return false };
        let was_there = node.usable || node.draining;
        (node.usable, node.draining) = (false, false);
        was_there
    }

    /// A replica on a node that nobody has described makes the node known, without room.
    pub(crate) fn insert(&mut self, lane: Lane, replica: Replica, nodes_max: usize) {
        if self.admits(lane.0, nodes_max) {
            self.nodes.entry(lane.0).or_default();
            self.replicas.insert(lane, replica);
        }
    }

    pub(crate) fn remove(&mut self, lane: Lane) -> Option<Replica> {
        self.replicas.remove(&lane)
    }

    pub(crate) fn get(&self, lane: Lane) -> Option<&Replica> {
        self.replicas.get(&lane)
    }

    pub(crate) fn get_mut(&mut self, lane: Lane) -> Option<&mut Replica> {
        self.replicas.get_mut(&lane)
    }

    pub(crate) fn asked(&self, number: ReservationId) -> Option<Lane> {
        let mut asked = self.replicas.iter().filter(
            |(_, replica)| matches!(replica.phase, Phase::Asked { number: other, .. } if other == number),
        );
        asked.next().map(|(lane, _)| *lane)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lane, &Replica)> {
        self.replicas.iter().map(|(lane, replica)| (*lane, replica))
    }

    /// Those that are so, for a caller that is about to change them.
    pub(crate) fn lanes(&self, is_so: impl Fn(Lane, &Replica) -> bool) -> Vec<(Lane, Phase)> {
        let so = self.iter().filter(|(lane, replica)| is_so(*lane, replica));
        so.map(|(lane, replica)| (lane, replica.phase)).collect()
    }

    pub(crate) fn on(&self, node: NodeId) -> impl Iterator<Item = (Lane, &Replica)> {
        let range = (node, ModelId(0))..=(node, ModelId(u32::MAX));
        self.replicas.range(range).map(|(lane, replica)| (*lane, replica))
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    pub(crate) fn is_usable(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.usable)
    }

    pub(crate) fn is_draining(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.draining)
    }

    pub(crate) fn budget(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).and_then(|node| node.budget).unwrap_or_default()
    }

    /// Whether no more will be promised than there is. Nothing is too much for a node that nobody has described: a new leader
    /// is told what is reserved before it hears how much there is.
    pub(crate) fn is_within_budget(&self, node: NodeId) -> bool {
        let budget = self.nodes.get(&node).and_then(|node| node.budget);
        budget.is_none_or(|budget| self.committed(node) <= budget)
    }

    /// Bytes that are promised, loaded or not, leaving or not.
    pub(crate) fn taken(&self, node: NodeId) -> u64 {
        sum(self.on(node).filter(|(_, replica)| replica.is_taken()))
    }

    /// Bytes that will be promised when those leaving are gone and those intended have come.
    pub(crate) fn committed(&self, node: NodeId) -> u64 {
        sum(self.on(node).filter(|(_, replica)| !replica.is_leaving()))
    }

    pub(crate) fn has_room_now(&self, node: NodeId, bytes: u64) -> bool {
        self.taken(node).saturating_add(bytes) <= self.budget(node)
    }

    pub(crate) fn loads_on(&self, node: NodeId) -> usize {
        self.on(node).filter(|(_, replica)| replica.is_coming()).count()
    }

    fn admits(&self, node: NodeId, nodes_max: usize) -> bool {
        self.nodes.contains_key(&node) || self.nodes.len() < nodes_max
    }
}

fn sum<'a>(replicas: impl Iterator<Item = (Lane, &'a Replica)>) -> u64 {
    replicas.fold(0, |sum: u64, (_, replica)| sum.saturating_add(replica.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::action::{EvictReason, LoadReason};
    use crate::time::At;

    const NODE: NodeId = NodeId(1);
    const WHY: LoadReason = LoadReason::Waiting;

    fn memory(phases: &[(u64, Phase)]) -> Memory {
        let mut memory = Memory::default();
        memory.node(NodeFacts { node: NODE, budget_bytes: 100, usable: true, draining: false }, 2);
        for (model, (bytes, phase)) in (1..).zip(phases) {
            memory.insert((NODE, ModelId(model)), Replica::new(*bytes, *phase, At(0), 0), 2);
        }
        memory
    }

    #[test]
    fn what_leaves_is_taken_and_what_is_intended_is_committed() {
        let leaving = Phase::Leaving { why: EvictReason::Idle };
        let asked = Phase::Asked { number: ReservationId(4), why: WHY };
        let memory = memory(&[
            (1, Phase::Ready),
            (2, leaving),
            (4, Phase::Intended { why: WHY }),
            (8, asked),
            (16, Phase::Failed),
        ]);
        assert_eq!((memory.taken(NODE), memory.committed(NODE)), (1 + 2 + 8 + 16, 1 + 4 + 8 + 16));
        assert_eq!(memory.loads_on(NODE), 2);
        assert_eq!(memory.asked(ReservationId(4)), Some((NODE, ModelId(4))));
        assert_eq!(memory.asked(ReservationId(5)), None);
    }

    #[test]
    fn room_ends_exactly_at_the_budget() {
        let memory = memory(&[(60, Phase::Ready)]);
        assert!(memory.has_room_now(NODE, 40));
        assert!(!memory.has_room_now(NODE, 41));
        assert!(!memory.has_room_now(NODE, u64::MAX));
        assert!(!memory.has_room_now(NodeId(9), 1), "nobody knows that node");
    }

    #[test]
    fn a_node_is_over_its_budget_only_once_it_has_told_one() {
        let mut memory = memory(&[(60, Phase::Ready)]);
        assert!(memory.is_within_budget(NODE));
        memory.node(NodeFacts { node: NODE, budget_bytes: 59, usable: true, draining: false }, 2);
        assert!(!memory.is_within_budget(NODE));
        memory.insert((NodeId(2), ModelId(1)), Replica::new(5, Phase::Reserved, At(0), 0), 2);
        assert!(memory.is_within_budget(NodeId(2)));
        memory.node(NodeFacts { node: NodeId(2), budget_bytes: 0, usable: true, draining: false }, 2);
        assert!(!memory.is_within_budget(NodeId(2)));
    }

    #[test]
    fn a_replica_on_an_unknown_node_makes_it_known_without_room() {
        let mut memory = memory(&[]);
        memory.insert((NodeId(2), ModelId(1)), Replica::new(5, Phase::Reserved, At(0), 0), 2);
        assert_eq!(
            (memory.budget(NodeId(2)), memory.is_usable(NodeId(2)), memory.taken(NodeId(2))),
            (0, false, 5)
        );
        memory.node(NodeFacts { node: NodeId(2), budget_bytes: 9, usable: true, draining: false }, 2);
        assert!(memory.has_room_now(NodeId(2), 4) && memory.is_usable(NodeId(2)));
    }

    #[test]
    fn nodes_are_bounded() {
        let mut memory = memory(&[]);
        for node in 2..5 {
            memory.node(NodeFacts { node: NodeId(node), budget_bytes: 9, usable: true, draining: false }, 2);
            memory.insert((NodeId(node), ModelId(1)), Replica::new(1, Phase::Ready, At(0), 0), 2);
        }
        assert_eq!(memory.nodes().collect::<Vec<_>>(), [NODE, NodeId(2)]);
        assert_eq!(memory.iter().count(), 1);
    }
}
