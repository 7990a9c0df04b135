//! Random commands about files and batches: few of each, so that late steps and takeovers meet.

use std::collections::BTreeMap;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use registry::{
    BatchChange, BatchEndpoint, BatchId, Command, Digest, Ending, FileChange, FileId, JobRun, KeptAnswer,
    Life, Problem, Tenant, limits,
};

fn file() -> impl Strategy<Value = FileId> {
    "f[0-3]".prop_map(FileId)
}

fn batch() -> impl Strategy<Value = BatchId> {
    "b[01]".prop_map(BatchId)
}

fn run() -> impl Strategy<Value = JobRun> {
    (1_u64..3).prop_map(|replica| JobRun { replica, life: Life(1), number: 1 })
}

fn tenant() -> impl Strategy<Value = Tenant> {
    prop_oneof![4 => Just(1), 1 => Just(2)].prop_map(Tenant)
}

/// Within weeks, so that files are forgotten too.
fn at() -> impl Strategy<Value = u64> {
    prop_oneof![5 => 0_u64..4, 1 => (0_u64..3).prop_map(|months| months * limits::FILE_KEPT_MS)]
}

fn piece() -> impl Strategy<Value = KeptAnswer> {
    (0_u8..3, 0_u64..3, btree_set(1_u64..4, 1..3)).prop_map(|(digest, bytes, holders)| KeptAnswer {
        digest: Digest([digest; 32]),
        bytes,
        holders,
    })
}

fn added() -> impl Strategy<Value = FileChange> {
    (tenant(), "[ab]", vec(piece(), 1..3), at(), 1_u64..9).prop_map(
        |(tenant, name, pieces, at_unix_ms, life)| FileChange::Add {
            tenant,
            name,
            pieces,
            at_unix_ms,
            until_unix_ms: at_unix_ms + life,
        },
    )
}

fn begun() -> impl Strategy<Value = BatchChange> {
    let endpoint = prop_oneof![Just(BatchEndpoint::Chat), Just(BatchEndpoint::Completions)];
    (tenant(), file(), endpoint, run(), 0_u64..4).prop_map(|(tenant, input, endpoint, run, at_unix_ms)| {
        let (key, metadata) = (None, BTreeMap::new());
        BatchChange::Begin { tenant, key, input, endpoint, metadata, run, at_unix_ms }
    })
}

fn kept() -> impl Strategy<Value = BatchChange> {
    let answered = prop_oneof![Just((1, 0)), Just((0, 1)), Just((1, 1))];
    (run(), 0_u64..3, answered, piece(), piece(), at()).prop_map(
        |(run, after, (completed, failed), output, errors, at_unix_ms)| BatchChange::Keep {
            run,
            after,
            completed,
            failed,
            output: (completed > 0).then_some(output),
            errors: (failed > 0).then_some(errors),
            at_unix_ms,
        },
    )
}

fn ended() -> impl Strategy<Value = BatchChange> {
    let problem = Problem { code: "c".to_owned(), message: "m".to_owned(), line: Some(1), param: None };
    let how = prop_oneof![
        4 => Just(Ending::Completed),
        1 => Just(Ending::Expired),
        1 => Just(Ending::Cancelled),
        1 => Just(Ending::Failed),
    ];
    (run(), how, file(), file(), at()).prop_map(move |(run, how, output, errors, at_unix_ms)| {
        let problems = if how == Ending::Failed { vec![problem.clone()] } else { Vec::new() };
        BatchChange::End { run, how, problems, output, errors, at_unix_ms }
    })
}

fn step() -> impl Strategy<Value = BatchChange> {
    prop_oneof![
        4 => begun(),
        2 => (run(), run()).prop_map(|(from, run)| BatchChange::Take { from, run }),
        3 => (run(), 1_u64..3, at())
            .prop_map(|(run, lines, at_unix_ms)| BatchChange::Open { run, lines, at_unix_ms }),
        5 => kept(),
        3 => ended(),
        1 => option::of(at()).prop_map(|at| BatchChange::Cancel { at_unix_ms: at.unwrap_or(1) }),
    ]
}

/// Well formed.
pub(crate) fn batches() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (file(), added()).prop_map(|(file, change)| Command::ChangeFile { file, change }),
        1 => file().prop_map(|file| Command::ChangeFile { file, change: FileChange::Drop }),
        9 => (batch(), step()).prop_map(|(batch, change)| Command::ChangeBatch { batch, change }),
        1 => at().prop_map(|at_unix_ms| Command::ForgetFiles { at_unix_ms }),
    ]
}

/// Each with one field that breaks its rule.
pub(crate) fn badly_formed() -> impl Strategy<Value = Command> {
    prop_oneof![
        added().prop_map(|change| Command::ChangeFile { file: FileId("a/b".to_owned()), change }),
        (batch(), run()).prop_map(|(batch, run)| Command::ChangeBatch {
            batch,
            change: BatchChange::Open { run, lines: 0, at_unix_ms: 1 },
        }),
        (batch(), kept()).prop_map(|(batch, mut change)| {
            if let BatchChange::Keep { completed, failed, .. } = &mut change {
                (*completed, *failed) = (0, 0);
            }
            Command::ChangeBatch { batch, change }
        }),
    ]
}
