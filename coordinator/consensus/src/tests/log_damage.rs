//! Flipped bits, cut and missing files of a log, with an exact mark and with an old one.

use super::log_model::{SMALL, State, open};
use super::sim_disk::SimDisk;
use crate::error::{Damage, OpenError};
use crate::wal::disk::Disk;
use crate::wal::extent::Extent;
use crate::wal::folder::Folder;
use crate::wal::log::{Log, Rotation, VOTE, entry};
use crate::wal::{mark, segment};
use std::sync::Arc;

/// What the disk held after each acknowledged batch.
struct History {
    disk: SimDisk,
    /// Per batch: the mark then, the length of the last segment then, the state then.
    batches: Vec<(Vec<u8>, usize, State)>,
}

/// Batches of one to three entries. With `segments`, spread over several files.
fn history(segments: bool) -> History {
    let disk = SimDisk::default();
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    let tiny = Rotation { bytes_max: 450, bytes_worth_purging: 450 };
    let rotation = if segments { tiny } else { Rotation::default() };
    let (mut log, _) = Log::open(folder, 1, rotation).unwrap();
    log.save_vote(b"a vote").unwrap();
    let mut batches = Vec::new();
    let mut state = State::default();
    let mut next = 0;
    for batch in 0..6 {
        for index in next..next + 1 + batch % 3 {
            let op = entry(index, 1, format!("payload {index}").into_bytes());
            log.append(&op).unwrap();
            state.extent.follow(&op);
            state.entries.insert(index, op);
        }
        next += 1 + batch % 3;
        log.flush().unwrap();
        let last = last_segment(&disk);
        batches.push((disk.bytes(mark::NAME), disk.bytes(&last).len(), state.clone()));
    }
    History { disk, batches }
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names().unwrap();
    names.retain(|name| segment::number(name).is_some());
    names.sort();
    names
}

fn last_segment(disk: &SimDisk) -> String {
    segments(disk).pop().unwrap()
}

fn reopened(disk: &SimDisk) -> Result<State, OpenError> {
    open(disk).map(|(_, contents)| State::of(&contents))
}

fn damage(disk: &SimDisk) -> Damage {
    match reopened(disk) {
        Err(OpenError::Damaged(damage)) => damage,
        other => panic!("not refused as damaged: {other:?}"),
    }
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn every_flipped_bit_of_every_segment_is_refused_with_file_and_place() {
    let disk = history(true).disk;
    let names = segments(&disk);
    assert!(names.len() > 2, "the sample must have closed segments");
    for name in names {
        let bytes = disk.bytes(&name);
        for bit in 0..bytes.len() * 8 {
            let copy = disk.after_kill();
            copy.edit(&name, flipped(&bytes, bit));
            let damage = damage(&copy);
            assert_eq!(damage.file, name, "bit {bit}");
            assert!(damage.offset <= bit as u64 / 8, "bit {bit} reported at {}", damage.offset);
            // A refusal leaves the evidence alone.
            assert_eq!(copy.bytes(&name), flipped(&bytes, bit));
        }
    }
}

#[test]
fn a_log_cut_anywhere_below_its_acknowledged_end_is_refused() {
    let disk = history(true).disk;
    for name in segments(&disk) {
        let bytes = disk.bytes(&name);
        for cut in 0..bytes.len() {
            let copy = disk.after_kill();
            copy.edit(&name, bytes[..cut].to_vec());
            damage(&copy);
        }
    }
}

#[test]
fn a_log_cut_above_an_old_mark_yields_exactly_the_whole_records_before_the_cut() {
    let history = history(false);
    let name = last_segment(&history.disk);
    let bytes = history.disk.bytes(&name);
    let whole = &history.batches.last().unwrap().2;
    let ends = record_ends(&bytes);
    for (mark, flushed, _) in &history.batches {
        for cut in *flushed..bytes.len() {
            let copy = history.disk.after_kill();
            copy.edit(mark::NAME, mark.clone());
            copy.edit(&name, bytes[..cut].to_vec());
            let kept = ends.iter().filter(|end| **end <= cut as u64).count();
            let expected = State {
                extent: Extent { last_index: (kept as u64).checked_sub(1), purged: None },
                entries: whole.entries.range(..kept as u64).map(|(index, op)| (*index, op.clone())).collect(),
            };
            assert_eq!(reopened(&copy).unwrap(), expected, "cut at {cut}");
        }
        for cut in 0..*flushed {
            let copy = history.disk.after_kill();
            copy.edit(mark::NAME, mark.clone());
            copy.edit(&name, bytes[..cut].to_vec());
            damage(&copy);
        }
    }
}

#[test]
fn with_the_oldest_mark_a_flipped_bit_is_refused_unless_it_hits_the_last_batch_which_is_then_cut() {
    let history = history(false);
    let name = last_segment(&history.disk);
    let bytes = history.disk.bytes(&name);
    let (oldest, ..) = &history.batches[0];
    let (_, last_batch_starts, _) = history.batches[history.batches.len() - 2];
    let whole = history.batches.last().unwrap().2.clone();
    for bit in 0..bytes.len() * 8 {
        let copy = history.disk.after_kill();
        copy.edit(mark::NAME, oldest.clone());
        copy.edit(&name, flipped(&bytes, bit));
        if bit / 8 < last_batch_starts {
            assert_eq!(damage(&copy).file, name, "bit {bit}");
        } else {
            let found = reopened(&copy).unwrap();
            assert!(found.entries.iter().all(|(index, op)| whole.entries[index] == *op), "bit {bit}");
            assert!(found.extent.last_index < whole.extent.last_index, "bit {bit}");
        }
    }
}

#[test]
fn a_missing_segment_mark_or_vote_is_refused() {
    let disk = history(true).disk;
    let mut names = segments(&disk);
    names.extend([mark::NAME.to_owned(), VOTE.to_owned()]);
    for name in names {
        let copy = disk.after_kill();
        copy.remove(&name).unwrap();
        damage(&copy);
    }
}

#[test]
fn a_gap_between_indices_is_refused_though_every_checksum_holds() {
    let disk = SimDisk::default();
    let (mut log, _) = open(&disk).unwrap();
    for index in [0, 1, 3] {
        log.append(&entry(index, 1, b"{}".to_vec())).unwrap();
    }
    log.flush().unwrap();
    let damage = damage(&disk.after_kill());
    assert_eq!(
        (damage.index, damage.what.as_str()),
        (Some(3), "a log index does not follow the one before it")
    );
}

#[test]
fn bytes_that_were_never_acknowledged_are_cut_and_do_not_come_back() {
    let history = history(false);
    let name = last_segment(&history.disk);
    let state = history.batches.last().unwrap().2.clone();
    let mut bytes = history.disk.bytes(&name);
    let length = bytes.len();
    bytes.extend_from_slice(&[0; 700]);
    history.disk.edit(&name, bytes);
    let disk = history.disk.after_kill();
    let (_log, contents) = open(&disk).unwrap();
    assert_eq!((State::of(&contents), contents.cut_bytes), (state, 700));
    assert_eq!(disk.bytes(&name).len(), length);
}

#[test]
fn a_folder_of_another_replica_is_refused() {
    let disk = history(false).disk;
    let (folder, _released) = Folder::on(Arc::new(disk));
    let opened = Log::open(folder, 2, SMALL).err();
    assert!(matches!(opened, Some(OpenError::OtherReplica { found: 1, wanted: 2 })), "{opened:?}");
}

#[test]
fn the_error_for_damage_says_what_where_and_how_to_go_on() {
    let history = history(false);
    let name = last_segment(&history.disk);
    let mut bytes = history.disk.bytes(&name);
    let at = record_ends(&bytes)[1] as usize;
    bytes[at + 80] ^= 4;
    history.disk.edit(&name, bytes);
    let text = damage(&history.disk).to_string();
    assert_eq!(
        text,
        format!(
            "log-000000000001 is damaged at byte {at} (log index 2): the checksum of a record does not match. \
             Acknowledged facts may be gone, so this replica does not start. Restore the folder from a backup; with \
             other coordinators alive, remove this replica and join it anew under a new id"
        )
    );
}

/// Where each record of an intact segment ends.
fn record_ends(bytes: &[u8]) -> Vec<u64> {
    let scan = segment::scan(1, bytes).unwrap();
    let mut at = scan.start;
    scan.records
        .iter()
        .map(|record| {
            at += record.length();
            at
        })
        .collect()
}
