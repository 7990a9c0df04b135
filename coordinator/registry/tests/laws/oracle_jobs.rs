//! The naive registry's idea of jobs: a list of them, searched from end to end.

use proptest::prelude::*;
use registry::{Digest, JobId, JobRefusal, JobRun, KeptAnswer, Refusal, Registry, Reply, Tenant};

use crate::oracle::{Oracle, done_if};
use crate::oracle_responses::NaiveResponse;

const HOUR: u64 = 3_600_000;

/// One that is remembered.
#[derive(Clone)]
pub(crate) struct NaiveJob {
    pub(crate) id: JobId,
    pub(crate) begun: (Tenant, Digest, JobRun, u64),
    /// Every run it had, and since when.
    pub(crate) runs: Vec<(JobRun, u64)>,
    pub(crate) ended: Option<(Option<KeptAnswer>, u64)>,
    pub(crate) response: Option<NaiveResponse>,
}

impl NaiveJob {
    pub(crate) fn new(id: JobId, begun: (Tenant, Digest, JobRun, u64)) -> Self {
        Self { id, begun, runs: vec![(begun.2, begun.3)], ended: None, response: None }
    }

    fn run(&self) -> JobRun {
        self.runs[self.runs.len() - 1].0
    }

    fn until(&self) -> u64 {
        let since = self.runs[self.runs.len() - 1].1;
        self.ended.as_ref().map_or(since + 25 * HOUR, |(_, at)| at + 24 * HOUR)
    }
}

impl Oracle {
    pub(crate) fn take(&mut self, id: JobId, from: JobRun, run: JobRun, at: u64) -> Result<Reply, Refusal> {
        let job = self.running(id)?;
        if job.run() == run {
            return Ok(Reply::AlreadySo);
        }
        if job.run() != from {
            return Err(Refusal::Job(JobRefusal::NotItsRun { job: id }));
        }
        job.runs.push((run, at));
        Ok(Reply::Done)
    }

    pub(crate) fn end(
        &mut self,
        id: JobId,
        run: JobRun,
        kept: &Option<KeptAnswer>,
        at: u64,
    ) -> Result<Reply, Refusal> {
        let again = |job: &&NaiveJob| {
            job.id == id && job.run() == run && job.ended.as_ref().is_some_and(|(had, _)| had == kept)
        };
        if self.jobs.iter().any(|job| again(&job)) {
            return Ok(Reply::AlreadySo);
        }
        self.running_as(id, run)?.ended = Some((kept.clone(), at));
        Ok(Reply::Done)
    }

    pub(crate) fn drop_job(&mut self, id: JobId, run: JobRun) -> Result<Reply, Refusal> {
        if self.jobs.iter().all(|job| job.id != id) {
            return Ok(Reply::AlreadySo);
        }
        self.running_as(id, run)?;
        self.jobs.retain(|job| job.id != id);
        Ok(Reply::Done)
    }

    pub(crate) fn forget(&mut self, at: u64) -> Reply {
        let before = self.jobs.len();
        self.jobs.retain(|job| job.until() > at);
        done_if(self.jobs.len() < before)
    }

    pub(crate) fn begin(
        &mut self,
        id: JobId,
        begun: (Tenant, Digest, JobRun, u64),
    ) -> Result<Reply, Refusal> {
        self.begin_naive(NaiveJob::new(id, begun))
    }

    pub(crate) fn begin_naive(&mut self, job: NaiveJob) -> Result<Reply, Refusal> {
        let id = job.id;
        let lives = |known: &&NaiveJob| known.id == id && known.until() > job.begun.3;
        if let Some(known) = self.jobs.iter().find(lives) {
            let so_far = (known.begun, known.runs.len(), &known.ended, &known.response);
            let same = so_far == (job.begun, 1, &job.ended, &job.response);
            return if same {
                Ok(Reply::AlreadySo)
            } else {
                Err(Refusal::Job(JobRefusal::Known { job: id }))
            };
        }
        self.jobs.retain(|job| job.id != id);
        self.jobs.push(job);
        Ok(Reply::Done)
    }

    pub(crate) fn running(&mut self, id: JobId) -> Result<&mut NaiveJob, Refusal> {
        let unknown = Refusal::Job(JobRefusal::Unknown { job: id });
        let job = self.jobs.iter_mut().find(|job| job.id == id).ok_or(unknown)?;
        if job.ended.is_some() { Err(Refusal::Job(JobRefusal::NotItsRun { job: id })) } else { Ok(job) }
    }

    pub(crate) fn running_as(&mut self, id: JobId, run: JobRun) -> Result<&mut NaiveJob, Refusal> {
        let job = self.running(id)?;
        if job.run() == run { Ok(job) } else { Err(Refusal::Job(JobRefusal::NotItsRun { job: id })) }
    }
}

pub(crate) fn compare_jobs(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    prop_assert_eq!(registry.jobs().count(), oracle.jobs.len());
    for naive in &oracle.jobs {
        let job = registry.job(naive.id).expect("it is there");
        prop_assert_eq!((job.tenant, job.request), (naive.begun.0, naive.begun.1));
        prop_assert_eq!((job.run, job.attempt as usize), (naive.run(), naive.runs.len()));
        prop_assert_eq!(job.until_unix_ms, naive.until());
        let ended = job.ended.as_ref().map(|ended| (ended.kept.clone(), ended.at_unix_ms));
        prop_assert_eq!(ended, naive.ended.clone());
        let needed = naive.response.as_ref().filter(|_| naive.ended.is_none());
        let known = job
            .deferred
            .as_ref()
            .map(|deferred| (&deferred.key, &deferred.question, deferred.progress.as_ref()));
        prop_assert_eq!(
            known,
            needed.map(|response| (&response.key, &response.question, response.shown.last()))
        );
    }
    Ok(())
}
