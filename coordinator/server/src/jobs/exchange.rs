//! Kept answers and pieces of files between coordinators, and the question whether a run goes on.
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
use super::{Keeper, Missing, What};
use crate::gateway::HashKey;
use crate::limits;
use crate::peers::Peers;

#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) replica: ReplicaId,
    pub(crate) consensus: Consensus,
    pub(crate) peers: Peers,
    pub(crate) answers: Shelf,
    pub(crate) pieces: Shelf,
    pub(crate) runs: Runs,
}

/// What is kept of one kind.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub(crate) store: Store,
    /// Of the digests.
    pub(crate) key: HashKey,
}

impl Shelf {
    async fn get(&self, digest: Digest) -> Option<Bytes> {
        self.store.get(digest).await.filter(|bytes| self.is_right(digest, bytes))
    }

    fn is_right(&self, digest: Digest, bytes: &[u8]) -> bool {
        self.key.digest(&[bytes]) == digest
    }
}

type Client = ClusterClient<Channel>;

impl Exchange {
    /// Another coordinator wants it to be kept here too.
    pub(crate) async fn take_in(&self, asked: KeepAnswerRequest) -> Result<KeepAnswerReply, Status> {
        let (digest, shelf) = (digest(&asked.digest)?, self.shelf(what(asked.piece)));
        if asked.answer.len() > limits::ANSWER_BYTES_MAX || !shelf.is_right(digest, &asked.answer) {
            return Err(Status::invalid_argument("the answer is too large, or does not have its digest"));
        }
        if !self.has_room() {
            return Err(Status::resource_exhausted("this coordinator's disk is almost full"));
        }
        let kept = shelf.store.put(digest, asked.answer).await;
        kept.map(|()| KeepAnswerReply {}).map_err(|error| Status::internal(error.to_string()))
    }

    /// Another coordinator wants to give it to a client.
    pub(crate) async fn give(&self, asked: FetchAnswerRequest) -> Result<FetchAnswerReply, Status> {
        let digest = digest(&asked.digest)?;
        Ok(FetchAnswerReply { answer: self.shelf(what(asked.piece)).get(digest).await })
    }

    /// Another coordinator wants to take a job over.
    pub(crate) fn answer(&self, asked: AskRunRequest) -> AskRunReply {
        AskRunReply { goes_on: self.runs.goes_on(Life(asked.life), asked.number) }
    }

    fn shelf(&self, what: What) -> &Shelf {
        match what {
            What::Answer => &self.answers,
            What::Piece => &self.pieces,
        }
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

    async fn keep_elsewhere(&self, what: What, digest: Digest, bytes: Bytes) -> Option<u64> {
        for replica in self.others() {
            let (digest, answer, piece) = (digest.0.to_vec(), bytes.clone(), what == What::Piece);
            let asked = KeepAnswerRequest { digest, answer, piece };
            let kept = self.ask(replica, limits::ANSWER_MOVE, async move |mut client: Client| {
                client.keep_answer(asked).await.map(|_| ())
            });
            match kept.await {
                Ok(()) => return Some(replica.0),
                Err(why) => tracing::info!(%replica, why, "another coordinator does not keep it"),
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

    fn keep(&self, what: What, digest: Digest, bytes: Bytes) -> BoxFuture<'_, BTreeSet<u64>> {
        async move {
            let (here, elsewhere) = tokio::join!(
                self.shelf(what).store.put(digest, bytes.clone()),
                self.keep_elsewhere(what, digest, bytes)
            );
            if let Err(error) = &here {
                tracing::warn!(%error, ?what, "it could not be kept on this disk");
            }
            if elsewhere.is_none() && !self.others().is_empty() {
                tracing::warn!(?what, "no other coordinator keeps it: it is on one disk alone");
            }
            here.is_ok().then_some(self.replica.0).into_iter().chain(elsewhere).collect()
        }
        .boxed()
    }

    fn fetch(
        &self,
        what: What,
        digest: Digest,
        holders: BTreeSet<u64>,
    ) -> BoxFuture<'_, Result<Bytes, Missing>> {
        async move {
            let shelf = self.shelf(what);
            if let Some(answer) = shelf.get(digest).await {
                return Ok(answer);
            }
            let mut missing = Missing::Gone;
            // One that left the group took its answers with it.
            let others = self.others().into_iter().map(|replica| replica.0);
            for holder in others.filter(|other| holders.contains(other)) {
                let piece = what == What::Piece;
                let asked = FetchAnswerRequest { digest: digest.0.to_vec(), piece };
                let fetched =
                    self.ask(ReplicaId(holder), limits::ANSWER_MOVE, async move |mut client: Client| {
                        client.fetch_answer(asked).await.map(|reply| reply.into_inner().answer)
                    });
                match fetched.await {
                    Ok(Some(answer)) if shelf.is_right(digest, &answer) => return Ok(answer),
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

fn what(piece: bool) -> What {
    if piece { What::Piece } else { What::Answer }
}

fn digest(bytes: &[u8]) -> Result<Digest, Status> {
    let bytes = bytes.try_into().map_err(|_| Status::invalid_argument("a digest has 32 bytes"))?;
    Ok(Digest(bytes))
}
