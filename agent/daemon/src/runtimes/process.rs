//! The process of one runtime, behind its guard.
//!
//! Owns starting it in a process group of its own, listening to its log, waiting for it and killing the group. Refuses to
//! leave one behind: dropping it closes the guard's standard input, upon which the guard kills the group.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::group;
use super::last_words::LastWords;
use crate::guard::KILLED_BASE;
use crate::limits;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) guard_program: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// `None` removes a variable that the agent itself has.
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
}

pub(crate) struct Process {
    child: Child,
    group: Pid,
    /// The guard's standard input, whose end is our death to it. Not left in `child`: waiting for that would close it.
    _lifeline: Option<ChildStdin>,
    log: Vec<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(
        launch: &Launch,
        model: &str,
        socket: &Path,
        words: &LastWords,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(&launch.guard_program);
        command.arg("guard").arg("--").arg(&launch.program).args(&launch.args).arg("--socket").arg(socket);
        // A secret that a runtime has no use for.
        command.env_remove("MLX_SERVING_TOKEN");
        for (name, value) in &launch.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Leader from its first instruction: a kill of the group can never miss it, nor hit ours.
        command.process_group(0).kill_on_drop(true);
        let starting = || format!("starting {} through its guard", launch.program.display());
        let mut child = command.spawn().with_context(starting)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group.with_context(starting)?;
        let mut log = Vec::new();
        if let Some(out) = child.stdout.take() {
            log.push(tokio::spawn(words.clone().listen(model.to_owned(), out)));
        }
        if let Some(err) = child.stderr.take() {
            log.push(tokio::spawn(words.clone().listen(model.to_owned(), err)));
        }
        let _lifeline = child.stdin.take();
        Ok(Self { child, group, _lifeline, log })
    }

    /// After the end: its last lines may still be in the pipe.
    pub(crate) async fn log_ended(&mut self) {
        for stream in self.log.drain(..) {
            let _ = timeout(limits::LAST_FRAMES, stream).await;
        }
    }

    /// The group that the guard leads and the runtime is in.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// The end of its guard, and of whatever the guard left behind: one that was killed alone has not killed its runtime.
    /// Cancel-safe.
    pub(crate) async fn ended(&mut self) -> Ending {
        let ending = Ending::of(self.child.wait().await.ok());
        // As long as something of the group lives, its number is given to nobody else.
        if group::alive(self.group) {
            self.kill_group();
            group::gone(self.group).await;
        }
        ending
    }

    /// Kills the group, whatever state it is in, and waits until nothing of it lives: the guard dies at once, a runtime that
    /// hangs in the kernel when the kernel lets go of it.
    pub(crate) async fn kill(&mut self) -> Ending {
        // The guard is not reaped while `id` knows it, so the number cannot belong to a stranger.
        if self.child.id().is_some() {
            self.kill_group();
        }
        self.ended().await
    }

    fn kill_group(&self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// How a runtime ended, as its guard passed it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Status(i32),
    Signal(i32),
    Unknown,
}

impl Ending {
    fn of(status: Option<ExitStatus>) -> Self {
        let base = i32::from(KILLED_BASE);
        match status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) if code > base => Self::Signal(code - base),
            Some((Some(code), _)) => Self::Status(code),
            Some((None, Some(signal))) => Self::Signal(signal),
            Some((None, None)) | None => Self::Unknown,
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(code) => write!(out, "ended with status {code}"),
            Self::Signal(signal) => write!(out, "was killed by signal {signal}"),
            Self::Unknown => out.write_str("ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A guard that is gone at once, with a runtime behind that lives until the gate says a line.
    fn survivor(scratch: &Path) -> Process {
        let (guard, gate) = (scratch.join("guard"), scratch.join("gate"));
        assert!(std::process::Command::new("mkfifo").arg(&gate).status().expect("runs").success());
        let script = format!("#!/bin/sh\n(read pass < {}) >/dev/null 2>&1 &\n", gate.display());
        std::fs::write(&guard, script).expect("written");
        std::fs::set_permissions(&guard, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let launch =
            Launch { guard_program: guard, program: "none".into(), args: Vec::new(), env: Vec::new() };
        Process::start(&launch, "m", Path::new("none"), &LastWords::default()).expect("started")
    }

    #[tokio::test]
    async fn a_runtime_is_gone_with_its_guard_also_where_that_dies_alone() {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut process = survivor(scratch.path());
        assert_eq!(process.ended().await, Ending::Status(0));
        assert!(!group::alive(process.group()));
        assert_eq!(process.kill().await, Ending::Status(0), "there is nothing left to kill");
    }

    #[tokio::test]
    async fn a_group_is_gone_when_the_runtime_is_and_not_when_its_guard_is() {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut process = survivor(scratch.path());
        process.child.wait().await.expect("a guard that ends");
        // As it is with a runtime that hangs in the kernel: the guard is gone, and it lives.
        let mut going = std::pin::pin!(group::gone(process.group()));
        tokio::select! {
            biased;
            () = &mut going => panic!("it lives"),
            () = std::future::ready(()) => {}
        }
        std::fs::write(scratch.path().join("gate"), "\n").expect("written");
        going.await;
    }

    #[test]
    fn a_signal_that_a_guard_passes_on_is_told_as_a_signal() {
        assert_eq!(Ending::of(Some(ExitStatus::from_raw(137 << 8))), Ending::Signal(9));
        assert_eq!(Ending::of(Some(ExitStatus::from_raw(9))), Ending::Signal(9));
        assert_eq!(Ending::of(Some(ExitStatus::from_raw(3 << 8))), Ending::Status(3));
    }
}
