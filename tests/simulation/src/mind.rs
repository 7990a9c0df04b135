//! The real scheduler as a policy.
//!
//! Owns the translation between the simulator's events and orders and the scheduler's commands and effects, in this one file.
//! Refuses to decide anything. Told nothing, the scheduler must find out how fast nodes are; with perfect knowledge it gets
//! their true rates and the true length of each answer, which shows what better estimates could gain.

use scheduler::witness::Witness;
use scheduler::{
    At, Command, Effect, Limits, ModelReport, NodeId, NodeReport, Outcome, Rates, RequestId, Scheduler,
    Submission, invariants,
};

use crate::fleet::Fleet;
use crate::policy::{self, Event, FailureKind, ModelState, Order, Policy};
use crate::request::Request;

/// What the scheduler knows beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing but what it sees.
    Nothing,
    /// True rates and true lengths.
    Perfect,
}

/// The scheduler behind the interface of a policy.
pub struct Mind<'a> {
    scheduler: Scheduler,
    fleet: &'a Fleet,
    knowledge: Knowledge,
    effects: Vec<Effect>,
    checker: Option<Checker>,
}

/// Tries the scheduler's laws after every event.
#[derive(Default)]
struct Checker {
    witness: Witness,
    broken: Option<String>,
}

const UNKNOWN: Rates = Rates { prefill_tokens_per_s: 0.0, step_ms: 0.0, batch_slope: 0.0 };

impl<'a> Mind<'a> {
    /// A scheduler that has seen nothing yet.
    #[must_use]
    pub fn new(fleet: &'a Fleet, knowledge: Knowledge, limits: Limits) -> Self {
        let scheduler = Scheduler::new(limits);
        Self { scheduler, fleet, knowledge, effects: Vec::new(), checker: None }
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
        self.checker.as_ref()?.broken.as_deref()
    }

    fn command(&self, event: Event) -> Option<Command> {
        match event {
            Event::Arrived(request) => Some(Command::Submit(self.submission(&request))),
            Event::FirstToken { request, attempt, .. } => Some(Command::Began { request, attempt }),
            Event::Finished { request, attempt, generated, .. } => {
                Some(Command::Finished { request, attempt, outcome: Outcome::Completed, generated })
            }
            Event::Failed { request, attempt, kind, .. } => {
                Some(Command::Finished { request, attempt, outcome: outcome(kind), generated: 0 })
            }
            Event::NodeReport { node, report } => {
                Some(Command::NodeReported { node, report: self.report(node, &report) })
            }
            Event::NodeLost { node } => Some(Command::NodeLost { node }),
            Event::ProbeDone { .. } => None,
            Event::Wake => Some(Command::Wake),
        }
    }

    fn submission(&self, request: &Request) -> Submission {
        let max_tokens = match self.knowledge {
            Knowledge::Nothing => request.max_tokens,
            Knowledge::Perfect => request.output_tokens(),
        };
        Submission {
            request: request.id,
            model: request.model,
            tenant: request.tenant,
            class: request.class,
            prompt_tokens: request.prompt_tokens,
            max_tokens,
            arrived: request.arrived,
            deadline: request.deadline,
        }
    }

    fn report(&self, node: NodeId, report: &policy::NodeReport) -> NodeReport {
        let ready = report.models.iter().filter(|model| model.state == ModelState::Ready);
        let models = ready.map(|model| ModelReport {
            model: model.model,
            slots: model.slots,
            rates: match self.knowledge {
                Knowledge::Nothing => UNKNOWN,
                Knowledge::Perfect => {
                    let speed = self.fleet.speed(node, model.model);
                    Rates {
                        prefill_tokens_per_s: speed.prefill_tokens_per_s as f32,
                        step_ms: (speed.step_s * 1e3) as f32,
                        batch_slope: speed.batch_slope as f32,
                    }
                }
            },
        });
        NodeReport { models: models.collect() }
    }

    /// The scheduler forgets a request that breaks after its first token; the gateway tells the client.
    fn broken_stream(event: &Event) -> Option<RequestId> {
        match event {
            Event::Failed { request, began: true, .. } => Some(*request),
            Event::Failed { .. }
            | Event::Arrived(_)
            | Event::FirstToken { .. }
            | Event::Finished { .. }
            | Event::NodeReport { .. }
            | Event::NodeLost { .. }
            | Event::ProbeDone { .. }
            | Event::Wake => None,
        }
    }
}

impl Policy for Mind<'_> {
    fn decide(&mut self, at: At, event: Event, orders: &mut Vec<Order>) {
        let broken = Self::broken_stream(&event);
        let Some(command) = self.command(event) else { return };
        self.effects.clear();
        let checked = self.checker.is_some().then(|| command.clone());
        self.scheduler.apply(at, command, &mut self.effects);
        if let (Some(checker), Some(command)) = (&mut self.checker, checked) {
            checker.check(&self.scheduler, &command, &self.effects);
        }
        orders.extend(broken.map(|request| Order::Refuse { request }));
        orders.extend(self.effects.iter().map(order));
    }

    fn next_wake(&self) -> Option<At> {
        self.scheduler.next_deadline().map(|(at, _)| at)
    }
}

impl Checker {
    fn check(&mut self, scheduler: &Scheduler, command: &Command, effects: &[Effect]) {
        let laws = invariants::check(scheduler, effects)
            .and_then(|()| self.witness.observe(command, effects, &scheduler.load()));
        if let (Err(broken), None) = (laws, &self.broken) {
            self.broken = Some(format!("{broken:?} after {command:?}"));
        }
    }
}

fn outcome(kind: FailureKind) -> Outcome {
    match kind {
        FailureKind::Busy | FailureKind::NotResident => Outcome::Busy,
        FailureKind::Crashed | FailureKind::Hung | FailureKind::NodeLost => Outcome::Failed,
    }
}

fn order(effect: &Effect) -> Order {
    match *effect {
        Effect::Dispatch { request, attempt, node } => Order::Run { request, node, attempt },
        Effect::Queued { request, .. } => Order::Recall { request },
        Effect::Refuse { request, .. } => Order::Refuse { request },
        Effect::Abort { request, .. } => Order::Abort { request },
    }
}
