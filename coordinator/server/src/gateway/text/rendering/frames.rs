//! What a coordinator and a renderer say to one another: a length of four bytes, then msgpack.
//!
//! Msgpack and not JSON, because the template must see each number as the client wrote it. Owns the shapes and their bounds. Refuses a
//! frame beyond its bound before anything is allocated for it.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::RenderError;
use crate::gateway::limits;
use crate::gateway::text::template::{Conversation, TemplateError};

/// How a renderer begins, on a line of its own. It may be of another release, which was put in the place of the program that runs:
/// the number says which frames it understands, and changes with them.
pub(super) const GREETING: &str = "mlx-serving renderer 1";

#[derive(Serialize, Deserialize)]
pub(super) struct Question<'a> {
    pub(super) source: Cow<'a, str>,
    pub(super) special_tokens: Cow<'a, [(String, String)]>,
    /// `None`: whether the template compiles.
    pub(super) conversation: Option<Conversation>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Prompt(String),
    Raised(String),
    OutOfBounds,
    Failed(String),
}

/// `None`: it is too long.
pub(in crate::gateway::text) fn question(
    source: &str,
    special_tokens: &[(String, String)],
    conversation: Option<Conversation>,
) -> Option<Vec<u8>> {
    let question = Question { source: source.into(), special_tokens: special_tokens.into(), conversation };
    let question = rmp_serde::to_vec(&question).ok()?;
    (question.len() <= limits::RENDERER_QUESTION_BYTES_MAX).then_some(question)
}

impl Answer {
    pub(super) fn of(rendered: Result<String, TemplateError>) -> Self {
        match rendered {
            Ok(prompt) => Self::Prompt(prompt),
            Err(TemplateError::Raised(words)) => Self::Raised(words),
            Err(TemplateError::OutOfBounds) => Self::OutOfBounds,
            Err(
                error
                @ (TemplateError::TooLong(_) | TemplateError::Compile(_) | TemplateError::Render { .. }),
            ) => Self::Failed(error.to_string()),
        }
    }

    pub(super) fn result(self) -> Result<String, RenderError> {
        match self {
            Self::Prompt(prompt) => Ok(prompt),
            Self::Raised(words) => Err(RenderError::Raised(words)),
            Self::OutOfBounds => Err(RenderError::OutOfBounds),
            Self::Failed(words) => Err(RenderError::Failed(words)),
        }
    }

    /// One that cannot be told is too long: what it was made of does not come from here.
    pub(super) fn encode(&self) -> Vec<u8> {
        let told = rmp_serde::to_vec(self).ok();
        let told = told.filter(|told| told.len() <= limits::RENDERER_ANSWER_BYTES_MAX);
        told.or_else(|| rmp_serde::to_vec(&Self::OutOfBounds).ok()).unwrap_or_default()
    }
}

/// The head of a frame.
pub(super) fn head(length: usize) -> io::Result<[u8; 4]> {
    u32::try_from(length).map(u32::to_be_bytes).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// The length that a head says.
pub(super) fn length(head: [u8; 4], at_most: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > at_most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(length) }
}

/// `None`: whoever wrote is gone.
pub(super) fn read(input: &mut impl Read, at_most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut begin = [0; 4];
    match input.read_exact(&mut begin) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut frame = vec![0; length(begin, at_most)?];
    input.read_exact(&mut frame)?;
    Ok(Some(frame))
}

pub(super) fn write(out: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    out.write_all(&head(frame.len())?)?;
    out.write_all(frame)?;
    out.flush()
}
