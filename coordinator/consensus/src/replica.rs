//! One replica as it runs: openraft, what it publishes, and what it can do without asking another.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use registry::{Command, Registry, Reply};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

use crate::error::{ProposeError, ReadError};
use crate::leadership::Leadership;
use crate::limits;
use crate::options::ReplicaId;
use crate::raft::door::Door;
use crate::raft::link::Links;
use crate::raft::types::{Answer, Proposal, Running, Types};
use crate::room::Room;
use crate::speech::Speech;

pub(crate) struct Replica {
    pub(crate) raft: Running,
    pub(crate) id: ReplicaId,
    /// Where others reach it; empty if nobody does.
    pub(crate) address: String,
    pub(crate) published: watch::Receiver<Arc<Registry>>,
    pub(crate) applied_index: watch::Receiver<Option<u64>>,
    pub(crate) released: watch::Receiver<bool>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) links: Arc<Links>,
    pub(crate) door: Arc<Door>,
    pub(crate) in_flight: Semaphore,
    pub(crate) in_flight_max: usize,
    /// Held by whoever carries out a change of voters.
    pub(crate) changing: Mutex<()>,
    /// On its disk.
    pub(crate) room: watch::Receiver<Room>,
    pub(crate) speech: Arc<Speech>,
}

/// A command that took effect.
pub(crate) struct Committed {
    pub(crate) reply: Reply,
    /// Its place in the log; 0 for one that did not enter it.
    pub(crate) index: u64,
}

impl Replica {
    /// A place among the proposals under way.
    pub(crate) fn slot(&self) -> Result<SemaphorePermit<'_>, ProposeError> {
        let busy = |_| ProposeError::Busy { in_flight_max: self.in_flight_max };
        self.in_flight.try_acquire().map_err(busy)
    }

    /// The answer to a command that must not enter the log, because some replica could not read it there.
    pub(crate) fn refused(&self, command: &Command) -> Option<Committed> {
        let refusal = self.speech.may_be_written(&self.registry(), command).err()?;
        Some(Committed { reply: Reply::Refused(refusal), index: 0 })
    }

    /// As [`Replica::propose`], for new facts, which a full disk does not take. A change of the group is none: it may be the way out.
    /// Neither is a revocation, for which the ballast has room.
    pub(crate) async fn admit(&self, command: Command) -> Result<Committed, ProposeError> {
        if let Some(refused) = self.refused(&command) {
            return Ok(refused);
        }
        let room = *self.room.borrow();
        match room.free {
            Some(free) if room.full && !command.takes_rights_away() => {
                Err(ProposeError::StorageFull { free })
            }
            Some(_) | None => self.propose(command).await,
        }
    }

    /// Commits and applies as the leader; whoever does not lead refuses.
    pub(crate) async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        let write = self.raft.client_write(Proposal(command));
        let Ok(written) = timeout(limits::ANSWER_WAIT, write).await else {
            let waited_s = limits::ANSWER_WAIT.as_secs();
            return Err(ProposeError::OutcomeUnknown(format!("no majority answered within {waited_s} s")));
        };
        match written {
            Ok(response) => match response.data {
                Answer::Reply(reply) => Ok(Committed { reply, index: response.log_id.index }),
                Answer::Internal => Err(ProposeError::OutcomeUnknown("the command had no reply".to_owned())),
            },
            Err(RaftError::APIError(error)) => Err(refused(error)),
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }

    /// The index up to which a read that begins now must have applied; only the leader knows. Confirmed by a round of the
    /// majority (ReadIndex), never by a lease: clocks stand still while a Mac sleeps.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadError> {
        let confirm = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        match timeout(limits::ANSWER_WAIT, confirm).await {
            Err(_) => Err(ReadError::NoMajority),
            Ok(Err(RaftError::Fatal(fatal))) => Err(ReadError::Stopped(fatal.to_string())),
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {
                Err(ReadError::NoMajority)
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(ReadError::NotLeader { leader: leader(&to) })
            }
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
        }
    }

    /// Returns when everything up to `index` is published here.
    pub(crate) async fn applied(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.applied_index.clone();
        let reached = applied.wait_for(|applied| *applied >= Some(index));
        match timeout(limits::ANSWER_WAIT, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_ended)) => Err(ReadError::Stopped(self.stop_reason())),
            Err(_) => Err(ReadError::NoMajority),
        }
    }

    /// Why nothing is served any more, if so.
    pub(crate) fn fatal(&self) -> Option<String> {
        if let Some(outdated) = self.speech.met() {
            return Some(outdated.to_string());
        }
        let metrics = self.raft.metrics();
        metrics.borrow_watched().running_state.as_ref().err().map(ToString::to_string)
    }

    pub(crate) fn stop_reason(&self) -> String {
        self.fatal().unwrap_or_else(|| "it was shut down".to_owned())
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.published.borrow())
    }
}

fn refused(error: ClientWriteError<Types>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader { leader: leader(&to) },
        ClientWriteError::LogEntryDiscarded(_) => {
            ProposeError::OutcomeUnknown("leadership changed while the command was under way".to_owned())
        }
        error @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            ProposeError::OutcomeUnknown(error.to_string())
        }
    }
}

/// Where openraft sends us. An empty answer means an election is under way: worth a retry, like the rest.
pub(crate) fn leader(to: &ForwardToLeader<Types>) -> Option<u64> {
    to.leader_id.map(|replica| replica.0)
}
