//! One runtime process from its start to its end, as the rest of the agent sees it.
//!
//! Owns the process, its conversation and its rows together, so that they end together: whatever goes first, the rows are lost,
//! the group is killed, and exactly one [`Event::Exited`] follows. Refuses decisions: when to load, stop or kill is the
//! supervisor's word.

use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::process::Pid;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{Ended, converse};
use super::frames::{Generate, Load, Outgoing, StepStats};
use super::last_words::LastWords;
use super::outbox::{Outbox, Piece};
use super::process::{Ending, Launch, Process};
use super::rates::Rates;
use super::rows::{NoRow, Rows};
use super::run_folder::Socket;
use crate::agent::Input;
use crate::limits;

/// Numbers of the two questions an agent asks; each is asked once in a runtime's life.
pub(super) const LOAD_CALL: u64 = 1;
const SHUTDOWN_CALL: u64 = 2;

/// What happens to a runtime.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Hello { pid: u32 },
    Loaded { bytes: u64 },
    LoadFailed { code: String, text: String },
    Progress { fraction: Option<f32> },
    Exited { ending: Ending, last_words: String },
}

/// The way of a runtime's events to the agent's loop.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) incarnation: u64,
    pub(crate) inputs: mpsc::Sender<Input>,
}

impl Events {
    pub(super) async fn send(&self, event: Event) {
        // A closed inbox is an agent that ends.
        let _ = self.inputs.send(Input::Runtime { incarnation: self.incarnation, event }).await;
    }

    /// For what is worth nothing later.
    pub(super) fn offer(&self, event: Event) {
        let _ = self.inputs.try_send(Input::Runtime { incarnation: self.incarnation, event });
    }
}

/// Figures that outlive a runtime: its model's next one starts with them.
pub(crate) type SharedRates = Arc<Mutex<Rates>>;

/// What the conversation and the attempts both touch.
pub(crate) struct Shared {
    pub(crate) model: String,
    pub(crate) rows: Rows,
    rates: SharedRates,
}

impl Shared {
    pub(super) fn learn(&self, stats: StepStats) {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).learn(stats);
    }
}

/// The handle of a running runtime.
pub(crate) struct Runtime {
    /// The guard's, which leads the runtime's group.
    pid: u32,
    shared: Arc<Shared>,
    slots: u32,
    commands: mpsc::UnboundedSender<Outgoing>,
    kill: CancellationToken,
    kill_reason: Arc<OnceLock<String>>,
}

impl Runtime {
    /// Starts the process and everything around it.
    pub(crate) fn start(
        launch: &Launch,
        model: &str,
        slots: u32,
        rates: SharedRates,
        socket: Socket,
        events: Events,
    ) -> anyhow::Result<Self> {
        let words = LastWords::default();
        let process = Process::start(launch, model, &socket.path, &words)?;
        let pid = process.group().as_raw_nonzero().get().unsigned_abs();
        let shared = Arc::new(Shared { model: model.to_owned(), rows: Rows::new(slots), rates });
        // Bounded by the rows: each is written once and cancelled once, and there are at most twice as many as slots.
        let (commands, orders) = mpsc::unbounded_channel();
        let kill = CancellationToken::new();
        let kill_reason = Arc::default();
        let life = Life {
            process,
            words,
            shared: shared.clone(),
            kill: kill.clone(),
            kill_reason: Arc::clone(&kill_reason),
            events,
        };
        tokio::spawn(life.run(socket, orders));
        Ok(Self { pid, shared, slots, commands, kill, kill_reason })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn load(&self, path: &str) {
        let body = Load { path: path.to_owned(), prefill_chunk: limits::PREFILL_CHUNK, max_rows: self.slots };
        self.order(Outgoing::Load { call: LOAD_CALL, body });
    }

    /// Asks it to end by itself.
    pub(crate) fn shut_down(&self) {
        self.order(Outgoing::Shutdown { call: SHUTDOWN_CALL });
    }

    pub(crate) fn kill(&self, reason: &str) {
        let _ = self.kill_reason.set(reason.to_owned());
        self.kill.cancel();
    }

    /// Starts a sequence if a slot is free.
    pub(crate) fn begin(self: &Arc<Self>, body: Generate) -> Result<Attempt, NoRow> {
        let (row, outbox) = self.shared.rows.open()?;
        self.order(Outgoing::Generate { row, body: Box::new(body) });
        Ok(Attempt { runtime: Arc::clone(self), row, outbox })
    }

    /// Sequences that it works on.
    pub(crate) fn running(&self) -> u32 {
        self.shared.rows.running()
    }

    fn order(&self, order: Outgoing) {
        // Fails only when the runtime is gone, which its rows are told.
        let _ = self.commands.send(order);
    }
}

/// A running sequence. Dropping it before its end cancels it.
pub(crate) struct Attempt {
    runtime: Arc<Runtime>,
    row: u64,
    outbox: Arc<Outbox>,
}

impl Attempt {
    /// What came since the last call, as soon as anything did. Cancel-safe.
    pub(crate) async fn next(&self) -> Piece {
        self.outbox.pull().await
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.runtime.shared.rows.cancel(self.row) {
            self.runtime.order(Outgoing::Cancel { rows: vec![self.row] });
        }
    }
}

struct Life {
    process: Process,
    words: LastWords,
    shared: Arc<Shared>,
    kill: CancellationToken,
    kill_reason: Arc<OnceLock<String>>,
    events: Events,
}

impl Life {
    async fn run(mut self, socket: Socket, orders: mpsc::UnboundedReceiver<Outgoing>) {
        let ending = self.end(socket, orders).await;
        self.shared.rows.close();
        self.process.log_ended().await;
        tracing::info!(model = %self.shared.model, "runtime {ending}");
        self.events.send(Event::Exited { ending, last_words: self.words.text() }).await;
    }

    async fn end(&mut self, socket: Socket, orders: mpsc::UnboundedReceiver<Outgoing>) -> Ending {
        let group: Pid = self.process.group();
        let mut talk = pin!(converse(socket, group, Arc::clone(&self.shared), orders, self.events.clone()));
        tokio::select! {
            ending = self.process.ended() => {
                // Tokens that it sent before it ended are still in the socket.
                let _ = timeout(limits::LAST_FRAMES, talk).await;
                return ending;
            }
            () = self.kill.cancelled() => {
                let reason = self.kill_reason.get().map_or("no reason given", String::as_str);
                self.words.push(format!("killed by its agent: {reason}"));
            }
            ended = &mut talk => match ended {
                Ended::Closed | Ended::Io(_) => {
                    self.shared.rows.close();
                    if let Ok(ending) = timeout(limits::RUNTIME_EXIT, self.process.ended()).await {
                        return ending;
                    }
                    self.words.push("killed by its agent: it closed its socket and did not end".to_owned());
                }
                broken @ (Ended::Frame(_) | Ended::NoHello | Ended::Version(_) | Ended::HelloAgain) => {
                    tracing::error!(model = %self.shared.model, %broken, "a runtime is broken");
                    self.words.push(format!("killed by its agent: {broken}"));
                }
            },
        }
        self.process.kill().await
    }
}
