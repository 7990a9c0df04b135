//! The index against the plainest thing that could be meant: for each lane a list of prefixes, each with its last visit.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Prompts are paths in a binary tree; each block is the hash of the path up to it.
type Path = Vec<u8>;

const DEPTH: usize = 5;
const LANES: [Lane; 4] =
    [(NodeId(1), ModelId(1)), (NodeId(2), ModelId(1)), (NodeId(3), ModelId(1)), (NodeId(1), ModelId(2))];

fn limits() -> PrefixLimits {
    let defaults = PrefixLimits::default();
    PrefixLimits {
        block_tokens: 1,
        rounding_blocks: 1,
        blocks_max: 20,
        lanes_max: 3,
        capacity_tokens: 8,
        ..defaults
    }
}

fn chain(path: &[u8]) -> Vec<Block> {
    let hash =
        |hash: u64, turn: &u8| (hash ^ u64::from(*turn + 1)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    path.iter()
        .scan(0xcbf2_9ce4_8422_2325, |state, turn| {
            *state = hash(*state, turn);
            Some(Block(*state))
        })
        .collect()
}

fn full_paths() -> impl Iterator<Item = Path> {
    (0_u8..1 << DEPTH).map(|bits| (0..DEPTH).map(|turn| bits >> turn & 1).collect())
}

#[derive(Debug, Default)]
struct Plain {
    /// The one used longest ago first.
    lanes: Vec<(Lane, PlainLane)>,
    visits: u64,
}

#[derive(Debug, Default)]
struct PlainLane {
    /// With the last visit, and whether it is settled.
    prefixes: BTreeMap<Path, (u64, bool)>,
    capacity: usize,
    reported: usize,
    since: u64,
}

impl Plain {
    fn lane(&mut self, lane: Lane) -> Option<&mut PlainLane> {
        self.lanes.iter_mut().find(|(other, _)| *other == lane).map(|(_, held)| held)
    }

    fn admit(&mut self, lane: Lane) {
        if self.lane(lane).is_none() {
            if self.lanes.len() == limits().lanes_max {
                self.lanes.remove(0);
            }
            self.visits += 1;
            let fresh = PlainLane { capacity: 8, reported: 8, since: self.visits, ..PlainLane::default() };
            self.lanes.push((lane, fresh));
        }
    }

    fn visit(&mut self, lane: Lane, path: &[u8], settled: bool) -> u64 {
        self.admit(lane);
        self.lanes.sort_by_key(|(other, _)| *other == lane);
        self.visits += 1;
        let visit = self.visits;
        if let Some(held) = self.lane(lane) {
            for length in 1..=path.len().min(held.capacity) {
                let before = held.prefixes.get(&path[..length]).is_some_and(|(_, settled)| *settled);
                held.prefixes.insert(path[..length].to_vec(), (visit, before || settled));
            }
        }
        self.shed();
        visit
    }

    fn shed(&mut self) {
        for (_, held) in &mut self.lanes {
            (held.capacity..held.prefixes.len()).for_each(|_| held.lose());
        }
        while self.lanes.iter().map(|(_, held)| held.prefixes.len()).sum::<usize>() > limits().blocks_max {
            if self.lanes[0].1.prefixes.is_empty() {
                self.lanes.remove(0);
            } else {
                self.lanes[0].1.lose();
            }
        }
    }

    fn report(&mut self, lane: Lane, capacity: usize) {
        self.admit(lane);
        if let Some(held) = self.lane(lane).filter(|held| held.reported != capacity) {
            (held.reported, held.capacity) = (capacity, capacity);
        }
        self.shed();
    }

    fn corrected(&mut self, lane: Lane, path: &[u8], visit: Visit, cached: usize) {
        let Some(held) = self.lane(lane).filter(|held| held.since <= visit.number) else { return };
        if cached + 1 < visit.settled as usize {
            let lost = &path[..=cached];
            held.prefixes.retain(|other, (last, _)| *last >= visit.number || !other.starts_with(lost));
            held.capacity =
                held.capacity.min(held.prefixes.len().saturating_sub((held.prefixes.len() / 8).max(1)));
        }
        let more = cached.saturating_sub(visit.matched as usize);
        held.capacity = held.reported.min(held.capacity + more);
        self.visit(lane, path, true);
    }

    /// Blocks held and blocks settled.
    fn matched(&self, lane: Lane, path: &[u8]) -> (u32, u32) {
        let held = self.lanes.iter().find(|(other, _)| *other == lane);
        let prefix = |length: usize| held.and_then(|(_, held)| held.prefixes.get(&path[..length]));
        let matched = (1..=path.len()).map_while(prefix);
        (matched.clone().count() as u32, matched.filter(|(_, settled)| *settled).count() as u32)
    }
}

impl PlainLane {
    /// The one visited longest ago; of one visit the longest.
    fn lose(&mut self) {
        let first = self.prefixes.iter().min_by_key(|(path, (visit, _))| (*visit, Reverse(path.len())));
        if let Some(path) = first.map(|(path, _)| path.clone()) {
            self.prefixes.remove(&path);
        }
    }
}

/// What must hold between commands, whatever the chains.
fn check(index: &PrefixIndex) {
    let holdings = &index.holdings;
    let lanes = LANES.iter().filter_map(|lane| Some((*lane, holdings.lanes.get(lane)?)));
    let mut all = 0;
    for (lane, held) in lanes {
        let own = || holdings.segments.iter().filter(move |(edge, _)| edge.model == lane.1);
        let own = || own().filter_map(move |(edge, segment)| Some((edge, segment, segment.holder(lane.0)?)));
        let blocks: usize = own().map(|(_, segment, _)| segment.blocks.len()).sum();
        assert_eq!(held.blocks, blocks);
        assert!(held.blocks <= held.capacity());
        assert_eq!(held.edges().count(), own().count());
        for (edge, segment, holder) in own() {
            assert!(holder.filed <= holder.visit && held.contains(holder.filed, segment.depth, *edge));
        }
        all += blocks;
    }
    assert_eq!(all, holdings.blocks);
    assert!(all <= index.limits.blocks_max && holdings.lanes.len() <= index.limits.lanes_max);
    for (edge, segment) in holdings.segments.iter() {
        assert_eq!(segment.blocks.first(), Some(&edge.first));
        assert!(!segment.holders.is_empty() && segment.holders.is_sorted_by_key(|holder| holder.node));
    }
}

/// No lane has a block without the one before it, nor has it visited it later.
fn check_chains(index: &PrefixIndex) {
    let segments = &index.holdings.segments;
    for (edge, segment) in segments.iter() {
        let before = segments
            .iter()
            .find(|(other, before)| other.model == edge.model && before.blocks.last().copied() == edge.after);
        assert_eq!(before.is_none(), edge.after.is_none());
        let Some((_, before)) = before else { continue };
        assert_eq!(segment.depth as usize, before.depth as usize + before.blocks.len());
        for holder in &segment.holders {
            let above = before.holder(holder.node).expect("a block without the one before it");
            assert!(above.visit >= holder.visit && above.settled >= holder.settled);
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Dispatch { lane: usize, path: Path },
    Correct { visit: usize, cached: u32 },
    Capacity { lane: usize, blocks: u32 },
    Forget { lane: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let path = || proptest::collection::vec(0_u8..2, 0..=DEPTH);
    prop_oneof![
        12 => (0..LANES.len(), path()).prop_map(|(lane, path)| Act::Dispatch { lane, path }),
        6 => (any::<usize>(), 0..DEPTH as u32 + 1).prop_map(|(visit, cached)| Act::Correct { visit, cached }),
        1 => (0..LANES.len(), 0_u32..14).prop_map(|(lane, blocks)| Act::Capacity { lane, blocks }),
        1 => (0..LANES.len()).prop_map(|lane| Act::Forget { lane }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_a_list_of_prefixes_per_lane(acts in proptest::collection::vec(act(), 0..50)) {
        let (mut index, mut plain) = (PrefixIndex::new(&limits()), Plain::default());
        let mut visits: Vec<(Lane, Path, Visit)> = Vec::new();
        for act in acts {
            match act {
                Act::Dispatch { lane, path } => {
                    let visit = index.dispatched(LANES[lane], None, &chain(&path), At(0));
                    let (matched, settled) = plain.matched(LANES[lane], &path);
                    let expected = Visit { number: plain.visit(LANES[lane], &path, false), matched, settled };
                    prop_assert_eq!(visit, expected);
                    visits.push((LANES[lane], path, visit));
                }
                Act::Correct { visit, cached } => {
                    if !visits.is_empty() {
                        let (lane, path, visit) = visits.swap_remove(visit % visits.len());
                        let cached = cached.min(path.len() as u32);
                        index.corrected(lane, &chain(&path), visit, cached);
                        plain.corrected(lane, &path, visit, cached as usize);
                    }
                }
                Act::Capacity { lane, blocks } => {
                    index.capacity(LANES[lane], blocks);
                    plain.report(LANES[lane], blocks as usize);
                }
                Act::Forget { lane } => {
                    index.forget(LANES[lane]);
                    plain.lanes.retain(|(other, _)| *other != LANES[lane]);
                }
            }
            check(&index);
            check_chains(&index);
            for path in full_paths() {
                let chain = chain(&path);
                let matched = LANES.map(|lane| index.holdings.matched(lane, &chain).0);
                prop_assert_eq!(matched, LANES.map(|lane| plain.matched(lane, &path).0));
                for model in [ModelId(1), ModelId(2)] {
                    let mut told = BTreeMap::new();
                    index.matches(model, &chain, |node, blocks| assert_eq!(told.insert((node, model), blocks), None));
                    let lanes = LANES.iter().zip(matched).filter(|(lane, matched)| lane.1 == model && *matched > 0);
                    prop_assert_eq!(told, lanes.map(|(lane, matched)| (*lane, matched)).collect());
                }
            }
        }
    }

    #[test]
    fn blocks_that_form_no_chain_break_no_bound(
        acts in proptest::collection::vec((0..LANES.len(), proptest::collection::vec(0_u64..4, 0..12), 0_u32..12), 0..80),
    ) {
        let mut index = PrefixIndex::new(&limits());
        for (lane, blocks, cached) in acts {
            let blocks: Vec<Block> = blocks.into_iter().map(Block).collect();
            let visit = index.dispatched(LANES[lane], None, &blocks, At(0));
            check(&index);
            index.corrected(LANES[lane], &blocks, visit, cached);
            check(&index);
            index.matches(LANES[lane].1, &blocks, |_, matched| assert!(matched as usize <= blocks.len()));
        }
        LANES.iter().for_each(|lane| index.forget(*lane));
        prop_assert_eq!((index.holdings.blocks, index.holdings.segments.iter().count()), (0, 0));
    }
}
