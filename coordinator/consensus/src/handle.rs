//! [`Consensus`]: what the rest of the coordinator holds. It instantiates openraft's generics once and shows
//! none of them.

use std::path::Path;
use std::sync::Arc;

use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::WaitError;
use registry::{ClusterVersion, Command, Registry, Reply};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{OpenError, ProposeError, ReadError, ShutdownError, SnapshotError};
use crate::health::{self, Health};
use crate::leadership::Leadership;
use crate::members::{self, MemberState};
use crate::options::{Options, Start};
use crate::raft::door::WhoIs;
use crate::raft::service::{self, ReplicaService};
use crate::raft::types::Types;
use crate::replica::Replica;
use crate::wal::folder::Folder;
use crate::{forwarding, limits, opening, steward};

/// A replica of the registry. Cheap to clone; the replica lives until [`Consensus::shutdown`] or until the last
/// clone is dropped.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) replica: Arc<Replica>,
}

impl Consensus {
    /// Opens the replica in `folder`; `start` says what an empty one becomes. A group of one is returned when it leads
    /// and has applied every command its log holds, a member of a larger group when its log is recovered: see
    /// [`Consensus::leadership`] for whether a majority is there.
    ///
    /// # Errors
    /// See [`OpenError`]; a folder whose acknowledged content is damaged is refused and left as it is.
    pub async fn open(folder: &Path, options: Options, start: Start) -> Result<Consensus, OpenError> {
        let (folder, released) = Folder::lock(folder)?;
        Consensus::open_in(folder, released, options, start).await
    }

    /// As [`Consensus::open`], in a folder that is locked already.
    pub(crate) async fn open_in(
        folder: Folder,
        released: watch::Receiver<bool>,
        options: Options,
        start: Start,
    ) -> Result<Consensus, OpenError> {
        let replica = opening::open(folder, released, options, start).await?;
        steward::start(&replica);
        Ok(Consensus { replica })
    }

    /// Commits `command` and applies it; the reply is the registry's. Commands take effect in one order on all
    /// replicas. On a replica that does not lead, the leader is asked, and looked for while there is none. Dropping the
    /// future does not take the command back.
    ///
    /// # Errors
    /// [`ProposeError::retry`] says what the caller may do.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        let _slot = self.replica.slot()?;
        let json = bounded(&command)?;
        // Where another leads, which may be of an older release and could not even refuse it.
        if let Some(refused) = self.replica.refused(&command) {
            return Ok(refused.reply);
        }
        let committed = forwarding::propose(&self.replica, command, json).await?;
        // Who has an answer finds its effect in `local()`, wherever the command was committed. A replica that is cut off at
        // this moment answers all the same: the command has taken effect.
        timeout(limits::ECHO_WAIT, self.replica.applied(committed.index)).await.ok();
        Ok(committed.reply)
    }

    /// Looks at the registry as it is after every command that was answered before this call, on any replica.
    /// Leadership is confirmed by a round of the majority (ReadIndex), never by a lease: clocks stand still while
    /// a Mac sleeps.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> Result<T, ReadError> {
        forwarding::confirm(&self.replica).await?;
        Ok(look(&self.local()))
    }

    /// The registry as this replica last applied it: never torn, possibly stale. After a successful
    /// [`Consensus::propose`] on this replica it includes that command.
    #[must_use]
    pub fn local(&self) -> Arc<Registry> {
        self.replica.registry()
    }

    /// The same, as a channel that holds the newest state after each apply. Several commands applied together are
    /// one change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Registry>> {
        self.replica.published.clone()
    }

    /// Who leads, as a channel that holds the newest answer.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.replica.leadership.clone()
    }

    /// Waits until this replica, which leads, has applied everything that was committed under earlier leaders, and
    /// confirms with a majority that it leads still. What runs only on the leader begins after this, with the returned
    /// term in its orders.
    ///
    /// # Errors
    /// [`ReadError::NotLeader`] if this replica does not lead, or no longer does when all is applied.
    pub async fn barrier(&self) -> Result<u64, ReadError> {
        let term = self.replica.leadership.borrow().term;
        forwarding::still_leads(&self.replica, term)?;
        let index = self.replica.read_index().await?;
        self.replica.applied(index).await?;
        forwarding::still_leads(&self.replica, term)?;
        Ok(term)
    }

    /// The service through which other replicas reach this one. `who_is` reads from a connection's extensions whose it
    /// is; a message that claims another sender is refused.
    #[must_use]
    pub fn service(&self, who_is: WhoIs) -> ReplicaService {
        service::of(Arc::clone(&self.replica), who_is)
    }

    /// The members of the group, by id. How far each follows is only known where this replica leads.
    #[must_use]
    pub fn members(&self) -> Vec<MemberState> {
        members::of(&self.replica)
    }

    /// The newest version of the cluster that this replica speaks.
    #[must_use]
    pub fn speaks(&self) -> ClusterVersion {
        self.replica.speech.newest()
    }

    /// What this replica says of itself.
    #[must_use]
    pub fn health(&self) -> Health {
        health::of(&self.replica)
    }

    /// Returns why, when the replica has stopped for good.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.replica.raft.metrics();
        while self.replica.fatal().is_none() {
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { break },
                () = self.replica.speech.ended() => {}
            }
        }
        self.replica.stop_reason()
    }

    /// Writes a snapshot of everything applied when it is called, and waits for it.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn snapshot(&self) -> Result<(), SnapshotError> {
        let raft = &self.replica.raft;
        let applied = *self.replica.applied_index.borrow();
        let covers = |metrics: &RaftMetrics<Types>| metrics.snapshot.map(|id| id.index) >= applied;
        for _ in 0..limits::SNAPSHOT_ATTEMPTS {
            raft.trigger().snapshot().await.map_err(|fatal| SnapshotError::Stopped(fatal.to_string()))?;
            match raft.wait(Some(limits::SNAPSHOT_WAIT)).metrics(covers, "a snapshot").await {
                Ok(_) => return Ok(()),
                Err(WaitError::ShuttingDown) => {
                    return Err(SnapshotError::Stopped(self.replica.stop_reason()));
                }
                // openraft ignores the request while another snapshot is being written: ask again.
                Err(WaitError::Timeout(..)) => {}
            }
        }
        Err(SnapshotError::Slow)
    }

    /// Stops the replica and waits until the folder is free. Calls on other clones fail as stopped from here on.
    ///
    /// # Errors
    /// [`ShutdownError`] if the writer hangs in a flush.
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        if let Err(error) = self.replica.raft.shutdown().await {
            tracing::warn!(%error, "the replica did not stop cleanly");
        }
        let mut released = self.replica.released.clone();
        let free = timeout(limits::RELEASE_WAIT, released.wait_for(|released| *released)).await;
        // A closed channel means the same as `true`: the folder's lock is gone.
        free.map(|_| ()).map_err(|_| ShutdownError)
    }
}

/// The command's encoding. Refuses one that no log record could hold, before Raft accepts it.
fn bounded(command: &Command) -> Result<Vec<u8>, ProposeError> {
    // A type that serde cannot encode would be found by every test.
    let json = serde_json::to_vec(command)
        .map_err(|error| ProposeError::OutcomeUnknown(format!("the command cannot be encoded: {error}")))?;
    let (bytes, bytes_max) = (json.len(), limits::COMMAND_BYTES_MAX);
    if bytes > bytes_max { Err(ProposeError::TooLarge { bytes, bytes_max }) } else { Ok(json) }
}
