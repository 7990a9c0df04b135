//! The lead belongs where the agents are heard.
//!
//! Owns the watch of a leader over its own ears: a cable may part it from agents that every other coordinator still hears, and
//! then nothing new would run anywhere. It asks the others, and hands over to the one that hears more. Refuses to act on one look.

use consensus::{Consensus, MemberState, ReplicaId, Role};
use tokio::time::{MissedTickBehavior, interval};

use crate::fleet::Fleet;
use crate::limits;
use crate::peers::Peers;
use crate::polling::Polling;

/// Runs as long as the coordinator.
pub(crate) async fn watch(consensus: Consensus, fleet: Fleet, peers: Peers) {
    let mut polling = Polling::new(peers);
    let mut judge = Judge::default();
    let mut looks = interval(limits::REACH_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let here = fleet.reached().await;
        let better = match leads(&consensus) && here < members(&consensus) {
            true => judge.look(here, &reached(&mut polling, &consensus).await),
            false => judge.look(here, &[]),
        };
        let Some(next) = better else { continue };
        tracing::warn!(here, to = next.0, "another coordinator hears more agents: handing the lead over");
        if let Err(error) = consensus.transfer(next).await {
            tracing::warn!(%error, "the lead could not be handed over");
        }
    }
}

/// How many agents each of the others hears; without those that do not answer.
async fn reached(polling: &mut Polling, consensus: &Consensus) -> Vec<(ReplicaId, usize)> {
    let told = polling.ask(&others(consensus)).await.into_iter();
    told.filter_map(|(other, told)| Some((other, usize::try_from(told.reached?).ok()?))).collect()
}

fn leads(consensus: &Consensus) -> bool {
    consensus.leadership().borrow().is_self
}

/// Agents that belong to the cluster, there or not.
fn members(consensus: &Consensus) -> usize {
    let registry = consensus.local();
    registry.nodes().filter(|(_, node)| node.role == registry::Role::Agent && !node.revoked).count()
}

/// Those that may lead.
fn others(consensus: &Consensus) -> Vec<MemberState> {
    let members = consensus.members().into_iter();
    members.filter(|member| member.role == Role::Voter && !member.leader).collect()
}

/// Decides from several looks.
#[derive(Default)]
struct Judge {
    behind: u32,
}

impl Judge {
    /// To whom the lead goes, if anywhere.
    fn look(&mut self, here: usize, elsewhere: &[(ReplicaId, usize)]) -> Option<ReplicaId> {
        // Of equals the one with the lowest number.
        let best = elsewhere
            .iter()
            .copied()
            .max_by_key(|(replica, reached)| (*reached, std::cmp::Reverse(*replica)));
        let better = best.filter(|(_, reached)| *reached > here);
        self.behind = if better.is_some() { self.behind + 1 } else { 0 };
        if self.behind < limits::REACH_LOOKS {
            return None;
        }
        self.behind = 0;
        better.map(|(replica, _)| replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: ReplicaId = ReplicaId(2);
    const THREE: ReplicaId = ReplicaId(3);

    type Look = (usize, Vec<(ReplicaId, usize)>);

    fn look(here: usize, elsewhere: &[(ReplicaId, usize)]) -> Look {
        (here, elsewhere.to_vec())
    }

    /// What the last of these looks leads to.
    fn after(looks: Vec<Look>) -> Option<ReplicaId> {
        let mut judge = Judge::default();
        looks.iter().map(|(here, elsewhere)| judge.look(*here, elsewhere)).last().flatten()
    }

    #[test]
    fn the_lead_goes_to_whom_hears_most_after_three_looks() {
        let worse = look(0, &[(TWO, 1), (THREE, 4)]);
        assert_eq!(after(vec![worse.clone(); 2]), None);
        assert_eq!(after(vec![worse.clone(); 3]), Some(THREE));
        assert_eq!(after(vec![worse; 4]), None, "it is not asked again at once");
    }

    #[test]
    fn who_hears_as_many_is_no_better() {
        assert_eq!(after(vec![look(2, &[(TWO, 2), (THREE, 1)]); 9]), None);
        assert_eq!(after(vec![look(0, &[]); 9]), None);
    }

    #[test]
    fn one_good_look_between_begins_anew() {
        let (worse, even) = (look(1, &[(TWO, 2)]), look(2, &[(TWO, 2)]));
        let begun = [worse.clone(), worse.clone(), even, worse.clone(), worse.clone()];
        assert_eq!(after(begun.to_vec()), None);
        assert_eq!(after([begun.to_vec(), vec![worse]].concat()), Some(TWO));
    }

    #[test]
    fn of_equals_the_lowest_number_gets_it() {
        assert_eq!(after(vec![look(0, &[(THREE, 2), (TWO, 2)]); 3]), Some(TWO));
    }
}
