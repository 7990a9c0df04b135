//! What the scheduler's numbers mean to people.
//!
//! Owns a number for each model's name, the names of nodes, and the folding of a tenant's keyed hash into the scheduler's
//! number. Refuses to forget a model's number: it is bounded by what the registry and the agents' reports may name.

use std::collections::BTreeMap;

use scheduler::{ModelId, NodeId, TenantId};

#[derive(Default)]
pub(super) struct Names {
    numbers: BTreeMap<String, ModelId>,
    models: Vec<String>,
    nodes: BTreeMap<NodeId, String>,
}

impl Names {
    /// The model's number, made on first sight.
    pub(super) fn number(&mut self, model: &str) -> ModelId {
        if let Some(number) = self.numbers.get(model) {
            return *number;
        }
        let number = ModelId(u32::try_from(self.models.len()).unwrap_or(u32::MAX));
        self.models.push(model.to_owned());
        self.numbers.insert(model.to_owned(), number);
        number
    }

    pub(super) fn node_is(&mut self, node: NodeId, name: &str) {
        if self.nodes.get(&node).is_none_or(|known| known != name) {
            self.nodes.insert(node, name.to_owned());
        }
    }

    pub(super) fn name(&self, model: ModelId) -> &str {
        self.models.get(model.0 as usize).map_or("", String::as_str)
    }

    pub(super) fn models(&self) -> impl Iterator<Item = (&String, &ModelId)> {
        self.numbers.iter()
    }
}

impl scheduler::Names for Names {
    fn model(&self, model: ModelId) -> String {
        self.name(model).to_owned()
    }

    fn node(&self, node: NodeId) -> String {
        self.nodes.get(&node).cloned().unwrap_or_else(|| format!("node {}", node.0))
    }
}

/// Half of the bits of a keyed hash name a tenant well enough: should two of a thousand ever share a number, which happens to
/// one cluster in ten thousand, they share a turn in the line and nothing else. So there is no table that a flood of tokens
/// could fill.
pub(super) fn tenant(hash: u64) -> TenantId {
    let [a, b, c, d, ..] = hash.to_le_bytes();
    TenantId(u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use scheduler::Names as _;

    use super::*;

    #[test]
    fn a_model_keeps_its_number_and_a_number_its_name() {
        let mut names = Names::default();
        let numbers = ["a", "b", "a"].map(|name| names.number(name));
        assert_eq!(numbers, [ModelId(0), ModelId(1), ModelId(0)]);
        assert_eq!((names.name(ModelId(1)), names.name(ModelId(9))), ("b", ""));
    }

    #[test]
    fn a_node_is_called_by_its_latest_name_else_by_its_number() {
        let mut names = Names::default();
        assert_eq!(names.node(NodeId(7)), "node 7");
        for name in ["mini", "studio"] {
            names.node_is(NodeId(7), name);
            assert_eq!(names.node(NodeId(7)), name);
        }
    }

    #[test]
    fn nobody_in_particular_is_the_tenant_zero() {
        assert_eq!(tenant(0), TenantId(0));
        assert_ne!(tenant(0x1234_5678_9abc_def0), tenant(0x1234_5678_9abc_def1));
    }
}
