//! What the planner is told: one verb per fact.
//!
//! Owns how a fact moves the rooms, and which one calls for a plan at once. Total: a fact about something unknown, late or
//! impossible changes nothing. Refuses to decide anything; that is for the next plan.
//!
//! Order matters once, for a new leader: `reservation` for all the registry holds, then `node` and what the agents report. Until
//! then the planner would take full nodes for empty ones, and the registry would refuse it.

use super::Residency;
use super::action::ReservationId;
use super::memory::NodeFacts;
use super::offers::OfferFacts;
use super::policy::ModelPolicy;
use super::replica::{Phase, Replica, ResidentState};
use crate::ids::{Lane, ModelId, NodeId};
use crate::time::{At, Span};

impl Residency {
    /// A node as it is. One that is not usable keeps what it has reserved and gets nothing new.
    pub(crate) fn node(&mut self, at: At, facts: NodeFacts) {
        if self.memory.node(facts, self.nodes_max) {
            self.plan_by(at);
        }
    }

    /// The node cannot be reached. It keeps what it has reserved.
    pub(crate) fn lost(&mut self, at: At, node: NodeId) {
        if self.memory.lose(node) {
            self.plan_by(at);
        }
    }

    /// The node could hold the model. May be repeated.
    pub(crate) fn offer(&mut self, facts: OfferFacts) {
        self.offers.offer(&facts, &self.limits);
    }

    /// The node could not hold the model any more. What it has loaded stays.
    pub(crate) fn withdrawn(&mut self, node: NodeId, model: ModelId) {
        self.offers.withdraw((node, model));
    }

    /// An operator's wish. Replaces the former one.
    pub(crate) fn policy(&mut self, at: At, model: ModelId, policy: ModelPolicy) {
        self.policies.set(model, policy, self.limits.models_max);
        self.plan_by(at);
    }

    /// The registry holds this reservation. For a new leader, before anything else; harmless at any time.
    pub(crate) fn reservation(&mut self, at: At, node: NodeId, model: ModelId, bytes: u64) {
        match self.memory.get_mut((node, model)) {
            Some(replica) => {
                replica.bytes = bytes;
                if let Phase::Intended { .. } | Phase::Asked { .. } = replica.phase {
                    replica.enter(Phase::Reserved, at);
                }
            }
            None => self.insert((node, model), Replica::new(bytes, Phase::Reserved, at, self.age)),
        }
    }

    /// The registry's answer to a proposal. One that was refused is tried again after the pause of a failed load: the picture
    /// of that node was wrong. A late answer changes nothing.
    pub(crate) fn reserved(&mut self, at: At, number: ReservationId, granted: bool) {
        let Some(lane) = self.memory.asked(number) else { return };
        if granted {
            if let Some(replica) = self.memory.get_mut(lane) {
                replica.enter(Phase::Reserved, at);
            }
        } else {
            self.memory.remove(lane);
            self.offers.failed(lane, at, at, &self.limits);
        }
        self.plan_by(at);
    }

    /// The agent has reported the model gone, and the registry has released its reservation: the memory is free.
    pub(crate) fn released(&mut self, at: At, node: NodeId, model: ModelId) {
        let phase = self.memory.get((node, model)).map(|replica| replica.phase);
        match phase {
            // The release is of an older reservation.
            None | Some(Phase::Intended { .. } | Phase::Asked { .. }) => {}
            Some(
                Phase::Reserved
                | Phase::Loading { .. }
                | Phase::Ready
                | Phase::Failed
                | Phase::Leaving { .. },
            ) => {
                self.memory.remove((node, model));
                self.plan_by(at);
            }
        }
    }

    /// What the agent reports of a model.
    pub(crate) fn resident(&mut self, at: At, node: NodeId, model: ModelId, state: ResidentState) {
        let lane = (node, model);
        let before = self.memory.get(lane).map(|replica| replica.phase);
        match (self.memory.get_mut(lane), self.offers.get(lane)) {
            (Some(replica), _) => replica.report(at, state),
            // Loaded without a reservation that is known here: its bytes are used all the same.
            (None, Some(offer)) => {
                if let Some(phase) = Phase::unannounced(state) {
                    self.insert(lane, Replica::new(offer.bytes, phase, at, self.age));
                }
            }
            (None, None) => {}
        }
        let after = self.memory.get(lane).map(|replica| replica.phase);
        if before != after {
            self.moved(at, lane, state);
        }
    }

    /// A request for the model arrived, worth so many node-seconds.
    pub(crate) fn arrived(&mut self, at: At, model: ModelId, work: Span) {
        self.demand.arrived(at, model, work, &self.limits);
        let known = self.queue.iter().any(|(queued, _)| *queued == model);
        if !known && !self.has_replica(model) && self.has_free_home(at, model) {
            self.plan_by(at);
        }
    }

    /// A report has moved a replica to another phase.
    fn moved(&mut self, at: At, lane: Lane, state: ResidentState) {
        match state {
            ResidentState::Failed { until } => self.offers.failed(lane, at, until, &self.limits),
            ResidentState::Ready => {
                self.offers.succeeded(lane);
                if let Some(replica) = self.memory.get_mut(lane) {
                    (replica.used, replica.stamp) = (None, self.age);
                }
            }
            ResidentState::Reserved | ResidentState::Loading { .. } | ResidentState::Unloading => {}
        }
        self.plan_by(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ResidencyLimits;
    use crate::residency::stage_tests::{GIB, Stage, lane, s};

    const NOTHING: [&str; 0] = [];

    /// Node 1 with room for two models, planned at second 100.
    fn stage() -> Stage {
        let mut stage = Stage::new(ResidencyLimits::default());
        stage.node(1, 20);
        (1..=3).for_each(|model| stage.offer(1, model, 10, 2));
        stage.plan(100);
        stage
    }

    fn due(stage: &Stage) -> Option<At> {
        stage.planner.next_deadline()
    }

    fn report(stage: &mut Stage, at: u64, model: u32, state: ResidentState) {
        stage.planner.resident(s(at), NodeId(1), ModelId(model), state);
    }

    #[test]
    fn without_a_node_there_is_nothing_to_plan() {
        let mut stage = Stage::new(ResidencyLimits::default());
        assert_eq!(due(&stage), None);
        stage.node(1, 20);
        assert_eq!(due(&stage), Some(s(0)));
    }

    #[test]
    fn a_quiet_room_is_planned_every_few_seconds_and_one_that_waits_every_second() {
        let mut stage = stage();
        assert_eq!(due(&stage), Some(s(105)));
        stage.waits(1, 1, 1, 100);
        stage.offer(1, 1, 21, 2);
        stage.plan(105);
        assert_eq!(due(&stage), Some(s(106)));
    }

    #[test]
    fn a_request_for_a_model_that_free_room_could_hold_is_planned_at_once() {
        let mut stage = stage();
        stage.asked(101, 1, 1);
        assert_eq!(due(&stage), Some(s(101)));
    }

    #[test]
    fn a_request_is_not_planned_at_once_without_free_room_or_need() {
        let mut stage = stage();
        stage.ready(100, 1, 1);
        stage.plan(100);
        stage.asked(101, 1, 1);
        assert_eq!(due(&stage), Some(s(105)), "it is resident");
        stage.ready(101, 1, 2);
        stage.plan(101);
        stage.asked(102, 3, 1);
        assert_eq!(due(&stage), Some(s(106)), "there is no room");
        stage.asked(102, 99, 1);
        assert_eq!(due(&stage), Some(s(106)), "nobody has it");
    }

    #[test]
    fn a_model_the_last_plan_could_not_place_waits_for_the_next_one() {
        let mut stage = stage();
        stage.offer(1, 1, 21, 2);
        stage.waits(1, 1, 1, 100);
        stage.plan(100);
        stage.offer(1, 1, 20, 2);
        stage.asked(100, 1, 1);
        assert_eq!(due(&stage), Some(s(101)));
    }

    #[test]
    fn only_a_node_that_changed_is_planned_for_at_once() {
        let mut stage = stage();
        let facts = NodeFacts { node: NodeId(1), budget_bytes: 20 * GIB, usable: true, draining: false };
        stage.planner.node(s(101), facts);
        assert_eq!(due(&stage), Some(s(105)));
        stage.planner.node(s(102), NodeFacts { usable: false, ..facts });
        assert_eq!(due(&stage), Some(s(102)));
    }

    #[test]
    fn an_answer_moves_its_own_proposal_alone() {
        let mut stage = stage();
        stage.waits(1, 1, 1, 100);
        assert_eq!(stage.plan(100), ["load 1 on 1: Waiting"]);
        stage.answer(101, 2, true);
        assert_eq!(stage.on(1), ["1 asked"]);
        stage.answer(101, 1, true);
        assert_eq!(stage.on(1), ["1 reserved"]);
        stage.answer(102, 1, false);
        assert_eq!(stage.on(1), ["1 reserved"], "the second answer is late");
    }

    #[test]
    fn a_refused_reservation_frees_its_bytes_and_pauses() {
        let mut stage = stage();
        stage.waits(1, 1, 1, 100);
        stage.plan(100);
        stage.answer(101, 1, false);
        assert_eq!((stage.on(1), stage.planner.memory.taken(NodeId(1))), (vec![], 0));
        assert_eq!((stage.plan(105), stage.plan(106)), (vec![], vec!["load 1 on 1: Waiting".to_string()]));
    }

    #[test]
    fn an_agent_may_be_quicker_than_the_answer() {
        let mut stage = stage();
        stage.waits(1, 1, 1, 100);
        stage.plan(100);
        report(&mut stage, 101, 1, ResidentState::Loading { ready_at: s(103) });
        stage.answer(102, 1, true);
        assert_eq!(stage.on(1), ["1 loading"]);
    }

    #[test]
    fn the_memory_is_free_when_the_registry_says_so_and_not_before() {
        let mut stage = stage();
        stage.ready(100, 1, 1);
        report(&mut stage, 101, 1, ResidentState::Unloading);
        report(&mut stage, 102, 1, ResidentState::Reserved);
        assert_eq!(stage.planner.memory.taken(NodeId(1)), 10 * GIB);
        stage.release(103, 1, 1);
        assert_eq!((stage.planner.memory.taken(NodeId(1)), due(&stage)), (0, Some(s(100))));
    }

    #[test]
    fn the_release_of_an_older_reservation_does_not_free_a_newer_one() {
        let mut stage = stage();
        stage.waits(1, 1, 1, 100);
        stage.plan(100);
        stage.release(101, 1, 1);
        assert_eq!(stage.on(1), ["1 asked"]);
    }

    #[test]
    fn a_new_leader_knows_what_is_reserved_before_any_agent_reports() {
        let mut stage = Stage::new(ResidencyLimits::default());
        stage.planner.reservation(s(0), NodeId(1), ModelId(1), 10 * GIB);
        stage.planner.reservation(s(0), NodeId(1), ModelId(2), 9 * GIB);
        assert_eq!(stage.plan(0), NOTHING, "nobody has said how much there is");
        stage.node(1, 20);
        stage.offer(1, 3, 10, 2);
        stage.waits(3, 1, 1, 0);
        assert_eq!(stage.plan(0), NOTHING, "1 GiB is free");
        report(&mut stage, 1, 1, ResidentState::Ready);
        assert_eq!(stage.on(1), ["1 ready", "2 reserved"]);
    }

    #[test]
    fn a_reservation_told_again_changes_its_bytes_and_grants_what_was_asked() {
        let mut stage = stage();
        stage.ready(100, 1, 2);
        stage.waits(1, 1, 1, 100);
        stage.plan(100);
        stage.planner.reservation(s(101), NodeId(1), ModelId(1), 8 * GIB);
        stage.planner.reservation(s(101), NodeId(1), ModelId(2), 7 * GIB);
        assert_eq!(stage.on(1), ["1 reserved", "2 ready"]);
        assert_eq!(stage.planner.memory.taken(NodeId(1)), 15 * GIB);
    }

    #[test]
    fn what_an_agent_runs_without_a_known_reservation_counts_all_the_same() {
        let states = [
            (ResidentState::Loading { ready_at: s(9) }, 10),
            (ResidentState::Ready, 10),
            (ResidentState::Unloading, 10),
            (ResidentState::Reserved, 0),
            (ResidentState::Failed { until: s(9) }, 0),
        ];
        for (state, gib) in states {
            let mut stage = stage();
            report(&mut stage, 101, 1, state);
            assert_eq!(stage.planner.memory.taken(NodeId(1)), gib * GIB, "{state:?}");
            report(&mut stage, 101, 99, state);
            assert_eq!(
                stage.planner.memory.get(lane(1, 99)).map(|replica| replica.bytes),
                None,
                "nobody knows its size"
            );
        }
    }

    #[test]
    fn a_failure_reported_again_and_again_is_one_failure() {
        let mut stage = stage();
        stage.ready(100, 1, 1);
        for at in 101..105 {
            report(&mut stage, at, 1, ResidentState::Failed { until: s(0) });
        }
        assert_eq!(stage.planner.offers.get(lane(1, 1)).map(|offer| offer.failures), Some(1));
        report(&mut stage, 110, 1, ResidentState::Ready);
        assert_eq!(stage.planner.offers.get(lane(1, 1)).map(|offer| offer.failures), Some(0));
    }

    #[test]
    fn a_load_that_ended_is_planned_for_at_once_and_a_repeated_report_is_not() {
        let mut stage = stage();
        report(&mut stage, 101, 1, ResidentState::Ready);
        assert_eq!(due(&stage), Some(s(101)));
        stage.plan(101);
        report(&mut stage, 102, 1, ResidentState::Ready);
        assert_eq!(due(&stage), Some(s(106)));
    }

    #[test]
    fn a_withdrawn_offer_takes_nothing_away() {
        let mut stage = stage();
        stage.ready(100, 1, 1);
        stage.planner.withdrawn(NodeId(1), ModelId(1));
        assert!(stage.planner.is_open(NodeId(1), ModelId(1)));
        assert_eq!(stage.planner.memory.taken(NodeId(1)), 10 * GIB);
    }
}
