//! Where agents and other coordinators come in: TCP, TLS, and who each connection belongs to.
//!
//! Owns the handshake under this coordinator's own papers, the list of those who are inside, and cutting the connections of those
//! that were revoked, and of those that came under an authority that is trusted no more, on which everything they do here runs: sessions, desks, the registry's log. Refuses to read a request: each
//! call is checked again, by `sessions.rs` and by [`gate`].

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Context as _;
use proto::identity::Identity;
use proto::papers::Papers;
use proto::{standing, tls};
use registry::Registry;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use crate::{limits, members, trust};

/// What a person reads on the machine that was revoked.
pub(crate) const REVOKED: &str = "this machine was removed from the cluster (its membership was revoked)";

/// Who a call comes from, as the handshake found it: with every request that arrives on the connection.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// `None`: no certificate was shown, or one that names nobody.
    pub(crate) identity: Option<Identity>,
    /// The certificate.
    pub(crate) leaf: Option<Leaf>,
}

pub(crate) type Leaf = Arc<CertificateDer<'static>>;

/// The connections that are open.
#[derive(Clone)]
pub(crate) struct Guests {
    facts: watch::Receiver<Arc<Registry>>,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    last: u64,
    guests: BTreeMap<u64, Inmate>,
}

struct Inmate {
    identity: Identity,
    leaf: Leaf,
    cut: CancellationToken,
}

impl Guests {
    pub(crate) fn new(facts: watch::Receiver<Arc<Registry>>) -> Self {
        Self { facts, inside: Arc::default() }
    }

    /// Cuts whoever is revoked, a moment after the registry says so: what runs on the connection has been told why by then. And
    /// whoever came under an authority that has ended, of which there are none but those that were given up.
    pub(crate) async fn watch(self) {
        let mut facts = self.facts.clone();
        let mut step = None;
        loop {
            let registry = facts.borrow_and_update().clone();
            let mut barred = self.revoked(&registry);
            let before = std::mem::replace(&mut step, registry.cluster().map(trust::step_of));
            if before != step {
                barred.extend(self.strangers(&registry));
            }
            if !barred.is_empty() {
                sleep(limits::LAST_WORD).await;
                barred.iter().for_each(CancellationToken::cancel);
            }
            if facts.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_revoked(&self, identity: Identity) -> bool {
        members::is_revoked(&self.facts.borrow(), identity)
    }

    fn revoked(&self, registry: &Registry) -> Vec<CancellationToken> {
        let inside = self.lock();
        let revoked = inside.guests.values().filter(|guest| members::is_revoked(registry, guest.identity));
        revoked.map(|guest| guest.cut.clone()).collect()
    }

    fn strangers(&self, registry: &Registry) -> Vec<CancellationToken> {
        let Some(only) = trust::only(registry) else { return Vec::new() };
        let inside = self.lock();
        let strangers = inside.guests.values().filter(|guest| !tls::vouches(only, &guest.leaf));
        strangers.map(|guest| guest.cut.clone()).collect()
    }

    /// Returns the way to cut the connection, and what takes it off the list.
    fn enter(&self, caller: &Caller) -> (CancellationToken, Option<Place>) {
        let cut = CancellationToken::new();
        let (Some(identity), Some(leaf)) = (caller.identity, &caller.leaf) else { return (cut, None) };
        let mut inside = self.lock();
        inside.last += 1;
        let number = inside.last;
        inside.guests.insert(number, Inmate { identity, leaf: Arc::clone(leaf), cut: cut.clone() });
        drop(inside);
        // One that comes back after it was revoked hears why, and no more.
        if self.is_revoked(identity) {
            let cut = cut.clone();
            tokio::spawn(async move {
                sleep(limits::LAST_WORD).await;
                cut.cancel();
            });
        }
        (cut, Some(Place { guests: self.clone(), number }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On the list as long as it lives.
struct Place {
    guests: Guests,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guests.lock().guests.remove(&self.number);
    }
}

/// Refuses every call of a node that was revoked, whatever it asks for.
pub(crate) fn gate(guests: Guests) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| match request.extensions().get::<Caller>() {
        Some(Caller { identity: Some(identity), .. }) if guests.is_revoked(*identity) => {
            Err(standing::revoked(REVOKED))
        }
        Some(_) | None => Ok(request),
    }
}

/// Accepts connections for as long as somebody takes them.
pub(crate) fn open(
    listener: TcpListener,
    papers: &Papers,
    guests: Guests,
) -> anyhow::Result<ReceiverStream<io::Result<Guest>>> {
    let config = papers.control_server().context("TLS for agents and coordinators")?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (inside, taken) = mpsc::channel(limits::HANDSHAKES);
    tokio::spawn(async move {
        let left = inside.clone();
        tokio::select! {
            () = accept(&listener, &acceptor, &guests, &inside) => {}
            () = left.closed() => {}
        }
    });
    Ok(ReceiverStream::new(taken))
}

async fn accept(
    listener: &TcpListener,
    acceptor: &TlsAcceptor,
    guests: &Guests,
    inside: &mpsc::Sender<io::Result<Guest>>,
) {
    let places = Arc::new(Semaphore::new(limits::HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let (acceptor, guests) = (acceptor.clone(), guests.clone());
                tokio::spawn(greet(tcp, acceptor, guests, inside.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting an agent or a coordinator failed");
                sleep(limits::ACCEPT_BREATH).await;
            }
        }
    }
}

/// Holds its place among the handshakes until the connection has been taken.
async fn greet(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    guests: Guests,
    inside: mpsc::Sender<io::Result<Guest>>,
    _place: OwnedSemaphorePermit,
) {
    let _ = tcp.set_nodelay(true);
    let stream = match timeout(limits::HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake took too long"),
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = leaf.and_then(|leaf| Identity::from_leaf(leaf).ok());
    let caller = Caller { identity, leaf: leaf.map(|leaf| Arc::new(leaf.clone().into_owned())) };
    let (cut, place) = guests.enter(&caller);
    let guest = Guest { tls: stream, cut: Box::pin(cut.cancelled_owned()), caller, _place: place };
    // Nobody takes it any more: the coordinator stops.
    let _ = inside.send(Ok(guest)).await;
}

/// One connection that came in.
pub(crate) struct Guest {
    tls: TlsStream<TcpStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    caller: Caller,
    _place: Option<Place>,
}

impl Connected for Guest {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Guest {
    /// HTTP/2 always reads, so an error here ends all that runs on the connection.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it was cut")));
        }
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
