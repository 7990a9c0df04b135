//! What a person sees while things take time.
//!
//! Owns turning the agent's notices into lines on stderr: a bar on a terminal, a line at each change elsewhere. Refuses to hold
//! anything up: notices that come too fast are skipped.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use daemon::{ModelWord, Notice};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::exit::{Exit, failure};

const TICK: Duration = Duration::from_millis(100);
/// Where there is no terminal, long work says so often how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows notices, one line each, until the agent ends. A bar would fight with logs and answers for the same screen.
pub(crate) async fn show(mut notices: mpsc::Receiver<Notice>) {
    let mut screen = Screen::lines();
    while let Some(notice) = notices.recv().await {
        screen.show(&notice);
    }
    screen.clear();
}

/// Shows notices until `model` is ready and returns the machine's description; a model that cannot become ready is an error.
/// Later notices are shown by a task of their own.
pub(crate) async fn show_until_ready(
    mut notices: mpsc::Receiver<Notice>,
    model: String,
) -> anyhow::Result<String> {
    let mut screen = Screen::bar();
    let mut machine = String::new();
    while let Some(notice) = notices.recv().await {
        screen.show(&notice);
        match notice {
            Notice::Machine { chip, os, memory_bytes } => {
                machine = format!("{chip}, {} GiB, {os}", memory_bytes >> 30);
            }
            Notice::Model { model: name, state: ModelWord::Ready, .. } if name == model => {
                screen.clear();
                tokio::spawn(show(notices));
                return Ok(machine);
            }
            Notice::Model { model: name, state: ModelWord::Failed, reason, .. } if name == model => {
                screen.clear();
                return Err(failure(Exit::Refused, format!("{model} cannot be served: {reason}")));
            }
            Notice::EnvironmentFailed { words } => {
                screen.clear();
                return Err(anyhow::anyhow!("{words}"));
            }
            Notice::Model { .. }
            | Notice::EnvironmentStep { .. }
            | Notice::EnvironmentReady
            | Notice::Joined { .. }
            | Notice::CoordinatorLost { .. }
            | Notice::CoordinatorBack
            | Notice::Coordinators { .. }
            | Notice::Draining { .. } => {}
        }
    }
    screen.clear();
    Err(anyhow::anyhow!("the agent ended before {model} was ready"))
}

/// What one notice says, and how far it is.
fn words(notice: &Notice) -> (String, Option<u16>) {
    match notice {
        Notice::Machine { chip, .. } => (format!("this machine: {chip}"), None),
        Notice::EnvironmentStep { words, permille } => (words.clone(), *permille),
        Notice::EnvironmentReady => ("Python environment ready".to_owned(), None),
        Notice::EnvironmentFailed { words } => (words.clone(), None),
        Notice::Joined { node, cluster } => (format!("joined cluster {cluster} as node {node}"), None),
        Notice::Model { model, state, reason, permille } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            let progress = (*permille > 0 && *permille < 1_000).then_some(*permille);
            (format!("{model} {}{reason}", state_word(*state)), progress)
        }
        Notice::CoordinatorLost { words } => (format!("coordinator lost ({words}); trying again"), None),
        Notice::CoordinatorBack => ("coordinator is back".to_owned(), None),
        Notice::Coordinators { connected, known } => {
            (format!("connected to {connected} of {known} coordinators"), None)
        }
        Notice::Draining { attempts } => (format!("draining: {attempts} answers still run"), None),
    }
}

fn state_word(state: ModelWord) -> &'static str {
    match state {
        ModelWord::Waiting => "waits",
        ModelWord::Starting => "starts",
        ModelWord::Loading => "loads",
        ModelWord::Ready => "is ready",
        ModelWord::Stopping => "stops",
        ModelWord::Failed => "failed",
        ModelWord::Offered => "is prepared",
    }
}

/// A bar on a terminal, lines elsewhere.
struct Screen {
    bar: Option<ProgressBar>,
    lines: Lines,
    draining: bool,
}

impl Screen {
    fn lines() -> Self {
        Self { bar: None, lines: Lines::default(), draining: false }
    }

    fn bar() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1_000).with_style(style(false));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, ..Self::lines() }
    }

    #[expect(clippy::print_stderr, reason = "this is the command line")]
    fn show(&mut self, notice: &Notice) {
        self.draining |= matches!(notice, Notice::Draining { .. });
        // Whoever stops everything need not hear that one part misses the other.
        if self.draining && matches!(notice, Notice::CoordinatorLost { .. } | Notice::Coordinators { .. }) {
            return;
        }
        let (words, permille) = words(notice);
        match &self.bar {
            Some(bar) => {
                bar.set_style(style(permille.is_some()));
                bar.set_message(words);
                bar.set_position(u64::from(permille.unwrap_or(0)));
            }
            None => {
                if let Some(line) = self.lines.line(notice, words, permille, Instant::now()) {
                    eprintln!("  {line}");
                }
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(with_bar: bool) -> ProgressStyle {
    let template = if with_bar { "  {spinner} {msg} {bar:24} {percent}%" } else { "  {spinner} {msg}" };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Which notices are worth a line where nothing can be overwritten: each change, and steps of long work now and then.
#[derive(Default)]
struct Lines {
    last: String,
    last_step: Option<Instant>,
}

impl Lines {
    fn line(
        &mut self,
        notice: &Notice,
        words: String,
        permille: Option<u16>,
        now: Instant,
    ) -> Option<String> {
        let waits = matches!(notice, Notice::Model { state: ModelWord::Waiting, .. });
        let is_step = waits || matches!(notice, Notice::EnvironmentStep { .. });
        if is_step || permille.is_some() {
            if self.last_step.is_some_and(|last| now.duration_since(last) < LINE_EVERY) {
                return None;
            }
            self.last_step = Some(now);
        } else if self.last == words {
            return None;
        }
        self.last.clone_from(&words);
        Some(match permille {
            Some(done) => format!("{words} ({}%)", done / 10),
            None => words,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(state: ModelWord, reason: &str) -> Notice {
        Notice::Model { model: "m".to_owned(), state, reason: reason.to_owned(), permille: 0 }
    }

    #[tokio::test]
    async fn waiting_ends_when_the_model_is_ready() {
        let (notices, heard) = mpsc::channel(8);
        let machine = Notice::Machine {
            chip: "Apple M4".to_owned(),
            os: "macOS 26".to_owned(),
            memory_bytes: 16 << 30,
        };
        for notice in [machine, model(ModelWord::Loading, ""), model(ModelWord::Ready, "")] {
            notices.send(notice).await.expect("room");
        }
        let shown = show_until_ready(heard, "m".to_owned()).await.expect("ready");
        assert_eq!(shown, "Apple M4, 16 GiB, macOS 26");
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_served_is_an_error_with_its_reason() {
        let (notices, heard) = mpsc::channel(8);
        notices.send(model(ModelWord::Failed, "no safetensors")).await.expect("room");
        let error = show_until_ready(heard, "m".to_owned()).await.expect_err("failed");
        assert!(error.to_string().contains("no safetensors"), "{error}");
    }

    #[tokio::test]
    async fn an_agent_that_ends_early_is_an_error() {
        let (notices, heard) = mpsc::channel(8);
        drop(notices);
        assert!(show_until_ready(heard, "m".to_owned()).await.is_err());
    }

    #[test]
    fn one_coordinator_of_several_is_a_number_and_none_is_a_loss() {
        let said = |notice| words(&notice).0;
        let some = Notice::Coordinators { connected: 2, known: 3 };
        assert_eq!(said(some), "connected to 2 of 3 coordinators");
        let none = Notice::CoordinatorLost { words: "no route".to_owned() };
        assert_eq!(said(none), "coordinator lost (no route); trying again");
    }

    #[test]
    fn without_a_terminal_long_work_takes_a_line_each_ten_seconds_and_each_change_its_own() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let step =
            |done: u16| Notice::EnvironmentStep { words: format!("package {done}"), permille: Some(done) };
        let mut shown = Vec::new();
        let mut hear = |notice: Notice, at_s: u64| {
            let (words, permille) = words(&notice);
            shown.extend(lines.line(&notice, words, permille, start + Duration::from_secs(at_s)));
        };
        hear(step(10), 0);
        hear(step(20), 1);
        hear(step(30), 11);
        hear(Notice::EnvironmentReady, 12);
        hear(model(ModelWord::Starting, ""), 12);
        hear(model(ModelWord::Starting, ""), 12);
        hear(model(ModelWord::Ready, ""), 13);
        assert_eq!(
            shown,
            ["package 10 (1%)", "package 30 (3%)", "Python environment ready", "m starts", "m is ready"]
        );
    }
}
