//! Which versions of the cluster this replica speaks, and what it does where the cluster speaks a later one.
//!
//! Owns the check of every way by which a later version comes in: the folder, the log, a snapshot from the leader, a message of
//! another replica. Whoever meets one stops, and says what to update; it never guesses what a newer release meant. Also keeps the
//! snapshot on the disk in the cluster's version, so that an older release finds that at once and leaves the folder alone.

use std::sync::{Arc, Weak};

use registry::{ClusterVersion, Command, Refusal};
use tokio::sync::watch;

use crate::error::SnapshotError;
use crate::handle::Consensus;
use crate::limits;
use crate::replica::Replica;

/// The cluster speaks what this replica does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this cluster speaks version {cluster}, this coordinator only {} to {speaks}; {}", ClusterVersion::OLDEST, advice(*.cluster))]
pub struct Outdated {
    /// The cluster's version.
    pub cluster: ClusterVersion,
    /// The newest that this replica speaks.
    pub speaks: ClusterVersion,
}

/// What to do about a cluster of this version.
fn advice(cluster: ClusterVersion) -> &'static str {
    if cluster > ClusterVersion::NEWEST {
        return "update mlx-serving on this machine";
    }
    if cluster < ClusterVersion::OLDEST {
        return "first raise the cluster with an older release that speaks both";
    }
    "it is held at that version: start it without --speak-version"
}

/// What one replica speaks, and what it met.
pub(crate) struct Speech {
    speaks: ClusterVersion,
    met: watch::Sender<Option<Outdated>>,
}

impl Default for Speech {
    fn default() -> Self {
        Speech::up_to(ClusterVersion::NEWEST)
    }
}

impl Speech {
    pub(crate) fn up_to(speaks: ClusterVersion) -> Self {
        Speech { speaks, met: watch::Sender::new(None) }
    }

    pub(crate) fn newest(&self) -> ClusterVersion {
        self.speaks
    }

    /// Whether this replica can be a part of a cluster of this version.
    pub(crate) fn follows(&self, cluster: ClusterVersion) -> Result<(), Outdated> {
        let spoken = (ClusterVersion::OLDEST..=self.speaks).contains(&cluster);
        if spoken { Ok(()) } else { Err(Outdated { cluster, speaks: self.speaks }) }
    }

    /// As [`Speech::follows`], of the cluster that this replica is a part of: if not, it has met its end.
    pub(crate) fn meets(&self, cluster: ClusterVersion) -> Result<(), Outdated> {
        self.follows(cluster).inspect_err(|outdated| {
            self.met.send_replace(Some(outdated.clone()));
        })
    }

    /// Why this replica has to stop, if so.
    pub(crate) fn met(&self) -> Option<Outdated> {
        self.met.borrow().clone()
    }

    /// Returns when it has to.
    pub(crate) async fn ended(&self) {
        self.met.subscribe().wait_for(Option::is_some).await.ok();
    }

    /// Whether the command may enter the log of a cluster that is told by `facts`: a replica that does not speak its version could
    /// not even read it there.
    pub(crate) fn may_be_written(
        &self,
        facts: &registry::Registry,
        command: &Command,
    ) -> Result<(), Refusal> {
        facts.understands(command)?;
        match command.raises_to() {
            Some(to) if to > self.speaks => Err(Refusal::VersionUnknown { to, newest: self.speaks }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Takes a snapshot whenever the version has risen, and at the start where the last one is of an older version.
pub(crate) fn keep_sealed(replica: &Arc<Replica>, mut sealed: ClusterVersion) {
    let (replica, mut facts) = (Arc::downgrade(replica), replica.published.clone());
    tokio::spawn(async move {
        loop {
            let version = facts.borrow_and_update().cluster_version();
            if version > sealed {
                match snapshot(&replica).await {
                    Ok(()) => sealed = version,
                    Err(SnapshotError::Slow) => tokio::time::sleep(limits::ROOM_LOOK).await,
                    Err(SnapshotError::Stopped(_)) => return,
                }
            } else if facts.changed().await.is_err() {
                return;
            }
        }
    });
}

async fn snapshot(replica: &Weak<Replica>) -> Result<(), SnapshotError> {
    let gone = || SnapshotError::Stopped("the replica is gone".to_owned());
    Consensus { replica: replica.upgrade().ok_or_else(gone)? }.snapshot().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_what_helps() {
        let words = |cluster, speaks| {
            let refused = Speech::up_to(ClusterVersion(speaks)).follows(ClusterVersion(cluster));
            refused.unwrap_err().to_string()
        };
        let newest = ClusterVersion::NEWEST.0;
        assert_eq!(
            words(newest + 1, newest),
            format!(
                "this cluster speaks version {}, this coordinator only 1 to {newest}; update mlx-serving on this machine",
                newest + 1
            )
        );
        assert!(words(newest + 1, 1).ends_with("update mlx-serving on this machine"));
        assert!(words(2, 1).ends_with("start it without --speak-version"));
        assert!(words(0, newest).ends_with("an older release that speaks both"));
        assert_eq!(Speech::up_to(ClusterVersion(1)).follows(ClusterVersion(1)), Ok(()));
    }
}
