//! The run of a response in the background, from where the last one left it to its end.
//!
//! Owns the sequence: read what was asked, ask until there is an answer, show it in steps, end it. What ends it before its time is
//! watched beside that: its owner, the end of its key, another run. A run that is dropped leaves what was shown, and the next one goes
//! on behind it, so that nobody who has read a part is ever told something else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::{Deferred, Job, JobId, Registry, Scope, Tenant};

use super::answering::{self, Shown};
use super::background;
use super::kept::{self, Kept, Progress, Question};
use super::object::End;
use super::preparing::{self, Birth, Ready};
use super::request::Request;
use super::telling::{Stop, Teller};
use crate::clock::unix_ms;
use crate::gateway::access::Who;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, Retry};
use crate::gateway::openai::handlers::unix_s;
use crate::gateway::passing::Pass;
use crate::gateway::shelf::Shelf;
use crate::gateway::{Gateway, limits};
use crate::jobs::{Missing, Running};

pub(super) async fn run(gateway: Gateway, id: JobId, running: Running) {
    let teller = Teller { gateway: gateway.clone(), job: id, run: running.run };
    let registry = gateway.registry.borrow().clone();
    let is_his = |job: &&Job| job.run == running.run && job.ended.is_none();
    let Some(job) = registry.job(id).filter(is_his).cloned() else { return };
    let Some(deferred) = job.deferred else { return };
    let Some(question) = read(&teller, || kept::question(&gateway, &deferred)).await else { return };
    let Some(progress) = read(&teller, || kept::progress(&gateway, &deferred)).await else { return };
    let mut shown = Shown::of(progress);
    let outcome = tokio::select! {
        outcome = answer(&teller, job.tenant, &deferred, &question, &mut shown) => outcome,
        () = lost(&teller) => Err(Stop::Lost),
        error = revoked(&gateway, &deferred, &question) => Err(Stop::Failed(error)),
    };
    let end = match outcome {
        Ok(end) => end,
        Err(Stop::Failed(error)) => End::failed(&error, unix_s()),
        Err(Stop::Lost) => return,
    };
    finish(&teller, question, shown, end).await;
}

/// What is kept is what was shown, and what came after that.
async fn finish(teller: &Teller, question: Question, shown: Shown, end: End) {
    let Question { head, items, .. } = question;
    let (begun, Progress { deltas, .. }) = (shown.begun, shown.progress);
    let mut kept = Kept { head, items, begun, deltas, end };
    while let Err(Stop::Failed(error)) = teller.end(&kept).await {
        // One that is too large to be kept with its answer is kept without.
        if kept.deltas.is_empty() && kept.items.is_empty() {
            return;
        }
        kept.items.clear();
        kept.deltas.clear();
        kept.end = End::failed(&error, unix_s());
    }
}

/// `None`: another run has it by then. Where it is lost nobody can go on, and it is looked for until its time is over.
async fn read<T, F: Future<Output = Result<T, Missing>>>(
    teller: &Teller,
    fetch: impl Fn() -> F,
) -> Option<T> {
    let reading = async {
        loop {
            match fetch().await {
                Ok(value) => return value,
                Err(missing) => {
                    tracing::warn!(response = %teller.job, ?missing, "what a response asks is not found")
                }
            }
            tokio::time::sleep(limits::BATCH_AGAIN).await;
        }
    };
    tokio::select! {
        value = reading => Some(value),
        () = lost(teller) => None,
    }
}

/// Until it is no more this run's.
async fn lost(teller: &Teller) {
    let mut registry = teller.gateway.registry.clone();
    let is_his = |registry: &Arc<Registry>| {
        registry.job(teller.job).is_none_or(|job| job.run != teller.run || job.ended.is_some())
    };
    // The registry goes away with the coordinator, and so does the run.
    if registry.wait_for(is_his).await.is_err() {
        std::future::pending().await
    }
}

/// Until its key may ask no more.
async fn revoked(gateway: &Gateway, deferred: &Deferred, question: &Question) -> ApiError {
    match who(gateway, deferred, question) {
        Ok(who) => gateway.access.clone().ended(who, Scope::Inference).await,
        Err(error) => error,
    }
}

/// Whose it is at this moment: a key may have got another list of models, or have ended.
fn who(gateway: &Gateway, deferred: &Deferred, question: &Question) -> Result<Who, ApiError> {
    match &deferred.key {
        Some(key) => gateway.access.holder(key, Scope::Inference),
        None if question.is_anonymous => Ok(Who::Anonymous),
        None => Ok(Who::Local),
    }
}

/// Asks until there is an answer, or none to be expected.
async fn answer(
    teller: &Teller,
    tenant: Tenant,
    deferred: &Deferred,
    question: &Question,
    shown: &mut Shown,
) -> Result<End, Stop> {
    let mut faults = 0;
    loop {
        let left_ms = question.deadline_unix_ms.saturating_sub(unix_ms());
        if left_ms == 0 {
            return Err(Stop::Failed(over()));
        }
        let left = Duration::from_millis(left_ms);
        let error = match ask(teller, tenant, deferred, question, left, shown).await {
            Ok(end) => return Ok(end),
            Err(Stop::Failed(error)) => error,
            Err(Stop::Lost) => return Err(Stop::Lost),
        };
        let Some(after) = worth_waiting(&error, &mut faults) else { return Err(Stop::Failed(error)) };
        tracing::info!(response = %teller.job, code = error.code, "a response in the background waits");
        tokio::time::sleep(after.min(left)).await;
    }
}

fn over() -> ApiError {
    ApiError::deadline("The time for this response is over. Allow more time or ask for fewer tokens.")
}

/// What says when to come back is waited for; our own fault is tried a few times, since it may be one node's.
fn worth_waiting(error: &ApiError, faults: &mut u32) -> Option<Duration> {
    match error.retry {
        Retry::After(after) => Some(after.clamp(limits::LINE_AGAIN, limits::LINE_AGAIN_MAX)),
        Retry::Unsaid if error.code == "internal_error" => {
            *faults += 1;
            (*faults < limits::LINE_FAULTS_MAX).then_some(limits::LINE_AGAIN)
        }
        Retry::Unsaid | Retry::Never | Retry::NotBefore(_) => None,
    }
}

/// One try, by the ways of a client's request: the same limits, the same queue.
async fn ask(
    teller: &Teller,
    tenant: Tenant,
    deferred: &Deferred,
    question: &Question,
    left: Duration,
    shown: &mut Shown,
) -> Result<End, Stop> {
    let gateway = &teller.gateway;
    let who = who(gateway, deferred, question).map_err(Stop::Failed)?;
    let Ready { mut prepared, .. } =
        prepare(gateway, &who, tenant, question, left).await.map_err(Stop::Failed)?;
    for wish in &mut prepared.wishes {
        wish.journal.clone_from(&shown.progress.tokens);
        if wish.sampling.seed.is_none() && wish.sampling.temperature > 0.0 {
            wish.sampling.seed = question.seed;
        }
    }
    let passed = Pass::of(gateway, &who, &prepared).await;
    let pass = passed.map_err(|refused| Stop::Failed(refused.error().clone()))?;
    answering::answer(teller, prepared, pass.meter, Instant::now(), shown).await
}

async fn prepare(
    gateway: &Gateway,
    who: &Who,
    tenant: Tenant,
    question: &Question,
    left: Duration,
) -> Result<Ready, ApiError> {
    let shelf = Shelf::of(&gateway.catalogue, who);
    let mut caller = Caller::of(&background::headers(&question.headers), who, &gateway.hash_keys)?;
    // What an unkeyed client showed is not kept, only whose number it was.
    caller.tenant = tenant.0;
    let deadline = tokio::time::Instant::now() + left;
    let birth = Birth { id: question.head.id.clone(), at_unix_s: question.head.created_at, deadline };
    let (items, body) = (question.items.clone(), question.body.clone());
    let text = bytes::Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
    let read = move |body: &[u8]| {
        let request = Request { items, ..Request::parse(body)? };
        preparing::read(request, Vec::new(), &shelf, caller, birth)
    };
    preparing::ready(gateway, text, read).await
}
