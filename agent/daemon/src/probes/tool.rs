//! A tool of the system, asked once.
//!
//! Owns the bounds on its time and its words. Refuses to fail: a tool that is missing, hangs or says too much has no answer.
//! What it says counts even if it ends badly: `sysctl` fails when one of many names is unknown.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::limits::{TOOL_ANSWER, TOOL_BYTES_MAX};

/// A way to ask tools; tests hand in recorded answers.
pub(super) type Tools<'a> = &'a dyn Fn(&str, &[&str]) -> Option<String>;

/// The standard output of a tool, given by its full path.
pub(super) fn run(program: &str, arguments: &[&str]) -> Option<String> {
    run_within(program, arguments, TOOL_ANSWER)
}

fn run_within(program: &str, arguments: &[&str], time: Duration) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let output = child.stdout.take()?;
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.take(TOOL_BYTES_MAX + 1).read_to_end(&mut text);
        // Nobody listens any more once the time is up.
        let _ = sender.send(read.map(|_| text));
    });
    let text = answer.recv_timeout(time);
    // Whether it hangs, says too much or has ended: this ends it, and no child is left behind.
    let _ = child.kill();
    let _ = child.wait();
    let text = text.ok()?.ok()?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > TOOL_BYTES_MAX) {
        return None;
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_says_is_its_answer_even_if_it_ends_badly() {
        assert_eq!(run("/bin/sh", &["-c", "echo yes; echo no >&2; exit 1"]).as_deref(), Some("yes\n"));
    }

    #[test]
    fn a_tool_that_is_missing_has_no_answer() {
        assert_eq!(run("/nonexistent/tool", &[]), None);
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        assert_eq!(
            run_within("/bin/sh", &["-c", "echo half; exec sleep 600"], Duration::from_millis(50)),
            None
        );
    }

    #[test]
    fn a_tool_that_says_too_much_has_no_answer() {
        let script = format!("head -c {} /dev/zero", TOOL_BYTES_MAX + 1);
        assert_eq!(run("/bin/sh", &["-c", &script]), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_no_answer() {
        assert_eq!(run("/bin/sh", &["-c", "printf '\\377'"]), None);
    }
}
