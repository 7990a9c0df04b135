//! What the outside may see: positions, load, verdicts, the next wake-up, and what is outstanding.
//!
//! Owns the read-only side of the scheduler. Refuses to change anything.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::effect::{Effect, Refusal, Why};
use crate::ids::{ModelId, NodeId, RequestId};
use crate::machine::Scheduler;
use crate::placement;
use crate::queue::Place;
use crate::requests::Record;
use crate::time::{At, Span};
use crate::verdict::{Standing, Verdict};

/// Where a waiting request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// How many wait before it for the same model.
    pub ahead: u32,
    /// When it will probably start; `None` while no node can serve the model.
    pub eta: Option<Span>,
}

/// How much there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Each model somebody waits for or that runs.
    pub models: BTreeMap<ModelId, ModelLoad>,
    /// Attempts in flight on each known node, idle ones too.
    pub nodes: BTreeMap<NodeId, usize>,
}

/// How much there is to do for one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelLoad {
    /// Requests that wait.
    pub waiting: usize,
    /// Attempts in flight.
    pub running: usize,
}

impl Scheduler {
    /// When to apply [`crate::Command::Wake`], and what for. Waking at other times does no harm.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(At, Why)> {
        let deadline = self.requests.first_deadline().map(|(at, request)| (at, Why::Deadline { request }));
        let pause =
            self.batcher.first_pause().map(|(at, (node, model))| (at, Why::PauseOver { node, model }));
        deadline.into_iter().chain(pause).min()
    }

    /// Repeats what is outstanding for a shell that lost its side: each running attempt, then each waiting request in its
    /// order. Nothing changes; whoever has it already may ignore it by its attempt number.
    pub fn resume(&self, effects: &mut Vec<Effect>) {
        for record in self.requests.iter() {
            if let Some(run) = record.run {
                let (request, attempt) = (record.submission.request, record.attempt);
                effects.push(Effect::Dispatch { request, attempt, node: run.node });
            }
        }
        for (model, _) in self.queue.lengths() {
            for (ahead, place) in self.queue.line(model).enumerate() {
                effects.push(self.queued(model, place, ahead));
            }
        }
    }

    /// Why the request is where it is. For a waiting request the nodes as the latest command left them, else as they were
    /// when it was decided. `None` when it was never heard of, or so long ago that the log has dropped it.
    #[must_use]
    pub fn explain(&self, request: RequestId) -> Option<Verdict> {
        match self.requests.get(request) {
            Some(record) if record.run.is_none() => {
                let Position { ahead, eta } = self.position_of(record);
                Some(self.verdict(&record.submission, &record.failures, Standing::Waiting { ahead, eta }))
            }
            Some(_) | None => self.decisions.latest(request).cloned(),
        }
    }

    /// Where a waiting request stands; `None` when it does not wait. Linear in those before it.
    #[must_use]
    pub fn position(&self, request: RequestId) -> Option<Position> {
        self.requests
            .get(request)
            .filter(|record| record.run.is_none())
            .map(|record| self.position_of(record))
    }

    /// Counts for metrics.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut load = Load::default();
        load.nodes.extend(self.fleet.nodes().map(|node| (node, 0)));
        for (model, waiting) in self.queue.lengths() {
            load.models.entry(model).or_default().waiting = waiting;
        }
        for ((node, model), running) in self.ledger.lanes() {
            let models = load.models.entry(model).or_default();
            models.running = models.running.saturating_add(running);
            let nodes = load.nodes.entry(node).or_default();
            *nodes = nodes.saturating_add(running);
        }
        load
    }

    fn position_of(&self, record: &Record) -> Position {
        let ahead = self.queue.ahead(record.submission.model, record.place());
        Position { ahead: count(ahead), eta: self.eta(record, ahead) }
    }

    pub(crate) fn queued(&self, model: ModelId, place: Place, ahead: usize) -> Effect {
        let eta = self.requests.get(place.request).and_then(|record| self.eta(record, ahead));
        debug_assert!(self.queue.contains(model, place), "only who waits has a position");
        Effect::Queued { request: place.request, position: count(ahead), eta }
    }

    /// The pace of the model's departures as seen, else as its nodes' rates predict.
    fn eta(&self, record: &Record, ahead: usize) -> Option<Span> {
        let model = record.submission.model;
        let nodes = self.fleet.holders(model).map(|node| self.facts(node, model, false));
        let predicted = placement::predicted_gap(&self.limits, self.ask(&record.submission), nodes)?;
        let gap = self.drain.gap_of(model, self.now).unwrap_or(predicted);
        Some(gap.times(ahead as u64) + gap)
    }

    pub(crate) fn queue_full(&self) -> Refusal {
        let limits = &self.limits;
        let drained = self.drain.gap(self.now).map(|gap| gap.times(self.queue.waiting() as u64));
        let retry_after = drained.unwrap_or(limits.retry_after_unknown);
        Refusal::QueueFull {
            retry_after: retry_after.min(limits.retry_after_max).max(limits.retry_after_min),
        }
    }
}

fn count(requests: usize) -> u32 {
    u32::try_from(requests).unwrap_or(u32::MAX)
}
