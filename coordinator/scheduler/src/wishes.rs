//! Which waiting requests would do best on which node, because their prompts begin in its prefix cache.
//!
//! Owns, for each runtime, those who wish for it, in the order of their ranks. A slot that comes free there asks them first, so that
//! under load a cache is used before it is overwritten. Refuses to grant: who may overtake whom is for `dispatch` to say.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::ids::{Lane, RequestId};
use crate::time::At;

#[derive(Debug, Default)]
pub(crate) struct Wishes {
    lanes: BTreeMap<Lane, BTreeSet<(At, RequestId)>>,
}

impl Wishes {
    pub(crate) fn add(&mut self, lane: Lane, rank: At, request: RequestId) {
        self.lanes.entry(lane).or_default().insert((rank, request));
    }

    pub(crate) fn remove(&mut self, lane: Lane, rank: At, request: RequestId) {
        let Some(wishes) = self.lanes.get_mut(&lane) else { return };
        wishes.remove(&(rank, request));
        if wishes.is_empty() {
            self.lanes.remove(&lane);
        }
    }

    /// Who wishes for the runtime, the lowest rank first.
    pub(crate) fn of(&self, lane: Lane) -> impl Iterator<Item = (At, RequestId)> + '_ {
        self.lanes.get(&lane).into_iter().flatten().copied()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.lanes.values().flatten().map(|(_, request)| *request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ModelId, NodeId};

    const QWEN: Lane = (NodeId(1), ModelId(1));
    const LLAMA: Lane = (NodeId(1), ModelId(2));

    #[test]
    fn wishes_are_told_by_rank_for_each_runtime() {
        let mut wishes = Wishes::default();
        wishes.add(QWEN, At(5), RequestId(1));
        wishes.add(QWEN, At(3), RequestId(2));
        wishes.add(LLAMA, At(1), RequestId(2));
        assert_eq!(wishes.of(QWEN).collect::<Vec<_>>(), [(At(3), RequestId(2)), (At(5), RequestId(1))]);
        wishes.remove(QWEN, At(3), RequestId(2));
        assert_eq!(wishes.of(QWEN).count(), 1);
        assert_eq!(wishes.of(LLAMA).count(), 1, "the other wish stays");
    }

    #[test]
    fn a_wish_that_is_gone_leaves_nothing_behind() {
        let mut wishes = Wishes::default();
        wishes.add(QWEN, At(5), RequestId(1));
        wishes.remove(QWEN, At(5), RequestId(9));
        wishes.remove(LLAMA, At(5), RequestId(1));
        wishes.remove(QWEN, At(5), RequestId(1));
        assert!(wishes.lanes.is_empty());
        assert_eq!(wishes.all().count(), 0);
    }
}
