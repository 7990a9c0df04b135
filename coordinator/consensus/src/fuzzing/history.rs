//! A log that a script writes through the real writer's calls, all that it ever held, and what a script then damages.

use std::sync::Arc;

use crate::error::OpenError;
use crate::wal::disk::Disk as _;
use crate::wal::extent::Extent;
use crate::wal::folder::Folder;
use crate::wal::log::{Contents, Log, Rotation, VOTE, entry};
use crate::wal::mark;
use crate::wal::record::{Kind, Op};

use super::disk::MemoryDisk;
use super::script::Script;

pub(super) const REPLICA: u64 = 1;
/// Segments so small that a few entries fill one.
pub(super) const SMALL: Rotation = Rotation { bytes_max: 900, bytes_worth_purging: 500 };
const STEPS_MAX: usize = 40;
const EDITS_MAX: usize = 6;

/// What a log holds at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    extent: Extent,
    entries: Vec<Op>,
}

/// All of its moments; at the last one everything was acknowledged.
pub(super) struct History {
    disk: MemoryDisk,
    held: Vec<Held>,
    votes: Vec<Vec<u8>>,
    /// The mark as it was after each step.
    marks: Vec<Vec<u8>>,
}

/// Which promises still bind after the damage.
#[derive(Default)]
pub(super) struct Damage {
    records: bool,
    mark: bool,
    vote: bool,
}

impl Damage {
    pub(super) fn any(&self) -> bool {
        self.records || self.mark || self.vote
    }
}

impl History {
    pub(super) fn written_by(script: &mut Script<'_>) -> Self {
        let disk = MemoryDisk::default();
        let mut history =
            Self { disk, held: vec![Held::default()], votes: vec![Vec::new()], marks: Vec::new() };
        if let Ok((mut log, _)) = history.open() {
            for _ in 0..STEPS_MAX {
                let Some(step) = script.byte().filter(|step| *step != 0xff) else { break };
                history.step(step, &mut log, script);
                history.marks.extend(history.disk.read(mark::NAME).ok().flatten());
            }
        }
        history
    }

    pub(super) fn open(&self) -> Result<(Log, Contents), OpenError> {
        Log::open(Folder::on(Arc::new(self.disk.clone())).0, REPLICA, SMALL)
    }

    fn latest(&self) -> Held {
        self.held.last().cloned().unwrap_or_default()
    }

    /// One call to its acknowledgement; on this disk none fails.
    fn step(&mut self, step: u8, log: &mut Log, script: &mut Script<'_>) {
        let Held { extent, .. } = self.latest();
        let first = extent.purged.as_ref().map_or(0, |purged| purged.index + 1);
        let next = extent.next_index().unwrap_or(0);
        let within = |number: u64| first + number % (next.saturating_sub(first) + 1);
        let done = match step % 8 {
            0 => {
                self.note(
                    log,
                    Op { kind: Kind::Truncate, index: within(script.number()), term: 0, payload: Vec::new() },
                );
                log.flush()
            }
            1 if next > first => {
                let index = within(script.number()).min(next - 1);
                self.note(log, Op { kind: Kind::Purge, index, term: 0, payload: b"point".to_vec() });
                log.drop_purged()
            }
            2 => {
                self.votes.push(script.take(4).to_vec());
                log.save_vote(self.votes.last().map_or(&[], Vec::as_slice))
            }
            3 => {
                log.save_committed(Some("point".to_owned()));
                log.write_committed()
            }
            _ => {
                for index in next..next + 1 + u64::from(step / 64) {
                    let length = usize::from(step % 8) * 40 + 1;
                    self.note(log, entry(index, u64::from(step), vec![b'x'; length]));
                }
                log.flush()
            }
        };
        assert!(done.is_ok(), "a call fails on a disk that does not");
    }

    fn note(&mut self, log: &mut Log, op: Op) {
        let mut held = self.latest();
        match op.kind {
            Kind::Entry => held.entries.push(op.clone()),
            Kind::Truncate => held.entries.retain(|held| held.index < op.index),
            Kind::Purge => held.entries.retain(|held| held.index > op.index),
        }
        held.extent.follow(&op);
        self.held.push(held);
        assert!(log.append(&op).is_ok());
    }

    pub(super) fn damage(&self, script: &mut Script<'_>) -> Damage {
        let mut damage = Damage::default();
        for _ in 0..EDITS_MAX {
            let Some(edit) = script.byte() else { break };
            let names = self.disk.names().unwrap_or_default();
            let Some(name) = names.get(usize::from(script.byte().unwrap_or_default()) % names.len().max(1))
            else {
                break;
            };
            let before = self.disk.read(name).ok().flatten().unwrap_or_default();
            let at = script.take(2).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
                % (before.len() + 1);
            let mut after = before.clone();
            match edit % 6 {
                0 => after.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (edit / 32)),
                1 => after.truncate(at),
                2 => after.extend_from_slice(script.take(usize::from(edit / 6))),
                3 => after
                    .iter_mut()
                    .skip(at)
                    .zip(script.take(usize::from(edit / 6)))
                    .for_each(|(byte, new)| *byte = *new),
                4 if name == mark::NAME => {
                    after = self.marks.get(at % self.marks.len().max(1)).cloned().unwrap_or_default()
                }
                4 => {
                    let piece: Vec<u8> = after.iter().skip(at).copied().collect();
                    after.extend(piece);
                }
                _ => {
                    let _ = self.disk.remove(name);
                    damage.hit(name);
                    continue;
                }
            }
            if after != before {
                self.disk.put(name, after);
                damage.hit(name);
            }
        }
        damage
    }

    pub(super) fn judge(&self, found: &Contents, damage: &Damage) {
        checked(found);
        let held = Held { extent: found.extent.clone(), entries: found.entries.clone() };
        if damage.mark {
            assert!(self.held.contains(&held), "never held: {held:?}");
            assert!(self.votes.contains(&found.vote), "a vote that was never cast");
        } else {
            assert_eq!(self.held.last(), Some(&held), "something acknowledged is gone");
            assert_eq!(self.votes.last(), Some(&found.vote), "another vote than the last");
        }
    }

    /// It takes the next entry, and has it after the next start.
    pub(super) fn goes_on(&self, mut log: Log, found: &Contents) {
        let next = entry(found.extent.next_index().unwrap_or(0), 9, b"next".to_vec());
        assert!(log.append(&next).and_then(|()| log.flush()).is_ok());
        drop(log);
        let again = self.open().map(|(_, contents)| contents.entries).unwrap_or_default();
        let expected: Vec<Op> = found.entries.iter().cloned().chain([next]).collect();
        assert_eq!(again, expected, "it does not go on");
    }
}

impl Damage {
    fn hit(&mut self, name: &str) {
        self.mark |= name == mark::NAME;
        self.vote |= name == VOTE;
        self.records |= name != mark::NAME && name != VOTE;
    }
}

/// What any log that opens is: entries in an unbroken row, from the last purge to the end.
pub(super) fn checked(found: &Contents) {
    let indices: Vec<u64> = found.entries.iter().map(|entry| entry.index).collect();
    assert!(indices.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1])), "a hole: {indices:?}");
    assert!(found.entries.iter().all(|entry| entry.kind == Kind::Entry));
    let purged = found.extent.purged.as_ref().map(|purged| purged.index);
    if let (Some(first), Some(purged)) = (indices.first(), purged) {
        assert_eq!(purged.checked_add(1), Some(*first), "it does not begin behind the purge");
    }
    if let Some(last) = indices.last() {
        assert_eq!(found.extent.last_index, Some(*last), "it does not end where it says");
    }
}
