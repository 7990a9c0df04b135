//! The agent's loop: what happens becomes a command, the supervisor's effects become deeds, and the picture is published.
//!
//! Owns the order of these three. Refuses policy: when to start, stop or give up is decided in the `supervisor` crate; how a deed
//! is done, in `deeds`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use supervisor::{Command, ExitStatus, Incarnation, Limits, ModelKey, Span, Supervisor};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Entry};
use crate::clock::Clock;
use crate::limits;
use crate::models::{Desire, Model, Models, Wish};
use crate::notice::{Notice, Notices};
use crate::preparing::{PreparedModel, Preparer, Unprepared};
use crate::runtimes::{Ending, Event, RunFolder, Runtime};
use crate::version::{Newest, Version};

/// What the loop hears.
#[derive(Debug)]
pub(crate) enum Input {
    /// A coordinator's wish, complete, as of a state of the registry.
    Wanted {
        version: Version,
        wishes: Vec<Wish>,
    },
    Preparing {
        model: ModelKey,
        words: String,
        permille: u16,
    },
    Prepared {
        model: ModelKey,
        outcome: Result<Arc<PreparedModel>, Unprepared>,
    },
    Runtime {
        incarnation: u64,
        event: Event,
    },
}

pub(crate) struct Agent {
    pub(crate) supervisor: Supervisor,
    pub(crate) clock: Clock,
    newest: Newest,
    pub(crate) models: Models,
    pub(crate) runtimes: BTreeMap<Incarnation, (ModelKey, Arc<Runtime>)>,
    pub(crate) run_folder: RunFolder,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) slots: u32,
    pub(crate) inputs: mpsc::Sender<Input>,
    board: watch::Sender<Arc<Board>>,
    notices: Notices,
}

impl Agent {
    pub(crate) fn new(
        budget_bytes: u64,
        slots: u32,
        run_folder: RunFolder,
        preparer: Arc<Preparer>,
        inputs: mpsc::Sender<Input>,
        board: watch::Sender<Arc<Board>>,
        notices: Notices,
    ) -> Self {
        Self {
            supervisor: Supervisor::new(Limits::default(), budget_bytes),
            clock: Clock::start(),
            newest: Newest::default(),
            models: Models::default(),
            runtimes: BTreeMap::new(),
            run_folder,
            preparer,
            slots,
            inputs,
            board,
            notices,
        }
    }

    /// Until `drain` was asked for and the last process is gone.
    pub(crate) async fn run(mut self, mut heard: mpsc::Receiver<Input>, drain: CancellationToken) {
        while !self.supervisor.drained() {
            let wake = self.supervisor.next_deadline().and_then(|(at, _)| self.clock.instant(at));
            let draining = self.supervisor.draining();
            let command = tokio::select! {
                Some(input) = heard.recv() => self.hear(input),
                () = sleep_until(wake) => Some(Command::Wake),
                () = drain.cancelled(), if !draining => Some(Command::Drain),
            };
            if let Some(command) = command {
                self.apply(command);
            }
            self.publish();
        }
    }

    /// A deed can fail at once, which is the next command.
    fn apply(&mut self, command: Command) {
        let mut commands = VecDeque::from([command]);
        while let Some(command) = commands.pop_front() {
            let mut effects = Vec::new();
            self.supervisor.apply(self.clock.now(), command, &mut effects);
            commands.extend(effects.into_iter().filter_map(|effect| self.carry_out(effect)));
        }
        self.models.forget_gone();
    }

    fn hear(&mut self, input: Input) -> Option<Command> {
        match input {
            Input::Wanted { version, wishes } => {
                if !self.newest.hear(version) {
                    tracing::info!(?version, "a wish is void: a newer one was heard");
                    return None;
                }
                for key in self.models.want(&wishes) {
                    self.prepare(key);
                }
                Some(Command::Want { models: self.models.wish() })
            }
            Input::Preparing { model, words, permille } => {
                let model = self.models.get_mut(model)?;
                (model.preparing_words, model.permille) = (words, permille);
                None
            }
            Input::Prepared { model, outcome: Ok(prepared) } => {
                let model = self.models.get_mut(model)?;
                let mut figures = model.figures.lock().unwrap_or_else(PoisonError::into_inner);
                figures.rates.seed(prepared.seed);
                drop(figures);
                (model.prepared, model.unprepared) = (Some(prepared), None);
                Some(Command::Want { models: self.models.wish() })
            }
            Input::Prepared { model, outcome: Err(unprepared) } => {
                let known = self.models.get_mut(model)?;
                known.unprepared = Some(unprepared.reason.clone());
                let Unprepared { reason, retry } = unprepared;
                // Of one that is only offered, the supervisor knows nothing.
                (known.desire == Desire::Held).then_some(Command::Unresolvable { model, reason, retry })
            }
            Input::Runtime { incarnation, event } => self.hear_runtime(Incarnation(incarnation), event),
        }
    }

    fn hear_runtime(&mut self, incarnation: Incarnation, event: Event) -> Option<Command> {
        let (key, _) = self.runtimes.get(&incarnation)?;
        let model = self.models.get_mut(*key)?;
        match event {
            Event::Hello { pid } => {
                model.process.as_mut()?.pid = pid;
                Some(Command::Hello { incarnation })
            }
            Event::Loaded { bytes } => {
                let process = model.process.as_mut()?;
                process.load_ms = millis(self.clock.now().since(process.started));
                Some(Command::Loaded { incarnation, bytes })
            }
            Event::LoadFailed { code, text } => {
                let reason = format!("{text} ({code})");
                Some(Command::LoadFailed { incarnation, reason, permanent: is_permanent(&code) })
            }
            Event::Progress { fraction } => {
                model.permille = fraction.map_or(model.permille, permille);
                Some(Command::Progress { incarnation, expected_step: expected_step(model, self.slots) })
            }
            Event::Drained => Some(Command::Drained { incarnation }),
            Event::Exited { ending, last_words } => {
                model.process = None;
                self.runtimes.remove(&incarnation);
                Some(Command::Exited { incarnation, status: status(ending), last_words })
            }
        }
    }

    /// Shows the rest of the agent and the terminal what changed.
    fn publish(&self) {
        let entries = self.models.in_order().map(|(key, model)| {
            let (state, reason) = model.told();
            let starts = self.supervisor.explain(key).map_or(0, |verdict| verdict.starts);
            let entry = Entry {
                state,
                reason,
                permille: model.progress(),
                facts: model.prepared.as_ref().map(|prepared| prepared.facts.clone()),
                card: model.prepared.as_ref().map(|prepared| Arc::clone(&prepared.card)),
                footprint: model.prepared.as_ref().map(|prepared| prepared.footprint).unwrap_or_default(),
                slots: self.slots,
                figures: Arc::clone(&model.figures),
                restarts: starts.saturating_sub(1),
                process: model.process.clone(),
            };
            (model.offer.model.clone(), entry)
        });
        let board = Board { models: entries.collect() };
        let former = self.board.borrow().clone();
        for (name, entry) in board.models.iter().filter(|(name, entry)| entry.news(former.models.get(*name)))
        {
            let (model, reason) = (name.clone(), entry.reason.clone());
            self.notices.tell(Notice::Model { model, state: entry.state, reason, permille: entry.permille });
        }
        if board.differs(&former) {
            self.board.send_replace(Arc::new(board));
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// How long the runtime may be silent is reckoned from what it usually takes.
fn expected_step(model: &Model, slots: u32) -> Span {
    let figures = model.figures.lock().unwrap_or_else(PoisonError::into_inner);
    let chunk = figures.rates.chunk_max(limits::PREFILL_PIECE, limits::PREFILL_CHUNK);
    Span::from_millis(whole(figures.rates.expected_step_ms(slots, chunk)))
}

/// At least one: zero says that nobody knows.
fn millis(span: Span) -> u32 {
    u32::try_from(span.0 / 1_000).unwrap_or(u32::MAX).max(1)
}

fn permille(fraction: f32) -> u16 {
    u16::try_from(whole(f64::from(fraction.clamp(0.0, 1.0)) * 1e3)).unwrap_or(1_000)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates; NaN is 0"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

fn status(ending: Ending) -> ExitStatus {
    match ending {
        Ending::Status(code) => ExitStatus { code: Some(code), signal: None },
        Ending::Signal(signal) => ExitStatus { code: None, signal: Some(signal) },
        Ending::Unknown => ExitStatus::default(),
    }
}

/// Codes of `load` that the same folder will give again.
fn is_permanent(code: &str) -> bool {
    matches!(code, "unsupported_model" | "invalid_request")
}
