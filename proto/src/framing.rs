//! Framing of one attempt's QUIC stream: each message is a varint length and its protobuf bytes.
//!
//! Owns cutting a byte stream into messages, whatever pieces it arrives in. Refuses lengths above the bound before anything
//! is allocated for them, and bytes that do not decode: both end that stream and nothing else.

use bytes::{Buf as _, BytesMut};
use prost::Message;

use crate::MESSAGE_BYTES_MAX;

/// A varint of a length below 2^28 needs at most this many bytes.
const PREFIX_BYTES_MAX: usize = 4;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a message of {0} bytes exceeds the bound of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    #[error("the bytes are no message of the expected kind")]
    Malformed,
}

/// Appends one message to `out`.
pub fn encode(message: &impl Message, out: &mut BytesMut) {
    out.reserve(message.encoded_len() + PREFIX_BYTES_MAX);
    // BytesMut grows; encoding into it cannot fail.
    let _ = message.encode_length_delimited(out);
}

/// Cuts messages out of bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes in the next piece of the stream.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole message, or `None` until more bytes arrive.
    pub fn next_message<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some((length, prefix)) = self.length()? else { return Ok(None) };
        if self.buffer.len() < prefix + length {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        M::decode(self.buffer.split_to(length)).map(Some).map_err(|_| FrameError::Malformed)
    }

    /// True when no half message is left over: the stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn length(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let mut length = 0usize;
        for (at, byte) in self.buffer.iter().take(PREFIX_BYTES_MAX).enumerate() {
            length |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return if length > MESSAGE_BYTES_MAX {
                    Err(FrameError::TooLong(length))
                } else {
                    Ok(Some((length, at + 1)))
                };
            }
        }
        if self.buffer.len() >= PREFIX_BYTES_MAX { Err(FrameError::TooLong(length)) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::AttemptFrame;
    use proptest::prelude::*;

    fn frame(sequence: u32, ids: Vec<u32>) -> AttemptFrame {
        AttemptFrame { attempt: 1, sequence, ids, ..AttemptFrame::default() }
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            all in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..40), 1..8),
            cuts in prop::collection::vec(1usize..50, 1..50),
        ) {
            let frames: Vec<_> = all.into_iter().enumerate().map(|(at, ids)| frame(at as u32, ids)).collect();
            let mut bytes = BytesMut::new();
            frames.iter().for_each(|frame| encode(frame, &mut bytes));
            let (mut decoder, mut got, mut at) = (Decoder::default(), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                if at == bytes.len() { break; }
                let end = (at + cut).min(bytes.len());
                decoder.push(&bytes[at..end]);
                at = end;
                while let Some(frame) = decoder.next_message::<AttemptFrame>().expect("whole frames") { got.push(frame); }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_message::<AttemptFrame>() {}
        }
    }

    #[test]
    fn a_length_above_the_bound_is_refused_before_its_bytes_arrive() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff, 0xff, 0xff, 0x7f]);
        assert!(matches!(decoder.next_message::<AttemptFrame>(), Err(FrameError::TooLong(_))));
        let mut endless = Decoder::default();
        endless.push(&[0xff; 4]);
        assert!(matches!(endless.next_message::<AttemptFrame>(), Err(FrameError::TooLong(_))));
    }
}
