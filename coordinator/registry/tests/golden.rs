//! What is on disk: its exact form today, and that yesterday's is still read.
//!
//! `tests/golden/commands` and `snapshot.json` are the present form; `UPDATE=1` writes them. `tests/golden/older` is what
//! earlier releases wrote; nothing writes there, and it must stay readable for ever.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use registry::{Command, NodeId, Registry, Reply};

    use super::script::command;

    /// One of each command, with and without what may be absent.
    const LINES: [(&str, &str); 9] = [
        ("found_cluster", "found room at=1000"),
        ("issue_join_token", "token t1 secret=a role=agent expires=2000 uses=3"),
        ("issue_join_token_any_number", "token t2 secret=b role=coordinator expires=2000"),
        ("admit_node", "admit mini-07 key=07af token=t1 secret=a at=1500"),
        ("want_model_hub", "want 1 mlx-community/Qwen3-4B-4bit hub:mlx-community/Qwen3-4B-4bit"),
        ("want_model_path", "want 1 local path:/Users/Shared/models/local"),
        ("want_model_demo", "want 1 demo demo"),
        ("unwant_model", "unwant 1 local"),
        ("revoke_node", "revoke 1"),
    ];

    fn golden(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
    }

    fn compare(path: &str, json: &str) {
        let file = golden(path);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, format!("{json}\n")).unwrap();
        }
        let written = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(written.trim_end(), json, "the form of {path} changed: older releases must still be read");
    }

    /// A registry that has every kind of fact: all commands but the last, so that the node lives.
    fn full() -> Registry {
        let mut registry = Registry::default();
        for (name, line) in LINES.iter().take(LINES.len() - 1) {
            let reply = registry.apply(&command(line));
            assert!(!matches!(reply, Reply::Refused(_)), "{name}: {reply:?}");
        }
        registry.apply(&command("admit mini-08 key=08 token=t1 secret=a at=1600"));
        registry.apply(&command("revoke 2"));
        registry
    }

    #[test]
    fn every_command_has_the_form_that_is_on_disk() {
        for (name, line) in LINES {
            let json = serde_json::to_string_pretty(&command(line)).unwrap();
            compare(&format!("commands/{name}.json"), &json);
            assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command(line));
        }
    }

    #[test]
    fn a_snapshot_has_the_form_that_is_on_disk() {
        compare("snapshot.json", &serde_json::to_string_pretty(&full()).unwrap());
    }

    #[test]
    fn every_command_of_release_0_1_is_still_read() {
        for (name, line) in LINES {
            let text = fs::read_to_string(golden(&format!("older/0.1/commands/{name}.json"))).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command(line), "{name}");
        }
    }

    #[test]
    fn a_snapshot_of_release_0_1_is_still_read() {
        let text = fs::read_to_string(golden("older/0.1/snapshot.json")).unwrap();
        assert_eq!(serde_json::from_str::<Registry>(&text).unwrap(), full());
    }

    #[test]
    fn an_empty_snapshot_is_an_empty_registry() {
        assert_eq!(serde_json::from_str::<Registry>("{}").unwrap(), Registry::default());
    }

    #[test]
    fn what_a_newer_release_added_does_not_hinder_reading() {
        let newer = serde_json::to_string(&full()).unwrap().replacen('{', r#"{"added_later":[1,2],"#, 1);
        assert_eq!(serde_json::from_str::<Registry>(&newer).unwrap(), full());
    }

    #[test]
    fn a_snapshot_that_lost_its_counter_still_gives_no_number_twice() {
        let text = serde_json::to_string(&full()).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove("last_node").unwrap();
        let mut registry: Registry = serde_json::from_value(value).unwrap();
        let reply = registry.apply(&command("admit mini-09 key=09 token=t2 secret=b at=1700"));
        assert_eq!(reply, Reply::NodeAdmitted { node: NodeId(3), again: false });
    }

    #[test]
    fn a_command_this_release_does_not_know_is_an_error_and_not_a_guess() {
        assert!(serde_json::from_str::<Command>(r#"{"split_cluster":{"node":1}}"#).is_err());
        assert!(serde_json::from_str::<Command>(r#"{"revoke_node":{}}"#).is_err());
    }

    #[test]
    fn a_damaged_hash_is_an_error() {
        let good = serde_json::to_string(&command("token t1 secret=a role=agent expires=9")).unwrap();
        let hash = "61".repeat(32);
        assert!(good.contains(&hash));
        for bad in ["", "61", &"61".repeat(33), &"6x".repeat(32), &"é1é".repeat(12), &"é".repeat(32)] {
            let text = good.replace(&hash, bad);
            assert!(serde_json::from_str::<Command>(&text).is_err(), "{bad}");
        }
    }
}
