//! Which pair of session and streams speaks with which coordinator.
//!
//! Owns the rule that there is one pair for each: a pair that finds out whom it reached takes that coordinator over if nobody else
//! has it, and yields otherwise, for the other may carry answers. Refuses to start or end anything itself. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::known::{Addresses, Key};
use crate::address::Address;
use crate::session::PairId;

#[derive(Default)]
pub(crate) struct Pairs {
    keys: BTreeMap<PairId, Key>,
    last: u64,
}

/// What becomes of a session that was welcomed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// The same coordinator has a pair already. Its session has to be opened anew: the coordinator takes this one, which ends,
    /// for the latest.
    Twice {
        other: PairId,
    },
    /// Another coordinator is there than the pair was looking for, or nobody looks for one any more.
    Elsewhere,
}

/// What has to be done to have a pair for each coordinator.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) left: Vec<PairId>,
    pub(crate) started: Vec<PairId>,
}

impl Pairs {
    /// A pair was welcomed by this replica; `wanted` knows of it already. Zero is as good as the one it was looking for.
    pub(crate) fn welcomed(&mut self, pair: PairId, replica: u64, wanted: &Addresses) -> Verdict {
        let (own, reached) = (self.keys.get(&pair), Key::Replica(replica));
        if own.is_some_and(|own| replica == 0 || *own == reached) {
            Verdict::GoOn
        } else if let Some(other) = self.holder(&reached) {
            Verdict::Twice { other }
        } else if own.is_none_or(|own| wanted.contains_key(own)) {
            Verdict::Elsewhere
        } else {
            self.keys.insert(pair, reached);
            Verdict::GoOn
        }
    }

    /// Follows the coordinators that there are now.
    pub(crate) fn follow(&mut self, wanted: &Addresses) -> Changes {
        self.learn(wanted);
        let gone = self.keys.iter().filter(|(_, key)| !wanted.contains_key(*key));
        let left: Vec<_> = gone.map(|(pair, _)| *pair).collect();
        self.keys.retain(|pair, _| !left.contains(pair));
        let mut started = Vec::new();
        for key in wanted.keys() {
            if self.holder(key).is_none() {
                self.last += 1;
                self.keys.insert(PairId(self.last), key.clone());
                started.push(PairId(self.last));
            }
        }
        Changes { left, started }
    }

    /// The pairs of these replicas.
    pub(crate) fn with(&self, replicas: &BTreeSet<u64>) -> Vec<PairId> {
        let theirs = |key: &Key| matches!(key, Key::Replica(replica) if replicas.contains(replica));
        self.keys.iter().filter(|(_, key)| theirs(key)).map(|(pair, _)| *pair).collect()
    }

    /// The addresses of a pair's coordinator.
    pub(crate) fn addresses<'a>(&self, pair: PairId, wanted: &'a Addresses) -> &'a [Address] {
        self.keys.get(&pair).and_then(|key| wanted.get(key)).map_or(&[], Vec::as_slice)
    }

    /// An address that turned out to be a numbered coordinator's keeps its pair, if that has none.
    fn learn(&mut self, wanted: &Addresses) {
        let nameless: Vec<_> = self.keys.iter().map(|(pair, key)| (*pair, key.clone())).collect();
        for (pair, key) in nameless {
            if let Key::Address(address) = &key
                && let Some(owner) = owner(address, wanted)
                && self.holder(owner).is_none()
            {
                self.keys.insert(pair, owner.clone());
            }
        }
    }

    fn holder(&self, key: &Key) -> Option<PairId> {
        self.keys.iter().find(|(_, held)| *held == key).map(|(pair, _)| *pair)
    }
}

fn owner<'a>(address: &Address, wanted: &'a Addresses) -> Option<&'a Key> {
    wanted.iter().find(|(_, addresses)| addresses.contains(address)).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coordinators::known::{Known, Learned, Member};

    fn at(name: &str) -> Address {
        Address::parse(&format!("{name}:1")).expect("an address")
    }

    fn member(replica: u64, name: &str) -> Member {
        Member { replica, address: at(name) }
    }

    /// The settings, and the pairs that follow from them.
    fn stage(seeds: &[&str]) -> (Known, Pairs) {
        let known = Known::new(seeds.iter().map(|name| at(name)).collect(), Learned::default());
        let mut pairs = Pairs::default();
        let started = pairs.follow(&known.coordinators()).started;
        assert_eq!(started.len(), seeds.len());
        (known, pairs)
    }

    fn welcomed(known: &mut Known, pairs: &mut Pairs, pair: u64, name: &str, replica: u64) -> Verdict {
        known.answered(&at(name), replica);
        pairs.welcomed(PairId(pair), replica, &known.coordinators())
    }

    fn changes(left: &[u64], started: &[u64]) -> Changes {
        let pairs = |numbers: &[u64]| numbers.iter().copied().map(PairId).collect();
        Changes { left: pairs(left), started: pairs(started) }
    }

    #[test]
    fn a_pair_takes_over_the_coordinator_it_reached_and_the_list_finds_it_there() {
        let (mut known, mut pairs) = stage(&["a"]);
        assert_eq!(welcomed(&mut known, &mut pairs, 1, "a", 1), Verdict::GoOn);
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[], &[]));
        known.tell(vec![member(1, "elsewhere"), member(2, "b"), member(3, "c")]);
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[], &[2, 3]));
        let addresses = pairs.addresses(PairId(1), &known.coordinators()).to_vec();
        assert_eq!(addresses, [at("a"), at("elsewhere")]);
    }

    #[test]
    fn a_list_that_names_an_address_gives_its_pair_the_number_before_it_was_welcomed() {
        let (mut known, mut pairs) = stage(&["a"]);
        known.tell(vec![member(7, "a")]);
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[], &[]));
        assert_eq!(pairs.welcomed(PairId(1), 7, &known.coordinators()), Verdict::GoOn);
    }

    #[test]
    fn the_second_pair_of_one_coordinator_yields_and_its_address_stays() {
        let (mut known, mut pairs) = stage(&["a", "also-a"]);
        assert_eq!(welcomed(&mut known, &mut pairs, 1, "a", 1), Verdict::GoOn);
        pairs.follow(&known.coordinators());
        let twice = welcomed(&mut known, &mut pairs, 2, "also-a", 1);
        assert_eq!(twice, Verdict::Twice { other: PairId(1) });
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[2], &[]));
        assert_eq!(pairs.addresses(PairId(1), &known.coordinators()), [at("a"), at("also-a")]);
        assert_eq!(pairs.addresses(PairId(2), &known.coordinators()), []);
    }

    #[test]
    fn who_sits_at_anothers_only_address_takes_its_pair_over() {
        let (mut known, mut pairs) = stage(&[]);
        known.tell(vec![member(1, "a")]);
        pairs.follow(&known.coordinators());
        assert_eq!(welcomed(&mut known, &mut pairs, 1, "a", 4), Verdict::GoOn);
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[], &[]));
    }

    #[test]
    fn who_sits_at_one_of_anothers_addresses_gets_a_pair_of_its_own() {
        let (mut known, mut pairs) = stage(&["a"]);
        assert_eq!(welcomed(&mut known, &mut pairs, 1, "a", 1), Verdict::GoOn);
        known.tell(vec![member(1, "told")]);
        pairs.follow(&known.coordinators());
        assert_eq!(welcomed(&mut known, &mut pairs, 1, "told", 2), Verdict::Elsewhere);
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[], &[2]));
        assert_eq!(pairs.addresses(PairId(1), &known.coordinators()), [at("a")]);
        assert_eq!(pairs.addresses(PairId(2), &known.coordinators()), [at("told")]);
    }

    #[test]
    fn one_without_a_number_goes_on_as_its_address() {
        let (mut known, mut pairs) = stage(&["a", "b"]);
        for (pair, name) in [(1, "a"), (2, "b")] {
            assert_eq!(welcomed(&mut known, &mut pairs, pair, name, 0), Verdict::GoOn);
        }
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[], &[]));
    }

    #[test]
    fn a_pair_that_was_left_is_told_so() {
        let (mut known, mut pairs) = stage(&[]);
        known.tell(vec![member(1, "a"), member(2, "b")]);
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[], &[1, 2]));
        known.tell(vec![member(2, "b")]);
        assert_eq!(pairs.follow(&known.coordinators()), changes(&[1], &[]));
        assert_eq!(welcomed(&mut known, &mut pairs, 1, "a", 1), Verdict::Elsewhere);
        let displaced = welcomed(&mut known, &mut pairs, 1, "b", 2);
        assert_eq!(displaced, Verdict::Twice { other: PairId(2) }, "its welcome came late");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whoever_answers_where_each_coordinator_ends_up_with_one_pair_and_soon_nothing_changes(
            truth in prop::collection::vec(1u64..4, 5),
            list in prop::collection::vec((1u64..4, 0usize..5), 0..5),
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let (mut known, mut pairs) = stage(&names);
            known.tell(list.into_iter().map(|(replica, n)| member(replica, names[n])).collect());
            pairs.follow(&known.coordinators());
            // Each address is tried by whoever has it, a few times over: by then everybody knows everything.
            for _ in 0..3 {
                for (name, replica) in names.iter().zip(&truth) {
                    let wanted = known.coordinators();
                    let holder = pairs.keys.keys().find(|pair| pairs.addresses(**pair, &wanted).contains(&at(name)));
                    let holder = holder.expect("every address is somebody's").0;
                    welcomed(&mut known, &mut pairs, holder, name, *replica);
                    pairs.follow(&known.coordinators());
                }
            }
            let mut replicas = truth.clone();
            replicas.sort_unstable();
            replicas.dedup();
            let mut held: Vec<_> = pairs.keys.values().cloned().collect();
            held.sort();
            prop_assert_eq!(held, replicas.into_iter().map(Key::Replica).collect::<Vec<_>>());
            prop_assert_eq!(pairs.follow(&known.coordinators()), Changes::default());
        }
    }
}
