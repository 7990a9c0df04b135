//! Which models each node offers, and from which source.
//!
//! Owns what may be placed where; the commands and reads are called after wishes because in the first release an offer was
//! one. Refuses offers of nodes that cannot or may not hold models, and sources that no node could follow. What is held,
//! and whether it fits, is `placing.rs`.

use alloc::collections::BTreeSet;

use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};
use crate::{Field, ModelName, ModelSource, NodeId};

impl Registry {
    pub(crate) fn want(
        &mut self,
        id: NodeId,
        model: &ModelName,
        source: &ModelSource,
    ) -> Result<Reply, Refusal> {
        let node = self.live_agent(id)?;
        check_source(source)?;
        let former = node.wanted.get(model);
        if former == Some(source) {
            return Ok(Reply::AlreadySo);
        }
        if former.is_none() && node.wanted.len() >= limits::MODELS_PER_NODE_MAX {
            return Err(Refusal::TooMany { what: Bounded::ModelsOnNode, limit: limits::MODELS_PER_NODE_MAX });
        }
        node.wanted.insert(model.clone(), source.clone());
        Ok(Reply::Done)
    }

    /// A revoked node offers nothing, so withdrawing there is already so. What is not offered is not held.
    pub(crate) fn unwant(&mut self, id: NodeId, model: &ModelName) -> Result<Reply, Refusal> {
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode { node: id })?;
        node.placed.remove(model);
        let removed = node.wanted.remove(model).is_some();
        Ok(if removed { Reply::Done } else { Reply::AlreadySo })
    }

    /// What a node offers, by name. Nothing for a node that is unknown or revoked.
    pub fn wanted_on(&self, node: NodeId) -> impl Iterator<Item = (&ModelName, &ModelSource)> {
        self.nodes.get(&node).into_iter().flat_map(|node| &node.wanted)
    }

    /// Every model that some node offers, each once, by name.
    pub fn wanted_models(&self) -> impl Iterator<Item = &ModelName> {
        let distinct: BTreeSet<&ModelName> =
            self.nodes.values().flat_map(|node| node.wanted.keys()).collect();
        distinct.into_iter()
    }
}

fn check_source(source: &ModelSource) -> Result<(), Refusal> {
    match source {
        ModelSource::Path(path) => {
            // A relative path would depend on the folder a node's agent was started in.
            let fine = path.starts_with('/')
                && path.len() <= limits::MODEL_PATH_BYTES_MAX
                && !path.chars().any(char::is_control);
            if fine { Ok(()) } else { Err(Refusal::Malformed { what: Field::ModelPath }) }
        }
        ModelSource::Hub(id) => {
            // A hub id names a folder in the model store as well, hence the same rule as a name.
            ModelName::new(id).map(|_| ()).map_err(|_| Refusal::Malformed { what: Field::HubId })
        }
        ModelSource::Demo => Ok(()),
    }
}
