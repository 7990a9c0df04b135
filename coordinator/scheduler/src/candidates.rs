//! What is known of each node that holds a model, and how it looks to one request.
//!
//! Owns the gathering. A *site* is what every request sees alike, asked of all rooms once; a candidate is a site seen by one request,
//! with its cached prefix and its own failures, scored by `placement`. Refuses to weigh.
//!
//! The gates are tried in this order, and the first that is shut is told:
//!
//! 0. a new leader settles, 1. drained, 2. leaving, 3. breaker, 4. failed this request, 5. paused, 6. full, 7. no room for its KV cache,
//! 8. somebody runs there alone, or this one must, 9. prompts before it.

use alloc::vec::Vec;

use crate::blame::Isolation;
use crate::breaker::Admission;
use crate::command::{Class, Submission};
use crate::ids::{Lane, ModelId, NodeId};
use crate::ledger::Load;
use crate::machine::Scheduler;
use crate::overload::Rung;
use crate::placement::{self, Ask, Candidate, Facts, Gate};
use crate::rates::Speed;
use crate::requests::{NodeFailure, Record, latest_failure};
use crate::time::{At, Span};

/// A node that holds a model, as every request sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) node: NodeId,
    /// What shuts it out for everybody.
    pub(crate) gate: Option<Gate>,
    speed: Speed,
    /// Prompt tokens that the first real request after an open breaker may have.
    prompt_tokens_max: Option<u32>,
    /// Until a slot comes free, as far as can be told.
    slot: Span,
    load: Load,
    kv_room: u32,
    /// A decode step of every runtime that is at work on the node, as it is now and with one sequence more: they take turns on
    /// its one GPU.
    step_now_s: f64,
    step_more_s: f64,
    doubt: f64,
}

impl Scheduler {
    /// Every node that holds the model, by number.
    pub(crate) fn sites(&self, model: ModelId) -> Vec<Site> {
        self.fleet.holders(model).map(|node| self.site((node, model))).collect()
    }

    /// The sites as this request sees them.
    pub(crate) fn candidates(&self, record: &Record, sites: &[Site]) -> Vec<Candidate> {
        let (model, ask) = (record.submission.model, self.ask(record));
        let last_resort = !record.failures.is_empty() && !self.has_unfailed_node(model, &record.failures);
        let cached_on = self.cached_tokens(&record.submission);
        let isolation = self.isolation(record);
        let session = record.submission.session;
        let session_node = session.and_then(|session| self.prefixes.session(session, model, self.now));
        let judge = |site: &Site| {
            let failed = latest_failure(&record.failures, site.node);
            let failed =
                failed.is_some_and(|report| !(last_resort && self.fleet.reported_since(site.node, report)));
            let cached = cached_on.binary_search_by_key(&site.node, |(node, _)| *node).ok();
            let cached = cached.and_then(|index| cached_on.get(index)).map_or(0, |(_, tokens)| *tokens);
            let mut facts = self.facts(site, record, cached);
            facts.gate = gate(site, record, failed, isolation);
            facts.wait = wait(site, facts.gate);
            // Of two nodes that are alike, the one that has seen the session before.
            if session_node == Some(site.node) && cached == 0 {
                facts.prefill_s *= self.limits.session_share;
            }
            placement::judge(&self.limits, &ask, &facts)
        };
        sites.iter().map(judge).collect()
    }

    /// How the node would look to the request if it held the model.
    pub(crate) fn candidate_at(&self, record: &Record, node: NodeId) -> Candidate {
        let site = self.site((node, record.submission.model));
        let cached = self.cached_tokens(&record.submission).into_iter().find(|(on, _)| *on == node);
        let facts = self.facts(&site, record, cached.map_or(0, |(_, tokens)| tokens));
        placement::judge(&self.limits, &self.ask(record), &facts)
    }

    pub(crate) fn ask(&self, record: &Record) -> Ask {
        let since = record.holding_since.unwrap_or(self.now);
        Ask {
            output_tokens: record.output_tokens,
            left: record.submission.deadline.since(self.now),
            impatient: self.now.since(since) >= self.limits.hold_max,
        }
    }

    /// The time between two starts of a model's requests: as seen while somebody waited, else as those who wait suggest.
    pub(crate) fn gap(&self, model: ModelId) -> Span {
        self.drain.gap_of(model).unwrap_or_else(|| {
            let waiting = u64::try_from(self.queue.length(model)).unwrap_or(u64::MAX).max(1);
            let work = self.reference.shared(model, self.queue.work_for(model));
            Span(work.0.checked_div(waiting).unwrap_or_default())
        })
    }

    fn site(&self, lane: Lane) -> Site {
        let speed = self.rates.speed(lane);
        let load = self.ledger.load(lane, self.now);
        let beside_s = if load.on_node > load.in_flight { self.steps_beside(lane) } else { 0.0 };
        let step_s = speed.step_s(load.in_flight.max(1), load.kv_tokens);
        // Whoever is overdue may still go on for some steps.
        let overdue_s = f64::from(self.limits.overdue_steps) * (step_s + beside_s);
        let next_end = load.next_end.map_or(Span::ZERO, |ends| ends.since(self.now));
        let admission = self.breakers.gate(lane, &self.limits.breaker);
        Site {
            node: lane.0,
            gate: self.shut_for_all(lane, &load, admission),
            speed,
            prompt_tokens_max: match admission {
                Admission::OneProbeRequest { .. } => Some(self.limits.breaker.probe_prompt_tokens_max),
                Admission::Free
                | Admission::Penalised { .. }
                | Admission::Limited { .. }
                | Admission::Shut { .. } => None,
            },
            slot: next_end.max(placement::span(&self.limits, overdue_s)),
            load,
            kv_room: self.fleet.kv_tokens(lane),
            step_now_s: beside_s + if load.in_flight == 0 { 0.0 } else { step_s },
            step_more_s: beside_s + speed.step_s(load.in_flight.saturating_add(1), load.kv_tokens),
            doubt: match admission {
                Admission::Penalised { factor, .. } => f64::from(factor),
                Admission::Free
                | Admission::Limited { .. }
                | Admission::Shut { .. }
                | Admission::OneProbeRequest { .. } => 1.0,
            },
        }
    }

    fn facts(&self, site: &Site, record: &Record, cached: u32) -> Facts {
        let uncached = record.submission.prompt_tokens.saturating_sub(cached);
        let chunk = f64::from(self.limits.prefill_chunk_assumed.max(1));
        Facts {
            node: site.node,
            gate: site.gate,
            wait: site.load.backlog,
            cached_tokens: cached,
            prefill_s: site.speed.prefill_s(uncached, cached),
            chunks: f64::from(uncached) / chunk,
            step_now_s: site.step_now_s,
            step_with_s: site.step_more_s + f64::from(record.kv_tokens) * site.speed.kv_token_s,
            running: site.load.on_node,
            doubt: site.doubt,
        }
    }

    fn steps_beside(&self, lane: Lane) -> f64 {
        let steps = self.ledger.beside(lane);
        steps.map(|(other, width, kv_tokens)| self.rates.speed(other).step_s(width, kv_tokens)).sum()
    }

    /// What shuts the node out for everybody: all gates but 4 and 7, and of 8 the part that is not the request's own.
    fn shut_for_all(&self, lane: Lane, load: &Load, admission: Admission) -> Option<Gate> {
        // 0
        if let Some(until) = self.settling() {
            return Some(Gate::Settling { until });
        }
        // 1
        if self.is_drained(lane) {
            return Some(Gate::Draining);
        }
        // 2
        if self.residency.is_leaving(lane) {
            return Some(Gate::Leaving);
        }
        // 3
        match admission {
            Admission::Free
            | Admission::Penalised { .. }
            | Admission::Limited { .. }
            | Admission::OneProbeRequest { taken: false } => {}
            Admission::OneProbeRequest { taken: true } => return Some(Gate::BreakerOpen { until: None }),
            Admission::Shut { until } => {
                return Some(Gate::BreakerOpen { until: Some(until).filter(|until| *until > self.now) });
            }
        }
        // 5
        let (width, paused_until) = self.batcher.allows(lane);
        if let Some(until) = paused_until {
            return Some(Gate::Paused { until });
        }
        // 6
        let limit = admission.width(width);
        if load.in_flight >= limit {
            return Some(Gate::Full { in_flight: load.in_flight, limit });
        }
        // 8
        if load.alone {
            return Some(Gate::Alone);
        }
        // 9
        let left = load.backlog;
        (left > self.limits.bind_ahead).then_some(Gate::Prefilling { left })
    }

    /// What shuts the node out for everybody.
    pub(crate) fn gate_for_all(&self, lane: Lane) -> Option<Gate> {
        let admission = self.breakers.gate(lane, &self.limits.breaker);
        self.shut_for_all(lane, &self.ledger.load(lane, self.now), admission)
    }

    /// Batch work waits while people do, when the line is long. A line of nothing but batch work is served.
    pub(crate) fn may_start(&self, record: &Record) -> bool {
        let model = record.submission.model;
        record.class == Class::Interactive
            || self.overload.rung(model) == Rung::Calm
            || !self.queue.has_interactive(model)
    }

    /// Prompt tokens of the request that the best of all nodes has probably cached.
    pub(crate) fn cached_anywhere(&self, submission: &Submission) -> u32 {
        self.cached_tokens(submission).into_iter().map(|(_, tokens)| tokens).max().unwrap_or(0)
    }

    /// Prompt tokens of the request in the prefix cache of each node that has some of it, by node. One token is always computed.
    pub(crate) fn cached_tokens(&self, submission: &Submission) -> Vec<(NodeId, u32)> {
        let mut cached = Vec::new();
        if !submission.blocks.is_empty() {
            let most = submission.prompt_tokens.saturating_sub(1);
            self.prefixes.matches(submission.model, &submission.blocks, |node, blocks| {
                cached.push((node, self.prefixes.tokens(blocks).min(most)));
            });
        }
        cached.sort_unstable();
        cached
    }

    /// Whether there is no need to look at nodes one by one: twice what the request takes of the mean node is left.
    pub(crate) fn is_early(&self, submission: &Submission, left: Span) -> bool {
        left > self.reference.work(submission.model, submission.prompt_tokens, 0).times(2)
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

    /// The node drains, and another one serves the model: it makes before it breaks.
    pub(crate) fn is_drained(&self, (node, model): Lane) -> bool {
        self.fleet.is_draining(node)
            && self.fleet.holders(model).any(|other| {
                let lane = (other, model);
                let shut = matches!(self.breakers.gate(lane, &self.limits.breaker), Admission::Shut { .. });
                !self.fleet.is_draining(other)
                    && self.batcher.slots(lane) > 0
                    && !self.residency.is_leaving(lane)
                    && !shut
            })
    }

    pub(crate) fn has_open_node(&self, model: ModelId) -> bool {
        self.batcher.with_room(model).any(|node| self.gate_for_all((node, model)).is_none())
    }

    /// A node that could serve the model, now or once it has room, and has not failed this request.
    fn has_unfailed_node(&self, model: ModelId, failures: &[NodeFailure]) -> bool {
        self.fleet.holders(model).any(|node| {
            let serves = !self.is_drained((node, model)) && self.batcher.slots((node, model)) > 0;
            serves && latest_failure(failures, node).is_none()
        })
    }

    /// Whether a node has come down to few enough prompts since the latest command.
    pub(crate) fn backlog_is_done(&self, at: At) -> bool {
        self.prompts_done_at.is_some_and(|done| done <= at)
    }
}

/// What shuts the site out for this request.
fn gate(site: &Site, record: &Record, failed: bool, isolation: Isolation) -> Option<Gate> {
    // 0 to 3
    let by_order = |gate: &Gate| match gate {
        Gate::Settling { .. } | Gate::Draining | Gate::Leaving | Gate::BreakerOpen { .. } => true,
        Gate::FailedThisRequest
        | Gate::TooLate
        | Gate::Paused { .. }
        | Gate::Full { .. }
        | Gate::KvFull { .. }
        | Gate::Alone
        | Gate::Prefilling { .. } => false,
    };
    if let Some(gate) = site.gate.filter(by_order) {
        return Some(gate);
    }
    if site.prompt_tokens_max.is_some_and(|most| record.submission.prompt_tokens > most) {
        return Some(Gate::BreakerOpen { until: None });
    }
    // 4
    if failed {
        return Some(Gate::FailedThisRequest);
    }
    // 5 and 6
    if site.gate.is_some_and(|gate| matches!(gate, Gate::Paused { .. } | Gate::Full { .. })) {
        return site.gate;
    }
    // 7
    let free = site.kv_room.saturating_sub(site.load.kv_tokens);
    if site.kv_room > 0 && record.kv_tokens > free && site.load.in_flight > 0 {
        return Some(Gate::KvFull { needed: record.kv_tokens, free });
    }
    // 8
    let crowded = match isolation {
        Isolation::None => false,
        Isolation::Lane(_) => site.load.in_flight > 0,
        Isolation::Node(_) => site.load.on_node > 0,
    };
    // 9
    if crowded { Some(Gate::Alone) } else { site.gate }
}

/// Until a request could start there.
fn wait(site: &Site, gate: Option<Gate>) -> Span {
    match gate {
        Some(Gate::Full { .. } | Gate::KvFull { .. }) => site.slot.max(site.load.backlog),
        Some(
            Gate::Settling { .. }
            | Gate::Paused { .. }
            | Gate::Draining
            | Gate::Leaving
            | Gate::BreakerOpen { .. }
            | Gate::FailedThisRequest
            | Gate::TooLate
            | Gate::Alone
            | Gate::Prefilling { .. },
        )
        | None => site.load.backlog,
    }
}
