//! Scenarios: stories of commands and their exact effects, as text that needs no programmer.
//!
//! Owns the walk over `tests/scenarios/*.txt`: each is told to a fresh scheduler, and what it answers must be what the file
//! says, letter by letter. `UPDATE=1` writes what was answered into the files. The vocabulary is in `README.md` beside them.

#[cfg(test)]
mod cast;
#[cfg(test)]
mod step;
#[cfg(test)]
mod story;
#[cfg(test)]
mod words;

#[cfg(test)]
mod scenarios {
    use std::path::{Path, PathBuf};

    use crate::story;

    fn files() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .expect("the folder of scenarios")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn every_scenario_ends_as_it_is_written() {
        let mut differing = Vec::new();
        for path in files() {
            let written = std::fs::read_to_string(&path).expect("a scenario");
            let told = story::tell(&written).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if told == written {
                continue;
            }
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &told).expect("write the scenario");
            } else {
                differing.push(format!("{}\n{}", path.display(), story::difference(&written, &told)));
            }
        }
        assert!(differing.is_empty(), "UPDATE=1 accepts these changes:\n{}", differing.join("\n"));
    }

    #[test]
    fn there_is_a_scenario_for_each_rule() {
        assert!(files().len() >= 142, "scenarios were lost: {} are left", files().len());
    }

    #[test]
    fn a_scenario_with_a_wrong_effect_is_noticed() {
        let wrong = "at 0 s: request 1 for qwen arrives\n  -> request 1, attempt 1: run on mini-1\n";
        let told = story::tell(wrong).expect("a story");
        assert_ne!(told, wrong);
        assert!(story::difference(wrong, &told).contains("line 2"));
    }

    #[test]
    fn a_step_that_is_not_understood_is_an_error_with_its_line() {
        let error = story::tell("# A comment.\n\nat 0 s: the moon rises\n").expect_err("not a step");
        assert!(error.contains("line 3"), "{error}");
    }
}
