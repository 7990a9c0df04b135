//! openraft's log storage over the write-ahead log. Entries and the vote are encoded here, as JSON: a log that a
//! person can read has settled more arguments than the bytes it costs.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, RaftLogReader};
use registry::Registry;
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};

use crate::error::{Damage, OpenError};
use crate::limits;
use crate::options::ReplicaId;
use crate::raft::log_memory::{Held, Memory};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Entry, LogId, Types, Vote};
use crate::speech::Speech;
use crate::wal::erasure::Erasure;
use crate::wal::folder::Folder;
use crate::wal::log::{self, Contents, Log, Rotation};
use crate::wal::record::{Kind, Op};
use crate::wal::writer::Writer;
use crate::wal::{mark, snapshot_file};

/// What a replica is made of.
pub(crate) struct Stores {
    pub(crate) log: LogStore,
    pub(crate) state_machine: StateMachine,
    /// The registry after each apply.
    pub(crate) published: watch::Receiver<Arc<Registry>>,
    pub(crate) applied_index: watch::Receiver<Option<u64>>,
    pub(crate) erasure: Erasure,
}

/// Opens log and snapshot and checks that they fit together.
pub(crate) async fn open(
    folder: Folder,
    replica: ReplicaId,
    speech: Arc<Speech>,
) -> Result<Stores, OpenError> {
    let hands = folder.hands();
    let reading = hands.work(move || read_speaking(folder, replica, Rotation::default(), speech)).await;
    reading.map_err(|error| OpenError::Stopped(error.to_string()))?
}

/// As [`open`], on the calling thread, with all that this release speaks.
#[cfg(test)]
pub(crate) fn read(folder: Folder, replica: ReplicaId, rotation: Rotation) -> Result<Stores, OpenError> {
    read_speaking(folder, replica, rotation, Arc::default())
}

fn read_speaking(
    folder: Folder,
    replica: ReplicaId,
    rotation: Rotation,
    speech: Arc<Speech>,
) -> Result<Stores, OpenError> {
    let snapshot = snapshot_file::read(folder.disk())?;
    let state_machine = StateMachine::open(folder.clone(), snapshot, Arc::clone(&speech))?;
    let applied_index = state_machine.applied_index();
    let covered = *applied_index.borrow();
    let hands = folder.hands();
    let (log, contents) = Log::open(folder, replica.0, rotation)?;
    let memory = decode(contents, &speech)?;
    let purged = memory.purged().map(|id| id.index);
    if purged > covered {
        let what = format!("it covers the log up to {covered:?}, but the log was purged up to {purged:?}");
        return Err(Damage { file: snapshot_file::NAME.to_owned(), offset: 0, index: purged, what }.into());
    }
    let erasure = log.erasure();
    let writer = hands
        .writer(log)
        .map_err(|source| OpenError::Io { doing: "starting the log writer".to_owned(), source })?;
    let published = state_machine.published();
    Ok(Stores { log: LogStore { memory, writer }, state_machine, published, applied_index, erasure })
}

fn decode(contents: Contents, speech: &Speech) -> Result<Memory, OpenError> {
    let mut entries = BTreeMap::new();
    for op in &contents.entries {
        let entry: Entry = from_json(&op.payload, "log", Some(op.index))?;
        if (entry.log_id.index, entry.log_id.leader_id.term) != (op.index, op.term) {
            return Err(
                undecodable("log", Some(op.index), "the entry is not the one its record names").into()
            );
        }
        if let EntryPayload::Normal(proposal) = &entry.payload
            && let Some(to) = proposal.0.raises_to()
        {
            speech.follows(to)?;
        }
        entries.insert(op.index, Held { entry, bytes: op.payload.len() });
    }
    let purged = match &contents.extent.purged {
        Some(purged) => Some(from_json(purged.name.as_bytes(), "log", Some(purged.index))?),
        None => None,
    };
    let vote =
        if contents.vote.is_empty() { None } else { Some(from_json(&contents.vote, log::VOTE, None)?) };
    let committed = match &contents.committed {
        Some(name) => Some(from_json(name.as_bytes(), mark::NAME, None)?),
        None => None,
    };
    Ok(Memory::new(entries, purged, vote, committed))
}

/// Decodes what an intact checksum vouches for: failing here means that another release wrote it.
pub(crate) fn from_json<T: DeserializeOwned>(
    bytes: &[u8],
    file: &str,
    index: Option<u64>,
) -> Result<T, OpenError> {
    serde_json::from_slice(bytes).map_err(|error| {
        // serde quotes what it stumbled over, which may be a secret: say only where.
        let what = format!("it is intact but this release cannot decode it (column {})", error.column());
        undecodable(file, index, &what).into()
    })
}

fn undecodable(file: &str, index: Option<u64>, what: &str) -> Damage {
    Damage { file: file.to_owned(), offset: 0, index, what: what.to_owned() }
}

/// The log as openraft writes it.
pub(crate) struct LogStore {
    memory: Memory,
    writer: Writer,
}

/// The log as openraft reads it.
#[derive(Clone)]
pub(crate) struct LogReader {
    memory: Memory,
}

impl LogStore {
    /// Waits until the writer has made `ops` durable.
    async fn write(&self, ops: Vec<Op>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.writer.append(ops, Box::new(move |result| drop(done.send(result))));
        written.await.unwrap_or_else(|_| Err(io::Error::other("the log writer has ended")))
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        Ok(self.memory.range(range))
    }

    /// What one message to a follower holds: cut by bytes, since a count alone would let 300 large commands through.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.memory.batch(start, end, limits::APPEND_BYTES_MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory.vote())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState { last_purged_log_id: self.memory.purged(), last_log_id: self.memory.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { memory: self.memory.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, written) = oneshot::channel();
        self.writer.save_vote(serde_json::to_vec(vote)?, Box::new(move |result| drop(done.send(result))));
        written.await.unwrap_or_else(|_| Err(io::Error::other("the log writer has ended")))?;
        self.memory.set_vote(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let name = committed.as_ref().map(serde_json::to_string).transpose()?;
        self.memory.set_committed(committed);
        self.writer.save_committed(name);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.memory.committed())
    }

    /// Returns when the entries can be read; `callback` is called when they are flushed.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut ops = Vec::new();
        for entry in entries {
            let term = entry.log_id.leader_id.term;
            let payload = serde_json::to_vec(&entry)?;
            let bytes = payload.len();
            ops.push(log::entry(entry.log_id.index, term, payload));
            self.memory.append(entry, bytes);
        }
        self.writer.append(ops, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let index = last_log_id.map_or(0, |id| id.index.saturating_add(1));
        self.memory.truncate(index);
        self.write(vec![Op { kind: Kind::Truncate, index, term: 0, payload: Vec::new() }]).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let payload = serde_json::to_vec(&log_id)?;
        self.memory.purge(log_id);
        self.write(vec![Op { kind: Kind::Purge, index: log_id.index, term: 0, payload }]).await
    }
}
