//! Why a command about a file or a batch changed nothing.
//!
//! Owns these reasons and their words. They are the gateway's to act upon: a client is told in the words of its own API.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{BatchId, FileId};

/// A file or a batch is not as the command needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchRefusal {
    /// Another file has this id.
    FileIdTaken {
        /// The id.
        file: FileId,
    },
    /// A batch that is not over reads it.
    FileInUse {
        /// The file.
        file: FileId,
    },
    /// There is no such file of requests that is this tenant's.
    UnknownFile {
        /// The file.
        file: FileId,
    },
    /// Another batch has this id.
    IdTaken {
        /// The id.
        batch: BatchId,
    },
    /// There is no such batch.
    Unknown {
        /// The batch.
        batch: BatchId,
    },
    /// It is over.
    Ended {
        /// The batch.
        batch: BatchId,
    },
    /// Another run has it by now.
    NotItsRun {
        /// The batch.
        batch: BatchId,
    },
    /// It is not so far, or farther.
    OutOfTurn {
        /// The batch.
        batch: BatchId,
    },
}

impl fmt::Display for BatchRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchRefusal::FileIdTaken { file } => {
                write!(f, "another file has the id {file}; add it under another id")
            }
            BatchRefusal::FileInUse { file } => {
                write!(f, "a batch still reads file {file}; wait for its end, or cancel it")
            }
            BatchRefusal::UnknownFile { file } => {
                write!(f, "there is no file {file} with requests; upload it with the purpose 'batch'")
            }
            BatchRefusal::IdTaken { batch } => {
                write!(f, "another batch has the id {batch}; begin it under another id")
            }
            BatchRefusal::Unknown { batch } => write!(f, "there is no batch {batch}; begin it"),
            BatchRefusal::Ended { batch } => write!(f, "batch {batch} is over; look at how it ended"),
            BatchRefusal::NotItsRun { batch } => {
                write!(f, "batch {batch} was taken over since; look at how it stands")
            }
            BatchRefusal::OutOfTurn { batch } => {
                write!(f, "batch {batch} is not so far, or farther; look at how it stands")
            }
        }
    }
}
