//! What a client is told when a file cannot be taken, found or read.
//!
//! Owns these errors. Somebody else's file is told apart from no file nowhere.

use axum::http::StatusCode;
use consensus::ProposeError;
use registry::{BatchRefusal, Bounded, Refusal};

use super::reading::Unread;
use crate::gateway::error::{ApiError, Retry};
use crate::gateway::{limits, names};

pub(super) fn unknown(id: &str) -> ApiError {
    let message = format!("There is no file '{}'.", names::quoted(id));
    ApiError {
        param: Some("file_id".to_owned()),
        ..ApiError::refused(StatusCode::NOT_FOUND, "not_found", message)
    }
}

pub(super) fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::refused(StatusCode::BAD_REQUEST, "invalid_request", message)
}

pub(super) fn too_large() -> ApiError {
    let message = format!("A file has at most {} MiB.", limits::UPLOAD_BYTES_MAX >> 20);
    ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

pub(super) fn too_slow() -> ApiError {
    let message = format!("The file did not arrive within {} s.", limits::UPLOAD_READ.as_secs());
    ApiError::refused(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

pub(super) fn too_many_at_once() -> ApiError {
    queue_full("As many files are being uploaded here as can be. Send this one a little later.")
}

pub(super) fn too_many_readers() -> ApiError {
    queue_full(
        "As many files are being downloaded here as can be, by you or by all. Ask for this one a little later.",
    )
}

fn queue_full(message: &str) -> ApiError {
    let error = ApiError::refused(StatusCode::TOO_MANY_REQUESTS, "queue_full", message);
    ApiError { retry: Retry::After(limits::RETRY_IN_FLIGHT), ..error }
}

/// No disk takes it.
pub(crate) fn not_kept() -> ApiError {
    let message =
        "The disk of a coordinator is almost full, so no file can be kept. Make room there, or delete files.";
    ApiError::refused(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message)
}

pub(super) fn unread(unread: Unread) -> ApiError {
    match unread {
        Unread::Gone => {
            let message =
                "The bytes of this file are lost: no coordinator has them any more. Upload it again.";
            ApiError::refused(StatusCode::GONE, "file_gone", message)
        }
        Unread::Unreachable => ApiError::unavailable(
            "file_unreachable",
            "The coordinators that keep this file cannot be reached. Ask for it again.",
            limits::RETRY_AFTER_LOSS,
        ),
    }
}

/// The registry does not want it so.
pub(super) fn refused(refusal: &Refusal) -> ApiError {
    if let Refusal::Batch(refusal) = refusal {
        return of_batch(refusal);
    }
    if let Refusal::VersionTooLow { .. } = refusal {
        let message = "Not every coordinator of this cluster knows files and batches yet. Try again when all are updated.";
        return ApiError::unavailable("cluster_updating", message, limits::RETRY_WHILE_LOADING);
    }
    let message = format!("Nothing was kept: {refusal}.");
    let Refusal::TooMany { what, .. } = refusal else {
        // What else there is about files and batches is about what this client sent.
        return malformed(message);
    };
    if matches!(what, Bounded::FileMib | Bounded::FileMibOfTenant) {
        return ApiError::refused(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message);
    }
    let error = ApiError::refused(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", message);
    ApiError { retry: Retry::NotBefore(limits::RETRY_AFTER_MAX), ..error }
}

fn of_batch(refusal: &BatchRefusal) -> ApiError {
    match refusal {
        BatchRefusal::FileInUse { .. } => {
            let message = "A batch still reads this file. Wait for its end, or cancel it.";
            ApiError::refused(StatusCode::CONFLICT, "file_in_use", message)
        }
        BatchRefusal::UnknownFile { file } => {
            let message = format!(
                "There is no file '{}' with the purpose 'batch'. Upload one first.",
                names::quoted(&file.0)
            );
            let error = ApiError::refused(StatusCode::NOT_FOUND, "not_found", message);
            ApiError { param: Some("input_file_id".to_owned()), ..error }
        }
        BatchRefusal::Ended { .. } => {
            let message = "This batch is over, so there is nothing to be cancelled.";
            ApiError::refused(StatusCode::CONFLICT, "batch_ended", message)
        }
        BatchRefusal::FileIdTaken { .. }
        | BatchRefusal::IdTaken { .. }
        | BatchRefusal::Unknown { .. }
        | BatchRefusal::NotItsRun { .. }
        | BatchRefusal::OutOfTurn { .. } => {
            ApiError::refused(StatusCode::CONFLICT, "conflict", format!("Nothing was changed: {refusal}."))
        }
    }
}

/// The registry did not take the word.
pub(crate) fn unproposed(error: &ProposeError) -> ApiError {
    let unavailable = |code, message| ApiError::unavailable(code, message, limits::RETRY_AFTER_LOSS);
    match error {
        ProposeError::StorageFull { .. } => not_kept(),
        ProposeError::TooLarge { .. } => ApiError::internal("The request could not be written down."),
        ProposeError::Busy { .. } | ProposeError::NotLeader { .. } => unavailable(
            "no_leader",
            "No coordinator takes a change at the moment, so nothing was changed. Send it again.",
        ),
        ProposeError::OutcomeUnknown(_) | ProposeError::Stopped(_) => unavailable(
            "outcome_unknown",
            "No majority of the coordinators answered in time: the change may or may not have been made. Look before you \
             send it again.",
        ),
    }
}
