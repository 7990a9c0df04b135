//! Which coordinators there are, and where each is reached.
//!
//! Owns three sources and what follows from them: the settings, the latest complete list that a coordinator told, and who answered
//! at which address. A coordinator with several addresses is one. Refuses more coordinators than its bound, and an empty list: a
//! cluster without coordinators cannot have told it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::limits::{COORDINATORS_MAX, REVOKED_MAX};

/// A coordinator at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Zero: its number is not known.
    pub(crate) replica: u64,
    pub(crate) address: Address,
}

/// What was learned from coordinators, in short enough a form to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Learned {
    /// The latest complete list.
    members: Vec<Member>,
    /// Who answered where the list does not say so.
    answered: Vec<Member>,
    /// Numbers of those that were revoked, for ever.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    revoked: BTreeSet<u64>,
}

impl Learned {
    pub(crate) fn revoked(&self) -> &BTreeSet<u64> {
        &self.revoked
    }

    /// Of all that are not revoked.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        let present = |member: &&Member| !self.revoked.contains(&member.replica);
        self.members.iter().chain(&self.answered).filter(present).map(|member| &member.address)
    }
}

/// What a coordinator is told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Replica(u64),
    /// Its number is not known, or it is of a version that has none.
    Address(Address),
}

/// Each coordinator with its addresses, the one to try first in front.
pub(crate) type Addresses = BTreeMap<Key, Vec<Address>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    seeds: Vec<Address>,
    learned: Learned,
}

impl Known {
    /// `seeds` are from the settings and stay, whatever is told.
    pub(crate) fn new(seeds: Vec<Address>, learned: Learned) -> Self {
        let mut known = Self { seeds, learned };
        known.bound();
        known
    }

    /// Takes in a complete list in place of the former one.
    pub(crate) fn tell(&mut self, members: Vec<Member>) {
        if !members.is_empty() {
            self.learned.members = members;
            self.bound();
        }
    }

    /// Takes in who was revoked. Where such a one was reached, somebody else may be by now, if the settings say so.
    pub(crate) fn revoke(&mut self, replicas: &[u64]) {
        self.learned.revoked.extend(replicas);
        self.bound();
    }

    /// Takes in who answered at an address, which outweighs what others say of it. Zero says nothing.
    pub(crate) fn answered(&mut self, address: &Address, replica: u64) {
        if replica > 0 {
            self.learned.answered.retain(|member| member.address != *address);
            if self.key(address) != Key::Replica(replica) {
                self.learned.answered.push(Member { replica, address: address.clone() });
            }
            self.bound();
        }
    }

    pub(crate) fn learned(&self) -> &Learned {
        &self.learned
    }

    /// All of them, within the bound.
    pub(crate) fn coordinators(&self) -> Addresses {
        let mut coordinators = Addresses::new();
        for address in self.addresses() {
            let (key, full) = (self.key(address), coordinators.len() >= COORDINATORS_MAX);
            if !full || coordinators.contains_key(&key) {
                coordinators.entry(key).or_default().push(address.clone());
            }
        }
        // The operator's word is tried first: it was chosen for this Mac.
        for addresses in coordinators.values_mut() {
            addresses.sort_by_key(|address| !self.seeds.contains(address));
        }
        coordinators
    }

    /// Addresses beyond the bound.
    pub(crate) fn refused(&self) -> Vec<Address> {
        let taken = self.coordinators();
        let refused = self.addresses().filter(|address| !taken.contains_key(&self.key(address)));
        refused.cloned().collect()
    }

    /// Each once. Members come first: they count when there are too many.
    fn addresses(&self) -> impl Iterator<Item = &Address> {
        let told = self.learned.members.iter().map(|member| &member.address);
        let further =
            self.seeds.iter().filter(|seed| self.learned.members.iter().all(|m| m.address != **seed));
        told.chain(further)
    }

    fn key(&self, address: &Address) -> Key {
        let mut said = self.learned.answered.iter().chain(&self.learned.members);
        let numbered = said.find(|member| member.replica > 0 && member.address == *address);
        numbered.map_or_else(|| Key::Address(address.clone()), |member| Key::Replica(member.replica))
    }

    /// Nobody who was revoked is listed; a list names each address once and at most twice the bound; who answered matters only
    /// where somebody may be called.
    fn bound(&mut self) {
        let Learned { members, answered, revoked } = &mut self.learned;
        while revoked.len() > REVOKED_MAX {
            revoked.pop_first();
        }
        members.retain(|member| !revoked.contains(&member.replica));
        answered.retain(|member| !revoked.contains(&member.replica));
        let mut seen = Vec::new();
        members.retain(|member| {
            let new = seen.len() < COORDINATORS_MAX * 2 && !seen.contains(&member.address);
            seen.extend(new.then(|| member.address.clone()));
            new
        });
        answered.retain(|member| seen.contains(&member.address) || self.seeds.contains(&member.address));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(name: &str) -> Address {
        Address::parse(&format!("{name}:1")).expect("an address")
    }

    fn member(replica: u64, name: &str) -> Member {
        Member { replica, address: at(name) }
    }

    fn known(seeds: &[&str]) -> Known {
        Known::new(seeds.iter().map(|name| at(name)).collect(), Learned::default())
    }

    /// `1:a,b` for a numbered one with two addresses, `a` for one without a number.
    fn told(known: &Known) -> Vec<String> {
        let names = |addresses: &[Address]| {
            addresses.iter().map(|address| address.host.clone()).collect::<Vec<_>>().join(",")
        };
        let coordinators = known.coordinators().into_iter();
        let told = coordinators.map(|(key, addresses)| match key {
            Key::Replica(replica) => format!("{replica}:{}", names(&addresses)),
            Key::Address(address) => {
                assert_eq!(addresses, [address]);
                names(&addresses)
            }
        });
        told.collect()
    }

    #[test]
    fn without_a_list_the_settings_are_all_there_is() {
        assert_eq!(told(&known(&["b", "a"])), ["a", "b"]);
    }

    #[test]
    fn a_list_adds_and_the_next_one_drops_what_is_not_in_the_settings() {
        let mut known = known(&["a"]);
        known.tell(vec![member(1, "a"), member(2, "b"), member(3, "c")]);
        assert_eq!(told(&known), ["1:a", "2:b", "3:c"]);
        known.tell(vec![member(2, "b"), member(4, "d")]);
        assert_eq!(told(&known), ["2:b", "4:d", "a"], "the operator's own stays, as nobody in particular");
    }

    #[test]
    fn an_empty_list_changes_nothing() {
        let mut known = known(&["a"]);
        known.tell(vec![member(1, "a"), member(2, "b")]);
        let before = known.clone();
        known.tell(Vec::new());
        assert_eq!(known, before);
    }

    #[test]
    fn one_that_is_reached_at_two_addresses_is_one_and_the_operators_is_tried_first() {
        let mut known = known(&["seed"]);
        known.tell(vec![member(1, "told"), member(2, "b")]);
        assert_eq!(told(&known), ["1:told", "2:b", "seed"]);
        known.answered(&at("seed"), 1);
        assert_eq!(told(&known), ["1:seed,told", "2:b"]);
    }

    #[test]
    fn who_answers_outweighs_the_list_until_another_answers() {
        let mut known = known(&[]);
        known.tell(vec![member(1, "a"), member(2, "b")]);
        known.answered(&at("a"), 3);
        assert_eq!(told(&known), ["2:b", "3:a"]);
        known.answered(&at("a"), 1);
        assert_eq!(told(&known), ["1:a", "2:b"]);
        assert_eq!(known.learned().answered, [], "the list says it");
    }

    #[test]
    fn an_older_coordinator_that_has_no_number_is_its_address() {
        let mut known = known(&["a"]);
        known.answered(&at("a"), 0);
        known.tell(vec![member(0, "b")]);
        assert_eq!(told(&known), ["a", "b"]);
    }

    #[test]
    fn who_answered_is_forgotten_with_the_address() {
        let mut known = known(&["a"]);
        known.tell(vec![member(1, "told"), member(2, "b")]);
        known.answered(&at("told"), 5);
        known.answered(&at("a"), 1);
        known.tell(vec![member(2, "b")]);
        assert_eq!(known.learned().answered, [member(1, "a")]);
        known.tell(vec![member(1, "told")]);
        assert_eq!(told(&known), ["1:a,told"]);
    }

    #[test]
    fn beyond_the_bound_members_go_before_the_settings_and_the_rest_is_named() {
        let seeds: Vec<_> = (0..4).map(|n| format!("s{n}")).collect();
        let mut known = known(&seeds.iter().map(String::as_str).collect::<Vec<_>>());
        known.tell((1..=6).map(|replica| member(replica, &format!("m{replica}"))).collect());
        assert_eq!(told(&known), ["1:m1", "2:m2", "3:m3", "4:m4", "5:m5", "6:m6", "s0", "s1"]);
        assert_eq!(known.refused(), [at("s2"), at("s3")]);
        known.answered(&at("s2"), 6);
        assert_eq!(known.refused(), [at("s3")], "a further address of one it has");
    }

    #[test]
    fn who_was_revoked_is_listed_by_nobody_and_its_place_is_free_for_another() {
        let mut known = known(&["seed"]);
        known.tell(vec![member(1, "a"), member(2, "b")]);
        known.answered(&at("seed"), 2);
        assert_eq!(told(&known), ["1:a", "2:seed,b"]);
        known.revoke(&[2]);
        assert_eq!(told(&known), ["1:a", "seed"]);
        known.tell(vec![member(1, "a"), member(2, "b")]);
        assert_eq!(told(&known), ["1:a", "seed"], "an older list");
        known.answered(&at("seed"), 3);
        assert_eq!(told(&known), ["1:a", "3:seed"]);
    }

    #[test]
    fn the_newest_of_those_that_were_revoked_are_remembered() {
        let mut known = known(&[]);
        known.revoke(&(1..=REVOKED_MAX as u64 + 2).collect::<Vec<_>>());
        assert_eq!(known.learned().revoked().len(), REVOKED_MAX);
        assert_eq!(known.learned().revoked().first(), Some(&3));
    }

    #[test]
    fn what_was_learned_comes_back_from_its_written_form() {
        let mut known = known(&["seed"]);
        known.tell(vec![member(1, "told"), member(2, "b")]);
        known.answered(&at("seed"), 1);
        known.revoke(&[7]);
        let text = serde_json::to_string(known.learned()).expect("written");
        let again = Known::new(vec![at("seed")], serde_json::from_str(&text).expect("read"));
        assert_eq!(again, known);
    }

    /// A list, and who answered at an address.
    type Step = (Vec<(u64, u8)>, u8, u64);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let list = prop::collection::vec((0u64..6, 0u8..30), 0..40);
        prop::collection::vec((list, 0u8..30, 0u64..6), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_told_all_stays_bounded_and_no_address_has_two_owners(steps in steps(), seeds in 0u8..9) {
            let name = |n: u8| at(&format!("h{n}"));
            let mut known = Known::new((0..seeds).map(name).collect(), Learned::default());
            for (list, address, replica) in steps {
                known.tell(list.into_iter().map(|(replica, n)| Member { replica, address: name(n) }).collect());
                known.answered(&name(address), replica);
                let coordinators = known.coordinators();
                prop_assert!(coordinators.len() <= COORDINATORS_MAX);
                let mut all: Vec<_> = coordinators.values().flatten().cloned().chain(known.refused()).collect();
                let total = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), total, "an address twice");
                prop_assert!(total <= COORDINATORS_MAX * 3, "{}", total);
                prop_assert!(known.learned().answered.len() <= total);
                prop_assert!((0..seeds).all(|seed| all.contains(&name(seed))), "a seed was dropped");
                prop_assert!(coordinators.values().all(|addresses| !addresses.is_empty()));
            }
        }
    }
}
