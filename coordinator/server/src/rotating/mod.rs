//! This coordinator's own certificate, and what it does while the authority gives way to another one.
//!
//! Owns following the facts: from the moment they name another authority, that one signs here, and this coordinator shows a certificate
//! of it; members that are seen under it are told of; whoever leads ends the rotation (`judge.rs`), and then what came under the former
//! authority is cut. Refuses to wait with its own certificate: it is good for whoever knows only the former authority as well.

mod judge;
mod making;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use consensus::{Consensus, ReplicaId};
use proto::identity::Identity;
use proto::papers::Papers;
use proto::tls::{self, Credentials};
use proto::token::JoinToken;
use proto::v1::Authorities;
use registry::{CaStep, Cluster, Command, FOUNDER, NodeId, Registry, Reply};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::clock::unix_ms;
use crate::founding::{self, Founded};
use crate::seal::{self, Keyring, LeafFile};
use crate::streams::Streams;
use crate::trust::{self, Trust};
use crate::{limits, members, renewing};
use judge::View;
pub(crate) use making::begin;

/// What agents hear of it.
pub(crate) fn told(facts: &Registry) -> Option<Authorities> {
    let trust = Trust::of(facts.cluster()?);
    let digest = blake3::hash(trust.all_pem.as_bytes()).as_bytes().to_vec();
    Some(Authorities { digest, epoch: facts.epoch(), step: trust.step })
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rotating(Arc<Inner>);

struct Inner {
    consensus: Consensus,
    replica: ReplicaId,
    identity: Identity,
    authority: Arc<Authority>,
    keyring: Arc<Keyring>,
    papers: Papers,
    leaf: LeafFile,
    data_folder: PathBuf,
    streams: Streams,
    /// Of the rotation of this number.
    seen: Mutex<(u64, BTreeSet<NodeId>)>,
    news: Notify,
    hashes: watch::Sender<Vec<[u8; 32]>>,
    stop: CancellationToken,
}

/// The certificate that is shown.
struct Own {
    /// When it was signed; none: it is an old one.
    signed: Option<SystemTime>,
    /// In which step of which rotation.
    step: Option<u64>,
}

impl Rotating {
    /// Follows the facts until `stop`.
    pub(crate) fn start(
        consensus: &Consensus,
        founded: &Founded,
        (replica, data_folder): (ReplicaId, &Path),
        streams: &Streams,
        stop: &CancellationToken,
    ) -> Self {
        let trust = founded.authority.trust();
        let own = Own { signed: founded.signed, step: founded.signed.map(|_| trust.step) };
        let rotating = Self(Arc::new(Inner {
            consensus: consensus.clone(),
            replica,
            identity: founded.identity,
            authority: Arc::clone(&founded.authority),
            keyring: Arc::clone(&founded.keyring),
            papers: founded.papers.clone(),
            leaf: founded.leaf.clone(),
            data_folder: data_folder.to_owned(),
            streams: streams.clone(),
            seen: Mutex::default(),
            news: Notify::new(),
            hashes: watch::Sender::new(trust.hashes()),
            stop: stop.clone(),
        }));
        let watching = Arc::clone(&rotating.0).watch(own);
        tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
        rotating
    }

    /// The hashes of the authorities that are trusted.
    pub(crate) fn hashes(&self) -> watch::Receiver<Vec<[u8; 32]>> {
        self.0.hashes.subscribe()
    }

    /// A node reports, under this certificate, that all its connections are under this authority.
    pub(crate) fn saw(&self, node: NodeId, leaf: &CertificateDer<'_>, authority: &[u8]) {
        let facts = self.0.consensus.local();
        let Some(rotation) = facts.cluster().and_then(|cluster| cluster.rotation.as_ref()) else { return };
        let Ok(authorities) = tls::authorities(&rotation.ca_certificate_pem) else { return };
        let is_it = authorities.first().is_some_and(|new| JoinToken::hash_of(new).as_slice() == authority);
        if is_it && facts.awaited().contains(&node) && tls::vouches(&rotation.ca_certificate_pem, leaf) {
            self.0.seen(rotation.number).1.insert(node);
            self.0.news.notify_one();
        }
    }
}

impl Inner {
    async fn watch(self: Arc<Self>, mut own: Own) {
        let (mut facts, mut leadership) = (self.consensus.changes(), self.consensus.leadership());
        loop {
            let registry = facts.borrow_and_update().clone();
            let leads = leadership.borrow_and_update().is_self;
            let mut pause = limits::LOOK_AGAIN;
            if let Some(cluster) = registry.cluster() {
                self.follow(cluster);
                pause = self.renew(&mut own);
                if cluster.rotation.is_some() {
                    self.go_on(&registry, cluster, &own, leads).await;
                    pause = pause.min(limits::ROTATION_LOOK);
                }
            }
            tokio::select! {
                changed = facts.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                () = self.news.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes up what the facts say of the authority, where that is news.
    fn follow(self: &Arc<Self>, cluster: &Cluster) {
        if trust::step_of(cluster) == self.authority.trust().step {
            return;
        }
        let (trust, key) = (Trust::of(cluster), seal::opened(cluster, &self.keyring));
        if let Err(error) = self.authority.take_up(&trust, key.as_deref()) {
            return tracing::error!("the cluster's new authority cannot be taken up: {error:#}");
        }
        tracing::info!(step = trust.step, "another authority signs, or a former one is trusted no more");
        // Trusted at once; a certificate of one's own may have to wait for the key.
        let held = self.papers.credentials();
        let trusting = Credentials { ca_certificate_pem: trust.all_pem.clone(), ..held };
        if let Err(error) = self.papers.replace(trusting) {
            tracing::error!("the cluster's new authority cannot be trusted: {error:#}");
        }
        self.hashes.send_replace(trust.hashes());
        let (rotating, only) = (Arc::clone(self), trust.cross_pem.is_none().then_some(trust.signs_pem));
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(async move {
            if let Some(only) = only {
                sleep(limits::LAST_WORD).await;
                rotating.streams.cut_all_but(&only);
            }
            // The tokens in the folder pin the former authority.
            let Inner { consensus, authority, data_folder, .. } = rotating.as_ref();
            if let Err(error) = founding::tokens(consensus, authority, data_folder).await {
                tracing::warn!("the join tokens in the folder are not made anew: {error:#}");
            }
        }));
    }

    /// This coordinator signs for itself: when two thirds of the time are over, when another authority does, or as soon as it can
    /// where it began with an old certificate. Returns until when nothing is to be done.
    fn renew(&self, own: &mut Own) -> Duration {
        let is_of_now = own.step == Some(self.authority.trust().step);
        // By the wall clock, which goes on while a Mac sleeps.
        let left =
            own.signed.and_then(|at| renewing::left(at, SystemTime::now(), self.authority.leaf_life()));
        if let Some(left) = left.filter(|_| is_of_now) {
            return left.min(limits::LOOK_AGAIN);
        }
        if !self.authority.can_sign() {
            return limits::SEAL_LOOK;
        }
        let step = self.authority.trust().step;
        let renewed = self.authority.credentials(self.identity).and_then(|next| {
            self.papers.replace(next.clone())?;
            founding::keep(&self.leaf, &next);
            Ok(())
        });
        match renewed {
            Ok(()) => {
                own.step = Some(step);
                tracing::info!("this coordinator's certificate was renewed");
            }
            Err(error) => tracing::error!("this coordinator's certificate cannot be renewed: {error:#}"),
        }
        own.signed = Some(SystemTime::now());
        limits::SEAL_LOOK
    }

    async fn go_on(&self, registry: &Registry, cluster: &Cluster, own: &Own, leads: bool) {
        let Some(rotation) = &cluster.rotation else { return };
        let seen = {
            let mut seen = self.seen(rotation.number);
            if own.step == Some(trust::step_of(cluster)) {
                seen.1.insert(members::node_of(self.replica).unwrap_or(FOUNDER));
            }
            seen.1.clone()
        };
        let awaited = registry.awaited();
        let now_unix_ms = unix_ms();
        let Some(step) = judge::next(&View { rotation, awaited: &awaited, seen: &seen, leads, now_unix_ms })
        else {
            return;
        };
        let ends = matches!(step, CaStep::End { .. });
        let command = Command::RotateCa { number: rotation.number, step, at_unix_ms: now_unix_ms };
        let command =
            if ends { command.audited(&format!("leader-{}", self.replica), now_unix_ms) } else { command };
        match self.consensus.propose(command).await {
            Ok(Reply::Refused(refusal)) => tracing::warn!(%refusal, "the rotation of the authority stays"),
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) if ends => {
                tracing::info!(number = rotation.number, "the rotation of the authority is over");
            }
            Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => {}
            // The next look finds out.
            Err(error) => tracing::info!(%error, "the rotation of the authority waits for a leader"),
        }
    }

    /// Who was seen in the rotation of this number.
    fn seen(&self, number: u64) -> MutexGuard<'_, (u64, BTreeSet<NodeId>)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != number {
            *seen = (number, BTreeSet::new());
        }
        seen
    }
}
