//! Documents tell the truth: files they name exist, links lead somewhere, the README's commands are real.

use crate::tree::{assert_none, exists, root, sources};

#[test]
fn every_file_that_a_document_names_exists() {
    let mut offenders = Vec::new();
    for document in ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"] {
        let Ok(text) = std::fs::read_to_string(root().join(document)) else { continue };
        let named = text.split('`').skip(1).step_by(2).filter(|code| is_path(code));
        offenders.extend(named.filter(|path| !exists(path)).map(|path| format!("{document} names {path}")));
    }
    assert_none("missing files", &offenders);
}

#[test]
fn every_local_link_leads_somewhere() {
    let mut offenders = Vec::new();
    for source in sources(&[".md"]) {
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in source.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty()
                && !target.contains("://")
                && !exists(&format!("{folder}/{target}"))
                && !exists(target)
            {
                offenders.push(format!("{} -> {target}", source.path));
            }
        }
    }
    assert_none("dead links", &offenders);
}

#[test]
fn what_a_project_needs_is_here() {
    let needed =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "deny.toml", ".ci/run", "verify", "fix"];
    let missing: Vec<_> = needed.iter().filter(|path| !exists(path)).map(ToString::to_string).collect();
    assert_none("missing", &missing);
    let licence = std::fs::read_to_string(root().join("LICENSE")).expect("LICENSE");
    assert!(licence.contains("Apache License") && licence.contains("Version 2.0"));
}

/// `like/this.rs`, `folder/` or `name.toml`; not commands, types or URLs.
fn is_path(code: &str) -> bool {
    let plain = code.chars().all(|char| char.is_ascii_alphanumeric() || "._-/".contains(char));
    let rooted = [
        "src/",
        "proto/",
        "coordinator/",
        "agent/",
        "python/",
        "tests/",
        "benches/",
        "docs/",
        ".ci/",
        "deploy/",
    ];
    plain && rooted.iter().any(|start| code.starts_with(start))
}
