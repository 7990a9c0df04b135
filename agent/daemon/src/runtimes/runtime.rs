//! One runtime process from its start to its end, as the rest of the agent sees it.
//!
//! Owns the process, its conversation and its rows together, so that they end together: whatever goes first, the rows are lost,
//! the group is killed, and exactly one [`Event::Exited`] follows. Refuses decisions: when to load, stop or kill is the
//! supervisor's word.

use std::pin::pin;
use std::sync::{Arc, OnceLock, PoisonError};

use rustix::process::Pid;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{Ended, converse};
use super::figures::SharedFigures;
use super::frames::{Generate, Load, Outgoing, StepStats};
use super::last_words::LastWords;
use super::outbox::{Loss, Outbox, Piece};
use super::process::{Ending, Launch, Process};
use super::rows::{NoRow, Rows};
use super::run_folder::Socket;
use crate::agent::Input;
use crate::limits;
use crate::store::Footprint;

/// Numbers of the two questions an agent asks; each is asked once in a runtime's life.
pub(super) const LOAD_CALL: u64 = 1;
const SHUTDOWN_CALL: u64 = 2;

/// What happens to a runtime.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Hello {
        pid: u32,
    },
    Loaded {
        bytes: u64,
    },
    LoadFailed {
        code: String,
        text: String,
    },
    Progress {
        fraction: Option<f32>,
    },
    /// It was to be drained, and its last row has ended.
    Drained,
    Exited {
        ending: Ending,
        last_words: String,
    },
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

/// What the conversation and the attempts both touch.
pub(crate) struct Shared {
    pub(crate) model: String,
    pub(crate) rows: Rows,
    figures: SharedFigures,
}

impl Shared {
    pub(super) fn learn(&self, stats: StepStats) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).learn(stats);
    }

    fn chunk_max(&self) -> u32 {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.rates.chunk_max(limits::PREFILL_PIECE, limits::PREFILL_CHUNK)
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
    killed: Arc<OnceLock<Killed>>,
}

/// Why it is killed: in words, and for its rows.
#[derive(Clone, Debug, Default)]
struct Killed {
    reason: String,
    loss: Loss,
}

impl Runtime {
    /// Starts the process and everything around it.
    pub(crate) fn start(
        launch: &Launch,
        model: &str,
        slots: u32,
        figures: SharedFigures,
        socket: Socket,
        events: Events,
    ) -> anyhow::Result<Self> {
        let words = LastWords::default();
        let process = Process::start(launch, model, &socket.path, &words)?;
        let pid = process.group().as_raw_nonzero().get().unsigned_abs();
        let shared = Arc::new(Shared { model: model.to_owned(), rows: Rows::new(slots), figures });
        // Bounded by the rows: each is written once and cancelled once, and there are at most twice as many as slots.
        let (commands, orders) = mpsc::unbounded_channel();
        let kill = CancellationToken::new();
        let killed = Arc::default();
        let life = Life {
            process,
            words,
            shared: shared.clone(),
            kill: kill.clone(),
            killed: Arc::clone(&killed),
            events,
        };
        tokio::spawn(life.run(socket, orders));
        Ok(Self { pid, shared, slots, commands, kill, killed })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Within what is reserved for it: `footprint` says what its prefix cache and its sequences may hold.
    pub(crate) fn load(&self, path: &str, footprint: &Footprint) {
        let (path, max_rows, cache_bytes) = (path.to_owned(), self.slots, footprint.prefix_bytes);
        let kv_tokens = (footprint.kv_tokens > 0).then_some(footprint.kv_tokens);
        let body = Load { path, prefill_chunk: limits::PREFILL_CHUNK, max_rows, cache_bytes, kv_tokens };
        self.order(Outgoing::Load { call: LOAD_CALL, body });
    }

    /// Takes no new sequence. True when none runs; else [`Event::Drained`] follows.
    pub(crate) fn drain(&self) -> bool {
        self.shared.rows.drain()
    }

    /// Takes new sequences again.
    pub(crate) fn resume(&self) {
        self.shared.rows.resume();
    }

    /// Asks it to end by itself.
    pub(crate) fn shut_down(&self) {
        self.order(Outgoing::Shutdown { call: SHUTDOWN_CALL });
    }

    /// The first reason counts.
    pub(crate) fn kill(&self, reason: &str, loss: Loss) {
        let _ = self.killed.set(Killed { reason: reason.to_owned(), loss });
        self.kill.cancel();
    }

    /// Starts a sequence if a slot is free.
    pub(crate) fn begin(self: &Arc<Self>, mut body: Generate) -> Result<Attempt, NoRow> {
        body.prefill_chunk = body.prefill_chunk.map(|chunk| chunk.min(self.shared.chunk_max()));
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
    killed: Arc<OnceLock<Killed>>,
    events: Events,
}

impl Life {
    async fn run(mut self, socket: Socket, orders: mpsc::UnboundedReceiver<Outgoing>) {
        let (ending, loss) = self.end(socket, orders).await;
        self.shared.rows.close(loss);
        self.process.log_ended().await;
        tracing::info!(model = %self.shared.model, "runtime {ending}");
        self.events.send(Event::Exited { ending, last_words: self.words.text() }).await;
    }

    async fn end(&mut self, socket: Socket, orders: mpsc::UnboundedReceiver<Outgoing>) -> (Ending, Loss) {
        let group: Pid = self.process.group();
        let mut talk = pin!(converse(socket, group, Arc::clone(&self.shared), orders, self.events.clone()));
        let loss = tokio::select! {
            ending = self.process.ended() => {
                // Tokens that it sent before it ended are still in the socket.
                let told = timeout(limits::LAST_FRAMES, talk).await;
                return (ending, told.map_or(Loss::Ended, |ended| ended.loss()));
            }
            () = self.kill.cancelled() => {
                let Killed { reason, loss } = self.killed.get().cloned().unwrap_or_default();
                self.words.push(format!("killed by its agent: {reason}"));
                loss
            }
            ended = &mut talk => {
                if let Some(ending) = self.hung_up(&ended).await {
                    return (ending, Loss::Ended);
                }
                ended.loss()
            }
        };
        // Whoever waits for a token need not wait for the corpse.
        self.shared.rows.close(loss);
        (self.process.kill().await, loss)
    }

    /// The conversation ended first: one that just closed its socket may end by itself.
    async fn hung_up(&mut self, ended: &Ended) -> Option<Ending> {
        match ended {
            Ended::Closed | Ended::Io(_) => {
                self.shared.rows.close(Loss::Ended);
                if let Ok(ending) = timeout(limits::RUNTIME_EXIT, self.process.ended()).await {
                    return Some(ending);
                }
                self.words.push("killed by its agent: it closed its socket and did not end".to_owned());
            }
            broken @ (Ended::Frame(_) | Ended::NoHello | Ended::Version(_) | Ended::HelloAgain) => {
                tracing::error!(model = %self.shared.model, %broken, "a runtime is broken");
                self.words.push(format!("killed by its agent: {broken}"));
            }
        }
        None
    }
}
