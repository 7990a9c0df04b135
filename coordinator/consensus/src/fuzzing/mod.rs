//! What the fuzz targets of the log and of the wire between coordinators ask of them (`fuzz/`). Owns the laws; the targets hand
//! bytes in.

mod disk;
mod history;
mod script;

use std::sync::Arc;

use prost::Message as _;
use proto::raft as wire;
use registry::Registry;

use crate::raft::log_store::from_json;
use crate::raft::state_machine::StateMachine;
use crate::raft::wire as convert;
use crate::wal::disk::Disk as _;
use crate::wal::folder::Folder;
use crate::wal::log::Log;
use crate::wal::record::{Key, Kind, Op, encode};
use crate::wal::sealed::{self, Kind as Block};
use crate::wal::segment::{Head, encode_head, name};
use crate::wal::snapshot_file::{self, SnapshotFile};
use crate::wal::{extent::Extent, log, mark};

use disk::MemoryDisk;
use history::{History, REPLICA, SMALL, checked};
use script::Script;

/// A log that was written, then damaged: it is refused, or it holds what was written. What was acknowledged is all there, unless
/// the mark, which says what was, is damaged too; then it is what the log held at some moment. Whatever opens goes on.
pub fn log_recovery(bytes: &[u8]) {
    let mut script = Script(bytes);
    let history = History::written_by(&mut script);
    let damage = history.damage(&mut script);
    match history.open() {
        Err(error) => assert!(damage.any(), "an undamaged log is refused: {error}"),
        Ok((log, contents)) => {
            history.judge(&contents, &damage);
            history.goes_on(log, &contents);
        }
    }
}

/// Records whose checksums all hold, and which mean nothing: the log is refused, or has no hole and no entry that is not there.
pub fn log_replay(bytes: &[u8]) {
    let mut script = Script(bytes);
    let head =
        Head { replica: REPLICA, number: log::FIRST_SEGMENT, previous: None, extent: Extent::default() };
    let Ok((mut segment, mut link)) = encode_head(&head) else { return };
    let mut ops = Vec::new();
    while let Some(kind) = script.byte() {
        let kind = [Kind::Entry, Kind::Entry, Kind::Truncate, Kind::Purge][usize::from(kind % 4)];
        let index = script.number();
        let payload = script.take(usize::from(kind != Kind::Truncate) * 6).to_vec();
        let op = Op { kind, index, term: script.number(), payload };
        let synced = if kind == Kind::Entry { segment.len() as u64 } else { script.number() };
        link = encode(&op, synced, link, Key::of(REPLICA, log::FIRST_SEGMENT), &mut segment);
        ops.push(op);
    }
    let marked =
        mark::Mark { serial: 1, segment: log::FIRST_SEGMENT, synced: segment.len() as u64, committed: None };
    let Ok(marked) = serde_json::to_vec(&marked) else { return };
    let disk = MemoryDisk::default();
    disk.put(&name(log::FIRST_SEGMENT), segment);
    disk.put(log::VOTE, sealed::seal(Block::Vote, b"vote"));
    disk.put(mark::NAME, sealed::seal(Block::Mark, &marked));
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    let Ok((_log, contents)) = Log::open(folder, REPLICA, SMALL) else { return };
    assert!(contents.entries.iter().all(|entry| ops.contains(entry)), "an entry that was not written");
    checked(&contents);
    assert!(
        Log::open(Folder::on(Arc::new(disk)).0, REPLICA, SMALL).is_ok(),
        "what was opened does not open again"
    );
}

/// The files of a folder as they are: refused, or opened, and then they open again and say the same.
pub fn log_files(bytes: &[u8]) {
    let disk = MemoryDisk::default();
    let mut rest = bytes;
    for name in [mark::NAME, log::VOTE, snapshot_file::NAME, &name(1), &name(2)] {
        let Some((length, after)) = rest.split_first_chunk::<2>() else { break };
        let (file, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        if !file.is_empty() {
            disk.put(name, file.to_vec());
        }
        rest = after;
    }
    let opened = || Log::open(Folder::on(Arc::new(disk.clone())).0, REPLICA, SMALL);
    let Ok((log, contents)) = opened() else { return };
    drop(log);
    checked(&contents);
    let again = opened().map(|(_, contents)| (contents.vote, contents.extent, contents.entries));
    assert_eq!(again.ok(), Some((contents.vote, contents.extent, contents.entries)));
}

/// Two blocks that are intact, and a snapshot that is damaged: what is read back is what was written, and a state is refused or
/// can be written again.
pub fn snapshots(bytes: &[u8]) {
    let mut script = Script(bytes);
    let (at, flip) = (script.number(), script.byte().unwrap_or_default());
    let length = usize::try_from(script.number()).unwrap_or(usize::MAX).min(script.0.len());
    let (meta, state) = (script.take(length).to_vec(), script.0.to_vec());
    let disk = MemoryDisk::default();
    assert!(snapshot_file::write(&disk, registry::ClusterVersion::NEWEST, &meta, &state).is_ok());
    let written = SnapshotFile { meta, state };
    assert_eq!(snapshot_file::read(&disk).ok(), Some(Some(written.clone())));
    if let Ok(registry) = from_json::<Registry>(&written.state, snapshot_file::NAME, None) {
        let text = serde_json::to_vec(&registry).unwrap_or_default();
        let again = from_json::<Registry>(&text, snapshot_file::NAME, None);
        assert!(again.is_ok_and(|again| again == registry), "a registry cannot be written again");
    }
    let _ = StateMachine::open(Folder::on(Arc::new(disk.clone())).0, Some(written.clone()), Arc::default());
    let mut damaged = disk.read(snapshot_file::NAME).ok().flatten().unwrap_or_default();
    let at = usize::try_from(at).unwrap_or(0) % damaged.len().max(1);
    if let Some(byte) = damaged.get_mut(at).filter(|_| flip != 0) {
        *byte ^= flip;
        disk.put(snapshot_file::NAME, damaged);
        assert!(snapshot_file::read(&disk).is_err(), "a damaged snapshot is read");
    }
}

/// What coordinators say to one another, by the first byte: refused, or the same when it is said on.
pub fn replica_messages(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => {
            let Ok(said) = wire::AppendRequest::decode(payload) else { return };
            let Ok(read) = convert::append_of(said.clone()) else { return };
            let on = convert::append(said.header.unwrap_or_default(), &read);
            let again = on.ok().and_then(|on| convert::append_of(on).ok());
            assert_eq!(again.map(|again| format!("{again:?}")), Some(format!("{read:?}")));
            if let Ok(json) = serde_json::to_vec(&read.entries) {
                assert!(json.len() <= 64 * payload.len() + 64, "an entry swells");
            }
        }
        1 => {
            let Ok(said) = wire::VoteRequest::decode(payload) else { return };
            let (header, pre_vote) = (said.header.unwrap_or_default(), said.pre_vote);
            let Ok(read) = convert::ask_of(said) else { return };
            let again = convert::ask_of(convert::ask(header, &read, pre_vote)).ok();
            assert_eq!(again.map(|again| format!("{again:?}")), Some(format!("{read:?}")));
        }
        2 => {
            let Ok(said) = wire::AppendReply::decode(payload) else { return };
            let Ok(read) = convert::append_reply_of(said) else { return };
            let again = convert::append_reply_of(convert::append_reply(&read)).ok();
            assert_eq!(again.map(|again| format!("{again:?}")), Some(format!("{read:?}")));
        }
        _ => {
            let Ok(said) = wire::SnapshotHead::decode(payload) else { return };
            let Ok(read) = convert::meta_of(said) else { return };
            let text = serde_json::to_vec(&read).unwrap_or_default();
            let again = serde_json::from_slice::<crate::raft::types::SnapshotMeta>(&text).ok();
            assert_eq!(again, Some(read), "a snapshot's head cannot be kept");
        }
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn a_damaged_log_is_refused_or_holds_what_was_written() {
        replay("log_recovery", super::log_recovery);
    }

    #[test]
    fn intact_records_that_mean_nothing_are_refused_or_leave_no_hole() {
        replay("log_replay", super::log_replay);
    }

    #[test]
    fn any_files_of_a_log_are_refused_or_open_twice() {
        replay("log_files", super::log_files);
    }

    #[test]
    fn a_snapshot_is_what_was_written_or_refused() {
        replay("snapshots", super::snapshots);
    }

    #[test]
    fn a_message_between_coordinators_is_refused_or_can_be_said_on() {
        replay("replica_messages", super::replica_messages);
    }
}
