//! A renderer, on its own side: a process that reads questions from its standard input and answers on its standard output.
//!
//! Owns what it takes from itself before it reads a word: files, further descriptors, core dumps, memory and, anew for each question,
//! time of the processor. Refuses to outlive whoever asks: it ends when its input does, also in the middle of a rendering.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::frames::{self, Answer, GREETING, Question};
use crate::gateway::limits;
use crate::gateway::text::template::Template;

/// Renders what is asked, until the standard input ends.
pub fn render_templates() -> ExitCode {
    // Nobody reads words: the standard error is closed.
    if serve().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve() -> anyhow::Result<()> {
    confine().context("giving up what a renderer has no use for")?;
    let (questions, asked) = sync_channel(1);
    let answering = std::thread::Builder::new().name("renderer".to_owned());
    answering.spawn(move || answer_all(&asked)).context("starting the thread that renders")?;
    // This thread only reads, so that it sees the end of the input while the other one works.
    let mut input = io::stdin().lock();
    while let Some(question) = frames::read(&mut input, limits::RENDERER_QUESTION_BYTES_MAX)? {
        questions.send(question).context("the answers have ended")?;
    }
    Ok(())
}

/// Threads and memory are all that is left.
fn confine() -> io::Result<()> {
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    // Those that are open stay open: the standard three.
    limit(Resource::Nofile, 3)?;
    // macOS counts the libraries that all processes share as a part of each, and takes no such limit; there only the time of the
    // processor bounds what a template can fill.
    if cfg!(target_os = "linux") {
        limit(Resource::As, limits::RENDERER_MEMORY_BYTES)?;
    }
    Ok(())
}

fn limit(resource: Resource, bound: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) })?)
}

/// The kernel ends this process when it has worked so long from here on. It counts in whole seconds.
fn limit_time() -> io::Result<()> {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or_default();
    let bound = used.saturating_add(1).saturating_add(limits::RENDERING_CPU_S);
    Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(bound), maximum: None })?)
}

fn answer_all(asked: &Receiver<Vec<u8>>) {
    let mut templates = Templates::default();
    let mut out = io::stdout().lock();
    let mut told = writeln!(out, "\n{GREETING}").and_then(|()| out.flush());
    while let (Ok(()), Ok(question)) = (&told, asked.recv()) {
        told = limit_time().and_then(|()| frames::write(&mut out, &templates.answer(&question).encode()));
    }
}

/// The templates that were asked for last, compiled; the newest first.
#[derive(Default)]
pub(super) struct Templates {
    compiled: VecDeque<Compiled>,
}

struct Compiled {
    source: String,
    special_tokens: Vec<(String, String)>,
    template: Template,
}

impl Templates {
    pub(super) fn answer(&mut self, question: &[u8]) -> Answer {
        // It comes from a program with the same frames; only one that nests too deep is not understood.
        let Ok(Question { source, special_tokens, conversation }) = rmp_serde::from_slice(question) else {
            return Answer::OutOfBounds;
        };
        let is = |known: &Compiled| known.source == source && known.special_tokens == *special_tokens;
        let compiled = match self.compiled.iter().position(is) {
            Some(at) => self.compiled.remove(at),
            None => match Template::compile(&source, special_tokens.to_vec()) {
                Ok(template) => Some(Compiled {
                    source: source.into_owned(),
                    special_tokens: special_tokens.into_owned(),
                    template,
                }),
                Err(error) => return Answer::of(Err(error)),
            },
        };
        let Some(compiled) = compiled else { return Answer::OutOfBounds };
        let rendered = match conversation {
            Some(conversation) => compiled.template.render(conversation),
            None => Ok(String::new()),
        };
        self.compiled.truncate(limits::RENDERER_TEMPLATES - 1);
        self.compiled.push_front(compiled);
        Answer::of(rendered)
    }
}
