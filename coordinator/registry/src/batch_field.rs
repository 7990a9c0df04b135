//! The fields of files and batches that have a rule, and the words for each.
//!
//! Owns these words. Refuses to repeat what broke a rule, because it may be a stranger's.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A field with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchField {
    /// The id of a file.
    FileId,
    /// What a client calls a file.
    FileName,
    /// Where the bytes of a file are, and for how long.
    Pieces,
    /// The id of a batch.
    BatchId,
    /// What a client says of its batch.
    Metadata,
    /// How many requests a batch has.
    Lines,
    /// What one step of a batch has answered.
    Step,
    /// What is wrong with a batch.
    Problems,
}

impl fmt::Display for BatchField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id_max = limits::ID_BYTES_MAX;
        match self {
            BatchField::FileId => write!(f, "a file's id has 1 to {id_max} letters, digits, '_' or '-'"),
            BatchField::BatchId => write!(f, "a batch's id has 1 to {id_max} letters, digits, '_' or '-'"),
            BatchField::FileName => write!(
                f,
                "a file's name has 1 to {} bytes and no control characters",
                limits::FILE_NAME_BYTES_MAX
            ),
            BatchField::Pieces => write!(
                f,
                "a file has 1 to {} pieces, each held by 1 to {} coordinators, and a time after its making until which it is kept",
                limits::UPLOAD_PIECES_MAX,
                limits::REPLICAS_MAX
            ),
            BatchField::Metadata => write!(
                f,
                "metadata has at most {} pairs, with keys of 1 to {} and values of at most {} bytes",
                limits::METADATA_PAIRS_MAX,
                limits::METADATA_KEY_BYTES_MAX,
                limits::METADATA_VALUE_BYTES_MAX
            ),
            BatchField::Lines => write!(f, "a batch has 1 to {} requests", limits::BATCH_LINES_MAX),
            BatchField::Step => f.write_str(
                "a step of a batch answers at least one request, and has a piece that somebody holds for each kind of answer",
            ),
            BatchField::Problems => write!(
                f,
                "a failed batch has 1 to {} reasons, each in words of 1 to {} bytes, and no other batch has any",
                limits::PROBLEMS_MAX,
                limits::PROBLEM_BYTES_MAX
            ),
        }
    }
}
