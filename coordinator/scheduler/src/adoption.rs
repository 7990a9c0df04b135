//! A request that an earlier leader had accepted: into the line, or into the ledger.
//!
//! Owns the taking over. A new leader knows nothing of requests; every gateway tells it those whose clients it holds, and where each
//! of them runs. Refuses guesses: what a gateway has not told does not run, what it has told runs until the gateway says how that
//! ended or the deadline comes, whatever the node's reports say or fail to say. What earlier leaders had counted against a request
//! is not known and counts no more, but for the deaths it was charged with, which are facts.
//!
//! 1. A number that is alive is left as it is: it was told twice, or this leader knows better.
//! 2. It was accepted, so of the rules of the door those about load are not for it, nor is a first guess at its wait. One that waits
//!    is refused when it is in quarantine, when its deadline has passed or no node can keep it, and when no node can come to hold
//!    its model.
//! 3. One that waits stands in line by its arrival. If an attempt of it came to nothing it is marked, as it was under the earlier
//!    leader: its turn had come then, and the turns of tenants, which begin anew, must not make it wait for another.
//! 4. One that runs is booked as if it had been sent now, before its node has reported: a place, its KV tokens, its prefill unless
//!    it has begun. Its tenant is charged in full, and settles when it ends like any other.
//! 5. With that a runtime may carry more than its limit: two leaders decided. Nothing is sent there until it carries less.
//! 6. Beyond the bound of memory nothing is taken over.

use alloc::vec::Vec;

use crate::command::{Adopted, Submission};
use crate::effect::Refusal;
use crate::ids::{Attempt, Lane, RequestId};
use crate::ledger::Booking;
use crate::machine::Scheduler;
use crate::requests::{Record, Run};
use crate::turn::Turn;
use crate::verdict::{Standing, Verdict};

impl Scheduler {
    pub(crate) fn adopt(
        &mut self,
        submission: Submission,
        attempt: Attempt,
        running: Option<Adopted>,
        turn: &mut Turn<'_>,
    ) {
        let request = submission.request;
        // 1
        if self.requests.get(request).is_some() {
            return;
        }
        let submission = Submission { arrived: submission.arrived.min(turn.at), ..submission };
        let over = attempt.0.saturating_sub(u32::from(running.is_some()));
        let record = Record { attempt, taken_over: Some(over), ..self.assessed(submission) };
        // 6
        if self.requests.count() >= self.limits.adopted_max {
            let retry_after = self.retry_after();
            self.refuse_unadmitted(&record, Refusal::QueueFull { retry_after }, turn);
            return;
        }
        // 2
        if running.is_none() && self.is_quarantined(&record.submission) {
            self.refuse_unadmitted(&record, Refusal::Quarantined, turn);
            return;
        }
        self.admit(record, turn);
        match running {
            Some(adopted) => self.book(request, adopted, turn),
            None => self.enter(request, turn),
        }
    }

    /// 4
    fn book(&mut self, request: RequestId, adopted: Adopted, turn: &mut Turn<'_>) {
        let Some(record) = self.requests.get(request) else { return };
        let (tenant, session, blocks) =
            (record.submission.tenant, record.submission.session, record.submission.blocks.clone());
        let lane = (adopted.node, record.submission.model);
        let (run, booking) = self.as_if_sent(record, lane, turn);
        let verdict = self.taken_over_running(record, adopted);
        self.decisions.record(verdict, self.limits.decisions_max);
        self.book_on(lane, booking, turn);
        if adopted.began {
            self.ledger.began(lane, request, turn.at);
        }
        self.fairness.charge(tenant, run.charged);
        self.reorder(tenant);
        let visit = self.prefixes.dispatched(lane, session, &blocks, turn.at);
        self.fleet.used(lane, turn.at);
        if let Some(record) = self.requests.get_mut(request) {
            let began = adopted.began.then_some(turn.at);
            record.run = Some(Run { began, visit, ..run });
        }
    }

    fn as_if_sent(&self, record: &Record, lane: Lane, turn: &Turn<'_>) -> (Run, Booking) {
        let best = self.candidate_at(record, lane.0);
        let run = Run {
            generation: self.breakers.generation_taken_over(lane, &self.limits.breaker),
            ..self.run(record, &best, turn)
        };
        (run, self.booking(record, &best, turn))
    }

    /// Why it runs there only the earlier leader could have said.
    fn taken_over_running(&self, record: &Record, adopted: Adopted) -> Verdict {
        let standing = Standing::Running { attempt: record.attempt, node: adopted.node };
        Verdict { without_model: 0, ..self.verdict_on(record, Vec::new(), standing) }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::{Adopted, Command, Submission};
    use crate::effect::Effect;
    use crate::ids::{Attempt, Fingerprint, ModelId, NodeId, TenantId};
    use crate::limits::Limits;
    use crate::machine::Scheduler;
    use crate::requests::tests::submission;
    use crate::time::{At, Span};

    const LANE: (NodeId, ModelId) = (NodeId(7), ModelId(1));

    fn adopt(scheduler: &mut Scheduler, submission: Submission, attempt: u32, began: bool) {
        let running = Some(Adopted { node: LANE.0, began });
        let mut effects: Vec<Effect> = Vec::new();
        let adopt = Command::Adopt { submission, attempt: Attempt(attempt), running };
        scheduler.apply(At(5_000_000), adopt, &mut effects);
        assert_eq!(effects, []);
    }

    fn tenth() -> Submission {
        Submission { output_tokens: Some(10), ..submission(1) }
    }

    #[test]
    fn an_attempt_without_a_first_token_has_its_prefill_ahead_and_one_that_has_begun_has_none() {
        let backlog = |began| {
            let mut scheduler = Scheduler::new(Limits::default());
            adopt(&mut scheduler, tenth(), 1, began);
            (
                scheduler.ledger.prefill_backlog(LANE.0, At(5_000_000)) > Span::ZERO,
                scheduler.ledger.on_lane(LANE),
            )
        };
        assert_eq!([backlog(false), backlog(true)], [(true, 1), (false, 1)]);
    }

    #[test]
    fn room_in_the_cache_is_reserved_for_prompt_and_answer() {
        let mut scheduler = Scheduler::new(Limits::default());
        adopt(&mut scheduler, tenth(), 1, true);
        let reserved = scheduler.ledger.kv_tokens(LANE);
        assert!((110..=200).contains(&reserved), "{reserved}");
        scheduler.apply(At(6_000_000), Command::Cancel { request: submission(1).request }, &mut Vec::new());
        assert_eq!(scheduler.ledger.kv_tokens(LANE), 0);
    }

    #[test]
    fn a_tenant_has_had_its_turns_with_what_was_taken_over() {
        let mut scheduler = Scheduler::new(Limits { turn: Span::from_ms(10), ..Limits::default() });
        let idle = Submission { tenant: TenantId(2), fingerprint: Fingerprint(2), ..submission(2) };
        scheduler.apply(At(5_000_000), Command::Submit(idle), &mut Vec::new());
        adopt(&mut scheduler, tenth(), 1, true);
        assert!(scheduler.fairness.turns(TenantId(1)) > scheduler.fairness.turns(TenantId(2)));
    }

    #[test]
    fn only_attempts_that_came_to_nothing_mark_a_request() {
        let marked = |attempt| {
            let mut scheduler = Scheduler::new(Limits::default());
            adopt(&mut scheduler, tenth(), attempt, false);
            let record = scheduler.requests.get(submission(1).request).expect("alive");
            (record.is_marked(), record.is_newcomer())
        };
        assert_eq!([marked(0), marked(1), marked(2)], [(false, false), (false, false), (true, false)]);
    }

    #[test]
    fn a_request_that_comes_from_the_future_has_just_arrived() {
        let mut scheduler = Scheduler::new(Limits::default());
        adopt(&mut scheduler, Submission { arrived: At(9_000_000), ..tenth() }, 1, true);
        let record = scheduler.requests.get(submission(1).request).expect("alive");
        assert_eq!(record.submission.arrived, At(5_000_000));
    }
}
