//! The nodes and what each can run now, as they last said.
//!
//! Owns who holds what, the room of each KV cache, and drains. Refuses to count what runs (the ledger does, so that a report can never make a
//! busy node look idle) and to judge health.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::ids::{Lane, ModelId, NodeId};
use crate::report::ModelReport;
use crate::time::At;

#[derive(Debug, Default)]
pub(crate) struct Fleet {
    nodes: BTreeMap<NodeId, Node>,
    holders: BTreeMap<ModelId, BTreeSet<NodeId>>,
    /// Kept through the loss of a node: a Mac that is drained for repair comes back drained.
    draining: BTreeSet<NodeId>,
    reports: u64,
}

#[derive(Debug, Default)]
struct Node {
    /// The number of its latest report, counted over the whole fleet.
    report: u64,
    /// As it last said; zero where nobody knows.
    life: u64,
    /// Each with the tokens its KV cache may hold; zero where nobody knows.
    models: BTreeMap<ModelId, u32>,
    /// When each was last sent something.
    used: BTreeMap<ModelId, At>,
}

impl Fleet {
    /// Takes a complete list of what is ready. Returns the models that are gone with it; `None` when there is no room for a new node.
    pub(crate) fn report(
        &mut self,
        id: NodeId,
        models: &[&ModelReport],
        nodes_max: usize,
    ) -> Option<Vec<ModelId>> {
        if !self.nodes.contains_key(&id) && self.nodes.len() >= nodes_max {
            return None;
        }
        self.reports = self.reports.saturating_add(1);
        let node = self.nodes.entry(id).or_default();
        node.report = self.reports;
        let listed: BTreeMap<ModelId, u32> =
            models.iter().map(|model| (model.model, model.kv_tokens)).collect();
        let before = core::mem::replace(&mut node.models, listed);
        let gone: Vec<ModelId> =
            before.into_keys().filter(|model| !node.models.contains_key(model)).collect();
        node.used.retain(|model, _| node.models.contains_key(model));
        for model in models {
            self.holders.entry(model.model).or_default().insert(id);
        }
        gone.iter().for_each(|model| self.unhold(*model, id));
        Some(gone)
    }

    /// In which life a node is, if it is there.
    pub(crate) fn life(&self, id: NodeId) -> Option<u64> {
        self.nodes.get(&id).map(|node| node.life)
    }

    pub(crate) fn lives(&mut self, id: NodeId, life: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.life = life;
        }
    }

    /// Forgets a node. Returns what it held.
    pub(crate) fn lose(&mut self, id: NodeId) -> Vec<ModelId> {
        let held: Vec<ModelId> = self.nodes.remove(&id).unwrap_or_default().models.into_keys().collect();
        held.iter().for_each(|model| self.unhold(*model, id));
        held
    }

    pub(crate) fn drain(&mut self, id: NodeId, draining: bool, nodes_max: usize) {
        if !draining {
            self.draining.remove(&id);
        } else if self.draining.len() < nodes_max {
            self.draining.insert(id);
        }
    }

    pub(crate) fn is_draining(&self, id: NodeId) -> bool {
        self.draining.contains(&id)
    }

    pub(crate) fn draining(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.draining.iter().copied()
    }

    pub(crate) fn holders(&self, model: ModelId) -> impl Iterator<Item = NodeId> + '_ {
        self.holders.get(&model).into_iter().flatten().copied()
    }

    /// The models that are ready there.
    pub(crate) fn ready(&self, id: NodeId) -> impl Iterator<Item = ModelId> + '_ {
        self.nodes.get(&id).into_iter().flat_map(|node| node.models.keys().copied())
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }

    /// Something was sent there.
    pub(crate) fn used(&mut self, lane: Lane, at: At) {
        if let Some(node) = self.nodes.get_mut(&lane.0) {
            node.used.insert(lane.1, at);
        }
    }

    pub(crate) fn last_use(&self, lane: Lane) -> At {
        self.nodes.get(&lane.0).and_then(|node| node.used.get(&lane.1)).copied().unwrap_or_default()
    }

    /// Every runtime that can run something.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = Lane> + '_ {
        self.nodes.iter().flat_map(|(node, held)| held.models.keys().map(move |model| (*node, *model)))
    }

    /// What the KV cache of a runtime may hold; zero where nobody knows.
    pub(crate) fn kv_tokens(&self, lane: Lane) -> u32 {
        self.nodes.get(&lane.0).and_then(|node| node.models.get(&lane.1)).copied().unwrap_or(0)
    }

    /// The number of the latest report of any node.
    pub(crate) fn reports(&self) -> u64 {
        self.reports
    }

    /// Whether the node has reported since the fleet's report number `report`.
    pub(crate) fn reported_since(&self, id: NodeId, report: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.report > report)
    }

    fn unhold(&mut self, model: ModelId, id: NodeId) {
        if let Some(holders) = self.holders.get_mut(&model) {
            holders.remove(&id);
            if holders.is_empty() {
                self.holders.remove(&model);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::report::{Measured, ModelState, Rates};

    fn model(model: u32) -> ModelReport {
        ModelReport {
            model: ModelId(model),
            state: ModelState::Ready,
            slots: 4,
            kv_tokens: 1_000 * model,
            prefix_tokens: 0,
            bytes: 0,
            rates: Rates::default(),
            measured: Measured::default(),
        }
    }

    fn holders(fleet: &Fleet, model: u32) -> Vec<u64> {
        fleet.holders(ModelId(model)).map(|node| node.0).collect()
    }

    #[test]
    fn a_report_is_the_whole_truth_about_residency() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.report(NodeId(1), &[&model(1), &model(2)], 8), Some(vec![]));
        assert_eq!(fleet.report(NodeId(1), &[&model(2), &model(3)], 8), Some(vec![ModelId(1)]));
        assert_eq!(holders(&fleet, 1), [0; 0]);
        assert_eq!(holders(&fleet, 2), [1]);
        assert_eq!(holders(&fleet, 3), [1]);
        assert_eq!(fleet.kv_tokens((NodeId(1), ModelId(1))), 0);
        assert_eq!(fleet.kv_tokens((NodeId(1), ModelId(3))), 3_000);
    }

    #[test]
    fn a_lost_node_holds_nothing_and_a_drain_outlives_it() {
        let mut fleet = Fleet::default();
        fleet.report(NodeId(1), &[&model(1)], 8);
        fleet.drain(NodeId(1), true, 8);
        assert_eq!(fleet.lose(NodeId(1)), [ModelId(1)]);
        assert_eq!(fleet.lose(NodeId(1)), []);
        assert_eq!(holders(&fleet, 1), [0; 0]);
        assert!(fleet.is_draining(NodeId(1)));
        fleet.drain(NodeId(1), false, 8);
        assert!(!fleet.is_draining(NodeId(1)));
    }

    #[test]
    fn the_life_of_a_node_is_known_while_it_is_there() {
        let mut fleet = Fleet::default();
        fleet.lives(NodeId(1), 7);
        assert_eq!(fleet.life(NodeId(1)), None);
        fleet.report(NodeId(1), &[], 8);
        fleet.lives(NodeId(1), 7);
        fleet.report(NodeId(1), &[], 8);
        assert_eq!(fleet.life(NodeId(1)), Some(7));
        fleet.lose(NodeId(1));
        assert_eq!(fleet.life(NodeId(1)), None);
    }

    #[test]
    fn a_fleet_that_is_full_admits_no_new_node_and_hears_the_old_ones() {
        let mut fleet = Fleet::default();
        fleet.report(NodeId(1), &[], 1);
        assert_eq!(fleet.report(NodeId(2), &[&model(1)], 1), None);
        assert_eq!(fleet.report(NodeId(1), &[&model(1)], 1), Some(vec![]));
        assert_eq!(holders(&fleet, 1), [1]);
    }

    #[test]
    fn reports_are_numbered_over_the_whole_fleet() {
        let mut fleet = Fleet::default();
        fleet.report(NodeId(1), &[], 8);
        let then = fleet.reports();
        assert!(!fleet.reported_since(NodeId(1), then));
        fleet.report(NodeId(2), &[], 8);
        assert!(!fleet.reported_since(NodeId(1), then));
        fleet.report(NodeId(1), &[], 8);
        assert!(fleet.reported_since(NodeId(1), then));
        fleet.lose(NodeId(1));
        assert!(!fleet.reported_since(NodeId(1), then));
    }
}
