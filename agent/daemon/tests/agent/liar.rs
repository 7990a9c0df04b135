//! A coordinator with a good certificate that says anything: bytes that are no messages, messages that mean nothing, and orders that
//! no coordinator gives.
//!
//! Owns what it says, on every call and on the token streams; it is the same in every run. It never says that this Mac was revoked,
//! and never speaks of a newer registry than the honest one: who may sign is believed in both, by design.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use prost::Message as _;
use proto::v1::{
    AgentMessage, CardWanted, CoordinatorAddress, CoordinatorMessage, Coordinators, Welcome, agent_message,
    coordinator_message,
};
use quinn::{Connection, Endpoint};
use rand::RngExt as _;
use rand_pcg::Pcg64;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::authority::Authority;
use crate::coordinator::{HONEST, NODE, address, endpoint};
use crate::nonsense::{Raw, Schema, payload, seeded};
use crate::room::{DEMO, soon};

const REPLICA: u64 = 8_888_888;
const MESSAGES: usize = 20;
/// Said at once, every now and then.
const FLOOD: usize = 500;
/// A list that no group has. Its addresses are few, so that the settings keep a place: members come before them.
const LIST: u64 = 50_000;

#[derive(Clone)]
pub(crate) struct Liar {
    pub(crate) grpc: SocketAddr,
    quic: SocketAddr,
    schema: Arc<Schema>,
    random: Arc<Mutex<Pcg64>>,
    /// Of the demo model's card, as the agent said it.
    digest: Arc<Mutex<String>>,
    /// From then on it says that it is the honest one. Whoever has two addresses is talked to at one, so that is its last lie.
    impersonates: Arc<AtomicBool>,
    calls: watch::Sender<usize>,
    streams: watch::Sender<usize>,
}

type Lies = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl Liar {
    pub(crate) async fn start(authority: &Authority) -> Self {
        let credentials = authority.coordinator(REPLICA);
        let endpoint = endpoint(&credentials, 0).expect("a UDP port");
        let listener = TcpListener::bind(address(0)).await.expect("a TCP port");
        let liar = Self {
            grpc: listener.local_addr().expect("bound"),
            quic: endpoint.local_addr().expect("bound"),
            schema: Arc::new(Schema::read()),
            random: Arc::new(Mutex::new(seeded())),
            digest: Arc::default(),
            impersonates: Arc::default(),
            calls: watch::Sender::default(),
            streams: watch::Sender::default(),
        };
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(credentials.chain_pem(), &credentials.key_pem))
            .client_ca_root(Certificate::from_pem(&credentials.ca_certificate_pem))
            .client_auth_optional(true);
        let server = Server::builder().tls_config(tls).expect("TLS").add_service(liar.clone());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        tokio::spawn(liar.clone().stream(endpoint));
        liar
    }

    /// Until so many calls were answered, and as many token streams ended.
    pub(crate) async fn told(&self, calls: usize, streams: usize) {
        for (what, told, enough) in [("calls", &self.calls, calls), ("streams", &self.streams, streams)] {
            let mut told = told.subscribe();
            let told = async { drop(told.wait_for(|told| *told >= enough).await.expect("the liar lives")) };
            soon(&format!("{enough} {what} of lies"), told).await;
        }
    }

    pub(crate) fn impersonate(&self) {
        self.impersonates.store(true, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    fn dice<T>(&self, throw: impl FnOnce(&mut Pcg64) -> T) -> T {
        throw(&mut self.random.lock().expect("not poisoned"))
    }

    /// Nonsense of this kind.
    fn nonsense(&self, of: &str) -> Vec<Bytes> {
        self.dice(|random| payload(&self.schema, of, random))
    }

    /// What a session hears, to its end.
    fn session(&self) -> Lies {
        let mut said = Vec::new();
        let (welcomes, flood, end) = self
            .dice(|random| (random.random_bool(0.8), random.random_bool(0.1), random.random_range(0..16)));
        if welcomes || self.impersonates.load(Ordering::Relaxed) {
            said.push(self.welcome());
        }
        for _ in 0..if flood { FLOOD } else { MESSAGES } {
            said.extend(
                self.nonsense("CoordinatorMessage").into_iter().filter(|message| !is_newest(message)),
            );
            said.extend(self.dice(|random| random.random_bool(0.1)).then(|| self.order()));
        }
        let mut said: Vec<_> = said.into_iter().map(Ok).collect();
        if let Some(code) = Some(Code::from(end)).filter(|code| *code != Code::Ok) {
            said.push(Err(Status::new(code, "\u{0}\u{1f600}".repeat(100))));
        }
        Box::pin(tokio_stream::iter(said))
    }

    /// Good, or as another one would say it.
    fn welcome(&self) -> Bytes {
        let another = self.impersonates.load(Ordering::Relaxed);
        let (replica, port) = self.dice(|random| {
            let replica = if another { HONEST } else { [REPLICA, REPLICA, 0][random.random_range(0..3)] };
            (replica, [u32::from(self.quic.port()), 1, 70_000][[0, 0, 0, 1, 2][random.random_range(0..5)]])
        });
        let welcome = Welcome {
            node: NODE,
            cluster: "x".repeat(9_000),
            version: String::new(),
            stream_port: port,
            replica,
        };
        said(coordinator_message::Message::Welcome(welcome))
    }

    /// What is well formed and known, and no coordinator says.
    fn order(&self) -> Bytes {
        let card_digest = self.digest.lock().expect("not poisoned").clone();
        said(if self.dice(|random| random.random_bool(0.8)) {
            coordinator_message::Message::CardWanted(CardWanted { model: DEMO.to_owned(), card_digest })
        } else {
            let member =
                |replica| CoordinatorAddress { replica, address: format!("127.0.0.1:{}", replica % 6 + 1) };
            let revoked = (10..LIST).collect();
            coordinator_message::Message::Coordinators(Coordinators {
                members: (10..LIST).map(member).collect(),
                revoked,
            })
        })
    }

    fn hear(&self, message: &Bytes) {
        let said = AgentMessage::decode(message.clone()).expect("an agent says what it means").message;
        if let Some(agent_message::Message::Report(report)) = said {
            let card = report.models.into_iter().find(|status| status.model == DEMO);
            *self.digest.lock().expect("not poisoned") =
                card.map(|card| card.card_digest).unwrap_or_default();
        }
    }

    async fn stream(self, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            if let Ok(connection) = incoming.await {
                tokio::spawn(self.clone().ask(connection));
            }
        }
    }

    /// Asks nonsense for as long as the connection lives. Each ends, in whatever way.
    async fn ask(self, connection: Connection) {
        for _ in 0..100 {
            let mut bytes = BytesMut::new();
            for message in self.nonsense("AttemptStart") {
                let known = self.dice(|random| random.random_bool(0.9));
                // The prefix of a message, or of none.
                let length =
                    if known { message.len() } else { self.dice(|random| random.random_range(0..1 << 28)) };
                prost::encode_length_delimiter(length, &mut bytes).expect("it grows");
                bytes.put(message);
            }
            // The agent may leave at any moment.
            let Ok((mut send, mut recv)) = connection.open_bi().await else { return };
            if send.write_all(&bytes).await.is_err() || send.finish().is_err() {
                return;
            }
            let read = soon("a stream of nonsense ends", recv.read_to_end(1 << 20)).await;
            assert!(read.is_err() || read.is_ok_and(|frames| frames.len() < 10_000));
            self.streams.send_modify(|streams| *streams += 1);
        }
    }
}

fn said(message: coordinator_message::Message) -> Bytes {
    CoordinatorMessage { message: Some(message) }.encode_to_vec().into()
}

/// What is wanted as of the registry that the honest coordinator speaks of.
fn is_newest(message: &Bytes) -> bool {
    let message = CoordinatorMessage::decode(message.clone()).ok().and_then(|said| said.message);
    let Some(coordinator_message::Message::Wanted(wanted)) = message else { return false };
    wanted.version.is_some_and(|version| version.epoch == u64::MAX)
}

impl Service<http::Request<Body>> for Liar {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = Call { liar: self.clone(), path: request.uri().path().to_owned() };
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(call, request).await) })
    }
}

impl NamedService for Liar {
    const NAME: &'static str = "mlx.cluster.v1.Cluster";
}

struct Call {
    liar: Liar,
    path: String,
}

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Lies;
    type Future = BoxFuture<Response<Lies>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let liar = self.liar.clone();
        let gives = liar.schema.calls.iter().find(|call| call.path.path() == self.path);
        let gives = gives.expect("a call of the service").gives.clone();
        let mut heard = request.into_inner();
        Box::pin(async move {
            let said: Lies = if gives == "CoordinatorMessage" {
                let listener = liar.clone();
                tokio::spawn(async move {
                    while let Ok(Some(message)) = heard.message().await {
                        listener.hear(&message);
                    }
                });
                liar.session()
            } else {
                while let Ok(Some(_)) = heard.message().await {}
                Box::pin(tokio_stream::iter(liar.nonsense(&gives).into_iter().map(Ok)))
            };
            liar.calls.send_modify(|calls| *calls += 1);
            Ok(Response::new(said))
        })
    }
}
