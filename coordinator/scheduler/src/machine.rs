//! The machine: takes a command, moves the rooms, returns effects.
//!
//! Owns the routing of each fact to the rooms that must know it; `intake`, `adoption`, `endings`, `nodes`, `health` and `homes`
//! are its parts, one for each kind of fact. Refuses policy of its own: where (`placement`), how many (`batcher`), who first (`queue`,
//! `fairness`), how long (`rates`, `answers`, `drain`), whether at all (`overload`, `breaker`, `blame`) and which model where
//! (`residency`) are decided in those rooms. Total: a fact about something unknown, late or impossible changes nothing.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::answers::AnswerBook;
use crate::batcher::Batcher;
use crate::blame::Blame;
use crate::breaker::Breakers;
use crate::command::{Class, Command};
use crate::decisions::Decisions;
use crate::drain::Drain;
use crate::effect::{AbortReason, Effect, Refusal};
use crate::fairness::Fairness;
use crate::fleet::Fleet;
use crate::ids::RequestId;
#[cfg(debug_assertions)]
use crate::invariants;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::overload::Overload;
use crate::prefix::PrefixIndex;
use crate::queue::Queue;
use crate::rates::RateBook;
use crate::reference::Reference;
use crate::requests::Requests;
use crate::residency::Residency;
use crate::retry_budget::RetryBudget;
use crate::time::At;
use crate::turn::Turn;
use crate::wishes::Wishes;

/// The scheduler of a whole cluster.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) limits: Limits,
    pub(crate) now: At,
    pub(crate) requests: Requests,
    pub(crate) queue: Queue,
    pub(crate) fairness: Fairness,
    pub(crate) wishes: Wishes,
    pub(crate) overload: Overload,
    pub(crate) fleet: Fleet,
    pub(crate) batcher: Batcher,
    pub(crate) ledger: Ledger,
    pub(crate) rates: RateBook,
    pub(crate) answers: AnswerBook,
    pub(crate) reference: Reference,
    pub(crate) prefixes: PrefixIndex,
    pub(crate) breakers: Breakers,
    pub(crate) blame: Blame,
    pub(crate) retries: RetryBudget,
    pub(crate) residency: Residency,
    pub(crate) drain: Drain,
    pub(crate) decisions: Decisions,
    /// When a new leader will have been told what runs.
    pub(crate) settles_at: Option<At>,
    /// Batch work that waits, by the time when it will count as interactive.
    pub(crate) ageing: BTreeSet<(At, RequestId)>,
    /// When some node's prompts will be few enough for one more, while somebody waits.
    pub(crate) prompts_done_at: Option<At>,
    /// Requests that hold back from an open node, by the time when they will no longer.
    pub(crate) holding: BTreeSet<(At, RequestId)>,
}

impl Scheduler {
    /// An empty room. Nodes, models and facts arrive as commands.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let assumed = limits.rates;
        let reference = Reference::new(
            1.0 / f64::from(assumed.prefill_tokens_per_s),
            f64::from(assumed.step_ms) / 1e3,
            limits.models_learned_max,
        );
        Self {
            now: At(0),
            requests: Requests::default(),
            queue: Queue::default(),
            fairness: Fairness::new(limits.turn, limits.tenants_idle_max),
            wishes: Wishes::default(),
            overload: Overload::default(),
            fleet: Fleet::default(),
            batcher: Batcher::default(),
            ledger: Ledger::default(),
            rates: RateBook::new(&limits),
            answers: AnswerBook::new(&limits),
            reference,
            prefixes: PrefixIndex::new(&limits.prefixes),
            breakers: Breakers::new(limits.jitter_seed),
            blame: Blame::default(),
            retries: RetryBudget::new(&limits.retries),
            residency: Residency::new(&limits),
            drain: Drain::default(),
            decisions: Decisions::default(),
            settles_at: None,
            ageing: BTreeSet::new(),
            holding: BTreeSet::new(),
            prompts_done_at: None,
            limits,
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
        self.watch_health(&mut turn);
        // Before anything starts: nothing is sent to a model that is about to go.
        self.plan_homes(&mut turn);
        // Whether a node that drains serves depends on all others.
        turn.due.extend(self.fleet.draining().flat_map(|node| self.fleet.ready(node)));
        self.settle(&mut turn);
        self.prompts_done_at = match self.queue.waiting() {
            0 => None,
            _ => self.ledger.next_backlog_at(self.limits.bind_ahead, self.now),
        };
        #[cfg(debug_assertions)]
        debug_assert_eq!(
            invariants::checked_in_debug(self, effects.get(before..).unwrap_or_default()),
            Ok(())
        );
    }

    fn route(&mut self, command: Command, turn: &mut Turn<'_>) {
        match command {
            Command::Submit(submission) => self.submit(submission, turn),
            Command::Adopt { submission, attempt, running } => self.adopt(submission, attempt, running, turn),
            Command::Cancel { request } => self.cancel(request, turn),
            Command::Began { request, attempt } => self.began(request, attempt, turn),
            Command::Finished { request, attempt, outcome, usage } => {
                if let Some(run) = self.requests.run(request, attempt) {
                    self.finished(request, run, outcome, usage, turn);
                } else if outcome.ends_the_request() && self.requests.was_made(request, attempt) {
                    // Its gateway has forgotten it by now, whichever attempt it was that ended it.
                    self.cancel(request, turn);
                }
            }
            Command::NodeReported { node, report } => self.node_reported(node, report, turn),
            Command::NodeLost { node } => self.node_lost(node, turn),
            Command::NodeDraining { node, draining } => {
                self.fleet.drain(node, draining, self.limits.nodes_max);
                turn.due.extend(self.fleet.ready(node));
            }
            Command::Reserved { reservation, granted } => self.reserved(reservation, granted, turn),
            Command::Probed { probe, result } => self.probed(probe, result, turn),
            Command::Policy { model, policy } => self.residency.policy(turn.at, model, policy),
            Command::Weight { tenant, permille } => {
                self.fairness.weigh(tenant, permille);
                self.queue.reorder(tenant, self.fairness.turns(tenant));
            }
            Command::Recall(fact) => self.recall(fact),
            Command::Lead { settles_at } => self.lead(settles_at, turn),
            Command::Wake => {}
        }
    }

    /// What has come with time alone.
    fn expire(&mut self, turn: &mut Turn<'_>) {
        while let Some((_, request)) = self.requests.first_deadline().filter(|(at, _)| *at <= turn.at) {
            match self.requests.get(request).and_then(|record| record.run) {
                Some(_) => self.abort(request, AbortReason::DeadlineExceeded, turn),
                None => self.refuse(request, Refusal::Expired, turn),
            }
        }
        self.settled(turn);
        while let Some((_, lane)) = self.batcher.first_pause().filter(|(until, _)| *until <= turn.at) {
            self.batcher.resume(lane);
            turn.due.insert(lane.1);
        }
        while let Some((at, request)) = self.ageing.first().copied().filter(|(at, _)| *at <= turn.at) {
            self.ageing.remove(&(at, request));
            self.promote(request, turn);
        }
        while let Some((at, request)) = self.holding.first().copied().filter(|(at, _)| *at <= turn.at) {
            self.holding.remove(&(at, request));
            turn.due.extend(self.requests.get(request).map(|record| record.submission.model));
        }
        self.reconsider(turn);
        if self.backlog_is_done(turn.at) {
            turn.due.extend(self.queue.lengths().map(|(model, _)| model));
        }
    }

    /// Whether to hold back is a matter of moments: it is decided anew with every fact and every start.
    pub(crate) fn reconsider(&self, turn: &mut Turn<'_>) {
        let holding = self.holding.iter().filter_map(|(_, request)| self.requests.get(*request));
        turn.due.extend(holding.map(|record| record.submission.model));
    }

    /// Batch work that has waited long enough stands with the interactive work, by its rank.
    fn promote(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get_mut(request).filter(|record| record.run.is_none()) else {
            return;
        };
        let (model, before) = (record.submission.model, record.place());
        record.class = Class::Interactive;
        let place = record.place();
        self.queue.remove(model, &before);
        self.queue.insert(model, &place, self.fairness.turns(place.tenant));
        turn.due.insert(model);
    }
}

#[cfg(test)]
mod dispatch_tests;
#[cfg(test)]
mod homes_tests;
#[cfg(test)]
mod learning_tests;
#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod rig_tests;
#[cfg(test)]
mod trust_tests;
