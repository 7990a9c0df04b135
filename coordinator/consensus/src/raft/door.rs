//! Who may say what: the check before every message, and the header of our own.
//!
//! Decides in this order:
//! 1. the message is in a version this release reads;
//! 2. it was meant for this replica: an address may have a new owner, who must not answer for the old one;
//! 3. it comes from who it says it comes from, by the certificate of the connection;
//! 4. it belongs to this life of the registry. A replica that holds nothing yet belongs to whichever finds it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::raft::Header;
use registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::options::ReplicaId;
use crate::raft::types::Vote;
use crate::raft::wire::{VERSION, VERSIONS_READ, malformed};

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
}

impl Door {
    /// What every message of this replica begins with.
    pub(crate) fn header(&self, to: ReplicaId) -> Header {
        let epoch = self.published.borrow().epoch();
        Header { wire_version: VERSION, from: self.replica.0, to: to.0, epoch }
    }

    /// Lets a message in, or says why not. `caller` is who the connection belongs to.
    pub(crate) fn admit(
        &self,
        caller: Option<ReplicaId>,
        header: Option<Header>,
    ) -> Result<ReplicaId, Status> {
        let header = header.ok_or_else(|| malformed("no header"))?;
        if !VERSIONS_READ.contains(&header.wire_version) {
            return Err(Status::failed_precondition(format!(
                "replica {} speaks version {} of the wire between coordinators, this one reads {} to {}; upgrade the older \
                 of the two",
                header.from,
                header.wire_version,
                VERSIONS_READ.start(),
                VERSIONS_READ.end()
            ))); // 1
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
        let epoch = self.published.borrow().epoch();
        if header.epoch != epoch && self.applied_index.borrow().is_some() {
            return Err(Status::failed_precondition(format!(
                "replica {} is in epoch {} of the registry, replica {} in epoch {epoch}; the older of the two must leave \
                 and join anew in an empty folder",
                header.from, header.epoch, self.replica
            ))); // 4
        }
        Ok(caller)
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
