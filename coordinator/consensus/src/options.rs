//! What the caller chooses when it opens a replica, and the name of a replica.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use registry::ClusterVersion;
use serde::{Deserialize, Serialize};

use crate::dial::{Dial, NoDial};
use crate::limits;

/// One replica's name in its Raft group, for ever: an id is never given to a second log, because a voter that
/// forgot what it had promised can split the group. The folder remembers whose it is and refuses another id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u64> for ReplicaId {
    fn from(id: u64) -> Self {
        ReplicaId(id)
    }
}

/// Settings of one replica. `Options::default()` is right for a cluster with one coordinator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose log the folder holds.
    pub replica: ReplicaId,
    /// A snapshot is taken, and the log behind it purged, after this many commands.
    pub snapshot_every: u64,
    /// Proposals accepted at one time; the next is refused as busy.
    pub proposals_in_flight_max: usize,
    /// Where other replicas reach this one; written into the group's membership when it is founded or grows.
    pub address: String,
    /// A leader that is silent for this long has been replaced by then. The same on all replicas; at least
    /// [`limits::LEADER_SILENCE_MIN`], and more than the default only on a network that stalls.
    pub leader_silence: Duration,
    /// The way to other replicas.
    pub dial: Arc<dyn Dial>,
    /// The newest version of the cluster that this replica speaks: what the release does, or less where it is held back.
    pub speaks: ClusterVersion,
}

/// What an empty folder becomes. A folder that is in use goes on as what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A group of one, which this replica leads.
    Found,
    /// Nothing yet: the leader of a group adds this replica.
    Join,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            replica: ReplicaId(1),
            snapshot_every: limits::SNAPSHOT_EVERY_ENTRIES,
            proposals_in_flight_max: limits::PROPOSALS_IN_FLIGHT_MAX,
            address: String::new(),
            leader_silence: limits::LEADER_SILENCE,
            dial: Arc::new(NoDial),
            speaks: ClusterVersion::NEWEST,
        }
    }
}
