//! An answer as it is kept: one line of JSON with its status and headers, then its body as it was sent.
//!
//! Owns this form, which another release may read. Refuses to keep an error that the same request may overcome later.

use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::gateway::error::SHOULD_RETRY;

#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    /// In order; values are ASCII.
    headers: Vec<(String, String)>,
}

/// Whether it answers the request for good:
/// 1. an answer does;
/// 2. a refusal does, if the same request would be refused again;
/// 3. but for a model that is not there, because it may come, and for what is too much, because a month ends and limits are raised;
/// 4. everything else says to come back.
pub(super) fn is_final(status: StatusCode, headers: &HeaderMap) -> bool {
    let never = headers.get(SHOULD_RETRY).is_some_and(|value| value == "false");
    match status {
        StatusCode::NOT_FOUND | StatusCode::TOO_MANY_REQUESTS => false, // 3
        status if status.is_success() => true,                          // 1
        status if status.is_client_error() => never,                    // 2
        _ => false,                                                     // 4
    }
}

pub(super) fn encode(head: &Parts, body: &[u8]) -> Bytes {
    // How much a key may still ask for is true at one moment.
    let headers = head.headers.iter().filter(|(name, _)| !name.as_str().starts_with("x-ratelimit-"));
    let headers =
        headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    let line = Head { status: head.status.as_u16(), headers: headers.collect() };
    let mut out = BytesMut::with_capacity(body.len() + 512).writer();
    // Writing to memory cannot fail, nor can this type.
    let _ = serde_json::to_writer(&mut out, &line);
    let mut out = out.into_inner();
    out.put_u8(b'\n');
    out.extend_from_slice(body);
    out.freeze()
}

/// `None`: it has another form.
pub(super) fn decode(kept: &Bytes) -> Option<(Parts, Bytes)> {
    let line = kept.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(kept.get(..line)?).ok()?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    for (name, value) in head.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        response.headers_mut().append(name, HeaderValue::from_str(&value).ok()?);
    }
    Some((response.into_parts().0, kept.slice(line + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response.into_parts().0
    }

    #[test]
    fn an_answer_comes_back_as_it_was() {
        let before =
            head(200, &[("content-type", "application/json"), ("x-mlx-node", "1"), ("x-mlx-node", "2")]);
        let mut told = before.clone();
        told.headers.insert("x-ratelimit-remaining-requests", HeaderValue::from_static("3"));
        let kept = encode(&told, b"{\"a\":\n1}");
        let text = "{\"status\":200,\"headers\":[[\"content-type\",\"application/json\"],[\"x-mlx-node\",\"1\"],[\"x-mlx-node\",\"2\"]]}\n{\"a\":\n1}";
        assert_eq!(kept, text, "the form on disk");
        let (after, body) = decode(&kept).expect("its own form");
        assert_eq!((after.status, after.headers), (before.status, before.headers));
        assert_eq!(body, "{\"a\":\n1}");
        for damaged in ["", "{}", "{}\n", "{\"status\":99999,\"headers\":[]}\n", "not json\nbody"] {
            assert!(decode(&Bytes::from_static(damaged.as_bytes())).is_none(), "{damaged}");
        }
    }

    #[test]
    fn what_may_go_better_later_is_not_kept() {
        let judged = |status: u16, never: bool| {
            let head = head(status, if never { &[("x-should-retry", "false")] } else { &[] });
            is_final(head.status, &head.headers)
        };
        assert!(judged(200, false) && judged(400, true) && judged(422, true));
        for (status, never) in
            [(404, true), (408, false), (429, false), (429, true), (500, false), (503, true), (504, false)]
        {
            assert!(!judged(status, never), "{status}");
        }
    }
}
