//! How a coordinator becomes a member of the group, and stays reachable as one.
//!
//! Owns both ends of `Enlist`: the newcomer asks whom it knows until it is a member at its present address; the leader lets it
//! follow the log. With one newcomer a group of one stays one with a follower, with two it is a group of three (`growing.rs`).
//! Refuses a member of another life of the facts.

use std::cmp::Ordering;

use axum::http::uri::Authority;
use consensus::{ChangeError, Consensus, ReplicaId};
use proto::standing;
use proto::v1::EnlistRequest;
use proto::v1::cluster_client::ClusterClient;
use tonic::{Request, Status};

use crate::peers::Peers;
use crate::versions::Versions;
use crate::{departure, growing, limits};

/// What the operator reads.
const FORMER_LIFE: &str = "this cluster began anew from a backup or from another coordinator, and what is in this coordinator's data \
     folder is of before: to use the machine again, start it with an empty data folder, --join and a new token of `mlx-serving token \
     create --role coordinator`";

/// Never the last word: whoever says so has been left behind.
const LATER_LIFE: &str = "this coordinator is of a former life of the cluster: ask another";

/// Asks until this coordinator is a member that others reach at `address`. `contacts` may know the leader.
pub(crate) async fn ask(
    consensus: Consensus,
    peers: Peers,
    own: ReplicaId,
    address: String,
    contacts: Vec<String>,
) -> Result<(), Barred> {
    while !is_member(&consensus, own, &address) {
        let members = consensus.members().into_iter().map(|member| member.address);
        let others = members.chain(contacts.iter().cloned());
        let mut said = false;
        for other in others.filter(|other| !other.is_empty() && *other != address) {
            let request = words(&consensus, own, &address);
            match call(&peers, own, &other, request).await {
                Ok(()) => {
                    said = true;
                    break;
                }
                Err(CallError::Barred(why)) => return Err(why),
                Err(CallError::Failed(error)) => tracing::info!(contact = other, error, "not a member yet"),
            }
        }
        // The news of one's own membership may still be on its way.
        let pause = if said { limits::DESK_AGAIN } else { limits::ENLIST_AGAIN };
        tokio::time::sleep(pause).await;
    }
    tracing::info!(replica = own.0, address, "a member of the group");
    Ok(())
}

/// Why this coordinator is none any more, if another member says so. To one that still is, asking changes nothing.
pub(crate) async fn barred(
    consensus: &Consensus,
    peers: &Peers,
    own: ReplicaId,
    address: &str,
) -> Option<Barred> {
    let others = consensus.members().into_iter();
    for other in others.filter(|other| other.replica != own && !other.address.is_empty()) {
        let request = words(consensus, own, address);
        if let Err(CallError::Barred(why)) = call(peers, own, &other.address, request).await {
            return Some(why);
        }
    }
    None
}

fn is_member(consensus: &Consensus, own: ReplicaId, address: &str) -> bool {
    consensus.members().iter().any(|member| member.replica == own && member.address == address)
}

fn words(consensus: &Consensus, own: ReplicaId, address: &str) -> EnlistRequest {
    let facts = consensus.local();
    // One that has no facts yet is of whichever cluster takes it in.
    let epoch = facts.cluster().map(|_| facts.epoch());
    EnlistRequest { address: address.to_owned(), replica: own.0, speaks: Some(consensus.speaks().0), epoch }
}

/// Why this coordinator is no member and will be none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Barred {
    #[error("{}", departure::WORDS)]
    Revoked,
    /// In the words of the one that refused.
    #[error("{0}")]
    Outdated(String),
    /// In the words of the one that refused.
    #[error("{0}")]
    Former(String),
}

enum CallError {
    Barred(Barred),
    Failed(String),
}

async fn call(peers: &Peers, to: ReplicaId, address: &str, request: EnlistRequest) -> Result<(), CallError> {
    let channel = peers.connect(to, address).await.map_err(CallError::Failed)?;
    let mut client = ClusterClient::new(channel);
    match tokio::time::timeout(limits::ENLIST, client.enlist(Request::new(request))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if standing::is_revoked(&status) => Err(CallError::Barred(Barred::Revoked)),
        Ok(Err(status)) if standing::is_outdated(&status) => {
            Err(CallError::Barred(Barred::Outdated(status.message().to_owned())))
        }
        Ok(Err(status)) if standing::is_former(&status) => {
            Err(CallError::Barred(Barred::Former(status.message().to_owned())))
        }
        Ok(Err(status)) => Err(CallError::Failed(status.message().to_owned())),
        Err(_) => Err(CallError::Failed("no answer".to_owned())),
    }
}

/// The answer of any member: one that does not lead passes the request on.
pub(crate) async fn answer(
    consensus: &Consensus,
    peers: &Peers,
    versions: &Versions,
    caller: ReplicaId,
    request: EnlistRequest,
) -> Result<(), Status> {
    let replica = ReplicaId(request.replica);
    let is_member = |replica| consensus.members().iter().any(|member| member.replica == replica);
    if replica != caller && !is_member(caller) {
        return Err(Status::permission_denied("only a member speaks for another coordinator"));
    }
    if !is_address(&request.address) {
        let words = format!("{:?} is no host:port where others reach a coordinator", request.address);
        return Err(Status::invalid_argument(words));
    }
    is_of_this_life(request.epoch, consensus.local().epoch())?;
    let leadership = consensus.leadership().borrow().clone();
    if leadership.is_self {
        let _held = versions.admit(request.speaks).await?;
        return admit(consensus, replica, &request.address).await.map_err(refused);
    }
    match (leadership.leader, leadership.address) {
        // What was passed on once is not passed on again.
        (Some(leader), Some(address)) if replica == caller => {
            call(peers, leader, &address, request).await.map_err(|error| match error {
                CallError::Barred(Barred::Revoked) => {
                    Status::unavailable("this coordinator is none any more: ask another")
                }
                CallError::Barred(Barred::Outdated(words)) => standing::outdated(words),
                CallError::Barred(Barred::Former(words)) => standing::former(words),
                CallError::Failed(error) => Status::unavailable(error),
            })
        }
        (Some(_), Some(_)) | (None, _) | (_, None) => {
            Err(Status::unavailable("no coordinator leads at present"))
        }
    }
}

/// Lives follow one another: the later one is the cluster's, and ends the former for whoever is still in it.
fn is_of_this_life(other: Option<u64>, own: u64) -> Result<(), Status> {
    match other.map(|other| other.cmp(&own)) {
        Some(Ordering::Less) => Err(standing::former(FORMER_LIFE)),
        Some(Ordering::Greater) => Err(Status::unavailable(LATER_LIFE)),
        Some(Ordering::Equal) | None => Ok(()),
    }
}

/// `host:port`, and nothing else of a URL.
fn is_address(address: &str) -> bool {
    let authority: Option<Authority> = address.parse().ok();
    authority.is_some_and(|authority| {
        !authority.host().is_empty() && authority.port_u16().is_some() && !address.contains('@')
    })
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
    growing::look(consensus).await;
    Ok(())
}

fn refused(error: ChangeError) -> Status {
    Status::failed_precondition(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_of_a_former_life_is_told_so_for_good() {
        assert!(is_of_this_life(Some(7), 7).is_ok() && is_of_this_life(None, 7).is_ok());
        let former = is_of_this_life(Some(6), 7).expect_err("refused");
        assert!(standing::is_former(&former) && former.message().contains("empty data folder"), "{former}");
        let later = is_of_this_life(Some(8), 7).expect_err("refused");
        assert!(!standing::is_former(&later), "{later}");
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["mini-01.local:7443", "10.0.0.7:1", "[fd00::7]:7443"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "a/b",
            "mini-01.local",
            ":7443",
            "me@mini-01:7443",
            "http://x:1",
            "mini-01:99999",
            "mini 01:1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
