//! The life of an agent: identity, then session, streams and loop beside one another, then the way out.
//!
//! Owns the order of starting and of leaving. On the way out new attempts are refused first, running ones may finish, runtimes
//! are asked to end, and only then the coordinator's connections are closed. Refuses a second agent on the same data folder.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use proto::tls::Credentials;
use proto::v1::AgentHello;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::Agent;
use crate::board::Board;
use crate::config::Config;
use crate::folder_lock::FolderLock;
use crate::limits;
use crate::notice::{Notice, Notices};
use crate::preparing::Preparer;
use crate::probes::Hardware;
use crate::runtimes::RunFolder;
use crate::session::{Address, Session};
use crate::streams::{Admission, Streams};
use crate::{identity, probes, wire};

/// Runs an agent until `stop`, then drains it. An error means that it could not start or that it was refused for good.
pub async fn run(
    config: Config,
    notices: mpsc::Sender<Notice>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let notices = Notices::new(notices);
    let address = Address::parse(&config.coordinator)?;
    let slots = config.slots.unwrap_or(limits::SLOTS_DEFAULT);
    anyhow::ensure!((1..=limits::SLOTS_MAX).contains(&slots), "slots are from 1 to {}", limits::SLOTS_MAX);
    make_private(&config.data_folder)?;
    let _lock = FolderLock::take(&config.data_folder)?;
    let hardware = spawn_blocking(probes::hardware).await.context("describing this machine")?;
    let (chip, os) = (hardware.chip.clone(), hardware.os.clone());
    notices.tell(Notice::Machine { chip, os, memory_bytes: hardware.memory_bytes });
    let token = config.token.as_ref();
    let obtaining = identity::obtain(&config.data_folder, &address, token, &config.name, &notices);
    let Some(credentials) = stop.run_until_cancelled(obtaining).await else { return Ok(()) };
    let running = Running::start(config, slots, address, credentials?, hardware, notices)?;
    stop.cancelled().await;
    running.leave().await
}

/// What runs beside one another.
struct Running {
    agent: JoinHandle<()>,
    connections: TaskTracker,
    attempts: TaskTracker,
    board: watch::Receiver<Arc<Board>>,
    /// No new attempts.
    draining: CancellationToken,
    /// Runtimes end.
    drain: CancellationToken,
    /// Connections close.
    close: CancellationToken,
    notices: Notices,
}

impl Running {
    fn start(
        config: Config,
        slots: u32,
        address: Address,
        credentials: Credentials,
        hardware: Hardware,
        notices: Notices,
    ) -> anyhow::Result<Self> {
        let budget_bytes = config.memory_budget_bytes.unwrap_or(hardware.gpu_budget_bytes);
        // What the operator grants is what a coordinator may plan with.
        let hardware = Hardware { gpu_budget_bytes: budget_bytes, ..hardware };
        let (draining, drain, close) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (attempts, connections) = (TaskTracker::new(), TaskTracker::new());
        let (inputs, heard) = mpsc::channel(limits::INBOX);
        let (publisher, board) = watch::channel(Arc::default());
        let (targets, targeted) = watch::channel(None);

        let admission = Admission { board: board.clone(), draining: draining.clone() };
        let streams = Streams::new(&credentials, admission, attempts.clone())?;
        let session = Session {
            address,
            credentials,
            hello: hello(&config, &hardware),
            board: board.clone(),
            draining: draining.clone(),
            inputs: inputs.clone(),
            targets,
            notices: notices.clone(),
        };
        let run_folder = RunFolder::make(&config.data_folder)?;
        let preparer = Arc::new(Preparer::new(config, hardware, notices.clone()));
        let agent = Agent::new(budget_bytes, slots, run_folder, preparer, inputs, publisher, notices.clone());
        let agent = tokio::spawn(agent.run(heard, drain.clone()));
        connections.spawn(session.run(close.clone()));
        connections.spawn(streams.run(targeted, close.clone()));
        Ok(Self { agent, connections, attempts, board, draining, drain, close, notices })
    }

    async fn leave(self) -> anyhow::Result<()> {
        self.draining.cancel();
        self.notices.tell(Notice::Draining { attempts: self.board.borrow().running() });
        self.attempts.close();
        if timeout(limits::DRAIN, self.attempts.wait()).await.is_err() {
            tracing::warn!(attempts = self.board.borrow().running(), "answers did not finish in time");
        }
        self.drain.cancel();
        let ended = timeout(limits::FAREWELL, self.agent).await;
        self.close.cancel();
        self.connections.close();
        self.connections.wait().await;
        match ended {
            Ok(ended) => ended.context("the agent's loop failed"),
            Err(_) => anyhow::bail!("runtimes did not end in time; their guards end them with this process"),
        }
    }
}

fn hello(config: &Config, hardware: &Hardware) -> AgentHello {
    AgentHello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: config.name.clone(),
        hardware: Some(wire::hardware(hardware)),
        offers: config.offers.iter().map(wire::offered).collect(),
    }
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("making {}", folder.display()))
}
