//! An upload, on its way to the disks.
//!
//! Owns the bounds: its size, its time, how many there are at once, and that no more than one piece of it is in memory. What was
//! kept of an upload that came to nothing is named by no fact, and so it is removed.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use multer::Field;
use registry::limits::FILE_NAME_BYTES_MAX;
use registry::{BatchField, Field as Fact, KeptAnswer, Refusal};

use super::errors;
use super::form::{self, Form, Said};
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, body, limits};
use crate::jobs::What;
use crate::limits::ANSWER_BYTES_MAX;

/// What arrived, and is on disks.
pub(super) struct Uploaded {
    pub(super) name: String,
    pub(super) pieces: Vec<KeptAnswer>,
    pub(super) life_ms: u64,
}

pub(super) async fn take_in(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<Uploaded, ApiError> {
    if !gateway.jobs.keeper.has_room() {
        return refuse(body, errors::not_kept()).await;
    }
    let (_place, boundary) = match (gateway.uploads.try_acquire(), form::boundary(headers)) {
        (Ok(place), Ok(boundary)) => (place, boundary),
        (Err(_), _) => return refuse(body, errors::too_many_at_once()).await,
        (Ok(_), Err(error)) => return refuse(body, error).await,
    };
    let mut form = Form::open(boundary, body);
    let reading = tokio::time::timeout(limits::UPLOAD_READ, read(gateway, &mut form)).await;
    let read = reading.unwrap_or_else(|_| Err(errors::too_slow()));
    if read.is_err() {
        form.discard().await;
    }
    read
}

async fn refuse(body: Body, error: ApiError) -> Result<Uploaded, ApiError> {
    body::discard(body).await;
    Err(error)
}

/// The fields may come in any order.
async fn read(gateway: &Gateway, form: &mut Form) -> Result<Uploaded, ApiError> {
    let mut said = Said::default();
    let mut file = None;
    while let Some(field) = form.next().await? {
        if field.name() != Some("file") {
            said.hear(field).await?;
            continue;
        }
        if file.is_some() {
            return Err(errors::malformed("There are two fields 'file'. Send one file at a time."));
        }
        let name = field.file_name().unwrap_or_default();
        let name = if name.is_empty() { "file.jsonl".to_owned() } else { name.to_owned() };
        check_name(&name)?;
        file = Some((name, keep(gateway, field).await?));
    }
    let life_ms = said.life_ms()?;
    let (name, pieces) = file.ok_or_else(|| errors::malformed("The field 'file' is missing."))?;
    if pieces.is_empty() {
        return Err(errors::malformed("The file is empty."));
    }
    Ok(Uploaded { name, pieces, life_ms })
}

/// As the registry does, but before it is in the log.
fn check_name(name: &str) -> Result<(), ApiError> {
    if name.len() <= FILE_NAME_BYTES_MAX && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(errors::refused(&Refusal::Malformed { what: Fact::Batch(BatchField::FileName) }))
}

async fn keep(gateway: &Gateway, mut field: Field<'static>) -> Result<Vec<KeptAnswer>, ApiError> {
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (BytesMut::new(), 0);
    while let Some(chunk) = field.chunk().await.map_err(|error| Form::broken(&error))? {
        bytes += chunk.len();
        if bytes > limits::UPLOAD_BYTES_MAX {
            return Err(errors::too_large());
        }
        piece.extend_from_slice(&chunk);
        while piece.len() >= ANSWER_BYTES_MAX {
            pieces.push(keep_piece(gateway, piece.split_to(ANSWER_BYTES_MAX).freeze()).await?);
        }
    }
    if !piece.is_empty() {
        pieces.push(keep_piece(gateway, piece.freeze()).await?);
    }
    Ok(pieces)
}

async fn keep_piece(gateway: &Gateway, piece: Bytes) -> Result<KeptAnswer, ApiError> {
    let (digest, bytes) = (gateway.hash_keys.pieces.digest(&[&piece]), piece.len() as u64);
    let holders = gateway.jobs.keeper.keep(What::Piece, digest, piece).await;
    if holders.is_empty() { Err(errors::not_kept()) } else { Ok(KeptAnswer { digest, bytes, holders }) }
}
