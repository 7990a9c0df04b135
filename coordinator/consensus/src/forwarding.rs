//! Commands and reads on any replica: done here if this one leads, asked of the leader if another does.
//!
//! Where nobody leads, or the one asked no longer does, nothing has happened, and the search goes on until it has lasted
//! [`limits::LEADER_WAIT`]. Once a command has been sent anywhere, no answer means that its outcome is not known: it is never
//! sent twice.

use std::sync::Arc;

use proto::raft as wire;
use proto::raft::{propose_reply, read_index_reply};
use registry::Command;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use crate::error::{ProposeError, ReadError};
use crate::leadership::Leadership;
use crate::limits;
use crate::options::ReplicaId;
use crate::raft::link::Link;
use crate::replica::{Committed, Replica};

/// Commits and applies `command`, wherever that happens.
pub(crate) async fn propose(
    replica: &Replica,
    command: Command,
    json: Vec<u8>,
) -> Result<Committed, ProposeError> {
    let mut search = Search::new(replica);
    loop {
        // Whom it last heard lead does not help: the answer would not be found here.
        if let Some(why) = replica.fatal() {
            return Err(ProposeError::Stopped(why));
        }
        let leadership = search.leadership();
        let refused = if leadership.is_self {
            replica.admit(command.clone()).await
        } else if let Some(link) = search.way_to(&leadership) {
            let asking = ask_to_propose(replica, &link, json.clone());
            tokio::select! {
                answer = asking => answer,
                () = search.deposed(link.replica()) => Err(ProposeError::OutcomeUnknown(
                    "leadership changed while the command was under way".to_owned(),
                )),
            }
        } else {
            Err(ProposeError::NotLeader { leader: None })
        };
        match refused {
            Err(ProposeError::NotLeader { .. }) if search.goes_on().await => {}
            ended => return ended,
        }
    }
}

/// Returns when this replica has applied everything that was answered anywhere before the call.
pub(crate) async fn confirm(replica: &Replica) -> Result<(), ReadError> {
    let mut search = Search::new(replica);
    let index = loop {
        if let Some(why) = replica.fatal() {
            return Err(ReadError::Stopped(why));
        }
        let leadership = search.leadership();
        let refused = if leadership.is_self {
            replica.read_index().await
        } else if let Some(link) = search.way_to(&leadership) {
            tokio::select! {
                answer = ask_for_index(replica, &link) => answer,
                () = search.deposed(link.replica()) => Err(ReadError::NotLeader { leader: None }),
            }
        } else {
            Err(ReadError::NotLeader { leader: None })
        };
        match refused {
            // A leader whose majority was slow for half a second confirms nothing for a second, and leads on.
            Err(ReadError::NotLeader { .. } | ReadError::NoMajority) if search.goes_on().await => {}
            ended => break ended?,
        }
    };
    replica.applied(index).await
}

/// The search for a leader that accepts.
struct Search<'a> {
    replica: &'a Replica,
    changes: tokio::sync::watch::Receiver<Leadership>,
    ends: Instant,
}

impl Search<'_> {
    fn new(replica: &Replica) -> Search<'_> {
        Search { replica, changes: replica.leadership.clone(), ends: Instant::now() + limits::LEADER_WAIT }
    }

    fn leadership(&mut self) -> Leadership {
        self.changes.borrow_and_update().clone()
    }

    fn way_to(&self, leadership: &Leadership) -> Option<Arc<Link>> {
        let (leader, address) = (leadership.leader?, leadership.address.as_ref()?);
        (leader != self.replica.id).then(|| self.replica.links.to(leader, address))
    }

    /// Returns when this replica no longer takes `leader` for the leader: its answer may never come.
    async fn deposed(&self, leader: ReplicaId) {
        let mut changes = self.changes.clone();
        changes.wait_for(|now| now.leader != Some(leader)).await.ok();
    }

    /// Waits for news of the leadership, or a moment where there are none: who leads may just not know it yet. No more when
    /// the time is up.
    async fn goes_on(&mut self) -> bool {
        if Instant::now() >= self.ends {
            return false;
        }
        let pause = sleep_until(self.ends.min(Instant::now() + limits::LEADER_PAUSE));
        tokio::select! {
            changed = self.changes.changed() => if changed.is_err() { pause_out().await },
            () = pause => {}
        }
        true
    }
}

/// The channel has ended: the replica has stopped, which the next look finds.
async fn pause_out() {
    tokio::task::yield_now().await;
}

async fn ask_to_propose(replica: &Replica, link: &Link, command: Vec<u8>) -> Result<Committed, ProposeError> {
    let leader = link.replica();
    let header = Some(replica.door.header(leader));
    // Nothing has been sent yet.
    let Ok(mut client) = link.client().await else { return Err(ProposeError::NotLeader { leader: None }) };
    let asked = timeout(limits::ANSWER_WAIT, client.propose(wire::ProposeRequest { header, command })).await;
    let unknown = |why: &str| ProposeError::OutcomeUnknown(format!("replica {leader}, which leads: {why}"));
    let reply = match asked {
        Err(_) => return Err(unknown("no answer in time")),
        Ok(Err(status)) => {
            link.note(&status);
            return Err(turned_away(&status).unwrap_or_else(|| unknown(status.message())));
        }
        Ok(Ok(reply)) => reply.into_inner(),
    };
    link.answered();
    match reply.outcome {
        Some(propose_reply::Outcome::Committed(wire::Committed { reply, index })) => {
            let reply = serde_json::from_slice(&reply);
            let reply =
                reply.map_err(|_| unknown("its reply cannot be read; upgrade the older of the two"))?;
            Ok(Committed { reply, index })
        }
        Some(propose_reply::Outcome::NotLeader(to)) => Err(ProposeError::NotLeader { leader: to.leader }),
        Some(propose_reply::Outcome::Busy(max)) => Err(ProposeError::Busy { in_flight_max: whole(max) }),
        Some(propose_reply::Outcome::TooLarge(size)) => {
            Err(ProposeError::TooLarge { bytes: whole(size.bytes), bytes_max: whole(size.bytes_max) })
        }
        Some(propose_reply::Outcome::StorageFull(free)) => Err(ProposeError::StorageFull { free }),
        Some(propose_reply::Outcome::Unknown(why)) => Err(ProposeError::OutcomeUnknown(why)),
        // The leader stopped, not this replica; what it had begun may go on elsewhere.
        Some(propose_reply::Outcome::Stopped(why)) => Err(unknown(&why)),
        None => Err(unknown("its answer says nothing")),
    }
}

/// What the leader refused at the door certainly did not happen; asking again may reach another.
fn turned_away(status: &Status) -> Option<ProposeError> {
    let at_the_door = [
        tonic::Code::FailedPrecondition,
        tonic::Code::PermissionDenied,
        tonic::Code::Unauthenticated,
        tonic::Code::InvalidArgument,
        tonic::Code::Unimplemented,
    ];
    at_the_door.contains(&status.code()).then(|| {
        tracing::warn!(why = status.message(), "the leader turned a proposal away");
        ProposeError::NotLeader { leader: None }
    })
}

async fn ask_for_index(replica: &Replica, link: &Link) -> Result<u64, ReadError> {
    let not_leader = || ReadError::NotLeader { leader: None };
    let header = Some(replica.door.header(link.replica()));
    let mut client = link.client().await.map_err(|_| not_leader())?;
    let asked = timeout(limits::LEADER_WAIT, client.read_index(wire::ReadIndexRequest { header })).await;
    let reply = match asked {
        Err(_) => return Err(ReadError::NoMajority),
        Ok(Err(status)) => {
            link.note(&status);
            return Err(not_leader());
        }
        Ok(Ok(reply)) => reply.into_inner(),
    };
    link.answered();
    match reply.outcome {
        Some(read_index_reply::Outcome::Index(index)) => Ok(index),
        Some(read_index_reply::Outcome::NotLeader(to)) => Err(ReadError::NotLeader { leader: to.leader }),
        Some(read_index_reply::Outcome::NoMajority(_)) => Err(ReadError::NoMajority),
        // The leader stopped, not this replica.
        Some(read_index_reply::Outcome::Stopped(_)) | None => Err(not_leader()),
    }
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Whether a replica leads for the whole of `work`; what follows it is only right if so.
pub(crate) fn still_leads(replica: &Replica, term: u64) -> Result<(), ReadError> {
    let now = replica.leadership.borrow();
    if now.is_self && now.term == term {
        return Ok(());
    }
    Err(ReadError::NotLeader { leader: now.leader.map(|ReplicaId(leader)| leader) })
}
