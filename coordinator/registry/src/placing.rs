//! Which models each node holds, and the memory that is reserved for them.
//!
//! Owns the promise that reservations fit: a placement is accepted only if all of the node's reservations then fit into
//! its budget. It is decided here, where commands have one order, so that it holds for two leaders who each believed
//! the memory free. Refuses to know what memory is used in truth, and to take a placement back when a budget shrinks:
//! which model has to go is the planner's choice.

use serde::{Deserialize, Serialize};

use crate::facts::Node;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};
use crate::{Field, ModelName, NodeId};

/// A model that a node shall hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The memory that is reserved for it: weights, KV cache and overhead.
    pub bytes: u64,
}

impl Registry {
    pub(crate) fn set_budget(&mut self, id: NodeId, bytes: u64) -> Result<Reply, Refusal> {
        let node = self.live_agent(id)?;
        if node.budget_bytes == Some(bytes) {
            return Ok(Reply::AlreadySo);
        }
        node.budget_bytes = Some(bytes);
        Ok(Reply::Done)
    }

    /// Decides in this order:
    /// 1. the node is a live agent that offers the model, and something is to be reserved;
    /// 2. the same reservation again changes nothing, even where a budget has shrunk since;
    /// 3. it fits beside what the node's other models reserve, or it is refused.
    pub(crate) fn place(&mut self, id: NodeId, model: &ModelName, bytes: u64) -> Result<Reply, Refusal> {
        let node = self.live_agent(id)?;
        check_offered(id, node, model)?;
        if bytes == 0 {
            return Err(Refusal::Malformed { what: Field::PlacementBytes }); // 1
        }
        if node.placed.get(model).is_some_and(|known| known.bytes == bytes) {
            return Ok(Reply::AlreadySo); // 2
        }
        let budget_bytes = node.budget_bytes.ok_or(Refusal::BudgetUnknown { node: id })?;
        let free_bytes = budget_bytes.saturating_sub(reserved(node, Some(model)));
        if bytes > free_bytes {
            let model = model.clone();
            return Err(Refusal::NoRoom { node: id, model, needed_bytes: bytes, free_bytes, budget_bytes }); // 3
        }
        node.placed.insert(model.clone(), Placement { bytes });
        Ok(Reply::Done)
    }

    /// Nothing is placed on a revoked node, so unplacing there is already so.
    pub(crate) fn unplace(&mut self, id: NodeId, model: &ModelName) -> Result<Reply, Refusal> {
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode { node: id })?;
        let removed = node.placed.remove(model).is_some();
        Ok(if removed { Reply::Done } else { Reply::AlreadySo })
    }

    /// What a node holds or is to load, by name. Nothing for a node that is unknown or revoked.
    pub fn placed_on(&self, node: NodeId) -> impl Iterator<Item = (&ModelName, &Placement)> {
        self.nodes.get(&node).into_iter().flat_map(|node| &node.placed)
    }

    /// The node holds the model or is to load it.
    #[must_use]
    pub fn is_placed(&self, node: NodeId, model: &ModelName) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.placed.contains_key(model))
    }

    /// The sum of a node's reservations. More than its budget only while the budget has shrunk.
    #[must_use]
    pub fn reserved_bytes(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).map_or(0, |node| reserved(node, None))
    }

    /// What a node's models may take in all; none if its agent never said, or the node is unknown or revoked.
    #[must_use]
    pub fn budget(&self, node: NodeId) -> Option<u64> {
        self.nodes.get(&node)?.budget_bytes
    }
}

pub(crate) fn check_offered(id: NodeId, node: &Node, model: &ModelName) -> Result<(), Refusal> {
    let offered = node.wanted.contains_key(model);
    if offered { Ok(()) } else { Err(Refusal::NotOffered { node: id, model: model.clone() }) }
}

fn reserved(node: &Node, without: Option<&ModelName>) -> u64 {
    let counted = node.placed.iter().filter(|(model, _)| Some(*model) != without);
    counted.fold(0, |sum, (_, placement)| sum.saturating_add(placement.bytes))
}
