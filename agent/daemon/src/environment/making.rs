//! Making an environment: venv, pip, a first import, a stamp, and then its final name.
//!
//! Owns the steps and their order. The folder gets its final name last, so that what carries that name is whole; a crash
//! before leaves a `.making-` folder that the next maker removes. A virtual environment survives the renaming because its
//! interpreter finds itself by its own place; only the scripts in `bin` name the old one, and nothing here runs those.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::child::{self, ChildError, Ended, Heard, Source};
use super::error::EnvironmentError;
use super::file_lock::FileLock;
use super::limits::{IMPORT_SILENCE, PIP_SILENCE, VENV_SILENCE};
use super::pip_output::{PipFailure, PipOutput, failure};
use super::placed_folder::{private_file, private_folder, remove};
use super::progress::Progress;
use super::python_environment::{interpreter_of, isolated};
use super::requirements::Requirements;

/// Written last; names what was installed, and by which Python.
pub(super) const STAMP: &str = "mlx-serving-environment.txt";

/// Everything a runtime and a download import, once, so that a broken package shows here and not under load.
const FIRST_IMPORT: &str =
    "import mlx.core, mlx_lm, msgpack, huggingface_hub, sys; print(sys.version.split()[0])";

/// One environment in the making. Whoever makes it holds the lock of the folder it is made in.
pub(super) struct Making<'a> {
    pub(super) lock: &'a FileLock,
    pub(super) base: &'a Path,
    pub(super) requirements: &'a Requirements,
    pub(super) progress: &'a Progress,
}

impl Making<'_> {
    /// Makes `target`, which must not be in use; what is there is replaced.
    pub(super) async fn make(&self, target: &Path) -> Result<(), EnvironmentError> {
        let making = sibling(target);
        remove(&making).map_err(EnvironmentError::io("removing", &making))?;
        private_folder(&making).map_err(EnvironmentError::io("making", &making))?;
        self.empty_environment(&making).await?;
        self.install(&making).await?;
        let version = self.first_import(&making).await?;
        let stamp =
            format!("{}\nPython {version} from {}\n", self.requirements.digest(), self.base.display());
        private_file(&making.join(STAMP), stamp.as_bytes())
            .map_err(EnvironmentError::io("writing", &making))?;
        remove(target).map_err(EnvironmentError::io("removing", target))?;
        fs::rename(&making, target).map_err(EnvironmentError::io("renaming", &making))
    }

    async fn empty_environment(&self, making: &Path) -> Result<(), EnvironmentError> {
        self.progress.tell(format!("making a Python environment with {}", self.base.display()));
        let mut command = isolated(self.base);
        command.args(["-m", "venv"]).arg(making);
        let ended = self.run("making the environment", command, VENV_SILENCE, |_, _| ()).await?;
        if ended.status.success() {
            return Ok(());
        }
        Err(EnvironmentError::Venv { python: self.base.to_owned(), last_lines: ended.last_lines })
    }

    async fn install(&self, making: &Path) -> Result<(), EnvironmentError> {
        let file = making.join("requirements.txt");
        private_file(&file, self.requirements.text.as_bytes())
            .map_err(EnvironmentError::io("writing", &file))?;
        let mut command = isolated(&interpreter_of(making));
        // Built packages only: building one would run its code, and need a compiler.
        command.args([
            "-m",
            "pip",
            "install",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--no-input",
            "--no-color",
        ]);
        command.args(["--disable-pip-version-check", "--progress-bar", "off", "-r"]).arg(&file);
        let mut output = PipOutput::new(self.requirements.packages());
        let mut lines = Vec::new();
        let ended = self.run("installing packages", command, PIP_SILENCE, |source, line| match source {
            Source::Output => output.hear(line, self.progress),
            Source::Errors => lines.push(line.to_owned()),
        });
        let ended = ended.await?;
        if ended.status.success() {
            return Ok(());
        }
        Err(self.install_error(failure(lines.iter().map(String::as_str)), making, ended.last_lines))
    }

    fn install_error(&self, failure: PipFailure, making: &Path, last_lines: Vec<String>) -> EnvironmentError {
        match failure {
            PipFailure::Unreachable => EnvironmentError::IndexUnreachable { last_lines },
            PipFailure::HashMismatch => EnvironmentError::HashMismatch { last_lines },
            PipFailure::NoBuild => {
                EnvironmentError::NoBuild { python: self.base.display().to_string(), last_lines }
            }
            PipFailure::DiskFull => EnvironmentError::DiskFull { folder: making.to_owned(), last_lines },
            PipFailure::Other => EnvironmentError::Install { last_lines },
        }
    }

    /// The version of the Python that imported everything.
    async fn first_import(&self, making: &Path) -> Result<String, EnvironmentError> {
        self.progress.tell("importing MLX for the first time");
        let mut command = isolated(&interpreter_of(making));
        command.args(["-c", FIRST_IMPORT]);
        let mut version = String::new();
        let ended = self.run("importing MLX", command, IMPORT_SILENCE, |source, line| {
            if source == Source::Output {
                line.clone_into(&mut version);
            }
        });
        let ended = ended.await?;
        if ended.status.success() {
            Ok(version)
        } else {
            Err(EnvironmentError::Import { last_lines: ended.last_lines })
        }
    }

    async fn run(
        &self,
        what: &'static str,
        mut command: Command,
        silence: Duration,
        mut hear: impl FnMut(Source, &str),
    ) -> Result<Ended, EnvironmentError> {
        let program = PathBuf::from(command.as_std().get_program());
        command.stdin(self.lock.as_stdin().map_err(EnvironmentError::io("locking for", &program))?);
        let ended = child::run(command, silence, |source, line| {
            hear(source, line);
            Heard::Progress
        });
        ended.await.map_err(|error| match error {
            ChildError::Io(source) => EnvironmentError::Io { what: "running", path: program, source },
            ChildError::Silent { silence, last_lines } => {
                EnvironmentError::Silent { what, seconds: silence.as_secs(), last_lines }
            }
        })
    }
}

/// Beside the target, on the same file system, under a name that no environment has.
fn sibling(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".making-{name}"))
}
