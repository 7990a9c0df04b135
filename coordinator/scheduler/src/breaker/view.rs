//! What people may see of a breaker: the numbers behind "why is nothing sent there". Owns the shape; refuses words.

use crate::ids::Generation;
use crate::time::At;

use super::circuit::Circuit;
use super::health::{HardKind, SoftKind};
use super::memory::Memory;
use super::moves::{BreakerState, MoveReason};

/// A breaker as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// Its state.
    pub state: BreakerState,
    /// Since when.
    pub since: At,
    /// Until when it is open at least. When that is past, it waits for its turn to be probed.
    pub until: Option<At>,
    /// How many attempts may run, in a slow start.
    pub allowed: Option<u32>,
    /// How often it has opened in all.
    pub generation: Generation,
    /// How often it has opened since it was last closed.
    pub opens: u32,
    /// What moved it last.
    pub why: Option<MoveReason>,
    /// The latest hard failure.
    pub last_hard: Option<HardKind>,
    /// The latest late answer.
    pub last_soft: Option<SoftKind>,
    /// What it remembers; nothing for a node, which remembers through its lanes.
    pub tally: Tally,
}

/// What a lane remembers of its latest attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Outcomes.
    pub outcomes: usize,
    /// Hard failures among them.
    pub hard: usize,
    /// Late answers since it was last degraded for them, or forgiven.
    pub soft: usize,
    /// Hard failures since the last complete answer.
    pub hard_in_a_row: u32,
}

impl BreakerView {
    pub(super) fn new(circuit: &Circuit, memory: Option<&Memory>) -> Self {
        Self {
            state: circuit.state(),
            since: circuit.since,
            until: circuit.until(),
            allowed: circuit.allowed(),
            generation: circuit.generation,
            opens: circuit.opens,
            why: circuit.why,
            last_hard: memory.and_then(|memory| memory.last_hard),
            last_soft: memory.and_then(|memory| memory.last_soft),
            tally: memory.map_or(Tally::default(), Memory::tally),
        }
    }
}
