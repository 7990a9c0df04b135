//! The responses in the background of this coordinator, and those whose coordinator is gone.
//!
//! Owns running what began here, and taking over what nobody runs, like batches are. Refuses to decide whether it may: the registry
//! gives a response to one of all that want it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use registry::{Command, JobId, JobRun, Reply};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::running::run;
use crate::clock::unix_ms;
use crate::gateway::{Gateway, limits};
use crate::jobs::Running;

pub(crate) struct Minder {
    gateway: Gateway,
    begun: mpsc::Receiver<(JobId, Running)>,
    runs: JoinSet<()>,
    /// How often in a row a run elsewhere did not answer for itself.
    silent: BTreeMap<JobRun, u32>,
}

impl Minder {
    pub(in crate::gateway) fn new(gateway: Gateway, begun: mpsc::Receiver<(JobId, Running)>) -> Self {
        Self { gateway, begun, runs: JoinSet::new(), silent: BTreeMap::new() }
    }

    /// Until it is dropped, and with it all that runs.
    pub(crate) async fn run(mut self) {
        let mut looks = interval(limits::BATCH_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((response, running)) = self.begun.recv() => self.go_on(response, running),
                Some(_) = self.runs.join_next() => {}
                _ = looks.tick() => self.look().await,
            }
        }
    }

    fn go_on(&mut self, response: JobId, running: Running) {
        self.runs.spawn(run(self.gateway.clone(), response, running));
    }

    async fn look(&mut self) {
        let registry = self.gateway.registry.borrow().clone();
        let runs = &self.gateway.jobs.runs;
        let now = unix_ms();
        let live = registry.jobs().filter(|(_, job)| job.deferred.is_some() && !job.is_over(now));
        let others: Vec<_> =
            live.filter(|(_, job)| runs.record(job.run).is_none()).map(|(id, job)| (id, job.run)).collect();
        let goes_on = join_all(others.iter().map(|(_, run)| self.goes_on(*run))).await;
        let mut silent = BTreeMap::new();
        for ((response, run), goes_on) in others.into_iter().zip(goes_on) {
            if goes_on {
                continue;
            }
            let times = self.silent.get(&run).copied().unwrap_or(0) + 1;
            // The former life of this coordinator is surely over.
            if times >= limits::BATCH_SILENCES || !self.gateway.jobs.runs.is_elsewhere(run) {
                self.take(response, run).await;
            } else {
                silent.insert(run, times);
            }
        }
        self.silent = silent;
    }

    async fn goes_on(&self, run: JobRun) -> bool {
        self.gateway.jobs.runs.is_elsewhere(run) && self.gateway.jobs.keeper.goes_on(run).await
    }

    async fn take(&mut self, response: JobId, from: JobRun) {
        let Some(running) = self.gateway.jobs.runs.begin() else { return };
        let command = Command::TakeJob { job: response, from, run: running.run, at_unix_ms: unix_ms() };
        match self.gateway.facts.propose(command).await {
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => {
                tracing::info!(%response, "a response whose coordinator is gone goes on here");
                self.go_on(response, running);
            }
            // Somebody was quicker.
            Ok(Reply::Refused(_)) => {}
            // If it was taken all the same, this run is not on the list of those that go on, and the next look finds it.
            Err(error) => tracing::info!(%response, %error, "a response is taken over later"),
        }
    }
}
