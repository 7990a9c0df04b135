//! The programs that the agent's tests start: the guard as it is, and a runtime that is a mere pipe.
//!
//! `relay --socket PATH` connects to the agent as a runtime does and copies bytes between it and the socket named in
//! `DAEMON_TEST_CONTROL`, after its own number in four bytes. So the test plays the runtime, while the agent sees a real child
//! with a real number in a real process group. It ends with either side, or with standard input, as a runtime must.

use std::ffi::OsString;
use std::io::{Read, Write as _, copy};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    match verb.to_str() {
        Some("guard") => daemon::guard(rest.strip_prefix(&[OsString::from("--")]).unwrap_or(&rest)),
        Some("relay") => relay(&rest).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        _ => ExitCode::FAILURE,
    }
}

fn relay(arguments: &[OsString]) -> std::io::Result<()> {
    let path = arguments.last().cloned().unwrap_or_default();
    let mut agent = UnixStream::connect(path)?;
    let mut control = UnixStream::connect(std::env::var_os("DAEMON_TEST_CONTROL").unwrap_or_default())?;
    control.write_all(&std::process::id().to_le_bytes())?;
    std::thread::spawn(|| {
        let _ = copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let (mut from_agent, mut to_control) = (agent.try_clone()?, control.try_clone()?);
    std::thread::spawn(move || {
        let _ = copy(&mut from_agent, &mut to_control);
        let _ = to_control.shutdown(Shutdown::Both);
    });
    pipe(&mut control, &mut agent)?;
    agent.shutdown(Shutdown::Both)
}

fn pipe(from: &mut impl Read, to: &mut UnixStream) -> std::io::Result<()> {
    copy(from, to).map(|_| ())
}
