//! Who votes on the facts: the change that is under way, the replicas that are gone for ever, and the epoch.
//!
//! Owns the lock under which the group of coordinators changes. The lock holds the change itself, so that it outlives the
//! leader that began it: the next one finds it here and completes it. Also owns which replica ids are spent. Refuses to know
//! the members, which are the consensus group's own record, and to carry a change out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::field::{Field, check_line};
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};

/// One change of the group of coordinators. Replicas go by their ids. Carrying it out twice is as good as once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterChange {
    /// One more than that of the change before.
    pub number: u64,
    /// Who is a member afterwards, under which address: new ones as learners, known ones as what they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seat: BTreeMap<u64, String>,
    /// Learners that become voters.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub promote: BTreeSet<u64>,
    /// Members that leave, for ever.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<u64>,
    /// The replica that began it.
    pub by: u64,
    /// When it began, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// All that is known of voters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Voters {
    #[serde(default)]
    epoch: u64,
    /// Number of the last change, under way or over.
    #[serde(default)]
    last_change: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under_way: Option<VoterChange>,
    /// Ids that were members and are no longer.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<u64>,
    /// Ids up to here are spent, whether they were members or not.
    #[serde(default)]
    removed_up_to: u64,
}

impl Registry {
    /// Decides in this order:
    /// 1. the change is formed as it must be;
    /// 2. the one that is under way is already so, and keeps every other out;
    /// 3. none of its members is gone for ever;
    /// 4. its number is the next one.
    pub(crate) fn lock_voters(&mut self, change: &VoterChange) -> Result<Reply, Refusal> {
        check(change)?; // 1
        let voters = &mut self.voters;
        if let Some(under_way) = &voters.under_way {
            if under_way == change {
                return Ok(Reply::AlreadySo);
            }
            return Err(Refusal::VotersLocked { number: under_way.number, by: under_way.by }); // 2
        }
        if let Some(replica) = change.seat.keys().chain(&change.promote).find(|id| voters.is_removed(**id)) {
            return Err(Refusal::ReplicaRemoved { replica: *replica }); // 3
        }
        let next = voters.last_change.saturating_add(1);
        if change.number != next {
            return Err(Refusal::VoterChangeOutOfTurn { number: change.number, next }); // 4
        }
        voters.last_change = change.number;
        // From here on the change is only ever completed, so the ids of those that leave are spent.
        change.remove.iter().for_each(|replica| voters.spend(*replica));
        voters.under_way = Some(change.clone());
        Ok(Reply::Done)
    }

    /// A change that is over already is already so; one that never began is out of turn.
    pub(crate) fn unlock_voters(&mut self, number: u64) -> Result<Reply, Refusal> {
        let voters = &mut self.voters;
        match &voters.under_way {
            Some(under_way) if under_way.number == number => {
                voters.under_way = None;
                Ok(Reply::Done)
            }
            Some(_) | None if number <= voters.last_change => Ok(Reply::AlreadySo),
            Some(_) | None => Err(Refusal::VoterChangeOutOfTurn { number, next: voters.last_change }),
        }
    }

    /// Turns a copy of the facts into the beginning of another life of them: the one change that is no command, because it
    /// happens to the copy alone, where no log reaches. Orders of the former life are recognised by its lower epoch, the
    /// replicas of that life may never come back, and a change of voters that was under way there is void.
    ///
    /// Two lives may begin from the same copy, one after the other: the time, in ms of Unix time, tells them apart.
    ///
    /// `founder` is the one replica that it begins with. One that was never admitted, and did not found the cluster either, is a node
    /// from here on, so that every other takes it for the coordinator that it is. `former` are all other members.
    pub fn begin_epoch(&mut self, at_unix_ms: u64, founder: u64, former: impl IntoIterator<Item = u64>) {
        self.begin_numbers(at_unix_ms, founder);
        let voters = &mut self.voters;
        voters.epoch = voters.epoch.saturating_add(1).max(at_unix_ms);
        voters.under_way = None;
        former.into_iter().for_each(|replica| voters.spend(replica));
    }

    /// Which life of the facts this is: 0 from the founding on, and a larger number each time a group began anew from a copy.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.voters.epoch
    }

    /// The change of voters that is under way.
    #[must_use]
    pub fn voter_change(&self) -> Option<&VoterChange> {
        self.voters.under_way.as_ref()
    }

    /// The number of the last change of voters, under way or over.
    #[must_use]
    pub fn last_voter_change(&self) -> u64 {
        self.voters.last_change
    }

    /// The id was a member once, or is as old as one that was, and may never be one again.
    #[must_use]
    pub fn is_replica_removed(&self, replica: u64) -> bool {
        self.voters.is_removed(replica)
    }
}

impl Voters {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Voters::default()
    }

    fn is_removed(&self, replica: u64) -> bool {
        replica <= self.removed_up_to || self.removed.contains(&replica)
    }

    /// Where all places are taken the lowest ids become a mark below which everything is spent: ids grow with time, so what
    /// is lost are numbers that are unlikely to be asked for.
    fn spend(&mut self, replica: u64) {
        self.removed.insert(replica);
        while self.removed.len() > limits::REMOVED_REPLICAS_MAX {
            let lowest = self.removed.pop_first();
            self.removed_up_to = self.removed_up_to.max(lowest.unwrap_or_default());
        }
    }
}

fn check(change: &VoterChange) -> Result<(), Refusal> {
    let empty = change.seat.is_empty() && change.promote.is_empty() && change.remove.is_empty();
    let members = change.seat.keys().chain(&change.promote);
    let torn = members.into_iter().any(|replica| change.remove.contains(replica));
    let most = [change.seat.len(), change.promote.len(), change.remove.len()].into_iter().max();
    if empty || torn || most > Some(limits::REPLICAS_MAX) {
        return Err(Refusal::Malformed { what: Field::VoterChange });
    }
    let addresses = change.seat.values();
    addresses
        .into_iter()
        .try_for_each(|address| check_line(address, limits::REPLICA_ADDRESS_BYTES_MAX, Field::ReplicaAddress))
}
