//! The lines to the generations that wait for orders.
//!
//! Owns one line for each request that lives, what was said on it last, and where it was sent. Refuses to wait for a line: one
//! that is full or closed belongs to a generation that is gone, whose own cancel is on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use scheduler::{AbortReason, Affinity, Attempt, NodeId, Position, Refusal, RequestId, Span};
use tokio::sync::mpsc;

use crate::claims::Verdict;
use crate::limits;

/// What the scheduler says about one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    Wait {
        ahead: u32,
        eta: Option<Duration>,
        loading: bool,
    },
    Run {
        attempt: u32,
        node: u64,
        affinity: &'static str,
        prefill_chunk: u32,
    },
    Refused {
        refusal: Refusal,
        words: String,
    },
    Stop(AbortReason),
    /// On a claim, which is no request yet.
    Verdict(Verdict),
}

#[derive(Default)]
pub(super) struct Lines {
    lines: BTreeMap<RequestId, Line>,
}

struct Line {
    orders: mpsc::Sender<Order>,
    /// Where it was sent last.
    node: Option<NodeId>,
    /// The place it was told last, the estimate in whole seconds.
    told: Option<(u32, Option<u64>, bool)>,
}

impl Lines {
    /// `node`: where it runs already, sent there by an earlier leader.
    pub(super) fn open(&mut self, request: RequestId, node: Option<NodeId>, orders: mpsc::Sender<Order>) {
        self.lines.insert(request, Line { orders, node, told: None });
    }

    pub(super) fn close(&mut self, request: RequestId) {
        self.lines.remove(&request);
    }

    /// Where the request was sent last.
    pub(super) fn node(&self, request: RequestId) -> Option<NodeId> {
        self.lines.get(&request).and_then(|line| line.node)
    }

    /// Whether any request that lives was sent there last.
    pub(super) fn reach(&self, node: NodeId) -> bool {
        self.lines.values().any(|line| line.node == Some(node))
    }

    pub(super) fn wait(&mut self, request: RequestId, position: Position) {
        if let Some(line) = self.lines.get_mut(&request) {
            line.told = Some(coarse(position));
            let Position { ahead, eta, loading } = position;
            let _ = line.orders.try_send(Order::Wait { ahead, eta: eta.map(duration), loading });
        }
    }

    /// Says it again if it has changed, and if there is room for it beside orders that must not be lost.
    pub(super) fn remind(&mut self, request: RequestId, position: Position) {
        let line = self.lines.get(&request);
        let has_room = |line: &Line| line.orders.capacity() > limits::ORDERS_PER_REQUEST / 2;
        if line.is_some_and(|line| line.told != Some(coarse(position)) && has_room(line)) {
            self.wait(request, position);
        }
    }

    pub(super) fn run(
        &mut self,
        request: RequestId,
        attempt: Attempt,
        node: NodeId,
        affinity: Affinity,
        prefill_chunk: u32,
    ) {
        if let Some(line) = self.lines.get_mut(&request) {
            (line.node, line.told) = (Some(node), None);
            let affinity = affinity_words(affinity);
            let run = Order::Run { attempt: attempt.0, node: node.0, affinity, prefill_chunk };
            let _ = line.orders.try_send(run);
        }
    }

    /// The last order.
    pub(super) fn end(&mut self, request: RequestId, order: Order) {
        if let Some(line) = self.lines.remove(&request) {
            let _ = line.orders.try_send(order);
        }
    }
}

pub(super) fn affinity_words(affinity: Affinity) -> &'static str {
    match affinity {
        Affinity::Prefix => "prefix",
        Affinity::Session => "session",
        Affinity::Resident => "resident",
    }
}

pub(super) fn duration(span: Span) -> Duration {
    Duration::from_micros(span.0)
}

fn coarse(position: Position) -> (u32, Option<u64>, bool) {
    (position.ahead, position.eta.map(|eta| eta.0 / 1_000_000), position.loading)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: RequestId = RequestId(1);

    fn at(ahead: u32, eta_ms: u64) -> Position {
        Position { ahead, eta: Some(Span::from_ms(eta_ms)), loading: false }
    }

    fn line() -> (Lines, mpsc::Receiver<Order>) {
        let (orders, line) = mpsc::channel(limits::ORDERS_PER_REQUEST);
        let mut lines = Lines::default();
        lines.open(ONE, None, orders);
        (lines, line)
    }

    fn said(line: &mut mpsc::Receiver<Order>) -> usize {
        std::iter::from_fn(|| line.try_recv().ok()).count()
    }

    #[tokio::test]
    async fn a_place_is_said_again_only_when_it_has_changed_by_what_people_read() {
        let (mut lines, mut line) = line();
        lines.wait(ONE, at(3, 9_100));
        for position in [at(3, 9_900), at(2, 9_100), at(2, 9_100), at(2, 8_000)] {
            lines.remind(ONE, position);
        }
        assert_eq!(said(&mut line), 3);
    }

    #[tokio::test]
    async fn reminders_never_take_the_room_of_an_order() {
        let (mut lines, mut line) = line();
        for ahead in 0..100 {
            lines.remind(ONE, at(ahead, 0));
        }
        lines.run(ONE, Attempt(1), NodeId(4), Affinity::Prefix, 256);
        lines.end(ONE, Order::Stop(AbortReason::DeadlineExceeded));
        let orders: Vec<Order> = std::iter::from_fn(|| line.try_recv().ok()).collect();
        let run = Order::Run { attempt: 1, node: 4, affinity: "prefix", prefill_chunk: 256 };
        assert!(orders.ends_with(&[run, Order::Stop(AbortReason::DeadlineExceeded)]), "{orders:?}");
    }

    #[tokio::test]
    async fn a_line_knows_where_its_request_went_until_its_end() {
        let (mut lines, _line) = line();
        assert_eq!(lines.node(ONE), None);
        lines.run(ONE, Attempt(1), NodeId(4), Affinity::Resident, 0);
        lines.run(ONE, Attempt(2), NodeId(5), Affinity::Resident, 0);
        assert_eq!(lines.node(ONE), Some(NodeId(5)));
        assert_eq!([4, 5].map(|node| lines.reach(NodeId(node))), [false, true]);
        lines.close(ONE);
        assert_eq!((lines.node(ONE), lines.reach(NodeId(5))), (None, false));
    }
}
