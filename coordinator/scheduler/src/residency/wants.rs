//! What should be loaded, in the order in which it gets its choice of room.
//!
//! 1. Pins that are honoured and not there, by node.
//! 2. Models somebody waits for that have no replica, ready or coming: the oldest waiter first. One that has waited longer than
//!    the starvation bound plus the load is *starving*.
//! 3. Models that only nodes which drain hold: these serve on until another node does.
//! 4. Models with fewer replicas than their policy asks for.
//! 5. Hot models: the waiting work would keep the replicas, coming ones too, busy for longer than `replicate_delay`. One load at a
//!    time, two above `replicate_delay_huge`, never beyond `replicas_max`.
//!
//! Owns that list and the right of each want to displace others. Refuses to look for the room.

use alloc::vec::Vec;

use super::Residency;
use super::action::LoadReason;
use super::survey::{Room, Standing, Survey};
use crate::ids::{Lane, ModelId, NodeId};
use crate::time::{At, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) model: ModelId,
    pub(super) why: LoadReason,
    /// The only node that will do.
    pub(super) node: Option<NodeId>,
    pub(super) right: Right,
    /// What a load must cost less than to be worth it.
    pub(super) cost_max: Option<Span>,
}

/// Whom a want may displace; the rules are in `evict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Whatever is neither pinned nor needed for a minimum.
    Any,
    /// Those that have had their turn.
    Starving,
    /// Those whose own need is smaller.
    Need(Span),
    /// Those nobody uses at the moment.
    Done,
    /// Those nobody would miss.
    Spare,
    /// Nobody: what is free has to do.
    Room,
}

impl Residency {
    pub(super) fn wants(&self, survey: &Survey<'_>) -> Vec<Want> {
        // 1
        let pins =
            |room: &Room| room.aside.iter().map(|(model, _)| pinned((room.node, *model))).collect::<Vec<_>>();
        let mut wants: Vec<Want> = survey.rooms.iter().flat_map(pins).collect();
        // 2
        let mut cold: Vec<&Standing> = survey
            .standings
            .iter()
            .filter(|standing| standing.waiting.count > 0 && standing.replicas() == 0)
            .collect();
        cold.sort_by_key(|standing| (standing.waiting.oldest, standing.model));
        wants.extend(cold.into_iter().map(|standing| self.cold(survey.at, standing)));
        // 3
        let parting = |standing: &&Standing| {
            standing.parting > 0 && standing.replicas() == 0 && standing.waiting.count == 0
        };
        wants.extend(survey.standings.iter().filter(parting).map(relief));
        // 4
        let short = |standing: &&Standing| standing.coming == 0 && standing.ready < standing.minimum;
        wants.extend(survey.standings.iter().filter(short).map(minimum));
        // 5
        wants.extend(survey.standings.iter().filter_map(|standing| self.hot(standing)));
        wants
    }

    /// Whether what was chosen for this reason is still wanted.
    pub(super) fn is_wanted(&self, survey: &Survey<'_>, lane: Lane, why: LoadReason) -> bool {
        let standing = survey.standing(lane.1);
        match why {
            LoadReason::Pinned => self.policies.is_pinned(lane),
            LoadReason::Waiting => standing.waiting.count > 0 && standing.ready == 0,
            LoadReason::Draining => standing.parting > 0 && standing.ready == 0,
            LoadReason::Minimum => standing.replicas() <= standing.minimum,
            LoadReason::Hot => standing.waiting.count > 0,
        }
    }

    fn cold(&self, at: At, standing: &Standing) -> Want {
        let starving = at.since(standing.waiting.oldest) > self.patience(standing.model);
        let right = if starving { Right::Starving } else { Right::Need(standing.need) };
        Want { model: standing.model, why: LoadReason::Waiting, node: None, right, cost_max: None }
    }

    /// How long somebody waits for a model before it is starving.
    pub(super) fn patience(&self, model: ModelId) -> Span {
        self.limits.starvation + self.best_load(model).unwrap_or_default()
    }

    fn hot(&self, standing: &Standing) -> Option<Want> {
        let (model, replicas) = (standing.model, standing.replicas());
        if standing.waiting.count == 0 || replicas == 0 || replicas >= self.policies.replicas_max(model) {
            return None;
        }
        let delay = Span((standing.waiting.work.0 as f64 / standing.capacity.max(f64::MIN_POSITIVE)) as u64);
        let at_once = if delay > self.limits.replicate_delay_huge { 2 } else { 1 };
        let wanted = delay > self.limits.replicate_delay && standing.coming < at_once;
        let (why, right, cost_max) = (LoadReason::Hot, Right::Spare, Some(delay));
        wanted.then_some(Want { model, why, node: None, right, cost_max })
    }
}

fn pinned((node, model): Lane) -> Want {
    Want { model, why: LoadReason::Pinned, node: Some(node), right: Right::Any, cost_max: None }
}

fn relief(standing: &Standing) -> Want {
    let right = if standing.in_use { Right::Spare } else { Right::Room };
    Want { model: standing.model, why: LoadReason::Draining, node: None, right, cost_max: None }
}

fn minimum(standing: &Standing) -> Want {
    Want { model: standing.model, why: LoadReason::Minimum, node: None, right: Right::Done, cost_max: None }
}

#[cfg(test)]
mod tests {
    use crate::ids::ModelId;
    use crate::limits::ResidencyLimits;
    use crate::residency::stage_tests::{Stage, s};
    use crate::residency::{ModelPolicy, ResidentState};

    const NOTHING: [&str; 0] = [];

    /// Nine nodes with room for one model of nine each.
    fn stage() -> Stage {
        let mut stage = Stage::new(ResidencyLimits { loads_total_min: 9, ..ResidencyLimits::default() });
        for node in 1..=9 {
            stage.node(node, 10);
            (1..=9).for_each(|model| stage.offer(node, model, 10, 5));
        }
        stage
    }

    /// Model 1 is ready on node 1, and keeps it busy for long.
    fn hot(waiting_work_s: u64) -> Stage {
        let mut stage = stage();
        stage.ready(0, 1, 1);
        stage.waits(1, 10, waiting_work_s, 100);
        stage
    }

    #[test]
    fn pins_come_first_then_waiters_by_age_then_minimums_then_the_hot() {
        let mut stage = hot(20);
        stage.minimum(2, 1);
        stage.waits(3, 1, 1, 99);
        stage.waits(4, 1, 1, 98);
        stage.pin(9, 5);
        assert_eq!(
            stage.plan(100),
            [
                "load 5 on 9: Pinned",
                "load 4 on 2: Waiting",
                "load 3 on 3: Waiting",
                "load 2 on 4: Minimum",
                "load 1 on 5: Hot",
            ]
        );
    }

    #[test]
    fn waiters_of_one_age_are_ordered_by_model() {
        let mut stage = stage();
        stage.waits(7, 1, 1, 99);
        stage.waits(3, 1, 1, 99);
        assert_eq!(stage.plan(100), ["load 3 on 1: Waiting", "load 7 on 2: Waiting"]);
    }

    #[test]
    fn a_replica_that_is_coming_is_waited_for() {
        let mut stage = stage();
        stage.waits(1, 1, 1, 99);
        assert_eq!(stage.plan(100), ["load 1 on 1: Waiting"]);
        assert_eq!(stage.plan(100), NOTHING);
    }

    #[test]
    fn a_replica_on_a_node_that_is_not_usable_serves_nobody() {
        let mut stage = stage();
        stage.ready(0, 1, 1);
        stage.unusable(1, 10);
        stage.waits(1, 1, 1, 99);
        assert_eq!(stage.plan(100), ["load 1 on 2: Waiting"]);
    }

    #[test]
    fn what_only_a_draining_node_holds_is_loaded_elsewhere() {
        let mut stage = stage();
        stage.ready(0, 1, 1);
        assert_eq!(stage.plan(99), NOTHING);
        stage.drains(1, 10);
        assert_eq!(stage.plan(101), ["load 1 on 2: Draining"]);
        assert_eq!(stage.plan(102), NOTHING);
    }

    #[test]
    fn it_displaces_only_what_is_out_of_use_and_only_while_it_is_in_use_itself() {
        let drained = |asked: u32, other_asked: u64| {
            let mut stage = Stage::new(ResidencyLimits::default());
            for (node, model) in [(1, 1), (2, 2)] {
                stage.node(node, 10);
                (1..=2).for_each(|model| stage.offer(node, model, 10, 5));
                stage.ready(0, node, model);
            }
            stage.asked(other_asked, 2, 3);
            stage.drains(1, 10);
            stage.asked(9_000, 1, asked);
            stage.plan(9_000)
        };
        assert_eq!(drained(0, 0), NOTHING);
        assert_eq!(drained(1, 9_000), NOTHING);
        assert_eq!(drained(1, 0), ["evict 2 from 2 for 1"]);
    }

    #[test]
    fn what_another_node_holds_too_stays_where_it_is_when_one_drains() {
        let mut stage = stage();
        stage.ready(0, 1, 1);
        stage.ready(0, 2, 1);
        stage.drains(1, 10);
        stage.asked(100, 1, 1);
        assert_eq!(stage.plan(101), NOTHING);
        stage.planner.lost(s(102), crate::ids::NodeId(1));
        stage.unusable(2, 10);
        assert_eq!(stage.plan(103), NOTHING, "who is lost serves nobody until then");
    }

    #[test]
    fn nobody_waiting_is_no_want() {
        let mut stage = stage();
        stage.waits(1, 0, 0, 99);
        assert_eq!(stage.plan(100), NOTHING);
    }

    #[test]
    fn a_minimum_is_filled_one_load_after_another() {
        let mut stage = stage();
        stage.minimum(1, 2);
        assert_eq!(stage.plan(100), ["load 1 on 1: Minimum"]);
        assert_eq!(stage.plan(101), NOTHING);
        stage.answer(101, 1, true);
        stage.ready(105, 1, 1);
        assert_eq!(stage.plan(105), ["load 1 on 2: Minimum"]);
        stage.answer(105, 2, true);
        stage.ready(110, 2, 1);
        assert_eq!(stage.plan(110), NOTHING);
    }

    #[test]
    fn a_model_both_pinned_and_waited_for_is_loaded_once() {
        let mut stage = stage();
        stage.waits(1, 1, 1, 99);
        stage.pin(4, 1);
        assert_eq!(stage.plan(100), ["load 1 on 4: Pinned"]);
    }

    #[test]
    fn a_model_pinned_on_two_nodes_is_loaded_on_both() {
        let mut stage = stage();
        let pinned = [4, 6].map(crate::ids::NodeId).into();
        stage.policy(1, ModelPolicy { pinned, replicas_max: 1, ..ModelPolicy::default() });
        assert_eq!(stage.plan(100), ["load 1 on 4: Pinned", "load 1 on 6: Pinned"]);
    }

    #[test]
    fn a_model_is_hot_when_its_waiters_would_wait_longer_than_the_limit() {
        assert_eq!(hot(10).plan(100), NOTHING);
        assert_eq!(hot(11).plan(100), ["load 1 on 2: Hot"]);
    }

    #[test]
    fn the_speed_of_its_replicas_decides_what_is_hot() {
        let mut stage = hot(20);
        stage.speeds.insert(crate::ids::NodeId(1), 2.0);
        assert_eq!(stage.plan(100), NOTHING);
        stage.speeds.insert(crate::ids::NodeId(1), 1.9);
        assert_eq!(stage.plan(100), ["load 1 on 2: Hot"]);
    }

    #[test]
    fn a_load_that_takes_longer_than_the_wait_is_not_begun() {
        let mut stage = hot(20);
        (2..=9).for_each(|node| stage.offer(node, 1, 10, 19));
        assert_eq!(stage.plan(100), NOTHING, "19 s, and 2 s for a request of its own");
        (2..=9).for_each(|node| stage.offer(node, 1, 10, 17));
        assert_eq!(stage.plan(100), ["load 1 on 2: Hot"]);
    }

    #[test]
    fn one_load_at_a_time_and_two_when_the_wait_is_huge() {
        let mut stage = hot(100);
        stage.reports(99, 2, 1, ResidentState::Loading { ready_at: s(200) });
        assert_eq!(stage.plan(100), NOTHING, "two replicas need 50 s");
        stage.waits(1, 10, 130, 100);
        assert_eq!(stage.plan(100), ["load 1 on 3: Hot"], "two need 65 s");
        stage.waits(1, 10, 1_300, 100);
        assert_eq!(stage.plan(100), NOTHING, "two loads are under way");
    }

    #[test]
    fn never_more_replicas_than_the_policy_allows() {
        let mut stage = hot(100);
        stage.policy(1, ModelPolicy { replicas_max: 2, ..ModelPolicy::default() });
        assert_eq!(stage.plan(100), ["load 1 on 2: Hot"]);
        stage.answer(100, 1, true);
        stage.ready(105, 2, 1);
        stage.waits(1, 10, 900, 100);
        assert_eq!(stage.plan(106), NOTHING);
    }

    #[test]
    fn starving_begins_after_the_bound_and_the_shortest_load() {
        let mut stage = stage();
        assert_eq!(stage.planner.patience(ModelId(1)).0, 35_000_000);
        stage.offer(7, 1, 10, 3);
        assert_eq!(stage.planner.patience(ModelId(1)).0, 33_000_000);
        assert_eq!(stage.planner.patience(ModelId(99)).0, 30_000_000, "nobody offers it");
    }
}
