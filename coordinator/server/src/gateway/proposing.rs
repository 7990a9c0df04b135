//! Telling the registry what happens to a job, a file or a batch.
//!
//! Owns the patience: every such command may be said twice, so it is said again until it is taken, for a while. Refuses to judge what
//! the registry answers.

use consensus::ProposeError;
use registry::{Command, Reply};
use tokio::time::Instant;

use super::admin::change::is_worth_waiting;
use super::{Gateway, limits};

/// Says it until it is taken, or long enough.
pub(crate) async fn propose(gateway: &Gateway, command: &Command) -> Result<Reply, ProposeError> {
    let latest = Instant::now() + limits::JOB_PATIENCE;
    loop {
        match gateway.facts.propose(command.clone()).await {
            Ok(reply) => return Ok(reply),
            Err(error) if is_worth_waiting(&error) && Instant::now() < latest => {
                tokio::time::sleep(limits::CHANGE_AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
}
