//! What can go wrong, per operation. Each error says what, where, and what to do.

use std::io;
use std::path::PathBuf;

use crate::limits;
use crate::options::ReplicaId;
use crate::speech::Outdated;

/// A file that does not hold what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} is damaged at byte {offset}{}: {what}. Acknowledged facts may be gone, so this replica does not start. \
     Restore the folder from a backup; with other coordinators alive, remove this replica and join it anew under a new id",
    .index.map(|index| format!(" (log index {index})")).unwrap_or_default()
)]
pub struct Damage {
    /// Name of the file in the replica's folder.
    pub file: String,
    /// Where the first byte that cannot be right was found.
    pub offset: u64,
    /// The log entry concerned, where there is one.
    pub index: Option<u64>,
    /// What was found.
    pub what: String,
}

/// Why a replica did not open. A folder refused as damaged, newer or another replica's is left as it was found.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another handle of this one) holds the folder.
    #[error("the folder {} is in use by {}; stop that process first", .folder.display(),
        .holder.map(|pid| format!("process {pid}")).unwrap_or_else(|| "another process".to_owned()))]
    Locked {
        /// The replica's folder.
        folder: PathBuf,
        /// Process id the holder wrote down.
        holder: Option<u32>,
    },
    /// The folder belongs to another replica; ids are never reused.
    #[error(
        "the folder belongs to replica {found}, not to replica {wanted}; correct the id or choose another folder"
    )]
    OtherReplica {
        /// The id in the folder.
        found: u64,
        /// The id in the options.
        wanted: u64,
    },
    /// The folder was written by a newer release.
    #[error("{file} was written in format {found}, this release reads up to {known}; use the newer release")]
    Newer {
        /// Name of the file.
        file: String,
        /// Its format.
        found: u32,
        /// The newest format this release knows.
        known: u32,
    },
    /// The folder's cluster speaks what this replica does not.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// A file does not hold what was acknowledged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The operating system refused.
    #[error("{doing} failed: {source}")]
    Io {
        /// What was attempted, with the file.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The replica opened but did not become ready in time.
    #[error("the replica was not ready after {waited_s} s: {why}")]
    NotReady {
        /// How long it was given.
        waited_s: u64,
        /// What it was waiting for.
        why: String,
    },
    /// The replica stopped while it opened.
    #[error("the replica stopped while opening: {0}")]
    Stopped(String),
}

/// What a caller may do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing happened; the same command may be sent again, here or to the leader.
    Safe,
    /// The command may or may not take effect; send it again only if it is idempotent.
    OutcomeUnknown,
    /// Sending the same again cannot help.
    Never,
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Too many proposals wait for the disk.
    #[error("{in_flight_max} proposals are waiting for the disk; try again shortly")]
    Busy {
        /// The bound that was reached.
        in_flight_max: usize,
    },
    /// The leader's disk is almost full.
    #[error(
        "storage_full: {} MiB are free on the disk of the coordinator that leads, and {} are needed before anything new is written \
         down; make room there, it goes on by itself",
        .free >> 20, limits::ROOM_MIN >> 20
    )]
    StorageFull {
        /// Bytes that are free.
        free: u64,
    },
    /// This replica does not lead; `leader` is where to go, if known.
    #[error("this replica is not the leader{}", .leader.map(|id| format!(", replica {id} is")).unwrap_or_default())]
    NotLeader {
        /// The leader's replica id.
        leader: Option<u64>,
    },
    /// Leadership changed, or no majority answered in time, while the command was under way.
    #[error("the outcome is not known: {0}")]
    OutcomeUnknown(String),
    /// The command is larger than a log record may be.
    #[error("the command is {bytes} bytes, at most {bytes_max} are accepted")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// This replica has stopped for good.
    #[error("this replica has stopped: {0}; restart the coordinator after correcting the cause")]
    Stopped(String),
}

impl ProposeError {
    /// Whether the same command may be proposed again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            ProposeError::Busy { .. } | ProposeError::NotLeader { .. } | ProposeError::StorageFull { .. } => {
                Retry::Safe
            }
            ProposeError::OutcomeUnknown(_) | ProposeError::Stopped(_) => Retry::OutcomeUnknown,
            ProposeError::TooLarge { .. } => Retry::Never,
        }
    }

    /// Whether this replica serves nothing more.
    #[must_use]
    pub fn fatal(&self) -> bool {
        matches!(self, ProposeError::Stopped(_))
    }
}

/// Why a linearizable read has no answer. Reads change nothing: all but `Stopped` may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This replica does not lead; `leader` is where to go, if known.
    #[error("this replica is not the leader{}", .leader.map(|id| format!(", replica {id} is")).unwrap_or_default())]
    NotLeader {
        /// The leader's replica id.
        leader: Option<u64>,
    },
    /// No majority confirmed that this replica still leads.
    #[error("no majority of the coordinators answered in time")]
    NoMajority,
    /// This replica has stopped for good.
    #[error("this replica has stopped: {0}; restart the coordinator after correcting the cause")]
    Stopped(String),
}

/// Why a forced snapshot was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It was still being written when the wait ended; it goes on.
    #[error("the snapshot was not finished in time; it is still being written")]
    Slow,
    /// This replica has stopped for good.
    #[error("this replica has stopped: {0}; restart the coordinator after correcting the cause")]
    Stopped(String),
}

/// Why there is no backup, or no new life from one.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// A file or folder could not be read or written, or is damaged.
    #[error(transparent)]
    Folder(#[from] OpenError),
    /// The newest facts could not be written down.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A backup is only restored where nothing is.
    #[error("the folder is not empty; name one that is, so that nothing is overwritten")]
    NotEmpty,
    /// There are no facts to go on from.
    #[error("there is no cluster in it; take the folder of a coordinator, or a backup")]
    Nothing,
    /// The folder's replica does not belong to the group its log describes.
    #[error(
        "replica {replica} is not a member of the group in its own log; take the folder of another coordinator"
    )]
    NotAMember {
        /// The replica.
        replica: ReplicaId,
    },
    /// The replica was removed, and its id is never used again.
    #[error("replica {replica} was removed from this cluster for ever; choose an id that is new")]
    Removed {
        /// The replica.
        replica: ReplicaId,
    },
}

/// Why a shutdown could not be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log writer did not release the folder in time; the folder stays locked until this process ends")]
pub struct ShutdownError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_did_not_happen_may_be_retried_without_thought() {
        let text = || "reason".to_owned();
        for (error, retry, fatal) in [
            (ProposeError::Busy { in_flight_max: 1 }, Retry::Safe, false),
            (ProposeError::NotLeader { leader: None }, Retry::Safe, false),
            (ProposeError::StorageFull { free: 1 << 20 }, Retry::Safe, false),
            (ProposeError::OutcomeUnknown(text()), Retry::OutcomeUnknown, false),
            (ProposeError::TooLarge { bytes: 2, bytes_max: 1 }, Retry::Never, false),
            (ProposeError::Stopped(text()), Retry::OutcomeUnknown, true),
        ] {
            assert_eq!((error.retry(), error.fatal()), (retry, fatal), "{error}");
        }
    }

    #[test]
    fn an_error_names_the_leader_when_it_is_known() {
        let to = |leader| ProposeError::NotLeader { leader }.to_string();
        assert_eq!(to(Some(3)), "this replica is not the leader, replica 3 is");
        assert_eq!(to(None), "this replica is not the leader");
    }
}
