//! Names and headers: every file says what it owns; no file is a catch-all; no machine's own paths are in the tree.

use crate::tree::{assert_none, sources};

const CATCH_ALL: [&str; 8] = ["utils", "util", "common", "helpers", "helper", "misc", "manager", "shared"];
/// A header that is shorter says nothing about what the file owns and refuses.
const HEADER_CHARS_MIN: usize = 40;

#[test]
fn every_rust_file_has_a_header() {
    let offenders: Vec<_> = sources(&[".rs"])
        .iter()
        .filter(|source| header(&source.text, "//!").len() < HEADER_CHARS_MIN)
        .map(|source| source.path.clone())
        .collect();
    assert_none("say what the file owns, refuses, and why, in its first lines (//!)", &offenders);
}

#[test]
fn every_python_file_has_a_header() {
    let offenders: Vec<_> = sources(&[".py"])
        .iter()
        .filter(|source| !source.text.is_empty())
        .filter(|source| {
            let text = source.text.strip_prefix("#!/usr/bin/env python3\n").unwrap_or(&source.text);
            !text.starts_with("\"\"\"") && !text.starts_with("r\"\"\"")
        })
        .map(|source| source.path.clone())
        .collect();
    assert_none("begin with a module docstring", &offenders);
}

#[test]
fn no_file_is_a_catch_all() {
    let offenders: Vec<_> = sources(&[".rs", ".py", ".ts", ".tsx"])
        .iter()
        .filter(|source| {
            source.path.split('/').any(|part| {
                let stem = part.split('.').next().unwrap_or(part);
                CATCH_ALL.contains(&stem)
            })
        })
        .map(|source| source.path.clone())
        .collect();
    assert_none("name the file after what it owns", &offenders);
}

#[test]
fn no_machine_has_left_its_paths_here() {
    // Only at the start of a word: a URI may well have such a part.
    let starts = [' ', '"', '\'', '`', '=', '(', ':'];
    let homes = ["work", "root", "home"];
    let homes: Vec<_> =
        starts.iter().flat_map(|start| homes.map(|home| format!("{start}/{home}/"))).collect();
    let offenders: Vec<_> = sources(&[".rs", ".py", ".md", ".toml", ".sh", ".txt", ".json", ".yml"])
        .iter()
        .filter(|source| !source.path.ends_with("tokenizer.json"))
        .flat_map(|source| source.text.lines().map(move |line| (source, line)))
        .filter(|(_, line)| homes.iter().any(|home| line.contains(home.as_str())))
        .map(|(source, line)| format!("{}: {}", source.path, line.trim()))
        .collect();
    assert_none("paths of one machine", &offenders);
}

fn header(text: &str, mark: &str) -> String {
    text.lines().take_while(|line| line.starts_with(mark)).collect()
}
