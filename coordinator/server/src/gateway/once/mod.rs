//! Requests with an `Idempotency-Key`: answered once, however often they are sent and whatever dies.
//!
//! Owns the decision what such a request meets: its own beginning, an answer that is being given here or elsewhere, one that is
//! kept, or a run that died. The registry says which run has the job, so whatever this gateway believes, two never both end
//! it. Refuses to guess: what is not known to be over is in flight.

mod key;
mod naming;
mod kept;
mod events;
mod work;
mod telling;
mod errors;
mod refuse;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use registry::limits::JOB_RUN_MS;
use registry::{Command, Digest, Job, JobId, JobRun, Refusal, Reply, Tenant};
use std::time::Instant;
use tokio::sync::oneshot;

use self::events::LastEvent;
use self::work::Work;
use super::access::Who;
use super::caller::Caller;
use super::error::ApiError;
use super::{Gateway, body, limits};
use crate::clock::unix_ms;
use crate::jobs::{Record, Running};

pub(crate) use self::key::IDEMPOTENCY_KEY;
pub(crate) use self::naming::Names;
pub(crate) use self::refuse::refuse;

#[cfg(test)]
pub(crate) use self::events::tag as events_tag;
#[cfg(test)]
pub(crate) use self::naming::name;

/// A request whose body has arrived.
pub(crate) struct Asked {
    pub(crate) who: Who,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    pub(crate) at: Instant,
    /// The job that it is, where its client gave it a key.
    pub(crate) named: Option<Named>,
}

/// How an endpoint answers.
pub(crate) type Endpoint = fn(Gateway, Asked) -> BoxFuture<'static, Result<Response<Body>, ApiError>>;

impl<S: Sync> FromRequest<S> for Asked {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let at = Instant::now();
        let (mut parts, body) = request.into_parts();
        let who = Who::from_request_parts(&mut parts, state).await?;
        let bytes = body::read(&parts.headers, body).await?;
        Ok(Self { who, headers: parts.headers, bytes, at, named: None })
    }
}

/// Answers what was asked of `path`, once if the client names it.
pub(crate) async fn answer(
    gateway: Gateway,
    path: &'static str,
    mut asked: Asked,
    endpoint: Endpoint,
) -> Result<Response<Body>, ApiError> {
    let Some(key) = key::of(&asked.headers)? else { return endpoint(gateway, asked).await };
    let last_event = LastEvent::of(&asked.headers)?;
    asked.headers.remove(events::LAST_EVENT_ID);
    let named = Named::of(&gateway, path, &asked, &key)?;
    asked.named = Some(named);
    let mut asked = Some(asked);
    for _ in 0..limits::JOB_LOOKS {
        let dead = match named.look(&gateway)? {
            Stands::Kept(job) => return telling::kept(&gateway, &job, last_event.as_ref()).await,
            Stands::Here(record, run) => {
                let tag = events::tag(&gateway.hash_keys, run);
                return telling::given(&record, &tag, last_event.as_ref()).await;
            }
            Stands::Elsewhere(former) if gateway.jobs.keeper.goes_on(former.run).await => {
                return Err(errors::in_flight());
            }
            Stands::Elsewhere(former) | Stands::Dead(former) => Some(former),
            Stands::Free => None,
        };
        if last_event.is_some() {
            return Err(errors::another_stream());
        }
        let Some(asked_once) = asked.take() else { break };
        match named.begin(&gateway, dead, asked_once, endpoint).await? {
            Begun::Here(record) => return telling::given(&record, "", None).await,
            Begun::Not(again) => asked = Some(*again),
        }
    }
    Err(errors::in_flight())
}

/// The job that a request is.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    job: JobId,
    tenant: Tenant,
    request: Digest,
    /// When the run began from which it was taken over.
    since_unix_ms: Option<u64>,
}

/// A run that may be dead.
#[derive(Clone, Copy)]
struct Former {
    run: JobRun,
    since_unix_ms: u64,
}

/// How a job stands, as far as this replica knows.
enum Stands {
    Free,
    Here(Record, JobRun),
    Elsewhere(Former),
    /// Its run was this coordinator's and is over, without an end.
    Dead(Former),
    Kept(Job),
}

enum Begun {
    Here(Record),
    /// Somebody was quicker.
    Not(Box<Asked>),
}

impl Named {
    fn of(gateway: &Gateway, path: &str, asked: &Asked, key: &str) -> Result<Self, ApiError> {
        let keys = &gateway.hash_keys;
        let tenant = Caller::of(&asked.headers, &asked.who, keys)?.tenant;
        Ok(Self {
            job: JobId(keys.jobs.digest(&[&tenant.to_le_bytes(), key.as_bytes()])),
            tenant: Tenant(tenant),
            request: keys.requests.digest(&[path.as_bytes(), &asked.bytes]),
            since_unix_ms: None,
        })
    }

    fn look(&self, gateway: &Gateway) -> Result<Stands, ApiError> {
        let registry = gateway.registry.borrow().clone();
        let Some(job) = registry.job(self.job).filter(|job| !job.is_over(unix_ms())) else {
            return Ok(Stands::Free);
        };
        if job.request != self.request {
            return Err(errors::reused());
        }
        if job.ended.is_some() {
            return Ok(Stands::Kept(job.clone()));
        }
        let runs = &gateway.jobs.runs;
        let former = Former { run: job.run, since_unix_ms: job.until_unix_ms.saturating_sub(JOB_RUN_MS) };
        Ok(match runs.record(job.run) {
            Some(record) => Stands::Here(record, job.run),
            None if runs.is_elsewhere(job.run) => Stands::Elsewhere(former),
            None => Stands::Dead(former),
        })
    }

    /// Begins it, or takes it over from a run that is dead. From here on it goes on without the client.
    async fn begin(
        self,
        gateway: &Gateway,
        dead: Option<Former>,
        mut asked: Asked,
        endpoint: Endpoint,
    ) -> Result<Begun, ApiError> {
        asked.named = Some(Self { since_unix_ms: dead.map(|former| former.since_unix_ms), ..self });
        if !gateway.jobs.keeper.has_room() {
            return Err(errors::storage_full());
        }
        let running = gateway.jobs.runs.begin().ok_or_else(errors::too_many_at_once)?;
        let record = running.record.clone();
        let (tell, told) = oneshot::channel();
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let begun = self.propose_beginning(&gateway, dead, &running).await;
            if !matches!(begun, Ok(true)) {
                drop(running);
                // The client is gone, and the job was not begun.
                let _ = tell.send(begun.map(|_| Some(Box::new(asked))));
                return;
            }
            let _ = tell.send(Ok(None));
            Work { gateway, job: self.job, running, endpoint }.run(asked).await;
        });
        match told.await {
            Ok(Ok(None)) => Ok(Begun::Here(record)),
            Ok(Ok(Some(asked))) => Ok(Begun::Not(asked)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ApiError::internal("The request was dropped.")),
        }
    }

    /// Whether it is this run's.
    async fn propose_beginning(
        self,
        gateway: &Gateway,
        dead: Option<Former>,
        running: &Running,
    ) -> Result<bool, ApiError> {
        let Self { job, tenant, request, .. } = self;
        let (run, at_unix_ms) = (running.run, unix_ms());
        let command = match dead {
            None => Command::BeginJob { job, tenant, request, run, at_unix_ms },
            Some(Former { run: from, .. }) => Command::TakeJob { job, from, run, at_unix_ms },
        };
        match work::propose(gateway, &command).await? {
            Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => Ok(true),
            Reply::Refused(Refusal::TooMany { .. }) => Err(errors::too_many_kept()),
            Reply::Refused(_) => Ok(false),
        }
    }
}
