//! The life of one model on this Mac: whether it is wanted, what went wrong last, and its process.
//!
//! Owns every transition of one model. Refuses to look at other models: how much memory is free is handed in, and when
//! to start is asked of it, not decided here.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::backoff::Backoff;
use crate::effect::{Effect, Why};
use crate::exit::{self, ExitStatus};
use crate::limits::Limits;
use crate::process::{Incarnation, Phase, Process, Watch};
use crate::state::{ModelState, WaitingFor};
use crate::supervisor::ModelKey;
use crate::time::{At, Span};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) wish: Option<Wish>,
    pub(crate) trouble: Option<Trouble>,
    backoff: Backoff,
    pub(crate) process: Option<Process>,
    /// Processes started since the model was wanted.
    pub(crate) starts: u32,
    /// The state last reported.
    pub(crate) reported: Option<ModelState>,
}

/// How large the model is: as predicted, and as a runtime found it to be if that was more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    predicted_bytes: u64,
    pub(crate) needed_bytes: u64,
}

/// The last failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    permanent: bool,
}

/// What other models leave to this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) free_bytes: u64,
    pub(crate) processes_free: usize,
}

impl Life {
    // ---- the wish ----

    /// A new wish begins without a past, but with the process that has not yet been drained; a wish for another size forgives
    /// what was given up for good.
    pub(crate) fn want(&mut self, bytes: u64, effects: &mut Vec<Effect>) {
        let resumed = self.resume(effects);
        let former = self.wish.as_ref().map(|wish| wish.predicted_bytes);
        if former == Some(bytes) {
            return;
        }
        if former.is_none() {
            (self.trouble, self.backoff, self.starts) = (None, Backoff::default(), u32::from(resumed));
        } else if self.backoff.until().is_none() {
            self.trouble = None;
        }
        self.wish = Some(Wish { predicted_bytes: bytes, needed_bytes: bytes });
    }

    /// What runs may finish first.
    pub(crate) fn unwant(&mut self, at: At, limits: &Limits, effects: &mut Vec<Effect>) {
        (self.wish, self.trouble) = (None, None);
        let Some(process) = &mut self.process else { return };
        match process.phase.clone() {
            Phase::Ready { watch, since, bytes } => {
                let deadline = at.after(limits.drain_max);
                process.phase = Phase::Draining { watch, since, bytes, deadline };
                effects.push(Effect::Drain { incarnation: process.incarnation });
            }
            Phase::Starting { .. } | Phase::Loading { .. } => self.stop(at, false, limits, effects),
            Phase::Draining { .. } | Phase::Ending { .. } => {}
        }
    }

    /// Nobody waits for what runs.
    pub(crate) fn abandon(&mut self, at: At, limits: &Limits, effects: &mut Vec<Effect>) {
        (self.wish, self.trouble) = (None, None);
        self.stop(at, false, limits, effects);
    }

    /// Nothing is left to know about the model.
    pub(crate) fn over(&self) -> bool {
        self.wish.is_none() && self.trouble.is_none() && self.process.is_none()
    }

    // ---- starting ----

    /// The footprint to reserve, if only room is missing for a start.
    pub(crate) fn startable(&self) -> Option<u64> {
        let held_back = self.process.is_some()
            || self.backoff.until().is_some()
            || self.trouble.as_ref().is_some_and(|trouble| trouble.permanent);
        let bytes = self.wish.as_ref().map_or(0, |wish| wish.needed_bytes);
        (!held_back && bytes > 0).then_some(bytes)
    }

    pub(crate) fn start(&mut self, at: At, incarnation: Incarnation, reserved_bytes: u64, limits: &Limits) {
        let phase = Phase::Starting { deadline: at.after(limits.start_deadline) };
        self.process = Some(Process { incarnation, reserved_bytes, pid: None, phase });
        self.starts = self.starts.saturating_add(1);
    }

    /// Before the process is known to exist this answers `Start`: there is none. Once the model is ready, its folder
    /// has been read, and what became of it matters only at the next start. What was given up stays given up.
    pub(crate) fn unresolvable(
        &mut self,
        at: At,
        trouble: (String, bool),
        limits: &Limits,
        effects: &mut Vec<Effect>,
    ) {
        let (reason, permanent) = trouble;
        if !permanent && self.trouble.as_ref().is_some_and(|trouble| trouble.permanent) {
            return;
        }
        match self.process.as_ref().map(|process| (&process.phase, process.pid)) {
            None | Some((Phase::Starting { .. }, None)) => {
                self.fail(at, reason, permanent, limits);
                self.process = None;
            }
            Some((Phase::Starting { .. } | Phase::Loading { .. }, _)) => {
                self.fail(at, reason, permanent, limits);
                self.stop(at, true, limits, effects);
            }
            Some((Phase::Ready { .. } | Phase::Draining { .. } | Phase::Ending { .. }, _)) => {}
        }
    }

    pub(crate) fn started(&mut self, pid: u32) {
        if let Some(process) = &mut self.process {
            process.pid = Some(pid);
        }
    }

    /// Means nothing for a runtime that has connected: that one exists, and ends with `Exited`.
    pub(crate) fn start_failed(&mut self, at: At, reason: &str, limits: &Limits) {
        match self.process.as_ref().map(|process| &process.phase) {
            Some(Phase::Starting { .. }) => {
                self.fail(at, format!("the runtime could not be started: {reason}"), false, limits);
                self.process = None;
            }
            Some(Phase::Ending { .. }) => self.process = None,
            Some(Phase::Loading { .. } | Phase::Ready { .. } | Phase::Draining { .. }) | None => {}
        }
    }

    // ---- loading and running ----

    pub(crate) fn hello(&mut self, at: At, model: ModelKey, limits: &Limits, effects: &mut Vec<Effect>) {
        if let Some(process) = &mut self.process
            && matches!(process.phase, Phase::Starting { .. })
        {
            process.phase = Phase::Loading { watch: Watch::loading(at, limits) };
            effects.push(Effect::Load { incarnation: process.incarnation, model });
        }
    }

    /// A runtime that turned out larger than predicted keeps what it has if that fits, and leaves if it does not: then
    /// it comes back when there is room for its true size.
    pub(crate) fn loaded(
        &mut self,
        at: At,
        bytes: u64,
        free_bytes: u64,
        limits: &Limits,
        effects: &mut Vec<Effect>,
    ) {
        let Some(process) = &mut self.process else { return };
        if !matches!(process.phase, Phase::Loading { .. }) {
            return;
        }
        if let Some(wish) = &mut self.wish {
            wish.needed_bytes = wish.needed_bytes.max(bytes);
        }
        if bytes.saturating_sub(process.reserved_bytes) > free_bytes {
            return self.stop(at, false, limits, effects);
        }
        process.reserved_bytes = process.reserved_bytes.max(bytes);
        process.phase = Phase::Ready { watch: Watch::new(at, limits), since: at, bytes };
        self.trouble = None;
    }

    pub(crate) fn load_failed(
        &mut self,
        at: At,
        trouble: (String, bool),
        limits: &Limits,
        effects: &mut Vec<Effect>,
    ) {
        let loading =
            self.process.as_ref().is_some_and(|process| matches!(process.phase, Phase::Loading { .. }));
        if loading {
            let (reason, permanent) = trouble;
            self.fail(at, format!("the model could not be loaded: {reason}"), permanent, limits);
            self.stop(at, true, limits, effects);
        }
    }

    pub(crate) fn progress(&mut self, at: At, expected_step: Span, limits: &Limits) {
        match self.process.as_mut().map(|process| &mut process.phase) {
            Some(Phase::Loading { watch }) => *watch = Watch::loading(at, limits),
            Some(Phase::Ready { watch, .. } | Phase::Draining { watch, .. }) => {
                watch.progress(at, expected_step, limits)
            }
            Some(Phase::Starting { .. } | Phase::Ending { .. }) | None => {}
        }
    }

    // ---- ending ----

    pub(crate) fn drained(&mut self, at: At, limits: &Limits, effects: &mut Vec<Effect>) {
        if matches!(self.process.as_ref().map(|process| &process.phase), Some(Phase::Draining { .. })) {
            self.stop(at, false, limits, effects);
        }
    }

    pub(crate) fn exited(&mut self, at: At, status: ExitStatus, last_words: &str, limits: &Limits) {
        let Some(process) = &self.process else { return };
        if !process.leaving() {
            let reason = exit::describe(status, process.doing(), last_words, limits.reason_bytes_max);
            self.fail(at, reason, false, limits);
        }
        self.process = None;
    }

    /// Acts on what is over by now: a silent or stubborn process is killed, one that had its time to finish is stopped, a served
    /// delay ends.
    pub(crate) fn pass(&mut self, at: At, model: ModelKey, limits: &Limits, effects: &mut Vec<Effect>) {
        self.backoff.pass(at);
        let Some(process) = self.process.as_ref().filter(|process| process.deadline(model).0 <= at) else {
            return;
        };
        let incarnation = process.incarnation;
        let Some(reason) = process.overdue(at) else { return self.stop(at, false, limits, effects) };
        let (kills, failed) = match process.phase {
            Phase::Ending { kills, failed, .. } => (kills, failed),
            Phase::Draining { .. } => (0, false),
            Phase::Starting { .. } | Phase::Loading { .. } | Phase::Ready { .. } => {
                self.fail(at, format!("{reason}; it was killed"), false, limits);
                (0, true)
            }
        };
        effects.push(Effect::Kill { incarnation, reason });
        // Not at the same moment again, even with a limit of zero.
        let next_kill = at.after(limits.kill_again.max(Span(1)));
        if let Some(process) = &mut self.process {
            process.phase = Phase::Ending { kills: kills.saturating_add(1), next_kill, failed };
        }
    }

    /// Whether a process that was to be drained goes on instead.
    fn resume(&mut self, effects: &mut Vec<Effect>) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Phase::Draining { watch, since, bytes, .. } = process.phase.clone() else { return false };
        process.phase = Phase::Ready { watch, since, bytes };
        effects.push(Effect::Resume { incarnation: process.incarnation });
        true
    }

    fn stop(&mut self, at: At, failed: bool, limits: &Limits, effects: &mut Vec<Effect>) {
        if let Some(process) = self.process.as_mut().filter(|process| !process.ending()) {
            process.phase = Phase::Ending { kills: 0, next_kill: at.after(limits.stop_grace), failed };
            effects.push(Effect::Stop { incarnation: process.incarnation });
        }
    }

    /// A permanent failure has no delay: it ends with another wish. Neither has one of a model whose size is not known,
    /// which the shell is still at work on.
    fn fail(&mut self, at: At, reason: String, permanent: bool, limits: &Limits) {
        self.backoff.pass(at);
        let sized = self.wish.as_ref().is_some_and(|wish| wish.needed_bytes > 0);
        if permanent {
            self.backoff.cancel();
        } else if sized && self.backoff.until().is_none() {
            let healthy = self.process.as_ref().map_or(Span(0), Process::healthy);
            self.backoff.failed(at, healthy, limits);
        }
        self.trouble = Some(Trouble { reason: exit::bounded(&reason, limits.reason_bytes_max), permanent });
    }

    // ---- what others may know ----

    /// The next moment at which [`Life::pass`] does something.
    pub(crate) fn deadline(&self, model: ModelKey) -> Option<(At, Why)> {
        match &self.process {
            Some(process) => Some(process.deadline(model)),
            None => self.backoff.until().map(|until| (until, Why::BackoffOver(model))),
        }
    }

    pub(crate) fn state(&self, room: Room, limits: &Limits) -> ModelState {
        match (&self.process, &self.trouble) {
            (Some(process), trouble) => match (&process.phase, trouble) {
                (Phase::Starting { .. }, _) => ModelState::Starting,
                (Phase::Loading { .. }, _) => ModelState::Loading,
                (Phase::Ready { bytes, .. }, _) => {
                    ModelState::Ready { incarnation: process.incarnation, bytes: *bytes }
                }
                (Phase::Draining { .. }, _) => ModelState::Draining,
                (Phase::Ending { failed: true, .. }, Some(trouble)) => trouble.state(),
                (Phase::Ending { .. }, _) => ModelState::Stopping,
            },
            (None, Some(trouble)) if trouble.permanent => trouble.state(),
            (None, trouble) => self.waiting(trouble.as_ref(), room, limits),
        }
    }

    fn waiting(&self, trouble: Option<&Trouble>, room: Room, limits: &Limits) -> ModelState {
        let needed = self.wish.as_ref().map_or(0, |wish| wish.needed_bytes);
        let for_ = match (self.backoff.until(), trouble) {
            (_, Some(trouble)) if needed == 0 => return trouble.state(),
            (_, None) if needed == 0 => WaitingFor::Footprint,
            (Some(until), trouble) => {
                let reason = trouble.map(|trouble| trouble.reason.clone()).unwrap_or_default();
                WaitingFor::Backoff { until, reason }
            }
            (None, _) if room.processes_free == 0 => WaitingFor::Processes { limit: limits.models_max },
            (None, _) => WaitingFor::Memory { needed, free: room.free_bytes },
        };
        ModelState::Waiting { for_ }
    }
}

impl Trouble {
    fn state(&self) -> ModelState {
        ModelState::Failed { reason: self.reason.clone(), permanent: self.permanent }
    }
}
