//! The naive registry's voters: every change that ever began, and which of them ended; and every version and sealed key.

use registry::{ClusterVersion, Refusal, Reply, VoterChange};

use crate::oracle::{Oracle, done_if};

impl Oracle {
    pub(crate) fn version(&self) -> ClusterVersion {
        self.raised.iter().copied().fold(ClusterVersion(1), ClusterVersion::max)
    }

    pub(crate) fn raise(&mut self, to: ClusterVersion) -> Result<Reply, Refusal> {
        let newest = ClusterVersion::NEWEST;
        if to > newest {
            return Err(Refusal::VersionUnknown { to, newest });
        }
        let before = self.version();
        self.raised.push(to);
        Ok(done_if(self.version() != before))
    }

    pub(crate) fn seal(&mut self, sealed: &str) -> Reply {
        let first = self.sealed.is_empty();
        self.sealed.push(sealed.to_owned());
        done_if(first)
    }

    pub(crate) fn lock_voters(&mut self, change: &VoterChange) -> Result<Reply, Refusal> {
        let under_way = self.changes.iter().find(|change| !self.ended.contains(&change.number));
        if let Some(under_way) = under_way {
            if under_way == change {
                return Ok(Reply::AlreadySo);
            }
            return Err(Refusal::VotersLocked { number: under_way.number, by: under_way.by });
        }
        let gone = |replica: &u64| self.changes.iter().any(|earlier| earlier.remove.contains(replica));
        if let Some(replica) = change.seat.keys().chain(&change.promote).find(|replica| gone(replica)) {
            return Err(Refusal::ReplicaRemoved { replica: *replica });
        }
        let next = self.changes.len() as u64 + 1;
        if change.number != next {
            return Err(Refusal::VoterChangeOutOfTurn { number: change.number, next });
        }
        self.changes.push(change.clone());
        Ok(Reply::Done)
    }

    pub(crate) fn unlock_voters(&mut self, number: u64) -> Result<Reply, Refusal> {
        let known = self.changes.iter().any(|change| change.number == number);
        if !known {
            return Err(Refusal::VoterChangeOutOfTurn { number, next: self.changes.len() as u64 });
        }
        if self.ended.contains(&number) {
            return Ok(Reply::AlreadySo);
        }
        self.ended.push(number);
        Ok(Reply::Done)
    }
}
