//! Facts on their way into the registry and back.

use registry::Reply;
use scheduler::At;

use super::*;
use crate::wire::tests::founded;

struct Desk {
    registry: Registry,
    node: NodeId,
    names: Names,
    scribe: Scribe,
}

/// One node that offers the models `a` and `b`.
fn desk() -> Desk {
    let (mut registry, node) = founded();
    for name in ["a", "b"] {
        let model = ModelName::new(name).expect("a name");
        let want = Command::WantModel { node, model, source: registry::ModelSource::Demo };
        assert_eq!(registry.apply(&want), Reply::Done);
    }
    let mut names = Names::default();
    for name in ["a", "b"] {
        names.number(name);
    }
    let scribe = Scribe::new(Clock::start(), &BlameLimits::default());
    Desk { registry, node: NodeId(node.0), names, scribe }
}

impl Desk {
    fn keep(&mut self, fact: Fact) {
        for command in self.scribe.commands(&fact, Some(self.node), &self.names) {
            assert_eq!(self.registry.apply(&command), Reply::Done, "{command:?}");
        }
    }

    /// What a later leader is told, in another process.
    fn recalled(&self, now_unix_ms: u64) -> Vec<Fact> {
        let mut names = Names::default();
        for name in ["a", "b"] {
            names.number(name);
        }
        let mut scribe = Scribe::new(self.scribe.clock, &BlameLimits::default());
        scribe.recall(&self.registry, &mut names, now_unix_ms)
    }

    fn now(&self) -> u64 {
        self.scribe.clock.unix_ms_of(At(10_000_000))
    }
}

fn step(breaker: Breaker, to: BreakerState, generation: u32, why: MoveReason) -> Move {
    Move {
        breaker,
        from: BreakerState::Closed,
        to,
        generation: Generation(generation),
        at: At(3_000_000),
        until: (to == BreakerState::Open).then_some(At(8_000_000)),
        cause: Some(cause(why)),
        opens: 1,
        why,
    }
}

#[test]
fn a_breaker_that_opened_is_open_for_the_next_leader_until_the_same_time() {
    let mut desk = desk();
    for breaker in [Breaker::Lane((desk.node, scheduler::ModelId(1))), Breaker::Node(desk.node)] {
        let opened = step(breaker, BreakerState::Open, 1, MoveReason::Failure(HardKind::Hang));
        desk.keep(Fact::Breaker(opened));
        let told = Fact::Breaker(Move { from: BreakerState::Open, ..opened });
        assert!(desk.recalled(desk.now()).contains(&told));
    }
}

#[test]
fn every_move_of_one_life_is_kept_and_the_next_life_is_later() {
    let mut desk = desk();
    let breaker = Breaker::Lane((desk.node, scheduler::ModelId(0)));
    let hang = MoveReason::Failure(HardKind::Hang);
    let story = [
        (BreakerState::Open, 1, hang),
        (BreakerState::Probing, 1, MoveReason::TurnCame),
        (BreakerState::SlowStart, 1, MoveReason::ProbeAnswered),
        (BreakerState::Closed, 1, MoveReason::UpToSpeed),
        (BreakerState::Open, 2, hang),
    ];
    for (to, generation, why) in story {
        desk.keep(Fact::Breaker(step(breaker, to, generation, why)));
    }
    let [Fact::Breaker(last)] = desk.recalled(desk.now())[..] else { panic!("one breaker") };
    assert_eq!((last.to, last.generation), (BreakerState::Open, Generation(5)));
    // A later leader goes on counting from there.
    let mut names = Names::default();
    let mut scribe = Scribe::new(desk.scribe.clock, &BlameLimits::default());
    scribe.recall(&desk.registry, &mut names, desk.now());
    let probing = step(breaker, BreakerState::Probing, 5, MoveReason::TurnCame);
    let [command] = &scribe.commands(&Fact::Breaker(probing), None, &desk.names)[..] else { panic!("one") };
    assert_eq!(desk.registry.apply(command), Reply::Done);
}

fn charge(deaths: u32, sentence: Sentence, at: At) -> Charge {
    Charge { fingerprint: Fingerprint(7), deaths, by_node: false, at, sentence }
}

#[test]
fn a_charged_request_is_charged_for_the_next_leader_and_a_cleared_one_is_not() {
    let mut desk = desk();
    let charges = [
        charge(1, Sentence::Suspect, At(1_000_000)),
        charge(2, Sentence::GiveUp, At(2_000_000)),
        charge(3, Sentence::Quarantine, At(3_000_000)),
    ];
    for charged in charges {
        desk.keep(Fact::Blame(BlameFact::Charged(charged)));
        assert_eq!(desk.recalled(desk.now()), [Fact::Blame(BlameFact::Charged(charged))]);
    }
    desk.keep(Fact::Blame(BlameFact::Cleared(Fingerprint(7))));
    assert_eq!(desk.recalled(desk.now()), []);
}

#[test]
fn a_charge_is_forgotten_after_a_day() {
    let mut desk = desk();
    desk.keep(Fact::Blame(BlameFact::Charged(charge(1, Sentence::Suspect, At(0)))));
    let day_ms = BlameLimits::default().memory.0 / 1_000;
    let then = desk.scribe.clock.unix_ms_of(At(0));
    assert_eq!(desk.recalled(then + day_ms).len(), 1);
    assert_eq!(desk.recalled(then + day_ms + 1), []);
}

#[test]
fn what_is_placed_is_told_as_a_home() {
    let mut desk = desk();
    let (node, model) = (registry::NodeId(desk.node.0), ModelName::new("b").expect("a name"));
    desk.registry.apply(&Command::SetBudget { node, bytes: 100 });
    desk.registry.apply(&Command::PlaceModel { node, model, bytes: 60 });
    let home = Fact::Home { node: desk.node, model: scheduler::ModelId(1), bytes: 60 };
    assert_eq!(homes(&desk.registry, desk.node, &mut desk.names), [home]);
}

#[test]
fn words_of_another_version_are_a_failure_in_general() {
    assert_eq!(reason("the moon is full"), MoveReason::Failure(HardKind::Reset));
    for known in [MoveReason::LanesOpen, MoveReason::Late(SoftKind::TokensLate), MoveReason::CanaryFailed] {
        assert_eq!(reason(known.words()), known);
    }
}
