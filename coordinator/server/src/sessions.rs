//! The control side towards agents: the gRPC service.
//!
//! Owns one session per agent: its hello, its reports, the orders it gets. Refuses callers without a certificate of this
//! cluster (but for joining and renewing), with another role than `agent`, revoked in the registry, or with another node's number.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use consensus::{Consensus, MemberState, ReplicaId};
use futures_util::{Stream, StreamExt as _};
use proto::identity::Role;
use proto::standing;
use proto::v1::{
    AgentHello, AgentMessage, AskRunReply, AskRunRequest, Authorities, ChangeGroupReply, ChangeGroupRequest,
    CoordinatorAddress, CoordinatorMessage, Coordinators, DeskMessage, EnlistReply, EnlistRequest,
    FetchAnswerReply, FetchAnswerRequest, FetchSealKeyReply, FetchSealKeyRequest, JoinReply, JoinRequest,
    KeepAnswerReply, KeepAnswerRequest, LookReply, LookRequest, ModelCardChunk, ModelCardStored,
    RegistryVersion, RenewReply, RenewRequest, WantedModel, WantedModels, Welcome, agent_message,
    cluster_server, coordinator_message,
};
use registry::{Command, ModelName, NodeId, Registry};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::cards::{CardUpload, Cards};
use crate::desk::Desks;
use crate::entrance::{Caller, Leaf, REVOKED};
use crate::fleet::Fleet;
use crate::grouping::Grouping;
use crate::jobs::Exchange;
use crate::joining::Joining;
use crate::leading::Leading;
use crate::limits;
use crate::looking::Looking;
use crate::members::{self, FOUNDER};
use crate::peers::{self, Peers};
use crate::rotating::{self, Rotating};
use crate::streams::Streams;
use crate::threshold::NO_CERTIFICATE;
use crate::versions::Versions;
use crate::wire;
use crate::{desk, enlisting, renewing};

/// Serves the agents of one coordinator.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) consensus: Consensus,
    pub(crate) fleet: Fleet,
    pub(crate) streams: Streams,
    pub(crate) cards: Cards,
    pub(crate) joining: Joining,
    pub(crate) cluster: String,
    pub(crate) stream_port: u16,
    pub(crate) replica: ReplicaId,
    pub(crate) peers: Peers,
    pub(crate) leading: watch::Receiver<Option<Leading>>,
    pub(crate) desks: Desks,
    pub(crate) looking: Looking,
    pub(crate) grouping: Grouping,
    pub(crate) answers: Exchange,
    pub(crate) versions: Versions,
    pub(crate) rotating: Rotating,
    pub(crate) stop: CancellationToken,
}

/// What an agent has been told last.
struct Told {
    models: Vec<WantedModel>,
    coordinators: Coordinators,
    authorities: Option<Authorities>,
}

/// Which session it is, and under which certificate.
struct Guest {
    node: u64,
    session: u64,
    leaf: Option<Leaf>,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Stopping,
    AgentLeft,
    ConnectionBroke,
    RegistryStopped,
    Revoked,
}

type Orders = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl cluster_server::Cluster for Sessions {
    type SessionStream = Orders;
    type DeskStream = desk::Orders;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        self.joining.join(request.into_inner()).await.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let caller = request.extensions().get::<Caller>().and_then(|caller| caller.identity);
        let Joining { consensus, authority, .. } = &self.joining;
        renewing::renew(consensus, authority, caller, request.get_ref()).map(Response::new)
    }

    async fn enlist(&self, request: Request<EnlistRequest>) -> Result<Response<EnlistReply>, Status> {
        let caller = self.coordinator(&request)?;
        enlisting::answer(&self.consensus, &self.peers, &self.versions, caller, request.into_inner()).await?;
        Ok(Response::new(EnlistReply {}))
    }

    async fn desk(&self, request: Request<Streaming<DeskMessage>>) -> Result<Response<desk::Orders>, Status> {
        let gateway = self.coordinator(&request)?;
        self.desks.serve(gateway, request.into_inner(), &self.leading).await.map(Response::new)
    }

    async fn look(&self, request: Request<LookRequest>) -> Result<Response<LookReply>, Status> {
        self.coordinator(&request)?;
        self.looking.answer(request.into_inner()).await.map(Response::new)
    }

    async fn change_group(
        &self,
        request: Request<ChangeGroupRequest>,
    ) -> Result<Response<ChangeGroupReply>, Status> {
        self.coordinator(&request)?;
        self.grouping.answer(request.into_inner()).await.map(Response::new)
    }

    async fn keep_answer(
        &self,
        request: Request<KeepAnswerRequest>,
    ) -> Result<Response<KeepAnswerReply>, Status> {
        self.coordinator(&request)?;
        self.answers.take_in(request.into_inner()).await.map(Response::new)
    }

    async fn fetch_answer(
        &self,
        request: Request<FetchAnswerRequest>,
    ) -> Result<Response<FetchAnswerReply>, Status> {
        self.coordinator(&request)?;
        self.answers.give(request.into_inner()).await.map(Response::new)
    }

    async fn ask_run(&self, request: Request<AskRunRequest>) -> Result<Response<AskRunReply>, Status> {
        self.coordinator(&request)?;
        Ok(Response::new(self.answers.answer(request.into_inner())))
    }

    async fn fetch_seal_key(
        &self,
        request: Request<FetchSealKeyRequest>,
    ) -> Result<Response<FetchSealKeyReply>, Status> {
        let caller = self.coordinator(&request)?;
        Ok(Response::new(self.looking.sealing.give(caller)))
    }

    async fn session(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Orders>, Status> {
        let node = self.agent(&request)?;
        let leaf = request.extensions().get::<Caller>().and_then(|caller| caller.leaf.clone());
        let mut messages = request.into_inner();
        let hello = first_hello(&mut messages).await?;
        let unplaced = self.adopt_offers(node, &hello).await?;
        let (orders, outgoing) = mpsc::channel(limits::ORDERS_PER_AGENT);
        let (last, last_word) = oneshot::channel();
        // From before the greeting on, so that nothing changes unseen between the two.
        let mut changes = self.consensus.changes();
        changes.mark_changed();
        let told = self.greet(node, &orders).await?;
        let session = self.fleet.opened(node, hello, orders.clone(), unplaced).await;
        tracing::info!(node, session, "agent session opened");
        let running = self.clone();
        tokio::spawn(async move {
            let guest = Guest { node, session, leaf };
            let why = running.converse(&guest, messages, orders, changes, told).await;
            if why == Ended::Revoked {
                // Told, so that it does not ask again and again.
                let _ = last.send(standing::revoked(REVOKED));
            }
            running.fleet.closed(node, session).await;
            tracing::info!(node, session, ?why, "agent session closed");
            running.streams.doubt(node).await;
        });
        let last_word = futures_util::stream::once(last_word).filter_map(async |word| word.ok().map(Err));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing).map(Ok).chain(last_word))))
    }

    async fn put_model_card(
        &self,
        request: Request<Streaming<ModelCardChunk>>,
    ) -> Result<Response<ModelCardStored>, Status> {
        self.agent(&request)?;
        let mut chunks = request.into_inner();
        let mut upload = CardUpload::default();
        while let Some(chunk) = chunks.message().await? {
            upload.push(chunk).map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        let (digest, files) = upload.finish();
        let stored = self.cards.put(digest, files).await;
        stored.map_err(|error| Status::invalid_argument(format!("{error:#}")))?;
        self.fleet.card_arrived().await;
        Ok(Response::new(ModelCardStored {}))
    }
}

impl Sessions {
    /// The coordinator behind the call. Whether it was admitted is the registry's word; the founder never was. A new life's founder is
    /// a node like any other (`lives.rs`).
    fn coordinator<T>(&self, request: &Request<T>) -> Result<ReplicaId, Status> {
        let replica = peers::who_is(request.extensions())
            .ok_or_else(|| Status::permission_denied("only coordinators call this"))?;
        let registry = self.consensus.local();
        if members::is_coordinator_revoked(&registry, replica) {
            return Err(standing::revoked(REVOKED));
        }
        let admitted = members::node_of(replica).map(|node| registry.node(node).map(|node| node.role));
        match admitted {
            None if replica == FOUNDER => Ok(replica),
            Some(Some(registry::Role::Coordinator)) => Ok(replica),
            Some(Some(registry::Role::Agent | registry::Role::Client) | None) | None => {
                Err(Status::permission_denied("this coordinator was never admitted"))
            }
        }
    }

    /// The node behind the call: certificate first, then the registry's word on it.
    fn agent<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let caller = request.extensions().get::<Caller>();
        let identity = caller.and_then(|caller| caller.identity);
        let identity = identity.ok_or_else(|| Status::unauthenticated(NO_CERTIFICATE))?;
        if identity.role != Role::Agent {
            return Err(Status::permission_denied("only agents open sessions"));
        }
        let registry = self.consensus.local();
        if members::is_revoked(&registry, identity) {
            return Err(standing::revoked(REVOKED));
        }
        let (node, leaf) = (NodeId(identity.node), caller.and_then(|caller| caller.leaf.as_ref()));
        if registry.node(node).is_none() {
            return Err(Status::permission_denied(
                "this cluster does not know the node: join again with a new token",
            ));
        }
        if leaf.is_none_or(|leaf| members::is_somebody_elses(&registry, node, leaf)) {
            return Err(Status::permission_denied(
                "this node's number was given to another machine: join again with a new token",
            ));
        }
        Ok(identity.node)
    }

    /// What an agent was started with replaces what it was started with before; an agent started without models keeps them.
    /// Returns the models that it offers and that are not placed there.
    async fn adopt_offers(&self, node: u64, hello: &AgentHello) -> Result<BTreeSet<ModelName>, Status> {
        let offers =
            wire::offers(&hello.offers).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut commands = Vec::new();
        if !offers.is_empty() {
            commands = wire::adoption(&self.consensus.local(), NodeId(node), &offers);
        }
        let budget_bytes = hello.hardware.as_ref().map_or(0, |hardware| hardware.gpu_budget_bytes);
        // What is known already needs no room on a disk.
        if self.consensus.local().budget(NodeId(node)) != Some(budget_bytes) {
            commands.push(Command::SetBudget { node: NodeId(node), bytes: budget_bytes });
        }
        for command in commands {
            self.consensus.propose(command).await.map_err(|error| Status::unavailable(error.to_string()))?;
        }
        let registry = self.consensus.local();
        let offered = registry.wanted_on(NodeId(node)).map(|(model, _)| model);
        Ok(offered.filter(|model| !registry.is_placed(NodeId(node), model)).cloned().collect())
    }

    /// Returns what was said of models, coordinators and authorities.
    async fn greet(&self, node: u64, orders: &mpsc::Sender<CoordinatorMessage>) -> Result<Told, Status> {
        let welcome = coordinator_message::Message::Welcome(Welcome {
            node,
            cluster: self.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stream_port: u32::from(self.stream_port),
            replica: self.replica.0,
        });
        let (wanted, coordinators) = (self.wanted_on(node), self.coordinators());
        let authorities = rotating::told(&self.consensus.local());
        let (models, named) = (wanted.models.clone(), coordinators.clone());
        let told = Told { models, coordinators: named, authorities: authorities.clone() };
        let wanted = coordinator_message::Message::Wanted(wanted);
        let coordinators = coordinator_message::Message::Coordinators(coordinators);
        let authorities = authorities.map(coordinator_message::Message::Authorities);
        for message in [welcome, wanted, coordinators].into_iter().chain(authorities) {
            let sent = orders.send(CoordinatorMessage { message: Some(message) }).await;
            sent.map_err(|_| Status::cancelled("the agent is gone"))?;
        }
        Ok(told)
    }

    fn wanted_on(&self, node: u64) -> WantedModels {
        // The index first: what is told is never older than it says.
        let index = self.consensus.health().applied_index.unwrap_or_default();
        let registry = self.consensus.local();
        let version = Some(RegistryVersion { epoch: registry.epoch(), index });
        WantedModels { models: wire::wanted(&registry, NodeId(node)), version }
    }

    /// Those that can be reached, and those that must not be.
    fn coordinators(&self) -> Coordinators {
        let members = self.consensus.members().into_iter();
        let reachable = members.filter(|member| !member.address.is_empty());
        let address =
            |member: MemberState| CoordinatorAddress { replica: member.replica.0, address: member.address };
        let registry = self.consensus.local();
        let reachable =
            reachable.filter(|member| !members::is_coordinator_revoked(&registry, member.replica));
        let revoked = members::revoked_coordinators(&registry).into_iter().collect();
        Coordinators { members: reachable.map(address).collect(), revoked }
    }

    /// Reports in, changed wishes out, until either side goes; returns why.
    async fn converse(
        &self,
        guest: &Guest,
        mut messages: Streaming<AgentMessage>,
        orders: mpsc::Sender<CoordinatorMessage>,
        mut changes: watch::Receiver<Arc<Registry>>,
        mut told: Told,
    ) -> Ended {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ended::Stopping,
                message = messages.message() => match message {
                    Ok(Some(message)) => self.take(guest, message).await,
                    Ok(None) => return Ended::AgentLeft,
                    Err(_) => return Ended::ConnectionBroke,
                },
                changed = changes.changed() => {
                    if changed.is_err() { return Ended::RegistryStopped }
                    let registry = changes.borrow_and_update().clone();
                    if registry.is_node_revoked(NodeId(guest.node)) { return Ended::Revoked }
                    let wanted = self.wanted_on(guest.node);
                    if wanted.models != told.models {
                        told.models.clone_from(&wanted.models);
                        let message = Some(coordinator_message::Message::Wanted(wanted));
                        if orders.send(CoordinatorMessage { message }).await.is_err() { return Ended::AgentLeft }
                    }
                    let coordinators = self.coordinators();
                    if coordinators != told.coordinators {
                        told.coordinators = coordinators.clone();
                        let message = Some(coordinator_message::Message::Coordinators(coordinators));
                        if orders.send(CoordinatorMessage { message }).await.is_err() { return Ended::AgentLeft }
                    }
                    let authorities = rotating::told(&registry);
                    if authorities != told.authorities {
                        told.authorities.clone_from(&authorities);
                        let message = authorities.map(coordinator_message::Message::Authorities);
                        if orders.send(CoordinatorMessage { message }).await.is_err() { return Ended::AgentLeft }
                    }
                }
            }
        }
    }

    async fn take(&self, guest: &Guest, message: AgentMessage) {
        match message.message {
            Some(agent_message::Message::Report(mut report)) => {
                report.models.truncate(limits::MODELS_PER_REPORT);
                if let Some(leaf) = &guest.leaf {
                    self.rotating.saw(NodeId(guest.node), leaf, &report.authority);
                }
                self.fleet.reported(guest.node, guest.session, report).await;
            }
            // A second hello and a message of a newer version say nothing we could act on.
            Some(agent_message::Message::Hello(_)) | None => {}
        }
    }
}

async fn first_hello(messages: &mut Streaming<AgentMessage>) -> Result<AgentHello, Status> {
    let first = tokio::time::timeout(limits::SESSION_TIMEOUT, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello arrived"))??;
    match first.and_then(|message| message.message) {
        Some(agent_message::Message::Hello(hello)) => Ok(hello),
        Some(agent_message::Message::Report(_)) | None => {
            Err(Status::invalid_argument("the first message is not a hello"))
        }
    }
}
