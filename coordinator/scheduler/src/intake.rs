//! A request arrives: is it taken in, where does it stand, and what is it told.
//!
//! Owns the door. A request is refused at once, never after a wait, when its end can be told: it is a duplicate, it is in
//! quarantine, it cannot be in time, or the line is too long for its class and its tenant. Everything else is taken in and is
//! answered.
//!
//! The rules of the door, each numbered where it is applied:
//!
//! 1. A number that is alive is not taken twice.
//! 2. A request that brought down two runtimes does not run.
//! 3. A request whose first token cannot come in time, even on the fastest node or after its wait in line, is refused.
//! 4. Batch work is refused from the rung [`Rung::RefuseBatch`] on.
//! 5. On the rung [`Rung::Full`] a tenant is refused that has its share of the line already; one that has less is taken in.
//! 6. Nobody is taken in beyond the bound of memory.
//! 7. A model that no node can come to hold is refused with what would fit.
//!
//! Rules 4 to 7 and the wait in 3 are for those who must wait: what can start at once does. What an earlier leader had accepted comes in by
//! `adoption`.

use crate::command::{Class, Submission};
use crate::effect::{Effect, Refusal};
use crate::ids::{Attempt, ModelId, NodeId, RequestId};
use crate::machine::Scheduler;
use crate::overload::Rung;
use crate::requests::Record;
use crate::time::{At, Span};
use crate::turn::Turn;
use crate::verdict::Standing;

impl Scheduler {
    pub(crate) fn submit(&mut self, submission: Submission, turn: &mut Turn<'_>) {
        let request = submission.request;
        let submission = Submission { arrived: submission.arrived.min(turn.at), ..submission };
        // 1
        if self.requests.get(request).is_some() {
            turn.effects.push(Effect::Refuse { request, refusal: Refusal::Duplicate });
            return;
        }
        let record = self.assessed(submission);
        let submission = &record.submission;
        // 2
        if self.is_quarantined(submission) {
            self.refuse_unadmitted(&record, Refusal::Quarantined, turn);
            return;
        }
        // 3; one that has no time left expires like any other
        let left = submission.deadline.since(turn.at);
        let early = self.is_early(submission, left) || self.settling().is_some();
        let late = match early || left == Span::ZERO {
            true => None,
            false => self.first_token_at_best(submission).filter(|needed| *needed > left),
        };
        if let Some(needed) = late {
            self.refuse_unadmitted(&record, Refusal::DeadlineUnreachable { needed }, turn);
            return;
        }
        self.admit(record, turn);
        self.enter(request, turn);
    }

    /// It is alive from now on.
    pub(crate) fn admit(&mut self, record: Record, turn: &Turn<'_>) {
        let (tenant, model) = (record.submission.tenant, record.submission.model);
        self.residency.arrived(turn.at, model, record.work);
        self.fairness.entered(tenant);
        self.requests.admit(record);
        self.reorder(tenant);
    }

    /// How long its answer will be, how much room it needs, and where it stands among its tenant's requests.
    pub(crate) fn assessed(&self, submission: Submission) -> Record {
        let limits = &self.limits;
        let (tenant, model, most) = (submission.tenant, submission.model, submission.max_tokens);
        let output_tokens = match submission.output_tokens {
            Some(tokens) => tokens.min(most).max(1),
            None => self.answers.mean(tenant, model, most),
        };
        let long = self.answers.quantile(tenant, model, most, limits.kv_quantile_permille);
        let kv_tokens = submission.prompt_tokens.saturating_add(long.max(output_tokens).min(most)).max(1);
        let cached = self.cached_anywhere(&submission);
        let work = self.reference.work(model, submission.prompt_tokens.saturating_sub(cached), output_tokens);
        let handicap = work.times(limits.size_handicap).min(limits.handicap_max);
        let slack = At(submission.deadline.0.saturating_sub(work.times(2).0));
        Record {
            class: submission.class,
            output_tokens,
            kv_tokens,
            rank: (submission.arrived + handicap).min(slack.max(submission.arrived)),
            work,
            attempt: Attempt::default(),
            taken_over: None,
            failed: 0,
            migrations: 0,
            carried_tokens: 0,
            failures: alloc::vec::Vec::new(),
            wishes: alloc::vec::Vec::new(),
            holding_since: None,
            run: None,
            submission,
        }
    }

    /// Into the line, at its place.
    pub(crate) fn enter(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get(request) else { return };
        let (model, place) = (record.submission.model, record.place());
        self.queue.insert(model, &place, self.fairness.turns(place.tenant));
        if record.class == Class::Batch {
            self.ageing.insert((record.submission.arrived + self.limits.batch_ageing, request));
        }
        turn.due.insert(model);
        turn.entered.push(request);
        self.wish(request);
    }

    /// It is entered in the lists of the nodes that have most of its prefix.
    fn wish(&mut self, request: RequestId) {
        let Some(record) = self.requests.get(request).filter(|record| !record.is_marked()) else {
            return;
        };
        let (model, rank) = (record.submission.model, record.rank);
        let mut cached = self.cached_tokens(&record.submission);
        cached.sort_unstable_by_key(|(node, tokens)| (core::cmp::Reverse(*tokens), *node));
        cached.truncate(self.limits.wishes_max);
        let nodes: alloc::vec::Vec<NodeId> = cached.into_iter().map(|(node, _)| node).collect();
        nodes.iter().for_each(|node| self.wishes.add((*node, model), rank, request));
        if let Some(record) = self.requests.get_mut(request) {
            record.wishes = nodes;
        }
    }

    /// It entered the queue and could not start at once: it is told its place, or refused.
    pub(crate) fn tell_waiting(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get(request).filter(|record| record.run.is_none()) else { return };
        let refusal = match record.taken_over {
            Some(_) => self.homeless(record.submission.model).map(Refusal::NoCapacity),
            None => self.door(record).filter(|_| record.is_newcomer()),
        };
        match refusal {
            Some(refusal) => self.refuse(request, refusal, turn),
            None => turn.effects.extend(self.queued(request)),
        }
    }

    /// Rules 3 to 7 for a newcomer that must wait.
    fn door(&self, record: &Record) -> Option<Refusal> {
        let (model, tenant) = (record.submission.model, record.submission.tenant);
        let rung = self.overload.rung(model);
        // 7
        if let Some(why) = self.homeless(model) {
            return Some(Refusal::NoCapacity(why));
        }
        // 4
        if record.class == Class::Batch && rung >= Rung::RefuseBatch {
            return Some(Refusal::Shed { retry_after: self.retry_after() });
        }
        // 5
        let tenants = u64::try_from(self.queue.tenants()).unwrap_or(u64::MAX).max(1);
        let share = Span(self.queue.work().0.checked_div(tenants).unwrap_or_default());
        if rung == Rung::Full && self.queue.work_of(tenant) >= share {
            return Some(Refusal::QueueFull { retry_after: self.retry_after() });
        }
        // 6
        if self.queue.waiting() > self.limits.waiting_max {
            return Some(Refusal::QueueFull { retry_after: self.retry_after() });
        }
        // 3; a wait is a guess, so only one that is clearly too long refuses anybody
        let left = record.submission.deadline.since(self.now);
        let wait = self.position_of(record).eta.filter(|_| self.settling().is_none())?;
        if wait < left && self.is_early(&record.submission, left) {
            return None;
        }
        let needed = wait + self.first_token_at_best(&record.submission)?;
        (needed > left.times(2)).then_some(Refusal::DeadlineUnreachable { needed })
    }

    /// The line of `model` changed: how far is service taken back?
    pub(crate) fn measure_line(&mut self, model: ModelId, turn: &mut Turn<'_>) {
        if self.settling().is_some() {
            return;
        }
        let delay = self.reference.shared(model, self.queue.work_for(model));
        let Some(rung) = self.overload.measured(model, delay, &self.limits.overload) else { return };
        turn.due.insert(model);
        if rung < Rung::ShedBatch {
            return;
        }
        for request in self.queue.of_class(model, Class::Batch) {
            if self.requests.get(request).is_some_and(Record::is_newcomer) {
                let retry_after = self.retry_after();
                self.refuse(request, Refusal::Shed { retry_after }, turn);
            }
        }
    }

    /// The tenant's counter moved.
    pub(crate) fn reorder(&mut self, tenant: crate::ids::TenantId) {
        self.queue.reorder(tenant, self.fairness.turns(tenant));
    }

    /// The request will not run: it is forgotten, and the log keeps why.
    pub(crate) fn refuse(&mut self, request: RequestId, refusal: Refusal, turn: &mut Turn<'_>) {
        let Some(record) = self.leave(request, turn) else { return };
        self.refuse_unadmitted(&record, refusal, turn);
    }

    pub(crate) fn refuse_unadmitted(&mut self, record: &Record, refusal: Refusal, turn: &mut Turn<'_>) {
        let candidates = self.candidates(record, &self.sites(record.submission.model));
        let verdict = self.verdict_on(record, candidates, Standing::Refused(refusal.clone()));
        self.decisions.record(verdict, self.limits.decisions_max);
        turn.effects.push(Effect::Refuse { request: record.submission.request, refusal });
    }
}
