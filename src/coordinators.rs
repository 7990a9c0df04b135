//! `mlx-serving coordinators …`, `backup`, `restore`: the group that keeps the facts, and copies of them.
//!
//! Owns the calls, the table, and where a backup is written. Refuses to overwrite a file, and a new life of the facts without a word
//! that says what is lost by it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Backup, Call, Coordinators, GroupAction, Output, Restore};
use crate::exit::{Exit, failure};
use crate::home;
use crate::table::{aligned, array, number, row, text};

const COORDINATORS: &str = "/api/v1/admin/coordinators";

pub(crate) fn run(options: &Coordinators) -> anyhow::Result<()> {
    match &options.action {
        GroupAction::Ls { call } => show(call, Method::GET, COORDINATORS, None),
        GroupAction::Promote { replica, even, call } => {
            show(call, Method::POST, &format!("{COORDINATORS}/{replica}/promote?even={even}"), None)
        }
        GroupAction::Remove { replica, even, call } => {
            show(call, Method::DELETE, &format!("{COORDINATORS}/{replica}?even={even}"), None)
        }
        GroupAction::Replace { replica, with, call } => {
            let body = json!({"with": with});
            show(call, Method::POST, &format!("{COORDINATORS}/{replica}/replace"), Some(&body))
        }
        GroupAction::Lead { replica, call } => {
            show(call, Method::POST, &format!("{COORDINATORS}/{replica}/lead"), None)
        }
        GroupAction::Alone { advertise, others_are_gone, home } => {
            if !others_are_gone {
                let words = "what the other coordinators alone know is lost, and they can never come back: if they are gone for \
                             good, say so with --others-are-gone";
                return Err(failure(Exit::Refused, words));
            }
            let folder = home::rooms(home)?.coordinator;
            let epoch = block_on(server::force(&folder, &advertised(advertise.as_deref())))?;
            told(epoch)
        }
    }
}

pub(crate) fn backup(options: &Backup) -> anyhow::Result<()> {
    let bytes = Api::of(&options.api)?.bytes("/api/v1/admin/backup")?;
    let file = &options.file;
    // It holds the cluster's secrets.
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut out = created.with_context(|| format!("writing {}", file.display()))?;
    out.write_all(&bytes)
        .and_then(|()| out.sync_all())
        .with_context(|| format!("writing {}", file.display()))?;
    if block_on(server::needs_seal_key(file))? {
        let kept = home::rooms(&options.api.home)?.coordinator.join(server::SEAL_KEY_FILE);
        needed(&kept);
    }
    line(&file.display().to_string())
}

pub(crate) fn restore(options: &Restore) -> anyhow::Result<()> {
    let folder = home::rooms(&options.home)?.coordinator;
    let epoch = block_on(server::restore(
        Path::new(&options.file),
        &folder,
        &advertised(options.advertise.as_deref()),
        options.seal_key.as_deref(),
    ))?;
    told(epoch)
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn needed(kept: &Path) {
    let kept = kept.display();
    eprintln!(
        "restoring it also needs the seal key, {kept} on each coordinator: keep a copy of it apart from the backup"
    );
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn told(epoch: u64) -> anyhow::Result<()> {
    eprintln!(
        "this is the only coordinator from now on, in epoch {epoch}; start it with `mlx-serving coordinator`, without --join. Agents and \
         coordinators that knew it at another address need --coordinator or --join with this one's"
    );
    line(&epoch.to_string())
}

fn line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new().context("starting the runtime")?.block_on(work)
}

fn advertised(address: Option<&str>) -> String {
    address.map(crate::agent::with_port).unwrap_or_default()
}

fn show(call: &Call, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<()> {
    let members = Api::of(&call.api)?.call(method, path, body)?;
    let text = match call.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&members)?),
        Output::Table => table(&members),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn table(members: &Value) -> String {
    let mut rows = vec![row(["NUMBER", "ADDRESS", "ROLE", "LACKS", "SILENT"])];
    rows.extend(array(&members["coordinators"]).map(|member| {
        let role = if member["leader"] == true { "leader".to_owned() } else { text(&member["role"]) };
        let silent =
            member["silent_ms"].as_u64().map_or_else(|| "-".to_owned(), |millis| format!("{millis} ms"));
        vec![number(&member["replica"]), text(&member["address"]), role, number(&member["lag"]), silent]
    }));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_a_line() {
        let members = json!({"coordinators": [
            {"replica": 1, "address": "mini-1:7443", "role": "voter", "leader": true, "lag": 0, "silent_ms": null},
            {"replica": 2, "address": "mini-2:7443", "role": "learner", "leader": false, "lag": 3, "silent_ms": 40},
        ]});
        let expected = "\
NUMBER  ADDRESS      ROLE     LACKS  SILENT
1       mini-1:7443  leader   0      -
2       mini-2:7443  learner  3      40 ms
";
        assert_eq!(table(&members), expected);
    }
}
