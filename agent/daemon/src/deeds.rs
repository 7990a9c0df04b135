//! How the supervisor's effects are done.
//!
//! Owns the translation of each effect into a deed: processes started, asked and killed, folders prepared. Refuses to decide
//! whether: an effect is carried out, and what came of it goes back as a command or an input.

use std::sync::Arc;

use supervisor::{Command, Effect, Incarnation, KillReason, ModelKey};
use tokio_util::task::AbortOnDropHandle;

use crate::agent::{Agent, Input};
use crate::board::ModelProcess;
use crate::config::Offer;
use crate::environment::Progress;
use crate::limits;
use crate::preparing::Preparer;
use crate::runtimes::{Events, Loss, Runtime};

impl Agent {
    /// Does it; an immediate outcome is the next command.
    pub(crate) fn carry_out(&mut self, effect: Effect) -> Option<Command> {
        match effect {
            Effect::Start { incarnation, model } => Some(self.start(incarnation, model)),
            Effect::Load { incarnation, model } => {
                let prepared = self.models.get(model)?.prepared.as_ref()?;
                let (_, runtime) = self.runtimes.get(&incarnation)?;
                runtime.load(&prepared.folder, &prepared.footprint);
                None
            }
            Effect::Drain { incarnation } => {
                let (_, runtime) = self.runtimes.get(&incarnation)?;
                runtime.drain().then_some(Command::Drained { incarnation })
            }
            Effect::Resume { incarnation } => {
                self.runtimes.get(&incarnation)?.1.resume();
                None
            }
            Effect::Stop { incarnation } => {
                self.runtimes.get(&incarnation)?.1.shut_down();
                None
            }
            Effect::Kill { incarnation, reason } => {
                self.kill(incarnation, reason);
                None
            }
            Effect::State { model, state } => {
                tracing::info!(model = %self.models.get(model)?.offer.model, "model {state}");
                let model = self.models.get_mut(model)?;
                model.permille = 0;
                model.state = Some(state);
                None
            }
        }
    }

    fn start(&mut self, incarnation: Incarnation, key: ModelKey) -> Command {
        match self.spawn(incarnation, key) {
            Ok(pid) => Command::Started { incarnation, pid },
            Err(error) => Command::StartFailed { incarnation, reason: format!("{error:#}") },
        }
    }

    fn spawn(&mut self, incarnation: Incarnation, key: ModelKey) -> anyhow::Result<u32> {
        let unknown = || anyhow::anyhow!("the model is not known any more");
        let model = self.models.get_mut(key).ok_or_else(unknown)?;
        let launch = &model.prepared.as_ref().ok_or_else(unknown)?.launch;
        let socket = self.run_folder.listen(incarnation.0)?;
        let events = Events { incarnation: incarnation.0, inputs: self.inputs.clone() };
        let figures = Arc::clone(&model.figures);
        let runtime = Runtime::start(launch, &model.offer.model, self.slots, figures, socket, events)?;
        let (pid, runtime) = (runtime.pid(), Arc::new(runtime));
        model.process = Some(ModelProcess {
            incarnation: u32::try_from(incarnation.0).unwrap_or(u32::MAX),
            started: self.clock.now(),
            pid: 0,
            load_ms: 0,
            runtime: Arc::clone(&runtime),
        });
        self.runtimes.insert(incarnation, (key, runtime));
        Ok(pid)
    }

    fn kill(&self, incarnation: Incarnation, reason: KillReason) {
        if reason.is_alarm() {
            tracing::error!(%incarnation, "alarm: {reason}");
        }
        if let Some((_, runtime)) = self.runtimes.get(&incarnation) {
            runtime.kill(&reason.to_string(), loss(reason));
        }
    }

    /// Fetches and reads a model's folder, for as long as it is wanted.
    pub(crate) fn prepare(&mut self, key: ModelKey) {
        let (preparer, inputs) = (Arc::clone(&self.preparer), self.inputs.clone());
        if let Some(model) = self.models.get_mut(key) {
            let work = prepare(preparer, key, model.offer.clone(), inputs);
            model.preparing = Some(AbortOnDropHandle::new(tokio::spawn(work)));
        }
    }
}

/// What a killed runtime's rows are told.
fn loss(reason: KillReason) -> Loss {
    match reason {
        KillReason::Hung => Loss::Hung,
        KillReason::NoHello
        | KillReason::LoadStalled
        | KillReason::StopIgnored
        | KillReason::WontDie { .. }
        | KillReason::Stray => Loss::Ended,
    }
}

async fn prepare(
    preparer: Arc<Preparer>,
    model: ModelKey,
    offer: Offer,
    inputs: tokio::sync::mpsc::Sender<Input>,
) {
    let listener = inputs.clone();
    let progress = Progress::new(move |step| {
        // A step that finds the inbox full is followed by another.
        let _ = listener.try_send(Input::Preparing {
            model,
            words: step.words,
            permille: step.permille.unwrap_or(0),
        });
    });
    loop {
        let outcome = preparer.prepare(&offer, &progress).await;
        let again = outcome.as_ref().is_err_and(|unprepared| unprepared.retry);
        let _ = inputs.send(Input::Prepared { model, outcome: outcome.map(Arc::new) }).await;
        if !again {
            return;
        }
        tokio::time::sleep(limits::RESOLVE_AGAIN).await;
    }
}
