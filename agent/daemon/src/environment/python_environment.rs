//! A Python that can run the MLX runtime, and the way to start it.
//!
//! Owns the shape of such an environment and the question whether one works. Refuses what the user's own Python settings
//! would add: a runtime sees its locked packages and our sources, nothing else.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::child::{self, ChildError, Heard};
use super::limits::IMPORT_SILENCE;

/// Imports the native half of MLX, which fails where the platform is wrong, and only looks for mlx-lm: importing that takes
/// two seconds, at each start of an agent.
const WORKS: &str = "import importlib.util, sys, msgpack, mlx.core\n\
                     sys.exit(importlib.util.find_spec('mlx_lm') is None and 'mlx_lm is not installed')";

/// Settings of the caller's shell that would change what Python imports or where pip installs.
const FOREIGN_VARIABLES: [&str; 10] = [
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_QUIET",
    "PIP_REQUIRE_VIRTUALENV",
];

/// Where Python is, and where the runtime's sources are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PythonEnvironment {
    /// The interpreter of the virtual environment.
    pub(crate) python: PathBuf,
    /// What PYTHONPATH must be: the folder that holds `mlx_runtime`.
    pub(crate) python_path: PathBuf,
}

impl PythonEnvironment {
    /// `python -m module`, ready for more arguments.
    pub(crate) fn module(&self, module: &str) -> Command {
        let mut command = program(&self.python);
        command
            .env("PYTHONPATH", &self.python_path)
            .env("PYTHONNOUSERSITE", "1")
            .env("PYTHONUNBUFFERED", "1");
        command.args(["-m", module]);
        command
    }
}

/// The interpreter of a virtual environment.
pub(super) fn interpreter_of(folder: &Path) -> PathBuf {
    folder.join("bin").join("python")
}

/// Python in isolated mode: no variables, no user packages, no current folder.
pub(super) fn isolated(python: &Path) -> Command {
    let mut command = program(python);
    command.args(["-I", "-u"]);
    command
}

/// Why a virtual environment does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It cannot work as it is.
    Broken(String),
    /// It did not answer in time, which a busy machine explains as well: no reason to throw it away.
    NoAnswer,
}

/// Tries a virtual environment.
pub(super) async fn check(folder: &Path) -> Result<(), Fault> {
    let python = interpreter_of(folder);
    if !python.is_file() {
        return Err(Fault::Broken(format!("{} does not exist", python.display())));
    }
    let mut command = isolated(&python);
    command.args(["-c", WORKS]);
    match child::run(command, IMPORT_SILENCE, |_, _| Heard::Noise).await {
        Ok(ended) if ended.status.success() => Ok(()),
        Ok(ended) => {
            let words = ended.last_lines.last().cloned();
            Err(Fault::Broken(words.unwrap_or_else(|| format!("Python ended with {}", ended.status))))
        }
        Err(ChildError::Io(error)) => Err(Fault::Broken(format!("Python could not be started: {error}"))),
        Err(ChildError::Silent { .. }) => Err(Fault::NoAnswer),
    }
}

fn program(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.stdin(Stdio::null());
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_module_sees_our_sources_and_none_of_the_shells_settings() {
        let environment =
            PythonEnvironment { python: "/e/bin/python".into(), python_path: "/data/runtime/abc".into() };
        let command = environment.module("mlx_runtime");
        let command = command.as_std();
        let variables: BTreeMap<_, _> = command.get_envs().collect();
        assert_eq!(variables["PYTHONPATH".as_ref() as &std::ffi::OsStr], Some("/data/runtime/abc".as_ref()));
        for gone in ["PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET"] {
            assert_eq!(variables[gone.as_ref() as &std::ffi::OsStr], None, "{gone}");
        }
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-m", "mlx_runtime"]);
    }

    #[tokio::test]
    async fn a_folder_without_an_interpreter_does_not_work() {
        let folder = tempfile::tempdir().expect("scratch");
        let Err(Fault::Broken(words)) = check(folder.path()).await else { panic!("it must not work") };
        assert!(words.ends_with("bin/python does not exist"), "{words}");
    }
}
