//! What is in flight: every attempt from its dispatch to its end, by runtime and by node.
//!
//! Owns the counts that gates and scores read: attempts, KV tokens, the prefill work a node still has before it (its one GPU does
//! that in turn), when a slot will probably come free, and who runs alone. Refuses reports: a node is as busy as what was sent
//! there, not as it says at its next heartbeat.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::blame::{Hold, Isolation};
use crate::ids::{Lane, ModelId, NodeId, RequestId};
use crate::time::{At, Span};

/// An attempt as it is booked at its dispatch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Booking {
    pub(crate) request: RequestId,
    /// Of its own prefill, as predicted.
    pub(crate) prefill: Span,
    /// Tokens its KV cache may come to hold: reserved.
    pub(crate) kv_tokens: u32,
    /// When it will probably have ended.
    pub(crate) ends: At,
    /// How it is kept from others.
    pub(crate) isolation: Isolation,
}

/// What a runtime carries, and its node besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) in_flight: u32,
    /// KV tokens reserved.
    pub(crate) kv_tokens: u32,
    /// When the next slot will probably come free.
    pub(crate) next_end: Option<At>,
    /// Attempts of all models on the node.
    pub(crate) on_node: u32,
    /// How long a new prefill would wait for those before it on the node.
    pub(crate) backlog: Span,
    /// Whether somebody runs there whom nobody may join yet.
    pub(crate) alone: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    lanes: BTreeMap<Lane, Carried>,
    nodes: BTreeMap<NodeId, Backlog>,
}

/// What a runtime carries.
#[derive(Debug, Default)]
struct Carried {
    bookings: BTreeMap<RequestId, Booking>,
    ends: BTreeSet<(At, RequestId)>,
    kv_tokens: u64,
    /// The one that runs alone, until when.
    alone: Option<(RequestId, Hold)>,
}

#[derive(Debug, Default)]
struct Backlog {
    in_flight: u32,
    /// Attempts without a first token, in the order of their dispatch, with the prefill predicted for each. The first is
    /// taken to be the one under way.
    prefills: VecDeque<(RequestId, Span)>,
    /// When the one under way started, as far as can be told from here.
    since: At,
    /// The one that has the whole node, until when.
    alone: Option<(RequestId, Hold)>,
}

impl Carried {
    fn in_flight(&self) -> u32 {
        u32::try_from(self.bookings.len()).unwrap_or(u32::MAX)
    }
}

impl Ledger {
    pub(crate) fn start(&mut self, lane: Lane, booking: Booking, at: At) {
        let request = booking.request;
        let carried = self.lanes.entry(lane).or_default();
        let backlog = self.nodes.entry(lane.0).or_default();
        match booking.isolation {
            Isolation::None => {}
            Isolation::Lane(hold) => carried.alone = Some((request, hold)),
            Isolation::Node(hold) => backlog.alone = Some((request, hold)),
        }
        carried.ends.insert((booking.ends, request));
        carried.kv_tokens = carried.kv_tokens.saturating_add(u64::from(booking.kv_tokens));
        carried.bookings.insert(request, booking);
        if backlog.prefills.is_empty() {
            backlog.since = at;
        }
        backlog.in_flight = backlog.in_flight.saturating_add(1);
        backlog.prefills.push_back((request, booking.prefill));
    }

    /// The first token: the node's prefill goes on with the next attempt, and others may join.
    pub(crate) fn began(&mut self, lane: Lane, request: RequestId, at: At) {
        let waits = |alone: &(RequestId, Hold)| *alone != (request, Hold::FirstToken);
        if let Some(carried) = self.lanes.get_mut(&lane) {
            carried.alone = carried.alone.filter(waits);
        }
        if let Some(backlog) = self.nodes.get_mut(&lane.0) {
            backlog.prefilled(request, at);
            backlog.alone = backlog.alone.filter(waits);
        }
    }

    pub(crate) fn end(&mut self, lane: Lane, request: RequestId, at: At) {
        let Some(carried) = self.lanes.get_mut(&lane) else { return };
        let Some(booking) = carried.bookings.remove(&request) else { return };
        carried.ends.remove(&(booking.ends, request));
        carried.kv_tokens = carried.kv_tokens.saturating_sub(u64::from(booking.kv_tokens));
        carried.alone = carried.alone.filter(|(alone, _)| *alone != request);
        if carried.bookings.is_empty() {
            self.lanes.remove(&lane);
        }
        let Some(backlog) = self.nodes.get_mut(&lane.0) else { return };
        backlog.in_flight = backlog.in_flight.saturating_sub(1);
        backlog.prefilled(request, at);
        backlog.alone = backlog.alone.filter(|(alone, _)| *alone != request);
        if backlog.in_flight == 0 {
            self.nodes.remove(&lane.0);
        }
    }

    /// Whether nothing is in flight, and nothing is kept of what was.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.nodes.is_empty()
    }

    /// All that a decision asks about a runtime. Linear in the prefills under way, which are at most the node's slots.
    pub(crate) fn load(&self, lane: Lane, at: At) -> Load {
        let Some(backlog) = self.nodes.get(&lane.0) else { return Load::default() };
        let carried = self.lanes.get(&lane);
        Load {
            in_flight: carried.map_or(0, Carried::in_flight),
            kv_tokens: carried.map_or(0, |carried| whole(carried.kv_tokens)),
            next_end: carried.and_then(|carried| carried.ends.first()).map(|(ends, _)| *ends),
            on_node: backlog.in_flight,
            backlog: backlog.remaining(at),
            alone: backlog.alone.is_some() || carried.is_some_and(|carried| carried.alone.is_some()),
        }
    }

    pub(crate) fn on_lane(&self, lane: Lane) -> u32 {
        self.lanes.get(&lane).map_or(0, Carried::in_flight)
    }

    pub(crate) fn on_node(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |backlog| backlog.in_flight)
    }

    /// KV tokens reserved on a runtime.
    pub(crate) fn kv_tokens(&self, lane: Lane) -> u32 {
        self.lanes.get(&lane).map_or(0, |carried| whole(carried.kv_tokens))
    }

    /// When the last of what runs there will probably have ended.
    pub(crate) fn last_end(&self, lane: Lane) -> Option<At> {
        self.lanes.get(&lane)?.ends.last().map(|(ends, _)| *ends)
    }

    /// How long a new prefill would wait for those before it. Linear in them; they are at most the node's slots.
    pub(crate) fn prefill_backlog(&self, node: NodeId, at: At) -> Span {
        self.nodes.get(&node).map_or(Span::ZERO, |backlog| backlog.remaining(at))
    }

    /// The first moment after `at` when some node's prefills will be down to `left`, if nothing else happens. Time alone only ends
    /// the one under way; the others wait for its first token.
    pub(crate) fn next_backlog_at(&self, left: Span, at: At) -> Option<At> {
        let ending = self.nodes.values().filter(|backlog| backlog.behind() <= left);
        let long = ending.map(|backlog| backlog.remaining(at)).filter(|remaining| *remaining > left);
        long.map(|remaining| at + remaining.less(left)).min()
    }

    pub(crate) fn requests_on_lane(&self, lane: Lane) -> Vec<RequestId> {
        self.lanes.get(&lane).into_iter().flat_map(|carried| carried.bookings.keys().copied()).collect()
    }

    pub(crate) fn requests_on_node(&self, node: NodeId) -> Vec<RequestId> {
        self.lanes_of(node).flat_map(|(_, carried)| carried.bookings.keys().copied()).collect()
    }

    /// The other runtimes of the node that carry something, with how many and their KV tokens.
    pub(crate) fn beside(&self, lane: Lane) -> impl Iterator<Item = (Lane, u32, u32)> + '_ {
        let others = self.lanes_of(lane.0).filter(move |(other, _)| **other != lane);
        others.map(|(other, carried)| (*other, carried.in_flight(), whole(carried.kv_tokens)))
    }

    pub(crate) fn contains(&self, lane: Lane, request: RequestId) -> bool {
        self.lanes.get(&lane).is_some_and(|carried| carried.bookings.contains_key(&request))
    }

    /// Each runtime that carries something, with how much.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (Lane, usize)> + '_ {
        self.lanes.iter().map(|(lane, carried)| (*lane, carried.bookings.len()))
    }

    fn lanes_of(&self, node: NodeId) -> impl Iterator<Item = (&Lane, &Carried)> {
        self.lanes.range((node, ModelId(0))..=(node, ModelId(u32::MAX)))
    }
}

fn whole(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

impl Backlog {
    /// The attempt has no prefill before it any more. Only the one under way passes the GPU on.
    fn prefilled(&mut self, request: RequestId, at: At) {
        if self.prefills.front().is_some_and(|(first, _)| *first == request) {
            self.since = at;
        }
        self.prefills.retain(|(other, _)| *other != request);
    }

    /// Of those behind the one under way.
    fn behind(&self) -> Span {
        self.prefills.iter().skip(1).fold(Span::ZERO, |sum, (_, prefill)| sum + *prefill)
    }

    /// An overdue prefill may end any moment; those behind it have not started all the same.
    fn remaining(&self, at: At) -> Span {
        let under_way = self.prefills.front().map_or(Span::ZERO, |(_, prefill)| *prefill);
        under_way.less(at.since(self.since)) + self.behind()
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

    fn booking(request: u64, prefill_s: u64) -> Booking {
        Booking {
            request: RequestId(request),
            prefill: s(prefill_s),
            kv_tokens: 10,
            ends: at(100 + request),
            isolation: Isolation::None,
        }
    }

    #[test]
    fn an_attempt_counts_from_its_dispatch_to_its_end() {
        let mut ledger = Ledger::default();
        ledger.start(QWEN, booking(1, 1), at(0));
        ledger.start(LLAMA, booking(2, 1), at(0));
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
        ledger.start(QWEN, booking(1, 4), at(0));
        ledger.start(LLAMA, booking(2, 3), at(0));
        ledger.start(QWEN, booking(3, 2), at(1));
        ledger
    }

    fn alone(ledger: &Ledger, lane: Lane) -> bool {
        ledger.load(lane, at(0)).alone
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
        ledger.began(QWEN, RequestId(1), at(6));
        assert_eq!(backlog(&ledger, 6), s(3 + 2));
        assert_eq!(backlog(&ledger, 8), s(1 + 2));
        assert_eq!(ledger.on_node(NodeId(1)), 3, "it still runs");
    }

    #[test]
    fn a_prefill_that_goes_away_before_its_turn_does_not_start_the_others_anew() {
        let mut ledger = three();
        ledger.end(LLAMA, RequestId(2), at(2));
        assert_eq!(backlog(&ledger, 2), s(2 + 2));
        ledger.began(QWEN, RequestId(3), at(3));
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

    #[test]
    fn kv_tokens_are_reserved_until_the_end() {
        let mut ledger = three();
        assert_eq!((ledger.kv_tokens(QWEN), ledger.kv_tokens(LLAMA)), (20, 10));
        assert_eq!(ledger.beside(QWEN).collect::<Vec<_>>(), [(LLAMA, 1, 10)]);
        ledger.end(QWEN, RequestId(1), at(2));
        assert_eq!(ledger.kv_tokens(QWEN), 10);
    }

    #[test]
    fn the_next_slot_comes_free_with_the_first_to_end() {
        let mut ledger = three();
        assert_eq!(ledger.load(QWEN, at(0)).next_end, Some(at(101)));
        ledger.end(QWEN, RequestId(1), at(2));
        assert_eq!(ledger.load(QWEN, at(0)).next_end, Some(at(103)));
        assert_eq!(ledger.load((NodeId(2), ModelId(1)), at(0)).next_end, None);
    }

    #[test]
    fn who_runs_alone_does_so_until_its_first_token_or_its_end() {
        for hold in [Hold::FirstToken, Hold::End] {
            for isolation in [Isolation::Lane(hold), Isolation::Node(hold)] {
                let mut ledger = Ledger::default();
                ledger.start(QWEN, Booking { isolation, ..booking(1, 1) }, at(0));
                assert!(alone(&ledger, QWEN));
                assert_eq!(alone(&ledger, LLAMA), isolation == Isolation::Node(hold));
                ledger.began(QWEN, RequestId(1), at(1));
                assert_eq!(alone(&ledger, QWEN), hold == Hold::End);
                ledger.end(QWEN, RequestId(1), at(2));
                assert!(!alone(&ledger, QWEN) && !alone(&ledger, LLAMA));
            }
        }
    }

    #[test]
    fn the_next_node_to_be_nearly_done_with_its_prompts_is_known() {
        assert_eq!(three().next_backlog_at(s(6), at(1)), Some(at(1 + 8 - 6)));
        assert_eq!(three().next_backlog_at(s(8), at(1)), None, "it is already");
        assert_eq!(three().next_backlog_at(s(4), at(1)), None, "two are behind, and longer together");
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
                        ledger.start(lane, booking(request, seconds), at(0));
                        list.push((lane, request, Some(seconds)));
                    }
                    (1, Some(index)) => {
                        ledger.began(list[index].0, RequestId(request), at(0));
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
                    let kv: u32 = (0..2).map(|model| ledger.kv_tokens((node, ModelId(model)))).sum();
                    prop_assert_eq!(kv as usize, 10 * here().count());
                }
                prop_assert_eq!(ledger.lanes().map(|(_, count)| count).sum::<usize>(), list.len());
            }
        }
    }
}
