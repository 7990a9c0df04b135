//! Laws over random histories of a room in which two of six requests kill every runtime they run on, sooner or later.
//!
//! The room isolates as it is told. What must hold then: no submission takes more than two runtimes, no request more than
//! three, every killer is quarantined in the end, and nobody else ever is.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LANES: usize = 3;
const KILLERS: [u64; 2] = [1, 2];
const ALL: u64 = 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client submits it, or its retry comes up; on this lane, if it may.
    Start(u64, usize),
    FirstToken(u64),
    /// Innocent ones only.
    Complete(u64),
    /// The runtime dies, if a killer is on it.
    Kill(usize),
    HandOver,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    lane: usize,
    began: bool,
    isolation: Isolation,
}

#[derive(Debug, Default)]
struct Room {
    blame: Blame,
    limits: BlameLimits,
    at: At,
    facts: Vec<BlameFact>,
    runs: BTreeMap<u64, Run>,
    /// Deaths of the present submission of each, and of all since it was cleared.
    of_submission: BTreeMap<u64, u32>,
    of_all: BTreeMap<u64, u32>,
    quarantined: BTreeSet<u64>,
}

impl Room {
    fn step(&mut self, step: Step) {
        self.at = At(self.at.0 + 1);
        match step {
            Step::Start(one, lane) => self.start(one, lane),
            Step::FirstToken(one) => {
                if let Some(run) = self.runs.get_mut(&one) {
                    run.began = true;
                }
            }
            Step::Complete(one) if !KILLERS.contains(&one) => self.complete(one),
            Step::Complete(_) => {}
            Step::Kill(lane) => self.kill(lane),
            Step::HandOver => {
                self.blame = Blame::default();
                self.blame.restore(&self.facts, &self.limits);
            }
        }
    }

    fn start(&mut self, one: u64, lane: usize) {
        let refused = self.blame.is_quarantined(self.at, Fingerprint(one), &self.limits);
        assert_eq!(refused, self.quarantined.contains(&one), "a quarantine is known at every submission");
        let isolation = self.blame.isolation(self.at, Fingerprint(one), &self.limits);
        let mut there = self.runs.values().filter(|run| run.lane == lane).peekable();
        let empty = there.peek().is_none();
        let joinable = there.all(|run| match run.isolation {
            Isolation::None => true,
            Isolation::Lane(Hold::FirstToken) | Isolation::Node(Hold::FirstToken) => run.began,
            Isolation::Lane(Hold::End) | Isolation::Node(Hold::End) => false,
        });
        let fits = if isolation == Isolation::None { joinable } else { empty };
        if !refused && fits && !self.runs.contains_key(&one) {
            self.runs.insert(one, Run { lane, began: false, isolation });
        }
    }

    fn complete(&mut self, one: u64) {
        if self.runs.remove(&one).is_some() {
            self.facts.extend(self.blame.completed(Fingerprint(one)));
            assert_eq!(self.blame.charge(self.at, Fingerprint(one), &self.limits), None);
            self.of_submission.remove(&one);
            self.of_all.remove(&one);
        }
    }

    fn kill(&mut self, lane: usize) {
        let present: Vec<u64> =
            self.runs.iter().filter(|(_, run)| run.lane == lane).map(|(one, _)| *one).collect();
        if !present.iter().any(|one| KILLERS.contains(one)) {
            return;
        }
        let fingerprints: Vec<Fingerprint> = present.iter().map(|one| Fingerprint(*one)).collect();
        let death = Death { present: &fingerprints, alone: present.len() == 1, lost: None };
        for charge in self.blame.died(self.at, &death, &self.limits) {
            self.facts.push(BlameFact::Charged(charge));
            self.sentenced(charge);
        }
    }

    fn sentenced(&mut self, charge: Charge) {
        let one = charge.fingerprint.0;
        self.runs.remove(&one);
        let (of_submission, of_all) =
            (self.of_submission.entry(one).or_default(), self.of_all.entry(one).or_default());
        *of_submission += 1;
        *of_all += 1;
        assert_eq!(charge.deaths, *of_all);
        assert!(*of_submission <= 2, "{one} took a third runtime without being refused");
        assert!(*of_all <= 3, "{one} took {of_all} runtimes");
        match charge.sentence {
            Sentence::Suspect => assert_eq!(*of_all, 1, "{one} would run a third time"),
            Sentence::GiveUp => drop(self.of_submission.remove(&one)),
            Sentence::Quarantine => {
                assert!(KILLERS.contains(&one), "{one} was only ever near");
                self.quarantined.insert(one);
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..=ALL, 0..LANES).prop_map(|(one, lane)| Step::Start(one, lane)),
        4 => (1..=ALL).prop_map(Step::FirstToken),
        3 => (1..=ALL).prop_map(Step::Complete),
        2 => (0..LANES).prop_map(Step::Kill),
        1 => Just(Step::HandOver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn killers_are_stopped_and_bystanders_are_spared(steps in proptest::collection::vec(steps(), 1..200)) {
        let mut room = Room::default();
        steps.into_iter().for_each(|step| room.step(step));
        // Once they are tried one by one, each killer is found.
        for one in 1..=ALL {
            room.complete(one);
        }
        for killer in KILLERS {
            for lane in 0..LANES {
                room.kill(lane);
            }
            for _ in 0..3 {
                room.step(Step::Start(killer, 0));
                room.step(Step::Kill(0));
            }
        }
        prop_assert_eq!(room.quarantined, BTreeSet::from(KILLERS));
    }
}
