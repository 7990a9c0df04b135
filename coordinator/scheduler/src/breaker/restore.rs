//! How a new leader comes to trust as its predecessor did: from the moves that were written down.
//!
//! Owns the reading of them. Refuses to take over a probe or a slow start, whose attempts it has not seen: such a lane is open
//! and due at once, to be probed anew, in a new life, so that no end of the old leader's attempts is taken for the new probe's.

use crate::ids::Generation;
use crate::limits::BreakerLimits;
use crate::time::At;

use super::circuit::{Circuit, Phase};
use super::{Breaker, BreakerState, Breakers, Cause, Move};

impl Breakers {
    /// `moves` oldest first; of each breaker the latest counts. An open lane keeps its time. Evidence is not kept: it is two
    /// minutes' worth.
    pub(crate) fn restore(&mut self, at: At, moves: &[Move], limits: &BreakerLimits) {
        for fact in moves {
            let circuit = match fact.breaker {
                Breaker::Lane(lane) => self.watch(lane, limits).map(|watched| &mut watched.circuit),
                Breaker::Node(node) => self.watch_node(node, limits).map(|watched| &mut watched.circuit),
            };
            if let Some(circuit) = circuit {
                circuit.restore(at, fact);
            }
        }
        for fact in moves {
            let (Breaker::Lane((node, _)) | Breaker::Node(node)) = fact.breaker;
            self.reindex_with_lanes(Breaker::Node(node));
        }
    }
}

impl Circuit {
    fn restore(&mut self, at: At, fact: &Move) {
        let cause = fact.cause.unwrap_or(Cause::Hard);
        (self.phase, self.since, self.generation) = match fact.to {
            BreakerState::Closed => (Phase::Closed, fact.at, fact.generation),
            BreakerState::Degraded => (Phase::Degraded { calm: 0 }, fact.at, fact.generation),
            BreakerState::Open => {
                (Phase::Open { until: fact.until.unwrap_or(at), cause }, fact.at, fact.generation)
            }
            BreakerState::Probing | BreakerState::SlowStart => {
                let next_life = Generation(fact.generation.0.saturating_add(1));
                (Phase::Open { until: at, cause }, at, next_life)
            }
        };
        self.opens = fact.opens;
        self.why = Some(fact.why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::rig_tests::*;
    use crate::breaker::{Admission, ProbeResult};
    use crate::ids::Lane;
    use crate::time::Span;

    const LANE: Breaker = Breaker::Lane(A);
    const ALL: [Lane; 3] = [A, B, OTHER];

    fn handed_over(mut rig: Rig) -> Rig {
        rig.hand_over();
        ALL.into_iter().for_each(|lane| rig.report(lane));
        rig
    }

    #[test]
    fn an_open_lane_keeps_its_time_its_life_and_its_count() {
        let mut rig = Rig::new();
        rig.end(A, HANG);
        rig.due_in(5).expect("its turn");
        rig.probed(ProbeResult::Failed);
        let before = rig.view(LANE);
        let mut rig = handed_over(rig);
        assert_eq!(rig.breakers.generation(A), before.generation);
        let after = rig.view(LANE);
        assert_eq!((after.state, after.until, after.opens), (before.state, before.until, 2));
        assert_eq!(rig.due_in(9), None);
        rig.due_in(1).expect("its turn");
        rig.probed(ProbeResult::Failed);
        assert_eq!(rig.open_s(LANE), Some(20));
    }

    #[test]
    fn a_lane_under_probe_or_in_its_slow_start_is_probed_anew_in_a_new_life() {
        for proved in [false, true] {
            let mut rig = Rig::new();
            rig.end(A, HANG);
            rig.due_in(5).expect("its turn");
            rig.probed(ProbeResult::Passed);
            let old = rig.breakers.dispatched(A);
            if proved {
                rig.end(A, SUCCESS);
            }
            let mut rig = handed_over(rig);
            assert_eq!(rig.gate(A), Admission::Shut { until: rig.at });
            rig.due_in(0).expect("at once");
            rig.probed(ProbeResult::Passed);
            rig.breakers.dispatched(A);
            rig.end_of(A, SUCCESS, old);
            assert_eq!(rig.gate(A), Admission::OneProbeRequest { taken: true }, "the old leader's request");
            rig.end(A, RESET);
            assert_eq!(rig.view(LANE).opens, 2);
        }
    }

    #[test]
    fn degraded_lanes_stay_so_and_closed_ones_too() {
        let mut rig = Rig::new();
        rig.ends(A, &[LATE; 5]);
        rig.end(B, HANG);
        rig.prove(B);
        rig.ends(B, &[SUCCESS; 3]);
        let life = rig.breakers.generation(B);
        let rig = handed_over(rig);
        assert_eq!(rig.state(A), BreakerState::Degraded);
        assert_eq!((rig.gate(B), rig.breakers.generation(B)), (Admission::Free, life));
        assert_eq!(rig.gate(OTHER), Admission::Free);
    }

    #[test]
    fn a_shut_node_stays_shut_and_is_probed_once_a_lane_is_reported() {
        let mut rig = Rig::new();
        rig.lose(NODE);
        rig.lose(NODE);
        rig.hand_over();
        assert_eq!(rig.gate(A), Admission::Shut { until: At(5_000_000) });
        assert_eq!(rig.due_in(5), None);
        rig.report(A);
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(A));
    }

    #[test]
    fn what_was_open_for_lateness_still_counts_as_that() {
        let mut rig = Rig::new();
        rig.ends(A, &[LATE; 10]);
        let mut rig = handed_over(rig);
        rig.replicas = 1;
        rig.ends(OTHER, &[LATE; 10]);
        assert_eq!(rig.state(OTHER), BreakerState::Degraded);
        rig.replicas = 2;
        rig.end(OTHER, LATE);
        assert_eq!(rig.state(OTHER), BreakerState::Degraded, "it would be the second of three");
        rig.relieve(&[A]);
        assert_eq!(rig.state(A), BreakerState::Degraded);
    }

    #[test]
    fn a_fact_of_a_shut_node_concerns_lanes_that_are_there_already() {
        let mut rig = Rig::new();
        rig.end(A, HANG);
        rig.lose(NODE);
        rig.lose(NODE);
        let facts = rig.moves.clone();
        let mut rig = Rig::new();
        rig.wait(Span::from_s(1));
        rig.breakers.restore(rig.at, &facts, &rig.limits);
        assert_eq!(rig.breakers.check(&rig.limits), Ok(()));
        assert_eq!(rig.breakers.next_deadline(), Some((At(5_000_000), Breaker::Node(NODE))));
    }

    #[test]
    fn facts_beyond_the_bound_are_not_taken_in() {
        let mut rig = Rig::new();
        [A, OTHER].into_iter().for_each(|lane| rig.end(lane, HANG));
        rig.limits.lanes_max = 1;
        rig.hand_over();
        assert!(rig.breakers.explain(LANE).is_some());
        assert_eq!(rig.breakers.explain(Breaker::Lane(OTHER)), None);
    }
}
