//! What the planner wishes for, each wish with its reason.
//!
//! Owns the two actions and the words of their reasons. There is no action "load": an agent loads what the registry has
//! reserved for it and nothing else, so that memory is promised before it is used.

use alloc::format;
use alloc::string::{String, ToString};

use crate::ids::{ModelId, NodeId};
use crate::verdict::Names;

/// One proposal of a reservation. Grows with each; an answer to an older one is late and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReservationId(pub u64);

/// A wish. Each is outstanding until a fact answers it, and no replica has two outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Propose to the registry that `bytes` of the node's budget belong to the model. To be answered, whatever happens, by
    /// [`super::Residency::reserved`]; once granted the agent loads.
    Reserve { node: NodeId, model: ModelId, bytes: u64, number: ReservationId, why: LoadReason },
    /// Send nothing more there, let what runs end or move, unload, give the reservation back. Answered by
    /// [`super::Residency::released`]; the memory counts as taken until then.
    Evict { node: NodeId, model: ModelId, why: EvictReason },
}

/// Why a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LoadReason {
    /// An operator pinned it there.
    Pinned,
    /// Somebody waits for it, and no replica is ready or coming.
    Waiting,
    /// All nodes that hold it drain.
    Draining,
    /// It has fewer replicas than its policy asks for.
    Minimum,
    /// Its replicas do not keep up.
    Hot,
}

/// Why a replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvictReason {
    /// Another model needs the room more.
    Displaced { by: ModelId },
    /// Nobody asked for it for as long as its policy allows.
    Idle,
    /// It has more replicas than its policy allows.
    TooMany,
    /// The node's budget has become too small.
    OverBudget,
    /// It could not be loaded, or crashed, and its agent has given up for now.
    Failed,
    /// Its load takes far longer than it should.
    Overdue,
    /// The agent unloads it by itself.
    ByAgent,
}

impl LoadReason {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Pinned => "it is pinned there",
            Self::Waiting => "somebody waits for it",
            Self::Draining => "the node that holds it drains",
            Self::Minimum => "it has fewer replicas than asked for",
            Self::Hot => "its replicas do not keep up",
        }
    }
}

impl EvictReason {
    pub(crate) fn words(self, names: &dyn Names) -> String {
        match self {
            Self::Displaced { by } => format!("{} needs the room more", names.model(by)),
            Self::Idle => "nobody asked for it for long".to_string(),
            Self::TooMany => "it has more replicas than allowed".to_string(),
            Self::OverBudget => "the budget of the node shrank".to_string(),
            Self::Failed => "it failed there".to_string(),
            Self::Overdue => "its load did not end in time".to_string(),
            Self::ByAgent => "its agent unloads it".to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers;

    impl Names for Numbers {
        fn model(&self, model: ModelId) -> String {
            format!("model-{}", model.0)
        }

        fn node(&self, node: NodeId) -> String {
            format!("node-{}", node.0)
        }
    }

    #[test]
    fn each_reason_has_words_of_its_own() {
        let loads = [LoadReason::Pinned, LoadReason::Waiting, LoadReason::Minimum, LoadReason::Hot];
        assert_eq!(
            loads.map(LoadReason::words),
            [
                "it is pinned there",
                "somebody waits for it",
                "it has fewer replicas than asked for",
                "its replicas do not keep up",
            ]
        );
        let evictions = [
            EvictReason::Displaced { by: ModelId(3) },
            EvictReason::Idle,
            EvictReason::TooMany,
            EvictReason::OverBudget,
            EvictReason::Failed,
            EvictReason::Overdue,
            EvictReason::ByAgent,
        ];
        assert_eq!(
            evictions.map(|why| why.words(&Numbers)),
            [
                "model-3 needs the room more",
                "nobody asked for it for long",
                "it has more replicas than allowed",
                "the budget of the node shrank",
                "it failed there",
                "its load did not end in time",
                "its agent unloads it",
            ]
        );
    }
}
