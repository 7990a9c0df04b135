//! `mlx-serving status`: nodes, models, queue.
//!
//! Owns the table. Refuses to interpret: what it prints is what `GET /api/v1/status` says.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

use crate::api::Api;
use crate::cli::{Output, Status};
use crate::exit::{Exit, failure};
use crate::table::{aligned, array, number, row, text};

pub(crate) fn run(options: &Status) -> anyhow::Result<()> {
    let status = Api::of(&options.api)?.get("/api/v1/status")?;
    let text = match options.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&status)?),
        Output::Table => table(&status),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    match degraded(&status) {
        Some(why) => Err(failure(Exit::Degraded, why)),
        None => Ok(()),
    }
}

fn table(status: &Value) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "cluster {}  version {}  cluster version {}",
        text(&status["cluster"]),
        text(&status["version"]),
        number(&status["cluster_version"])
    );
    if let Some(differing) = differing(status) {
        let _ = writeln!(out, "coordinators: {differing}");
    }
    let mut models = vec![row(["MODEL", "NODES", "STATE", "PARAMETERS", "CONTEXT", "RUNNING", "WAITING"])];
    for model in array(&status["models"]) {
        models.push(vec![
            text(&model["model"]),
            number(&model["nodes_ready"]),
            text(&model["status"]),
            human(model["parameters"].as_f64().unwrap_or(0.0), 1_000.0, ["", "k", "M", "B", "T"]),
            number(&model["context_length"]),
            number(&model["running"]),
            number(&model["waiting"]),
        ]);
    }
    let mut nodes = vec![row(["NODE", "NAME", "STATE", "MACHINE", "MEMORY", "GPU BUDGET", "RUNNING"])];
    for node in array(&status["nodes"]) {
        nodes.push(vec![
            number(&node["node"]),
            text(&node["name"]),
            state(node).to_owned(),
            text(&node["chip"]),
            bytes(&node["memory_bytes"]),
            bytes(&node["gpu_budget_bytes"]),
            number(&node["running"]),
        ]);
    }
    for rows in [models, nodes] {
        out.push('\n');
        out.push_str(&aligned(&rows));
    }
    out
}

/// What each coordinator speaks, where one does not speak the cluster's version or does not answer.
fn differing(status: &Value) -> Option<String> {
    let version = &status["cluster_version"];
    let word = |member: &Value| {
        let what = match member["speaks"].as_u64() {
            Some(speaks) => format!("speaks {speaks}"),
            None => "silent".to_owned(),
        };
        format!("{} {what}", number(&member["coordinator"]))
    };
    array(&status["coordinators"]).find(|member| member["speaks"] != *version)?;
    Some(array(&status["coordinators"]).map(word).collect::<Vec<_>>().join(", "))
}

fn state(node: &Value) -> &'static str {
    match (node["connected"] == true, node["draining"] == true) {
        (true, false) => "connected",
        (true, true) => "draining",
        (false, _) if node["last_seen_s"].is_null() => "not seen yet",
        (false, _) => "lost",
    }
}

/// Something that should serve does not.
fn degraded(status: &Value) -> Option<String> {
    if let Some(trouble) = status["coordinator"]["trouble"].as_str() {
        return Some(format!("the coordinator is in trouble: {trouble}"));
    }
    if !status["coordinator"]["led_by"].is_u64() {
        return Some(
            "no coordinator leads: a majority of them is not there; `coordinators ls` shows whom it misses"
                .to_owned(),
        );
    }
    let silent = array(&status["models"]).find(|model| model["nodes_ready"].as_u64() == Some(0))?;
    let (name, why) = (silent["model"].as_str().unwrap_or("?"), silent["status"].as_str().unwrap_or("?"));
    Some(format!("model {name} is not ready: {why}"))
}

fn bytes(value: &Value) -> String {
    human(value.as_f64().unwrap_or(0.0), 1_024.0, ["B", "KiB", "MiB", "GiB", "TiB"])
}

fn human(mut value: f64, step: f64, units: [&str; 5]) -> String {
    if value <= 0.0 {
        return "-".to_owned();
    }
    let mut unit = units[0];
    for next in &units[1..] {
        if value < step {
            break;
        }
        value /= step;
        unit = next;
    }
    let space = if unit.len() > 1 { " " } else { "" };
    if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}{space}{unit}")
    } else {
        format!("{value:.1}{space}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample(nodes_ready: u64) -> Value {
        json!({
            "cluster": "c0ffee", "version": "0.1.0", "cluster_version": 2,
            "coordinators": [{"coordinator": 1, "speaks": 2}, {"coordinator": 2, "speaks": 2}], "coordinator": {"leader": false, "led_by": 2, "trouble": null},
            "models": [{"model": "demo", "nodes_ready": nodes_ready, "status": "loading", "parameters": 950_000,
                        "context_length": 32768, "running": 1, "waiting": 2}],
            "nodes": [{"node": 1, "name": "mini-07", "connected": true, "chip": "Apple M4", "memory_bytes": 17_179_869_184_u64,
                       "gpu_budget_bytes": 11_453_246_122_u64, "running": 1}],
        })
    }

    #[test]
    fn the_table_shows_models_and_nodes() {
        let shown = table(&sample(1));
        for part in ["MODEL", "demo", "950k", "32768", "mini-07", "Apple M4", "16 GiB", "10.7 GiB"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

    #[test]
    fn what_coordinators_speak_is_shown_where_it_is_not_the_clusters_version() {
        let mut status = sample(1);
        let shown = table(&status);
        assert!(shown.starts_with("cluster c0ffee  version 0.1.0  cluster version 2\n\n"), "{shown}");
        status["cluster_version"] = json!(1);
        status["coordinators"][1]["speaks"] = Value::Null;
        assert!(table(&status).contains("\ncoordinators: 1 speaks 2, 2 silent\n"));
    }

    #[test]
    fn a_cluster_that_nobody_leads_is_degraded_and_one_that_another_leads_is_not() {
        let mut status = sample(1);
        status["coordinator"]["led_by"] = Value::Null;
        assert!(degraded(&status).unwrap().starts_with("no coordinator leads"));
        status["coordinator"]["trouble"] = json!("storage_full: the disk is almost full");
        assert!(degraded(&status).unwrap().contains("storage_full"));
    }

    #[test]
    fn a_node_says_what_has_become_of_it() {
        let node = |connected: bool, draining: bool, seen: Option<f64>| json!({"connected": connected, "draining": draining, "last_seen_s": seen});
        let told = [
            (true, false, Some(1.0)),
            (true, true, Some(1.0)),
            (false, true, Some(9.0)),
            (false, false, None),
        ];
        let told = told.map(|(connected, draining, seen)| state(&node(connected, draining, seen)));
        assert_eq!(told, ["connected", "draining", "lost", "not seen yet"]);
    }

    #[test]
    fn a_model_without_a_node_is_degraded_and_says_why() {
        assert_eq!(degraded(&sample(1)), None);
        assert_eq!(degraded(&sample(0)), Some("model demo is not ready: loading".to_owned()));
    }
}
