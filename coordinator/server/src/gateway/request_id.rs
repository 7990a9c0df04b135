//! Names for requests and answers, and the headers that carry them.
//!
//! Owns ids that are unique in this cluster without asking anybody, and the outermost layer: it echoes a client's
//! `x-request-id` or makes one, and says how long the response took to begin. Refuses ids that could break a log line.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::limits;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// A new id: the prefix and 128 bits in hexadecimal, hashes of a counter under keys that the system draws for each process.
pub(crate) fn fresh(prefix: &str) -> String {
    static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:016x}{:016x}", KEYS.0.hash_one(count), KEYS.1.hash_one(count))
}

/// What a request is called; behind the outermost layer each has a name.
pub(crate) fn of(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(X_REQUEST_ID)
}

/// The outermost layer.
pub(crate) async fn name(mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let given = of(request.headers()).filter(|id| is_valid(id)).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&fresh("req_")).ok());
    if let Some(id) = &id {
        request.headers_mut().insert(X_REQUEST_ID, id.clone());
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(id) = id {
        headers.insert(X_REQUEST_ID, id.clone());
        headers.insert(REQUEST_ID, id);
    }
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS, HeaderValue::from(ms));
    response
}

fn is_valid(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(byte);
    (1..=limits::REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_repeat_and_have_one_length() {
        let ids: std::collections::BTreeSet<_> = (0..10_000).map(|_| fresh("req_")).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 36 && id.starts_with("req_")));
    }

    #[test]
    fn only_plain_short_ids_are_echoed() {
        let valid = |id: &'static str| is_valid(&HeaderValue::from_static(id));
        assert!(valid("a-b_c.1:2/3"));
        assert!(!valid(""));
        assert!(!valid("a b"));
        assert!(!valid("a\"b"));
        assert!(!is_valid(&HeaderValue::from_str(&"x".repeat(129)).unwrap()));
    }
}
