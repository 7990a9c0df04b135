//! The log of decisions: the latest verdict on each request, while there is room.
//!
//! Owns a ring of bounded length. Refuses to be a history: a request keeps its latest verdict only, and old ones fall out.

use alloc::collections::{BTreeMap, VecDeque};

use crate::ids::RequestId;
use crate::verdict::Verdict;

#[derive(Debug, Default)]
pub(crate) struct Decisions {
    ring: VecDeque<Verdict>,
    /// How many have fallen out: the number of the first in the ring.
    dropped: u64,
    latest: BTreeMap<RequestId, u64>,
}

impl Decisions {
    pub(crate) fn record(&mut self, verdict: Verdict, decisions_max: usize) {
        let number = self.dropped.saturating_add(self.ring.len() as u64);
        self.latest.insert(verdict.request, number);
        self.ring.push_back(verdict);
        while self.ring.len() > decisions_max {
            let Some(old) = self.ring.pop_front() else { return };
            if self.latest.get(&old.request) == Some(&self.dropped) {
                self.latest.remove(&old.request);
            }
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    pub(crate) fn latest(&self, request: RequestId) -> Option<&Verdict> {
        let number = self.latest.get(&request)?.checked_sub(self.dropped)?;
        self.ring.get(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Attempt, ModelId, NodeId};
    use crate::time::At;
    use crate::verdict::Standing;

    fn dispatched(request: u64, attempt: u32) -> Verdict {
        Verdict {
            request: RequestId(request),
            model: ModelId(1),
            at: At(0),
            taken_over: false,
            standing: Standing::Dispatched { attempt: Attempt(attempt), node: NodeId(1) },
            candidates: vec![],
            omitted: 0,
            without_model: 0,
        }
    }

    fn log(verdicts: &[(u64, u32)], room: usize) -> Decisions {
        let mut decisions = Decisions::default();
        verdicts.iter().for_each(|(request, attempt)| decisions.record(dispatched(*request, *attempt), room));
        decisions
    }

    #[test]
    fn the_latest_verdict_on_a_request_counts() {
        let decisions = log(&[(1, 1), (2, 1), (1, 2)], 8);
        assert_eq!(decisions.latest(RequestId(1)), Some(&dispatched(1, 2)));
        assert_eq!(decisions.latest(RequestId(2)), Some(&dispatched(2, 1)));
        assert_eq!(decisions.latest(RequestId(3)), None);
    }

    #[test]
    fn old_verdicts_fall_out_and_take_nothing_newer_with_them() {
        let decisions = log(&[(1, 1), (2, 1), (1, 2), (3, 1)], 2);
        assert_eq!(decisions.latest(RequestId(1)), Some(&dispatched(1, 2)));
        assert_eq!(decisions.latest(RequestId(2)), None);
        assert_eq!(decisions.latest(RequestId(3)), Some(&dispatched(3, 1)));
        assert_eq!(decisions.latest.len(), 2);
    }

    #[test]
    fn a_log_without_room_keeps_nothing() {
        let decisions = log(&[(1, 1), (2, 1)], 0);
        assert_eq!(decisions.latest(RequestId(2)), None);
        assert!(decisions.latest.is_empty());
    }
}
