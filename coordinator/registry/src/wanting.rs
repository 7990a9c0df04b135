//! Which models each node shall hold.
//!
//! Owns the desired placement, which agents converge to. Refuses models on nodes that cannot or may not hold them, and
//! sources that no node could follow. Whether a model fits into a node's memory is not known here.

use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Field, Refusal, Reply};
use crate::{ModelName, ModelSource, NodeId, Role};

impl Registry {
    pub(crate) fn want(
        &mut self,
        id: NodeId,
        model: &ModelName,
        source: &ModelSource,
    ) -> Result<Reply, Refusal> {
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode { node: id })?;
        if node.revoked {
            return Err(Refusal::NodeRevoked { node: id });
        }
        if node.role != Role::Agent {
            return Err(Refusal::NotAnAgent { node: id, is: node.role });
        }
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

    /// Nothing is wanted on a revoked node, so unwanting there is already so.
    pub(crate) fn unwant(&mut self, id: NodeId, model: &ModelName) -> Result<Reply, Refusal> {
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode { node: id })?;
        let removed = node.wanted.remove(model).is_some();
        Ok(if removed { Reply::Done } else { Reply::AlreadySo })
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
