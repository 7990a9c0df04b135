//! Which commands the cluster's replicas understand, all of them.
//!
//! Owns the cluster's version, a fact that only grows, and the table of what each command needs. A release may write a command
//! only when every replica can read it, so a new command comes with a new version, and is refused until the cluster has it.
//! Refuses to know who speaks what: that every coordinator speaks a version is for the proposer of [`Command::RaiseVersion`] to
//! find out.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};

/// What all replicas of a cluster understand: one more with each release that adds a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterVersion(pub u32);

impl ClusterVersion {
    /// Of a cluster that never said otherwise: every command up to [`Command::Note`].
    pub const FIRST: ClusterVersion = ClusterVersion(1);

    /// [`Command::RaiseVersion`] can be read, and what happens to files and batches.
    pub const SECOND: ClusterVersion = ClusterVersion(2);

    /// [`Command::FoundSealed`] and [`Command::SealCa`] can be read, and a sealed key in a snapshot.
    pub const THIRD: ClusterVersion = ClusterVersion(3);

    /// [`Command::RotateCa`] and [`Command::ChangeResponse`] can be read, and a rotation in a snapshot.
    pub const FOURTH: ClusterVersion = ClusterVersion(4);

    /// The oldest cluster that this release can be a part of.
    pub const OLDEST: ClusterVersion = ClusterVersion::FIRST;

    /// The newest that this release understands.
    pub const NEWEST: ClusterVersion = ClusterVersion::FOURTH;

    /// Left out on disk, as by releases that did not know of versions.
    pub(crate) fn is_first(&self) -> bool {
        *self == ClusterVersion::FIRST
    }
}

impl Default for ClusterVersion {
    fn default() -> Self {
        ClusterVersion::FIRST
    }
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Command {
    /// The version that the cluster must have before this command may be written. A new command gets a line of its own here,
    /// with a new version.
    #[must_use]
    pub fn needs(&self) -> ClusterVersion {
        match self {
            Command::Audited { command, .. } => command.needs(),
            // It leads from each version to the next. Only one that reads it makes all others readable, so its proposer asks first.
            Command::RaiseVersion { .. } => ClusterVersion::FIRST,
            // So does the founding of a cluster of that version: whoever founds is alone, and speaks for all.
            Command::FoundSealed { .. } => ClusterVersion::FIRST,
            Command::SealCa { .. } => ClusterVersion::THIRD,
            Command::RotateCa { .. } | Command::ChangeResponse { .. } => ClusterVersion::FOURTH,
            Command::ChangeFile { .. } | Command::ChangeBatch { .. } | Command::ForgetFiles { .. } => {
                ClusterVersion::SECOND
            }
            Command::FoundCluster { .. }
            | Command::IssueJoinToken { .. }
            | Command::RevokeJoinToken { .. }
            | Command::AdmitNode { .. }
            | Command::RevokeNode { .. }
            | Command::RevokeFounder { .. }
            | Command::WantModel { .. }
            | Command::UnwantModel { .. }
            | Command::SetBudget { .. }
            | Command::PlaceModel { .. }
            | Command::UnplaceModel { .. }
            | Command::SetModelPolicy { .. }
            | Command::DrainNode { .. }
            | Command::MoveBreaker { .. }
            | Command::ChargeDeath { .. }
            | Command::QuarantineRequest { .. }
            | Command::PardonRequest { .. }
            | Command::SetGolden { .. }
            | Command::LockVoters { .. }
            | Command::UnlockVoters { .. }
            | Command::CreateKey { .. }
            | Command::ChangeKey { .. }
            | Command::AddKeySecret { .. }
            | Command::DropKeySecret { .. }
            | Command::RevokeKey { .. }
            | Command::BeginJob { .. }
            | Command::TakeJob { .. }
            | Command::EndJob { .. }
            | Command::DropJob { .. }
            | Command::ForgetJobs { .. }
            | Command::CountUsage { .. }
            | Command::Note { .. } => ClusterVersion::FIRST,
        }
    }

    /// The version that the cluster has from this command on, if it is about that: whoever does not speak it must not go on.
    #[must_use]
    pub fn raises_to(&self) -> Option<ClusterVersion> {
        if let Command::Audited { command, .. } = self {
            return command.raises_to();
        }
        if let Command::FoundSealed { .. } = self {
            return Some(ClusterVersion::THIRD);
        }
        if let Command::RaiseVersion { to, .. } = self { Some(*to) } else { None }
    }
}

impl Registry {
    /// What every replica understands.
    #[must_use]
    pub fn cluster_version(&self) -> ClusterVersion {
        self.cluster_version
    }

    /// Whether a command may be written down already: to be asked before it enters the log, where an older replica could not
    /// even read it.
    ///
    /// # Errors
    /// The refusal that [`Registry::apply`] would give.
    pub fn understands(&self, command: &Command) -> Result<(), Refusal> {
        let (needs, has) = (command.needs(), self.cluster_version);
        if needs > has { Err(Refusal::VersionTooLow { needs, has }) } else { Ok(()) }
    }

    /// A lower version is contained in the present one.
    pub(crate) fn raise_version(&mut self, to: ClusterVersion) -> Result<Reply, Refusal> {
        if to > ClusterVersion::NEWEST {
            return Err(Refusal::VersionUnknown { to, newest: ClusterVersion::NEWEST });
        }
        if to <= self.cluster_version {
            return Ok(Reply::AlreadySo);
        }
        self.cluster_version = to;
        Ok(Reply::Done)
    }
}
