//! What the outside may see: positions, load, verdicts, the next wake-up, and what is outstanding.
//!
//! Owns the read-only side of the scheduler. Refuses to change anything.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::command::Class;
use crate::effect::{Affinity, Effect, Why};
use crate::fact::lane_of;
use crate::ids::{ModelId, NodeId, RequestId, TenantId};
use crate::limits;
use crate::machine::Scheduler;
use crate::overload::Rung;
use crate::placement::{self, Candidate};
use crate::prefix::PrefixTotals;
use crate::requests::Record;
use crate::time::{At, Span};
use crate::verdict::{Standing, Verdict};

/// Where a waiting request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// About how many wait before it for the same model.
    pub ahead: u32,
    /// When it will probably start; `None` while no node can serve the model and none will soon.
    pub eta: Option<Span>,
    /// No node holds the model: it is loaded first.
    pub loading: bool,
}

/// A request that waits, as the queue is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which one.
    pub request: RequestId,
    /// For which model.
    pub model: ModelId,
    /// Whose.
    pub tenant: TenantId,
    /// As it counts now.
    pub class: Class,
    /// Since when.
    pub arrived: At,
    /// Where it stands.
    pub position: Position,
}

/// How much there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Each model somebody waits for or that runs.
    pub models: BTreeMap<ModelId, ModelLoad>,
    /// Attempts in flight on each known node, idle ones too.
    pub nodes: BTreeMap<NodeId, usize>,
    /// Retries that may be made at once, as of the latest dispatch.
    pub retries: u32,
}

/// How much there is to do for one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelLoad {
    /// Requests that wait.
    pub waiting: usize,
    /// Attempts in flight.
    pub running: usize,
    /// How long its nodes need for all that wait.
    pub delay: Span,
    /// How far service is taken back.
    pub rung: Rung,
}

impl Scheduler {
    /// When to apply [`crate::Command::Wake`], and what for. Waking at other times does no harm.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(At, Why)> {
        let deadline = self.requests.first_deadline().map(|(at, request)| (at, Why::Deadline { request }));
        let pause =
            self.batcher.first_pause().map(|(at, (node, model))| (at, Why::PauseOver { node, model }));
        let aged = self.ageing.first().map(|(at, request)| (*at, Why::Aged { request: *request }));
        let hold = self.holding.first().map(|(at, request)| (*at, Why::HoldOver { request: *request }));
        let prompts = self.prompts_done_at.map(|at| (at, Why::PromptsDone));
        let breaker = self.breakers.next_deadline().map(|(at, breaker)| {
            let (node, model) = lane_of(breaker);
            (at, Why::Breaker { node, model })
        });
        let settled = self.settling().map(|at| (at, Why::Settled));
        // Until then nothing is planned.
        let plan = self.residency.next_deadline().map(|at| (at, Why::Plan)).filter(|_| settled.is_none());
        [deadline, pause, aged, hold, prompts, breaker, plan, settled].into_iter().flatten().min()
    }

    /// Repeats what is outstanding for a shell that lost its side: each running attempt, each waiting request in its order, then
    /// reservations, evictions and the canary that nobody has answered. Nothing changes; whoever has it already may ignore it
    /// by its number.
    pub fn resume(&self, effects: &mut Vec<Effect>) {
        for record in self.requests.iter() {
            if let Some(run) = record.run {
                effects.push(Effect::Dispatch {
                    request: record.submission.request,
                    attempt: record.attempt,
                    node: run.node,
                    affinity: if run.cached_tokens > 0 { Affinity::Prefix } else { Affinity::Resident },
                    prefill_chunk: self.prefill_chunk((run.node, record.submission.model)),
                });
            }
        }
        for (model, _) in self.queue.lengths() {
            effects.extend(self.queue.line(model).filter_map(|request| self.queued(request)));
        }
        effects.extend(self.homes_outstanding());
        effects.extend(self.canary_outstanding());
    }

    /// Why the request is where it is. For a waiting request the nodes as the latest command left them, else as they were
    /// when it was decided. `None` when it was never heard of, or so long ago that the log has dropped it.
    #[must_use]
    pub fn explain(&self, request: RequestId) -> Option<Verdict> {
        match self.requests.get(request) {
            Some(record) if record.run.is_none() => {
                let Position { ahead, eta, .. } = self.position_of(record);
                let candidates = self.candidates(record, &self.sites(record.submission.model));
                Some(self.verdict_on(record, candidates, Standing::Waiting { ahead, eta }))
            }
            Some(_) | None => self.decisions.latest(request).cloned(),
        }
    }

    /// Where a waiting request stands; `None` when it does not wait.
    #[must_use]
    pub fn position(&self, request: RequestId) -> Option<Position> {
        self.requests
            .get(request)
            .filter(|record| record.run.is_none())
            .map(|record| self.position_of(record))
    }

    /// The waiting line, up to `most` requests of each model.
    #[must_use]
    pub fn waiting(&self, most: usize) -> Vec<Waiting> {
        let lines = self.queue.lengths().flat_map(|(model, _)| self.queue.line(model).take(most));
        let records = lines.filter_map(|request| self.requests.get(request));
        let waiting = records.map(|record| Waiting {
            request: record.submission.request,
            model: record.submission.model,
            tenant: record.submission.tenant,
            class: record.class,
            arrived: record.submission.arrived,
            position: self.position_of(record),
        });
        waiting.collect()
    }

    /// Tokens that an answer of this tenant will probably have, in 1..=`max_tokens`: as long as all but the longest.
    #[must_use]
    pub fn expected_answer(&self, tenant: TenantId, model: ModelId, max_tokens: u32) -> u32 {
        self.answers.quantile(tenant, model, max_tokens, limits::EXPECTED_ANSWER_PERMILLE)
    }

    /// Counts for metrics.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut load = Load { retries: self.retries.left(), ..Load::default() };
        load.nodes.extend(self.fleet.nodes().map(|node| (node, 0)));
        for (model, waiting) in self.queue.lengths() {
            let delay = self.reference.shared(model, self.queue.work_for(model));
            let rung = self.overload.rung(model);
            load.models.insert(model, ModelLoad { waiting, running: 0, delay, rung });
        }
        for ((node, model), running) in self.ledger.lanes() {
            let models = load.models.entry(model).or_default();
            models.running = models.running.saturating_add(running);
            let nodes = load.nodes.entry(node).or_default();
            *nodes = nodes.saturating_add(running);
        }
        load
    }

    /// How well the caches of prefixes are foreseen and used, since the start.
    #[must_use]
    pub fn prefix_totals(&self) -> PrefixTotals {
        self.prefixes.totals()
    }

    pub(crate) fn position_of(&self, record: &Record) -> Position {
        let model = record.submission.model;
        let ahead = self.queue.ahead(model, &record.place());
        let loading = self.stays(model).next().is_none();
        Position { ahead: count(ahead), eta: self.eta(record, ahead), loading }
    }

    pub(crate) fn queued(&self, request: RequestId) -> Option<Effect> {
        let record = self.requests.get(request)?;
        let Position { ahead, eta, loading } = self.position_of(record);
        Some(Effect::Queued { request, position: ahead, eta, loading })
    }

    /// The pace at which the model's requests start; after a load, if no node holds it, the first of them at once.
    fn eta(&self, record: &Record, ahead: usize) -> Option<Span> {
        let model = record.submission.model;
        let serves = |node| !self.is_drained((node, model)) && self.batcher.slots((node, model)) > 0;
        let gap = self.gap(model);
        let next = gap + self.drain.silence_of(model, self.now);
        let first = if self.stays(model).any(serves) { next } else { self.residency.eta(self.now, model)? };
        let settling = self.settling().map_or(Span::ZERO, |until| until.since(self.now));
        Some(settling + first + gap.times(ahead as u64))
    }

    /// The nodes that hold the model and are not about to unload it.
    fn stays(&self, model: ModelId) -> impl Iterator<Item = NodeId> {
        self.fleet.holders(model).filter(move |node| !self.residency.is_leaving((*node, model)))
    }

    /// Advice to come back: when the line will have moved on.
    pub(crate) fn retry_after(&self) -> Span {
        let limits = &self.limits;
        let drained = self.drain.time_for(self.queue.waiting(), self.now);
        let retry_after = drained.unwrap_or(limits.retry_after_unknown);
        retry_after.min(limits.retry_after_max).max(limits.retry_after_min)
    }

    pub(crate) fn verdict_on(
        &self,
        record: &Record,
        mut candidates: Vec<Candidate>,
        standing: Standing,
    ) -> Verdict {
        let (holders, kept) = (candidates.len(), self.limits.candidates_max);
        if let Some(last) = kept.checked_sub(1).filter(|_| holders > kept) {
            candidates.select_nth_unstable_by_key(last, placement::rank);
        }
        candidates.truncate(kept);
        candidates.sort_unstable_by_key(placement::rank);
        Verdict {
            request: record.submission.request,
            model: record.submission.model,
            at: self.now,
            taken_over: record.taken_over.is_some(),
            standing,
            omitted: holders.saturating_sub(candidates.len()),
            without_model: self.fleet.count().saturating_sub(holders),
            candidates,
        }
    }
}

fn count(requests: usize) -> u32 {
    u32::try_from(requests).unwrap_or(u32::MAX)
}
