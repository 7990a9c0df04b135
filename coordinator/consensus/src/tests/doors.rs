//! Who is let in: wrong versions, wrong addresses, impostors and other epochs, asked over real connections.

use proto::raft as wire;
use proto::raft::replica_client::ReplicaClient;
use tonic::transport::Channel;
use tonic::{Code, Extensions, Status};

use super::group::{Group, address};
use crate::options::ReplicaId;

/// A connection that belongs to replica 2, to replica 1 of a group of three.
async fn caller_2(group: &Group) -> ReplicaClient<Channel> {
    let dial = group.net.dialler(2).dial(ReplicaId(1), &address(1));
    ReplicaClient::new(dial.await.unwrap())
}

fn header() -> wire::Header {
    wire::Header { wire_version: 1, from: 2, to: 1, epoch: 0, speaks: 0 }
}

fn ask(header: wire::Header, candidate: u64) -> wire::VoteRequest {
    let candidate = Some(wire::Ballot { term: 99, replica: candidate, committed: false });
    wire::VoteRequest {
        header: Some(header),
        candidate,
        last: None,
        pre_vote: true,
        leadership_transfer: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_another_version_address_sender_or_epoch_is_refused_with_the_reason() {
    let group = Group::of(3).await;
    let mut client = caller_2(&group).await;
    let whole = client.vote(ask(header(), 2)).await.unwrap().into_inner();
    assert!(!whole.granted, "the leader is alive");
    for (message, code, words) in [
        (
            ask(wire::Header { wire_version: 9, from: 3, ..header() }, 2),
            Code::FailedPrecondition,
            "speaks version 9",
        ),
        (ask(wire::Header { wire_version: 0, ..header() }, 2), Code::FailedPrecondition, "speaks version 0"),
        (ask(wire::Header { to: 3, ..header() }, 2), Code::FailedPrecondition, "this is replica 1"),
        (
            ask(wire::Header { from: 3, ..header() }, 3),
            Code::PermissionDenied,
            "replica 2 may not speak for replica 3",
        ),
        (ask(header(), 3), Code::PermissionDenied, "replica 2 may not speak for replica 3"),
        (ask(wire::Header { epoch: 1, ..header() }, 2), Code::FailedPrecondition, "epoch"),
        (wire::VoteRequest { header: None, ..ask(header(), 2) }, Code::InvalidArgument, "no header"),
    ] {
        let refused = client.vote(message).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_is_refused_on_every_call_and_changes_nothing() {
    let group = Group::of(3).await;
    let term = group.on(1).health().term;
    let last = group.on(1).health().last_log_index;
    let mut client = caller_2(&group).await;
    let (lie, forged) = (
        Some(wire::Header { from: 3, ..header() }),
        Some(wire::Ballot { term: 99, replica: 3, committed: true }),
    );
    let append = wire::AppendRequest { header: lie, leader: forged, ..Default::default() };
    let append =
        client.append(futures_util::stream::iter([append])).await.unwrap().into_inner().message().await;
    let head = wire::SnapshotHead { header: lie, leader: forged, ..Default::default() };
    let head = wire::SnapshotChunk { part: Some(wire::snapshot_chunk::Part::Head(head)) };
    let transfer = wire::TransferLeaderRequest { header: lie, leader: forged, next: 3, last: None };
    let refusals: [Status; 6] = [
        append.unwrap_err(),
        client.vote(ask(wire::Header { from: 3, ..header() }, 3)).await.unwrap_err(),
        client.snapshot(futures_util::stream::iter([head])).await.unwrap_err(),
        client.transfer_leader(transfer).await.unwrap_err(),
        client.read_index(wire::ReadIndexRequest { header: lie }).await.unwrap_err(),
        client.propose(wire::ProposeRequest { header: lie, command: Vec::new() }).await.unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
    }
    // A true header around somebody else's ballot is no better.
    let append = wire::AppendRequest { header: Some(header()), leader: forged, ..Default::default() };
    let reply =
        client.append(futures_util::stream::iter([append])).await.unwrap().into_inner().message().await;
    assert_eq!(reply.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!((group.on(1).health().term, group.on(1).health().last_log_index), (term, last));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_nobody_known_is_refused() {
    fn nobody(_: &Extensions) -> Option<ReplicaId> {
        None
    }
    let group = Group::found().await;
    let server = group.net.serve_as(group.on(1), "elsewhere", nobody).await;
    let dial = group.net.dialler(2).dial(ReplicaId(1), "elsewhere");
    let refused = ReplicaClient::new(dial.await.unwrap()).vote(ask(header(), 2)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    server.abort();
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_too_large_or_unknown_is_refused_by_the_leader_and_stops_nothing() {
    let group = Group::found().await;
    let mut client = caller_2(&group).await;
    let large = vec![b' '; crate::limits::COMMAND_BYTES_MAX + 1];
    let reply =
        client.propose(wire::ProposeRequest { header: Some(header()), command: large }).await.unwrap();
    let outcome = reply.into_inner().outcome;
    assert!(matches!(outcome, Some(wire::propose_reply::Outcome::TooLarge(_))), "{outcome:?}");
    let unknown = br#"{"split_cluster":{}}"#.to_vec();
    let refused = client.propose(wire::ProposeRequest { header: Some(header()), command: unknown }).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(group.on(1).health().fatal, None);
    group.shutdown().await;
}
