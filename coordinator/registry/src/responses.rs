//! Responses that go on without their clients: jobs that say what is asked, and how much of the answer may be shown.
//!
//! Owns the two fences that a job alone has not: what is shown of an answer comes from the run that has it, and one that is cancelled
//! ends with exactly what was shown. Refuses to judge whether a run is dead, like jobs do.

use alloc::boxed::Box;

use crate::files::is_held;
use crate::job::{Deferred, Digest, Ended, Job, JobId, JobRun, KeptAnswer, Tenant};
use crate::job_refusal::JobRefusal;
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};
use crate::response_change::ResponseChange;

impl Registry {
    pub(crate) fn change_response(&mut self, id: JobId, change: &ResponseChange) -> Result<Reply, Refusal> {
        match change {
            ResponseChange::Begin { tenant, key, question, run, at_unix_ms } => {
                check(question)?;
                let deferred = Deferred { key: key.clone(), question: question.clone(), progress: None };
                let until_unix_ms = at_unix_ms.saturating_add(limits::JOB_RUN_MS);
                let (tenant, request, run) = (*tenant, question.digest, *run);
                let deferred = Some(Box::new(deferred));
                let begun = Job { tenant, request, run, attempt: 1, until_unix_ms, ended: None, deferred };
                self.add_response(id, begun, *at_unix_ms)
            }
            ResponseChange::Keep { run, progress } => self.keep_progress(id, *run, progress),
            ResponseChange::Store { tenant, kept, run, at_unix_ms } => {
                check(kept)?;
                let ended = Some(Ended { at_unix_ms: *at_unix_ms, kept: Some(kept.clone()) });
                let until_unix_ms = at_unix_ms.saturating_add(limits::JOB_KEPT_MS);
                let (tenant, request, run) = (*tenant, kept.digest, *run);
                let stored = Job { tenant, request, run, attempt: 1, until_unix_ms, ended, deferred: None };
                self.add_response(id, stored, *at_unix_ms)
            }
            ResponseChange::Cancel { progress, kept, at_unix_ms } => {
                self.cancel_response(id, *progress, kept, *at_unix_ms)
            }
            ResponseChange::Drop => {
                Ok(if self.jobs.remove(&id).is_some() { Reply::Done } else { Reply::AlreadySo })
            }
        }
    }

    fn add_response(&mut self, id: JobId, added: Job, at: u64) -> Result<Reply, Refusal> {
        match self.jobs.get(&id).filter(|job| !job.is_over(at)) {
            Some(known) if *known == added => return Ok(Reply::AlreadySo),
            Some(_) => return Err(Refusal::Job(JobRefusal::Known { job: id })),
            None => {}
        }
        self.place_for_job(id, added.tenant, at)?;
        if added.deferred.is_some() {
            self.place_for_deferred(id, added.tenant, at)?;
        }
        self.insert_job(id, added, at);
        Ok(Reply::Done)
    }

    fn keep_progress(&mut self, id: JobId, run: JobRun, progress: &KeptAnswer) -> Result<Reply, Refusal> {
        check(progress)?;
        let job = self.running_job(id)?;
        match &mut job.deferred {
            Some(deferred) if job.run == run => {
                if deferred.progress.as_ref() == Some(progress) {
                    return Ok(Reply::AlreadySo);
                }
                deferred.progress = Some(progress.clone());
                Ok(Reply::Done)
            }
            Some(_) | None => Err(Refusal::Job(JobRefusal::NotItsRun { job: id })),
        }
    }

    fn cancel_response(
        &mut self,
        id: JobId,
        shown: Option<Digest>,
        kept: &KeptAnswer,
        at: u64,
    ) -> Result<Reply, Refusal> {
        check(kept)?;
        let told = Some(Ended { at_unix_ms: at, kept: Some(kept.clone()) });
        if self.jobs.get(&id).is_some_and(|job| job.ended == told) {
            return Ok(Reply::AlreadySo);
        }
        let job = self.running_job(id)?;
        let is_all = |deferred: &Deferred| deferred.progress.as_ref().map(|kept| kept.digest) == shown;
        if !job.deferred.as_deref().is_some_and(is_all) {
            return Err(Refusal::Job(JobRefusal::NotItsRun { job: id }));
        }
        job.end(Some(kept.clone()), at);
        Ok(Reply::Done)
    }

    /// Their questions and what they have answered lie beside files, and give way to nothing.
    fn place_for_deferred(&self, id: JobId, tenant: Tenant, at: u64) -> Result<(), Refusal> {
        let full = |what, limit| Err(Refusal::TooMany { what, limit });
        let running =
            |(other, job): &(&JobId, &Job)| **other != id && job.deferred.is_some() && !job.is_over(at);
        let (all, of_tenant) = self.jobs.iter().filter(running).fold((0, 0), |(all, of_tenant), (_, job)| {
            (all + 1, of_tenant + usize::from(job.tenant == tenant))
        });
        if of_tenant >= limits::RESPONSES_RUNNING_PER_TENANT_MAX {
            return full(Bounded::RunningResponsesOfTenant, limits::RESPONSES_RUNNING_PER_TENANT_MAX);
        }
        if all >= limits::RESPONSES_RUNNING_MAX {
            return full(Bounded::RunningResponses, limits::RESPONSES_RUNNING_MAX);
        }
        Ok(())
    }
}

fn check(kept: &KeptAnswer) -> Result<(), Refusal> {
    if is_held(kept) { Ok(()) } else { Err(Refusal::Malformed { what: crate::Field::JobHolders }) }
}
