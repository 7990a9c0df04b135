//! Where a wanted model is loaded: the node where that costs least.
//!
//! Owns the gates and the cost:
//!
//! 1. The node is usable, has no replica of the model in any phase, and no starving model waits for its room.
//! 2. The model's last load there did not fail just now.
//! 3. No more loads are under way, on the node and in all, than the limits allow.
//! 4. The bytes fit beside what is committed there and set aside for pins, if need be after evictions.
//!
//! ```text
//! cost = load + what keeps the node busy + one waiting request's own work there + (unload + loss of each victim)
//! ```
//!
//! A node where the model has failed again and again comes after all others, and then one where a replica would be missed (the last
//! warm one of a model in use) after those where none would; equal costs are settled by free room, then by number. Refuses to make room: whom it would cost is `evict`'s to say.

use alloc::vec::Vec;

use super::Residency;
use super::offers::Offer;
use super::survey::{Room, Survey};
use super::wants::{Right, Want};
use crate::ids::{Lane, ModelId, NodeId};
use crate::time::{At, Span};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) node: NodeId,
    pub(super) bytes: u64,
    /// Who must leave first.
    pub(super) victims: Vec<Lane>,
    /// One of them would be missed: the last warm replica of a model in use, or one of too few.
    pub(super) missed: bool,
    pub(super) cost: Span,
}

impl Residency {
    pub(super) fn choose(&self, survey: &Survey<'_>, want: &Want) -> Option<Placement> {
        // 3
        if survey.loads_left == 0 {
            return None;
        }
        let placements = self.offers.of(want.model).filter_map(|(node, offer)| {
            let only = want.node.is_none_or(|only| only == node);
            let room = survey.room(node).filter(|room| only && self.is_open_to(survey, want, room, offer))?;
            let placement = self.placement(survey, want, room, offer)?;
            Some((offer.failures >= self.limits.failures_elsewhere, placement))
        });
        placements
            .filter(|(_, placement)| want.cost_max.is_none_or(|max| placement.cost < max))
            .min_by_key(|(often_failed, placement)| {
                let (cost, evicts) = (placement.cost, !placement.victims.is_empty());
                (*often_failed, placement.missed, cost, evicts, placement.node)
            })
            .map(|(_, placement)| placement)
    }

    /// A model that is starving and finds no room keeps the node where it would cost least, so that no younger want takes
    /// what becomes free there.
    pub(super) fn keep_a_place(&self, survey: &mut Survey<'_>, want: &Want) {
        if want.right == Right::Starving
            && let Some(placement) = self.choose(survey, &Want { right: Right::Any, ..*want })
        {
            survey.keep(placement.node);
        }
    }

    /// Whether the model has a replica, ready or coming, on a usable node.
    pub(super) fn has_replica(&self, model: ModelId) -> bool {
        self.memory.iter().any(|((node, other), replica)| {
            other == model && self.memory.is_usable(node) && (replica.is_ready() || replica.is_coming())
        })
    }

    /// Whether it could be loaded at once without an eviction.
    pub(super) fn has_free_home(&self, at: At, model: ModelId) -> bool {
        self.offers.of(model).any(|(node, offer)| {
            self.memory.is_usable(node)
                && self.memory.get((node, model)).is_none()
                && offer.not_before <= at
                && self.memory.loads_on(node) < self.limits.loads_per_node
                && self.memory.has_room_now(node, offer.bytes)
        })
    }

    /// The shortest load on a usable node.
    pub(super) fn best_load(&self, model: ModelId) -> Option<Span> {
        let usable = self.offers.of(model).filter(|(node, _)| self.memory.is_usable(*node));
        usable.map(|(_, offer)| offer.load).min()
    }

    /// 1, 2, 3
    fn is_open_to(&self, survey: &Survey<'_>, want: &Want, room: &Room, offer: &Offer) -> bool {
        room.usable
            && !room.kept
            && room.loads < self.limits.loads_per_node
            && offer.not_before <= survey.at
            && survey.on(room).iter().all(|price| price.lane.1 != want.model)
    }

    /// 4
    fn placement(&self, survey: &Survey<'_>, want: &Want, room: &Room, offer: &Offer) -> Option<Placement> {
        let victims = survey.victims(want, room, room.short(want.model, offer.bytes), offer.load)?;
        let making_room = if victims.is_empty() { Span::ZERO } else { self.limits.unload };
        let lost = victims.iter().filter_map(|lane| survey.price(*lane)).map(|price| price.loss);
        let cost = lost.fold(offer.load + room.busy + making_room, |sum, loss| sum + loss);
        let cost = cost + own_work(survey, (room.node, want.model));
        let missed = victims.iter().any(|lane| !survey.is_spare_lane(*lane));
        Some(Placement { node: room.node, bytes: offer.bytes, victims, missed, cost })
    }
}

fn own_work(survey: &Survey<'_>, lane: Lane) -> Span {
    let waiting = survey.standing(lane.1).waiting;
    if waiting.count == 0 {
        return Span::ZERO;
    }
    Span((waiting.work.0 as f64 / f64::from(waiting.count) / survey.view.speed(lane)) as u64)
}

#[cfg(test)]
mod tests {
    use crate::limits::ResidencyLimits;
    use crate::residency::ResidentState;
    use crate::residency::stage_tests::{Stage, lane, s};

    const NOTHING: [&str; 0] = [];

    /// Nodes 1 to `nodes` with room for two models; each offers models 1 to 4; somebody waits for model 1.
    fn stage(nodes: u64) -> Stage {
        let mut stage = Stage::new(ResidencyLimits::default());
        for node in 1..=nodes {
            stage.node(node, 20);
            (1..=4).for_each(|model| stage.offer(node, model, 10, 5));
        }
        stage.waits(1, 1, 1, 100);
        stage
    }

    #[test]
    fn equal_costs_are_settled_by_number() {
        assert_eq!(stage(3).plan(100), ["load 1 on 1: Waiting"]);
    }

    #[test]
    fn the_shorter_load_wins() {
        let mut stage = stage(3);
        stage.offer(2, 1, 10, 4);
        assert_eq!(stage.plan(100), ["load 1 on 2: Waiting"]);
    }

    #[test]
    fn a_busy_node_loses_by_what_keeps_it_busy() {
        let mut stage = stage(2);
        stage.ready(0, 1, 2);
        stage.uses(1, 2, 3, 2, 100);
        stage.offer(2, 1, 10, 6);
        assert_eq!(stage.plan(100), ["load 1 on 2: Waiting"], "5 + 2 s against 6 s");
        let mut stage = self::stage(2);
        stage.ready(0, 1, 2);
        stage.uses(1, 2, 3, 1, 100);
        stage.offer(2, 1, 10, 7);
        assert_eq!(stage.plan(100), ["load 1 on 1: Waiting"], "5 + 1 s against 7 s");
    }

    #[test]
    fn a_fast_node_wins_by_what_the_request_itself_costs_there() {
        let mut stage = stage(2);
        stage.waits(1, 2, 8, 100);
        stage.offer(1, 1, 10, 4);
        stage.speeds.insert(lane(2, 1).0, 4.0);
        assert_eq!(stage.plan(100), ["load 1 on 2: Waiting"], "4 + 4 s against 5 + 1 s");
    }

    #[test]
    fn free_room_is_preferred_unless_it_costs_more_than_the_eviction() {
        let mut stage = stage(2);
        (2..=3).for_each(|model| stage.ready(0, 1, model));
        stage.offer(2, 1, 10, 6);
        assert_eq!(stage.plan(1_000), ["load 1 on 2: Waiting"], "5 + 2 s for the unload against 6 s");
        let mut stage = self::stage(2);
        (2..=3).for_each(|model| stage.ready(0, 1, model));
        stage.offer(2, 1, 10, 8);
        assert_eq!(stage.plan(1_000), ["evict 2 from 1 for 1"], "5 + 2 s against 8 s; nobody asks for 2");
    }

    #[test]
    fn the_last_warm_replica_of_a_model_in_use_goes_only_when_no_other_can() {
        let plan = |asked_for: &[u32]| {
            let mut stage = stage(2);
            (1..=2).for_each(|node| stage.node(node, 10));
            stage.ready(0, 1, 2);
            stage.ready(0, 2, 3);
            stage.offer(2, 1, 10, 60);
            stage.waits(1, 1, 100, 1_000);
            asked_for.iter().for_each(|model| stage.asked(950, *model, 1));
            stage.plan(1_000)
        };
        assert_eq!(plan(&[2]), ["evict 3 from 2 for 1"], "though the load takes a minute there");
        assert_eq!(plan(&[2, 3]), ["evict 2 from 1 for 1"]);
    }

    #[test]
    fn what_is_lost_with_the_victims_counts() {
        let mut stage = stage(2);
        for node in [1, 2] {
            (2..=3).for_each(|model| stage.ready(0, node, model));
        }
        stage.offer(1, 2, 10, 9);
        stage.offer(1, 3, 10, 9);
        (2..=3).for_each(|model| stage.asked(100, model, 9));
        assert_eq!(
            stage.plan(1_000),
            ["evict 2 from 2 for 1"],
            "to load it again takes 5 s there, 9 s on node 1"
        );
    }

    #[test]
    fn gate_1_only_usable_nodes_without_the_model() {
        let mut stage = stage(2);
        stage.unusable(1, 20);
        stage.reports(0, 2, 1, ResidentState::Unloading);
        assert_eq!(stage.plan(100), NOTHING);
        stage.release(100, 2, 1);
        assert_eq!(stage.plan(100), ["load 1 on 2: Waiting"]);
    }

    #[test]
    fn gate_1_a_node_whose_room_a_starving_model_waits_for_is_left_alone() {
        let mut stage = Stage::full(1_020);
        stage.offer(1, 4, 20, 2);
        (1..=3).for_each(|model| stage.waits(model, 1, 1, 1_019));
        stage.waits(4, 1, 1, 1_000);
        // 3 has had its turn, and 5 could have its place; but 4 is older and needs two places.
        stage.waits(3, 1, 1, 1_021);
        stage.waits(5, 1, 1, 1_001);
        assert_eq!(stage.plan(1_040), NOTHING);
        stage.waiting.remove(&lane(1, 4).1);
        assert_eq!(stage.plan(1_040), ["evict 3 from 1 for 5"]);
    }

    #[test]
    fn gate_2_a_pause_after_a_failure_sends_the_model_elsewhere_and_ends() {
        let mut stage = stage(2);
        stage.reports(99, 1, 1, ResidentState::Failed { until: s(0) });
        assert_eq!(stage.plan(100), ["evict 1 from 1: Failed", "load 1 on 2: Waiting"]);
        stage.release(101, 1, 1);
        stage.answer(101, 1, false);
        assert_eq!(stage.plan(103), NOTHING, "the second was refused, and both pause");
        assert_eq!(stage.plan(104), ["load 1 on 1: Waiting"]);
    }

    #[test]
    fn a_node_that_fails_again_and_again_comes_last() {
        let mut stage = stage(2);
        stage.offer(2, 1, 10, 60);
        for at in [10, 20, 30] {
            stage.reports(at, 1, 1, ResidentState::Loading { ready_at: s(at) });
            stage.reports(at, 1, 1, ResidentState::Failed { until: s(at) });
            stage.release(at, 1, 1);
        }
        assert_eq!(stage.plan(100), ["load 1 on 2: Waiting"], "the slower one");
    }

    #[test]
    fn a_node_that_failed_twice_is_tried_before_a_slower_one() {
        let mut stage = stage(2);
        stage.offer(2, 1, 10, 60);
        for at in [10, 20] {
            stage.reports(at, 1, 1, ResidentState::Failed { until: s(at) });
            stage.release(at, 1, 1);
        }
        assert_eq!(stage.plan(100), ["load 1 on 1: Waiting"]);
    }

    #[test]
    fn gate_3_one_load_at_a_time_on_each_node() {
        let mut stage = stage(1);
        stage.waits(2, 1, 1, 99);
        assert_eq!(stage.plan(100), ["load 2 on 1: Waiting"]);
        assert_eq!(stage.plan(100), NOTHING);
        stage.answer(100, 1, true);
        assert_eq!(stage.plan(100), NOTHING);
        stage.ready(105, 1, 2);
        assert_eq!(stage.plan(105), ["load 1 on 1: Waiting"]);
    }

    #[test]
    fn gate_3_loads_of_the_whole_cluster_are_bounded() {
        let mut few = stage(4);
        (1..=4).for_each(|model| few.waits(model, 1, 1, 100));
        assert_eq!(few.plan(100), ["load 1 on 1: Waiting", "load 2 on 2: Waiting"], "two at least");
        let mut many = stage(12);
        (1..=4).for_each(|model| many.waits(model, 1, 1, 100));
        assert_eq!(many.plan(100).len(), 3, "a quarter of twelve nodes");
    }

    #[test]
    fn gate_4_room_that_is_set_aside_for_a_pin_is_not_given_away() {
        let mut stage = stage(1);
        stage.ready(0, 1, 2);
        stage.asked(100, 2, 1);
        stage.offer(1, 3, 10, 5);
        stage.pin(1, 3);
        assert_eq!(stage.plan(100), ["load 3 on 1: Pinned"]);
        stage.answer(100, 1, false);
        assert_eq!(stage.plan(101), NOTHING, "3 pauses, and its room waits for it");
    }

    #[test]
    fn gate_4_a_model_that_fits_no_budget_is_not_placed() {
        let mut stage = stage(1);
        stage.offer(1, 1, 21, 5);
        assert_eq!(stage.plan(100), NOTHING);
        stage.offer(1, 1, 20, 5);
        assert_eq!(stage.plan(100), ["load 1 on 1: Waiting"]);
    }
}
