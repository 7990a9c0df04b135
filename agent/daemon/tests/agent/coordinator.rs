//! The coordinator that a test plays: the gRPC service and the QUIC endpoint, with everything an agent says kept for the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use proto::identity::{Identity, Role};
use proto::tls::Credentials;
use proto::v1::cluster_server::{Cluster, ClusterServer};
use proto::v1::{
    AgentHello, AgentMessage, AgentReport, AskRunReply, AskRunRequest, AttemptFrame, AttemptStart,
    CardWanted, ChangeGroupReply, ChangeGroupRequest, CoordinatorAddress, CoordinatorMessage, Coordinators,
    DeskMessage, DeskOrder, EnlistReply, EnlistRequest, FetchAnswerReply, FetchAnswerRequest,
    FetchSealKeyReply, FetchSealKeyRequest, JoinReply, JoinRequest, KeepAnswerReply, KeepAnswerRequest,
    LookReply, LookRequest, ModelCardChunk, ModelCardStored, ModelState, ModelStatus, RegistryVersion,
    RenewReply, RenewRequest, StepSample, WantedModel, WantedModels, Welcome, agent_message,
    coordinator_message,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, ServerConfig, VarInt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::authority::Authority;
use crate::room::{PATIENCE, soon};

pub(crate) const NODE: u64 = 42;
/// Beside a liar: no number that nonsense names.
pub(crate) const HONEST: u64 = 7_777_777;

/// The way to each open session, the latest last.
type Orders = Arc<Mutex<Vec<mpsc::Sender<Result<CoordinatorMessage, Status>>>>>;

/// Of every report, by model.
type Samples = Arc<Mutex<Vec<(String, StepSample)>>>;

/// One life of the coordinator's process.
pub(crate) struct Coordinator {
    pub(crate) grpc: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) reports: watch::Receiver<AgentReport>,
    pub(crate) hellos: mpsc::Receiver<AgentHello>,
    pub(crate) joins: mpsc::Receiver<JoinRequest>,
    /// Whether each came with a certificate.
    pub(crate) renewals: mpsc::Receiver<bool>,
    pub(crate) cards: mpsc::Receiver<Vec<ModelCardChunk>>,
    pub(crate) connections: mpsc::Receiver<Connection>,
    samples: Samples,
    sessions: Orders,
    /// Its threads are its process: dropped as kill -9 would, without a goodbye.
    threads: Option<Runtime>,
}

struct Service {
    authority: Arc<Authority>,
    refuse_joins: bool,
    replica: u64,
    wanted: WantedModels,
    stream_port: u16,
    reports: watch::Sender<AgentReport>,
    hellos: mpsc::Sender<AgentHello>,
    joins: mpsc::Sender<JoinRequest>,
    renewals: mpsc::Sender<bool>,
    cards: mpsc::Sender<Vec<ModelCardChunk>>,
    samples: Samples,
    sessions: Orders,
}

/// How a coordinator starts; ports of 0 are chosen by the system.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) grpc_port: u16,
    pub(crate) quic_port: u16,
    pub(crate) wanted: Vec<WantedModel>,
    /// `None` and a replica of 0: a coordinator of a version that knows of no others.
    pub(crate) version: Option<RegistryVersion>,
    pub(crate) replica: u64,
    pub(crate) refuse_joins: bool,
}

impl Coordinator {
    pub(crate) async fn start(authority: &Arc<Authority>, plan: Plan) -> Self {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let threads = threads.expect("threads");
        let starting = threads.spawn(Self::start_inside(Arc::clone(authority), plan));
        let mut coordinator = starting.await.expect("no panic");
        coordinator.threads = Some(threads);
        coordinator
    }

    async fn start_inside(authority: Arc<Authority>, plan: Plan) -> Self {
        let credentials = authority.coordinator(plan.replica);
        let endpoint = soon("a UDP port", bound(|| endpoint(&credentials, plan.quic_port))).await;
        let listener = std::net::TcpListener::bind;
        let listener = soon("a TCP port", bound(|| listener(address(plan.grpc_port)).ok())).await;
        listener.set_nonblocking(true).expect("a socket");
        let listener = TcpListener::from_std(listener).expect("a socket");
        let (grpc, quic) = (listener.local_addr().expect("bound"), endpoint.local_addr().expect("bound"));
        let (reports_in, reports) = watch::channel(AgentReport::default());
        let ((hellos_in, hellos), (joins_in, joins)) = (mpsc::channel(16), mpsc::channel(16));
        let (renewals_in, renewals) = mpsc::channel(16);
        let ((cards_in, cards), (connections_in, connections)) = (mpsc::channel(16), mpsc::channel(16));
        let (samples, sessions) = (Samples::default(), Orders::default());
        let service = Service {
            authority,
            refuse_joins: plan.refuse_joins,
            replica: plan.replica,
            wanted: WantedModels { models: plan.wanted, version: plan.version },
            stream_port: quic.port(),
            reports: reports_in,
            hellos: hellos_in,
            joins: joins_in,
            renewals: renewals_in,
            cards: cards_in,
            samples: Arc::clone(&samples),
            sessions: Arc::clone(&sessions),
        };
        let tls = ServerTlsConfig::new()
            .identity(TlsIdentity::from_pem(credentials.chain_pem(), &credentials.key_pem))
            .client_ca_root(Certificate::from_pem(&credentials.ca_certificate_pem))
            .client_auth_optional(true);
        let server = Server::builder().tls_config(tls).expect("TLS").add_service(ClusterServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                if let Ok(connection) = incoming.await {
                    let _ = connections_in.send(connection).await;
                }
            }
        });
        Self {
            grpc,
            quic,
            reports,
            hellos,
            joins,
            renewals,
            cards,
            connections,
            samples,
            sessions,
            threads: None,
        }
    }

    /// As kill -9 would: nobody says goodbye, on TCP or UDP.
    pub(crate) async fn kill(mut self) {
        let threads = self.threads.take().expect("not killed before");
        let killed = tokio::task::spawn_blocking(move || threads.shutdown_timeout(PATIENCE));
        killed.await.expect("no panic");
    }

    /// Ends the control side only.
    pub(crate) fn break_sessions(&self) {
        self.sessions.lock().expect("not poisoned").clear();
    }

    /// Sessions that the agent has not left.
    pub(crate) fn open_sessions(&self) -> usize {
        self.sessions.lock().expect("not poisoned").iter().filter(|orders| !orders.is_closed()).count()
    }

    pub(crate) async fn order(&self, message: coordinator_message::Message) {
        let orders = self.sessions.lock().expect("not poisoned").last().cloned().expect("a session");
        orders.send(Ok(CoordinatorMessage { message: Some(message) })).await.expect("an open session");
    }

    pub(crate) async fn want(&self, models: Vec<WantedModel>) {
        self.want_as_of(None, models).await;
    }

    pub(crate) async fn want_as_of(&self, version: Option<RegistryVersion>, models: Vec<WantedModel>) {
        self.order(coordinator_message::Message::Wanted(WantedModels { models, version })).await;
    }

    /// Ends the session with the last word to a node that was revoked.
    pub(crate) async fn revoke(&self) {
        let orders = self.sessions.lock().expect("not poisoned").pop().expect("a session");
        orders.send(Err(proto::standing::revoked("gone for good"))).await.expect("an open session");
    }

    /// Says that these are all coordinators, by their numbers and addresses.
    pub(crate) async fn name(&self, members: &[(u64, String)]) {
        self.name_and_revoke(members, &[]).await;
    }

    /// The same, and which numbers were revoked.
    pub(crate) async fn name_and_revoke(&self, members: &[(u64, String)], revoked: &[u64]) {
        let member = |(replica, address): &(u64, String)| CoordinatorAddress {
            replica: *replica,
            address: address.clone(),
        };
        let (members, revoked) = (members.iter().map(member).collect(), revoked.to_vec());
        self.order(coordinator_message::Message::Coordinators(Coordinators { members, revoked })).await;
    }

    pub(crate) async fn ask_for_card(&self, model: &str, digest: &str) {
        let (model, card_digest) = (model.to_owned(), digest.to_owned());
        self.order(coordinator_message::Message::CardWanted(CardWanted { model, card_digest })).await;
    }

    /// The first report that `fits`.
    pub(crate) async fn report(&mut self, what: &str, fits: impl FnMut(&AgentReport) -> bool) -> AgentReport {
        soon(what, self.reports.wait_for(fits)).await.expect("an open session").clone()
    }

    pub(crate) async fn until_state(&mut self, model: &str, state: ModelState) -> AgentReport {
        let what = format!("{model} is {state:?}");
        let fits = |report: &AgentReport| {
            report.models.iter().any(|status| status.model == model && status.state() == state)
        };
        self.report(&what, fits).await
    }

    /// All that reports said of the steps of a model, once it is about this many steps or more.
    pub(crate) async fn until_steps(&mut self, model: &str, steps: u32) -> Vec<StepSample> {
        let samples = Arc::clone(&self.samples);
        let told = || {
            let samples = samples.lock().expect("not poisoned");
            let mine = samples.iter().filter(|(name, _)| name == model);
            mine.map(|(_, sample)| *sample).collect::<Vec<_>>()
        };
        let count = || told().iter().map(|sample| sample.steps).sum::<u32>();
        self.report(&format!("{steps} steps of {model}"), |_| count() >= steps).await;
        told()
    }

    pub(crate) async fn connection(&mut self) -> Connection {
        soon("a QUIC connection", self.connections.recv()).await.expect("an endpoint")
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) fn endpoint(credentials: &Credentials, port: u16) -> Option<Endpoint> {
    let tls = QuicServerConfig::try_from(credentials.stream_server().expect("TLS")).expect("TLS for QUIC");
    Endpoint::server(ServerConfig::with_crypto(Arc::new(tls)), address(port)).ok()
}

/// A port whose former holder is about to be gone.
async fn bound<T>(bind: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(bound) = bind() {
            return bound;
        }
        tokio::task::yield_now().await;
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;
    type DeskStream = Pin<Box<dyn Stream<Item = Result<DeskOrder, Status>> + Send>>;

    async fn enlist(&self, _: Request<EnlistRequest>) -> Result<Response<EnlistReply>, Status> {
        Err(Status::permission_denied("only coordinators enlist"))
    }

    async fn desk(&self, _: Request<Streaming<DeskMessage>>) -> Result<Response<Self::DeskStream>, Status> {
        Err(Status::permission_denied("only gateways have a desk"))
    }

    async fn change_group(
        &self,
        _: Request<ChangeGroupRequest>,
    ) -> Result<Response<ChangeGroupReply>, Status> {
        Err(Status::permission_denied("only coordinators change the group"))
    }

    async fn keep_answer(&self, _: Request<KeepAnswerRequest>) -> Result<Response<KeepAnswerReply>, Status> {
        Err(Status::permission_denied("only coordinators keep answers"))
    }

    async fn fetch_answer(
        &self,
        _: Request<FetchAnswerRequest>,
    ) -> Result<Response<FetchAnswerReply>, Status> {
        Err(Status::permission_denied("only coordinators fetch answers"))
    }

    async fn ask_run(&self, _: Request<AskRunRequest>) -> Result<Response<AskRunReply>, Status> {
        Err(Status::permission_denied("only coordinators ask for runs"))
    }

    async fn fetch_seal_key(
        &self,
        _: Request<FetchSealKeyRequest>,
    ) -> Result<Response<FetchSealKeyReply>, Status> {
        Err(Status::permission_denied("only coordinators ask for the seal key"))
    }

    async fn look(&self, _: Request<LookRequest>) -> Result<Response<LookReply>, Status> {
        Err(Status::permission_denied("only coordinators look"))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        if self.refuse_joins {
            return Err(Status::permission_denied("the join token is used up"));
        }
        let certificate_pem = self.authority.sign(&request.csr_pem, NODE);
        let _ = self.joins.send(request).await;
        let ca_certificate_pem = self.authority.certificate_pem();
        Ok(Response::new(JoinReply {
            node: NODE,
            certificate_pem,
            ca_certificate_pem,
            cluster: "test".to_owned(),
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let shown = request.peer_certs().is_some();
        let _ = self.renewals.send(shown).await;
        let certificate_pem = self.authority.sign(&request.into_inner().csr_pem, NODE);
        let ca_certificate_pem = self.authority.certificate_pem();
        Ok(Response::new(RenewReply { certificate_pem, ca_certificate_pem }))
    }

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let chain = request.peer_certs().ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let identity = Identity::from_leaf(chain.first().expect("a leaf")).expect("an identity");
        assert_eq!(identity, Identity { role: Role::Agent, node: NODE });
        let (orders, outgoing) = mpsc::channel(16);
        let welcome = Welcome {
            node: NODE,
            cluster: "test".to_owned(),
            version: "0".to_owned(),
            stream_port: u32::from(self.stream_port),
            replica: self.replica,
        };
        let wanted = self.wanted.clone();
        for message in
            [coordinator_message::Message::Welcome(welcome), coordinator_message::Message::Wanted(wanted)]
        {
            let _ = orders.send(Ok(CoordinatorMessage { message: Some(message) })).await;
        }
        self.sessions.lock().expect("not poisoned").push(orders);
        let (reports, hellos, samples) =
            (self.reports.clone(), self.hellos.clone(), Arc::clone(&self.samples));
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(AgentMessage { message: Some(message) })) = messages.message().await {
                match message {
                    agent_message::Message::Hello(hello) => drop(hellos.try_send(hello)),
                    agent_message::Message::Report(report) => {
                        samples.lock().expect("not poisoned").extend(sampled(&report));
                        reports.send_replace(report);
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn put_model_card(
        &self,
        request: Request<Streaming<ModelCardChunk>>,
    ) -> Result<Response<ModelCardStored>, Status> {
        let (mut chunks, mut card) = (request.into_inner(), Vec::new());
        while let Some(chunk) = chunks.message().await? {
            card.push(chunk);
        }
        let _ = self.cards.send(card).await;
        Ok(Response::new(ModelCardStored {}))
    }
}

fn sampled(report: &AgentReport) -> impl Iterator<Item = (String, StepSample)> {
    let samples = |status: &ModelStatus| {
        let name = status.model.clone();
        status.samples.clone().into_iter().map(move |sample| (name.clone(), sample))
    };
    report.models.iter().flat_map(samples)
}

/// The gateway's end of one attempt.
pub(crate) struct Asked {
    pub(crate) recv: RecvStream,
    decoder: proto::framing::Decoder,
}

/// Opens a stream and writes the request, as a gateway does.
pub(crate) async fn ask(connection: &Connection, start: &AttemptStart) -> Asked {
    let mut bytes = bytes::BytesMut::new();
    proto::framing::encode(start, &mut bytes);
    ask_raw(connection, &bytes).await
}

pub(crate) async fn ask_raw(connection: &Connection, bytes: &[u8]) -> Asked {
    let (mut send, recv) = soon("a stream", connection.open_bi()).await.expect("opens");
    send.write_all(bytes).await.expect("written");
    send.finish().expect("finished");
    Asked { recv, decoder: proto::framing::Decoder::default() }
}

impl Asked {
    /// `None`: the stream ended.
    pub(crate) async fn next(&mut self) -> Result<Option<AttemptFrame>, quinn::ReadError> {
        soon("a frame", async {
            loop {
                if let Some(frame) = self.decoder.next_message().expect("whole messages") {
                    return Ok(Some(frame));
                }
                match self.recv.read_chunk(1 << 16, true).await? {
                    Some(chunk) => self.decoder.push(&chunk.bytes),
                    None => return Ok(None),
                }
            }
        })
        .await
    }

    /// Everything to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<AttemptFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await.expect("no reset") {
            frames.push(frame);
        }
        frames
    }

    pub(crate) fn hang_up(&mut self) {
        self.recv.stop(VarInt::from_u32(0)).expect("still open");
    }
}
