//! The Python environment of this Mac: found, or made from the locked requirements inside this binary.
//!
//! Owns `<data>/python/<lock>/` (a virtual environment for each lock) and `<data>/runtime/<version>/` (the runtime's sources).
//! Refuses to touch any Python of the user's, to install anything that is not locked by hash, and to delete an environment
//! that an older or newer version of this program may still run: those stay until a person removes them.
//!
//! `MLX_SERVING_PYTHON` names the Python to make environments with; `MLX_SERVING_PYTHON_ENV` names a finished environment
//! that is taken as it is.

mod progress;
mod requirements;
mod interpreter;
mod making;
mod pip_output;
mod runtime_sources;
mod python_environment;
pub(crate) mod placed_folder;
pub(crate) mod file_lock;
pub(crate) mod child;
mod error;
pub(crate) mod limits;

use std::path::{Path, PathBuf};

pub(crate) use error::EnvironmentError;
pub(crate) use progress::Progress;
#[cfg(test)]
pub(crate) use progress::Step;
pub(crate) use python_environment::PythonEnvironment;

use file_lock::FileLock;
use making::{Making, STAMP};
use python_environment::Fault;
use requirements::Requirements;

#[cfg(test)]
mod tests;

/// Makes sure that this Mac can run the MLX runtime: seconds when it could before, a minute or some when it could not.
pub(crate) async fn ensure(
    data_folder: &Path,
    progress: &Progress,
) -> Result<PythonEnvironment, EnvironmentError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = std::env::var("PATH").unwrap_or_default();
    let settings = Settings {
        given: variable("MLX_SERVING_PYTHON_ENV"),
        candidates: interpreter::candidates(
            variable("MLX_SERVING_PYTHON").as_deref(),
            &path,
            std::env::consts::OS,
        ),
        requirements: Requirements::of(std::env::consts::OS, std::env::consts::ARCH),
    };
    ensure_with(settings, data_folder, progress).await
}

/// What `ensure` reads from its surroundings.
struct Settings {
    given: Option<PathBuf>,
    candidates: Vec<PathBuf>,
    requirements: Result<Requirements, EnvironmentError>,
}

async fn ensure_with(
    settings: Settings,
    data_folder: &Path,
    progress: &Progress,
) -> Result<PythonEnvironment, EnvironmentError> {
    let python_path = runtime_sources::place(data_folder, progress).await;
    let python_path = python_path.map_err(EnvironmentError::io("placing the runtime below", data_folder))?;
    let folder = match settings.given {
        Some(given) => taken(given).await?,
        None => made(&settings.requirements?, &settings.candidates, data_folder, progress).await?,
    };
    Ok(PythonEnvironment { python: python_environment::interpreter_of(&folder), python_path })
}

/// An environment the user named: checked, never changed.
async fn taken(path: PathBuf) -> Result<PathBuf, EnvironmentError> {
    let reason = match python_environment::check(&path).await {
        Ok(()) => return Ok(path),
        Err(Fault::Broken(reason)) => reason,
        Err(Fault::NoAnswer) => "its Python does not answer".to_owned(),
    };
    Err(EnvironmentError::Given { path, reason })
}

/// Our own environment for these requirements, made if it is not there or does not work.
async fn made(
    requirements: &Requirements,
    candidates: &[PathBuf],
    data_folder: &Path,
    progress: &Progress,
) -> Result<PathBuf, EnvironmentError> {
    let room = data_folder.join("python");
    let folder = room.join(requirements.digest());
    if works(&folder).await? {
        return Ok(folder);
    }
    placed_folder::private_folder(&room).map_err(EnvironmentError::io("making", &room))?;
    let lock = FileLock::acquire(&room.join(".lock"), "the Python environment", progress).await;
    let lock = lock.map_err(EnvironmentError::io("locking", &room))?;
    // Whoever held the lock may have made it. One that stopped working (its Python was upgraded away) is made anew.
    if works(&folder).await? {
        return Ok(folder);
    }
    let base = interpreter::find(candidates).await?;
    Making { lock: &lock, base: &base, requirements, progress }.make(&folder).await?;
    // Asked once more under its final name, so that a fault of the renaming shows here.
    if works(&folder).await? { Ok(folder) } else { Err(EnvironmentError::Moved { folder }) }
}

async fn works(folder: &Path) -> Result<bool, EnvironmentError> {
    if !folder.join(STAMP).is_file() {
        return Ok(false);
    }
    match python_environment::check(folder).await {
        Ok(()) => Ok(true),
        Err(Fault::Broken(reason)) => {
            tracing::warn!(folder = %folder.display(), reason, "the Python environment does not work");
            Ok(false)
        }
        Err(Fault::NoAnswer) => Err(EnvironmentError::Silent {
            what: "the Python environment",
            seconds: limits::IMPORT_SILENCE.as_secs(),
            last_lines: Vec::new(),
        }),
    }
}
