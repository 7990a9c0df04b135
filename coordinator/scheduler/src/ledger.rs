//! What is in flight: every attempt from its dispatch to its end, by runtime and by node.
//!
//! Owns the counts that gates and scores read. Refuses reports: a node is as busy as what was sent there, not as it says at
//! its next heartbeat. Also keeps the prefill work a node still has before it, since its one GPU does that in turn.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::ids::{Lane, ModelId, NodeId, RequestId};
use crate::time::{At, Span};

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    lanes: BTreeMap<Lane, BTreeSet<RequestId>>,
    nodes: BTreeMap<NodeId, Backlog>,
}

#[derive(Debug, Default)]
struct Backlog {
    in_flight: u32,
    /// Attempts without a first token, in the order of their dispatch, with the prefill predicted for each. The first is
    /// taken to be the one under way.
    prefills: VecDeque<(RequestId, Span)>,
    /// When the one under way started, as far as can be told from here.
    since: At,
}

impl Ledger {
    pub(crate) fn start(&mut self, lane: Lane, request: RequestId, prefill: Span, at: At) {
        self.lanes.entry(lane).or_default().insert(request);
        let backlog = self.nodes.entry(lane.0).or_default();
        if backlog.prefills.is_empty() {
            backlog.since = at;
        }
        backlog.in_flight = backlog.in_flight.saturating_add(1);
        backlog.prefills.push_back((request, prefill));
    }

    /// The first token: the node's prefill goes on with the next attempt.
    pub(crate) fn began(&mut self, node: NodeId, request: RequestId, at: At) {
        if let Some(backlog) = self.nodes.get_mut(&node) {
            backlog.prefilled(request, at);
        }
    }

    pub(crate) fn end(&mut self, lane: Lane, request: RequestId, at: At) {
        let Some(requests) = self.lanes.get_mut(&lane) else { return };
        if !requests.remove(&request) {
            return;
        }
        if requests.is_empty() {
            self.lanes.remove(&lane);
        }
        let Some(backlog) = self.nodes.get_mut(&lane.0) else { return };
        backlog.in_flight = backlog.in_flight.saturating_sub(1);
        backlog.prefilled(request, at);
        if backlog.in_flight == 0 {
            self.nodes.remove(&lane.0);
        }
    }

    pub(crate) fn on_lane(&self, lane: Lane) -> u32 {
        self.lanes.get(&lane).map_or(0, |requests| u32::try_from(requests.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn on_node(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |backlog| backlog.in_flight)
    }

    /// How long a new prefill would wait for those before it. Linear in them; they are at most the node's slots.
    pub(crate) fn prefill_backlog(&self, node: NodeId, at: At) -> Span {
        self.nodes.get(&node).map_or(Span::ZERO, |backlog| backlog.remaining(at))
    }

    pub(crate) fn requests_on_lane(&self, lane: Lane) -> Vec<RequestId> {
        self.lanes.get(&lane).into_iter().flatten().copied().collect()
    }

    pub(crate) fn requests_on_node(&self, node: NodeId) -> Vec<RequestId> {
        let lanes = self.lanes.range((node, ModelId(0))..=(node, ModelId(u32::MAX)));
        lanes.flat_map(|(_, requests)| requests.iter().copied()).collect()
    }

    pub(crate) fn contains(&self, lane: Lane, request: RequestId) -> bool {
        self.lanes.get(&lane).is_some_and(|requests| requests.contains(&request))
    }

    /// Each runtime that carries something, with how much.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (Lane, usize)> + '_ {
        self.lanes.iter().map(|(lane, requests)| (*lane, requests.len()))
    }
}

impl Backlog {
    /// The attempt has no prefill before it any more. Only the one under way passes the GPU on.
    fn prefilled(&mut self, request: RequestId, at: At) {
        if self.prefills.front().is_some_and(|(first, _)| *first == request) {
            self.since = at;
        }
        self.prefills.retain(|(other, _)| *other != request);
    }

    /// An overdue prefill may end any moment; those behind it have not started all the same.
    fn remaining(&self, at: At) -> Span {
        let mut prefills = self.prefills.iter().map(|(_, prefill)| *prefill);
        let under_way = prefills.next().unwrap_or_default().less(at.since(self.since));
        prefills.fold(under_way, |sum, prefill| sum + prefill)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QWEN: Lane = (NodeId(1), ModelId(1));
    const LLAMA: Lane = (NodeId(1), ModelId(2));

    fn s(seconds: u64) -> Span {
        Span::from_s(seconds)
    }

    fn at(seconds: u64) -> At {
        At(0) + s(seconds)
    }

    #[test]
    fn an_attempt_counts_from_its_dispatch_to_its_end() {
        let mut ledger = Ledger::default();
        ledger.start(QWEN, RequestId(1), s(1), at(0));
        ledger.start(LLAMA, RequestId(2), s(1), at(0));
        assert_eq!((ledger.on_lane(QWEN), ledger.on_lane(LLAMA), ledger.on_node(NodeId(1))), (1, 1, 2));
        assert_eq!(ledger.requests_on_node(NodeId(1)), [RequestId(1), RequestId(2)]);
        assert_eq!(ledger.requests_on_lane(LLAMA), [RequestId(2)]);
        ledger.end(QWEN, RequestId(1), at(1));
        ledger.end(QWEN, RequestId(1), at(1));
        assert_eq!((ledger.on_lane(QWEN), ledger.on_node(NodeId(1))), (0, 1));
        assert!(ledger.contains(LLAMA, RequestId(2)));
        assert_eq!(ledger.lanes().collect::<Vec<_>>(), [(LLAMA, 1)]);
    }

    /// Request 1 has 4 s of prefill before it, request 2 of another model 3 s, request 3 has 2 s.
    fn three() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.start(QWEN, RequestId(1), s(4), at(0));
        ledger.start(LLAMA, RequestId(2), s(3), at(0));
        ledger.start(QWEN, RequestId(3), s(2), at(1));
        ledger
    }

    fn backlog(ledger: &Ledger, second: u64) -> Span {
        ledger.prefill_backlog(NodeId(1), at(second))
    }

    #[test]
    fn prefills_wait_for_one_another_whatever_their_model() {
        assert_eq!(backlog(&three(), 1), s(3 + 3 + 2));
        assert_eq!(backlog(&three(), 3), s(1 + 3 + 2));
        assert_eq!(three().prefill_backlog(NodeId(2), at(1)), s(0));
    }

    #[test]
    fn an_overdue_prefill_holds_up_those_behind_it() {
        assert_eq!(backlog(&three(), 60), s(3 + 2));
    }

    #[test]
    fn the_first_token_ends_one_prefill_and_starts_the_next() {
        let mut ledger = three();
        ledger.began(NodeId(1), RequestId(1), at(6));
        assert_eq!(backlog(&ledger, 6), s(3 + 2));
        assert_eq!(backlog(&ledger, 8), s(1 + 2));
        assert_eq!(ledger.on_node(NodeId(1)), 3, "it still runs");
    }

    #[test]
    fn a_prefill_that_goes_away_before_its_turn_does_not_start_the_others_anew() {
        let mut ledger = three();
        ledger.end(LLAMA, RequestId(2), at(2));
        assert_eq!(backlog(&ledger, 2), s(2 + 2));
        ledger.began(NodeId(1), RequestId(3), at(3));
        assert_eq!(backlog(&ledger, 3), s(1));
    }

    #[test]
    fn a_prefill_that_goes_away_in_its_turn_lets_the_next_one_start() {
        let mut ledger = three();
        ledger.end(QWEN, RequestId(1), at(2));
        assert_eq!(backlog(&ledger, 2), s(3 + 2));
        ledger.end(LLAMA, RequestId(2), at(2));
        ledger.end(QWEN, RequestId(3), at(2));
        assert_eq!(backlog(&ledger, 2), s(0));
        assert_eq!(ledger.on_node(NodeId(1)), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_ledger_counts_what_a_plain_list_counts(
            steps in proptest::collection::vec((0_u8..3, 0_u64..6, 0_u64..3, 0_u32..2, 0_u64..9), 0..80),
        ) {
            let mut ledger = Ledger::default();
            let mut list: Vec<(Lane, u64, Option<u64>)> = Vec::new();
            for (kind, request, node, model, seconds) in steps {
                let lane = (NodeId(node), ModelId(model));
                let listed = list.iter().position(|(_, other, _)| *other == request);
                match (kind, listed) {
                    (0, None) => {
                        ledger.start(lane, RequestId(request), s(seconds), at(0));
                        list.push((lane, request, Some(seconds)));
                    }
                    (1, Some(index)) => {
                        ledger.began(list[index].0.0, RequestId(request), at(0));
                        list[index].2 = None;
                    }
                    (2, Some(index)) => {
                        ledger.end(list[index].0, RequestId(request), at(0));
                        list.remove(index);
                    }
                    _ => ledger.end((NodeId(9), ModelId(9)), RequestId(request), at(0)),
                }
                for node in (0..3).map(NodeId) {
                    let here = || list.iter().filter(|(lane, ..)| lane.0 == node);
                    let seconds: u64 = here().filter_map(|(.., seconds)| *seconds).sum();
                    prop_assert_eq!(ledger.on_node(node) as usize, here().count());
                    prop_assert_eq!(ledger.requests_on_node(node).len(), here().count());
                    prop_assert_eq!(ledger.prefill_backlog(node, at(0)), s(seconds));
                }
                prop_assert_eq!(ledger.lanes().map(|(_, count)| count).sum::<usize>(), list.len());
            }
        }
    }
}
