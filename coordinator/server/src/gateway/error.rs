//! Errors as clients see them: one type, one body shape, one mapping from what went wrong to HTTP.
//!
//! Owns status, `type`, `code`, `param` and the retry headers. The body always has all four keys. A message says what to do; it
//! never tells of our insides and never repeats a prompt or an answer.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

use super::limits;
use crate::generation::Failure;

pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// RFC 6750.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="mlx-serving""#);
const CHALLENGE_SCOPE: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="mlx-serving", error="insufficient_scope""#);
pub(super) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// A refusal or a failure, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) retry: Retry,
}

/// What a client should do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The same request will fail again.
    Never,
    After(Duration),
    /// It will fail until then, which is too far away for a program to wait.
    NotBefore(Duration),
    /// Nothing is known; the client's own rule holds.
    Unsaid,
}

impl ApiError {
    /// The request is wrong; it names the parameter.
    pub(crate) fn invalid(code: &'static str, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::refused(StatusCode::BAD_REQUEST, code, message) }
    }

    /// The request is right, and this version would not honour it.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid("unsupported_parameter", param, message)
    }

    /// Never to be tried again as it is.
    pub(crate) fn refused(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry: Retry::Never }
    }

    /// Too much is asked for at once.
    fn queue_full(message: impl Into<String>, after: Duration) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self { status, code: "queue_full", message: message.into(), param: None, retry: Retry::After(after) }
    }

    /// A key asks for more than it may in a minute, or at one time.
    pub(crate) fn too_many(message: impl Into<String>, after: Duration) -> Self {
        Self { retry: Retry::After(after), ..Self::never_fits(message) }
    }

    /// A key asks for more at once than it may in a minute.
    pub(crate) fn never_fits(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
    }

    /// A key has used up what it may in a month.
    pub(crate) fn quota_exceeded(message: impl Into<String>, after: Duration) -> Self {
        let refused = Self::refused(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", message);
        Self { retry: Retry::NotBefore(after), ..refused }
    }

    /// Not now; perhaps after a while.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>, after: Duration) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, code, message: message.into(), param: None, retry: Retry::After(after) }
    }

    /// Our own fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, code: "internal_error", message: message.into(), param: None, retry: Retry::Unsaid }
    }

    pub(crate) fn deadline(message: impl Into<String>) -> Self {
        let status = StatusCode::GATEWAY_TIMEOUT;
        Self { status, code: "deadline_exceeded", message: message.into(), param: None, retry: Retry::Unsaid }
    }

    /// Why an answer that has begun will not be whole. A client must never take it for complete.
    pub(crate) fn mid_stream(failure: Failure) -> Self {
        let lost = Self::unavailable(
            "stream_lost",
            "The answer was cut before its end. What has arrived is incomplete; send the request again.",
            limits::RETRY_AFTER_LOSS,
        );
        match failure {
            Failure::NodeLost { .. } | Failure::ShuttingDown => lost,
            Failure::Rejected { .. }
            | Failure::QueueFull { .. }
            | Failure::Overloaded { .. }
            | Failure::NoCapacity { .. }
            | Failure::Quarantined
            | Failure::DeadlineUnreachable { .. }
            | Failure::DeadlineExceeded => Self::from(failure),
        }
    }

    /// `{"error":{…}}` with all four keys.
    pub(crate) fn body(&self) -> String {
        let error = Fields {
            message: &self.message,
            kind: self.kind(),
            param: self.param.as_deref(),
            code: self.code,
        };
        serde_json::to_string(&Envelope { error }).unwrap_or_default()
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            408 | 504 => "timeout_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::QueueFull { retry_after } => {
                Self::queue_full("The queue is full. Retry-After says when there will be room.", retry_after)
            }
            Failure::Overloaded { retry_after } => Self::queue_full(
                "There is more to do than can be done soon, and batch work makes room first. Retry-After says when to send it \
                 again.",
                retry_after,
            ),
            Failure::NoCapacity { words, retry_after } => {
                let retry = retry_after.map_or(Retry::Never, Retry::After);
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self { retry, ..Self::refused(status, "no_capacity", words) }
            }
            Failure::Quarantined => Self::refused(
                StatusCode::BAD_REQUEST,
                "request_quarantined",
                "This request has brought down two runtimes and will not be run as it is. Change it (the prompt, 'max_tokens' or \
                 the sampling) and send it again.",
            ),
            Failure::DeadlineUnreachable { needed } => Self::deadline(format!(
                "The answer would take about {} s, which is longer than the client waits. Allow more time or ask for fewer tokens.",
                needed.as_secs().saturating_add(1)
            )),
            Failure::DeadlineExceeded => {
                Self::deadline("The time for this request is over. Allow more time or ask for fewer tokens.")
            }
            Failure::NodeLost { .. } => Self::unavailable(
                "node_lost",
                "The machine that worked on this request went away. Send it again.",
                limits::RETRY_AFTER_LOSS,
            ),
            Failure::Rejected { code, text } => rejected(&code, text),
            Failure::ShuttingDown => Self::unavailable(
                "no_capacity",
                "This coordinator is shutting down. Send the request again.",
                limits::RETRY_AFTER_LOSS,
            ),
        }
    }
}

/// A runtime's refusal, by its code of runtime-frames.md.
fn rejected(code: &str, text: String) -> ApiError {
    match code {
        "invalid_request" => ApiError::refused(StatusCode::BAD_REQUEST, "invalid_request", text),
        "context_length_exceeded" => ApiError {
            param: Some("messages".to_owned()),
            ..ApiError::refused(StatusCode::BAD_REQUEST, "context_length_exceeded", text)
        },
        "unsupported_model" => ApiError::refused(StatusCode::BAD_REQUEST, "unsupported_model", text),
        _ => ApiError::internal("The model could not work on this request."),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::UNAUTHORIZED => headers.insert(WWW_AUTHENTICATE, CHALLENGE),
            StatusCode::FORBIDDEN => headers.insert(WWW_AUTHENTICATE, CHALLENGE_SCOPE),
            _ => None,
        };
        match self.retry {
            Retry::Never => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::NotBefore(after) => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
                say_when(headers, after);
            }
            Retry::After(after) => {
                say_when(headers, after.clamp(Duration::from_millis(1), limits::RETRY_AFTER_MAX));
            }
            Retry::Unsaid => {}
        }
        response
    }
}

fn say_when(headers: &mut HeaderMap, after: Duration) {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    let millis = after.as_secs() * 1_000 + u64::from(after.subsec_millis());
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_all_four_keys_and_escapes_its_message() {
        let error = ApiError::invalid("invalid_value", "a.b", "say \"no\"\n");
        let expected = r#"{"error":{"message":"say \"no\"\n","type":"invalid_request_error","param":"a.b","code":"invalid_value"}}"#;
        assert_eq!(error.body(), expected);
        let expected =
            r#"{"error":{"message":"m","type":"server_error","param":null,"code":"internal_error"}}"#;
        assert_eq!(ApiError::internal("m").body(), expected);
    }

    #[test]
    fn each_status_has_the_type_that_clients_know() {
        let kind = |status: u16| ApiError::refused(StatusCode::from_u16(status).unwrap(), "c", "m").kind();
        let client = [400, 404, 405, 409, 413, 415, 421, 422].map(kind);
        assert!(client.iter().all(|kind| *kind == "invalid_request_error"));
        assert_eq!(
            [401, 403, 429].map(kind),
            ["authentication_error", "permission_error", "rate_limit_error"]
        );
        assert_eq!([408, 504].map(kind), ["timeout_error"; 2]);
        assert_eq!([500, 502, 503].map(kind), ["server_error"; 3]);
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds_and_told_exactly_in_milliseconds() {
        let told = |ms: u64| {
            let response = ApiError::unavailable("c", "m", Duration::from_millis(ms)).into_response();
            let header = |name: &HeaderName| response.headers()[name].to_str().unwrap().to_owned();
            (header(&RETRY_AFTER), header(&RETRY_AFTER_MS))
        };
        let cases = [
            (0, "1", "1"),
            (1, "1", "1"),
            (999, "1", "999"),
            (1_000, "1", "1000"),
            (1_001, "2", "1001"),
            (500_000, "120", "120000"),
        ];
        for (ms, seconds, exact) in cases {
            assert_eq!(told(ms), (seconds.to_owned(), exact.to_owned()), "{ms}");
        }
    }

    #[test]
    fn a_loss_in_the_middle_is_told_as_a_lost_stream_and_a_refusal_as_itself() {
        let code = |failure| ApiError::mid_stream(failure).code;
        assert_eq!(code(Failure::NodeLost { began: true }), "stream_lost");
        assert_eq!(code(Failure::ShuttingDown), "stream_lost");
        assert_eq!(code(Failure::DeadlineExceeded), "deadline_exceeded");
        let rejected = Failure::Rejected { code: "invalid_request".to_owned(), text: "why".to_owned() };
        assert_eq!(code(rejected), "invalid_request");
    }

    #[test]
    fn what_a_runtime_says_of_its_insides_stays_inside() {
        for code in ["internal", "out_of_memory", "slow_reader", "bad_frame", "anything"] {
            let rejected =
                Failure::Rejected { code: code.to_owned(), text: "/models/secret: segfault".to_owned() };
            let error = ApiError::from(rejected);
            assert_eq!((error.status.as_u16(), error.code), (500, "internal_error"));
            assert!(!error.message.contains("secret"));
        }
    }
}
