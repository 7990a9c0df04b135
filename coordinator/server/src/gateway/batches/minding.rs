//! The batches of this coordinator, and those whose coordinator is gone.
//!
//! Owns running what began here, and taking over what nobody runs. Refuses to decide whether it may: the registry gives a batch to
//! one of all that want it, and only if the run that it takes it from still has it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use registry::{BatchChange, BatchId, Command, JobRun, Reply};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::running::run;
use crate::gateway::{Gateway, limits};
use crate::jobs::Running;

pub(crate) struct Minder {
    gateway: Gateway,
    begun: mpsc::Receiver<(BatchId, Running)>,
    runs: JoinSet<()>,
    /// How often in a row a run elsewhere did not answer for itself.
    silent: BTreeMap<JobRun, u32>,
}

impl Minder {
    pub(in crate::gateway) fn new(gateway: Gateway, begun: mpsc::Receiver<(BatchId, Running)>) -> Self {
        Self { gateway, begun, runs: JoinSet::new(), silent: BTreeMap::new() }
    }

    /// Until it is dropped, and with it all that runs.
    pub(crate) async fn run(mut self) {
        let mut looks = interval(limits::BATCH_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((batch, running)) = self.begun.recv() => self.go_on(batch, running),
                Some(_) = self.runs.join_next() => {}
                _ = looks.tick() => self.look().await,
            }
        }
    }

    fn go_on(&mut self, batch: BatchId, running: Running) {
        self.runs.spawn(run(self.gateway.clone(), batch, running));
    }

    async fn look(&mut self) {
        let registry = self.gateway.registry.borrow().clone();
        let runs = &self.gateway.jobs.runs;
        let live = registry.batches().filter(|(_, batch)| batch.ended.is_none());
        let others: Vec<_> = live
            .filter(|(_, batch)| runs.record(batch.run).is_none())
            .map(|(id, batch)| (id.clone(), batch.run))
            .collect();
        let asked = others.iter().map(|(_, run)| self.goes_on(*run));
        let goes_on = join_all(asked).await;
        let mut silent = BTreeMap::new();
        for ((batch, run), goes_on) in others.into_iter().zip(goes_on) {
            if goes_on {
                continue;
            }
            let times = self.silent.get(&run).copied().unwrap_or(0) + 1;
            // The former life of this coordinator is surely over.
            if times >= limits::BATCH_SILENCES || !self.gateway.jobs.runs.is_elsewhere(run) {
                self.take(batch, run).await;
            } else {
                silent.insert(run, times);
            }
        }
        self.silent = silent;
    }

    async fn goes_on(&self, run: JobRun) -> bool {
        self.gateway.jobs.runs.is_elsewhere(run) && self.gateway.jobs.keeper.goes_on(run).await
    }

    async fn take(&mut self, batch: BatchId, from: JobRun) {
        let Some(running) = self.gateway.jobs.runs.begin() else { return };
        let change = BatchChange::Take { from, run: running.run };
        let command = Command::ChangeBatch { batch: batch.clone(), change };
        match self.gateway.facts.propose(command).await {
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => {
                tracing::info!(%batch, "a batch whose coordinator is gone goes on here");
                self.go_on(batch, running);
            }
            // Somebody was quicker.
            Ok(Reply::Refused(_)) => {}
            // If it was taken all the same, this run is not on the list of those that go on, and the next look finds it.
            Err(error) => tracing::info!(%batch, %error, "a batch is taken over later"),
        }
    }
}
