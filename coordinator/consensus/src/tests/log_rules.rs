//! What the log refuses, keeps in order and cleans up, one rule at a time.

use std::io;
use std::sync::Arc;

use super::generator::Generator;
use super::log_model::{SMALL, State, open};
use super::sim_disk::{Fault, SimDisk};
use crate::error::OpenError;
use crate::limits;
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;
use crate::wal::log::{Log, VOTE, entry};
use crate::wal::record::{Kind, Op};
use crate::wal::{mark, replace, sealed, segment};

fn small(index: u64) -> Op {
    entry(index, 1, b"{}".to_vec())
}

#[test]
fn a_vote_is_never_durable_before_the_entries_that_were_appended_first() {
    let run = |fault: Option<Fault>| {
        let disk = SimDisk::default();
        let (mut log, _) = open(&disk).unwrap();
        disk.fail(fault.unwrap_or(Fault::DeadFrom(u64::MAX)));
        let voted = log.append(&small(0)).and_then(|()| log.save_vote(b"later")).is_ok();
        (disk, voted)
    };
    let (disk, voted) = run(None);
    assert!(voted);
    for at in 1..=disk.operations() {
        let (disk, _) = run(Some(Fault::DeadFrom(at)));
        for luck in 0..8 {
            let Ok((_, contents)) = open(&disk.after_power_loss(&mut Generator::new(luck))) else {
                panic!("operation {at}, luck {luck}");
            };
            if contents.vote == b"later" {
                assert_eq!(contents.entries, [small(0)], "operation {at}, luck {luck}");
            }
        }
    }
}

#[test]
fn an_entry_larger_than_a_record_is_refused_and_leaves_the_log_as_it_was() {
    let disk = SimDisk::default();
    let (mut log, _) = open(&disk).unwrap();
    let error = log.append(&entry(0, 1, vec![0; limits::RECORD_BYTES_MAX + 1])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    log.append(&entry(0, 1, vec![0; limits::RECORD_BYTES_MAX])).unwrap();
    log.flush().unwrap();
    let (_, contents) = open(&disk.after_kill()).unwrap();
    assert_eq!(contents.entries.len(), 1);
}

#[test]
fn a_purge_beyond_the_end_empties_the_log_and_the_next_entry_follows_it() {
    let disk = SimDisk::default();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&small(0)).unwrap();
    log.append(&Op { kind: Kind::Purge, index: 9, term: 0, payload: b"nine".to_vec() }).unwrap();
    log.drop_purged().unwrap();
    log.append(&small(10)).unwrap();
    log.flush().unwrap();
    let (_, contents) = open(&disk.after_kill()).unwrap();
    assert_eq!(contents.entries, [small(10)]);
    assert_eq!(contents.extent.purged.unwrap().name, "nine");
}

#[test]
fn purging_everything_leaves_one_small_segment_however_long_the_log_was() {
    let disk = SimDisk::default();
    let (mut log, _) = open(&disk).unwrap();
    for index in 0..200 {
        log.append(&small(index)).unwrap();
        log.flush().unwrap();
    }
    let count = || disk.names().unwrap().iter().filter(|name| segment::number(name).is_some()).count();
    assert!(count() > 10);
    log.append(&Op { kind: Kind::Purge, index: 199, term: 0, payload: Vec::new() }).unwrap();
    log.drop_purged().unwrap();
    assert!(count() <= 2, "{:?}", disk.names());
}

#[test]
fn a_new_segment_whose_head_was_not_finished_is_dropped_and_its_number_used_again() {
    let disk = SimDisk::default();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&small(0)).unwrap();
    log.flush().unwrap();
    disk.create(&segment::name(2)).unwrap().write_at(0, b"mlxs.log and then the power went").unwrap();
    let disk = disk.after_kill();
    let (mut log, contents) = open(&disk).unwrap();
    assert_eq!(contents.entries, [small(0)]);
    assert!(!disk.names().unwrap().contains(&segment::name(2)));
    for index in 1..30 {
        log.append(&small(index)).unwrap();
        log.flush().unwrap();
    }
    let (_, contents) = open(&disk.after_kill()).unwrap();
    assert_eq!(State::of(&contents).entries.len(), 30);
}

#[test]
fn an_unfinished_replacement_is_removed_and_the_old_vote_counts() {
    let disk = SimDisk::default();
    let (mut log, _) = open(&disk).unwrap();
    log.save_vote(b"old").unwrap();
    let unfinished = format!("{VOTE}{}", replace::UNFINISHED);
    disk.create(&unfinished).unwrap().write_at(0, &sealed::seal(sealed::Kind::Vote, b"new")).unwrap();
    let disk = disk.after_kill();
    let (_, contents) = open(&disk).unwrap();
    assert_eq!(contents.vote, b"old");
    assert!(!disk.names().unwrap().contains(&unfinished));
}

#[test]
fn a_folder_with_a_vote_but_without_a_mark_is_not_taken_for_a_new_one() {
    let disk = SimDisk::default();
    let (mut log, _) = open(&disk).unwrap();
    log.save_vote(b"promised").unwrap();
    disk.remove(mark::NAME).unwrap();
    let error = open(&disk.after_kill()).err().unwrap();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == mark::NAME), "{error}");
}

#[test]
fn a_log_of_a_newer_release_is_refused_as_newer_and_not_as_damaged() {
    let disk = SimDisk::default();
    drop(open(&disk).unwrap());
    disk.edit(VOTE, sealed::seal_format(sealed::Kind::Vote, 2, b"vote"));
    let (folder, _released) = Folder::on(Arc::new(disk));
    let error = Log::open(folder, 1, SMALL).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
}
