//! The answer to a request with an `Idempotency-Key`, as a client gets it: while it is given, or as it is kept.
//!
//! Owns `idempotent-replayed` and where a client goes on after its `Last-Event-ID`. A client that goes away ends its own
//! reading, and nothing else.

use std::pin::Pin;

use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderName, HeaderValue, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use registry::Job;

use super::errors;
use super::events::LastEvent;
use super::kept;
use super::work::is_stream;
use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::jobs::{Missing, Piece, Reading, Record, What};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Why the body failed. It reaches our own log at most: the client sees the cut.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut")]
struct Broken;

/// An answer that is being given here, from its beginning or after what the client has.
pub(super) async fn given(
    record: &Record,
    tag: &str,
    last_event: Option<&LastEvent>,
) -> Result<Response<Body>, ApiError> {
    if last_event.is_some_and(|last| !last.is_of(tag)) {
        return Err(errors::another_stream());
    }
    let mut reading = record.read().ok_or_else(errors::in_flight)?;
    let Some(head) = reading.head().await else { return Err(errors::lost()) };
    let body = if is_stream(&head.headers) {
        Body::from_stream(pieces(reading, last_event.cloned()))
    } else {
        whole(reading).await?
    };
    Ok(Response::from_parts(Parts::clone(&head), body))
}

/// An answer that was given before.
pub(super) async fn kept(
    gateway: &Gateway,
    job: &Job,
    last_event: Option<&LastEvent>,
) -> Result<Response<Body>, ApiError> {
    let kept = job.ended.as_ref().and_then(|ended| ended.kept.as_ref()).ok_or_else(errors::gone)?;
    let fetched = gateway.jobs.keeper.fetch(What::Answer, kept.digest, kept.holders.clone()).await;
    let answer = fetched.map_err(|missing| match missing {
        Missing::Gone => errors::gone(),
        Missing::Unreachable => errors::unreachable(),
    })?;
    let (mut head, mut body) = kept::decode(&answer).ok_or_else(errors::gone)?;
    if let Some(last) = last_event.filter(|_| is_stream(&head.headers)) {
        if !last.is_in(&body) {
            return Err(errors::another_stream());
        }
        body = last.rest(&body).unwrap_or_default();
    }
    head.headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Response::from_parts(head, Body::from(body)))
}

/// One piece, so that its length is told as it is without a key.
async fn whole(mut reading: Reading) -> Result<Body, ApiError> {
    let mut body = Vec::new();
    loop {
        match reading.next().await {
            Piece::Bytes(bytes) => body.extend_from_slice(&bytes),
            Piece::Whole => return Ok(Body::from(body)),
            Piece::Broken => return Err(errors::lost()),
        }
    }
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>;

fn pieces(reading: Reading, last_event: Option<LastEvent>) -> Pieces {
    let next = |state: Option<(Reading, Option<LastEvent>)>| async move {
        let (mut reading, after) = state?;
        loop {
            let bytes = match reading.next().await {
                Piece::Bytes(bytes) => bytes,
                Piece::Whole => return None,
                Piece::Broken => {
                    // The server flushes when the body has nothing more at the moment.
                    tokio::task::yield_now().await;
                    return Some((Err(Broken), None));
                }
            };
            let Some(last) = &after else { return Some((Ok(bytes), Some((reading, None)))) };
            if let Some(rest) = last.rest(&bytes) {
                return Some((Ok(rest), Some((reading, None))));
            }
        }
    };
    futures_util::stream::unfold(Some((reading, last_event)), next).boxed()
}
