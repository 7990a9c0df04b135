//! The log as its one writer sees it: append, flush, rotate, purge, vote. Synchronous; `writer.rs` gives it a
//! thread. After an error it must not be used again.

use std::collections::VecDeque;
use std::io;

use crate::error::OpenError;
use crate::limits;
use crate::wal::disk::DiskFile;
use crate::wal::erasure::Erasure;
use crate::wal::extent::Extent;
use crate::wal::folder::Folder;
use crate::wal::mark::{self, Mark, MarkFile};
use crate::wal::record::{self, Key, Kind, Op, Sum};
use crate::wal::recovery::{self, Found, Recovered};
use crate::wal::replace::replace;
use crate::wal::sealed;
use crate::wal::segment::{self, Head, Previous};

/// Name of the file with the last vote.
pub(crate) const VOTE: &str = "vote";
/// Number of the first segment of a folder.
pub(crate) const FIRST_SEGMENT: u64 = 1;

/// When segments are closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    pub(crate) bytes_max: u64,
    pub(crate) bytes_worth_purging: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation {
            bytes_max: limits::SEGMENT_BYTES_MAX,
            bytes_worth_purging: limits::SEGMENT_BYTES_WORTH_PURGING,
        }
    }
}

/// What an opened log held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The last vote, as saved; empty if there was none.
    pub(crate) vote: Vec<u8>,
    pub(crate) committed: Option<String>,
    pub(crate) extent: Extent,
    /// Entries behind the last purge, in order.
    pub(crate) entries: Vec<Op>,
    /// Bytes of an unfinished write that were cut.
    pub(crate) cut_bytes: u64,
}

pub(crate) struct Log {
    folder: Folder,
    replica: u64,
    rotation: Rotation,
    extent: Extent,
    /// Segments before the active one, each with the index at which it ends.
    closed: VecDeque<(u64, Option<u64>)>,
    active: Active,
    mark: MarkFile,
    committed: Option<String>,
    /// Encoded records that are not written yet.
    pending: Vec<u8>,
    erasure: Erasure,
}

struct Active {
    number: u64,
    key: Key,
    file: Box<dyn DiskFile>,
    /// Where the next record goes, pending ones included.
    end: u64,
    synced: u64,
    link: Sum,
}

impl Log {
    /// Opens the log in the folder, or founds it.
    pub(crate) fn open(
        folder: Folder,
        replica: u64,
        rotation: Rotation,
    ) -> Result<(Log, Contents), OpenError> {
        let recovered = match recovery::read(folder.disk(), replica)? {
            Found::Log(recovered) => recovered,
            Found::Unfounded => {
                found(&folder, replica, &[]).map_err(doing("founding the log"))?;
                match recovery::read(folder.disk(), replica)? {
                    Found::Log(recovered) => recovered,
                    Found::Unfounded => {
                        return Err(mark::missing("it is missing right after it was written").into());
                    }
                }
            }
        };
        let contents = Contents {
            vote: recovered.vote.clone(),
            committed: recovered.mark.committed.clone(),
            extent: recovered.extent.clone(),
            entries: recovered.entries.values().cloned().collect(),
            cut_bytes: recovered.active.cut_bytes,
        };
        let log = settle(folder, replica, rotation, *recovered).map_err(doing("settling the log"))?;
        Ok((log, contents))
    }

    /// The way to have purged records removed from the disk at once.
    pub(crate) fn erasure(&self) -> Erasure {
        self.erasure.clone()
    }

    /// Adds a record to what the next [`Log::flush`] writes.
    pub(crate) fn append(&mut self, op: &Op) -> io::Result<()> {
        if op.payload.len() > limits::RECORD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a log entry is larger than a record may be",
            ));
        }
        let before = self.pending.len();
        let active = &mut self.active;
        active.link = record::encode(op, active.synced, active.link, active.key, &mut self.pending);
        active.end = active.end.saturating_add(self.pending.len().saturating_sub(before) as u64);
        self.extent.follow(op);
        Ok(())
    }

    /// Writes and flushes what was appended, then moves the mark. Only after this returns may anybody be told.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let active = &mut self.active;
        let name = segment::name(active.number);
        let at = active.end.saturating_sub(self.pending.len() as u64);
        active.file.write_at(at, &self.pending).map_err(during("writing", &name))?;
        active.file.sync().map_err(during("flushing", &name))?;
        active.synced = active.end;
        self.pending.clear();
        self.write_mark()?;
        if self.active.end >= self.rotation.bytes_max {
            self.rotate()?;
        }
        Ok(())
    }

    /// Flushes, then removes the segments that hold nothing behind the last purge.
    pub(crate) fn drop_purged(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.erasure.take() || self.active.end >= self.rotation.bytes_worth_purging {
            self.rotate()?;
        }
        let purged = self.extent.purged.as_ref().map(|purged| purged.index);
        let mut removed = false;
        // Oldest first: whatever a crash leaves is an unbroken row of segments.
        while self.closed.front().is_some_and(|(_, last_index)| *last_index <= purged) {
            if let Some((number, _)) = self.closed.pop_front() {
                self.folder.disk().remove(&segment::name(number))?;
                // Each removal is flushed before the next, so that the row never breaks in the middle.
                self.folder.disk().sync_names()?;
                removed = true;
            }
        }
        self.tell_extremes();
        if removed {
            tracing::debug!(purged, "log segments removed");
        }
        Ok(())
    }

    fn tell_extremes(&self) {
        self.erasure.oldest_is(self.closed.front().map_or(self.active.number, |(number, _)| *number));
        self.erasure.newest_is(self.active.number);
    }

    /// Replaces the vote. Everything appended before is flushed first: the order on disk is the order of calls.
    pub(crate) fn save_vote(&mut self, vote: &[u8]) -> io::Result<()> {
        self.flush()?;
        replace(self.folder.disk(), VOTE, &sealed::seal(sealed::Kind::Vote, vote))
            .map_err(during("replacing", VOTE))
    }

    /// Notes what is committed; written at once, flushed by and by.
    pub(crate) fn save_committed(&mut self, committed: Option<String>) {
        self.committed = committed;
    }

    /// Writes the mark if the committed index has moved since.
    pub(crate) fn write_committed(&mut self) -> io::Result<()> {
        if self.mark.current().committed == self.committed { Ok(()) } else { self.write_mark() }
    }

    /// Whether the mark on the medium is the one that was written.
    pub(crate) fn mark_flushed(&self) -> bool {
        self.mark.flushed()
    }

    pub(crate) fn flush_mark(&mut self) -> io::Result<()> {
        self.mark.flush().map_err(during("flushing", mark::NAME))
    }

    fn write_mark(&mut self) -> io::Result<()> {
        let mark = Mark {
            serial: 0,
            segment: self.active.number,
            synced: self.active.synced,
            committed: self.committed.clone(),
        };
        self.mark.write(mark).map_err(during("writing", mark::NAME))
    }

    /// Starts a new segment. The old one is flushed to its end, which is what the new head vouches for.
    fn rotate(&mut self) -> io::Result<()> {
        let number = self.active.number.saturating_add(1);
        let head = Head {
            replica: self.replica,
            number,
            previous: Some(Previous { length: self.active.end, link: self.active.link }),
            extent: self.extent.clone(),
        };
        let active =
            create_segment(&self.folder, &head).map_err(during("starting", &segment::name(number)))?;
        self.closed.push_back((self.active.number, self.extent.last_index));
        self.active = active;
        self.tell_extremes();
        self.write_mark()?;
        self.flush_mark()
    }
}

/// Founds a log: everything else first, the mark last. Until the mark is there, founding starts over, unless it began with a
/// vote.
pub(crate) fn found(folder: &Folder, replica: u64, vote: &[u8]) -> io::Result<()> {
    let disk = folder.disk();
    replace(disk, VOTE, &sealed::seal(sealed::Kind::Vote, vote))?;
    let head = Head { replica, number: FIRST_SEGMENT, previous: None, extent: Extent::default() };
    let active = create_segment(folder, &head)?;
    let mark = Mark { serial: 0, segment: FIRST_SEGMENT, synced: active.synced, committed: None };
    mark::found(disk, &mark)
}

fn create_segment(folder: &Folder, head: &Head) -> io::Result<Active> {
    let (bytes, sum) = segment::encode_head(head)?;
    let mut file = folder.disk().create(&segment::name(head.number))?;
    file.write_at(0, &bytes)?;
    file.sync()?;
    folder.disk().sync_names()?;
    let end = bytes.len() as u64;
    Ok(Active {
        number: head.number,
        key: Key::of(head.replica, head.number),
        file,
        end,
        synced: end,
        link: sum,
    })
}

/// Makes what was read the durable truth before anything is built on it.
///
/// The tail behind the mark may exist in the kernel's cache alone: after a failed flush the kernel drops its
/// knowledge that those pages are dirty, and a new process reads them as if they were on the medium. Hence it is
/// written again, not only flushed.
fn settle(folder: Folder, replica: u64, rotation: Rotation, recovered: Recovered) -> io::Result<Log> {
    let disk = folder.disk();
    for name in &recovered.leftovers {
        disk.remove(name)?;
    }
    let Recovered { mark, extent, closed, active, .. } = recovered;
    let mut file = disk.open(&segment::name(active.number))?;
    let end = active.bytes.len() as u64;
    if active.cut_bytes > 0 {
        tracing::warn!(
            segment = active.number,
            offset = end,
            bytes = active.cut_bytes,
            "an unfinished write at the end of the log was cut; it was never acknowledged"
        );
        file.cut(end)?;
        // Flushed before anything is written here, so that the old bytes cannot come back under new ones.
        file.sync()?;
    }
    let known = if mark.segment == active.number { mark.synced } else { 0 };
    let tail = active.bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
    file.write_at(known, tail)?;
    file.sync()?;
    disk.sync_names()?;
    let mut log = Log {
        replica,
        rotation,
        extent,
        closed: closed.into(),
        mark: MarkFile::open(disk, mark.clone())?,
        committed: mark.committed,
        active: Active {
            number: active.number,
            key: Key::of(replica, active.number),
            file,
            end,
            synced: end,
            link: active.link,
        },
        pending: Vec::new(),
        erasure: Erasure::default(),
        folder,
    };
    log.write_mark()?;
    log.flush_mark()?;
    log.tell_extremes();
    Ok(log)
}

/// The system's answer with what it was about; only the text goes on to the operator.
fn during(doing: &str, file: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{doing} {file}: {error}"))
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> OpenError {
    let doing = what.to_owned();
    move |source| OpenError::Io { doing, source }
}

/// An op that appends an entry.
pub(crate) fn entry(index: u64, term: u64, payload: Vec<u8>) -> Op {
    Op { kind: Kind::Entry, index, term, payload }
}
