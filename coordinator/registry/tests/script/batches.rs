//! The lines about files and batches: `file`, `drop-file`, `batch`, `forget-files`.
//!
//! Owns their parsing. A piece is `a:10@1+2`: ten bytes with the digest of the word `a`, on the replicas 1 and 2.

use registry::{
    BatchChange, BatchEndpoint, BatchId, Command, Digest, Ending, FileChange, FileId, KeptAnswer, KeyId,
    Problem, Tenant,
};

use super::jobs::run;
use super::{Line, hash};

pub(super) fn about(verb: &str, line: &Line<'_>) -> Option<Command> {
    let at_unix_ms = || line.number("at");
    Some(match verb {
        "file" => Command::ChangeFile {
            file: file(line.name(0)),
            change: FileChange::Add {
                tenant: Tenant(line.number("of")),
                name: line.set("name").to_owned(),
                pieces: line.list("pieces").map(piece).collect(),
                at_unix_ms: at_unix_ms(),
                until_unix_ms: line.number("until"),
            },
        },
        "drop-file" => Command::ChangeFile { file: file(line.name(0)), change: FileChange::Drop },
        "forget-files" => Command::ForgetFiles { at_unix_ms: at_unix_ms() },
        "batch" => Command::ChangeBatch { batch: BatchId(line.name(0).to_owned()), change: change(line) },
        _ => return None,
    })
}

fn change(line: &Line<'_>) -> BatchChange {
    let at_unix_ms = || line.number("at");
    let one = |key: &str| line.settings.get(key).map(|word| piece(word));
    let of_run = || run(line.set("run"));
    match line.name(1) {
        "begin" => BatchChange::Begin {
            tenant: Tenant(line.number("of")),
            key: line.settings.get("key").map(|key| KeyId((*key).to_owned())),
            input: file(line.set("reads")),
            endpoint: endpoint(line.set("as")),
            metadata: line.list("says").map(pair).collect(),
            run: of_run(),
            at_unix_ms: at_unix_ms(),
        },
        "take" => BatchChange::Take { from: run(line.set("from")), run: of_run() },
        "open" => BatchChange::Open { run: of_run(), lines: line.number("lines"), at_unix_ms: at_unix_ms() },
        "keep" => BatchChange::Keep {
            run: of_run(),
            after: line.number("after"),
            completed: line.optional("completed").unwrap_or(0),
            failed: line.optional("failed").unwrap_or(0),
            output: one("output"),
            errors: one("errors"),
            at_unix_ms: at_unix_ms(),
        },
        "end" => BatchChange::End {
            run: of_run(),
            how: ending(line.name(2)),
            problems: line.settings.get("code").map(|code| problem(code, line)).into_iter().collect(),
            output: file(line.set("output")),
            errors: file(line.set("errors")),
            at_unix_ms: at_unix_ms(),
        },
        "cancel" => BatchChange::Cancel { at_unix_ms: at_unix_ms() },
        word => panic!("no step of a batch: {word}"),
    }
}

fn ending(word: &str) -> Ending {
    match word {
        "completed" => Ending::Completed,
        "expired" => Ending::Expired,
        "cancelled" => Ending::Cancelled,
        "failed" => Ending::Failed,
        _ => panic!("no end of a batch: {word}"),
    }
}

fn problem(code: &str, line: &Line<'_>) -> Problem {
    Problem {
        code: code.to_owned(),
        message: line.reason.to_owned(),
        line: line.optional("line"),
        param: line.settings.get("param").map(|param| (*param).to_owned()),
    }
}

fn file(word: &str) -> FileId {
    FileId(word.to_owned())
}

fn endpoint(word: &str) -> BatchEndpoint {
    match word {
        "chat" => BatchEndpoint::Chat,
        "completions" => BatchEndpoint::Completions,
        _ => panic!("no endpoint: {word}"),
    }
}

fn pair(word: &str) -> (String, String) {
    word.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap()
}

pub(super) fn piece(word: &str) -> KeptAnswer {
    let (about, holders) = word.split_once('@').unwrap();
    let (digest, bytes) = about.split_once(':').unwrap();
    let holders = holders.split('+').filter(|id| !id.is_empty());
    KeptAnswer {
        digest: Digest(hash(digest)),
        bytes: bytes.parse().unwrap(),
        holders: holders.map(|id| id.parse().unwrap()).collect(),
    }
}
