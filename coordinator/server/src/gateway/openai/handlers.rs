//! `POST /v1/chat/completions` and `POST /v1/completions`, from bytes to bytes.
//!
//! Owns the sequence: read, prepare, wish, answer, once where the client names its request. Each step is a module of its own; a
//! request reads from top to bottom here.

use std::time::{Instant, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use axum::response::IntoResponse as _;
use serde::Serialize;

use super::answer::Answer;
use super::chat_chunks::ChatChunks;
use super::chat_request::unrendered;
use super::choice::Making;
use super::chunks::{Chunks, Envelope, Head};
use super::completion_chunks::CompletionChunks;
use super::hints;
use super::options::Delivery;
use super::preparing::{self, Prepared};
use super::sse::EventStream;
use super::whole::Whole;
use crate::gateway::caller::Caller;
use crate::gateway::deadline::Patience;
use crate::gateway::error::ApiError;
use crate::gateway::metrics::Spent;
use crate::gateway::once::{self, Asked};
use crate::gateway::passing::{self, Meter, Pass};
use crate::gateway::shelf::Shelf;
use crate::gateway::text::detokenizer::Start;
use crate::gateway::{Gateway, request_id};

pub(crate) const IGNORED_PARAMS: HeaderName = HeaderName::from_static("x-mlx-ignored-params");
const REQUEST: HeaderName = HeaderName::from_static("x-mlx-request");
const AFFINITY: HeaderName = HeaderName::from_static("x-mlx-affinity");
const NODE: HeaderName = HeaderName::from_static("x-mlx-node");
const CACHED_TOKENS: HeaderName = HeaderName::from_static("x-mlx-cached-tokens");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(crate) async fn chat(State(gateway): State<Gateway>, asked: Asked) -> Result<Response<Body>, ApiError> {
    once::answer(gateway, "chat/completions", asked, |gateway, asked| Box::pin(chat_of(gateway, asked))).await
}

pub(crate) async fn chat_of(gateway: Gateway, asked: Asked) -> Result<Response<Body>, ApiError> {
    let Asked { who, headers, bytes, at: asked, .. } = asked;
    let (shelf, patience) = (Shelf::of(&gateway.catalogue, &who), Patience::of(&headers));
    let caller = Caller::of(&headers, &who, &gateway.hash_keys)?;
    let read = move |bytes: &[u8]| preparing::chat(bytes, &shelf, caller, patience, unix_s());
    let (read, task) = gateway.long_texts.run(bytes, read).await??;
    let prompt = gateway.renderers.render(task).await.map_err(unrendered)?;
    let mut prepared = gateway.long_texts.run(prompt.into(), |prompt| read.prepared(prompt)).await??;
    prepared.ignored.extend(hints::in_headers(&headers));

    let pass = match Pass::of(&gateway, &who, &prepared).await {
        Ok(pass) => pass,
        Err(refused) => return Ok(refused.into_response()),
    };
    let standing = pass.standing;
    let answer = answer(&gateway, &mut prepared, Start::Fresh, asked, pass.meter);
    let told = Told::of(&gateway, &headers, &answer, &prepared, standing);
    let logprobs = prepared.logprobs;
    let answered = match prepared.options.delivery {
        Delivery::Whole => {
            let head = head(&prepared, "chatcmpl-", "chat.completion");
            whole(answer, |answer| json(&Whole::chat(&head, &answer.choices, logprobs, answer.usage()))).await
        }
        Delivery::Stream { include_usage } => {
            let head = head(&prepared, "chatcmpl-", "chat.completion.chunk");
            stream(answer, ChatChunks { envelope: Envelope::new(&head, include_usage), logprobs }).await
        }
    };
    Ok(told.tell(answered))
}

pub(crate) async fn completions(
    State(gateway): State<Gateway>,
    asked: Asked,
) -> Result<Response<Body>, ApiError> {
    once::answer(gateway, "completions", asked, |gateway, asked| Box::pin(completion_of(gateway, asked)))
        .await
}

pub(crate) async fn completion_of(gateway: Gateway, asked: Asked) -> Result<Response<Body>, ApiError> {
    let Asked { who, headers, bytes, at: asked, .. } = asked;
    let (shelf, patience) = (Shelf::of(&gateway.catalogue, &who), Patience::of(&headers));
    let caller = Caller::of(&headers, &who, &gateway.hash_keys)?;
    let prepare = move |bytes: &[u8]| preparing::completion(bytes, &shelf, caller, patience);
    let mut prepared = gateway.long_texts.run(bytes, prepare).await??;
    prepared.ignored.extend(hints::in_headers(&headers));

    let pass = match Pass::of(&gateway, &who, &prepared).await {
        Ok(pass) => pass,
        Err(refused) => return Ok(refused.into_response()),
    };
    let standing = pass.standing;
    let answer = answer(&gateway, &mut prepared, Start::Continuing, asked, pass.meter);
    let told = Told::of(&gateway, &headers, &answer, &prepared, standing);
    let head = head(&prepared, "cmpl-", "text_completion");
    let (logprobs, echoes) = (prepared.logprobs, std::mem::take(&mut prepared.echoes));
    let answered = match prepared.options.delivery {
        Delivery::Whole => {
            let body = |answer: &Answer| {
                json(&Whole::completion(&head, &answer.choices, &echoes, logprobs, answer.usage()))
            };
            whole(answer, body).await
        }
        Delivery::Stream { include_usage } => {
            let envelope = Envelope::new(&head, include_usage);
            stream(answer, CompletionChunks { envelope, logprobs, echoes }).await
        }
    };
    Ok(told.tell(answered))
}

pub(crate) fn answer(
    gateway: &Gateway,
    prepared: &mut Prepared,
    start: Start,
    asked: Instant,
    meter: Option<Meter>,
) -> Answer {
    let wishes = std::mem::take(&mut prepared.wishes);
    let stops = &prepared.options.stops;
    let making =
        Making { card: &prepared.served.card, stops, logprobs: prepared.logprobs, start, journal: false };
    Answer::start(gateway.generations.as_ref(), wishes, prepared.options.n, &making, asked, meter)
}

async fn whole(
    mut answer: Answer,
    body: impl FnOnce(&Answer) -> Result<Vec<u8>, ApiError>,
) -> Result<Response<Body>, ApiError> {
    answer.complete().await?;
    let body = body(&answer)?;
    Ok(in_one_piece(&answer, body))
}

/// The response to an answer that is complete.
pub(crate) fn in_one_piece(answer: &Answer, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHED_TOKENS, HeaderValue::from(answer.usage().cached_tokens()));
    if let Some(spent) = answer.choices.first().map(|choice| choice.timeline.spent()) {
        insert(headers, SERVER_TIMING, &timing(spent));
    }
    name_places(&mut response, answer);
    response
}

pub(crate) async fn stream<C: Chunks>(mut answer: Answer, chunks: C) -> Result<Response<Body>, ApiError> {
    answer.settle().await?;
    let mut response = Response::new(Body::empty());
    as_stream(response.headers_mut());
    name_places(&mut response, &answer);
    *response.body_mut() = Body::from_stream(EventStream::new(answer, chunks));
    Ok(response)
}

/// What keeps proxies from changing it or holding it back.
pub(crate) fn as_stream(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(NO_BUFFERING, HeaderValue::from_static("no"));
}

fn head(prepared: &Prepared, prefix: &str, object: &'static str) -> Head {
    // The card's digest names tokenizer and template; with our version it changes whenever answers may change.
    let revision = prepared.served.model.card_digest.as_deref().and_then(|digest| digest.get(..12));
    Head {
        id: request_id::fresh(prefix),
        object,
        created: unix_s(),
        model: prepared.served.model.name.clone(),
        system_fingerprint: revision.map(|revision| format!("fp_{revision}_{}", env!("CARGO_PKG_VERSION"))),
        service_tier: prepared.service_tier,
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|_| ApiError::internal("The answer could not be written."))
}

/// What each response says of its request, an error too.
pub(crate) struct Told {
    requests: String,
    ignored: String,
    standing: passing::Told,
}

impl Told {
    /// From here on the request can be explained by its name.
    pub(crate) fn of(
        gateway: &Gateway,
        headers: &HeaderMap,
        answer: &Answer,
        prepared: &Prepared,
        standing: passing::Told,
    ) -> Self {
        let requests = answer.requests();
        if let (Some(name), Some(first)) = (request_id::of(headers), requests.first()) {
            gateway.request_numbers.remember(name.clone(), *first);
        }
        Self { requests: list(&requests), ignored: prepared.ignored.join(", "), standing }
    }

    pub(crate) fn tell(self, answered: Result<Response<Body>, ApiError>) -> Response<Body> {
        let mut response = answered.into_response();
        insert(response.headers_mut(), REQUEST, &self.requests);
        insert(response.headers_mut(), IGNORED_PARAMS, &self.ignored);
        self.standing.tell(response.headers_mut());
        response
    }
}

fn name_places(response: &mut Response<Body>, answer: &Answer) {
    insert(response.headers_mut(), NODE, &list(&answer.nodes()));
    insert(response.headers_mut(), AFFINITY, &answer.affinities().join(", "));
}

fn list(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn timing(spent: Spent) -> String {
    let load = match spent.load_s {
        0.0 => String::new(),
        load_s => format!("load;dur={:.1}, ", load_s * 1e3),
    };
    format!(
        "queue;dur={:.1}, {load}prefill;dur={:.1}, decode;dur={:.1}",
        (spent.queue_s - spent.load_s) * 1e3,
        spent.prefill_s * 1e3,
        spent.decode_s * 1e3
    )
}

/// These values are ours and plain ASCII; nothing is said of what is not there.
pub(crate) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if !value.is_empty()
        && let Ok(value) = HeaderValue::from_str(value)
    {
        headers.insert(name, value);
    }
}

pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
