//! How replicas talk to each other. A cluster with one coordinator has nobody to talk to, and this file says so
//! instead of pretending: every call answers `Unreachable` with the reason. The network for three and five
//! coordinators takes this file's place, behind the same [`Network`] factory.
//!
//! Pre-vote is refused like the rest. openraft's own default *grants* it, which would let a replica that cannot
//! reach anybody raise its term.

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};

use crate::options::ReplicaId;
use crate::raft::types::{Member, Snapshot, Types, Vote};

const REASON: &str = "this cluster has one coordinator";

/// Makes a [`Peer`] for each other member of the group.
pub(crate) struct Network;

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, _target: ReplicaId, _node: &Member) -> Peer {
        Peer
    }
}

/// The way to one other member: there is none.
pub(crate) struct Peer;

impl Peer {
    fn unreachable() -> Unreachable<Types> {
        Unreachable::from_string(REASON)
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(Peer::unreachable().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(Peer::unreachable().into())
    }

    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(Peer::unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(Peer::unreachable().into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn asking_a_peer_in_a_cluster_of_one_says_why_there_is_none_and_grants_no_pre_vote() {
        let mut peer = Network.new_client(ReplicaId(2), &Member::default()).await;
        let ask = VoteRequest::new(Vote::new(5, ReplicaId(1)), None);
        let option = RPCOption::new(Duration::from_secs(1));
        for answer in [peer.vote(ask.clone(), option.clone()).await, peer.pre_vote(ask, option).await] {
            assert!(answer.unwrap_err().to_string().contains("this cluster has one coordinator"));
        }
    }
}
