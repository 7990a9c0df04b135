//! What one lane holds: its segments in the order in which it will lose them, and how much fits.
//!
//! Owns that order: the segments visited longest ago first, of one visit the deepest first. A visit goes through all blocks
//! before those it ends with, so the first in this order never has another behind it. A segment is filed under a visit that
//! may since have been followed by others; it is filed anew when its turn comes, so that a prompt in daily use costs a visit
//! nothing here. Refuses to hold the blocks.

use alloc::collections::BTreeSet;
use core::cmp::Reverse;

use super::segments::Edge;
use crate::ids::{Block, ModelId};
use crate::limits::CAPACITY_SHARE;

#[derive(Debug)]
pub(super) struct Held {
    filed: BTreeSet<(u64, Reverse<u32>, Edge)>,
    edges: BTreeSet<Edge>,
    pub(super) blocks: usize,
    /// What fits: as reported, or less where finished requests have shown it.
    capacity: usize,
    reported: usize,
    /// The first visit that may count: before it the lane held nothing that it still holds.
    pub(super) since: u64,
}

impl Held {
    pub(super) fn new(capacity: usize, since: u64) -> Self {
        Self {
            filed: BTreeSet::new(),
            edges: BTreeSet::new(),
            blocks: 0,
            capacity,
            reported: capacity,
            since,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// A report. One that says what it said before leaves what was learned since.
    pub(super) fn report(&mut self, capacity: usize) {
        if self.reported != capacity {
            (self.reported, self.capacity) = (capacity, capacity);
        }
    }

    /// Something of what is held here was lost: it does not all fit.
    pub(super) fn shrink(&mut self) {
        let share = (self.blocks / CAPACITY_SHARE).max(1);
        self.capacity = self.capacity.min(self.blocks.saturating_sub(share));
    }

    /// So much was kept beyond what is held here.
    pub(super) fn stretch(&mut self, blocks: usize) {
        self.capacity = self.capacity.saturating_add(blocks).min(self.reported);
    }

    pub(super) fn file(&mut self, visit: u64, depth: u32, edge: Edge) {
        self.filed.insert((visit, Reverse(depth), edge));
        self.edges.insert(edge);
    }

    pub(super) fn take_out(&mut self, visit: u64, depth: u32, edge: Edge) {
        self.filed.remove(&(visit, Reverse(depth), edge));
        self.edges.remove(&edge);
    }

    pub(super) fn file_anew(&mut self, filed: u64, visit: u64, depth: u32, edge: Edge) {
        self.filed.remove(&(filed, Reverse(depth), edge));
        self.filed.insert((visit, Reverse(depth), edge));
    }

    /// The next to lose, unless it was visited since it was filed; with the visit it is filed under.
    pub(super) fn first(&self) -> Option<(u64, Edge)> {
        self.filed.first().map(|(visit, _, edge)| (*visit, *edge))
    }

    pub(super) fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter()
    }

    /// What the lane holds right behind a block.
    pub(super) fn behind(&self, model: ModelId, after: Option<Block>) -> impl Iterator<Item = &Edge> {
        let edge = |first| Edge { model, after, first: Block(first) };
        self.edges.range(edge(0)..=edge(u64::MAX))
    }

    #[cfg(test)]
    pub(super) fn contains(&self, visit: u64, depth: u32, edge: Edge) -> bool {
        self.filed.contains(&(visit, Reverse(depth), edge)) && self.edges.contains(&edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(after: u64, first: u64) -> Edge {
        Edge { model: ModelId(1), after: Some(Block(after)), first: Block(first) }
    }

    fn held(filed: &[(u64, u32, Edge)]) -> Held {
        let mut held = Held::new(9, 1);
        filed.iter().for_each(|(visit, depth, edge)| held.file(*visit, *depth, *edge));
        held
    }

    #[test]
    fn the_oldest_visit_is_lost_first_and_of_one_visit_the_deepest() {
        let mut held =
            held(&[(2, 0, edge(0, 1)), (1, 3, edge(0, 2)), (1, 5, edge(0, 3)), (2, 9, edge(0, 4))]);
        let mut order = Vec::new();
        for depth in [5, 3, 9, 0] {
            let (visit, edge) = held.first().expect("filed");
            held.take_out(visit, depth, edge);
            order.push(edge.first.0);
        }
        assert_eq!(order, [3, 2, 4, 1]);
        assert_eq!((held.first(), held.edges().count()), (None, 0));
    }

    #[test]
    fn what_fits_is_what_was_reported_until_something_is_lost() {
        let mut held = Held::new(100, 1);
        held.blocks = 80;
        held.shrink();
        assert_eq!(held.capacity(), 70);
        held.report(100);
        held.stretch(20);
        assert_eq!(held.capacity(), 90);
        held.shrink();
        held.stretch(1_000);
        assert_eq!(held.capacity(), 100);
        held.shrink();
        held.report(60);
        assert_eq!(held.capacity(), 60);
        (held.blocks, held.capacity) = (7, 7);
        held.shrink();
        assert_eq!(held.capacity(), 6);
    }

    #[test]
    fn what_is_behind_a_block_is_found_without_the_rest() {
        let held = held(&[(1, 1, edge(1, 9)), (1, 1, edge(2, 5)), (2, 1, edge(2, 3)), (1, 1, edge(3, 1))]);
        let behind =
            |model, after| held.behind(ModelId(model), after).map(|edge| edge.first.0).collect::<Vec<_>>();
        assert_eq!(behind(1, Some(Block(2))), [3, 5]);
        assert_eq!(behind(1, Some(Block(9))), [0; 0]);
        assert_eq!(behind(1, None), [0; 0]);
        assert_eq!(behind(2, Some(Block(2))), [0; 0]);
    }
}
