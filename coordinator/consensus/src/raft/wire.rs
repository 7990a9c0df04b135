//! openraft's messages as ours, and back. The wire is explicit protobuf (`raft.proto`), so that a change of library changes
//! this file and not what releases say to one another.
//!
//! What comes in is checked here for form: a field that must be there is, and a command decodes. Whether the sender may say it
//! is `door.rs`. The version of a message is that of the cluster, as its sender knows it: a field that is added needs no new one,
//! and after a change of meaning the former is read and written until the whole group has been updated.

use std::collections::{BTreeMap, BTreeSet};

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{EntryPayload, Membership};
use proto::raft as wire;
use proto::raft::append_reply::Outcome;
use proto::raft::entry::Payload;
use tonic::Status;

use crate::options::ReplicaId;
use crate::raft::types::{Entry, LogId, Member, Proposal, SnapshotMeta, StoredMembership, Types, Vote};

/// A message that lacks something or cannot be decoded.
pub(crate) fn malformed(what: &str) -> Status {
    Status::invalid_argument(format!("a message between coordinators is malformed: {what}"))
}

pub(crate) fn ballot(vote: &Vote) -> wire::Ballot {
    wire::Ballot { term: vote.leader_id.term, replica: vote.leader_id.voted_for.0, committed: vote.committed }
}

pub(crate) fn vote(ballot: Option<wire::Ballot>) -> Result<Vote, Status> {
    let ballot = ballot.ok_or_else(|| malformed("no ballot"))?;
    let replica = ReplicaId(ballot.replica);
    let vote = Vote::new(ballot.term, replica);
    Ok(if ballot.committed { Vote::new_committed(ballot.term, replica) } else { vote })
}

pub(crate) fn id(log_id: &LogId) -> wire::LogId {
    wire::LogId { term: log_id.leader_id.term, index: log_id.index }
}

pub(crate) fn log_id(id: &wire::LogId) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(id.term), index: id.index }
}

fn entry(entry: &Entry) -> Result<wire::Entry, serde_json::Error> {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(wire::Blank {}),
        EntryPayload::Normal(proposal) => Payload::Command(serde_json::to_vec(&proposal.0)?),
        EntryPayload::Membership(membership) => Payload::Membership(members(membership)),
    };
    Ok(wire::Entry { id: Some(id(&entry.log_id)), payload: Some(payload) })
}

fn entry_of(entry: wire::Entry) -> Result<Entry, Status> {
    let id = entry.id.ok_or_else(|| malformed("an entry without an id"))?;
    let payload = match entry.payload.ok_or_else(|| malformed("an entry without a payload"))? {
        Payload::Blank(wire::Blank {}) => EntryPayload::Blank,
        Payload::Command(json) => EntryPayload::Normal(Proposal(command(&json)?)),
        Payload::Membership(membership) => EntryPayload::Membership(membership_of(membership)?),
    };
    Ok(Entry { log_id: log_id(&id), payload })
}

/// A registry command. What serde stumbled over may be a secret, so only the place is said.
pub(crate) fn command(json: &[u8]) -> Result<registry::Command, Status> {
    serde_json::from_slice(json).map_err(|error| {
        malformed(&format!("a command this release does not know (column {}); upgrade it", error.column()))
    })
}

pub(crate) fn members(membership: &Membership<ReplicaId, Member>) -> wire::Membership {
    let voters = |set: &BTreeSet<ReplicaId>| wire::Voters { replicas: set.iter().map(|id| id.0).collect() };
    let member =
        |(id, member): (&ReplicaId, &Member)| wire::Member { replica: id.0, address: member.address.clone() };
    wire::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        members: membership.nodes().map(member).collect(),
    }
}

pub(crate) fn membership_of(from: wire::Membership) -> Result<Membership<ReplicaId, Member>, Status> {
    let configs = from.configs.into_iter();
    let configs = configs.map(|set| set.replicas.into_iter().map(ReplicaId).collect::<BTreeSet<_>>());
    let members = from.members.into_iter();
    let members = members.map(|member| (ReplicaId(member.replica), Member { address: member.address }));
    Membership::new(configs.collect(), members.collect::<BTreeMap<_, _>>())
        .map_err(|error| malformed(&error.to_string()))
}

pub(crate) fn append(
    header: wire::Header,
    request: &AppendEntriesRequest<Types>,
) -> Result<wire::AppendRequest, serde_json::Error> {
    Ok(wire::AppendRequest {
        header: Some(header),
        leader: Some(ballot(&request.vote)),
        previous: request.prev_log_id.as_ref().map(id),
        entries: request.entries.iter().map(entry).collect::<Result<_, _>>()?,
        committed: request.leader_commit.as_ref().map(id),
    })
}

pub(crate) fn append_of(request: wire::AppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    Ok(AppendEntriesRequest {
        vote: vote(request.leader)?,
        prev_log_id: request.previous.as_ref().map(log_id),
        entries: request.entries.into_iter().map(entry_of).collect::<Result<_, _>>()?,
        leader_commit: request.committed.as_ref().map(log_id),
    })
}

pub(crate) fn append_reply(result: &StreamAppendResult<Types>) -> wire::AppendReply {
    let outcome = match result {
        Ok(matched) => Outcome::Matched(wire::Matched { id: matched.as_ref().map(id) }),
        Err(StreamAppendError::Conflict(at)) => Outcome::Conflict(id(at)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::Higher(ballot(vote)),
    };
    wire::AppendReply { outcome: Some(outcome) }
}

pub(crate) fn append_reply_of(reply: wire::AppendReply) -> Result<StreamAppendResult<Types>, Status> {
    Ok(match reply.outcome.ok_or_else(|| malformed("a reply without an outcome"))? {
        Outcome::Matched(matched) => Ok(matched.id.as_ref().map(log_id)),
        Outcome::Conflict(at) => Err(StreamAppendError::Conflict(log_id(&at))),
        Outcome::Higher(higher) => Err(StreamAppendError::HigherVote(vote(Some(higher))?)),
    })
}

pub(crate) fn ask(header: wire::Header, request: &VoteRequest<Types>, pre_vote: bool) -> wire::VoteRequest {
    wire::VoteRequest {
        header: Some(header),
        candidate: Some(ballot(&request.vote)),
        last: request.last_log_id.as_ref().map(id),
        pre_vote,
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn ask_of(request: wire::VoteRequest) -> Result<VoteRequest<Types>, Status> {
    let mut asked = VoteRequest::new(vote(request.candidate)?, request.last.as_ref().map(log_id));
    asked.leadership_transfer = request.leadership_transfer;
    Ok(asked)
}

pub(crate) fn answer(response: &VoteResponse<Types>) -> wire::VoteReply {
    wire::VoteReply {
        ballot: Some(ballot(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(id),
    }
}

pub(crate) fn answer_of(reply: wire::VoteReply) -> Result<VoteResponse<Types>, Status> {
    Ok(VoteResponse::new(vote(reply.ballot)?, reply.last.as_ref().map(log_id), reply.granted))
}

/// What a snapshot covers.
pub(crate) fn meta_of(head: wire::SnapshotHead) -> Result<SnapshotMeta, Status> {
    let membership = membership_of(head.membership.ok_or_else(|| malformed("no membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: head.last.as_ref().map(log_id),
        last_membership: StoredMembership::new(head.membership_id.as_ref().map(log_id), membership),
    })
}
