//! How many attempts each runtime may carry at once: one limit per (node, model).
//!
//! Owns the limits and the pauses after "busy". A limit starts at the reported slots, halves when the runtime says that its
//! waiting room is full, and grows back by one for every `slots` completed answers (additive increase, multiplicative
//! decrease: Chiu and Jain 1989). It is never above the knee, the width at which a further sequence stops paying for the delay of
//! the others, which it is told. Knows at once which runtimes have a place left, because it is asked far more often than that
//! changes; so it is told of each start and end. Refuses to treat "busy" as a failure.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::ids::{Lane, ModelId, NodeId};
use crate::limits::Limits;
use crate::time::{At, Span};

#[derive(Debug, Default)]
pub(crate) struct Batcher {
    widths: BTreeMap<Lane, Width>,
    pauses: BTreeSet<(At, Lane)>,
    /// Those that carry less than their limit.
    with_room: BTreeSet<(ModelId, NodeId)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Width {
    /// Attempts in flight.
    carried: u32,
    slots: u32,
    limit: u32,
    /// Zero: not known.
    knee: u32,
    /// Completed answers since the limit last grew.
    credit: u32,
    paused_until: Option<At>,
    /// "Busy" since the last completed answer, a burst counted once.
    refusals: u32,
    shrunk: Option<At>,
}

impl Width {
    fn limit(&self) -> u32 {
        match self.knee {
            0 => self.limit,
            knee => self.limit.min(knee),
        }
    }
}

impl Batcher {
    /// The runtime reports its slots. A limit that was shrunk stays shrunk: more slots on paper end no overload. What it carries may
    /// have begun before it was forgotten.
    pub(crate) fn report(&mut self, lane: Lane, slots: u32, carried: u32) {
        let width = self.widths.entry(lane).or_default();
        width.limit = if width.limit == width.slots { slots } else { width.limit.min(slots) };
        width.slots = slots;
        width.carried = carried;
        self.note(lane);
    }

    /// More than so many at once do not pay.
    pub(crate) fn bend(&mut self, lane: Lane, knee: u32) {
        if let Some(width) = self.widths.get_mut(&lane) {
            width.knee = knee;
            self.note(lane);
        }
    }

    /// An attempt starts, or ends, on a runtime that now carries so many. What of a runtime that is not there any more is still in
    /// flight has no limit.
    pub(crate) fn carries(&mut self, lane: Lane, carried: u32) {
        if let Some(width) = self.widths.get_mut(&lane) {
            width.carried = carried;
            self.note(lane);
        }
    }

    pub(crate) fn forget(&mut self, lane: Lane) {
        self.resume(lane);
        self.widths.remove(&lane);
        self.note(lane);
    }

    fn note(&mut self, lane: Lane) {
        let has_room = self.widths.get(&lane).is_some_and(|width| width.carried < width.limit());
        let entry = (lane.1, lane.0);
        if has_room {
            self.with_room.insert(entry)
        } else {
            self.with_room.remove(&entry)
        };
    }

    /// The nodes that carry less than they may of the model.
    pub(crate) fn with_room(&self, model: ModelId) -> impl Iterator<Item = NodeId> + '_ {
        self.with_room.range((model, NodeId(0))..=(model, NodeId(u64::MAX))).map(|(_, node)| *node)
    }

    /// The runtime had no room for an attempt made at `dispatched`. Attempts made before the limit last shrank belong to
    /// the same burst and shrink it no further.
    pub(crate) fn busy(&mut self, lane: Lane, dispatched: At, at: At, limits: &Limits) {
        self.resume(lane);
        let Some(width) = self.widths.get_mut(&lane) else { return };
        if width.shrunk.is_none_or(|shrunk| dispatched > shrunk) {
            width.limit = (width.limit / 2).max(1).min(width.slots);
            width.credit = 0;
            width.shrunk = Some(at);
            width.refusals = width.refusals.saturating_add(1);
        }
        let until = at + pause(width.refusals, limits);
        width.paused_until = Some(until);
        self.pauses.insert((until, lane));
        self.note(lane);
    }

    /// An answer completed: the runtime has room, and in time for more than before.
    pub(crate) fn completed(&mut self, lane: Lane) {
        self.resume(lane);
        let Some(width) = self.widths.get_mut(&lane) else { return };
        width.refusals = 0;
        if width.limit >= width.slots {
            return;
        }
        width.credit = width.credit.saturating_add(1);
        if width.credit >= width.slots {
            width.limit = width.limit.saturating_add(1);
            width.credit = 0;
            self.note(lane);
        }
    }

    /// A slot came free on the lane, or its pause is over.
    pub(crate) fn resume(&mut self, lane: Lane) {
        if let Some(until) = self.widths.get_mut(&lane).and_then(|width| width.paused_until.take()) {
            self.pauses.remove(&(until, lane));
        }
    }

    pub(crate) fn first_pause(&self) -> Option<(At, Lane)> {
        self.pauses.first().copied()
    }

    /// How many at once, and until when none.
    pub(crate) fn allows(&self, lane: Lane) -> (u32, Option<At>) {
        self.widths.get(&lane).map_or((0, None), |width| (width.limit(), width.paused_until))
    }

    pub(crate) fn limit(&self, lane: Lane) -> u32 {
        self.widths.get(&lane).map_or(0, Width::limit)
    }

    pub(crate) fn slots(&self, lane: Lane) -> u32 {
        self.widths.get(&lane).map_or(0, |width| width.slots)
    }
}

fn pause(refusals: u32, limits: &Limits) -> Span {
    let doublings = refusals.saturating_sub(1).min(32);
    limits.busy_pause.times(1 << doublings).min(limits.busy_pause_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = (NodeId(1), ModelId(1));

    fn batcher(slots: u32) -> Batcher {
        let mut batcher = Batcher::default();
        batcher.report(LANE, slots, 0);
        batcher
    }

    fn busy(batcher: &mut Batcher, dispatched: u64, at: u64) {
        batcher.busy(LANE, At(dispatched), At(at), &Limits::default());
    }

    #[test]
    fn the_limit_starts_at_the_reported_slots_and_follows_them() {
        let mut batcher = batcher(4);
        assert_eq!(batcher.limit(LANE), 4);
        batcher.report(LANE, 6, 0);
        assert_eq!(batcher.limit(LANE), 6);
        batcher.report(LANE, 2, 0);
        assert_eq!(batcher.limit(LANE), 2);
        assert_eq!(batcher.limit((NodeId(2), ModelId(1))), 0);
    }

    #[test]
    fn the_limit_is_never_above_the_knee() {
        let mut batcher = batcher(8);
        batcher.bend(LANE, 3);
        assert_eq!((batcher.limit(LANE), batcher.slots(LANE)), (3, 8));
        batcher.bend(LANE, 12);
        assert_eq!(batcher.limit(LANE), 8);
        batcher.bend(LANE, 0);
        assert_eq!(batcher.limit(LANE), 8);
    }

    #[test]
    fn busy_halves_the_limit_down_to_one() {
        let mut batcher = batcher(8);
        let mut limits = Vec::new();
        for round in 1..=5 {
            busy(&mut batcher, round * 1_000, round * 1_000 + 1);
            limits.push(batcher.limit(LANE));
        }
        assert_eq!(limits, [4, 2, 1, 1, 1]);
    }

    #[test]
    fn a_burst_of_busy_halves_the_limit_once() {
        let mut batcher = batcher(8);
        for dispatched in 0..6 {
            busy(&mut batcher, dispatched, 100 + dispatched);
        }
        assert_eq!(batcher.limit(LANE), 4);
    }

    #[test]
    fn an_attempt_made_in_the_instant_of_the_halving_belongs_to_the_burst() {
        let mut batcher = batcher(8);
        busy(&mut batcher, 5, 5);
        busy(&mut batcher, 5, 6);
        assert_eq!(batcher.limit(LANE), 4);
        busy(&mut batcher, 6, 7);
        assert_eq!(batcher.limit(LANE), 2);
    }

    #[test]
    fn the_limit_grows_by_one_for_every_slots_completions_up_to_the_slots() {
        let mut batcher = batcher(4);
        busy(&mut batcher, 1, 2);
        assert_eq!(batcher.limit(LANE), 2);
        let limits: Vec<u32> = (0..12)
            .map(|_| {
                batcher.completed(LANE);
                batcher.limit(LANE)
            })
            .collect();
        assert_eq!(limits, [2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4]);
    }

    #[test]
    fn a_report_of_more_slots_does_not_undo_a_shrunk_limit() {
        let mut batcher = batcher(8);
        busy(&mut batcher, 1, 2);
        batcher.report(LANE, 16, 0);
        assert_eq!(batcher.limit(LANE), 4);
        batcher.report(LANE, 3, 0);
        assert_eq!(batcher.limit(LANE), 3);
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_a_completion_starts_anew() {
        let mut batcher = batcher(8);
        let mut pauses = Vec::new();
        for round in 1..=8 {
            let at = At(round * 100_000_000);
            batcher.busy(LANE, at, at, &Limits::default());
            pauses.push(batcher.allows(LANE).1.map(|until| until.since(at).0 / 1_000));
        }
        let expected = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000];
        assert_eq!(pauses, expected.map(Some));
        batcher.completed(LANE);
        assert_eq!(batcher.allows(LANE).1, None);
        busy(&mut batcher, 900_000_000, 900_000_001);
        assert_eq!(batcher.first_pause(), Some((At(900_100_001), LANE)));
    }

    #[test]
    fn a_forgotten_runtime_leaves_no_pause_behind() {
        let mut batcher = batcher(8);
        busy(&mut batcher, 1, 2);
        batcher.forget(LANE);
        assert_eq!(batcher.first_pause(), None);
        assert_eq!(batcher.slots(LANE), 0);
        busy(&mut batcher, 3, 4);
        assert_eq!(batcher.first_pause(), None);
    }

    #[test]
    fn a_runtime_has_room_while_it_carries_less_than_its_limit() {
        let mut batcher = batcher(4);
        let room = |batcher: &Batcher| batcher.with_room(LANE.1).collect::<Vec<_>>();
        assert_eq!(room(&batcher), [LANE.0]);
        batcher.carries(LANE, 4);
        assert_eq!(room(&batcher), []);
        batcher.report(LANE, 5, 4);
        assert_eq!(room(&batcher), [LANE.0], "one slot more");
        batcher.bend(LANE, 3);
        assert_eq!(room(&batcher), [], "more do not pay");
        batcher.bend(LANE, 0);
        busy(&mut batcher, 1, 1);
        assert_eq!(room(&batcher), [], "it was too much");
        batcher.carries(LANE, 1);
        assert_eq!(room(&batcher), [LANE.0]);
        assert_eq!(batcher.with_room(ModelId(2)).count(), 0);
        batcher.forget(LANE);
        batcher.carries(LANE, 0);
        assert_eq!(room(&batcher), [], "it is not there any more");
    }

    #[test]
    fn a_limit_that_grows_makes_room() {
        let mut batcher = batcher(4);
        busy(&mut batcher, 1, 1);
        batcher.carries(LANE, 2);
        (0..4).for_each(|_| batcher.completed(LANE));
        assert_eq!((batcher.limit(LANE), batcher.with_room(LANE.1).count()), (3, 1));
    }
}
