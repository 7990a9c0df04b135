//! A batch as OpenAI's API shows it.
//!
//! Owns the shape, with every key that the SDKs' types have, but for the model and the usage, which no fact says.

use registry::{Batch, BatchId, BatchStatus, Ending, Problem};
use serde_json::{Value, json};

pub(super) fn batch(id: &BatchId, batch: &Batch) -> Value {
    let seconds = |at_unix_ms: u64| at_unix_ms / 1_000;
    let ended = |how: Ending| {
        batch.ended.as_ref().filter(|ended| ended.how == how).map(|ended| seconds(ended.at_unix_ms))
    };
    let problems = batch.ended.as_ref().map(|ended| &ended.problems).filter(|problems| !problems.is_empty());
    let errors = problems
        .map(|problems| json!({"object": "list", "data": problems.iter().map(problem).collect::<Vec<_>>()}));
    json!({
        "id": id.0,
        "object": "batch",
        "endpoint": super::path(batch.endpoint),
        "errors": errors,
        "input_file_id": batch.input.0,
        "completion_window": "24h",
        "status": status(batch.status()),
        "output_file_id": batch.ended.as_ref().and_then(|ended| ended.output.as_ref()).map(|file| &file.0),
        "error_file_id": batch.ended.as_ref().and_then(|ended| ended.errors.as_ref()).map(|file| &file.0),
        "created_at": seconds(batch.begun_at_unix_ms),
        "in_progress_at": batch.opened.map(|opened| seconds(opened.at_unix_ms)),
        "expires_at": seconds(batch.expires_at_unix_ms),
        "finalizing_at": batch.progress.all_at_unix_ms.map(seconds),
        "completed_at": ended(Ending::Completed),
        "failed_at": ended(Ending::Failed),
        "expired_at": ended(Ending::Expired),
        "cancelling_at": batch.cancelled_at_unix_ms.map(seconds),
        "cancelled_at": ended(Ending::Cancelled),
        "request_counts": {
            "total": batch.opened.map_or(0, |opened| opened.lines),
            "completed": batch.progress.completed,
            "failed": batch.progress.failed,
        },
        "metadata": (!batch.metadata.is_empty()).then_some(&batch.metadata),
    })
}

fn problem(problem: &Problem) -> Value {
    json!({
        "code": problem.code, "message": problem.message, "line": problem.line, "param": problem.param,
    })
}

fn status(status: BatchStatus) -> &'static str {
    match status {
        BatchStatus::Validating => "validating",
        BatchStatus::InProgress => "in_progress",
        BatchStatus::Finalizing => "finalizing",
        BatchStatus::Completed => "completed",
        BatchStatus::Failed => "failed",
        BatchStatus::Expired => "expired",
        BatchStatus::Cancelling => "cancelling",
        BatchStatus::Cancelled => "cancelled",
    }
}
