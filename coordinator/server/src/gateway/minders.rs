//! Whoever runs what goes on without its client: the batches, and the responses in the background.
//!
//! Owns that both are run together, and end together.

use registry::{BatchId, JobId};
use tokio::sync::mpsc;

use super::minding::Minder;
use super::{Gateway, batches, responses};
use crate::jobs::Running;

pub(crate) struct Minders {
    batches: Minder<batches::BatchRuns>,
    responses: Minder<responses::ResponseRuns>,
}

impl Minders {
    pub(super) fn new(
        gateway: &Gateway,
        batches: mpsc::Receiver<(BatchId, Running)>,
        responses: mpsc::Receiver<(JobId, Running)>,
    ) -> Self {
        Self {
            batches: Minder::new(gateway.clone(), batches),
            responses: Minder::new(gateway.clone(), responses),
        }
    }

    /// Until it is dropped.
    pub(crate) async fn run(self) {
        tokio::join!(self.batches.run(), self.responses.run());
    }
}
