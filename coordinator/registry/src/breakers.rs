//! How each breaker last moved.
//!
//! Owns the order of moves: each carries its generation, and a move out of an older one is late and refused, so that a
//! new leader starts from the last word and an old leader cannot overwrite it. Refuses to decide a move: outcomes,
//! thresholds and times are the scheduler's.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::facts::Node;
use crate::field::{Field, check_line};
use crate::limits;
use crate::placing::check_offered;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};
use crate::{ModelName, NodeId};

/// How much work a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// All.
    Closed,
    /// All, but others are preferred.
    Degraded,
    /// None.
    Open,
    /// One probe.
    Probing,
    /// A few, and more with each success.
    SlowStart,
}

/// The last move of one breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Where it moved to.
    pub state: BreakerState,
    /// One more with each move; it only grows.
    pub generation: u32,
    /// How often it opened in a row.
    pub opens: u32,
    /// When the state ends by itself, in milliseconds since 1970, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_ms: Option<u64>,
    /// Why, in words for the operator.
    pub why: String,
    /// When it moved, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// The breakers of one node. They outlive the offer of a model, so that a runtime which crashed is not trusted anew
/// because its agent restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Breakers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Breaker>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    models: BTreeMap<ModelName, Breaker>,
}

impl Registry {
    /// Decides in this order:
    /// 1. the node is a live agent, it offers the model if the breaker is a model's, and the reason is fit to be shown;
    /// 2. the last move again changes nothing;
    /// 3. a generation that is not later than the known one is stale.
    pub(crate) fn move_breaker(
        &mut self,
        id: NodeId,
        model: Option<&ModelName>,
        moved: Breaker,
    ) -> Result<Reply, Refusal> {
        let node = self.live_agent(id)?;
        if let Some(model) = model {
            check_offered(id, node, model)?;
        }
        check_line(&moved.why, limits::BREAKER_WHY_BYTES_MAX, Field::BreakerWhy)?; // 1
        let known = node.breakers.of(model);
        if known == Some(&moved) {
            return Ok(Reply::AlreadySo); // 2
        }
        let (generation, known) = (moved.generation, known.map_or(0, |known| known.generation));
        if generation <= known {
            return Err(Refusal::StaleGeneration { node: id, model: model.cloned(), generation, known }); // 3
        }
        match model {
            None => node.breakers.node = Some(moved),
            Some(model) => remember(node, model, moved),
        }
        Ok(Reply::Done)
    }

    /// The last move of every breaker that ever moved on a live node: the node's own (no model) before those of its
    /// models, by number and by name.
    pub fn breakers(&self) -> impl Iterator<Item = (NodeId, Option<&ModelName>, &Breaker)> {
        self.nodes
            .iter()
            .flat_map(|(id, node)| node.breakers.iter().map(|(model, breaker)| (*id, model, breaker)))
    }
}

impl Breakers {
    pub(crate) fn is_empty(&self) -> bool {
        self.node.is_none() && self.models.is_empty()
    }

    fn of(&self, model: Option<&ModelName>) -> Option<&Breaker> {
        model.map_or(self.node.as_ref(), |model| self.models.get(model))
    }

    fn iter(&self) -> impl Iterator<Item = (Option<&ModelName>, &Breaker)> {
        let node = self.node.iter().map(|breaker| (None, breaker));
        node.chain(self.models.iter().map(|(model, breaker)| (Some(model), breaker)))
    }
}

/// A new breaker on a full node displaces that of a model it offers no more: the one that moved longest ago.
fn remember(node: &mut Node, model: &ModelName, moved: Breaker) {
    let models = &mut node.breakers.models;
    while !models.contains_key(model) && models.len() >= limits::BREAKERS_PER_NODE_MAX {
        let idle = models.iter().filter(|(name, _)| !node.wanted.contains_key(*name));
        let oldest = idle.min_by_key(|(_, breaker)| breaker.at_unix_ms).map(|(name, _)| name.clone());
        let Some(oldest) = oldest else { break };
        models.remove(&oldest);
    }
    models.insert(model.clone(), moved);
}
