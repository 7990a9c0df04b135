//! The lines about responses: `response`.
//!
//! Owns their parsing. A response is a word, which stands for a digest.

use registry::{Command, Digest, KeyId, ResponseChange, Tenant};

use super::batches::piece;
use super::jobs::{job, run};
use super::{Line, hash};

pub(super) fn about(verb: &str, line: &Line<'_>) -> Option<Command> {
    (verb == "response")
        .then(|| Command::ChangeResponse { response: job(line.name(0)), change: change(line) })
}

fn change(line: &Line<'_>) -> ResponseChange {
    let at_unix_ms = || line.number("at");
    let (of_run, answer) = (|| run(line.set("run")), || piece(line.set("answer")));
    match line.name(1) {
        "begin" => ResponseChange::Begin {
            tenant: Tenant(line.number("of")),
            key: line.settings.get("key").map(|key| KeyId((*key).to_owned())),
            question: piece(line.set("asks")),
            run: of_run(),
            at_unix_ms: at_unix_ms(),
        },
        "keep" => ResponseChange::Keep { run: of_run(), progress: piece(line.set("progress")) },
        "store" => ResponseChange::Store {
            tenant: Tenant(line.number("of")),
            kept: answer(),
            run: of_run(),
            at_unix_ms: at_unix_ms(),
        },
        "cancel" => ResponseChange::Cancel {
            progress: line.settings.get("shown").map(|shown| Digest(hash(shown))),
            kept: answer(),
            at_unix_ms: at_unix_ms(),
        },
        "drop" => ResponseChange::Drop,
        word => panic!("nothing that happens to a response: {word}"),
    }
}
