//! All coordinators of the cluster: a session and token streams with each, side by side.
//!
//! Owns the set: it begins with the settings and the file, follows what coordinators say, and is written down when it changes.
//! Each pair lives by itself, so that the death of one coordinator disturbs nothing that flows through the others. Refuses to let
//! two pairs speak with the same coordinator, and more coordinators than its bound.

mod known;
mod pairs;
mod contact;
mod kept;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::suspend::Suspend;
use proto::v1::Welcome;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Address;
use crate::identity::Told;
use crate::limits;
use crate::notice::{Notice, Notices};
use crate::session::{Common, Keeper, PairId, Session, Word};
use crate::streams::{Admission, Dialler, Streams, codes};
use crate::wire;

use contact::Contact;
pub(crate) use kept::Kept;
pub(crate) use known::Member;
use known::{Known, Learned};
use pairs::{Pairs, Verdict};

/// What every pair is made of.
pub(crate) struct Ground {
    pub(crate) common: Arc<Common>,
    pub(crate) dialler: Arc<Dialler>,
    pub(crate) admission: Admission,
    /// Over all coordinators.
    pub(crate) attempts: TaskTracker,
}

pub(crate) struct Coordinators {
    ground: Ground,
    kept: Kept,
    /// As it is in the file.
    written: Learned,
    known: Known,
    pairs: Pairs,
    running: BTreeMap<PairId, Pair>,
    tasks: TaskTracker,
    contact: Contact,
    notices: Notices,
    /// All of their addresses, for whoever asks one of them something.
    addresses: watch::Sender<Vec<Address>>,
    /// Whom the cluster trusts.
    told: watch::Sender<Told>,
    /// Warned about.
    refused: Vec<Address>,
    words: mpsc::Sender<(PairId, Word)>,
    heard: mpsc::Receiver<(PairId, Word)>,
    close: CancellationToken,
    /// Cancelled when a coordinator says that this Mac was revoked.
    revoked: CancellationToken,
}

/// A running session and its streams.
struct Pair {
    addresses: watch::Sender<Vec<Address>>,
    displaced: Arc<Notify>,
    leave: CancellationToken,
    cut: CancellationToken,
}

impl Coordinators {
    /// Blocks to read the file.
    pub(crate) fn new(
        seeds: Vec<Address>,
        kept: Kept,
        ground: Ground,
        notices: Notices,
        revoked: CancellationToken,
    ) -> Self {
        let written = kept.read();
        ground.common.papers.refuse(written.revoked().clone());
        let (words, heard) = mpsc::channel(limits::WORDS);
        Self {
            ground,
            kept,
            known: Known::new(seeds, written.clone()),
            written,
            pairs: Pairs::default(),
            running: BTreeMap::new(),
            tasks: TaskTracker::new(),
            contact: Contact::default(),
            notices,
            addresses: watch::Sender::default(),
            told: watch::Sender::default(),
            refused: Vec::new(),
            words,
            heard,
            close: CancellationToken::new(),
            revoked,
        }
    }

    pub(crate) fn addresses(&self) -> watch::Receiver<Vec<Address>> {
        self.addresses.subscribe()
    }

    pub(crate) fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Keeps them all until `close`; then every connection is closed.
    pub(crate) async fn run(mut self, close: CancellationToken) {
        self.close = close.clone();
        self.follow();
        let mut suspend = Suspend::default();
        let mut looks = interval(limits::SUSPEND_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = close.cancelled() => break,
                heard = self.heard.recv() => {
                    let Some((pair, word)) = heard else { break };
                    self.hear(pair, word);
                    self.follow();
                    self.write_down().await;
                }
                _ = looks.tick() => if let Some(slept) = suspend.look() {
                    self.woke(slept);
                }
            }
        }
        // Nobody waits for an answer or a place any more.
        self.heard.close();
        drop(self.running);
        self.tasks.close();
        self.tasks.wait().await;
        self.ground.dialler.close(codes::CLOSE_STOPPING).await;
    }

    /// The coordinators have given this Mac up, and no clock of its own says so: every session is opened anew, which also finds
    /// out which token streams are dead.
    fn woke(&self, slept: Duration) {
        tracing::warn!(?slept, "this Mac slept: registering anew");
        self.running.values().for_each(|pair| pair.displaced.notify_one());
    }

    fn hear(&mut self, pair: PairId, word: Word) {
        match word {
            Word::Welcomed { address, welcome, go_on } => self.welcomed(pair, &address, &welcome, go_on),
            Word::Coordinators(list) => {
                self.known.revoke(&list.revoked);
                self.known.tell(wire::members(list));
                self.ground.common.papers.refuse(self.known.learned().revoked().clone());
            }
            Word::Authorities(word) => {
                self.told.send_if_modified(|told| told.hear(word));
            }
            Word::Revoked => self.revoked.cancel(),
            Word::Lost { words } => {
                let news = self.contact.failed(pair, words);
                self.tell(news);
            }
        }
    }

    fn welcomed(&mut self, pair: PairId, address: &Address, welcome: &Welcome, go_on: oneshot::Sender<bool>) {
        let Welcome { node, cluster, version, replica, .. } = welcome;
        self.known.answered(address, *replica);
        let verdict = self.pairs.welcomed(pair, *replica, &self.known.coordinators());
        tracing::info!(%address, replica, node, cluster, version, ?verdict, "a coordinator answered");
        match verdict {
            Verdict::GoOn => {
                let news = self.contact.opened(pair, *node, cluster);
                self.tell(news);
            }
            Verdict::Twice { other } => {
                if let Some(other) = self.running.get(&other) {
                    other.displaced.notify_one();
                }
            }
            Verdict::Elsewhere => {}
        }
        // A session that broke in the meantime does not listen.
        let _ = go_on.send(verdict == Verdict::GoOn);
    }

    /// Leaves, starts and redirects pairs until they are those that there should be.
    fn follow(&mut self) {
        let wanted = self.known.coordinators();
        let revoked = self.pairs.with(self.known.learned().revoked());
        let changes = self.pairs.follow(&wanted);
        self.addresses.send_replace(wanted.values().flatten().cloned().collect());
        for pair in &changes.started {
            self.contact.started(*pair);
        }
        for pair in changes.left {
            // Dropping it cancels its token.
            if let Some(left) = self.running.remove(&pair) {
                if revoked.contains(&pair) {
                    left.cut.cancel();
                }
                tracing::info!(addresses = words(&left.addresses.borrow()), "left a coordinator");
            }
            let news = self.contact.left(pair);
            self.tell(news);
        }
        for pair in changes.started {
            let addresses = self.pairs.addresses(pair, &wanted).to_vec();
            let started = self.start(pair, addresses);
            self.running.insert(pair, started);
        }
        for (pair, Pair { addresses, .. }) in &self.running {
            let latest = self.pairs.addresses(*pair, &wanted);
            addresses.send_if_modified(|addresses| {
                let differs = addresses.as_slice() != latest;
                if differs {
                    *addresses = latest.to_vec();
                }
                differs
            });
        }
        self.warn();
    }

    fn start(&self, pair: PairId, addresses: Vec<Address>) -> Pair {
        let Ground { common, dialler, admission, attempts } = &self.ground;
        let (addresses, addressed) = watch::channel(addresses);
        let (targets, targeted) = watch::channel(None);
        let (displaced, leave) = (Arc::new(Notify::new()), self.close.child_token());
        let session = Session {
            common: Arc::clone(common),
            addresses: addressed,
            displaced: Arc::clone(&displaced),
            targets,
            keeper: Keeper { pair, words: self.words.clone() },
        };
        let streams = Streams::new(Arc::clone(dialler), admission.clone(), attempts.clone());
        self.tasks.spawn(session.run(leave.clone()));
        let cut = CancellationToken::new();
        self.tasks.spawn(streams.run(targeted, leave.clone(), cut.clone(), self.close.clone()));
        Pair { addresses, displaced, leave, cut }
    }

    fn warn(&mut self) {
        let refused = self.known.refused();
        if refused != self.refused {
            if !refused.is_empty() {
                let most = limits::COORDINATORS_MAX;
                let refused = words(&refused);
                tracing::warn!(refused, "more than {most} coordinators: these are not talked to");
            }
            self.refused = refused;
        }
    }

    async fn write_down(&mut self) {
        let learned = self.known.learned();
        if *learned == self.written {
            return;
        }
        self.written = learned.clone();
        let (kept, learned) = (self.kept.clone(), learned.clone());
        let written = spawn_blocking(move || kept.write(learned)).await.map_err(anyhow::Error::from);
        // The next change tries again; until then the settings and the former file are what a restart begins with.
        if let Err(error) = written.flatten() {
            tracing::warn!("the coordinators are not remembered: {error:#}");
        }
    }

    fn tell(&self, news: Vec<Notice>) {
        for notice in news {
            self.notices.tell(notice);
        }
    }
}

fn words(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.leave.cancel();
    }
}
