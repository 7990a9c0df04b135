//! What goes on without its client, on this coordinator and where its coordinator is gone.
//!
//! Owns running what began here, and taking over what nobody runs: one minder for each kind, which says what is live, and how a run is
//! taken from another. Refuses to decide whether it may: the registry gives a run to one of all that want it, and only if the one that
//! it is taken from still has it.

use std::collections::BTreeMap;
use std::fmt::Display;

use futures_util::future::join_all;
use registry::{Command, JobRun, Registry, Reply};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::{Gateway, limits};
use crate::clock::unix_ms;
use crate::jobs::Running;

/// A kind of work that has one run at a time.
pub(crate) trait Minded: Send + 'static {
    type Id: Clone + Display + Send + Sync + 'static;

    /// For the log.
    const WHAT: &str;

    /// What has not ended, each with who runs it.
    fn live(registry: &Registry, now_unix_ms: u64) -> Vec<(Self::Id, JobRun)>;

    fn take(id: Self::Id, from: JobRun, run: JobRun) -> Command;

    fn run(gateway: Gateway, id: Self::Id, running: Running) -> impl Future<Output = ()> + Send + 'static;
}

pub(crate) struct Minder<Kind: Minded> {
    gateway: Gateway,
    begun: mpsc::Receiver<(Kind::Id, Running)>,
    runs: JoinSet<()>,
    /// How often in a row a run elsewhere did not answer for itself.
    silent: BTreeMap<JobRun, u32>,
}

impl<Kind: Minded> Minder<Kind> {
    pub(super) fn new(gateway: Gateway, begun: mpsc::Receiver<(Kind::Id, Running)>) -> Self {
        Self { gateway, begun, runs: JoinSet::new(), silent: BTreeMap::new() }
    }

    /// Until it is dropped, and with it all that runs.
    pub(crate) async fn run(mut self) {
        let mut looks = interval(limits::BATCH_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((id, running)) = self.begun.recv() => self.go_on(id, running),
                Some(_) = self.runs.join_next() => {}
                _ = looks.tick() => self.look().await,
            }
        }
    }

    fn go_on(&mut self, id: Kind::Id, running: Running) {
        self.runs.spawn(Kind::run(self.gateway.clone(), id, running));
    }

    async fn look(&mut self) {
        let mut others = Kind::live(&self.gateway.registry.borrow(), unix_ms());
        others.retain(|(_, run)| self.gateway.jobs.runs.record(*run).is_none());
        let goes_on = join_all(others.iter().map(|(_, run)| self.goes_on(*run))).await;
        let mut silent = BTreeMap::new();
        for ((id, run), goes_on) in others.into_iter().zip(goes_on) {
            if goes_on {
                continue;
            }
            let times = self.silent.get(&run).copied().unwrap_or(0) + 1;
            // The former life of this coordinator is surely over.
            if times >= limits::BATCH_SILENCES || !self.gateway.jobs.runs.is_elsewhere(run) {
                self.take(id, run).await;
            } else {
                silent.insert(run, times);
            }
        }
        self.silent = silent;
    }

    async fn goes_on(&self, run: JobRun) -> bool {
        self.gateway.jobs.runs.is_elsewhere(run) && self.gateway.jobs.keeper.goes_on(run).await
    }

    async fn take(&mut self, id: Kind::Id, from: JobRun) {
        let Some(running) = self.gateway.jobs.runs.begin() else { return };
        let command = Kind::take(id.clone(), from, running.run);
        match self.gateway.facts.propose(command).await {
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => {
                tracing::info!(what = Kind::WHAT, %id, "what a coordinator ran that is gone goes on here");
                self.go_on(id, running);
            }
            // Somebody was quicker.
            Ok(Reply::Refused(_)) => {}
            // If it was taken all the same, this run is not on the list of those that go on, and the next look finds it.
            Err(error) => tracing::info!(what = Kind::WHAT, %id, %error, "it is taken over later"),
        }
    }
}
