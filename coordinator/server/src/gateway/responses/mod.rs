//! `/v1/responses`: the same answers as those of a chat, in OpenAI's newer form, and those that go on without their clients.
//!
//! Owns the ways to a response. One that its client waits for is a chat in other words (`foreground.rs`). One in the background is a
//! job that any coordinator can go on with (`running.rs`): it is shown in steps, each on two disks and in the registry before anybody
//! reads it (`answering.rs`), so that its events are the same for everybody, for ever (`following.rs`).

mod items;
mod request;
mod object;
mod preparing;
mod events;
mod kept;
mod foreground;
mod background;
mod running;
mod answering;
mod telling;
mod minding;
mod reading;
mod following;
mod errors;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use registry::JobId;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use self::preparing::Birth;
use self::reading::Found;
use self::request::Request;
use super::caller::Caller;
use super::deadline::Patience;
use super::error::ApiError;
use super::files::{self, Order, Owner};
use super::once::{self, Asked, IDEMPOTENCY_KEY, Names};
use super::openai::handlers::unix_s;
use super::openai::hints;
use super::openai::options::Delivery;
use super::query::ApiQuery;
use super::shelf::Shelf;
use super::{Gateway, limits};
use crate::jobs::Running;

pub(crate) use self::minding::ResponseRuns;

/// What the requests of this API have to do with the responses that run here.
#[derive(Clone)]
pub(super) struct Responses {
    /// To whoever runs them.
    begun: mpsc::Sender<(JobId, Running)>,
}

impl Responses {
    pub(super) fn new() -> (Self, mpsc::Receiver<(JobId, Running)>) {
        let (begun, receiver) = mpsc::channel(limits::RESPONSES_BEGUN);
        (Self { begun }, receiver)
    }
}

/// How their names begin.
const ID: &str = "resp_";

pub(crate) async fn create(State(gateway): State<Gateway>, asked: Asked) -> Result<Response<Body>, ApiError> {
    once::answer(gateway, "responses", asked, |gateway, asked| Box::pin(respond(gateway, asked))).await
}

async fn respond(gateway: Gateway, asked: Asked) -> Result<Response<Body>, ApiError> {
    let owner = Owner::of(&gateway, &asked.headers, &asked.who)?;
    let mut request = gateway.long_texts.run(asked.bytes.clone(), Request::parse).await??;
    let streams = matches!(request.options.delivery, Delivery::Stream { .. });
    if streams && asked.headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(errors::key_on_stream(IDEMPOTENCY_KEY));
    }
    request.ignored.extend(hints::in_headers(&asked.headers));
    // One that its client waits for is computed anew, and so it is another one.
    let names = match request.background {
        true => asked.names(&gateway.hash_keys, ID),
        false => Names::fresh(ID),
    };
    if let Some(begun) = reading::begun_before(&gateway, &owner, &names).await? {
        return background::shown(&begun);
    }
    let before = match &request.previous {
        Some(id) => reading::context(&gateway, &owner, id).await?,
        None => Vec::new(),
    };
    let (background, storing) = (request.background, foreground::storing(&request, owner.tenant));
    let shelf = Shelf::of(&gateway.catalogue, &asked.who);
    let caller = Caller::of(&asked.headers, &asked.who, &gateway.hash_keys)?;
    let deadline = Patience::of(&asked.headers).deadline(request.options.delivery);
    let birth = Birth { id: names.own.clone(), at_unix_s: unix_s(), deadline };
    let read = move |_: &[u8]| preparing::read(request, before, &shelf, caller, birth);
    let ready = preparing::ready(&gateway, asked.bytes.clone(), read).await?;
    if background {
        let begun = background::begin(&gateway, asked, ready, &owner).await;
        return reading::or_before(&gateway, &owner, &names, begun).await;
    }
    foreground::answer(gateway, asked, ready, storing).await
}

/// The caller's response of that name.
async fn found(gateway: &Gateway, owner: &Owner, id: &str) -> Result<Found, ApiError> {
    reading::find(gateway, owner, id, "response_id").await
}

/// How it shall be shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct How {
    stream: Option<bool>,
    starting_after: Option<u64>,
    /// Padding, as for a stream that begins.
    #[serde(rename = "include_obfuscation")]
    _padding: Option<bool>,
}

pub(crate) async fn one(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
    ApiQuery(How { stream, starting_after, .. }): ApiQuery<How>,
) -> Result<Response<Body>, ApiError> {
    let found = found(&gateway, &owner, &id).await?;
    if stream.unwrap_or(false) {
        return reading::stream(&gateway, &found, starting_after).await;
    }
    if starting_after.is_some() {
        return Err(errors::nothing_follows());
    }
    background::shown(&reading::object(&gateway, &found).await?)
}

pub(crate) async fn cancel(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = found(&gateway, &owner, &id).await?;
    reading::cancel(&gateway, found, &id).await.map(Json)
}

pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = found(&gateway, &owner, &id).await?;
    reading::delete(&gateway, &found, &id).await.map(Json)
}

/// What may be said about a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<Order>,
}

pub(crate) async fn input_items(
    State(gateway): State<Gateway>,
    owner: Owner,
    Path(id): Path<String>,
    ApiQuery(which): ApiQuery<Which>,
) -> Result<Json<Value>, ApiError> {
    let limit = files::within(which.limit, limits::ITEMS_LISTED, limits::ITEMS_LISTED_MAX)?;
    let found = found(&gateway, &owner, &id).await?;
    let items = reading::items(&gateway, &found).await?;
    reading::page(&items, which.order == Some(Order::Asc), which.after.as_deref(), limit)
}
