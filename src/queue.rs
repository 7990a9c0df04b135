//! `mlx-serving queue`: who waits, for what, and how long still.
//!
//! Owns the table. Refuses to interpret: what it prints is what `GET /api/v1/queue` says.

use std::io::Write as _;

use serde_json::Value;

use crate::api::Api;
use crate::cli::{Output, Queue};
use crate::table::{aligned, array, number, row, text};

pub(crate) fn run(options: &Queue) -> anyhow::Result<()> {
    let queue = Api::of(&options.api)?.get("/api/v1/queue")?;
    let text = match options.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&queue)?),
        Output::Table => table(&queue),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn table(queue: &Value) -> String {
    let counts = queue["by_model"].as_object();
    let mut models = vec![row(["MODEL", "RUNNING", "WAITING"])];
    for (model, count) in counts.into_iter().flatten() {
        models.push(vec![model.clone(), number(&count["running"]), number(&count["waiting"])]);
    }
    let mut waiting = vec![row(["POSITION", "REQUEST", "MODEL", "CLASS", "TENANT", "WAITED", "START"])];
    for request in array(&queue["waiting"]) {
        waiting.push(vec![
            number(&request["position"]),
            number(&request["request"]),
            text(&request["model"]),
            text(&request["class"]),
            number(&request["tenant"]),
            seconds(&request["waited_s"]).unwrap_or_else(|| "-".to_owned()),
            start(request),
        ]);
    }
    let tables = [models, waiting].into_iter().filter(|rows| rows.len() > 1);
    tables.fold(headline(queue), |out, rows| format!("{out}\n{}", aligned(&rows)))
}

fn headline(queue: &Value) -> String {
    let of_models = queue["by_model"].as_object().into_iter().flatten();
    let waiting: u64 = of_models.filter_map(|(_, count)| count["waiting"].as_u64()).sum();
    let line = match waiting {
        0 => "nothing waits".to_owned(),
        waiting => format!("{waiting} waiting"),
    };
    match seconds(&queue["seconds_of_work"]) {
        Some(work) => format!("{line}, about {work} of work\n"),
        None => format!("{line}\n"),
    }
}

fn start(request: &Value) -> String {
    let loading = if request["loading"] == true { "loading the model, " } else { "" };
    match seconds(&request["eta_s"]) {
        Some(eta) => format!("{loading}in about {eta}"),
        None => format!("{loading}not in sight"),
    }
}

/// Whole seconds, rounded up: no estimate is better than that.
fn seconds(value: &Value) -> Option<String> {
    value.as_f64().map(|seconds| format!("{:.0} s", seconds.ceil()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn waiting(position: u64, eta_s: &Value, loading: bool) -> Value {
        json!({"request": 40 + position, "model": "demo", "tenant": 3, "class": "interactive", "position": position,
               "eta_s": eta_s, "waited_s": 12.2, "loading": loading})
    }

    #[test]
    fn each_who_waits_has_a_line() {
        let queue = json!({
            "by_model": {"demo": {"running": 2, "waiting": 3}}, "seconds_of_work": 40.5,
            "waiting": [waiting(1, &json!(4.1), false), waiting(2, &json!(30), true), waiting(3, &json!(null), false)],
        });
        let expected = "\
3 waiting, about 41 s of work

MODEL  RUNNING  WAITING
demo   2        3

POSITION  REQUEST  MODEL  CLASS        TENANT  WAITED  START
1         41       demo   interactive  3       13 s    in about 5 s
2         42       demo   interactive  3       13 s    loading the model, in about 30 s
3         43       demo   interactive  3       13 s    not in sight
";
        assert_eq!(table(&queue), expected);
    }

    #[test]
    fn an_empty_queue_is_one_line() {
        assert_eq!(
            table(&json!({"by_model": {}, "waiting": [], "seconds_of_work": null})),
            "nothing waits\n"
        );
    }
}
