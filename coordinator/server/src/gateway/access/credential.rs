//! Where in a request's headers a key is.
//!
//! Owns `Authorization: Bearer`, else `x-api-key`. Refuses to judge what it finds.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The first that is not empty.
pub(crate) fn of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let key = || headers.get(API_KEY).map(HeaderValue::as_bytes);
    bearer.or_else(key).map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}
