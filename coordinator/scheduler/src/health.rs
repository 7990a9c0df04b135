//! What an attempt's end says about the node it ran on, and about the request itself.
//!
//! Owns the translation of endings into the classes of `breaker` and `blame`: hard (it broke), soft (it was late), neutral (it says
//! nothing), overload ("busy", which only the batcher hears). A success is told when the answer has ended, never when it began.
//! Owns also what follows: moves are recorded as facts, a probe is ordered, lines are looked at again.

use alloc::vec::Vec;

use crate::blame::{BlameFact, Charge, Death, Isolation, Lost, Sentence};
use crate::breaker::{Breaker, Ending, HardKind, Health, Move, ProbeNumber, ProbeResult, SoftKind};
use crate::command::{Failure, Submission, Usage};
use crate::effect::{Effect, Refusal};
use crate::fact::Fact;
use crate::ids::{Attempt, Fingerprint, Lane, ModelId, RequestId};
use crate::machine::Scheduler;
use crate::nodes::is_death;
use crate::requests::{Record, Run};
use crate::time::At;
use crate::turn::Turn;

impl Scheduler {
    /// An attempt was sent.
    pub(crate) fn sent(&mut self, lane: Lane, attempt: Attempt, turn: &Turn<'_>) {
        self.breakers.dispatched(lane);
        if attempt == Attempt(1) {
            self.retries.deposit(turn.at, &self.limits.retries);
        }
    }

    /// An attempt ended without a word on its node.
    pub(crate) fn ended_neutrally(&mut self, lane: Lane, run: &Run, turn: &mut Turn<'_>) {
        self.breakers.released(lane, run.generation);
        turn.due.insert(lane.1);
    }

    /// The answer is whole.
    pub(crate) fn completed(
        &mut self,
        lane: Lane,
        request: RequestId,
        run: &Run,
        usage: Usage,
        turn: &mut Turn<'_>,
    ) {
        let health = match self.lateness(lane, run, usage, turn.at) {
            Some(late) => Health::Soft(late),
            None => Health::Success,
        };
        self.observe(lane, request, run, health, turn);
        let fingerprint = self.requests.get(request).map(|record| record.submission.fingerprint);
        if let Some(fact) = fingerprint.and_then(|fingerprint| self.blame.completed(fingerprint)) {
            turn.effects.push(Effect::Record(Fact::Blame(fact)));
        }
    }

    /// The attempt broke. When its runtime died, all that ran there are charged, once.
    pub(crate) fn failed(
        &mut self,
        lane: Lane,
        request: RequestId,
        run: &Run,
        failure: Failure,
        turn: &mut Turn<'_>,
    ) {
        let kind = match failure {
            Failure::Reset | Failure::Internal => HardKind::Reset,
            Failure::RuntimeExit => HardKind::RuntimeExit,
            Failure::Hang => HardKind::Hang,
            Failure::Corrupt => HardKind::CorruptFrame,
        };
        if is_death(failure) && !run.charged_with_death {
            let present = self.ledger.requests_on_lane(lane);
            self.charge(&present, None, turn);
        }
        self.observe(lane, request, run, Health::Hard(kind), turn);
    }

    /// A node is gone, with all that ran there.
    pub(crate) fn node_died(&mut self, lost: Lost, held: &[ModelId], ran: &[RequestId], turn: &mut Turn<'_>) {
        let node = lost.node;
        // A node is missed only after a silence: what was sent into it has not caused it.
        let unheard = self.limits.blame.unheard;
        let was_there = |request: &&RequestId| {
            let run = self.requests.get(**request).and_then(|record| record.run);
            run.is_some_and(|run| run.began.is_some() || turn.at.since(run.dispatched) >= unheard)
        };
        let present: Vec<RequestId> = ran.iter().filter(was_there).copied().collect();
        self.charge(&present, Some(lost), turn);
        for request in ran {
            let run =
                self.requests.get(*request).and_then(|record| Some((record.submission.model, record.run?)));
            if let Some((model, run)) = run {
                self.observe((node, model), *request, &run, Health::Hard(HardKind::NodeLost), turn);
            }
        }
        let mut moves = Vec::new();
        self.breakers.node_lost(turn.at, node, &self.limits.breaker, &mut moves);
        for model in held {
            self.breakers.forget(turn.at, (node, *model), &self.limits.breaker, &mut moves);
        }
        self.record(moves, turn);
    }

    /// A node is there that was not. If it is in the life it was lost in, nobody there had died.
    pub(crate) fn node_returned(&mut self, back: Lost, turn: &mut Turn<'_>) {
        let facts = self.blame.returned(back, &self.limits.blame);
        if !facts.is_empty() {
            // Who had to run alone may have company now.
            turn.due.extend(self.queue.lengths().map(|(model, _)| model));
        }
        turn.effects.extend(facts.into_iter().map(|fact| Effect::Record(Fact::Blame(fact))));
    }

    /// Charges a death to all that were present.
    fn charge(&mut self, present: &[RequestId], lost: Option<Lost>, turn: &mut Turn<'_>) {
        let mut fingerprints: Vec<Fingerprint> = Vec::new();
        for request in present {
            let Some(record) = self.requests.get_mut(*request) else { continue };
            let Some(run) = record.run.as_mut().filter(|run| !run.charged_with_death) else { continue };
            run.charged_with_death = true;
            fingerprints.push(record.submission.fingerprint);
        }
        if fingerprints.is_empty() {
            return;
        }
        let death = Death { present: &fingerprints, alone: present.len() == 1, lost };
        let charges = self.blame.died(turn.at, &death, &self.limits.blame);
        turn.effects.extend(
            charges.into_iter().map(|charge| Effect::Record(Fact::Blame(BlameFact::Charged(charge)))),
        );
    }

    /// Whether this request must not be tried again after what it did.
    pub(crate) fn condemned(&self, fingerprint: Fingerprint, at: At) -> Option<Refusal> {
        let charge: Charge = self.blame.charge(at, fingerprint, &self.limits.blame)?;
        match charge.sentence {
            Sentence::Suspect => None,
            Sentence::GiveUp => Some(Refusal::NodeLost),
            Sentence::Quarantine => Some(Refusal::Quarantined),
        }
    }

    /// Whether it brought down two runtimes.
    pub(crate) fn is_quarantined(&self, submission: &Submission) -> bool {
        self.blame.is_quarantined(self.now, submission.fingerprint, &self.limits.blame)
    }

    /// Whether the request must be kept from others.
    pub(crate) fn isolation(&self, record: &Record) -> Isolation {
        self.blame.isolation(self.now, record.submission.fingerprint, &self.limits.blame)
    }

    /// The canary's answer.
    pub(crate) fn probed(&mut self, probe: ProbeNumber, result: ProbeResult, turn: &mut Turn<'_>) {
        let mut moves = Vec::new();
        self.breakers.probed(turn.at, probe, result, &self.limits.breaker, &mut moves);
        self.record(moves, turn);
        // The one real request may come from any line.
        turn.due.extend(self.queue.lengths().map(|(model, _)| model));
    }

    /// A runtime is there.
    pub(crate) fn trust(&mut self, lane: Lane) {
        self.breakers.report(lane, &self.limits.breaker);
    }

    /// A runtime is there no more.
    pub(crate) fn untrust(&mut self, lane: Lane, turn: &mut Turn<'_>) {
        let mut moves = Vec::new();
        self.breakers.forget(turn.at, lane, &self.limits.breaker, &mut moves);
        self.record(moves, turn);
    }

    /// Orders the probe whose turn it is, and relieves models that no breaker leaves a node.
    pub(crate) fn watch_health(&mut self, turn: &mut Turn<'_>) {
        let mut moves = Vec::new();
        let all_trusted = !self.breakers.any_shut();
        let lines: Vec<ModelId> =
            self.queue.lengths().map(|(model, _)| model).filter(|_| !all_trusted).collect();
        for model in lines {
            let usable = self.fleet.holders(model).filter(|node| !self.is_drained((*node, model)));
            let replicas: Vec<Lane> = usable.map(|node| (node, model)).collect();
            self.breakers.relieve(turn.at, &replicas, &self.limits.breaker, &mut moves);
        }
        let order = self.breakers.due(turn.at, &self.limits.breaker, &mut moves);
        self.record(moves, turn);
        if let Some(order) = order {
            let (node, model) = order.lane;
            turn.effects.push(Effect::Probe { probe: order.number, node, model });
        }
    }

    /// The canary that nobody has answered yet.
    pub(crate) fn canary_outstanding(&self) -> Option<Effect> {
        let order = self.breakers.ordered()?;
        let (node, model) = order.lane;
        Some(Effect::Probe { probe: order.number, node, model })
    }

    fn observe(&mut self, lane: Lane, request: RequestId, run: &Run, health: Health, turn: &mut Turn<'_>) {
        let usable = self.fleet.holders(lane.1).filter(|node| !self.is_drained((*node, lane.1)));
        let ending = Ending {
            lane,
            generation: run.generation,
            request,
            health,
            replicas: usable.count(),
            width: self.batcher.limit(lane),
        };
        let mut moves = Vec::new();
        self.breakers.observe(turn.at, &ending, &self.limits.breaker, &mut moves);
        self.record(moves, turn);
    }

    fn record(&mut self, moves: Vec<Move>, turn: &mut Turn<'_>) {
        for step in moves {
            match step.breaker {
                Breaker::Lane((_, model)) => {
                    turn.due.insert(model);
                }
                Breaker::Node(node) => turn.due.extend(self.fleet.ready(node)),
            }
            turn.effects.push(Effect::Record(Fact::Breaker(step)));
        }
    }

    /// Whether a whole answer was far later than was to be expected when it was sent.
    fn lateness(&self, lane: Lane, run: &Run, usage: Usage, at: At) -> Option<SoftKind> {
        let limits = &self.limits;
        let began = run.began?;
        let first_token_max = run.first_token.times(limits.late_factor).max(limits.late_first_token_min);
        if began.since(run.dispatched) > first_token_max {
            return Some(SoftKind::FirstTokenLate);
        }
        let tokens = u64::from(usage.generated.saturating_sub(1));
        // Between two tokens there may be a piece of somebody else's prompt; that is no sign of ill health.
        let chunk_s = self.rates.speed(lane).prefill_s(self.prefill_chunk(lane), 0);
        let token = run.step + crate::placement::span(limits, chunk_s);
        let expected = token.times(tokens);
        // Whoever reads slowly holds up a runtime that is well.
        let took = at.since(began).less(usage.held);
        let late = took > expected.times(limits.late_factor).max(limits.late_first_token_min);
        late.then_some(SoftKind::TokensLate)
    }
}
