//! A prefix cache: blocks of prompts, the least recently used one goes first. A runtime has one, and routers keep one of what
//! they believe a runtime has.
//!
//! Owns a bounded list in order of use. A chain is touched from its last block to its first, so that no block outlives the
//! one before it and what is cached of a chain is always a prefix. Refuses bytes: its bound is in blocks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use scheduler::Block;

#[derive(Debug)]
pub(crate) struct Cache {
    capacity: usize,
    index: HashMap<Key, u32, BuildHasherDefault<AsIs>>,
    slots: Vec<Slot>,
    newest: u32,
    oldest: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    block: Block,
    older: u32,
    newer: u32,
}

const NONE: u32 = u32::MAX;

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, index: HashMap::default(), slots: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// How many blocks of the chain are cached from its start on. They count as used.
    pub(crate) fn matched(&mut self, chain: &[Block]) -> usize {
        let length = self.length(chain);
        self.insert(&chain[..length]);
        length
    }

    /// The same without using them.
    pub(crate) fn length(&self, chain: &[Block]) -> usize {
        chain.iter().take_while(|block| self.index.contains_key(&Key(block.0))).count()
    }

    /// Blocks held.
    pub(crate) fn size(&self) -> usize {
        self.index.len()
    }

    /// The whole chain is cached from now on, as far as there is room.
    pub(crate) fn insert(&mut self, chain: &[Block]) {
        for block in chain.iter().take(self.capacity).rev() {
            self.touch(*block);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    fn touch(&mut self, block: Block) {
        match self.index.get(&Key(block.0)) {
            Some(slot) if *slot == self.newest => {}
            Some(slot) => {
                let slot = *slot;
                self.unlink(slot);
                self.link(slot);
            }
            None => {
                let slot = self.vacant(block);
                self.index.insert(Key(block.0), slot);
                self.link(slot);
            }
        }
    }

    /// A new slot while there is room, else the oldest one.
    fn vacant(&mut self, block: Block) -> u32 {
        let slot = Slot { block, older: NONE, newer: NONE };
        if self.slots.len() < self.capacity {
            self.slots.push(slot);
            return (self.slots.len() - 1) as u32;
        }
        let oldest = self.oldest;
        self.unlink(oldest);
        self.index.remove(&Key(self.slots[oldest as usize].block.0));
        self.slots[oldest as usize] = slot;
        oldest
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { older, newer, .. } = self.slots[slot as usize];
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
    }

    fn link(&mut self, slot: u32) {
        let newest = self.newest;
        self.slots[slot as usize].older = newest;
        self.slots[slot as usize].newer = NONE;
        match self.slots.get_mut(newest as usize) {
            Some(before) => before.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }
}

/// A block as a key of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u64);

/// A block already is a hash.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(numbers: &[u64]) -> Vec<Block> {
        numbers.iter().map(|number| Block(*number)).collect()
    }

    fn matched(cache: &mut Cache, numbers: &[u64]) -> usize {
        cache.matched(&chain(numbers))
    }

    #[test]
    fn a_prefix_is_found_up_to_the_first_block_that_differs() {
        let mut cache = Cache::new(10);
        cache.insert(&chain(&[1, 2, 3]));
        assert_eq!(matched(&mut cache, &[1, 2, 3, 4]), 3);
        assert_eq!(matched(&mut cache, &[1, 2, 9, 3]), 2);
        assert_eq!(matched(&mut cache, &[2, 3]), 2);
        assert_eq!(matched(&mut cache, &[9]), 0);
    }

    #[test]
    fn the_least_recently_used_chain_goes_first_and_its_end_before_its_start() {
        let mut cache = Cache::new(5);
        cache.insert(&chain(&[1, 2, 3]));
        cache.insert(&chain(&[11, 12]));
        assert_eq!(matched(&mut cache, &[1]), 1);
        cache.insert(&chain(&[21, 22]));
        assert_eq!(matched(&mut cache, &[1, 2, 3]), 1);
        assert_eq!(matched(&mut cache, &[11, 12]), 2);
        assert_eq!(matched(&mut cache, &[21, 22]), 2);
    }

    #[test]
    fn a_chain_longer_than_the_cache_leaves_its_start() {
        let mut cache = Cache::new(2);
        cache.insert(&chain(&[1, 2, 3, 4]));
        assert_eq!(matched(&mut cache, &[1, 2, 3, 4]), 2);
    }

    #[test]
    fn a_cache_without_room_and_one_that_was_cleared_hold_nothing() {
        let mut cache = Cache::new(0);
        cache.insert(&chain(&[1]));
        assert_eq!(matched(&mut cache, &[1]), 0);
        let mut cache = Cache::new(2);
        cache.insert(&chain(&[1]));
        cache.clear();
        assert_eq!(matched(&mut cache, &[1]), 0);
    }

    /// The same cache, slowly: a list in order of use.
    fn plain(list: &mut Vec<u64>, capacity: usize, numbers: &[u64]) {
        for number in numbers.iter().take(capacity).rev() {
            list.retain(|other| other != number);
            list.push(*number);
        }
        let over = list.len().saturating_sub(capacity);
        list.drain(..over);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_cache_holds_what_a_plain_list_holds(
            capacity in 0_usize..8,
            steps in proptest::collection::vec(proptest::collection::vec(0_u64..12, 0..6), 0..60),
        ) {
            let (mut cache, mut list) = (Cache::new(capacity), Vec::new());
            for numbers in &steps {
                let mut once = numbers.clone();
                once.sort_unstable();
                once.dedup();
                cache.insert(&chain(&once));
                plain(&mut list, capacity, &once);
                for number in 0..12 {
                    let held = cache.index.contains_key(&Key(number));
                    prop_assert_eq!(held, list.contains(&number));
                }
            }
        }
    }
}
