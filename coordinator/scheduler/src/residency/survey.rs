//! Everything weighed, for one plan: each model, each node and each replica in a row of its own.
//!
//! Owns the numbers that `wants`, `choose` and `evict` compare, and keeps them true while the plan is made: what is placed, evicted
//! or dropped counts at once for whatever is decided next. Refuses to decide, and to outlive the plan. The rows are plain sorted
//! lists, since a plan looks at each of them many times.

use alloc::vec::Vec;
use core::ops::Range;

use super::view::{PlanView, Waiting};
use crate::ids::{Lane, ModelId, NodeId};
use crate::time::{At, Span};

pub(super) struct Survey<'a> {
    pub(super) at: At,
    pub(super) view: &'a PlanView<'a>,
    /// Loads that may yet begin.
    pub(super) loads_left: usize,
    /// By model.
    pub(super) standings: Vec<Standing>,
    /// By node.
    pub(super) rooms: Vec<Room>,
    /// By node and model.
    pub(super) prices: Vec<Price>,
}

/// How a model stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) model: ModelId,
    pub(super) waiting: Waiting,
    /// Replicas that its policy asks for.
    pub(super) minimum: u32,
    /// Replicas that can be sent requests.
    pub(super) ready: u32,
    /// Replicas on their way, on usable nodes.
    pub(super) coming: u32,
    /// Replicas that serve on nodes that are to be emptied; in no other number.
    pub(super) parting: u32,
    /// Node-seconds per second of both.
    pub(super) capacity: f64,
    /// Arrivals that still count.
    pub(super) frequency: f64,
    pub(super) need: Span,
    /// Somebody waits, or a request came not long ago.
    pub(super) in_use: bool,
    /// This plan loads it.
    pub(super) placed: bool,
}

/// How a node stands.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) node: NodeId,
    pub(super) usable: bool,
    pub(super) budget: u64,
    /// Of its budget, when those leaving are gone and those intended have come.
    pub(super) committed: u64,
    /// Pins that are honoured and not there, with their bytes.
    pub(super) aside: Vec<(ModelId, u64)>,
    /// Loads under way.
    pub(super) loads: usize,
    /// How long what is in flight there keeps it busy.
    pub(super) busy: Span,
    /// A starving model waits for its room.
    pub(super) kept: bool,
    /// Where its replicas are in the list of prices.
    pub(super) range: Range<usize>,
}

/// What a replica is worth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    pub(super) lane: Lane,
    /// Where its model is in the list of standings.
    pub(super) standing: usize,
    pub(super) bytes: u64,
    /// It takes requests.
    pub(super) ready: bool,
    /// It is on its way, on a usable node.
    pub(super) coming: bool,
    pub(super) pinned: bool,
    /// In millionths, so that equal ones are equal.
    pub(super) priority: u64,
    pub(super) loss: Span,
    pub(super) load: Span,
    pub(super) busy: Span,
    /// It has been ready for the minimum residency.
    pub(super) settled: bool,
    /// All who waited when it became ready have been served.
    pub(super) had_turn: bool,
    /// Nothing waits for its model, and nothing is in flight there.
    pub(super) done: bool,
}

impl Survey<'_> {
    /// One that nobody has, wants or waits for stands at nothing.
    pub(super) fn standing(&self, model: ModelId) -> Standing {
        let found = self.standings.binary_search_by_key(&model, |standing| standing.model).ok();
        let found = found.and_then(|index| self.standings.get(index));
        found.copied().unwrap_or(Standing { model, ..Standing::default() })
    }

    pub(super) fn room(&self, node: NodeId) -> Option<&Room> {
        let index = self.rooms.binary_search_by_key(&node, |room| room.node).ok()?;
        self.rooms.get(index)
    }

    pub(super) fn price(&self, lane: Lane) -> Option<&Price> {
        let index = self.prices.binary_search_by_key(&lane, |price| price.lane).ok()?;
        self.prices.get(index)
    }

    pub(super) fn priority(&self, lane: Lane) -> u64 {
        self.price(lane).map_or(0, |price| price.priority)
    }

    /// The replicas of a node, in whatever phase.
    pub(super) fn on(&self, room: &Room) -> &[Price] {
        self.prices.get(room.range.clone()).unwrap_or_default()
    }

    pub(super) fn standing_of(&self, price: &Price) -> Standing {
        self.standings.get(price.standing).copied().unwrap_or_default()
    }

    /// The load begins, or will when its room is free.
    pub(super) fn placed(&mut self, (node, model): Lane, bytes: u64) {
        self.loads_left = self.loads_left.saturating_sub(1);
        if let Some(standing) = self.standing_mut(model) {
            standing.placed = true;
        }
        if let Some(room) = self.room_mut(node) {
            room.committed = room.committed.saturating_add(bytes);
            room.loads = room.loads.saturating_add(1);
            room.aside.retain(|(other, _)| *other != model);
        }
    }

    /// The replica goes, or does not come.
    pub(super) fn gone(&mut self, lane: Lane) {
        let Some(price) = self.price(lane).copied() else { return };
        if let Some(standing) = self.standing_mut(lane.1) {
            standing.ready = standing.ready.saturating_sub(u32::from(price.ready));
            standing.coming = standing.coming.saturating_sub(u32::from(price.coming));
        }
        if let Some(room) = self.room_mut(lane.0) {
            room.committed = room.committed.saturating_sub(price.bytes);
            room.loads = room.loads.saturating_sub(usize::from(price.coming));
        }
        self.loads_left = self.loads_left.saturating_add(usize::from(price.coming));
        if let Ok(index) = self.prices.binary_search_by_key(&lane, |price| price.lane)
            && let Some(price) = self.prices.get_mut(index)
        {
            (price.ready, price.coming) = (false, false);
        }
    }

    /// What becomes free there is left to a starving model.
    pub(super) fn keep(&mut self, node: NodeId) {
        if let Some(room) = self.room_mut(node) {
            room.kept = true;
        }
    }

    fn standing_mut(&mut self, model: ModelId) -> Option<&mut Standing> {
        let index = self.standings.binary_search_by_key(&model, |standing| standing.model).ok()?;
        self.standings.get_mut(index)
    }

    fn room_mut(&mut self, node: NodeId) -> Option<&mut Room> {
        let index = self.rooms.binary_search_by_key(&node, |room| room.node).ok()?;
        self.rooms.get_mut(index)
    }
}

impl Standing {
    pub(super) fn replicas(&self) -> u32 {
        self.ready.saturating_add(self.coming)
    }

    /// Whether its minimum would miss one.
    pub(super) fn is_short_without_one(&self) -> bool {
        self.replicas() <= self.minimum
    }
}

impl Room {
    /// Bytes that are missing for so many more of this model; zero when they fit.
    pub(super) fn short(&self, model: ModelId, bytes: u64) -> u64 {
        let others = self.aside.iter().filter(|(other, _)| *other != model);
        let spoken_for = others.fold(self.committed, |sum, (_, bytes)| sum.saturating_add(*bytes));
        spoken_for.saturating_add(bytes).saturating_sub(self.budget)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::residency::ResidentState;
    use crate::residency::stage_tests::{GIB, Stage, lane, s};

    const NODE: NodeId = NodeId(1);

    /// Three ready replicas and a fourth that loads, on one node with room for three.
    fn with<T>(act: impl Fn(&mut Survey<'_>) -> T) -> T {
        let mut stage = Stage::full(100);
        stage.reports(100, 1, 4, ResidentState::Loading { ready_at: s(110) });
        stage.pin(1, 5);
        let view = PlanView { waiting: BTreeMap::new(), lanes: BTreeMap::new(), speed: &|_, _| 1.0 };
        let mut survey = stage.planner.survey(s(100), &view);
        act(&mut survey)
    }

    fn counts(survey: &Survey<'_>, model: u32) -> (u32, u32) {
        let standing = survey.standing(ModelId(model));
        (standing.ready, standing.coming)
    }

    fn room(survey: &Survey<'_>) -> (u64, usize, usize, usize) {
        let room = survey.room(NODE).expect("the node is known");
        (room.committed / GIB, room.loads, room.aside.len(), survey.loads_left)
    }

    #[test]
    fn rows_are_found_by_what_they_are_about() {
        with(|survey| {
            let lanes =
                survey.room(NODE).map(|room| survey.on(room).iter().map(|price| price.lane.1.0).collect());
            assert_eq!(lanes, Some(vec![1, 2, 3, 4]));
            assert_eq!(survey.price(lane(1, 3)).map(|price| survey.standing_of(price).model.0), Some(3));
            assert_eq!((counts(survey, 3), counts(survey, 4), counts(survey, 99)), ((1, 0), (0, 1), (0, 0)));
            assert!(survey.room(NodeId(2)).is_none() && survey.price(lane(2, 1)).is_none());
            assert_eq!(survey.priority(lane(2, 1)), 0);
        });
    }

    #[test]
    fn what_goes_is_not_counted_any_more() {
        with(|survey| {
            assert_eq!(room(survey), (40, 1, 1, 1));
            survey.gone(lane(1, 3));
            assert_eq!((counts(survey, 3), room(survey)), ((0, 0), (30, 1, 1, 1)));
            survey.gone(lane(1, 4));
            assert_eq!((counts(survey, 4), room(survey)), ((0, 0), (20, 0, 1, 2)));
            survey.gone(lane(9, 9));
            assert_eq!(room(survey), (20, 0, 1, 2));
            assert_eq!(survey.price(lane(1, 3)).map(|price| price.ready), Some(false));
        });
    }

    #[test]
    fn a_load_on_a_node_that_is_not_usable_was_never_counted() {
        let mut stage = Stage::full(100);
        stage.reports(100, 1, 4, ResidentState::Loading { ready_at: s(110) });
        stage.unusable(1, 30);
        let view = PlanView { waiting: BTreeMap::new(), lanes: BTreeMap::new(), speed: &|_, _| 1.0 };
        let mut survey = stage.planner.survey(s(100), &view);
        assert_eq!(survey.loads_left, 2);
        survey.gone(lane(1, 4));
        assert_eq!(survey.loads_left, 2);
    }

    #[test]
    fn what_is_placed_counts_from_then_on() {
        with(|survey| {
            survey.placed(lane(1, 5), 10 * GIB);
            assert_eq!(room(survey), (50, 2, 0, 0));
            assert!(survey.standing(ModelId(5)).placed && !survey.standing(ModelId(4)).placed);
        });
    }

    #[test]
    fn a_kept_node_is_kept_for_the_rest_of_the_plan() {
        with(|survey| {
            survey.keep(NODE);
            survey.keep(NodeId(9));
            assert!(survey.rooms.iter().all(|room| room.kept));
        });
    }
}
