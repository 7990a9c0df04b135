//! A sorted set that also counts: how many are before an element, in logarithmic time.
//!
//! Owns the treap (Aragon and Seidel 1989) behind every waiting line: a search tree by key that is a heap by priority, where each
//! node knows the size of its subtree. Priorities are a hash of insertion numbers, so that the tree is balanced for any order
//! of keys and the same history builds the same tree. Refuses to know what it holds.

use alloc::vec::Vec;

/// No node.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct RankedSet<K> {
    nodes: Vec<Node<K>>,
    /// Places in `nodes` that were given back.
    free: Vec<u32>,
    root: u32,
    inserted: u64,
}

#[derive(Debug)]
struct Node<K> {
    key: K,
    priority: u64,
    left: u32,
    right: u32,
    size: u32,
}

impl<K> Default for RankedSet<K> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NONE, inserted: 0 }
    }
}

impl<K: Copy + Ord> RankedSet<K> {
    pub(crate) fn len(&self) -> usize {
        self.size(self.root) as usize
    }

    /// Whether the key was not there before.
    pub(crate) fn insert(&mut self, key: K) -> bool {
        if self.contains(key) {
            return false;
        }
        self.inserted = self.inserted.wrapping_add(1);
        let fresh =
            self.place(Node { key, priority: mixed(self.inserted), left: NONE, right: NONE, size: 1 });
        let (before, after) = self.split(self.root, key);
        let before = self.merge(before, fresh);
        self.root = self.merge(before, after);
        true
    }

    /// Whether the key was there.
    pub(crate) fn remove(&mut self, key: K) -> bool {
        if !self.contains(key) {
            return false;
        }
        self.root = self.without(self.root, key);
        true
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        let mut at = self.root;
        while let Some(node) = self.node(at) {
            at = match key.cmp(&node.key) {
                core::cmp::Ordering::Less => node.left,
                core::cmp::Ordering::Greater => node.right,
                core::cmp::Ordering::Equal => return true,
            };
        }
        false
    }

    pub(crate) fn first(&self) -> Option<K> {
        let (mut at, mut first) = (self.root, None);
        while let Some(node) = self.node(at) {
            (at, first) = (node.left, Some(node.key));
        }
        first
    }

    /// How many keys are less than `key`, whether it is there or not.
    pub(crate) fn rank(&self, key: K) -> usize {
        let (mut at, mut before) = (self.root, 0_usize);
        while let Some(node) = self.node(at) {
            if node.key < key {
                before = before.saturating_add(self.size(node.left) as usize).saturating_add(1);
                at = node.right;
            } else {
                at = node.left;
            }
        }
        before
    }

    /// All keys in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = K> + '_ {
        // Those whose left side has been told, the next one last.
        let mut told = Vec::new();
        self.descend(self.root, &mut told);
        core::iter::from_fn(move || {
            let node = told.pop()?;
            self.descend(node.right, &mut told);
            Some(node.key)
        })
    }

    /// Down the left side, noting who comes after it.
    fn descend<'a>(&'a self, mut at: u32, told: &mut Vec<&'a Node<K>>) {
        while let Some(node) = self.node(at) {
            told.push(node);
            at = node.left;
        }
    }

    fn node(&self, at: u32) -> Option<&Node<K>> {
        self.nodes.get(at as usize)
    }

    fn size(&self, at: u32) -> u32 {
        self.node(at).map_or(0, |node| node.size)
    }

    fn place(&mut self, node: Node<K>) -> u32 {
        if let Some(at) = self.free.pop() {
            if let Some(place) = self.nodes.get_mut(at as usize) {
                *place = node;
            }
            return at;
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len().saturating_sub(1)).unwrap_or(NONE)
    }

    /// Gives `at` its children and the size that follows; returns it.
    fn join(&mut self, at: u32, left: u32, right: u32) -> u32 {
        let size = self.size(left).saturating_add(self.size(right)).saturating_add(1);
        if let Some(node) = self.nodes.get_mut(at as usize) {
            (node.left, node.right, node.size) = (left, right, size);
        }
        at
    }

    /// Two trees: keys less than `key`, and the others.
    fn split(&mut self, at: u32, key: K) -> (u32, u32) {
        let Some(node) = self.node(at) else { return (NONE, NONE) };
        let (left, right) = (node.left, node.right);
        if node.key < key {
            let (before, after) = self.split(right, key);
            (self.join(at, left, before), after)
        } else {
            let (before, after) = self.split(left, key);
            (before, self.join(at, after, right))
        }
    }

    /// One tree of two, where every key of `left` is before every key of `right`.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        let (Some(first), Some(second)) = (self.node(left), self.node(right)) else {
            return if left == NONE { right } else { left };
        };
        if first.priority >= second.priority {
            let (outer, inner) = (first.left, first.right);
            let inner = self.merge(inner, right);
            self.join(left, outer, inner)
        } else {
            let (inner, outer) = (second.left, second.right);
            let inner = self.merge(left, inner);
            self.join(right, inner, outer)
        }
    }

    fn without(&mut self, at: u32, key: K) -> u32 {
        let Some(node) = self.node(at) else { return NONE };
        let (left, right) = (node.left, node.right);
        match key.cmp(&node.key) {
            core::cmp::Ordering::Less => {
                let left = self.without(left, key);
                self.join(at, left, right)
            }
            core::cmp::Ordering::Greater => {
                let right = self.without(right, key);
                self.join(at, left, right)
            }
            core::cmp::Ordering::Equal => {
                self.free.push(at);
                self.merge(left, right)
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): spreads a counter over all bits.
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn depth(set: &RankedSet<u32>, at: u32) -> usize {
        set.node(at).map_or(0, |node| 1 + depth(set, node.left).max(depth(set, node.right)))
    }

    #[test]
    fn an_empty_set_has_no_first() {
        let set = RankedSet::<u32>::default();
        assert_eq!((set.len(), set.first(), set.iter().next(), set.rank(9)), (0, None, None, 0));
    }

    #[test]
    fn keys_in_rising_order_do_not_make_a_list_of_the_tree() {
        let mut set = RankedSet::default();
        (0..10_000_u32).for_each(|key| assert!(set.insert(key)));
        assert!(depth(&set, set.root) < 45, "{} deep", depth(&set, set.root));
        assert_eq!((set.rank(7_000), set.first(), set.iter().nth(42)), (7_000, Some(0), Some(42)));
    }

    #[test]
    fn places_are_used_again() {
        let mut set = RankedSet::default();
        for round in 0..1_000_u32 {
            assert!(set.insert(round));
            assert!(set.remove(round));
        }
        assert_eq!(set.nodes.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_sorted_set_that_counts(steps in proptest::collection::vec((any::<bool>(), 0_u32..60), 0..200)) {
            let mut set = RankedSet::default();
            let mut list = BTreeSet::new();
            for (adds, key) in steps {
                if adds {
                    prop_assert_eq!(set.insert(key), list.insert(key));
                } else {
                    prop_assert_eq!(set.remove(key), list.remove(&key));
                }
                prop_assert_eq!(set.len(), list.len());
                prop_assert_eq!(set.first(), list.first().copied());
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), list.iter().copied().collect::<Vec<_>>());
            for key in 0..60 {
                prop_assert_eq!(set.contains(key), list.contains(&key));
                prop_assert_eq!(set.rank(key), list.range(..key).count());
            }
        }
    }
}
