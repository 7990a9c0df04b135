//! Token streams: one QUIC connection from each agent, one bidirectional stream for each attempt.
//!
//! Owns the endpoint, which connection belongs to which node, and reading frames in order. A node that comes under another authority
//! keeps the former connection until its answers there have ended. Refuses peers whose certificate
//! does not say `agent`, that were revoked or that have another node's number, and frames of a foreign attempt or out of sequence: both end that stream as a failure. Dropping an
//! [`AttemptStream`] sends STOP_SENDING, which is how a cancelled request reaches the runtime.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::BytesMut;
use proto::framing::{self, Decoder};
use proto::identity::{Identity, Role, issuer_of};
use proto::papers::Papers;
use proto::tls;
use proto::v1::{AttemptFrame, AttemptStart};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, IdleTimeout, Incoming, ReadError, RecvStream, ServerConfig,
    TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Largest piece taken from a stream at once.
const READ_BYTES: usize = 16 << 10;

/// What the endpoint tells the leader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Up { node: u64 },
    Down { node: u64 },
}

/// What the registry says of the node behind a certificate, as of this moment.
pub(crate) type Judge = Arc<dyn Fn(u64, &CertificateDer<'_>) -> Verdict + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Or not known yet, here.
    Member,
    Revoked,
    /// The number is somebody else's.
    Another,
}

/// Why an attempt could not be opened or its stream broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the node has no connection here")]
    NotConnected,
    #[error("the node did not take the request in time")]
    Timeout,
    #[error("the connection to the node is lost")]
    Lost,
    #[error("the stream broke off: {0}")]
    Broken(String),
    #[error("what arrived makes no sense: {0}")]
    Garbled(String),
}

/// The connections of all agents.
#[derive(Clone)]
pub(crate) struct Streams {
    nodes: Arc<Mutex<BTreeMap<u64, Way>>>,
    /// Told of each new one.
    connected: Arc<Notify>,
    began: Instant,
}

impl Default for Streams {
    fn default() -> Self {
        Self { nodes: Arc::default(), connected: Arc::default(), began: Instant::now() }
    }
}

impl Streams {
    /// Is there a way to send this node an attempt?
    pub(crate) fn connected(&self, node: u64) -> bool {
        self.nodes().get(&node).is_some_and(|way| way.current.is_some())
    }

    /// Opens an attempt on a node: writes the request, then only listens.
    pub(crate) async fn open(&self, node: u64, start: &AttemptStart) -> Result<AttemptStream, StreamError> {
        let connection = self.connection(node).await.ok_or(StreamError::NotConnected)?;
        timeout(limits::OPEN_STREAM, Self::write_start(connection, start))
            .await
            .map_err(|_| StreamError::Timeout)?
    }

    /// Cuts a node off: it was revoked.
    pub(crate) fn disconnect(&self, node: u64) {
        for connection in self.nodes().get(&node).into_iter().flat_map(Way::all) {
            connection.close(VarInt::from_u32(1), b"removed from the cluster");
        }
    }

    /// Cuts every connection off that was made under another authority than this one.
    pub(crate) fn cut_all_but(&self, ca_certificate_pem: &str) {
        for connection in self.nodes().values().flat_map(Way::all) {
            if leaf(connection).is_none_or(|leaf| !tls::vouches(ca_certificate_pem, &leaf)) {
                connection.close(VarInt::from_u32(5), b"under an authority that is trusted no more");
            }
        }
    }

    /// The session of a node broke off, which is how the death of its process shows first. Unless something comes from it within a
    /// few keep-alives, its answers go on elsewhere.
    pub(crate) async fn doubt(&self, node: u64) {
        let Some(connection) = self.current(node) else { return };
        let heard = connection.stats().udp_rx.datagrams;
        sleep(limits::DOUBT).await;
        if connection.stats().udp_rx.datagrams == heard {
            tracing::info!(node, "silent since its session broke off: taken for dead");
            connection.close(VarInt::from_u32(4), b"silent since its session broke");
        }
    }

    /// The scheduler may know a node before this gateway does: while this one has just started, or the node has come back, it is on its
    /// way here. Later an attempt that waits holds a slot of the node for nothing, against the clients of all other gateways.
    async fn connection(&self, node: u64) -> Option<Connection> {
        let find = async {
            loop {
                let mut arrival = std::pin::pin!(self.connected.notified());
                // Before looking, so that nobody arrives unseen in between.
                arrival.as_mut().enable();
                if let Some(connection) = self.heard(node) {
                    return connection;
                }
                arrival.await;
            }
        };
        let lost = self.nodes().get(&node).and_then(|way| way.lost);
        timeout_at(lost.unwrap_or(self.began) + limits::AWAIT_NODE, find).await.ok()
    }

    async fn write_start(connection: Connection, start: &AttemptStart) -> Result<AttemptStream, StreamError> {
        let broken = |error: &dyn std::fmt::Display| StreamError::Broken(error.to_string());
        let (mut send, recv) = connection.open_bi().await.map_err(|_| StreamError::NotConnected)?;
        let mut bytes = BytesMut::new();
        framing::encode(start, &mut bytes);
        send.write_chunk(bytes.freeze()).await.map_err(|error| broken(&error))?;
        send.finish().map_err(|error| broken(&error))?;
        Ok(AttemptStream { recv, decoder: Decoder::default(), attempt: start.attempt, sequence: 0 })
    }

    /// Until it is closed. Notes meanwhile whether the agent is heard, whose keep-alives come twice a second.
    async fn follow(&self, node: u64, connection: &Connection) -> ConnectionError {
        let heard = || connection.stats().udp_rx.datagrams;
        let (mut last, mut since) = (heard(), Instant::now());
        let mut closed = std::pin::pin!(connection.closed());
        loop {
            tokio::select! {
                reason = &mut closed => return reason,
                () = sleep(limits::STREAM_KEEP_ALIVE) => {}
            }
            if heard() != last {
                (last, since) = (heard(), Instant::now());
            }
            self.note(node, connection, since.elapsed() >= limits::DOUBT);
        }
    }

    fn note(&self, node: u64, connection: &Connection, silent: bool) {
        let mut nodes = self.nodes();
        let way = nodes.get_mut(&node).filter(|way| way.is_current(connection));
        way.into_iter().for_each(|way| way.silent = silent);
    }

    /// The way to a node that is not silent.
    fn heard(&self, node: u64) -> Option<Connection> {
        self.nodes().get(&node).filter(|way| !way.silent)?.current.clone()
    }

    fn current(&self, node: u64) -> Option<Connection> {
        self.nodes().get(&node)?.current.clone()
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Way>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest connection of a node wins: an agent that dials again has given up the old one, unless it does so because another
    /// authority signs; then it closes that itself when nothing runs there any more.
    fn connect(&self, node: u64, connection: &Connection) {
        let mut nodes = self.nodes();
        let way = nodes.entry(node).or_default();
        way.silent = false;
        if let Some(old) = way.current.replace(connection.clone()) {
            if issuer(&old) == issuer(connection) {
                old.close(VarInt::from_u32(2), b"replaced by a newer connection");
            } else {
                way.retired.push(old);
            }
        }
        if way.retired.len() > limits::RETIRED_CONNECTIONS {
            way.retired.remove(0).close(VarInt::from_u32(2), b"replaced by newer connections");
        }
        drop(nodes);
        self.connected.notify_waiters();
    }

    /// True when `connection` was still the node's current one.
    fn forget(&self, node: u64, connection: &Connection) -> bool {
        let mut nodes = self.nodes();
        let Some(way) = nodes.get_mut(&node) else { return false };
        way.retired.retain(|kept| kept.stable_id() != connection.stable_id());
        let current = way.is_current(connection);
        if current {
            (way.current, way.lost) = (None, Some(Instant::now()));
        }
        nodes.retain(|_, way| way.all().next().is_some() || way.lost.is_some_and(is_late));
        current
    }
}

/// The connections of one node.
#[derive(Default)]
struct Way {
    current: Option<Connection>,
    /// Of a former authority: their answers run on.
    retired: Vec<Connection>,
    /// Nothing came from it of late: what is there may go on, and nothing new is sent there.
    silent: bool,
    /// When the last one that was current ended.
    lost: Option<Instant>,
}

/// Whether an agent that was lost then may be on its way back.
fn is_late(lost: Instant) -> bool {
    lost.elapsed() < limits::AWAIT_NODE
}

impl Way {
    fn is_current(&self, connection: &Connection) -> bool {
        self.current.as_ref().is_some_and(|kept| kept.stable_id() == connection.stable_id())
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        self.current.iter().chain(&self.retired)
    }
}

/// The answer side of one attempt.
pub(crate) struct AttemptStream {
    recv: RecvStream,
    decoder: Decoder,
    attempt: u32,
    sequence: u32,
}

impl AttemptStream {
    /// The next frame. Cancel-safe: bytes already read stay in the decoder.
    pub(crate) async fn next(&mut self) -> Result<AttemptFrame, StreamError> {
        loop {
            let decoded = self.decoder.next_message::<AttemptFrame>();
            if let Some(frame) = decoded.map_err(|error| StreamError::Garbled(error.to_string()))? {
                return self.in_order(frame);
            }
            let chunk = self.recv.read_chunk(READ_BYTES, true).await;
            match chunk.map_err(read_error)? {
                Some(chunk) => self.decoder.push(&chunk.bytes),
                None => return Err(StreamError::Broken("it ended without a finish".to_owned())),
            }
        }
    }

    fn in_order(&mut self, frame: AttemptFrame) -> Result<AttemptFrame, StreamError> {
        if frame.attempt != self.attempt || frame.sequence != self.sequence {
            return Err(StreamError::Garbled(format!(
                "expected frame {} of attempt {}, got {} of {}",
                self.sequence, self.attempt, frame.sequence, frame.attempt
            )));
        }
        self.sequence += 1;
        Ok(frame)
    }
}

fn read_error(error: ReadError) -> StreamError {
    match error {
        ReadError::ConnectionLost(_) => StreamError::Lost,
        ReadError::Reset(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => StreamError::Broken(error.to_string()),
    }
}

/// Binds the endpoint and accepts agents until `stop`.
pub(crate) fn listen(
    address: SocketAddr,
    papers: &Papers,
    streams: Streams,
    judge: Judge,
    links: mpsc::Sender<Link>,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let endpoint = Endpoint::server(server_config(papers)?, address)
        .with_context(|| format!("binding UDP {address} for token streams"))?;
    let bound = endpoint.local_addr().context("reading the bound UDP address")?;
    tokio::spawn(async move {
        while let Some(Some(incoming)) = stop.run_until_cancelled(endpoint.accept()).await {
            tokio::spawn(serve(incoming, streams.clone(), Arc::clone(&judge), links.clone()));
        }
        endpoint.close(VarInt::from_u32(0), b"shutting down");
        endpoint.wait_idle().await;
    });
    Ok(bound)
}

async fn serve(incoming: Incoming, streams: Streams, judge: Judge, links: mpsc::Sender<Link>) {
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a token stream handshake failed"),
    };
    let (node, leaf) = match peer(&connection) {
        Ok((Identity { role: Role::Agent, node }, leaf)) => (node, leaf),
        Ok((Identity { role: Role::Coordinator, .. }, _)) | Err(_) => {
            tracing::warn!(peer = %connection.remote_address(), "refused a token stream: not an agent's certificate");
            return connection.close(VarInt::from_u32(3), b"only agents connect here");
        }
    };
    // Before it takes the place of the one whose number it is.
    if judge(node, &leaf) == Verdict::Another {
        tracing::warn!(node, "refused a token stream: the number was given to another machine");
        return connection.close(VarInt::from_u32(6), b"the number is another machine's");
    }
    streams.connect(node, &connection);
    // Asked when it is on the list, so that nobody is revoked unseen in between.
    if judge(node, &leaf) == Verdict::Revoked {
        tracing::info!(node, "refused a token stream: the node was revoked");
        streams.disconnect(node);
        streams.forget(node, &connection);
        return;
    }
    tracing::info!(node, peer = %connection.remote_address(), "token streams connected");
    let _ = links.send(Link::Up { node }).await;
    let reason = streams.follow(node, &connection).await;
    if streams.forget(node, &connection) {
        tracing::info!(node, %reason, "token streams lost");
        let _ = links.send(Link::Down { node }).await;
    }
}

fn peer(connection: &Connection) -> anyhow::Result<(Identity, CertificateDer<'static>)> {
    let leaf = leaf(connection).context("no certificate")?;
    Ok((Identity::from_leaf(&leaf)?, leaf))
}

fn leaf(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

fn issuer(connection: &Connection) -> Option<Vec<u8>> {
    issuer_of(&leaf(connection)?).ok()
}

fn server_config(papers: &Papers) -> anyhow::Result<ServerConfig> {
    let tls = QuicServerConfig::try_from(papers.stream_server()?).context("TLS for QUIC")?;
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::try_from(limits::STREAM_IDLE)?));
    transport.keep_alive_interval(Some(limits::STREAM_KEEP_ALIVE));
    transport.stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW_BYTES));
    // Agents never open streams; only they answer on ours.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

#[cfg(test)]
pub(crate) mod tests;
