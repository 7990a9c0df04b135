//! From an offer to what a runtime can be started with.
//!
//! Owns the order: the Python environment once for all models, then the model's folder. Refuses to know how either is made.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::process::Command;
use tokio::sync::Mutex;

use crate::config::{Config, Offer, RuntimeProgram};
use crate::environment::{self, Progress, PythonEnvironment};
use crate::notice::{Notice, Notices};
use crate::probes::{Hardware, SeedRates, seed_rates};
use crate::runtimes::Launch;
use crate::store::Store;
pub(crate) use crate::store::{CardFiles, Footprint, ModelFacts};

/// The module that speaks our frames.
const RUNTIME_MODULE: &str = "mlx_runtime";

/// All that a start and a report need.
#[derive(Debug)]
pub(crate) struct PreparedModel {
    /// For the runtime's `load`.
    pub(crate) folder: String,
    pub(crate) facts: ModelFacts,
    pub(crate) footprint: Footprint,
    pub(crate) card: Arc<CardFiles>,
    pub(crate) launch: Launch,
    /// How fast it may be expected to run here.
    pub(crate) seed: SeedRates,
}

/// Why a model could not be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unprepared {
    pub(crate) reason: String,
    /// Trying again later may help.
    pub(crate) retry: bool,
}

pub(crate) struct Preparer {
    data_folder: PathBuf,
    guard_program: PathBuf,
    given: Option<RuntimeProgram>,
    store: Store,
    environment: Mutex<Option<PythonEnvironment>>,
    hardware: Hardware,
    notices: Notices,
}

impl Preparer {
    pub(crate) fn new(config: Config, hardware: Hardware, notices: Notices) -> Self {
        let Config { data_folder, guard_program, runtime: given, .. } = config;
        let store = Store::new(&data_folder);
        Self { data_folder, guard_program, given, store, environment: Mutex::default(), hardware, notices }
    }

    pub(crate) async fn prepare(
        &self,
        offer: &Offer,
        progress: &Progress,
    ) -> Result<PreparedModel, Unprepared> {
        let (launch, environment) = self.program(progress).await?;
        let resolved = self.store.resolve(&offer.source, environment.as_ref(), progress).await;
        let model =
            resolved.map_err(|error| Unprepared { retry: error.may_pass(), reason: error.to_string() })?;
        let folder = model.folder.to_str().map(str::to_owned).ok_or_else(|| Unprepared {
            reason: format!("{} is no path in UTF-8", model.folder.display()),
            retry: false,
        })?;
        let Hardware { chip, gpu_cores, .. } = &self.hardware;
        Ok(PreparedModel {
            seed: seed_rates(chip, *gpu_cores, model.facts.weights_bytes),
            folder,
            facts: model.facts,
            footprint: model.footprint,
            card: Arc::new(model.card),
            launch,
        })
    }

    /// What to start: the program given, or our runtime in its environment.
    async fn program(&self, progress: &Progress) -> Result<(Launch, Option<PythonEnvironment>), Unprepared> {
        let guard_program = self.guard_program.clone();
        if let Some(RuntimeProgram { program, args, env }) = self.given.clone() {
            let env = env.into_iter().map(|(name, value)| (name, Some(value))).collect();
            return Ok((Launch { guard_program, program, args, env }, None));
        }
        let environment = self.python(progress).await?;
        Ok((launch_of(guard_program, &environment.module(RUNTIME_MODULE)), Some(environment)))
    }

    /// One model makes the environment, the others wait for it.
    async fn python(&self, progress: &Progress) -> Result<PythonEnvironment, Unprepared> {
        let mut environment = self.environment.lock().await;
        if let Some(environment) = &*environment {
            return Ok(environment.clone());
        }
        let (notices, model) = (self.notices.clone(), progress.clone());
        let both = Progress::new(move |step| {
            notices.tell(Notice::EnvironmentStep { words: step.words.clone(), permille: step.permille });
            match step.permille {
                Some(permille) => model.part(step.words, permille.into(), 1_000),
                None => model.tell(step.words),
            }
        });
        match environment::ensure(&self.data_folder, &both).await {
            Ok(made) => {
                self.notices.tell(Notice::EnvironmentReady);
                Ok(environment.insert(made).clone())
            }
            Err(error) => {
                let words = error.to_string();
                self.notices.tell(Notice::EnvironmentFailed { words: words.clone() });
                Err(Unprepared { reason: words, retry: true })
            }
        }
    }
}

fn launch_of(guard_program: PathBuf, command: &Command) -> Launch {
    let command = command.as_std();
    let env = command.get_envs().map(|(name, value)| (name.to_owned(), value.map(OsStr::to_owned)));
    Launch {
        guard_program,
        program: PathBuf::from(command.get_program()),
        args: command.get_args().map(OsString::from).collect(),
        env: env.collect(),
    }
}
