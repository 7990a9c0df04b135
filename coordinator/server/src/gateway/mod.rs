//! The gateway: the HTTP API that clients speak.
//!
//! Owns everything textual: requests, tokenizers, templates, answers, errors, and the probes beside them. The one part that
//! knows JSON bodies and HTTP. Refuses to know nodes and queues: it makes a wish and tells its events. No prompt and no answer
//! enters a log, a metric or an error.

mod access;
mod host;
mod request_id;
mod error;
mod body;
mod query;
mod deadline;
mod hash_keys;
mod caller;
mod prefix;
mod request_numbers;
mod long_texts;
mod names;
mod places;
mod shelf;
mod limits;
mod proposing;
mod once;
mod files;
mod batches;
mod responses;
mod minding;
mod minders;
mod openai;
pub(crate) mod text;
mod passing;
mod models;
mod probes;
mod views;
mod admin;
mod routes;
mod metrics;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use consensus::MemberState;
use proto::token::JoinToken;
use registry::{Command, Registry};
use tokio::sync::{Semaphore, watch};

use crate::catalogue::Catalogue;
use crate::claims::Decide;
use crate::gateway::access::{Access, Guard};
use crate::gateway::batches::Batches;
use crate::gateway::host::Hosts;
use crate::gateway::long_texts::LongTexts;
use crate::gateway::places::Places;
use crate::gateway::request_numbers::RequestNumbers;
use crate::gateway::responses::Responses;
use crate::gateway::text::rendering::Render;
use crate::generation::StartGeneration;
use crate::jobs::Jobs;
use crate::tally::Tally;

pub(crate) use crate::gateway::access::local_key::LocalKey;
pub(crate) use crate::gateway::admin::change::Propose;
pub(crate) use crate::gateway::admin::coordinators::{Group, GroupError};
pub(crate) use crate::gateway::hash_keys::{HashKey, HashKeys};
pub(crate) use crate::gateway::minders::Minders;
pub use crate::gateway::text::rendering::render_templates;
pub(crate) use crate::gateway::views::{Document, Views};

/// What administrators ask of the cluster beside its facts.
pub(crate) trait Room: Send + Sync {
    /// A join token, and the hash of its secret for the registry.
    fn new_token(&self) -> anyhow::Result<(JoinToken, [u8; 32])>;
    /// The coordinators' group, as this one sees it.
    fn group(&self) -> Vec<MemberState>;
    /// What begins a rotation of the authority. An error says why this coordinator cannot begin one.
    fn rotation(&self) -> anyhow::Result<Command>;
}

/// The control plane as a probe sees it.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) leader: bool,
    /// Nobody leads at the most since an election may last: what comes in now is held, and will be served.
    pub(crate) soon: bool,
    /// Why not, in words for a person.
    pub(crate) why: String,
}

/// Body of `GET /api/v1/status`, made anew for each request.
pub(crate) type StatusBody =
    dyn Fn() -> Pin<Box<dyn Future<Output = serde_json::Value> + Send>> + Send + Sync;

/// What the gateway is given.
#[derive(Clone)]
pub(crate) struct GatewayState {
    pub(crate) catalogue: Catalogue,
    /// Where chat templates become prompts.
    pub(crate) renderers: Arc<dyn Render>,
    pub(crate) generations: Arc<dyn StartGeneration>,
    pub(crate) readiness: Arc<dyn Fn() -> Ready + Send + Sync>,
    pub(crate) status: Arc<StatusBody>,
    pub(crate) views: Arc<dyn Views>,
    /// The facts as this replica knows them.
    pub(crate) registry: watch::Receiver<Arc<Registry>>,
    /// Of whoever can read this coordinator's folder.
    pub(crate) local_key: Arc<LocalKey>,
    /// Where facts are changed.
    pub(crate) facts: Arc<dyn Propose>,
    /// The coordinators, and their authority.
    pub(crate) room: Arc<dyn Room>,
    /// Where it is decided whether a key may ask for so much.
    pub(crate) claims: Arc<dyn Decide>,
    /// What keys have used.
    pub(crate) tally: Tally,
    /// Where the group of coordinators is changed.
    pub(crate) group: Arc<dyn Group>,
    /// Requests that are answered once.
    pub(crate) jobs: Jobs,
    /// The cluster's secret behind every number that is made of a client's words.
    pub(crate) hash_key: [u8; 32],
    /// Where clients reach this API.
    pub(crate) api: SocketAddr,
}

/// Shared by all requests.
#[derive(Clone)]
struct Gateway {
    state: GatewayState,
    hash_keys: Arc<HashKeys>,
    access: Access,
    request_numbers: RequestNumbers,
    long_texts: LongTexts,
    /// Files that may be uploaded at once.
    uploads: Arc<Semaphore>,
    downloads: Places,
    batches: Batches,
    responses: Responses,
}

impl std::ops::Deref for Gateway {
    type Target = GatewayState;

    fn deref(&self) -> &GatewayState {
        &self.state
    }
}

/// The whole API, and what runs the batches and the responses that begin at it.
pub(crate) fn open(state: GatewayState) -> (Router, Minders) {
    metrics::install();
    let access = Access::new(state.registry.clone(), state.local_key.clone(), state.api);
    let hosts = Hosts { api: state.api, access: access.clone() };
    let hash_keys = Arc::new(HashKeys::new(state.hash_key));
    let (batches, batches_begun) = Batches::new();
    let (responses, responses_begun) = Responses::new();
    let gateway = Gateway {
        state,
        hash_keys,
        access: access.clone(),
        request_numbers: RequestNumbers::default(),
        long_texts: LongTexts::new(),
        uploads: Arc::new(Semaphore::new(limits::UPLOADS_AT_ONCE)),
        downloads: Places::new(limits::DOWNLOADS_AT_ONCE, limits::DOWNLOADS_AT_ONCE_PER_TENANT),
        batches,
        responses,
    };
    let minders = Minders::new(&gateway, batches_begun, responses_begun);
    let (router, needs) = routes::build(routes::all());
    let router = router
        .fallback(probes::no_such_path)
        .method_not_allowed_fallback(probes::no_such_method)
        .layer(from_fn(once::refuse))
        .layer(from_fn_with_state(Guard { access, needs: Arc::new(needs) }, access::check))
        .layer(from_fn_with_state(hosts, host::check))
        .layer(from_fn(request_id::name))
        .with_state(gateway);
    (router, minders)
}
