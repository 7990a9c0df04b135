//! What the registry says of policies and drains, as far as the scheduler has been told.
//!
//! Owns the difference between two states of the registry. Refuses to tell the same twice.

use std::collections::{BTreeMap, BTreeSet};

use registry::Registry;
use scheduler::{Command, ModelId, ModelPolicy, NodeId, Span};

use super::names::Names;

#[derive(Default)]
pub(super) struct Told {
    policies: BTreeMap<ModelId, ModelPolicy>,
    draining: BTreeSet<NodeId>,
}

impl Told {
    /// What is new, in the scheduler's terms.
    pub(super) fn news(&mut self, registry: &Registry, names: &mut Names) -> Vec<Command> {
        let policies: BTreeMap<ModelId, ModelPolicy> = registry
            .policies()
            .map(|(model, kept)| (names.number(model.as_str()), policy(registry, model, kept)))
            .collect();
        let nodes = registry.nodes().map(|(node, _)| node).filter(|node| registry.is_draining(*node));
        let draining: BTreeSet<NodeId> = nodes.map(|node| NodeId(node.0)).collect();
        let mut news = Vec::new();
        for (model, policy) in &policies {
            if self.policies.get(model) != Some(policy) {
                news.push(Command::Policy { model: *model, policy: policy.clone() });
            }
        }
        for model in self.policies.keys().filter(|model| !policies.contains_key(model)) {
            news.push(Command::Policy { model: *model, policy: ModelPolicy::default() });
        }
        for node in draining.symmetric_difference(&self.draining) {
            news.push(Command::NodeDraining { node: *node, draining: draining.contains(node) });
        }
        (self.policies, self.draining) = (policies, draining);
        news
    }
}

/// A pin of the registry holds a model wherever it is placed.
fn policy(registry: &Registry, model: &registry::ModelName, kept: &registry::ModelPolicy) -> ModelPolicy {
    let holders = registry.nodes().map(|(node, _)| node);
    let pinned = holders.filter(|node| kept.pinned && registry.is_placed(*node, model));
    ModelPolicy {
        pinned: pinned.map(|node| NodeId(node.0)).collect(),
        replicas_min: kept.replicas_min,
        replicas_max: if kept.replicas_max == 0 { u32::MAX } else { kept.replicas_max },
        idle_unload: kept.idle_unload_s.map(Span::from_s),
    }
}

#[cfg(test)]
mod tests {
    use registry::ModelName;

    use super::*;
    use crate::wire::tests::founded;

    #[test]
    fn each_change_is_told_once_and_a_policy_that_is_gone_is_the_default_again() {
        let (mut registry, node) = founded();
        let (mut told, mut names) = (Told::default(), Names::default());
        assert_eq!(told.news(&registry, &mut names), []);
        let model = ModelName::new("a").expect("a name");
        let kept = registry::ModelPolicy {
            replicas_min: 1,
            idle_unload_s: Some(60),
            ..registry::ModelPolicy::default()
        };
        registry.apply(&registry::Command::SetModelPolicy { model: model.clone(), policy: kept });
        registry.apply(&registry::Command::DrainNode { node, draining: true });
        let policy =
            ModelPolicy { replicas_min: 1, idle_unload: Some(Span::from_s(60)), ..ModelPolicy::default() };
        let drain = |draining| Command::NodeDraining { node: NodeId(node.0), draining };
        let model_number = ModelId(0);
        assert_eq!(
            told.news(&registry, &mut names),
            [Command::Policy { model: model_number, policy }, drain(true)]
        );
        assert_eq!(told.news(&registry, &mut names), []);
        let policy = registry::ModelPolicy::default();
        registry.apply(&registry::Command::SetModelPolicy { model, policy });
        registry.apply(&registry::Command::DrainNode { node, draining: false });
        let policy = ModelPolicy::default();
        assert_eq!(
            told.news(&registry, &mut names),
            [Command::Policy { model: model_number, policy }, drain(false)]
        );
    }
}
