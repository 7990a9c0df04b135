//! The guard: a small process between an agent and one runtime, so that no runtime outlives its agent.
//!
//! Owns one process group with the runtime in it. It waits for whichever comes first: the runtime's end, whose status it
//! passes on; or the end of its own standard input (the agent died or let go) or SIGTERM, upon which the whole group is killed,
//! a stopped runtime too. The runtime's standard input is a pipe that only the guard holds: should the guard itself be killed,
//! the runtime reads end of file there. Refuses to run in a group of others, whom the kill would hit.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group, setpgid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The guard itself failed: the program could not be started.
const FAILED: u8 = 125;
/// As shells do it: killed by signal n is 128 + n.
pub(crate) const KILLED_BASE: u8 = 128;

/// Runs `command` (program and arguments) under guard; the exit code is the program's.
#[expect(clippy::print_stderr, reason = "its standard error is the runtime's log, which the agent reads")]
pub fn guard(command: &[OsString]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let held = runtime.context("starting the guard").and_then(|runtime| {
        let held = runtime.block_on(hold(command));
        // The thread that reads standard input may wait for ever: leave it behind.
        runtime.shutdown_background();
        held
    });
    match held {
        Ok(status) => ExitCode::from(code(status)),
        Err(error) => {
            eprintln!("guard: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn hold(command: &[OsString]) -> anyhow::Result<ExitStatus> {
    lead_own_group()?;
    let mut terminated = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let mut child = start(command)?;
    // Out of the child's hands: waiting for it would close it, and the runtime would take that for our death.
    let _lifeline = child.stdin.take();
    tokio::select! {
        status = child.wait() => status.context("waiting for the program"),
        _ = end_of_input() => kill_group(),
        _ = terminated.recv() => kill_group(),
    }
}

/// The agent starts the guard as leader of a group already; by hand it makes its own.
fn lead_own_group() -> anyhow::Result<()> {
    if getpgrp() != getpid() {
        setpgid(None, None).context("making a process group")?;
    }
    Ok(())
}

fn start(command: &[OsString]) -> anyhow::Result<Child> {
    let (program, arguments) = command.split_first().context("no program was named")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped());
    command.spawn().with_context(|| format!("starting {}", program.display()))
}

/// Resolves when standard input ends; what is written there means nothing.
fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut scrap = [0; 64];
        while std::io::stdin().read(&mut scrap).is_ok_and(|read| read > 0) {}
        let _ = ended.send(());
    });
    end
}

/// Ends this process too.
fn kill_group() -> anyhow::Result<ExitStatus> {
    kill_current_process_group(Signal::KILL).context("killing the group")?;
    Ok(ExitStatus::from_raw(Signal::KILL.as_raw()))
}

fn code(status: ExitStatus) -> u8 {
    let killed =
        || status.signal().and_then(|signal| u8::try_from(signal).ok()).map(|signal| KILLED_BASE + signal);
    status.code().and_then(|code| u8::try_from(code).ok()).or_else(killed).unwrap_or(FAILED)
}
