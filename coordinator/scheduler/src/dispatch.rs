//! From the line to a node: tries waiting requests against nodes until nothing more can start.
//!
//! Owns the walk. Of the models with news the one whose first waits most urgently goes first, anew after each start, so that models
//! on one Mac share it by the same order as requests do. Within a line the first few are tried: one that holds back for a better
//! node does not hold up another for which the open one is best. Refuses to judge nodes: `candidates` gathers what is known of
//! them and `placement` scores it.

use crate::effect::{Affinity, Effect, Refusal};
use crate::ids::{Attempt, Lane, ModelId, RequestId};
use crate::ledger::Booking;
use crate::machine::Scheduler;
use crate::placement::{self, Candidate, Gate};
use crate::prefix::Visit;
use crate::requests::{Record, Run};
use crate::time::Span;
use crate::turn::Turn;
use crate::verdict::Standing;

/// What became of a request that was tried.
enum Tried {
    Started,
    Refused,
    /// It waits for a node that is better than the open ones.
    Holds,
    /// No node is open for it.
    Waits,
}

impl Scheduler {
    /// Starts what can start; then tells those who entered the queue and still wait.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        loop {
            turn.changed.extend(turn.due.iter().copied());
            self.start_all(turn);
            while let Some(model) = turn.changed.pop_first() {
                self.measure_line(model, turn);
            }
            // A rung that was left may let batch work start.
            if turn.due.is_empty() {
                break;
            }
        }
        for request in core::mem::take(&mut turn.entered) {
            self.tell_waiting(request, turn);
        }
        // Who was refused at the door leaves the line shorter; nobody can start by that.
        while let Some(model) = turn.changed.pop_first() {
            self.measure_line(model, turn);
        }
        turn.due.clear();
    }

    fn start_all(&mut self, turn: &mut Turn<'_>) {
        while let Some(model) = self.most_urgent(turn) {
            if !self.start_one(model, turn) {
                turn.due.remove(&model);
            }
        }
    }

    fn most_urgent(&self, turn: &mut Turn<'_>) -> Option<ModelId> {
        turn.due.retain(|model| self.queue.length(*model) > 0);
        if turn.due.len() == 1 {
            return turn.due.first().copied();
        }
        turn.due.iter().copied().min_by_key(|model| (self.queue.urgency(*model), *model))
    }

    /// Whether somebody left the line.
    fn start_one(&mut self, model: ModelId, turn: &mut Turn<'_>) -> bool {
        if !self.has_open_node(model) {
            return false;
        }
        for request in self.queue.window(model, self.limits.window) {
            match self.try_start(request, turn) {
                Tried::Started | Tried::Refused => return true,
                Tried::Holds | Tried::Waits => {}
            }
        }
        false
    }

    fn try_start(&mut self, request: RequestId, turn: &mut Turn<'_>) -> Tried {
        let Some(record) = self.requests.get(request) else { return Tried::Waits };
        if !self.may_start(record) {
            return Tried::Waits;
        }
        let candidates = self.candidates(record);
        let ask = self.ask(record);
        let Some(best) = placement::choose(&ask, candidates.iter()).copied() else {
            let late = candidates.iter().filter(|candidate| candidate.gate == Some(Gate::TooLate));
            let needed = late.clone().map(|candidate| candidate.terms.first_token()).min();
            if let Some(needed) = needed.filter(|_| late.count() == candidates.len()) {
                self.refuse(request, Refusal::DeadlineUnreachable { needed }, turn);
                return Tried::Refused;
            }
            let open = candidates.iter().any(|candidate| candidate.gate.is_none());
            return if open { self.hold(request, turn) } else { Tried::Waits };
        };
        let attempt = Attempt(record.attempt.0.saturating_add(1));
        let standing = Standing::Dispatched { attempt, node: best.node };
        let verdict = self.verdict_on(&record.submission, candidates, standing);
        self.decisions.record(verdict, self.limits.decisions_max);
        self.start(request, attempt, &best, turn);
        Tried::Started
    }

    /// It could start and does better to wait, but not for ever.
    fn hold(&mut self, request: RequestId, turn: &Turn<'_>) -> Tried {
        let hold_max = self.limits.hold_max;
        if let Some(record) = self.requests.get_mut(request).filter(|record| record.holding_since.is_none()) {
            record.holding_since = Some(turn.at);
            self.holding.insert((turn.at + hold_max, request));
        }
        Tried::Holds
    }

    fn start(&mut self, request: RequestId, attempt: Attempt, best: &Candidate, turn: &mut Turn<'_>) {
        self.unqueue(request);
        let Some(record) = self.requests.get(request) else { return };
        let lane = (best.node, record.submission.model);
        let affinity = self.affinity(record, best);
        let mut run = self.run(record, best, turn);
        let booking = Booking {
            request,
            prefill: best.terms.prefill,
            kv_tokens: record.kv_tokens,
            ends: turn.at + best.terms.wait + best.terms.prefill + best.terms.decode,
            isolation: self.isolation(record),
        };
        let submission = record.submission.clone();
        self.ledger.start(lane, booking, turn.at);
        self.fairness.charge(submission.tenant, run.charged);
        self.reorder(submission.tenant);
        run.visit = self.prefixes.dispatched(lane, submission.session, &submission.blocks, turn.at);
        self.fleet.used(lane, turn.at);
        self.sent(lane, attempt, turn);
        if let Some(record) = self.requests.get_mut(request) {
            record.attempt = attempt;
            record.holding_since = None;
            record.run = Some(run);
        }
        turn.changed.insert(lane.1);
        self.reconsider(turn);
        let prefill_chunk = self.prefill_chunk(lane);
        turn.effects.push(Effect::Dispatch { request, attempt, node: best.node, affinity, prefill_chunk });
    }

    fn run(&self, record: &Record, best: &Candidate, turn: &Turn<'_>) -> Run {
        let lane = (best.node, record.submission.model);
        let step = best.terms.decode.0.checked_div(u64::from(record.output_tokens)).unwrap_or_default();
        Run {
            node: best.node,
            dispatched: turn.at,
            began: None,
            generation: self.breakers.generation(lane),
            first_token: best.terms.first_token(),
            step: Span(step),
            charged: self.node_time(
                lane,
                record.submission.prompt_tokens,
                best.cached_tokens,
                record.output_tokens,
            ),
            cached_tokens: best.cached_tokens,
            charged_with_death: false,
            visit: Visit::default(),
        }
    }

    fn affinity(&self, record: &Record, best: &Candidate) -> Affinity {
        let (session, model) = (record.submission.session, record.submission.model);
        let session_node = session.and_then(|session| self.prefixes.session(session, model, self.now));
        if best.cached_tokens > 0 {
            Affinity::Prefix
        } else if session_node == Some(best.node) {
            Affinity::Session
        } else {
            Affinity::Resident
        }
    }

    /// So many prompt tokens between two decode steps that nobody's answer stands still for longer than the target.
    pub(crate) fn prefill_chunk(&self, lane: Lane) -> u32 {
        let limits = &self.limits;
        let prompt = limits.prefill_chunk_max.max(1);
        let per_token_s = self.rates.speed(lane).prefill_s(prompt, 0) / f64::from(prompt);
        let tokens = limits.prefill_chunk_target.0 as f64 / 1e6 / per_token_s.max(1e-9);
        // Whole blocks of 64, as the runtime's caches are laid out; the cast saturates.
        let tokens = (tokens / 64.0) as u32 * 64;
        tokens.clamp(limits.prefill_chunk_min, limits.prefill_chunk_max)
    }
}
