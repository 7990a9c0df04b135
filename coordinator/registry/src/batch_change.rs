//! What may happen to a batch, as the log holds it; the names are for ever.
//!
//! Owns the list and its form on disk. Refuses the rules, which are in `batches.rs`, and to show a client's words in `Debug`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::{BatchEndpoint, Ending, Problem};
use crate::file::FileId;
use crate::job::{JobRun, KeptAnswer, Tenant};
use crate::names::KeyId;

/// A step in the life of a batch. Times are the proposer's, in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchChange {
    /// It begins. Idempotent.
    Begin {
        /// Whose it is.
        tenant: Tenant,
        /// The API key under which its requests are asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<KeyId>,
        /// The file with its requests: one of this tenant's.
        input: FileId,
        /// How they are asked.
        endpoint: BatchEndpoint,
        /// What the client says of it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metadata: BTreeMap<String, String>,
        /// Who runs it.
        run: JobRun,
        /// When it was asked for.
        at_unix_ms: u64,
    },
    /// Another run takes it over, because the former one is dead. Accepted only while that one has it. Idempotent.
    Take {
        /// The run that is dead.
        from: JobRun,
        /// The one that goes on.
        run: JobRun,
    },
    /// Its requests were read. Accepted only from the run that has it. Idempotent.
    Open {
        /// The run that has it.
        run: JobRun,
        /// How many there are.
        lines: u64,
        /// When.
        at_unix_ms: u64,
    },
    /// The next requests are answered, for good. Accepted only from the run that has it, after what is answered is on the disks that
    /// are named. Idempotent.
    Keep {
        /// The run that has it.
        run: JobRun,
        /// How many were answered before.
        after: u64,
        /// How many of these have an answer.
        completed: u64,
        /// How many of these have an error.
        failed: u64,
        /// The answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<KeptAnswer>,
        /// The errors.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errors: Option<KeptAnswer>,
        /// When.
        at_unix_ms: u64,
    },
    /// It is over, and what was answered becomes files. Accepted only from the run that has it. Idempotent.
    End {
        /// The run that has it.
        run: JobRun,
        /// How.
        how: Ending,
        /// Why it failed; nothing where it did not.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        problems: Vec<Problem>,
        /// The id for the file of answers, where there are any.
        output: FileId,
        /// The id for the file of errors, where there are any.
        errors: FileId,
        /// When.
        at_unix_ms: u64,
    },
    /// Its owner wants no more of it. Whoever runs it ends it. Idempotent.
    Cancel {
        /// When.
        at_unix_ms: u64,
    },
}

impl BatchChange {
    /// It only ends what was let in while there was room.
    #[must_use]
    pub fn only_ends(&self) -> bool {
        match self {
            BatchChange::End { .. } | BatchChange::Cancel { .. } => true,
            BatchChange::Begin { .. }
            | BatchChange::Take { .. }
            | BatchChange::Open { .. }
            | BatchChange::Keep { .. } => false,
        }
    }

    /// In a word, for the audit trail.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            BatchChange::Begin { .. } => "begin",
            BatchChange::Take { .. } => "take over",
            BatchChange::Open { .. } => "open",
            BatchChange::Keep { .. } => "keep a step of",
            BatchChange::End { .. } => "end",
            BatchChange::Cancel { .. } => "cancel",
        }
    }
}

impl fmt::Debug for BatchChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchChange::Begin { tenant, key, input, endpoint, run, at_unix_ms, metadata: _ } => f
                .debug_struct("Begin")
                .field("tenant", tenant)
                .field("key", key)
                .field("input", input)
                .field("endpoint", endpoint)
                .field("run", run)
                .field("at_unix_ms", at_unix_ms)
                .finish_non_exhaustive(),
            BatchChange::Take { from, run } => {
                f.debug_struct("Take").field("from", from).field("run", run).finish()
            }
            BatchChange::Open { run, lines, at_unix_ms } => f
                .debug_struct("Open")
                .field("run", run)
                .field("lines", lines)
                .field("at_unix_ms", at_unix_ms)
                .finish(),
            BatchChange::Keep { run, after, completed, failed, output, errors, at_unix_ms } => f
                .debug_struct("Keep")
                .field("run", run)
                .field("after", after)
                .field("completed", completed)
                .field("failed", failed)
                .field("output", output)
                .field("errors", errors)
                .field("at_unix_ms", at_unix_ms)
                .finish(),
            BatchChange::End { run, how, problems, output, errors, at_unix_ms } => f
                .debug_struct("End")
                .field("run", run)
                .field("how", how)
                .field("problems", problems)
                .field("output", output)
                .field("errors", errors)
                .field("at_unix_ms", at_unix_ms)
                .finish(),
            BatchChange::Cancel { at_unix_ms } => {
                f.debug_struct("Cancel").field("at_unix_ms", at_unix_ms).finish()
            }
        }
    }
}
