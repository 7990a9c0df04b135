//! Plays every file in `tests/scenarios` and compares what happened, to the letter, with what the file says.
//!
//! `UPDATE=1` writes what happened into the files instead; read the difference before you keep it.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::{Path, PathBuf};

    use supervisor::{At, Limits, Supervisor, Why};

    use super::script::{key, name, tell};

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
        assert!(files().len() >= 12, "the folder of scenarios was not found or is nearly empty");
    }

    #[test]
    fn a_scenario_that_was_tampered_with_fails() {
        let file = files().into_iter().find(|file| file.ends_with("a_model_becomes_ready.txt")).unwrap();
        let tampered = fs::read_to_string(file).unwrap().replace("  start 1 a\n", "");
        assert_ne!(play(&tampered), tampered);
    }

    /// Runs the commands of a scenario and prints it with what they did.
    fn play(text: &str) -> String {
        let mut supervisor = Supervisor::new(Limits::default(), 0);
        let mut out = String::new();
        for line in text.lines().filter(|line| !line.starts_with("  ")) {
            writeln!(out, "{line}").unwrap();
            if let Some(bytes) = line.strip_prefix("budget ") {
                supervisor = Supervisor::new(Limits::default(), bytes.parse().unwrap());
            } else if let Some(model) = line.strip_prefix("explain ") {
                let verdict = supervisor.explain(key(model));
                let words = verdict.map_or("nothing is known".to_owned(), |verdict| verdict.to_string());
                writeln!(out, "  {words}").unwrap();
            } else if line.starts_with('@') {
                for effect in tell(&mut supervisor, line) {
                    writeln!(out, "  {effect}").unwrap();
                }
                if let Some((at, why)) = supervisor.next_deadline() {
                    writeln!(out, "  next {} {}", seconds(at), why_words(why)).unwrap();
                }
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "not a line of a scenario: {line}");
            }
        }
        out
    }

    fn why_words(why: Why) -> String {
        match why {
            Why::StartDeadline(model) => format!("StartDeadline {}", name(model)),
            Why::HangDeadline(model) => format!("HangDeadline {}", name(model)),
            Why::DrainDeadline(model) => format!("DrainDeadline {}", name(model)),
            Why::StopGrace(model) => format!("StopGrace {}", name(model)),
            Why::KillAgain(model) => format!("KillAgain {}", name(model)),
            Why::BackoffOver(model) => format!("BackoffOver {}", name(model)),
        }
    }

    fn seconds(at: At) -> String {
        let text = format!("{}.{:06}", at.0 / 1_000_000, at.0 % 1_000_000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}
