//! Which lane holds which blocks, kept true to two laws: no block without the one before it, and no more than fits.
//!
//! Owns the segments and the order in which each lane loses its own, and moves both together. Refuses to know requests.

use alloc::vec::Vec;

use super::held::Held;
use super::segments::{Edge, Segment, Segments, narrowed};
use crate::ids::{Block, Lane, ModelId, NodeId};
use crate::limits::PrefixLimits;
use crate::recent::Recent;

#[derive(Debug)]
pub(super) struct Holdings {
    pub(super) segments: Segments,
    pub(super) lanes: Recent<Lane, Held>,
    /// Of all lanes together.
    pub(super) blocks: usize,
    /// Numbers the visits, and the births of lanes between them.
    visits: u64,
    limits: PrefixLimits,
}

impl Holdings {
    pub(super) fn new(limits: &PrefixLimits) -> Self {
        let (segments, lanes) = (Segments::default(), Recent::default());
        Self { segments, lanes, blocks: 0, visits: 0, limits: *limits }
    }

    /// The blocks become the last that the lane will lose. Returns the number of the visit.
    pub(super) fn visit(&mut self, lane: Lane, blocks: &[Block], settled: bool) -> u64 {
        let capacity = self.admit(lane);
        self.visits = self.visits.saturating_add(1);
        let blocks = blocks.get(..capacity).unwrap_or(blocks);
        let (mut reached, mut before) = (0_usize, None);
        while let Some(edge) = Edge::on(lane.1, blocks, reached) {
            let rest = blocks.get(reached..).unwrap_or_default();
            let Some(segment) = self.segments.get(&edge) else {
                let segment =
                    Segment { blocks: rest.to_vec(), depth: narrowed(reached), holders: Vec::new() };
                self.segments.insert(edge, segment);
                continue;
            };
            let common = segment.common(rest);
            if common < segment.blocks.len() && !self.cut(&edge, common) {
                break;
            }
            self.hold(lane, edge, settled);
            let joined = before.filter(|before| self.join(lane, before, &edge));
            (reached, before) = (reached.saturating_add(common), joined.or(Some(edge)));
        }
        self.shed(lane);
        self.visits
    }

    /// Each node that holds the beginning of the chain, with how many of its blocks.
    pub(super) fn matches(&self, model: ModelId, blocks: &[Block], mut each: impl FnMut(NodeId, u32)) {
        let mut walk = self.segments.walk(model, blocks).peekable();
        while let Some(step) = walk.next() {
            let next = walk.peek().map(|next| next.segment);
            // Who holds a segment holds the one before it, so that equal numbers are the same holders.
            if next.is_some_and(|next| next.holders.len() == step.segment.holders.len()) {
                continue;
            }
            for holder in &step.segment.holders {
                if next.is_none_or(|next| next.holder(holder.node).is_none()) {
                    each(holder.node, step.reached);
                }
            }
        }
    }

    /// How many blocks of the chain the lane holds, and how many of these are settled.
    pub(super) fn matched(&self, lane: Lane, blocks: &[Block]) -> (u32, u32) {
        let (mut matched, mut settled) = (0, 0);
        for step in self.segments.walk(lane.1, blocks) {
            let Some(holder) = step.segment.holder(lane.0) else { break };
            matched = step.reached;
            settled = if holder.settled { step.reached } else { settled };
        }
        (matched, settled)
    }

    /// The lane lost, before `visit`, what it had held behind the first `kept` blocks of the chain: all that hangs there, and
    /// as it did not fit, some of what was used longest ago.
    pub(super) fn lost(&mut self, lane: Lane, blocks: &[Block], kept: u32, visit: u64) {
        let walk = self.segments.walk(lane.1, blocks).filter(|step| step.reached > kept);
        let mut ends: Vec<(Option<Block>, u32)> = walk.map(|step| step.segment.end()).collect();
        while let Some((last, depth)) = ends.pop() {
            let Some(held) = self.lanes.get(&lane) else { return };
            let mut lost = Vec::new();
            for edge in held.behind(lane.1, last) {
                // Hashes make no circles; blocks that are none might.
                let segment = self.segments.get(edge).filter(|segment| segment.depth == depth);
                ends.extend(segment.map(Segment::end));
                let holder = segment.and_then(|segment| segment.holder(lane.0));
                lost.extend(holder.filter(|holder| holder.visit < visit).map(|_| *edge));
            }
            for edge in lost {
                self.release(lane, &edge);
            }
        }
        if let Some(held) = self.lanes.get_mut(&lane) {
            held.shrink();
        }
    }

    pub(super) fn report(&mut self, lane: Lane, capacity: usize) {
        if self.lanes.get(&lane).is_none() {
            self.admit(lane);
        }
        if let Some(held) = self.lanes.get_mut(&lane) {
            held.report(capacity);
        }
        self.shed(lane);
    }

    /// The lane had kept so many blocks more than are held here.
    pub(super) fn stretch(&mut self, lane: Lane, blocks: u32) {
        if let Some(held) = self.lanes.get_mut(&lane) {
            held.stretch(usize::try_from(blocks).unwrap_or(usize::MAX));
        }
    }

    pub(super) fn forget(&mut self, lane: Lane) {
        let Some(held) = self.lanes.remove(&lane) else { return };
        held.edges().for_each(|edge| self.segments.release(edge, lane.0));
        self.blocks = self.blocks.saturating_sub(held.blocks);
    }

    /// Whether the lane has forgotten nothing since this visit.
    pub(super) fn remembers(&self, lane: Lane, visit: u64) -> bool {
        self.lanes.get(&lane).is_some_and(|held| held.since <= visit)
    }

    /// The lane is the one used last; a new one takes the place of the one used longest ago. Returns its capacity.
    fn admit(&mut self, lane: Lane) -> usize {
        while self.lanes.get(&lane).is_none() && self.lanes.len() >= self.limits.lanes_max {
            let Some(oldest) = self.lanes.oldest() else { break };
            self.forget(oldest);
        }
        if self.lanes.get(&lane).is_none() {
            self.visits = self.visits.saturating_add(1);
        }
        let capacity = blocks_of(self.limits.capacity_tokens, &self.limits);
        let fresh = || Held::new(capacity, self.visits);
        self.lanes.touch(lane, self.limits.lanes_max, fresh).map_or(0, |held| held.capacity())
    }

    fn hold(&mut self, lane: Lane, edge: Edge, settled: bool) {
        let Some(segment) = self.segments.get_mut(&edge) else { return };
        if !segment.visited(lane.0, self.visits, settled) {
            return;
        }
        let (depth, length) = (segment.depth, segment.blocks.len());
        self.blocks = self.blocks.saturating_add(length);
        if let Some(held) = self.lanes.get_mut(&lane) {
            held.file(self.visits, depth, edge);
            held.blocks = held.blocks.saturating_add(length);
        }
    }

    /// Makes one segment of two, where the first leads to nothing but the second, only this lane holds them, and what is true
    /// of one is true of the other. So a conversation at one node stays one segment. Whether it did.
    fn join(&mut self, lane: Lane, before: &Edge, edge: &Edge) -> bool {
        let (Some(head), Some(tail)) = (self.segments.get(before), self.segments.get(edge)) else {
            return false;
        };
        let (Some(one), Some(other)) = (head.sole_holder(), tail.sole_holder()) else { return false };
        let (filed, depth) = (other.filed, tail.depth);
        if one.settled != other.settled || head.end() != (edge.after, depth) {
            return false;
        }
        let Some(held) = self.lanes.get_mut(&lane) else { return false };
        if held.behind(lane.1, edge.after).nth(1).is_some() {
            return false;
        }
        held.take_out(filed, depth, *edge);
        let tail = self.segments.remove(edge).map(|tail| tail.blocks).unwrap_or_default();
        if let Some(head) = self.segments.get_mut(before) {
            head.blocks.extend(tail);
        }
        true
    }

    /// Makes a segment end after its first `length` blocks. Whether it does.
    fn cut(&mut self, edge: &Edge, length: usize) -> bool {
        if let Some((cut, tail)) = self.segments.split(edge, length) {
            for holder in &tail.holders {
                if let Some(held) = self.lanes.get_mut(&(holder.node, edge.model)) {
                    held.file(holder.filed, tail.depth, cut);
                }
            }
        }
        self.segments.get(edge).is_some_and(|segment| segment.blocks.len() == length)
    }

    /// Down to what fits: into the lane, and over all into the memory there is, where the lane used longest ago pays, and is
    /// forgotten when it has nothing left.
    fn shed(&mut self, lane: Lane) {
        let excess = |held: &Held| held.blocks.saturating_sub(held.capacity());
        while let Some(excess) = self.lanes.get(&lane).map(excess).filter(|excess| *excess > 0) {
            if !self.lose(lane, excess) {
                return;
            }
        }
        while let Some(excess) = self.blocks.checked_sub(self.limits.blocks_max).filter(|excess| *excess > 0)
        {
            let Some(oldest) = self.lanes.oldest() else { return };
            if !self.lose(oldest, excess) {
                self.forget(oldest);
            }
        }
    }

    /// The lane loses the segment that is next, or the end of it where that is enough. Whether it had any.
    fn lose(&mut self, lane: Lane, excess: usize) -> bool {
        let Some(edge) = self.next_to_lose(lane) else { return false };
        let length = self.segments.get(&edge).map_or(0, |segment| segment.blocks.len());
        self.cut(&edge, length.saturating_sub(excess));
        // Of one visit the deepest goes first: now that is the tail.
        self.next_to_lose(lane).is_some_and(|edge| self.release(lane, &edge))
    }

    /// Files anew what was visited since it was filed, until the first is what it seems.
    fn next_to_lose(&mut self, lane: Lane) -> Option<Edge> {
        let held = self.lanes.get_mut(&lane)?;
        loop {
            let (filed, edge) = held.first()?;
            let segment = self.segments.get_mut(&edge)?;
            let depth = segment.depth;
            let holder = segment.holder_mut(lane.0)?;
            if holder.visit == filed {
                return Some(edge);
            }
            held.file_anew(filed, holder.visit, depth, edge);
            holder.filed = holder.visit;
        }
    }

    fn release(&mut self, lane: Lane, edge: &Edge) -> bool {
        let Some(segment) = self.segments.get(edge) else { return false };
        let Some(holder) = segment.holder(lane.0) else { return false };
        let length = segment.blocks.len();
        if let Some(held) = self.lanes.get_mut(&lane) {
            held.take_out(holder.filed, segment.depth, *edge);
            held.blocks = held.blocks.saturating_sub(length);
        }
        self.blocks = self.blocks.saturating_sub(length);
        self.segments.release(edge, lane.0);
        true
    }
}

/// The whole blocks in so many tokens.
pub(super) fn blocks_of(tokens: u32, limits: &PrefixLimits) -> usize {
    usize::try_from(tokens.checked_div(limits.block_tokens).unwrap_or_default()).unwrap_or(usize::MAX)
}
