//! The log in memory: what a model-based test compares the real one with.

use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{Entry, EntryPayload};

use crate::raft::log_memory::Memory;
use crate::raft::types::LogId;

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

/// Entries 0 to 4, of term 1.
fn sample() -> Memory {
    let memory = Memory::default();
    (0..5).for_each(|index| memory.append(Entry { log_id: id(1, index), payload: EntryPayload::Blank }, 10));
    memory
}

fn indices(memory: &Memory, range: impl std::ops::RangeBounds<u64>) -> Vec<u64> {
    memory.range(range).iter().map(|entry| entry.log_id.index).collect()
}

#[test]
fn ranges_are_answered_as_asked_and_impossible_ones_are_empty() {
    let memory = sample();
    assert_eq!(indices(&memory, 1..3), [1, 2]);
    assert_eq!(indices(&memory, 3..=9), [3, 4]);
    assert_eq!(indices(&memory, ..), [0, 1, 2, 3, 4]);
    assert_eq!(indices(&memory, 3..3), [0; 0]);
    let (high, low) = (4, 2);
    assert_eq!(indices(&memory, high..low), [0; 0]);
}

#[test]
fn a_batch_is_cut_by_bytes_and_holds_at_least_one_entry() {
    let memory = sample();
    let batch = |start, end, bytes| -> Vec<u64> {
        memory.batch(start, end, bytes).iter().map(|entry| entry.log_id.index).collect()
    };
    assert_eq!(batch(1, 5, 1000), [1, 2, 3, 4]);
    assert_eq!(batch(1, 3, 1000), [1, 2]);
    assert_eq!(batch(1, 5, 20), [1, 2]);
    assert_eq!(batch(1, 5, 29), [1, 2]);
    assert_eq!(batch(1, 5, 1), [1]);
    assert_eq!(batch(2, 2, 1000), [0; 0]);
    assert_eq!(batch(7, 9, 1000), [0; 0]);
}

#[test]
fn the_last_entry_is_the_purged_point_when_nothing_is_left() {
    let memory = sample();
    memory.truncate(3);
    assert_eq!((memory.last(), memory.purged()), (Some(id(1, 2)), None));
    memory.purge(id(1, 2));
    assert_eq!((memory.last(), memory.purged()), (Some(id(1, 2)), Some(id(1, 2))));
    assert_eq!(indices(&memory, ..), [0; 0]);
}

#[test]
fn a_committed_hint_counts_only_if_the_log_holds_that_very_entry() {
    let memory = sample();
    for (hint, expected) in [
        (Some(id(1, 3)), Some(id(1, 3))),
        (Some(id(1, 9)), None),
        // Another leader's entry was committed here; the entries this log holds may never have been.
        (Some(id(2, 3)), None),
        (None, None),
    ] {
        memory.set_committed(hint);
        assert_eq!(memory.committed(), expected, "{hint:?}");
    }
    memory.purge(id(1, 2));
    memory.set_committed(Some(id(1, 1)));
    assert_eq!(memory.committed(), Some(id(1, 1)));
}
