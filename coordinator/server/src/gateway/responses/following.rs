//! The events of a response for whoever reads them: from the beginning or behind what he has, to the end, at any coordinator.
//!
//! Owns following the facts: what is told is what the registry names, so every reader is told the same wherever he reads, and one that
//! comes after a crash as well. A response that is dropped or lost breaks the stream; nobody takes it for complete.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use futures_util::Stream;
use registry::{Job, JobId, Registry};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::errors;
use super::events::Teller;
use super::kept::{self, Kept, Progress};
use super::object::End;
use crate::gateway::error::ApiError;
use crate::gateway::openai::handlers::as_stream;
use crate::gateway::{Gateway, limits};
use crate::jobs::Missing;

/// Why the body failed. It reaches our own log at most: the client sees the cut.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut")]
struct Broken;

type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>;

/// `after`: the number of the last event that the client has.
pub(super) async fn stream(
    gateway: &Gateway,
    job: JobId,
    after: Option<u64>,
) -> Result<Response<Body>, ApiError> {
    let mut registry = gateway.registry.clone();
    let known = registry.borrow_and_update().job(job).cloned().ok_or_else(errors::dropped)?;
    let head = head(gateway, &known).await.map_err(errors::missing)?;
    let mut teller = Teller::new(head, after);
    teller.created();
    let reader =
        Reader { gateway: gateway.clone(), job, registry, teller, begun: false, told: 0, last: None };
    let mut response = Response::new(Body::from_stream(events(reader)));
    as_stream(response.headers_mut());
    Ok(response)
}

async fn head(gateway: &Gateway, job: &Job) -> Result<super::object::Head, Missing> {
    if let Some(kept) = kept::ended(gateway, job).await? {
        return Ok(kept.head);
    }
    let deferred = job.deferred.as_ref().ok_or(Missing::Gone)?;
    Ok(kept::question(gateway, deferred).await?.head)
}

struct Reader {
    gateway: Gateway,
    job: JobId,
    registry: watch::Receiver<Arc<Registry>>,
    teller: Teller,
    begun: bool,
    /// Pieces of text that were told.
    told: usize,
    /// How it stood when it was looked at last.
    last: Option<Job>,
}

/// How much of it there is.
enum News {
    Nothing,
    Progress(Progress),
    Ended(Kept),
}

enum Then {
    GoOn,
    End,
    Break(ApiError),
}

fn events(reader: Reader) -> Events {
    let next = |state: Option<(Reader, bool)>| async move {
        let (mut reader, is_broken) = state?;
        if is_broken {
            // The server flushes when the body has nothing more at the moment.
            tokio::task::yield_now().await;
            return Some((Err(Broken), None));
        }
        let mut then = Then::GoOn;
        let mut bytes = reader.teller.take();
        while bytes.is_empty() {
            then = reader.go_on().await;
            if let Then::Break(error) = &then {
                reader.teller.broken(error);
            }
            bytes = reader.teller.take();
            match &then {
                Then::End if bytes.is_empty() => return None,
                Then::GoOn if bytes.is_empty() => {
                    if reader.changed().await {
                        bytes = Bytes::from_static(b": keep-alive\n\n");
                    }
                }
                Then::GoOn | Then::End | Then::Break(_) => {}
            }
        }
        match then {
            Then::GoOn => Some((Ok(bytes), Some((reader, false)))),
            Then::End => Some((Ok(bytes), None)),
            Then::Break(_) => Some((Ok(bytes), Some((reader, true)))),
        }
    };
    Box::pin(futures_util::stream::unfold(Some((reader, false)), next))
}

impl Reader {
    /// Tells what is new.
    async fn go_on(&mut self) -> Then {
        let Some(job) = self.registry.borrow_and_update().job(self.job).cloned() else {
            return Then::Break(errors::dropped());
        };
        if self.last.as_ref() == Some(&job) {
            return Then::GoOn;
        }
        let news = match self.look(&job).await {
            Ok(news) => news,
            Err(missing) => return Then::Break(errors::missing(missing)),
        };
        self.last = Some(job);
        match news {
            News::Nothing => Then::GoOn,
            News::Progress(progress) => {
                self.tell(&progress.deltas, true, None);
                Then::GoOn
            }
            News::Ended(kept) => {
                self.tell(&kept.deltas, kept.begun, Some(&kept.end));
                Then::End
            }
        }
    }

    /// What was shown a moment ago may be somewhere else by now, or on a disk that is just starting.
    async fn look(&mut self, job: &Job) -> Result<News, Missing> {
        let mut job = job.clone();
        for _ in 1..limits::SHOWN_LOOKS {
            let looked = news(&self.gateway, &job).await;
            if looked.is_ok() {
                return looked;
            }
            tokio::time::sleep(limits::SHOWN_EVERY).await;
            job = self.registry.borrow().job(self.job).cloned().unwrap_or(job);
        }
        news(&self.gateway, &job).await
    }

    fn tell(&mut self, deltas: &[String], begun: bool, end: Option<&End>) {
        if begun && !std::mem::replace(&mut self.begun, true) {
            self.teller.begun();
        }
        for delta in deltas.iter().skip(self.told) {
            self.teller.delta(delta);
        }
        self.told = deltas.len().max(self.told);
        if let Some(end) = end {
            self.teller.ended(end);
        }
    }

    /// Waits for news. Whether it was silent for so long that the client must hear something.
    async fn changed(&mut self) -> bool {
        let latest = Instant::now() + limits::KEEP_ALIVE;
        loop {
            match timeout_at(latest, self.registry.changed()).await {
                Err(_) => return true,
                // The registry goes away with the coordinator, and so does the stream.
                Ok(Err(_)) => std::future::pending().await,
                Ok(Ok(())) => {}
            }
            if self.registry.borrow_and_update().job(self.job) != self.last.as_ref() {
                return false;
            }
        }
    }
}

async fn news(gateway: &Gateway, job: &Job) -> Result<News, Missing> {
    if let Some(kept) = kept::ended(gateway, job).await? {
        return Ok(News::Ended(kept));
    }
    let Some(deferred) = &job.deferred else { return Err(Missing::Gone) };
    Ok(kept::progress(gateway, deferred).await?.map_or(News::Nothing, News::Progress))
}
