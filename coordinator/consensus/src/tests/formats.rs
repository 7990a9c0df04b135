//! What is on disk and on the wire, to the byte: the present form, and that what release 0.1 wrote still opens.
//!
//! `golden/0.1` is a folder of that release: a founded cluster, a snapshot, a restart, and commands behind each. Nothing writes
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use openraft::entry::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, VoteRequest, VoteResponse};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{Entry, Membership};
use prost::Message as _;
use proto::raft as wire;
use registry::{Command, NodeId};

use super::sim_disk::SimDisk;
use crate::handle::Consensus;
use crate::members::Role;
use crate::options::{Options, ReplicaId, Start};
use crate::raft::types::{LogId, Member, Proposal, SnapshotMeta, StoredMembership, Types, Vote};
use crate::raft::wire as convert;
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;

const FILES_0_1: [(&str, &[u8]); 4] = [
    ("log-000000000001", include_bytes!("golden/0.1/log-000000000001")),
    ("mark", include_bytes!("golden/0.1/mark")),
    ("snapshot", include_bytes!("golden/0.1/snapshot")),
    ("vote", include_bytes!("golden/0.1/vote")),
];

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

fn membership() -> Membership<ReplicaId, Member> {
    let sets = vec![BTreeSet::from([ReplicaId(1)]), BTreeSet::from([ReplicaId(1), ReplicaId(2)])];
    let member = |address: &str| Member { address: address.to_owned() };
    let members =
        [(ReplicaId(1), member("one:1")), (ReplicaId(2), member("two:1")), (ReplicaId(3), member(""))];
    Membership::new(sets, BTreeMap::from(members)).unwrap()
}

/// One entry of each kind.
fn entries() -> Vec<openraft::type_config::alias::EntryOf<Types>> {
    let command = Command::RevokeNode { node: NodeId(4) };
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Proposal(command)),
        EntryPayload::Membership(membership()),
    ];
    (7..).zip(payloads).map(|(index, payload)| Entry { log_id: id(3, index), payload }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_release_0_1_opens_with_all_its_facts_and_goes_on() {
    let disk = SimDisk::default();
    for (name, bytes) in FILES_0_1 {
        let mut file = disk.create(name).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
    }
    let (folder, released) = Folder::on(Arc::new(disk));
    let replica = Consensus::open_in(folder, released, Options::default(), Start::Found).await.unwrap();
    let registry = replica.local();
    assert_eq!(registry.cluster().unwrap().id.0, "room");
    assert_eq!(registry.node(NodeId(1)).unwrap().name, "mini");
    assert_eq!(registry.wanted_on(NodeId(1)).count(), 1);
    assert_eq!((registry.epoch(), registry.last_voter_change()), (0, 0));
    let members = replica.members();
    assert_eq!((members.len(), members[0].role, members[0].address.as_str()), (1, Role::Voter, ""));
    replica.propose(Command::RevokeNode { node: NodeId(1) }).await.unwrap();
    replica.shutdown().await.unwrap();
}

#[test]
fn entries_votes_and_snapshot_heads_have_the_form_that_is_on_disk() {
    let shown: Vec<_> = entries().iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
    assert_eq!(
        shown,
        [
            r#"{"log_id":{"leader_id":3,"index":7},"payload":"Blank"}"#,
            r#"{"log_id":{"leader_id":3,"index":8},"payload":{"Normal":{"revoke_node":{"node":4}}}}"#,
            r#"{"log_id":{"leader_id":3,"index":9},"payload":{"Membership":{"configs":[[1],[1,2]],"nodes":{"1":{"address":"one:1"},"2":{"address":"two:1"},"3":{"address":""}}}}}"#,
        ]
    );
    let vote = serde_json::to_string(&Vote::new_committed(3, ReplicaId(2))).unwrap();
    assert_eq!(vote, r#"{"leader_id":{"term":3,"voted_for":2},"committed":true}"#);
    let last_membership = StoredMembership::new(Some(id(3, 9)), membership());
    let meta = SnapshotMeta { last_log_id: Some(id(3, 9)), last_membership };
    assert_eq!(
        serde_json::to_string(&meta).unwrap(),
        r#"{"last_log_id":{"leader_id":3,"index":9},"last_membership":{"log_id":{"leader_id":3,"index":9},"membership":{"configs":[[1],[1,2]],"nodes":{"1":{"address":"one:1"},"2":{"address":"two:1"},"3":{"address":""}}}},"snapshot_id":""}"#
    );
}

#[test]
fn a_member_without_an_address_is_still_read() {
    let read: Member = serde_json::from_str("{}").unwrap();
    assert_eq!(read, Member::default());
}

fn header() -> wire::Header {
    // As a release says it that knows of no other version.
    wire::Header { wire_version: 1, from: 2, to: 3, epoch: 1, speaks: 0 }
}

fn append() -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: Vote::new_committed(3, ReplicaId(2)),
        prev_log_id: Some(id(2, 6)),
        entries: entries(),
        leader_commit: Some(id(2, 5)),
    }
}

fn hex(message: &impl prost::Message) -> String {
    message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of version 1, which other releases send and expect: they may gain fields, and a file of their own with a new version.
/// `UPDATE=1` writes them.
#[test]
fn messages_have_the_form_that_is_on_the_wire() {
    let request = convert::append(header(), &append()).unwrap();
    let vote = VoteRequest::<Types>::new(Vote::new(4, ReplicaId(2)), Some(id(3, 9)));
    let answer = VoteResponse::<Types>::new(Vote::new(4, ReplicaId(2)), Some(id(3, 8)), true);
    let replies: Vec<_> = [
        Ok(Some(id(3, 9))),
        Ok(None),
        Err(StreamAppendError::Conflict(id(2, 6))),
        Err(StreamAppendError::HigherVote(Vote::new(9, ReplicaId(1)))),
    ]
    .iter()
    .map(|reply| hex(&convert::append_reply(reply)))
    .collect();
    let found = [
        hex(&request),
        hex(&convert::ask(header(), &vote, true)),
        hex(&convert::answer(&answer)),
        replies.join(" "),
    ];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/wire-1.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, found.join("\n")).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap();
    assert_eq!(kept.lines().collect::<Vec<_>>(), found);
}

/// The same of version 2, in which each message says what its sender speaks.
#[test]
fn messages_of_the_second_version_have_the_form_that_is_on_the_wire() {
    let header = wire::Header { wire_version: 2, speaks: 2, ..header() };
    let vote = VoteRequest::<Types>::new(Vote::new(4, ReplicaId(2)), Some(id(3, 9)));
    let found = [hex(&convert::append(header, &append()).unwrap()), hex(&convert::ask(header, &vote, true))];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/wire-2.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, found.join("\n")).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap();
    assert_eq!(kept.lines().collect::<Vec<_>>(), found);
}

#[test]
fn a_message_of_a_newer_release_that_only_gained_fields_is_read() {
    let request = convert::append(header(), &append()).unwrap();
    // Field 100, text.
    let newer = [request.encode_to_vec(), vec![0xa2, 0x06, 0x03, b'n', b'e', b'w']].concat();
    assert_eq!(wire::AppendRequest::decode(newer.as_slice()).unwrap(), request);
}

#[test]
fn what_is_sent_is_what_arrives() {
    let sent = append();
    let arrived = convert::append_of(convert::append(header(), &sent).unwrap()).unwrap();
    assert_eq!(arrived.entries.len(), 3);
    for (sent, arrived) in sent.entries.iter().zip(&arrived.entries) {
        assert_eq!(serde_json::to_string(sent).unwrap(), serde_json::to_string(arrived).unwrap());
    }
    assert_eq!(
        (arrived.vote, arrived.prev_log_id, arrived.leader_commit),
        (sent.vote, sent.prev_log_id, sent.leader_commit)
    );
    let mut wished = VoteRequest::<Types>::new(Vote::new(4, ReplicaId(2)), None);
    wished.leadership_transfer = true;
    assert_eq!(convert::ask_of(convert::ask(header(), &wished, false)).unwrap(), wished);
    for reply in [
        Ok(Some(id(3, 9))),
        Ok(None),
        Err(StreamAppendError::Conflict(id(2, 6))),
        Err(StreamAppendError::HigherVote(Vote::new(9, ReplicaId(1)))),
    ] {
        assert_eq!(convert::append_reply_of(convert::append_reply(&reply)).unwrap(), reply);
    }
}

#[test]
fn a_message_that_lacks_what_it_must_have_is_refused_and_repeats_no_secret() {
    let whole = convert::append(header(), &append()).unwrap();
    let without_leader = wire::AppendRequest { leader: None, ..whole.clone() };
    let mut without_payload = whole.clone();
    without_payload.entries[0].payload = None;
    let mut without_id = whole.clone();
    without_id.entries[0].id = None;
    let mut garbled = whole.clone();
    garbled.entries[1].payload = Some(wire::entry::Payload::Command(br#"{"canary":"#.to_vec()));
    for broken in [without_leader, without_payload, without_id, garbled] {
        let refused = convert::append_of(broken).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(!refused.message().contains("canary"), "{refused}");
    }
    assert!(convert::append_reply_of(wire::AppendReply { outcome: None }).is_err());
    let nobody = wire::Membership { configs: vec![wire::Voters { replicas: vec![9] }], members: Vec::new() };
    assert!(convert::membership_of(nobody).is_err(), "a voter that is no member");
}
