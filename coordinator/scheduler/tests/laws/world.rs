//! A scheduler with what surrounds it: a clock, gateways that know which attempts run, and a witness. Turns acts into commands
//! and checks the invariants after each.

use std::collections::VecDeque;
use std::iter::repeat;

use proptest::test_runner::TestCaseError;
use scheduler::witness::Witness;
use scheduler::{
    Adopted, At, Attempt, Class, Command, Effect, Fingerprint, Limits, Measured, ModelId, ModelReport,
    ModelState, NodeId, NodeReport, Rates, RequestId, Scheduler, Span, Submission, TenantId, Usage,
    invariants,
};

use crate::act::{Act, Held};
use crate::mirror::Mirror;

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) witness: Witness,
    pub(crate) mirror: Mirror,
    pub(crate) now: At,
    pub(crate) history: Vec<(At, Command, Vec<Effect>)>,
    requests: u64,
    /// Reservations and probes that were asked for and not answered.
    asked: VecDeque<Effect>,
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
            asked: VecDeque::new(),
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
            Act::Submit { model, tenant, batch, prompt, due, late_by } => {
                let class = if batch { Class::Batch } else { Class::Interactive };
                Some(Command::Submit(self.submission(model, tenant, class, prompt, due, late_by)))
            }
            Act::Adopt { model, tenant, batch, late_by, attempt, running } => {
                let class = if batch { Class::Batch } else { Class::Interactive };
                let submission = self.submission(model, tenant, class, 500, Span::from_s(60), late_by);
                let running = running.map(|(node, began)| Adopted { node: NodeId(node), began });
                Some(Command::Adopt { submission, attempt: Attempt(attempt), running })
            }
            Act::Cancel { pick } => self.mirror.pick_alive(pick).map(|request| Command::Cancel { request }),
            Act::Begin { pick } => {
                self.mirror.pick_running(pick).map(|(request, attempt)| Command::Began { request, attempt })
            }
            Act::End { pick, outcome } => self.mirror.pick_running(pick).map(|(request, attempt)| {
                let usage = Usage { generated: any_length(request), ..Usage::default() };
                Command::Finished { request, attempt, outcome, usage }
            }),
            Act::Report { node, held, life } => {
                let models =
                    (0..).zip(held).filter_map(|(model, held)| resident(node, model, held)).collect();
                let report = NodeReport { life, budget_bytes: BUDGET_BYTES, models };
                Some(Command::NodeReported { node: NodeId(node), report })
            }
            Act::Answer { granted, result } => self.asked.pop_front().and_then(|asked| match asked {
                Effect::Reserve { reservation, .. } => Some(Command::Reserved { reservation, granted }),
                Effect::Probe { probe, .. } => Some(Command::Probed { probe, result }),
                Effect::Dispatch { .. }
                | Effect::Queued { .. }
                | Effect::Refuse { .. }
                | Effect::Abort { .. }
                | Effect::Evict { .. }
                | Effect::Record(_) => None,
            }),
            Act::Lose { node } => Some(Command::NodeLost { node: NodeId(node) }),
            Act::Lead { settling } => Some(Command::Lead { settles_at: self.now + settling }),
            Act::Drain { node, draining } => Some(Command::NodeDraining { node: NodeId(node), draining }),
        };
        command.map_or(Ok(Vec::new()), |command| self.apply(self.now, command))
    }

    /// Another leader in its place. It is told what was recorded, and in the order of `keys` every request that is alive and, while
    /// it settles, what the nodes hold.
    pub(crate) fn successor(&self, keys: &[u8], settles: bool) -> Result<Self, TestCaseError> {
        let mut world = Self { now: self.now, requests: self.requests, ..Self::default() };
        if settles {
            world.apply(self.now, Command::Lead { settles_at: self.now + Span::from_s(1) })?;
        }
        for (.., effects) in &self.history {
            for effect in effects {
                if let Effect::Record(fact) = effect {
                    world.apply(self.now, Command::Recall(*fact))?;
                }
            }
        }
        let reports = self.mirror.reports().filter(|_| settles);
        let mut told = self.mirror.adoptions();
        told.extend(reports.map(|(node, report)| Command::NodeReported { node, report }));
        let mut told: Vec<_> = keys.iter().chain(repeat(&0)).zip(told).collect();
        told.sort_by_key(|(key, _)| **key);
        for (_, command) in told {
            world.apply(self.now, command)?;
        }
        Ok(world)
    }

    /// All nodes report again, as they last did.
    pub(crate) fn hear_nodes_of(&mut self, old: &Self) -> Result<(), TestCaseError> {
        for (node, report) in old.mirror.reports() {
            let draining = old.mirror.drains(node);
            self.apply(self.now, Command::NodeDraining { node, draining })?;
            self.apply(self.now, Command::NodeReported { node, report })?;
        }
        Ok(())
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
        let asked =
            effects.iter().filter(|effect| matches!(effect, Effect::Reserve { .. } | Effect::Probe { .. }));
        self.asked.extend(asked.cloned());
        self.history.push((at, command, effects.clone()));
        Ok(effects)
    }

    fn submission(
        &mut self,
        model: u32,
        tenant: u32,
        class: Class,
        prompt_tokens: u32,
        due: Span,
        late_by: Span,
    ) -> Submission {
        self.requests += 1;
        Submission {
            request: RequestId(self.requests),
            model: ModelId(model),
            tenant: TenantId(tenant),
            class,
            prompt_tokens,
            max_tokens: 200,
            output_tokens: None,
            blocks: [].into(),
            session: None,
            fingerprint: Fingerprint(self.requests),
            arrived: At(self.now.0.saturating_sub(late_by.0)),
            deadline: self.now + due,
        }
    }
}

/// Two of the world's models fit.
const BUDGET_BYTES: u64 = 20;
const MODEL_BYTES: u64 = 8;

/// Any length will do, as long as it is the same each time.
fn any_length(request: RequestId) -> u32 {
    u32::try_from(request.0 * 37 % 500).expect("small")
}

/// Nodes differ: the higher the number, the faster.
fn resident(node: u64, model: u32, held: Held) -> Option<ModelReport> {
    let speed = 1.0 + node as f32;
    let (state, slots) = match held {
        Held::No => return None,
        Held::Offered => (ModelState::Offered, 0),
        Held::Loading => (ModelState::Loading { left: Some(Span::from_s(3)) }, 0),
        Held::Slots(slots) => (ModelState::Ready, slots),
    };
    Some(ModelReport {
        model: ModelId(model),
        state,
        slots,
        kv_tokens: 20_000,
        prefix_tokens: 0,
        bytes: MODEL_BYTES,
        rates: Rates { prefill_tokens_per_s: 300.0 * speed, step_ms: 60.0 / speed, batch_slope: 0.3 },
        measured: Measured::default(),
    })
}
