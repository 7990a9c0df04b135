//! What a replica says of itself, for the admin API, metrics and the dashboard.

/// A moment's view; every number may be older than the call by a few milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether this replica leads the group.
    pub leader: bool,
    /// Current term.
    pub term: u64,
    /// Index of the last command this replica has applied.
    pub applied_index: Option<u64>,
    /// Index of the last entry in this replica's log.
    pub last_log_index: Option<u64>,
    /// Index of the last entry its snapshot covers.
    pub snapshot_index: Option<u64>,
    /// Why the replica has stopped for good; it serves nothing until the process is restarted.
    pub fatal: Option<String>,
}
