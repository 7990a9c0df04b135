//! The frames of a runtime: their shapes, and the codec.
//!
//! Owns the cutting of the byte stream into frames, the strict reading of what a runtime sends and the writing of what it is
//! sent (`proto/runtime-frames.md`, version 1). Refuses whatever the contract does not name: a runtime that breaks it is not
//! trusted any further, and its supervisor hears of a death, not of a parse error.

use bytes::{Buf as _, BytesMut};
use serde::{Deserialize, Serialize};

pub(crate) use super::incoming::Incoming;
use crate::limits;

/// The version of the contract spoken here.
pub(crate) const PROTOCOL: u32 = 1;
const LENGTH_BYTES: usize = 4;

/// Why a runtime cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes exceeds the bound of {max}", max = limits::FRAME_BYTES_MAX)]
    TooLong(usize),
    #[error("the bytes are no frame: {0}")]
    Malformed(String),
}

/// What an agent sends. Serialised as the array that the contract names, verb first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outgoing {
    Load { call: u64, body: Load },
    Generate { row: u64, body: Box<Generate> },
    Cancel { rows: Vec<u64> },
    Shutdown { call: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Load {
    pub(crate) path: String,
    pub(crate) prefill_chunk: u32,
    pub(crate) max_rows: u32,
    /// For the prefix cache; 0 = none.
    pub(crate) cache_bytes: u64,
    /// What the KV caches of all rows are to hold together; `None` = any number.
    pub(crate) kv_tokens: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Generate {
    pub(crate) ids: Vec<u32>,
    pub(crate) max_tokens: u32,
    pub(crate) sampling: Sampling,
    pub(crate) stop_ids: Vec<u32>,
    pub(crate) top_logprobs: Option<u32>,
    /// Empty: the row neither reads nor writes the prefix cache.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cache_salt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefill_chunk: Option<u32>,
    /// So many of the last `ids` an earlier attempt generated for this answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) generated: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Sampling {
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) top_k: u32,
    pub(crate) min_p: f32,
    pub(crate) repetition_penalty: f32,
    pub(crate) presence_penalty: f32,
    pub(crate) frequency_penalty: f32,
    pub(crate) logit_bias: Vec<(u32, f32)>,
    pub(crate) seed: Option<u64>,
}

/// The first frame of a runtime.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) pid: u32,
    pub(crate) runtime: String,
    #[serde(default)]
    pub(crate) mlx: Option<String>,
    #[serde(default)]
    pub(crate) device: Option<String>,
}

/// The thread that owns the GPU lives.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) fraction: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Idle,
    Loading,
    Prefill,
    Decode,
}

/// New tokens of one row, and perhaps its end.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct RowStep(
    pub(crate) u64,
    pub(crate) Vec<u32>,
    pub(crate) Option<RowFinish>,
    pub(crate) Option<RowExtra>,
);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowFinish {
    Stop,
    Length,
    Cancelled,
    Error,
}

/// `[logprob, [[id, logprob], ...]]`
pub(crate) type Logprobs = (f32, Vec<(u32, f32)>);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct RowExtra {
    pub(crate) logprobs: Vec<Logprobs>,
    pub(crate) generated: u32,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) prefill_s: f32,
    pub(crate) code: String,
    pub(crate) text: String,
}

/// What a step cost: seconds and tokens of prefill, seconds of decode, rows in it, tokens in the KV cache after it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct StepStats(pub(crate) f64, pub(crate) u64, pub(crate) f64, pub(crate) u32, pub(crate) u64);

/// The answer to `load`; the answer to `shutdown` has neither key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Reply {
    pub(crate) weights_bytes: Option<u64>,
    pub(crate) load_s: Option<f32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Outgoing {
    /// The frame with its length in front.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let body = match self {
            Self::Load { call, body } => rmp_serde::to_vec_named(&("load", call, body)),
            Self::Generate { row, body } => rmp_serde::to_vec_named(&("generate", row, body)),
            Self::Cancel { rows } => rmp_serde::to_vec_named(&("cancel", rows)),
            Self::Shutdown { call } => rmp_serde::to_vec_named(&("shutdown", call)),
        };
        let body = body.map_err(|error| FrameError::Malformed(error.to_string()))?;
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= limits::FRAME_BYTES_MAX);
        let length = length.ok_or(FrameError::TooLong(body.len()))?;
        Ok([length.to_le_bytes().as_slice(), &body].concat())
    }
}

/// Cuts frames out of bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Where the next read appends.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, or `None` until more bytes arrive.
    pub(crate) fn next_message(&mut self) -> Result<Option<Incoming>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > limits::FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Incoming::decode(&self.buffer.split_to(length)).map(Some)
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
