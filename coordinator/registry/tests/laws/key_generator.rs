//! Random commands about API keys, and commands as administrators give them.

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use registry::{Allowance, Command, Grant, KeyId, Outcome, Scope, Used};

use crate::generator::model;

fn grant() -> impl Strategy<Value = Grant> {
    let scopes = btree_set(proptest::sample::select(Scope::ALL.to_vec()), 1..4);
    let models = option::weighted(0.3, btree_set(model(), 1..3));
    ("[ab]", scopes, models, option::of(0_u64..9), allowance()).prop_map(
        |(name, scopes, models, expires_at_unix_ms, allowance)| Grant {
            name,
            scopes,
            models,
            expires_at_unix_ms,
            allowance,
        },
    )
}

fn allowance() -> impl Strategy<Value = Allowance> {
    let bound = || option::weighted(0.2, 1_u64..3);
    (bound(), bound(), bound(), bound()).prop_map(
        |(requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_month)| Allowance {
            requests_per_minute,
            tokens_per_minute,
            concurrent_requests,
            tokens_per_month,
        },
    )
}

/// Reports of two gateways, most of them in turn, on days of two months.
pub(crate) fn usage() -> impl Strategy<Value = Command> {
    let used = (0_u64..3, 0_u64..9, 0_u64..9).prop_map(|(requests, prompt_tokens, answer_tokens)| Used {
        requests,
        prompt_tokens,
        answer_tokens,
    });
    let used = proptest::collection::btree_map(key(), used, 1..3);
    (1_u64..3, 0_u64..3, 1_u64..4, 25_u64..36, used).prop_map(|(gateway, life, sequence, day, used)| {
        Command::CountUsage { gateway, life, sequence, at_unix_ms: day * 86_400_000, used }
    })
}

/// What administrators did that is no command.
pub(crate) fn notes() -> impl Strategy<Value = Command> {
    let outcome =
        proptest::sample::select(vec![Outcome::Begun, Outcome::Done, Outcome::AlreadySo, Outcome::Refused]);
    ("local-[12]", 0_u64..3, "[ab]", outcome).prop_map(|(by, at_unix_ms, action, outcome)| Command::Note {
        by,
        at_unix_ms,
        action,
        outcome,
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
        6 => usage(),
    ]
}

/// As an administrator gives it.
pub(crate) fn audited(command: impl Strategy<Value = Command>) -> impl Strategy<Value = Command> {
    (command, "local-[12]", 0_u64..9).prop_map(|(command, by, at)| command.audited(&by, at))
}

fn bad_allowance() -> impl Strategy<Value = Allowance> {
    let bad = Some(0);
    prop_oneof![
        Just(Allowance { requests_per_minute: bad, ..Allowance::default() }),
        Just(Allowance { tokens_per_minute: bad, ..Allowance::default() }),
        Just(Allowance { concurrent_requests: bad, ..Allowance::default() }),
        Just(Allowance { tokens_per_month: Some(u64::MAX), ..Allowance::default() }),
    ]
}

/// Each with one field that breaks its rule.
pub(crate) fn badly_formed() -> impl Strategy<Value = Command> {
    let create =
        |key: KeyId, grant: Grant| Command::CreateKey { key, grant, secret_hash: [0; 32], at_unix_ms: 1 };
    prop_oneof![
        ("(|g|A|local|a/)", grant()).prop_map(move |(id, grant)| create(KeyId(id), grant)),
        (key(), grant(), "(|\n)").prop_map(move |(key, grant, name)| create(key, Grant { name, ..grant })),
        (key(), grant()).prop_map(move |(key, grant)| create(key, Grant { scopes: [].into(), ..grant })),
        (key(), grant(), bad_allowance())
            .prop_map(move |(key, grant, allowance)| create(key, Grant { allowance, ..grant })),
        (usage(), any::<bool>()).prop_map(|(mut command, nothing)| {
            if let Command::CountUsage { sequence, used, .. } = &mut command {
                if nothing { used.clear() } else { *sequence = 0 }
            }
            command
        }),
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
        notes().prop_map(|note| note.audited("local-1", 2)),
        (keys(), "(|a\n)").prop_map(|(command, action)| Command::Audited {
            by: "local-1".to_owned(),
            at_unix_ms: 1,
            action,
            command: Box::new(command),
        }),
    ]
}
