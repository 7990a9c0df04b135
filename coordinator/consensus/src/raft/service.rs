//! What other replicas may ask of this one. The server mounts it on its authenticated listener.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, TransferLeaderError, TransferLeaderRequest};
use proto::raft as wire;
use proto::raft::replica_server::{Replica as Rpc, ReplicaServer};
use proto::raft::transfer_leader_reply::Refused;
use proto::raft::{propose_reply, read_index_reply};
use registry::Registry;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::error::{ProposeError, ReadError};
use crate::limits;
use crate::options::ReplicaId;
use crate::raft::door::{Door, WhoIs};
use crate::raft::snapshot_pieces;
use crate::raft::types::{Snapshot, Types};
use crate::raft::wire as convert;
use crate::replica::{Committed, Replica};

/// The gRPC service of a replica, for a tonic router. It counts as a clone of the replica's handle.
pub type ReplicaService = ReplicaServer<Service>;

/// The replica behind a [`ReplicaService`].
pub struct Service {
    replica: Arc<Replica>,
    door: Arc<Door>,
    who_is: WhoIs,
    snapshots: Semaphore,
}

pub(crate) fn of(replica: Arc<Replica>, who_is: WhoIs) -> ReplicaService {
    let door = Arc::clone(&replica.door);
    let snapshots = Semaphore::new(limits::SNAPSHOTS_RECEIVED_MAX);
    ReplicaServer::new(Service { replica, door, who_is, snapshots })
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
}

impl Service {
    /// A follower's command, under the bounds of our own.
    async fn proposed(&self, json: &[u8]) -> Result<Result<Committed, ProposeError>, Status> {
        let (bytes, bytes_max) = (json.len(), limits::COMMAND_BYTES_MAX);
        if bytes > bytes_max {
            return Ok(Err(ProposeError::TooLarge { bytes, bytes_max }));
        }
        let command = convert::command(json)?;
        Ok(match self.replica.slot() {
            Ok(_slot) => self.replica.admit(command).await,
            Err(busy) => Err(busy),
        })
    }

    fn caller<T>(&self, request: &Request<T>) -> Option<ReplicaId> {
        (self.who_is)(request.extensions())
    }
}

#[tonic::async_trait]
impl Rpc for Service {
    type AppendStream = BoxStream<'static, Result<wire::AppendReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let caller = self.caller(&request);
        let refused = Arc::new(Mutex::new(None));
        let incoming = admitted(Arc::clone(&self.door), caller, request.into_inner(), Arc::clone(&refused));
        let replies = self.replica.raft.stream_append(incoming).map(|reply| match reply {
            Ok(result) => Ok(convert::append_reply(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        // What ended the requests is the last reply.
        let refusal = futures_util::stream::once(async move {
            refused.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err)
        });
        Ok(Response::new(replies.chain(refusal.filter_map(std::future::ready)).boxed()))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteReply>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        let (header, pre_vote) = (request.header, request.pre_vote);
        let asked = convert::ask_of(request)?;
        self.door.admit_author(caller, header, &asked.vote)?;
        let raft = &self.replica.raft;
        let answered = if pre_vote { raft.pre_vote(asked).await } else { raft.vote(asked).await };
        Ok(Response::new(convert::answer(&answered.map_err(stopped)?)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        let caller = self.caller(&request);
        let mut chunks = request.into_inner();
        let head = snapshot_pieces::head(&mut chunks).await?;
        let leader = convert::vote(head.leader)?;
        self.door.admit_author(caller, head.header, &leader)?;
        let busy = |_| Status::resource_exhausted("this replica is receiving other snapshots");
        let _slot = self.snapshots.try_acquire().map_err(busy)?;
        // It stays as it is, and is sent the snapshot again; a disk that fills up while it is written would stop it for good.
        if self.replica.room.borrow().full {
            return Err(Status::resource_exhausted("storage_full: no room for a snapshot on this disk"));
        }
        let state = snapshot_pieces::state(&mut chunks, &head).await?;
        // openraft stops for good on a snapshot that the state machine cannot take.
        let decoded = serde_json::from_slice::<Registry>(&state);
        let decoded =
            decoded.map_err(|_| convert::malformed("facts this release does not know; upgrade it"))?;
        let met = self.replica.speech.meets(decoded.cluster_version());
        met.map_err(|outdated| Status::failed_precondition(outdated.to_string()))?;
        let snapshot = Snapshot { meta: convert::meta_of(head)?, snapshot: state };
        let installed = self.replica.raft.install_full_snapshot(leader, snapshot).await.map_err(stopped)?;
        Ok(Response::new(wire::SnapshotReply { ballot: Some(convert::ballot(&installed.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderReply>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        let leader = convert::vote(request.leader)?;
        self.door.admit_author(caller, request.header, &leader)?;
        let last = request.last.as_ref().map(convert::log_id);
        let wished: TransferLeaderRequest<Types> =
            TransferLeaderRequest::new(leader, ReplicaId(request.next), last);
        let refused = match self.replica.raft.handle_transfer_leader(wished).await.map_err(stopped)? {
            Ok(()) => None,
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                Some(Refused::VoteChanged(convert::ballot(&actual)))
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
                Some(Refused::Behind(wire::Matched { id: actual.as_ref().map(convert::id) }))
            }
        };
        Ok(Response::new(wire::TransferLeaderReply { refused }))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexReply>, Status> {
        let caller = self.caller(&request);
        self.door.admit(caller, request.into_inner().header)?;
        let outcome = match self.replica.read_index().await {
            Ok(index) => read_index_reply::Outcome::Index(index),
            Err(ReadError::NotLeader { leader }) => {
                read_index_reply::Outcome::NotLeader(wire::Elsewhere { leader })
            }
            Err(ReadError::NoMajority) => read_index_reply::Outcome::NoMajority(wire::NoMajority {}),
            Err(ReadError::Stopped(why)) => read_index_reply::Outcome::Stopped(why),
        };
        Ok(Response::new(wire::ReadIndexReply { outcome: Some(outcome) }))
    }

    async fn propose(
        &self,
        request: Request<wire::ProposeRequest>,
    ) -> Result<Response<wire::ProposeReply>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        self.door.admit(caller, request.header)?;
        let outcome = match self.proposed(&request.command).await? {
            Ok(Committed { reply, index }) => match serde_json::to_vec(&reply) {
                Ok(reply) => propose_reply::Outcome::Committed(wire::Committed { reply, index }),
                Err(error) => {
                    propose_reply::Outcome::Unknown(format!("the reply cannot be encoded: {error}"))
                }
            },
            Err(ProposeError::NotLeader { leader }) => {
                propose_reply::Outcome::NotLeader(wire::Elsewhere { leader })
            }
            Err(ProposeError::Busy { in_flight_max }) => propose_reply::Outcome::Busy(in_flight_max as u64),
            Err(ProposeError::OutcomeUnknown(why)) => propose_reply::Outcome::Unknown(why),
            Err(ProposeError::TooLarge { bytes, bytes_max }) => {
                let (bytes, bytes_max) = (bytes as u64, bytes_max as u64);
                propose_reply::Outcome::TooLarge(wire::TooLarge { bytes, bytes_max })
            }
            Err(ProposeError::StorageFull { free }) => propose_reply::Outcome::StorageFull(free),
            Err(ProposeError::Stopped(why)) => propose_reply::Outcome::Stopped(why),
        };
        Ok(Response::new(wire::ProposeReply { outcome: Some(outcome) }))
    }
}

/// The requests of a stream up to the first that may not pass; why is left in `refused`.
fn admitted(
    door: Arc<Door>,
    caller: Option<ReplicaId>,
    incoming: Streaming<wire::AppendRequest>,
    refused: Arc<Mutex<Option<Status>>>,
) -> Pin<Box<dyn Stream<Item = AppendEntriesRequest<Types>> + Send>> {
    let admit = move |message: Result<wire::AppendRequest, Status>| {
        let message = message?;
        let header = message.header;
        let request = convert::append_of(message)?;
        door.admit_author(caller, header, &request.vote)?;
        door.heard.from(request.vote.leader_id.voted_for);
        Ok(request)
    };
    let taken = incoming.map(admit).map(move |request| {
        request.map_err(|status| *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(status)).ok()
    });
    Box::pin(taken.take_while(|request| std::future::ready(request.is_some())).filter_map(std::future::ready))
}

fn stopped(fatal: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this replica has stopped: {fatal}"))
}
