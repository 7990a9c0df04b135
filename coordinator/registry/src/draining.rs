//! Which nodes shall take no new work.
//!
//! Owns the operator's word on it, which holds until it is taken back, through every restart. Refuses to know what still
//! runs there, and leaves placements alone: a drained node keeps its models, so that it is warm when it comes back.

use crate::NodeId;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};

impl Registry {
    pub(crate) fn drain(&mut self, id: NodeId, draining: bool) -> Result<Reply, Refusal> {
        let node = self.live_agent(id)?;
        if node.draining == draining {
            return Ok(Reply::AlreadySo);
        }
        node.draining = draining;
        Ok(Reply::Done)
    }

    /// The node shall take no new work. Not so for one that is unknown or revoked, which gets none anyway.
    #[must_use]
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.draining)
    }
}
