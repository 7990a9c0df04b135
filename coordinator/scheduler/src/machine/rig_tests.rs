//! A room to try the whole machine in: nodes and requests by number, times in milliseconds, and what follows in words.
//!
//! Owns the shorthand. Every model takes 1 ms for each prompt token and 20 ms for each token of an answer, and prefill overhead
//! and attention cost nothing, so that every number can be checked in the head.

use crate::blame::BlameFact;
use crate::breaker::ProbeNumber;
use crate::command::{Class, Command, Failure, Outcome, Submission, Usage};
use crate::effect::{Affinity, Effect};
use crate::fact::Fact;
use crate::ids::{Attempt, Block, Fingerprint, Lane, ModelId, NodeId, RequestId, TenantId};
use crate::invariants;
use crate::limits::Limits;
use crate::machine::Scheduler;
use crate::report::{Measured, ModelReport, ModelState, NodeReport, Rates};
use crate::requests::tests::submission;
use crate::time::{At, Span};

pub(super) const NOTHING: [&str; 0] = [];

pub(super) struct Room {
    pub(super) scheduler: Scheduler,
    pub(super) at: At,
}

impl Room {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        let limits = Limits { prefill_overhead: Span::ZERO, attention_tokens: 0, ..limits };
        Self { scheduler: Scheduler::new(limits), at: At(0) }
    }

    /// The node holds one model with so many slots.
    pub(super) fn holds(&mut self, node: u64, slots: u32) -> Vec<String> {
        self.reports(node, vec![model(1, slots)])
    }

    pub(super) fn reports(&mut self, node: u64, models: Vec<ModelReport>) -> Vec<String> {
        self.has_budget(node, 0, models)
    }

    pub(super) fn has_budget(
        &mut self,
        node: u64,
        budget_bytes: u64,
        models: Vec<ModelReport>,
    ) -> Vec<String> {
        let report = NodeReport { life: 0, budget_bytes, models };
        self.apply(Command::NodeReported { node: NodeId(node), report })
    }

    pub(super) fn wait(&mut self, ms: u64) -> Vec<String> {
        self.at = self.at + Span::from_ms(ms);
        self.apply(Command::Wake)
    }

    /// A short prompt with a short answer, due in a quarter of an hour.
    pub(super) fn asks(&mut self, request: u64) -> Vec<String> {
        let asked = self.asked(request);
        self.submits(asked)
    }

    pub(super) fn asked(&self, request: u64) -> Submission {
        Submission {
            prompt_tokens: 50,
            output_tokens: Some(50),
            arrived: self.at,
            deadline: self.at + Span::from_s(900),
            ..submission(request)
        }
    }

    pub(super) fn submits(&mut self, submission: Submission) -> Vec<String> {
        self.apply(Command::Submit(submission))
    }

    pub(super) fn begins(&mut self, request: u64, attempt: u32) -> Vec<String> {
        self.apply(Command::Began { request: RequestId(request), attempt: Attempt(attempt) })
    }

    pub(super) fn completes(&mut self, request: u64, attempt: u32) -> Vec<String> {
        self.ends(request, attempt, Outcome::Completed)
    }

    pub(super) fn fails(&mut self, request: u64, attempt: u32, failure: Failure) -> Vec<String> {
        self.ends(request, attempt, Outcome::Failed(failure))
    }

    pub(super) fn ends(&mut self, request: u64, attempt: u32, outcome: Outcome) -> Vec<String> {
        self.finishes(request, attempt, outcome, Usage { generated: 50, ..Usage::default() })
    }

    pub(super) fn finishes(
        &mut self,
        request: u64,
        attempt: u32,
        outcome: Outcome,
        usage: Usage,
    ) -> Vec<String> {
        let (request, attempt) = (RequestId(request), Attempt(attempt));
        self.apply(Command::Finished { request, attempt, outcome, usage })
    }

    pub(super) fn hangs_up(&mut self, request: u64) -> Vec<String> {
        self.apply(Command::Cancel { request: RequestId(request) })
    }

    pub(super) fn drains(&mut self, node: u64) -> Vec<String> {
        self.apply(Command::NodeDraining { node: NodeId(node), draining: true })
    }

    pub(super) fn apply(&mut self, command: Command) -> Vec<String> {
        let mut effects = Vec::new();
        self.scheduler.apply(self.at, command, &mut effects);
        assert_eq!(invariants::check(&self.scheduler, &effects), Ok(()));
        effects.iter().map(words).collect()
    }
}

pub(super) fn lane(node: u64) -> Lane {
    (NodeId(node), ModelId(1))
}

/// It runs, with so many slots.
pub(super) fn model(model: u32, slots: u32) -> ModelReport {
    ModelReport {
        model: ModelId(model),
        state: ModelState::Ready,
        slots,
        kv_tokens: 0,
        prefix_tokens: 0,
        bytes: 0,
        rates: Rates { prefill_tokens_per_s: 1_000.0, step_ms: 20.0, batch_slope: 0.25 },
        measured: Measured::default(),
    }
}

pub(super) fn of_tenant(tenant: u32, submission: Submission) -> Submission {
    Submission { tenant: TenantId(tenant), ..submission }
}

pub(super) fn batch(submission: Submission) -> Submission {
    Submission { class: Class::Batch, ..submission }
}

/// With an answer of so many tokens.
pub(super) fn long(tokens: u32, submission: Submission) -> Submission {
    Submission { output_tokens: Some(tokens), max_tokens: tokens, ..submission }
}

/// Of the same wording as others with that fingerprint.
pub(super) fn worded(fingerprint: u64, submission: Submission) -> Submission {
    Submission { fingerprint: Fingerprint(fingerprint), ..submission }
}

/// A prompt of so many blocks, which begins like every other of the same conversation.
pub(super) fn conversation(conversation: u64, blocks: u64, submission: Submission) -> Submission {
    let block = |depth| Block(1_000 * conversation + depth);
    let tokens = u32::try_from(256 * blocks).expect("a prompt") + 50;
    Submission { prompt_tokens: tokens, blocks: (0..blocks).map(block).collect(), ..submission }
}

fn words(effect: &Effect) -> String {
    match effect {
        Effect::Dispatch { request, attempt, node, affinity, .. } => {
            let drawn = match affinity {
                Affinity::Prefix => " for its prefix",
                Affinity::Session => " for its session",
                Affinity::Resident => "",
            };
            format!("{}.{} on {}{drawn}", request.0, attempt.0, node.0)
        }
        Effect::Queued { request, position, .. } => format!("{} waits behind {position}", request.0),
        Effect::Refuse { request, refusal } => {
            let why = format!("{refusal:?}");
            format!("{} refused: {}", request.0, why.split([' ', '(']).next().unwrap_or_default())
        }
        Effect::Abort { request, reason, .. } => format!("{} aborted: {reason:?}", request.0),
        Effect::Reserve { reservation, node, model, .. } => {
            format!("reserve {}: {} on {}", reservation.0, model.0, node.0)
        }
        Effect::Evict { node, model } => format!("evict {} from {}", model.0, node.0),
        Effect::Probe { probe: ProbeNumber(probe), node, .. } => format!("probe {probe} on {}", node.0),
        Effect::Record(Fact::Breaker(step)) => format!("{:?} is {:?}", step.breaker, step.to)
            .replace("Lane((NodeId(", "")
            .replace("), ModelId(1)))", "")
            .replace("Node(NodeId(", "node ")
            .replace("))", ""),
        Effect::Record(Fact::Blame(BlameFact::Charged(charge))) => {
            format!("{} charged: {:?}", charge.fingerprint.0, charge.sentence)
        }
        Effect::Record(Fact::Blame(BlameFact::Cleared(fingerprint))) => format!("{} cleared", fingerprint.0),
        Effect::Record(Fact::Home { node, model, .. }) => format!("{} at home on {}", model.0, node.0),
    }
}
