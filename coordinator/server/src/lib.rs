//! A coordinator: the OpenAI API on one side, agents on the other, the scheduler between.
//!
//! Owns putting the parts together and taking them down in order. A request meets the modules in the order in which they
//! are listed. Refuses policy: what runs where is the scheduler's, what endures is the registry's.

mod config;
mod limits;
mod clock;
mod founding;
mod authority;
mod listener;
mod gateway;
mod catalogue;
mod cards;
mod generation;
mod leader;
mod attempts;
mod streams;
mod sessions;
mod joining;
mod fleet;
mod news;
mod wire;
mod status;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use consensus::{Consensus, Options, Start};
use proto::v1::cluster_server::ClusterServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

pub use config::{Config, ConfigError};
pub use proto::token::JoinToken;

use crate::attempts::Cluster;
use crate::cards::Cards;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::founding::Founded;
use crate::joining::Joining;
use crate::leader::{Canaries, Errands, Leader};
use crate::sessions::Sessions;
use crate::status::Sources;
use crate::streams::{Link, Streams};
use crate::views::Inside;

/// A coordinator that serves.
#[derive(Clone, Debug)]
pub struct Ready {
    pub cluster: String,
    pub api: SocketAddr,
    pub cluster_address: SocketAddr,
    pub join_token: JoinToken,
}

/// Runs a coordinator until `stop`; `ready` hears once when clients and agents may come.
pub async fn run(
    config: Config,
    ready: oneshot::Sender<Ready>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    config.check()?;
    let api = bind(config.api, "the API (choose another with --port)").await?;
    let control = bind(config.cluster, "agents (choose another with --cluster-port)").await?;
    let consensus =
        Consensus::open(&config.data_folder.join("registry"), Options::default(), Start::Found).await?;
    let founded = founding::found(&consensus, &config.data_folder).await?;

    // The inner parts outlive the listeners: running answers need them while the API drains.
    let inner = CancellationToken::new();
    let parts = Parts::start(&config, &consensus, &founded, control, &inner).await?;
    let router = gateway::router(parts.gateway_state(api.local_addr()?));
    let api_address = api.local_addr().context("reading the bound API address")?;
    let serving = tokio::spawn(listener::serve(api, router, stop.clone()));
    // Nobody listening for `ready` is no reason not to serve.
    let _ = ready.send(Ready {
        cluster: founded.cluster.clone(),
        api: api_address,
        cluster_address: parts.cluster_address,
        join_token: founded.join_token.clone(),
    });

    serving.await.context("the API listener failed")?;
    inner.cancel();
    consensus.shutdown().await.context("closing the registry")
}

/// The running inside of a coordinator.
struct Parts {
    sources: Sources,
    hash_key: [u8; 32],
    cluster: Cluster,
    cluster_address: SocketAddr,
}

impl Parts {
    async fn start(
        config: &Config,
        consensus: &Consensus,
        founded: &Founded,
        control: TcpListener,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let (leader, errands) = Leader::start(Clock::start(), &consensus.local(), stop.clone());
        let streams = Streams::default();
        let catalogue = Catalogue::default();
        let canaries = Canaries {
            consensus: consensus.clone(),
            streams: streams.clone(),
            catalogue: catalogue.clone(),
            leader: leader.clone(),
        };
        run_errands(errands, canaries, stop);
        let cards = Cards::open(config.data_folder.join("cards"))?;
        let fleet = Fleet::new(leader.clone(), streams.clone(), cards.clone(), catalogue.clone());

        let cluster_address = control.local_addr().context("reading the bound cluster address")?;
        let (links, link_events) = mpsc::channel(limits::ORDERS_PER_AGENT);
        let bound =
            streams::listen(cluster_address, &founded.credentials, streams.clone(), links, stop.clone())?;
        tokio::spawn(follow_links(link_events, fleet.clone()));
        // Before anybody can ask for a model: one that is wanted is never unknown.
        fleet.registry_changed(&consensus.local()).await;
        tokio::spawn(follow_registry(consensus.clone(), fleet.clone()));

        let sessions = Sessions {
            consensus: consensus.clone(),
            fleet: fleet.clone(),
            cards,
            joining: Joining {
                consensus: consensus.clone(),
                authority: founded.authority.clone(),
                cluster: founded.cluster.clone(),
            },
            cluster: founded.cluster.clone(),
            stream_port: bound.port(),
            stop: stop.clone(),
        };
        serve_agents(control, founded, sessions, stop.clone())?;
        let sources = Sources {
            cluster: founded.cluster.clone(),
            consensus: consensus.clone(),
            catalogue,
            fleet,
            leader: leader.clone(),
        };
        let cluster = Cluster { leader, streams };
        Ok(Self { sources, hash_key: founded.hash_key, cluster, cluster_address })
    }

    fn gateway_state(&self, api: SocketAddr) -> gateway::GatewayState {
        let consensus = self.sources.consensus.clone();
        let sources = self.sources.clone();
        gateway::GatewayState {
            catalogue: self.sources.catalogue.clone(),
            generations: Arc::new(self.cluster.clone()),
            readiness: Arc::new(move || readiness(&consensus)),
            status: Arc::new(move || {
                let sources = sources.clone();
                Box::pin(async move { serde_json::to_value(sources.status().await).unwrap_or_default() })
            }),
            views: Arc::new(Inside { sources: self.sources.clone() }),
            hash_key: self.hash_key,
            api,
        }
    }
}

/// What the leader loop has others do.
fn run_errands(errands: Errands, canaries: Canaries, stop: &CancellationToken) {
    let (consensus, leader) = (canaries.consensus.clone(), canaries.leader.clone());
    tokio::spawn(leader::propose(consensus, leader, errands.proposals, stop.clone()));
    tokio::spawn(canaries.run(errands.probes, stop.clone()));
}

fn readiness(consensus: &Consensus) -> gateway::Ready {
    let health = consensus.health();
    let why = match (&health.fatal, health.leader) {
        (Some(fatal), _) => fatal.clone(),
        (None, false) => "no leader is elected yet".to_owned(),
        (None, true) => String::new(),
    };
    gateway::Ready { leader: health.leader && health.fatal.is_none(), why }
}

async fn bind(address: SocketAddr, whom: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {whom}"))
}

/// gRPC for agents. A certificate is asked for and, but for joining, required: each call checks.
fn serve_agents(
    listener: TcpListener,
    founded: &Founded,
    sessions: Sessions,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let credentials = &founded.credentials;
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(credentials.chain_pem(), &credentials.key_pem))
        .client_ca_root(Certificate::from_pem(&credentials.ca_certificate_pem))
        .client_auth_optional(true);
    let server = Server::builder()
        .tls_config(tls)
        .context("TLS for agents")?
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(limits::SESSION_KEEP_ALIVE))
        .http2_keepalive_timeout(Some(limits::SESSION_TIMEOUT))
        .add_service(ClusterServer::new(sessions));
    tokio::spawn(async move {
        let served = server
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the agents' listener failed");
        }
    });
    Ok(())
}

async fn follow_links(mut events: mpsc::Receiver<Link>, fleet: Fleet) {
    while let Some(event) = events.recv().await {
        match event {
            Link::Up { node } => fleet.link_changed(node, true).await,
            Link::Down { node } => fleet.link_changed(node, false).await,
        }
    }
}

async fn follow_registry(consensus: Consensus, fleet: Fleet) {
    let mut changes = consensus.changes();
    loop {
        let registry = changes.borrow_and_update().clone();
        fleet.registry_changed(&registry).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}
