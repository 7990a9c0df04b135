//! What outlives this scheduler: facts for the replicated registry, and back from it.
//!
//! Owns their shape and their words. Refuses to keep them; a later leader is told them one by one before anything else. Times in
//! them are those of the clock that made them; who carries them to another machine translates.

use alloc::format;
use alloc::string::String;

use crate::blame::BlameFact;
use crate::breaker::{Breaker, Move};
use crate::ids::{Lane, ModelId, NodeId};
use crate::residency::gib;
use crate::verdict::Names;

/// Something to be remembered by the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A breaker moved.
    Breaker(Move),
    /// A request is charged with a death, condemned or cleared.
    Blame(BlameFact),
    /// So much memory of a node is reserved for a model. Told, never recorded: the registry knows it from the reservation.
    Home {
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
        /// How much.
        bytes: u64,
    },
}

impl Fact {
    /// The fact in words.
    #[must_use]
    pub fn words(&self, names: &dyn Names) -> String {
        match self {
            Fact::Breaker(step) => {
                let of = match step.breaker {
                    Breaker::Lane((node, model)) => format!("{} on {}", names.model(model), names.node(node)),
                    Breaker::Node(node) => names.node(node),
                };
                format!("the breaker of {of} is {}: {}", step.to.words(), step.why.words())
            }
            Fact::Blame(fact) => fact.words(),
            Fact::Home { node, model, bytes } => {
                format!("{} of {} are reserved for {}", gib(*bytes), names.node(*node), names.model(*model))
            }
        }
    }
}

/// The runtimes a breaker speaks of.
pub(crate) fn lane_of(breaker: Breaker) -> Lane {
    match breaker {
        Breaker::Lane(lane) => lane,
        Breaker::Node(node) => (node, ModelId(0)),
    }
}
