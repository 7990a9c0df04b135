//! `/v1/files`: what clients upload for their batches, and what batches have answered.
//!
//! Owns the five ways to a file, and that a file of somebody else is as good as none. The facts about a file are in the registry,
//! its bytes are in pieces on the disks of coordinators; an upload goes there as it comes, and a download comes from there piece by
//! piece, so no file is ever whole in memory.

mod errors;
mod form;
mod object;
mod upload;
mod reading;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response};
use registry::{Command, FileChange, FileId, KeyId, Refusal, Reply, StoredFile, Tenant};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Who;
use super::caller::Caller;
use super::error::ApiError;
use super::query::ApiQuery;
use super::{Gateway, proposing};
use crate::clock::unix_ms;

pub(crate) use self::errors::{not_kept, unproposed};
pub(crate) use self::reading::Pieces;

/// Whose files and batches these are.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) tenant: Tenant,
    pub(crate) key: Option<KeyId>,
}

impl Owner {
    pub(crate) fn of(gateway: &Gateway, headers: &HeaderMap, who: &Who) -> Result<Self, ApiError> {
        let tenant = Tenant(Caller::of(headers, who, &gateway.hash_keys)?.tenant);
        let key = match who {
            Who::Key(holder) => Some(holder.id.clone()),
            Who::Anonymous | Who::Local => None,
        };
        Ok(Self { tenant, key })
    }
}

impl FromRequestParts<Gateway> for Owner {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        let who = Who::from_request_parts(parts, gateway).await?;
        Self::of(gateway, &parts.headers, &who)
    }
}

pub(crate) async fn create(
    State(gateway): State<Gateway>,
    owner: Owner,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let uploaded = upload::take_in(&gateway, &headers, body).await?;
    let at_unix_ms = unix_ms();
    let change = FileChange::Add {
        tenant: owner.tenant,
        name: uploaded.name,
        pieces: uploaded.pieces,
        at_unix_ms,
        until_unix_ms: at_unix_ms.saturating_add(uploaded.life_ms),
    };
    let file = FileId(super::request_id::fresh("file-"));
    let command = Command::ChangeFile { file: file.clone(), change };
    match proposing::propose(&gateway, &command).await.map_err(|error| unproposed(&error))? {
        Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => {}
        Reply::Refused(refusal) => return Err(errors::refused(&refusal)),
    }
    let registry = gateway.registry.borrow().clone();
    let stored = registry.file(&file).ok_or_else(|| errors::unknown(&file.0))?;
    Ok(Json(object::file(&file, stored)))
}

/// What may be said about a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<Order>,
    purpose: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    Asc,
    Desc,
}

pub(crate) async fn list(
    State(gateway): State<Gateway>,
    owner: Owner,
    ApiQuery(which): ApiQuery<Which>,
) -> Result<Json<Value>, ApiError> {
    let limit = within(which.limit, LISTED_MAX, LISTED_MAX)?;
    gateway.facts.newest().await;
    let (registry, now) = (gateway.registry.borrow().clone(), unix_ms());
    let is_meant = |file: &StoredFile| {
        which.purpose.as_deref().is_none_or(|purpose| purpose == object::purpose(file.purpose))
    };
    let his = registry.files().filter(|(_, file)| file.tenant == owner.tenant && !file.is_over(now));
    let mut files: Vec<_> = his.filter(|(_, file)| is_meant(file)).collect();
    files.sort_by_key(|(id, file)| (file.made_at_unix_ms, *id));
    if which.order != Some(Order::Asc) {
        files.reverse();
    }
    let named = files.into_iter().map(|(id, file)| (id.0.clone(), object::file(id, file))).collect();
    page(named, which.after.as_deref(), limit).map(Json)
}

/// One page of a list, in OpenAI's shape.
pub(crate) fn page(all: Vec<(String, Value)>, after: Option<&str>, limit: usize) -> Result<Value, ApiError> {
    let begin = match after {
        None => 0,
        Some(after) => {
            1 + all.iter().position(|(id, _)| id == after).ok_or_else(|| {
                ApiError::invalid(
                    "invalid_value",
                    "after",
                    "Invalid value for 'after': there is no such object.",
                )
            })?
        }
    };
    let has_more = all.len() > begin.saturating_add(limit);
    let (ids, data): (Vec<_>, Vec<_>) = all.into_iter().skip(begin).take(limit).unzip();
    Ok(json!({
        "object": "list", "data": data, "first_id": ids.first(), "last_id": ids.last(), "has_more": has_more,
    }))
}

/// Objects on one page of files, as with OpenAI: more than a tenant can have.
const LISTED_MAX: usize = 10_000;

pub(crate) fn within(limit: Option<usize>, usual: usize, most: usize) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(usual);
    let message = format!("Invalid value for 'limit': it must be 1 to {most}.");
    let fits = (1..=most).contains(&limit);
    if fits { Ok(limit) } else { Err(ApiError::invalid("invalid_value", "limit", message)) }
}

pub(crate) async fn one(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (file, stored) = find(&gateway, &owner, id).await?;
    Ok(Json(object::file(&file, &stored)))
}

pub(crate) async fn content(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Response<Body>, ApiError> {
    let (_, stored) = find(&gateway, &owner, id).await?;
    let place = gateway.downloads.try_take(owner.tenant).ok_or_else(errors::too_many_readers)?;
    let bytes = stored.bytes();
    let mut pieces = Pieces::of(&gateway, stored.pieces);
    // Before there is a status, a client can still be told.
    let first = pieces.next().await.transpose().map_err(errors::unread)?;
    let mut response = Response::new(reading::body(first, pieces, place));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(response)
}

pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (file, _) = find(&gateway, &owner, id).await?;
    let command = Command::ChangeFile { file: file.clone(), change: FileChange::Drop };
    match proposing::propose(&gateway, &command).await.map_err(|error| unproposed(&error))? {
        Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => {
            Ok(Json(json!({"id": file.0, "object": "file", "deleted": true})))
        }
        Reply::Refused(refusal) => Err(errors::refused(&refusal)),
    }
}

/// A file of this owner, as new as any coordinator knows.
async fn find(gateway: &Gateway, owner: &Owner, id: String) -> Result<(FileId, StoredFile), ApiError> {
    gateway.facts.newest().await;
    let (id, now) = (FileId(id), unix_ms());
    let registry = gateway.registry.borrow().clone();
    let stored = registry.file(&id).filter(|file| file.tenant == owner.tenant && !file.is_over(now));
    let stored = stored.cloned().ok_or_else(|| errors::unknown(&id.0))?;
    Ok((id, stored))
}

/// What the registry says of a batch's file, to the batch's owner.
pub(crate) fn refused(refusal: &Refusal) -> ApiError {
    errors::refused(refusal)
}
