//! Plays every file in `tests/scenarios` and compares the replies, to the letter, with what the file says.
//!
//! `UPDATE=1` writes what happened into the files instead; read the difference before you keep it.

#[cfg(test)]
mod script;
#[cfg(test)]
mod shown;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::{Path, PathBuf};

    use registry::{Registry, Reply};

    use super::script::command;
    use super::shown::show;

    fn files() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn every_scenario_goes_exactly_as_written() {
        let update = std::env::var_os("UPDATE").is_some();
        for file in files() {
            let written = fs::read_to_string(&file).unwrap();
            let played = play(&written);
            if update {
                fs::write(&file, &played).unwrap();
            } else {
                assert!(written == played, "{} differs; it went:\n{played}", file.display());
            }
        }
    }

    #[test]
    fn there_are_scenarios() {
        assert!(files().len() >= 21, "the folder of scenarios was not found or is nearly empty");
    }

    #[test]
    fn a_scenario_that_was_tampered_with_fails() {
        let file = files().into_iter().find(|file| file.ends_with("a_mac_joins.txt")).unwrap();
        let tampered = fs::read_to_string(file).unwrap().replace("  node 1\n", "  node 2\n");
        assert_ne!(play(&tampered), tampered);
    }

    /// Applies the commands of a scenario and prints it with the replies.
    fn play(text: &str) -> String {
        let mut registry = Registry::default();
        let mut out = String::new();
        for line in text.lines().filter(|line| !line.starts_with("  ")) {
            writeln!(out, "{line}").unwrap();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line == "show" {
                show(&registry, &mut out).unwrap();
                continue;
            }
            // A note is a change of the trail and of nothing else.
            let facts = if line.starts_with("note ") { whole } else { facts };
            let before = facts(&registry);
            let reply = registry.apply(&command(line));
            writeln!(out, "  {}", reply_words(&reply)).unwrap();
            let changed = matches!(reply, Reply::Done | Reply::NodeAdmitted { again: false, .. });
            assert_eq!(
                facts(&registry) != before,
                changed,
                "a reply tells whether something changed: {line}"
            );
        }
        out
    }

    fn whole(registry: &Registry) -> serde_json::Value {
        serde_json::to_value(registry).unwrap()
    }

    /// All but the audit trail, which notes refused changes too.
    fn facts(registry: &Registry) -> serde_json::Value {
        let mut facts = serde_json::to_value(registry).unwrap();
        facts.as_object_mut().unwrap().remove("audit");
        facts
    }

    fn reply_words(reply: &Reply) -> String {
        match reply {
            Reply::Done => "done".to_owned(),
            Reply::AlreadySo => "already so".to_owned(),
            Reply::NodeAdmitted { node, again: false } => format!("node {node}"),
            Reply::NodeAdmitted { node, again: true } => format!("node {node}, again"),
            Reply::Refused(refusal) => format!("refused: {refusal}"),
        }
    }
}
