//! Deaths that may not have been any: the losses of nodes that can come back alive.
//!
//! A node is lost when nobody hears from it. It may have died with all that ran there, or a cable was pulled for five seconds; then
//! it comes back with the life it had, and whoever ran there has done nothing to it. Owns, for each charge, the losses it counts
//! until their nodes come back, and what is taken back then. Refuses to bring back a submission that was refused meanwhile: another one
//! finds the charge as if that node had never been lost.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Blame, BlameFact, Charge, sentence_after};
use crate::ids::{Fingerprint, NodeId};
use crate::limits::BlameLimits;

/// A node that is heard from no more, or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) node: NodeId,
    /// Which of its lives; zero where nobody knows.
    pub(crate) life: u64,
}

/// A loss that a request is charged with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) lost: Lost,
    /// It was in quarantine before.
    pub(super) convicted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Losses {
    of: BTreeMap<Fingerprint, Vec<Loss>>,
}

impl Blame {
    /// A node is heard from again. Returns the facts to write down: if it has the life it had, nothing died when it was lost. What
    /// remains of a charge follows its clearing.
    pub(crate) fn returned(&mut self, back: Lost, limits: &BlameLimits) -> Vec<BlameFact> {
        let mut facts = Vec::new();
        for (fingerprint, loss) in self.losses.take(back.node) {
            let charge = self.charges.get(&fingerprint).copied().filter(|_| loss.lost == back);
            let Some(charge) = charge else { continue };
            facts.push(BlameFact::Cleared(fingerprint));
            let deaths = charge.deaths.saturating_sub(1);
            if deaths == 0 {
                self.pardon(fingerprint);
                continue;
            }
            let sentence =
                if loss.convicted { charge.sentence } else { sentence_after(deaths, false, limits) };
            let left = Charge { deaths, sentence, ..charge };
            self.charges.insert(fingerprint, left);
            facts.push(BlameFact::Charged(left));
        }
        facts
    }
}

impl Losses {
    /// Of one request so many are kept at most; the oldest counts as a death for good.
    pub(super) fn note(&mut self, fingerprint: Fingerprint, loss: Loss, most: u32) {
        if loss.lost.life == 0 {
            return;
        }
        let losses = self.of.entry(fingerprint).or_default();
        losses.push(loss);
        if u32::try_from(losses.len()).is_ok_and(|count| count > most) {
            losses.remove(0);
        }
    }

    pub(super) fn forget(&mut self, fingerprint: Fingerprint) {
        self.of.remove(&fingerprint);
    }

    /// The node is back: what its loss was charged to, whichever life it is in. Reads all; nodes come back seldom.
    pub(super) fn take(&mut self, node: NodeId) -> Vec<(Fingerprint, Loss)> {
        let mut taken = Vec::new();
        self.of.retain(|fingerprint, losses| {
            let of_node = losses.extract_if(.., |loss| loss.lost.node == node);
            taken.extend(of_node.map(|loss| (*fingerprint, loss)));
            !losses.is_empty()
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::blame::{Death, Sentence};
    use crate::time::At;

    const ONE: Fingerprint = Fingerprint(1);
    const TWO: Fingerprint = Fingerprint(2);

    fn loss(node: u64, life: u64) -> Loss {
        Loss { lost: Lost { node: NodeId(node), life }, convicted: false }
    }

    fn taken(losses: &mut Losses, node: u64) -> Vec<(u64, u64)> {
        let taken = losses.take(NodeId(node));
        taken.into_iter().map(|(fingerprint, loss)| (fingerprint.0, loss.lost.life)).collect()
    }

    #[test]
    fn what_a_node_took_with_it_is_told_once_when_it_is_back() {
        let mut losses = Losses::default();
        losses.note(ONE, loss(7, 1), 3);
        losses.note(TWO, loss(7, 1), 3);
        losses.note(ONE, loss(8, 5), 3);
        assert_eq!(taken(&mut losses, 7), [(1, 1), (2, 1)]);
        assert_eq!(taken(&mut losses, 7), []);
        assert_eq!(taken(&mut losses, 8), [(1, 5)]);
        assert!(losses.of.is_empty());
    }

    #[test]
    fn a_life_that_nobody_knows_is_not_waited_for() {
        let mut losses = Losses::default();
        losses.note(ONE, loss(7, 0), 3);
        assert!(losses.of.is_empty());
    }

    #[test]
    fn of_many_losses_the_latest_are_kept_and_all_go_with_their_request() {
        let mut losses = Losses::default();
        (1..=5).for_each(|node| losses.note(ONE, loss(node, 1), 3));
        let known: Vec<_> = (1..=4).flat_map(|node| taken(&mut losses, node)).collect();
        assert_eq!(known.len(), 2, "of nodes 3 and 4");
        losses.forget(ONE);
        assert!(losses.of.is_empty());
    }

    #[derive(Default)]
    struct Court {
        blame: Blame,
        limits: BlameLimits,
        at: u64,
        facts: Vec<BlameFact>,
    }

    impl Court {
        /// A runtime died, or with a number the node.
        fn dies(&mut self, present: &[u64], node: Option<u64>) {
            self.at += 1;
            let present: Vec<_> = present.iter().map(|one| Fingerprint(*one)).collect();
            let lost = node.map(|node| Lost { node: NodeId(node), life: 1 });
            let death = Death { present: &present, alone: present.len() == 1, lost };
            let charges = self.blame.died(At(self.at), &death, &self.limits);
            self.facts.extend(charges.into_iter().map(BlameFact::Charged));
        }

        /// Returns how many facts that made.
        fn is_back(&mut self, node: u64, life: u64) -> usize {
            let facts = self.blame.returned(Lost { node: NodeId(node), life }, &self.limits);
            self.facts.extend(&facts);
            facts.len()
        }

        fn charge(&self, one: u64) -> Option<(u32, Sentence)> {
            let charge = self.blame.charge(At(self.at), Fingerprint(one), &self.limits)?;
            Some((charge.deaths, charge.sentence))
        }
    }

    #[test]
    fn a_node_that_comes_back_alive_clears_who_was_lost_with_it_and_no_one_else() {
        let mut court = Court::default();
        court.dies(&[1, 2], Some(7));
        court.dies(&[3], Some(8));
        assert_eq!(court.is_back(7, 1), 2);
        assert_eq!([1, 2, 3].map(|one| court.charge(one)), [None, None, Some((1, Sentence::Suspect))]);
        assert_eq!(court.is_back(7, 1), 0);
    }

    #[test]
    fn a_node_that_comes_back_in_another_life_had_died_for_good() {
        for life in [0, 2] {
            let mut court = Court::default();
            court.dies(&[1], Some(7));
            assert_eq!(court.is_back(7, life), 0);
            assert_eq!(court.is_back(7, 1), 0, "it was judged when it came");
            assert_eq!(court.charge(1), Some((1, Sentence::Suspect)));
        }
    }

    #[test]
    fn what_died_elsewhere_meanwhile_stays() {
        let mut court = Court::default();
        court.dies(&[1], Some(7));
        court.dies(&[1], None);
        assert_eq!(court.charge(1), Some((2, Sentence::Quarantine)));
        assert_eq!(court.is_back(7, 1), 2, "cleared, and charged with what is left");
        assert_eq!(court.charge(1), Some((1, Sentence::Suspect)));
    }

    #[test]
    fn two_nodes_that_come_back_in_any_order_clear_who_was_lost_with_both() {
        for order in [[7, 8], [8, 7]] {
            let mut court = Court::default();
            court.dies(&[1], Some(7));
            court.dies(&[1], Some(8));
            assert_eq!(court.charge(1), Some((2, Sentence::Quarantine)));
            assert_eq!(order.map(|node| court.is_back(node, 1)), [2, 1]);
            assert_eq!(court.charge(1), None);
        }
    }

    #[test]
    fn a_quarantine_that_was_earned_before_the_loss_outlasts_its_end() {
        let mut court = Court::default();
        court.dies(&[1], None);
        court.dies(&[1], None);
        court.dies(&[1, 2], Some(7));
        court.is_back(7, 1);
        assert_eq!(court.charge(1), Some((2, Sentence::Quarantine)));
    }

    #[test]
    fn a_charge_that_was_cleared_and_made_anew_has_nothing_to_do_with_the_loss() {
        let mut court = Court::default();
        court.dies(&[1], Some(7));
        court.blame.completed(ONE);
        court.dies(&[1], None);
        assert_eq!(court.is_back(7, 1), 0);
        assert_eq!(court.charge(1), Some((1, Sentence::Suspect)));
    }

    #[test]
    fn a_charge_that_makes_room_for_others_takes_its_losses_along() {
        let mut court = Court::default();
        court.limits.fingerprints_max = 1;
        court.dies(&[1], Some(7));
        court.dies(&[2], None);
        assert!(court.blame.losses.of.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Runtimes die and nodes are lost in any order; when all nodes are back, the deaths of runtimes are left, and a new leader
        /// that is told the facts knows the same.
        #[test]
        fn when_all_nodes_are_back_only_deaths_count(
            ends in proptest::collection::vec((1_u64..5, 1_u64..5, proptest::option::of(1_u64..9)), 0..12),
        ) {
            let mut court = Court { limits: BlameLimits { deaths_max: 99, ..BlameLimits::default() }, ..Court::default() };
            let mut deaths = BTreeMap::<u64, u32>::new();
            for (one, other, node) in ends {
                // It cannot be lost twice.
                if let Some(node) = node {
                    court.is_back(node, 1);
                }
                court.dies(&[one, other], node);
                if node.is_none() {
                    for one in std::collections::BTreeSet::from([one, other]) {
                        *deaths.entry(one).or_default() += 1;
                    }
                }
            }
            for node in 1..9 {
                court.is_back(node, 1);
            }
            let mut next = Blame::default();
            next.restore(&court.facts, &court.limits);
            for one in 1..5 {
                prop_assert_eq!(court.charge(one).map(|(count, _)| count), deaths.get(&one).copied());
                prop_assert_eq!(next.charges.get(&Fingerprint(one)), court.blame.charges.get(&Fingerprint(one)));
            }
            prop_assert!(court.blame.losses.of.is_empty());
        }
    }
}
