//! What administrators see of members, whom they may end the membership of, and whom they may empty.
//!
//! Owns the names under which members go (`agent-7`, `coordinator-3`, or what people call the machine), and one rule: a coordinator
//! goes only if the voters that stay are a majority without it, or nobody could complete its going. Refuses to change anything: it
//! says which command does. Pure but for [`Running`], through which the gateway asks.

use std::sync::Arc;

use anyhow::Context as _;
use consensus::{Consensus, MemberState, ReplicaId, Role as Vote};
use proto::token::JoinToken;
use registry::{Command, NodeId, Registry, Role, TokenId};
use serde::Serialize;

use crate::authority::Authority;
use crate::clock::unix_ms;
use crate::founding::Founded;
use crate::gateway::Room;
use crate::members::{self, FOUNDER};
use crate::seal::Keyring;
use crate::{limits, rotating};

/// One member, or one that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemberView {
    /// `agent-7`: its number among agents, which is that of its node.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) revoked: bool,
    /// It is to be emptied.
    pub(crate) draining: bool,
    /// Absent for the founder, who was never admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admitted_at_unix_ms: Option<u64>,
    /// Absent for a founder, of the cluster or of another life of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

/// Why nothing is done.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NotDone {
    #[error("this cluster has no member {0:?}; see them with `mlx-serving nodes ls`")]
    Unknown(String),
    #[error("{count} members are called {name:?}; say which by the id that `mlx-serving nodes ls` shows")]
    Ambiguous { name: String, count: usize },
    #[error(
        "without {id} no majority of the coordinators would be left that answers ({answering} of {voters}); start the others, or \
         add one with `mlx-serving coordinator --join`, and ask again"
    )]
    NoMajority { id: String, answering: usize, voters: usize },
    #[error(
        "{0} runs no models, so there is nothing to drain: a coordinator is simply stopped, and the others go on"
    )]
    NoAgent(String),
    #[error("{0} is no member any more")]
    Revoked(String),
}

/// The cluster as it runs.
pub(crate) struct Running {
    consensus: Consensus,
    authority: Arc<Authority>,
    keyring: Arc<Keyring>,
}

impl Running {
    pub(crate) fn new(consensus: &Consensus, founded: &Founded) -> Self {
        let (authority, keyring) = (founded.authority.clone(), founded.keyring.clone());
        Self { consensus: consensus.clone(), authority, keyring }
    }
}

impl Room for Running {
    fn new_token(&self) -> anyhow::Result<(JoinToken, [u8; 32])> {
        self.authority.issue_token()
    }

    fn group(&self) -> Vec<MemberState> {
        self.consensus.members()
    }

    fn rotation(&self) -> anyhow::Result<Command> {
        let facts = self.consensus.local();
        let cluster = facts.cluster().context("there is no cluster")?;
        rotating::begin(cluster, &self.authority, &self.keyring, unix_ms())
    }
}

/// Whose membership is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Node(NodeId),
    Founder,
}

/// All members, coordinators first.
pub(crate) fn list(registry: &Registry) -> Vec<MemberView> {
    let Some(cluster) = registry.cluster() else { return Vec::new() };
    let founder = MemberView {
        id: format!("coordinator-{FOUNDER}"),
        name: "the founder".to_owned(),
        role: "coordinator",
        revoked: members::is_coordinator_revoked(registry, FOUNDER),
        draining: false,
        admitted_at_unix_ms: Some(cluster.founded_at_unix_ms),
        token: None,
    };
    let nodes = registry.nodes().filter_map(|(number, node)| {
        let (role, id, revoked) = match node.role {
            Role::Agent => ("agent", format!("agent-{number}"), node.revoked),
            Role::Coordinator => {
                let replica = members::replica_of(number);
                let revoked = members::is_coordinator_revoked(registry, replica);
                ("coordinator", format!("coordinator-{replica}"), revoked)
            }
            Role::Client => return None,
        };
        Some(MemberView {
            id,
            name: node.name.clone(),
            role,
            revoked,
            draining: node.role == Role::Agent && registry.is_draining(number),
            admitted_at_unix_ms: Some(node.admitted_at_unix_ms),
            token: Some(node.token.0.clone()).filter(|token| !token.is_empty()),
        })
    });
    let mut all: Vec<_> = std::iter::once(founder).chain(nodes).collect();
    // Stable: within a role by number.
    all.sort_by_key(|member| member.role != "coordinator");
    all
}

/// Whom a rotation of the authority awaits.
pub(crate) fn awaited(registry: &Registry) -> Vec<MemberView> {
    let awaited = registry.awaited();
    let ids: Vec<_> = awaited
        .iter()
        .map(|member| match registry.node(*member).map(|node| node.role) {
            Some(Role::Agent | Role::Client) => format!("agent-{member}"),
            Some(Role::Coordinator) | None => format!("coordinator-{}", members::replica_of(*member)),
        })
        .collect();
    let mut all = list(registry);
    all.retain(|member| ids.contains(&member.id));
    all
}

/// The command that ends the membership of `which`, and how it is called. Who is revoked already may be revoked again.
pub(crate) fn revocation(
    registry: &Registry,
    group: &[MemberState],
    which: &str,
    at_unix_ms: u64,
) -> Result<(String, Command), NotDone> {
    let (id, whom) = resolve(registry, which)?;
    let replica = match whom {
        Whom::Founder => Some(FOUNDER),
        Whom::Node(node) => registry
            .node(node)
            .filter(|node| node.role == Role::Coordinator)
            .map(|_| members::replica_of(node)),
    };
    if let Some(replica) = replica {
        may_go(group, replica, &id)?;
    }
    let command = match whom {
        Whom::Founder => Command::RevokeFounder { at_unix_ms },
        Whom::Node(node) => Command::RevokeNode { node },
    };
    Ok((id, command))
}

/// The command that begins or ends the drain of `which`, and how it is called.
pub(crate) fn drain(registry: &Registry, which: &str, draining: bool) -> Result<(String, Command), NotDone> {
    let (id, whom) = resolve(registry, which)?;
    let node = match whom {
        Whom::Founder => None,
        Whom::Node(node) => registry.node(node).filter(|member| member.role == Role::Agent).map(|_| node),
    };
    let node = node.ok_or_else(|| NotDone::NoAgent(id.clone()))?;
    if registry.is_node_revoked(node) {
        return Err(NotDone::Revoked(id));
    }
    Ok((id, Command::DrainNode { node, draining }))
}

/// May further machines join with this token?
pub(crate) fn admits(registry: &Registry, token: &str, now_unix_ms: u64) -> bool {
    let token = registry.token(&TokenId(token.to_owned()));
    token.is_some_and(|token| !token.revoked && !token.spent() && now_unix_ms < token.expires_at_unix_ms)
}

/// An id or a name; an id of somebody comes before the name of another.
fn resolve(registry: &Registry, which: &str) -> Result<(String, Whom), NotDone> {
    let all = list(registry);
    let by_id = all.iter().find(|member| member.id == which);
    let mut named = all.iter().filter(|member| member.name == which && !member.revoked);
    let found = match (by_id, named.next(), named.count()) {
        (Some(member), _, _) | (None, Some(member), 0) => member,
        (None, Some(_), more) => {
            return Err(NotDone::Ambiguous { name: which.to_owned(), count: more + 1 });
        }
        (None, None, _) => return Err(NotDone::Unknown(which.to_owned())),
    };
    let number = found.id.rsplit('-').next().and_then(|number| number.parse().ok());
    let unknown = || NotDone::Unknown(which.to_owned());
    let number: u64 = number.ok_or_else(unknown)?;
    let whom = match (found.role, members::node_of(ReplicaId(number))) {
        ("coordinator", None) => Whom::Founder,
        ("coordinator", Some(node)) => Whom::Node(node),
        _ => Whom::Node(NodeId(number)),
    };
    Ok((found.id.clone(), whom))
}

/// The group gives up a voter by the votes of a majority of those that there are now, which must be had without it. Who answers only
/// the leader knows; elsewhere all the others count.
fn may_go(group: &[MemberState], replica: ReplicaId, id: &str) -> Result<(), NotDone> {
    let voters: Vec<_> = group.iter().filter(|member| member.role == Vote::Voter).collect();
    if voters.iter().all(|voter| voter.replica != replica) {
        return Ok(());
    }
    let leads = group.iter().any(|member| member.lag.is_some());
    let answers = |voter: &MemberState| voter.last_contact.is_some_and(|since| since <= limits::ANSWERED);
    let others = voters.iter().filter(|voter| voter.replica != replica);
    let answering = others.filter(|voter| !leads || answers(voter)).count();
    if answering * 2 > voters.len() {
        return Ok(());
    }
    Err(NotDone::NoMajority { id: id.to_owned(), answering, voters: voters.len() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use registry::{CaStep, ClusterId};

    use super::*;

    /// The founder, agents 1 and 3, and coordinators 3 and 5, which are nodes 2 and 4.
    fn room() -> Registry {
        let mut registry = Registry::default();
        registry.apply(&Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: 5,
        });
        for (id, role) in [("a", Role::Agent), ("c", Role::Coordinator)] {
            registry.apply(&Command::IssueJoinToken {
                id: TokenId(id.to_owned()),
                secret_hash: [0; 32],
                role,
                expires_at_unix_ms: 9,
                uses: None,
                name: None,
            });
        }
        for (token, name) in [("a", "mini"), ("c", "head"), ("a", "mini"), ("c", "spare")] {
            registry.apply(&Command::AdmitNode {
                token: TokenId(token.to_owned()),
                secret_hash: [0; 32],
                name: name.to_owned(),
                public_key: format!("0{}", registry.nodes().count()),
                at_unix_ms: 6,
            });
        }
        registry
    }

    fn voters(replicas: &[u64]) -> Vec<MemberState> {
        let member = |replica: &u64| MemberState {
            replica: ReplicaId(*replica),
            role: Vote::Voter,
            address: String::new(),
            leader: false,
            matched_index: None,
            lag: None,
            last_contact: None,
        };
        replicas.iter().map(member).collect()
    }

    fn revoked(which: &str) -> Result<(String, Command), NotDone> {
        revocation(&room(), &voters(&[1, 3, 5]), which, 7)
    }

    #[test]
    fn members_are_listed_under_the_numbers_of_their_certificates() {
        let ids: Vec<_> = list(&room()).into_iter().map(|member| (member.id, member.name)).collect();
        let expected = [
            ("coordinator-1", "the founder"),
            ("coordinator-3", "head"),
            ("coordinator-5", "spare"),
            ("agent-1", "mini"),
            ("agent-3", "mini"),
        ];
        assert_eq!(ids, expected.map(|(id, name)| (id.to_owned(), name.to_owned())));
    }

    #[test]
    fn whom_a_rotation_awaits_is_named_as_members_are() {
        let mut registry = room();
        assert_eq!(awaited(&registry), Vec::new());
        let rotate = |step| Command::RotateCa { number: 1, step, at_unix_ms: 7 };
        for command in [
            Command::RaiseVersion { to: registry::ClusterVersion::NEWEST, at_unix_ms: 7 },
            Command::SealCa { sealed_ca_key: "0a".to_owned(), at_unix_ms: 7 },
            Command::RevokeNode { node: NodeId(1) },
            rotate(CaStep::Begin {
                ca_certificate_pem: "another".to_owned(),
                cross_certificate_pem: "certified".to_owned(),
                sealed_ca_key: "0b".to_owned(),
                sealed_hash_key: "0c".to_owned(),
                until_unix_ms: 9,
            }),
            rotate(CaStep::Move { members: [NodeId(2)].into() }),
        ] {
            assert_eq!(registry.apply(&command), registry::Reply::Done, "{command:?}");
        }
        let ids: Vec<_> = awaited(&registry).into_iter().map(|member| member.id).collect();
        assert_eq!(ids, ["coordinator-1", "coordinator-5", "agent-3"]);
    }

    #[test]
    fn a_member_is_meant_by_its_id_or_by_a_name_that_is_its_alone() {
        let node = |node| Command::RevokeNode { node: NodeId(node) };
        assert_eq!(revoked("agent-3"), Ok(("agent-3".to_owned(), node(3))));
        assert_eq!(revoked("head"), Ok(("coordinator-3".to_owned(), node(2))));
        assert_eq!(revoked("coordinator-5"), Ok(("coordinator-5".to_owned(), node(4))));
        let founder = Command::RevokeFounder { at_unix_ms: 7 };
        assert_eq!(revoked("coordinator-1"), Ok(("coordinator-1".to_owned(), founder)));
        assert_eq!(revoked("mini"), Err(NotDone::Ambiguous { name: "mini".to_owned(), count: 2 }));
        for nobody in ["agent-2", "coordinator-2", "mini-09", ""] {
            assert_eq!(revoked(nobody), Err(NotDone::Unknown(nobody.to_owned())));
        }
    }

    #[test]
    fn an_agent_that_is_a_member_is_drained_and_nobody_else() {
        let mut registry = room();
        let drained = |registry: &Registry, which| drain(registry, which, true);
        let command = Command::DrainNode { node: NodeId(3), draining: true };
        assert_eq!(drained(&registry, "agent-3"), Ok(("agent-3".to_owned(), command)));
        for coordinator in ["coordinator-1", "coordinator-3"] {
            let told = Err(NotDone::NoAgent(coordinator.to_owned()));
            assert_eq!(drained(&registry, coordinator), told);
        }
        registry.apply(&Command::RevokeNode { node: NodeId(3) });
        assert_eq!(drained(&registry, "agent-3"), Err(NotDone::Revoked("agent-3".to_owned())));
        assert_eq!(drained(&registry, "agent-9"), Err(NotDone::Unknown("agent-9".to_owned())));
    }

    #[test]
    fn of_two_with_one_name_the_one_that_was_not_revoked_is_meant() {
        let mut registry = room();
        registry.apply(&Command::RevokeNode { node: NodeId(1) });
        let meant = revocation(&registry, &[], "mini", 7).expect("one is left").0;
        assert_eq!(meant, "agent-3");
    }

    #[test]
    fn a_coordinator_goes_only_from_a_majority_that_can_do_without_it() {
        let goes = |replicas: &[u64]| revocation(&room(), &voters(replicas), "coordinator-3", 7).is_ok();
        assert!(goes(&[1, 3, 5]) && goes(&[1]) && goes(&[]), "one of three, a learner, nobody");
        assert!(!goes(&[3]) && !goes(&[1, 3]));
        let refused = revocation(&room(), &voters(&[1, 3]), "coordinator-3", 7).expect_err("one of two");
        assert!(refused.to_string().contains("1 of 2"), "{refused}");
    }

    #[test]
    fn to_the_leader_who_does_not_answer_is_no_part_of_a_majority() {
        let mut group = voters(&[1, 3, 5]);
        for member in &mut group {
            (member.lag, member.last_contact) = (Some(0), Some(Duration::ZERO));
        }
        let goes = |group: &[MemberState]| revocation(&room(), group, "coordinator-3", 7).is_ok();
        assert!(goes(&group));
        group[1].last_contact = None;
        assert!(goes(&group), "the one that goes need not answer");
        group[2].last_contact = Some(Duration::from_secs(60));
        assert!(!goes(&group), "nobody could complete its going");
    }
}
