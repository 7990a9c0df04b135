//! A coordinator's first moments: the registry opened, the cluster founded once, identity and join token at hand.
//!
//! Owns the order of these steps. Refuses to found a cluster twice: an existing CA is taken up, never replaced; and to found one in
//! the folder of a coordinator that was about to join another.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use consensus::{Consensus, OpenError, Options, ReplicaId, Retry, Start};
use proto::identity::{Identity, Role};
use proto::papers::Papers;
use proto::tls::Credentials;
use proto::token::JoinToken;
use registry::{ClusterId, ClusterVersion, Command, Reply, TokenId};

use crate::authority::{self, Authority};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::members::FOUNDER;
use crate::peers::Peers;
use crate::seal::{self, Keyring, LeafFile, SealKey, Sealed};
use crate::trust::Trust;
use crate::{REGISTRY_FOLDER, departure, limits, members};

/// What a running coordinator has in hand.
pub(crate) struct Founded {
    pub(crate) cluster: String,
    pub(crate) authority: Arc<Authority>,
    pub(crate) keyring: Arc<Keyring>,
    /// What this coordinator is in its certificate.
    pub(crate) identity: Identity,
    pub(crate) papers: Papers,
    /// Where its certificate is kept; with it the number behind every number made of a client's words, which is the same for every
    /// coordinator of the cluster, after every restart and every rotation.
    pub(crate) leaf: LeafFile,
    /// When its certificate was signed; none: it is an old one.
    pub(crate) signed: Option<SystemTime>,
}

/// The registry in the data folder, or a new one.
///
/// # Errors
/// The folder cannot be opened, or began to join a cluster and does not go on with that.
pub(crate) async fn open(config: &Config) -> anyhow::Result<(Consensus, Peers, ReplicaId)> {
    let peers = Peers::default();
    let (replica, start) = match &config.joined {
        None => (FOUNDER, Start::Found),
        Some(joined) => (ReplicaId(joined.replica), Start::Join),
    };
    let options = Options {
        replica,
        address: config.advertise.clone(),
        dial: Arc::new(peers.clone()),
        speaks: config.speaks.map_or(ClusterVersion::NEWEST, ClusterVersion),
        ..Options::default()
    };
    let folder = config.data_folder.join(REGISTRY_FOLDER);
    match Consensus::open(&folder, options.clone(), start).await {
        // A member goes on without being told again whom it joined, and so does one that was restored after the founder had left.
        Err(OpenError::OtherReplica { found, .. }) if config.joined.is_none() => {
            let replica = ReplicaId(found);
            let consensus = Consensus::open(&folder, Options { replica, ..options }, Start::Join).await?;
            if consensus.members().iter().all(|member| member.replica != replica) {
                let revoked = members::is_coordinator_revoked(&consensus.local(), replica);
                consensus.shutdown().await.context("closing the registry")?;
                // Going on, it would found a cluster of its own.
                anyhow::ensure!(!revoked, departure::WORDS);
                anyhow::bail!(unfinished(&config.data_folder, replica));
            }
            Ok((consensus, peers, replica))
        }
        opened => Ok((opened?, peers, replica)),
    }
}

fn unfinished(folder: &Path, replica: ReplicaId) -> String {
    format!(
        "the folder {} is that of coordinator {replica} of another cluster, which it has not finished joining: start it with --join \
         again, or, to found a cluster of its own, delete the folder",
        folder.display()
    )
}

/// `joined`: the papers of one that joined a cluster, whose facts are waited for; they are replaced. Without, the cluster is founded
/// if there is none yet.
pub(crate) async fn found(
    consensus: &Consensus,
    replica: ReplicaId,
    joined: Option<&Papers>,
    leaf_life: Duration,
    (data_folder, peers, contacts): (&Path, &Peers, &[String]),
) -> anyhow::Result<Founded> {
    if joined.is_some() {
        let mut changes = consensus.changes();
        changes.wait_for(|registry| registry.cluster().is_some()).await.context("the registry stopped")?;
    }
    let keyring = Arc::new(Keyring::open(data_folder)?);
    begin(consensus, &keyring).await?;
    let facts = consensus.local();
    let cluster = facts.cluster().context("the registry has no cluster")?;
    let trust = Trust::of(cluster);
    let identity = Identity { role: Role::Coordinator, node: replica.0 };
    let kept = LeafFile::read(data_folder, &trust, identity);
    if joined.is_some() && kept.is_none() {
        seal::wait_for_key(consensus, (peers, contacts), replica, &keyring).await;
    }
    let authority = Arc::new(Authority::locked(trust.clone(), leaf_life));
    let opened = seal::opened(cluster, &keyring).zip(seal::hash_key(cluster, &keyring));
    let (leaf, credentials, signed) = match opened {
        Some((key, hash_key)) => {
            authority.take_up(&trust, Some(&key))?;
            let leaf = LeafFile::new(data_folder, hash_key);
            let credentials = authority.credentials(identity)?;
            keep(&leaf, &credentials);
            (leaf, credentials, Some(SystemTime::now()))
        }
        None => {
            let (leaf, credentials) = kept.context(seal::LACKING)?;
            (leaf, credentials, None)
        }
    };
    let papers = match joined {
        Some(papers) => papers.replace(credentials).map(|()| papers.clone()),
        None => Papers::new(credentials),
    };
    let papers = papers.context("the certificate of this coordinator")?;
    Ok(Founded { cluster: cluster.id.to_string(), authority, keyring, identity, papers, leaf, signed })
}

/// A disk that takes no more keeps nobody from being served.
pub(crate) fn keep(leaf: &LeafFile, credentials: &Credentials) {
    if let Err(error) = leaf.keep(credentials) {
        tracing::warn!("this coordinator's certificate is not kept: {error:#}");
    }
}

/// The tokens that invite agents and coordinators, in files of the data folder; returns the one for agents. In a group this needs
/// a leader, and waits for one.
pub(crate) async fn tokens(
    consensus: &Consensus,
    authority: &Authority,
    data_folder: &Path,
) -> anyhow::Result<JoinToken> {
    let coordinators = data_folder.join("coordinator-join-token");
    join_token(consensus, authority, registry::Role::Coordinator, &coordinators).await?;
    join_token(consensus, authority, registry::Role::Agent, &data_folder.join("join-token")).await
}

/// Founds the cluster if there is none: with a sealed key, unless this coordinator is held at a version that has none.
async fn begin(consensus: &Consensus, keyring: &Keyring) -> anyhow::Result<()> {
    if consensus.local().cluster().is_some() {
        return Ok(());
    }
    let id = authority::random_hex::<6>()?;
    let ca = Authority::create(&id)?;
    let (cluster, ca_certificate_pem, at_unix_ms) = (ClusterId(id), ca.certificate_pem, unix_ms());
    let founding = if consensus.speaks() < ClusterVersion::THIRD {
        Command::FoundCluster { cluster, ca_certificate_pem, ca_key_pem: ca.key_pem, at_unix_ms }
    } else {
        // On the disk before anything is sealed with it.
        keyring.put(SealKey::make()?)?;
        let key = keyring.key().context("the seal key is gone")?;
        let whose = Sealed { cluster: &cluster.0, ca_certificate_pem: &ca_certificate_pem };
        let sealed_ca_key = key.seal(whose, &ca.key_pem)?;
        Command::FoundSealed { cluster, ca_certificate_pem, sealed_ca_key, at_unix_ms }
    };
    let said = propose(consensus, founding).await.context("founding the cluster");
    // Said twice, because its outcome was unknown, it is refused the second time, and the cluster is founded.
    if consensus.local().cluster().is_none() {
        said?;
    }
    Ok(())
}

/// The token in the file while it is good for another while, else a new one.
async fn join_token(
    consensus: &Consensus,
    authority: &Authority,
    role: registry::Role,
    file: &Path,
) -> anyhow::Result<JoinToken> {
    if let Some(token) = kept_token(consensus, authority, file) {
        return Ok(token);
    }
    let (token, secret_hash) = authority.issue_token()?;
    let life_ms = u64::try_from(limits::JOIN_TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX);
    let issue = Command::IssueJoinToken {
        id: TokenId(token.id.clone()),
        secret_hash,
        role,
        expires_at_unix_ms: unix_ms().saturating_add(life_ms),
        uses: None,
        name: Some("kept in the coordinator's folder".to_owned()),
    };
    propose(consensus, issue).await.context("issuing a join token")?;
    write_secret(file, &token.to_string())?;
    Ok(token)
}

fn kept_token(consensus: &Consensus, authority: &Authority, file: &Path) -> Option<JoinToken> {
    let token = JoinToken::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    // One of a former authority ends with it.
    if authority.trust().hashes().first() != Some(&token.ca_hash) {
        return None;
    }
    let registry = consensus.local();
    let entry = registry.token(&TokenId(token.id.clone()))?;
    let half_life_ms = u64::try_from(limits::JOIN_TOKEN_LIFE.as_millis() / 2).unwrap_or(u64::MAX);
    let lasts = !entry.revoked && entry.expires_at_unix_ms > unix_ms().saturating_add(half_life_ms);
    lasts.then_some(token)
}

async fn propose(consensus: &Consensus, command: Command) -> anyhow::Result<()> {
    let reply = loop {
        match consensus.propose(command.clone()).await {
            Ok(reply) => break reply,
            // Every command here may be said twice.
            Err(error) if error.retry() != Retry::Never => {
                tracing::info!(%error, "waiting for a leader");
                tokio::time::sleep(limits::PROPOSE_AGAIN_MAX).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    match reply {
        Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => Ok(()),
        Reply::Refused(refusal) => Err(anyhow::anyhow!("{refusal}")),
    }
}

/// Readable by the operator alone: it opens the cluster to whoever has it.
pub(crate) fn write_secret(file: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let part = file.with_extension("part");
    let _ = std::fs::remove_file(&part);
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .with_context(|| format!("writing {}", part.display()))?;
    writeln!(out, "{text}")
        .and_then(|()| out.sync_all())
        .with_context(|| format!("writing {}", part.display()))?;
    std::fs::rename(&part, file).with_context(|| format!("writing {}", file.display()))
}
