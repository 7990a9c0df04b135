//! One renderer, as the coordinator holds it.
//!
//! Owns the process and the two pipes, and tells what it died of. Refuses to hand anything on: no variable of the environment, no
//! descriptor but those pipes. All that are opened here close when another program begins; only what was left open to this process from
//! outside goes on.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::frames::{self, Answer, GREETING};
use crate::config::RendererProgram;
use crate::gateway::limits;

pub(super) struct Renderer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The longest text it has had.
    bytes: usize,
}

/// Where the answer should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It worked for longer than it may.
    Outlasted,
    /// As one dies that has no memory or no stack left.
    Overflowed,
    /// Killed, perhaps by somebody: nothing is known of the template.
    Died,
}

impl Renderer {
    /// One whose greeting is still to come.
    pub(super) fn spawn(program: &RendererProgram) -> anyhow::Result<Self> {
        let mut command = Command::new(&program.program);
        // Its file may be known by a link that names nothing.
        command.arg0("mlx-serving").args(&program.arguments).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // In a group of its own, a Ctrl-C at the terminal reaches only those who know what to do about it.
        command.process_group(0).kill_on_drop(true);
        let starting = || format!("starting {}", program.program.display());
        let mut child = command.spawn().with_context(starting)?;
        let input = child.stdin.take().with_context(starting)?;
        let output = BufReader::new(child.stdout.take().with_context(starting)?);
        Ok(Self { child, input, output, bytes: 0 })
    }

    pub(super) async fn greeting(&mut self) -> anyhow::Result<()> {
        let mut begin = (&mut self.output).take(limits::RENDERER_GREETING_BYTES);
        let mut line = Vec::new();
        while line != GREETING.as_bytes() {
            line.clear();
            let read = begin.read_until(b'\n', &mut line).await.context("reading its greeting")?;
            anyhow::ensure!(read > 0, "it did not greet as one that understands this release");
            line.pop();
        }
        Ok(())
    }

    /// Nothing is known of one that nobody has asked for a while.
    pub(super) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn small(&self) -> bool {
        self.bytes <= limits::RENDERER_KEPT_BYTES
    }

    /// One question, one answer. An error is the end of this renderer.
    pub(super) async fn ask(&mut self, question: &[u8]) -> Result<Answer, Loss> {
        match timeout(limits::RENDERING, self.exchange(question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.died_of().await),
            Err(_) => {
                let _ = timeout(limits::RENDERER_END, self.child.kill()).await;
                Err(Loss::Outlasted)
            }
        }
    }

    async fn exchange(&mut self, question: &[u8]) -> anyhow::Result<Answer> {
        self.input.write_all(&frames::head(question.len())?).await?;
        self.input.write_all(question).await?;
        let mut head = [0; 4];
        self.output.read_exact(&mut head).await?;
        let mut answer = vec![0; frames::length(head, limits::RENDERER_ANSWER_BYTES_MAX)?];
        self.output.read_exact(&mut answer).await?;
        self.bytes = self.bytes.max(question.len()).max(answer.len());
        Ok(rmp_serde::from_slice(&answer)?)
    }

    async fn died_of(&mut self) -> Loss {
        let Ok(Ok(status)) = timeout(limits::RENDERER_END, self.child.wait()).await else {
            let _ = timeout(limits::RENDERER_END, self.child.kill()).await;
            return Loss::Died;
        };
        match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => Loss::Outlasted,
            Some(Signal::ABORT | Signal::SEGV | Signal::BUS) => Loss::Overflowed,
            Some(_) | None => Loss::Died,
        }
    }
}
