//! Who may say what: the check before every message, and the header of our own.
//!
//! Decides in this order:
//! 1. the message is in a version of the cluster that this replica speaks. If not, and all else is right, this replica has been
//!    left behind, and stops;
//! 2. it was meant for this replica: an address may have a new owner, who must not answer for the old one;
//! 3. it comes from who it says it comes from, by the certificate of the connection;
//! 4. it belongs to this life of the registry. A replica that holds nothing yet belongs to whichever finds it;
//! 5. its sender speaks the version that the cluster has here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::raft::Header;
use registry::{ClusterVersion, Registry};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::options::ReplicaId;
use crate::raft::types::Vote;
use crate::raft::wire::malformed;
use crate::speech::{Outdated, Speech};

/// Who is at the other end of a connection, by what the server put there when it was accepted.
pub type WhoIs = fn(&tonic::Extensions) -> Option<ReplicaId>;

/// The last word of a leader. openraft goes on naming a leader that has long been silent.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Option<(ReplicaId, Instant)>>);

impl Heard {
    pub(crate) fn from(&self, leader: ReplicaId) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((leader, Instant::now()));
    }

    /// How long this leader has been silent; `None` if another spoke last, or none ever did.
    pub(crate) fn silence(&self, leader: ReplicaId) -> Option<Duration> {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.filter(|(last, _)| *last == leader).map(|(_, at)| at.elapsed())
    }
}

pub(crate) struct Door {
    pub(crate) replica: ReplicaId,
    /// Which leader spoke last, and when.
    pub(crate) heard: Arc<Heard>,
    pub(crate) published: watch::Receiver<Arc<Registry>>,
    pub(crate) applied_index: watch::Receiver<Option<u64>>,
    pub(crate) speech: Arc<Speech>,
}

impl Door {
    /// What every message of this replica begins with.
    pub(crate) fn header(&self, to: ReplicaId) -> Header {
        let (epoch, wire_version) = self.facts();
        let speaks = self.speech.newest().0;
        Header { wire_version: wire_version.0, from: self.replica.0, to: to.0, epoch, speaks }
    }

    /// Lets a message in, or says why not. `caller` is who the connection belongs to.
    pub(crate) fn admit(
        &self,
        caller: Option<ReplicaId>,
        header: Option<Header>,
    ) -> Result<ReplicaId, Status> {
        let header = header.ok_or_else(|| malformed("no header"))?;
        if let Err(outdated) = self.speech.follows(ClusterVersion(header.wire_version)) {
            return Err(self.left_behind(caller, header, &outdated)); // 1
        }
        if header.to != self.replica.0 {
            return Err(Status::failed_precondition(format!(
                "this is replica {}, the message was for replica {}; correct its address",
                self.replica, header.to
            ))); // 2
        }
        let Some(caller) = caller else {
            return Err(Status::unauthenticated("the connection does not say which replica it comes from"));
        };
        if caller.0 != header.from {
            return Err(impostor(caller, header.from)); // 3
        }
        let (epoch, version) = self.facts();
        if header.epoch != epoch && self.applied_index.borrow().is_some() {
            return Err(Status::failed_precondition(format!(
                "replica {} is in epoch {} of the registry, replica {} in epoch {epoch}; the older of the two must leave \
                 and join anew in an empty folder",
                header.from, header.epoch, self.replica
            ))); // 4
        }
        // Who does not say so is of a release that knew the first version only.
        let speaks = ClusterVersion(header.speaks.max(ClusterVersion::FIRST.0));
        if speaks < version {
            let words = format!(
                "this cluster speaks version {version}, replica {caller} up to {speaks}; update mlx-serving there"
            );
            return Err(Status::failed_precondition(words)); // 5
        }
        Ok(caller)
    }

    /// Epoch and version, as far as they are known here.
    fn facts(&self) -> (u64, ClusterVersion) {
        let facts = self.published.borrow();
        (facts.epoch(), facts.cluster_version())
    }

    fn left_behind(&self, caller: Option<ReplicaId>, header: Header, outdated: &Outdated) -> Status {
        let is_true = caller == Some(ReplicaId(header.from)) && header.to == self.replica.0;
        let is_own = header.epoch == self.facts().0 || self.applied_index.borrow().is_none();
        if is_true && is_own && outdated.cluster > outdated.speaks {
            let _ = self.speech.meets(outdated.cluster);
        }
        Status::failed_precondition(format!(
            "replica {} refuses replica {}: {outdated}",
            self.replica, header.from
        ))
    }

    /// As [`Door::admit`], for what only its author may send: votes are never passed on.
    pub(crate) fn admit_author(
        &self,
        caller: Option<ReplicaId>,
        header: Option<Header>,
        vote: &Vote,
    ) -> Result<(), Status> {
        let caller = self.admit(caller, header)?;
        let author = vote.leader_id.voted_for;
        if author == caller { Ok(()) } else { Err(impostor(caller, author.0)) }
    }
}

fn impostor(caller: ReplicaId, claimed: u64) -> Status {
    Status::permission_denied(format!("replica {caller} may not speak for replica {claimed}"))
}
