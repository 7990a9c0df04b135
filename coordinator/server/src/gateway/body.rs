//! Reading a request's body within its bounds.
//!
//! Owns the bound on its size and on the time it may take, and the errors for both. Refuses compressed bodies, because the bound
//! would not hold for what is in them. The content type is not looked at: clients that forget it mean JSON.

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::error::ApiError;
use super::limits;

pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let encoding =
        headers.get(CONTENT_ENCODING).and_then(|encoding| encoding.to_str().ok()).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        let message = "Compressed request bodies are not supported.";
        return Err(ApiError::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message));
    }
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limits::BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let collecting = Limited::new(body, limits::BODY_BYTES_MAX).collect();
    match tokio::time::timeout(limits::BODY_READ, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::refused(
            StatusCode::BAD_REQUEST,
            "incomplete_body",
            "The request body broke off before its end.",
        )),
        Err(_) => {
            let message =
                format!("The request body did not arrive within {} s.", limits::BODY_READ.as_secs());
            Err(ApiError::refused(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
        }
    }
}

/// Reads and forgets a body that nobody will look at: an answer that is sent before it has arrived may be lost with the connection.
pub(crate) async fn discard(body: Body) {
    let mut body = Limited::new(body, limits::DISCARDED_BYTES_MAX);
    // Whoever sends more, or too slowly, may lose the answer.
    let _ =
        tokio::time::timeout(limits::DISCARD, async { while let Some(Ok(_)) = body.frame().await {} }).await;
}

fn too_large() -> ApiError {
    let message = format!("The request body is larger than {} MiB.", limits::BODY_BYTES_MAX >> 20);
    ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}
