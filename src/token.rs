//! `mlx-serving token`: invitations for other Macs.
//!
//! Owns the calls to the coordinator that make, list and revoke them, and printing the one that the coordinator on this machine
//! keeps. Refuses to show a secret twice: a token that was made is printed once.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Output, Token, TokenAction, TokenRole};
use crate::exit::{Exit, failure};
use crate::home;
use crate::table::{aligned, array, number, row, text};

const PATH: &str = "/api/v1/admin/tokens";

pub(crate) fn run(options: &Token) -> anyhow::Result<()> {
    let said = match &options.action {
        TokenAction::Create { role, ttl, uses, name, api } => {
            let role = match role {
                TokenRole::Agent => "agent",
                TokenRole::Coordinator => "coordinator",
            };
            let wanted = json!({"role": role, "ttl_s": ttl, "uses": uses.0, "name": name});
            let made = Api::of(api)?.call(Method::POST, PATH, Some(&wanted))?;
            format!("{}\n", text(&made["secret"]))
        }
        TokenAction::Ls { output, api } => {
            let tokens = Api::of(api)?.get(PATH)?;
            match output {
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&tokens)?),
                Output::Table => table(&tokens, now_unix_ms()),
            }
        }
        TokenAction::Revoke { id, api } => {
            Api::of(api)?.call(Method::DELETE, &format!("{PATH}/{id}"), None)?;
            format!("nobody joins with token {id} any more\n")
        }
        TokenAction::Show { role, home } => {
            let file = match role {
                TokenRole::Agent => "join-token",
                TokenRole::Coordinator => "coordinator-join-token",
            };
            kept(&home::rooms(home)?.coordinator.join(file))?
        }
    };
    std::io::stdout().write_all(said.as_bytes())?;
    Ok(())
}

fn kept(file: &std::path::Path) -> anyhow::Result<String> {
    let made = std::fs::metadata(file).and_then(|found| found.modified()).ok();
    let age = made.and_then(|made| made.elapsed().ok());
    if age.is_some_and(|age| age > server::JOIN_TOKEN_LIFE) {
        let words = "the token that the coordinator here made at its start was good for a day, and that is over: make another one with \
                     `mlx-serving token create` (`--uses any` for any number of machines)";
        return Err(failure(Exit::NotFound, words));
    }
    match std::fs::read_to_string(file) {
        Ok(token) => Ok(format!("{}\n", token.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let words = "no coordinator has run here: start `mlx-serving coordinator` first, or name its folder with --home";
            Err(failure(Exit::NotFound, words))
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

fn table(tokens: &Value, now_unix_ms: u64) -> String {
    let mut rows = vec![row(["ID", "ROLE", "STATE", "USED", "LASTS", "FOR"])];
    for token in array(&tokens["tokens"]) {
        let uses = token["uses"].as_u64().map_or_else(|| "any".to_owned(), |uses| uses.to_string());
        rows.push(vec![
            text(&token["id"]),
            text(&token["role"]),
            text(&token["state"]),
            format!("{} of {uses}", number(&token["used"])),
            lasts(token["expires_at_unix_ms"].as_u64().unwrap_or_default(), now_unix_ms),
            text(&token["name"]),
        ]);
    }
    aligned(&rows)
}

fn lasts(until_unix_ms: u64, now_unix_ms: u64) -> String {
    let minutes = until_unix_ms.saturating_sub(now_unix_ms).div_ceil(60_000);
    match minutes {
        0 => "-".to_owned(),
        1..=120 => format!("{minutes} min"),
        121..=2_880 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1_440),
    }
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_with_what_is_left_of_them() {
        let tokens = json!({"tokens": [
            {"id": "a1", "role": "agent", "state": "live", "used": 0, "uses": 1, "expires_at_unix_ms": 3_600_000, "name": "lab"},
            {"id": "b2", "role": "coordinator", "state": "revoked", "used": 3, "uses": null, "expires_at_unix_ms": 0, "name": null},
        ]});
        let expected = "\
ID  ROLE         STATE    USED      LASTS   FOR
a1  agent        live     0 of 1    60 min  lab
b2  coordinator  revoked  3 of any  -       -
";
        assert_eq!(table(&tokens, 0), expected);
    }

    #[test]
    fn a_token_whose_day_is_over_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("join-token");
        std::fs::write(&file, "mlxc1.x\n").unwrap();
        assert_eq!(kept(&file).unwrap(), "mlxc1.x\n");
        let made = SystemTime::now() - server::JOIN_TOKEN_LIFE - std::time::Duration::from_secs(1);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(made).unwrap();
        assert!(kept(&file).unwrap_err().to_string().contains("token create"));
    }

    #[test]
    fn what_is_left_is_said_in_the_unit_that_fits() {
        let minute = 60_000;
        let said = [1, minute, 121 * minute, 49 * 60 * minute].map(|until| lasts(until, 0));
        assert_eq!(said, ["1 min", "1 min", "2 h", "2 d"]);
    }
}
