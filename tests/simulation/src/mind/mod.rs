//! The real scheduler as a policy.
//!
//! Owns the translation between the simulator's events and orders and the scheduler's commands and effects: requests here,
//! what nodes say in `telling`, what the rest of the cluster would answer in `registry`, the scheduler's own laws in
//! `checker`. Refuses to decide anything. What the scheduler is told beforehand is a [`Knowledge`].

mod checker;
mod registry;
mod telling;

use std::collections::BTreeMap;
use std::sync::Arc;

use scheduler::{
    At, Attempt, Command, Effect, Failure, Fingerprint, Lane, Limits, Outcome, ProbeNumber, ProbeResult,
    RequestId, Scheduler, Submission, Usage,
};

use self::checker::Checker;
use self::registry::Registry;
use self::telling::Telling;
use crate::fleet::Fleet;
use crate::policy::{Canary, Event, FailureKind, Order, Policy};
use crate::random::mixed;
use crate::request::{Request, Workload};

/// What the scheduler is told beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing: speeds and lengths are what it sees of them.
    Nothing,
    /// What an agent reads off a chip table: speeds that are wrong by a quarter on most nodes.
    Table,
    /// True speeds and the true length of every answer.
    Perfect,
}

/// The scheduler behind the interface of a policy.
pub struct Mind<'a> {
    scheduler: Scheduler,
    work: &'a Workload,
    knowledge: Knowledge,
    telling: Telling<'a>,
    registry: Registry<'a>,
    checker: Option<Checker>,
    /// Canaries under way.
    probes: BTreeMap<Lane, ProbeNumber>,
    commands: Vec<Command>,
    effects: Vec<Effect>,
}

impl<'a> Mind<'a> {
    /// A scheduler that has been told where models live, and nothing else.
    #[must_use]
    pub fn new(
        fleet: &'a Fleet,
        work: &'a Workload,
        knowledge: Knowledge,
        limits: Limits,
        seed: u64,
    ) -> Self {
        let registry = Registry::new(fleet);
        Self {
            scheduler: Scheduler::new(limits),
            work,
            knowledge,
            telling: Telling::new(fleet, knowledge, seed),
            commands: registry.facts(),
            registry,
            checker: None,
            probes: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// Also try the scheduler's laws after every event; too slow for long runs.
    #[must_use]
    pub fn checked(mut self) -> Self {
        self.checker = Some(Checker::default());
        self
    }

    /// The first law that did not hold.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.checker.as_ref()?.broken()
    }

    fn command(&mut self, event: Event) -> Option<Command> {
        Some(match event {
            Event::Arrived(request) => Command::Submit(self.submission(&request)),
            Event::FirstToken { request, attempt, .. } => Command::Began { request, attempt },
            Event::Finished { request, attempt, generated, cached_tokens, prefill } => {
                let usage = Usage { generated, cached_tokens, prefill, ..Usage::default() };
                Command::Finished { request, attempt, outcome: Outcome::Completed, usage }
            }
            Event::Failed { request, attempt, kind, generated, .. } => {
                failed(request, attempt, kind, generated)
            }
            Event::NodeReport { node, report } => {
                Command::NodeReported { node, report: self.telling.report(node, &report) }
            }
            Event::NodeLost { node } => Command::NodeLost { node },
            Event::ProbeDone { node, model, answer, .. } => {
                let probe = self.probes.remove(&(node, model))?;
                Command::Probed { probe, result: result(answer) }
            }
            Event::Wake => Command::Wake,
        })
    }

    fn submission(&self, request: &Request) -> Submission {
        let output_tokens = match self.knowledge {
            Knowledge::Nothing | Knowledge::Table => None,
            Knowledge::Perfect => Some(request.output_tokens()),
        };
        Submission {
            request: request.id,
            model: request.model,
            tenant: request.tenant,
            class: request.class,
            prompt_tokens: request.prompt_tokens,
            max_tokens: request.max_tokens,
            output_tokens,
            blocks: Arc::from(self.work.prompt(request.chain)),
            session: Some(request.session),
            fingerprint: Fingerprint(mixed(request.id.0)),
            arrived: request.arrived,
            deadline: request.deadline,
        }
    }

    /// One command, and what the rest of the cluster answers to its effects.
    fn apply(&mut self, at: At, command: Command, orders: &mut Vec<Order>) {
        self.commands.push(command);
        for command in std::mem::take(&mut self.commands) {
            self.apply_one(at, command, orders);
        }
        while let Some(answer) = self.commands.pop() {
            self.apply_one(at, answer, orders);
        }
    }

    fn apply_one(&mut self, at: At, command: Command, orders: &mut Vec<Order>) {
        let mut effects = std::mem::take(&mut self.effects);
        let checked = self.checker.is_some().then(|| command.clone());
        self.scheduler.apply(at, command, &mut effects);
        if let (Some(checker), Some(command)) = (&mut self.checker, checked) {
            checker.check(&self.scheduler, &command, &effects);
        }
        effects.drain(..).for_each(|effect| self.carry_out(effect, orders));
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect, orders: &mut Vec<Order>) {
        match effect {
            Effect::Dispatch { request, attempt, node, prefill_chunk, .. } => {
                orders.push(Order::Run { request, node, attempt, prefill_chunk: Some(prefill_chunk) });
            }
            Effect::Queued { request, .. } => orders.push(Order::Recall { request }),
            Effect::Refuse { request, .. } => orders.push(Order::Refuse { request }),
            Effect::Abort { request, .. } => orders.push(Order::Abort { request }),
            Effect::Reserve { reservation, node, model, bytes } => {
                let granted = self.registry.reserve((node, model), bytes);
                self.commands.push(Command::Reserved { reservation, granted });
                orders.extend(granted.then_some(Order::Load { node, model }));
            }
            Effect::Evict { node, model } => {
                self.registry.release((node, model));
                orders.push(Order::Unload { node, model });
            }
            Effect::Probe { probe, node, model } => {
                self.probes.insert((node, model), probe);
                orders.push(Order::Probe { node, model });
            }
            Effect::Record(_) => {}
        }
    }
}

impl Policy for Mind<'_> {
    fn decide(&mut self, at: At, event: Event, orders: &mut Vec<Order>) {
        let Some(command) = self.command(event) else { return };
        self.apply(at, command, orders);
    }

    fn next_wake(&self) -> Option<At> {
        self.scheduler.next_deadline().map(|(at, _)| at)
    }
}

fn failed(request: RequestId, attempt: Attempt, kind: FailureKind, generated: u32) -> Command {
    let outcome = match kind {
        FailureKind::Busy => Outcome::Busy,
        FailureKind::NotResident => Outcome::NotThere,
        FailureKind::Crashed => Outcome::Failed(Failure::RuntimeExit),
        FailureKind::Hung => Outcome::Failed(Failure::Hang),
        FailureKind::NodeLost => Outcome::Failed(Failure::Reset),
    };
    Command::Finished { request, attempt, outcome, usage: Usage { generated, ..Usage::default() } }
}

fn result(answer: Canary) -> ProbeResult {
    match answer {
        Canary::Right => ProbeResult::Passed,
        Canary::Wrong => ProbeResult::Mismatch,
        Canary::Silent => ProbeResult::Failed,
    }
}
