//! Coordinators that follow get votes.
//!
//! Owns this errand of whoever leads: those that keep up get one as soon as that makes the number of votes odd. One that was away when
//! its turn came is not forgotten, and keeps nobody else from a vote. Refuses an even number: with two votes either's failure stops both.

use std::time::Duration;

use consensus::limits::{CAUGHT_UP_ENTRIES, VOTERS_MAX};
use consensus::{Consensus, Even, MemberState, ReplicaId, Role};
use tokio::time::{MissedTickBehavior, interval};

use crate::limits;

/// Runs as long as the registry.
pub(crate) async fn run(consensus: Consensus) {
    let mut looks = interval(limits::GROWTH_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        look(&consensus).await;
    }
}

/// Gives the votes that can be given now. What fails is tried again with the next look.
pub(crate) async fn look(consensus: &Consensus) {
    let leads = consensus.leadership().borrow().is_self;
    let next = if leads { next(&consensus.members()) } else { Vec::new() };
    if next.is_empty() {
        return;
    }
    match consensus.promote(&next, Even::Refuse).await {
        Ok(()) => tracing::info!(?next, "coordinators have got a vote"),
        Err(error) => tracing::info!(?next, %error, "no vote for these coordinators yet"),
    }
}

/// Who gets a vote: the most that make the number odd, of those that keep up, the lowest number first.
fn next(members: &[MemberState]) -> Vec<ReplicaId> {
    let voters = members.iter().filter(|member| member.role == Role::Voter).count();
    let mut ready: Vec<_> =
        members.iter().filter(|member| keeps_up(member)).map(|member| member.replica).collect();
    ready.sort_unstable();
    let most = ready.len().min(VOTERS_MAX.saturating_sub(voters));
    let count = (1..=most).rev().find(|more| !(voters + more).is_multiple_of(2)).unwrap_or(0);
    ready.truncate(count);
    ready
}

fn keeps_up(member: &MemberState) -> bool {
    let heard = |silence: Duration| silence <= limits::GROWTH_SILENCE;
    member.role == Role::Learner
        && member.lag.is_some_and(|lag| lag <= CAUGHT_UP_ENTRIES)
        && member.last_contact.is_some_and(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(replica: u64, role: Role) -> MemberState {
        MemberState {
            replica: ReplicaId(replica),
            role,
            address: String::new(),
            leader: false,
            matched_index: Some(9),
            lag: Some(0),
            last_contact: Some(Duration::ZERO),
        }
    }

    /// As many voters, and then as many learners.
    fn group(voters: u64, learners: u64) -> Vec<MemberState> {
        let role = |replica| if replica <= voters { Role::Voter } else { Role::Learner };
        (1..=voters + learners).map(|replica| member(replica, role(replica))).collect()
    }

    #[test]
    fn the_number_of_votes_is_made_odd_and_no_larger_than_five() {
        let grows = |voters, learners| voters + next(&group(voters, learners)).len() as u64;
        let grown: Vec<_> =
            (1..=6).flat_map(|voters| (0..4).map(move |learners| (voters, learners))).collect();
        let grown: Vec<_> = grown.into_iter().map(|(voters, learners)| grows(voters, learners)).collect();
        let expected = [
            [1, 1, 3, 3], // one coordinator, with none to three that follow
            [2, 3, 3, 5],
            [3, 3, 5, 5],
            [4, 5, 5, 5],
            [5, 5, 5, 5],
            [6, 6, 6, 6],
        ];
        assert_eq!(grown, expected.concat());
        assert_eq!(next(&group(2, 2)), [ReplicaId(3)], "the lowest number first");
    }

    #[test]
    fn who_is_away_or_behind_gets_none_and_is_in_nobodys_way() {
        let mut members = group(1, 3);
        members[1].last_contact = Some(limits::GROWTH_SILENCE + Duration::from_millis(1));
        assert_eq!(next(&members), [ReplicaId(3), ReplicaId(4)]);
        members[2].lag = Some(CAUGHT_UP_ENTRIES + 1);
        assert_eq!(next(&members), []);
        members[1].last_contact = Some(Duration::ZERO);
        assert_eq!(next(&members), [ReplicaId(2), ReplicaId(4)]);
        members[1].lag = None;
        assert_eq!(next(&members), [], "of whom nothing is known");
    }
}
