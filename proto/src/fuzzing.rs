//! What the fuzz targets of the wire ask of it (`fuzz/`). Owns the laws; the targets hand bytes in.

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::framing::{Decoder, FrameError, encode};
use crate::token::JoinToken;
use crate::v1::{AttemptFrame, AttemptStart};
use crate::{MESSAGE_BYTES_MAX, raft, v1};

/// However a stream is cut, the same messages come out of it; each survives being sent on; and no more is held than was given.
pub fn attempt_frames(bytes: &[u8]) {
    frames::<AttemptFrame>(bytes);
    frames::<AttemptStart>(bytes);
}

fn frames<M: Message + Default>(bytes: &[u8]) {
    let (whole, whole_end) = read::<M>([bytes]);
    let (pieces, pieces_end) =
        read::<M>(bytes.chunks(bytes.first().map_or(1, |first| usize::from(*first % 7) + 1)));
    assert_eq!((texts(&whole), whole_end), (texts(&pieces), pieces_end), "the cuts change what is read");
    let mut sent = BytesMut::new();
    whole.iter().for_each(|message| encode(message, &mut sent));
    let (again, end) = read::<M>([sent.as_ref()]);
    assert_eq!((texts(&again), end), (texts(&whole), None), "what was read cannot be sent on");
    assert!(whole.iter().all(|message| message.encoded_len() <= MESSAGE_BYTES_MAX));
}

/// The messages, and why there are no more.
fn read<'a, M: Message + Default>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<M>, Option<FrameError>) {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(why) => return (messages, Some(why)),
            }
        }
    }
    (messages, None)
}

/// Bytes, because a NaN is not equal to itself.
fn texts<M: Message>(messages: &[M]) -> Vec<Vec<u8>> {
    messages.iter().map(Message::encode_to_vec).collect()
}

/// What one call takes or gives, chosen by the first byte: refused, or the same when it is sent on.
pub fn payloads(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    let kinds = [
        payload_of::<v1::AgentMessage>,
        payload_of::<v1::CoordinatorMessage>,
        payload_of::<v1::JoinRequest>,
        payload_of::<v1::JoinReply>,
        payload_of::<v1::RenewRequest>,
        payload_of::<v1::RenewReply>,
        payload_of::<v1::ModelCardChunk>,
        payload_of::<v1::EnlistRequest>,
        payload_of::<v1::DeskMessage>,
        payload_of::<v1::DeskOrder>,
        payload_of::<v1::LookRequest>,
        payload_of::<v1::LookReply>,
        payload_of::<v1::ChangeGroupRequest>,
        payload_of::<v1::ChangeGroupReply>,
        payload_of::<v1::KeepAnswerRequest>,
        payload_of::<v1::FetchAnswerRequest>,
        payload_of::<v1::FetchAnswerReply>,
        payload_of::<v1::AskRunRequest>,
        payload_of::<v1::AskRunReply>,
        payload_of::<v1::FetchSealKeyReply>,
        payload_of::<raft::AppendRequest>,
        payload_of::<raft::AppendReply>,
        payload_of::<raft::VoteRequest>,
        payload_of::<raft::VoteReply>,
        payload_of::<raft::SnapshotChunk>,
        payload_of::<raft::TransferLeaderRequest>,
        payload_of::<raft::ReadIndexReply>,
        payload_of::<raft::ProposeRequest>,
        payload_of::<raft::ProposeReply>,
    ];
    if let Some(of) = kinds.get(usize::from(*kind) % kinds.len()) {
        of(payload);
    }
}

fn payload_of<M: Message + Default>(payload: &[u8]) {
    let Ok(message) = M::decode(payload) else { return };
    let sent = message.encode_to_vec();
    assert_eq!(sent.len(), message.encoded_len());
    let again = M::decode(Bytes::from(sent.clone())).map(|message| message.encode_to_vec());
    assert_eq!(again, Ok(sent), "what was read cannot be sent on");
}

/// A token is refused, or it is printed exactly as it was read; and its debug form has not the secret.
pub fn join_tokens(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let Ok(token) = text.parse::<JoinToken>() else { return };
    assert_eq!(token.to_string(), text.trim(), "one token has two forms");
    let (_, secret) = text.trim().rsplit_once('.').unwrap_or_default();
    assert!(token.id.contains(secret) || !format!("{token:?}").contains(secret), "the secret is shown");
    assert!(!token.pins(bytes));
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn frames_of_an_attempt_are_the_same_however_they_are_cut() {
        replay("attempt_frames", super::attempt_frames);
    }

    #[test]
    fn any_payload_is_refused_or_can_be_sent_on() {
        replay("payloads", super::payloads);
    }

    #[test]
    fn a_join_token_has_one_form() {
        replay("join_tokens", super::join_tokens);
    }
}
