//! Random commands about responses: few of them and few steps, so that late words, takeovers and cancellations meet.

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use registry::{Command, Digest, JobId, JobRun, KeptAnswer, KeyId, Life, ResponseChange, Tenant, limits};

fn digest() -> impl Strategy<Value = Digest> {
    (3_u8..5).prop_map(|byte| Digest([byte; 32]))
}

fn run() -> impl Strategy<Value = JobRun> {
    (1_u64..3).prop_map(|replica| JobRun { replica, life: Life(1), number: 1 })
}

/// Within days, so that they are forgotten too.
fn at() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..4, 1 => (0_u64..3).prop_map(|days| days * limits::JOB_KEPT_MS)]
}

fn kept() -> impl Strategy<Value = KeptAnswer> {
    (digest(), 0_u64..2, btree_set(1_u64..4, 1..3)).prop_map(|(digest, bytes, holders)| KeptAnswer {
        digest,
        bytes,
        holders,
    })
}

fn tenant() -> impl Strategy<Value = Tenant> {
    (0_u64..2).prop_map(Tenant)
}

fn change() -> impl Strategy<Value = ResponseChange> {
    let key = option::of(Just(KeyId("0a".to_owned())));
    prop_oneof![
        3 => (tenant(), key, kept(), run(), at()).prop_map(|(tenant, key, question, run, at_unix_ms)| {
            ResponseChange::Begin { tenant, key, question, run, at_unix_ms }
        }),
        4 => (run(), kept()).prop_map(|(run, progress)| ResponseChange::Keep { run, progress }),
        1 => (tenant(), kept(), run(), at())
            .prop_map(|(tenant, kept, run, at_unix_ms)| ResponseChange::Store { tenant, kept, run, at_unix_ms }),
        2 => (option::of(digest()), kept(), at())
            .prop_map(|(progress, kept, at_unix_ms)| ResponseChange::Cancel { progress, kept, at_unix_ms }),
        1 => Just(ResponseChange::Drop),
    ]
}

/// Well formed, with what happens to every job among them.
pub(crate) fn responses() -> impl Strategy<Value = Command> {
    let id = || digest().prop_map(JobId);
    prop_oneof![
        8 => (id(), change()).prop_map(|(response, change)| Command::ChangeResponse { response, change }),
        2 => (id(), run(), run(), at())
            .prop_map(|(job, from, run, at_unix_ms)| Command::TakeJob { job, from, run, at_unix_ms }),
        1 => (id(), run(), option::of(kept()), at())
            .prop_map(|(job, run, kept, at_unix_ms)| Command::EndJob { job, run, kept, at_unix_ms }),
    ]
}

/// What nobody has.
pub(crate) fn badly_formed() -> impl Strategy<Value = Command> {
    (digest(), digest(), run()).prop_map(|(response, digest, run)| Command::ChangeResponse {
        response: JobId(response),
        change: ResponseChange::Keep { run, progress: KeptAnswer { digest, bytes: 1, holders: [].into() } },
    })
}
