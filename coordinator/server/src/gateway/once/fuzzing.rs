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
    let mut ids = 0;
    let mut rest: &[u8] = &numbered.now;
    let done = numbered.done.as_deref().unwrap_or_default();
    let mut left = stream.to_vec();
    while let Some(at) = next_id(rest, ids + 1) {
        ids += 1;
        rest = rest.get(at..).unwrap_or_default();
    }
    for number in 1..=ids + u64::from(!done.is_empty()) {
        left.extend_from_slice(format!("id: {TAG}-{number}\n").as_bytes());
    }
    assert_eq!(numbered.now.len() + done.len(), left.len(), "something but ids was added or lost");
    let whole = Bytes::from([&numbered.now, done].concat());
    for number in 1..=ids.min(20) {
        let Some(event) = last_event(format!("{TAG}-{number}").as_bytes()) else { continue };
        let rest = event.rest(&whole).unwrap_or_default();
        assert!(whole.ends_with(&rest) && (number == ids || event.is_in(&whole)));
    }
    if let Some(event) = last_event(id) {
        let rest = event.rest(&whole);
        assert!(rest.is_none_or(|rest| whole.ends_with(&rest) && rest.len() < whole.len()));
    }
}

fn next_id(text: &[u8], number: u64) -> Option<usize> {
    let line = format!("id: {TAG}-{number}\ndata: ");
    text.windows(line.len()).position(|window| window == line.as_bytes()).map(|at| at + line.len())
}

fn last_event(id: &[u8]) -> Option<LastEvent> {
    let value = HeaderValue::from_bytes(id).ok()?;
    let headers: HeaderMap = [(HeaderName::from_static(LAST_EVENT_ID), value)].into_iter().collect();
    LastEvent::of(&headers).ok().flatten()
}
