//! Where everything lives on this machine.
//!
//! Owns the one folder and its rooms. Refuses to write anywhere else.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::Home;

pub(crate) struct Rooms {
    pub(crate) coordinator: PathBuf,
    pub(crate) agent: PathBuf,
}

/// `--home`, else `~/.mlx-serving`.
pub(crate) fn rooms(home: &Home) -> anyhow::Result<Rooms> {
    let folder = match &home.home {
        Some(folder) => std::path::absolute(folder).context("reading --home")?,
        None => std::env::home_dir()
            .context("no home folder is known: say where with --home DIR")?
            .join(".mlx-serving"),
    };
    Ok(Rooms { coordinator: folder.join("coordinator"), agent: folder.join("agent") })
}

/// The machine's name for people.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.trim_end_matches(".local").to_owned()
}
