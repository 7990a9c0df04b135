//! Query strings, whose faults are told as those of a body are.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let read = Query::try_from_uri(&parts.uri).map_err(|error| {
            // The words name fields and what may stand there, and repeat at most what is in the path.
            let message = format!("The query is not as it must be: {}.", error.body_text());
            ApiError::invalid("invalid_value", "query", message)
        });
        read.map(|Query(said)| Self(said))
    }
}
