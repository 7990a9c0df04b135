//! Who makes room: which replicas may be displaced by whom, and who of them goes.
//!
//! Owns the rules. Models may outnumber the room; then they take turns, each serving those who wait for it as one batch. A replica
//! may be displaced by a want:
//!
//! 1. Never, unless it is ready; never when it is pinned there or its model would have fewer ready replicas than its minimum.
//! 2. A want with the right to *any* (a pin) takes whatever 1 leaves.
//! 3. A replica younger than its minimum residency stays. But one that has served all who waited when it became ready (or nobody
//!    did) has had its turn, and makes room for a starving model.
//! 4. A *spare* one makes room for any want: its model has another ready replica and nobody waits for it, or it is out of use (no
//!    request within `warm`, none waits, none runs there).
//! 5. Any other is the last warm replica of a model in use, or one of too few. It makes room for a starving model;
//! 6. for a minimum, when it is done: nobody waits for it and nothing runs there;
//! 7. for a waiting model whose need exceeds its own need, what it has in flight, and both loads together, unless one of lower
//!    priority stays on the node: a hot model is not sent away in a quiet moment because a rare one is younger;
//! 8. and never for one more replica of a hot model, nor for what leaves a node that drains.
//! 9. For what nobody uses and leaves a node that drains, nobody makes room.
//!
//! Spare ones go first, then by the priority of GreedyDual-Size-Frequency, the lowest first, ties by id. So a starving model
//! gets its turn, at the latest, when the oldest residents have been there for their minimum; rule 3 makes it sooner: as soon as a
//! batch is served. Refuses to free memory: a replica that is told to go counts until it is gone.

use alloc::vec::Vec;

use super::Residency;
use super::action::{Action, EvictReason};
use super::replica::Phase;
use super::survey::{Price, Room, Survey};
use super::wants::{Right, Want};
use crate::ids::Lane;
use crate::time::Span;

impl Survey<'_> {
    /// Who would have to leave the node to free `short` bytes for the want; `None` when that cannot be.
    pub(super) fn victims(&self, want: &Want, room: &Room, short: u64, load: Span) -> Option<Vec<Lane>> {
        if short == 0 {
            return Some(Vec::new());
        }
        let may_go = |price: &&Price| self.is_dispensable(price) && self.may_go(want, price, load);
        let most =
            self.on(room).iter().filter(may_go).fold(0_u64, |sum, price| sum.saturating_add(price.bytes));
        if most < short {
            return None;
        }
        let mut order: Vec<&Price> =
            self.on(room).iter().filter(|price| self.is_dispensable(price)).collect();
        order.sort_unstable_by_key(|price| (!self.is_spare(price), price.priority, price.lane));
        let orderly = matches!(want.right, Right::Need(_));
        // 7, its second half: who stays keeps those after it.
        let mut stays = false;
        order.retain(|price| {
            let goes = may_go(price) && !(stays && orderly);
            stays |= !goes;
            goes
        });
        fewest(order.into_iter().map(|price| (price.lane, price.bytes)), short)
    }

    /// 1
    pub(super) fn is_dispensable(&self, price: &Price) -> bool {
        let standing = self.standing_of(price);
        price.ready && !price.pinned && standing.ready > standing.minimum
    }

    fn may_go(&self, want: &Want, price: &Price, load: Span) -> bool {
        // 2
        if want.right == Right::Any {
            return true;
        }
        // 9
        if want.right == Right::Room {
            return false;
        }
        // 3
        let turn_over = price.had_turn && want.right == Right::Starving;
        if !price.settled && !turn_over {
            return false;
        }
        // 4
        if self.is_spare(price) {
            return true;
        }
        match want.right {
            // 5
            Right::Any | Right::Starving => true,
            // 6
            Right::Done => price.done,
            // 7
            Right::Need(need) => need > self.standing_of(price).need + price.busy + load + price.load,
            // 8
            Right::Spare | Right::Room => false,
        }
    }

    pub(super) fn is_spare_lane(&self, lane: Lane) -> bool {
        self.price(lane).is_some_and(|price| self.is_spare(price))
    }

    /// 4
    fn is_spare(&self, price: &Price) -> bool {
        let standing = self.standing_of(price);
        let doubled = standing.ready > 1 && standing.waiting.count == 0;
        doubled || (!standing.in_use && price.done)
    }
}

impl Residency {
    pub(super) fn evict(
        &mut self,
        survey: &mut Survey<'_>,
        lane: Lane,
        why: EvictReason,
        out: &mut Vec<Action>,
    ) {
        let Some(replica) = self.memory.get_mut(lane) else { return };
        replica.enter(Phase::Leaving { why }, survey.at);
        self.age = self.age.max(survey.priority(lane));
        survey.gone(lane);
        out.push(Action::Evict { node: lane.0, model: lane.1, why });
    }
}

/// The first of them that free enough together, without those that the later ones make needless.
fn fewest(willing: impl Iterator<Item = (Lane, u64)>, short: u64) -> Option<Vec<Lane>> {
    let mut freed = 0_u64;
    let mut chosen: Vec<(Lane, u64)> = Vec::new();
    for (lane, bytes) in willing {
        if freed < short {
            freed = freed.saturating_add(bytes);
            chosen.push((lane, bytes));
        }
    }
    let mut spare = freed.checked_sub(short)?;
    // The dearest are spared first.
    chosen.reverse();
    chosen.retain(|(_, bytes)| {
        let needless = *bytes <= spare;
        spare = spare.saturating_sub(if needless { *bytes } else { 0 });
        !needless
    });
    chosen.reverse();
    Some(chosen.into_iter().map(|(lane, _)| lane).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ModelId, NodeId};
    use crate::limits::ResidencyLimits;
    use crate::residency::ResidentState;
    use crate::residency::stage_tests::{Stage, lane, s};
    use crate::time::At;

    /// Model 4 is starving at second 1,040.
    fn starving(since: u64) -> Stage {
        let mut stage = Stage::full(since);
        stage.waits(4, 1, 1, 1_000);
        stage
    }

    #[test]
    fn rule_1_what_is_pinned_or_needed_for_a_minimum_stays() {
        let mut stage = starving(0);
        stage.pin(1, 1);
        stage.minimum(2, 1);
        assert_eq!(stage.plan(1_040), ["evict 3 from 1 for 4"]);
        let mut stage = starving(0);
        stage.pin(1, 1);
        stage.minimum(2, 1);
        stage.pin(1, 3);
        assert_eq!(stage.plan(1_040), [""; 0]);
    }

    #[test]
    fn rule_1_two_wants_of_one_plan_do_not_take_the_last_two_replicas() {
        let mut stage = Stage::new(ResidencyLimits::default());
        for node in [1, 2] {
            stage.node(node, 10);
            (3..=5).for_each(|model| stage.offer(node, model, 10, 2));
            stage.ready(0, node, 3);
        }
        stage.minimum(3, 1);
        stage.waits(4, 1, 1, 1_000);
        stage.waits(5, 1, 1, 1_001);
        assert_eq!(stage.plan(1_040), ["evict 3 from 1 for 4"]);
    }

    #[test]
    fn rule_1_what_is_not_ready_stays() {
        for state in
            [ResidentState::Reserved, ResidentState::Loading { ready_at: s(2_000) }, ResidentState::Unloading]
        {
            let mut stage = starving(1_039);
            (1..=3).for_each(|model| stage.reports(1_039, 1, model, state));
            assert_eq!(stage.plan(1_040), [""; 0], "{state:?}");
        }
    }

    #[test]
    fn rule_2_a_pin_takes_the_place_of_one_in_use_and_just_loaded() {
        let mut stage = Stage::full(100);
        (1..=3).for_each(|model| stage.waits(model, 5, 9, 90));
        stage.pin(1, 4);
        assert_eq!(stage.plan(101), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn rule_3_a_young_replica_stays_until_its_batch_is_served() {
        let mut stage = starving(1_020);
        (1..=3).for_each(|model| stage.waits(model, 5, 9, 1_019));
        assert_eq!(stage.plan(1_040), [""; 0], "their first waiters are not served");
        stage.waits(2, 5, 9, 1_021);
        assert_eq!(stage.plan(1_041), ["evict 2 from 1 for 4"], "only newcomers wait for 2");
    }

    #[test]
    fn rule_3_a_young_replica_without_waiters_has_had_its_turn() {
        assert_eq!(starving(1_039).plan(1_040), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn rule_3_only_a_starving_model_ends_a_residency_early() {
        let mut stage = Stage::full(1_000);
        stage.waits(4, 9, 900, 1_000);
        assert_eq!(stage.plan(1_029), [""; 0]);
        assert_eq!(stage.plan(1_030), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn rule_3_a_long_load_earns_a_long_residency() {
        let mut stage = Stage::full(1_000);
        (1..=3).for_each(|model| stage.offer(1, model, 10, 20));
        stage.waits(4, 9, 900, 1_050);
        assert_eq!(stage.plan(1_079), [""; 0]);
        assert_eq!(stage.plan(1_080), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn rule_4_one_out_of_use_makes_room_for_anybody() {
        let mut stage = Stage::full(0);
        stage.asked(1_000, 1, 1);
        stage.asked(1_000, 2, 1);
        stage.waits(4, 1, 0, 1_000);
        assert_eq!(stage.plan(1_000), ["evict 3 from 1 for 4"], "3 was asked for 1,000 s ago");
    }

    #[test]
    fn rule_4_one_out_of_use_that_still_answers_is_not_spare() {
        let mut stage = Stage::full(0);
        (1..=3).for_each(|model| stage.uses(1, model, 1, 3, 500));
        stage.waits(4, 1, 0, 1_000);
        assert_eq!(stage.plan(1_000), [""; 0]);
    }

    #[test]
    fn rule_4_one_of_two_is_spare_while_nobody_waits_for_its_model() {
        let mut stage = Stage::full(1_000);
        stage.node(2, 10);
        stage.offer(2, 3, 10, 2);
        stage.ready(1_000, 2, 3);
        stage.waits(4, 1, 0, 1_040);
        stage.waits(3, 1, 1, 1_040);
        assert_eq!(stage.plan(1_040), [""; 0]);
        stage.waiting.remove(&ModelId(3));
        assert_eq!(stage.plan(1_040), ["evict 3 from 1 for 4"], "although it is asked for most");
    }

    #[test]
    fn rule_5_a_starving_model_displaces_the_last_warm_replica_of_the_lowest_priority() {
        let mut stage = starving(1_000);
        (1..=3).for_each(|model| stage.waits(model, 50, 900, 999));
        assert_eq!(stage.plan(1_032), [""; 0], "exactly at its patience it does not starve");
        let at = At(s(1_032).0 + 1);
        let evicted = Action::Evict {
            node: NodeId(1),
            model: ModelId(1),
            why: EvictReason::Displaced { by: ModelId(4) },
        };
        assert_eq!(stage.actions(at), [evicted]);
    }

    #[test]
    fn rule_6_a_minimum_displaces_the_idle_only() {
        let mut stage = Stage::full(1_000);
        stage.minimum(4, 1);
        stage.uses(1, 1, 1, 1, 1_040);
        stage.waits(2, 1, 1, 1_040);
        assert_eq!(stage.plan(1_040), ["evict 3 from 1 for 4"]);
        let mut stage = Stage::full(1_000);
        stage.minimum(4, 1);
        (1..=3).for_each(|model| stage.uses(1, model, 1, 1, 1_040));
        assert_eq!(stage.plan(1_040), [""; 0]);
    }

    #[test]
    fn rule_7_the_greater_need_must_pay_for_both_loads() {
        let mut stage = Stage::full(1_000);
        stage.waits(4, 1, 1, 1_100);
        assert_eq!(
            stage.plan(1_103),
            [""; 0],
            "1 s of work and 3 s of age are not more than two loads of 2 s"
        );
        assert_eq!(stage.plan(1_104), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn rule_7_what_waits_for_the_resident_and_runs_there_counts_for_it() {
        let mut stage = Stage::full(1_000);
        stage.waits(4, 1, 1, 1_100);
        stage.waits(1, 1, 4, 1_104);
        stage.uses(1, 1, 2, 6, 1_104);
        // 1 + 14 s against 4 + 10 + 6 + 2 + 2 s, and both grow older alike; then 4 brings 10 s more.
        assert_eq!(stage.plan(1_114), [""; 0]);
        stage.waits(4, 9, 11, 1_100);
        assert_eq!(stage.plan(1_114), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn rule_7_a_hot_model_is_not_sent_away_because_a_rare_one_is_younger() {
        let mut stage = Stage::full(1_000);
        stage.release(1_089, 1, 1);
        stage.ready(1_090, 1, 1);
        stage.waits(4, 9, 20, 1_100);
        assert_eq!(stage.plan(1_110), [""; 0], "2 and 3 are old enough, 1 is not");
        assert_eq!(stage.plan(1_120), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn rule_8_one_more_replica_of_a_hot_model_displaces_only_the_spare() {
        let mut stage = Stage::full(1_000);
        stage.node(2, 10);
        stage.offer(2, 5, 10, 2);
        stage.offer(1, 5, 10, 2);
        stage.ready(1_000, 2, 5);
        stage.waits(5, 50, 59, 1_030);
        assert_eq!(stage.plan(1_040), [""; 0]);
        assert_eq!(stage.plan(1_700), ["evict 1 from 1 for 5"], "all three are out of use");
    }

    #[test]
    fn spare_ones_go_before_those_in_use_whatever_their_priority() {
        let mut stage = Stage::full(1_000);
        stage.asked(1_000, 3, 900);
        stage.asked(1_700, 1, 1);
        stage.asked(1_700, 2, 1);
        stage.waits(4, 1, 1, 1_660);
        assert_eq!(stage.plan(1_700), ["evict 3 from 1 for 4"]);
    }

    #[test]
    fn equal_priorities_are_settled_by_number() {
        let mut stage = Stage::full(1_000);
        stage.asked(1_000, 1, 2);
        stage.asked(1_000, 2, 1);
        stage.waits(4, 1, 1, 1_000);
        assert_eq!(stage.plan(1_040), ["evict 1 from 1 for 4"]);
    }

    #[test]
    fn a_large_model_displaces_as_many_as_it_needs() {
        let mut stage = Stage::full(1_000);
        stage.offer(1, 4, 20, 2);
        stage.waits(4, 1, 1, 1_000);
        assert_eq!(stage.plan(1_040), ["evict 1 from 1 for 4", "evict 2 from 1 for 4"]);
    }

    #[test]
    fn an_eviction_ages_all_that_are_not_used_again() {
        let mut stage = Stage::full(1_000);
        assert_eq!(stage.planner.age, 0);
        stage.waits(4, 1, 1, 1_000);
        stage.plan(1_040);
        assert!(stage.planner.age > 0, "the priority of the victim");
    }

    #[test]
    fn no_more_go_than_must_and_the_dearest_are_spared_first() {
        let few = |sizes: &[u64], short| {
            let lanes = (1..).zip(sizes).map(|(model, bytes)| (lane(1, model), *bytes));
            fewest(lanes, short).map(|lanes| lanes.iter().map(|(_, model)| model.0).collect::<Vec<_>>())
        };
        assert_eq!(few(&[2, 16, 4], 10), Some(vec![2]), "the small one before is not needed then");
        assert_eq!(few(&[4, 4, 4], 8), Some(vec![1, 2]));
        assert_eq!(few(&[1, 4, 5], 9), Some(vec![2, 3]));
        assert_eq!(few(&[4, 4], 9), None);
        assert_eq!(few(&[], 0), Some(vec![]));
    }
}
