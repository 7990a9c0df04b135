//! Python functions keep the same budget as Rust's; clippy does not see them.

use crate::tree::{assert_none, sources};

const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn no_python_function_is_longer_than_70_lines() {
    let mut offenders = Vec::new();
    for source in sources(&[".py"]) {
        let lines: Vec<_> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let opens = line.trim_start().starts_with("def ") || line.trim_start().starts_with("async def ");
            if opens && length(&lines[start + 1..], indent) > FUNCTION_LINES_MAX {
                offenders.push(format!("{}:{} {}", source.path, start + 1, line.trim()));
            }
        }
    }
    assert_none("functions over 70 lines", &offenders);
}

/// Lines until one that is indented no deeper than the `def` (a closing bracket of the signature does not count).
fn length(rest: &[&str], indent: usize) -> usize {
    let ends = |line: &&str| {
        !line.trim().is_empty()
            && line.len() - line.trim_start().len() <= indent
            && !line.trim_start().starts_with(')')
    };
    1 + rest.iter().position(ends).unwrap_or(rest.len())
}
