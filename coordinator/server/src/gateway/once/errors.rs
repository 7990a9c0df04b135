//! What a client is told when its request with an `Idempotency-Key` is not answered now.
//!
//! Owns these errors: what holds now, and whether the same request with the same key helps later.

use axum::http::StatusCode;
use consensus::ProposeError;

use super::key::IDEMPOTENCY_KEY;
use crate::gateway::error::{ApiError, Retry};
use crate::gateway::limits;

pub(super) fn reused() -> ApiError {
    let message =
        "This Idempotency-Key was used for another request. Send each request with a key of its own.";
    let error = ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message);
    ApiError { param: Some(IDEMPOTENCY_KEY.to_owned()), ..error }
}

pub(super) fn in_flight() -> ApiError {
    let message = "The request with this Idempotency-Key is being answered. Send it again to get its answer.";
    let error = ApiError::refused(StatusCode::CONFLICT, "idempotency_in_flight", message);
    ApiError { retry: Retry::After(limits::RETRY_IN_FLIGHT), ..error }
}

/// It was answered, and the answer is no more.
pub(super) fn gone() -> ApiError {
    let message = "This request was answered, but its answer is not kept: it was too large, or there was no room for it. To \
                   have it computed anew, send it with another Idempotency-Key.";
    ApiError::refused(StatusCode::GONE, "idempotency_answer_gone", message)
}

pub(super) fn unreachable() -> ApiError {
    let message = "This request was answered, but the coordinators that keep its answer cannot be reached. Send it again.";
    ApiError::unavailable("idempotency_answer_unreachable", message, limits::RETRY_IN_FLIGHT)
}

/// What the client has is the beginning of another stream than there is.
pub(super) fn another_stream() -> ApiError {
    let message = "The stream that this Last-Event-ID is of was lost, and what there is does not follow it. Send the request \
                   without Last-Event-ID, and begin anew.";
    ApiError::refused(StatusCode::CONFLICT, "last_event_unknown", message)
}

/// Another run has taken the job over, or nobody knows whether it ended: this one's answer may not be the one that counts.
pub(super) fn lost() -> ApiError {
    let message = "It is not certain that this answer is the one that is kept. Send the request again with the same \
                   Idempotency-Key.";
    ApiError::unavailable("stream_lost", message, limits::RETRY_IN_FLIGHT)
}

pub(super) fn too_many_at_once() -> ApiError {
    let message =
        "Too many requests with an Idempotency-Key are being answered here. Send it again a little later.";
    let status = StatusCode::TOO_MANY_REQUESTS;
    ApiError {
        retry: Retry::After(limits::RETRY_IN_FLIGHT),
        ..ApiError::refused(status, "queue_full", message)
    }
}

pub(super) fn too_many_kept() -> ApiError {
    let message = "As many requests with an Idempotency-Key are remembered as can be; each is forgotten a day after its \
                   answer. Send this one later, or without such a key.";
    let error = ApiError::refused(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", message);
    ApiError { retry: Retry::After(limits::RETRY_AFTER_MAX), ..error }
}

pub(super) fn storage_full() -> ApiError {
    let message = "The disk of a coordinator is almost full, so no answer can be kept. Make room there, or send the request \
                   without an Idempotency-Key.";
    ApiError::refused(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message)
}

/// The registry did not take the word.
pub(super) fn unproposed(error: &ProposeError) -> ApiError {
    let unavailable = |code, message| ApiError::unavailable(code, message, limits::RETRY_AFTER_LOSS);
    match error {
        ProposeError::StorageFull { .. } => storage_full(),
        ProposeError::TooLarge { .. } => ApiError::internal("The request could not be written down."),
        ProposeError::Busy { .. } | ProposeError::NotLeader { .. } => unavailable(
            "no_leader",
            "No coordinator takes a request with an Idempotency-Key at the moment. Send it again with the same key.",
        ),
        ProposeError::OutcomeUnknown(_) | ProposeError::Stopped(_) => unavailable(
            "outcome_unknown",
            "No majority of the coordinators answered in time. Send the request again with the same Idempotency-Key.",
        ),
    }
}
