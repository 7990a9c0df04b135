//! Which requests are answered only once: from their beginning until they are forgotten.
//!
//! Owns the fence: a job has one run at a time, another takes it over only from the run it knows of, and only the run that has
//! it ends it. Refuses to judge whether a run is dead; that is for the gateway that wants to take over to find out. Refuses
//! to forget a job before its time, so that where all places are taken no new one begins.

use alloc::collections::BTreeMap;

use crate::command::Command;
use crate::job::{Digest, Job, JobId, JobRun, KeptAnswer, Tenant};
use crate::job_refusal::JobRefusal;
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};

pub(crate) type Jobs = BTreeMap<JobId, Job>;

impl Registry {
    pub(crate) fn decide_job(&mut self, command: &Command) -> Result<Reply, Refusal> {
        if let Command::BeginJob { job, tenant, request, run, at_unix_ms } = command {
            return self.begin_job(*job, *tenant, *request, *run, *at_unix_ms);
        }
        if let Command::TakeJob { job, from, run, at_unix_ms } = command {
            return self.take_job(*job, *from, *run, *at_unix_ms);
        }
        if let Command::EndJob { job, run, kept, at_unix_ms } = command {
            return self.end_job(*job, *run, kept.as_ref(), *at_unix_ms);
        }
        if let Command::DropJob { job, run } = command {
            return self.drop_job(*job, *run);
        }
        if let Command::ForgetJobs { at_unix_ms } = command {
            return Ok(self.forget_jobs(*at_unix_ms));
        }
        // No other command is about jobs.
        Ok(Reply::AlreadySo)
    }

    /// A job whose time is over makes place for one of the same name, forgotten or not.
    fn begin_job(
        &mut self,
        id: JobId,
        tenant: Tenant,
        request: Digest,
        run: JobRun,
        at: u64,
    ) -> Result<Reply, Refusal> {
        let until_unix_ms = at.saturating_add(limits::JOB_RUN_MS);
        let begun = Job { tenant, request, run, attempt: 1, until_unix_ms, ended: None, deferred: None };
        match self.jobs.get(&id).filter(|job| !job.is_over(at)) {
            Some(known) if *known == begun => return Ok(Reply::AlreadySo),
            Some(_) => return refused(JobRefusal::Known { job: id }),
            None => {}
        }
        self.place_for_job(id, tenant, at)?;
        self.insert_job(id, begun, at);
        Ok(Reply::Done)
    }

    /// There is a place for it.
    pub(crate) fn insert_job(&mut self, id: JobId, job: Job, at: u64) {
        self.jobs.insert(id, job);
        // Those that are over count no more, so they must not stay beyond the bound either.
        if self.jobs.len() > limits::JOBS_MAX {
            self.forget_jobs(at);
        }
    }

    fn take_job(&mut self, id: JobId, from: JobRun, run: JobRun, at: u64) -> Result<Reply, Refusal> {
        let job = self.running_job(id)?;
        if job.run == run {
            return Ok(Reply::AlreadySo);
        }
        if job.run != from {
            return refused(JobRefusal::NotItsRun { job: id });
        }
        job.run = run;
        job.attempt = job.attempt.saturating_add(1);
        job.until_unix_ms = at.saturating_add(limits::JOB_RUN_MS);
        Ok(Reply::Done)
    }

    fn end_job(
        &mut self,
        id: JobId,
        run: JobRun,
        kept: Option<&KeptAnswer>,
        at: u64,
    ) -> Result<Reply, Refusal> {
        if kept.is_some_and(|kept| !(1..=limits::REPLICAS_MAX).contains(&kept.holders.len())) {
            return Err(Refusal::Malformed { what: crate::Field::JobHolders });
        }
        let known = self.jobs.get(&id).filter(|job| job.run == run);
        if known.and_then(|job| job.ended.as_ref()).is_some_and(|ended| ended.kept.as_ref() == kept) {
            return Ok(Reply::AlreadySo);
        }
        let job = self.running_job(id)?;
        if job.run != run {
            return refused(JobRefusal::NotItsRun { job: id });
        }
        job.end(kept.cloned(), at);
        Ok(Reply::Done)
    }

    /// It was not done, so that it may be begun anew.
    fn drop_job(&mut self, id: JobId, run: JobRun) -> Result<Reply, Refusal> {
        if !self.jobs.contains_key(&id) {
            return Ok(Reply::AlreadySo);
        }
        if self.running_job(id)?.run != run {
            return refused(JobRefusal::NotItsRun { job: id });
        }
        self.jobs.remove(&id);
        Ok(Reply::Done)
    }

    fn forget_jobs(&mut self, at: u64) -> Reply {
        let before = self.jobs.len();
        self.jobs.retain(|_, job| !job.is_over(at));
        if self.jobs.len() < before { Reply::Done } else { Reply::AlreadySo }
    }

    /// A job, also one whose time is over.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// All remembered jobs, by id.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (*id, job))
    }

    /// Few jobs need no counting.
    pub(crate) fn place_for_job(&self, id: JobId, tenant: Tenant, at: u64) -> Result<(), Refusal> {
        let full = |what, limit| Err(Refusal::TooMany { what, limit });
        if self.jobs.len() < limits::JOBS_PER_TENANT_MAX {
            return Ok(());
        }
        let others = self.jobs.iter().filter(|(other, job)| **other != id && !job.is_over(at));
        let (all, of_tenant) = others.fold((0, 0), |(all, of_tenant), (_, job)| {
            (all + 1, of_tenant + usize::from(job.tenant == tenant))
        });
        if of_tenant >= limits::JOBS_PER_TENANT_MAX {
            return full(Bounded::JobsOfTenant, limits::JOBS_PER_TENANT_MAX);
        }
        if all >= limits::JOBS_MAX { full(Bounded::Jobs, limits::JOBS_MAX) } else { Ok(()) }
    }

    pub(crate) fn running_job(&mut self, id: JobId) -> Result<&mut Job, Refusal> {
        let job = self.jobs.get_mut(&id).ok_or(Refusal::Job(JobRefusal::Unknown { job: id }))?;
        if job.ended.is_some() { refused(JobRefusal::NotItsRun { job: id }) } else { Ok(job) }
    }
}

fn refused<T>(refusal: JobRefusal) -> Result<T, Refusal> {
    Err(Refusal::Job(refusal))
}
