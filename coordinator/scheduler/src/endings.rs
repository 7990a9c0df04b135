//! What becomes of an attempt: it begins, ends well, or comes to nothing.
//!
//! Owns what is learned from an ending and what happens to the request. An answer that ended at a stop string has succeeded like
//! any other, but its runtime has not told what it took: of speeds and caches it teaches nothing. When an attempt comes to nothing,
//! the request goes back into the line, before all that have not had their turn:
//!
//! 1. "Busy" costs the request nothing; the runtime's limit shrinks and the runtime gets a pause. "Not there" costs it nothing
//!    either, but that 3 holds for its node; once it had its first token, it has moved, and that is counted.
//! 2. A failure is counted. After the third before a first token the request is refused, since by then it is the suspect; and
//!    when retries have used up their budget, because then the cluster is.
//! 3. The node that failed it is shut for this request while another node could serve the model, however long that one is
//!    full. When every such node has failed it, one may be used again once it has reported after its failure: then its
//!    runtime lives and holds the model. A report sent before the failure and read after it cannot be told apart; the
//!    count in 2 bounds that.
//! 4. If its runtime died, it may have been its doing: `blame` decides whether it runs alone, not at all, or as before.
//!
//! 5. After the first token it migrates: the next node reads the prompt and the answer so far as one prompt and goes on from
//!    there, so that its client sees a pause. Migrations are counted for themselves.

use crate::command::{Outcome, Usage};
use crate::effect::{AbortReason, Effect, Refusal};
use crate::ids::{Attempt, Lane, NodeId, RequestId};
use crate::machine::Scheduler;
use crate::requests::{NodeFailure, Record, Run};
use crate::time::{At, Span};
use crate::turn::Turn;

impl Scheduler {
    pub(crate) fn cancel(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(record) = self.leave(request, turn) else { return };
        if let Some(run) = record.run {
            let lane = (run.node, record.submission.model);
            self.batcher.resume(lane);
            self.ended_neutrally(lane, &run, turn);
            self.settle_account(&record, &run, Usage::default(), turn);
            self.departed(&record, turn);
        }
    }

    pub(crate) fn began(&mut self, request: RequestId, attempt: Attempt, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get_mut(request).filter(|record| record.attempt == attempt) else {
            return;
        };
        let model = record.submission.model;
        let Some(run) = record.run.as_mut().filter(|run| run.began.is_none()) else { return };
        run.began = Some(turn.at);
        let lane = (run.node, model);
        self.ledger.began(lane, request, turn.at);
        turn.due.extend(self.fleet.ready(lane.0));
    }

    pub(crate) fn finished(
        &mut self,
        request: RequestId,
        run: Run,
        outcome: Outcome,
        usage: Usage,
        turn: &mut Turn<'_>,
    ) {
        let Some(record) = self.requests.get(request) else { return };
        let lane = (run.node, record.submission.model);
        let usage = match outcome {
            // Nobody has told what came out of the cache.
            Outcome::Enough => Usage { cached_tokens: run.cached_tokens, ..usage },
            Outcome::Completed
            | Outcome::ClientGone
            | Outcome::Rejected
            | Outcome::Busy
            | Outcome::NotThere
            | Outcome::Failed(_) => usage,
        };
        match outcome {
            Outcome::Completed => {
                self.batcher.completed(lane);
                self.learn(request, &run, usage);
                self.completed(lane, request, &run, usage, turn);
            }
            Outcome::Enough => {
                self.batcher.completed(lane);
                self.learn_sizes(request, usage);
                self.completed(lane, request, &run, usage, turn);
            }
            Outcome::ClientGone | Outcome::Rejected | Outcome::NotThere => {
                self.batcher.resume(lane);
                self.ended_neutrally(lane, &run, turn);
            }
            Outcome::Busy => {
                self.batcher.busy(lane, run.dispatched, turn.at, &self.limits);
                self.ended_neutrally(lane, &run, turn);
            }
            Outcome::Failed(failure) => self.failed(lane, request, &run, failure, turn),
        }
        match outcome {
            Outcome::Busy if run.began.is_none() => {
                self.stop(request, turn);
                self.enter(request, turn);
            }
            Outcome::NotThere if run.began.is_none() => {
                self.stop(request, turn);
                self.avoid(request, run.node);
                self.enter(request, turn);
            }
            Outcome::NotThere | Outcome::Failed(_) => self.retry(request, usage, turn),
            Outcome::Completed
            | Outcome::Enough
            | Outcome::ClientGone
            | Outcome::Rejected
            | Outcome::Busy => {
                if let Some(record) = self.leave(request, turn) {
                    self.settle_account(&record, &run, usage, turn);
                    self.departed(&record, turn);
                }
            }
        }
    }

    /// What a whole answer tells of speeds, lengths and caches.
    fn learn(&mut self, request: RequestId, run: &Run, usage: Usage) {
        self.learn_sizes(request, usage);
        let Some(record) = self.requests.get(request) else { return };
        let submission = &record.submission;
        let lane = (run.node, submission.model);
        let uncached = submission.prompt_tokens.saturating_sub(usage.cached_tokens);
        if usage.prefill > Span::ZERO {
            let seconds = usage.prefill.0 as f64 / 1e6;
            self.rates.prefill(lane, self.now, uncached, usage.cached_tokens, seconds);
        }
        self.prefixes.corrected(lane, &submission.blocks, run.visit, usage.cached_tokens);
    }

    /// What requests and their answers are like.
    fn learn_sizes(&mut self, request: RequestId, usage: Usage) {
        let Some(record) = self.requests.get(request) else { return };
        let submission = &record.submission;
        let (tenant, model, most) = (submission.tenant, submission.model, submission.max_tokens);
        let before = record.carried_tokens;
        let (most, generated) = (most.saturating_add(before), usage.generated.saturating_add(before));
        self.answers.completed(tenant, model, most, generated);
        let uncached = submission.prompt_tokens.saturating_sub(usage.cached_tokens);
        self.reference.completed(model, uncached, usage.generated);
    }

    /// The attempt failed, or its node did. `usage` may know nothing: then its tokens are counted by the time it had.
    pub(crate) fn retry(&mut self, request: RequestId, usage: Usage, turn: &mut Turn<'_>) {
        let Some(run) = self.stop(request, turn) else { return };
        if let Some(record) = self.requests.get(request).filter(|_| run.began.is_some()) {
            let record = Record { run: Some(run), ..record.clone() };
            self.settle_account(&record, &run, usage, turn);
        }
        self.avoid(request, run.node);
        let generated = generated(&run, usage, turn.at);
        let Some(record) = self.requests.get_mut(request) else { return };
        record.count_failure(run.began.map(|_| generated));
        let too_often =
            record.failed > self.limits.redispatches_max || record.migrations > self.limits.migrations_max;
        let fingerprint = record.submission.fingerprint;
        if let Some(refusal) = self.condemned(fingerprint, turn.at) {
            self.refuse(request, refusal, turn);
        } else if too_often || !self.retries.withdraw(turn.at, &self.limits.retries) {
            self.refuse(request, Refusal::NodeLost, turn);
        } else {
            self.enter(request, turn);
        }
    }

    /// The node is the last this request tries, until it reports again.
    fn avoid(&mut self, request: RequestId, node: NodeId) {
        let report = self.fleet.reports();
        if let Some(record) = self.requests.get_mut(request) {
            record.failures.retain(|failure| failure.node != node);
            record.failures.push(NodeFailure { node, report });
        }
    }

    pub(crate) fn abort(&mut self, request: RequestId, reason: AbortReason, turn: &mut Turn<'_>) {
        let Some(record) = self.leave(request, turn) else { return };
        if let Some(run) = record.run {
            self.ended_neutrally((run.node, record.submission.model), &run, turn);
            self.settle_account(&record, &run, Usage::default(), turn);
            turn.effects.push(Effect::Abort { request, attempt: record.attempt, node: run.node, reason });
        }
    }

    /// The request is over. Returns its record as it was.
    pub(crate) fn leave(&mut self, request: RequestId, turn: &mut Turn<'_>) -> Option<Record> {
        let run = self.stop(request, turn);
        self.unqueue(request);
        let record = self.requests.forget(request)?;
        // Batch work may have waited for this one.
        turn.due.insert(record.submission.model);
        turn.changed.insert(record.submission.model);
        self.fairness.left(record.submission.tenant);
        Some(Record { run, ..record })
    }

    /// Out of the line and of everything that waits with it.
    pub(crate) fn unqueue(&mut self, request: RequestId) {
        let Some(record) = self.requests.get(request) else { return };
        self.queue.remove(record.submission.model, &record.place());
        self.ageing.remove(&(record.submission.arrived + self.limits.batch_ageing, request));
        if let Some(since) = record.holding_since {
            self.holding.remove(&(since + self.limits.hold_max, request));
        }
        let (model, rank) = (record.submission.model, record.rank);
        record.wishes.iter().for_each(|node| self.wishes.remove((*node, model), rank, request));
    }

    /// Takes the attempt off its node; the slot is free.
    pub(crate) fn stop(&mut self, request: RequestId, turn: &mut Turn<'_>) -> Option<Run> {
        let record = self.requests.get_mut(request)?;
        let run = record.run.take()?;
        let lane = (run.node, record.submission.model);
        self.ledger.end(lane, request, turn.at);
        self.batcher.carries(lane, self.ledger.on_lane(lane));
        // Its node's GPU is freer for every model there.
        turn.due.insert(lane.1);
        turn.due.extend(self.fleet.ready(lane.0));
        Some(run)
    }

    /// The tenant pays for what was done, not for what was expected: the difference is charged or given back.
    fn settle_account(&mut self, record: &Record, run: &Run, usage: Usage, turn: &Turn<'_>) {
        let lane = (run.node, record.submission.model);
        let generated = generated(run, usage, turn.at);
        let prompt =
            if run.began.is_some() || usage.generated > 0 { record.submission.prompt_tokens } else { 0 };
        let cached = if usage.generated > 0 { usage.cached_tokens } else { run.cached_tokens };
        let done = self.node_time(lane, prompt, cached.min(prompt), generated);
        let tenant = record.submission.tenant;
        if done > run.charged {
            self.fairness.charge(tenant, done.less(run.charged));
        } else {
            self.fairness.refund(tenant, run.charged.less(done));
        }
        self.reorder(tenant);
    }

    /// Time of the node that so many tokens take there: the prefill, and a share of each decode step.
    pub(crate) fn node_time(&self, lane: Lane, prompt: u32, cached: u32, generated: u32) -> Span {
        let limits = &self.limits;
        let speed = self.rates.speed(lane);
        let prefill_s = speed.prefill_s(prompt.saturating_sub(cached), cached);
        let cached_s = limits.cached_share * speed.prefill_s(cached, 0);
        let width = self.ledger.on_lane(lane).max(1);
        let step_s = speed.step_s(width, self.ledger.kv_tokens(lane)) / f64::from(width);
        crate::placement::span(limits, prefill_s + cached_s + f64::from(generated) * step_s)
    }

    fn departed(&mut self, record: &Record, turn: &Turn<'_>) {
        let model = record.submission.model;
        let (waiting, in_line) = (self.queue.waiting(), self.queue.length(model));
        self.drain.departed(model, turn.at, waiting, in_line, self.limits.models_learned_max);
    }
}

/// Tokens that came of an attempt, counted or as far as can be told from the time it had.
fn generated(run: &Run, usage: Usage, at: At) -> u32 {
    match (usage.generated, run.began) {
        (0, Some(began)) => tokens_since(at.since(began), run.step),
        (generated, _) => generated,
    }
}

fn tokens_since(elapsed: Span, step: Span) -> u32 {
    u32::try_from(elapsed.0.checked_div(step.0.max(1)).unwrap_or_default()).unwrap_or(u32::MAX)
}
