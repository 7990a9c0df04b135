//! Budgets: file length, median, test to code.

use crate::tree::{Source, assert_none, sources};

const FILE_LINES_MAX: usize = 500;
const MEDIAN_LINES_MAX: usize = 130;

#[test]
fn no_file_is_longer_than_500_lines() {
    let offenders: Vec<_> = sources(&[".rs", ".py", ".ts", ".tsx", ".sh"])
        .iter()
        .filter(|source| source.text.lines().count() > FILE_LINES_MAX)
        .map(|source| format!("{} has {} lines", source.path, source.text.lines().count()))
        .collect();
    assert_none("split these by idea", &offenders);
}

#[test]
fn the_median_rust_file_is_short() {
    let mut lengths: Vec<_> = sources(&[".rs"])
        .iter()
        .filter(|source| !is_test(&source.path))
        .map(|source| code(source).lines().count())
        .collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= MEDIAN_LINES_MAX, "the median of {} files is {median} lines", lengths.len());
}

#[test]
fn architecture_fits_on_a_few_screens() {
    let text = std::fs::read_to_string(crate::tree::root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(text.lines().count() <= 250, "ARCHITECTURE.md has {} lines", text.lines().count());
}

#[test]
fn pure_crates_have_one_and_a_half_lines_of_test_for_each_line_of_code() {
    let mut offenders = Vec::new();
    for room in ["coordinator/scheduler", "coordinator/registry", "agent/supervisor"] {
        let (code, test) = weigh(room, &[".rs", ".txt", ".json"]);
        if test * 2 < code * 3 {
            offenders.push(format!("{room}: {test} lines of test, {code} of code"));
        }
    }
    assert_none("pure crates need tests >= 1.5 x code", &offenders);
}

#[test]
fn the_project_has_four_lines_of_test_for_five_of_code() {
    let (code, test) = weigh("", &[".rs", ".py", ".txt"]);
    assert!(test * 5 >= code * 4, "{test} lines of test, {code} of code");
}

/// Lines of code and lines of test below a folder, without empty lines and comments.
fn weigh(room: &str, endings: &[&str]) -> (usize, usize) {
    let is_code = |line: &str| {
        let comment = line.starts_with("//")
            || (line.starts_with('#') && !line.starts_with("#[") && !line.starts_with("#!["));
        !line.is_empty() && !comment
    };
    let filled = |text: &str| text.lines().filter(|line| is_code(line.trim())).count();
    let (mut code_lines, mut test_lines) = (0, 0);
    for source in sources(endings).iter().filter(|source| source.path.starts_with(room)) {
        if is_test(&source.path) {
            test_lines += filled(&source.text);
        } else if !source.path.ends_with(".txt") && !source.path.ends_with(".json") {
            let code = filled(code(source));
            code_lines += code;
            test_lines += filled(&source.text) - code;
        }
    }
    (code_lines, test_lines)
}

fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.starts_with("benches/")
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
        || name.starts_with("test_")
        || name == "conftest.py"
}

/// The part of a file before its test module.
fn code(source: &Source) -> &str {
    source.text.split("#[cfg(test)]\nmod ").next().unwrap_or(&source.text)
}
