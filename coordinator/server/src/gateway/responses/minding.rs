//! Responses in the background go on when their coordinator is gone.
//!
//! Owns which are live, and how their run is taken over. Refuses to watch them itself: all that goes on without a client is watched alike.

use registry::{Command, JobId, JobRun, Registry};

use super::running;
use crate::clock::unix_ms;
use crate::gateway::Gateway;
use crate::gateway::minding::Minded;
use crate::jobs::Running;

pub(crate) struct ResponseRuns;

impl Minded for ResponseRuns {
    type Id = JobId;

    const WHAT: &str = "response";

    fn live(registry: &Registry, now_unix_ms: u64) -> Vec<(JobId, JobRun)> {
        let live = registry.jobs().filter(|(_, job)| job.deferred.is_some() && !job.is_over(now_unix_ms));
        live.map(|(id, job)| (id, job.run)).collect()
    }

    fn take(job: JobId, from: JobRun, run: JobRun) -> Command {
        Command::TakeJob { job, from, run, at_unix_ms: unix_ms() }
    }

    fn run(gateway: Gateway, response: JobId, running: Running) -> impl Future<Output = ()> + Send + 'static {
        running::run(gateway, response, running)
    }
}
