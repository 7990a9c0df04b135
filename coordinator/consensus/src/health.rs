//! What a replica says of itself, for the admin API, metrics and the dashboard.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::options::ReplicaId;
use crate::replica::Replica;

/// A moment's view; every number may be older than the call by a few milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether this replica leads the group.
    pub leader: bool,
    /// Who leads, as far as this replica knows; nobody while no majority is there.
    pub known_leader: Option<ReplicaId>,
    /// Current term.
    pub term: u64,
    /// Index of the last command this replica has applied.
    pub applied_index: Option<u64>,
    /// Index of the last entry in this replica's log.
    pub last_log_index: Option<u64>,
    /// Index of the last entry its snapshot covers.
    pub snapshot_index: Option<u64>,
    /// Its disk is almost full: as the leader it takes no new facts until there is room.
    pub storage_full: bool,
    /// Why the replica has stopped for good; it serves nothing until the process is restarted.
    pub fatal: Option<String>,
}

pub(crate) fn of(replica: &Replica) -> Health {
    let known_leader = replica.leadership.borrow().leader;
    let applied_index = *replica.applied_index.borrow();
    let fatal = replica.fatal();
    let metrics = replica.raft.metrics();
    let metrics = metrics.borrow_watched();
    Health {
        leader: metrics.state == ServerState::Leader,
        known_leader,
        term: metrics.current_term,
        applied_index,
        last_log_index: metrics.last_log_index,
        snapshot_index: metrics.snapshot.map(|id| id.index),
        storage_full: replica.room.borrow().full,
        fatal,
    }
}
