//! A scheduler with what surrounds it: a clock, gateways that know which attempts run, and a witness. Turns acts into commands
//! and checks the invariants after each.

use proptest::test_runner::TestCaseError;
use scheduler::witness::Witness;
use scheduler::{
    At, Class, Command, Effect, Limits, ModelId, ModelReport, NodeId, NodeReport, Rates, RequestId,
    Scheduler, Span, Submission, TenantId, invariants,
};

use crate::act::Act;
use crate::mirror::Mirror;

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) witness: Witness,
    pub(crate) mirror: Mirror,
    pub(crate) now: At,
    pub(crate) history: Vec<(At, Command, Vec<Effect>)>,
    requests: u64,
}

impl Default for World {
    /// Room for a few waiting requests only, so that the queue is full now and then.
    fn default() -> Self {
        let limits = Limits { waiting_max: 12, nodes_max: 6, ..Limits::default() };
        Self {
            scheduler: Scheduler::new(limits),
            witness: Witness::default(),
            mirror: Mirror::default(),
            now: At(0),
            history: Vec::new(),
            requests: 0,
        }
    }
}

impl World {
    pub(crate) fn play(&mut self, act: Act) -> Result<Vec<Effect>, TestCaseError> {
        let command = match act {
            Act::Wait { span } => {
                self.now = self.now + span;
                Some(Command::Wake)
            }
            Act::Submit { model, prompt, due, late_by } => Some(self.submit(model, prompt, due, late_by)),
            Act::Cancel { pick } => self.mirror.pick_alive(pick).map(|request| Command::Cancel { request }),
            Act::Begin { pick } => {
                self.mirror.pick_running(pick).map(|(request, attempt)| Command::Began { request, attempt })
            }
            Act::End { pick, outcome } => self.mirror.pick_running(pick).map(|(request, attempt)| {
                Command::Finished { request, attempt, outcome, generated: prompt_like(request) }
            }),
            Act::Report { node, slots } => {
                let models = (0..).zip(slots).filter(|(_, slots)| *slots > 0);
                let models = models.map(|(model, slots)| resident(node, model, slots)).collect();
                Some(Command::NodeReported { node: NodeId(node), report: NodeReport { models } })
            }
            Act::Lose { node } => Some(Command::NodeLost { node: NodeId(node) }),
            Act::Drain { node, draining } => Some(Command::NodeDraining { node: NodeId(node), draining }),
        };
        command.map_or(Ok(Vec::new()), |command| self.apply(self.now, command))
    }

    pub(crate) fn apply(&mut self, at: At, command: Command) -> Result<Vec<Effect>, TestCaseError> {
        self.now = self.now.max(at);
        let mut effects = Vec::new();
        self.scheduler.apply(at, command.clone(), &mut effects);
        let fail = |broken: invariants::Broken| {
            TestCaseError::fail(format!("{broken:?} after {command:?}: {effects:?}"))
        };
        invariants::check(&self.scheduler, &effects).map_err(fail)?;
        self.witness.observe(&command, &effects, &self.scheduler.load()).map_err(fail)?;
        self.mirror.observe(self.now, &command, &effects);
        self.history.push((at, command, effects.clone()));
        Ok(effects)
    }

    fn submit(&mut self, model: u32, prompt_tokens: u32, due: Span, late_by: Span) -> Command {
        self.requests += 1;
        Command::Submit(Submission {
            request: RequestId(self.requests),
            model: ModelId(model),
            tenant: TenantId(1),
            class: Class::Interactive,
            prompt_tokens,
            max_tokens: 200,
            arrived: At(self.now.0.saturating_sub(late_by.0)),
            deadline: self.now + due,
        })
    }
}

/// Any length will do, as long as it is the same each time.
fn prompt_like(request: RequestId) -> u32 {
    u32::try_from(request.0 * 37 % 500).expect("small")
}

/// Nodes differ: the higher the number, the faster.
fn resident(node: u64, model: u32, slots: u32) -> ModelReport {
    let speed = 1.0 + node as f32;
    let rates = Rates { prefill_tokens_per_s: 300.0 * speed, step_ms: 60.0 / speed, batch_slope: 0.3 };
    ModelReport { model: ModelId(model), slots, rates }
}
