//! [`Consensus`]: what the rest of the coordinator holds. It instantiates openraft's generics once and shows
//! none of them.

use std::path::Path;
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::metrics::WaitError;
use openraft::{Raft, ReadPolicy, ServerState};
use registry::{Command, Registry, Reply};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::error::{OpenError, ProposeError, ReadError, ShutdownError, SnapshotError};
use crate::health::Health;
use crate::limits;
use crate::options::{Options, ReplicaId};
use crate::raft::config;
use crate::raft::log_store;
use crate::raft::network::Network;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Answer, Member, Proposal, Types};
use crate::wal::folder::Folder;

/// A replica of the registry. Cheap to clone; the replica lives until [`Consensus::shutdown`] or until the last
/// clone is dropped.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft<Types, StateMachine>,
    replica: ReplicaId,
    published: watch::Receiver<Arc<Registry>>,
    applied_index: watch::Receiver<Option<u64>>,
    released: watch::Receiver<bool>,
    in_flight: Semaphore,
    in_flight_max: usize,
}

impl Consensus {
    /// Opens the replica in `folder`. An empty folder founds a group with this replica as its only voter. Returns
    /// when the replica leads and has applied every command its log holds.
    ///
    /// # Errors
    /// See [`OpenError`]; a folder whose acknowledged content is damaged is refused and left as it is.
    pub async fn open(folder: &Path, options: Options) -> Result<Consensus, OpenError> {
        let (folder, released) = Folder::lock(folder)?;
        Consensus::open_in(folder, released, options).await
    }

    /// As [`Consensus::open`], in a folder that is locked already.
    pub(crate) async fn open_in(
        folder: Folder,
        released: watch::Receiver<bool>,
        options: Options,
    ) -> Result<Consensus, OpenError> {
        let mut on_release = released.clone();
        let consensus = match Consensus::start(folder, released, options).await {
            Ok(consensus) => consensus,
            Err(error) => {
                // The folder must be free again when the caller reads the error.
                timeout(limits::RELEASE_WAIT, on_release.wait_for(|released| *released)).await.ok();
                return Err(error);
            }
        };
        match consensus.lead().await {
            Ok(()) => Ok(consensus),
            Err(error) => {
                consensus.shutdown().await.ok();
                Err(error)
            }
        }
    }

    async fn start(
        folder: Folder,
        released: watch::Receiver<bool>,
        options: Options,
    ) -> Result<Consensus, OpenError> {
        let stores = log_store::open(folder, options.replica).await?;
        let raft =
            Raft::new(options.replica, config::of(&options), Network, stores.log, stores.state_machine)
                .await
                .map_err(|fatal| OpenError::Stopped(fatal.to_string()))?;
        let inner = Inner {
            raft,
            replica: options.replica,
            published: stores.published,
            applied_index: stores.applied_index,
            released,
            in_flight: Semaphore::new(options.proposals_in_flight_max),
            in_flight_max: options.proposals_in_flight_max,
        };
        Ok(Consensus { inner: Arc::new(inner) })
    }

    /// Founds the group if the log is empty, stands for election at once if there is nobody else to wait for,
    /// and waits until the whole log is applied. Waiting for leadership alone is not enough: right after
    /// founding, openraft shows a leader of term 0 that still steps down.
    async fn lead(&self) -> Result<(), OpenError> {
        let raft = &self.inner.raft;
        let stopped = |error: &dyn std::fmt::Display| OpenError::Stopped(error.to_string());
        if raft.is_initialized().await.map_err(|fatal| stopped(&fatal))? {
            let replica = self.inner.replica;
            let alone = raft.with_raft_state(move |state| {
                state.membership_state.effective().voter_ids().all(|voter| voter == replica)
            });
            if alone.await.map_err(|fatal| stopped(&fatal))? {
                raft.trigger().elect(false).await.map_err(|fatal| stopped(&fatal))?;
            }
        } else {
            let members = [(self.inner.replica, Member::default())];
            raft.initialize(std::collections::BTreeMap::from(members))
                .await
                .map_err(|error| stopped(&error))?;
        }
        let ready = |metrics: &openraft::RaftMetrics<Types>| {
            let applied = metrics.last_applied.map(|id| id.index);
            metrics.state == ServerState::Leader && applied >= Some(1) && applied == metrics.last_log_index
        };
        let waited = raft.wait(Some(limits::OPEN_WAIT)).metrics(ready, "leading, with the log applied").await;
        waited.map(|_| ()).map_err(|error| match error {
            WaitError::Timeout(after, why) => OpenError::NotReady { waited_s: after.as_secs(), why },
            WaitError::ShuttingDown => OpenError::Stopped(self.stop_reason()),
        })
    }

    /// Commits `command` and applies it; the reply is the registry's. Commands take effect in one order on all
    /// replicas. Dropping the future does not take the command back.
    ///
    /// # Errors
    /// [`ProposeError::retry`] says what the caller may do.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        let busy = || ProposeError::Busy { in_flight_max: self.inner.in_flight_max };
        let _slot = self.inner.in_flight.try_acquire().map_err(|_| busy())?;
        bounded(&command)?;
        let write = self.inner.raft.client_write(Proposal(command));
        let Ok(written) = timeout(limits::ANSWER_WAIT, write).await else {
            let waited_s = limits::ANSWER_WAIT.as_secs();
            return Err(ProposeError::OutcomeUnknown(format!("no majority answered within {waited_s} s")));
        };
        match written {
            Ok(response) => match response.data {
                Answer::Reply(reply) => Ok(reply),
                Answer::Internal => Err(ProposeError::OutcomeUnknown("the command had no reply".to_owned())),
            },
            Err(RaftError::APIError(error)) => Err(refused(error)),
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }

    /// Looks at the registry as it is after every command that was answered before this call, on any replica.
    /// Leadership is confirmed by a round of the majority (ReadIndex), never by a lease: clocks stand still while
    /// a Mac sleeps.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> Result<T, ReadError> {
        let raft = &self.inner.raft;
        let stopped = |fatal: &dyn std::fmt::Display| ReadError::Stopped(fatal.to_string());
        let confirm = raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let linearizer = match timeout(limits::ANSWER_WAIT, confirm).await {
            Err(_) => return Err(ReadError::NoMajority),
            Ok(Err(RaftError::Fatal(fatal))) => return Err(stopped(&fatal)),
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {
                return Err(ReadError::NoMajority);
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                return Err(ReadError::NotLeader { leader: leader(&to) });
            }
            Ok(Ok(linearizer)) => linearizer,
        };
        match linearizer.try_await_ready(raft, Some(limits::ANSWER_WAIT)).await {
            Err(fatal) => Err(stopped(&fatal)),
            Ok(Err(_behind)) => Err(ReadError::NoMajority),
            Ok(Ok(_applied)) => Ok(look(&self.local())),
        }
    }

    /// The registry as this replica last applied it: never torn, possibly stale. After a successful
    /// [`Consensus::propose`] on this replica it includes that command.
    #[must_use]
    pub fn local(&self) -> Arc<Registry> {
        Arc::clone(&self.inner.published.borrow())
    }

    /// The same, as a channel that holds the newest state after each apply. Several commands applied together are
    /// one change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Registry>> {
        self.inner.published.clone()
    }

    /// What this replica says of itself.
    #[must_use]
    pub fn health(&self) -> Health {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        Health {
            leader: metrics.state == ServerState::Leader,
            term: metrics.current_term,
            applied_index: *self.inner.applied_index.borrow(),
            last_log_index: metrics.last_log_index,
            snapshot_index: metrics.snapshot.map(|id| id.index),
            fatal: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Writes a snapshot of everything applied when it is called, and waits for it.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn snapshot(&self) -> Result<(), SnapshotError> {
        let raft = &self.inner.raft;
        let applied = *self.inner.applied_index.borrow();
        let covers = |metrics: &openraft::RaftMetrics<Types>| metrics.snapshot.map(|id| id.index) >= applied;
        for _ in 0..limits::SNAPSHOT_ATTEMPTS {
            raft.trigger().snapshot().await.map_err(|fatal| SnapshotError::Stopped(fatal.to_string()))?;
            match raft.wait(Some(limits::SNAPSHOT_WAIT)).metrics(covers, "a snapshot").await {
                Ok(_) => return Ok(()),
                Err(WaitError::ShuttingDown) => return Err(SnapshotError::Stopped(self.stop_reason())),
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
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the replica did not stop cleanly");
        }
        let mut released = self.inner.released.clone();
        let free = timeout(limits::RELEASE_WAIT, released.wait_for(|released| *released)).await;
        // A closed channel means the same as `true`: the folder's lock is gone.
        free.map(|_| ()).map_err(|_| ShutdownError)
    }

    fn stop_reason(&self) -> String {
        self.health().fatal.unwrap_or_else(|| "it was shut down".to_owned())
    }
}

/// Refuses a command that no log record could hold, before Raft accepts it.
fn bounded(command: &Command) -> Result<(), ProposeError> {
    let mut size = Size(0);
    // Counting cannot fail; a type that serde cannot encode would be found by every test.
    if let Err(error) = serde_json::to_writer(&mut size, command) {
        return Err(ProposeError::OutcomeUnknown(format!("the command cannot be encoded: {error}")));
    }
    let bytes_max = limits::COMMAND_BYTES_MAX;
    if size.0 > bytes_max {
        return Err(ProposeError::TooLarge { bytes: size.0, bytes_max });
    }
    Ok(())
}

/// Counts what is written to it.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn refused(error: ClientWriteError<Types>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader { leader: leader(&to) },
        ClientWriteError::LogEntryDiscarded(_) => {
            ProposeError::OutcomeUnknown("leadership changed while the command was under way".to_owned())
        }
        error @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            ProposeError::OutcomeUnknown(error.to_string())
        }
    }
}

/// Where openraft sends us. An empty answer means an election is under way: worth a retry, like the rest.
fn leader(to: &ForwardToLeader<Types>) -> Option<u64> {
    to.leader_id.map(|replica| replica.0)
}
