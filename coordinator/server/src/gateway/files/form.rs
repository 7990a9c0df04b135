//! `multipart/form-data`, as clients send files.
//!
//! Owns what may be said beside the file: what it is for, and how long it is kept. Refuses what would have to be guessed or left
//! out in silence.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use multer::{Constraints, Field, Multipart, SizeLimit};
use registry::limits::FILE_KEPT_MS;

use super::errors;
use crate::gateway::error::ApiError;
use crate::gateway::limits;

pub(super) struct Form(Multipart<'static>);

pub(super) fn boundary(headers: &HeaderMap) -> Result<String, ApiError> {
    let of = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    of.and_then(|of| multer::parse_boundary(of).ok()).ok_or_else(|| {
        errors::malformed(
            "A file is sent as multipart/form-data with a boundary: the fields 'purpose' and 'file'.",
        )
    })
}

impl Form {
    pub(super) fn open(boundary: String, body: Body) -> Self {
        let whole = limits::UPLOAD_BYTES_MAX + limits::UPLOAD_HEADS_BYTES_MAX;
        let size = SizeLimit::new().whole_stream(whole as u64);
        let constraints = Constraints::new().size_limit(size);
        Self(Multipart::with_constraints(body.into_data_stream(), boundary, constraints))
    }

    pub(super) async fn next(&mut self) -> Result<Option<Field<'static>>, ApiError> {
        self.0.next_field().await.map_err(|error| Self::broken(&error))
    }

    /// Reads and forgets the rest: an answer that is sent before it has arrived may be lost with the connection.
    pub(super) async fn discard(&mut self) {
        let mut bytes = 0;
        let rest = async {
            while let Ok(Some(mut field)) = self.0.next_field().await {
                while let Ok(Some(chunk)) = field.chunk().await {
                    bytes += chunk.len();
                    if bytes > limits::DISCARDED_BYTES_MAX {
                        return;
                    }
                }
            }
        };
        let _ = tokio::time::timeout(limits::DISCARD, rest).await;
    }

    pub(super) fn broken(error: &multer::Error) -> ApiError {
        if matches!(error, multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. })
        {
            return errors::too_large();
        }
        errors::malformed("The form broke off before its end, or is none.")
    }
}

/// What a form says beside its file.
#[derive(Default)]
pub(super) struct Said {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl Said {
    pub(super) async fn hear(&mut self, field: Field<'static>) -> Result<(), ApiError> {
        let name = field.name().unwrap_or_default().to_owned();
        let place = match name.as_str() {
            "purpose" => &mut self.purpose,
            "expires_after[anchor]" => &mut self.anchor,
            "expires_after[seconds]" => &mut self.seconds,
            _ => {
                let message = "The form has a field that is none of 'file', 'purpose' and 'expires_after'.";
                return Err(ApiError::unsupported("form", message));
            }
        };
        let text = short(field).await?;
        if place.replace(text).is_some() {
            return Err(ApiError::invalid("invalid_value", name, "A field of the form is there twice."));
        }
        Ok(())
    }

    /// How long the file is kept, where everything that must be said is.
    pub(super) fn life_ms(&self) -> Result<u64, ApiError> {
        match self.purpose.as_deref() {
            Some("batch") => {}
            Some(_) => {
                let message = "Files are taken for batches only. Send 'purpose' as 'batch'.";
                return Err(ApiError::invalid("invalid_value", "purpose", message));
            }
            None => {
                let message = "The field 'purpose' is missing. Send it as 'batch'.";
                return Err(ApiError::invalid("missing_required_parameter", "purpose", message));
            }
        }
        let wrong = || {
            let message = "'expires_after' has the anchor 'created_at' and 3600 to 2592000 seconds.";
            ApiError::invalid("invalid_value", "expires_after", message)
        };
        let seconds = match (self.anchor.as_deref(), self.seconds.as_deref()) {
            (None, None) => return Ok(FILE_KEPT_MS),
            (Some("created_at"), Some(seconds)) => seconds.parse::<u64>().map_err(|_| wrong())?,
            (Some(_) | None, Some(_) | None) => return Err(wrong()),
        };
        let fits = (3_600..=FILE_KEPT_MS / 1_000).contains(&seconds);
        if fits { Ok(seconds * 1_000) } else { Err(wrong()) }
    }
}

async fn short(mut field: Field<'static>) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| Form::broken(&error))? {
        text.extend_from_slice(&chunk);
        if text.len() > limits::FORM_FIELD_BYTES_MAX {
            return Err(errors::malformed("A field of the form is too long."));
        }
    }
    String::from_utf8(text).map_err(|_| errors::malformed("A field of the form is no text."))
}
