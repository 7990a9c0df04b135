//! The guard as a process: what it passes on, and whom it takes along.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_daemon-test-program");

/// A shell script under guard, in a process group of its own as the agent starts it.
fn guarded(script: &str) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["guard", "--", "sh", "-c", script]).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts")
}

/// Waits with the guard's input open: waiting for a child that still has its own would close it.
fn status_of(mut guard: Child) -> ExitStatus {
    let _open = guard.stdin.take();
    guard.wait().expect("ends")
}

/// The first line it says, here always the number of the process in question.
fn said(child: &mut Child) -> (Pid, BufReader<std::process::ChildStdout>) {
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    let pid = line.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
    (pid, output)
}

/// The pipe ends when everybody who holds it is gone: the runtime and all it started.
fn everybody_is_gone(mut output: BufReader<std::process::ChildStdout>) {
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).expect("readable");
}

#[test]
fn the_exit_status_is_passed_on() {
    for code in [0, 3, 70] {
        assert_eq!(status_of(guarded(&format!("exit {code}"))).code(), Some(code));
    }
}

#[test]
fn a_death_by_signal_is_passed_on_as_a_shell_does_it() {
    assert_eq!(status_of(guarded("kill -SEGV $$")).code(), Some(128 + 11));
}

#[test]
fn a_program_that_cannot_be_started_is_the_guards_own_failure() {
    let mut command = Command::new(PROGRAM);
    let output =
        command.args(["guard", "--", "/no/such/program"]).stdin(Stdio::piped()).output().expect("runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125));
    assert!(words.contains("/no/such/program"), "{words}");
}

#[test]
fn when_its_input_ends_the_guard_kills_the_group_even_a_stopped_child_and_a_grandchild() {
    let mut guard = guarded("sleep 1000 & echo $$; kill -STOP $$; sleep 1000");
    let (_, output) = said(&mut guard);
    drop(guard.stdin.take());
    let status = guard.wait().expect("ends");
    assert_eq!(status.signal(), Some(9));
    everybody_is_gone(output);
}

#[test]
fn a_terminated_guard_takes_its_group_along() {
    let mut guard = guarded("echo $$; exec sleep 1000");
    let (_, output) = said(&mut guard);
    let pid = i32::try_from(guard.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::TERM).expect("signalled");
    assert_eq!(status_of(guard).signal(), Some(9));
    everybody_is_gone(output);
}

#[test]
fn when_the_guard_itself_is_killed_the_runtime_reads_the_end_of_its_input() {
    let mut guard = guarded("echo $$; cat; echo bye");
    let (_, mut output) = said(&mut guard);
    guard.kill().expect("killed");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("readable");
    assert_eq!(rest, "bye\n");
    guard.wait().expect("ends");
}

#[test]
fn while_the_guard_lives_the_runtimes_input_stays_open() {
    let mut guard = guarded("echo $$; exec 3<&0; (cat <&3; echo ended) & sleep 0.2; echo open; wait");
    let (_, mut output) = said(&mut guard);
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n");
    drop(guard.stdin.take());
    guard.wait().expect("ends");
    everybody_is_gone(output);
}

#[test]
fn the_runtime_shares_the_guards_group_and_no_other() {
    let mut guard = guarded("echo $$; cat");
    let (pid, output) = said(&mut guard);
    let group = rustix::process::getpgid(Some(pid)).expect("a group");
    assert_eq!(u32::try_from(group.as_raw_nonzero().get()), Ok(guard.id()));
    assert_ne!(group, rustix::process::getpgrp());
    drop(guard.stdin.take());
    guard.wait().expect("ends");
    everybody_is_gone(output);
}

#[test]
fn a_guard_started_by_hand_makes_a_group_of_its_own() {
    let mut command = Command::new(PROGRAM);
    command.args(["guard", "--", "sh", "-c", "echo $$; cat"]);
    let mut guard = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let (pid, output) = said(&mut guard);
    assert_ne!(rustix::process::getpgid(Some(pid)).expect("a group"), rustix::process::getpgrp());
    drop(guard.stdin.take());
    assert_eq!(guard.wait().expect("ends").signal(), Some(9));
    everybody_is_gone(output);
}
