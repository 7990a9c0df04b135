//! The requests of a batch: the lines of its file, one after the other.
//!
//! Owns their numbers, and that not much more than one piece of the file and one line are in memory. Empty lines are none. Refuses a
//! line that is too long, before it is read to its end.

use bytes::{Bytes, BytesMut};
use registry::KeptAnswer;

use crate::gateway::files::Pieces;
use crate::gateway::{Gateway, limits};

pub(super) struct Lines {
    pieces: Pieces,
    /// What was read and not given yet.
    rest: BytesMut,
    /// So much of it has no end of a line.
    looked: usize,
    number: u64,
}

/// A line, and where it is in the file, counted from 1.
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: Bytes,
}

/// Why there is no next line, though the file has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLine {
    /// Its bytes are lost.
    Gone,
    TooLong(u64),
}

impl Lines {
    pub(super) fn of(gateway: &Gateway, pieces: Vec<KeptAnswer>) -> Self {
        Self { pieces: Pieces::of(gateway, pieces), rest: BytesMut::new(), looked: 0, number: 0 }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Line, NoLine>> {
        loop {
            let text = match self.end_of_line() {
                Some(length) => self.rest.split_to(length + 1).freeze(),
                None if self.rest.len() > limits::BATCH_LINE_BYTES_MAX => {
                    return Some(Err(NoLine::TooLong(self.number + 1)));
                }
                None => match self.read_on().await {
                    Ok(true) => continue,
                    Ok(false) if self.rest.is_empty() => return None,
                    Ok(false) => self.rest.split().freeze(),
                    Err(gone) => return Some(Err(gone)),
                },
            };
            self.looked = 0;
            self.number += 1;
            let number = self.number;
            if text.len() > limits::BATCH_LINE_BYTES_MAX {
                return Some(Err(NoLine::TooLong(number)));
            }
            if !text.trim_ascii().is_empty() {
                return Some(Ok(Line { number, text }));
            }
        }
    }

    fn end_of_line(&mut self) -> Option<usize> {
        let found = self.rest.iter().skip(self.looked).position(|byte| *byte == b'\n');
        let from = self.looked;
        self.looked = self.rest.len();
        found.map(|at| from + at)
    }

    /// Whoever has the next piece may come back, and a batch has a day.
    async fn read_on(&mut self) -> Result<bool, NoLine> {
        for _ in 0..limits::PIECE_LOOKS {
            match self.pieces.next().await {
                None => return Ok(false),
                Some(Ok(piece)) => {
                    self.rest.extend_from_slice(&piece);
                    return Ok(true);
                }
                Some(Err(unread)) => {
                    tracing::info!(%unread, "a piece of a batch's file cannot be read");
                    tokio::time::sleep(limits::BATCH_AGAIN).await;
                }
            }
        }
        Err(NoLine::Gone)
    }
}
