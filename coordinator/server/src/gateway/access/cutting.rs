//! An answer that is cut when its key is revoked.
//!
//! Owns the last words of a stream: an error event where it has events, and then a body that fails, so that nobody takes it for
//! complete. What was answered in one piece is complete already.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, BodyDataStream};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use hyper::body::Body as _;

use crate::gateway::error::ApiError;

type Ended = Pin<Box<dyn Future<Output = ApiError> + Send>>;

struct Cut {
    /// `None`: it was cut, and whatever computed it was dropped.
    body: Option<BodyDataStream>,
    ended: Ended,
    events: bool,
    flushed: bool,
}

/// Why the body failed. It reaches our own log at most: the client sees the cut.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the key was revoked")]
    Revoked,
    #[error(transparent)]
    Inner(axum::Error),
}

/// The same response, which breaks off when `ended` comes to pass.
pub(super) fn until(response: Response, ended: Ended) -> Response {
    // Whatever is still to be computed or fetched has no length yet.
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let events =
        response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes) == Some(b"text/event-stream");
    response.map(|body| {
        Body::from_stream(Cut { body: Some(body.into_data_stream()), ended, events, flushed: false })
    })
}

impl Stream for Cut {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(body) = &mut this.body {
            let Poll::Ready(error) = this.ended.as_mut().poll(context) else {
                let polled = Pin::new(body).poll_next(context);
                return polled.map(|next| next.map(|piece| piece.map_err(Broken::Inner)));
            };
            this.body = None;
            if !this.events {
                return Poll::Ready(Some(Err(Broken::Revoked)));
            }
            // Pieces are whole events, so another one may follow any of them.
            return Poll::Ready(Some(Ok(Bytes::from(format!("data: {}\n\n", error.body())))));
        }
        if this.flushed {
            return Poll::Ready(Some(Err(Broken::Revoked)));
        }
        // The server flushes when the body has nothing more at the moment.
        this.flushed = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
