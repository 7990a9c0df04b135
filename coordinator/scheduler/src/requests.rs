//! The life of each request: waiting, or running its n-th attempt.
//!
//! Owns the record of every request that is alive, its attempt number, the nodes that failed it, and the order in which
//! deadlines come. Refuses to decide anything; a request that ended is forgotten.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::command::{Class, Submission};
use crate::ids::{Attempt, Generation, NodeId, RequestId};
use crate::prefix::Visit;
use crate::queue::Place;
use crate::time::{At, Span};

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) submission: Submission,
    /// As it counts now: batch work that has waited too long is interactive.
    pub(crate) class: Class,
    /// Tokens it will probably generate.
    pub(crate) output_tokens: u32,
    /// Tokens its KV cache must be able to hold.
    pub(crate) kv_tokens: u32,
    /// Its place within its tenant's requests.
    pub(crate) rank: At,
    /// Node time it will probably take.
    pub(crate) work: Span,
    /// Of the latest dispatch; 0 before the first.
    pub(crate) attempt: Attempt,
    /// Attempts that came to nothing under earlier leaders, when it was taken over from one.
    pub(crate) taken_over: Option<u32>,
    /// Dispatches that failed before their first token.
    pub(crate) failed: u32,
    /// Those that failed after it.
    pub(crate) migrations: u32,
    /// Tokens of the answer that earlier attempts generated. They count as part of the prompt.
    pub(crate) carried_tokens: u32,
    pub(crate) failures: Vec<NodeFailure>,
    /// Nodes that have its prefix cached, for which it wishes while it waits.
    pub(crate) wishes: Vec<NodeId>,
    /// It holds back from an open node since then.
    pub(crate) holding_since: Option<At>,
    /// `None` while it waits.
    pub(crate) run: Option<Run>,
}

/// A node that failed this request or was not there for it, and the number of the latest report the fleet had by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeFailure {
    pub(crate) node: NodeId,
    pub(crate) report: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) node: NodeId,
    pub(crate) dispatched: At,
    /// When its first token came.
    pub(crate) began: Option<At>,
    /// Of the breaker under which it was sent.
    pub(crate) generation: Generation,
    /// Until the first token, as predicted at dispatch.
    pub(crate) first_token: Span,
    /// Between two tokens, as predicted at dispatch.
    pub(crate) step: Span,
    /// What its tenant was charged.
    pub(crate) charged: Span,
    /// Prompt tokens expected in the prefix cache.
    pub(crate) cached_tokens: u32,
    /// Its runtime or node died, and it was charged for that.
    pub(crate) charged_with_death: bool,
    /// What its node was believed to have cached.
    pub(crate) visit: Visit,
}

impl Record {
    pub(crate) fn place(&self) -> Place {
        Place {
            marked: self.is_marked().then_some(self.submission.arrived),
            arrived: self.submission.arrived,
            class: self.class,
            tenant: self.submission.tenant,
            rank: self.rank,
            request: self.submission.request,
            work: self.work,
        }
    }

    /// Whether an attempt of it failed, so that its turn has come before.
    pub(crate) fn is_marked(&self) -> bool {
        !self.failures.is_empty() || self.taken_over.is_some_and(|over| over > 0)
    }

    /// Whether nobody has accepted it yet but by letting it wait.
    pub(crate) fn is_newcomer(&self) -> bool {
        self.attempt == Attempt::default() && self.taken_over.is_none()
    }

    /// Whether its attempt has had its first token.
    pub(crate) fn began(&self) -> bool {
        self.run.is_some_and(|run| run.began.is_some())
    }

    /// An attempt failed; `generated` is `None` if that was before its first token.
    pub(crate) fn count_failure(&mut self, generated: Option<u32>) {
        let Some(generated) = generated else {
            self.failed = self.failed.saturating_add(1);
            return;
        };
        self.migrations = self.migrations.saturating_add(1);
        let submission = &mut self.submission;
        // One token at least is still to come, whatever the clock says of those that came.
        let generated = generated.min(submission.max_tokens.saturating_sub(1));
        submission.prompt_tokens = submission.prompt_tokens.saturating_add(generated);
        submission.max_tokens = submission.max_tokens.saturating_sub(generated);
        self.carried_tokens = self.carried_tokens.saturating_add(generated);
        self.output_tokens = self.output_tokens.saturating_sub(generated).max(1);
        self.kv_tokens = self.kv_tokens.max(submission.prompt_tokens.saturating_add(self.output_tokens));
    }
}

/// The report number at the latest failure on `node`.
pub(crate) fn latest_failure(failures: &[NodeFailure], node: NodeId) -> Option<u64> {
    failures.iter().rev().find(|failure| failure.node == node).map(|failure| failure.report)
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    records: BTreeMap<RequestId, Record>,
    deadlines: BTreeSet<(At, RequestId)>,
}

impl Requests {
    pub(crate) fn admit(&mut self, record: Record) {
        let request = record.submission.request;
        self.deadlines.insert((record.submission.deadline, request));
        self.records.insert(request, record);
    }

    pub(crate) fn forget(&mut self, request: RequestId) -> Option<Record> {
        let record = self.records.remove(&request)?;
        self.deadlines.remove(&(record.submission.deadline, request));
        Some(record)
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<&Record> {
        self.records.get(&request)
    }

    pub(crate) fn get_mut(&mut self, request: RequestId) -> Option<&mut Record> {
        self.records.get_mut(&request)
    }

    /// The run of `attempt`, unless that attempt is over or was never made.
    pub(crate) fn run(&self, request: RequestId, attempt: Attempt) -> Option<Run> {
        self.records.get(&request).filter(|record| record.attempt == attempt)?.run
    }

    /// Whether the request is alive and `attempt` is its latest or one before.
    pub(crate) fn was_made(&self, request: RequestId, attempt: Attempt) -> bool {
        self.records.get(&request).is_some_and(|record| attempt <= record.attempt)
    }

    pub(crate) fn first_deadline(&self) -> Option<(At, RequestId)> {
        self.deadlines.first().copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids::{Fingerprint, ModelId, TenantId};

    pub(crate) fn submission(request: u64) -> Submission {
        Submission {
            request: RequestId(request),
            model: ModelId(1),
            tenant: TenantId(1),
            class: Class::Interactive,
            prompt_tokens: 100,
            max_tokens: 100,
            output_tokens: None,
            blocks: [].into(),
            session: None,
            fingerprint: Fingerprint(request),
            arrived: At(1),
            deadline: At(1_000_000_000),
        }
    }

    pub(crate) fn record(submission: Submission) -> Record {
        Record {
            class: submission.class,
            output_tokens: 100,
            kv_tokens: 200,
            rank: submission.arrived,
            work: Span::from_s(1),
            attempt: Attempt::default(),
            taken_over: None,
            failed: 0,
            migrations: 0,
            carried_tokens: 0,
            failures: Vec::new(),
            wishes: Vec::new(),
            holding_since: None,
            run: None,
            submission,
        }
    }

    fn due(request: u64, deadline: u64) -> Record {
        record(Submission { deadline: At(deadline), ..submission(request) })
    }

    fn run(node: u64) -> Run {
        Run {
            node: NodeId(node),
            dispatched: At(1),
            began: None,
            generation: Generation(0),
            first_token: Span(1),
            step: Span(1),
            charged: Span(1),
            cached_tokens: 0,
            charged_with_death: false,
            visit: Visit::default(),
        }
    }

    #[test]
    fn the_earliest_deadline_comes_first_and_leaves_with_its_request() {
        let mut requests = Requests::default();
        requests.admit(due(1, 50));
        requests.admit(due(2, 20));
        assert_eq!(requests.first_deadline(), Some((At(20), RequestId(2))));
        requests.forget(RequestId(2));
        assert_eq!(requests.first_deadline(), Some((At(50), RequestId(1))));
        requests.forget(RequestId(1));
        assert_eq!(requests.first_deadline(), None);
        assert!(requests.forget(RequestId(1)).is_none());
    }

    #[test]
    fn only_the_latest_attempt_has_a_run() {
        let mut requests = Requests::default();
        requests.admit(due(1, 50));
        let record = requests.get_mut(RequestId(1)).expect("admitted");
        record.attempt = Attempt(2);
        record.run = Some(run(7));
        assert!(requests.run(RequestId(1), Attempt(1)).is_none());
        assert!(requests.run(RequestId(1), Attempt(3)).is_none());
        assert_eq!(requests.run(RequestId(1), Attempt(2)).map(|run| run.node), Some(NodeId(7)));
        assert!(requests.run(RequestId(9), Attempt(2)).is_none());
    }

    #[test]
    fn the_latest_failure_on_a_node_counts() {
        let failure = |node, report| NodeFailure { node: NodeId(node), report };
        let failures = [failure(7, 3), failure(8, 4), failure(7, 9)];
        assert_eq!(latest_failure(&failures, NodeId(7)), Some(9));
        assert_eq!(latest_failure(&failures, NodeId(8)), Some(4));
        assert_eq!(latest_failure(&failures, NodeId(9)), None);
    }

    #[test]
    fn a_request_that_failed_somewhere_is_marked_with_its_arrival() {
        let mut record = record(submission(1));
        assert_eq!(record.place().marked, None);
        record.failures.push(NodeFailure { node: NodeId(7), report: 1 });
        assert_eq!(record.place().marked, Some(At(1)));
    }
}
