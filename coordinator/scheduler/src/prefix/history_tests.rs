//! The index beside runtimes that have caches of their own: conversations go to two Macs, which keep what they can.

use std::collections::VecDeque;

use super::*;

/// A runtime's prefix cache: whole blocks, the one used longest ago lost first, of one use the last block first.
#[derive(Default)]
struct Cache {
    /// The next to lose first.
    blocks: Vec<Block>,
    capacity: usize,
}

impl Cache {
    /// How many blocks of a prompt are there.
    fn cached(&self, prompt: &[Block]) -> usize {
        prompt.iter().take_while(|block| self.blocks.contains(block)).count()
    }

    fn keep(&mut self, prompt: &[Block]) {
        self.blocks.retain(|block| !prompt.contains(block));
        self.blocks.extend(prompt.iter().rev());
        self.blocks.drain(..self.blocks.len().saturating_sub(self.capacity));
    }
}

/// Turn by turn, sixty conversations behind one system prompt of eight blocks, five blocks a turn, each at one Mac.
fn prompts() -> impl Iterator<Item = (usize, Vec<Block>)> {
    let mut random = 1_u64;
    let mut turns = [0_u64; 60];
    (0..600).map(move |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The square of a share: some conversations are far livelier than others.
        let share = ((random >> 40) as usize * 60) >> 24;
        let conversation = share * share / 60;
        turns[conversation] += 1;
        let own = (0..5 * turns[conversation]).map(|block| Block(1_000 * (1 + conversation as u64) + block));
        (conversation % 2, (0..8).map(Block).chain(own).collect())
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    cached: usize,
    /// Blocks by which the belief was too high, and too low.
    over: usize,
    under: usize,
}

/// Caches of `capacity` blocks each that are believed to take `believed`, with `running` requests under way at once.
fn play(believed: u32, capacity: usize, running: usize, corrects: bool) -> Outcome {
    let limits = PrefixLimits { block_tokens: 1, capacity_tokens: believed, ..PrefixLimits::default() };
    let mut index = PrefixIndex::new(&limits);
    let mut caches = [(); 2].map(|()| Cache { capacity, ..Cache::default() });
    let mut outcome = Outcome::default();
    let mut under_way = VecDeque::new();
    for (node, prompt) in prompts() {
        let lane = (NodeId(node as u64), ModelId(1));
        let visit = index.dispatched(lane, None, &prompt, At(0));
        let cached = caches[node].cached(&prompt);
        outcome.cached += cached;
        outcome.over += (visit.matched as usize).saturating_sub(cached);
        outcome.under += cached.saturating_sub(visit.matched as usize);
        under_way.push_back((node, lane, prompt, visit, cached));
        if under_way.len() < running {
            continue;
        }
        let Some((node, lane, prompt, visit, cached)) = under_way.pop_front() else { continue };
        caches[node].keep(&prompt);
        if corrects {
            index.corrected(lane, &prompt, visit, u32::try_from(cached).expect("short"));
        }
    }
    outcome
}

#[test]
fn a_cache_of_known_size_is_known_exactly() {
    for capacity in [300, 600, 4_000] {
        let outcome = play(capacity, capacity as usize, 1, true);
        assert!(outcome.cached > 10_000);
        assert_eq!((outcome.over, outcome.under), (0, 0), "{capacity}");
    }
}

#[test]
fn a_cache_smaller_than_believed_is_found_out_by_corrections() {
    let untold = play(2_000, 300, 1, false);
    assert!(untold.over * 2 > untold.cached, "{untold:?}");
    let told = play(2_000, 300, 1, true);
    assert!((told.over + told.under) * 50 < told.cached, "{told:?}");
}

#[test]
fn a_runtime_that_caches_nothing_is_found_out() {
    let told = play(2_000, 0, 1, true);
    assert_eq!(told.cached, 0);
    let untold = play(2_000, 0, 1, false);
    assert!(told.over * 8 < untold.over, "{told:?} {untold:?}");
}

#[test]
fn a_cache_larger_than_believed_is_underestimated_and_no_worse() {
    let outcome = play(300, 2_000, 1, true);
    assert_eq!(outcome.over, 0);
    assert!(outcome.under > 0);
}

#[test]
fn requests_under_way_at_once_do_not_talk_a_cache_down() {
    let (told, untold) = (play(600, 600, 6, true), play(600, 600, 6, false));
    assert!(told.under <= untold.under && told.over <= untold.over, "{told:?} {untold:?}");
    let (told, untold) = (play(2_000, 600, 6, true), play(2_000, 600, 6, false));
    assert!(told.over * 4 < untold.over && told.under * 20 < told.cached, "{told:?} {untold:?}");
}

#[test]
fn equal_histories_make_equal_indexes() {
    let taught = || {
        let mut index = PrefixIndex::new(&PrefixLimits { capacity_tokens: 300, ..PrefixLimits::default() });
        prompts().for_each(|(node, prompt)| {
            index.dispatched((NodeId(node as u64), ModelId(1)), None, &prompt, At(0));
        });
        format!("{index:?}")
    };
    assert_eq!(taught(), taught());
}
