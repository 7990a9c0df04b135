//! Reports to one coordinator.
//!
//! Owns when one leaves: upon a change, but not in a burst, and each second without one. A report is made when it can be sent, so a
//! slow line gets fewer, not older ones. Refuses deltas: each is the complete truth.

use std::convert::Infallible;

use anyhow::Context as _;
use proto::v1::{AgentMessage, agent_message};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Common;
use crate::limits;
use crate::runtimes::Told;
use crate::wire;

/// Until the session breaks.
pub(crate) async fn send(
    common: &Common,
    told: &mut Told,
    outbox: mpsc::Sender<AgentMessage>,
) -> anyhow::Result<Infallible> {
    let (mut board, draining) = (common.board.clone(), &common.draining);
    let mut sequence = 0;
    loop {
        let place = outbox.reserve().await.context("the session's stream is closed")?;
        let latest = board.borrow_and_update().clone();
        sequence += 1;
        let memory = common.memory.read().await?;
        let mut report = wire::report(sequence, &latest, memory, draining.is_cancelled(), told);
        let authority = common.papers.authority();
        if common.ties.are_all_of(authority) {
            report.authority = authority.to_vec();
        }
        place.send(AgentMessage { message: Some(agent_message::Message::Report(report)) });
        sleep(limits::REPORT_SPACING).await;
        let news = async {
            let drain = async {
                if draining.is_cancelled() {
                    std::future::pending().await
                } else {
                    draining.cancelled().await
                }
            };
            tokio::select! {
                changed = board.changed() => changed.context("the agent stops"),
                () = drain => Ok(()),
            }
        };
        if let Ok(Err(stopped)) = timeout(limits::REPORT_EVERY, news).await {
            return Err(stopped);
        }
    }
}
