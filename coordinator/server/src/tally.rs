//! What this gateway's clients have used, on its way to the registry.
//!
//! Owns the sums since the last report, and the reports: numbered, one after another, each said until it is known to be counted,
//! so that each counts once. Refuses to make an answer wait. What a crash loses is what ended since the last report, and what was
//! still running.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use registry::{Command, KeyId, Refusal, Registry, Reply, Used};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::unix_ms;
use crate::gateway::Propose;
use crate::limits;

/// The sums since the last report; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    sums: Arc<Mutex<BTreeMap<KeyId, Used>>>,
}

impl Tally {
    pub(crate) fn add(&self, key: &KeyId, used: Used) {
        if used != Used::default() {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            let sum = sums.entry(key.clone()).or_default();
            *sum = sum.plus(used);
        }
    }

    #[cfg(test)]
    pub(crate) fn now(&self, key: &KeyId) -> Used {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    fn take(&self) -> BTreeMap<KeyId, Used> {
        std::mem::take(&mut *self.sums.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The task that reports.
pub(crate) struct Books {
    pub(crate) tally: Tally,
    close: CancellationToken,
    task: JoinHandle<()>,
}

impl Books {
    /// Reports what this replica's gateway tallies.
    pub(crate) fn open(
        gateway: u64,
        facts: Arc<dyn Propose>,
        registry: &watch::Receiver<Arc<Registry>>,
    ) -> Self {
        let (tally, close) = (Tally::default(), CancellationToken::new());
        let life = unix_ms().max(registry.borrow().usage_mark(gateway).life.saturating_add(1));
        let reporter = Reporter { tally: tally.clone(), gateway, facts, life, sequence: 0, said: None };
        let task = tokio::spawn(reporter.run(close.clone()));
        Self { tally, close, task }
    }

    /// After the last answer: what is left is reported, if that is possible in a moment.
    pub(crate) async fn close(self) {
        self.close.cancel();
        if tokio::time::timeout(limits::USAGE_LAST, self.task).await.is_err() {
            tracing::warn!("the last seconds of usage could not be written down, and are lost");
        }
    }
}

struct Reporter {
    tally: Tally,
    gateway: u64,
    facts: Arc<dyn Propose>,
    life: u64,
    /// Of the report before.
    sequence: u64,
    /// A report that may or may not have been counted.
    said: Option<Report>,
}

#[derive(Clone)]
struct Report {
    sequence: u64,
    at_unix_ms: u64,
    used: BTreeMap<KeyId, Used>,
}

impl Reporter {
    async fn run(mut self, close: CancellationToken) {
        while close.run_until_cancelled(tokio::time::sleep(limits::USAGE_EVERY)).await.is_some() {
            self.report().await;
        }
        while self.report().await {
            tokio::time::sleep(limits::PROPOSE_AGAIN).await;
        }
    }

    /// Whether something is left that has to be said again.
    async fn report(&mut self) -> bool {
        let Some(report) = self.next() else { return false };
        let command = Command::CountUsage {
            gateway: self.gateway,
            life: self.life,
            sequence: report.sequence,
            at_unix_ms: report.at_unix_ms,
            used: report.used.clone(),
        };
        match self.facts.propose(command).await {
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => {
                (self.said, self.sequence) = (None, report.sequence);
            }
            // The facts are of another time, or this process looked at them too early. Refused is not counted, so it is said anew.
            Ok(Reply::Refused(Refusal::UsageOutOfTurn { known, .. })) => {
                self.life = unix_ms().max(known.life.saturating_add(1));
                self.said = Some(Report { sequence: 1, ..report });
            }
            Ok(Reply::Refused(refusal)) => {
                tracing::error!(%refusal, "a report of usage is lost");
                self.said = None;
            }
            Err(error) if error.fatal() => return false,
            Err(error) => tracing::debug!(%error, "a report of usage is said again"),
        }
        self.said.is_some()
    }

    /// The report that is not known to be counted, before another one is made.
    fn next(&mut self) -> Option<Report> {
        if self.said.is_none() {
            let used = self.tally.take();
            let (sequence, at_unix_ms) = (self.sequence.saturating_add(1), unix_ms());
            self.said = (!used.is_empty()).then_some(Report { sequence, at_unix_ms, used });
        }
        self.said.clone()
    }
}

#[cfg(test)]
mod tests;
