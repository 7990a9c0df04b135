//! The leader loop: the shell around the scheduler.
//!
//! Owns the scheduler, the names behind its numbers, and a line to each generation that waits for its orders. Refuses every
//! decision: commands go in, effects come out and are carried. One task, no locks, no IO but its channels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scheduler::{
    AbortReason, Attempt, Class, Command, Effect, Limits, ModelId, ModelReport, NodeId, NodeReport, Outcome,
    Rates, Refusal, RequestId, Scheduler, Span, Submission, TenantId,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::limits;

/// What the scheduler says about one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    Wait { ahead: u32, eta: Option<Duration> },
    Run { attempt: u32, node: u64 },
    Refused(Refusal),
    Stop(AbortReason),
}

/// A request as the leader needs to know it: numbers, no prompt.
#[derive(Clone, Debug)]
pub(crate) struct NewRequest {
    pub(crate) request: RequestId,
    pub(crate) model: String,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_tokens: u32,
    pub(crate) deadline: Instant,
}

/// A model that a node can run now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resident {
    pub(crate) model: String,
    pub(crate) slots: u32,
    pub(crate) rates: Rates,
}

/// The queue as the status page shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueView {
    pub(crate) waiting: BTreeMap<String, usize>,
    pub(crate) running: BTreeMap<String, usize>,
    pub(crate) running_on: BTreeMap<u64, usize>,
}

enum Message {
    Submit(NewRequest, mpsc::Sender<Order>),
    Cancel(RequestId),
    Began(RequestId, Attempt),
    Finished { request: RequestId, attempt: Attempt, outcome: Outcome, generated: u32 },
    Resident { node: u64, models: Vec<Resident> },
    NodeLost(u64),
    View(oneshot::Sender<QueueView>),
}

/// Speaks to the leader loop; cheap to clone.
#[derive(Clone)]
pub(crate) struct Leader {
    inbox: mpsc::Sender<Message>,
    next_request: Arc<AtomicU64>,
}

impl Leader {
    /// Starts the loop; it ends with `stop`, and every waiting generation then sees its line closed.
    pub(crate) fn start(clock: Clock, stop: CancellationToken) -> Self {
        let (inbox, messages) = mpsc::channel(limits::LEADER_INBOX);
        let state = Loop {
            scheduler: Scheduler::new(Limits::default()),
            clock,
            names: Names::default(),
            lines: BTreeMap::new(),
        };
        tokio::spawn(state.run(messages, stop));
        Self { inbox, next_request: Arc::new(AtomicU64::new(1)) }
    }

    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a request into the global queue; its orders arrive on the line returned.
    pub(crate) async fn submit(&self, request: NewRequest) -> mpsc::Receiver<Order> {
        let (line, orders) = mpsc::channel(limits::ORDERS_PER_REQUEST);
        self.send(Message::Submit(request, line)).await;
        orders
    }

    pub(crate) async fn cancel(&self, request: RequestId) {
        self.send(Message::Cancel(request)).await;
    }

    pub(crate) async fn began(&self, request: RequestId, attempt: u32) {
        self.send(Message::Began(request, Attempt(attempt))).await;
    }

    pub(crate) async fn finished(&self, request: RequestId, attempt: u32, outcome: Outcome, generated: u32) {
        self.send(Message::Finished { request, attempt: Attempt(attempt), outcome, generated }).await;
    }

    /// The complete list of what `node` can run now.
    pub(crate) async fn resident(&self, node: u64, models: Vec<Resident>) {
        self.send(Message::Resident { node, models }).await;
    }

    pub(crate) async fn node_lost(&self, node: u64) {
        self.send(Message::NodeLost(node)).await;
    }

    pub(crate) async fn view(&self) -> QueueView {
        let (reply, view) = oneshot::channel();
        self.send(Message::View(reply)).await;
        view.await.unwrap_or_default()
    }

    /// A closed inbox means that the coordinator is going down; whoever waits learns it from its own line.
    async fn send(&self, message: Message) {
        let _ = self.inbox.send(message).await;
    }
}

struct Loop {
    scheduler: Scheduler,
    clock: Clock,
    names: Names,
    lines: BTreeMap<RequestId, mpsc::Sender<Order>>,
}

impl Loop {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, stop: CancellationToken) {
        let mut effects = Vec::new();
        loop {
            let wake = self.scheduler.next_deadline().map(|(at, _)| self.clock.instant(at));
            tokio::select! {
                () = stop.cancelled() => return,
                message = messages.recv() => match message {
                    Some(message) => self.take(message, &mut effects),
                    None => return,
                },
                () = until(wake) => self.apply(Command::Wake, &mut effects),
            }
            effects.drain(..).for_each(|effect| self.carry(effect));
            self.measure();
        }
    }

    fn take(&mut self, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::Submit(request, line) => {
                self.lines.insert(request.request, line);
                let submission = self.submission(&request);
                self.apply(Command::Submit(submission), effects);
            }
            Message::Cancel(request) => {
                self.lines.remove(&request);
                self.apply(Command::Cancel { request }, effects);
            }
            Message::Began(request, attempt) => self.apply(Command::Began { request, attempt }, effects),
            Message::Finished { request, attempt, outcome, generated } => {
                self.apply(Command::Finished { request, attempt, outcome, generated }, effects);
            }
            Message::Resident { node, models } => {
                let models = models.into_iter().map(|resident| self.report(resident)).collect();
                let report = NodeReport { models };
                self.apply(Command::NodeReported { node: NodeId(node), report }, effects);
            }
            Message::NodeLost(node) => self.apply(Command::NodeLost { node: NodeId(node) }, effects),
            Message::View(reply) => {
                let _ = reply.send(self.view());
            }
        }
    }

    fn apply(&mut self, command: Command, effects: &mut Vec<Effect>) {
        self.scheduler.apply(self.clock.now(), command, effects);
    }

    fn carry(&mut self, effect: Effect) {
        let (request, order, last) = match effect {
            Effect::Queued { request, position, eta } => {
                (request, Order::Wait { ahead: position, eta: eta.map(duration) }, false)
            }
            Effect::Dispatch { request, attempt, node } => {
                (request, Order::Run { attempt: attempt.0, node: node.0 }, false)
            }
            Effect::Refuse { request, refusal } => (request, Order::Refused(refusal), true),
            Effect::Abort { request, reason, .. } => (request, Order::Stop(reason), true),
        };
        let line = if last { self.lines.remove(&request) } else { self.lines.get(&request).cloned() };
        // A line that is full or closed belongs to a generation that is gone; its own cancel is on the way.
        if let Some(line) = line {
            let _ = line.try_send(order);
        }
    }

    /// The queue as gauges under vLLM's names; a handful of models, and no message here is per token. Every known model is
    /// set: one that is idle is not in the scheduler's load, and its gauges would keep their last value.
    fn measure(&self) {
        let load = self.scheduler.load();
        for (name, number) in &self.names.numbers {
            let (waiting, running) =
                load.models.get(number).map_or((0, 0), |counts| (counts.waiting, counts.running));
            #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
            let (waiting, running) = (waiting as f64, running as f64);
            metrics::gauge!("vllm:num_requests_waiting", "model_name" => name.clone()).set(waiting);
            metrics::gauge!("vllm:num_requests_running", "model_name" => name.clone()).set(running);
        }
    }

    fn submission(&mut self, request: &NewRequest) -> Submission {
        Submission {
            request: request.request,
            model: self.names.number(&request.model),
            tenant: TenantId(0),
            class: Class::Interactive,
            prompt_tokens: request.prompt_tokens,
            max_tokens: request.max_tokens,
            arrived: self.clock.now(),
            deadline: self.clock.at(request.deadline),
        }
    }

    fn report(&mut self, resident: Resident) -> ModelReport {
        ModelReport {
            model: self.names.number(&resident.model),
            slots: resident.slots,
            rates: resident.rates,
        }
    }

    fn view(&self) -> QueueView {
        let load = self.scheduler.load();
        let mut view = QueueView::default();
        for (model, counts) in &load.models {
            view.waiting.insert(self.names.name(*model), counts.waiting);
            view.running.insert(self.names.name(*model), counts.running);
        }
        view.running_on.extend(load.nodes.iter().map(|(node, running)| (node.0, *running)));
        view
    }
}

/// Model names and the numbers the scheduler knows them by. Bounded by the registry: only models it knows get here.
#[derive(Default)]
struct Names {
    numbers: BTreeMap<String, ModelId>,
    names: Vec<String>,
}

impl Names {
    fn number(&mut self, name: &str) -> ModelId {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = ModelId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn name(&self, number: ModelId) -> String {
        self.names.get(number.0 as usize).cloned().unwrap_or_default()
    }
}

fn duration(span: Span) -> Duration {
    Duration::from_micros(span.0)
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
