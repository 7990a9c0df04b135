//! The naive registry's idea of responses: every step that was shown, in the list of jobs.

use registry::{
    Digest, Field, JobId, JobRefusal, JobRun, KeptAnswer, KeyId, Refusal, Reply, ResponseChange, Tenant,
};

use crate::oracle::{Oracle, done_if};
use crate::oracle_jobs::NaiveJob;

/// What is needed to go on with one.
#[derive(Clone, PartialEq)]
pub(crate) struct NaiveResponse {
    pub(crate) key: Option<KeyId>,
    pub(crate) question: KeptAnswer,
    /// All that was ever shown, the last one last.
    pub(crate) shown: Vec<KeptAnswer>,
}

impl Oracle {
    pub(crate) fn change_response(&mut self, id: JobId, change: &ResponseChange) -> Result<Reply, Refusal> {
        let named = match change {
            ResponseChange::Begin { question: kept, .. }
            | ResponseChange::Keep { progress: kept, .. }
            | ResponseChange::Store { kept, .. }
            | ResponseChange::Cancel { kept, .. } => Some(kept),
            ResponseChange::Drop => None,
        };
        if named.is_some_and(|kept| kept.holders.is_empty()) {
            return Err(Refusal::Malformed { what: Field::JobHolders });
        }
        match change {
            ResponseChange::Begin { tenant, key, question, run, at_unix_ms } => {
                let response =
                    NaiveResponse { key: key.clone(), question: question.clone(), shown: Vec::new() };
                self.begin_naive(NaiveJob {
                    response: Some(response),
                    ..NaiveJob::new(id, (*tenant, question.digest, *run, *at_unix_ms))
                })
            }
            ResponseChange::Keep { run, progress } => self.show_of(id, *run, progress),
            ResponseChange::Store { tenant, kept, run, at_unix_ms } => {
                self.store(id, *tenant, kept, *run, *at_unix_ms)
            }
            ResponseChange::Cancel { progress, kept, at_unix_ms } => {
                self.cancel(id, *progress, kept, *at_unix_ms)
            }
            ResponseChange::Drop => {
                let before = self.jobs.len();
                self.jobs.retain(|job| job.id != id);
                Ok(done_if(self.jobs.len() < before))
            }
        }
    }

    fn store(
        &mut self,
        id: JobId,
        tenant: Tenant,
        kept: &KeptAnswer,
        run: JobRun,
        at: u64,
    ) -> Result<Reply, Refusal> {
        let job = NaiveJob::new(id, (tenant, kept.digest, run, at));
        self.begin_naive(NaiveJob { ended: Some((Some(kept.clone()), at)), ..job })
    }

    fn show_of(&mut self, id: JobId, run: JobRun, progress: &KeptAnswer) -> Result<Reply, Refusal> {
        let job = self.running_as(id, run)?;
        let other = Refusal::Job(JobRefusal::NotItsRun { job: id });
        let response = job.response.as_mut().ok_or(other)?;
        let is_new = response.shown.last() != Some(progress);
        if is_new {
            response.shown.push(progress.clone());
        }
        Ok(done_if(is_new))
    }

    fn cancel(
        &mut self,
        id: JobId,
        shown: Option<Digest>,
        kept: &KeptAnswer,
        at: u64,
    ) -> Result<Reply, Refusal> {
        let told = Some((Some(kept.clone()), at));
        if self.jobs.iter().any(|job| job.id == id && job.ended == told) {
            return Ok(Reply::AlreadySo);
        }
        let job = self.running(id)?;
        let last = |response: &NaiveResponse| response.shown.last().map(|kept| kept.digest);
        if job.response.as_ref().map(last) != Some(shown) {
            return Err(Refusal::Job(JobRefusal::NotItsRun { job: id }));
        }
        job.ended = Some((Some(kept.clone()), at));
        Ok(Reply::Done)
    }
}
