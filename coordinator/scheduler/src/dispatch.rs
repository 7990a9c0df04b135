//! From the line to a node: tries waiting requests against nodes until nothing more can start.
//!
//! Owns the walk. Of the models with news the one whose first waits most urgently goes first, anew after each start, so that models
//! on one Mac share it by the same order as requests do. Within a line:
//!
//! 1. The first of the line are asked, and those who wish for an open node because it has their prefix cached.
//! 2. One that would end sooner by waiting for a better node may wait, unless what those behind it win by moving up is more, but for
//!    those of tenants that have had more. So a short line waits for fast nodes, a long one uses all, and nobody gives way to a flood.
//! 3. Of those that remain, the one starts whose start costs least: what it loses by not waiting, and its share of the line's
//!    wait, which is less on a node that suits it (its prefix, or long prompts where prefill is strong). With nobody behind, the
//!    first in line.
//! 4. By that nobody overtakes the first who could start by much, nor a higher class, nor, once they have waited for a while or it
//!    floods the line, those whose turn has come before.
//!
//! Refuses to judge nodes: `candidates` gathers what is known of them and `placement` scores it.

use alloc::vec::Vec;

use crate::candidates::Site;
use crate::effect::{Affinity, Effect, Refusal};
use crate::ids::{Attempt, Lane, ModelId, RequestId};
use crate::ledger::Booking;
use crate::limits::AFFINITY_TURNS;
use crate::machine::Scheduler;
use crate::placement::{self, Candidate, Choice, Gate};
use crate::prefix::Visit;
use crate::queue::CountBounds;
use crate::requests::{Record, Run};
use crate::time::Span;
use crate::turn::Turn;
use crate::verdict::Standing;

impl Scheduler {
    /// Starts what can start; then tells those who entered the queue and still wait.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.start_and_measure(turn);
        for request in core::mem::take(&mut turn.entered) {
            self.tell_waiting(request, turn);
        }
        // Who was refused at the door leaves the line shorter, and may have been whom batch work waited for.
        self.start_and_measure(turn);
    }

    fn start_and_measure(&mut self, turn: &mut Turn<'_>) {
        loop {
            turn.changed.extend(turn.due.iter().copied());
            self.start_all(turn);
            while let Some(model) = turn.changed.pop_first() {
                self.measure_line(model, turn);
            }
            // A rung that was left may let batch work start.
            if turn.due.is_empty() {
                return;
            }
        }
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
        let sites = self.sites(model);
        let saved = self.gap(model).times(behind(self.queue.length(model)));
        let mut best: Option<(Span, RequestId, Candidate, Vec<Candidate>)> = None;
        let mut front = None;
        for request in self.worth_trying(model, &sites) {
            let Some(record) = self.requests.get(request).filter(|record| self.may_start(record)) else {
                continue;
            };
            // A copy of it was found out while this one waited.
            if self.is_quarantined(&record.submission) {
                self.refuse(request, Refusal::Quarantined, turn);
                return true;
            }
            if front.is_some_and(|front| !self.may_overtake(record, front)) {
                continue;
            }
            let candidates = self.candidates(record, &sites);
            let (open, later) = match placement::choose(&self.ask(record), &candidates) {
                Choice::Start(open) => (open, Span::ZERO),
                Choice::Hold { open, later } => {
                    self.hold(request, turn);
                    (open, later)
                }
                Choice::Wait if is_too_late(&candidates) => {
                    let needed = candidates.iter().map(|candidate| candidate.terms.first_token()).min();
                    let needed = needed.unwrap_or_default();
                    self.refuse(request, Refusal::DeadlineUnreachable { needed }, turn);
                    return true;
                }
                Choice::Wait => continue,
            };
            // 2
            if later > Span::ZERO && !self.claims_outweigh(request, later) {
                continue;
            }
            // 3
            front = front.or(Some(request));
            let cost = later + self.share_of_line(request, &open, saved);
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, request, open, candidates));
            }
        }
        let Some((_, request, open, candidates)) = best else { return false };
        self.start(request, &open, candidates, turn);
        true
    }

    /// What those behind in line pay for this start: their wait for one place, times what this request takes of the node as a
    /// share of what requests of its size take of nodes of that speed.
    fn share_of_line(&self, request: RequestId, open: &Candidate, saved: Span) -> Span {
        let Some(record) = self.requests.get(request).filter(|_| saved > Span::ZERO) else {
            return Span::ZERO;
        };
        let (model, prompt, output) =
            (record.submission.model, record.submission.prompt_tokens, record.output_tokens);
        let speed = self.rates.speed((open.node, model));
        let pace = self.reference.pace(model);
        // As wide as the pace was measured, so that on a node like all others each request is of its usual size.
        let width = self.batcher.limit((open.node, model)).clamp(1, self.limits.usual_width.max(1));
        let decode_s = speed.step_s(width, 0) / f64::from(width);
        let slowness = (speed.token_s / pace.prefill_s + decode_s / pace.decode_s) / 2.0;
        let usual_s = slowness * (f64::from(prompt) * pace.prefill_s + f64::from(output) * pace.decode_s);
        let own_s = speed.prefill_s(prompt.saturating_sub(open.cached_tokens), open.cached_tokens)
            + f64::from(output) * decode_s;
        placement::span(&self.limits, saved.0 as f64 / 1e6 * (own_s / usual_s))
    }

    /// The requests to try now: the first of the line, then those behind them who wish for a node that is open.
    fn worth_trying(&self, model: ModelId, sites: &[Site]) -> Vec<RequestId> {
        let mut tried = self.queue.window(model, self.window(sites.len()));
        let Some(first) = tried.first().copied() else { return tried };
        let open = sites.iter().filter(|site| site.gate.is_none());
        let wishes = open.flat_map(|site| self.wishes.of((site.node, model)).take(self.limits.wishes_tried));
        let records = wishes.filter_map(|(_, request)| self.requests.get(request));
        let near = records.filter(|record| self.may_overtake(record, first));
        tried.extend(near.map(|record| record.submission.request));
        tried
    }

    /// How many of a line are tried against so many nodes.
    pub(crate) fn window(&self, nodes: usize) -> usize {
        let limits = &self.limits;
        let affordable = limits.judged_max.checked_div(nodes).unwrap_or(limits.judged_max);
        affordable.clamp(limits.window_min, limits.window)
    }

    /// What those behind it win by moving up is at least so much. Counted are those whose tenants have had no more than its own:
    /// nobody gives way to a tenant that is ahead of it.
    fn claims_outweigh(&self, request: RequestId, later: Span) -> bool {
        let Some(record) = self.requests.get(request) else { return false };
        let model = record.submission.model;
        let (gap, turns) = (self.gap(model), self.fairness.turns(record.submission.tenant));
        // The fewest for whom it pays, itself included: the line may be long, and no more need be counted.
        let Some(behind) =
            later.0.checked_add(gap.0.saturating_sub(1)).and_then(|most| most.checked_div(gap.0))
        else {
            return false;
        };
        let enough = usize::try_from(behind).unwrap_or(usize::MAX).saturating_add(1);
        let bounds = CountBounds { heads: self.limits.heads_counted, enough };
        self.queue.up_to(model, record.class, turns, bounds) >= enough
    }

    /// 4
    fn may_overtake(&self, record: &Record, first: RequestId) -> bool {
        let Some(first) = self.requests.get(first) else { return true };
        (record.is_marked() || !first.is_marked())
            && record.class <= first.class
            && record.rank <= first.rank + self.limits.affinity_overtake
            && (self.is_in_turn(record, first) || self.is_young(first) && !self.floods(record))
    }

    /// Its tenant is not ahead by much.
    fn is_in_turn(&self, record: &Record, first: &Record) -> bool {
        let turns = |record: &Record| self.fairness.turns(record.submission.tenant).0;
        turns(record) <= turns(first).saturating_add(AFFINITY_TURNS)
    }

    /// It has not waited long.
    fn is_young(&self, record: &Record) -> bool {
        self.now.since(record.submission.arrived) < self.limits.patience
    }

    /// Its tenant's own line alone is long.
    fn floods(&self, record: &Record) -> bool {
        let submission = &record.submission;
        self.reference.shared(submission.model, self.queue.work_of(submission.tenant)) > self.limits.flood
    }

    /// It could start and does better to wait, but not for ever.
    fn hold(&mut self, request: RequestId, turn: &Turn<'_>) {
        let hold_max = self.limits.hold_max;
        if let Some(record) = self.requests.get_mut(request).filter(|record| record.holding_since.is_none()) {
            record.holding_since = Some(turn.at);
            self.holding.insert((turn.at + hold_max, request));
        }
    }

    fn start(
        &mut self,
        request: RequestId,
        best: &Candidate,
        candidates: Vec<Candidate>,
        turn: &mut Turn<'_>,
    ) {
        self.unqueue(request);
        let Some(record) = self.requests.get(request) else { return };
        let lane = (best.node, record.submission.model);
        let attempt = Attempt(record.attempt.0.saturating_add(1));
        let standing = Standing::Dispatched { attempt, node: best.node };
        let verdict = self.verdict_on(record, candidates, standing);
        let affinity = self.affinity(record, best);
        let mut run = self.run(record, best, turn);
        let booking = self.booking(record, best, turn);
        let (tenant, session, blocks) =
            (record.submission.tenant, record.submission.session, record.submission.blocks.clone());
        self.decisions.record(verdict, self.limits.decisions_max);
        self.book_on(lane, booking, turn);
        self.fairness.charge(tenant, run.charged);
        self.reorder(tenant);
        run.visit = self.prefixes.dispatched(lane, session, &blocks, turn.at);
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

    pub(crate) fn book_on(&mut self, lane: Lane, booking: Booking, turn: &Turn<'_>) {
        self.ledger.start(lane, booking, turn.at);
        self.batcher.carries(lane, self.ledger.on_lane(lane));
    }

    /// How the ledger counts the attempt.
    pub(crate) fn booking(&self, record: &Record, best: &Candidate, turn: &Turn<'_>) -> Booking {
        Booking {
            request: record.submission.request,
            prefill: best.terms.prefill,
            kv_tokens: record.kv_tokens,
            ends: turn.at + best.terms.wait + best.terms.prefill + best.terms.decode,
            isolation: self.isolation(record),
        }
    }

    pub(crate) fn run(&self, record: &Record, best: &Candidate, turn: &Turn<'_>) -> Run {
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

/// Who wins a place when one of so many starts elsewhere or later.
fn behind(length: usize) -> u64 {
    u64::try_from(length.saturating_sub(1)).unwrap_or(u64::MAX)
}

/// No node can send its first token in time, however long it waits.
fn is_too_late(candidates: &[Candidate]) -> bool {
    !candidates.is_empty() && candidates.iter().all(|candidate| candidate.gate == Some(Gate::TooLate))
}
