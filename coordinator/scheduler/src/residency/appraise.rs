//! How the survey comes about: the formulas.
//!
//! Owns what is a number and not a rule. All times are seconds of somebody's waiting or of a node's work, so that they can be
//! added. Refuses to compare.
//!
//! ```text
//! need(model)       the work that waits + the age of the oldest waiter + the work expected within one starvation bound
//! priority(replica) L + frequency / replicas * (load + prefix value) / GiB         GreedyDual-Size-Frequency
//! loss(replica)     (load + prefix value) * f / (f + 1), f = frequency / replicas  what it will cost to have it back
//! ```
//!
//! GreedyDual-Size-Frequency: Cherkasova 1998; L is the priority of the last victim before the replica's latest use, so that what
//! was popular long ago goes.

use alloc::vec::Vec;

use super::Residency;
use super::replica::Replica;
use super::survey::{Price, Room, Standing, Survey};
use super::view::{PlanView, Waiting};
use crate::ids::{Lane, ModelId};
use crate::time::{At, Span};

impl Residency {
    pub(super) fn survey<'a>(&self, at: At, view: &'a PlanView<'a>) -> Survey<'a> {
        let standings = self.standings(at, view);
        let prices: Vec<Price> = self
            .memory
            .iter()
            .filter_map(|(lane, replica)| self.price(at, view, &standings, lane, replica))
            .collect();
        let rooms = self.rooms(&prices);
        let usable = || rooms.iter().filter(|room| room.usable);
        let most = usable().count().checked_div(self.limits.nodes_per_load).unwrap_or(usize::MAX);
        let loads = usable().fold(0_usize, |sum, room| sum.saturating_add(room.loads));
        let loads_left = most.max(self.limits.loads_total_min).saturating_sub(loads);
        Survey { at, view, loads_left, standings, rooms, prices }
    }

    /// The time to load a model that may not be offered any more.
    pub(super) fn load_time(&self, lane: Lane) -> Span {
        self.offers.get(lane).map_or(self.limits.load_overhead, |offer| offer.load)
    }

    /// Every model that somebody has, wants or waits for.
    fn standings(&self, at: At, view: &PlanView<'_>) -> Vec<Standing> {
        let resident = self.memory.iter().map(|(lane, _)| lane.1);
        let mut models: Vec<ModelId> =
            resident.chain(self.policies.models()).chain(view.waiting.keys().copied()).collect();
        models.sort_unstable();
        models.dedup();
        let mut standings: Vec<Standing> =
            models.into_iter().map(|model| self.standing(at, view, model)).collect();
        for (lane, replica) in self.memory.iter() {
            let standing = find(&standings, lane.1).and_then(|index| standings.get_mut(index));
            let Some(standing) = standing else { continue };
            if self.memory.is_usable(lane.0) {
                count(standing, view, lane, replica);
            } else if self.memory.is_draining(lane.0) && replica.is_ready() {
                standing.parting = standing.parting.saturating_add(1);
            }
        }
        standings
    }

    fn standing(&self, at: At, view: &PlanView<'_>, model: ModelId) -> Standing {
        let nobody = Waiting { count: 0, work: Span::ZERO, oldest: at };
        let waiting = view.waiting.get(&model).copied().unwrap_or(nobody);
        let expected = self.demand.expected_work(at, model, self.limits.starvation, &self.limits);
        let recent = self.demand.latest(model).is_some_and(|latest| at.since(latest) <= self.limits.warm);
        Standing {
            model,
            waiting,
            minimum: self.policies.replicas_min(model),
            frequency: self.demand.arrivals(at, model, &self.limits),
            need: waiting.work + at.since(waiting.oldest) + expected,
            in_use: recent || waiting.count > 0,
            ..Standing::default()
        }
    }

    fn price(
        &self,
        at: At,
        view: &PlanView<'_>,
        standings: &[Standing],
        lane: Lane,
        replica: &Replica,
    ) -> Option<Price> {
        let index = find(standings, lane.1)?;
        let standing = standings.get(index)?;
        let (usage, load) = (view.lane(lane), self.load_time(lane));
        let frequency = standing.frequency / f64::from(standing.ready.max(1));
        let back = (load + usage.prefix_value).0 as f64;
        let residency_min = load.times(self.limits.residency_loads).max(self.limits.residency_min);
        let usable = self.memory.is_usable(lane.0);
        Some(Price {
            lane,
            standing: index,
            bytes: replica.bytes,
            ready: usable && replica.is_ready(),
            coming: usable && replica.is_coming(),
            pinned: self.policies.is_pinned(lane),
            priority: replica.stamp.saturating_add((frequency * back / gib(replica.bytes)) as u64),
            loss: Span((back * frequency / (frequency + 1.0)) as u64),
            load,
            busy: usage.busy,
            settled: at.since(replica.since) >= residency_min,
            had_turn: standing.waiting.count == 0 || standing.waiting.oldest > replica.since,
            done: standing.waiting.count == 0 && usage.in_flight == 0,
        })
    }

    fn rooms(&self, prices: &[Price]) -> Vec<Room> {
        let mut start = 0_usize;
        let nodes = self.memory.nodes().map(|node| {
            let here = prices.iter().skip(start).take_while(|price| price.lane.0 == node);
            let (replicas, busy) = here.fold((0_usize, Span::ZERO), |(replicas, busy), price| {
                (replicas.saturating_add(1), busy + price.busy)
            });
            let range = start..start.saturating_add(replicas);
            start = range.end;
            Room {
                node,
                usable: self.memory.is_usable(node),
                budget: self.memory.budget(node),
                committed: self.memory.committed(node),
                aside: self.missing_pins(node),
                loads: self.memory.loads_on(node),
                busy,
                kept: false,
                range,
            }
        });
        nodes.collect()
    }
}

fn count(standing: &mut Standing, view: &PlanView<'_>, lane: Lane, replica: &Replica) {
    standing.ready = standing.ready.saturating_add(u32::from(replica.is_ready()));
    standing.coming = standing.coming.saturating_add(u32::from(replica.is_coming()));
    if standing.waiting.count > 0 && (replica.is_ready() || replica.is_coming()) {
        standing.capacity += view.speed(lane);
    }
}

fn find(standings: &[Standing], model: ModelId) -> Option<usize> {
    standings.binary_search_by_key(&model, |standing| standing.model).ok()
}

/// At least a mebibyte, so that nothing is divided by zero.
fn gib(bytes: u64) -> f64 {
    bytes.max(1 << 20) as f64 / (1_u64 << 30) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::residency::stage_tests::{GIB, Stage, lane, s};
    use crate::residency::{ResidentState, Use};

    const NOWHERE: &dyn Fn(NodeId, ModelId) -> f64 = &|_, _| 1.0;

    fn look<T>(stage: &mut Stage, at: u64, read: impl Fn(&Survey<'_>) -> T) -> T {
        let view = PlanView { waiting: stage.waiting.clone(), lanes: stage.lanes.clone(), speed: NOWHERE };
        stage.planner.note_use(&view);
        read(&stage.planner.survey(s(at), &view))
    }

    fn priority(stage: &mut Stage, at: u64, model: u32) -> f64 {
        look(stage, at, |survey| survey.priority(lane(1, model)) as f64 / 1e6)
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-3, "{found} is not {expected}");
    }

    #[test]
    fn need_is_waiting_work_and_age_and_what_is_to_come() {
        let mut stage = Stage::full(100);
        stage.waits(4, 2, 7, 90);
        let need = |stage: &mut Stage, model| {
            look(stage, 100, |survey| survey.standing(ModelId(model)).need.0 as f64 / 1e6)
        };
        assert_near(need(&mut stage, 4), 7.0 + 10.0);
        assert_near(need(&mut stage, 1), 0.0);
        stage.planner.arrived(s(100), ModelId(1), Span::from_s(10));
        // 10 s of work every 300 s / ln 2, for 30 s.
        assert_near(need(&mut stage, 1), 10.0 * core::f64::consts::LN_2 / 10.0);
    }

    #[test]
    fn priority_is_what_a_gibibyte_saves() {
        let mut stage = Stage::full(100);
        assert_near(priority(&mut stage, 100, 3), 3.0 * 2.0 / 10.0);
        stage.offer(1, 3, 10, 8);
        assert_near(priority(&mut stage, 100, 3), 3.0 * 8.0 / 10.0);
        assert_near(priority(&mut stage, 400, 3), 1.5 * 8.0 / 10.0);
        let prefix_value = Span::from_s(4);
        stage.lanes.insert(lane(1, 3), Use { prefix_value, ..Use::default() });
        assert_near(priority(&mut stage, 100, 3), 3.0 * (8.0 + 4.0) / 10.0);
    }

    #[test]
    fn one_of_two_replicas_is_worth_half() {
        let mut stage = Stage::full(100);
        stage.node(2, 10);
        stage.offer(2, 3, 10, 2);
        stage.ready(100, 2, 3);
        assert_near(priority(&mut stage, 100, 3), 1.5 * 2.0 / 10.0);
    }

    #[test]
    fn a_use_after_an_eviction_lifts_a_replica_above_those_not_used_since() {
        let mut stage = Stage::full(1_000);
        stage.waits(4, 1, 1, 1_000);
        assert_eq!(stage.plan(1_040), ["evict 1 from 1 for 4"]);
        let (two, three) = (priority(&mut stage, 1_041, 2), priority(&mut stage, 1_041, 3));
        stage.uses(1, 2, 0, 0, 1_041);
        assert_near(priority(&mut stage, 1_041, 2), two + stage.planner.age as f64 / 1e6);
        assert_near(priority(&mut stage, 1_041, 3), three);
        assert_near(stage.planner.age as f64 / 1e6, two / 2.0);
    }

    #[test]
    fn what_an_eviction_loses_grows_with_the_frequency_up_to_the_whole_load() {
        let mut stage = Stage::full(100);
        let loss = |stage: &mut Stage, model| {
            look(stage, 100, |survey| survey.price(lane(1, model)).map(|price| price.loss.0))
        };
        assert_eq!(loss(&mut stage, 1), Some(1_000_000), "half of 2 s for one arrival");
        assert_eq!(loss(&mut stage, 3), Some(1_500_000), "three quarters for three");
        stage.asked(100, 3, 100_000);
        assert_eq!(loss(&mut stage, 3), Some(1_999_980));
    }

    #[test]
    fn settled_done_and_turn_follow_residency_and_use() {
        let mut stage = Stage::full(100);
        let read = |stage: &mut Stage, at| {
            look(stage, at, |survey| {
                survey.price(lane(1, 1)).map(|price| (price.settled, price.done, price.had_turn))
            })
        };
        assert_eq!(read(&mut stage, 129), Some((false, true, true)));
        stage.uses(1, 1, 1, 4, 120);
        assert_eq!(read(&mut stage, 130), Some((true, false, true)));
        stage.uses(1, 1, 0, 0, 120);
        stage.waits(1, 1, 1, 100);
        assert_eq!(read(&mut stage, 130), Some((true, false, false)), "it came before the replica was ready");
        stage.waits(1, 1, 1, 101);
        assert_eq!(read(&mut stage, 130), Some((true, false, true)));
    }

    #[test]
    fn a_model_is_in_use_until_its_last_request_is_ten_minutes_old() {
        let mut stage = Stage::full(100);
        let in_use = |stage: &mut Stage, at| look(stage, at, |survey| survey.standing(ModelId(1)).in_use);
        assert!(in_use(&mut stage, 700) && !in_use(&mut stage, 701));
        stage.waits(1, 1, 1, 701);
        assert!(in_use(&mut stage, 701));
    }

    #[test]
    fn only_usable_nodes_count() {
        let mut stage = Stage::full(100);
        stage.reports(100, 1, 5, ResidentState::Loading { ready_at: s(110) });
        let count = |stage: &mut Stage, model| {
            look(stage, 100, |survey| {
                let standing = survey.standing(ModelId(model));
                (standing.ready, standing.coming, survey.loads_left)
            })
        };
        assert_eq!((count(&mut stage, 1), count(&mut stage, 5)), ((1, 0, 1), (0, 1, 1)));
        stage.unusable(1, 30);
        assert_eq!((count(&mut stage, 1), count(&mut stage, 5)), ((0, 0, 2), (0, 0, 2)));
    }

    #[test]
    fn what_is_set_aside_for_a_pin_is_not_kept_from_the_pin_itself() {
        let mut stage = Stage::full(100);
        stage.pin(1, 4);
        let short = |stage: &mut Stage, model| {
            look(stage, 100, |survey| survey.room(NodeId(1)).map(|room| room.short(ModelId(model), 7 * GIB)))
        };
        assert_eq!((short(&mut stage, 4), short(&mut stage, 5)), (Some(7 * GIB), Some(17 * GIB)));
        stage.node(1, 40);
        assert_eq!((short(&mut stage, 4), short(&mut stage, 5)), (Some(0), Some(7 * GIB)));
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let mut stage = Stage::full(100);
        stage.planner.reservation(s(100), NodeId(1), ModelId(1), 0);
        assert_near(priority(&mut stage, 100, 1), 2.0 * 1_024.0);
    }
}
