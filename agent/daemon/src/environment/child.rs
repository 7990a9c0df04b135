//! One child process that is listened to line by line until it ends.
//!
//! Owns the reading, the bound on silence, and the last lines for an error. Refuses to interpret a line. Dropping the future
//! kills the child.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, sleep_until};

use super::limits::{LAST_LINES, LINE_BYTES_MAX};

/// Which of the child's two streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Output,
    Errors,
}

/// Whether a line shows that the child gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Progress,
    Noise,
}

/// How a child ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The last lines of both streams, oldest first.
    pub(crate) last_lines: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("it could not be started or read: {0}")]
    Io(#[from] io::Error),
    #[error("it made no progress for {} seconds and was stopped", silence.as_secs())]
    Silent { silence: Duration, last_lines: Vec<String> },
}

/// Runs a command to its end; `hear` gets each line and judges whether it is progress.
pub(crate) async fn run(
    mut command: Command,
    silence: Duration,
    mut hear: impl FnMut(Source, &str) -> Heard,
) -> Result<Ended, ChildError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("the child has no pipes").into());
    };
    let (mut output, mut errors) = (Lines::new(BufReader::new(output)), Lines::new(BufReader::new(errors)));
    let mut last = VecDeque::with_capacity(LAST_LINES);
    let mut deadline = Instant::now() + silence;
    while !(output.ended && errors.ended) {
        let (source, line) = tokio::select! {
            line = output.next(), if !output.ended => (Source::Output, line?),
            line = errors.next(), if !errors.ended => (Source::Errors, line?),
            () = sleep_until(deadline) => {
                child.kill().await?;
                return Err(ChildError::Silent { silence, last_lines: last.into() });
            }
        };
        let Some(line) = line else { continue };
        match hear(source, &line) {
            Heard::Progress => deadline = Instant::now() + silence,
            Heard::Noise => {}
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    tokio::select! {
        status = child.wait() => Ok(Ended { status: status?, last_lines: last.into() }),
        () = sleep_until(deadline) => {
            child.kill().await?;
            Err(ChildError::Silent { silence, last_lines: last.into() })
        }
    }
}

/// Lines of bounded length; what is longer is cut, not buffered.
struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    ended: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), ended: false }
    }

    /// The next line that is not blank; `None` at the end. Safe to cancel: what was read stays in `self`.
    async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                self.ended = true;
                return Ok(self.take_line());
            }
            let end = bytes.iter().position(|byte| *byte == b'\n' || *byte == b'\r');
            let piece = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend(piece.iter().take(room));
            let consumed = end.map_or(bytes.len(), |end| end + 1);
            self.reader.consume(consumed);
            if end.is_some()
                && let Some(line) = self.take_line()
            {
                return Ok(Some(line));
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        (!line.trim().is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn every_line_of_both_streams_is_heard_and_the_status_is_told() {
        let mut lines = Vec::new();
        let ended = run(
            shell("echo one; echo; printf 'two\\rthree'; echo four >&2; exit 3"),
            LONG,
            |source, line| {
                lines.push((source, line.to_owned()));
                Heard::Progress
            },
        )
        .await
        .expect("it ends");
        assert_eq!(ended.status.code(), Some(3));
        let of = |wanted| {
            lines.iter().filter(|(source, _)| *source == wanted).map(|(_, line)| line.as_str()).collect()
        };
        let (output, errors): (Vec<_>, Vec<_>) = (of(Source::Output), of(Source::Errors));
        assert_eq!(output, ["one", "two", "three"]);
        assert_eq!(errors, ["four"]);
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept() {
        let ended = run(shell("seq 1 100"), LONG, |_, _| Heard::Noise).await.expect("it ends");
        let expected: Vec<_> = (101 - LAST_LINES..=100).map(|number| number.to_string()).collect();
        assert_eq!(ended.last_lines, expected);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let script = format!("head -c {} /dev/zero | tr '\\0' x; echo; echo after", LINE_BYTES_MAX * 5);
        let ended = run(shell(&script), LONG, |_, _| Heard::Noise).await.expect("it ends");
        assert_eq!(ended.last_lines, ["x".repeat(LINE_BYTES_MAX), "after".to_owned()]);
    }

    #[tokio::test]
    async fn a_child_that_talks_but_does_not_get_on_is_stopped() {
        let script = "while true; do echo waiting; sleep 0.01; done";
        let error =
            run(shell(script), Duration::from_millis(300), |_, _| Heard::Noise).await.expect_err("stopped");
        let ChildError::Silent { last_lines, .. } = error else { panic!("{error}") };
        assert!(last_lines.iter().all(|line| line == "waiting"), "{last_lines:?}");
    }

    #[tokio::test]
    async fn a_child_that_gets_on_may_take_longer_than_the_silence() {
        let script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $n; sleep 0.2; done";
        run(shell(script), Duration::from_secs(2), |_, _| Heard::Progress).await.expect("it ends");
    }

    #[tokio::test]
    async fn dropping_the_wait_kills_the_child() {
        let folder = tempfile::tempdir().expect("scratch");
        let pid_file = folder.path().join("pid");
        let script = format!("echo $$ > {}; echo ready; exec sleep 600", pid_file.display());
        let (ready, heard) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let waiting = tokio::spawn(async move {
            run(shell(&script), LONG, |_, _| {
                ready.take().map(|ready| ready.send(()));
                Heard::Progress
            })
            .await
        });
        heard.await.expect("it started");
        waiting.abort();
        assert!(waiting.await.expect_err("aborted").is_cancelled());
        let pid: i32 = std::fs::read_to_string(&pid_file).expect("written").trim().parse().expect("a number");
        let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
        // The reaper runs beside us; the process is gone when a signal finds nobody.
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let missing = Command::new("/nonexistent/program");
        assert!(matches!(run(missing, LONG, |_, _| Heard::Noise).await, Err(ChildError::Io(_))));
    }
}
