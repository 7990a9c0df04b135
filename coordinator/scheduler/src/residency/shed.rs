//! What goes whoever else comes: the first step of a plan.
//!
//! 1. A replica that failed, or whose load is overdue: its reservation is given back and the model may go elsewhere. This holds
//!    for pinned ones too; their room stays set aside.
//! 2. Where more is promised than the budget allows (it shrank, or an agent holds more than was known), intended loads are
//!    dropped, then replicas go by priority, those needed for a minimum last, pinned ones never: memory that is not there
//!    ends every model on the Mac.
//! 3. Ready replicas above `replicas_max`, the lowest priority first.
//! 4. A replica that idles longer than its policy allows, down to the minimum.
//!
//! Owns these rules. Refuses to make room for anybody.

use alloc::vec::Vec;

use super::Residency;
use super::action::{Action, EvictReason};
use super::replica::{Phase, Replica};
use super::survey::Survey;
use crate::ids::{Lane, ModelId, NodeId};
use crate::time::At;

impl Residency {
    pub(super) fn shed(&mut self, survey: &mut Survey<'_>, out: &mut Vec<Action>) {
        self.shed_failures(survey, out);
        let nodes: Vec<NodeId> = self.memory.nodes().collect();
        nodes.into_iter().for_each(|node| self.shed_excess(survey, node, out));
        let models: Vec<ModelId> = self.policies.models().collect();
        models.into_iter().for_each(|model| self.shed_surplus(survey, model, out));
        self.shed_idle(survey, out);
    }

    /// 1
    fn shed_failures(&mut self, survey: &mut Survey<'_>, out: &mut Vec<Action>) {
        let at = survey.at;
        for (lane, _) in self.memory.lanes(|_, replica| replica.phase == Phase::Failed) {
            self.evict(survey, lane, EvictReason::Failed, out);
        }
        let is_overdue = |lane, replica: &Replica| {
            replica.is_coming() && replica.is_overdue(at, self.load_time(lane), &self.limits)
        };
        for (lane, phase) in self.memory.lanes(is_overdue) {
            self.offers.failed(lane, at, at, &self.limits);
            match phase {
                Phase::Intended { .. } => self.drop_intention(survey, lane),
                Phase::Asked { .. }
                | Phase::Reserved
                | Phase::Loading { .. }
                | Phase::Ready
                | Phase::Failed
                | Phase::Leaving { .. } => self.evict(survey, lane, EvictReason::Overdue, out),
            }
        }
    }

    /// 2
    fn shed_excess(&mut self, survey: &mut Survey<'_>, node: NodeId, out: &mut Vec<Action>) {
        if self.memory.is_within_budget(node) {
            return;
        }
        for (lane, _) in self.memory.lanes(|lane, replica| lane.0 == node && !replica.is_taken()) {
            self.drop_intention(survey, lane);
        }
        let here = self.memory.lanes(|lane, replica| lane.0 == node && replica.is_evictable());
        let mut order: Vec<(bool, u64, Lane)> = here
            .into_iter()
            .filter(|(lane, _)| !self.policies.is_pinned(*lane))
            .map(|(lane, _)| (survey.standing(lane.1).is_short_without_one(), survey.priority(lane), lane))
            .collect();
        order.sort_unstable();
        for (_, _, lane) in order {
            if self.memory.is_within_budget(node) {
                return;
            }
            self.evict(survey, lane, EvictReason::OverBudget, out);
        }
    }

    /// 3
    fn shed_surplus(&mut self, survey: &mut Survey<'_>, model: ModelId, out: &mut Vec<Action>) {
        let surplus = survey.standing(model).ready.saturating_sub(self.policies.replicas_max(model));
        if surplus == 0 {
            return;
        }
        let ready =
            survey.prices.iter().filter(|price| price.lane.1 == model && price.ready && !price.pinned);
        let mut order: Vec<(u64, Lane)> = ready.map(|price| (price.priority, price.lane)).collect();
        order.sort_unstable();
        for (_, lane) in order.into_iter().take(surplus as usize) {
            self.evict(survey, lane, EvictReason::TooMany, out);
        }
    }

    /// 4
    fn shed_idle(&mut self, survey: &mut Survey<'_>, out: &mut Vec<Action>) {
        let done = survey.prices.iter().filter(|price| price.done).map(|price| price.lane);
        let idle: Vec<Lane> = done.filter(|lane| self.is_idle(survey.at, *lane)).collect();
        for lane in idle {
            if survey.price(lane).is_some_and(|price| survey.is_dispensable(price)) {
                self.evict(survey, lane, EvictReason::Idle, out);
            }
        }
    }

    fn is_idle(&self, at: At, lane: Lane) -> bool {
        let (Some(idle), Some(replica)) = (self.policies.idle_unload(lane.1), self.memory.get(lane)) else {
            return false;
        };
        at.since(replica.used.unwrap_or_default().max(replica.since)) >= idle
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::NodeId;
    use crate::residency::stage_tests::{Stage, lane, s};
    use crate::residency::{ModelPolicy, ResidentState};
    use crate::time::Span;

    const NOTHING: [&str; 0] = [];

    fn idle_unload(replicas_min: u32) -> ModelPolicy {
        ModelPolicy { replicas_min, idle_unload: Some(Span::from_s(100)), ..ModelPolicy::default() }
    }

    #[test]
    fn rule_1_a_failed_replica_gives_its_memory_back_once() {
        let mut stage = Stage::full(0);
        stage.reports(10, 1, 2, ResidentState::Failed { until: s(0) });
        assert_eq!(stage.plan(10), ["evict 2 from 1: Failed"]);
        assert_eq!(stage.plan(11), NOTHING);
        assert_eq!(stage.on(1), ["1 ready", "2 leaving", "3 ready"]);
    }

    #[test]
    fn rule_1_a_failed_pin_goes_too_and_its_room_waits_for_it() {
        let mut stage = Stage::full(0);
        stage.pin(1, 2);
        stage.reports(10, 1, 2, ResidentState::Failed { until: s(0) });
        stage.waits(4, 1, 1, 10);
        assert_eq!(stage.plan(10), ["evict 2 from 1: Failed"]);
        stage.release(11, 1, 2);
        assert_eq!(stage.plan(11), NOTHING, "4 does not get it");
        assert_eq!(stage.plan(15), ["load 2 on 1: Pinned"]);
    }

    #[test]
    fn rule_1_a_load_that_does_not_end_is_given_up_and_paused() {
        let mut stage = Stage::full(0);
        stage.release(0, 1, 3);
        stage.reports(0, 1, 3, ResidentState::Loading { ready_at: s(2) });
        stage.waits(3, 1, 1, 0);
        assert_eq!(stage.plan(60), NOTHING);
        assert_eq!(stage.plan(61), ["evict 3 from 1: Overdue"]);
        stage.release(62, 1, 3);
        assert_eq!(stage.plan(65), NOTHING);
        assert_eq!(stage.plan(66), ["load 3 on 1: Waiting"], "5 s later");
    }

    #[test]
    fn rule_1_an_agent_that_never_begins_is_overdue_too() {
        let mut stage = Stage::full(0);
        stage.release(0, 1, 3);
        stage.reports(0, 1, 3, ResidentState::Reserved);
        assert_eq!(stage.plan(61), ["evict 3 from 1: Overdue"]);
    }

    #[test]
    fn rule_1_an_intention_whose_room_does_not_come_is_dropped_without_a_word() {
        let mut stage = Stage::full(0);
        stage.waits(4, 1, 1, 0);
        assert_eq!(stage.plan(40), ["evict 1 from 1 for 4"]);
        assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready", "4 intended"]);
        stage.waiting.clear();
        stage.waits(4, 1, 1, 100);
        assert_eq!(stage.plan(101), NOTHING);
        assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready"]);
    }

    #[test]
    fn rule_2_a_budget_that_shrank_sends_the_lowest_priority_away_until_it_fits() {
        let mut stage = Stage::full(0);
        stage.node(1, 29);
        assert_eq!(stage.plan(1), ["evict 1 from 1: OverBudget"]);
        stage.node(1, 10);
        assert_eq!(stage.plan(2), ["evict 2 from 1: OverBudget"]);
        assert_eq!(stage.plan(3), NOTHING);
    }

    #[test]
    fn rule_2_those_needed_for_a_minimum_go_last_and_pinned_ones_never() {
        let mut stage = Stage::full(0);
        stage.minimum(1, 1);
        stage.pin(1, 2);
        stage.node(1, 20);
        assert_eq!(stage.plan(1), ["evict 3 from 1: OverBudget"]);
        stage.node(1, 10);
        assert_eq!(stage.plan(2), ["evict 1 from 1: OverBudget"]);
        stage.node(1, 5);
        assert_eq!(stage.plan(3), NOTHING);
    }

    #[test]
    fn rule_2_loads_are_cut_short_and_intentions_dropped() {
        let mut stage = Stage::full(0);
        stage.waits(4, 1, 1, 0);
        stage.plan(40);
        stage.node(1, 20);
        stage.waiting.clear();
        assert_eq!(stage.plan(41), NOTHING, "1 leaves already, and 4 has not come");
        assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready"]);
        stage.reports(42, 1, 5, ResidentState::Loading { ready_at: s(50) });
        assert_eq!(stage.plan(42), ["evict 5 from 1: OverBudget"]);
    }

    #[test]
    fn rule_2_nothing_new_is_placed_where_the_budget_is_exceeded() {
        let mut stage = Stage::full(0);
        stage.pin(1, 1);
        stage.node(1, 5);
        stage.plan(1);
        stage.release(2, 1, 2);
        stage.release(2, 1, 3);
        stage.offer(1, 4, 1, 2);
        stage.waits(4, 1, 1, 0);
        assert_eq!(stage.plan(99), NOTHING);
    }

    #[test]
    fn rule_2_a_proposal_that_is_granted_late_is_withdrawn() {
        let mut stage = Stage::full(0);
        stage.release(0, 1, 3);
        stage.waits(3, 1, 1, 0);
        assert_eq!(stage.plan(1), ["load 3 on 1: Waiting"]);
        stage.pin(1, 1);
        stage.pin(1, 2);
        stage.node(1, 20);
        assert_eq!(stage.plan(2), NOTHING, "the answer is open");
        stage.answer(3, 1, true);
        assert_eq!(stage.planner.next_deadline(), Some(s(3)));
        assert_eq!(stage.plan(3), ["evict 3 from 1: OverBudget"]);
    }

    #[test]
    fn rule_3_replicas_above_the_most_allowed_go_by_priority() {
        let mut stage = Stage::full(0);
        for node in 2..=4 {
            stage.node(node, 10);
            stage.offer(node, 3, 10, 10 - node);
            stage.ready(0, node, 3);
        }
        stage
            .policy(3, ModelPolicy { replicas_max: 2, pinned: [NodeId(4)].into(), ..ModelPolicy::default() });
        assert_eq!(
            stage.plan(1),
            ["evict 3 from 1: TooMany", "evict 3 from 3: TooMany"],
            "2 s and 7 s to load"
        );
    }

    #[test]
    fn rule_3_replicas_that_cannot_serve_are_neither_counted_nor_sent_away() {
        let mut stage = Stage::full(0);
        for node in 2..=3 {
            stage.node(node, 10);
            stage.offer(node, 3, 10, 2);
            stage.ready(0, node, 3);
        }
        stage.unusable(1, 30);
        stage.policy(3, ModelPolicy { replicas_max: 2, ..ModelPolicy::default() });
        assert_eq!(stage.plan(1), NOTHING);
        stage.policy(3, ModelPolicy { replicas_max: 1, ..ModelPolicy::default() });
        assert_eq!(stage.plan(2), ["evict 3 from 2: TooMany"]);
    }

    #[test]
    fn rule_4_an_idle_replica_goes_down_to_none_if_its_policy_says_so() {
        let mut stage = Stage::full(0);
        stage.policy(2, idle_unload(0));
        stage.policy(3, idle_unload(1));
        assert_eq!(stage.plan(99), NOTHING);
        assert_eq!(stage.plan(100), ["evict 2 from 1: Idle"]);
    }

    #[test]
    fn rule_4_a_use_begins_the_time_anew_and_work_stops_it() {
        let mut stage = Stage::full(0);
        stage.policy(2, idle_unload(0));
        stage.uses(1, 2, 0, 0, 50);
        assert_eq!(stage.plan(149), NOTHING);
        stage.uses(1, 2, 1, 9, 50);
        assert_eq!(stage.plan(150), NOTHING);
        stage.uses(1, 2, 0, 0, 50);
        stage.waits(2, 1, 1, 149);
        assert_eq!(stage.plan(150), NOTHING);
        stage.waiting.clear();
        assert_eq!(stage.plan(150), ["evict 2 from 1: Idle"]);
    }

    #[test]
    fn rule_4_without_a_time_in_the_policy_a_replica_stays_until_its_room_is_needed() {
        assert_eq!(Stage::full(0).plan(1_000_000), NOTHING);
    }

    #[test]
    fn rule_4_a_pinned_replica_may_idle() {
        let mut stage = Stage::full(0);
        stage.policy(2, ModelPolicy { pinned: [lane(1, 2).0].into(), ..idle_unload(0) });
        assert_eq!(stage.plan(1_000), NOTHING);
    }
}
