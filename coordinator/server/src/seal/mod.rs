//! The authority's key is sealed at rest: the registry, its log, its snapshots and backups hold what only the seal key opens.
//!
//! Owns how the seal key reaches every coordinator and how an older cluster's plain key is sealed: a watch that asks the others, the
//! judgement (`judge.rs`), both ends of `FetchSealKey`. Refuses to give the key to anybody but a coordinator, and to give up where
//! nobody has it: the cluster goes on serving, and the certificates of its members end within a week.

mod judge;
mod key;
mod keyring;
mod leaf;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use consensus::{Consensus, MemberState, ReplicaId};
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{FetchSealKeyReply, FetchSealKeyRequest};
use registry::{Cluster, ClusterVersion, Command, Registry, Reply};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use key::{SealKey, Sealed};
pub(crate) use keyring::Keyring;
pub use keyring::SEAL_KEY_FILE;
pub(crate) use leaf::LeafFile;

use crate::authority::Authority;
use crate::clock::unix_ms;
use crate::limits;
use crate::peers::Peers;
use crate::polling::Polling;
use crate::trust::Trust;
use judge::{Step, View};

/// What an operator reads where nobody has the key.
pub(crate) const LACKING: &str = "seal_key_missing: this coordinator lacks the key that opens the cluster's authority, so it lets \
                                  nobody in and renews no certificate; it takes the file `seal-key` from any coordinator that \
                                  has it, or from where you kept a copy: put it into the folder `coordinator` here. Where it \
                                  is lost for good, found the cluster anew before its certificates end, within a week";

/// What a Mac hears that asks for a certificate here.
pub(crate) const CANNOT_SIGN: &str =
    "this coordinator cannot sign at present, because it lacks the seal key: ask another one";

/// The key of the authority that signs, if this coordinator can know it.
pub(crate) fn opened(cluster: &Cluster, keyring: &Keyring) -> Option<String> {
    match sealed(cluster) {
        Some(sealed) => keyring.key()?.open(Sealed::of(cluster), sealed),
        None => Some(cluster.ca_key_pem.clone()),
    }
}

/// That key as it lies among the facts, unless it is plain.
fn sealed(cluster: &Cluster) -> Option<&String> {
    cluster.rotation.as_ref().map(|rotation| &rotation.sealed_ca_key).or(cluster.sealed_ca_key.as_ref())
}

/// Tells this use of the first authority's key from any other.
const HASH_KEY_CONTEXT: &str = "mlx-serving 2026 numbers of tenants, sessions and prompts";

/// The number behind every number made of a client's words, if this coordinator can know it. It is the same for ever: from the first
/// rotation on it is a fact of its own, and until then it is made of the authority's key.
pub(crate) fn hash_key(cluster: &Cluster, keyring: &Keyring) -> Option<[u8; 32]> {
    match &cluster.sealed_hash_key {
        Some(sealed) => keyring.key()?.open_hash_key(&cluster.id.0, sealed),
        None => Some(blake3::derive_key(HASH_KEY_CONTEXT, opened(cluster, keyring)?.as_bytes())),
    }
}

/// The key for facts that are restored: the one in `file`, or else the one in the folder. `None`: they need none.
pub(crate) fn for_restored(
    facts: &Registry,
    data_folder: &Path,
    file: Option<&Path>,
) -> anyhow::Result<Option<SealKey>> {
    let cluster = facts.cluster().context("there is no cluster in it")?;
    let Some(sealed) = sealed(cluster) else { return Ok(None) };
    let kept = data_folder.join(SEAL_KEY_FILE);
    let path = file.unwrap_or(&kept);
    let fix = "give the file `seal-key` of a coordinator of that cluster with --seal-key FILE";
    let key = keyring::read(path)?;
    let key = key.with_context(|| {
        format!("it needs the cluster's seal key, and there is no {}: {fix}", path.display())
    })?;
    let opens = key.open(Sealed::of(cluster), sealed).is_some();
    anyhow::ensure!(opens, "the seal key in {} is another cluster's: {fix}", path.display());
    Ok(Some(key))
}

/// Until a newcomer can open the authority, which takes one coordinator that has the key and answers.
pub(crate) async fn wait_for_key(
    consensus: &Consensus,
    (peers, contacts): (&Peers, &[String]),
    own: ReplicaId,
    keyring: &Keyring,
) {
    let mut told = false;
    loop {
        let facts = consensus.local();
        let Some(cluster) = facts.cluster().filter(|cluster| opened(cluster, keyring).is_none()) else {
            return;
        };
        let members = others(consensus, own).into_iter().map(|member| member.address);
        // Who founded may be known to itself under an address of before.
        for address in members.chain(contacts.iter().cloned()) {
            if let Some(key) = fetch(peers, own, &address).await
                && take(cluster, keyring, key)
            {
                return;
            }
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                "waiting for a coordinator that has the seal key; without it this one cannot sign"
            );
        }
        sleep(limits::SEAL_LOOK).await;
        keyring.look_again();
    }
}

/// The watch of one coordinator.
#[derive(Clone)]
pub(crate) struct Sealing {
    consensus: Consensus,
    own: ReplicaId,
    peers: Peers,
    authority: Arc<Authority>,
    keyring: Arc<Keyring>,
}

impl Sealing {
    /// Watches until `stop`.
    pub(crate) fn start(
        consensus: &Consensus,
        own: ReplicaId,
        peers: &Peers,
        (authority, keyring): (&Arc<Authority>, &Arc<Keyring>),
        stop: &CancellationToken,
    ) -> Self {
        let (consensus, peers) = (consensus.clone(), peers.clone());
        let (authority, keyring) = (Arc::clone(authority), Arc::clone(keyring));
        let sealing = Self { consensus, own, peers, authority, keyring };
        tokio::spawn(stop.clone().run_until_cancelled_owned(sealing.clone().watch()));
        sealing
    }

    /// Which key is held here.
    pub(crate) fn id(&self) -> Option<Vec<u8>> {
        self.keyring.id().map(|id| id.to_vec())
    }

    /// To a coordinator; whoever calls this has checked that it is one.
    pub(crate) fn give(&self, to: ReplicaId) -> FetchSealKeyReply {
        let key = self.keyring.key().map(|key| key.to_bytes());
        tracing::info!(coordinator = to.0, given = key.is_some(), "a coordinator asked for the seal key");
        FetchSealKeyReply { key }
    }

    /// What is wrong, in words for an operator.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        (!self.authority.can_sign()).then_some(LACKING)
    }

    async fn watch(self) {
        let mut polling = Polling::new(self.peers.clone());
        let mut looks = interval(limits::SEAL_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(trouble) = self.trouble() {
            tracing::error!("{trouble}");
        }
        loop {
            looks.tick().await;
            let facts = self.consensus.local();
            if let Some(cluster) = facts.cluster()
                && !self.rests(&facts, cluster)
            {
                self.look(&facts, cluster, &mut polling).await;
            }
        }
    }

    /// Nothing is to be done, so nobody is asked.
    fn rests(&self, facts: &Registry, cluster: &Cluster) -> bool {
        if cluster.sealed_ca_key.is_none() {
            return facts.cluster_version() < ClusterVersion::THIRD;
        }
        if opened(cluster, &self.keyring).is_none() {
            self.keyring.look_again();
        }
        self.open(cluster)
    }

    /// Takes the authority's key up where it opens.
    fn open(&self, cluster: &Cluster) -> bool {
        let Some(key) = opened(cluster, &self.keyring) else { return false };
        if !self.authority.can_sign() {
            match self.authority.take_up(&Trust::of(cluster), Some(&key)) {
                Ok(()) => tracing::info!("this coordinator has the seal key and can sign"),
                Err(error) => tracing::error!("the authority's key cannot be used: {error:#}"),
            }
        }
        true
    }

    async fn look(&self, facts: &Registry, cluster: &Cluster, polling: &mut Polling) {
        let answers = polling.ask(&others(&self.consensus, self.own)).await;
        let id = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| bytes.try_into().ok());
        let told: BTreeMap<_, _> =
            answers.into_iter().map(|(other, answer)| (other, id(answer.seal_key_id))).collect();
        let members: Vec<_> = self.consensus.members().iter().map(|member| member.replica).collect();
        let view = View {
            sealed: cluster.sealed_ca_key.is_some(),
            opens: opened(cluster, &self.keyring).is_some(),
            readable: facts.cluster_version() >= ClusterVersion::THIRD,
            own: self.own,
            leader: self.consensus.leadership().borrow().leader,
            held: self.keyring.id(),
            members: &members,
            told: &told,
        };
        let done = match judge::next(&view) {
            Step::Rest => Ok(()),
            Step::Fetch(from) => self.fetch(cluster, &from).await,
            Step::Make => SealKey::make().and_then(|key| self.keyring.put(key)),
            Step::Seal => self.seal(cluster).await,
        };
        if let Err(error) = done {
            tracing::warn!("the authority's key is not sealed yet: {error:#}");
        }
    }

    async fn fetch(&self, cluster: &Cluster, from: &[ReplicaId]) -> anyhow::Result<()> {
        let members = others(&self.consensus, self.own);
        for member in members.iter().filter(|member| from.contains(&member.replica)) {
            if let Some(key) = fetch(&self.peers, member.replica, &member.address).await
                && take(cluster, &self.keyring, key)
            {
                self.open(cluster);
                return Ok(());
            }
        }
        anyhow::bail!("no coordinator gave a seal key that opens it")
    }

    async fn seal(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let key = self.keyring.key().context("the seal key is gone")?;
        let sealed_ca_key = key.seal(Sealed::of(cluster), &cluster.ca_key_pem)?;
        let at_unix_ms = unix_ms();
        let seal = Command::SealCa { sealed_ca_key, at_unix_ms };
        match self.consensus.propose(seal.audited(&format!("leader-{}", self.own), at_unix_ms)).await? {
            Reply::Refused(refusal) => anyhow::bail!("{refusal}"),
            Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => {
                tracing::info!("the authority's key is sealed: keep a copy of `seal-key` apart from backups");
                Ok(())
            }
        }
    }
}

fn others(consensus: &Consensus, own: ReplicaId) -> Vec<MemberState> {
    let members = consensus.members().into_iter();
    members.filter(|member| member.replica != own && !member.address.is_empty()).collect()
}

async fn fetch(peers: &Peers, from: ReplicaId, address: &str) -> Option<SealKey> {
    let asking = async {
        let channel = peers.connect(from, address).await.ok()?;
        let reply = ClusterClient::new(channel).fetch_seal_key(FetchSealKeyRequest {}).await.ok()?;
        SealKey::from_bytes(&reply.into_inner().key?)
    };
    timeout(limits::PEER_CONNECT, asking).await.ok().flatten()
}

/// Holds a key that another coordinator gave, if it serves: what does not open a sealed authority is not kept.
fn take(cluster: &Cluster, keyring: &Keyring, key: SealKey) -> bool {
    if sealed(cluster).is_some_and(|sealed| key.open(Sealed::of(cluster), sealed).is_none()) {
        return false;
    }
    let kept = keyring.put(key);
    if let Err(error) = &kept {
        tracing::warn!("the seal key cannot be kept: {error:#}");
    }
    kept.is_ok()
}

#[cfg(test)]
mod tests {
    use registry::ClusterId;

    use super::*;

    fn facts(key: Option<&SealKey>) -> Registry {
        let (cluster, certificate) = (ClusterId("room".to_owned()), "certificate".to_owned());
        let whose = Sealed { cluster: "room", ca_certificate_pem: "certificate" };
        let mut facts = Registry::default();
        facts.apply(&match key {
            Some(key) => Command::FoundSealed {
                cluster,
                ca_certificate_pem: certificate,
                sealed_ca_key: key.seal(whose, "the key").expect("sealed"),
                at_unix_ms: 1,
            },
            None => Command::FoundCluster {
                cluster,
                ca_certificate_pem: certificate,
                ca_key_pem: "the key".to_owned(),
                at_unix_ms: 1,
            },
        });
        facts
    }

    #[test]
    fn facts_are_restored_with_their_key_given_or_in_the_folder_and_with_no_other() {
        let folder = tempfile::tempdir().expect("scratch");
        let (ours, theirs) = (SealKey::make().expect("random"), SealKey::make().expect("random"));
        let facts = facts(Some(&ours));
        let restored = |file: Option<&Path>| match for_restored(&facts, folder.path(), file) {
            Ok(key) => Ok(key.map(|key| key.id())),
            Err(error) => Err(format!("{error:#}")),
        };
        let without = restored(None).expect_err("refused");
        assert!(
            without.contains("needs the cluster's seal key") && without.contains("--seal-key"),
            "{without}"
        );
        let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
        std::fs::write(&right, ours.text()).expect("written");
        std::fs::write(&wrong, theirs.text()).expect("written");
        let refused = restored(Some(&wrong)).expect_err("refused");
        assert!(refused.contains("another cluster's") && refused.contains("--seal-key"), "{refused}");
        assert_eq!(restored(Some(&right)), Ok(Some(ours.id())));
        std::fs::copy(&right, folder.path().join(SEAL_KEY_FILE)).expect("copied");
        assert_eq!(restored(None), Ok(Some(ours.id())));
    }

    #[test]
    fn facts_with_a_plain_key_need_none() {
        let folder = tempfile::tempdir().expect("scratch");
        assert!(for_restored(&facts(None), folder.path(), None).expect("fine").is_none());
    }

    #[test]
    fn the_authority_opens_with_the_key_and_a_key_that_does_not_open_it_is_not_kept() {
        let folder = tempfile::tempdir().expect("scratch");
        let (ours, theirs) = (SealKey::make().expect("random"), SealKey::make().expect("random"));
        let (facts, keyring) = (facts(Some(&ours)), Keyring::open(folder.path()).expect("opens"));
        let cluster = facts.cluster().expect("founded");
        assert_eq!(opened(cluster, &keyring), None);
        assert!(!take(cluster, &keyring, theirs));
        assert_eq!(keyring.id(), None);
        assert!(take(cluster, &keyring, ours));
        assert_eq!(opened(cluster, &keyring).as_deref(), Some("the key"));
    }
}
