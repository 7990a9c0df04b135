//! The life of an agent: identity, then coordinators and loop beside one another, then the way out.
//!
//! Owns the order of starting and of leaving. On the way out new attempts are refused first, running ones may finish, runtimes
//! are asked to end, and only then the connections to coordinators are closed. Refuses a second agent on the same data folder.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use proto::papers::Papers;
use proto::v1::AgentHello;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Address;
use crate::agent::Agent;
use crate::board::Board;
use crate::config::Config;
use crate::coordinators::{Coordinators, Ground, Kept};
use crate::folder_lock::FolderLock;
use crate::identity::{Obtained, Renewer, Ties};
use crate::limits;
use crate::notice::{Notice, Notices};
use crate::preparing::Preparer;
use crate::probes::Hardware;
use crate::runtimes::RunFolder;
use crate::session::{Common, Gauge};
use crate::streams::{Admission, Dialler};
use crate::{identity, probes, wire};

/// Runs an agent until `stop`, then drains it. An error means that it could not start or that it was refused for good.
pub async fn run(
    config: Config,
    notices: mpsc::Sender<Notice>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let notices = Notices::new(notices);
    let seeds = seeds(&config.coordinators)?;
    let slots = config.slots.unwrap_or(limits::SLOTS_DEFAULT);
    anyhow::ensure!((1..=limits::SLOTS_MAX).contains(&slots), "slots are from 1 to {}", limits::SLOTS_MAX);
    make_private(&config.data_folder)?;
    let _lock = FolderLock::take(&config.data_folder)?;
    let hardware = spawn_blocking(probes::hardware).await.context("describing this machine")?;
    let (chip, os) = (hardware.chip.clone(), hardware.os.clone());
    notices.tell(Notice::Machine { chip, os, memory_bytes: hardware.memory_bytes });
    let (data_folder, token) = (config.data_folder.clone(), config.token.clone());
    let obtaining = identity::obtain(&data_folder, &seeds, token.as_ref(), &config.name, &notices);
    let Some(obtained) = stop.run_until_cancelled(obtaining).await else { return Ok(()) };
    let running = Running::start(config, slots, seeds, obtained?, hardware, notices)?;
    let revoked = running.revoked.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = revoked.cancelled() => tracing::error!("{}", identity::REVOKED),
    }
    let left = running.leave().await;
    if revoked.is_cancelled() {
        identity::set_aside(&data_folder, token.as_ref())?;
        anyhow::bail!(identity::REVOKED);
    }
    left
}

/// What runs beside one another.
struct Running {
    agent: JoinHandle<()>,
    connections: JoinHandle<()>,
    attempts: TaskTracker,
    board: watch::Receiver<Arc<Board>>,
    /// No new attempts.
    draining: CancellationToken,
    /// Runtimes end.
    drain: CancellationToken,
    /// Connections close.
    close: CancellationToken,
    /// A coordinator says that this Mac belongs to the cluster no more.
    revoked: CancellationToken,
    notices: Notices,
}

impl Running {
    fn start(
        config: Config,
        slots: u32,
        seeds: Vec<Address>,
        obtained: Obtained,
        hardware: Hardware,
        notices: Notices,
    ) -> anyhow::Result<Self> {
        let budget_bytes = config.memory_budget_bytes.unwrap_or(hardware.gpu_budget_bytes);
        // What the operator grants is what a coordinator may plan with.
        let hardware = Hardware { gpu_budget_bytes: budget_bytes, ..hardware };
        let (draining, drain, close) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let attempts = TaskTracker::new();
        let (inputs, heard) = mpsc::channel(limits::INBOX);
        let (publisher, board) = watch::channel(Arc::default());

        let admission = Admission { board: board.clone(), draining: draining.clone() };
        let Obtained { credentials, cluster } = obtained;
        let kept = Kept::of_cluster(&config.data_folder, &cluster, &credentials.ca_certificate_pem);
        let papers = Papers::new(credentials).context("this Mac's certificate")?;
        let ties = Ties::default();
        let dialler = Dialler::new(&papers, ties.clone()).context("setting up the token streams")?;
        let dialler = Arc::new(dialler);
        let common = Common {
            papers: papers.clone(),
            ties,
            hello: hello(&config, &hardware),
            board: board.clone(),
            draining: draining.clone(),
            inputs: inputs.clone(),
            memory: Gauge::new(probes::memory, limits::MEMORY_FRESH),
        };
        let ground = Ground { common: Arc::new(common), dialler, admission, attempts: attempts.clone() };
        let revoked = CancellationToken::new();
        let coordinators = Coordinators::new(seeds, kept, ground, notices.clone(), revoked.clone());
        let renewer = Renewer {
            data_folder: config.data_folder.clone(),
            papers,
            addresses: coordinators.addresses(),
            told: coordinators.told(),
            revoked: revoked.clone(),
        };
        let run_folder = RunFolder::make(&config.data_folder)?;
        let preparer = Arc::new(Preparer::new(config, hardware, notices.clone()));
        let agent = Agent::new(budget_bytes, slots, run_folder, preparer, inputs, publisher, notices.clone());
        let agent = tokio::spawn(agent.run(heard, drain.clone()));
        let connections = tokio::spawn(coordinators.run(close.clone()));
        tokio::spawn(renewer.run(close.clone()));
        Ok(Self { agent, connections, attempts, board, draining, drain, close, revoked, notices })
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
        self.connections.await.context("closing the connections failed")?;
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
        life: life(),
    }
}

/// The moment at which this process began, in nanoseconds: no other one of this agent has the same.
fn life() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Each once; what is beyond the bound is refused with a warning, for the first ones tell of all others.
fn seeds(coordinators: &[String]) -> anyhow::Result<Vec<Address>> {
    let mut seeds = Vec::new();
    for text in coordinators {
        let address = Address::parse(text)?;
        if seeds.contains(&address) {
            continue;
        }
        if seeds.len() < limits::COORDINATORS_MAX {
            seeds.push(address);
        } else {
            tracing::warn!(%address, "more than {} coordinators: not talked to", limits::COORDINATORS_MAX);
        }
    }
    anyhow::ensure!(!seeds.is_empty(), "an agent needs the address of a coordinator");
    Ok(seeds)
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("making {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(texts: &[&str]) -> anyhow::Result<Vec<String>> {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        Ok(seeds(&texts)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_settings_name_each_coordinator_once_in_their_order() {
        assert_eq!(seeded(&["b:1", "a:1", "b:1"]).expect("fine"), ["b:1", "a:1"]);
    }

    #[test]
    fn more_coordinators_than_the_bound_are_cut_off() {
        let texts: Vec<_> = (0..12).map(|n| format!("h{n}:1")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        assert_eq!(seeded(&texts).expect("fine"), texts[..limits::COORDINATORS_MAX]);
    }

    #[test]
    fn no_coordinator_and_what_is_no_address_are_refused() {
        assert!(seeded(&[]).is_err());
        assert!(seeded(&["a:1", "b"]).is_err());
    }
}
