//! The events of a stream that may be read again: `id:` lines, and `Last-Event-ID`.
//!
//! Owns the numbers. An id says of which run its event is, so that what follows in another run, which may have computed
//! something else, is never taken for the rest of what a client has. Refuses to change anything but the ids: without them the
//! stream is the one that a client without a key gets.

use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use registry::JobRun;

use crate::gateway::error::ApiError;
use crate::gateway::hash_keys::HashKeys;

pub(super) const LAST_EVENT_ID: &str = "last-event-id";

const EVENT: &[u8] = b"data: ";
const END_OF_EVENT: &[u8] = b"\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

/// The part of its events' ids that no other run has.
pub(crate) fn tag(keys: &HashKeys, run: JobRun) -> String {
    let number = keys.jobs.number(&[
        b"run",
        &run.replica.to_le_bytes(),
        &run.life.0.to_le_bytes(),
        &run.number.to_le_bytes(),
    ]);
    format!("{number:016x}")
}

/// The last event that a client has.
#[derive(Clone)]
pub(super) struct LastEvent {
    tag: String,
    line: Vec<u8>,
}

impl LastEvent {
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let parsed = value.to_str().ok().and_then(|id| Self::parse(id.trim()));
        let message =
            "Invalid value for the header 'Last-Event-ID': it must be the id of an event of this stream.";
        parsed.map(Some).ok_or_else(|| ApiError::invalid("invalid_value", LAST_EVENT_ID, message))
    }

    fn parse(id: &str) -> Option<Self> {
        let (tag, number) = id.split_once('-')?;
        let _: u64 = number.parse().ok()?;
        let hex = tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| Self { tag: tag.to_owned(), line: format!("id: {id}\n").into_bytes() })
    }

    pub(super) fn is_of(&self, tag: &str) -> bool {
        self.tag == tag
    }

    /// Whether it may be of the stream that begins so.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        find(text, format!("id: {}-", self.tag).as_bytes()).is_some()
    }

    /// What follows it; `None` if it is not there.
    pub(super) fn rest(&self, events: &Bytes) -> Option<Bytes> {
        let at = find(events, &self.line)?;
        let end = find(events.get(at..)?, END_OF_EVENT)?;
        Some(events.slice(at + end + END_OF_EVENT.len()..))
    }
}

/// Writes ids before events, which may arrive several at once, and holds back the one that says that there are no more.
pub(super) struct Numbering {
    tag: String,
    last: u64,
}

/// What goes out, and what waits for the end to be certain.
pub(super) struct Numbered {
    pub(super) now: Bytes,
    pub(super) done: Option<Bytes>,
}

impl Numbering {
    pub(super) fn new(tag: String) -> Self {
        Self { tag, last: 0 }
    }

    /// `piece` is made of whole events and comments.
    pub(super) fn number(&mut self, piece: &[u8]) -> Numbered {
        let mut now = BytesMut::with_capacity(piece.len() + 64);
        let mut done = None;
        let mut rest = piece;
        while !rest.is_empty() {
            let length = find(rest, END_OF_EVENT).map_or(rest.len(), |at| at + END_OF_EVENT.len());
            let (event, after) = rest.split_at(length);
            rest = after;
            if event == DONE {
                let mut held = BytesMut::new();
                self.write(event, &mut held);
                done = Some(held.freeze());
            } else {
                self.write(event, &mut now);
            }
        }
        Numbered { now: now.freeze(), done }
    }

    fn write(&mut self, event: &[u8], out: &mut BytesMut) {
        if event.starts_with(EVENT) {
            self.last += 1;
            out.extend_from_slice(format!("id: {}-{}\n", self.tag, self.last).as_bytes());
        }
        out.extend_from_slice(event);
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "00112233aabbccdd";

    fn header(id: &str) -> HeaderMap {
        [(LAST_EVENT_ID.parse().unwrap(), id.parse().unwrap())].into_iter().collect()
    }

    fn last(id: &str) -> LastEvent {
        LastEvent::of(&header(id)).expect("well formed").expect("there")
    }

    #[test]
    fn events_are_numbered_comments_are_not_and_the_last_word_waits() {
        let mut numbering = Numbering::new(TAG.to_owned());
        let first = numbering.number(b": position 1\n\ndata: {\"a\":1}\n\ndata: {\"b\":2}\n\n");
        let expected =
            format!(": position 1\n\nid: {TAG}-1\ndata: {{\"a\":1}}\n\nid: {TAG}-2\ndata: {{\"b\":2}}\n\n");
        assert_eq!((first.now, first.done), (Bytes::from(expected), None));
        let last = numbering.number(b"data: {}\n\ndata: [DONE]\n\n");
        assert_eq!(last.now, format!("id: {TAG}-3\ndata: {{}}\n\n"));
        assert_eq!(last.done, Some(Bytes::from(format!("id: {TAG}-4\ndata: [DONE]\n\n"))));
    }

    #[test]
    fn what_follows_an_event_is_all_after_it() {
        let mut numbering = Numbering::new(TAG.to_owned());
        let all: Vec<u8> = (0..12).flat_map(|number| format!("data: {number}\n\n").into_bytes()).collect();
        let events = numbering.number(&all).now;
        let rest = |number: u64| last(&format!("{TAG}-{number}")).rest(&events);
        let expected = format!("id: {TAG}-12\ndata: 11\n\n");
        assert_eq!(rest(11).as_deref(), Some(expected.as_bytes()));
        assert_eq!(rest(12).as_deref(), Some([].as_slice()));
        assert!(rest(1).expect("there").starts_with(format!("id: {TAG}-2\n").as_bytes()));
        assert_eq!((rest(13), rest(0)), (None, None));
        assert!(last(&format!("{TAG}-1")).is_of(TAG) && last(&format!("{TAG}-1")).is_in(&events));
        let foreign = last("0011223344556677-1");
        assert!(!foreign.is_in(&events) && !foreign.is_of(TAG));
    }

    #[test]
    fn an_id_that_was_never_given_is_refused() {
        for id in ["7", "x-1", "00112233aabbccdd-", "00112233aabbccdd-x", "-1", "00112233aabbccdd"] {
            let error = LastEvent::of(&header(id)).err().expect(id);
            assert_eq!((error.code, error.param.as_deref()), ("invalid_value", Some(LAST_EVENT_ID)));
        }
        assert!(LastEvent::of(&HeaderMap::new()).expect("none").is_none());
    }
}
