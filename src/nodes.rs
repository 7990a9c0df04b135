//! `mlx-serving nodes`: who belongs to the cluster.
//!
//! Owns the table, and saying what a revocation leaves open. Refuses to interpret: what it prints is what the API says.

use std::io::Write as _;

use serde_json::Value;
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Nodes, NodesAction, Output};
use crate::table::{aligned, array, row, text};

const PATH: &str = "/api/v1/admin/nodes";

pub(crate) fn run(options: &Nodes) -> anyhow::Result<()> {
    let said = match &options.action {
        NodesAction::Ls { output, api } => {
            let nodes = Api::of(api)?.get(PATH)?;
            match output {
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&nodes)?),
                Output::Table => table(&nodes),
            }
        }
        NodesAction::Revoke { node, api } => {
            let done = Api::of(api)?.call(Method::DELETE, &format!("{PATH}/{node}"), None)?;
            revoked(&done)
        }
    };
    std::io::stdout().write_all(said.as_bytes())?;
    Ok(())
}

fn table(nodes: &Value) -> String {
    let mut rows = vec![row(["ID", "NAME", "STATE", "TOKEN"])];
    for node in array(&nodes["nodes"]) {
        let state = match (node["revoked"] == true, node["draining"] == true) {
            (true, _) => "revoked",
            (false, true) => "draining",
            (false, false) => "member",
        };
        rows.push(vec![text(&node["id"]), text(&node["name"]), state.to_owned(), text(&node["token"])]);
    }
    aligned(&rows)
}

fn revoked(done: &Value) -> String {
    let node = &done["node"];
    let mut said =
        format!("{} ({}) was revoked, and is cut within a second\n", text(&node["id"]), text(&node["name"]));
    if let Some(token) = done["token_still_good"].as_str() {
        said.push_str("the token it joined with still admits machines; to end that as well:\n");
        said.push_str("  mlx-serving token revoke ");
        said.push_str(token);
        said.push('\n');
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_and_those_that_were_ones_are_told_apart() {
        let nodes = json!({"nodes": [
            {"id": "coordinator-1", "name": "the founder", "revoked": false},
            {"id": "agent-6", "name": "mini-06", "revoked": false, "draining": true, "token": "5f"},
            {"id": "agent-7", "name": "mini-07", "revoked": true, "draining": true, "token": "5f"},
        ]});
        let expected = "\
ID             NAME         STATE     TOKEN
coordinator-1  the founder  member    -
agent-6        mini-06      draining  5f
agent-7        mini-07      revoked   5f
";
        assert_eq!(table(&nodes), expected);
    }

    #[test]
    fn a_token_that_still_admits_is_named_with_what_ends_it() {
        let mut done = json!({"node": {"id": "agent-7", "name": "mini-07"}});
        assert_eq!(revoked(&done), "agent-7 (mini-07) was revoked, and is cut within a second\n");
        done["token_still_good"] = json!("5f");
        assert!(revoked(&done).contains("mlx-serving token revoke 5f\n"));
    }
}
