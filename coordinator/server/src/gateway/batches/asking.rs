//! One request of a batch, asked until it has an answer or an error that stays.
//!
//! Owns what is waited for and what is not: a rate, a queue, a model on its way and a node that died are; a request that is wrong,
//! a month that is used up and a model that is not there are that line's error. When the time of the batch is over, what is left is
//! told so. Refuses to go past the ways of a client's request: the same endpoint, the same limits, in the class for batches.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use registry::{BatchEndpoint, KeyId, Scope};
use serde::Serialize;

use super::checking::Item;
use crate::clock::unix_ms;
use crate::gateway::access::Who;
use crate::gateway::error::{ApiError, RETRY_AFTER_MS, SHOULD_RETRY};
use crate::gateway::once::Asked;
use crate::gateway::{Gateway, limits, openai, request_id};
use crate::limits::ANSWER_BYTES_MAX;

const CLASS: HeaderName = HeaderName::from_static("x-mlx-class");
const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all requests of a batch share.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) gateway: Gateway,
    pub(super) endpoint: BatchEndpoint,
    pub(super) key: Option<KeyId>,
    pub(super) is_anonymous: bool,
    pub(super) expires_at_unix_ms: u64,
}

/// A line of the file of answers, or of the file of errors.
pub(super) struct Answered {
    pub(super) is_answer: bool,
    pub(super) line: Bytes,
}

/// What came back.
struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What is to be done about it.
enum Then {
    Keep,
    AskAgain(Duration),
}

impl Asker {
    /// Whose requests these are at this moment: a key may have got another list of models, or have ended.
    pub(super) fn who(&self) -> Result<Who, ApiError> {
        match &self.key {
            Some(key) => self.gateway.access.holder(key, Scope::Inference),
            None if self.is_anonymous => Ok(Who::Anonymous),
            None => Ok(Who::Local),
        }
    }

    /// An error is one of the key, and ends the batch: nothing more can be asked under it.
    pub(super) async fn ask(self, item: Item) -> Result<Answered, ApiError> {
        let name = request_id::fresh("batch_req_");
        let mut faults = 0;
        loop {
            let Some(left) = self.left() else { return Ok(expired(&name, &item)) };
            let asking = tokio::time::timeout(left, self.ask_once(&name, item.body.clone()));
            let Ok(told) = asking.await else { return Ok(expired(&name, &item)) };
            let told = told?;
            match judge(&told, &mut faults) {
                Then::Keep => return Ok(answered(&name, &item, &told)),
                Then::AskAgain(after) => tokio::time::sleep(after.min(left)).await,
            }
        }
    }

    /// `None`: its time is over.
    fn left(&self) -> Option<Duration> {
        let left_ms = self.expires_at_unix_ms.saturating_sub(unix_ms());
        (left_ms > 0).then(|| Duration::from_millis(left_ms))
    }

    async fn ask_once(&self, name: &str, body: Bytes) -> Result<Told, ApiError> {
        // Never closed. Whoever waits to ask again holds no place.
        let _place = self.gateway.batches.asking.acquire().await;
        let answered = self.answer(self.who()?, name, body).await;
        let (head, body) = answered.into_response().into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        Ok(match body {
            Ok(body) => Told { status: head.status, headers: head.headers, body },
            Err(_) => Told { status: StatusCode::BAD_GATEWAY, headers: HeaderMap::new(), body: Bytes::new() },
        })
    }

    async fn answer(&self, who: Who, name: &str, bytes: Bytes) -> Result<Response<Body>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(CLASS, HeaderValue::from_static("batch"));
        let left_ms = self.left().unwrap_or_default().as_millis();
        headers.insert(TIMEOUT, HeaderValue::from(u64::try_from(left_ms).unwrap_or(u64::MAX)));
        if let Ok(name) = HeaderValue::from_str(name) {
            headers.insert(REQUEST_ID, name);
        }
        let asked = Asked { who, headers, bytes, at: Instant::now(), named: None };
        match self.endpoint {
            BatchEndpoint::Chat => openai::handlers::chat_of(self.gateway.clone(), asked).await,
            BatchEndpoint::Completions => openai::handlers::completion_of(self.gateway.clone(), asked).await,
        }
    }
}

/// Decides in this order:
/// 1. an answer is kept;
/// 2. so is what says that it will never be otherwise, and a model that is not there;
/// 3. our own fault is tried a few times, since it may be one node's;
/// 4. everything else says when to come back, or will be better in a while.
fn judge(told: &Told, faults: &mut u32) -> Then {
    let never = told.headers.get(SHOULD_RETRY).is_some_and(|value| value == "false");
    if told.status.is_success() || never || told.status == StatusCode::NOT_FOUND {
        return Then::Keep; // 1, 2
    }
    if told.status == StatusCode::INTERNAL_SERVER_ERROR {
        *faults += 1;
        if *faults >= limits::LINE_FAULTS_MAX {
            return Then::Keep; // 3
        }
    }
    let after = told.headers.get(RETRY_AFTER_MS).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map_or(limits::LINE_AGAIN, Duration::from_millis);
    Then::AskAgain(after.clamp(limits::LINE_AGAIN, limits::LINE_AGAIN_MAX)) // 4
}

fn answered(name: &str, item: &Item, told: &Told) -> Answered {
    let head = Head { id: name, custom_id: &item.custom_id };
    let response = format!("{{\"status_code\":{},\"request_id\":\"{name}\",\"body\":", told.status.as_u16());
    let line = head.line(&[b"\"response\":", response.as_bytes(), &told.body, b"},\"error\":null}\n"]);
    if line.len() > ANSWER_BYTES_MAX {
        return refused(
            &head,
            "answer_too_large",
            "The answer is too large to be kept. Ask for fewer tokens.",
        );
    }
    Answered { is_answer: told.status.is_success(), line }
}

fn expired(name: &str, item: &Item) -> Answered {
    let head = Head { id: name, custom_id: &item.custom_id };
    refused(
        &head,
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    )
}

/// Without an answer of an endpoint, the line itself says why. The words are ours and plain.
fn refused(head: &Head<'_>, code: &str, message: &str) -> Answered {
    let error = format!("\"response\":null,\"error\":{{\"code\":\"{code}\",\"message\":\"{message}\"}}}}\n");
    Answered { is_answer: false, line: head.line(&[error.as_bytes()]) }
}

#[derive(Serialize)]
struct Head<'a> {
    id: &'a str,
    custom_id: &'a str,
}

impl Head<'_> {
    /// The object's beginning, and what follows in it.
    fn line(&self, rest: &[&[u8]]) -> Bytes {
        let head = serde_json::to_vec(self).unwrap_or_default();
        let mut line = BytesMut::from(head.strip_suffix(b"}").unwrap_or(&head));
        line.put_u8(b',');
        rest.iter().for_each(|part| line.put_slice(part));
        line.freeze()
    }
}
