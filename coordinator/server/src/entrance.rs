//! Where agents and other coordinators come in: TCP, TLS, and who each connection belongs to.
//!
//! Owns the handshake under this coordinator's own papers, the list of those who are inside, and cutting the connections of those
//! that were revoked, on which everything they do here runs: sessions, desks, the registry's log. Refuses to read a request: each
//! call is checked again, by `sessions.rs` and by [`gate`].

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Context as _;
use proto::identity::Identity;
use proto::papers::Papers;
use proto::standing;
use registry::Registry;
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

use crate::{limits, members};

/// What a person reads on the machine that was revoked.
pub(crate) const REVOKED: &str = "this machine was removed from the cluster (its membership was revoked)";

/// Who a call comes from, as the handshake found it: with every request that arrives on the connection.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// `None`: no certificate was shown, or one that names nobody.
    pub(crate) identity: Option<Identity>,
}

/// The connections that are open.
#[derive(Clone)]
pub(crate) struct Guests {
    facts: watch::Receiver<Arc<Registry>>,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    last: u64,
    guests: BTreeMap<u64, (Identity, CancellationToken)>,
}

impl Guests {
    pub(crate) fn new(facts: watch::Receiver<Arc<Registry>>) -> Self {
        Self { facts, inside: Arc::default() }
    }

    /// Cuts whoever is revoked, a moment after the registry says so: what runs on the connection has been told why by then.
    pub(crate) async fn watch(self) {
        let mut facts = self.facts.clone();
        loop {
            let registry = facts.borrow_and_update().clone();
            let revoked = self.revoked(&registry);
            if !revoked.is_empty() {
                sleep(limits::LAST_WORD).await;
                revoked.iter().for_each(CancellationToken::cancel);
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
        let revoked = inside.guests.values().filter(|(identity, _)| members::is_revoked(registry, *identity));
        revoked.map(|(_, cut)| cut.clone()).collect()
    }

    /// Returns the way to cut the connection, and what takes it off the list.
    fn enter(&self, identity: Option<Identity>) -> (CancellationToken, Option<Place>) {
        let cut = CancellationToken::new();
        let Some(identity) = identity else { return (cut, None) };
        let mut inside = self.lock();
        inside.last += 1;
        let number = inside.last;
        inside.guests.insert(number, (identity, cut.clone()));
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
        Some(Caller { identity: Some(identity) }) if guests.is_revoked(*identity) => {
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
    let tls = papers.control_server().context("TLS for agents and coordinators")?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
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
    let tls = match timeout(limits::HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake took too long"),
    };
    let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = leaf.and_then(|leaf| Identity::from_leaf(leaf).ok());
    let (cut, place) = guests.enter(identity);
    let guest = Guest { tls, cut: Box::pin(cut.cancelled_owned()), identity, _place: place };
    // Nobody takes it any more: the coordinator stops.
    let _ = inside.send(Ok(guest)).await;
}

/// One connection that came in.
pub(crate) struct Guest {
    tls: TlsStream<TcpStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    identity: Option<Identity>,
    _place: Option<Place>,
}

impl Connected for Guest {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller { identity: self.identity }
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
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, REVOKED)));
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
