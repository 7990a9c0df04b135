//! What outlives a leader: the scheduler's facts as the registry keeps them, and back.
//!
//! Owns the translation in both directions, with names for numbers and times that mean the same to another process. Refuses to
//! decide: what a fact means is the scheduler's, what may be kept is the registry's.
//!
//! The registry numbers the moves of a breaker, one more with each; the scheduler numbers a breaker's lives, and one life has
//! several moves. So moves are numbered here, never below the life, and the last number is the life that a later leader
//! begins with.

use std::collections::BTreeMap;

use registry::{Command, ModelName, Registry};
use scheduler::{
    BlameFact, BlameLimits, Breaker, BreakerState, Cause, Charge, Fact, Fingerprint, Generation, HardKind,
    Move, MoveReason, NodeId, Sentence, SoftKind,
};

use super::names::Names;
use crate::clock::Clock;

/// Writes facts down.
pub(super) struct Scribe {
    clock: Clock,
    blame_memory_ms: u64,
    /// The number of each breaker's latest move.
    moves: BTreeMap<Breaker, u32>,
}

impl Scribe {
    pub(super) fn new(clock: Clock, limits: &BlameLimits) -> Self {
        Self { clock, blame_memory_ms: limits.memory.0 / 1_000, moves: BTreeMap::new() }
    }

    /// What an earlier leader wrote down, to be told before anything else. The memory that is reserved on a node follows with
    /// its first report ([`homes`]): without a budget there is nothing to reserve.
    pub(super) fn recall(&mut self, registry: &Registry, names: &mut Names, now_unix_ms: u64) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (node, model, moved) in registry.breakers() {
            let node = NodeId(node.0);
            let breaker = model
                .map_or(Breaker::Node(node), |model| Breaker::Lane((node, names.number(model.as_str()))));
            self.moves.insert(breaker, moved.generation);
            facts.push(Fact::Breaker(self.moved(breaker, moved)));
        }
        facts.extend(
            self.charges(registry, now_unix_ms).map(|charge| Fact::Blame(BlameFact::Charged(charge))),
        );
        facts
    }

    /// The commands that keep a fact; `node` is where a runtime just died.
    pub(super) fn commands(&mut self, fact: &Fact, node: Option<NodeId>, names: &Names) -> Vec<Command> {
        match fact {
            Fact::Breaker(step) => self.move_breaker(step, names).into_iter().collect(),
            Fact::Blame(BlameFact::Charged(charge)) => self.charge(charge, node),
            Fact::Blame(BlameFact::Cleared(fingerprint)) => {
                vec![Command::PardonRequest { fingerprint: registry::Fingerprint(fingerprint.0) }]
            }
            // The registry knows it from the reservation.
            Fact::Home { .. } => Vec::new(),
        }
    }

    fn move_breaker(&mut self, step: &Move, names: &Names) -> Option<Command> {
        let (node, model) = match step.breaker {
            Breaker::Lane((node, model)) => (node, Some(ModelName::new(names.name(model)).ok()?)),
            Breaker::Node(node) => (node, None),
        };
        let last = self.moves.entry(step.breaker).or_default();
        *last = last.saturating_add(1).max(step.generation.0);
        Some(Command::MoveBreaker {
            node: registry::NodeId(node.0),
            model,
            state: kept_state(step.to),
            generation: *last,
            opens: step.opens,
            until_unix_ms: step.until.map(|until| self.clock.unix_ms_of(until)),
            why: step.why.words().to_owned(),
            at_unix_ms: self.clock.unix_ms_of(step.at),
        })
    }

    fn charge(&self, charge: &Charge, node: Option<NodeId>) -> Vec<Command> {
        let (fingerprint, at_unix_ms) =
            (registry::Fingerprint(charge.fingerprint.0), self.clock.unix_ms_of(charge.at));
        let death = node.map(|node| {
            let node = registry::NodeId(node.0);
            Command::ChargeDeath { fingerprint, node, at_unix_ms }
        });
        let quarantine = (charge.sentence == Sentence::Quarantine).then(|| {
            let until_unix_ms = at_unix_ms.saturating_add(self.blame_memory_ms);
            Command::QuarantineRequest { fingerprint, at_unix_ms, until_unix_ms }
        });
        death.into_iter().chain(quarantine).collect()
    }

    fn moved(&self, breaker: Breaker, moved: &registry::Breaker) -> Move {
        let (state, why) = (state(moved.state), reason(&moved.why));
        Move {
            breaker,
            from: state,
            to: state,
            generation: Generation(moved.generation),
            at: self.clock.of_unix_ms(moved.at_unix_ms),
            until: moved.until_unix_ms.map(|until| self.clock.of_unix_ms(until)),
            cause: Some(cause(why)),
            opens: moved.opens,
            why,
        }
    }

    /// The charges that still stand, each as its deaths and the registry's quarantine say.
    fn charges(&self, registry: &Registry, now_unix_ms: u64) -> impl Iterator<Item = Charge> {
        let charges = registry.charges().filter_map(move |(fingerprint, charge)| {
            let last_unix_ms = charge.deaths().last()?.at_unix_ms;
            let stands = now_unix_ms.saturating_sub(last_unix_ms) <= self.blame_memory_ms;
            let deaths = u32::try_from(registry.deaths(fingerprint)).unwrap_or(u32::MAX);
            let sentence = match registry.quarantined(fingerprint, now_unix_ms) {
                Some(_) => Sentence::Quarantine,
                None if deaths > 1 => Sentence::GiveUp,
                None => Sentence::Suspect,
            };
            let (fingerprint, at) = (Fingerprint(fingerprint.0), self.clock.of_unix_ms(last_unix_ms));
            stands.then_some(Charge { fingerprint, deaths, by_node: false, at, sentence })
        });
        charges.collect::<Vec<_>>().into_iter()
    }
}

/// The memory that is reserved on a node.
pub(super) fn homes(registry: &Registry, node: NodeId, names: &mut Names) -> Vec<Fact> {
    let placed = registry.placed_on(registry::NodeId(node.0));
    placed
        .map(|(model, placement)| {
            let model = names.number(model.as_str());
            Fact::Home { node, model, bytes: placement.bytes }
        })
        .collect()
}

fn kept_state(state: BreakerState) -> registry::BreakerState {
    match state {
        BreakerState::Closed => registry::BreakerState::Closed,
        BreakerState::Degraded => registry::BreakerState::Degraded,
        BreakerState::Open => registry::BreakerState::Open,
        BreakerState::Probing => registry::BreakerState::Probing,
        BreakerState::SlowStart => registry::BreakerState::SlowStart,
    }
}

fn state(kept: registry::BreakerState) -> BreakerState {
    match kept {
        registry::BreakerState::Closed => BreakerState::Closed,
        registry::BreakerState::Degraded => BreakerState::Degraded,
        registry::BreakerState::Open => BreakerState::Open,
        registry::BreakerState::Probing => BreakerState::Probing,
        registry::BreakerState::SlowStart => BreakerState::SlowStart,
    }
}

/// The reasons that a later leader tells apart, found by their words; words of another version are a failure in general.
fn reason(words: &str) -> MoveReason {
    let hard = [
        HardKind::RuntimeExit,
        HardKind::Reset,
        HardKind::Hang,
        HardKind::CorruptFrame,
        HardKind::CanaryMismatch,
        HardKind::NodeLost,
    ];
    let soft = [SoftKind::FirstTokenLate, SoftKind::TokensLate];
    let others = [
        MoveReason::InTime,
        MoveReason::TurnCame,
        MoveReason::CanaryFailed,
        MoveReason::Vanished,
        MoveReason::ProbeAnswered,
        MoveReason::ProbeTimeOver,
        MoveReason::UpToSpeed,
        MoveReason::LanesOpen,
        MoveReason::Flapping,
        MoveReason::LastResort,
    ];
    let reasons = hard.map(MoveReason::Failure).into_iter().chain(soft.map(MoveReason::Late)).chain(others);
    let mut meant = reasons.filter(|reason| reason.words() == words);
    meant.next().unwrap_or(MoveReason::Failure(HardKind::Reset))
}

fn cause(why: MoveReason) -> Cause {
    match why {
        MoveReason::Late(_) | MoveReason::StillLate(_) => Cause::Soft,
        MoveReason::Failure(_)
        | MoveReason::FailuresInARow(_)
        | MoveReason::FailureShare(_)
        | MoveReason::InTime
        | MoveReason::TurnCame
        | MoveReason::CanaryFailed
        | MoveReason::Vanished
        | MoveReason::ProbeAnswered
        | MoveReason::ProbeTimeOver
        | MoveReason::UpToSpeed
        | MoveReason::LanesOpen
        | MoveReason::Flapping
        | MoveReason::LastResort => Cause::Hard,
    }
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
