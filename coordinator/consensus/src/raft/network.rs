//! How this replica speaks to others: openraft's network trait over `link.rs` and `append.rs`.
//!
//! Three duties that openraft leaves to its network, each of which it would otherwise fail silently:
//! 1. A stream that cannot be opened consumes its first request all the same. openraft pauses between attempts *inside* that
//!    stream; one that fails before polling it is called again at once, thousands of times a second.
//! 2. Pre-vote is asked for real. The trait's default grants it, which would let a replica that reaches nobody raise its term.
//! 3. Every reply has a deadline of its own; openraft enforces none on a stream.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use proto::raft as wire;
use proto::raft::transfer_leader_reply::Refused;
use tokio::time::timeout;
use tonic::{Response, Status};

use crate::limits;
use crate::options::ReplicaId;
use crate::raft::append;
use crate::raft::door::Door;
use crate::raft::link::{Link, Links};
use crate::raft::snapshot_pieces;
use crate::raft::types::{Member, Running, Snapshot, Types, Vote};
use crate::raft::wire as convert;

/// Makes a [`Peer`] for each other member of the group.
pub(crate) struct Network {
    pub(crate) links: Arc<Links>,
    pub(crate) door: Arc<Door>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: ReplicaId, node: &Member) -> Peer {
        Peer { link: self.links.to(target, &node.address), door: Arc::clone(&self.door) }
    }
}

/// Keeps the addresses of all members up to date: openraft makes a [`Peer`] once and keeps it when the member moves.
pub(crate) fn follow_addresses(raft: &Running, links: Arc<Links>) {
    let mut metrics = raft.server_metrics();
    let me = *raft.node_id();
    tokio::spawn(async move {
        loop {
            let membership = Arc::clone(&metrics.borrow_watched().membership_config);
            links.forget_all_but(|replica| membership.get_node(&replica).is_some());
            for (replica, member) in membership.nodes().filter(|(replica, _)| **replica != me) {
                links.to(*replica, &member.address);
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
}

/// The way to one other member.
pub(crate) struct Peer {
    link: Arc<Link>,
    door: Arc<Door>,
}

impl Peer {
    fn header(&self) -> wire::Header {
        self.door.header(self.link.replica())
    }

    async fn ask(
        &self,
        request: VoteRequest<Types>,
        pre_vote: bool,
        wait: Duration,
    ) -> Asked<VoteResponse<Types>> {
        let request = convert::ask(self.header(), &request, pre_vote);
        let mut client = self.link.client().await.map_err(unreachable)?;
        let reply = self.answer(timeout(wait, client.vote(request)).await)?;
        convert::answer_of(reply).map_err(|status| unreachable(status.message()))
    }

    /// The answer of one call, or why there is none; the link learns of it either way.
    fn answer<T>(&self, ended: Result<Result<Response<T>, Status>, tokio::time::error::Elapsed>) -> Asked<T> {
        match ended {
            Ok(Ok(response)) => {
                self.link.answered();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                self.link.note(&status);
                Err(unreachable(format!("replica {}: {}", self.link.replica(), status.message())))
            }
            Err(_) => Err(unreachable(format!("replica {} did not answer in time", self.link.replica()))),
        }
    }
}

type Asked<T> = Result<T, Unreachable<Types>>;

/// Every failure is this one: openraft then pauses before it tries again.
fn unreachable(why: impl ToString) -> Unreachable<Types> {
    Unreachable::from_string(why)
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let once = futures_util::stream::once(std::future::ready(rpc));
        let mut replies =
            append::open(Arc::clone(&self.link), self.header(), once).await.map_err(unreachable)?;
        match replies.next().await {
            Some(Ok(Ok(_))) => Ok(AppendEntriesResponse::Success),
            Some(Ok(Err(StreamAppendError::Conflict(_)))) => Ok(AppendEntriesResponse::Conflict),
            Some(Ok(Err(StreamAppendError::HigherVote(vote)))) => Ok(AppendEntriesResponse::HigherVote(vote)),
            Some(Err(why)) => Err(unreachable(why).into()),
            None => Err(unreachable("the stream ended without a reply").into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<Appended<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            // Duty 1: openraft's pause after a failure is in here.
            let Some(first) = input.next().await else {
                return Ok(futures_util::stream::empty().boxed());
            };
            let requests = futures_util::stream::once(std::future::ready(first)).chain(input);
            let replies = append::open(Arc::clone(&self.link), self.header(), requests).await;
            let replies = replies.map_err(unreachable)?;
            Ok(replies.map(|reply| reply.map_err(|why| unreachable(why).into())).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.ask(rpc, false, option.hard_ttl()).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.ask(rpc, true, option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let pieces = snapshot_pieces::of(self.header(), &vote, snapshot);
        let sending = async {
            let mut client = self.link.client().await.map_err(unreachable)?;
            self.answer(timeout(limits::SNAPSHOT_SEND_WAIT, client.snapshot(pieces)).await)
        };
        let reply = tokio::select! {
            reply = sending => reply?,
            closed = cancel => return Err(closed.into()),
        };
        let vote = convert::vote(reply.ballot).map_err(|status| unreachable(status.message()))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = wire::TransferLeaderRequest {
            header: Some(self.header()),
            leader: Some(convert::ballot(req.from_leader())),
            next: req.to_node_id().0,
            last: req.last_log_id().map(convert::id),
        };
        let mut client = self.link.client().await.map_err(unreachable)?;
        let reply = self.answer(timeout(option.hard_ttl(), client.transfer_leader(request)).await)?;
        Ok(match reply.refused {
            None => Ok(()),
            Some(Refused::VoteChanged(ballot)) => {
                let actual = convert::vote(Some(ballot)).map_err(|status| unreachable(status.message()))?;
                Err(TransferLeaderError::VoteChanged { expected: *req.from_leader(), actual })
            }
            Some(Refused::Behind(flushed)) => Err(TransferLeaderError::LogNotFlushed {
                expected: req.last_log_id().copied(),
                actual: flushed.id.as_ref().map(convert::log_id),
            }),
        })
    }
}

/// Replies as openraft wants them.
type Appended<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;
