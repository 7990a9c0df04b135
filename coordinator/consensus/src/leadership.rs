//! Who leads, as a channel. What runs only on the leader starts and stops by it.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState};
use proto::suspend::Suspend;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::limits;
use crate::options::ReplicaId;
use crate::raft::door::Heard;
use crate::raft::types::{Running, Types};

/// Who leads the group, as this replica knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The newest term this replica has heard of. With the epoch it orders everything a leader says: what comes from an
    /// older term is refused.
    pub term: u64,
    /// The leader of that term; `None` while an election is under way or no majority is there.
    pub leader: Option<ReplicaId>,
    /// Where the leader is reached.
    pub address: Option<String>,
    /// Whether this replica is the leader. It may not have applied what earlier leaders committed: see
    /// [`crate::Consensus::barrier`].
    pub is_self: bool,
}

/// Follows openraft until it stops. openraft goes on naming a leader that nobody has heard of for long, also when that is this
/// replica and no majority answers it: after `gone_after` nobody leads. Nor does anybody whom this machine has not heard since it
/// slept: its clock says that a moment has passed, and the others may have gone on for hours.
pub(crate) fn follow(raft: &Running, heard: Arc<Heard>, gone_after: Duration) -> watch::Receiver<Leadership> {
    let mut metrics = raft.metrics();
    let now = move |metrics: &RaftMetrics<Types>, patience: Duration| {
        read(metrics, patience, |leader| heard.silence(leader))
    };
    let (sender, receiver) = watch::channel(now(&metrics.borrow_watched(), gone_after));
    tokio::spawn(async move {
        let mut looks = interval(limits::LEADER_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut suspend, mut woke) = (Suspend::default(), None);
        loop {
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { break },
                _ = looks.tick() => {}
            }
            if let Some(slept) = suspend.look() {
                tracing::warn!(?slept, "this machine slept: who leads is unknown until it is heard");
                woke = Some(Instant::now());
            }
            let leadership =
                now(&metrics.borrow_watched(), patience(gone_after, woke.map(|at| at.elapsed())));
            if leadership.leader.is_none() && metrics.borrow_watched().running_state.is_err() {
                break;
            }
            sender.send_if_modified(|known| {
                let changed = *known != leadership;
                *known = leadership;
                changed
            });
        }
        // Who has stopped leads nobody.
        sender.send_modify(|known| *known = Leadership { term: known.term, ..Leadership::default() });
    });
    receiver
}

/// What was heard before the machine slept does not count.
fn patience(gone_after: Duration, since_sleep: Option<Duration>) -> Duration {
    since_sleep.map_or(gone_after, |since| since.min(gone_after))
}

/// openraft shows a leader of term 0 right after a group is founded, which steps down at once: that is nobody.
fn read(
    metrics: &RaftMetrics<Types>,
    gone_after: Duration,
    silence: impl FnOnce(ReplicaId) -> Option<Duration>,
) -> Leadership {
    let term = metrics.current_term;
    let leads = metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
    let is_self = leads && term > 0 && has_majority(metrics, gone_after);
    let heard = |leader: &ReplicaId| {
        *leader != metrics.id && silence(*leader).is_some_and(|silence| silence <= gone_after)
    };
    let leader = if is_self { Some(metrics.id) } else { metrics.current_leader.filter(heard) };
    let address =
        leader.and_then(|leader| metrics.membership_config.get_node(&leader)).map(|node| &node.address);
    Leadership { term, leader, address: address.cloned(), is_self }
}

/// Whether a majority answered this leader of late. A leader that just began has not asked yet, and has the votes.
fn has_majority(metrics: &RaftMetrics<Types>, gone_after: Duration) -> bool {
    let alone = metrics.membership_config.voter_ids().all(|voter| voter == metrics.id);
    let acked = metrics.last_quorum_acked;
    alone || acked.is_none_or(|at| at.elapsed() <= gone_after)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::Membership;
    use openraft::type_config::TypeConfigExt;

    use super::*;
    use crate::raft::types::{Member, StoredMembership};

    const GONE_AFTER: Duration = Duration::from_secs(2);

    fn metrics(term: u64, state: ServerState, leader: Option<u64>) -> RaftMetrics<Types> {
        let member = Member { address: "two:1".to_owned() };
        let nodes = BTreeMap::from([(ReplicaId(1), Member::default()), (ReplicaId(2), member)]);
        let voters = vec![BTreeSet::from([ReplicaId(1), ReplicaId(2)])];
        let mut metrics = RaftMetrics::new_initial(ReplicaId(1));
        metrics.current_term = term;
        metrics.state = state;
        metrics.current_leader = leader.map(ReplicaId);
        metrics.membership_config =
            Arc::new(StoredMembership::new(None, Membership::new(voters, nodes).unwrap()));
        metrics
    }

    fn just_now(_: ReplicaId) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    #[test]
    fn the_leader_of_term_0_is_nobody() {
        let seen = read(&metrics(0, ServerState::Leader, Some(1)), GONE_AFTER, just_now);
        assert_eq!(seen, Leadership::default());
    }

    #[test]
    fn another_leader_is_named_with_its_address_as_long_as_it_is_heard() {
        let metrics = metrics(4, ServerState::Follower, Some(2));
        let (leader, address) = (Some(ReplicaId(2)), Some("two:1".to_owned()));
        assert_eq!(
            read(&metrics, GONE_AFTER, just_now),
            Leadership { term: 4, leader, address, is_self: false }
        );
        let nobody = Leadership { term: 4, ..Leadership::default() };
        assert_eq!(read(&metrics, GONE_AFTER, |_| None), nobody);
        let long = GONE_AFTER + Duration::from_millis(1);
        assert_eq!(read(&metrics, GONE_AFTER, |_| Some(long)), nobody);
    }

    #[test]
    fn who_was_heard_before_a_sleep_and_not_since_leads_nobody() {
        let (moment, woke) = (Duration::from_millis(300), Duration::from_millis(200));
        let follower = metrics(4, ServerState::Follower, Some(2));
        let leads = |patience| read(&follower, patience, |_| Some(moment)).leader.is_some();
        assert!(leads(patience(GONE_AFTER, None)));
        assert!(!leads(patience(GONE_AFTER, Some(woke))), "last heard a moment before it");
        assert!(leads(patience(GONE_AFTER, Some(2 * moment))), "and again since");
        assert_eq!(patience(GONE_AFTER, Some(9 * GONE_AFTER)), GONE_AFTER);
        let mut leader = metrics(4, ServerState::Leader, Some(1));
        leader.last_quorum_acked = Some((Types::now() - moment).into());
        assert!(read(&leader, patience(GONE_AFTER, None), just_now).is_self);
        assert!(!read(&leader, patience(GONE_AFTER, Some(woke)), just_now).is_self);
    }

    #[test]
    fn one_leads_oneself_while_a_majority_answers() {
        let mut metrics = metrics(4, ServerState::Leader, Some(1));
        let leads =
            Leadership { term: 4, leader: Some(ReplicaId(1)), address: Some(String::new()), is_self: true };
        assert_eq!(read(&metrics, GONE_AFTER, |_| None), leads, "it has just been elected");
        metrics.last_quorum_acked = Some(Types::now().into());
        assert_eq!(read(&metrics, GONE_AFTER, |_| None), leads);
        let long_ago = Types::now() - GONE_AFTER - Duration::from_millis(1);
        metrics.last_quorum_acked = Some(long_ago.into());
        assert_eq!(read(&metrics, GONE_AFTER, |_| None), Leadership { term: 4, ..Leadership::default() });
        // The metrics still name the replica that has just stepped down.
        metrics.state = ServerState::Follower;
        assert_eq!(read(&metrics, GONE_AFTER, just_now), Leadership { term: 4, ..Leadership::default() });
    }
}
