//! Requests that are suspected of killing what they run on.
//!
//! Some requests do: a prompt can crash a runtime, and on a Mac even panic the kernel (mlx #3186, mlx-lm #883 and #1666). When
//! a runtime or a node dies, all requests that ran there are charged, since nobody can say which one it was. Owns the charges
//! and what follows from them; refuses to see a request: it knows a fingerprint, which a client's retry has again.
//!
//! 1. The first death makes it a suspect. It may run once more, but alone, so that a second death has one suspect and no
//!    victims; alone on its node if a node died. Once its first token has come, others may join it.
//! 2. At a second death it was alone at, it is quarantined: refused from then on, until it is pardoned or forgotten.
//! 3. At a second death in company it is given up: this submission has taken two runtimes and gets no third. It may be a
//!    bystander still, so a client may submit it again; then it runs alone to its very end, so that a third death convicts.
//! 4. At the third death it is quarantined, alone or not.
//! 5. An answer that is complete clears it. So a bystander is charged no longer than until its retry has been answered.
//! 6. A node that was lost and comes back with the life it had did not die: what was charged for its loss is taken back.

mod losses;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::Fingerprint;
use crate::limits::BlameLimits;
use crate::time::At;

pub(crate) use losses::Lost;
use losses::{Loss, Losses};

/// A charge as it stands after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Who.
    pub fingerprint: Fingerprint,
    /// The deaths it was present at.
    pub deaths: u32,
    /// Whether a node was among them.
    pub by_node: bool,
    /// When the latest was.
    pub at: At,
    /// What is to be done with it.
    pub sentence: Sentence,
}

/// What is to be done with a request whose runtime died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// It may run once more, isolated.
    Suspect,
    /// Refuse this submission. Another one may run, isolated.
    GiveUp,
    /// Refuse it, and every submission of it.
    Quarantine,
}

/// What is written down, so that the next leader suspects whom this one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlameFact {
    /// It was charged.
    Charged(Charge),
    /// It was cleared or pardoned.
    Cleared(Fingerprint),
}

impl BlameFact {
    /// The fact in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Cleared(fingerprint) => format!("request {:016x} is cleared", fingerprint.0),
            Self::Charged(charge) => {
                let sentence = match charge.sentence {
                    Sentence::Suspect => "a suspect",
                    Sentence::GiveUp => "given up",
                    Sentence::Quarantine => "quarantined",
                };
                let fingerprint = charge.fingerprint.0;
                format!(
                    "request {fingerprint:016x} is {sentence} after {} of its runtimes died",
                    charge.deaths
                )
            }
        }
    }
}

/// A runtime or a node died.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death<'a> {
    /// All that ran on it, copies too.
    pub(crate) present: &'a [Fingerprint],
    /// Whether nothing else ran on it.
    pub(crate) alone: bool,
    /// The node, if it was a whole one.
    pub(crate) lost: Option<Lost>,
}

/// How a request must be kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Not at all.
    None,
    /// Nothing else may run on its runtime.
    Lane(Hold),
    /// Nothing else may run on its node.
    Node(Hold),
}

/// For how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Until its first token has come.
    FirstToken,
    /// Until it has ended.
    End,
}

#[derive(Debug, Default)]
pub(crate) struct Blame {
    charges: BTreeMap<Fingerprint, Charge>,
    by_age: BTreeSet<(At, Fingerprint)>,
    losses: Losses,
}

impl Blame {
    /// Charges all that were present. Returns the charges, to be carried out and written down, by fingerprint.
    pub(crate) fn died(&mut self, at: At, death: &Death<'_>, limits: &BlameLimits) -> Vec<Charge> {
        self.drop_old(at, limits);
        let present: BTreeSet<Fingerprint> = death.present.iter().copied().collect();
        let alone = death.alone && present.len() == 1;
        let by_node = death.lost.is_some();
        let mut charges = Vec::new();
        for fingerprint in present {
            let convicted = self.is_quarantined(at, fingerprint, limits);
            charges.push(self.next_charge(at, fingerprint, alone, by_node, limits));
            if let Some(lost) = death.lost {
                self.losses.note(fingerprint, Loss { lost, convicted }, limits.deaths_max);
            }
        }
        charges.iter().for_each(|charge| self.keep(*charge, limits));
        charges
    }

    /// Its answer is complete. Returns the fact to write down if that clears it. A quarantine stands: of a request that is
    /// refused, only a copy can complete, and a crash that comes by chance is still a crash.
    pub(crate) fn completed(&mut self, fingerprint: Fingerprint) -> Option<BlameFact> {
        let charge = self.charges.get(&fingerprint)?;
        match charge.sentence {
            Sentence::Suspect | Sentence::GiveUp => self.pardon(fingerprint),
            Sentence::Quarantine => None,
        }
    }

    /// An operator knows better. Returns the fact to write down if there was anything to pardon.
    pub(crate) fn pardon(&mut self, fingerprint: Fingerprint) -> Option<BlameFact> {
        let charge = self.charges.remove(&fingerprint)?;
        self.by_age.remove(&(charge.at, fingerprint));
        self.losses.forget(fingerprint);
        Some(BlameFact::Cleared(fingerprint))
    }

    pub(crate) fn is_quarantined(&self, at: At, fingerprint: Fingerprint, limits: &BlameLimits) -> bool {
        self.charge(at, fingerprint, limits).is_some_and(|charge| charge.sentence == Sentence::Quarantine)
    }

    /// To be asked at each dispatch.
    pub(crate) fn isolation(&self, at: At, fingerprint: Fingerprint, limits: &BlameLimits) -> Isolation {
        let Some(charge) = self.charge(at, fingerprint, limits) else { return Isolation::None };
        let hold = match charge.sentence {
            Sentence::Suspect => Hold::FirstToken,
            Sentence::GiveUp | Sentence::Quarantine => Hold::End,
        };
        if charge.by_node { Isolation::Node(hold) } else { Isolation::Lane(hold) }
    }

    /// The charge against a fingerprint, if one stands.
    pub(crate) fn charge(&self, at: At, fingerprint: Fingerprint, limits: &BlameLimits) -> Option<Charge> {
        self.charges.get(&fingerprint).filter(|charge| at.since(charge.at) <= limits.memory).copied()
    }

    /// `facts` oldest first.
    pub(crate) fn restore(&mut self, facts: &[BlameFact], limits: &BlameLimits) {
        for fact in facts {
            match fact {
                BlameFact::Charged(charge) => self.keep(*charge, limits),
                BlameFact::Cleared(fingerprint) => drop(self.pardon(*fingerprint)),
            }
        }
    }

    fn next_charge(
        &self,
        at: At,
        fingerprint: Fingerprint,
        alone: bool,
        by_node: bool,
        limits: &BlameLimits,
    ) -> Charge {
        let before = self.charge(at, fingerprint, limits);
        let deaths = before.map_or(0, |charge| charge.deaths).saturating_add(1);
        let convicted = before.is_some_and(|charge| charge.sentence == Sentence::Quarantine);
        let sentence = if convicted { Sentence::Quarantine } else { sentence_after(deaths, alone, limits) };
        let by_node = by_node || before.is_some_and(|charge| charge.by_node);
        Charge { fingerprint, deaths, by_node, at, sentence }
    }

    fn keep(&mut self, charge: Charge, limits: &BlameLimits) {
        if let Some(before) = self.charges.insert(charge.fingerprint, charge) {
            self.by_age.remove(&(before.at, before.fingerprint));
        }
        self.by_age.insert((charge.at, charge.fingerprint));
        while self.charges.len() > limits.fingerprints_max {
            self.drop_oldest();
        }
    }

    fn drop_old(&mut self, at: At, limits: &BlameLimits) {
        while self.by_age.first().is_some_and(|(then, _)| at.since(*then) > limits.memory) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, fingerprint)) = self.by_age.pop_first() {
            self.charges.remove(&fingerprint);
            self.losses.forget(fingerprint);
        }
    }
}

/// For so many deaths, if it was alone at the latest or not.
fn sentence_after(deaths: u32, alone: bool, limits: &BlameLimits) -> Sentence {
    if deaths >= limits.deaths_max || (deaths > 1 && alone) {
        Sentence::Quarantine
    } else if deaths > 1 {
        Sentence::GiveUp
    } else {
        Sentence::Suspect
    }
}

#[cfg(test)]
mod law_tests;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::time::Span;

    const ONE: Fingerprint = Fingerprint(1);
    const TWO: Fingerprint = Fingerprint(2);

    #[derive(Default)]
    struct Court {
        blame: Blame,
        limits: BlameLimits,
        at: At,
        facts: Vec<BlameFact>,
    }

    impl Court {
        fn death(&mut self, present: &[Fingerprint], alone: bool, by_node: bool) -> Vec<Sentence> {
            let lost = by_node.then_some(Lost { node: NodeId(9), life: 0 });
            let charges = self.blame.died(self.at, &Death { present, alone, lost }, &self.limits);
            self.facts.extend(charges.iter().copied().map(BlameFact::Charged));
            charges.into_iter().map(|charge| charge.sentence).collect()
        }

        fn dies_alone(&mut self, fingerprint: Fingerprint) -> Sentence {
            self.death(&[fingerprint], true, false)[0]
        }

        fn dies_in_company(&mut self, fingerprint: Fingerprint) -> Sentence {
            self.death(&[fingerprint], false, false)[0]
        }

        fn isolation(&self, fingerprint: Fingerprint) -> Isolation {
            self.blame.isolation(self.at, fingerprint, &self.limits)
        }

        fn is_quarantined(&self, fingerprint: Fingerprint) -> bool {
            self.blame.is_quarantined(self.at, fingerprint, &self.limits)
        }

        fn wait(&mut self, span: Span) {
            self.at = self.at + span;
        }
    }

    #[test]
    fn all_who_were_present_at_a_death_are_suspects_and_run_alone_until_their_first_token() {
        let mut court = Court::default();
        assert_eq!(court.death(&[TWO, ONE], false, false), [Sentence::Suspect; 2]);
        assert_eq!([ONE, TWO].map(|one| court.isolation(one)), [Isolation::Lane(Hold::FirstToken); 2]);
        assert_eq!(court.isolation(Fingerprint(3)), Isolation::None);
        assert!(!court.is_quarantined(ONE));
    }

    #[test]
    fn the_death_of_a_node_isolates_on_the_node_and_a_later_one_of_a_runtime_does_not_undo_that() {
        let mut court = Court::default();
        court.death(&[ONE], false, true);
        assert_eq!(court.isolation(ONE), Isolation::Node(Hold::FirstToken));
        court.death(&[ONE, TWO], false, false);
        assert_eq!(court.isolation(ONE), Isolation::Node(Hold::End));
        assert_eq!(court.isolation(TWO), Isolation::Lane(Hold::FirstToken));
    }

    #[test]
    fn one_death_convicts_nobody_even_alone() {
        let mut court = Court::default();
        assert_eq!(court.dies_alone(ONE), Sentence::Suspect);
        assert!(!court.is_quarantined(ONE));
    }

    #[test]
    fn a_second_death_alone_quarantines() {
        let mut court = Court::default();
        court.dies_in_company(ONE);
        assert_eq!(court.dies_alone(ONE), Sentence::Quarantine);
        assert!(court.is_quarantined(ONE));
    }

    #[test]
    fn a_second_death_in_company_gives_up_and_a_later_submission_runs_alone_to_its_end() {
        let mut court = Court::default();
        court.dies_in_company(ONE);
        assert_eq!(court.dies_in_company(ONE), Sentence::GiveUp);
        assert!(!court.is_quarantined(ONE));
        assert_eq!(court.isolation(ONE), Isolation::Lane(Hold::End));
    }

    #[test]
    fn a_third_death_quarantines_alone_or_not() {
        for alone in [false, true] {
            let mut court = Court::default();
            court.dies_in_company(ONE);
            court.dies_in_company(ONE);
            assert_eq!(court.death(&[ONE], alone, false), [Sentence::Quarantine]);
        }
    }

    #[test]
    fn a_bystander_that_completes_is_cleared_and_starts_from_nothing() {
        let mut court = Court::default();
        court.death(&[ONE, TWO], false, false);
        assert_eq!(court.blame.completed(TWO), Some(BlameFact::Cleared(TWO)));
        assert_eq!(court.isolation(TWO), Isolation::None);
        assert_eq!(court.blame.completed(TWO), None, "nothing more to write down");
        court.death(&[ONE, TWO], false, false);
        assert_eq!(court.isolation(TWO), Isolation::Lane(Hold::FirstToken));
    }

    #[test]
    fn a_quarantine_outlasts_a_copy_that_completes_and_a_death_of_another_copy() {
        let mut court = Court::default();
        court.dies_alone(ONE);
        court.dies_alone(ONE);
        assert_eq!(court.blame.completed(ONE), None);
        assert_eq!(court.dies_in_company(ONE), Sentence::Quarantine);
        assert!(court.is_quarantined(ONE));
    }

    #[test]
    fn a_pardon_ends_a_quarantine() {
        let mut court = Court::default();
        court.dies_alone(ONE);
        court.dies_alone(ONE);
        assert_eq!(court.blame.pardon(ONE), Some(BlameFact::Cleared(ONE)));
        assert_eq!(court.blame.pardon(ONE), None);
        assert!(!court.is_quarantined(ONE));
        assert_eq!(court.dies_alone(ONE), Sentence::Suspect);
    }

    #[test]
    fn copies_of_one_request_at_one_death_are_charged_once_and_are_no_company() {
        let mut court = Court::default();
        court.dies_in_company(ONE);
        assert_eq!(court.death(&[ONE, ONE, ONE], true, false), [Sentence::Quarantine]);
        let charge = court.blame.charge(court.at, ONE, &court.limits).expect("charged");
        assert_eq!(charge.deaths, 2);
    }

    #[test]
    fn nobody_is_alone_beside_another() {
        let mut court = Court::default();
        court.dies_in_company(ONE);
        assert_eq!(court.death(&[ONE, TWO], true, false), [Sentence::GiveUp, Sentence::Suspect]);
    }

    #[test]
    fn a_charge_is_forgotten_a_day_after_its_latest_death() {
        let mut court = Court::default();
        court.dies_alone(ONE);
        court.wait(Span::from_s(3_600));
        court.dies_alone(ONE);
        court.wait(Span::from_s(24 * 3_600));
        assert!(court.is_quarantined(ONE));
        court.wait(Span(1));
        assert!(!court.is_quarantined(ONE));
        assert_eq!(court.isolation(ONE), Isolation::None);
        assert_eq!(court.dies_alone(ONE), Sentence::Suspect);
    }

    #[test]
    fn the_oldest_charge_makes_room_for_a_new_one() {
        let mut court = Court {
            limits: BlameLimits { fingerprints_max: 2, ..BlameLimits::default() },
            ..Court::default()
        };
        for fingerprint in [3, 1, 3, 2] {
            court.dies_in_company(Fingerprint(fingerprint));
            court.wait(Span(1));
        }
        let kept = [1, 2, 3].map(|one| court.isolation(Fingerprint(one)));
        assert_eq!(kept, [Isolation::None, Isolation::Lane(Hold::FirstToken), Isolation::Lane(Hold::End)]);
        assert_eq!((court.blame.charges.len(), court.blame.by_age.len()), (2, 2));
    }

    #[test]
    fn a_charge_is_told_whole() {
        let mut court = Court { at: At(7), ..Court::default() };
        court.death(&[ONE], false, true);
        let charge =
            Charge { fingerprint: ONE, deaths: 1, by_node: true, at: At(7), sentence: Sentence::Suspect };
        assert_eq!(court.facts, [BlameFact::Charged(charge)]);
    }

    #[test]
    fn a_new_leader_suspects_whom_the_old_one_did() {
        let mut court = Court::default();
        court.death(&[ONE, TWO], false, true);
        court.dies_alone(ONE);
        court.facts.extend(court.blame.completed(TWO));
        court.dies_in_company(Fingerprint(3));
        let mut next = Blame::default();
        next.restore(&court.facts, &court.limits);
        assert_eq!(next.charges, court.blame.charges);
        assert_eq!(next.by_age, court.blame.by_age);
        assert!(next.is_quarantined(court.at, ONE, &court.limits));
    }
}
