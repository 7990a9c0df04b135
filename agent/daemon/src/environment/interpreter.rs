//! Finding a Python to make an environment with.
//!
//! Owns where to look and what makes one fit: 3.11 or later, built for this processor, with venv and ensurepip. Refuses to
//! install one. The first that fits wins; what was wrong with the others goes into the error.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::child::{self, Heard, Source};
use super::error::EnvironmentError;
use super::limits::{INTERPRETER_ANSWER, PYTHON_VERSION_MIN};

/// Newest first: its wheels are the ones most people run.
const NAMES: [&str; 4] = ["python3.13", "python3.12", "python3.11", "python3"];

/// Homebrew's folders. A service's PATH on macOS has neither.
const MACOS_FOLDERS: [&str; 2] = ["/opt/homebrew/bin", "/usr/local/bin"];

/// Apple's stub: Python 3.9 at best, and a dialogue on the screen at worst.
const MACOS_STUB: &str = "/usr/bin/python3";

/// Says `major minor machine`, or fails where an environment cannot be made.
const QUESTION: &str =
    "import sys, platform, venv, ensurepip; print(*sys.version_info[:2], platform.machine())";

/// Programs to try, best first. `named` (from MLX_SERVING_PYTHON) is the only one when it is given.
pub(super) fn candidates(named: Option<&Path>, path: &str, os: &str) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![named.to_owned()];
    }
    let extra = if os == "macos" { MACOS_FOLDERS.as_slice() } else { &[] };
    let folders: Vec<_> = std::env::split_paths(path).chain(extra.iter().map(PathBuf::from)).collect();
    let mut found = Vec::new();
    for file in NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))) {
        let stub = os == "macos" && file == Path::new(MACOS_STUB);
        if file.is_absolute() && !stub && !found.contains(&file) && file.is_file() {
            found.push(file);
        }
    }
    found
}

/// The first candidate that fits.
pub(super) async fn find(candidates: &[PathBuf]) -> Result<PathBuf, EnvironmentError> {
    let mut tried = Vec::new();
    for candidate in candidates {
        match fault(candidate).await {
            None => return Ok(candidate.clone()),
            Some(fault) => tried.push(format!("{} {fault}", candidate.display())),
        }
    }
    Err(EnvironmentError::NoPython { tried })
}

/// What is wrong with a candidate; `None` if it fits.
async fn fault(python: &Path) -> Option<String> {
    let mut command = Command::new(python);
    command.args(["-I", "-c", QUESTION]).stdin(Stdio::null());
    let mut answer = None;
    let ended = child::run(command, INTERPRETER_ANSWER, |source, line| {
        if source == Source::Output {
            answer = Some(line.to_owned());
        }
        Heard::Noise
    });
    match ended.await {
        Ok(ended) if ended.status.success() => judge(&answer.unwrap_or_default(), std::env::consts::ARCH),
        Ok(ended)
            if ended.last_lines.iter().any(|line| line.contains("ensurepip") || line.contains("'venv'")) =>
        {
            Some("lacks venv (on Debian and Ubuntu: apt install python3-venv)".to_owned())
        }
        Ok(_) => Some("does not work".to_owned()),
        Err(child::ChildError::Silent { .. }) => Some("does not answer".to_owned()),
        Err(child::ChildError::Io(error)) => Some(format!("cannot be started: {error}")),
    }
}

/// What the answer to the question says against an interpreter.
fn judge(answer: &str, arch: &str) -> Option<String> {
    let mut words = answer.split_whitespace();
    let mut number = || words.next()?.parse::<u32>().ok();
    let (Some(major), Some(minor)) = (number(), number()) else {
        return Some("did not tell its version".to_owned());
    };
    if (major, minor) < PYTHON_VERSION_MIN {
        return Some(format!("is {major}.{minor}, too old"));
    }
    // A Python for another processor runs under emulation and gets the wrong wheels.
    let machine = words.next().unwrap_or_default();
    let known = if machine == "arm64" { "aarch64" } else { machine };
    (known != arch).then(|| format!("is built for {machine}, not for this machine's {arch}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
        let file = folder.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("executable");
        file
    }

    fn telling(version: &str) -> String {
        let machine = std::env::consts::ARCH;
        format!("echo {version} {machine}")
    }

    #[tokio::test]
    async fn the_first_that_fits_wins() {
        let folder = tempfile::tempdir().expect("scratch");
        let old = program(folder.path(), "old", &telling("3 10"));
        let fits = program(folder.path(), "fits", &telling("3 12"));
        let later = program(folder.path(), "later", &telling("3 13"));
        assert_eq!(find(&[old, fits.clone(), later]).await.expect("found"), fits);
    }

    #[tokio::test]
    async fn every_unfit_one_is_named_with_its_fault() {
        let folder = tempfile::tempdir().expect("scratch");
        let candidates = [
            program(folder.path(), "old", &telling("3 9")),
            program(
                folder.path(),
                "bare",
                "echo \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1",
            ),
            program(folder.path(), "foreign", "echo 3 12 sparc64"),
            program(folder.path(), "broken", "exit 127"),
            folder.path().join("missing"),
        ];
        let words = find(&candidates).await.expect_err("none fits").to_string();
        for part in [
            "old is 3.9, too old",
            "bare lacks venv",
            "built for sparc64",
            "broken does not work",
            "missing cannot",
        ] {
            assert!(words.contains(part), "{part:?} is not in {words}");
        }
    }

    #[test]
    fn newer_names_come_first_whatever_the_folder() {
        let (first, second) = (tempfile::tempdir().expect("scratch"), tempfile::tempdir().expect("scratch"));
        let three = program(first.path(), "python3", "");
        let eleven = program(first.path(), "python3.11", "");
        let twelve = program(second.path(), "python3.12", "");
        let path = std::env::join_paths([first.path(), second.path(), first.path()]).expect("joined");
        let found = candidates(None, path.to_str().expect("utf-8"), "linux");
        assert_eq!(found, [twelve, eleven, three]);
    }

    #[test]
    fn a_named_python_is_the_only_candidate() {
        let named = Path::new("/opt/python");
        assert_eq!(candidates(Some(named), "/usr/bin:/bin", "linux"), [named]);
    }

    #[test]
    fn relative_folders_of_the_path_are_not_searched() {
        assert_eq!(candidates(None, ".:bin", "linux"), Vec::<PathBuf>::new());
    }

    #[test]
    fn apples_stub_is_not_tried() {
        assert!(!candidates(None, "/usr/bin", "macos").contains(&PathBuf::from(MACOS_STUB)));
    }

    #[test]
    fn apple_calls_its_processor_by_another_name() {
        assert_eq!(judge("3 12 arm64", "aarch64"), None);
        assert_eq!(
            judge("3 12 x86_64", "aarch64").as_deref(),
            Some("is built for x86_64, not for this machine's aarch64")
        );
        assert_eq!(judge("", "aarch64").as_deref(), Some("did not tell its version"));
    }
}
