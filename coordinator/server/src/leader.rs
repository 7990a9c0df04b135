//! The leader: the shell around the scheduler, as the rest of the coordinator speaks to it.
//!
//! Owns the messages to the loop and the handle that sends them. `mind` is the loop, `names` what its numbers mean, `orders` the
//! lines to the generations, `accounts` what keys have in use, `facts` what outlives it, `told` what the registry says, `proposals` and `canary` what it has
//! others do, `gauges` and `view` what it shows. Refuses every decision: commands go in, effects come out and are carried.

mod accounts;
mod canary;
mod facts;
mod gauges;
mod grace;
mod mind;
mod names;
mod orders;
mod proposals;
mod told;
mod view;

use std::sync::Arc;

use registry::{ModelName, Registry};
use scheduler::{
    Attempt, Measured, ModelState, Outcome, ProbeNumber, ProbeResult, Rates, RequestId, ReservationId, Usage,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::claims::Word;
use crate::clock::Clock;
use crate::generation::Traits;
use crate::leader::mind::Mind;
use crate::limits;

pub(crate) use canary::Canaries;
pub(crate) use orders::Order;
pub(crate) use proposals::propose;
pub(crate) use view::{QueueView, Subject, Waiter};

/// A request as the leader needs to know it: numbers, no prompt.
#[derive(Clone, Debug)]
pub(crate) struct NewRequest {
    pub(crate) request: RequestId,
    pub(crate) model: String,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_tokens: u32,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Instant,
    pub(crate) traits: Traits,
}

/// What has become of a request under an earlier leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Attempts made.
    pub(crate) attempts: u32,
    /// Where the latest of them runs, and whether its first token has come.
    pub(crate) running: Option<(u64, bool)>,
}

/// All that a node offers or holds, with what it measured since the news before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeNews {
    /// What people call it.
    pub(crate) name: String,
    /// Another number for each process of its agent; zero: not known.
    pub(crate) life: u64,
    /// Zero: it is not known, and nothing is loaded or evicted there.
    pub(crate) budget_bytes: u64,
    pub(crate) models: Vec<ModelNews>,
    /// Models that are to be loaded there if there is room for them, asked for or not.
    pub(crate) preload: Vec<(ModelName, u64)>,
}

/// One model of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelNews {
    pub(crate) model: String,
    pub(crate) state: ModelState,
    pub(crate) slots: u32,
    pub(crate) kv_tokens: u32,
    pub(crate) prefix_tokens: u32,
    pub(crate) bytes: u64,
    pub(crate) rates: Rates,
    pub(crate) measured: Measured,
}

enum Message {
    Submit(NewRequest, mpsc::Sender<Order>),
    Adopt(NewRequest, Past, mpsc::Sender<Order>),
    Lead { settles_at: Instant },
    Cancel(RequestId),
    Began(RequestId, Attempt),
    Finished { request: RequestId, attempt: Attempt, outcome: Outcome, usage: Usage },
    Reported { node: u64, news: NodeNews },
    NodeLost(u64),
    Registry(Arc<Registry>),
    Reserved { reservation: ReservationId, granted: bool },
    Home { node: u64, model: ModelName, bytes: u64 },
    Probed { probe: ProbeNumber, result: ProbeResult },
    Claim(Word, mpsc::Sender<Order>),
    View(oneshot::Sender<QueueView>),
    Explain(Subject, oneshot::Sender<Option<String>>),
}

/// What the loop has others do, each in its own time.
pub(crate) struct Errands {
    pub(crate) proposals: mpsc::Receiver<proposals::Proposal>,
    pub(crate) probes: mpsc::Receiver<canary::Order>,
}

/// Speaks to the leader loop; cheap to clone.
#[derive(Clone)]
pub(crate) struct Leader {
    inbox: mpsc::Sender<Message>,
}

impl Leader {
    /// Starts the loop from what an earlier one left in the registry; it ends with `stop`, and every waiting generation then
    /// sees its line closed.
    pub(crate) fn start(clock: Clock, registry: &Arc<Registry>, stop: CancellationToken) -> (Self, Errands) {
        let (inbox, messages) = mpsc::channel(limits::LEADER_INBOX);
        let (to_propose, proposals) = mpsc::channel(limits::PROPOSALS);
        let (to_probe, probes) = mpsc::channel(limits::PROBES);
        let mind = Mind::new(clock, registry, to_propose, to_probe);
        tokio::spawn(mind.run(messages, stop));
        (Self { inbox }, Errands { proposals, probes })
    }

    /// Puts a request into the global queue; its orders arrive on the line returned.
    pub(crate) async fn submit(&self, request: NewRequest) -> mpsc::Receiver<Order> {
        let (line, orders) = mpsc::channel(limits::ORDERS_PER_REQUEST);
        self.send(Message::Submit(request, line)).await;
        orders
    }

    /// As [`Leader::submit`], for a request that an earlier leader had accepted.
    pub(crate) async fn adopt(&self, request: NewRequest, past: Past) -> mpsc::Receiver<Order> {
        let (line, orders) = mpsc::channel(limits::ORDERS_PER_REQUEST);
        self.send(Message::Adopt(request, past, line)).await;
        orders
    }

    /// It takes over from another: until then others may say what runs.
    pub(crate) async fn lead(&self, settles_at: Instant) {
        self.send(Message::Lead { settles_at }).await;
    }

    pub(crate) async fn cancel(&self, request: RequestId) {
        self.send(Message::Cancel(request)).await;
    }

    pub(crate) async fn began(&self, request: RequestId, attempt: u32) {
        self.send(Message::Began(request, Attempt(attempt))).await;
    }

    pub(crate) async fn finished(&self, request: RequestId, attempt: u32, outcome: Outcome, usage: Usage) {
        self.send(Message::Finished { request, attempt: Attempt(attempt), outcome, usage }).await;
    }

    /// Of what a key may ask for. A claim's verdict arrives on the line returned.
    pub(crate) async fn claim(&self, word: Word) -> Option<(RequestId, mpsc::Receiver<Order>)> {
        let (line, verdict) = mpsc::channel(1);
        let number = word.opens();
        self.send(Message::Claim(word, line)).await;
        number.map(|number| (number, verdict))
    }

    /// The complete truth of `node`.
    pub(crate) async fn reported(&self, node: u64, news: NodeNews) {
        self.send(Message::Reported { node, news }).await;
    }

    pub(crate) async fn node_lost(&self, node: u64) {
        self.send(Message::NodeLost(node)).await;
    }

    /// The registry as it is now.
    pub(crate) async fn registry(&self, registry: Arc<Registry>) {
        self.send(Message::Registry(registry)).await;
    }

    pub(crate) async fn view(&self) -> QueueView {
        let (reply, view) = oneshot::channel();
        self.send(Message::View(reply)).await;
        view.await.unwrap_or_default()
    }

    /// In the scheduler's words; `None` where it knows nothing.
    pub(crate) async fn explain(&self, subject: Subject) -> Option<String> {
        let (reply, words) = oneshot::channel();
        self.send(Message::Explain(subject, reply)).await;
        words.await.ok().flatten()
    }

    async fn reserved(&self, reservation: ReservationId, granted: bool) {
        self.send(Message::Reserved { reservation, granted }).await;
    }

    async fn home(&self, node: u64, model: ModelName, bytes: u64) {
        self.send(Message::Home { node, model, bytes }).await;
    }

    async fn probed(&self, probe: ProbeNumber, result: ProbeResult) {
        self.send(Message::Probed { probe, result }).await;
    }

    /// A closed inbox means that the coordinator is going down; whoever waits learns it from its own line.
    async fn send(&self, message: Message) {
        let _ = self.inbox.send(message).await;
    }
}

#[cfg(test)]
mod tests;
