//! A response whose client waits for it, whole or as a stream.
//!
//! Owns the order where it shall be stored: it is on disks and in the registry before its client sees an end. Refuses to go on
//! without its client.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::Response;
use axum::response::IntoResponse as _;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use registry::{Command, JobRun, Life, Reply, ResponseChange, Tenant};

use super::events::Teller;
use super::items::Item;
use super::kept::{self, Kept};
use super::object::{End, Standing};
use super::preparing::Ready;
use super::{errors, request::Request};
use crate::clock::unix_ms;
use crate::gateway::error::ApiError;
use crate::gateway::once::Asked;
use crate::gateway::openai::answer::Answer;
use crate::gateway::openai::choice::{Fresh, Stage};
use crate::gateway::openai::chunks::Chunks;
use crate::gateway::openai::handlers::{self, Told, unix_s};
use crate::gateway::openai::options::Delivery;
use crate::gateway::openai::usage::Usage;
use crate::gateway::passing::Pass;
use crate::gateway::text::detokenizer::Start;
use crate::gateway::{Gateway, proposing};
use crate::generation::FinishReason;
use crate::jobs::What;

/// Whose it is, where it shall be stored.
type Storing = Option<Tenant>;

pub(super) async fn answer(
    gateway: Gateway,
    asked: Asked,
    ready: Ready,
    storing: Storing,
) -> Result<Response<Body>, ApiError> {
    let Ready { mut prepared, head, items } = ready;
    if storing.is_some() && !gateway.jobs.keeper.has_room() {
        return Err(errors::not_kept());
    }
    let pass = match Pass::of(&gateway, &asked.who, &prepared).await {
        Ok(pass) => pass,
        Err(refused) => return Ok(refused.into_response()),
    };
    let standing = pass.standing;
    let answer = handlers::answer(&gateway, &mut prepared, Start::Fresh, asked.at, pass.meter);
    let told = Told::of(&gateway, &asked.headers, &answer, &prepared, standing);
    let answered = match prepared.options.delivery {
        Delivery::Whole => whole(&gateway, answer, Teller::new(head, None), items, storing).await,
        Delivery::Stream { .. } => stream(gateway, answer, Teller::new(head, None), items, storing).await,
    };
    Ok(told.tell(answered))
}

/// Whether its client wants it stored.
pub(super) fn storing(request: &Request, tenant: Tenant) -> Storing {
    request.store.then_some(tenant)
}

async fn whole(
    gateway: &Gateway,
    mut answer: Answer,
    teller: Teller,
    items: Vec<Item>,
    storing: Storing,
) -> Result<Response<Body>, ApiError> {
    answer.complete().await?;
    let choice = answer.choices.first();
    let (text, reason) = match choice.map(|choice| (&choice.fresh.text, &choice.stage)) {
        Some((text, Stage::Finished(reason))) => (text.clone(), *reason),
        Some(_) | None => return Err(ApiError::internal("The answer has no end.")),
    };
    let head = teller.head().clone();
    let end = End::finished(reason, &answer.usage(), unix_s());
    let body = serde_json::to_vec(&head.shown(&Standing::Ended(&end, &text)));
    let body = body.map_err(|_| ApiError::internal("The answer could not be written."))?;
    if let Some(tenant) = storing {
        store(gateway, tenant, Kept { head, items, begun: true, deltas: vec![text], end }).await?;
    }
    Ok(handlers::in_one_piece(&answer, body))
}

async fn stream(
    gateway: Gateway,
    answer: Answer,
    teller: Teller,
    items: Vec<Item>,
    storing: Storing,
) -> Result<Response<Body>, ApiError> {
    let last = Last::default();
    let told = Arc::new(Mutex::new(teller));
    let chunks = ResponseChunks {
        teller: told.clone(),
        deltas: storing.map(|_| Vec::new()),
        reason: FinishReason::Stop,
        usage: None,
        last: last.clone(),
    };
    let response = handlers::stream(answer, chunks).await?;
    let Some(tenant) = storing else { return Ok(response) };
    let end = async move { last_words(&gateway, tenant, items, &told, &last).await };
    Ok(response.map(|body| {
        let body = body.into_data_stream().map(|piece| piece.map_err(|_| Broken));
        Body::from_stream(body.chain(futures_util::stream::once(end).flat_map(told_last)))
    }))
}

/// How a stream that is stored ends.
enum LastWords {
    /// It broke before.
    None,
    Whole(Bytes),
    Broken(Bytes),
}

fn told_last(words: LastWords) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    let (bytes, pieces) = match words {
        LastWords::None => (Bytes::new(), 0),
        LastWords::Whole(bytes) => (bytes, 1),
        LastWords::Broken(bytes) => (bytes, 2),
    };
    let cut = async {
        // The server flushes when the body has nothing more at the moment.
        tokio::task::yield_now().await;
        Err(Broken)
    };
    futures_util::stream::iter([Ok(bytes)]).chain(futures_util::stream::once(cut)).take(pieces)
}

/// Why the body failed. It reaches our own log at most: the client sees the cut.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut")]
struct Broken;

/// What waits for the end to be certain.
type Last = Arc<Mutex<Option<(Vec<String>, End)>>>;

/// The end of a stream that is stored; nothing after one that broke.
async fn last_words(
    gateway: &Gateway,
    tenant: Tenant,
    items: Vec<Item>,
    told: &Mutex<Teller>,
    last: &Last,
) -> LastWords {
    let Some((deltas, end)) = last.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return LastWords::None;
    };
    let head = told.lock().unwrap_or_else(PoisonError::into_inner).head().clone();
    let kept = Kept { head, items, begun: true, deltas, end: end.clone() };
    let stored = store(gateway, tenant, kept).await;
    let mut teller = told.lock().unwrap_or_else(PoisonError::into_inner);
    match stored {
        Ok(()) => {
            teller.ended(&end);
            LastWords::Whole(teller.take())
        }
        Err(error) => {
            teller.broken(&error);
            LastWords::Broken(teller.take())
        }
    }
}

/// Returns when everybody can find it.
async fn store(gateway: &Gateway, tenant: Tenant, kept: Kept) -> Result<(), ApiError> {
    let job = kept::job_of(gateway, tenant, &kept.head.id);
    let kept = kept::keep(gateway, What::Answer, &kept).await?.ok_or_else(errors::not_kept)?;
    // No run of a job: it has ended by the time anybody hears of it.
    let run = JobRun { replica: 0, life: Life(0), number: 0 };
    let change = ResponseChange::Store { tenant, kept, run, at_unix_ms: unix_ms() };
    let command = Command::ChangeResponse { response: job, change };
    match proposing::propose(gateway, &command).await.map_err(|error| errors::unproposed(&error))? {
        Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => Ok(()),
        Reply::Refused(refusal) => Err(errors::refused(&refusal)),
    }
}

struct ResponseChunks {
    teller: Arc<Mutex<Teller>>,
    /// `None`: it is not stored.
    deltas: Option<Vec<String>>,
    reason: FinishReason,
    usage: Option<Usage>,
    last: Last,
}

impl ResponseChunks {
    fn tell(&self, out: &mut BytesMut, tell: impl FnOnce(&mut Teller)) {
        let mut teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut teller);
        out.extend_from_slice(&teller.take());
    }
}

impl Chunks for ResponseChunks {
    fn open(&mut self, out: &mut BytesMut) {
        self.tell(out, |teller| {
            teller.created();
            teller.begun();
        });
    }

    fn begin(&mut self, _: usize, _: &mut BytesMut) {}

    fn delta(&mut self, _: usize, fresh: &Fresh, out: &mut BytesMut) {
        self.tell(out, |teller| teller.delta(&fresh.text));
        if let Some(deltas) = &mut self.deltas {
            deltas.push(fresh.text.clone());
        }
    }

    fn end(&mut self, _: usize, reason: FinishReason, _: &mut BytesMut) {
        self.reason = reason;
    }

    fn usage(&mut self, usage: &Usage, _: &mut BytesMut) {
        self.usage = Some(*usage);
    }

    fn done(&mut self, out: &mut BytesMut) {
        let Some(usage) = self.usage else { return };
        let end = End::finished(self.reason, &usage, unix_s());
        match self.deltas.take() {
            None => self.tell(out, |teller| teller.ended(&end)),
            Some(deltas) => {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((deltas, end));
            }
        }
    }

    fn failed(&mut self, error: &ApiError, out: &mut BytesMut) {
        self.tell(out, |teller| teller.broken(error));
    }
}
