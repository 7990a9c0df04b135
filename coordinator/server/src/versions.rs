//! The version of the cluster rises as soon as every coordinator speaks a newer one.
//!
//! Owns asking them, the judgement, and the door for a newcomer that speaks less than the cluster. Refuses to raise anything while
//! one member, voter or follower, is silent: it may have been set back to an older release, which could read nothing from then on.

use std::collections::BTreeMap;
use std::sync::Arc;

use consensus::{Consensus, ReplicaId};
use proto::standing;
use registry::{ClusterVersion, Command, Reply};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::clock::unix_ms;
use crate::limits;
use crate::peers::Peers;
use crate::polling::Polling;

/// What each coordinator speaks, as far as it was heard of late.
pub(crate) type Spoken = BTreeMap<ReplicaId, ClusterVersion>;

#[derive(Clone)]
pub(crate) struct Versions {
    consensus: Consensus,
    spoken: watch::Sender<Spoken>,
    /// A newcomer is not let in between the question to all members and the rise.
    door: Arc<Mutex<()>>,
}

impl Versions {
    /// Watches until `stop`.
    pub(crate) fn start(
        consensus: &Consensus,
        replica: ReplicaId,
        peers: &Peers,
        stop: &CancellationToken,
    ) -> Self {
        let versions =
            Self { consensus: consensus.clone(), spoken: watch::Sender::default(), door: Arc::default() };
        let watching = versions.clone().watch(replica, peers.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
        versions
    }

    pub(crate) fn spoken(&self) -> Spoken {
        self.spoken.borrow().clone()
    }

    /// Every coordinator asks, so that every one can tell.
    async fn watch(self, replica: ReplicaId, peers: Peers) {
        let mut polling = Polling::new(peers);
        let mut looks = interval(limits::VERSION_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let mut others = self.consensus.members();
            others.retain(|member| member.replica != replica);
            let answers = polling.ask(&others).await;
            let mut spoken: Spoken =
                answers.iter().map(|(other, answer)| (*other, said(answer.speaks))).collect();
            spoken.insert(replica, self.consensus.speaks());
            self.spoken.send_replace(spoken.clone());
            if self.consensus.leadership().borrow().is_self {
                self.raise(replica, &spoken).await;
            }
        }
    }

    async fn raise(&self, replica: ReplicaId, spoken: &Spoken) {
        let _nobody_comes = self.door.lock().await;
        let members: Vec<_> = self.consensus.members().into_iter().map(|member| member.replica).collect();
        let Some(to) = risen(self.consensus.local().cluster_version(), &members, spoken) else { return };
        let at_unix_ms = unix_ms();
        let raise = Command::RaiseVersion { to, at_unix_ms };
        match self.consensus.propose(raise.audited(&format!("leader-{replica}"), at_unix_ms)).await {
            Ok(Reply::Refused(refusal)) => tracing::warn!(%refusal, "the version of the cluster stays"),
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => {
                tracing::info!(version = to.0, "every coordinator speaks it: the cluster has a new version");
            }
            // The next look finds out.
            Err(error) => tracing::warn!(%error, "the version of the cluster may have stayed"),
        }
    }

    /// Lets a coordinator in that speaks what the cluster does, and holds the door until it is in.
    ///
    /// # Errors
    /// It speaks less.
    pub(crate) async fn admit(&self, speaks: Option<u32>) -> Result<impl Sized + use<'_>, Status> {
        let held = self.door.lock().await;
        check(self.consensus.local().cluster_version(), speaks)?;
        Ok(held)
    }
}

/// What a coordinator says it speaks. Who says nothing is of a release that knew the first version only.
pub(crate) fn said(speaks: Option<u32>) -> ClusterVersion {
    speaks.map_or(ClusterVersion::FIRST, ClusterVersion)
}

/// Refuses a coordinator that speaks less than the cluster.
pub(crate) fn check(cluster: ClusterVersion, speaks: Option<u32>) -> Result<(), Status> {
    if said(speaks) >= cluster {
        return Ok(());
    }
    let or = if speaks.is_some() { ", or start it without --speak-version" } else { "" };
    Err(standing::outdated(format!(
        "this cluster speaks version {cluster}; update mlx-serving on this machine{or}"
    )))
}

/// The version that all members speak, if it is newer than the cluster's.
fn risen(now: ClusterVersion, members: &[ReplicaId], spoken: &Spoken) -> Option<ClusterVersion> {
    let all: Option<Vec<_>> = members.iter().map(|member| spoken.get(member).copied()).collect();
    all?.into_iter().min().filter(|least| *least > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

    fn judged(now: u32, said: &[(u64, u32)]) -> Option<u32> {
        let spoken = said.iter().map(|(replica, speaks)| (ReplicaId(*replica), ClusterVersion(*speaks)));
        risen(ClusterVersion(now), &ALL, &spoken.collect()).map(|version| version.0)
    }

    #[test]
    fn the_version_rises_to_what_the_last_coordinator_speaks() {
        assert_eq!(judged(1, &[(1, 2), (2, 2), (3, 2)]), Some(2));
        assert_eq!(judged(1, &[(1, 4), (2, 3), (3, 5)]), Some(3));
        assert_eq!(judged(2, &[(1, 2), (2, 2), (3, 2)]), None, "it is there");
    }

    #[test]
    fn one_that_speaks_less_or_says_nothing_holds_it() {
        assert_eq!(judged(1, &[(1, 2), (2, 1), (3, 2)]), None);
        assert_eq!(judged(1, &[(1, 2), (3, 2)]), None);
        assert_eq!(judged(1, &[]), None);
        assert_eq!(judged(2, &[(1, 2), (2, 1), (3, 2)]), None, "it never falls");
    }

    #[test]
    fn one_that_is_no_member_holds_nothing() {
        assert_eq!(judged(1, &[(1, 2), (2, 2), (3, 2), (4, 1)]), Some(2));
        assert_eq!(risen(ClusterVersion(1), &[], &Spoken::new()), None);
    }

    #[test]
    fn a_newcomer_that_speaks_less_is_told_what_to_do() {
        let refused = |cluster, speaks| check(ClusterVersion(cluster), speaks).err();
        assert!(refused(1, None).is_none() && refused(2, Some(2)).is_none() && refused(2, Some(3)).is_none());
        let old = refused(2, None).expect("refused");
        assert_eq!(old.message(), "this cluster speaks version 2; update mlx-serving on this machine");
        assert!(standing::is_outdated(&old) && !standing::is_revoked(&old));
        let held = refused(2, Some(1)).expect("refused");
        assert!(held.message().ends_with("without --speak-version"), "{held}");
    }
}
