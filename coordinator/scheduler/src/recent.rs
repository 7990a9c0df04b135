//! A map of bounded size: what was used last stays, what was used longest ago goes.
//!
//! Owns the order of use, counted in touches. Refuses clocks, so that equal histories keep equal keys whatever the time.

use alloc::collections::BTreeMap;
use core::ops::RangeInclusive;

#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    order: BTreeMap<u64, K>,
    touches: u64,
}

#[derive(Debug)]
struct Entry<V> {
    touched: u64,
    value: V,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), order: BTreeMap::new(), touches: 0 }
    }
}

impl<K: Copy + Ord, V> Recent<K, V> {
    /// Reading is no use: it leaves the order as it is.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Makes `key` the one used last, with a `fresh` value if it has none, and lets go of the oldest ones above `max`.
    /// `None` only when `max` leaves room for none.
    pub(crate) fn touch(&mut self, key: K, max: usize, fresh: impl FnOnce() -> V) -> Option<&mut V> {
        if max == 0 {
            return None;
        }
        let known = self.entries.contains_key(&key);
        while !known && self.entries.len() >= max {
            let (_, oldest) = self.order.pop_first()?;
            self.entries.remove(&oldest);
        }
        self.touches = self.touches.saturating_add(1);
        let touched = self.touches;
        let entry = self.entries.entry(key).or_insert_with(|| Entry { touched, value: fresh() });
        self.order.remove(&entry.touched);
        entry.touched = touched;
        self.order.insert(touched, key);
        Some(&mut entry.value)
    }

    /// As `touch` for a new key; a known one keeps its place in the order.
    pub(crate) fn get_or_touch(&mut self, key: K, max: usize, fresh: impl FnOnce() -> V) -> Option<&mut V> {
        if self.entries.contains_key(&key) { self.get_mut(&key) } else { self.touch(key, max, fresh) }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.touched);
        Some(entry.value)
    }

    /// The one used longest ago.
    pub(crate) fn oldest(&self) -> Option<K> {
        self.order.first_key_value().map(|(_, key)| *key)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = &V> {
        self.entries.range(keys).map(|(_, entry)| &entry.value)
    }

    pub(crate) fn range_mut(&mut self, keys: RangeInclusive<K>) -> impl Iterator<Item = &mut V> {
        self.entries.range_mut(keys).map(|(_, entry)| &mut entry.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(recent: &Recent<u8, u32>) -> Vec<u8> {
        (0..=u8::MAX).filter(|key| recent.get(key).is_some()).collect()
    }

    fn used(touches: &[u8], max: usize) -> Recent<u8, u32> {
        let mut recent = Recent::default();
        for key in touches {
            if let Some(count) = recent.touch(*key, max, || 0) {
                *count += 1;
            }
        }
        recent
    }

    #[test]
    fn the_key_used_longest_ago_makes_room() {
        let recent = used(&[1, 2, 3, 1, 4], 3);
        assert_eq!(keys(&recent), [1, 3, 4]);
        assert_eq!(recent.oldest(), Some(3));
    }

    #[test]
    fn a_value_lives_as_long_as_its_key() {
        assert_eq!(used(&[1, 1, 2, 1], 2).get(&1), Some(&3));
        assert_eq!(used(&[1, 1, 2, 3, 1], 2).get(&1), Some(&1));
    }

    #[test]
    fn reading_and_writing_do_not_count_as_use() {
        let mut recent = used(&[1, 2], 2);
        assert_eq!(recent.get(&1), Some(&1));
        assert_eq!(recent.get_mut(&1), Some(&mut 1));
        assert_eq!(recent.get_or_touch(1, 2, || 0), Some(&mut 1));
        recent.touch(3, 2, || 0);
        assert_eq!(keys(&recent), [2, 3]);
    }

    #[test]
    fn a_removed_key_leaves_its_room() {
        let mut recent = used(&[1, 2], 2);
        assert_eq!(recent.remove(&1), Some(1));
        assert_eq!(recent.remove(&1), None);
        recent.touch(3, 2, || 0);
        assert_eq!(keys(&recent), [2, 3]);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut recent = used(&[1, 2], 0);
        assert_eq!(recent.touch(1, 0, || 0), None);
        assert_eq!((recent.len(), recent.oldest()), (0, None));
    }

    #[test]
    fn a_smaller_bound_takes_effect_with_the_next_key() {
        let mut recent = used(&[1, 2, 3, 4], 4);
        recent.touch(5, 2, || 0);
        assert_eq!(keys(&recent), [4, 5]);
    }

    #[test]
    fn a_range_holds_the_keys_between_its_ends() {
        let mut recent = used(&[1, 2, 2, 3, 3, 3, 4], 9);
        assert_eq!(recent.range(2..=3).copied().collect::<Vec<_>>(), [2, 3]);
        recent.range_mut(2..=3).for_each(|count| *count = 0);
        assert_eq!(recent.range(0..=9).copied().collect::<Vec<_>>(), [1, 0, 0, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_map_is_the_last_of_a_list_without_repeats(
            steps in proptest::collection::vec((0_u8..6, any::<bool>()), 0..60), max in 1_usize..5,
        ) {
            let mut recent: Recent<u8, u32> = Recent::default();
            let mut list: Vec<u8> = Vec::new();
            for (key, removes) in steps {
                list.retain(|other| *other != key);
                if removes {
                    recent.remove(&key);
                } else {
                    recent.touch(key, max, || 0);
                    list.push(key);
                    list.drain(..list.len().saturating_sub(max));
                }
                prop_assert_eq!(recent.oldest(), list.first().copied());
                prop_assert_eq!(recent.len(), recent.order.len());
                let mut sorted = list.clone();
                sorted.sort_unstable();
                prop_assert_eq!(keys(&recent), sorted);
            }
        }
    }
}
