//! The run of a job: the endpoint's answer, given to whoever reads it and kept for whoever comes later.
//!
//! Owns the order at its end: the answer is on disks, the registry has its end, and only then a client sees one. So what
//! looks complete to a client is what everybody gets from then on, and an answer that another run has overtaken never looks
//! complete. A client that goes away changes nothing here; a key that is revoked ends it.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use registry::{Command, JobId, KeptAnswer, Reply, Scope};

use super::events::{self, Numbering};
use super::{Asked, Endpoint, errors, kept};
use crate::clock::unix_ms;
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, proposing};
use crate::jobs::{Running, What};
use crate::limits::ANSWER_BYTES_MAX;

pub(super) struct Work {
    pub(super) gateway: Gateway,
    pub(super) job: JobId,
    pub(super) running: Running,
    pub(super) endpoint: Endpoint,
}

/// How the body of an answer ended.
enum Given {
    /// All of it; of a stream the last word, which waits.
    Whole(Bytes),
    Broken,
}

impl Work {
    pub(super) async fn run(self, asked: Asked) {
        let who = asked.who.clone();
        let ended = self.gateway.access.clone().ended(who, Scope::Inference);
        tokio::select! {
            () = self.answer(asked) => {}
            error = ended => self.cut(&error).await,
        }
    }

    async fn answer(&self, asked: Asked) {
        let answered = (self.endpoint)(self.gateway.clone(), asked).await;
        let (head, body) = answered.into_response().into_parts();
        if is_stream(&head.headers) {
            self.stream(head, body).await;
        } else {
            self.piece(head, body).await;
        }
    }

    async fn stream(&self, head: Parts, body: Body) {
        let record = &self.running.record;
        record.begin(head.clone());
        let Given::Whole(last) = self.give(body).await else {
            self.drop_job().await;
            return record.abandon();
        };
        let whole = record.whole().map(|given| [given, last.clone()].concat());
        match self.end(&head, whole).await {
            Ok(()) => {
                record.push(last).await;
                record.end();
            }
            Err(error) => self.say_broken(&error).await,
        }
    }

    /// Gives it as it comes. Only its last word waits.
    async fn give(&self, body: Body) -> Given {
        let record = &self.running.record;
        let mut numbering = Numbering::new(events::tag(&self.gateway.hash_keys, self.running.run));
        let mut body = body.into_data_stream();
        let mut last = Bytes::new();
        while let Some(piece) = body.next().await {
            let Ok(piece) = piece else { return Given::Broken };
            let numbered = numbering.number(&piece);
            record.push(numbered.now).await;
            last = numbered.done.unwrap_or(last);
        }
        Given::Whole(last)
    }

    /// An answer in one piece has its status only when its end is certain.
    async fn piece(&self, head: Parts, body: Body) {
        let collected = body.collect().await.map(http_body_util::Collected::to_bytes);
        let Ok(body) = collected else { return self.say(errors::lost()).await };
        let ended = if kept::is_final(head.status, &head.headers) {
            self.end(&head, Some(body.to_vec())).await
        } else {
            self.drop_job().await;
            Ok(())
        };
        match ended {
            Ok(()) => self.say_whole(head, body).await,
            Err(error) => self.say(error).await,
        }
    }

    async fn say(&self, error: ApiError) {
        let (head, body) = error.into_response().into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        self.say_whole(head, body).await;
    }

    async fn say_whole(&self, head: Parts, body: Bytes) {
        self.running.record.begin(head);
        self.running.record.push(body).await;
        self.running.record.end();
    }

    /// A stream says why it breaks before it does.
    async fn say_broken(&self, error: &ApiError) {
        self.running.record.push(Bytes::from(format!("data: {}\n\n", error.body()))).await;
        self.running.record.abandon();
    }

    /// Whoever reads it is told by his own guard, which watches the same key.
    async fn cut(&self, error: &ApiError) {
        self.drop_job().await;
        self.say_broken(error).await;
    }

    /// `body`: `None` where it was too long to be held.
    async fn end(&self, head: &Parts, body: Option<Vec<u8>>) -> Result<(), ApiError> {
        let answer = body.map(|body| kept::encode(head, &body)).filter(|kept| kept.len() <= ANSWER_BYTES_MAX);
        let kept = match answer {
            Some(answer) => self.keep(answer).await,
            None => None,
        };
        let (job, run) = (self.job, self.running.run);
        match propose(&self.gateway, &Command::EndJob { job, run, kept, at_unix_ms: unix_ms() }).await? {
            Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => Ok(()),
            Reply::Refused(refusal) => {
                tracing::info!(%refusal, "a job's answer came too late");
                Err(errors::lost())
            }
        }
    }

    async fn keep(&self, answer: Bytes) -> Option<KeptAnswer> {
        let (digest, bytes) = (self.gateway.hash_keys.answers.digest(&[&answer]), answer.len() as u64);
        let holders = self.gateway.jobs.keeper.keep(What::Answer, digest, answer).await;
        (!holders.is_empty()).then_some(KeptAnswer { digest, bytes, holders })
    }

    /// It was not done: the next one who asks begins it anew.
    async fn drop_job(&self) {
        let command = Command::DropJob { job: self.job, run: self.running.run };
        match propose(&self.gateway, &command).await {
            Ok(Reply::Refused(refusal)) => tracing::info!(%refusal, "a job was not dropped"),
            // A run that nobody finds is taken over just as well.
            Err(error) => tracing::info!(%error, "a job was not dropped"),
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => {}
        }
    }
}

pub(super) async fn propose(gateway: &Gateway, command: &Command) -> Result<Reply, ApiError> {
    proposing::propose(gateway, command).await.map_err(|error| errors::unproposed(&error))
}

pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) == Some(b"text/event-stream")
}
