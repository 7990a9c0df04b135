//! Random commands about API keys, and commands as administrators give them.

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use registry::{Command, Grant, KeyId, Scope};

use crate::generator::model;

fn grant() -> impl Strategy<Value = Grant> {
    let scopes = btree_set(proptest::sample::select(Scope::ALL.to_vec()), 1..4);
    let models = option::weighted(0.3, btree_set(model(), 1..3));
    ("[ab]", scopes, models, option::of(0_u64..9)).prop_map(|(name, scopes, models, expires_at_unix_ms)| {
        Grant { name, scopes, models, expires_at_unix_ms }
    })
}

fn key() -> impl Strategy<Value = KeyId> {
    "[0-2]".prop_map(KeyId)
}

fn hash() -> impl Strategy<Value = [u8; 32]> {
    (0_u8..3).prop_map(|byte| [byte; 32])
}

/// Well formed.
pub(crate) fn keys() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (key(), grant(), hash(), 0_u64..3).prop_map(|(key, grant, secret_hash, at_unix_ms)| {
            Command::CreateKey { key, grant, secret_hash, at_unix_ms }
        }),
        3 => (key(), 0_u64..4, grant())
            .prop_map(|(key, revision, grant)| Command::ChangeKey { key, revision, grant }),
        4 => (key(), 0_u32..5, hash(), 0_u64..3).prop_map(|(key, number, secret_hash, at_unix_ms)| {
            Command::AddKeySecret { key, number, secret_hash, at_unix_ms }
        }),
        3 => (key(), 0_u32..5).prop_map(|(key, number)| Command::DropKeySecret { key, number }),
        1 => (key(), 0_u64..9).prop_map(|(key, at_unix_ms)| Command::RevokeKey { key, at_unix_ms }),
    ]
}

/// As an administrator gives it.
pub(crate) fn audited(command: impl Strategy<Value = Command>) -> impl Strategy<Value = Command> {
    (command, "local-[12]", 0_u64..9).prop_map(|(command, by, at)| command.audited(&by, at))
}

/// Each with one field that breaks its rule.
pub(crate) fn badly_formed() -> impl Strategy<Value = Command> {
    let create =
        |key: KeyId, grant: Grant| Command::CreateKey { key, grant, secret_hash: [0; 32], at_unix_ms: 1 };
    prop_oneof![
        ("(|g|A|local|a/)", grant()).prop_map(move |(id, grant)| create(KeyId(id), grant)),
        (key(), grant(), "(|\n)").prop_map(move |(key, grant, name)| create(key, Grant { name, ..grant })),
        (key(), grant()).prop_map(move |(key, grant)| create(key, Grant { scopes: [].into(), ..grant })),
        (key(), grant(), 0_u64..3).prop_map(|(key, grant, revision)| Command::ChangeKey {
            key,
            revision,
            grant: Grant { models: Some([].into()), ..grant },
        }),
    ]
}

/// Each with one field of the audit trail that breaks its rule.
pub(crate) fn badly_audited() -> impl Strategy<Value = Command> {
    prop_oneof![
        (keys(), "(|a b|\n)").prop_map(|(command, by)| command.audited(&by, 1)),
        keys().prop_map(|command| command.audited("local-1", 1).audited("local-1", 2)),
        (keys(), "(|a\n)").prop_map(|(command, action)| Command::Audited {
            by: "local-1".to_owned(),
            at_unix_ms: 1,
            action,
            command: Box::new(command),
        }),
    ]
}
