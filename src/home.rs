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
    host_address().trim_end_matches(".local").to_owned()
}

/// The machine's name for other machines: the whole of it, since where a network has no names of its own only `mini-01.local` is found.
pub(crate) fn host_address() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
