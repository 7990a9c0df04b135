//! How the group grows, shrinks and moves. Only the leader does it, one change at a time.
//!
//! A change is checked against the members as they are, then written into the registry (`LockVoters`), which refuses a second
//! one and an id that was ever removed, then carried out (`steward.rs`), then ended (`UnlockVoters`). From the moment it is in
//! the registry it is only ever completed, by whoever leads: every step is the same when done twice.
//!
//! Voters change by Raft's joint consensus, so a group goes from 1 to 3 in one step and is never, at any moment, a group of two
//! that stands still when either fails. An even number of voters is refused unless it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use registry::{Command, Reply, VoterChange};
use tokio::time::{Instant, timeout, timeout_at};

use crate::change_error::ChangeError;
use crate::handle::Consensus;
use crate::members::{MemberState, Role};
use crate::options::ReplicaId;
use crate::replica::Replica;
use crate::{epoch, limits, steward};

/// Whether a group may be left with an even number of voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Even {
    /// It is refused.
    Refuse,
    /// The operator knows that two voters survive no more failures than one, and four no more than three.
    Allow,
}

/// How far a new member has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry it holds.
    pub matched_index: Option<u64>,
    /// Entries it lacks.
    pub lag: u64,
}

impl Consensus {
    /// Makes `replica`, opened with [`crate::Start::Join`], a learner, and returns when it has caught up to within
    /// [`limits::CAUGHT_UP_ENTRIES`]. `progress` hears how far it is. Adding a member again only waits.
    ///
    /// # Errors
    /// See [`ChangeError`]. [`ChangeError::Behind`] and [`ChangeError::Silent`] leave it a learner, which goes on catching up.
    pub async fn add(
        &self,
        replica: ReplicaId,
        address: &str,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<(), ChangeError> {
        let members = self.as_leader().await?;
        match members.iter().find(|member| member.replica == replica) {
            Some(member) if member.address == address => {}
            Some(member) => {
                return Err(ChangeError::AddressDiffers { replica, address: member.address.clone() });
            }
            None => {
                let mut change = VoterChange::default();
                change.seat.insert(replica.0, address.to_owned());
                // The founder of a group of one may have had no address; now others must reach it.
                let own = &self.replica.address;
                if !own.is_empty() {
                    change.seat.insert(self.replica.id.0, own.clone());
                }
                change_group(&self.replica, change).await?;
            }
        }
        self.caught_up(replica, progress).await
    }

    /// Gives learners a vote, all in one step.
    ///
    /// # Errors
    /// See [`ChangeError`]. A learner that is behind or silent is refused: a voter that does not answer can stop the group.
    pub async fn promote(&self, replicas: &[ReplicaId], even: Even) -> Result<(), ChangeError> {
        self.revote(replicas, &[], even).await
    }

    /// Ends the membership of these replicas, voters or learners, for ever. This replica may be among them: another then leads
    /// within a moment.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove(&self, replicas: &[ReplicaId], even: Even) -> Result<(), ChangeError> {
        self.revote(&[], replicas, even).await
    }

    /// Gives the vote of one member to a learner, and ends the former's membership, in one step.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn replace(&self, old: ReplicaId, new: ReplicaId) -> Result<(), ChangeError> {
        self.revote(&[new], &[old], Even::Allow).await
    }

    /// Corrects where a member is reached.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn set_address(&self, replica: ReplicaId, address: &str) -> Result<(), ChangeError> {
        let members = self.as_leader().await?;
        let member = find(&members, replica)?;
        if member.address == address {
            return Ok(());
        }
        let seat = BTreeMap::from([(replica.0, address.to_owned())]);
        change_group(&self.replica, VoterChange { seat, ..VoterChange::default() }).await
    }

    /// Hands leadership to another voter, and returns when it leads.
    ///
    /// # Errors
    /// See [`ChangeError`]. If it is not taken in time somebody leads all the same.
    pub async fn transfer(&self, to: ReplicaId) -> Result<(), ChangeError> {
        let members = self.as_leader().await?;
        let member = find(&members, to)?;
        if member.role == Role::Learner {
            return Err(ChangeError::NotAMember { replica: to });
        }
        fit_to_vote(member)?;
        let raft = &self.replica.raft;
        raft.trigger().transfer_leader(to).await.map_err(|fatal| ChangeError::Stopped(fatal.to_string()))?;
        let mut leadership = self.replica.leadership.clone();
        let taken = leadership.wait_for(|leadership| leadership.leader == Some(to));
        timeout(limits::LEADER_WAIT, taken).await.map(|_| ()).map_err(|_| ChangeError::Slow)
    }

    /// The members, as only a leader that knows all of them can say.
    async fn as_leader(&self) -> Result<Vec<MemberState>, ChangeError> {
        self.barrier().await?;
        Ok(self.members())
    }

    async fn revote(
        &self,
        promote: &[ReplicaId],
        remove: &[ReplicaId],
        even: Even,
    ) -> Result<(), ChangeError> {
        let members = self.as_leader().await?;
        for replica in promote {
            fit_to_vote(find(&members, *replica)?)?;
        }
        for replica in remove {
            find(&members, *replica)?;
        }
        let voters = members.iter().filter(|member| member.role == Role::Voter);
        let before: BTreeSet<ReplicaId> = voters.map(|member| member.replica).collect();
        let mut after = before.clone();
        after.extend(promote);
        after.retain(|voter| !remove.contains(voter));
        if after != before {
            sound(&members, &after, even)?;
        }
        let numbers = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.0).collect();
        let (promote, remove) = (numbers(promote), numbers(remove));
        change_group(&self.replica, VoterChange { promote, remove, ..VoterChange::default() }).await
    }

    /// Waits until a member holds nearly all of the log.
    async fn caught_up(
        &self,
        replica: ReplicaId,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(), ChangeError> {
        let deadline = Instant::now() + limits::CATCH_UP_WAIT;
        let mut metrics = self.replica.raft.metrics();
        let mut last = None;
        loop {
            let members = self.members();
            let member = find(&members, replica)?;
            let Some(lag) = member.lag else {
                let leader = self.replica.leadership.borrow().leader.map(|leader| leader.0);
                return Err(ChangeError::NotLeader { leader });
            };
            let now = Progress { matched_index: member.matched_index, lag };
            if last.replace(now) != Some(now) {
                progress(now);
            }
            if member.matched_index.is_some() && lag <= limits::CAUGHT_UP_ENTRIES {
                return Ok(());
            }
            match timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_ended)) => return Err(ChangeError::Stopped(self.replica.stop_reason())),
                Err(_) => {
                    fit_to_vote(member)?;
                    return Err(ChangeError::Slow);
                }
            }
        }
    }
}

/// Writes the change down and carries it out. Runs to its end also when the caller stops waiting.
async fn change_group(replica: &Arc<Replica>, mut change: VoterChange) -> Result<(), ChangeError> {
    let replica = Arc::clone(replica);
    change.number = replica.registry().last_voter_change().saturating_add(1);
    change.by = replica.id.0;
    change.at_unix_ms = epoch::unix_ms();
    let carrying_out = tokio::spawn(async move {
        match replica.propose(Command::LockVoters { change: change.clone() }).await?.reply {
            Reply::Refused(refusal) => return Err(refusal.into()),
            Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. } => {}
        }
        steward::complete(&replica, &change).await
    });
    let ended = carrying_out.await;
    ended.unwrap_or_else(|_| Err(ChangeError::OutcomeUnknown("this replica is shutting down".to_owned())))
}

fn find(members: &[MemberState], replica: ReplicaId) -> Result<&MemberState, ChangeError> {
    members.iter().find(|member| member.replica == replica).ok_or(ChangeError::NotAMember { replica })
}

/// Whether the member could be counted on at once.
fn fit_to_vote(member: &MemberState) -> Result<(), ChangeError> {
    let (replica, lag_max) = (member.replica, limits::CAUGHT_UP_ENTRIES);
    if !answers(member) {
        return Err(ChangeError::Silent { replica, since: member.last_contact });
    }
    match member.lag {
        Some(lag) if lag > lag_max => Err(ChangeError::Behind { replica, lag, lag_max }),
        Some(_) | None => Ok(()),
    }
}

fn answers(member: &MemberState) -> bool {
    member.last_contact.is_some_and(|since| since <= limits::CONTACT_MAX)
}

/// Whether a group of these voters would be one to have.
fn sound(members: &[MemberState], voters: &BTreeSet<ReplicaId>, even: Even) -> Result<(), ChangeError> {
    let (count, voters_max) = (voters.len(), limits::VOTERS_MAX);
    if count == 0 {
        return Err(ChangeError::NoneLeft);
    }
    if count > voters_max {
        return Err(ChangeError::TooMany { voters: count, voters_max });
    }
    if count.is_multiple_of(2) && even == Even::Refuse {
        return Err(ChangeError::Even { voters: count });
    }
    let answering =
        members.iter().filter(|member| voters.contains(&member.replica) && answers(member)).count();
    if answering <= count / 2 {
        return Err(ChangeError::NoMajority { voters: count, answering });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn member(id: u64, last_contact: Option<u64>, lag: u64) -> MemberState {
        MemberState {
            replica: ReplicaId(id),
            role: Role::Voter,
            address: String::new(),
            leader: false,
            matched_index: Some(1),
            lag: Some(lag),
            last_contact: last_contact.map(Duration::from_millis),
        }
    }

    fn judge(contacts: &[Option<u64>], even: Even) -> Result<(), ChangeError> {
        let members: Vec<_> = (1..).zip(contacts).map(|(id, contact)| member(id, *contact, 0)).collect();
        let voters = members.iter().map(|member| member.replica).collect();
        sound(&members, &voters, even)
    }

    #[test]
    fn a_group_is_sound_with_an_odd_number_of_voters_of_which_most_answer() {
        assert_eq!(judge(&[Some(0)], Even::Refuse), Ok(()));
        assert_eq!(judge(&[Some(0), Some(50), None], Even::Refuse), Ok(()));
        assert_eq!(judge(&[], Even::Allow), Err(ChangeError::NoneLeft));
        assert_eq!(judge(&[Some(0), Some(0)], Even::Refuse), Err(ChangeError::Even { voters: 2 }));
        assert_eq!(judge(&[Some(0), Some(0)], Even::Allow), Ok(()));
        let silent = Some(60_000);
        assert_eq!(
            judge(&[Some(0), silent, None], Even::Refuse),
            Err(ChangeError::NoMajority { voters: 3, answering: 1 })
        );
        assert_eq!(
            judge(&[Some(0), None], Even::Allow),
            Err(ChangeError::NoMajority { voters: 2, answering: 1 })
        );
        let six = [Some(0); 6];
        assert_eq!(judge(&six, Even::Allow), Err(ChangeError::TooMany { voters: 6, voters_max: 5 }));
    }

    #[test]
    fn only_a_member_that_answers_and_is_not_behind_is_fit_to_vote() {
        assert_eq!(fit_to_vote(&member(1, Some(0), limits::CAUGHT_UP_ENTRIES)), Ok(()));
        let behind = limits::CAUGHT_UP_ENTRIES + 1;
        let refused = fit_to_vote(&member(1, Some(0), behind)).unwrap_err();
        assert!(matches!(refused, ChangeError::Behind { lag, .. } if lag == behind), "{refused}");
        let refused = fit_to_vote(&member(1, None, 0)).unwrap_err();
        assert_eq!(refused.to_string(), "replica 1 has not answered yet; start it, or correct its address");
        let refused = fit_to_vote(&member(1, Some(60_000), 0)).unwrap_err();
        assert!(refused.to_string().contains("has not answered for 60000 ms"), "{refused}");
    }
}
