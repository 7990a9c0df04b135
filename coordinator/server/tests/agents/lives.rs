//! Other lives of the facts: whose numbers and certificates count in which, and folders with which none can begin.

use std::path::Path;

use consensus::{Consensus, Options, ReplicaId, Start};
use proto::standing;
use proto::token::JoinToken;
use proto::v1::{EnlistRequest, FetchSealKeyRequest};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{Member, Room, config, hello, session};

/// A copy of a stopped coordinator's folder.
fn copied(home: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("scratch");
    copy_into(home, copy.path());
    copy
}

fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("made");
            copy_into(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

async fn member(room: &Room, token: &JoinToken) -> Member {
    room.join(token).await.expect("joins")
}

/// How the coordinator refuses the agent's session; `None`: it does not.
async fn refusal(room: &Room, agent: &Member) -> Option<tonic::Status> {
    let mut client = room.client(&agent.reply.ca_certificate_pem, Some(agent)).await;
    session(&mut client, hello(&[])).await.err()
}

#[tokio::test]
async fn who_joined_after_the_copy_was_made_is_told_so_and_its_number_is_given_to_nobody() {
    let room = Room::open().await;
    let known = member(&room, &room.ready.join_token).await;
    let home = room.close().await;
    let copy = copied(home.path());
    let room = Room::at(home).await;
    let lost = member(&room, &room.ready.join_token).await;
    room.close().await;

    server::force(copy.path(), "").await.expect("another life");
    let room = Room::at(copy).await;
    let next = member(&room, &room.ready.join_token).await;
    assert!(next.reply.node > lost.reply.node, "{} after {}", next.reply.node, lost.reply.node);
    assert!(refusal(&room, &known).await.is_none() && refusal(&room, &next).await.is_none());
    let refused = refusal(&room, &lost).await.expect("it is no member");
    assert!(standing::is_revoked(&refused), "{refused}");
    room.close().await;
}

#[tokio::test]
async fn a_number_that_two_lives_gave_admits_only_the_key_and_the_role_of_this_one() {
    let room = Room::open().await;
    let home = room.close().await;
    let (one, two) = loop {
        // Of one second, so that both go on with the same numbers: there is no other way to that.
        let (one, two) = (copied(home.path()), copied(home.path()));
        let former = server::force(one.path(), "").await.expect("a life");
        let this = server::force(two.path(), "").await.expect("another life");
        if former / 1_000 == this / 1_000 {
            break (one, two);
        }
    };
    let room = Room::at(one).await;
    let (agent, coordinator) = (room.ready.join_token.clone(), room.coordinators_token());
    let mut former = Vec::new();
    for token in [&agent, &agent, &coordinator] {
        former.push(member(&room, token).await);
    }
    room.close().await;

    let room = Room::at(two).await;
    let mut present = Vec::new();
    for token in [&agent, &coordinator, &agent] {
        present.push(member(&room, token).await);
    }
    let numbers = |members: &[Member]| members.iter().map(|member| member.reply.node).collect::<Vec<_>>();
    assert_eq!(numbers(&former), numbers(&present));
    assert!(refusal(&room, &present[0]).await.is_none());
    // The first has another key, the second another role.
    for agent in &former[..2] {
        let refused = refusal(&room, agent).await.expect("it is no member");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("given to another machine"), "{refused}");
    }
    let stranger = &former[2];
    let mut client = room.client(&stranger.reply.ca_certificate_pem, Some(stranger)).await;
    let refused = client.fetch_seal_key(FetchSealKeyRequest {}).await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    room.close().await;
}

#[tokio::test]
async fn a_coordinator_whose_facts_are_of_a_former_life_is_told_so_for_good() {
    let room = Room::open().await;
    let coordinator = member(&room, &room.coordinators_token()).await;
    let home = room.close().await;
    let epoch = server::force(home.path(), "").await.expect("another life");
    let room = Room::at(home).await;
    let mut client = room.client(&coordinator.reply.ca_certificate_pem, Some(&coordinator)).await;
    let mut refused = Vec::new();
    for epoch in [0, epoch + 1] {
        let (address, replica) = ("127.0.0.1:1".to_owned(), coordinator.reply.node + 1);
        let speaks = Some(server::NEWEST_VERSION);
        let request = EnlistRequest { address, replica, speaks, epoch: Some(epoch) };
        refused.push(client.enlist(request).await.expect_err("refused"));
    }
    assert!(standing::is_former(&refused[0]), "{:?}", refused[0]);
    assert!(refused[0].message().contains("--join"), "{}", refused[0]);
    assert!(!standing::is_former(&refused[1]), "{:?}", refused[1]);
    room.close().await;
}

#[tokio::test]
async fn who_has_not_finished_joining_a_cluster_founds_none() {
    let home = tempfile::tempdir().expect("scratch");
    let options = Options { replica: ReplicaId(3), ..Options::default() };
    let begun = Consensus::open(&home.path().join("registry"), options, Start::Join).await.expect("begun");
    begun.shutdown().await.expect("closed");
    let (sender, ready) = oneshot::channel();
    let stop = CancellationToken::new();
    let running = tokio::spawn(server::run(config(home.path()), sender, stop.clone()));
    assert!(ready.await.is_err(), "it founded a cluster");
    let error = running.await.expect("no panic").expect_err("it did not start");
    let words = format!("{error:#}");
    assert!(words.contains("--join again") && words.contains("delete the folder"), "{words}");
}
