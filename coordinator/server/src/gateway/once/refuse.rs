//! `Idempotency-Key` where it is not honoured: refused, so that nobody relies on it.
//!
//! Owns the layer before every route and the list of those that honour the header. Requests that change nothing may be sent
//! again anyway, with a key or without.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::key::IDEMPOTENCY_KEY;
use crate::gateway::body;
use crate::gateway::error::ApiError;

const HONOURING: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/batches"];

/// The layer.
pub(crate) async fn refuse(request: Request, next: Next) -> Response {
    let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let path = request.extensions().get::<MatchedPath>();
    let honours = path.is_none_or(|path| HONOURING.contains(&path.as_str()));
    if !changes || honours || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    body::discard(request.into_body()).await;
    let message = "The header 'Idempotency-Key' is not supported on this path. Leave it out.";
    ApiError::unsupported(IDEMPOTENCY_KEY, message).into_response()
}
