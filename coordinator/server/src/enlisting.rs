//! How a coordinator becomes a member of the group, and stays reachable as one.
//!
//! Owns both ends of `Enlist`: the newcomer asks whom it knows until it is a member at its present address; the leader lets it
//! follow the log, and gives votes as soon as that makes their number odd: with one newcomer a group of one stays one with a
//! follower, with two it is a group of three. Refuses to count a newcomer that has not caught up.

use consensus::{ChangeError, Consensus, Even, ReplicaId, Role};
use proto::v1::EnlistRequest;
use proto::v1::cluster_client::ClusterClient;
use tonic::{Request, Status};

use crate::limits;
use crate::peers::Peers;

/// Asks until this coordinator is a member that others reach at `address`. `contacts` may know the leader.
pub(crate) async fn ask(
    consensus: Consensus,
    peers: Peers,
    own: ReplicaId,
    address: String,
    contacts: Vec<String>,
) {
    while !is_member(&consensus, own, &address) {
        let members = consensus.members().into_iter().map(|member| member.address);
        let others = members.chain(contacts.iter().cloned());
        let mut said = false;
        for other in others.filter(|other| !other.is_empty() && *other != address) {
            let request = EnlistRequest { address: address.clone(), replica: own.0 };
            match call(&peers, own, &other, request).await {
                Ok(()) => {
                    said = true;
                    break;
                }
                Err(error) => tracing::info!(contact = other, error, "not a member yet"),
            }
        }
        // The news of one's own membership may still be on its way.
        let pause = if said { limits::DESK_AGAIN } else { limits::ENLIST_AGAIN };
        tokio::time::sleep(pause).await;
    }
    tracing::info!(replica = own.0, address, "a member of the group");
}

fn is_member(consensus: &Consensus, own: ReplicaId, address: &str) -> bool {
    consensus.members().iter().any(|member| member.replica == own && member.address == address)
}

async fn call(peers: &Peers, to: ReplicaId, address: &str, request: EnlistRequest) -> Result<(), String> {
    let channel = peers.connect(to, address).await?;
    let answer = ClusterClient::new(channel).enlist(Request::new(request)).await;
    answer.map(|_| ()).map_err(|status| status.message().to_owned())
}

/// The answer of any member: one that does not lead passes the request on.
pub(crate) async fn answer(
    consensus: &Consensus,
    peers: &Peers,
    caller: ReplicaId,
    request: EnlistRequest,
) -> Result<(), Status> {
    let replica = ReplicaId(request.replica);
    let is_member = |replica| consensus.members().iter().any(|member| member.replica == replica);
    if replica != caller && !is_member(caller) {
        return Err(Status::permission_denied("only a member speaks for another coordinator"));
    }
    let leadership = consensus.leadership().borrow().clone();
    if leadership.is_self {
        return admit(consensus, replica, &request.address).await.map_err(refused);
    }
    match (leadership.leader, leadership.address) {
        // What was passed on once is not passed on again.
        (Some(leader), Some(address)) if replica == caller => {
            call(peers, leader, &address, request).await.map_err(Status::unavailable)
        }
        (Some(_), Some(_)) | (None, _) | (_, None) => {
            Err(Status::unavailable("no coordinator leads at present"))
        }
    }
}

async fn admit(consensus: &Consensus, replica: ReplicaId, address: &str) -> Result<(), ChangeError> {
    let told = |progress: consensus::Progress| {
        tracing::info!(replica = replica.0, lag = progress.lag, "catching up")
    };
    match consensus.add(replica, address, told).await {
        Err(ChangeError::AddressDiffers { .. }) => {
            consensus.set_address(replica, address).await?;
            consensus.add(replica, address, told).await?;
        }
        added => added?,
    }
    let members = consensus.members();
    let learners: Vec<ReplicaId> =
        members.iter().filter(|member| member.role == Role::Learner).map(|member| member.replica).collect();
    if !learners.is_empty() && !members.len().is_multiple_of(2) {
        consensus.promote(&learners, Even::Refuse).await?;
        tracing::info!(voters = members.len(), "the group has grown");
    }
    Ok(())
}

fn refused(error: ChangeError) -> Status {
    Status::failed_precondition(error.to_string())
}
