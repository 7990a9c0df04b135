//! Models from a hub: those already here, and the download of the others.
//!
//! Owns `<data>/models/hub/<owner>/<name>/`. A folder under that name is whole: the download gathers its files beside it and
//! renames at the end, so what is there is used without a network. The download itself is `python -m mlx_runtime.fetch`, in a
//! process that ends when the wait for it is dropped; what has arrived is kept. There is one at a time.

use std::path::{Path, PathBuf};

use tokio::sync::{Mutex, MutexGuard};

use super::error::StoreError;
use super::fetch_event::{FetchEvent, size};
use super::hub_id::HubId;
use super::limits::DOWNLOAD_SILENCE;
use crate::environment::child::{self, ChildError, Heard, Source};
use crate::environment::placed_folder::private_folder;
use crate::environment::{Progress, PythonEnvironment};

const MODULE: &str = "mlx_runtime.fetch";

/// The folder of a hub's model, fetched if it is not here.
pub(super) async fn place(
    models: &Path,
    downloads: &Mutex<()>,
    id: &HubId,
    environment: Option<&PythonEnvironment>,
    progress: &Progress,
) -> Result<PathBuf, StoreError> {
    let hub = models.join("hub");
    let folder = hub.join(id.as_str());
    if folder.is_dir() {
        return Ok(folder);
    }
    let Some(environment) = environment else { return Err(StoreError::NoEnvironment { id: id.to_string() }) };
    private_folder(&hub).map_err(StoreError::io("making", &hub))?;
    let _turn = turn(downloads, progress).await;
    if folder.is_dir() {
        return Ok(folder);
    }
    progress.tell(format!("asking the hub for {id}"));
    fetch(&hub, id, environment, progress).await
}

/// First come, first served; who waits says so.
async fn turn<'a>(downloads: &'a Mutex<()>, progress: &Progress) -> MutexGuard<'a, ()> {
    if let Ok(turn) = downloads.try_lock() {
        return turn;
    }
    progress.tell("waiting until another model is downloaded");
    downloads.lock().await
}

async fn fetch(
    hub: &Path,
    id: &HubId,
    environment: &PythonEnvironment,
    progress: &Progress,
) -> Result<PathBuf, StoreError> {
    let mut command = environment.module(MODULE);
    command.arg(id.as_str()).arg("--into").arg(hub);
    let mut last_event = FetchEvent::Unknown;
    let mut outcome = None;
    let ended = child::run(command, DOWNLOAD_SILENCE, |source, line| {
        if source == Source::Errors {
            tracing::debug!(model = %id, line, "the download says");
            return Heard::Noise;
        }
        let event = FetchEvent::parse(line);
        match &event {
            FetchEvent::Progress { done_bytes, total_bytes, file } => {
                let words = format!("downloading {file}: {} of {}", size(*done_bytes), size(*total_bytes));
                progress.part(words, *done_bytes, *total_bytes);
            }
            FetchEvent::Done { path } => outcome = Some(Ok(PathBuf::from(path))),
            FetchEvent::Error { code, text } => {
                outcome =
                    Some(Err(StoreError::Hub { id: id.to_string(), code: code.clone(), text: text.clone() }));
            }
            FetchEvent::Unknown => return Heard::Noise,
        }
        // The same figures again mean that it lives, not that it gets on.
        let heard = if event == last_event { Heard::Noise } else { Heard::Progress };
        last_event = event;
        heard
    });
    match (ended.await, outcome) {
        (Ok(ended), Some(Ok(path))) if ended.status.success() && path.is_dir() => Ok(path),
        (_, Some(Err(error))) => Err(error),
        (Err(ChildError::Silent { silence, .. }), _) => {
            Err(StoreError::HubSilent { id: id.to_string(), seconds: silence.as_secs() })
        }
        (Err(ChildError::Io(source)), _) => Err(StoreError::io("running", &environment.python)(source)),
        (Ok(ended), _) => Err(StoreError::HubBroken { id: id.to_string(), last_lines: ended.last_lines }),
    }
}
