//! What is kept of a response on disks, each kind one line of JSON.
//!
//! Owns these forms, which another release may read, and the names under which they are found. Refuses to keep what is larger than a
//! coordinator passes on.

use bytes::Bytes;
use registry::{Deferred, Job, JobId, KeptAnswer, Tenant};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::errors;
use super::items::Item;
use super::object::{End, Head};
use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::jobs::{Missing, What};
use crate::limits::ANSWER_BYTES_MAX;

/// What was asked, for whoever goes on with it.
#[derive(Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) head: Head,
    pub(super) items: Vec<Item>,
    /// The body without its input, which the items are.
    pub(super) body: Map<String, Value>,
    /// Those that say how it is treated.
    pub(super) headers: Vec<(String, String)>,
    /// The sender had no key of this cluster, and needed none.
    pub(super) is_anonymous: bool,
    pub(super) seed: Option<u64>,
    pub(super) deadline_unix_ms: u64,
}

/// All of an answer that may be shown while it is given, and what it takes to go on behind it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) tokens: Vec<u32>,
    /// The pieces of text in which it was shown.
    pub(super) deltas: Vec<String>,
}

/// A response that has ended.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) head: Head,
    pub(super) items: Vec<Item>,
    /// Somebody had begun to answer.
    pub(super) begun: bool,
    pub(super) deltas: Vec<String>,
    pub(super) end: End,
}

impl Kept {
    pub(super) fn text(&self) -> String {
        self.deltas.concat()
    }

    /// What a response that follows it reads first.
    pub(super) fn context(self) -> Vec<Item> {
        let answered = self.head.output(&self.text(), &self.end);
        [self.items, answered].concat()
    }
}

/// The job that is a response: nobody else's has the name.
pub(super) fn job_of(gateway: &Gateway, tenant: Tenant, id: &str) -> JobId {
    JobId(gateway.hash_keys.jobs.digest(&[&tenant.0.to_le_bytes(), b"response", id.as_bytes()]))
}

/// `None`: no disk takes it at the moment.
pub(super) async fn keep(
    gateway: &Gateway,
    what: What,
    value: &impl Serialize,
) -> Result<Option<KeptAnswer>, ApiError> {
    let text =
        serde_json::to_vec(value).map_err(|_| ApiError::internal("A response could not be written."))?;
    if text.len() > ANSWER_BYTES_MAX {
        return Err(errors::too_large());
    }
    let (text, keys) = (Bytes::from(text), &gateway.hash_keys);
    let key = match what {
        What::Answer => &keys.answers,
        What::Piece => &keys.pieces,
    };
    let (digest, bytes) = (key.digest(&[&text]), text.len() as u64);
    let holders = gateway.jobs.keeper.keep(what, digest, text).await;
    Ok((!holders.is_empty()).then_some(KeptAnswer { digest, bytes, holders }))
}

async fn fetch<T: DeserializeOwned>(gateway: &Gateway, what: What, kept: &KeptAnswer) -> Result<T, Missing> {
    let text = gateway.jobs.keeper.fetch(what, kept.digest, kept.holders.clone()).await?;
    serde_json::from_slice(&text).map_err(|_| Missing::Gone)
}

pub(super) async fn question(gateway: &Gateway, deferred: &Deferred) -> Result<Question, Missing> {
    fetch(gateway, What::Piece, &deferred.question).await
}

/// `None`: nobody has begun.
pub(super) async fn progress(gateway: &Gateway, deferred: &Deferred) -> Result<Option<Progress>, Missing> {
    match &deferred.progress {
        Some(kept) => fetch(gateway, What::Piece, kept).await.map(Some),
        None => Ok(None),
    }
}

/// `None`: it runs.
pub(super) async fn ended(gateway: &Gateway, job: &Job) -> Result<Option<Kept>, Missing> {
    let Some(ended) = &job.ended else { return Ok(None) };
    let kept = ended.kept.as_ref().ok_or(Missing::Gone)?;
    fetch(gateway, What::Answer, kept).await.map(Some)
}
