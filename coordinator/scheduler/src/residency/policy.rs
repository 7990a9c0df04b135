//! What operators want of each model: where it is pinned, how many replicas, how long it may idle.
//!
//! Owns the policies and, by node, the pins. Refuses to judge whether they can be met (`pins`, `refusal`).

use alloc::collections::{BTreeMap, BTreeSet};

use crate::ids::{Lane, ModelId, NodeId};
use crate::time::Span;

/// What an operator wants of a model. The default wants nothing and forbids nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPolicy {
    /// Where it is always resident. Pins count as replicas and are kept beyond `replicas_max`.
    pub pinned: BTreeSet<NodeId>,
    /// Replicas that are kept without any traffic.
    pub replicas_min: u32,
    /// The most replicas; below `replicas_min` or one it counts as that.
    pub replicas_max: u32,
    /// A replica that idles so long is unloaded, down to `replicas_min`, which may be none. `None`: only when its room is needed.
    pub idle_unload: Option<Span>,
}

impl Default for ModelPolicy {
    fn default() -> Self {
        Self { pinned: BTreeSet::new(), replicas_min: 0, replicas_max: u32::MAX, idle_unload: None }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Policies {
    models: BTreeMap<ModelId, ModelPolicy>,
    pins: BTreeMap<NodeId, BTreeSet<ModelId>>,
}

impl Policies {
    pub(crate) fn set(&mut self, model: ModelId, policy: ModelPolicy, models_max: usize) {
        if !self.models.contains_key(&model) && self.models.len() >= models_max {
            return;
        }
        self.pins.retain(|_, models| {
            models.remove(&model);
            !models.is_empty()
        });
        for node in &policy.pinned {
            self.pins.entry(*node).or_default().insert(model);
        }
        if policy == ModelPolicy::default() {
            self.models.remove(&model);
        } else {
            self.models.insert(model, policy);
        }
    }

    pub(crate) fn is_pinned(&self, (node, model): Lane) -> bool {
        self.pins.get(&node).is_some_and(|models| models.contains(&model))
    }

    pub(crate) fn pins_on(&self, node: NodeId) -> impl Iterator<Item = ModelId> {
        self.pins.get(&node).into_iter().flatten().copied()
    }

    /// The nodes it is pinned to.
    pub(crate) fn pinned(&self, model: ModelId) -> impl Iterator<Item = NodeId> {
        self.models.get(&model).into_iter().flat_map(|policy| policy.pinned.iter().copied())
    }

    pub(crate) fn replicas_min(&self, model: ModelId) -> u32 {
        self.models.get(&model).map_or(0, |policy| policy.replicas_min)
    }

    pub(crate) fn replicas_max(&self, model: ModelId) -> u32 {
        let max = |policy: &ModelPolicy| policy.replicas_max.max(policy.replicas_min).max(1);
        self.models.get(&model).map_or(u32::MAX, max)
    }

    pub(crate) fn idle_unload(&self, model: ModelId) -> Option<Span> {
        self.models.get(&model)?.idle_unload
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = ModelId> {
        self.models.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId(1);

    fn pinned(nodes: &[u64]) -> ModelPolicy {
        ModelPolicy { pinned: nodes.iter().copied().map(NodeId).collect(), ..ModelPolicy::default() }
    }

    #[test]
    fn a_model_without_a_policy_is_free() {
        let policies = Policies::default();
        assert_eq!((policies.replicas_min(MODEL), policies.replicas_max(MODEL)), (0, u32::MAX));
        assert_eq!(policies.idle_unload(MODEL), None);
        assert!(!policies.is_pinned((NodeId(1), MODEL)));
    }

    #[test]
    fn the_latest_policy_counts_with_all_its_pins() {
        let mut policies = Policies::default();
        policies.set(MODEL, pinned(&[1, 2]), 9);
        policies.set(ModelId(2), pinned(&[2]), 9);
        policies.set(MODEL, pinned(&[2, 3]), 9);
        let on = |node| policies.pins_on(NodeId(node)).map(|model| model.0).collect::<Vec<_>>();
        assert_eq!((on(1), on(2), on(3)), (vec![], vec![1, 2], vec![1]));
        assert_eq!(policies.pinned(MODEL).collect::<Vec<_>>(), [NodeId(2), NodeId(3)]);
        assert!(policies.is_pinned((NodeId(3), MODEL)) && !policies.is_pinned((NodeId(1), MODEL)));
    }

    #[test]
    fn the_most_replicas_are_at_least_the_fewest_and_at_least_one() {
        let mut policies = Policies::default();
        let max = |policies: &mut Policies, replicas_min, replicas_max| {
            policies.set(MODEL, ModelPolicy { replicas_min, replicas_max, ..ModelPolicy::default() }, 9);
            policies.replicas_max(MODEL)
        };
        assert_eq!(max(&mut policies, 0, 0), 1);
        assert_eq!(max(&mut policies, 3, 2), 3);
        assert_eq!(max(&mut policies, 1, 4), 4);
    }

    #[test]
    fn policies_are_bounded_and_one_that_wants_nothing_takes_no_room() {
        let mut policies = Policies::default();
        policies.set(MODEL, pinned(&[1]), 1);
        policies.set(ModelId(2), pinned(&[1]), 1);
        assert_eq!(policies.models().collect::<Vec<_>>(), [MODEL]);
        policies.set(MODEL, ModelPolicy::default(), 1);
        assert_eq!((policies.models().count(), policies.pins.len()), (0, 0));
        policies.set(ModelId(2), pinned(&[1]), 1);
        assert_eq!(policies.models().collect::<Vec<_>>(), [ModelId(2)]);
    }
}
