//! The life of each request: waiting, or running its n-th attempt.
//!
//! Owns the record of every request that is alive, its attempt number, the nodes that failed it, and the order in which
//! deadlines come. Refuses to decide anything; a request that ended is forgotten.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::command::Submission;
use crate::ids::{Attempt, NodeId, RequestId};
use crate::queue::Place;
use crate::time::At;

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) submission: Submission,
    /// Of the latest dispatch; 0 before the first.
    pub(crate) attempt: Attempt,
    /// Dispatches that failed before their first token.
    pub(crate) failed: u32,
    pub(crate) failures: Vec<Failure>,
    /// `None` while it waits.
    pub(crate) run: Option<Run>,
}

/// A node that failed this request, and the number of the latest report the fleet had by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) node: NodeId,
    pub(crate) report: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) node: NodeId,
    pub(crate) dispatched: At,
    pub(crate) began: bool,
}

impl Record {
    pub(crate) fn place(&self) -> Place {
        Place { arrived: self.submission.arrived, request: self.submission.request }
    }
}

/// The report number at the latest failure on `node`.
pub(crate) fn latest_failure(failures: &[Failure], node: NodeId) -> Option<u64> {
    failures.iter().rev().find(|failure| failure.node == node).map(|failure| failure.report)
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    records: BTreeMap<RequestId, Record>,
    deadlines: BTreeSet<(At, RequestId)>,
}

impl Requests {
    pub(crate) fn admit(&mut self, submission: Submission) {
        let record =
            Record { submission, attempt: Attempt::default(), failed: 0, failures: Vec::new(), run: None };
        self.deadlines.insert((submission.deadline, submission.request));
        self.records.insert(submission.request, record);
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

    pub(crate) fn first_deadline(&self) -> Option<(At, RequestId)> {
        self.deadlines.first().copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Class;
    use crate::ids::{ModelId, TenantId};

    fn submission(request: u64, deadline: u64) -> Submission {
        Submission {
            request: RequestId(request),
            model: ModelId(1),
            tenant: TenantId(1),
            class: Class::Interactive,
            prompt_tokens: 10,
            max_tokens: 10,
            arrived: At(0),
            deadline: At(deadline),
        }
    }

    fn run(node: u64) -> Run {
        Run { node: NodeId(node), dispatched: At(1), began: false }
    }

    #[test]
    fn the_earliest_deadline_comes_first_and_leaves_with_its_request() {
        let mut requests = Requests::default();
        requests.admit(submission(1, 50));
        requests.admit(submission(2, 20));
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
        requests.admit(submission(1, 50));
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
        let failure = |node, report| Failure { node: NodeId(node), report };
        let failures = [failure(7, 3), failure(8, 4), failure(7, 9)];
        assert_eq!(latest_failure(&failures, NodeId(7)), Some(9));
        assert_eq!(latest_failure(&failures, NodeId(8)), Some(4));
        assert_eq!(latest_failure(&failures, NodeId(9)), None);
    }
}
