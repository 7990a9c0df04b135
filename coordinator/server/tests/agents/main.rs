//! A whole coordinator as an agent sees it: joining, sessions, and everyone who must be turned away.

#![expect(clippy::expect_used, reason = "a test fails loudly")]

#[path = "../../../../proto/tests/nonsense/mod.rs"]
mod nonsense;
mod lives;
mod payloads;
mod sealed;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::identity::COORDINATOR_DNS;
use proto::token::JoinToken;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::model_source::Source;
use proto::v1::{
    AgentHello, AgentMessage, AskRunRequest, CoordinatorMessage, DeskMessage, EnlistRequest,
    FetchAnswerRequest, JoinReply, JoinRequest, KeepAnswerRequest, LookRequest, ModelCardChunk, ModelSource,
    RenewRequest, WantedModel, agent_message, coordinator_message,
};
use rcgen::{CertificateParams, KeyPair};
use server::{Config, Ready};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};

struct Room {
    ready: Ready,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
    home: tempfile::TempDir,
}

struct Member {
    reply: JoinReply,
    key_pem: String,
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn config(folder: &std::path::Path) -> Config {
    Config {
        data_folder: folder.to_owned(),
        api: loopback(),
        cluster: loopback(),
        advertise: String::new(),
        joined: None,
        leaf_life: None,
        speaks: None,
        renderer: server::RendererProgram { program: "/no/renderer".into(), arguments: Vec::new() },
    }
}

impl Room {
    async fn open() -> Self {
        Self::at(tempfile::tempdir().expect("scratch")).await
    }

    async fn at(home: tempfile::TempDir) -> Self {
        loop {
            let (sender, ready) = oneshot::channel();
            let stop = CancellationToken::new();
            let running = tokio::spawn(server::run(config(home.path()), sender, stop.clone()));
            if let Ok(ready) = ready.await {
                return Self { ready, stop, running, home };
            }
            // Its UDP port has the number of its TCP port, which may be another process's.
            let error = running.await.expect("no panic").expect_err("it did not start");
            assert!(format!("{error:#}").contains("in use"), "{error:#}");
        }
    }

    async fn close(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.running.await.expect("no panic").expect("a clean end");
        self.home
    }

    async fn client(&self, ca_pem: &str, identity: Option<&Member>) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(ca_pem, identity).await)
    }

    async fn channel(&self, ca_pem: &str, identity: Option<&Member>) -> Channel {
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name(COORDINATOR_DNS);
        if let Some(member) = identity {
            tls = tls.identity(Identity::from_pem(&member.reply.certificate_pem, &member.key_pem));
        }
        let url = format!("https://{}", self.ready.cluster_address);
        let endpoint = Endpoint::from_shared(url).expect("a URL").tls_config(tls).expect("TLS");
        endpoint.connect().await.expect("connects")
    }

    async fn log_index(&self) -> u64 {
        let mut stream = TcpStream::connect(self.ready.api).await.expect("connects");
        let head = "GET /api/v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
        status["coordinator"]["applied_index"].as_u64().expect("a number")
    }

    /// The CA that the coordinator presents to a joiner, checked against the token.
    async fn ca_pem(&self) -> String {
        let tls = proto::tls::joining_client(&self.ready.join_token).expect("TLS");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let tcp = TcpStream::connect(self.ready.cluster_address).await.expect("connects");
        let name = COORDINATOR_DNS.try_into().expect("a name");
        let stream = connector.connect(name, tcp).await.expect("the pinned cluster");
        let chain = stream.get_ref().1.peer_certificates().expect("a chain");
        let body = STANDARD.encode(chain.get(1).expect("leaf and CA"));
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    /// The token that the coordinator keeps for machines that become coordinators.
    fn coordinators_token(&self) -> JoinToken {
        let file = self.home.path().join("coordinator-join-token");
        std::fs::read_to_string(file).expect("written at the start").parse().expect("a token")
    }

    async fn join(&self, token: &JoinToken) -> Result<Member, Status> {
        self.join_speaking(token, Some(server::NEWEST_VERSION)).await
    }

    async fn join_speaking(&self, token: &JoinToken, speaks: Option<u32>) -> Result<Member, Status> {
        let key = KeyPair::generate().expect("a key");
        let mut client = self.client(&self.ca_pem().await, None).await;
        let request = JoinRequest { speaks, ..signing_request(token, &key) };
        let reply = client.join(request).await?.into_inner();
        Ok(Member { reply, key_pem: key.serialize_pem() })
    }
}

fn signing_request(token: &JoinToken, key: &KeyPair) -> JoinRequest {
    let csr = CertificateParams::default().serialize_request(key).expect("a request");
    JoinRequest {
        token_id: token.id.clone(),
        secret: token.secret.clone(),
        csr_pem: csr.pem().expect("PEM"),
        name: "mini-07".to_owned(),
        speaks: None,
    }
}

fn renewal(key_pem: &str) -> RenewRequest {
    let key = KeyPair::from_pem(key_pem).expect("a key");
    let csr = CertificateParams::default().serialize_request(&key).expect("a request");
    RenewRequest { csr_pem: csr.pem().expect("PEM") }
}

async fn session(
    client: &mut ClusterClient<Channel>,
    first: AgentMessage,
) -> Result<(mpsc::Sender<AgentMessage>, Streaming<CoordinatorMessage>), Status> {
    let (sender, messages) = mpsc::channel(8);
    sender.send(first).await.expect("room");
    let orders = client.session(ReceiverStream::new(messages)).await?.into_inner();
    Ok((sender, orders))
}

fn hello(offers: &[&str]) -> AgentMessage {
    let offer = |name: &&str| WantedModel {
        model: (*name).to_owned(),
        source: Some(ModelSource { source: Some(Source::Hub((*name).to_owned())) }),
        offered_only: false,
    };
    let hello = AgentHello {
        name: "mini-07".to_owned(),
        offers: offers.iter().map(offer).collect(),
        ..AgentHello::default()
    };
    AgentMessage { message: Some(agent_message::Message::Hello(hello)) }
}

async fn wanted(orders: &mut Streaming<CoordinatorMessage>) -> Vec<String> {
    loop {
        let order = orders.message().await.expect("the session lives").expect("an order");
        if let Some(coordinator_message::Message::Wanted(wanted)) = order.message {
            return wanted.models.into_iter().map(|model| model.model).collect();
        }
    }
}

#[tokio::test]
async fn a_member_opens_a_session_and_hears_what_is_wanted() {
    let room = Room::open().await;
    let member = room.join(&room.ready.join_token).await.expect("joins");
    let mut client = room.client(&member.reply.ca_certificate_pem, Some(&member)).await;
    let (_sender, mut orders) = session(&mut client, hello(&["a/b", "c"])).await.expect("a session");
    assert_eq!(wanted(&mut orders).await, ["a/b", "c"]);
}

#[tokio::test]
async fn what_is_wanted_survives_a_restart_and_an_agent_without_offers_hears_it() {
    let room = Room::open().await;
    let member = room.join(&room.ready.join_token).await.expect("joins");
    let mut client = room.client(&member.reply.ca_certificate_pem, Some(&member)).await;
    let (_sender, mut orders) = session(&mut client, hello(&["a/b"])).await.expect("a session");
    assert_eq!(wanted(&mut orders).await, ["a/b"]);
    let (before, home) = (room.ready.clone(), room.close().await);
    let room = Room::at(home).await;
    assert_eq!(room.ready.cluster, before.cluster);
    assert_eq!(room.ready.join_token, before.join_token, "a token that lasts is kept");
    let mut client = room.client(&member.reply.ca_certificate_pem, Some(&member)).await;
    let (_sender, mut orders) = session(&mut client, hello(&[])).await.expect("a session");
    assert_eq!(wanted(&mut orders).await, ["a/b"]);
}

#[tokio::test]
async fn nobody_without_a_certificate_opens_a_session_or_sends_a_card() {
    let room = Room::open().await;
    let mut client = room.client(&room.ca_pem().await, None).await;
    let refused = session(&mut client, hello(&[])).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let card =
        client.put_model_card(tokio_stream::iter([ModelCardChunk::default()])).await.expect_err("refused");
    assert_eq!(card.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_token_get_the_same_refusal() {
    let room = Room::open().await;
    let good = &room.ready.join_token;
    let wrong = JoinToken { secret: vec![0; good.secret.len()], ..good.clone() };
    let unknown = JoinToken { id: "nosuchtoken".to_owned(), ..good.clone() };
    for token in [wrong, unknown] {
        let refused = room.join(&token).await.err().expect("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_opens_nothing() {
    let (ours, theirs) = (Room::open().await, Room::open().await);
    let stranger = theirs.join(&theirs.ready.join_token).await.expect("joins there");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ours.ca_pem().await))
        .domain_name(COORDINATOR_DNS)
        .identity(Identity::from_pem(&stranger.reply.certificate_pem, &stranger.key_pem));
    let url = format!("https://{}", ours.ready.cluster_address);
    let endpoint = Endpoint::from_shared(url).expect("a URL").tls_config(tls).expect("TLS");
    // With TLS 1.3 the refusal reaches a client with its first read, so the connection or the call fails.
    if let Ok(channel) = endpoint.connect().await {
        let refused = session(&mut ClusterClient::new(channel), hello(&[])).await;
        assert!(refused.is_err());
    }
}

#[tokio::test]
async fn a_session_begins_with_a_hello_and_offers_are_checked() {
    let room = Room::open().await;
    let member = room.join(&room.ready.join_token).await.expect("joins");
    let mut client = room.client(&member.reply.ca_certificate_pem, Some(&member)).await;
    let empty = session(&mut client, AgentMessage::default()).await.expect_err("refused");
    assert_eq!(empty.code(), Code::InvalidArgument);
    let path = session(&mut client, hello(&["../../etc"])).await.expect_err("refused");
    assert_eq!(path.code(), Code::InvalidArgument);
    let (_sender, mut orders) = session(&mut client, hello(&[])).await.expect("a good one still works");
    assert_eq!(wanted(&mut orders).await, [""; 0]);
}

#[tokio::test]
async fn a_card_with_a_foreign_file_or_a_wrong_digest_is_refused() {
    let room = Room::open().await;
    let member = room.join(&room.ready.join_token).await.expect("joins");
    let mut client = room.client(&member.reply.ca_certificate_pem, Some(&member)).await;
    let chunk = |file: &str| ModelCardChunk {
        card_digest: "a".repeat(64),
        file: file.to_owned(),
        data: bytes::Bytes::from_static(b"{}"),
    };
    for file in ["../x", "tokenizer.json"] {
        let refused = client.put_model_card(tokio_stream::iter([chunk(file)])).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{file}");
    }
}

#[tokio::test]
async fn two_coordinators_cannot_share_a_folder() {
    let room = Room::open().await;
    let config = config(room.home.path());
    let (sender, _ready) = oneshot::channel();
    let refused = server::run(config, sender, CancellationToken::new()).await.expect_err("refused");
    assert!(format!("{refused:#}").contains("use"), "{refused:#}");
}

#[tokio::test]
async fn a_node_renews_its_certificate_under_the_one_it_has_and_with_its_key_alone() {
    let room = Room::open().await;
    let member = room.join(&room.ready.join_token).await.expect("joins");
    let ca = &member.reply.ca_certificate_pem;
    for shown in [Some(&member), None] {
        let mut client = room.client(ca, shown).await;
        let renewed = client.renew(renewal(&member.key_pem)).await.expect("renewed").into_inner();
        assert_ne!(renewed.certificate_pem, member.reply.certificate_pem);
        let reply = JoinReply { certificate_pem: renewed.certificate_pem, ..member.reply.clone() };
        let again = Member { reply, key_pem: member.key_pem.clone() };
        let mut client = room.client(ca, Some(&again)).await;
        session(&mut client, hello(&[])).await.expect("the same node");
    }
}

#[tokio::test]
async fn nobody_renews_for_a_key_that_is_not_known_or_for_another_node() {
    let room = Room::open().await;
    let (one, two) = (room.join(&room.ready.join_token).await, room.join(&room.ready.join_token).await);
    let (one, two) = (one.expect("joins"), two.expect("joins"));
    let ca = one.reply.ca_certificate_pem.clone();
    let stranger = KeyPair::generate().expect("a key").serialize_pem();
    for (shown, key, code) in [
        (None, &stranger, Code::PermissionDenied),
        (Some(&one), &stranger, Code::PermissionDenied),
        (Some(&one), &two.key_pem, Code::PermissionDenied),
    ] {
        let refused = room.client(&ca, shown).await.renew(renewal(key)).await.expect_err("refused");
        assert_eq!(refused.code(), code, "{refused}");
    }
    let nonsense = RenewRequest { csr_pem: "nonsense".to_owned() };
    let refused = room.client(&ca, Some(&one)).await.renew(nonsense).await.expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

/// Every call but joining and renewing, by callers of every wrong kind.
#[tokio::test]
async fn each_call_is_refused_to_a_caller_of_another_role_and_to_one_without_a_certificate() {
    let room = Room::open().await;
    let agent = room.join(&room.ready.join_token).await.expect("joins");
    let coordinator = room.join(&room.coordinators_token()).await.expect("joins");
    let ca = agent.reply.ca_certificate_pem.clone();
    for (caller, code) in [(None, Code::Unauthenticated), (Some(&agent), Code::PermissionDenied)] {
        let mut client = room.client(&ca, caller).await;
        let enlist = client.enlist(EnlistRequest::default()).await.expect_err("refused");
        let desk = client.desk(tokio_stream::iter([DeskMessage::default()])).await.expect_err("refused");
        let look = client.look(LookRequest::default()).await.expect_err("refused");
        // Somebody without a certificate has only a few calls on one connection.
        let mut client = room.client(&ca, caller).await;
        let keep = client.keep_answer(KeepAnswerRequest::default()).await.expect_err("refused");
        let fetch = client.fetch_answer(FetchAnswerRequest::default()).await.expect_err("refused");
        let ask = client.ask_run(AskRunRequest::default()).await.expect_err("refused");
        for refused in [enlist, desk, look, keep, fetch, ask] {
            assert_eq!(refused.code(), code, "{refused}");
        }
    }
    for (caller, code) in [(None, Code::Unauthenticated), (Some(&coordinator), Code::PermissionDenied)] {
        let mut client = room.client(&ca, caller).await;
        let refused = session(&mut client, hello(&[])).await.expect_err("refused");
        let card = client.put_model_card(tokio_stream::iter([ModelCardChunk::default()])).await;
        assert_eq!((refused.code(), card.expect_err("refused").code()), (code, code));
    }
}

#[tokio::test]
async fn an_answer_that_does_not_have_its_digest_is_not_kept() {
    let room = Room::open().await;
    let coordinator = room.join(&room.coordinators_token()).await.expect("joins");
    let mut client = room.client(&coordinator.reply.ca_certificate_pem, Some(&coordinator)).await;
    let digest = vec![7; 32];
    let answer = bytes::Bytes::from_static(b"an answer");
    for (digest, answer) in [(digest.clone(), answer.clone()), (vec![7; 31], answer)] {
        let refused = client
            .keep_answer(KeepAnswerRequest { digest, answer, piece: false })
            .await
            .expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let fetched =
        client.fetch_answer(FetchAnswerRequest { digest, piece: false }).await.expect("asked").into_inner();
    assert_eq!(fetched.answer, None);
    let run = client.ask_run(AskRunRequest { life: 1, number: 1 }).await.expect("asked").into_inner();
    assert!(!run.goes_on, "nobody began it here");
    let answers = room.home.path().join("answers");
    assert_eq!(std::fs::read_dir(answers).expect("a folder").count(), 0);
}

#[tokio::test]
async fn what_a_stranger_says_is_not_written_down_to_be_refused() {
    let room = Room::open().await;
    room.join(&room.ready.join_token).await.expect("joins");
    let before = room.log_index().await;
    let token = &room.ready.join_token;
    for (id, secret) in [
        ("unknown", token.secret.clone()),
        (&*"a".repeat(50_000), token.secret.clone()),
        ("no id at all", token.secret.clone()),
        (&*token.id, vec![7; 24]),
        (&*token.id, vec![7; 50_000]),
    ] {
        let token = JoinToken { id: id.to_owned(), secret, ..token.clone() };
        let refused = room.join(&token).await.err().expect("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().len() < 500, "it is told its own words");
    }
    let token = JoinToken { id: "a".repeat(100_000), ..token.clone() };
    room.join(&token).await.err().expect("nobody listens for so long");
    assert_eq!(room.log_index().await, before);
    room.close().await;
}

/// A new cluster is of the version that seals its key.
#[tokio::test]
async fn a_coordinator_that_does_not_speak_the_clusters_version_is_not_let_in() {
    let room = Room::open().await;
    let token = room.coordinators_token();
    let refused = room.join_speaking(&token, None).await.err().expect("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "this cluster speaks version 4; update mlx-serving on this machine");
    room.join_speaking(&room.ready.join_token, None).await.expect("an agent of the older release");

    let coordinator = room.join(&token).await.expect("joins");
    let mut client = room.client(&coordinator.reply.ca_certificate_pem, Some(&coordinator)).await;
    let subject = Some(proto::v1::look_request::Subject::Reached(true));
    let told = client.look(LookRequest { subject }).await.expect("told").into_inner();
    assert_eq!(told.speaks, Some(server::NEWEST_VERSION));
    let replica = coordinator.reply.node + 1;
    let set_back = EnlistRequest { address: "127.0.0.1:1".to_owned(), replica, speaks: Some(1), epoch: None };
    let refused = client.enlist(set_back).await.expect_err("refused");
    assert!(proto::standing::is_outdated(&refused), "{refused}");
    room.close().await;
}

#[tokio::test]
async fn only_a_coordinator_reaches_the_registrys_log() {
    let room = Room::open().await;
    let agent = room.join(&room.ready.join_token).await.expect("joins");
    let header = Some(proto::raft::Header { wire_version: 1, from: 1, to: 1, epoch: 0, speaks: 0 });
    for caller in [None, Some(&agent)] {
        let channel = room.channel(&agent.reply.ca_certificate_pem, caller).await;
        let mut replica = proto::raft::replica_client::ReplicaClient::new(channel);
        let command = br#"{"revoke_node":{"node":1}}"#.to_vec();
        let refused = replica.propose(proto::raft::ProposeRequest { header, command }).await;
        assert_eq!(refused.expect_err("refused").code(), Code::Unauthenticated);
    }
}
