//! What will happen and when: a heap of occurrences, first by time and then in the order in which they were put there.
//!
//! Owns the order, which makes a run the same each time. Refuses to take anything back: who has changed his mind ignores the
//! occurrence when it comes, by the number it carries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use scheduler::{Attempt, ModelId, NodeId, RequestId};

use crate::faults::Fault;

/// Something that was foreseen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Occurrence {
    /// The rounds a node has planned are over.
    Rounds { node: NodeId, plan: u64 },
    /// An attempt reaches its node.
    Deliver { request: RequestId, attempt: Attempt, node: NodeId, chunk: Option<u32> },
    /// A model's weights have been read.
    Loaded { node: NodeId, model: ModelId, life: u32 },
    /// A node may report again.
    Report { node: NodeId },
    /// Something breaks.
    Fault(Fault),
    /// A hung runtime is killed.
    Kill { node: NodeId, model: ModelId, life: u32 },
    /// A dead node's session counts as lost.
    Lost { node: NodeId },
    /// A dead node comes back.
    Back { node: NodeId },
    /// A slow node is as fast as before.
    Recovered { node: NodeId },
    /// A canary has been answered.
    Probed { node: NodeId, model: ModelId, life: u32, sent: u64 },
    /// A window of the watch on shares is over.
    Window,
}

#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    entered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    number: u64,
    occurrence: Occurrence,
}

impl Agenda {
    pub(crate) fn enter(&mut self, at: u64, occurrence: Occurrence) {
        self.entered += 1;
        self.heap.push(Reverse(Entry { at, number: self.entered, occurrence }));
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.0.at)
    }

    pub(crate) fn take(&mut self) -> Option<Occurrence> {
        self.heap.pop().map(|entry| entry.0.occurrence)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occurrences_come_by_time_and_then_in_the_order_of_their_entry() {
        let mut agenda = Agenda::default();
        let back = |node| Occurrence::Back { node: NodeId(node) };
        [(5, 1), (3, 2), (5, 3), (3, 4)].into_iter().for_each(|(at, node)| agenda.enter(at, back(node)));
        assert_eq!(agenda.next_at(), Some(3));
        let order: Vec<_> = std::iter::from_fn(|| agenda.take()).collect();
        assert_eq!(order, [2, 4, 1, 3].map(back));
        assert_eq!(agenda.next_at(), None);
    }
}
