//! The stage: folders, an agent in this process, and waiting that ends.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::{Config, JoinToken, Notice, Offer, OfferSource, RuntimeProgram};
use proto::v1::model_source::Source;
use proto::v1::{AttemptStart, ModelSource, ModelState, Sampling, WantedModel};
use quinn::Connection;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::coordinator::{Coordinator, Plan};
use crate::runtime::Runtime;

pub(crate) const DEMO: &str = daemon::DEMO_MODEL;
/// The demo model's folder under a name of its own.
pub(crate) const OTHER: &str = "weights";
const PROGRAM: &str = env!("CARGO_BIN_EXE_daemon-test-program");
/// A bound against hanging for ever, never a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("gave up waiting: {what}"))
}

/// Folders and the socket on which runtimes report to the test.
pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) authority: Arc<Authority>,
    pub(crate) runtimes: UnixListener,
}

pub(crate) struct Agent {
    pub(crate) stop: CancellationToken,
    pub(crate) notices: mpsc::Receiver<Notice>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Agent {
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        soon("the agent ends", self.running).await.expect("no panic")
    }

    /// Stops it; the runtimes that the test plays end at once, as ones without work do.
    pub(crate) async fn leave(self, runtimes: impl IntoIterator<Item = Runtime>) {
        self.stop.cancel();
        runtimes.into_iter().for_each(drop);
        self.ended().await.expect("a clean end");
    }

    pub(crate) async fn notice(&mut self, what: &str, fits: impl Fn(&Notice) -> bool) -> Notice {
        let heard = async {
            loop {
                let notice = self.notices.recv().await.expect("a running agent");
                if fits(&notice) {
                    return notice;
                }
            }
        };
        soon(what, heard).await
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("stage-").tempdir().expect("scratch");
        let runtimes = UnixListener::bind(folder.path().join("control")).expect("a socket");
        Self { folder, authority: Arc::new(Authority::new()), runtimes }
    }

    pub(crate) fn data_folder(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    pub(crate) fn config(&self, coordinator: &Coordinator, token: Option<JoinToken>) -> Config {
        let control = self.folder.path().join("control");
        Config {
            data_folder: self.data_folder(),
            coordinators: vec![coordinator.grpc.to_string()],
            token,
            name: "mini-07".to_owned(),
            offers: vec![Offer::new(OfferSource::Demo).expect("named")],
            runtime: Some(RuntimeProgram {
                program: PROGRAM.into(),
                args: vec!["relay".into()],
                env: vec![("DAEMON_TEST_CONTROL".into(), control.into())],
            }),
            guard_program: PROGRAM.into(),
            memory_budget_bytes: Some(16 << 30),
            slots: Some(2),
        }
    }

    pub(crate) fn agent(&self, coordinator: &Coordinator) -> Agent {
        start(self.config(coordinator, Some(self.authority.token())))
    }

    /// A coordinator that wants the demo model, an agent, a ready runtime and the connection between them.
    pub(crate) async fn serving(&self) -> (Coordinator, Agent, Runtime, Connection) {
        let plan = Plan { wanted: vec![demo()], ..Plan::default() };
        let mut coordinator = Coordinator::start(&self.authority, plan).await;
        let agent = self.agent(&coordinator);
        let runtime = Runtime::ready(&self.runtimes).await;
        coordinator.until_state(DEMO, ModelState::Ready).await;
        let connection = coordinator.connection().await;
        (coordinator, agent, runtime, connection)
    }
}

pub(crate) fn start(config: Config) -> Agent {
    let (sender, notices) = mpsc::channel(1_024);
    let stop = CancellationToken::new();
    let running = tokio::spawn(daemon::run(config, sender, stop.clone()));
    Agent { stop, notices, running }
}

pub(crate) fn demo() -> WantedModel {
    wanted(DEMO, Source::Demo(true))
}

/// A second model, from a folder.
pub(crate) fn other() -> WantedModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/demo_model/weights");
    let path = folder.canonicalize().expect("the demo model is in the repository").display().to_string();
    wanted(OTHER, Source::Path(path))
}

/// To be prepared, not to be held.
pub(crate) fn offered(model: WantedModel) -> WantedModel {
    WantedModel { offered_only: true, ..model }
}

fn wanted(model: &str, source: Source) -> WantedModel {
    let source = Some(ModelSource { source: Some(source) });
    WantedModel { model: model.to_owned(), source, offered_only: false }
}

pub(crate) fn request(model: &str, attempt: u32) -> AttemptStart {
    let sampling = Sampling { top_p: 1.0, repetition_penalty: 1.0, seed: Some(3), ..Sampling::default() };
    AttemptStart {
        request: 1,
        attempt,
        model: model.to_owned(),
        prompt: vec![10, 11, 12],
        max_tokens: 100,
        sampling: Some(sampling),
        stop_ids: vec![2],
        ..AttemptStart::default()
    }
}
