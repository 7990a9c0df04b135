//! Which crate may know which: the arrows of ARCHITECTURE.md, checked against what cargo resolves.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::tree::{assert_none, root, sources};

/// Crate, and the crates of ours it may depend on. A crate that is missing here may not exist.
const ARROWS: [(&str, &[&str]); 9] = [
    ("proto", &[]),
    ("scheduler", &[]),
    ("registry", &[]),
    ("supervisor", &[]),
    ("consensus", &["registry", "proto"]),
    ("server", &["scheduler", "registry", "consensus", "proto"]),
    ("daemon", &["supervisor", "proto"]),
    ("simulation", &["scheduler"]),
    ("mlx-serving", &["server", "daemon", "simulation"]),
];

/// All that a pure crate may take from outside. A chain of hashes can only be made where the order of commands is known, which
/// is in the registry; blake3 without its `std` is as pure as serde.
const PURE: [(&str, &[&str]); 3] =
    [("scheduler", &[]), ("registry", &["blake3", "serde"]), ("supervisor", &[])];

/// What only one crate may name, and why it matters.
const SOLE_USERS: [(&str, &str); 3] =
    [("openraft", "consensus"), ("axum", "server"), ("clap", "mlx-serving")];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let normal = |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Build);
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let names = package.dependencies.iter().filter(|dependency| normal(dependency.kind));
            (package.name.to_string(), names.map(|dependency| dependency.name.clone()).collect())
        })
        .collect()
}

#[test]
fn crates_know_only_what_the_arrows_allow() {
    let dependencies = dependencies();
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let ours: BTreeSet<_> = dependencies.keys().cloned().collect();
    let mut offenders = Vec::new();
    for (name, needs) in &dependencies {
        let Some(allowed) = allowed.get(name.as_str()) else {
            offenders.push(format!("{name} has no place in the picture"));
            continue;
        };
        let foreign = needs.intersection(&ours).filter(|need| !allowed.contains(&need.as_str()));
        offenders.extend(foreign.map(|need| format!("{name} -> {need}")));
    }
    assert_none("forbidden arrows", &offenders);
}

#[test]
fn pure_crates_take_nothing_from_outside() {
    let dependencies = dependencies();
    let mut offenders = Vec::new();
    for (name, allowed) in PURE {
        let foreign = dependencies[name].iter().filter(|need| !allowed.contains(&need.as_str()));
        offenders.extend(foreign.map(|need| format!("{name} -> {need}")));
        let library = std::fs::read_to_string(library(name)).expect("lib.rs");
        if !library.contains("no_std") {
            offenders.push(format!("{name} is not no_std"));
        }
    }
    assert_none("a pure crate has no dependency beyond its list", &offenders);
}

#[test]
fn each_heavy_library_has_one_user() {
    let dependencies = dependencies();
    let mut offenders = Vec::new();
    for (library, user) in SOLE_USERS {
        let users =
            dependencies.iter().filter(|(name, needs)| needs.contains(library) && name.as_str() != user);
        offenders.extend(users.map(|(name, _)| format!("{name} names {library}; only {user} may")));
    }
    assert_none("one crate owns each of these", &offenders);
}

#[test]
fn banned_crates_are_not_in_the_tree() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let bans = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let banned: Vec<_> = bans
        .lines()
        .filter(|line| line.trim_start().starts_with("{ crate = "))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(banned.len() >= 5, "deny.toml's bans were not found");
    let offenders: Vec<_> = banned
        .iter()
        .filter(|name| lock.contains(&format!("name = \"{name}\"\n")))
        .map(ToString::to_string)
        .collect();
    assert_none("banned in deny.toml, yet resolved", &offenders);
}

#[test]
fn only_the_engine_imports_mlx() {
    let offenders: Vec<_> = sources(&[".py"])
        .iter()
        .filter(|source| source.path.starts_with("python/mlx_runtime/"))
        .filter(|source| !source.path.starts_with("python/mlx_runtime/engine"))
        .filter(|source| {
            source.text.lines().any(|line| {
                let line = line.trim_start();
                ["import mlx", "from mlx.", "from mlx ", "from mlx_lm", "import mlx_lm"]
                    .iter()
                    .any(|start| line.starts_with(start) && !line.starts_with("import mlx_runtime"))
            })
        })
        .map(|source| source.path.clone())
        .collect();
    assert_none("MLX belongs to the engine", &offenders);
}

#[test]
fn server_and_daemon_never_wire_the_gpu() {
    let offenders: Vec<_> = sources(&[".py"])
        .iter()
        .filter(|source| source.path.starts_with("python/mlx_runtime/"))
        .filter(|source| source.text.contains("set_wired_limit("))
        .map(|source| source.path.clone())
        .collect();
    assert_none("kernel panics came with mx.set_wired_limit", &offenders);
}

fn library(name: &str) -> std::path::PathBuf {
    let room = if name == "supervisor" { "agent" } else { "coordinator" };
    root().join(room).join(name).join("src/lib.rs")
}
