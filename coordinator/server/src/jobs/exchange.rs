//! Kept answers between coordinators, and the question whether a run goes on.
//!
//! Owns both ends of `KeepAnswer`, `FetchAnswer` and `AskRun`. Refuses to believe an answer whose digest is another one: a
//! damaged file is as good as none.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use consensus::{Consensus, ReplicaId};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{
    AskRunReply, AskRunRequest, FetchAnswerReply, FetchAnswerRequest, KeepAnswerReply, KeepAnswerRequest,
};
use registry::{Digest, JobRun, Life};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use super::runs::Runs;
use super::store::Store;
use super::{Keeper, Missing};
use crate::gateway::HashKey;
use crate::limits;
use crate::peers::Peers;

#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) replica: ReplicaId,
    pub(crate) consensus: Consensus,
    pub(crate) peers: Peers,
    pub(crate) store: Store,
    pub(crate) runs: Runs,
    /// Of the digests of answers.
    pub(crate) key: HashKey,
}

type Client = ClusterClient<Channel>;

impl Exchange {
    /// Another coordinator wants it to be kept here too.
    pub(crate) async fn take_in(&self, asked: KeepAnswerRequest) -> Result<KeepAnswerReply, Status> {
        let digest = digest(&asked.digest)?;
        if asked.answer.len() > limits::ANSWER_BYTES_MAX || !self.is_right(digest, &asked.answer) {
            return Err(Status::invalid_argument("the answer is too large, or does not have its digest"));
        }
        if !self.has_room() {
            return Err(Status::resource_exhausted("this coordinator's disk is almost full"));
        }
        let kept = self.store.put(digest, asked.answer).await;
        kept.map(|()| KeepAnswerReply {}).map_err(|error| Status::internal(error.to_string()))
    }

    /// Another coordinator wants to give it to a client.
    pub(crate) async fn give(&self, asked: FetchAnswerRequest) -> Result<FetchAnswerReply, Status> {
        let digest = digest(&asked.digest)?;
        Ok(FetchAnswerReply { answer: self.own(digest).await })
    }

    /// Another coordinator wants to take a job over.
    pub(crate) fn answer(&self, asked: AskRunRequest) -> AskRunReply {
        AskRunReply { goes_on: self.runs.goes_on(Life(asked.life), asked.number) }
    }

    async fn own(&self, digest: Digest) -> Option<Bytes> {
        self.store.get(digest).await.filter(|answer| self.is_right(digest, answer))
    }

    fn is_right(&self, digest: Digest, answer: &[u8]) -> bool {
        self.key.digest(&[answer]) == digest
    }

    /// The others, those first that come after this one, so that not all keep theirs with the same.
    fn others(&self) -> Vec<ReplicaId> {
        let members = self.consensus.members().into_iter().map(|member| member.replica);
        let (mut before, after): (Vec<_>, Vec<_>) =
            members.filter(|replica| *replica != self.replica).partition(|replica| *replica < self.replica);
        let mut others = after;
        others.append(&mut before);
        others
    }

    async fn keep_elsewhere(&self, digest: Digest, answer: Bytes) -> Option<u64> {
        for replica in self.others() {
            let asked = KeepAnswerRequest { digest: digest.0.to_vec(), answer: answer.clone() };
            let kept = self.ask(replica, limits::ANSWER_MOVE, async move |mut client: Client| {
                client.keep_answer(asked).await.map(|_| ())
            });
            match kept.await {
                Ok(()) => return Some(replica.0),
                Err(why) => tracing::info!(%replica, why, "another coordinator does not keep an answer"),
            }
        }
        None
    }

    async fn ask<T>(
        &self,
        replica: ReplicaId,
        patience: Duration,
        ask: impl AsyncFnOnce(Client) -> Result<T, Status>,
    ) -> Result<T, String> {
        let members = self.consensus.members();
        let member = members.iter().find(|member| member.replica == replica && !member.address.is_empty());
        let address = &member.ok_or("it is no member of the group")?.address;
        let channel = timeout(limits::PEER_CONNECT, self.peers.connect(replica, address));
        let channel = channel.await.map_err(|_| "it could not be reached in time")??;
        let answered = timeout(patience, ask(ClusterClient::new(channel))).await;
        answered.map_err(|_| "no answer")?.map_err(|status| status.message().to_owned())
    }
}

impl Keeper for Exchange {
    fn has_room(&self) -> bool {
        !self.consensus.health().storage_full
    }

    fn keep(&self, digest: Digest, answer: Bytes) -> BoxFuture<'_, BTreeSet<u64>> {
        async move {
            let (here, elsewhere) =
                tokio::join!(self.store.put(digest, answer.clone()), self.keep_elsewhere(digest, answer));
            if let Err(error) = &here {
                tracing::warn!(%error, "an answer could not be kept on this disk");
            }
            if elsewhere.is_none() && !self.others().is_empty() {
                tracing::warn!("no other coordinator keeps an answer: it is on one disk alone");
            }
            here.is_ok().then_some(self.replica.0).into_iter().chain(elsewhere).collect()
        }
        .boxed()
    }

    fn fetch(&self, digest: Digest, holders: BTreeSet<u64>) -> BoxFuture<'_, Result<Bytes, Missing>> {
        async move {
            if let Some(answer) = self.own(digest).await {
                return Ok(answer);
            }
            let mut missing = Missing::Gone;
            // One that left the group took its answers with it.
            let others = self.others().into_iter().map(|replica| replica.0);
            for holder in others.filter(|other| holders.contains(other)) {
                let asked = FetchAnswerRequest { digest: digest.0.to_vec() };
                let fetched =
                    self.ask(ReplicaId(holder), limits::ANSWER_MOVE, async move |mut client: Client| {
                        client.fetch_answer(asked).await.map(|reply| reply.into_inner().answer)
                    });
                match fetched.await {
                    Ok(Some(answer)) if self.is_right(digest, &answer) => return Ok(answer),
                    Ok(_) => {}
                    Err(why) => {
                        tracing::info!(holder, why, "a coordinator cannot be asked for an answer");
                        missing = Missing::Unreachable;
                    }
                }
            }
            Err(missing)
        }
        .boxed()
    }

    fn goes_on(&self, run: JobRun) -> BoxFuture<'_, bool> {
        async move {
            let asked = AskRunRequest { life: run.life.0, number: run.number };
            let told =
                self.ask(ReplicaId(run.replica), limits::PEER_CONNECT, async move |mut client: Client| {
                    client.ask_run(asked).await.map(|reply| reply.into_inner().goes_on)
                });
            told.await.unwrap_or(false)
        }
        .boxed()
    }
}

fn digest(bytes: &[u8]) -> Result<Digest, Status> {
    let bytes = bytes.try_into().map_err(|_| Status::invalid_argument("a digest has 32 bytes"))?;
    Ok(Digest(bytes))
}
