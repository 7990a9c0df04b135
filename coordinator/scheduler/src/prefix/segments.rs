//! The prefixes of all prompts as a radix tree: runs of blocks that all their holders hold to the end.
//!
//! Owns the segments and who holds each. A segment is found by the edge that leads to it, the block before and its own first
//! block, so that the tree needs no pointers and a split moves nothing but the tail. Since each block is the hash of all
//! before it, whether a run is equal shows in its last block, and how far in few looks between. Refuses to know capacities.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::{Block, ModelId, NodeId};

#[derive(Debug, Default)]
pub(super) struct Segments {
    by_edge: BTreeMap<Edge, Segment>,
}

/// Where a segment hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) model: ModelId,
    /// The block before the segment; none at the root.
    pub(super) after: Option<Block>,
    pub(super) first: Block,
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) blocks: Vec<Block>,
    /// How many blocks are before it.
    pub(super) depth: u32,
    /// By node.
    pub(super) holders: Vec<Holder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) node: NodeId,
    /// The last visit that went through the whole segment.
    pub(super) visit: u64,
    /// The visit that the lane has the segment filed under: this one or one before it.
    pub(super) filed: u64,
    /// Whether a request that went through it has finished: until then its blocks may still be on their way.
    pub(super) settled: bool,
}

/// A segment on the way of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) segment: &'a Segment,
    /// Blocks of the chain that are known up to here.
    pub(super) reached: u32,
}

impl Edge {
    /// The edge that a chain takes after its first `reached` blocks.
    pub(super) fn on(model: ModelId, blocks: &[Block], reached: usize) -> Option<Self> {
        let after = reached.checked_sub(1).and_then(|before| blocks.get(before)).copied();
        Some(Self { model, after, first: *blocks.get(reached)? })
    }
}

impl Segments {
    pub(super) fn get(&self, edge: &Edge) -> Option<&Segment> {
        self.by_edge.get(edge)
    }

    pub(super) fn get_mut(&mut self, edge: &Edge) -> Option<&mut Segment> {
        self.by_edge.get_mut(edge)
    }

    pub(super) fn insert(&mut self, edge: Edge, segment: Segment) {
        self.by_edge.insert(edge, segment);
    }

    /// The segments that a chain goes through, the last one perhaps in part.
    pub(super) fn walk<'a>(
        &'a self,
        model: ModelId,
        blocks: &'a [Block],
    ) -> impl Iterator<Item = Step<'a>> + 'a {
        let mut reached = 0_usize;
        let mut whole = true;
        core::iter::from_fn(move || {
            let edge = Edge::on(model, blocks, reached).filter(|_| whole)?;
            let segment = self.by_edge.get(&edge)?;
            let matched = segment.common(blocks.get(reached..)?);
            whole = matched == segment.blocks.len();
            reached = reached.saturating_add(matched);
            Some(Step { segment, reached: narrowed(reached) })
        })
    }

    pub(super) fn remove(&mut self, edge: &Edge) -> Option<Segment> {
        self.by_edge.remove(edge)
    }

    /// Cuts a segment after its first `length` blocks; returns the tail, with the same holders. Nothing when there is no tail,
    /// or when another segment hangs where it would, which no chain of hashes brings about.
    pub(super) fn split(&mut self, edge: &Edge, length: usize) -> Option<(Edge, &Segment)> {
        let segment = self.by_edge.get_mut(edge)?;
        let cut = Edge::on(edge.model, &segment.blocks, length).filter(|cut| cut.after.is_some())?;
        if self.by_edge.contains_key(&cut) {
            return None;
        }
        let segment = self.by_edge.get_mut(edge)?;
        let depth = segment.depth.saturating_add(narrowed(length));
        let tail =
            Segment { blocks: segment.blocks.split_off(length), depth, holders: segment.holders.clone() };
        Some((cut, self.by_edge.entry(cut).or_insert(tail)))
    }

    /// Takes a holder off a segment, and the segment away when it was the last one.
    pub(super) fn release(&mut self, edge: &Edge, node: NodeId) {
        let Some(segment) = self.by_edge.get_mut(edge) else { return };
        segment.holders.retain(|holder| holder.node != node);
        if segment.holders.is_empty() {
            self.by_edge.remove(edge);
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Edge, &Segment)> {
        self.by_edge.iter()
    }
}

impl Segment {
    /// Its last block, and how many blocks a chain has by then.
    pub(super) fn end(&self) -> (Option<Block>, u32) {
        (self.blocks.last().copied(), self.depth.saturating_add(narrowed(self.blocks.len())))
    }

    pub(super) fn holder(&self, node: NodeId) -> Option<&Holder> {
        let index = self.holders.binary_search_by_key(&node, |holder| holder.node).ok()?;
        self.holders.get(index)
    }

    pub(super) fn holder_mut(&mut self, node: NodeId) -> Option<&mut Holder> {
        let index = self.holders.binary_search_by_key(&node, |holder| holder.node).ok()?;
        self.holders.get_mut(index)
    }

    /// The holder of a segment that no other lane holds.
    pub(super) fn sole_holder(&self) -> Option<&Holder> {
        self.holders.first().filter(|_| self.holders.len() == 1)
    }

    /// Makes `node` a holder as of `visit`. Whether it is a new one.
    pub(super) fn visited(&mut self, node: NodeId, visit: u64, settled: bool) -> bool {
        if let Some(holder) = self.holder_mut(node) {
            holder.visit = visit;
            holder.settled |= settled;
            return false;
        }
        let place = self.holders.partition_point(|holder| holder.node < node);
        self.holders.insert(place, Holder { node, visit, filed: visit, settled });
        true
    }

    /// How many blocks a chain has in common with the segment, given that it has the first.
    pub(super) fn common(&self, chain: &[Block]) -> usize {
        let shorter = self.blocks.len().min(chain.len());
        let equal = |length: usize| {
            let last = length.checked_sub(1);
            last.is_some_and(|last| self.blocks.get(last) == chain.get(last))
        };
        if equal(shorter) {
            return shorter;
        }
        let (mut same, mut different) = (1_usize, shorter);
        while different > same.saturating_add(1) {
            let middle = same.midpoint(different);
            if equal(middle) { same = middle } else { different = middle }
        }
        same
    }
}

pub(super) fn narrowed(blocks: usize) -> u32 {
    u32::try_from(blocks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QWEN: ModelId = ModelId(1);

    fn chain(blocks: &[u64]) -> Vec<Block> {
        blocks.iter().map(|block| Block(*block)).collect()
    }

    fn edge(after: Option<u64>, first: u64) -> Edge {
        Edge { model: QWEN, after: after.map(Block), first: Block(first) }
    }

    fn segment(blocks: &[u64], depth: u32, nodes: &[u64]) -> Segment {
        let holders = nodes
            .iter()
            .map(|node| Holder { node: NodeId(*node), visit: 1, filed: 1, settled: false })
            .collect();
        Segment { blocks: chain(blocks), depth, holders }
    }

    /// 1 2 3 at the root, then 4 5 or 6.
    fn segments() -> Segments {
        let mut segments = Segments::default();
        segments.insert(edge(None, 1), segment(&[1, 2, 3], 0, &[1, 2]));
        segments.insert(edge(Some(3), 4), segment(&[4, 5], 3, &[1]));
        segments.insert(edge(Some(3), 6), segment(&[6], 3, &[2]));
        segments
    }

    fn reached(segments: &Segments, blocks: &[u64]) -> Vec<u32> {
        segments.walk(QWEN, &chain(blocks)).map(|step| step.reached).collect()
    }

    #[test]
    fn a_walk_goes_on_while_the_chain_is_known() {
        let segments = segments();
        assert_eq!(reached(&segments, &[1, 2, 3, 4, 5, 9]), [3, 5]);
        assert_eq!(reached(&segments, &[1, 2, 3, 6]), [3, 4]);
        assert_eq!(reached(&segments, &[1, 2, 3, 4, 9]), [3, 4]);
        assert_eq!(reached(&segments, &[1, 2, 9]), [2]);
        assert_eq!(reached(&segments, &[4, 5]), [0; 0]);
        assert_eq!(reached(&segments, &[]), [0; 0]);
        assert_eq!(segments.walk(ModelId(2), &chain(&[1, 2])).count(), 0);
    }

    #[test]
    fn a_cut_leaves_the_same_chains_with_the_same_holders() {
        let mut segments = segments();
        let before = [[1, 2, 3, 4, 5], [1, 2, 3, 6, 9]].map(|chain| reached(&segments, &chain).pop());
        let (cut, tail) = segments.split(&edge(None, 1), 2).expect("a tail");
        assert_eq!((cut, tail.depth, &tail.blocks), (edge(Some(2), 3), 2, &chain(&[3])));
        assert_eq!(tail.holders.len(), 2);
        assert_eq!(segments.get(&edge(None, 1)).map(|head| head.blocks.len()), Some(2));
        let after = [[1, 2, 3, 4, 5], [1, 2, 3, 6, 9]].map(|chain| reached(&segments, &chain).pop());
        assert_eq!(before, after);
    }

    #[test]
    fn a_cut_where_nothing_can_be_cut_changes_nothing() {
        let mut segments = segments();
        segments.insert(edge(Some(4), 5), segment(&[5], 9, &[1]));
        for (edge, length) in
            [(edge(None, 1), 0), (edge(None, 1), 3), (edge(None, 9), 1), (edge(Some(3), 4), 1)]
        {
            assert!(segments.split(&edge, length).is_none());
        }
        assert_eq!(reached(&segments, &[1, 2, 3, 4, 5]), [3, 5]);
    }

    #[test]
    fn a_segment_goes_with_its_last_holder() {
        let mut segments = segments();
        segments.release(&edge(None, 1), NodeId(1));
        assert_eq!(segments.get(&edge(None, 1)).map(|segment| segment.holders.len()), Some(1));
        segments.release(&edge(None, 1), NodeId(2));
        segments.release(&edge(None, 1), NodeId(2));
        assert!(segments.get(&edge(None, 1)).is_none());
        assert_eq!(segments.iter().count(), 2);
    }

    #[test]
    fn holders_are_kept_in_order_each_with_its_latest_visit() {
        let mut segment = segment(&[1], 0, &[]);
        let visits = [(5, 1, true), (3, 2, false), (9, 3, false), (3, 4, true), (5, 5, false)];
        let new = visits.map(|(node, visit, settled)| segment.visited(NodeId(node), visit, settled));
        assert_eq!(new, [true, true, true, false, false]);
        let told = |one: &Holder| (one.node.0, one.visit, one.filed, one.settled);
        let holders: Vec<_> = segment.holders.iter().map(told).collect();
        assert_eq!(holders, [(3, 4, 2, true), (5, 5, 1, true), (9, 3, 3, false)]);
        assert_eq!(segment.sole_holder(), None);
        assert_eq!(segment.holder(NodeId(4)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn halving_finds_where_chains_part(same in 1_u64..40, left in 0_u64..40, right in 0_u64..40) {
            let own: Vec<u64> = (0..same).chain((0..left).map(|block| 100 + block)).collect();
            let other: Vec<u64> = (0..same).chain((0..right).map(|block| 200 + block)).collect();
            prop_assert_eq!(segment(&own, 0, &[]).common(&chain(&other)), same as usize);
        }
    }
}
