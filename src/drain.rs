//! `mlx-serving drain` and `undrain`: a Mac is emptied, and takes work again.
//!
//! Owns the words for what still keeps a Mac from being empty, and the wait. Refuses to decide what runs where: what it says follows
//! from `GET /api/v1/status`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Drain, Undrain};
use crate::exit::{Exit, failure};
use crate::table::{array, text};

const NODES: &str = "/api/v1/admin/nodes";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) fn run(options: &Drain) -> anyhow::Result<()> {
    let api = Api::of(&options.api)?;
    let done = api.call(Method::POST, &format!("{NODES}/{}/drain", options.node), None)?;
    let node = &done["node"];
    if !options.no_wait {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.context("starting the runtime")?.block_on(wait(api, node))?;
    }
    line(&text(&node["id"]))
}

pub(crate) fn end(options: &Undrain) -> anyhow::Result<()> {
    let done =
        Api::of(&options.api)?.call(Method::POST, &format!("{NODES}/{}/undrain", options.node), None)?;
    line(&text(&done["node"]["id"]))
}

/// Looks until the Mac is empty, and says what changes.
async fn wait(api: Api, node: &Value) -> anyhow::Result<()> {
    let (id, name) = (text(&node["id"]), text(&node["name"]));
    let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
    let number: u64 = number.context("the service names the Mac in a way that this release does not know")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let api = std::sync::Arc::new(api);
    let mut said = String::new();
    loop {
        let asked = std::sync::Arc::clone(&api);
        let look = tokio::task::spawn_blocking(move || asked.get("/api/v1/status"));
        let status = tokio::select! {
            status = look => status.context("asking the service")??,
            _ = interrupt.recv() => return Err(left_on(&name)),
        };
        let (words, empty) = match left(&status, number) {
            Some(words) => (format!("{name}: {words}"), false),
            None => (format!("{name} is empty: it can be updated or switched off"), true),
        };
        if words != said {
            tell(&words);
            said = words;
        }
        if empty {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = interrupt.recv() => return Err(left_on(&name)),
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn tell(words: &str) {
    eprintln!("{words}");
}

fn left_on(name: &str) -> anyhow::Error {
    let words = format!("the drain of {name} goes on; `mlx-serving undrain {name}` ends it");
    failure(Exit::Interrupted, words)
}

fn line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// What keeps the Mac from being empty.
fn left(status: &Value, number: u64) -> Option<String> {
    let node = array(&status["nodes"]).find(|node| node["node"].as_u64() == Some(number))?;
    if node["connected"] != true {
        return None;
    }
    let elsewhere: BTreeSet<&str> = array(&status["nodes"])
        .filter(|other| {
            other["node"] != node["node"] && other["connected"] == true && other["draining"] != true
        })
        .flat_map(ready)
        .collect();
    let alone: Vec<&str> = ready(node).filter(|model| !elsewhere.contains(model)).collect();
    let running = node["running"].as_u64().unwrap_or(0);
    match (running, alone.as_slice()) {
        (0, []) => None,
        (_, []) => Some(answers(running)),
        (0, models) => Some(serves(models)),
        (_, models) => Some(format!("{}; {}", answers(running), serves(models))),
    }
}

fn ready(node: &Value) -> impl Iterator<Item = &str> {
    array(&node["models"])
        .filter(|model| model["state"] == "ready")
        .filter_map(|model| model["model"].as_str())
}

fn answers(running: u64) -> String {
    if running == 1 { "1 answer still runs".to_owned() } else { format!("{running} answers still run") }
}

fn serves(models: &[&str]) -> String {
    let (models, first) = (models.join(", "), models.first().copied().unwrap_or_default());
    format!(
        "it alone holds {models}, and serves it until another Mac does (`mlx-serving explain model {first}` tells how far that is)"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Three Macs; each with what it runs, what it holds, and whether it drains.
    fn room(nodes: [(u64, &[&str], bool); 3]) -> Value {
        let node = |(at, (running, models, draining)): (usize, &(u64, &[&str], bool))| {
            let models: Vec<Value> =
                models.iter().map(|model| json!({"model": model, "state": "ready"})).collect();
            json!({"node": at + 1, "connected": true, "draining": draining, "running": running, "models": models})
        };
        json!({"nodes": nodes.iter().enumerate().map(node).collect::<Vec<_>>()})
    }

    #[test]
    fn who_runs_nothing_and_holds_nothing_alone_is_empty() {
        let status = room([(0, &["demo"], true), (3, &["demo", "qwen"], false), (0, &[], false)]);
        assert_eq!(left(&status, 1), None);
        assert_eq!(left(&status, 9), None, "who is not there is empty");
    }

    #[test]
    fn answers_that_run_are_counted() {
        let room = |running| room([(running, &["demo"], true), (0, &["demo"], false), (0, &[], false)]);
        assert_eq!(left(&room(1), 1).as_deref(), Some("1 answer still runs"));
        assert_eq!(left(&room(4), 1).as_deref(), Some("4 answers still run"));
    }

    #[test]
    fn a_model_that_no_other_mac_can_take_over_is_named() {
        let status = room([(2, &["demo", "qwen"], true), (0, &["demo"], true), (0, &["qwen"], false)]);
        let told = left(&status, 1).unwrap();
        assert!(told.starts_with("2 answers still run; it alone holds demo, and"), "{told}");
        assert!(left(&status, 2).unwrap().contains("`mlx-serving explain model demo`"));
        let mut gone = status;
        gone["nodes"][0]["connected"] = json!(false);
        assert_eq!(left(&gone, 1), None, "nothing runs where nobody is");
    }
}
