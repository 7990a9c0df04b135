//! The registry as openraft's state machine. It lives in memory; what survives is the snapshot and the log behind
//! it, and applying the same commands to the same snapshot gives the same registry.
//!
//! After each apply the whole registry is cloned once and published. The clone costs time in proportion to the
//! registry (hundreds of nodes, tens of models: well below a flush), is paid once per batch and not per command,
//! and buys readers that never wait for a writer. If registries grow past a few megabytes, share structure inside
//! `registry` instead of publishing less.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::entry::{EntryPayload, RaftEntry};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use registry::{ClusterVersion, Registry};
use tokio::sync::watch;

use crate::error::OpenError;
use crate::raft::log_store::from_json;
use crate::raft::types::{Answer, LogId, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::speech::Speech;
use crate::wal::folder::Folder;
use crate::wal::snapshot_file::{self, SnapshotFile};

pub(crate) struct StateMachine {
    folder: Folder,
    registry: Registry,
    speech: Arc<Speech>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    published: watch::Sender<Arc<Registry>>,
    /// Index of `last_applied`. openraft's own metrics say it later than a proposer has its answer.
    applied_index: watch::Sender<Option<u64>>,
}

impl StateMachine {
    /// Starts from the snapshot.
    pub(crate) fn open(
        folder: Folder,
        snapshot: Option<SnapshotFile>,
        speech: Arc<Speech>,
    ) -> Result<StateMachine, OpenError> {
        let (meta, registry) = match snapshot {
            None => (SnapshotMeta::default(), Registry::default()),
            Some(file) => {
                let meta: SnapshotMeta = from_json(&file.meta, snapshot_file::NAME, None)?;
                let covered = meta.last_log_id.map(|id| id.index);
                (meta, from_json(&file.state, snapshot_file::NAME, covered)?)
            }
        };
        speech.follows(registry.cluster_version())?;
        let published = watch::Sender::new(Arc::new(registry.clone()));
        let (last_applied, membership) = (meta.last_log_id, meta.last_membership);
        let applied_index = watch::Sender::new(last_applied.map(|id| id.index));
        Ok(StateMachine { folder, registry, speech, last_applied, membership, published, applied_index })
    }

    /// The registry after each apply.
    pub(crate) fn published(&self) -> watch::Receiver<Arc<Registry>> {
        self.published.subscribe()
    }

    /// Index of the last command in what is published.
    pub(crate) fn applied_index(&self) -> watch::Receiver<Option<u64>> {
        self.applied_index.subscribe()
    }

    fn publish(&self, changed: bool) {
        if changed {
            self.published.send_replace(Arc::new(self.registry.clone()));
        }
        self.applied_index.send_replace(self.last_applied.map(|id| id.index));
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut answers = Vec::new();
        let mut changed = false;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let log_id = entry.log_id();
            let answer = match entry.payload {
                EntryPayload::Blank => Answer::Internal,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(log_id), membership);
                    Answer::Internal
                }
                EntryPayload::Normal(proposal) => {
                    if let Some(to) = proposal.0.raises_to() {
                        self.speech.meets(to).map_err(io::Error::other)?;
                    }
                    changed = true;
                    Answer::Reply(self.registry.apply(&proposal.0))
                }
            };
            self.last_applied = Some(log_id);
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        // Published before anybody is answered: who has an answer finds its effect in `local()`.
        self.publish(changed);
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            folder: self.folder.clone(),
            meta: SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() },
            registry: Arc::clone(&self.published.borrow()),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let registry: Registry = serde_json::from_slice(&snapshot).map_err(|error| {
            io::Error::other(format!("a snapshot cannot be decoded (column {})", error.column()))
        })?;
        let version = registry.cluster_version();
        self.speech.meets(version).map_err(io::Error::other)?;
        write(self.folder.clone(), version, meta.clone(), snapshot).await?;
        self.registry = registry;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish(true);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let folder = self.folder.clone();
        let read = folder.hands().work(move || snapshot_file::read(folder.disk())).await;
        let Some(file) = read?.map_err(io::Error::other)? else { return Ok(None) };
        let meta = serde_json::from_slice(&file.meta)?;
        Ok(Some(Snapshot { meta, snapshot: file.state }))
    }
}

/// Writes one snapshot while the state machine goes on.
pub(crate) struct SnapshotBuilder {
    folder: Folder,
    meta: SnapshotMeta,
    registry: Arc<Registry>,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = serde_json::to_vec(self.registry.as_ref())?;
        let version = self.registry.cluster_version();
        write(self.folder.clone(), version, self.meta.clone(), state.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: state })
    }
}

/// Returns when the snapshot is durable; openraft purges the log behind it after that.
async fn write(
    folder: Folder,
    version: ClusterVersion,
    meta: SnapshotMeta,
    state: Vec<u8>,
) -> io::Result<()> {
    let meta = serde_json::to_vec(&meta)?;
    folder.hands().work(move || snapshot_file::write(folder.disk(), version, &meta, &state)).await?
}
