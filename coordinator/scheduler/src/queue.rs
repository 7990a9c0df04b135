//! The one global queue: a line of waiting requests per model, each in order of arrival.
//!
//! Owns who waits and who is before whom. Refuses to know nodes, slots or deadlines. A line has two parts: *fresh* requests,
//! which are alike to every node, and *marked* ones, which must keep away from a node that failed them. When the first fresh
//! request cannot start, no other fresh one can, so only the few marked ones are ever stepped over.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::ids::{ModelId, RequestId};
use crate::time::At;

/// A place in a line: arrival time, ties by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) arrived: At,
    pub(crate) request: RequestId,
}

/// How far a walk along a line has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    fresh_stuck: bool,
    marked_passed: Option<Place>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: BTreeMap<ModelId, Line>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Line {
    fresh: BTreeSet<Place>,
    marked: BTreeSet<Place>,
}

impl Queue {
    pub(crate) fn insert(&mut self, model: ModelId, place: Place, marked: bool) {
        let line = self.lines.entry(model).or_default();
        let part = if marked { &mut line.marked } else { &mut line.fresh };
        if part.insert(place) {
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    pub(crate) fn remove(&mut self, model: ModelId, place: Place) {
        let Some(line) = self.lines.get_mut(&model) else { return };
        if line.fresh.remove(&place) || line.marked.remove(&place) {
            self.waiting = self.waiting.saturating_sub(1);
        }
        if line.len() == 0 {
            self.lines.remove(&model);
        }
    }

    /// The next request worth trying, in order of arrival among those the walk has not stepped over.
    pub(crate) fn next(&self, model: ModelId, walk: &Walk) -> Option<Place> {
        let line = self.lines.get(&model)?;
        let fresh = if walk.fresh_stuck { None } else { line.fresh.first() };
        let marked = match walk.marked_passed {
            Some(passed) => {
                line.marked.range((core::ops::Bound::Excluded(passed), core::ops::Bound::Unbounded)).next()
            }
            None => line.marked.first(),
        };
        match (fresh, marked) {
            (Some(fresh), Some(marked)) => Some(*fresh.min(marked)),
            (Some(place), None) | (None, Some(place)) => Some(*place),
            (None, None) => None,
        }
    }

    /// `place` cannot start now: the walk steps over it, and over every other that could not either.
    pub(crate) fn step_over(&self, model: ModelId, walk: &mut Walk, place: Place) {
        if self.lines.get(&model).is_some_and(|line| line.marked.contains(&place)) {
            walk.marked_passed = Some(place);
        } else {
            walk.fresh_stuck = true;
        }
    }

    /// How many are before `place`. Constant for the last of a line, which is what an arrival is; linear otherwise.
    pub(crate) fn ahead(&self, model: ModelId, place: Place) -> usize {
        let Some(line) = self.lines.get(&model) else { return 0 };
        [&line.fresh, &line.marked].into_iter().map(|part| before(part, place)).fold(0, usize::saturating_add)
    }

    pub(crate) fn contains(&self, model: ModelId, place: Place) -> bool {
        self.lines.get(&model).is_some_and(|line| line.fresh.contains(&place) || line.marked.contains(&place))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn length(&self, model: ModelId) -> usize {
        self.lines.get(&model).map_or(0, Line::len)
    }

    /// Each model somebody waits for, with the number waiting.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (ModelId, usize)> + '_ {
        self.lines.iter().map(|(model, line)| (*model, line.len()))
    }

    /// Everybody in the line of `model`, in order.
    pub(crate) fn line(&self, model: ModelId) -> impl Iterator<Item = Place> + '_ {
        let mut parts =
            self.lines.get(&model).map(|line| (line.fresh.iter().peekable(), line.marked.iter().peekable()));
        core::iter::from_fn(move || {
            let (fresh, marked) = parts.as_mut()?;
            let fresh_first = match (fresh.peek(), marked.peek()) {
                (Some(fresh), Some(marked)) => fresh < marked,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if fresh_first { fresh.next().copied() } else { marked.next().copied() }
        })
    }
}

impl Line {
    fn len(&self) -> usize {
        self.fresh.len().saturating_add(self.marked.len())
    }
}

fn before(part: &BTreeSet<Place>, place: Place) -> usize {
    let after_last = part.last().is_none_or(|last| *last < place);
    let is_last = part.last() == Some(&place);
    if after_last {
        part.len()
    } else if is_last {
        part.len().saturating_sub(1)
    } else {
        part.range(..place).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODEL: ModelId = ModelId(1);

    fn place(arrived: u64, request: u64) -> Place {
        Place { arrived: At(arrived), request: RequestId(request) }
    }

    fn queue(fresh: &[Place], marked: &[Place]) -> Queue {
        let mut queue = Queue::default();
        fresh.iter().for_each(|place| queue.insert(MODEL, *place, false));
        marked.iter().for_each(|place| queue.insert(MODEL, *place, true));
        queue
    }

    #[test]
    fn the_first_to_arrive_is_the_first_to_leave_whichever_part_it_is_in() {
        let queue = queue(&[place(2, 2), place(4, 4)], &[place(1, 9), place(3, 3)]);
        let order: Vec<u64> = queue.line(MODEL).map(|place| place.request.0).collect();
        assert_eq!(order, [9, 2, 3, 4]);
        assert_eq!(queue.next(MODEL, &Walk::default()), Some(place(1, 9)));
    }

    #[test]
    fn equal_arrivals_leave_in_order_of_their_numbers() {
        let queue = queue(&[place(1, 8), place(1, 3)], &[place(1, 5)]);
        let order: Vec<u64> = queue.line(MODEL).map(|place| place.request.0).collect();
        assert_eq!(order, [3, 5, 8]);
    }

    #[test]
    fn a_fresh_request_that_cannot_start_speaks_for_all_fresh_ones() {
        let queue = queue(&[place(1, 1), place(2, 2)], &[place(3, 3)]);
        let mut walk = Walk::default();
        queue.step_over(MODEL, &mut walk, place(1, 1));
        assert_eq!(queue.next(MODEL, &walk), Some(place(3, 3)));
    }

    #[test]
    fn a_marked_request_that_cannot_start_speaks_for_itself_alone() {
        let queue = queue(&[place(2, 2)], &[place(1, 1), place(3, 3)]);
        let mut walk = Walk::default();
        queue.step_over(MODEL, &mut walk, place(1, 1));
        assert_eq!(queue.next(MODEL, &walk), Some(place(2, 2)));
        queue.step_over(MODEL, &mut walk, place(2, 2));
        assert_eq!(queue.next(MODEL, &walk), Some(place(3, 3)));
        queue.step_over(MODEL, &mut walk, place(3, 3));
        assert_eq!(queue.next(MODEL, &walk), None);
    }

    #[test]
    fn ahead_counts_both_parts() {
        let queue = queue(&[place(1, 1), place(3, 3), place(6, 6)], &[place(2, 2), place(5, 5)]);
        let ahead: Vec<usize> = queue.line(MODEL).map(|place| queue.ahead(MODEL, place)).collect();
        assert_eq!(ahead, [0, 1, 2, 3, 4]);
        assert_eq!(queue.ahead(ModelId(2), place(1, 1)), 0);
    }

    #[test]
    fn counts_follow_every_arrival_and_departure() {
        let mut queue = queue(&[place(1, 1)], &[place(2, 2)]);
        queue.insert(MODEL, place(1, 1), false);
        assert_eq!(queue.waiting(), 2);
        queue.remove(MODEL, place(2, 2));
        queue.remove(MODEL, place(2, 2));
        assert!(!queue.contains(MODEL, place(2, 2)));
        assert!(queue.contains(MODEL, place(1, 1)));
        assert_eq!(queue.lengths().collect::<Vec<_>>(), [(MODEL, 1)]);
        queue.remove(MODEL, place(1, 1));
        assert_eq!(queue.waiting(), 0);
        assert_eq!(queue.lengths().count(), 0);
    }
    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_queue_is_a_sorted_list_per_model(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..8, 0_u64..4, 0_u32..2, any::<bool>()), 0..80),
        ) {
            let mut queue = Queue::default();
            let mut list: Vec<(ModelId, Place, bool)> = Vec::new();
            for (arrives, request, arrived, model, marked) in steps {
                let model = ModelId(model);
                let listed = list.iter().position(|(_, place, _)| place.request == RequestId(request));
                match (arrives, listed) {
                    (true, None) => {
                        queue.insert(model, place(arrived, request), marked);
                        list.push((model, place(arrived, request), marked));
                    }
                    (false, Some(index)) => {
                        let (model, place, _) = list.remove(index);
                        queue.remove(model, place);
                    }
                    (true, Some(_)) | (false, None) => queue.remove(model, place(99, request)),
                }
                prop_assert_eq!(queue.waiting(), list.len());
                for model in [ModelId(0), ModelId(1)] {
                    let mut line: Vec<Place> = list.iter().filter(|(of, ..)| *of == model).map(|(_, place, _)| *place).collect();
                    line.sort();
                    prop_assert_eq!(queue.length(model), line.len());
                    prop_assert_eq!(&queue.line(model).collect::<Vec<_>>(), &line);
                    for (ahead, place) in line.iter().enumerate() {
                        prop_assert_eq!(queue.ahead(model, *place), ahead);
                    }
                }
            }
        }

        #[test]
        fn a_walk_where_nobody_can_start_meets_one_fresh_and_every_marked_request(
            places in proptest::collection::btree_map(0_u64..40, any::<bool>(), 0..20),
        ) {
            let mut queue = Queue::default();
            places.iter().for_each(|(number, marked)| queue.insert(MODEL, place(*number, *number), *marked));
            let mut met = Vec::new();
            let mut walk = Walk::default();
            while let Some(place) = queue.next(MODEL, &walk) {
                met.push(place.request.0);
                queue.step_over(MODEL, &mut walk, place);
            }
            let first_fresh = places.iter().find(|(_, marked)| !**marked).map(|(number, _)| *number);
            let expected: Vec<u64> =
                places.iter().filter(|(number, marked)| **marked || Some(**number) == first_fresh).map(|(number, _)| *number).collect();
            prop_assert_eq!(met, expected);
        }
    }
}
