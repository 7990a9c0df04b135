//! The nodes and what each holds, as they last said.
//!
//! Owns residency, reported rates and drains. Refuses to count what runs (the ledger does, so that a report can never make a
//! busy node look idle) and to judge health.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::command::{ModelReport, NodeReport, Rates};
use crate::ids::{ModelId, NodeId};

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
    models: BTreeMap<ModelId, Rates>,
}

impl Fleet {
    /// Takes a complete list. Returns the models that are gone with it; `None` when there is no room for a new node.
    pub(crate) fn report(
        &mut self,
        id: NodeId,
        models: &[ModelReport],
        nodes_max: usize,
    ) -> Option<Vec<ModelId>> {
        if !self.nodes.contains_key(&id) && self.nodes.len() >= nodes_max {
            return None;
        }
        self.reports = self.reports.saturating_add(1);
        let node = self.nodes.entry(id).or_default();
        node.report = self.reports;
        let listed: BTreeMap<ModelId, Rates> =
            models.iter().map(|model| (model.model, model.rates)).collect();
        let before = core::mem::replace(&mut node.models, listed);
        let gone: Vec<ModelId> =
            before.into_keys().filter(|model| !node.models.contains_key(model)).collect();
        for model in models {
            self.holders.entry(model.model).or_default().insert(id);
        }
        gone.iter().for_each(|model| self.unhold(*model, id));
        Some(gone)
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

    pub(crate) fn holders(&self, model: ModelId) -> impl Iterator<Item = NodeId> + '_ {
        self.holders.get(&model).into_iter().flatten().copied()
    }

    pub(crate) fn models(&self, id: NodeId) -> impl Iterator<Item = ModelId> + '_ {
        self.nodes.get(&id).into_iter().flat_map(|node| node.models.keys().copied())
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }

    /// As reported; may hold anything.
    pub(crate) fn rates(&self, id: NodeId, model: ModelId) -> Option<Rates> {
        self.nodes.get(&id)?.models.get(&model).copied()
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

impl NodeReport {
    /// What is believed of the report: the first entry of each model, up to the bounds.
    pub(crate) fn believed(&self, models_max: usize, slots_max: u32) -> Vec<ModelReport> {
        let mut seen = BTreeSet::new();
        let first = self.models.iter().filter(|model| seen.insert(model.model));
        first
            .take(models_max)
            .map(|model| ModelReport { slots: model.slots.min(slots_max), ..*model })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { prefill_tokens_per_s: 100.0, step_ms: 20.0, batch_slope: 0.3 };

    fn model(model: u32, slots: u32) -> ModelReport {
        ModelReport { model: ModelId(model), slots, rates: RATES }
    }

    fn holders(fleet: &Fleet, model: u32) -> Vec<u64> {
        fleet.holders(ModelId(model)).map(|node| node.0).collect()
    }

    #[test]
    fn a_report_is_the_whole_truth_about_residency() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.report(NodeId(1), &[model(1, 4), model(2, 4)], 8), Some(vec![]));
        assert_eq!(fleet.report(NodeId(1), &[model(2, 4), model(3, 4)], 8), Some(vec![ModelId(1)]));
        assert_eq!(holders(&fleet, 1), [0; 0]);
        assert_eq!(holders(&fleet, 2), [1]);
        assert_eq!(holders(&fleet, 3), [1]);
        assert_eq!(fleet.rates(NodeId(1), ModelId(1)), None);
        assert_eq!(fleet.rates(NodeId(1), ModelId(3)), Some(RATES));
    }

    #[test]
    fn a_lost_node_holds_nothing_and_a_drain_outlives_it() {
        let mut fleet = Fleet::default();
        fleet.report(NodeId(1), &[model(1, 4)], 8);
        fleet.drain(NodeId(1), true, 8);
        assert_eq!(fleet.lose(NodeId(1)), [ModelId(1)]);
        assert_eq!(fleet.lose(NodeId(1)), []);
        assert_eq!(holders(&fleet, 1), [0; 0]);
        assert!(fleet.is_draining(NodeId(1)));
        fleet.drain(NodeId(1), false, 8);
        assert!(!fleet.is_draining(NodeId(1)));
    }

    #[test]
    fn a_fleet_that_is_full_admits_no_new_node_and_hears_the_old_ones() {
        let mut fleet = Fleet::default();
        fleet.report(NodeId(1), &[], 1);
        assert_eq!(fleet.report(NodeId(2), &[model(1, 4)], 1), None);
        assert_eq!(fleet.report(NodeId(1), &[model(1, 4)], 1), Some(vec![]));
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

    #[test]
    fn a_report_is_believed_within_bounds_only() {
        let report = NodeReport { models: vec![model(1, 9), model(1, 2), model(2, 3), model(3, 1)] };
        assert_eq!(report.believed(2, 8), [model(1, 8), model(2, 3)]);
    }
}
