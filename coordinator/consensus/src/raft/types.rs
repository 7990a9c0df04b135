//! openraft's type parameters, chosen once.
//!
//! Leader ids are the standard ones: at most one leader per term, the invariant everybody reading a Raft log
//! expects. [`Proposal`] and [`Answer`] exist because openraft prints what it carries at debug level, and a
//! command may carry the key of the cluster's authority: neither of them prints its content.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::options::ReplicaId;
use crate::raft::state_machine::StateMachine;

#[cfg(not(test))]
type Runtime = openraft::impls::TokioRuntime;
/// The same with dice that a test can load.
#[cfg(test)]
type Runtime = crate::tests::dice::Runtime;

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Proposal,
        R = Answer,
        NodeId = ReplicaId,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, ReplicaId>,
        AsyncRuntime = Runtime,
);

/// openraft at work.
pub(crate) type Running = openraft::Raft<Types, StateMachine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Vec<u8>>;

/// What the group knows about one of its replicas. A struct rather than a string, so that fields can be added
/// without a second format of the membership entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where its Raft port is reached; empty in a group of one.
    #[serde(default)]
    pub(crate) address: String,
}

/// A command on its way through the log.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Proposal(pub(crate) registry::Command);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("command")
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("command")
    }
}

/// What applying an entry gave back. Entries of Raft itself (blank, membership) give nothing.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The entry was Raft's own.
    Internal,
    /// The registry's reply.
    Reply(registry::Reply),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Internal => f.write_str("internal"),
            Answer::Reply(_) => f.write_str("reply"),
        }
    }
}
