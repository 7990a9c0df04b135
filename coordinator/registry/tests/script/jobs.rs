//! The lines about jobs: `begin`, `take`, `end`, `drop-job`, `forget-jobs`.
//!
//! Owns their parsing. A job, a request and an answer are each a word, which stands for a digest; a run is `1.a.7`: the seventh
//! of the life `a` of replica 1.

use registry::{Command, Digest, JobId, JobRun, KeptAnswer, Life, Tenant};

use super::{Line, hash};

pub(super) fn about(verb: &str, line: &Line<'_>) -> Option<Command> {
    let job = || job(line.name(0));
    let at_unix_ms = || line.number("at");
    Some(match verb {
        "begin" => Command::BeginJob {
            job: job(),
            tenant: Tenant(line.number("of")),
            request: Digest(hash(line.set("asks"))),
            run: run(line.set("run")),
            at_unix_ms: at_unix_ms(),
        },
        "take" => Command::TakeJob {
            job: job(),
            from: run(line.set("from")),
            run: run(line.set("run")),
            at_unix_ms: at_unix_ms(),
        },
        "end" => Command::EndJob {
            job: job(),
            run: run(line.set("run")),
            kept: line.settings.get("answer").map(|answer| KeptAnswer {
                digest: Digest(hash(answer)),
                bytes: line.number("bytes"),
                holders: line.list("on").map(|id| id.parse().unwrap()).collect(),
            }),
            at_unix_ms: at_unix_ms(),
        },
        "drop-job" => Command::DropJob { job: job(), run: run(line.set("run")) },
        "forget-jobs" => Command::ForgetJobs { at_unix_ms: at_unix_ms() },
        _ => return None,
    })
}

pub(crate) fn job(word: &str) -> JobId {
    JobId(Digest(hash(word)))
}

pub(super) fn run(word: &str) -> JobRun {
    let mut parts = word.split('.');
    let (replica, life, number) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    JobRun {
        replica: replica.parse().unwrap(),
        life: Life(u64::from_str_radix(life, 16).unwrap()),
        number: number.parse().unwrap(),
    }
}
