//! The cables between replicas in one process: real tonic over loopback, or in a simulated night over streams in memory, where
//! each direction between two replicas can be cut, slowed, or torn out.
//!
//! A cut direction holds bytes back, as a network that drops packets does: TCP repeats them, and they arrive when it is healed.
//! Addresses are names that a replica takes when it starts, so that one that restarts on another port is found again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::Extensions;
use tonic::transport::server::{Connected, Server};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::clock::Clock;
use crate::dial::Dial;
use crate::options::ReplicaId;
use crate::{Consensus, WhoIs};

#[derive(Clone, Default)]
pub(super) struct Net {
    state: Arc<watch::Sender<State>>,
    dials: Arc<AtomicU64>,
    /// No sockets, and each message takes its time by this clock.
    clock: Option<Clock>,
}

#[derive(Clone, Default)]
struct State {
    hosts: BTreeMap<String, Host>,
    cut: BTreeSet<(u64, u64)>,
    delay: BTreeMap<(u64, u64), Duration>,
    /// Grows when all cables of a replica are torn out.
    lives: BTreeMap<u64, u64>,
    /// Grows when the cables between two replicas, the lower id first, are.
    torn: BTreeMap<(u64, u64), u64>,
}

/// Where a replica is reached.
#[derive(Clone)]
enum Host {
    Socket(SocketAddr),
    Memory(mpsc::Sender<Cable>),
}

impl State {
    /// The same for as long as a cable between the two lasts.
    fn life(&self, from: u64, to: u64) -> [u64; 3] {
        let life = |replica| self.lives.get(&replica).copied().unwrap_or(0);
        [life(from), life(to), self.torn.get(&(from.min(to), from.max(to))).copied().unwrap_or(0)]
    }
}

impl Net {
    pub(super) fn on_clock(clock: Clock) -> Net {
        Net { clock: Some(clock), ..Net::default() }
    }

    /// Holds back what `from` sends to `to`.
    pub(super) fn cut(&self, from: u64, to: u64) {
        self.state.send_modify(|state| {
            state.cut.insert((from, to));
        });
    }

    /// Holds back everything between one replica and all others of `group`.
    pub(super) fn isolate(&self, replica: u64, group: impl IntoIterator<Item = u64>) {
        for other in group.into_iter().filter(|other| *other != replica) {
            self.cut(replica, other);
            self.cut(other, replica);
        }
    }

    pub(super) fn delay(&self, from: u64, to: u64, by: Duration) {
        self.state.send_modify(|state| {
            state.delay.insert((from, to), by);
        });
    }

    pub(super) fn heal(&self) {
        self.state.send_modify(|state| {
            state.cut.clear();
            state.delay.clear();
        });
    }

    /// Ends every connection from and to a replica, at both ends.
    pub(super) fn tear_out(&self, replica: u64) {
        self.state.send_modify(|state| *state.lives.entry(replica).or_default() += 1);
    }

    /// Ends every connection between two replicas, at both ends.
    pub(super) fn tear(&self, one: u64, other: u64) {
        self.state.send_modify(|state| *state.torn.entry((one.min(other), one.max(other))).or_default() += 1);
    }

    /// Nobody answers at this address any more.
    pub(super) fn forget(&self, address: &str) {
        self.state.send_modify(|state| {
            state.hosts.remove(address);
        });
    }

    /// Who answered at `from` answers at `to` instead.
    pub(super) fn rename(&self, from: &str, to: &str) {
        self.state.send_modify(|state| {
            let at = state.hosts.remove(from).unwrap();
            state.hosts.insert(to.to_owned(), at);
        });
    }

    /// How often anybody dialled.
    pub(super) fn dials(&self) -> u64 {
        self.dials.load(Ordering::Relaxed)
    }

    pub(super) fn dialler(&self, from: u64) -> Arc<dyn Dial> {
        Arc::new(TestDial { net: self.clone(), from })
    }

    /// Serves a replica under the name `address` until the handle is aborted.
    pub(super) async fn serve(&self, consensus: &Consensus, address: &str) -> JoinHandle<()> {
        self.serve_as(consensus, address, caller).await
    }

    pub(super) async fn serve_as(
        &self,
        consensus: &Consensus,
        address: &str,
        who_is: WhoIs,
    ) -> JoinHandle<()> {
        let (accepted, incoming) = mpsc::channel(16);
        let listener = match &self.clock {
            None => Some(TcpListener::bind("127.0.0.1:0").await.unwrap()),
            Some(_) => None,
        };
        let at = match &listener {
            Some(listener) => Host::Socket(listener.local_addr().unwrap()),
            None => Host::Memory(accepted.clone()),
        };
        self.state.send_modify(|state| {
            state.hosts.insert(address.to_owned(), at);
        });
        let service = consensus.service(who_is);
        tokio::spawn(async move {
            let incoming = futures_util::stream::unfold(incoming, |mut incoming| async {
                Some((Ok::<_, std::io::Error>(incoming.recv().await?), incoming))
            });
            // Ends with this task.
            let mut accepting = JoinSet::new();
            if let Some(listener) = listener {
                accepting.spawn(accept(listener, accepted));
            }
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        })
    }

    /// Returns when what `from` sends would reach `to`; never if the cable was torn out.
    async fn passes(&self, from: u64, to: u64) {
        let delay = self.state.borrow().delay.get(&(from, to)).copied();
        if let Some(clock) = &self.clock {
            clock.note(format_args!("{from} to {to}"));
            // A switch, and now and then an access point.
            let usual = if clock.below(8) == 0 { clock.below(12) } else { clock.below(2) };
            if usual > 0 {
                tokio::time::sleep(Duration::from_millis(usual)).await;
            }
        }
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let mut state = self.state.subscribe();
        state.wait_for(|state| !state.cut.contains(&(from, to))).await.unwrap();
    }

    /// Carries bytes one way until either end closes or is torn out.
    async fn carry(
        self,
        mut source: impl AsyncRead + Unpin,
        mut sink: impl AsyncWrite + Unpin,
        from: u64,
        to: u64,
    ) {
        let mut state = self.state.subscribe();
        let life = state.borrow().life(from, to);
        let carrying = async {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = source.read(&mut buffer).await {
                self.passes(from, to).await;
                if sink.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = carrying => {}
            _ = state.wait_for(|state| state.life(from, to) != life) => {}
        }
    }
}

async fn accept(listener: TcpListener, accepted: mpsc::Sender<Cable>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let Ok(from) = stream.read_u64().await else { return };
            accepted.send(Cable { stream: Box::new(stream), from: ReplicaId(from) }).await.ok();
        });
    }
}

struct TestDial {
    net: Net,
    from: u64,
}

impl Dial for TestDial {
    fn dial(&self, replica: ReplicaId, address: &str) -> BoxFuture<'static, Result<Channel, String>> {
        let (net, from, to, address) = (self.net.clone(), self.from, replica.0, address.to_owned());
        net.dials.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let endpoint = Endpoint::from_static("http://replica");
            let connector = service_fn(move |_| connect(net.clone(), from, to, address.clone()));
            endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))
        })
    }
}

async fn connect(
    net: Net,
    from: u64,
    to: u64,
    address: String,
) -> std::io::Result<TokioIo<tokio::io::DuplexStream>> {
    net.passes(from, to).await;
    net.passes(to, from).await;
    let at = net.state.borrow().hosts.get(&address).cloned();
    let at = at.ok_or_else(|| std::io::Error::other(format!("nobody is called {address}")))?;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (far_read, far_write) = tokio::io::split(far);
    let (read, write) = tokio::io::split(reach(at, from).await?);
    tokio::spawn(net.clone().carry(far_read, write, from, to));
    tokio::spawn(net.carry(read, far_write, to, from));
    Ok(TokioIo::new(near))
}

/// The near end of a cable to a replica, which knows from here on whose it is.
async fn reach(at: Host, from: u64) -> std::io::Result<Box<dyn Stream>> {
    match at {
        Host::Socket(at) => {
            let mut stream = TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            stream.write_u64(from).await?;
            Ok(Box::new(stream))
        }
        Host::Memory(accepted) => {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let cable = Cable { stream: Box::new(far), from: ReplicaId(from) };
            accepted.send(cable).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near))
        }
    }
}

/// The accepted end of a connection, which knows whose it is as a certificate would.
pub(super) struct Cable {
    stream: Box<dyn Stream>,
    from: ReplicaId,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Clone)]
pub(super) struct Caller(ReplicaId);

pub(super) fn caller(extensions: &Extensions) -> Option<ReplicaId> {
    extensions.get::<Caller>().map(|caller| caller.0)
}

impl Connected for Cable {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller(self.from)
    }
}

impl AsyncRead for Cable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
