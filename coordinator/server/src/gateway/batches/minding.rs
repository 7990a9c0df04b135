//! Batches go on when their coordinator is gone.
//!
//! Owns which are live, and how their run is taken over. Refuses to watch them itself: all that goes on without a client is watched alike.

use registry::{BatchChange, BatchId, Command, JobRun, Registry};

use super::running;
use crate::gateway::Gateway;
use crate::gateway::minding::Minded;
use crate::jobs::Running;

pub(crate) struct BatchRuns;

impl Minded for BatchRuns {
    type Id = BatchId;

    const WHAT: &str = "batch";

    fn live(registry: &Registry, _: u64) -> Vec<(BatchId, JobRun)> {
        let live = registry.batches().filter(|(_, batch)| batch.ended.is_none());
        live.map(|(id, batch)| (id.clone(), batch.run)).collect()
    }

    fn take(batch: BatchId, from: JobRun, run: JobRun) -> Command {
        Command::ChangeBatch { batch, change: BatchChange::Take { from, run } }
    }

    fn run(gateway: Gateway, batch: BatchId, running: Running) -> impl Future<Output = ()> + Send + 'static {
        running::run(gateway, batch, running)
    }
}
