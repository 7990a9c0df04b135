//! From the line to a node: tries waiting requests against nodes until nothing more can start.
//!
//! Owns the walk: it gathers the facts of each node from the other rooms, has `placement` judge them, and books the attempt
//! where every room must know of it, in one step. Refuses to hold back: while a node is open for a request, that request does
//! not wait.

use alloc::vec::Vec;

use crate::command::{Rates, Submission};
use crate::effect::{Effect, Refusal};
use crate::ids::{Attempt, ModelId, NodeId, RequestId};
use crate::machine::Scheduler;
use crate::placement::{self, Ask, Candidate, Facts};
use crate::queue::Walk;
use crate::requests::{Failure, Run, latest_failure};
use crate::time::Span;
use crate::turn::Turn;
use crate::verdict::{Standing, Verdict};

impl Scheduler {
    /// Starts what can start; then tells those who entered the queue and still wait.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        while let Some(model) = turn.due.pop_first() {
            self.place(model, turn);
        }
        for request in core::mem::take(&mut turn.entered) {
            self.tell_waiting(request, turn);
        }
    }

    /// In order of arrival; a request that cannot start now is stepped over, so that it holds up only those like it.
    fn place(&mut self, model: ModelId, turn: &mut Turn<'_>) {
        let mut walk = Walk::default();
        while let Some(place) = self.queue.next(model, &walk) {
            if !self.has_open_node(model) {
                return;
            }
            if !self.try_start(place.request, turn) {
                self.queue.step_over(model, &mut walk, place);
            }
        }
    }

    fn try_start(&mut self, request: RequestId, turn: &mut Turn<'_>) -> bool {
        let Some(record) = self.requests.get(request) else { return false };
        let candidates = self.candidates(&record.submission, &record.failures);
        let best = candidates.iter().min_by_key(|candidate| placement::rank(candidate));
        let Some(best) = best.filter(|candidate| candidate.gate.is_none()).copied() else { return false };
        let attempt = Attempt(record.attempt.0.saturating_add(1));
        let standing = Standing::Dispatched { attempt, node: best.node };
        let verdict = self.verdict_on(&record.submission, candidates, standing);
        self.decisions.record(verdict, self.limits.decisions_max);
        self.start(request, attempt, &best, turn);
        true
    }

    fn start(&mut self, request: RequestId, attempt: Attempt, best: &Candidate, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get_mut(request) else { return };
        let (model, place, prefill) = (record.submission.model, record.place(), best.terms.prefill);
        record.attempt = attempt;
        record.run = Some(Run { node: best.node, dispatched: turn.at, began: false });
        self.queue.remove(model, place);
        self.ledger.start((best.node, model), request, prefill, turn.at);
        turn.effects.push(Effect::Dispatch { request, attempt, node: best.node });
    }

    fn tell_waiting(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get(request).filter(|record| record.run.is_none()) else { return };
        let (model, place) = (record.submission.model, record.place());
        let newcomer = record.attempt == Attempt::default();
        if newcomer && self.queue.waiting() > self.limits.waiting_max {
            let refusal = self.queue_full();
            self.refuse(request, refusal, turn);
        } else {
            let ahead = self.queue.ahead(model, place);
            turn.effects.push(self.queued(model, place, ahead));
        }
    }

    /// The request will not run: it is forgotten, and the log keeps why.
    pub(crate) fn refuse(&mut self, request: RequestId, refusal: Refusal, turn: &mut Turn<'_>) {
        let Some(record) = self.leave(request, turn) else { return };
        self.refuse_unadmitted(&record.submission, &record.failures, refusal, turn);
    }

    pub(crate) fn refuse_unadmitted(
        &mut self,
        submission: &Submission,
        failures: &[Failure],
        refusal: Refusal,
        turn: &mut Turn<'_>,
    ) {
        let verdict = self.verdict(submission, failures, Standing::Refused(refusal));
        self.decisions.record(verdict, self.limits.decisions_max);
        turn.effects.push(Effect::Refuse { request: submission.request, refusal });
    }

    pub(crate) fn verdict(
        &self,
        submission: &Submission,
        failures: &[Failure],
        standing: Standing,
    ) -> Verdict {
        self.verdict_on(submission, self.candidates(submission, failures), standing)
    }

    fn verdict_on(
        &self,
        submission: &Submission,
        mut candidates: Vec<Candidate>,
        standing: Standing,
    ) -> Verdict {
        candidates.sort_by_key(placement::rank);
        let holders = candidates.len();
        candidates.truncate(self.limits.candidates_max);
        Verdict {
            request: submission.request,
            model: submission.model,
            at: self.now,
            standing,
            omitted: holders.saturating_sub(candidates.len()),
            without_model: self.fleet.nodes().count().saturating_sub(holders),
            candidates,
        }
    }

    /// Every node that holds the model, judged for this request, by number.
    pub(crate) fn candidates(&self, submission: &Submission, failures: &[Failure]) -> Vec<Candidate> {
        let (model, ask) = (submission.model, self.ask(submission));
        let last_resort = !failures.is_empty() && !self.has_unfailed_node(model, failures);
        let judge = |node| {
            let failed = latest_failure(failures, node);
            let failed =
                failed.is_some_and(|report| !(last_resort && self.fleet.reported_since(node, report)));
            placement::judge(&self.limits, ask, &self.facts(node, model, failed))
        };
        self.fleet.holders(model).map(judge).collect()
    }

    pub(crate) fn facts(&self, node: NodeId, model: ModelId, failed_this_request: bool) -> Facts {
        let lane = (node, model);
        Facts {
            node,
            draining: self.fleet.is_draining(node),
            failed_this_request,
            paused_until: self.batcher.paused_until(lane),
            in_flight: self.ledger.on_lane(lane),
            limit: self.batcher.limit(lane),
            in_flight_on_node: self.ledger.on_node(node),
            prefill_backlog: self.ledger.prefill_backlog(node, self.now),
            rates: self.fleet.rates(node, model).unwrap_or(UNKNOWN_RATES),
        }
    }

    pub(crate) fn ask(&self, submission: &Submission) -> Ask {
        let assumed = self.limits.output_tokens;
        Ask {
            prompt_tokens: submission.prompt_tokens,
            output_tokens: self.predictor.output_tokens(submission.model, submission.max_tokens, assumed),
        }
    }

    /// The time to the first token on the fastest idle holder, when every holder's rate is known.
    pub(crate) fn first_token_at_best(&self, submission: &Submission) -> Option<Span> {
        let mut best: Option<Span> = None;
        for node in self.fleet.holders(submission.model) {
            let rates = self.fleet.rates(node, submission.model)?;
            let needed = placement::first_token_at_best(&self.limits, submission.prompt_tokens, rates)?;
            best = Some(best.map_or(needed, |best| best.min(needed)));
        }
        best
    }

    fn has_open_node(&self, model: ModelId) -> bool {
        self.fleet.holders(model).any(|node| placement::gate(&self.facts(node, model, false)).is_none())
    }

    /// A node that could serve the model, now or once it has room, and has not failed this request.
    fn has_unfailed_node(&self, model: ModelId, failures: &[Failure]) -> bool {
        self.fleet.holders(model).any(|node| {
            let serves = !self.fleet.is_draining(node) && self.batcher.slots((node, model)) > 0;
            serves && latest_failure(failures, node).is_none()
        })
    }
}

/// Replaced by the assumed rates wherever they are used.
const UNKNOWN_RATES: Rates = Rates { prefill_tokens_per_s: 0.0, step_ms: 0.0, batch_slope: 0.0 };
