//! The one probe of the cluster: whose turn it is, what it has to pass, and when it has had enough time.
//!
//! Owns the probe. There is one place for it, so there is never a second one. A probe has two steps: a canary (a fixed short
//! prompt, greedy, with a known answer), which the shell runs, and then one real request, which is dispatched like any other.
//! Refuses to wait for ever for either:
//!
//! 1. A canary that takes too long has failed.
//! 2. When the real request does not come, or does not end, the lane goes on to its slow start, which is as strict (one at a
//!    time, and the first failure opens it again) but leaves the probe to the next in line. Nothing is counted as a success.
//!
//! A node is probed by one of its lanes: the first that is not open itself, so that one broken model does not keep the
//! others of its Mac shut; else the first. An open lane that is probed for its node is probed for itself too.

use alloc::vec::Vec;

use crate::ids::{Generation, Lane, NodeId};
use crate::limits::BreakerLimits;
use crate::time::At;

use super::circuit::Change;
use super::{Breaker, BreakerState, Breakers, Cause, HardKind, Move, MoveReason};

/// The number of a probe, to tell its answer from a late one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeNumber(pub u64);

/// Run the canary on this lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOrder {
    /// Where.
    pub lane: Lane,
    /// The lane's life.
    pub generation: Generation,
    /// To be said with the answer.
    pub number: ProbeNumber,
}

/// What became of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The known answer came, complete.
    Passed,
    /// Another answer came.
    Mismatch,
    /// No complete answer came.
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// For whom.
    pub(super) breaker: Breaker,
    /// Where.
    pub(super) lane: Lane,
    number: ProbeNumber,
    pub(super) step: Step,
    /// When the step has had enough time.
    pub(super) until: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Canary,
    Request {
        /// It was dispatched.
        taken: bool,
    },
}

impl Probe {
    /// Whether it decides what the lane may be given: its own lane, and every lane of a node that is probed.
    pub(super) fn covers(&self, lane: Lane) -> bool {
        self.lane == lane || self.breaker == Breaker::Node(lane.0)
    }
}

impl Breakers {
    /// Whose turn it is to be probed, the longest due first. To be called after every fact and at every deadline: it is also
    /// what ends a probe that takes too long.
    pub(crate) fn due(
        &mut self,
        at: At,
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) -> Option<ProbeOrder> {
        self.expire_probe(at, limits, moves);
        if self.probe.is_some() {
            return None;
        }
        let (_, breaker) = self.due.first().copied().filter(|(until, _)| *until <= at)?;
        let lane = match breaker {
            Breaker::Lane(lane) => lane,
            Breaker::Node(node) => self.lane_to_probe(node)?,
        };
        self.probes = self.probes.saturating_add(1);
        let number = ProbeNumber(self.probes);
        self.shift(at, breaker, Change::Probe, MoveReason::TurnCame, limits, moves);
        if self.state(Breaker::Lane(lane)) == BreakerState::Open {
            self.shift(at, Breaker::Lane(lane), Change::Probe, MoveReason::TurnCame, limits, moves);
        }
        self.probe = Some(Probe { breaker, lane, number, step: Step::Canary, until: at + limits.canary_max });
        Some(ProbeOrder { lane, generation: self.generation(lane), number })
    }

    /// The canary that is under way, to be ordered again from a shell that lost it.
    pub(crate) fn ordered(&self) -> Option<ProbeOrder> {
        let probe = self.probe.filter(|probe| probe.step == Step::Canary)?;
        Some(ProbeOrder { lane: probe.lane, generation: self.generation(probe.lane), number: probe.number })
    }

    /// What became of the canary of a probe. An answer to another one is late, and ignored.
    pub(crate) fn probed(
        &mut self,
        at: At,
        number: ProbeNumber,
        result: ProbeResult,
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) {
        let canary = |probe: &&mut Probe| probe.number == number && probe.step == Step::Canary;
        let Some(probe) = self.probe.as_mut().filter(canary) else { return };
        match result {
            ProbeResult::Passed => {
                probe.step = Step::Request { taken: false };
                probe.until = at + limits.probe_request_max;
            }
            ProbeResult::Failed => self.fail_probe(at, MoveReason::CanaryFailed, limits, moves),
            ProbeResult::Mismatch => {
                let (lane, why) = (Breaker::Lane(probe.lane), MoveReason::Failure(HardKind::CanaryMismatch));
                self.fail_probe(at, why, limits, moves);
                // A lane that stood for its node may not have been probed for itself, but is broken all the same.
                if self.state(lane) != BreakerState::Open {
                    self.shift(at, lane, Change::Open(Cause::Hard), why, limits, moves);
                }
            }
        }
    }

    /// An attempt is on its way to the lane. Returns the life to keep with it.
    pub(crate) fn dispatched(&mut self, lane: Lane) -> Generation {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.lane == lane) {
            probe.take();
        }
        self.generation(lane)
    }

    /// An attempt of that life ended without a word on the lane's health ("busy", or the client's doing). If it was the one
    /// real request of the probe, another may come, in what is left of the time.
    pub(crate) fn released(&mut self, lane: Lane, generation: Generation) {
        let current = generation == self.generation(lane);
        if let Some(probe) = self.probe.as_mut().filter(|probe| current && probe.lane == lane) {
            probe.give_back();
        }
    }

    /// The probe shows that its lane, or its node, is not to be trusted yet.
    pub(super) fn fail_probe(
        &mut self,
        at: At,
        why: MoveReason,
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) {
        self.conclude_probe(at, Change::Open(Cause::Hard), why, limits, moves);
    }

    fn expire_probe(&mut self, at: At, limits: &BreakerLimits, moves: &mut Vec<Move>) {
        let Some(probe) = self.probe.filter(|probe| probe.until <= at) else { return };
        match probe.step {
            Step::Canary => self.fail_probe(at, MoveReason::CanaryFailed, limits, moves),
            Step::Request { .. } => {
                self.conclude_probe(at, Change::SlowStart, MoveReason::ProbeTimeOver, limits, moves);
            }
        }
    }

    /// For all whom it was for: a lane, or a node and the lane that stood for it if that was open too.
    fn conclude_probe(
        &mut self,
        at: At,
        change: Change,
        why: MoveReason,
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) {
        let Some(probe) = self.probe else { return };
        for breaker in [Breaker::Lane(probe.lane), probe.breaker] {
            if self.state(breaker) == BreakerState::Probing {
                self.shift(at, breaker, change, why, limits, moves);
            }
        }
    }

    fn lane_to_probe(&self, node: NodeId) -> Option<Lane> {
        let there = self.lanes_of(node).filter(|(_, watched)| watched.resident);
        let best = there.min_by_key(|(lane, watched)| (watched.circuit.cause().is_some(), *lane))?;
        Some(best.0)
    }
}

impl Probe {
    fn take(&mut self) {
        if let Step::Request { taken } = &mut self.step {
            *taken = true;
        }
    }

    fn give_back(&mut self) {
        if let Step::Request { taken } = &mut self.step {
            *taken = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::Admission;
    use crate::breaker::rig_tests::*;
    use crate::time::Span;

    const TWO: Lane = (NodeId(2), crate::ids::ModelId(2));
    const UNTAKEN: Admission = Admission::OneProbeRequest { taken: false };
    const TAKEN: Admission = Admission::OneProbeRequest { taken: true };

    /// OTHER opened a second after A; both are due.
    fn two_due() -> Rig {
        let mut rig = Rig::new();
        rig.end(A, HANG);
        rig.wait(Span::from_s(1));
        rig.end(OTHER, HANG);
        rig.wait(Span::from_s(60));
        rig
    }

    #[test]
    fn lanes_are_probed_one_after_another_the_longest_due_first() {
        let mut rig = two_due();
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(A));
        assert_eq!(rig.due_in(9), None);
        rig.probed(ProbeResult::Passed);
        assert_eq!(rig.due_in(0), None, "the real request is part of the probe");
        rig.breakers.dispatched(A);
        assert_eq!(rig.due_in(9), None);
        rig.end(A, SUCCESS);
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(OTHER));
    }

    #[test]
    fn a_lane_under_probe_is_given_one_request_and_no_second_one() {
        let mut rig = two_due();
        rig.due_in(0).expect("its turn");
        assert_eq!(rig.gate(A), Admission::Shut { until: rig.at + rig.limits.canary_max });
        rig.probed(ProbeResult::Passed);
        assert_eq!(rig.gate(A), UNTAKEN);
        let generation = rig.breakers.dispatched(A);
        assert_eq!(rig.gate(A), TAKEN);
        rig.breakers.released(A, Generation(generation.0 - 1));
        assert_eq!(rig.gate(A), TAKEN, "an attempt of before does not give back what it never had");
        rig.breakers.released(A, generation);
        assert_eq!(rig.gate(A), UNTAKEN);
        assert_eq!(rig.state(A), BreakerState::Probing, "a request that says nothing proves nothing");
    }

    #[test]
    fn nothing_is_a_success_before_its_end() {
        let mut rig = two_due();
        rig.due_in(0).expect("its turn");
        rig.probed(ProbeResult::Passed);
        rig.reasons();
        rig.breakers.dispatched(A);
        assert_eq!(rig.reasons(), []);
        assert_eq!((rig.state(A), rig.gate(A)), (BreakerState::Probing, TAKEN));
    }

    #[test]
    fn a_canary_that_takes_too_long_has_failed() {
        let mut rig = two_due();
        rig.due_in(0).expect("its turn");
        rig.wait(rig.limits.canary_max.less(Span(1)));
        assert_eq!(rig.due_in(0), None);
        rig.wait(Span(1));
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(OTHER));
        assert_eq!(rig.open_s(Breaker::Lane(A)), Some(10));
    }

    #[test]
    fn a_lane_that_nobody_wants_gives_up_the_probe_and_starts_slowly() {
        let mut rig = two_due();
        rig.due_in(0).expect("its turn");
        rig.probed(ProbeResult::Passed);
        assert_eq!(rig.due_in(10).map(|order| order.lane), Some(OTHER));
        assert_eq!(rig.gate(A), Admission::Limited { allowed: 1 });
        assert!(rig.reasons().contains(&MoveReason::ProbeTimeOver));
    }

    #[test]
    fn a_long_answer_gives_up_the_probe_but_counts_only_at_its_end() {
        let mut rig = two_due();
        rig.due_in(0).expect("its turn");
        rig.probed(ProbeResult::Passed);
        rig.breakers.dispatched(A);
        rig.due_in(10).expect("the next one's turn");
        assert_eq!(rig.gate(A), Admission::Limited { allowed: 1 });
        rig.wait(Span::from_s(100));
        rig.end(A, SUCCESS);
        assert_eq!(rig.gate(A), Admission::Limited { allowed: 2 });
        rig.end(A, HANG);
        assert_eq!(rig.view(Breaker::Lane(A)).opens, 2);
    }

    #[test]
    fn requests_that_come_and_go_do_not_hold_the_probe_for_ever() {
        let mut rig = two_due();
        rig.due_in(0).expect("its turn");
        rig.probed(ProbeResult::Passed);
        for _ in 0..10 {
            assert_eq!(rig.breakers.next_deadline().map(|(at, _)| at), Some(At(71_000_000)));
            let generation = rig.breakers.dispatched(A);
            rig.wait(Span::from_s(1));
            rig.breakers.released(A, generation);
        }
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(OTHER));
    }

    #[test]
    fn the_answer_to_an_old_canary_is_ignored() {
        let mut rig = two_due();
        let old = rig.due_in(0).expect("its turn");
        let next = rig.due_in(10).expect("the next one's turn");
        for result in [ProbeResult::Passed, ProbeResult::Mismatch, ProbeResult::Failed] {
            rig.breakers.probed(rig.at, old.number, result, &rig.limits, &mut rig.moves);
            assert_eq!(rig.state(A), BreakerState::Open);
            assert_eq!(rig.gate(OTHER), Admission::Shut { until: rig.at + rig.limits.canary_max });
        }
        assert_eq!((old.number, next.number), (ProbeNumber(1), ProbeNumber(2)));
        assert_eq!(next.generation, rig.breakers.generation(OTHER));
    }

    #[test]
    fn equal_times_go_by_number_and_a_node_goes_after_lanes() {
        let mut rig = Rig::new();
        rig.report(TWO);
        rig.lose(NODE);
        rig.lose(NODE);
        rig.end(TWO, HANG);
        let mut turns = vec![rig.due_in(5).expect("a turn").lane];
        rig.probed(ProbeResult::Failed);
        turns.push(rig.due_in(0).expect("a turn").lane);
        assert_eq!(turns, [TWO, A]);
    }
}
