//! The loop: one message or one moment at a time, into the scheduler and out again.
//!
//! Owns the scheduler and the order in which things are said to it and carried out for it. One task, no locks, no IO but its
//! channels, none of which it waits for. Refuses every decision.

use std::collections::BTreeSet;
use std::sync::Arc;

use registry::{ModelName, Registry};
use scheduler::{
    Adopted, Attempt, Command, Effect, Fact, Limits, ModelId, ModelReport, NodeId, NodeReport, Position,
    ProbeResult, Scheduler, Submission, refusal_words,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::accounts::{Accounts, Moment};
use super::facts::{self, Scribe};
use super::grace::Grace;
use super::names::{self, Names};
use super::orders::{Lines, Order};
use super::proposals::{Answer, Proposal};
use super::told::Told;
use super::{Message, ModelNews, NewRequest, NodeNews, canary, gauges, view};
use crate::claims::{Asking, Word};
use crate::clock::{Clock, unix_ms};
use crate::limits;

pub(super) struct Mind {
    scheduler: Scheduler,
    clock: Clock,
    names: Names,
    lines: Lines,
    scribe: Scribe,
    grace: Grace,
    told: Told,
    accounts: Accounts,
    registry: Arc<Registry>,
    /// Nodes whose reservations the scheduler knows.
    homes_told: BTreeSet<NodeId>,
    proposals: mpsc::Sender<Proposal>,
    probes: mpsc::Sender<canary::Order>,
    effects: Vec<Effect>,
    /// Where the fact that is being taken in happened.
    scene: Option<NodeId>,
}

impl Mind {
    pub(super) fn new(
        clock: Clock,
        registry: &Arc<Registry>,
        proposals: mpsc::Sender<Proposal>,
        probes: mpsc::Sender<canary::Order>,
    ) -> Self {
        let limits = Limits::default();
        let scribe = Scribe::new(clock, &limits.blame);
        let mut mind = Self {
            scheduler: Scheduler::new(limits),
            clock,
            names: Names::default(),
            lines: Lines::default(),
            scribe,
            grace: Grace::default(),
            told: Told::default(),
            accounts: Accounts::default(),
            registry: Arc::clone(registry),
            homes_told: BTreeSet::new(),
            proposals,
            probes,
            effects: Vec::new(),
            scene: None,
        };
        for (node, known) in registry.nodes() {
            mind.names.node_is(NodeId(node.0), &known.name);
        }
        for fact in mind.scribe.recall(registry, &mut mind.names, unix_ms()) {
            mind.apply(Command::Recall(fact));
        }
        mind.follow(Arc::clone(registry));
        mind
    }

    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>, stop: CancellationToken) {
        let mut reminders = interval(limits::REMIND_EVERY);
        reminders.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.scheduler.next_deadline().map(|(at, _)| self.clock.instant(at));
            tokio::select! {
                () = stop.cancelled() => return,
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = until(wake) => self.apply(Command::Wake),
                _ = reminders.tick() => self.remind(),
            }
            self.carry_all();
            gauges::measure(&self.scheduler.load(), &self.names);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(request, line) => {
                self.lines.open(request.request, None, line);
                let submission = self.submission(request);
                self.apply(Command::Submit(submission));
            }
            Message::Adopt(request, past, line) => {
                self.lines.open(request.request, past.running.map(|(node, _)| NodeId(node)), line);
                let submission = self.submission(request);
                let running = past.running.map(|(node, began)| Adopted { node: NodeId(node), began });
                self.apply(Command::Adopt { submission, attempt: Attempt(past.attempts), running });
            }
            Message::Lead { settles_at } => {
                self.apply(Command::Lead { settles_at: self.clock.at(settles_at) });
            }
            // Its gateway is gone.
            Message::Cancel(number) if self.accounts.release(number) => {}
            Message::Cancel(request) => {
                self.lines.close(request);
                self.apply(Command::Cancel { request });
            }
            Message::Began(request, attempt) => self.apply(Command::Began { request, attempt }),
            Message::Finished { request, attempt, outcome, usage } => {
                self.scene = self.lines.node(request);
                self.apply(Command::Finished { request, attempt, outcome, usage });
                if outcome.ends_the_request() {
                    self.lines.close(request);
                }
            }
            Message::Reported { node, news } => self.reported(NodeId(node), news),
            Message::NodeLost(node) => {
                self.scene = Some(NodeId(node));
                self.apply(Command::NodeLost { node: NodeId(node) });
            }
            Message::Registry(registry) => self.follow(registry),
            Message::Reserved { reservation, granted } => {
                self.apply(Command::Reserved { reservation, granted });
            }
            Message::Home { node, model, bytes } => {
                let (node, model) = (NodeId(node), self.names.number(model.as_str()));
                self.apply(Command::Recall(Fact::Home { node, model, bytes }));
            }
            Message::Probed { probe, result } => self.apply(Command::Probed { probe, result }),
            Message::Claim(word, line) => self.hear(word, &line),
            Message::View(reply) => {
                let _ = reply.send(view::queue(&self.scheduler, &self.names, self.clock.now()));
            }
            Message::Explain(subject, reply) => {
                let _ = reply.send(view::explain(&self.scheduler, &mut self.names, subject));
            }
        }
    }

    fn apply(&mut self, command: Command) {
        self.scheduler.apply(self.clock.now(), command, &mut self.effects);
    }

    /// Carrying an order can fail at once, which is a fact that has effects of its own.
    fn carry_all(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.carry(effect);
            }
        }
        self.scene = None;
    }

    fn carry(&mut self, effect: Effect) {
        match effect {
            Effect::Queued { request, position, eta, loading } => {
                self.lines.wait(request, Position { ahead: position, eta, loading });
            }
            Effect::Dispatch { request, attempt, node, affinity, prefill_chunk } => {
                gauges::routed(affinity);
                self.lines.run(request, attempt, node, affinity, prefill_chunk);
            }
            Effect::Refuse { request, refusal } => {
                let words = refusal_words(&refusal, &self.names);
                self.lines.end(request, Order::Refused { refusal, words });
            }
            Effect::Abort { request, reason, .. } => self.lines.end(request, Order::Stop(reason)),
            Effect::Reserve { reservation, node, model, bytes } => {
                let proposed = self.model_name(model).is_some_and(|model| {
                    let command =
                        registry::Command::PlaceModel { node: registry::NodeId(node.0), model, bytes };
                    self.propose(command, Answer::Reservation(reservation))
                });
                if !proposed {
                    self.apply(Command::Reserved { reservation, granted: false });
                }
            }
            Effect::Evict { node, model } => {
                if let Some(model) = self.model_name(model) {
                    let node = registry::NodeId(node.0);
                    self.propose(registry::Command::UnplaceModel { node, model }, Answer::Nobody);
                }
            }
            Effect::Probe { probe, node, model } => {
                let order = canary::Order { probe, node: node.0, model: self.names.name(model).to_owned() };
                if self.probes.try_send(order).is_err() {
                    self.apply(Command::Probed { probe, result: ProbeResult::Failed });
                }
            }
            Effect::Record(fact) => self.record(&fact),
        }
    }

    fn record(&mut self, fact: &Fact) {
        tracing::info!(fact = fact.words(&self.names), "recorded");
        if let Fact::Breaker(step) = fact {
            gauges::breaker(step, &self.names);
        }
        for command in self.scribe.commands(fact, self.scene, &self.names) {
            self.propose(command, Answer::Nobody);
        }
    }

    /// Whether it is on its way. A full line means that the registry takes nothing any more, which its own errors tell of.
    fn propose(&self, command: registry::Command, answer: Answer) -> bool {
        let sent = self.proposals.try_send(Proposal { command, answer });
        sent.inspect_err(|_| tracing::error!("too many facts wait for the registry; one is lost")).is_ok()
    }

    fn follow(&mut self, registry: Arc<Registry>) {
        for command in self.told.news(&registry, &mut self.names) {
            self.apply(command);
        }
        self.accounts.follow(self.clock.now(), &registry);
        self.registry = registry;
    }

    fn hear(&mut self, word: Word, line: &mpsc::Sender<Order>) {
        let (scheduler, names) = (&self.scheduler, &mut self.names);
        let expected = &mut |asking: &Asking| {
            let (tenant, model) = (names::tenant(asking.tenant), names.number(&asking.model));
            scheduler.expected_answer(tenant, model, asking.max_tokens)
        };
        let moment = &mut Moment { clock: &self.clock, registry: &self.registry, expected };
        self.accounts.hear(word, line, moment);
    }

    fn reported(&mut self, node: NodeId, news: NodeNews) {
        let NodeNews { name, life, budget_bytes, models, preload } = news;
        self.names.node_is(node, &name);
        let models = models.into_iter().map(|model| self.model_report(node, model)).collect();
        self.apply(Command::NodeReported { node, report: NodeReport { life, budget_bytes, models } });
        if budget_bytes > 0 && self.homes_told.insert(node) {
            for home in facts::homes(&self.registry, node, &mut self.names) {
                self.apply(Command::Recall(home));
            }
        }
        for (model, bytes) in preload {
            let command =
                registry::Command::PlaceModel { node: registry::NodeId(node.0), model: model.clone(), bytes };
            self.propose(command, Answer::Home { node: node.0, model, bytes });
        }
    }

    fn model_report(&mut self, node: NodeId, news: ModelNews) -> ModelReport {
        let ModelNews { model, state, slots, kv_tokens, prefix_tokens, bytes, rates, measured } = news;
        let model = self.names.number(&model);
        let state = self.grace.state(self.clock.now(), (node, model), state, || self.lines.reach(node));
        ModelReport { model, state, slots, kv_tokens, prefix_tokens, bytes, rates, measured }
    }

    fn submission(&mut self, request: NewRequest) -> Submission {
        let NewRequest { request, model, prompt_tokens, max_tokens, arrived, deadline, traits } = request;
        Submission {
            request,
            model: self.names.number(&model),
            tenant: names::tenant(traits.tenant),
            class: traits.class,
            prompt_tokens,
            max_tokens,
            output_tokens: None,
            blocks: traits.blocks.iter().copied().map(scheduler::Block).collect(),
            session: traits.session.map(scheduler::SessionKey),
            fingerprint: scheduler::Fingerprint(traits.fingerprint),
            arrived: self.clock.at(arrived),
            deadline: self.clock.at(deadline),
        }
    }

    /// Whoever waits is told where it stands now, if that has changed.
    fn remind(&mut self) {
        for waiting in self.scheduler.waiting(limits::REMINDED).into_iter().take(limits::REMINDED) {
            self.lines.remind(waiting.request, waiting.position);
        }
    }

    fn model_name(&self, model: ModelId) -> Option<ModelName> {
        ModelName::new(self.names.name(model)).ok()
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
