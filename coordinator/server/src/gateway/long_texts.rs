//! Where long texts are worked on: a few at a time, on threads that nobody else waits for.
//!
//! Owns the line between a text that is faster to handle at once and one that would stall every stream on its thread.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::error::ApiError;
use super::limits;

#[derive(Clone)]
pub(crate) struct LongTexts {
    places: Arc<Semaphore>,
}

impl LongTexts {
    pub(crate) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(limits::LONG_TEXTS_AT_ONCE)) }
    }

    /// Runs `work` over the text, here or on a blocking thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        text: Bytes,
        work: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if text.len() <= limits::INLINE_TEXT_BYTES {
            return Ok(work(&text));
        }
        // The semaphore is never closed.
        let _place = self.places.acquire().await.ok();
        let worked = tokio::task::spawn_blocking(move || work(&text)).await;
        worked.map_err(|_| ApiError::internal("The request could not be read."))
    }
}
