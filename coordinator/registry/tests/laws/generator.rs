//! Random commands. Few ids, sizes and times, so that commands meet.
//!
//! Owns two kinds: any command, some fields badly formed, for laws that hold always; and well formed ones for the naive
//! registry, which knows the rules of ideas and not those of fields. Both kinds share what has no bad form.

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{
    BreakerState, CaStep, ClusterId, ClusterVersion, Command, Fingerprint, ModelName, ModelPolicy,
    ModelSource, NodeId, Registry, Role, TokenId, VoterChange,
};

use crate::{batch_generator, job_generator, key_generator, response_generator};

/// A failing case is printed and then kept as a test of its own, not in a file beside this one.
pub(crate) fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Any command but those of administrators.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    // All kinds side by side are too large for a stack.
    prop_oneof![
        3 => membership(),
        2 => offers(),
        6 => facts(),
        3 => key_generator::keys(),
        2 => job_generator::jobs(),
        2 => batch_generator::batches().boxed(),
        2 => response_generator::responses().boxed(),
        1 => badly_formed(),
        1 => key_generator::badly_formed(),
        1 => job_generator::badly_formed(),
        1 => batch_generator::badly_formed().boxed(),
        1 => response_generator::badly_formed().boxed(),
    ]
    .boxed()
}

/// Any command, some of them as an administrator gives it.
pub(crate) fn said() -> impl Strategy<Value = Command> {
    let badly = key_generator::badly_audited();
    let noted = key_generator::notes();
    prop_oneof![12 => command(), 3 => key_generator::audited(command()), 1 => badly, 1 => noted].boxed()
}

/// Any command that is well formed and no founding.
pub(crate) fn well_formed() -> impl Strategy<Value = Command> {
    let any = || {
        prop_oneof![
            3 => membership_well_formed(),
            2 => offers_well_formed(),
            6 => facts(),
            3 => key_generator::keys(),
            3 => job_generator::jobs(),
            4 => batch_generator::batches().boxed(),
            3 => response_generator::responses().boxed(),
        ]
        .boxed()
    };
    prop_oneof![8 => any(), 2 => key_generator::audited(any()), 1 => key_generator::notes()]
}

/// A history that begins with a founding, so that something can happen; in half of all cases also with machines that
/// have models and memory, so that much does.
pub(crate) fn history() -> impl Strategy<Value = Vec<Command>> {
    let beginning = prop_oneof![Just(vec![founding()]), Just(farm())];
    (beginning, vec(command(), 0..80)).prop_map(|(beginning, commands)| [beginning, commands].concat())
}

/// The same with administrators among those who ask.
pub(crate) fn administered() -> impl Strategy<Value = Vec<Command>> {
    let beginning = prop_oneof![Just(vec![founding()]), Just(farm())];
    (beginning, vec(said(), 0..80)).prop_map(|(beginning, commands)| [beginning, commands].concat())
}

/// The registry after a history.
pub(crate) fn after(commands: &[Command]) -> Registry {
    let mut registry = Registry::default();
    for command in commands {
        registry.apply(command);
    }
    registry
}

pub(crate) fn founding() -> Command {
    Command::FoundCluster {
        cluster: ClusterId("room".to_owned()),
        ca_certificate_pem: "certificate".to_owned(),
        ca_key_pem: "key".to_owned(),
        at_unix_ms: 0,
    }
}

/// Agents 1 and 2, which offer the models a and b and have memory for ten, and coordinator 3; all of the newest version.
pub(crate) fn farm() -> Vec<Command> {
    let token = |id: &str, role| Command::IssueJoinToken {
        id: TokenId(id.to_owned()),
        secret_hash: [0; 32],
        role,
        expires_at_unix_ms: 100,
        uses: None,
        name: None,
    };
    let admit = |token: &str, key: &str| Command::AdmitNode {
        token: TokenId(token.to_owned()),
        secret_hash: [0; 32],
        name: "mini".to_owned(),
        public_key: key.to_owned(),
        at_unix_ms: 1,
    };
    let mut commands = vec![founding(), token("t7", Role::Agent), token("t8", Role::Coordinator)];
    commands.extend([admit("t7", "e1"), admit("t7", "e2"), admit("t8", "e3")]);
    for node in [NodeId(1), NodeId(2)] {
        commands.push(Command::SetBudget { node, bytes: 10 });
        for name in ["a", "b"] {
            let model = ModelName::new(name).unwrap();
            commands.push(Command::WantModel { node, model, source: ModelSource::Demo });
        }
    }
    commands.push(risen());
    commands
}

/// From here on every command is understood.
pub(crate) fn risen() -> Command {
    Command::RaiseVersion { to: ClusterVersion::NEWEST, at_unix_ms: 1 }
}

pub(crate) fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![4 => 1_u64..3, 1 => 0_u64..7].prop_map(NodeId)
}

pub(crate) fn model() -> impl Strategy<Value = ModelName> {
    "[a-c]".prop_map(|name| ModelName::new(&name).unwrap())
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    (0_u64..3).prop_map(Fingerprint)
}

/// Placements and what they need.
pub(crate) fn placements() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (node(), 0_u64..14).prop_map(|(node, bytes)| Command::SetBudget { node, bytes }),
        6 => (node(), model(), 1_u64..9)
            .prop_map(|(node, model, bytes)| Command::PlaceModel { node, model, bytes }),
        2 => (node(), model()).prop_map(|(node, model)| Command::UnplaceModel { node, model }),
    ]
}

pub(crate) fn breaker_moves() -> impl Strategy<Value = Command> {
    let state = prop_oneof![
        Just(BreakerState::Closed),
        Just(BreakerState::Degraded),
        Just(BreakerState::Open),
        Just(BreakerState::Probing),
        Just(BreakerState::SlowStart),
    ];
    let times = (proptest::option::of(0_u64..9), 0_u64..9);
    (node(), proptest::option::of(model()), state, 0_u32..6, 0_u32..3, times).prop_map(
        |(node, model, state, generation, opens, (until_unix_ms, at_unix_ms))| Command::MoveBreaker {
            node,
            model,
            state,
            generation,
            opens,
            until_unix_ms,
            why: "it hung".to_owned(),
            at_unix_ms,
        },
    )
}

pub(crate) fn blame() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => (fingerprint(), node(), 0_u64..9)
            .prop_map(|(fingerprint, node, at_unix_ms)| Command::ChargeDeath { fingerprint, node, at_unix_ms }),
        3 => (fingerprint(), 0_u64..9, 1_u64..9).prop_map(|(fingerprint, at_unix_ms, ms)| {
            Command::QuarantineRequest { fingerprint, at_unix_ms, until_unix_ms: at_unix_ms + ms }
        }),
        1 => fingerprint().prop_map(|fingerprint| Command::PardonRequest { fingerprint }),
    ]
}

/// Policies, drains and golden ids.
pub(crate) fn settings() -> impl Strategy<Value = Command> {
    let replicas = (0_u32..3, 0_u32..3).prop_filter("a range", |(min, max)| *max == 0 || min <= max);
    let policy = (any::<bool>(), replicas, proptest::option::of(0_u64..2)).prop_map(
        |(pinned, (replicas_min, replicas_max), idle_unload_s)| ModelPolicy {
            pinned,
            replicas_min,
            replicas_max,
            idle_unload_s,
        },
    );
    prop_oneof![
        (model(), policy).prop_map(|(model, policy)| Command::SetModelPolicy { model, policy }),
        (node(), any::<bool>()).prop_map(|(node, draining)| Command::DrainNode { node, draining }),
        (model(), "[01]", vec(0_u32..2, 1..3)).prop_map(|(model, card_digest, ids)| Command::SetGolden {
            model,
            card_digest,
            ids
        }),
    ]
}

/// Changes of the group of coordinators, most of them in turn.
pub(crate) fn voter_changes() -> impl Strategy<Value = Command> {
    let ids = || proptest::collection::btree_set(1_u64..5, 0..2);
    let seat = proptest::collection::btree_map(1_u64..5, "[ab]", 0..2);
    let change = (1_u64..5, seat, ids(), proptest::collection::btree_set(5_u64..7, 0..2), 1_u64..3);
    let lock = change.prop_filter("something to do", |(_, seat, promote, remove, _)| {
        !(seat.is_empty() && promote.is_empty() && remove.is_empty())
    });
    prop_oneof![
        3 => lock.prop_map(|(number, seat, promote, remove, by)| Command::LockVoters {
            change: VoterChange { number, seat, promote, remove, by, at_unix_ms: 5 },
        }),
        2 => (1_u64..5).prop_map(|number| Command::UnlockVoters { number }),
    ]
}

/// Versions that are known, the first two, and later ones.
pub(crate) fn raises() -> impl Strategy<Value = Command> {
    (0_u32..5).prop_map(|to| Command::RaiseVersion { to: ClusterVersion(to), at_unix_ms: 5 })
}

/// Sealed keys, from the version on that has them and before.
pub(crate) fn seals() -> impl Strategy<Value = Command> {
    "[0-9a-f]{1,4}".prop_map(|sealed_ca_key| Command::SealCa { sealed_ca_key, at_unix_ms: 6 })
}

/// Rotations of the authority, most of them in turn. Each has a certificate of its own, or it would be none.
pub(crate) fn rotations() -> impl Strategy<Value = Command> {
    let members = proptest::collection::btree_set((0_u64..6).prop_map(NodeId), 0..6);
    let begin =
        ("[0-9a-f]{1,2}", "[0-9a-f]{1,2}", 1_u64..9).prop_map(|(key, hash, lasts)| (key, hash, lasts));
    let step = prop_oneof![
        3 => begin.prop_map(|(sealed_ca_key, sealed_hash_key, lasts)| CaStep::Begin {
            ca_certificate_pem: String::new(),
            cross_certificate_pem: "cross".to_owned(),
            sealed_ca_key,
            sealed_hash_key,
            until_unix_ms: lasts,
        }),
        4 => members.prop_map(|members| CaStep::Move { members }),
        3 => proptest::bool::weighted(0.2).prop_map(|abandon| CaStep::End { abandon }),
    ];
    (1_u64..4, step, 0_u64..9)
        .prop_map(|(number, mut step, at_unix_ms)| {
            if let CaStep::Begin { ca_certificate_pem, until_unix_ms, .. } = &mut step {
                *ca_certificate_pem = format!("authority {number}");
                *until_unix_ms += at_unix_ms;
            }
            Command::RotateCa { number, step, at_unix_ms }
        })
        .boxed()
}

fn cluster() -> impl Strategy<Value = Command> {
    prop_oneof![1 => raises(), 1 => seals(), 2 => rotations()]
}

/// What the registry knows beside members and offers.
fn facts() -> impl Strategy<Value = Command> {
    let health = || prop_oneof![breaker_moves(), blame()];
    prop_oneof![3 => placements(), 4 => health(), 2 => settings(), 2 => voter_changes(), 4 => cluster()]
        .boxed()
}

/// Each with one field that breaks its rule.
fn badly_formed() -> impl Strategy<Value = Command> {
    let policy = ModelPolicy { replicas_min: 2, replicas_max: 1, ..ModelPolicy::default() };
    let quarantine =
        |fingerprint| Command::QuarantineRequest { fingerprint, at_unix_ms: 5, until_unix_ms: 5 };
    prop_oneof![
        (node(), model()).prop_map(|(node, model)| Command::PlaceModel { node, model, bytes: 0 }),
        (breaker_moves(), "(|\n)").prop_map(|(mut command, words)| {
            if let Command::MoveBreaker { why, .. } = &mut command {
                *why = words;
            }
            command
        }),
        model().prop_map(move |model| Command::SetModelPolicy { model, policy }),
        fingerprint().prop_map(quarantine),
        (model(), "(|X|0)").prop_map(|(model, card_digest)| Command::SetGolden {
            model,
            card_digest,
            ids: Vec::new()
        }),
    ]
}

fn membership() -> impl Strategy<Value = Command> {
    let token = || prop_oneof![9 => "t[0-3]", 1 => "[./t]{0,2}"].prop_map(TokenId);
    let hash = || (0_u8..2).prop_map(|byte| [byte; 32]);
    let role = prop_oneof![4 => Just(Role::Agent), 1 => Just(Role::Coordinator), 1 => Just(Role::Client)];
    prop_oneof![
        1 => ("[a-z/]{0,3}", "[a-z]{0,3}", "[a-z]{0,3}", 0_u64..9).prop_map(|(id, certificate, key, at)| {
            Command::FoundCluster {
                cluster: ClusterId(id),
                ca_certificate_pem: certificate,
                ca_key_pem: key,
                at_unix_ms: at,
            }
        }),
        1 => ("[a-z/]{0,3}", "[a-z]{0,3}", "[a-g0]{0,3}").prop_map(|(id, certificate, key)| {
            Command::FoundSealed {
                cluster: ClusterId(id),
                ca_certificate_pem: certificate,
                sealed_ca_key: key,
                at_unix_ms: 0,
            }
        }),
        4 => (token(), hash(), role, 0_u64..9, proptest::option::of(0_u32..4)).prop_map(
            |(id, secret_hash, role, expires_at_unix_ms, uses)| {
                Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses, name: None }
            }
        ),
        8 => (token(), hash(), "[a-z\n]{1,2}", "[0-9ag]{1,1}", 0_u64..9).prop_map(
            |(token, secret_hash, name, public_key, at_unix_ms)| {
                Command::AdmitNode { token, secret_hash, name, public_key, at_unix_ms }
            }
        ),
        2 => (0_u64..8).prop_map(|node| Command::RevokeNode { node: NodeId(node) }),
        1 => token().prop_map(|id| Command::RevokeJoinToken { id }),
        1 => (0_u64..9).prop_map(|at_unix_ms| Command::RevokeFounder { at_unix_ms }),
    ]
}

fn membership_well_formed() -> impl Strategy<Value = Command> {
    let token = || (0_u8..3).prop_map(|number| TokenId(format!("t{number}")));
    let hash = || prop_oneof![5 => Just([0; 32]), 1 => Just([1; 32])];
    let role = prop_oneof![3 => Just(Role::Agent), 1 => Just(Role::Client)];
    prop_oneof![
        3 => (token(), hash(), role, 3_u64..9, proptest::option::of(1_u32..4)).prop_map(
            |(id, secret_hash, role, expires_at_unix_ms, uses)| {
                Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses, name: None }
            }
        ),
        6 => (token(), hash(), 0_u8..8, 0_u64..9).prop_map(|(token, secret_hash, key, at_unix_ms)| {
            let (name, public_key) = ("mini".to_owned(), format!("{key}"));
            Command::AdmitNode { token, secret_hash, name, public_key, at_unix_ms }
        }),
        1 => (0_u64..7).prop_map(|node| Command::RevokeNode { node: NodeId(node) }),
        1 => token().prop_map(|id| Command::RevokeJoinToken { id }),
        1 => (0_u64..9).prop_map(|at_unix_ms| Command::RevokeFounder { at_unix_ms }),
    ]
}

fn offers() -> impl Strategy<Value = Command> {
    let source = prop_oneof![
        "/?[a-z]{0,3}".prop_map(ModelSource::Path),
        "[a-z/]{1,4}".prop_map(ModelSource::Hub),
        Just(ModelSource::Demo),
    ];
    want_or_unwant(source)
}

fn offers_well_formed() -> impl Strategy<Value = Command> {
    want_or_unwant(prop_oneof![Just(ModelSource::Demo), Just(ModelSource::Hub("owner/name".to_owned()))])
}

fn want_or_unwant(source: impl Strategy<Value = ModelSource>) -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (node(), model(), source)
            .prop_map(|(node, model, source)| Command::WantModel { node, model, source }),
        1 => (node(), model()).prop_map(|(node, model)| Command::UnwantModel { node, model }),
    ]
}
