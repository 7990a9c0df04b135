//! Whether there is room on the disk for new facts.
//!
//! Looks at the file system once a second and says what a look means. Below [`limits::ROOM_MIN`] nothing new is admitted; what is
//! under way, and what Raft itself writes, has the rest and then the ballast. When there is room again, new facts are, and the
//! ballast is laid anew. A leader without room hands its office to a voter, once: if that one has none either, it keeps it.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::limits;
use crate::members::{self, Role};
use crate::replica::Replica;
use crate::wal::ballast::Ballasted;
use crate::wal::disk::Disk;
use crate::wal::hands::Hands;

/// What one look at the disk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that are free; `None` where the system does not say, and then nothing is refused.
    pub(crate) free: Option<u64>,
    /// New facts are refused.
    pub(crate) full: bool,
}

impl Room {
    pub(crate) const UNKNOWN: Room = Room { free: None, full: false };

    /// `laid`: the ballast is there. Twice the least must be free before a full disk has room again, so that it does not flap.
    fn after(self, free: Option<u64>, laid: bool) -> Room {
        let enough = if self.full { limits::ROOM_MIN.saturating_mul(2) } else { limits::ROOM_MIN };
        let full = free.is_some_and(|free| free < enough) || (free.is_some() && self.full && !laid);
        Room { free, full }
    }
}

/// Looks, and lays the ballast where it is missing and fits.
pub(crate) fn look(disk: &Ballasted, before: Room) -> Room {
    let free = disk.free_bytes().ok();
    let fits = free.is_some_and(|free| free >= limits::ROOM_MIN.saturating_mul(2));
    if !disk.is_laid()
        && fits
        && let Err(error) = disk.lay()
    {
        tracing::warn!(%error, "the reserve for a full disk could not be made");
    }
    before.after(free, disk.is_laid())
}

/// Follows the disk as long as the replica lives.
pub(crate) fn follow(replica: &Arc<Replica>, (disk, hands): (Ballasted, Hands), room: watch::Sender<Room>) {
    let replica = Arc::downgrade(replica);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(limits::ROOM_LOOK).await;
            if replica.upgrade().is_none_or(|replica| *replica.released.borrow() || replica.fatal().is_some())
            {
                return;
            }
            let (disk, before) = (disk.clone(), *room.borrow());
            let Ok(now) = hands.work(move || look(&disk, before)).await else { return };
            if now.full != before.full {
                announce(now);
            }
            room.send_replace(now);
            if now.full && !before.full {
                hand_over(&replica);
            }
        }
    });
}

fn announce(room: Room) {
    let free_mib = room.free.unwrap_or_default() >> 20;
    if room.full {
        tracing::error!(free_mib, "the disk is almost full: nothing new is written down until there is room");
    } else {
        tracing::info!(free_mib, "there is room on the disk again");
    }
}

/// To a voter that has all of the log.
fn hand_over(replica: &Weak<Replica>) {
    let Some(replica) = replica.upgrade().filter(|replica| replica.leadership.borrow().is_self) else {
        return;
    };
    let fit = |member: &members::MemberState| {
        member.replica != replica.id && member.role != Role::Learner && member.lag == Some(0)
    };
    let Some(next) = members::of(&replica).into_iter().find(fit).map(|member| member.replica) else { return };
    tracing::warn!(to = next.0, "handing the lead to a coordinator with room on its disk");
    tokio::spawn(async move { replica.raft.trigger().transfer_leader(next).await.ok() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sim_disk::SimDisk;

    const MIN: u64 = limits::ROOM_MIN;

    fn looks(frees: &[u64], laid: bool) -> Vec<bool> {
        let step = |room: &mut Room, free: &u64| {
            *room = room.after(Some(*free), laid);
            Some(room.full)
        };
        frees.iter().scan(Room::UNKNOWN, step).collect()
    }

    #[test]
    fn a_full_disk_has_room_again_when_twice_the_least_is_free() {
        let frees = [MIN, MIN - 1, MIN, 2 * MIN - 1, 2 * MIN, MIN, 0];
        assert_eq!(looks(&frees, true), [false, true, true, true, false, false, true]);
    }

    #[test]
    fn a_disk_that_was_full_takes_new_facts_only_with_a_ballast_and_a_fresh_one_without() {
        assert_eq!(looks(&[9 * MIN, MIN - 1, 9 * MIN], false), [false, true, true]);
    }

    #[test]
    fn where_the_system_does_not_say_nothing_is_refused() {
        let full = Room { free: Some(0), full: true };
        assert_eq!(full.after(None, false), Room::UNKNOWN);
    }

    #[test]
    fn the_ballast_is_laid_again_when_there_is_room_for_it() {
        let disk = SimDisk::default();
        let ballasted = Ballasted::new(Arc::new(disk.clone()), 1 << 10);
        disk.hold_at_most(MIN);
        let full = Room { free: Some(0), full: true };
        assert!(look(&ballasted, full).full && !ballasted.is_laid());
        disk.hold_at_most(2 * MIN);
        let room = look(&ballasted, full);
        assert!(ballasted.is_laid());
        assert!(!room.full, "{room:?}");
    }
}
