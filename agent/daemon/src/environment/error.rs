//! Why there is no Python environment, and what to do about it.
//!
//! Owns the words. Each says what failed and the next step; what pip or Python said last is kept as they said it.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("MLX has no build for {os} on {arch}; Apple Silicon Macs and Linux (x86_64, aarch64) work")]
    Unsupported { os: String, arch: String },

    #[error(
        "no Python 3.11 or later with venv was found{}. Get one with {} and try again, \
         or name one in MLX_SERVING_PYTHON",
        listed(tried),
        advice()
    )]
    NoPython { tried: Vec<String> },

    #[error(
        "MLX_SERVING_PYTHON_ENV={} cannot be used: {reason}. \
         Unset it to let an environment be made, or install mlx-lm and msgpack there", path.display()
    )]
    Given { path: PathBuf, reason: String },

    #[error("{python} could not make a virtual environment{}", ended(last_lines))]
    Venv { python: PathBuf, last_lines: Vec<String> },

    #[error(
        "the Python packages could not be downloaded: the package index did not answer. Check the network and try again; \
         behind a proxy or with a mirror of one's own, set PIP_INDEX_URL or `pip config set global.index-url URL`{}",
        ended(last_lines)
    )]
    IndexUnreachable { last_lines: Vec<String> },

    #[error(
        "a downloaded package is not the one that was locked, so nothing was installed. A mirror or proxy may change files: \
         try again with another PIP_INDEX_URL{}",
        ended(last_lines)
    )]
    HashMismatch { last_lines: Vec<String> },

    #[error(
        "the package index has no build of a package for {python}. Name another Python (3.11 to 3.13) in MLX_SERVING_PYTHON, \
         or set PIP_INDEX_URL to a complete index{}",
        ended(last_lines)
    )]
    NoBuild { python: String, last_lines: Vec<String> },

    #[error("the disk is full; about 600 MB are needed at {}{}", folder.display(), ended(last_lines))]
    DiskFull { folder: PathBuf, last_lines: Vec<String> },

    #[error("the Python packages could not be installed{}", ended(last_lines))]
    Install { last_lines: Vec<String> },

    #[error("the new Python environment cannot import MLX{}", ended(last_lines))]
    Import { last_lines: Vec<String> },

    #[error("the new Python environment at {} stopped working when it got its name; please report this", folder.display())]
    Moved { folder: PathBuf },

    #[error("{what} made no progress for {seconds} seconds and was stopped; try again{}", ended(last_lines))]
    Silent { what: &'static str, seconds: u64, last_lines: Vec<String> },

    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl EnvironmentError {
    /// For `map_err`: what was done, and where.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

fn listed(tried: &[String]) -> String {
    if tried.is_empty() { String::new() } else { format!(" ({})", tried.join("; ")) }
}

fn advice() -> &'static str {
    if cfg!(target_os = "macos") {
        "`brew install python@3.12`"
    } else {
        "`apt install python3 python3-venv` (or your distribution's packages of these)"
    }
}

/// The last lines of a child, set off from our own words.
fn ended(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!(". It ended with:\n  {}", lines.join("\n  ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_next_step_and_keeps_the_last_lines() {
        let last_lines = vec!["ERROR: one".to_owned(), "ERROR: two".to_owned()];
        let words = EnvironmentError::IndexUnreachable { last_lines }.to_string();
        assert!(words.contains("PIP_INDEX_URL") && words.contains("pip config"), "{words}");
        assert!(words.ends_with("It ended with:\n  ERROR: one\n  ERROR: two"), "{words}");
    }

    #[test]
    fn a_missing_python_tells_how_to_get_one_and_what_was_tried() {
        let tried = vec!["python3 is 3.9.6, too old".to_owned(), "python3.12 lacks venv".to_owned()];
        let words = EnvironmentError::NoPython { tried }.to_string();
        assert!(words.contains("(python3 is 3.9.6, too old; python3.12 lacks venv)"), "{words}");
        assert!(words.contains("install") && words.contains("MLX_SERVING_PYTHON"), "{words}");
        let silent = EnvironmentError::NoPython { tried: Vec::new() }.to_string();
        assert!(silent.contains("was found. Get one"), "{silent}");
    }
}
