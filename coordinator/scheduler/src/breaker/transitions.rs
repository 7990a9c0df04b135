//! The one place where a breaker changes its state: the change itself, the fact of it, and all that hangs on it.
//!
//! Owns the consistency of circuits, memories, the probe and the clock. Refuses to decide.

use alloc::vec::Vec;

use crate::ids::NodeId;
use crate::limits::BreakerLimits;
use crate::time::At;

use super::circuit::{Change, Circuit};
use super::{Breaker, BreakerState, Breakers, Cause, Move, MoveReason, backoff};

impl Breakers {
    pub(super) fn shift(
        &mut self,
        at: At,
        breaker: Breaker,
        change: Change,
        why: MoveReason,
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) {
        let seed = self.seed;
        let Some(circuit) = self.circuit_mut(breaker) else { return };
        let from = circuit.state();
        let opens = circuit.opens.saturating_add(1);
        circuit.change(at, change, why, backoff::open_for(breaker, opens, seed, limits));
        moves.push(circuit.moved(breaker, from, why));
        self.forgive(breaker, change);
        self.end_probe();
        self.reindex_with_lanes(breaker);
        if let (Breaker::Node(node), Change::Open(_)) = (breaker, change) {
            self.fail_probe_under(at, node, why, limits, moves);
        }
    }

    /// Evidence is used once: after an opening nothing of before counts, and lateness is judged anew after each verdict on it.
    fn forgive(&mut self, breaker: Breaker, change: Change) {
        let Breaker::Lane(lane) = breaker else { return };
        let Some(watched) = self.lanes.get_mut(&lane) else { return };
        match change {
            Change::Open(_) => watched.memory.forgive(),
            Change::Degrade | Change::Close => watched.memory.forgive_late(),
            Change::Probe | Change::SlowStart => {}
        }
    }

    /// The probe is over once its breaker has moved on.
    fn end_probe(&mut self) {
        let probing = |probe: &super::Probe| self.state(probe.breaker) == BreakerState::Probing;
        self.probe = self.probe.filter(probing);
    }

    /// A node that is shut has no lane under probe but as its own.
    fn fail_probe_under(
        &mut self,
        at: At,
        node: NodeId,
        why: MoveReason,
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) {
        if let Some(probe) = self.probe.filter(|probe| probe.lane.0 == node) {
            self.shift(at, probe.breaker, Change::Open(Cause::Hard), why, limits, moves);
        }
    }

    pub(super) fn reindex_with_lanes(&mut self, breaker: Breaker) {
        self.reindex(breaker);
        if let Breaker::Node(node) = breaker {
            let lanes: Vec<_> = self.lanes_of(node).map(|(lane, _)| lane).collect();
            lanes.into_iter().for_each(|lane| self.reindex(Breaker::Lane(lane)));
        }
    }

    /// Sets the clock for a breaker by what is true of it.
    pub(super) fn reindex(&mut self, breaker: Breaker) {
        let due_at = self.due_at(breaker);
        let Some(circuit) = self.circuit_mut(breaker) else { return };
        let before = core::mem::replace(&mut circuit.timer, due_at);
        if let Some(at) = before {
            self.due.remove(&(at, breaker));
        }
        if let Some(at) = due_at {
            self.due.insert((at, breaker));
        }
    }

    /// When an open breaker may be probed: a lane that is there, on a node that is not shut itself; a node with any lane.
    pub(super) fn due_at(&self, breaker: Breaker) -> Option<At> {
        let can_be_probed = match breaker {
            Breaker::Lane(lane) => {
                self.lanes.get(&lane).is_some_and(|watched| watched.resident)
                    && self.cause(Breaker::Node(lane.0)).is_none()
            }
            Breaker::Node(node) => self.lanes_of(node).any(|(_, watched)| watched.resident),
        };
        self.circuit(breaker).filter(|_| can_be_probed)?.until()
    }

    /// What was never watched is closed.
    pub(super) fn state(&self, breaker: Breaker) -> BreakerState {
        self.circuit(breaker).map_or(BreakerState::Closed, Circuit::state)
    }

    /// Why it is not trusted; `None` while it is, or is on trial.
    pub(super) fn cause(&self, breaker: Breaker) -> Option<Cause> {
        self.circuit(breaker).and_then(Circuit::cause)
    }

    pub(super) fn circuit(&self, breaker: Breaker) -> Option<&Circuit> {
        match breaker {
            Breaker::Lane(lane) => self.lanes.get(&lane).map(|watched| &watched.circuit),
            Breaker::Node(node) => self.nodes.get(&node).map(|watched| &watched.circuit),
        }
    }

    pub(super) fn circuit_mut(&mut self, breaker: Breaker) -> Option<&mut Circuit> {
        match breaker {
            Breaker::Lane(lane) => self.lanes.get_mut(&lane).map(|watched| &mut watched.circuit),
            Breaker::Node(node) => self.nodes.get_mut(&node).map(|watched| &mut watched.circuit),
        }
    }
}
