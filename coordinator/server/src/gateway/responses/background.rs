//! The beginning of a response that goes on without its client.
//!
//! Owns the order: what is asked lies on two disks, then the registry has it, and only then the client hears that it is queued. From
//! there on nothing but its owner, its deadline or its key ends it before its time.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use registry::{Command, Reply, ResponseChange};
use serde_json::{Map, Value};

use super::kept::{self, Question};
use super::object::Standing;
use super::preparing::Ready;
use super::{errors, following};
use crate::clock::unix_ms;
use crate::gateway::access::Who;
use crate::gateway::error::ApiError;
use crate::gateway::files::Owner;
use crate::gateway::once::Asked;
use crate::gateway::openai::handlers::{IGNORED_PARAMS, insert};
use crate::gateway::openai::options::Delivery;
use crate::gateway::{Gateway, limits, proposing};
use crate::jobs::What;

/// Headers that say how a request is treated, whoever goes on with it.
const TREATMENT: [&str; 7] = [
    "x-mlx-class",
    "x-mlx-no-cache",
    "x-session-affinity",
    "x-session-id",
    "x-claude-code-session-id",
    "session-id",
    "thread-id",
];

pub(super) async fn begin(
    gateway: &Gateway,
    asked: Asked,
    ready: Ready,
    owner: &Owner,
) -> Result<Response<Body>, ApiError> {
    let Ready { prepared, head, items } = ready;
    if !gateway.jobs.keeper.has_room() {
        return Err(errors::not_kept());
    }
    let job = kept::job_of(gateway, owner.tenant, &head.id);
    let question = Question {
        head: head.clone(),
        items,
        body: without_input(&asked.bytes),
        headers: treatment(&asked.headers),
        is_anonymous: asked.who == Who::Anonymous,
        seed: getrandom::u64().ok(),
        deadline_unix_ms: unix_ms().saturating_add(patience_ms(&asked.headers)),
    };
    let kept = kept::keep(gateway, What::Piece, &question).await?.ok_or_else(errors::not_kept)?;
    let running = gateway.jobs.runs.begin().ok_or_else(errors::too_many_at_once)?;
    let place =
        gateway.responses.begun.clone().try_reserve_owned().map_err(|_| errors::too_many_at_once())?;
    let change = ResponseChange::Begin {
        tenant: owner.tenant,
        key: owner.key.clone(),
        question: kept,
        run: running.run,
        at_unix_ms: unix_ms(),
    };
    let command = Command::ChangeResponse { response: job, change };
    match proposing::propose(gateway, &command).await.map_err(|error| errors::unproposed(&error))? {
        Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => {}
        Reply::Refused(refusal) => return Err(errors::refused(&refusal)),
    }
    place.send((job, running));
    let mut response = match prepared.options.delivery {
        Delivery::Whole => shown(&head.shown(&Standing::Queued))?,
        Delivery::Stream { .. } => following::stream(gateway, job, None).await?,
    };
    insert(response.headers_mut(), IGNORED_PARAMS, &prepared.ignored.join(", "));
    Ok(response)
}

pub(super) fn shown(object: &Value) -> Result<Response<Body>, ApiError> {
    let body = serde_json::to_vec(object);
    let body = body.map_err(|_| ApiError::internal("The response could not be written."))?;
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// It was read before, so it is an object.
fn without_input(body: &[u8]) -> Map<String, Value> {
    let mut body: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    body.insert("input".to_owned(), "-".into());
    body
}

fn treatment(headers: &HeaderMap) -> Vec<(String, String)> {
    let of = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
    TREATMENT.into_iter().filter_map(of).collect()
}

/// For [`crate::gateway::caller::Caller::of`].
pub(super) fn headers(treatment: &[(String, String)]) -> HeaderMap {
    let of = |(name, value): &(String, String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    };
    treatment.iter().filter_map(of).collect()
}

/// Nobody is silent while he waits, so only what the client says of the whole answer counts.
fn patience_ms(headers: &HeaderMap) -> u64 {
    let said = headers.get("x-request-timeout-ms").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let patience = said.map_or(limits::BACKGROUND_DEADLINE, Duration::from_millis);
    u64::try_from(patience.min(limits::DEADLINE_MAX).as_millis()).unwrap_or(u64::MAX)
}
