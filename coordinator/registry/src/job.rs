//! A durable job: a request that a client gave a key of its own, so that it is answered once, whatever dies.
//!
//! Owns the types. Refuses to know what was asked and what was answered: both are keyed digests here, and the answers
//! themselves are files of the coordinators that are named.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::names::KeyId;

/// A keyed hash; hex on disk. Tells nothing of what was hashed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "crate::secret_hash")] pub [u8; 32]);

/// The job's name: the keyed hash of the tenant and of the key that the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Digest);

/// Whose job it is: the number of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(#[serde(with = "crate::hex_number")] pub u64);

/// One life of a coordinator's process, drawn at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Life(#[serde(with = "crate::hex_number")] pub u64);

/// One try at a job. There are never two with the same life and number, so what is said of one is never taken for
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobRun {
    /// The coordinator whose gateway runs it.
    pub replica: u64,
    /// Of that coordinator.
    pub life: Life,
    /// Counted in that life.
    pub number: u64,
}

/// An answer that is kept in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Of the file, under which it is found.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// The coordinators that have it on their disks.
    pub holders: BTreeSet<u64>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Absent: the client had its answer, which was too large to be kept, or no disk had room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptAnswer>,
}

/// What whoever takes a job over needs to go on with it, where its client does not ask again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deferred {
    /// The API key under which it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// What is asked.
    pub question: KeptAnswer,
    /// All of its answer that may be shown by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<KeptAnswer>,
}

/// A job, running or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Whose it is.
    pub tenant: Tenant,
    /// What was asked: the keyed digest of path and body.
    pub request: Digest,
    /// Who runs it, or ran it to its end.
    pub run: JobRun,
    /// How often it was tried, this time included.
    pub attempt: u32,
    /// The first moment at which it is forgotten, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// Absent: it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Absent: it is done for a client who asks again, or it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred: Option<Box<Deferred>>,
}

impl Job {
    /// From now on it is as old as its answer, and what was needed to go on with it is not.
    pub(crate) fn end(&mut self, kept: Option<KeptAnswer>, at: u64) {
        self.ended = Some(Ended { at_unix_ms: at, kept });
        self.until_unix_ms = at.saturating_add(limits::JOB_KEPT_MS);
        self.deferred = None;
    }

    /// At this time it is as good as unknown.
    #[must_use]
    pub fn is_over(&self, now_unix_ms: u64) -> bool {
        now_unix_ms >= self.until_unix_ms
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The beginning is enough to tell two apart, and too little to look one up.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Digest({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
