//! `mlx-serving keys …`: who may use the API.
//!
//! Owns the calls and the tables. A secret is printed once, alone on stdout, so that it can go straight to where it belongs.
//! Refuses to keep it.

use std::io::Write as _;

use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Bound, Call, Keys, KeysAction, Limits, Output, Scope};
use crate::exit::{Exit, failure};
use crate::moment;
use crate::table::{aligned, array, number, row, text};

const KEYS: &str = "/api/v1/admin/keys";

pub(crate) fn run(options: &Keys) -> anyhow::Result<()> {
    match &options.action {
        KeysAction::Create { name, scopes, models, expires, limits, call } => {
            let mut body = json!({"name": name, "scopes": names(scopes), "expires_in_s": expires});
            body["limits"] = Value::Object(bounds(limits));
            if !models.is_empty() {
                body["models"] = json!(models);
            }
            print_secret(&call.call(Method::POST, KEYS, Some(&body))?, call.output)
        }
        KeysAction::Limit { id, limits, call } => {
            let bounds = bounds(limits);
            if bounds.is_empty() {
                return Err(failure(Exit::Usage, "say which bound: see `mlx-serving keys limit --help`"));
            }
            let key = call.call(Method::PATCH, &path(id)?, Some(&json!({"limits": bounds})))?;
            print(&key, call.output, |key| details(&key["key"]))
        }
        KeysAction::Ls { call } => {
            let keys = call.call(Method::GET, KEYS, None)?;
            let rows = array(&keys["keys"]);
            print(&keys, call.output, |_| table(rows))
        }
        KeysAction::Show { id, call } => {
            let key = call.call(Method::GET, &path(id)?, None)?;
            print(&key, call.output, |key| details(&key["key"]))
        }
        KeysAction::Change { id, name, scopes, models, any_model, expires, never_expires, call } => {
            let changes = Changes { name: name.as_deref(), scopes, models, any_model: *any_model };
            let body = changes.body(*expires, *never_expires);
            if body.is_empty() {
                return Err(failure(
                    Exit::Usage,
                    "say what shall be other: see `mlx-serving keys change --help`",
                ));
            }
            let key = call.call(Method::PATCH, &path(id)?, Some(&Value::Object(body)))?;
            print(&key, call.output, |key| details(&key["key"]))
        }
        KeysAction::Rotate { id, finish: false, call } => {
            print_secret(&call.call(Method::POST, &format!("{}/secrets", path(id)?), None)?, call.output)
        }
        KeysAction::Rotate { id, finish: true, call } => {
            let key = finish(call, id)?;
            print(&key, call.output, |key| details(&key["key"]))
        }
        KeysAction::Revoke { id, call } => {
            let key = call.call(Method::DELETE, &path(id)?, None)?;
            print(&key, call.output, |key| details(&key["key"]))
        }
    }
}

impl Call {
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        Api::of(&self.api)?.call(method, path, body)
    }
}

/// What was given of a change.
struct Changes<'a> {
    name: Option<&'a str>,
    scopes: &'a [Scope],
    models: &'a [String],
    any_model: bool,
}

impl Changes<'_> {
    fn body(&self, expires: Option<u64>, never_expires: bool) -> Map<String, Value> {
        let name = self.name.map(|name| ("name", json!(name)));
        let scopes = (!self.scopes.is_empty()).then(|| ("scopes", json!(names(self.scopes))));
        let listed = (!self.models.is_empty()).then(|| ("models", json!(self.models)));
        let models = listed.or_else(|| self.any_model.then_some(("models", Value::Null)));
        let after_s = expires.map(|after_s| ("expires_in_s", json!(after_s)));
        let expiry = after_s.or_else(|| never_expires.then_some(("expires_in_s", Value::Null)));
        let said = [name, scopes, models, expiry];
        said.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Those that were given; `null` takes one away.
fn bounds(limits: &Limits) -> Map<String, Value> {
    let Limits { rpm, tpm, concurrency, tokens_per_month } = limits;
    [("rpm", rpm), ("tpm", tpm), ("concurrency", concurrency), ("tokens_per_month", tokens_per_month)]
        .into_iter()
        .filter_map(|(name, bound)| Some((name.to_owned(), value((*bound)?))))
        .collect()
}

fn value(bound: Bound<u64>) -> Value {
    match bound {
        Bound::At(most) => json!(most),
        Bound::None => Value::Null,
    }
}

/// Ends the older secret. Only of two: the last one ends with its key.
fn finish(call: &Call, id: &str) -> anyhow::Result<Value> {
    let key = call.call(Method::GET, &path(id)?, None)?;
    let secrets: Vec<_> =
        array(&key["key"]["secrets"]).filter_map(|secret| secret["number"].as_u64()).collect();
    match (secrets.iter().min(), secrets.len()) {
        (Some(older), 2..) => call.call(Method::DELETE, &format!("{}/secrets/{older}", path(id)?), None),
        _ => {
            let words =
                format!("key {id} has no second secret: make one with `mlx-serving keys rotate {id}`");
            Err(failure(Exit::Refused, words))
        }
    }
}

fn names(scopes: &[Scope]) -> Vec<&'static str> {
    scopes.iter().map(|scope| scope.name()).collect()
}

/// An id is hex, so anything else names no key, and least of all another path.
fn path(id: &str) -> anyhow::Result<String> {
    let hex = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex {
        return Ok(format!("{KEYS}/{id}"));
    }
    Err(failure(Exit::NotFound, "a key goes by its id, twelve digits of hex: see `mlx-serving keys ls`"))
}

fn print(document: &Value, output: Output, words: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
    let text = match output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(document)?),
        Output::Table => words(document),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn print_secret(document: &Value, output: Output) -> anyhow::Result<()> {
    print(document, output, |document| format!("{}\n", text(&document["secret"])))?;
    if output == Output::Table {
        let key = &document["key"];
        eprintln!("key {} for {}; it is not shown again", text(&key["id"]), text(&key["name"]));
    }
    Ok(())
}

fn table<'a>(keys: impl Iterator<Item = &'a Value>) -> String {
    let mut rows = vec![row([
        "ID",
        "NAME",
        "STATE",
        "SCOPES",
        "MODELS",
        "EXPIRES",
        "SECRETS",
        "LIMITS",
        "TODAY",
        "THIS MONTH",
    ])];
    rows.extend(keys.map(cells));
    if rows.len() == 1 {
        return "no keys: make one with `mlx-serving keys create`; from then on every caller needs one\n"
            .to_owned();
    }
    aligned(&rows)
}

fn cells(key: &Value) -> Vec<String> {
    let scopes: Vec<_> = array(&key["scopes"]).map(text).collect();
    let models: Vec<_> = array(&key["models"]).map(text).collect();
    vec![
        text(&key["id"]),
        text(&key["name"]),
        text(&key["state"]),
        scopes.join(","),
        if key["models"].is_array() { models.join(",") } else { "all".to_owned() },
        key["expires_at_unix_ms"].as_u64().map_or_else(|| "never".to_owned(), moment::utc),
        array(&key["secrets"]).count().to_string(),
        limits(&key["limits"]),
        tokens(&key["usage"]["today"]),
        tokens(&key["usage"]["this_month"]),
    ]
}

fn limits(limits: &Value) -> String {
    let words = [("rpm", "rpm"), ("tpm", "tpm"), ("concurrency", "at once"), ("tokens_per_month", "a month")];
    let said = words.iter().filter_map(|(name, words)| Some(format!("{} {words}", limits[name].as_u64()?)));
    let said: Vec<_> = said.collect();
    if said.is_empty() { "none".to_owned() } else { said.join(", ") }
}

/// Tokens of both kinds.
fn tokens(used: &Value) -> String {
    let count = |kind: &str| used[kind].as_u64().unwrap_or_default();
    count("prompt_tokens").saturating_add(count("answer_tokens")).to_string()
}

fn details(key: &Value) -> String {
    let mut out = table(std::iter::once(key));
    for secret in array(&key["secrets"]) {
        let made = secret["made_at_unix_ms"].as_u64().map_or_else(|| "-".to_owned(), moment::utc);
        out.push_str(&format!("secret {} made {made}\n", number(&secret["number"])));
    }
    if let Some(at) = key["revoked_at_unix_ms"].as_u64() {
        out.push_str(&format!("revoked {}\n", moment::utc(at)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(revoked_at: &Value) -> Value {
        json!({"id": "0a1b", "name": "ci", "state": "live", "scopes": ["inference", "read"], "models": ["demo"],
               "expires_at_unix_ms": 1_800_000_000_000_u64, "revoked_at_unix_ms": revoked_at,
               "secrets": [{"number": 2, "made_at_unix_ms": 1_700_000_000_000_u64}],
               "limits": {"rpm": 60, "tpm": null, "concurrency": 4, "tokens_per_month": null},
               "usage": {"today": {"requests": 1, "prompt_tokens": 5, "answer_tokens": 2},
                         "this_month": {"requests": 2, "prompt_tokens": 8, "answer_tokens": 4}}})
    }

    #[test]
    fn each_key_has_a_line() {
        let bare = json!({"id": "0c", "name": "ops", "state": "revoked", "scopes": ["admin"], "models": null,
                          "expires_at_unix_ms": null, "secrets": []});
        let expected = "\
ID    NAME  STATE    SCOPES          MODELS  EXPIRES              SECRETS  LIMITS             TODAY  THIS MONTH
0a1b  ci    live     inference,read  demo    2027-01-15 08:00:00  1        60 rpm, 4 at once  7      12
0c    ops   revoked  admin           all     never                0        none               0      0
";
        assert_eq!(table([&key(&Value::Null), &bare].into_iter()), expected);
        assert!(table(std::iter::empty()).contains("keys create"));
    }

    #[test]
    fn a_key_is_shown_with_its_secrets_numbers_and_its_end() {
        let shown = details(&key(&json!(1_750_000_000_000_u64)));
        assert!(
            shown.ends_with("secret 2 made 2023-11-14 22:13:20\nrevoked 2025-06-15 15:06:40\n"),
            "{shown}"
        );
    }

    #[test]
    fn a_change_says_only_what_was_given() {
        let nothing = Changes { name: None, scopes: &[], models: &[], any_model: false };
        assert!(nothing.body(None, false).is_empty());
        let (scopes, models) = ([Scope::Read], ["demo".to_owned()]);
        let all = Changes { name: Some("ci"), scopes: &scopes, models: &models, any_model: false };
        let expected = json!({"name": "ci", "scopes": ["read"], "models": ["demo"], "expires_in_s": 60});
        assert_eq!(Value::Object(all.body(Some(60), false)), expected);
        let free = Changes { any_model: true, ..nothing };
        assert_eq!(Value::Object(free.body(None, true)), json!({"models": null, "expires_in_s": null}));
    }

    #[test]
    fn only_the_bounds_that_were_given_are_changed() {
        let given = Limits { rpm: Some(Bound::At(60)), tpm: Some(Bound::None), ..Limits::default() };
        assert_eq!(Value::Object(bounds(&given)), json!({"rpm": 60, "tpm": null}));
        assert!(bounds(&Limits::default()).is_empty());
    }

    #[test]
    fn no_id_leads_to_another_path() {
        assert_eq!(path("0a1b").expect("an id"), "/api/v1/admin/keys/0a1b");
        for id in ["", "../audit", "0a/secrets", "0a?x", "mlx_0a_00"] {
            assert!(path(id).is_err(), "{id}");
        }
    }
}
