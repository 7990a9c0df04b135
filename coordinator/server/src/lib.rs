//! A coordinator: the OpenAI API on one side, agents on the other, the scheduler between.
//!
//! Owns putting the parts together and taking them down in order. A request meets the modules in the order in which they
//! are listed. Refuses policy: what runs where is the scheduler's, what endures is the registry's.

mod config;
mod limits;
mod clock;
mod founding;
mod authority;
mod trust;
mod seal;
mod listener;
mod patience;
mod gateway;
mod catalogue;
mod cards;
mod generation;
mod jobs;
mod claims;
mod tally;
mod leader;
mod leading;
mod front;
mod desk;
mod members;
mod membership;
mod entrance;
mod threshold;
mod peers;
mod polling;
mod reach;
mod doors;
mod versions;
mod readiness;
mod looking;
mod lives;
mod grouping;
mod enlisting;
mod growing;
mod departure;
mod expelling;
mod attempts;
mod streams;
mod sessions;
mod joining;
mod renewing;
mod rotating;
mod fleet;
mod news;
mod wire;
mod status;
mod views;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use anyhow::Context as _;
use consensus::{Consensus, ReplicaId};
use proto::papers::Papers;
use proto::v1::cluster_server::ClusterServer;
use registry::ClusterVersion;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;

pub use config::{Config, Joined, RendererProgram};
pub use doors::Doors;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use gateway::fuzzing;
pub use gateway::render_templates;
pub use limits::JOIN_TOKEN_LIFE;
pub use lives::{force, needs_seal_key, restore};
pub use proto::token::JoinToken;
pub use seal::SEAL_KEY_FILE;

/// The versions of a cluster that this release can be a part of.
pub const OLDEST_VERSION: u32 = ClusterVersion::OLDEST.0;
pub const NEWEST_VERSION: u32 = ClusterVersion::NEWEST.0;

/// The audit trail as the API tells it, for whoever checks it.
pub mod trail {
    pub use registry::{AuditEntry, BrokenTrail, verify};
}

use crate::attempts::Cluster;
use crate::cards::Cards;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::departure::Departure;
use crate::desk::Desks;
use crate::doors::Door;
use crate::entrance::Guests;
use crate::fleet::Fleet;
use crate::founding::Founded;
use crate::front::{Front, Ways};
use crate::gateway::text::rendering::Renderers;
use crate::grouping::Grouping;
use crate::jobs::Jobs;
use crate::joining::Joining;
use crate::leading::Office;
use crate::looking::Looking;
use crate::peers::Peers;
use crate::rotating::Rotating;
use crate::seal::Sealing;
use crate::sessions::Sessions;
use crate::status::Sources;
use crate::streams::Streams;
use crate::tally::{Books, Tally};
use crate::versions::Versions;
use crate::views::Inside;

/// A coordinator that serves.
#[derive(Clone, Debug)]
pub struct Ready {
    pub cluster: String,
    pub api: SocketAddr,
    pub cluster_address: SocketAddr,
    pub join_token: JoinToken,
    /// The hashes of the authorities that are trusted, by which this cluster is known.
    pub authorities: watch::Receiver<Vec<[u8; 32]>>,
    /// Where clients are served at the API's port; `None` while this one does not lead.
    pub doors: watch::Receiver<Option<Doors>>,
}

/// Runs a coordinator until `stop`; `ready` hears once when clients and agents may come.
pub async fn run(
    config: Config,
    ready: oneshot::Sender<Ready>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let api = bind(config.api, "the API", "`coordinator --api HOST:PORT`, `up --port N`").await?;
    let control =
        bind(config.cluster, "agents", "`coordinator --listen HOST:PORT`, `up --cluster-port N`").await?;
    let stop = stop.child_token();
    let departure = Departure::new(stop.clone());
    let (consensus, peers, replica) = founding::open(&config).await?;
    let founding = found(&config, &consensus, &peers, replica, &control);
    let Some(founded) = stop.run_until_cancelled(founding).await else {
        return consensus.shutdown().await.context("closing the registry");
    };
    let founded = founded?;

    // The inner parts outlive the listeners: running answers need them while the API drains.
    let inner = CancellationToken::new();
    let door = Door::of(&consensus, api.local_addr().context("reading the bound API address")?, &stop);
    let inside = (control, door.clone());
    let parts = Parts::start(&config, &consensus, &founded, (&peers, replica), inside, &inner).await?;
    keep_membership(&config, &consensus, &peers, replica, &departure, &inner);
    let reach = reach::watch(consensus.clone(), parts.sources.fleet.clone(), peers.clone());
    tokio::spawn(inner.clone().run_until_cancelled_owned(reach));
    let mut tokens = Box::pin(founding::tokens(&consensus, &founded.authority, &config.data_folder));
    // Whoever finds the API finds the tokens too, but for a gateway without a leader: it serves, and says that it has none.
    let early = tokio::time::timeout(limits::TOKENS_FIRST, &mut tokens);
    // Nor is a stranger served on the word of facts from before the first key, unless nobody leads who could tell newer ones.
    let (early, _) = tokio::join!(early, tokio::time::timeout(limits::TOKENS_FIRST, newest(&consensus)));
    let early = early.ok();
    let local_key = local_key(&config, replica)?;
    if !door.api.ip().is_loopback() {
        tracing::warn!(
            "the API speaks plain HTTP beyond this machine: put a proxy with TLS before it, or keys can be overheard"
        );
    }
    let books = Books::open(replica.0, Arc::new(consensus.clone()), &consensus.changes());
    let (router, batches) = gateway::open(parts.gateway_state(local_key, books.tally.clone()));
    tokio::spawn(stop.clone().run_until_cancelled_owned(batches.run()));
    let failed = CancellationToken::new();
    let serving = tokio::spawn(listener::serve(api, router, stop.clone(), failed.clone()));
    tokio::spawn(end_with_registry(consensus.clone(), stop.clone(), failed.clone()));
    let issued = async move {
        match early {
            Some(issued) => issued,
            None => tokens.await,
        }
    };
    if let Some(join_token) = stop.run_until_cancelled(issued).await {
        // Nobody listening for `ready` is no reason not to serve.
        let _ = ready.send(Ready {
            cluster: founded.cluster.clone(),
            api: door.api,
            cluster_address: parts.cluster_address,
            join_token: join_token?,
            authorities: parts.rotating.hashes(),
            doors: door.all(&consensus, replica, &peers),
        });
    }

    serving.await.context("the API listener failed")?;
    books.close().await;
    inner.cancel();
    // It opens nothing any more.
    let _ = std::fs::remove_file(config.data_folder.join(ADMIN_KEY_FILE));
    let fatal = consensus.health().fatal.filter(|_| failed.is_cancelled());
    consensus.shutdown().await.context("closing the registry")?;
    anyhow::ensure!(departure.why().is_none(), "{}", departure.why().map_or("", String::as_str));
    match fatal {
        Some(why) => Err(anyhow::anyhow!("the registry cannot go on: {why}")),
        None => Ok(()),
    }
}

/// Without its registry a coordinator is half dead: it takes nothing new, lets running answers end, and ends itself.
async fn end_with_registry(consensus: Consensus, stop: CancellationToken, failed: CancellationToken) {
    let stopped = stop.run_until_cancelled(consensus.stopped()).await;
    // At an ordinary end both come true.
    if let Some(why) = stopped.filter(|_| !stop.is_cancelled()) {
        tracing::error!(
            why,
            "the registry has stopped for good: this coordinator ends when its running answers have"
        );
        failed.cancel();
        stop.cancel();
    }
}

/// A key for whoever can read the data folder. A disk that takes no more keeps nobody else from being served.
fn local_key(config: &Config, replica: ReplicaId) -> anyhow::Result<gateway::LocalKey> {
    let (key, text) = gateway::LocalKey::make(replica.0)?;
    if let Err(error) = founding::write_secret(&config.data_folder.join(ADMIN_KEY_FILE), &text) {
        tracing::warn!(
            error = format!("{error:#}"),
            "nobody can administer from this folder until the next start"
        );
    }
    Ok(key)
}

/// Until the registry here is as new as any.
async fn newest(consensus: &Consensus) {
    while consensus.read(|_| ()).await.is_err() {
        tokio::time::sleep(limits::READ_AGAIN).await;
    }
}

/// The cluster as this coordinator finds or founds it. A newcomer has no registry yet: it lets the leader in and waits for one.
async fn found(
    config: &Config,
    consensus: &Consensus,
    peers: &Peers,
    replica: ReplicaId,
    control: &TcpListener,
) -> anyhow::Result<Founded> {
    let mut held = None;
    if let Some(joined) = &config.joined {
        let papers =
            Papers::new(joined.credentials.clone()).context("the certificate of this coordinator")?;
        peers.know(&papers);
        held = Some((joined, papers));
    }
    let leaf_life = config.leaf_life.unwrap_or(limits::LEAF_LIFE);
    let contacts = config.joined.as_ref().map_or(&[][..], |joined| joined.contacts.as_slice());
    let (papers, folder) = (held.as_ref().map(|(_, papers)| papers), config.data_folder.as_path());
    let founded = founding::found(consensus, replica, papers, leaf_life, (folder, peers, contacts));
    let founded = match &held {
        Some((joined, papers)) if consensus.local().cluster().is_none() => {
            let listener = control.as_fd().try_clone_to_owned().context("sharing the agents' listener")?;
            let listener = TcpListener::from_std(std::net::TcpListener::from(listener))?;
            let incoming = entrance::open(listener, papers, Guests::new(consensus.changes()))?;
            let replicas = threshold::server().add_service(consensus.service(peers::who_is));
            let serving = replicas.serve_with_incoming(incoming);
            let asking = enlisting::ask(
                consensus.clone(),
                peers.clone(),
                replica,
                config.advertise.clone(),
                joined.contacts.clone(),
            );
            let asking = async { asking.await.map_err(anyhow::Error::from) };
            let founded = async { tokio::try_join!(asking, founded).map(|((), founded)| founded) };
            // What is served here ends with the newcomer's waiting; the whole service takes its place.
            tokio::select! {
                founded = founded => founded?,
                served = serving => { served.context("the newcomer's listener failed")?; anyhow::bail!("the newcomer's listener ended") }
            }
        }
        Some(_) | None => founded.await?,
    };
    peers.know(&founded.papers);
    Ok(founded)
}

/// In the data folder: the key of whoever can read it. It opens everything, and ends with the process.
pub const ADMIN_KEY_FILE: &str = "admin-key";

/// Of the data folder, where the facts are.
pub const REGISTRY_FOLDER: &str = "registry";

/// The running inside of a coordinator.
struct Parts {
    sources: Sources,
    room: Arc<membership::Running>,
    rotating: Rotating,
    grouping: Grouping,
    jobs: Jobs,
    hash_key: [u8; 32],
    renderers: Renderers,
    cluster: Cluster,
    cluster_address: SocketAddr,
}

impl Parts {
    async fn start(
        config: &Config,
        consensus: &Consensus,
        founded: &Founded,
        (peers, replica): (&Peers, ReplicaId),
        (control, door): (TcpListener, Door),
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let (streams, catalogue) = (Streams::default(), Catalogue::default());
        let renderers = Renderers::new(config.renderer.clone());
        let cards = Cards::open(config.data_folder.join("cards"), Arc::new(renderers.clone()))?;
        let fleet = Fleet::new(streams.clone(), cards.clone(), catalogue.clone());
        let (office, leading) = watch::channel(None);

        let cluster_address = control.local_addr().context("reading the bound cluster address")?;
        let (links, link_events) = mpsc::channel(limits::ORDERS_PER_AGENT);
        let (papers, judge) = (&founded.papers, members::judge(consensus));
        let bound = streams::listen(cluster_address, papers, streams.clone(), judge, links, stop.clone())?;
        tokio::spawn(fleet.clone().follow_links(link_events));
        // Before anybody can ask for a model: one that is wanted is never unknown.
        fleet.registry_changed(&consensus.local()).await;
        tokio::spawn(fleet.clone().follow_registry(consensus.changes()));

        let looking = Looking {
            consensus: consensus.clone(),
            leading: leading.clone(),
            peers: peers.clone(),
            fleet: fleet.clone(),
            sealing: Sealing::start(consensus, replica, peers, (&founded.authority, &founded.keyring), stop),
            door,
        };
        let grouping = Grouping::new(consensus, peers, &config.data_folder);
        let answers = jobs::open(config, consensus, founded, peers, replica)?;
        tokio::spawn(stop.clone().run_until_cancelled_owned(answers.clone().keep_up()));
        let versions = Versions::start(consensus, replica, peers, stop);
        let rotating = Rotating::start(consensus, founded, (replica, &config.data_folder), &streams, stop);
        let sessions = Sessions {
            consensus: consensus.clone(),
            fleet: fleet.clone(),
            streams: streams.clone(),
            cards,
            joining: Joining::new(consensus, founded),
            cluster: founded.cluster.clone(),
            stream_port: bound.port(),
            replica,
            peers: peers.clone(),
            leading: leading.clone(),
            desks: Desks::watched(consensus, stop),
            looking: looking.clone(),
            grouping: grouping.clone(),
            answers: answers.clone(),
            versions: versions.clone(),
            rotating: rotating.clone(),
            stop: stop.clone(),
        };
        serve_cluster(control, founded, sessions, consensus, stop.clone())?;
        let holding = Office {
            consensus: consensus.clone(),
            fleet: fleet.clone(),
            streams: streams.clone(),
            catalogue: catalogue.clone(),
            clock: Clock::start(),
        };
        tokio::spawn(holding.hold(office, stop.clone()));
        let sources = Sources {
            cluster: founded.cluster.clone(),
            consensus: consensus.clone(),
            catalogue,
            fleet,
            looking,
            versions,
        };
        let ways = Ways { leadership: consensus.leadership(), leading, peers: peers.clone() };
        let front = Front::start(replica, ways, stop.clone());
        let room = Arc::new(membership::Running::new(consensus, founded));
        let jobs = Jobs { runs: answers.runs.clone(), keeper: Arc::new(answers) };
        let (hash_key, cluster) = (founded.leaf.hash_key(), Cluster { front, streams });
        Ok(Self { sources, room, rotating, grouping, jobs, hash_key, renderers, cluster, cluster_address })
    }

    fn gateway_state(&self, local_key: gateway::LocalKey, tally: Tally) -> gateway::GatewayState {
        let Door { api, readiness, .. } = self.sources.looking.door.clone();
        let sources = self.sources.clone();
        gateway::GatewayState {
            catalogue: self.sources.catalogue.clone(),
            renderers: Arc::new(self.renderers.clone()),
            generations: Arc::new(self.cluster.clone()),
            readiness: Arc::new(move || readiness.now()),
            status: Arc::new(move || {
                let sources = sources.clone();
                Box::pin(async move { serde_json::to_value(sources.status().await).unwrap_or_default() })
            }),
            views: Arc::new(Inside { sources: self.sources.clone() }),
            registry: self.sources.consensus.changes(),
            local_key: Arc::new(local_key),
            facts: Arc::new(self.sources.consensus.clone()),
            claims: Arc::new(self.cluster.front.clone()),
            tally,
            room: self.room.clone(),
            group: Arc::new(self.grouping.clone()),
            jobs: self.jobs.clone(),
            hash_key: self.hash_key,
            api,
        }
    }
}

/// A member whose address has changed says so, and whoever is one no more leaves; a founder that is alone has nobody to tell.
fn keep_membership(
    config: &Config,
    consensus: &Consensus,
    peers: &Peers,
    replica: ReplicaId,
    departure: &Departure,
    stop: &CancellationToken,
) {
    let address = config.advertise.clone();
    let alone = consensus.members().iter().all(|member| member.replica == replica);
    if !alone || config.joined.is_some() {
        let contacts = config.joined.as_ref().map(|joined| joined.contacts.clone()).unwrap_or_default();
        let asking = enlisting::ask(consensus.clone(), peers.clone(), replica, address.clone(), contacts);
        let departure = departure.clone();
        let enlisted = async move {
            if let Err(barred) = asking.await {
                departure.leave(&barred.to_string());
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(enlisted));
    }
    let watching = departure.clone().watch(consensus.clone(), peers.clone(), replica, address);
    tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
    tokio::spawn(stop.clone().run_until_cancelled_owned(expelling::run(consensus.clone())));
    tokio::spawn(stop.clone().run_until_cancelled_owned(growing::run(consensus.clone())));
}

async fn bind(address: SocketAddr, whom: &str, choice: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for {whom}: where `mlx-serving up` or another coordinator runs here, stop it, or choose another \
             address ({choice})"
        )
    })
}

/// gRPC for agents and coordinators. A certificate is asked for and, but for joining, required: each call checks.
fn serve_cluster(
    listener: TcpListener,
    founded: &Founded,
    sessions: Sessions,
    consensus: &Consensus,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let guests = Guests::new(consensus.changes());
    tokio::spawn(stop.clone().run_until_cancelled_owned(guests.clone().watch()));
    let incoming = entrance::open(listener, &founded.papers, guests.clone())?;
    let gate = entrance::gate(guests);
    let server = threshold::server()
        .add_service(InterceptedService::new(ClusterServer::new(sessions), gate.clone()))
        .add_service(InterceptedService::new(consensus.service(peers::who_is), gate));
    tokio::spawn(async move {
        let served = server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the cluster's listener failed");
        }
    });
    Ok(())
}
