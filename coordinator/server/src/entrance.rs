//! Where agents and other coordinators come in: TCP, TLS, and who each connection belongs to.
//!
//! Owns the handshake under this coordinator's own papers, the list of those who are inside, and cutting the connections of those
//! that were revoked, and of those that came under an authority that is trusted no more, on which everything they do here runs:
//! sessions, desks, the registry's log. Those who show no certificate are few, and stay for a moment. Refuses to read a request: each
//! call is checked again, by `threshold.rs`, by `sessions.rs` and by [`gate`].

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
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
use tokio::time::{Sleep, sleep, timeout};
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
    /// How often somebody without a certificate has asked for something on this connection.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Ends the connection.
    pub(crate) cut: CancellationToken,
}

impl Caller {
    pub(crate) fn new(identity: Option<Identity>, leaf: Option<Leaf>) -> Self {
        Self { identity, leaf, asked: Arc::default(), cut: CancellationToken::new() }
    }
}

pub(crate) type Leaf = Arc<CertificateDer<'static>>;

/// The connections that are open.
#[derive(Clone)]
pub(crate) struct Guests {
    facts: watch::Receiver<Arc<Registry>>,
    inside: Arc<Mutex<Inside>>,
    strangers: Arc<Semaphore>,
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
        Self { facts, inside: Arc::default(), strangers: Arc::new(Semaphore::new(limits::STRANGERS)) }
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

    fn is_strange(&self, leaf: &Leaf) -> bool {
        trust::only(&self.facts.borrow()).is_some_and(|only| !tls::vouches(only, leaf))
    }

    fn strangers(&self, registry: &Registry) -> Vec<CancellationToken> {
        let Some(only) = trust::only(registry) else { return Vec::new() };
        let inside = self.lock();
        let strangers = inside.guests.values().filter(|guest| !tls::vouches(only, &guest.leaf));
        strangers.map(|guest| guest.cut.clone()).collect()
    }

    /// Returns what gives the place back; nothing where there is none.
    fn enter(&self, caller: &Caller) -> Option<Place> {
        let (Some(identity), Some(leaf)) = (caller.identity, &caller.leaf) else {
            let place = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
            return Some(Place::Stranger { _place: place });
        };
        let mut inside = self.lock();
        inside.last += 1;
        let number = inside.last;
        inside.guests.insert(number, Inmate { identity, leaf: Arc::clone(leaf), cut: caller.cut.clone() });
        drop(inside);
        // One that comes back after it was revoked hears why, and no more. Nor does one stay whose handshake was begun before its
        // authority ended and is over after [`Guests::watch`] has looked.
        if self.is_revoked(identity) || self.is_strange(leaf) {
            let cut = caller.cut.clone();
            tokio::spawn(async move {
                sleep(limits::LAST_WORD).await;
                cut.cancel();
            });
        }
        Some(Place::Member { guests: self.clone(), number })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held as long as the connection lasts.
enum Place {
    /// On the list of those who are inside.
    Member {
        guests: Guests,
        number: u64,
    },
    Stranger {
        _place: OwnedSemaphorePermit,
    },
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Member { guests, number } = self {
            guests.lock().guests.remove(number);
        }
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
    let caller = Caller::new(identity, leaf.map(|leaf| Arc::new(leaf.clone().into_owned())));
    let Some(guest) = Guest::welcome(stream, caller, &guests) else {
        return tracing::debug!("a caller without a certificate was turned away: too many of them are here");
    };
    // Nobody takes it any more: the coordinator stops.
    let _ = inside.send(Ok(guest)).await;
}

/// One connection that came in.
pub(crate) struct Guest<S = TlsStream<TcpStream>> {
    stream: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When a stranger has been here for long enough.
    leaves: Option<Pin<Box<Sleep>>>,
    caller: Caller,
    _place: Place,
}

impl<S> Guest<S> {
    fn welcome(stream: S, caller: Caller, guests: &Guests) -> Option<Self> {
        let place = guests.enter(&caller)?;
        let leaves = matches!(place, Place::Stranger { .. }).then(|| Box::pin(sleep(limits::STRANGERS_STAY)));
        let cut = Box::pin(caller.cut.clone().cancelled_owned());
        Some(Self { stream, cut, leaves, caller, _place: place })
    }

    /// An error as soon as the connection is to end, which ends all that runs on it. HTTP/2 does not read while what it has to answer
    /// is not taken, so writing looks too. Whichever looked last is woken: hyper does both in one task.
    fn stays(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let leaves = self.leaves.as_mut().is_some_and(|leaves| leaves.as_mut().poll(context).is_ready());
        if leaves || self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it was cut"));
        }
        Ok(())
    }
}

impl<S> Connected for Guest<S> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guest<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stays(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guest<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stays(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stays(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stays(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proto::identity::Role;
    use registry::{CaStep, ClusterId, ClusterVersion, Command};
    use rustls::pki_types::pem::PemObject as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{Instant, advance};
    use tonic::service::Routes;

    use super::*;
    use crate::authority::{Authority, NewCa};
    use crate::threshold;

    /// Facts in which the authority `former` has been followed by `present`, or is about to be.
    fn rotated(former: &NewCa, present: &NewCa, over: bool) -> Guests {
        let mut facts = Registry::default();
        let begin = CaStep::Begin {
            ca_certificate_pem: present.certificate_pem.clone(),
            cross_certificate_pem: present.certificate_pem.clone(),
            sealed_ca_key: "0b".to_owned(),
            sealed_hash_key: "0c".to_owned(),
            until_unix_ms: 9,
        };
        let rotate = |step| Command::RotateCa { number: 1, step, at_unix_ms: 2 };
        let mut commands = vec![
            Command::FoundSealed {
                cluster: ClusterId("room".to_owned()),
                ca_certificate_pem: former.certificate_pem.clone(),
                sealed_ca_key: "0a".to_owned(),
                at_unix_ms: 1,
            },
            Command::RaiseVersion { to: ClusterVersion::NEWEST, at_unix_ms: 1 },
            rotate(begin),
        ];
        commands.extend(over.then(|| rotate(CaStep::End { abandon: true })));
        for command in &commands {
            assert_eq!(facts.apply(command), registry::Reply::Done);
        }
        let (_, facts) = watch::channel(Arc::new(facts));
        Guests::new(facts)
    }

    fn member_of(authority: &NewCa) -> Caller {
        let NewCa { certificate_pem, key_pem } = authority;
        let opened = Authority::open(certificate_pem, key_pem, limits::LEAF_LIFE).expect("an authority");
        let identity = Identity { role: Role::Coordinator, node: 1 };
        let leaf = opened.credentials(identity).expect("credentials").certificate_pem;
        let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).expect("a certificate");
        Caller::new(Some(identity), Some(Arc::new(leaf)))
    }

    /// Whether one that comes in now stays.
    async fn stays(guests: &Guests, caller: &Caller) -> bool {
        let _place = guests.enter(caller).expect("there is a place");
        tokio::task::yield_now().await;
        advance(2 * limits::LAST_WORD).await;
        tokio::task::yield_now().await;
        !caller.cut.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_stays_who_comes_in_under_an_authority_that_has_just_ended() {
        let (former, present) =
            (Authority::create("room").expect("one"), Authority::create("room").expect("two"));
        for (over, of_former) in [(false, true), (true, false)] {
            let guests = rotated(&former, &present, over);
            assert_eq!(stays(&guests, &member_of(&former)).await, of_former, "{over}");
            assert!(stays(&guests, &member_of(&present)).await, "{over}");
        }
    }

    #[tokio::test]
    async fn strangers_have_a_few_places_and_take_none_of_a_members() {
        let guests = nobody();
        let stranger = Caller::new(None, None);
        let mut inside: Vec<_> =
            (0..limits::STRANGERS).map(|_| guests.enter(&stranger).expect("a place")).collect();
        assert!(guests.enter(&stranger).is_none());
        assert!(guests.enter(&member_of(&Authority::create("room").expect("one"))).is_some());
        inside.pop();
        assert!(guests.enter(&stranger).is_some());
    }

    fn nobody() -> Guests {
        let (_, facts) = watch::channel(Arc::default());
        Guests::new(facts)
    }

    fn pipe(guests: &Guests, caller: Caller, holds: usize) -> (Guest<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(holds);
        (Guest::welcome(near, caller, guests).expect("a place"), far)
    }

    async fn is_cut(mut guest: Guest<DuplexStream>) -> bool {
        let written = timeout(2 * limits::STRANGERS_STAY, guest.write_all(b"more")).await.expect("in time");
        let written = written.expect_err("nobody reads").kind();
        let flushed = guest.flush().await.expect_err("it is over").kind();
        let shut = guest.shutdown().await.expect_err("it is over").kind();
        [written, flushed, shut] == [io::ErrorKind::ConnectionAborted; 3]
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_to_go_goes_also_while_nothing_is_taken_of_what_is_written() {
        let (guests, began) = (nobody(), Instant::now());
        let (mut stranger, _far) = pipe(&guests, Caller::new(None, None), 4);
        stranger.write_all(b"four").await.expect("room");
        assert!(is_cut(stranger).await);
        assert_eq!(began.elapsed(), limits::STRANGERS_STAY);

        let caller = member_of(&Authority::create("room").expect("one"));
        let (mut member, _far) = pipe(&guests, caller.clone(), 4);
        member.write_all(b"four").await.expect("room");
        let cutting = async {
            sleep(limits::LAST_WORD).await;
            caller.cut.cancel();
        };
        assert!(tokio::join!(is_cut(member), cutting).0);
        assert_eq!(began.elapsed(), limits::STRANGERS_STAY + limits::LAST_WORD);
    }

    /// As RFC 9113 has them: what a client begins with, without settings of its own, and a question that must be answered.
    const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0whatever";

    async fn serve(guest: Guest<DuplexStream>) {
        let incoming = tokio_stream::once(Ok::<_, io::Error>(guest));
        let server = threshold::server().add_routes(Routes::default());
        server.serve_with_incoming(incoming).await.expect("taken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_asks_for_answers_and_reads_none_goes_like_the_others() {
        let (guests, began) = (nobody(), Instant::now());
        let (guest, mut far) = pipe(&guests, Caller::new(None, None), 64 << 10);
        serve(guest).await;
        let asking = async {
            far.write_all(BEGINNING).await?;
            loop {
                far.write_all(PING).await?;
            }
        };
        let asked: io::Result<()> = timeout(2 * limits::STRANGERS_STAY, asking).await.expect("it is cut");
        assert_eq!(asked.expect_err("nobody is there").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(began.elapsed(), limits::STRANGERS_STAY);
        assert_eq!(guests.strangers.available_permits(), limits::STRANGERS);
    }

    #[tokio::test]
    async fn whoever_comes_in_hears_how_many_calls_may_run() {
        let (guest, mut far) = pipe(&nobody(), Caller::new(None, None), 64 << 10);
        serve(guest).await;
        far.write_all(BEGINNING).await.expect("taken");
        let mut head = [0; 9];
        far.read_exact(&mut head).await.expect("the settings");
        let mut settings = vec![0; usize::from(head[2])];
        far.read_exact(&mut settings).await.expect("all of them");
        // SETTINGS_MAX_CONCURRENT_STREAMS.
        let calls = [&[0, 3], &limits::CALLS_PER_CONNECTION.to_be_bytes()[..]].concat();
        assert!(settings.chunks(6).any(|setting| setting == calls), "{settings:?}");
    }
}
