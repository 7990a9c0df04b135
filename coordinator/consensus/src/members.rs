//! Who belongs to the group, and how far each member follows.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::options::ReplicaId;
use crate::replica::Replica;

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It counts in a majority.
    Voter,
    /// It only follows.
    Learner,
}

/// One member, as this replica sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Its id.
    pub replica: ReplicaId,
    /// What it does.
    pub role: Role,
    /// Where it is reached; empty if nobody ever had to.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// The last entry its log is known to hold; only the leader knows of others.
    pub matched_index: Option<u64>,
    /// Entries of the leader's log that it lacks; only the leader knows.
    pub lag: Option<u64>,
    /// How long ago it answered this replica; `None` if it never did, or was never asked.
    pub last_contact: Option<Duration>,
}

pub(crate) fn of(replica: &Replica) -> Vec<MemberState> {
    let leadership = replica.leadership.borrow().clone();
    let metrics = replica.raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = &metrics.membership_config;
    let matched = |id: &ReplicaId| {
        if *id == replica.id {
            return metrics.last_log_index;
        }
        let replication = metrics.replication.as_ref()?;
        replication.get(id)?.map(|matched| matched.index)
    };
    let state = |id: ReplicaId, address: &str| {
        let matched_index = matched(&id);
        let last = metrics.last_log_index.map_or(0, |last| last.saturating_add(1));
        let held = matched_index.map_or(0, |matched| matched.saturating_add(1));
        let voter = membership.voter_ids().any(|voter| voter == id);
        MemberState {
            replica: id,
            role: if voter { Role::Voter } else { Role::Learner },
            address: address.to_owned(),
            leader: leadership.leader == Some(id),
            matched_index,
            lag: leadership.is_self.then(|| last.saturating_sub(held)),
            last_contact: if id == replica.id {
                Some(Duration::ZERO)
            } else {
                replica.links.last_contact(id)
            },
        }
    };
    membership.nodes().map(|(id, node)| state(*id, &node.address)).collect()
}
