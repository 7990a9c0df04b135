//! Laws of the group of coordinators: one change at a time, ids spent for ever, and a copy that is not taken for the original, nor
//! gives the numbers of the original to others.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, NodeId, Refusal, Registry, Reply, Role, TokenId, VoterChange, limits};

use crate::generator::{after, config, farm, founding, history, voter_changes};

fn founded() -> Registry {
    after(&[founding()])
}

/// A change that removes one replica.
fn removal(number: u64, replica: u64) -> Command {
    let remove = BTreeSet::from([replica]);
    Command::LockVoters { change: VoterChange { number, remove, ..VoterChange::default() } }
}

fn seat(number: u64, replica: u64) -> Command {
    let seat = [(replica, "a:1".to_owned())].into_iter().collect();
    Command::LockVoters { change: VoterChange { number, seat, ..VoterChange::default() } }
}

/// A time, in ms of Unix time, and longer than it takes to admit as many as a history does.
const NOW: u64 = 1_790_000_000_000;
const LATER: u64 = 200_000;

/// The number of a machine that joins now, with a key that nobody had.
fn admitted(registry: &mut Registry, public_key: &str) -> NodeId {
    let (token, secret_hash) = (TokenId("fresh".to_owned()), [7; 32]);
    let (role, expires_at_unix_ms) = (Role::Agent, 9);
    let id = token.clone();
    registry.apply(&Command::IssueJoinToken {
        id,
        secret_hash,
        role,
        expires_at_unix_ms,
        uses: None,
        name: None,
    });
    let (name, public_key) = ("mini".to_owned(), public_key.to_owned());
    let admit = Command::AdmitNode { token, secret_hash, name, public_key, at_unix_ms: 1 };
    let reply = registry.apply(&admit);
    let Reply::NodeAdmitted { node, again: false } = reply else { panic!("{reply:?}") };
    node
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn changes_never_overlap_and_their_numbers_have_no_gap(commands in vec(voter_changes(), 0..60)) {
        let mut registry = founded();
        let (mut begun, mut ended) = (0, 0);
        for command in &commands {
            let done = registry.apply(command) == Reply::Done;
            if let (Command::LockVoters { change }, true) = (command, done) {
                prop_assert_eq!((begun, change.number), (ended, begun + 1));
                begun += 1;
            }
            if let (Command::UnlockVoters { .. }, true) = (command, done) {
                ended += 1;
            }
            prop_assert!(begun - ended <= 1);
            prop_assert_eq!(registry.voter_change().is_some(), begun > ended);
        }
    }

    #[test]
    fn who_was_removed_stays_removed_and_is_in_no_later_change(commands in vec(voter_changes(), 0..60)) {
        let mut registry = founded();
        let mut removed = BTreeSet::new();
        for command in &commands {
            let done = registry.apply(command) == Reply::Done;
            if let (Command::LockVoters { change }, true) = (command, done) {
                let mut members = change.seat.keys().chain(&change.promote);
                prop_assert!(!members.any(|replica| removed.contains(replica)));
                removed.extend(&change.remove);
            }
            prop_assert!(removed.iter().all(|replica| registry.is_replica_removed(*replica)));
        }
    }

    #[test]
    fn a_new_epoch_changes_nothing_but_the_voters_and_the_numbers(commands in vec(voter_changes(), 0..20), former in vec(2_u64..5, 0..3), at in 0_u64..9) {
        let old = after(&[farm(), commands].concat());
        let mut new = old.clone();
        new.begin_epoch(at, 1, former.clone());
        prop_assert_eq!((new.epoch(), new.voter_change()), (at.max(old.epoch() + 1), None));
        prop_assert_eq!(new.cluster(), old.cluster());
        prop_assert!(new.nodes().eq(old.nodes()), "the founder of the cluster is no node");
        prop_assert_eq!(new.last_voter_change(), old.last_voter_change());
        for replica in 1..8 {
            let gone = old.is_replica_removed(replica) || former.contains(&replica);
            prop_assert_eq!(new.is_replica_removed(replica), gone);
        }
        let read: Registry = serde_json::from_str(&serde_json::to_string(&new).unwrap()).unwrap();
        prop_assert_eq!(read, new);
    }

    #[test]
    fn another_life_gives_numbers_beyond_all_that_the_former_ones_gave(copied in history(), went_on in history(), again in history()) {
        let copy = after(&copied);
        prop_assume!(copy.cluster().is_some());
        let mut former = vec![copy.clone()];
        went_on.iter().for_each(|command| drop(former[0].apply(command)));
        // The copy is used twice; and the clock was set back before the last life began.
        for (at_unix_ms, commands) in [(NOW, &again), (NOW + LATER, &again), (9, &went_on)] {
            let mut next = if at_unix_ms == 9 { former[2].clone() } else { copy.clone() };
            next.begin_epoch(at_unix_ms, 1, []);
            let given = former.iter().flat_map(Registry::nodes).map(|(node, _)| node).collect::<BTreeSet<_>>();
            for node in given.iter().filter(|node| copy.node(**node).is_none() && next.node(**node).is_none()) {
                prop_assert!(next.is_node_revoked(*node), "{} of a former life was admitted to another", node);
            }
            let admitted = admitted(&mut next, &format!("fe{at_unix_ms:x}"));
            prop_assert!(given.iter().all(|former| *former < admitted), "{} after {:?}", admitted, given.last());
            commands.iter().for_each(|command| drop(next.apply(command)));
            former.push(next);
        }
    }
}

#[test]
fn who_begins_another_life_under_a_number_of_its_own_is_a_coordinator_that_was_admitted() {
    let old = after(&farm());
    // Node 3 of the farm is coordinator 4, and 2 is an agent: whoever is somebody already stays who it is.
    for known in [1, 4] {
        let mut new = old.clone();
        new.begin_epoch(NOW, known, [7]);
        assert!(new.nodes().eq(old.nodes()), "{known}");
    }
    let number = old.number_beyond(NOW);
    assert_eq!(number, NodeId(NOW / 1_000));
    let mut new = old.clone();
    new.begin_epoch(NOW + 1, number.0 + 1, [1, 4]);
    let node = new.node(number).unwrap();
    assert_eq!((node.role, node.admitted_at_unix_ms, node.revoked), (Role::Coordinator, NOW + 1, false));
    assert_eq!(new.nodes().count(), old.nodes().count() + 1);
    assert!(admitted(&mut new, "fe") > number);
}

#[test]
fn more_removed_replicas_than_are_remembered_spend_every_lower_id() {
    let mut registry = founded();
    let count = limits::REMOVED_REPLICAS_MAX as u64 + 3;
    for number in 1..=count {
        // Only even ids were ever members.
        assert_eq!(registry.apply(&removal(number, number * 2)), Reply::Done);
        assert_eq!(registry.apply(&Command::UnlockVoters { number }), Reply::Done);
    }
    for spent in [1, 2, 5, 6, 8, count * 2] {
        assert!(registry.is_replica_removed(spent), "{spent}");
        let refused = Reply::Refused(Refusal::ReplicaRemoved { replica: spent });
        assert_eq!(registry.apply(&seat(count + 1, spent)), refused);
    }
    assert_eq!(registry.apply(&seat(count + 1, 9)), Reply::Done);
}

#[test]
fn a_change_names_no_more_replicas_than_a_group_could_have_and_no_address_that_is_none() {
    let mut registry = founded();
    let ids = |count: usize| (1..=count as u64).collect::<BTreeSet<_>>();
    let lock = |promote, seat| {
        let change = VoterChange { number: 1, promote, seat, ..VoterChange::default() };
        Command::LockVoters { change }
    };
    let malformed = |reply: Reply| matches!(reply, Reply::Refused(Refusal::Malformed { .. }));
    assert!(malformed(registry.apply(&lock(ids(limits::REPLICAS_MAX + 1), Default::default()))));
    for address in ["", "a\nb", &"a".repeat(limits::REPLICA_ADDRESS_BYTES_MAX + 1)] {
        let seat = [(1, address.to_owned())].into_iter().collect();
        assert!(malformed(registry.apply(&lock(BTreeSet::new(), seat))), "{address}");
    }
    let longest = [(1, "a".repeat(limits::REPLICA_ADDRESS_BYTES_MAX))].into_iter().collect();
    assert_eq!(registry.apply(&lock(ids(limits::REPLICAS_MAX), longest)), Reply::Done);
}
