//! What may happen to a response that its client need not wait for, as the log holds it; the names are for ever.
//!
//! Owns the list and its form on disk. Refuses the rules, which are in `responses.rs`; taking one over and ending it are those of
//! every job.

use serde::{Deserialize, Serialize};

use crate::job::{Digest, JobRun, KeptAnswer, Tenant};
use crate::names::KeyId;

/// A step in the life of a response. Times are the proposer's, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseChange {
    /// It begins, and goes on without its client. Accepted after what is asked is on the disks that are named. Idempotent.
    Begin {
        /// Whose it is.
        tenant: Tenant,
        /// The API key under which it is asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<KeyId>,
        /// What is asked.
        question: KeptAnswer,
        /// Who runs it.
        run: JobRun,
        /// When it was asked for.
        at_unix_ms: u64,
    },
    /// All of its answer that may be shown by now. Accepted only from the run that has it, after it is on the disks that are named.
    /// Idempotent.
    Keep {
        /// The run that has it.
        run: JobRun,
        /// In the place of what was kept before.
        progress: KeptAnswer,
    },
    /// One whose client waited is remembered with its answer. Idempotent.
    Store {
        /// Whose it is.
        tenant: Tenant,
        /// Its answer.
        kept: KeptAnswer,
        /// Who answered.
        run: JobRun,
        /// When.
        at_unix_ms: u64,
    },
    /// Its owner wants no more of it: it ends with what was shown. Accepted only if that is all that may be shown by now. Idempotent.
    Cancel {
        /// What was kept last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        progress: Option<Digest>,
        /// The answer from now on.
        kept: KeptAnswer,
        /// When.
        at_unix_ms: u64,
    },
    /// Its owner wants it forgotten, whether it runs or not. Idempotent.
    Drop,
}

impl ResponseChange {
    /// It only ends what was let in while there was room.
    #[must_use]
    pub fn only_ends(&self) -> bool {
        match self {
            ResponseChange::Cancel { .. } | ResponseChange::Drop => true,
            ResponseChange::Begin { .. } | ResponseChange::Keep { .. } | ResponseChange::Store { .. } => {
                false
            }
        }
    }

    /// In a word, for the audit trail.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            ResponseChange::Begin { .. } => "begin",
            ResponseChange::Keep { .. } => "keep a step of",
            ResponseChange::Store { .. } => "store",
            ResponseChange::Cancel { .. } => "cancel",
            ResponseChange::Drop => "drop",
        }
    }
}
