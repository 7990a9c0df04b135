//! Carries changes of the group out, and completes those that an earlier leader left unfinished.
//!
//! Whoever becomes leader first applies everything earlier leaders committed, and then looks whether the registry holds a
//! change; it looks again now and then, because its own attempt may have ended while it went on leading. A change is data, and each of its steps is the same when done twice, so it does not matter how far the other had
//! come. It is never abandoned: half of it may be what a majority stands on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use registry::{Command, VoterChange};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::change_error::ChangeError;
use crate::error::ProposeError;
use crate::leadership::Leadership;
use crate::options::ReplicaId;
use crate::raft::types::{Member, StoredMembership};
use crate::replica::{self, Replica};
use crate::{forwarding, limits};

/// Watches over the replica as long as it lives.
pub(crate) fn start(replica: &Arc<Replica>) {
    let mut leadership = replica.leadership.clone();
    let replica = Arc::downgrade(replica);
    tokio::spawn(async move {
        loop {
            let now = leadership.borrow_and_update().clone();
            if now.is_self {
                inherit(&replica, now.term).await;
            }
            if !news(&mut leadership, &replica).await {
                return;
            }
        }
    });
}

/// Until there is something to look at: another leader, or a change that lies there. Not when the replica is gone.
async fn news(leadership: &mut watch::Receiver<Leadership>, replica: &Weak<Replica>) -> bool {
    loop {
        match timeout(limits::CHANGE_LOOK, leadership.changed()).await {
            Ok(changed) => return changed.is_ok(),
            Err(_) => {
                let Some(replica) = replica.upgrade() else { return false };
                if replica.registry().voter_change().is_some() {
                    return true;
                }
            }
        }
    }
}

/// Completes what an earlier leader began.
async fn inherit(replica: &Weak<Replica>, term: u64) {
    let Some(replica) = replica.upgrade() else { return };
    loop {
        if forwarding::still_leads(&replica, term).is_err() {
            return;
        }
        match inherit_once(&replica).await {
            Ok(()) => return,
            Err(ChangeError::Stopped(_)) => return,
            Err(error) => tracing::warn!(%error, "a change of the coordinators is still to be completed"),
        }
        sleep(limits::CHANGE_PAUSE).await;
    }
}

async fn inherit_once(replica: &Replica) -> Result<(), ChangeError> {
    let index = replica.read_index().await?;
    replica.applied(index).await?;
    let Some(change) = replica.registry().voter_change().cloned() else { return Ok(()) };
    tracing::info!(number = change.number, by = change.by, "completing a change of the coordinators");
    complete(replica, &change).await
}

/// Brings the group to where the change wants it, and ends the change.
pub(crate) async fn complete(replica: &Replica, change: &VoterChange) -> Result<(), ChangeError> {
    let _one_at_a_time = replica.changing.lock().await;
    let deadline = Instant::now() + limits::CHANGE_WAIT;
    while let Some(step) = step(&membership(replica), change) {
        let changing = replica.raft.change_membership(step, false);
        match timeout_at(deadline, changing).await.map_err(|_| ChangeError::Slow)? {
            Ok(_) => {}
            Err(RaftError::Fatal(fatal)) => return Err(ChangeError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(error)) => again_after(error)?,
        }
        if Instant::now() >= deadline {
            return Err(ChangeError::Slow);
        }
        sleep(limits::CHANGE_PAUSE).await;
    }
    end(replica, change.number).await
}

/// The change has been made. Whoever leads after this replica ends it if this one cannot, as when it was itself removed.
async fn end(replica: &Replica, number: u64) -> Result<(), ChangeError> {
    while replica.leadership.borrow().is_self {
        let ending = replica.propose(Command::UnlockVoters { number });
        match timeout(limits::CHANGE_END_WAIT, ending).await {
            Ok(Ok(_)) => break,
            Ok(Err(ProposeError::Stopped(why))) => return Err(ChangeError::Stopped(why)),
            // Also where it is told that it does not lead: a leader whose majority was slow for half a second leads on.
            Ok(Err(_)) | Err(_) => sleep(limits::CHANGE_PAUSE).await,
        }
    }
    Ok(())
}

/// An earlier step that is still under way is waited for, and so is a majority that was slow: nobody else is known to lead then.
/// Everything else ends the attempt.
fn again_after(error: ClientWriteError<crate::raft::types::Types>) -> Result<(), ChangeError> {
    match error {
        ClientWriteError::ForwardToLeader(to) if to.leader_id.is_none() => Ok(()),
        ClientWriteError::ForwardToLeader(to) => Err(ChangeError::NotLeader { leader: replica::leader(&to) }),
        ClientWriteError::LogEntryDiscarded(_) => Err(ChangeError::OutcomeUnknown(
            "leadership changed while the group was being changed".to_owned(),
        )),
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => Ok(()),
        error @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            Err(ChangeError::OutcomeUnknown(error.to_string()))
        }
    }
}

fn membership(replica: &Replica) -> Arc<StoredMembership> {
    Arc::clone(&replica.raft.metrics().borrow_watched().membership_config)
}

/// What is left to do, if anything.
fn step(membership: &StoredMembership, change: &VoterChange) -> Option<ChangeMembers<ReplicaId, Member>> {
    let voters: BTreeSet<ReplicaId> = membership.voter_ids().collect();
    let members: BTreeMap<ReplicaId, &Member> =
        membership.nodes().map(|(id, member)| (*id, member)).collect();
    let seat = change.seat.iter().map(|(id, address)| (ReplicaId(*id), Member { address: address.clone() }));
    let seat: BTreeMap<_, _> = seat.filter(|(id, member)| members.get(id) != Some(&member)).collect();
    let ids = |ids: &BTreeSet<u64>| ids.iter().map(|id| ReplicaId(*id)).collect::<BTreeSet<_>>();
    let promote: BTreeSet<_> = ids(&change.promote).difference(&voters).copied().collect();
    let remove = ids(&change.remove);
    let unvote: BTreeSet<_> = remove.intersection(&voters).copied().collect();
    let unseat: BTreeSet<_> =
        remove.difference(&voters).filter(|id| members.contains_key(id)).copied().collect();
    let joint = membership.get_joint_config().len() > 1;
    let done = seat.is_empty() && promote.is_empty() && unvote.is_empty() && unseat.is_empty() && !joint;
    // Voters lose their seat with their vote; openraft refuses to take it while the old majority still counts them. An empty
    // set of new voters ends what is left of a joint majority.
    (!done).then(|| {
        ChangeMembers::Batch(vec![
            ChangeMembers::SetNodes(seat),
            ChangeMembers::AddVoterIds(promote),
            ChangeMembers::RemoveVoters(unvote),
            ChangeMembers::RemoveNodes(unseat),
        ])
    })
}
