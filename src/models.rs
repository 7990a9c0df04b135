//! `mlx-serving models`: which Macs could hold and do hold each model, and how it shall be treated.
//!
//! Owns the table. Refuses to interpret: what it prints is what the API says.

use std::io::Write as _;

use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Bound, Call, Models, ModelsAction, Output, Policy};
use crate::table::{aligned, array, number, row, text};

const PATH: &str = "/api/v1/admin/models";

pub(crate) fn run(options: &Models) -> anyhow::Result<()> {
    match &options.action {
        ModelsAction::Ls { call } => {
            let list = Api::of(&call.api)?.get(PATH)?;
            print(call, &list, array(&list["models"]))
        }
        ModelsAction::Set { model, policy, call } => {
            let done =
                Api::of(&call.api)?.call(Method::PATCH, &format!("{PATH}/{model}"), Some(&change(policy)))?;
            print(call, &done, std::iter::once(&done["model"]))
        }
    }
}

/// Only what was said.
fn change(policy: &Policy) -> Value {
    let mut body = Map::new();
    let bound = |bound: Bound<u64>| match bound {
        Bound::At(most) => json!(most),
        Bound::None => Value::Null,
    };
    if policy.pin || policy.unpin {
        body.insert("pinned".to_owned(), json!(policy.pin));
    }
    body.extend(policy.min.map(|min| ("replicas_min".to_owned(), json!(min))));
    body.extend(policy.max.map(|max| ("replicas_max".to_owned(), bound(max))));
    body.extend(policy.idle.map(|idle| ("idle_unload_s".to_owned(), bound(idle))));
    Value::Object(body)
}

fn print<'a>(call: &Call, document: &Value, models: impl Iterator<Item = &'a Value>) -> anyhow::Result<()> {
    let said = match call.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(document)?),
        Output::Table => table(models),
    };
    std::io::stdout().write_all(said.as_bytes())?;
    Ok(())
}

fn table<'a>(models: impl Iterator<Item = &'a Value>) -> String {
    let mut rows = vec![row(["MODEL", "OFFERED BY", "PLACED ON", "PINNED", "REPLICAS", "UNLOADED"])];
    rows.extend(models.map(|model| {
        let most = model["replicas_max"].as_u64().map_or_else(|| "any".to_owned(), |most| most.to_string());
        let unloaded = model["idle_unload_s"].as_u64();
        vec![
            text(&model["model"]),
            names(&model["offered_by"]),
            names(&model["placed_on"]),
            if model["pinned"] == true { "yes" } else { "no" }.to_owned(),
            format!("{} to {most}", number(&model["replicas_min"])),
            unloaded.map_or_else(|| "for room".to_owned(), |idle_s| format!("after {idle_s} s idle")),
        ]
    }));
    aligned(&rows)
}

fn names(list: &Value) -> String {
    let names: Vec<&str> = array(list).filter_map(Value::as_str).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_says_where_it_is_and_how_it_is_treated() {
        let models = [
            json!({"model": "org/large", "offered_by": ["mini-06", "mini-07"], "placed_on": ["mini-07"], "pinned": true,
                   "replicas_min": 1, "replicas_max": null, "idle_unload_s": null}),
            json!({"model": "org/small", "offered_by": ["mini-06"], "placed_on": [], "pinned": false,
                   "replicas_min": 0, "replicas_max": 2, "idle_unload_s": 600}),
        ];
        let expected = "\
MODEL      OFFERED BY        PLACED ON  PINNED  REPLICAS  UNLOADED
org/large  mini-06, mini-07  mini-07    yes     1 to any  for room
org/small  mini-06           -          no      0 to 2    after 600 s idle
";
        assert_eq!(table(models.iter()), expected);
    }

    #[test]
    fn only_what_was_said_is_changed() {
        assert_eq!(change(&Policy::default()), json!({}));
        let policy = Policy {
            unpin: true,
            min: Some(0),
            max: Some(Bound::None),
            idle: Some(Bound::At(600)),
            ..Policy::default()
        };
        let expected =
            json!({"pinned": false, "replicas_min": 0, "replicas_max": null, "idle_unload_s": 600});
        assert_eq!(change(&policy), expected);
        assert_eq!(change(&Policy { pin: true, ..Policy::default() }), json!({"pinned": true}));
    }
}
