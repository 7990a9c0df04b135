//! What the leader wants the registry to keep.
//!
//! Owns the one task that proposes, so that facts are kept in the order in which they came about. What may have been lost on the
//! way is proposed again, with a growing pause: every command here is idempotent. Refuses to make the loop wait.

use std::time::Duration;

use consensus::{Consensus, Retry};
use registry::{Command, ModelName, Reply};
use scheduler::ReservationId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Leader;
use crate::limits;

/// A command, and who waits for the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proposal {
    pub(crate) command: Command,
    pub(crate) answer: Answer,
}

/// Who waits for the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Nobody,
    /// The scheduler, which asked for memory.
    Reservation(ReservationId),
    /// The scheduler, which has not asked and must know.
    Home {
        node: u64,
        model: ModelName,
        bytes: u64,
    },
}

/// Proposes one after another until `stop`.
pub(crate) async fn propose(
    consensus: Consensus,
    leader: Leader,
    mut proposals: mpsc::Receiver<Proposal>,
    stop: CancellationToken,
) {
    while let Some(Some(proposal)) = stop.run_until_cancelled(proposals.recv()).await {
        let Some(kept) = stop.run_until_cancelled(kept(&consensus, &proposal.command)).await else { return };
        match proposal.answer {
            Answer::Nobody => {}
            Answer::Reservation(reservation) => leader.reserved(reservation, kept).await,
            Answer::Home { node, model, bytes } if kept => leader.home(node, model, bytes).await,
            Answer::Home { .. } => {}
        }
    }
}

/// Whether the registry holds it now.
async fn kept(consensus: &Consensus, command: &Command) -> bool {
    let mut pause = limits::PROPOSE_AGAIN;
    loop {
        match consensus.propose(command.clone()).await {
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => return true,
            Ok(Reply::Refused(refusal)) => {
                tracing::info!(%refusal, "the registry refused a fact");
                return false;
            }
            Err(error) if error.fatal() || error.retry() == Retry::Never => {
                tracing::error!(%error, "a fact could not be kept");
                return false;
            }
            Err(error) => tracing::warn!(%error, "a fact is proposed again"),
        }
        tokio::time::sleep(pause).await;
        pause = longer(pause);
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(limits::PROPOSE_AGAIN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        let mut pause = limits::PROPOSE_AGAIN;
        for _ in 0..20 {
            assert!(longer(pause) >= pause && longer(pause) <= limits::PROPOSE_AGAIN_MAX);
            pause = longer(pause);
        }
        assert_eq!(pause, limits::PROPOSE_AGAIN_MAX);
    }
}
