//! What a client is told when a response cannot be begun, found or shown.
//!
//! Owns these errors. Somebody else's response is told apart from no response nowhere.

use axum::http::StatusCode;
use consensus::ProposeError;
use registry::Refusal;

use crate::gateway::error::{ApiError, Retry};
use crate::gateway::{limits, names};
use crate::jobs::Missing;
use crate::limits::ANSWER_BYTES_MAX;

pub(super) fn unknown(id: &str, param: &str) -> ApiError {
    let message = format!(
        "There is no response '{}'. Responses are kept for a day, and only with 'store' or 'background'.",
        names::quoted(id)
    );
    let error = ApiError::refused(StatusCode::NOT_FOUND, "not_found", message);
    ApiError { param: Some(param.to_owned()), ..error }
}

pub(super) fn missing(missing: Missing) -> ApiError {
    match missing {
        Missing::Gone => {
            let message =
                "This response was answered, but there was no room to keep it, or its disks are lost.";
            ApiError::refused(StatusCode::GONE, "response_gone", message)
        }
        Missing::Unreachable => ApiError::unavailable(
            "response_unreachable",
            "The coordinators that keep this response cannot be reached. Ask for it again.",
            limits::RETRY_AFTER_LOSS,
        ),
    }
}

pub(super) fn too_large() -> ApiError {
    let message = format!(
        "What is kept of a response is larger than {} KiB. Send less, or send it without 'background' and 'store'.",
        ANSWER_BYTES_MAX >> 10
    );
    ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

pub(super) fn not_kept() -> ApiError {
    let message = "The disk of a coordinator is almost full, so no response can be kept. Make room there, or send the request \
                   without 'background' and 'store'.";
    ApiError::refused(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message)
}

pub(super) fn too_many_at_once() -> ApiError {
    let message = "As many responses go on in the background here as can. Send this one a little later.";
    ApiError {
        retry: Retry::After(limits::RETRY_IN_FLIGHT),
        ..ApiError::refused(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    }
}

/// What a response follows has not ended well.
pub(super) fn not_answered() -> ApiError {
    let message = "The response that this one follows has no answer: it failed, or was cancelled.";
    ApiError::invalid("invalid_value", "previous_response_id", message)
}

/// What a response follows runs.
pub(super) fn not_answered_yet() -> ApiError {
    let message = "The response that this one follows has no answer yet. Wait until it is completed.";
    let error = ApiError::invalid("invalid_value", "previous_response_id", message);
    ApiError { retry: Retry::After(limits::RETRY_IN_FLIGHT), ..error }
}

pub(super) fn not_in_background() -> ApiError {
    let message = "This response does not run in the background, so it cannot be cancelled.";
    ApiError::invalid("invalid_value", "response_id", message)
}

pub(super) fn nothing_follows() -> ApiError {
    let message = "'starting_after' is allowed only with 'stream=true'.";
    ApiError::invalid("invalid_value", "starting_after", message)
}

pub(super) fn key_on_stream(header: &str) -> ApiError {
    let message = "The header 'Idempotency-Key' is not supported with 'stream' here. Leave one of them out; a response in the \
                   background can be read as a stream later.";
    ApiError::unsupported(header, message)
}

/// Its owner had it dropped while somebody read it.
pub(super) fn dropped() -> ApiError {
    ApiError::refused(StatusCode::NOT_FOUND, "not_found", "This response was deleted.")
}

/// The registry does not want it so.
pub(super) fn refused(refusal: &Refusal) -> ApiError {
    if let Refusal::VersionTooLow { .. } = refusal {
        let message = "Not every coordinator of this cluster knows stored responses yet. Try again when all are updated.";
        return ApiError::unavailable("cluster_updating", message, limits::RETRY_WHILE_LOADING);
    }
    let message = format!("Nothing was kept: {refusal}.");
    let is_full = matches!(refusal, Refusal::TooMany { .. });
    let (status, code) = match is_full {
        true => (StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
        false => (StatusCode::CONFLICT, "conflict"),
    };
    ApiError { retry: Retry::After(limits::RETRY_AFTER_MAX), ..ApiError::refused(status, code, message) }
}

/// The registry did not take the word.
pub(super) fn unproposed(error: &ProposeError) -> ApiError {
    let unavailable = |code, message| ApiError::unavailable(code, message, limits::RETRY_AFTER_LOSS);
    match error {
        ProposeError::StorageFull { .. } => not_kept(),
        ProposeError::TooLarge { .. } => ApiError::internal("The response could not be written down."),
        ProposeError::Busy { .. } | ProposeError::NotLeader { .. } => unavailable(
            "no_leader",
            "No coordinator takes a change at the moment, so nothing was changed. Send it again.",
        ),
        ProposeError::OutcomeUnknown(_) | ProposeError::Stopped(_) => unavailable(
            "outcome_unknown",
            "No majority of the coordinators answered in time: the change may or may not have been made.",
        ),
    }
}
