//! Telling the registry how a response in the background stands.
//!
//! Owns the patience of its run: what no disk takes and nobody hears is tried again, until the registry has taken it or does not want
//! it from this run any more. Refuses to show anybody what is not told.

use registry::{Command, JobId, JobRun, KeptAnswer, Reply, ResponseChange};
use serde::Serialize;

use super::kept;
use crate::clock::unix_ms;
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, limits};
use crate::jobs::What;

#[derive(Clone)]
pub(super) struct Teller {
    pub(super) gateway: Gateway,
    pub(super) job: JobId,
    pub(super) run: JobRun,
}

/// Why a run ends without an end of its own.
pub(super) enum Stop {
    /// Another run has it, or it is over.
    Lost,
    /// It cannot be kept.
    Failed(ApiError),
}

impl Teller {
    pub(super) async fn keep(&self, progress: &impl Serialize) -> Result<(), Stop> {
        loop {
            let kept = self.on_disks(What::Piece, progress).await?;
            let change = ResponseChange::Keep { run: self.run, progress: kept };
            let told = self.tell(Command::ChangeResponse { response: self.job, change });
            // What nobody has named for long is removed: it is put there anew, however long nobody leads.
            if let Ok(told) = tokio::time::timeout(limits::STEP_TOLD, told).await {
                return told;
            }
        }
    }

    pub(super) async fn end(&self, answer: &impl Serialize) -> Result<(), Stop> {
        loop {
            let kept = Some(self.on_disks(What::Answer, answer).await?);
            let (job, run) = (self.job, self.run);
            let told = self.tell(Command::EndJob { job, run, kept, at_unix_ms: unix_ms() });
            if let Ok(told) = tokio::time::timeout(limits::STEP_TOLD, told).await {
                return told;
            }
        }
    }

    /// A disk may get room again, and a coordinator may come back.
    async fn on_disks(&self, what: What, value: &impl Serialize) -> Result<KeptAnswer, Stop> {
        loop {
            if let Some(kept) = kept::keep(&self.gateway, what, value).await.map_err(Stop::Failed)? {
                return Ok(kept);
            }
            tracing::warn!(response = %self.job, "no disk takes what a response has answered: it waits");
            tokio::time::sleep(limits::BATCH_AGAIN).await;
        }
    }

    async fn tell(&self, command: Command) -> Result<(), Stop> {
        loop {
            match self.gateway.facts.propose(command.clone()).await {
                Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => return Ok(()),
                Ok(Reply::Refused(refusal)) => {
                    tracing::info!(response = %self.job, %refusal, "a run of a response ends");
                    return Err(Stop::Lost);
                }
                Err(error) if error.fatal() => return Err(Stop::Lost),
                Err(error) => {
                    tracing::info!(response = %self.job, %error, "a step of a response waits");
                    tokio::time::sleep(limits::BATCH_AGAIN).await;
                }
            }
        }
    }
}
