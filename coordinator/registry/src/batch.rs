//! A batch: many requests in one file, answered one by one, whatever dies.
//!
//! Owns the types, and how a batch stands. Refuses to know what is asked and what is answered: both lie in pieces on the
//! coordinators' disks. What a client says of its batch is its own word, so `Debug` leaves it out.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::file::FileId;
use crate::job::{JobRun, KeptAnswer, Tenant};
use crate::names::KeyId;

/// A batch's name in the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchId(pub String);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which way of asking all its requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchEndpoint {
    /// Conversations.
    Chat,
    /// Texts to be continued.
    Completions,
}

/// Its requests were read, and can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// How many there are.
    pub lines: u64,
}

/// How many of its requests are answered for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// With an answer.
    pub completed: u64,
    /// With an error.
    pub failed: u64,
    /// When the last of all was, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_at_unix_ms: Option<u64>,
}

impl Progress {
    /// Both.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.completed.saturating_add(self.failed)
    }
}

/// Why a batch failed as a whole; never text of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// Where in the file, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Which field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every request has an answer or an error.
    Completed,
    /// It could not be begun, or not go on.
    Failed,
    /// Its time was over.
    Expired,
    /// Its owner wanted no more of it.
    Cancelled,
}

/// A batch that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedBatch {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// How.
    pub how: Ending,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// The file of answers, if there is any answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<FileId>,
    /// The file of errors, if there is any error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<FileId>,
    /// The first moment at which it is forgotten.
    pub until_unix_ms: u64,
}

/// A batch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Whose it is. Nobody else is told that there is such a batch.
    pub tenant: Tenant,
    /// The API key under which its requests are asked; absent where none was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// The file with its requests.
    pub input: FileId,
    /// How they are asked.
    pub endpoint: BatchEndpoint,
    /// What the client says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Who runs it, or ran it to its end.
    pub run: JobRun,
    /// How often it was taken on, the first time included.
    pub attempt: u32,
    /// When it was asked for, in milliseconds since 1970.
    pub begun_at_unix_ms: u64,
    /// From then on nothing more of it is asked.
    pub expires_at_unix_ms: u64,
    /// Absent: its requests are not read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
    /// The answers so far, in order. At the end they become a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<KeptAnswer>,
    /// The errors so far, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<KeptAnswer>,
    /// When its owner wanted no more of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_at_unix_ms: Option<u64>,
    /// Absent: it is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedBatch>,
}

/// How a batch stands, in the words of OpenAI's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchStatus {
    /// Its requests are being read.
    Validating,
    /// They are being asked.
    InProgress,
    /// All are answered; its files are being made.
    Finalizing,
    /// Over, with an answer or an error to every request.
    Completed,
    /// Over, because it could not be begun or could not go on.
    Failed,
    /// Over, because its time was.
    Expired,
    /// What is under way is being ended.
    Cancelling,
    /// Over, as its owner wanted.
    Cancelled,
}

impl Batch {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> BatchStatus {
        if let Some(ended) = &self.ended {
            return match ended.how {
                Ending::Completed => BatchStatus::Completed,
                Ending::Failed => BatchStatus::Failed,
                Ending::Expired => BatchStatus::Expired,
                Ending::Cancelled => BatchStatus::Cancelled,
            };
        }
        match self.opened {
            _ if self.cancelled_at_unix_ms.is_some() => BatchStatus::Cancelling,
            None => BatchStatus::Validating,
            Some(_) if self.is_answered() => BatchStatus::Finalizing,
            Some(_) => BatchStatus::InProgress,
        }
    }

    /// Every request has an answer or an error.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.opened.is_some_and(|opened| self.progress.lines() >= opened.lines)
    }

    /// At this time it is as good as unknown. One that has not ended never is: somebody has to end it.
    #[must_use]
    pub fn is_over(&self, now_unix_ms: u64) -> bool {
        self.ended.as_ref().is_some_and(|ended| now_unix_ms >= ended.until_unix_ms)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("tenant", &self.tenant)
            .field("key", &self.key)
            .field("input", &self.input)
            .field("endpoint", &self.endpoint)
            .field("run", &self.run)
            .field("attempt", &self.attempt)
            .field("opened", &self.opened)
            .field("progress", &self.progress)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
