//! Random commands about jobs: few jobs, tenants and runs, so that late words and takeovers meet.

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use registry::{Command, Digest, JobId, JobRun, KeptAnswer, Life, Tenant, limits};

fn digest() -> impl Strategy<Value = Digest> {
    (0_u8..2).prop_map(|byte| Digest([byte; 32]))
}

pub(crate) fn job() -> impl Strategy<Value = JobId> {
    digest().prop_map(JobId)
}

fn run() -> impl Strategy<Value = JobRun> {
    (1_u64..3, 0_u64..2, 0_u64..2).prop_map(|(replica, life, number)| JobRun {
        replica,
        life: Life(life),
        number,
    })
}

/// Within days, so that jobs are forgotten too.
fn at() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0_u64..4, 1 => (0_u64..4).prop_map(|days| days * limits::JOB_KEPT_MS)]
}

fn kept() -> impl Strategy<Value = Option<KeptAnswer>> {
    let kept = (digest(), 0_u64..3, btree_set(1_u64..4, 1..3));
    option::weighted(0.8, kept.prop_map(|(digest, bytes, holders)| KeptAnswer { digest, bytes, holders }))
}

/// Well formed.
pub(crate) fn jobs() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (job(), 0_u64..2, digest(), run(), at()).prop_map(|(job, tenant, request, run, at_unix_ms)| {
            Command::BeginJob { job, tenant: Tenant(tenant), request, run, at_unix_ms }
        }),
        4 => (job(), run(), run(), at())
            .prop_map(|(job, from, run, at_unix_ms)| Command::TakeJob { job, from, run, at_unix_ms }),
        4 => (job(), run(), kept(), at())
            .prop_map(|(job, run, kept, at_unix_ms)| Command::EndJob { job, run, kept, at_unix_ms }),
        2 => (job(), run()).prop_map(|(job, run)| Command::DropJob { job, run }),
        1 => at().prop_map(|at_unix_ms| Command::ForgetJobs { at_unix_ms }),
    ]
}

/// An answer that nobody has.
pub(crate) fn badly_formed() -> impl Strategy<Value = Command> {
    (job(), run(), digest()).prop_map(|(job, run, digest)| Command::EndJob {
        job,
        run,
        kept: Some(KeptAnswer { digest, bytes: 1, holders: [].into() }),
        at_unix_ms: 1,
    })
}
