//! Signals: the first asks for a drain, the second ends at once.
//!
//! Owns SIGINT and SIGTERM for the commands that serve.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// A token that the first signal cancels; a second signal ends the process with code 130.
#[expect(clippy::print_stderr, reason = "this is the command line")]
pub(crate) fn on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cancel = stop.clone();
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked {
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
            asked = true;
            eprintln!("stopping: running answers may finish; a second Ctrl-C ends at once");
            cancel.cancel();
        }
    });
    Ok(stop)
}
