//! Looking at a response, and ending one: only its owner's, at any coordinator.
//!
//! Owns finding it, as new as any coordinator knows. A response of somebody else is as good as none: its name alone says whose it is.

use axum::Json;
use axum::body::Body;
use axum::http::Response;
use registry::{Command, Deferred, Job, JobId, Reply, ResponseChange};
use serde_json::{Value, json};

use super::items::Item;
use super::kept::{self, Kept};
use super::object::{End, How, Standing};
use super::{background, errors, following};
use crate::clock::unix_ms;
use crate::gateway::error::ApiError;
use crate::gateway::files::{self, Owner};
use crate::gateway::once::Names;
use crate::gateway::openai::handlers::unix_s;
use crate::gateway::{Gateway, limits, proposing};
use crate::jobs::What;

/// One response of its owner.
pub(super) struct Found {
    pub(super) id: JobId,
    job: Job,
}

pub(super) async fn find(gateway: &Gateway, owner: &Owner, id: &str, param: &str) -> Result<Found, ApiError> {
    gateway.facts.newest().await;
    look(gateway, kept::job_of(gateway, owner.tenant, id)).ok_or_else(|| errors::unknown(id, param))
}

/// What a former run of the same job has begun, as it stands.
pub(super) async fn begun_before(
    gateway: &Gateway,
    owner: &Owner,
    names: &Names,
) -> Result<Option<Value>, ApiError> {
    if !names.before.is_empty() {
        gateway.facts.newest().await;
    }
    for name in &names.before {
        let Some(found) = look(gateway, kept::job_of(gateway, owner.tenant, name)) else { continue };
        let object = object(gateway, &found).await?;
        if names.are_of(object["created_at"].as_u64().unwrap_or(0).saturating_mul(1_000)) {
            return Ok(Some(object));
        }
    }
    Ok(None)
}

/// Where one could not begin, another run of the same job may have been quicker, or nobody knew that this one had begun it.
pub(super) async fn or_before(
    gateway: &Gateway,
    owner: &Owner,
    names: &Names,
    begun: Result<Response<Body>, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let Err(error) = begun else { return begun };
    match begun_before(gateway, owner, names).await {
        Ok(Some(object)) => background::shown(&object),
        Ok(None) | Err(_) => Err(error),
    }
}

fn look(gateway: &Gateway, id: JobId) -> Option<Found> {
    let registry = gateway.registry.borrow().clone();
    let job = registry.job(id).filter(|job| !job.is_over(unix_ms())).cloned()?;
    Some(Found { id, job })
}

pub(super) async fn object(gateway: &Gateway, found: &Found) -> Result<Value, ApiError> {
    let Some(deferred) = &found.job.deferred else {
        let kept = ended(gateway, found).await?;
        return Ok(kept.head.shown(&Standing::Ended(&kept.end, &kept.text())));
    };
    let question = kept::question(gateway, deferred).await.map_err(errors::missing)?;
    let standing = if deferred.progress.is_some() { Standing::InProgress } else { Standing::Queued };
    Ok(question.head.shown(&standing))
}

async fn ended(gateway: &Gateway, found: &Found) -> Result<Kept, ApiError> {
    let kept = kept::ended(gateway, &found.job).await.map_err(errors::missing)?;
    kept.ok_or_else(|| ApiError::internal("A response has neither a question nor an answer."))
}

pub(super) async fn stream(
    gateway: &Gateway,
    found: &Found,
    after: Option<u64>,
) -> Result<Response<Body>, ApiError> {
    following::stream(gateway, found.id, after).await
}

/// What another response reads before its own input.
pub(super) async fn context(gateway: &Gateway, owner: &Owner, id: &str) -> Result<Vec<Item>, ApiError> {
    let found = find(gateway, owner, id, "previous_response_id").await?;
    if found.job.deferred.is_some() {
        return Err(errors::not_answered_yet());
    }
    let kept = ended(gateway, &found).await?;
    match kept.end.how {
        How::Completed | How::Length => Ok(kept.context()),
        How::Cancelled | How::Failed { .. } => Err(errors::not_answered()),
    }
}

pub(super) async fn items(gateway: &Gateway, found: &Found) -> Result<Vec<Item>, ApiError> {
    match &found.job.deferred {
        Some(deferred) => Ok(kept::question(gateway, deferred).await.map_err(errors::missing)?.items),
        None => Ok(ended(gateway, found).await?.items),
    }
}

/// A page of items, the last one first unless it is asked for otherwise.
pub(super) fn page(
    items: &[Item],
    ascending: bool,
    after: Option<&str>,
    limit: usize,
) -> Result<Json<Value>, ApiError> {
    let named = |item: &Item| {
        let shown = json!(item);
        (shown["id"].as_str().unwrap_or_default().to_owned(), shown)
    };
    let mut named: Vec<_> = items.iter().map(named).collect();
    if !ascending {
        named.reverse();
    }
    files::page(named, after, limit).map(Json)
}

/// Ends it with what was shown by then. Whoever shows more meanwhile is quicker, and is asked to end again.
pub(super) async fn cancel(gateway: &Gateway, mut found: Found, id: &str) -> Result<Value, ApiError> {
    for _ in 0..limits::CANCEL_TRIES {
        let Some(deferred) = &found.job.deferred else {
            let kept = ended(gateway, &found).await?;
            if !kept.head.background {
                return Err(errors::not_in_background());
            }
            return Ok(kept.head.shown(&Standing::Ended(&kept.end, &kept.text())));
        };
        let (change, shown) = cancellation(gateway, deferred).await?;
        let command = Command::ChangeResponse { response: found.id, change };
        match proposing::propose(gateway, &command).await.map_err(|error| errors::unproposed(&error))? {
            Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => return Ok(shown),
            Reply::Refused(registry::Refusal::Job(_)) => {}
            Reply::Refused(refusal) => return Err(errors::refused(&refusal)),
        }
        gateway.facts.newest().await;
        found = look(gateway, found.id).ok_or_else(|| errors::unknown(id, "response_id"))?;
    }
    let message = "The response goes on while it is cancelled. Cancel it again.";
    Err(ApiError::unavailable("conflict", message, limits::RETRY_IN_FLIGHT))
}

async fn cancellation(gateway: &Gateway, deferred: &Deferred) -> Result<(ResponseChange, Value), ApiError> {
    let question = kept::question(gateway, deferred).await.map_err(errors::missing)?;
    let progress = kept::progress(gateway, deferred).await.map_err(errors::missing)?;
    let begun = progress.is_some();
    let deltas = progress.unwrap_or_default().deltas;
    let (head, items, end) = (question.head, question.items, End::cancelled(unix_s()));
    let mut kept = Kept { head, items, begun, deltas, end };
    let on_disks = loop {
        match kept::keep(gateway, What::Answer, &kept).await {
            // Together with what was asked it is too large, and it has to end all the same.
            Err(_) if !kept.items.is_empty() => kept.items.clear(),
            tried => break tried?.ok_or_else(errors::not_kept)?,
        }
    };
    let shown = kept.head.shown(&Standing::Ended(&kept.end, &kept.text()));
    let kept = on_disks;
    let progress = deferred.progress.as_ref().map(|kept| kept.digest);
    Ok((ResponseChange::Cancel { progress, kept, at_unix_ms: unix_ms() }, shown))
}

pub(super) async fn delete(gateway: &Gateway, found: &Found, id: &str) -> Result<Value, ApiError> {
    let command = Command::ChangeResponse { response: found.id, change: ResponseChange::Drop };
    match proposing::propose(gateway, &command).await.map_err(|error| errors::unproposed(&error))? {
        Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => {
            Ok(json!({"id": id, "object": "response", "deleted": true}))
        }
        Reply::Refused(refusal) => Err(errors::refused(&refusal)),
    }
}
