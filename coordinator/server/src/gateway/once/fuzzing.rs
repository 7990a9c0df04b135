//! The laws of the events that may be read again.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::events::{LAST_EVENT_ID, LastEvent, Numbering};

const TAG: &str = "00112233aabbccdd";
const DONE: &[u8] = b"\n\ndata: [DONE]\n\n";

/// Events are numbered and otherwise left as they are; and what follows an event is all that follows it. The first line is an id
/// that a client sends, the rest is the stream.
pub fn events(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (id, stream) = bytes.split_at(end);
    // Nothing follows the last word.
    let last = stream.windows(DONE.len()).position(|window| window == DONE).map(|at| at + DONE.len());
    let stream = stream.get(..last.unwrap_or(stream.len())).unwrap_or_default();
    let numbered = Numbering::new(TAG.to_owned()).number(stream);
    let whole = Bytes::from([&numbered.now, numbered.done.as_deref().unwrap_or_default()].concat());
    let (expected, ids) = plainly(stream);
    assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&expected));
    for number in 1..=ids.min(20) {
        let Some(event) = last_event(format!("{TAG}-{number}").as_bytes()) else { continue };
        let rest = event.rest(&whole);
        assert!(event.is_in(&whole) && rest.is_none_or(|rest| whole.ends_with(&rest)));
    }
    if let Some(event) = last_event(id) {
        let rest = event.rest(&whole);
        assert!(rest.is_none_or(|rest| whole.ends_with(&rest) && rest.len() < whole.len()));
    }
}

/// As the rule says it: a line before each event that has data. And how many there are.
fn plainly(stream: &[u8]) -> (Vec<u8>, u64) {
    let (mut out, mut rest, mut ids) = (Vec::new(), stream, 0);
    while !rest.is_empty() {
        let end = rest.windows(2).position(|window| window == b"\n\n").map_or(rest.len(), |at| at + 2);
        let (event, after) = rest.split_at(end);
        if event.starts_with(b"data: ") {
            ids += 1;
            out.extend_from_slice(format!("id: {TAG}-{ids}\n").as_bytes());
        }
        out.extend_from_slice(event);
        rest = after;
    }
    (out, ids)
}

fn last_event(id: &[u8]) -> Option<LastEvent> {
    let value = HeaderValue::from_bytes(id).ok()?;
    let headers: HeaderMap = [(HeaderName::from_static(LAST_EVENT_ID), value)].into_iter().collect();
    LastEvent::of(&headers).ok().flatten()
}
