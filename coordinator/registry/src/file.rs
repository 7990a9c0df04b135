//! A file that a client has uploaded, or that a batch has made: who may read it, and where its bytes are.
//!
//! Owns the types. Refuses the bytes themselves: they lie in pieces on the disks of the coordinators that are named. What a client
//! calls its file is its own word, so `Debug` leaves it out.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::job::{KeptAnswer, Tenant};

/// A file's name in the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileId(pub String);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The requests of a batch.
    Batch,
    /// What a batch has answered.
    BatchOutput,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Whose it is. Nobody else is told that there is such a file.
    pub tenant: Tenant,
    /// What the client calls it.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its bytes, in order.
    pub pieces: Vec<KeptAnswer>,
    /// When it was made, in milliseconds since 1970.
    pub made_at_unix_ms: u64,
    /// The first moment at which it is forgotten.
    pub until_unix_ms: u64,
}

impl StoredFile {
    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes(&self.pieces)
    }

    /// At this time it is as good as unknown.
    #[must_use]
    pub fn is_over(&self, now_unix_ms: u64) -> bool {
        now_unix_ms >= self.until_unix_ms
    }
}

pub(crate) fn bytes(pieces: &[KeptAnswer]) -> u64 {
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.bytes))
}

impl fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredFile")
            .field("tenant", &self.tenant)
            .field("purpose", &self.purpose)
            .field("pieces", &self.pieces)
            .field("made_at_unix_ms", &self.made_at_unix_ms)
            .field("until_unix_ms", &self.until_unix_ms)
            .finish_non_exhaustive()
    }
}

/// What happens to a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// A client has uploaded it, and its bytes are on the disks that are named. Idempotent.
    Add {
        /// Whose it is.
        tenant: Tenant,
        /// What the client calls it.
        name: String,
        /// Its bytes, in order.
        pieces: Vec<KeptAnswer>,
        /// When it was uploaded.
        at_unix_ms: u64,
        /// When it is forgotten.
        until_unix_ms: u64,
    },
    /// Its owner wants it no more. Refused while a batch needs it. Idempotent.
    Drop,
}

impl fmt::Debug for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileChange::Add { tenant, pieces, at_unix_ms, until_unix_ms, name: _ } => f
                .debug_struct("Add")
                .field("tenant", tenant)
                .field("pieces", pieces)
                .field("at_unix_ms", at_unix_ms)
                .field("until_unix_ms", until_unix_ms)
                .finish_non_exhaustive(),
            FileChange::Drop => f.write_str("Drop"),
        }
    }
}
