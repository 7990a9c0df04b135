//! How a group grows and shrinks, while commands flow: real replicas, real gRPC on loopback, one process.
//!
//! Owns the ways of membership that an operator takes. Refuses timing: it waits for what must come.

use openraft::raft::AppendEntriesRequest;
use openraft::vote::leader_id_std::CommittedLeaderId;
use registry::Registry;
use tokio::time::timeout;

use super::commands::{get, set};
use super::group::{Group, PATIENCE, address};
use super::sim_disk::SimDisk;
use crate::change_error::ChangeError;
use crate::changing::Even;
use crate::members::Role;
use crate::options::{ReplicaId, Start};
use crate::raft::types::{LogId, Vote};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_grows_to_three_and_every_replica_holds_the_same_facts() {
    let mut group = Group::found().await;
    group.on(1).propose(set(0, 7)).await.unwrap();
    for id in [2, 3] {
        group.start(id, SimDisk::default(), Start::Join).await;
        let mut heard = Vec::new();
        group.on(1).add(ReplicaId(id), &address(id), |progress| heard.push(progress)).await.unwrap();
        assert!(heard.last().is_some_and(|last| last.matched_index.is_some()), "{heard:?}");
    }
    let roles: Vec<_> = group.on(1).members().iter().map(|member| (member.replica.0, member.role)).collect();
    assert_eq!(roles, [(1, Role::Voter), (2, Role::Learner), (3, Role::Learner)]);
    group.on(1).promote(&[ReplicaId(2), ReplicaId(3)], Even::Refuse).await.unwrap();
    group.settled().await;
    for id in [1, 2, 3] {
        let mut leadership = group.on(id).leadership();
        let known = leadership.wait_for(|now| now.leader == Some(ReplicaId(1)));
        timeout(PATIENCE, known).await.unwrap().unwrap();
        let members = group.on(id).members();
        assert!(
            members
                .iter()
                .all(|member| member.role == Role::Voter && member.leader == (member.replica.0 == 1))
        );
        let addresses: Vec<_> = members.iter().map(|member| member.address.clone()).collect();
        assert_eq!(addresses, [address(1), address(2), address(3)]);
        assert_eq!(get(&group.on(id).local(), 0), Some(7));
    }
    assert_eq!(group.on(1).local().voter_change(), None);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_dies_after_the_first_word_of_a_leader_starts_again_and_belongs() {
    let mut group = Group::found().await;
    group.on(1).propose(set(0, 7)).await.unwrap();
    group.start(2, SimDisk::default(), Start::Join).await;
    // The leader supposes that it has entries already: it has none, but knows the leader's term from now on.
    let term = group.on(1).leadership().borrow().term;
    let word = AppendEntriesRequest {
        vote: Vote::new_committed(term, ReplicaId(1)),
        prev_log_id: Some(LogId { leader_id: CommittedLeaderId::new(term), index: 1 }),
        entries: Vec::new(),
        leader_commit: None,
    };
    let said = group.on(2).replica.raft.append_entries(word).await.unwrap();
    assert!(said.is_conflict(), "{said:?}");
    let disk = group.kill(2).await;
    group.start(2, disk, Start::Join).await;
    group.on(1).add(ReplicaId(2), &address(2), |_| {}).await.unwrap();
    group.settled().await;
    assert_eq!(get(&group.on(2).local(), 0), Some(7));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_reads_work_on_every_replica() {
    let group = Group::of(3).await;
    for id in [1, 2, 3] {
        let reply = group.on(id).propose(set(id, id * 10)).await.unwrap();
        assert_eq!(reply, registry::Reply::Done);
        assert_eq!(
            get(&group.on(id).local(), id),
            Some(id * 10),
            "the proposer finds the effect of its command"
        );
        for reader in [1, 2, 3] {
            let seen = group.on(reader).read(|registry| get(registry, id)).await.unwrap();
            assert_eq!(seen, Some(id * 10), "what was answered on {id} is read on {reader}");
        }
    }
    assert_eq!(group.on(2).read(Registry::clone).await.unwrap(), group.settled().await);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_another_leads_and_nothing_answered_is_lost() {
    let mut group = Group::of(3).await;
    group.on(2).propose(set(1, 11)).await.unwrap();
    let term = group.on(1).barrier().await.unwrap();
    let disk = group.kill(1).await;
    let leader = group.leader().await;
    let leadership = group.on(leader).leadership().borrow().clone();
    assert!(leadership.term > term && leadership.is_self && leadership.address == Some(address(leader)));
    for id in [2, 3] {
        assert_eq!(group.on(id).read(|registry| get(registry, 1)).await.unwrap(), Some(11));
        group.on(id).propose(set(id, id)).await.unwrap();
    }
    group.start(1, disk, Start::Found).await;
    let facts = group.settled().await;
    assert_eq!((get(&facts, 2), get(&facts, 3)), (Some(2), Some(3)));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_changes_the_group_and_an_even_group_has_to_be_asked_for() {
    let mut group = Group::of(3).await;
    let error = group.on(2).remove(&[ReplicaId(3)], Even::Refuse).await.unwrap_err();
    assert_eq!(error, ChangeError::NotLeader { leader: Some(1) });
    let error = group.on(1).remove(&[ReplicaId(3)], Even::Refuse).await.unwrap_err();
    assert_eq!(error, ChangeError::Even { voters: 2 });
    group.join(4).await;
    let error = group.on(1).promote(&[ReplicaId(4)], Even::Refuse).await.unwrap_err();
    assert_eq!(error, ChangeError::Even { voters: 4 });
    let error = group.on(1).remove(&[ReplicaId(9)], Even::Allow).await.unwrap_err();
    assert_eq!(error, ChangeError::NotAMember { replica: ReplicaId(9) });
    group.on(1).promote(&[ReplicaId(4)], Even::Allow).await.unwrap();
    group.settled().await;
    assert_eq!(group.on(1).members().len(), 4);
    group.shutdown().await;
}
