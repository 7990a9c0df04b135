//! What is known of each node for one request.
//!
//! Owns the gathering: it asks every room about every node that holds the model and hands the answers to `placement`. Refuses to
//! weigh them.
//!
//! The gates are tried in this order, and the first that is shut is told:
//!
//! 1. drained, 2. leaving, 3. breaker, 4. failed this request, 5. paused, 6. full, 7. no room for its KV cache,
//! 8. somebody runs there alone, or this one must, 9. prompts before it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::blame::Isolation;
use crate::breaker::Admission;
use crate::command::{Class, Submission};
use crate::ids::{Lane, ModelId, NodeId};
use crate::machine::Scheduler;
use crate::overload::Rung;
use crate::placement::{self, Ask, Candidate, Facts, Gate};
use crate::requests::{NodeFailure, Record, latest_failure};
use crate::time::{At, Span};

impl Scheduler {
    /// Every node that holds the model, judged for this request, by number.
    pub(crate) fn candidates(&self, record: &Record) -> Vec<Candidate> {
        let model = record.submission.model;
        let ask = self.ask(record);
        let last_resort = !record.failures.is_empty() && !self.has_unfailed_node(model, &record.failures);
        let cached_on = self.cached_tokens(&record.submission);
        let session_node =
            record.submission.session.and_then(|session| self.prefixes.session(session, model, self.now));
        let judge = |node| {
            let failed = latest_failure(&record.failures, node);
            let failed =
                failed.is_some_and(|report| !(last_resort && self.fleet.reported_since(node, report)));
            let cached = cached_on.get(&node).copied().unwrap_or(0);
            let mut facts = self.facts((node, model), record, failed, cached);
            // Of two nodes that are alike, the one that has seen the session before.
            if session_node == Some(node) && cached == 0 {
                facts.prefill_s *= self.limits.session_share;
            }
            placement::judge(&self.limits, &ask, &facts)
        };
        self.fleet.holders(model).map(judge).collect()
    }

    pub(crate) fn ask(&self, record: &Record) -> Ask {
        let model = record.submission.model;
        let waiting = self.queue.length(model);
        let since = record.holding_since.unwrap_or(self.now);
        Ask {
            output_tokens: record.output_tokens,
            behind: waiting.saturating_sub(1),
            gap: self.gap(model),
            left: record.submission.deadline.since(self.now),
            impatient: self.now.since(since) >= self.limits.hold_max,
        }
    }

    /// The time between two starts of a model's requests: as seen while somebody waited, else as those who wait suggest.
    pub(crate) fn gap(&self, model: ModelId) -> Span {
        self.drain.gap_of(model, self.now).unwrap_or_else(|| {
            let waiting = u64::try_from(self.queue.length(model)).unwrap_or(u64::MAX).max(1);
            let work = self.reference.shared(model, self.queue.work_for(model));
            Span(work.0.checked_div(waiting).unwrap_or_default())
        })
    }

    fn facts(&self, lane: Lane, record: &Record, failed: bool, cached: u32) -> Facts {
        let uncached = record.submission.prompt_tokens.saturating_sub(cached);
        let gate = self.gate(lane, record, failed);
        let running = self.ledger.on_node(lane.0);
        let beside_s = if running > self.ledger.on_lane(lane) { self.steps_beside(lane) } else { 0.0 };
        let width = self.ledger.on_lane(lane);
        let kv_tokens = self.ledger.kv_tokens(lane);
        let speed = self.rates.speed(lane);
        let step_now_s = if width == 0 { 0.0 } else { speed.step_s(width, kv_tokens) };
        let step_with_s = speed.step_s(width.saturating_add(1), kv_tokens.saturating_add(record.kv_tokens));
        let chunk = f64::from(self.limits.prefill_chunk_assumed.max(1));
        Facts {
            node: lane.0,
            wait: self.wait(lane, gate, step_with_s),
            gate,
            cached_tokens: cached,
            prefill_s: speed.prefill_s(uncached, cached),
            chunks: f64::from(uncached) / chunk,
            step_now_s: step_now_s + beside_s,
            step_with_s: step_with_s + beside_s,
            running,
            doubt: self.doubt(lane),
        }
    }

    /// A step of every other runtime that is at work on the node: they take turns on its one GPU.
    fn steps_beside(&self, lane: Lane) -> f64 {
        let steps = self.ledger.beside(lane);
        steps.map(|(other, width, kv_tokens)| self.rates.speed(other).step_s(width, kv_tokens)).sum()
    }

    /// Until a request could start there.
    fn wait(&self, lane: Lane, gate: Option<Gate>, step_s: f64) -> Span {
        let backlog = self.ledger.prefill_backlog(lane.0, self.now);
        match gate {
            Some(Gate::Full { .. } | Gate::KvFull { .. }) => {
                let left = self.ledger.next_end(lane).map_or(Span::ZERO, |ends| ends.since(self.now));
                // Whoever is overdue may still go on for some steps.
                let least = placement::span(&self.limits, step_s * f64::from(self.limits.overdue_steps));
                left.max(least).max(backlog)
            }
            Some(Gate::Paused { until }) => until.since(self.now).max(backlog),
            Some(
                Gate::Draining
                | Gate::Leaving
                | Gate::BreakerOpen { .. }
                | Gate::FailedThisRequest
                | Gate::TooLate
                | Gate::Alone
                | Gate::Prefilling { .. },
            )
            | None => backlog,
        }
    }

    fn gate(&self, lane: Lane, record: &Record, failed: bool) -> Option<Gate> {
        let shut = self.gate_for_all(lane, Some(record.submission.prompt_tokens));
        let by_order =
            |gate: &Gate| matches!(gate, Gate::Draining | Gate::Leaving | Gate::BreakerOpen { .. });
        if let Some(gate) = shut.filter(by_order) {
            return Some(gate); // 1 to 3
        }
        // 4
        if failed {
            return Some(Gate::FailedThisRequest);
        }
        // 5 and 6
        if shut.is_some_and(|gate| matches!(gate, Gate::Paused { .. } | Gate::Full { .. })) {
            return shut;
        }
        // 7
        let room = self.fleet.kv_tokens(lane);
        let free = room.saturating_sub(self.ledger.kv_tokens(lane));
        if room > 0 && record.kv_tokens > free && self.ledger.on_lane(lane) > 0 {
            return Some(Gate::KvFull { needed: record.kv_tokens, free });
        }
        // 8
        let crowded = match self.isolation(record) {
            Isolation::None => false,
            Isolation::Lane(_) => self.ledger.on_lane(lane) > 0,
            Isolation::Node(_) => self.ledger.on_node(lane.0) > 0,
        };
        if crowded {
            return Some(Gate::Alone);
        }
        shut // 8 and 9
    }

    /// What shuts the node out for everybody: all gates but 4 and 7, and of 8 the part that is not the request's own.
    pub(crate) fn gate_for_all(&self, lane: Lane, prompt_tokens: Option<u32>) -> Option<Gate> {
        // 1
        if self.fleet.is_draining(lane.0) {
            return Some(Gate::Draining);
        }
        // 2
        if self.residency.is_leaving(lane) {
            return Some(Gate::Leaving);
        }
        // 3
        let in_flight = self.ledger.on_lane(lane);
        let admission = self.breakers.gate(lane, &self.limits.breaker);
        match admission {
            Admission::Free | Admission::Penalised { .. } | Admission::Limited { .. } => {}
            Admission::Shut { until } => {
                return Some(Gate::BreakerOpen { until: Some(until).filter(|until| *until > self.now) });
            }
            Admission::OneProbeRequest { taken } => {
                let most = self.limits.breaker.probe_prompt_tokens_max;
                if taken || prompt_tokens.is_some_and(|tokens| tokens > most) {
                    return Some(Gate::BreakerOpen { until: None });
                }
            }
        }
        let limit = admission.width(self.batcher.limit(lane));
        // 5
        if let Some(until) = self.batcher.paused_until(lane) {
            return Some(Gate::Paused { until });
        }
        // 6
        if in_flight >= limit {
            return Some(Gate::Full { in_flight, limit });
        }
        // 8
        if self.ledger.has_alone(lane) {
            return Some(Gate::Alone);
        }
        // 9
        let left = self.ledger.prefill_backlog(lane.0, self.now);
        (left > self.limits.bind_ahead).then_some(Gate::Prefilling { left })
    }

    /// Batch work waits while people do.
    pub(crate) fn may_start(&self, record: &Record) -> bool {
        record.class == Class::Interactive || self.overload.rung(record.submission.model) == Rung::Calm
    }

    /// Prompt tokens of the request that the best of all nodes has probably cached.
    pub(crate) fn cached_anywhere(&self, submission: &Submission) -> u32 {
        self.cached_tokens(submission).into_values().max().unwrap_or(0)
    }

    /// Prompt tokens of the request in the prefix cache of each node that has some of it. One token is always computed.
    fn cached_tokens(&self, submission: &Submission) -> BTreeMap<NodeId, u32> {
        let mut cached = BTreeMap::new();
        if !submission.blocks.is_empty() {
            let most = submission.prompt_tokens.saturating_sub(1);
            self.prefixes.matches(submission.model, &submission.blocks, |node, blocks| {
                cached.insert(node, self.prefixes.tokens(blocks).min(most));
            });
        }
        cached
    }

    /// The time to the first token on the fastest idle holder. `None` while no node holds the model, or one of them is too new
    /// for anybody to be refused by what is assumed of it.
    pub(crate) fn first_token_at_best(&self, submission: &Submission) -> Option<Span> {
        let mut best: Option<Span> = None;
        let cached = self.cached_anywhere(submission);
        for node in self.fleet.holders(submission.model) {
            let lane = (node, submission.model);
            if self.rates.is_unknown(lane) {
                return None;
            }
            let speed = self.rates.speed(lane);
            let prefill_s = speed.prefill_s(submission.prompt_tokens.saturating_sub(cached), cached);
            let needed = placement::span(&self.limits, prefill_s);
            best = Some(best.map_or(needed, |best| best.min(needed)));
        }
        best
    }

    pub(crate) fn has_open_node(&self, model: ModelId) -> bool {
        self.fleet.holders(model).any(|node| self.gate_for_all((node, model), None).is_none())
    }

    /// A node that could serve the model, now or once it has room, and has not failed this request.
    fn has_unfailed_node(&self, model: ModelId, failures: &[NodeFailure]) -> bool {
        self.fleet.holders(model).any(|node| {
            let serves = !self.fleet.is_draining(node) && self.batcher.slots((node, model)) > 0;
            serves && latest_failure(failures, node).is_none()
        })
    }

    /// Whether a node has come down to few enough prompts since the latest command.
    pub(crate) fn backlog_is_done(&self, at: At) -> bool {
        self.prompts_done_at.is_some_and(|done| done <= at)
    }
}
