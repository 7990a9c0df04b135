//! Changes of the group that meet trouble: a leader that goes in the middle, an id that comes back, a member that is silent.

use std::collections::BTreeSet;

use registry::{Command, Refusal, Reply, VoterChange};
use tokio::time::timeout;

use super::clock;
use super::commands::{get, set};
use super::group::{Group, PATIENCE, Settings, address};
use super::sim_disk::SimDisk;
use crate::change_error::ChangeError;
use crate::changing::Even;
use crate::limits;
use crate::members::Role;
use crate::options::{ReplicaId, Start};

/// A change that an earlier leader wrote down and did not carry out.
async fn begin(group: &Group, promote: &[u64], remove: &[u64]) {
    let ids = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
    let number = group.on(1).local().last_voter_change() + 1;
    let (promote, remove) = (ids(promote), ids(remove));
    let change = VoterChange { number, promote, remove, by: 1, ..VoterChange::default() };
    let locked = group.on(1).propose(Command::LockVoters { change }).await.unwrap();
    assert_eq!(locked, Reply::Done);
}

/// Waits until no change is under way, as replica `id` sees it.
async fn unlocked(group: &Group, id: u64) {
    let mut changes = group.on(id).changes();
    let unlocked = changes.wait_for(|registry| registry.voter_change().is_none());
    timeout(PATIENCE, unlocked).await.expect("the change was never completed").unwrap();
}

fn voters(group: &Group, id: u64) -> Vec<u64> {
    let members = group.on(id).members();
    members.iter().filter(|member| member.role == Role::Voter).map(|member| member.replica.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_completes_a_change_that_was_begun_and_not_carried_out() {
    let mut group = Group::of(3).await;
    group.join(4).await;
    group.join(5).await;
    begin(&group, &[4, 5], &[]).await;
    group.kill(1).await;
    let leader = group.leader().await;
    unlocked(&group, leader).await;
    assert_eq!(voters(&group, leader), [1, 2, 3, 4, 5]);
    group.settled().await;
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_completes_a_change_that_was_carried_out_and_not_ended() {
    let group = Group::of(3).await;
    // As `remove` does it, up to the moment at which the leader would end it.
    begin(&group, &[], &[3]).await;
    let removal = openraft::ChangeMembers::RemoveVoters(BTreeSet::from([ReplicaId(3)]));
    group.on(1).replica.raft.change_membership(removal, false).await.unwrap();
    group.on(1).transfer(ReplicaId(2)).await.unwrap();
    unlocked(&group, 2).await;
    assert_eq!(voters(&group, 2), [1, 2]);
    assert!(group.on(2).local().is_replica_removed(3));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_change_is_under_way_every_other_is_refused() {
    let mut group = Group::of(3).await;
    group.join(4).await;
    begin(&group, &[4], &[]).await;
    let error = group.on(1).remove(&[ReplicaId(2)], Even::Allow).await.unwrap_err();
    let number = group.on(1).local().last_voter_change();
    assert_eq!(error, ChangeError::Refused(Refusal::VotersLocked { number, by: 1 }));
    assert!(error.to_string().contains("still under way"), "{error}");
    assert_eq!(voters(&group, 1), [1, 2, 3]);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_leaves_a_group_that_goes_on() {
    let mut group = Group::of(3).await;
    group.join(4).await;
    group.on(1).replace(ReplicaId(1), ReplicaId(4)).await.unwrap();
    let leader = group.leader_among(&[2, 3, 4]).await;
    unlocked(&group, leader).await;
    assert_eq!(voters(&group, leader), [2, 3, 4]);
    group.on(leader).propose(set(1, 5)).await.unwrap();
    // The removed one leads nobody, and raises no term while it waits for a way back.
    let mut leadership = group.on(1).leadership();
    timeout(PATIENCE, leadership.wait_for(|leadership| !leadership.is_self)).await.unwrap().unwrap();
    let term = group.on(leader).health().term;
    group.kill(1).await;
    assert_eq!(get(&group.settled().await, 1), Some(5));
    assert_eq!(group.on(leader).health().term, term);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_was_removed_is_never_taken_back() {
    let mut group = Group::of(3).await;
    group.join(4).await;
    group.on(1).replace(ReplicaId(3), ReplicaId(4)).await.unwrap();
    group.kill(3).await;
    group.start(3, SimDisk::default(), Start::Join).await;
    let error = group.on(1).add(ReplicaId(3), &address(3), |_| {}).await.unwrap_err();
    assert_eq!(error, ChangeError::Refused(Refusal::ReplicaRemoved { replica: 3 }));
    assert!(error.to_string().contains("its id is never used again"), "{error}");
    assert_eq!(voters(&group, 1), [1, 2, 4]);
    // A learner's id is spent as well.
    group.kill(3).await;
    group.join(5).await;
    group.on(1).remove(&[ReplicaId(5)], Even::Refuse).await.unwrap();
    let error = group.on(1).add(ReplicaId(5), &address(5), |_| {}).await.unwrap_err();
    assert_eq!(error, ChangeError::Refused(Refusal::ReplicaRemoved { replica: 5 }));
    group.kill(5).await;
    group.settled().await;
    group.shutdown().await;
}

/// Waits until the last word of a dead member is old.
async fn forgotten(group: &Group, id: u64) {
    let fresh = || {
        let members = group.on(1).members();
        let member = members.into_iter().find(|member| member.replica.0 == id);
        member.and_then(|member| member.last_contact).is_some_and(|since| since <= limits::CONTACT_MAX)
    };
    let forgotten = async {
        while fresh() {
            group.on(1).propose(set(0, 0)).await.unwrap();
        }
    };
    timeout(PATIENCE, forgotten).await.expect("the dead go on answering");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_does_not_answer_gets_no_vote_and_a_change_that_loses_the_majority_is_refused() {
    let mut group = Group::of(3).await;
    group.join(4).await;
    group.kill(4).await;
    group.net.forget(&address(4));
    forgotten(&group, 4).await;
    let error = group.on(1).promote(&[ReplicaId(4)], Even::Allow).await.unwrap_err();
    assert!(matches!(error, ChangeError::Silent { replica: ReplicaId(4), .. }), "{error}");
    // With 2 dead as well, the group without 3 would be 1 and 2.
    group.kill(2).await;
    forgotten(&group, 2).await;
    let error = group.on(1).remove(&[ReplicaId(3)], Even::Allow).await.unwrap_err();
    assert_eq!(error, ChangeError::NoMajority { voters: 2, answering: 1 });
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_the_voter_that_was_named() {
    let mut group = Group::of(3).await;
    for to in [3, 2, 1] {
        let leader = group.leader().await;
        group.on(leader).transfer(ReplicaId(to)).await.unwrap();
        assert_eq!(group.leader().await, to);
    }
    group.join(4).await;
    let error = group.on(1).transfer(ReplicaId(4)).await.unwrap_err();
    assert_eq!(error, ChangeError::NotAMember { replica: ReplicaId(4) }, "a learner leads nobody");
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moves_is_reached_at_its_new_address() {
    let mut group = Group::of(3).await;
    let disk = group.kill(3).await;
    group.net.forget(&address(3));
    for value in 0..20 {
        group.on(1).propose(set(value, value)).await.unwrap();
    }
    group.start(3, disk, Start::Join).await;
    group.net.rename(&address(3), "moved");
    group.on(1).set_address(ReplicaId(3), "moved").await.unwrap();
    assert_eq!(get(&group.settled().await, 19), Some(19));
    let addresses: Vec<_> = group.on(3).members().into_iter().map(|member| member.address).collect();
    assert_eq!(addresses, [address(1), address(2), "moved".to_owned()]);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adding_a_member_again_waits_for_it_and_another_address_is_refused() {
    let mut group = Group::found().await;
    group.join(2).await;
    let changes = group.on(1).local().last_voter_change();
    group.on(1).add(ReplicaId(2), &address(2), |_| {}).await.unwrap();
    assert_eq!(group.on(1).local().last_voter_change(), changes, "nothing was changed");
    let error = group.on(1).add(ReplicaId(2), "elsewhere", |_| {}).await.unwrap_err();
    assert!(
        matches!(&error, ChangeError::AddressDiffers { address: at, .. } if *at == address(2)),
        "{error}"
    );
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_three_opens_without_a_majority_and_says_so() {
    let mut group = Group::of(3).await;
    let mut disks = Vec::new();
    for id in [3, 2, 1] {
        disks.push((id, group.kill(id).await));
    }
    let (_, disk) = disks.remove(2);
    group.start(1, disk, Start::Found).await;
    let health = group.on(1).health();
    assert_eq!((health.leader, health.known_leader, health.fatal), (false, None, None));
    assert!(group.on(1).propose(set(0, 1)).await.is_err());
    for (id, disk) in disks {
        group.start(id, disk, Start::Found).await;
    }
    group.settled().await;
    group.on(1).propose(set(0, 1)).await.unwrap();
    group.shutdown().await;
}

#[test]
fn a_leader_that_leads_on_completes_a_change_whose_end_was_lost() {
    let settings = Settings { night: Some(1), ..Settings::default() };
    clock::live_through(1, async {
        let mut group = Group::of_with(3, settings).await;
        group.join(4).await;
        group.join(5).await;
        let term = group.on(1).health().term;
        begin(&group, &[4, 5], &[]).await;
        unlocked(&group, 1).await;
        assert_eq!(voters(&group, 1), [1, 2, 3, 4, 5]);
        assert_eq!(group.on(1).health().term, term, "nobody was elected for it");
        group.settled().await;
    });
}
