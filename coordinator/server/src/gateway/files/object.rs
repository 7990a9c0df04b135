//! A file as OpenAI's API shows it.
//!
//! Owns the shape, with every key that the SDKs' types have.

use registry::{FileId, Purpose, StoredFile};
use serde_json::{Value, json};

pub(super) fn file(id: &FileId, file: &StoredFile) -> Value {
    json!({
        "id": id.0,
        "object": "file",
        "bytes": file.bytes(),
        "created_at": file.made_at_unix_ms / 1_000,
        "expires_at": file.until_unix_ms / 1_000,
        "filename": file.name,
        "purpose": purpose(file.purpose),
        "status": "processed",
        "status_details": null,
    })
}

pub(super) fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Batch => "batch",
        Purpose::BatchOutput => "batch_output",
    }
}
