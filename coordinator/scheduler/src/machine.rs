//! The machine: takes a command, moves the rooms, returns effects.
//!
//! Owns the routing of each fact to the rooms that must know it. Refuses policy of its own: where (`placement`), how many
//! (`batcher`), who first (`queue`) and how long (`drain`, `predictor`) are decided in those rooms. Total: a fact about
//! something unknown, late or impossible changes nothing.
//!
//! When an attempt comes to nothing before its first token, the request goes back to its place in the line by arrival:
//!
//! 1. "Busy" costs the request nothing; the runtime's limit shrinks and the runtime gets a pause.
//! 2. A failure is counted. After the third the request is refused, since by then it is the suspect.
//! 3. The node that failed it is shut for this request while another node could serve the model, however long that one is
//!    full. When every such node has failed it, one may be used again once it has reported after its failure: then its
//!    runtime lives and holds the model. A report sent before the failure and read after it cannot be told apart; the
//!    count in 2 bounds that.
//!
//! After the first token nothing is retried here: the client has tokens that another node would repeat.

use alloc::vec::Vec;

use crate::batcher::Batcher;
use crate::command::{Command, NodeReport, Outcome, Submission};
use crate::decisions::Decisions;
use crate::drain::Drain;
use crate::effect::{AbortReason, Effect, Refusal};
use crate::fleet::Fleet;
use crate::ids::{Attempt, NodeId, RequestId};
#[cfg(debug_assertions)]
use crate::invariants;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::predictor::Predictor;
use crate::queue::Queue;
use crate::requests::{Failure, Record, Requests, Run};
use crate::time::{At, Span};
use crate::turn::Turn;

/// The scheduler of a whole cluster.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) limits: Limits,
    pub(crate) now: At,
    pub(crate) requests: Requests,
    pub(crate) queue: Queue,
    pub(crate) fleet: Fleet,
    pub(crate) batcher: Batcher,
    pub(crate) ledger: Ledger,
    pub(crate) predictor: Predictor,
    pub(crate) drain: Drain,
    pub(crate) decisions: Decisions,
}

impl Scheduler {
    /// An empty room.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            now: At(0),
            requests: Requests::default(),
            queue: Queue::default(),
            fleet: Fleet::default(),
            batcher: Batcher::default(),
            ledger: Ledger::default(),
            predictor: Predictor::default(),
            drain: Drain::default(),
            decisions: Decisions::default(),
        }
    }

    /// Takes in one fact and appends what follows from it to `effects`. Time never goes back: an earlier `at` counts as the
    /// latest one seen.
    pub fn apply(&mut self, at: At, command: Command, effects: &mut Vec<Effect>) {
        #[cfg(debug_assertions)]
        let before = effects.len();
        self.now = self.now.max(at);
        let mut turn = Turn::new(self.now, effects);
        self.route(command, &mut turn);
        // After the fact itself, so that an answer that ends at its deadline has ended in time; before anything starts, so
        // that nothing starts too late.
        self.expire(&mut turn);
        self.settle(&mut turn);
        #[cfg(debug_assertions)]
        debug_assert_eq!(
            invariants::checked_in_debug(self, effects.get(before..).unwrap_or_default()),
            Ok(())
        );
    }

    fn route(&mut self, command: Command, turn: &mut Turn<'_>) {
        match command {
            Command::Submit(submission) => self.submit(submission, turn),
            Command::Cancel { request } => self.cancel(request, turn),
            Command::Began { request, attempt } => self.began(request, attempt, turn),
            Command::Finished { request, attempt, outcome, generated } => {
                if let Some(run) = self.requests.run(request, attempt) {
                    self.finished(request, run, outcome, generated, turn);
                }
            }
            Command::NodeReported { node, report } => self.node_reported(node, &report, turn),
            Command::NodeLost { node } => self.node_lost(node, turn),
            Command::NodeDraining { node, draining } => {
                self.fleet.drain(node, draining, self.limits.nodes_max);
                turn.due.extend(self.fleet.models(node));
            }
            Command::Wake => {}
        }
    }

    fn submit(&mut self, submission: Submission, turn: &mut Turn<'_>) {
        let request = submission.request;
        let submission = Submission { arrived: submission.arrived.min(turn.at), ..submission };
        if self.requests.get(request).is_some() {
            turn.effects.push(Effect::Refuse { request, refusal: Refusal::Duplicate });
            return;
        }
        // One that has no time left expires like any other.
        let left = submission.deadline.since(turn.at);
        match self.first_token_at_best(&submission) {
            Some(needed) if left > Span::ZERO && needed > left => {
                self.refuse_unadmitted(&submission, &[], Refusal::DeadlineUnreachable { needed }, turn);
            }
            Some(_) | None => {
                self.requests.admit(submission);
                self.enter(request, turn);
            }
        }
    }

    fn cancel(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(record) = self.leave(request, turn) else { return };
        if let Some(run) = record.run {
            self.batcher.resume((run.node, record.submission.model));
            self.departed(&record, turn);
        }
    }

    fn began(&mut self, request: RequestId, attempt: Attempt, turn: &mut Turn<'_>) {
        let run = self.requests.get_mut(request).filter(|record| record.attempt == attempt);
        let Some(run) = run.and_then(|record| record.run.as_mut()).filter(|run| !run.began) else { return };
        run.began = true;
        self.ledger.began(run.node, request, turn.at);
    }

    fn finished(
        &mut self,
        request: RequestId,
        run: Run,
        outcome: Outcome,
        generated: u32,
        turn: &mut Turn<'_>,
    ) {
        let Some(model) = self.requests.get(request).map(|record| record.submission.model) else { return };
        let lane = (run.node, model);
        match outcome {
            Outcome::Completed => {
                self.batcher.completed(lane);
                let (assumed, models_max) = (self.limits.output_tokens, self.limits.models_learned_max);
                self.predictor.completed(model, generated, assumed, models_max);
            }
            Outcome::ClientGone | Outcome::Rejected => self.batcher.resume(lane),
            Outcome::Busy => self.batcher.busy(lane, run.dispatched, turn.at, &self.limits),
            Outcome::Failed => {}
        }
        match outcome {
            Outcome::Busy if !run.began => {
                self.stop(request, turn);
                self.enter(request, turn);
            }
            Outcome::Failed if !run.began => self.retry(request, turn),
            Outcome::Completed
            | Outcome::ClientGone
            | Outcome::Rejected
            | Outcome::Busy
            | Outcome::Failed => {
                if let Some(record) = self.leave(request, turn) {
                    self.departed(&record, turn);
                }
            }
        }
    }

    fn node_reported(&mut self, node: NodeId, report: &NodeReport, turn: &mut Turn<'_>) {
        let models = report.believed(self.limits.models_per_node_max, self.limits.slots_max);
        let Some(gone) = self.fleet.report(node, &models, self.limits.nodes_max) else { return };
        for model in &models {
            self.batcher.report((node, model.model), model.slots);
            turn.due.insert(model.model);
        }
        for model in gone {
            self.batcher.forget((node, model));
            turn.due.insert(model);
            // Attempts that have begun may yet end well; their streams will say.
            for request in self.ledger.requests_on_lane((node, model)) {
                if self.requests.get(request).and_then(|record| record.run).is_some_and(|run| !run.began) {
                    self.retry(request, turn);
                }
            }
        }
    }

    fn node_lost(&mut self, node: NodeId, turn: &mut Turn<'_>) {
        for model in self.fleet.lose(node) {
            self.batcher.forget((node, model));
            turn.due.insert(model);
        }
        for request in self.ledger.requests_on_node(node) {
            match self.requests.get(request).and_then(|record| record.run) {
                Some(run) if run.began => self.abort(request, AbortReason::NodeLost, turn),
                Some(_) => self.retry(request, turn),
                None => {}
            }
        }
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        while let Some((_, request)) =
            self.requests.first_deadline().filter(|(deadline, _)| *deadline <= turn.at)
        {
            match self.requests.get(request).and_then(|record| record.run) {
                Some(_) => self.abort(request, AbortReason::DeadlineExceeded, turn),
                None => self.refuse(request, Refusal::Expired, turn),
            }
        }
        while let Some((_, lane)) = self.batcher.first_pause().filter(|(until, _)| *until <= turn.at) {
            self.batcher.resume(lane);
            turn.due.insert(lane.1);
        }
    }

    /// Into the line, at the place its arrival gives it.
    fn enter(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get(request) else { return };
        let model = record.submission.model;
        self.queue.insert(model, record.place(), !record.failures.is_empty());
        turn.due.insert(model);
        turn.entered.push(request);
    }

    /// The attempt failed before its first token.
    fn retry(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(run) = self.stop(request, turn) else { return };
        let report = self.fleet.reports();
        let Some(record) = self.requests.get_mut(request) else { return };
        record.failed = record.failed.saturating_add(1);
        record.failures.push(Failure { node: run.node, report });
        if record.failed > self.limits.redispatches_max {
            self.refuse(request, Refusal::NodeLost, turn);
        } else {
            self.enter(request, turn);
        }
    }

    fn abort(&mut self, request: RequestId, reason: AbortReason, turn: &mut Turn<'_>) {
        let Some(record) = self.leave(request, turn) else { return };
        if let Some(run) = record.run {
            turn.effects.push(Effect::Abort { request, attempt: record.attempt, node: run.node, reason });
        }
    }

    /// The request is over. Returns its record as it was.
    pub(crate) fn leave(&mut self, request: RequestId, turn: &mut Turn<'_>) -> Option<Record> {
        let run = self.stop(request, turn);
        let record = self.requests.forget(request)?;
        self.queue.remove(record.submission.model, record.place());
        Some(Record { run, ..record })
    }

    /// Takes the attempt off its node; the slot is free.
    fn stop(&mut self, request: RequestId, turn: &mut Turn<'_>) -> Option<Run> {
        let record = self.requests.get_mut(request)?;
        let run = record.run.take()?;
        let model = record.submission.model;
        self.ledger.end((run.node, model), request, turn.at);
        turn.due.insert(model);
        Some(run)
    }

    fn departed(&mut self, record: &Record, turn: &Turn<'_>) {
        let model = record.submission.model;
        let (waiting, in_line) = (self.queue.waiting(), self.queue.length(model));
        self.drain.departed(model, turn.at, waiting, in_line, self.limits.models_learned_max);
    }
}
