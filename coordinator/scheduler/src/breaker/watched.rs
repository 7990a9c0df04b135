//! What is kept of a lane and of a node: a breaker, and the evidence it is moved by.
//!
//! Owns the rules by which evidence moves the breaker of a lane that is trusted. Refuses to carry the moves out.

use alloc::collections::VecDeque;

use crate::ids::Generation;
use crate::limits::BreakerLimits;
use crate::time::At;

use super::circuit::{Change, Circuit, Phase};
use super::memory::Memory;
use super::{Cause, Ending, Health, MoveReason};

#[derive(Debug)]
pub(super) struct WatchedLane {
    pub(super) circuit: Circuit,
    pub(super) memory: Memory,
    /// Whether the node holds the model, so that it can be probed.
    pub(super) resident: bool,
}

#[derive(Debug)]
pub(super) struct WatchedNode {
    pub(super) circuit: Circuit,
    /// The latest times it was lost.
    pub(super) losses: VecDeque<At>,
}

impl WatchedLane {
    pub(super) fn new(generation: Generation) -> Self {
        Self { circuit: Circuit::new(generation), memory: Memory::default(), resident: false }
    }

    /// Remembers how an attempt ended, and says what the breaker must do about it. One that is on trial is judged by that
    /// attempt alone, unless it is late again and again.
    pub(super) fn tell(
        &mut self,
        at: At,
        ending: &Ending,
        dispensable: bool,
        limits: &BreakerLimits,
    ) -> Option<(Change, MoveReason)> {
        let tried = self.circuit.tried(ending.health, ending.width);
        let judged = self.judge(at, ending, dispensable, limits);
        tried.or(judged)
    }

    /// Whether it is open for failures: one that is gone, no longer than its time.
    pub(super) fn fails(&self, at: At) -> bool {
        let lasts = self.resident || self.circuit.until().is_some_and(|until| until > at);
        lasts && self.circuit.cause() == Some(Cause::Hard)
    }

    fn judge(
        &mut self,
        at: At,
        ending: &Ending,
        dispensable: bool,
        limits: &BreakerLimits,
    ) -> Option<(Change, MoveReason)> {
        match ending.health {
            Health::Hard(kind) => {
                self.calm(0);
                let why = self.memory.failed(at, ending.request, kind, limits)?;
                Some((Change::Open(Cause::Hard), why))
            }
            Health::Soft(kind) => {
                self.calm(0);
                let too_many = self.memory.late(at, kind, limits);
                match self.circuit.phase {
                    Phase::Closed | Phase::SlowStart { .. } if too_many => {
                        Some((Change::Degrade, MoveReason::Late(kind)))
                    }
                    Phase::Degraded { .. } if too_many && dispensable => {
                        Some((Change::Open(Cause::Soft), MoveReason::StillLate(kind)))
                    }
                    Phase::Closed
                    | Phase::Degraded { .. }
                    | Phase::Open { .. }
                    | Phase::Probing { .. }
                    | Phase::SlowStart { .. } => None,
                }
            }
            Health::Success => {
                self.memory.succeeded(at, limits);
                let Phase::Degraded { calm } = self.circuit.phase else { return None };
                let calm = calm.saturating_add(1);
                self.calm(calm);
                (calm >= limits.recovery_successes).then_some((Change::Close, MoveReason::InTime))
            }
        }
    }

    fn calm(&mut self, answers: u32) {
        if let Phase::Degraded { calm } = &mut self.circuit.phase {
            *calm = answers;
        }
    }
}

impl WatchedNode {
    pub(super) fn new() -> Self {
        Self { circuit: Circuit::new(Generation::default()), losses: VecDeque::new() }
    }

    /// Returns whether it is lost too often.
    pub(super) fn lost(&mut self, at: At, limits: &BreakerLimits) -> bool {
        self.losses.push_back(at);
        let old = |then: &At| at.since(*then) > limits.node_losses_window;
        while self.losses.len() > limits.node_losses || self.losses.front().is_some_and(old) {
            self.losses.pop_front();
        }
        self.losses.len() >= limits.node_losses
    }
}
