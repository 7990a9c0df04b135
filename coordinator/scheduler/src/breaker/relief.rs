//! When no replica of a model is left: waiting longer helps nobody.
//!
//! Owns the relief: a lane that was only late serves again at once, degraded, since a late answer is better than none; and
//! what failed is due for its probe as soon after it opened as if it had never opened before. Refuses more: what fails is
//! given no request before it passed its canary, and the probe stays one for the whole cluster.

use alloc::vec::Vec;

use crate::ids::Lane;
use crate::limits::BreakerLimits;
use crate::time::At;

use super::circuit::{Change, Phase};
use super::{Breaker, Breakers, Cause, Move, MoveReason, backoff};

impl Breakers {
    /// Whether nothing may be sent to any of these replicas of a model, probes aside.
    pub(crate) fn is_panicked(&self, replicas: &[Lane], limits: &BreakerLimits) -> bool {
        !replicas.is_empty() && replicas.iter().all(|lane| self.gate(*lane, limits).is_shut())
    }

    /// To be called with all replicas that would be usable but for their breakers, whenever there may be too few. Does nothing
    /// while one is left; called again, it does nothing more.
    pub(crate) fn relieve(
        &mut self,
        at: At,
        replicas: &[Lane],
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) {
        if !self.is_panicked(replicas, limits) {
            return;
        }
        for lane in replicas {
            self.relieve_lane(at, *lane, limits, moves);
        }
    }

    fn relieve_lane(&mut self, at: At, lane: Lane, limits: &BreakerLimits, moves: &mut Vec<Move>) {
        let (own, node) = (Breaker::Lane(lane), Breaker::Node(lane.0));
        self.hasten(node, limits);
        let node_is_shut = self.cause(node).is_some();
        match self.circuit(own).map(|circuit| circuit.phase) {
            Some(Phase::Open { cause: Cause::Soft, .. }) if !node_is_shut => {
                self.shift(at, own, Change::Degrade, MoveReason::LastResort, limits, moves);
            }
            Some(Phase::Open { .. }) => self.hasten(own, limits),
            Some(
                Phase::Closed | Phase::Degraded { .. } | Phase::Probing { .. } | Phase::SlowStart { .. },
            )
            | None => {}
        }
    }

    fn hasten(&mut self, breaker: Breaker, limits: &BreakerLimits) {
        let seed = self.seed;
        let Some(circuit) = self.circuit_mut(breaker) else { return };
        let briefly = backoff::open_briefly(breaker, circuit.opens, seed, limits);
        circuit.open_until_at_most(circuit.since + briefly);
        self.reindex(breaker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::rig_tests::*;
    use crate::breaker::{Admission, BreakerState};

    const REPLICAS: [Lane; 2] = [A, OTHER];

    /// Both replicas fail, and fail their first probes: they are open for ten seconds.
    fn both_failed() -> Rig {
        let mut rig = Rig::new();
        for lane in REPLICAS {
            rig.end(lane, HANG);
        }
        for _ in REPLICAS {
            rig.due_in(5).expect("a turn");
            rig.probed(crate::breaker::ProbeResult::Failed);
        }
        rig.moves.clear();
        rig
    }

    fn open_s(rig: &Rig) -> [Option<u64>; 2] {
        REPLICAS.map(|lane| rig.open_s(Breaker::Lane(lane)))
    }

    #[test]
    fn when_all_replicas_failed_they_are_due_after_the_base_time() {
        let mut rig = both_failed();
        assert_eq!(open_s(&rig), [Some(5), Some(10)]);
        rig.relieve(&REPLICAS);
        assert_eq!(open_s(&rig), [Some(0), Some(5)]);
        let before = format!("{:?}", rig.breakers);
        rig.relieve(&REPLICAS);
        assert_eq!(format!("{:?}", rig.breakers), before, "again, it does nothing more");
        assert_eq!(rig.moves, []);
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(A));
    }

    #[test]
    fn failed_replicas_are_not_given_work_for_want_of_others() {
        let mut rig = both_failed();
        rig.relieve(&REPLICAS);
        assert!(REPLICAS.iter().all(|lane| rig.gate(*lane).is_shut()));
    }

    #[test]
    fn while_a_replica_is_left_nobody_is_relieved() {
        let mut rig = both_failed();
        let third = (crate::ids::NodeId(3), A.1);
        rig.report(third);
        rig.relieve(&[A, OTHER, third]);
        assert_eq!(open_s(&rig), [Some(5), Some(10)]);
        assert!(!rig.breakers.is_panicked(&[A, OTHER, third], &rig.limits));
        assert!(!rig.breakers.is_panicked(&[], &rig.limits));
    }

    #[test]
    fn a_replica_that_was_only_late_serves_again_at_once_when_no_other_is_left() {
        let mut rig = Rig::new();
        rig.ends(A, &[LATE; 10]);
        rig.relieve(&REPLICAS);
        assert_eq!(rig.state(A), BreakerState::Open, "another one is left");
        rig.end(OTHER, HANG);
        rig.relieve(&REPLICAS);
        assert_eq!(rig.gate(A), Admission::Penalised { factor: 3, width_divisor: 2 });
        assert_eq!(rig.reasons().last(), Some(&MoveReason::LastResort));
        assert_eq!(rig.state(OTHER), BreakerState::Open);
    }

    #[test]
    fn a_late_replica_on_a_shut_node_has_to_wait_for_its_node_whose_time_is_shortened() {
        let mut rig = Rig::new();
        rig.ends(A, &[LATE; 10]);
        rig.lose(NODE);
        rig.lose(NODE);
        rig.due_in(5).expect("the node's turn");
        rig.probed(crate::breaker::ProbeResult::Failed);
        assert_eq!(rig.open_s(Breaker::Node(NODE)), Some(10));
        rig.relieve(&[A]);
        assert_eq!(rig.open_s(Breaker::Node(NODE)), Some(5));
        assert_eq!(rig.state(A), BreakerState::Open);
    }

    #[test]
    fn relief_lengthens_nothing() {
        let mut rig = Rig::with(BreakerLimits::default());
        rig.end(A, HANG);
        let until = rig.view(Breaker::Lane(A)).until;
        rig.relieve(&[A]);
        assert_eq!(rig.view(Breaker::Lane(A)).until, until);
    }
}
