//! When a waiter may expect the first slot of a model that is not resident.
//!
//! 1. A ready replica: now. One that is coming: when the soonest is ready.
//! 2. A model that cannot be placed: no time can be told (`refusal` says why).
//! 3. Free room: the load, after those under way on that node.
//! 4. Else its turn: when its oldest waiter starves, or, if that is later, when the loads before it in the queue are over; then
//!    an unload and its own load.
//!
//! Owns the estimate. Refuses to promise: a plan may find a better way.

use super::Residency;
use crate::ids::{ModelId, NodeId};
use crate::time::{At, Span};

impl Residency {
    pub(crate) fn eta(&self, at: At, model: ModelId) -> Option<Span> {
        // 1
        let replicas =
            self.memory.iter().filter(|((node, other), _)| *other == model && self.memory.is_usable(*node));
        let soonest = replicas
            .filter_map(|(lane, replica)| replica.remaining(at, self.load_time(lane), &self.limits))
            .min();
        if soonest.is_some() {
            return soonest;
        }
        // 2
        if self.refusal(at, model).is_some() {
            return None;
        }
        // 3
        if let Some(load) = self.load_into_free_room(at, model) {
            return Some(load);
        }
        let load = self.best_load(model)?;
        // 4
        let before = self.queue.iter().take_while(|(other, _)| *other != model);
        let queued = before.fold(self.load_under_way(at, model), |sum, (other, _)| {
            sum + self.limits.unload + self.best_load(*other).unwrap_or_default()
        });
        let oldest = self.queue.iter().find(|(other, _)| *other == model).map_or(at, |(_, oldest)| *oldest);
        let turn = (oldest + self.patience(model)).since(at);
        Some(queued.max(turn) + self.limits.unload + load)
    }

    /// Until it is ready where it fits beside what is there.
    fn load_into_free_room(&self, at: At, model: ModelId) -> Option<Span> {
        let nodes = self.offers.of(model).filter(|(node, offer)| {
            self.memory.is_usable(*node)
                && self.memory.get((*node, model)).is_none()
                && offer.not_before <= at
                && self.memory.has_room_now(*node, offer.bytes)
        });
        let loads =
            nodes.map(|(node, offer)| match self.memory.loads_on(node) < self.limits.loads_per_node {
                true => offer.load,
                false => self.loads_left(at, node) + offer.load,
            });
        loads.min()
    }

    /// What is left of the loads under way on a node.
    fn loads_left(&self, at: At, node: NodeId) -> Span {
        let coming = self.memory.on(node).filter(|(_, replica)| replica.is_coming());
        let remaining =
            coming.filter_map(|(lane, replica)| replica.remaining(at, self.load_time(lane), &self.limits));
        remaining.max().unwrap_or_default()
    }

    /// What is left of the loads that keep the model's nodes from beginning another; of the node that is free first.
    fn load_under_way(&self, at: At, model: ModelId) -> Span {
        let nodes = self.offers.of(model).filter(|(node, _)| self.memory.is_usable(*node));
        nodes.map(|(node, _)| self.loads_left(at, node)).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::ModelId;
    use crate::limits::ResidencyLimits;
    use crate::residency::ResidentState;
    use crate::residency::stage_tests::{Stage, s};
    use crate::time::Span;

    fn eta(stage: &Stage, at: u64, model: u32) -> Option<u64> {
        stage.planner.eta(s(at), ModelId(model)).map(|eta| eta.0 / 1_000_000)
    }

    #[test]
    fn a_ready_model_has_a_slot_now() {
        assert_eq!(eta(&Stage::full(0), 10, 1), Some(0));
    }

    #[test]
    fn a_loading_model_has_one_when_the_soonest_replica_is_ready() {
        let mut stage = Stage::full(0);
        stage.node(2, 10);
        stage.offer(2, 4, 10, 2);
        stage.reports(10, 1, 4, ResidentState::Loading { ready_at: s(60) });
        assert_eq!(eta(&stage, 20, 4), Some(40));
        stage.reports(10, 2, 4, ResidentState::Loading { ready_at: s(50) });
        assert_eq!(eta(&stage, 20, 4), Some(30));
        assert_eq!(eta(&stage, 55, 4), Some(0), "overdue may be any moment");
        stage.unusable(2, 10);
        assert_eq!(eta(&stage, 20, 4), Some(40));
    }

    #[test]
    fn free_room_means_the_shortest_load() {
        let mut stage = Stage::new(ResidencyLimits::default());
        stage.node(1, 10);
        stage.node(2, 10);
        stage.offer(1, 1, 10, 9);
        stage.offer(2, 1, 10, 7);
        assert_eq!(eta(&stage, 0, 1), Some(7));
    }

    #[test]
    fn free_room_behind_a_load_under_way_means_that_load_and_its_own() {
        let mut stage = Stage::new(ResidencyLimits::default());
        stage.node(1, 20);
        stage.offer(1, 1, 10, 9);
        stage.offer(1, 2, 10, 4);
        stage.reports(0, 1, 1, ResidentState::Loading { ready_at: s(9) });
        assert_eq!(eta(&stage, 3, 2), Some(6 + 4));
        stage.node(2, 20);
        stage.offer(2, 2, 10, 11);
        assert_eq!(eta(&stage, 3, 2), Some(6 + 4), "sooner than the longer load next door");
        assert_eq!(eta(&stage, 0, 2), Some(11));
    }

    #[test]
    fn a_swap_under_way_takes_an_unload_and_a_load() {
        let mut stage = Stage::full(0);
        stage.waits(4, 1, 1, 100);
        assert_eq!(stage.plan(140), ["evict 1 from 1 for 4"]);
        assert_eq!(eta(&stage, 140, 4), Some(2 + 2));
    }

    #[test]
    fn without_room_its_turn_comes_when_its_oldest_waiter_starves() {
        let mut stage = Stage::full(100);
        assert_eq!(eta(&stage, 110, 4), Some(32 + 2 + 2), "nobody waits yet");
        stage.waits(4, 1, 1, 105);
        assert!(stage.plan(110).is_empty());
        assert_eq!(eta(&stage, 110, 4), Some(27 + 2 + 2));
        assert_eq!(eta(&stage, 136, 4), Some(1 + 2 + 2));
    }

    #[test]
    fn those_before_it_in_the_queue_and_the_load_under_way_come_first() {
        let mut stage = Stage::full(100);
        stage.asked(3_000, 1, 1);
        stage.asked(3_000, 2, 1);
        stage.asked(3_000, 3, 1);
        (1..=3).for_each(|model| stage.waits(model, 9, 900, 3_000));
        for (model, oldest) in [(4, 2_960), (5, 2_961), (6, 2_962)] {
            stage.waits(model, 1, 1, oldest);
        }
        assert_eq!(stage.plan(3_000), ["evict 1 from 1 for 4"]);
        assert_eq!(eta(&stage, 3_000, 4), Some(2 + 2));
        assert_eq!(eta(&stage, 3_000, 5), Some(4 + 2 + 2));
        assert_eq!(eta(&stage, 3_000, 6), Some(4 + 4 + 2 + 2));
    }

    #[test]
    fn nothing_is_told_of_a_model_that_cannot_come() {
        let mut stage = Stage::full(0);
        stage.offer(1, 4, 31, 2);
        assert_eq!(eta(&stage, 10, 4), None);
        assert_eq!(eta(&stage, 10, 99), None);
    }

    #[test]
    fn an_estimate_never_ends_before_the_time_has_passed() {
        let mut stage = Stage::full(0);
        stage.offer(1, 4, 10, u64::MAX);
        assert_eq!(stage.planner.eta(s(10), ModelId(4)), Some(Span(u64::MAX)));
    }
}
