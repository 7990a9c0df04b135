//! `/v1/batches`: many requests in one file, answered one by one, whatever dies.
//!
//! Owns the four ways to a batch, and that a batch of somebody else is as good as none. A batch goes on without its client: one
//! coordinator runs it (`running.rs`), the others watch that one (`minding.rs`), and the registry says who has it and how far it is.

mod object;
mod lines;
mod checking;
mod asking;
mod steps;
mod running;
mod minding;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use registry::{
    Batch, BatchChange, BatchEndpoint, BatchField, BatchId, BatchRefusal, Command, Field, FileId, Refusal,
    Reply, limits as facts,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};

use super::admin::change::read_bytes;
use super::error::{ApiError, Retry};
use super::files::{self, Owner};
use super::once::{self, Asked, Names};
use super::places::Places;
use super::query::ApiQuery;
use super::{Gateway, limits, names, proposing};
use crate::clock::unix_ms;
use crate::jobs::Running;

pub(crate) use self::minding::BatchRuns;

/// What the requests of this API have to do with the batches that run here.
#[derive(Clone)]
pub(super) struct Batches {
    /// To whoever runs them.
    begun: mpsc::Sender<(BatchId, Running)>,
    /// Batches that run at once, ...
    places: Places,
    /// ... and requests of all of them together.
    asking: Arc<Semaphore>,
}

impl Batches {
    pub(super) fn new() -> (Self, mpsc::Receiver<(BatchId, Running)>) {
        let (begun, receiver) = mpsc::channel(limits::BATCHES_BEGUN);
        let places = Places::new(limits::BATCHES_AT_ONCE, limits::BATCHES_AT_ONCE_PER_TENANT);
        let asking = Arc::new(Semaphore::new(limits::LINES_AT_ONCE));
        (Self { begun, places, asking }, receiver)
    }
}

/// The path of an endpoint, as clients write it.
pub(super) fn path(endpoint: BatchEndpoint) -> &'static str {
    match endpoint {
        BatchEndpoint::Chat => "/v1/chat/completions",
        BatchEndpoint::Completions => "/v1/completions",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    /// `null` is as good as nothing.
    #[serde(default)]
    output_expires_after: Option<Value>,
}

impl Wanted {
    fn endpoint(&self) -> Result<BatchEndpoint, ApiError> {
        if self.completion_window != "24h" {
            let message = "Invalid value for 'completion_window': it must be '24h'.";
            return Err(ApiError::invalid("invalid_value", "completion_window", message));
        }
        if self.output_expires_after.is_some() {
            let message =
                "'output_expires_after' is not supported: what a batch answers is kept for 30 days.";
            return Err(ApiError::unsupported("output_expires_after", message));
        }
        let known = [BatchEndpoint::Chat, BatchEndpoint::Completions];
        known.into_iter().find(|endpoint| path(*endpoint) == self.endpoint).ok_or_else(|| {
            let message =
                "Invalid value for 'endpoint': it must be '/v1/chat/completions' or '/v1/completions'.";
            ApiError::invalid("invalid_value", "endpoint", message)
        })
    }

    /// Whatever the registry would refuse for its form never gets into the log.
    fn check(&self) -> Result<(), ApiError> {
        let refused = |refusal| Err(files::refused(&refusal));
        let id = self.input_file_id.as_str();
        let in_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if id.len() > facts::ID_BYTES_MAX || !id.bytes().all(in_id) {
            let file = FileId(self.input_file_id.clone());
            return refused(Refusal::Batch(BatchRefusal::UnknownFile { file }));
        }
        let fits = |(key, value): (&String, &String)| {
            (1..=facts::METADATA_KEY_BYTES_MAX).contains(&key.len())
                && value.len() <= facts::METADATA_VALUE_BYTES_MAX
        };
        let mut pairs = self.metadata.iter().flatten();
        if pairs.clone().count() > facts::METADATA_PAIRS_MAX || !pairs.all(fits) {
            return refused(Refusal::Malformed { what: Field::Batch(BatchField::Metadata) });
        }
        Ok(())
    }
}

pub(crate) async fn create(State(gateway): State<Gateway>, asked: Asked) -> Result<Response<Body>, ApiError> {
    once::answer(gateway, "batches", asked, |gateway, asked| Box::pin(begin(gateway, asked))).await
}

async fn begin(gateway: Gateway, asked: Asked) -> Result<Response<Body>, ApiError> {
    let wanted: Wanted = read_bytes(&asked.bytes)?;
    let endpoint = wanted.endpoint()?;
    let owner = Owner::of(&gateway, &asked.headers, &asked.who)?;
    wanted.check()?;
    // An upload at another coordinator may have arrived there a moment ago, and so may this request.
    gateway.facts.newest().await;
    let names = asked.names(&gateway.hash_keys, "batch_");
    if let Some(begun) = begun_before(&gateway, &owner, &names) {
        return Ok(begun);
    }
    if !gateway.jobs.keeper.has_room() {
        return Err(files::not_kept());
    }
    let running = gateway.jobs.runs.begin().ok_or_else(too_many_at_once)?;
    let place = gateway.batches.begun.clone().try_reserve_owned().map_err(|_| too_many_at_once())?;
    let batch = BatchId(names.own.clone());
    let change = BatchChange::Begin {
        tenant: owner.tenant,
        key: owner.key.clone(),
        input: FileId(wanted.input_file_id),
        endpoint,
        metadata: wanted.metadata.unwrap_or_default(),
        run: running.run,
        at_unix_ms: unix_ms(),
    };
    if let Err(error) = change_batch(&gateway, &batch, change).await {
        // Another run of the same job was quicker, or nobody knew that this one had begun it.
        gateway.facts.newest().await;
        return begun_before(&gateway, &owner, &names).ok_or(error);
    }
    place.send((batch.clone(), running));
    let registry = gateway.registry.borrow().clone();
    let begun = registry.batch(&batch).ok_or_else(|| unknown(&batch.0))?;
    Ok(Json(object::batch(&batch, begun)).into_response())
}

/// What a former run of the same job has begun.
fn begun_before(gateway: &Gateway, owner: &Owner, names: &Names) -> Option<Response<Body>> {
    let registry = gateway.registry.borrow().clone();
    let is_it = |batch: &&Batch| batch.tenant == owner.tenant && names.are_of(batch.begun_at_unix_ms);
    names.before.iter().find_map(|name| {
        let id = BatchId(name.clone());
        let begun = registry.batch(&id).filter(is_it)?;
        Some(Json(object::batch(&id, begun)).into_response())
    })
}

pub(crate) async fn one(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (id, batch) = find(&gateway, &owner, id).await?;
    Ok(Json(object::batch(&id, &batch)))
}

/// What may be said about a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    after: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(gateway): State<Gateway>,
    owner: Owner,
    ApiQuery(which): ApiQuery<Which>,
) -> Result<Json<Value>, ApiError> {
    let limit = files::within(which.limit, LISTED, LISTED_MAX)?;
    gateway.facts.newest().await;
    let (registry, now) = (gateway.registry.borrow().clone(), unix_ms());
    let his = registry.batches().filter(|(_, batch)| batch.tenant == owner.tenant && !batch.is_over(now));
    let mut batches: Vec<_> = his.collect();
    batches.sort_by_key(|(id, batch)| std::cmp::Reverse((batch.begun_at_unix_ms, *id)));
    let named = batches.into_iter().map(|(id, batch)| (id.0.clone(), object::batch(id, batch))).collect();
    files::page(named, which.after.as_deref(), limit).map(Json)
}

/// Batches on one page, as with OpenAI.
const LISTED: usize = 20;
const LISTED_MAX: usize = 100;

pub(crate) async fn cancel(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (id, _) = find(&gateway, &owner, id).await?;
    change_batch(&gateway, &id, BatchChange::Cancel { at_unix_ms: unix_ms() }).await?;
    let registry = gateway.registry.borrow().clone();
    let batch = registry.batch(&id).ok_or_else(|| unknown(&id.0))?;
    Ok(Json(object::batch(&id, batch)))
}

async fn change_batch(gateway: &Gateway, batch: &BatchId, change: BatchChange) -> Result<(), ApiError> {
    let command = Command::ChangeBatch { batch: batch.clone(), change };
    match proposing::propose(gateway, &command).await.map_err(|error| files::unproposed(&error))? {
        Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => Ok(()),
        Reply::Refused(refusal) => Err(files::refused(&refusal)),
    }
}

/// A batch of this owner, as new as any coordinator knows.
async fn find(gateway: &Gateway, owner: &Owner, id: String) -> Result<(BatchId, Batch), ApiError> {
    gateway.facts.newest().await;
    let (id, now) = (BatchId(id), unix_ms());
    let registry = gateway.registry.borrow().clone();
    let batch = registry.batch(&id).filter(|batch| batch.tenant == owner.tenant && !batch.is_over(now));
    let batch = batch.cloned().ok_or_else(|| unknown(&id.0))?;
    Ok((id, batch))
}

fn unknown(id: &str) -> ApiError {
    let message = format!("There is no batch '{}'.", names::quoted(id));
    let error = ApiError::refused(StatusCode::NOT_FOUND, "not_found", message);
    ApiError { param: Some("batch_id".to_owned()), ..error }
}

fn too_many_at_once() -> ApiError {
    let message = "As many batches and requests with an Idempotency-Key go on here as can. Send this one a little later.";
    let error = ApiError::refused(StatusCode::TOO_MANY_REQUESTS, "queue_full", message);
    ApiError { retry: Retry::After(limits::RETRY_IN_FLIGHT), ..error }
}
