//! What has become of each request.
//!
//! Owns the life of every request from its arrival to its one end, and the violations that were seen. Refuses to mend: a
//! policy that ends a request twice, or runs one that is over, is noted and ignored.

use scheduler::{Attempt, NodeId, RequestId};

/// One request's life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Life {
    /// Where it is.
    pub stage: Stage,
    /// The latest attempt.
    pub attempt: Attempt,
    /// Where that one is or was.
    pub node: Option<NodeId>,
    /// When it began to wait for a slot the first time: its arrival; when it got one: its first token less its prefill.
    pub first_token_us: Option<u64>,
    /// When it ended.
    pub ended_us: Option<u64>,
    /// Tokens the client has.
    pub generated: u32,
    /// Prompt tokens that were cached in the latest attempt.
    pub cached: u32,
    /// GPU seconds it has had, in all attempts.
    pub gpu_s: f64,
    /// The part of them that the watch on shares has counted.
    pub watched_s: f64,
    /// Whether a lying runtime has answered it.
    pub garbage: bool,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not arrived.
    #[default]
    Unborn,
    /// The policy has it.
    Waiting,
    /// An attempt is on its way to a node.
    Transit,
    /// A node has it.
    Running,
    /// It has ended.
    Over(Fate),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// With its last token.
    Completed,
    /// Without a token.
    Refused,
    /// After its first token and before its last.
    Broken,
}

/// A law that a policy has broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An order for a request that has not arrived or is over.
    NotAlive(RequestId),
    /// An attempt whose number is not one more than the one before.
    AttemptOutOfOrder(RequestId),
    /// A request that has no end after all is over.
    NeverEnded(RequestId),
    /// What the scheduler's own laws say.
    Scheduler(String),
}

/// All lives.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    lives: Vec<Life>,
    over: usize,
    pub(crate) violations: Vec<Violation>,
}

impl Lives {
    pub(crate) fn new(count: usize) -> Self {
        Self { lives: vec![Life::default(); count], over: 0, violations: Vec::new() }
    }

    pub(crate) fn get(&self, request: RequestId) -> &Life {
        &self.lives[request.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, request: RequestId) -> &mut Life {
        &mut self.lives[request.0 as usize]
    }

    pub(crate) fn all_over(&self) -> bool {
        self.over == self.lives.len()
    }

    /// The attempt is the latest one and has not ended.
    pub(crate) fn is_current(&self, request: RequestId, attempt: Attempt) -> bool {
        let life = self.get(request);
        life.attempt == attempt && matches!(life.stage, Stage::Transit | Stage::Running)
    }

    /// Whether the policy may order something for it.
    pub(crate) fn is_alive(&mut self, request: RequestId) -> bool {
        let alive = self.lives.get(request.0 as usize).is_some_and(|life| match life.stage {
            Stage::Waiting | Stage::Transit | Stage::Running => true,
            Stage::Unborn | Stage::Over(_) => false,
        });
        if !alive {
            self.violations.push(Violation::NotAlive(request));
        }
        alive
    }

    pub(crate) fn start(&mut self, request: RequestId, attempt: Attempt, node: NodeId) {
        let life = self.get_mut(request);
        if attempt.0 != life.attempt.0 + 1 {
            self.violations.push(Violation::AttemptOutOfOrder(request));
        }
        let life = self.get_mut(request);
        life.attempt = attempt;
        life.node = Some(node);
        life.stage = Stage::Transit;
    }

    pub(crate) fn end(&mut self, request: RequestId, at: u64, fate: Fate) {
        let life = self.get_mut(request);
        life.stage = Stage::Over(fate);
        life.ended_us = Some(at);
        self.over += 1;
    }

    /// Everybody's life, after noting who never came to an end.
    pub(crate) fn close(mut self) -> (Vec<Life>, Vec<Violation>) {
        for (number, life) in self.lives.iter().enumerate() {
            if !matches!(life.stage, Stage::Over(_)) {
                self.violations.push(Violation::NeverEnded(RequestId(number as u64)));
            }
        }
        (self.lives, self.violations)
    }
}
