//! An administrator's change: from a request that passed the guard to a fact of the registry and the audit trail.
//!
//! Owns [`Administrator`], with which every handler below `/api/v1/admin` proposes, the strict reading of bodies, and the
//! mapping of refusals to HTTP. Commands may be said twice, so one whose outcome is unknown is said again for a while.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use consensus::{Consensus, ProposeError, Retry};
use futures_util::future::BoxFuture;
use registry::{Command, KeyRefusal, Outcome, Refusal, Reply};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;

use crate::clock::unix_ms;
use crate::gateway::access::Who;
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, body, limits};

/// Where commands become facts: the consensus, on whichever coordinator, or a script in a test.
pub(crate) trait Propose: Send + Sync {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Reply, ProposeError>>;
    /// Returns when this replica knows all that was known anywhere, or after a while.
    fn newest(&self) -> BoxFuture<'_, ()>;
}

impl Propose for Consensus {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Reply, ProposeError>> {
        Box::pin(Consensus::propose(self, command))
    }

    fn newest(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Without a leader the facts are told as they are known here.
            let _ = tokio::time::timeout(limits::NEWEST, self.read(|_| ())).await;
        })
    }
}

/// Whoever passed the guard with the scope `admin`. An argument of each handler that changes something.
pub(crate) struct Administrator {
    /// His name in the audit trail.
    by: String,
}

impl FromRequestParts<Gateway> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        match parts.extensions.get::<Who>() {
            Some(Who::Local) => Ok(Self { by: gateway.local_key.name.clone() }),
            Some(Who::Key(holder)) => Ok(Self { by: holder.id.0.clone() }),
            Some(Who::Anonymous) | None => Err(ApiError::internal("A change was asked for by nobody.")),
        }
    }
}

impl Administrator {
    /// Makes the change and notes it, refused or not. The reply is never a refusal: that is an error with its words.
    pub(crate) async fn change(&self, gateway: &Gateway, command: Command) -> Result<Reply, ApiError> {
        propose(gateway, command.audited(&self.by, unix_ms())).await
    }

    /// Notes what is about to be tried that is no command of the registry. What cannot be noted is not to be done.
    pub(crate) async fn begin(&self, gateway: &Gateway, action: String) -> Result<Begun, ApiError> {
        let begun = Begun { by: self.by.clone(), at_unix_ms: unix_ms(), action };
        propose(gateway, begun.note(Outcome::Begun)).await?;
        Ok(begun)
    }
}

/// A change that the audit trail knows to be under way.
#[must_use]
pub(crate) struct Begun {
    by: String,
    at_unix_ms: u64,
    action: String,
}

impl Begun {
    /// Notes how it ended. What cannot be noted stays begun in the trail: that it was tried is known.
    pub(crate) async fn ended(self, gateway: &Gateway, outcome: Outcome) {
        if let Err(error) = propose(gateway, self.note(outcome)).await {
            tracing::warn!(%error, action = self.action, "the audit trail does not know how a change ended");
        }
    }

    fn note(&self, outcome: Outcome) -> Command {
        let Self { by, at_unix_ms, action } = self;
        Command::Note { by: by.clone(), at_unix_ms: *at_unix_ms, action: action.clone(), outcome }
    }
}

/// Says it until it is done, for a while.
async fn propose(gateway: &Gateway, command: Command) -> Result<Reply, ApiError> {
    let latest = Instant::now() + limits::CHANGE_PATIENCE;
    loop {
        match gateway.facts.propose(command.clone()).await {
            Ok(Reply::Refused(refusal)) => return Err(refused(&refusal)),
            Ok(reply) => return Ok(reply),
            Err(error) if is_worth_waiting(&error) && Instant::now() < latest => {
                tracing::info!(%error, "a change waits for a leader");
                tokio::time::sleep(limits::CHANGE_AGAIN).await;
            }
            Err(error) => return Err(lost(&error)),
        }
    }
}

/// A JSON object in which nothing is ignored: `T` denies unknown fields.
pub(crate) async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, ApiError> {
    read_bytes(&body::read(headers, body).await?)
}

/// The same of a body that has arrived.
pub(crate) fn read_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.len() > limits::CHANGE_BYTES_MAX {
        let message = format!("A change has at most {} KiB.", limits::CHANGE_BYTES_MAX >> 10);
        return Err(ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message));
    }
    let wrong = |words: String| {
        let message = format!("The body is not as it must be: {words}.");
        ApiError::refused(StatusCode::BAD_REQUEST, "invalid_request", message)
    };
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("it must be a JSON object".to_owned()));
    }
    // The words may repeat what an administrator sent, to himself.
    serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
}

/// In a body that says only what shall be other: tells `null` from nothing.
pub(super) fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

fn lost(error: &ProposeError) -> ApiError {
    let unavailable = |code, message: String| ApiError::unavailable(code, message, limits::RETRY_AFTER_LOSS);
    match error {
        ProposeError::TooLarge { .. } => {
            ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", error.to_string())
        }
        ProposeError::StorageFull { .. } => {
            let words = format!("Nothing was changed: {error}.");
            ApiError::refused(StatusCode::INSUFFICIENT_STORAGE, "storage_full", words)
        }
        ProposeError::Busy { .. } | ProposeError::NotLeader { .. } => unavailable(
            "no_leader",
            "No coordinator takes a change at the moment, so nothing was changed. Send it again.".to_owned(),
        ),
        ProposeError::OutcomeUnknown(_) | ProposeError::Stopped(_) => unavailable(
            "outcome_unknown",
            "No majority of the coordinators answered in time: the change may or may not have been made. Look before you \
             send it again."
                .to_owned(),
        ),
    }
}

/// Nobody makes room on a disk while a client waits, and a replica that has stopped does not come back.
pub(crate) fn is_worth_waiting(error: &ProposeError) -> bool {
    error.retry() != Retry::Never && !error.fatal() && !matches!(error, ProposeError::StorageFull { .. })
}

pub(super) fn refused(refusal: &Refusal) -> ApiError {
    let (status, code) = match refusal {
        Refusal::Malformed { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
        Refusal::UnknownNode { .. } | Refusal::UnknownToken { .. } => (StatusCode::NOT_FOUND, "not_found"),
        Refusal::Key(KeyRefusal::Unknown { .. } | KeyRefusal::UnknownSecret { .. }) => {
            (StatusCode::NOT_FOUND, "not_found")
        }
        Refusal::Batch(_)
        | Refusal::Key(
            KeyRefusal::Revoked { .. }
            | KeyRefusal::IdTaken { .. }
            | KeyRefusal::StaleRevision { .. }
            | KeyRefusal::SecretOutOfTurn { .. }
            | KeyRefusal::LastSecret { .. },
        )
        | Refusal::AlreadyFounded
        | Refusal::NotFounded
        | Refusal::TokenExpired { .. }
        | Refusal::TokenSpent { .. }
        | Refusal::TokenRevoked { .. }
        | Refusal::TokenRoleMismatch { .. }
        | Refusal::TokenIdTaken { .. }
        | Refusal::NodeRevoked { .. }
        | Refusal::NotAnAgent { .. }
        | Refusal::NotOffered { .. }
        | Refusal::BudgetUnknown { .. }
        | Refusal::NoRoom { .. }
        | Refusal::StaleGeneration { .. }
        | Refusal::GoldenDiffers { .. }
        | Refusal::VotersLocked { .. }
        | Refusal::VoterChangeOutOfTurn { .. }
        | Refusal::ReplicaRemoved { .. }
        | Refusal::VersionTooLow { .. }
        | Refusal::VersionUnknown { .. }
        | Refusal::Job(_)
        | Refusal::Ca(_)
        | Refusal::UsageOutOfTurn { .. }
        | Refusal::TooMany { .. } => (StatusCode::CONFLICT, "conflict"),
    };
    ApiError::refused(status, code, format!("Nothing was changed: {refusal}."))
}
