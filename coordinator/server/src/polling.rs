//! What each of the other coordinators says of itself.
//!
//! Owns the ways to them, kept open between two looks: a Mac may be switched off for months. Refuses to wait for one that does not
//! answer, and to judge what they say.

use std::collections::BTreeMap;

use consensus::{MemberState, ReplicaId};
use proto::v1::cluster_client::ClusterClient;
use proto::v1::look_request::Subject;
use proto::v1::{LookReply, LookRequest};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::limits;
use crate::peers::Peers;

pub(crate) struct Polling {
    peers: Peers,
    open: BTreeMap<ReplicaId, ClusterClient<Channel>>,
}

impl Polling {
    pub(crate) fn new(peers: Peers) -> Self {
        Self { peers, open: BTreeMap::new() }
    }

    /// What each answers; without those that do not.
    pub(crate) async fn ask(&mut self, others: &[MemberState]) -> Vec<(ReplicaId, LookReply)> {
        let mut told = Vec::new();
        for other in others {
            let asked = timeout(limits::REACH_LOOK, self.ask_one(other)).await;
            match asked.ok().flatten() {
                Some(reply) => told.push((other.replica, reply)),
                None => drop(self.open.remove(&other.replica)),
            }
        }
        told
    }

    async fn ask_one(&mut self, other: &MemberState) -> Option<LookReply> {
        let mut way = match self.open.get(&other.replica) {
            Some(way) => way.clone(),
            None => ClusterClient::new(self.peers.connect(other.replica, &other.address).await.ok()?),
        };
        self.open.insert(other.replica, way.clone());
        let reply = way.look(LookRequest { subject: Some(Subject::Reached(true)) }).await.ok()?;
        Some(reply.into_inner())
    }
}
