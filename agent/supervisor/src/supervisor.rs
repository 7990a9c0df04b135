//! [`Supervisor`]: all models of one Mac, and the room they share.
//!
//! Owns the order of things: a command is heard, then what is overdue is acted on, then what can start starts, then
//! what changed is reported. Owns the memory budget, so that a start and its reservation are one decision. Refuses to
//! know what a phase of a process means: that is `life.rs`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use crate::command::{Command, Wanted};
use crate::effect::{Effect, KillReason, Why};
use crate::exit;
use crate::life::{Life, Room};
use crate::limits::Limits;
use crate::process::Incarnation;
use crate::state::ModelState;
use crate::time::At;
use crate::verdict::Verdict;

/// One model, by the number the shell gave its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey(pub u32);

/// The runtimes of one Mac. Equal commands at equal times give equal effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervisor {
    limits: Limits,
    budget_bytes: u64,
    now: At,
    draining: bool,
    last_incarnation: Incarnation,
    pub(crate) lives: BTreeMap<ModelKey, Life>,
}

impl Supervisor {
    /// A Mac without runtimes, which may hold `budget_bytes` of models.
    #[must_use]
    pub fn new(limits: Limits, budget_bytes: u64) -> Self {
        let (now, last_incarnation) = (At(0), Incarnation(0));
        Supervisor { limits, budget_bytes, now, draining: false, last_incarnation, lives: BTreeMap::new() }
    }

    /// Hears one command; appends what is to be done. Total: what makes no sense changes nothing.
    pub fn apply(&mut self, at: At, command: Command, effects: &mut Vec<Effect>) {
        // A clock that seems to go back stands still instead.
        self.now = self.now.max(at);
        self.hear(command, effects);
        // The command first: after a stall of the shell, a sign of life that waited for it still counts.
        for (model, life) in &mut self.lives {
            life.pass(self.now, *model, &self.limits, effects);
        }
        self.start_what_fits(effects);
        self.report_changes(effects);
    }

    /// When to call with [`Command::Wake`] at the latest, and what for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(At, Why)> {
        self.lives.iter().filter_map(|(model, life)| life.deadline(*model)).min()
    }

    /// What there is to know about a model; nothing if it is neither wanted nor here.
    #[must_use]
    pub fn explain(&self, model: ModelKey) -> Option<Verdict> {
        let life = self.lives.get(&model)?;
        let state = life.state(self.room(), &self.limits);
        Some(Verdict::of(model, life, state, self.now))
    }

    /// The models that are wanted or still have a process, in the order of their keys.
    pub fn models(&self) -> impl Iterator<Item = ModelKey> {
        self.lives.keys().copied()
    }

    /// Memory that is promised to processes; never more than the budget.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        let reserved = self.lives.values().filter_map(|life| life.process.as_ref());
        reserved.fold(0, |sum, process| sum.saturating_add(process.reserved_bytes))
    }

    /// The whole budget.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Whether everything stops for good.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Whether a drained Mac has no process left.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.draining && self.lives.is_empty()
    }

    fn hear(&mut self, command: Command, effects: &mut Vec<Effect>) {
        let at = self.now;
        match command {
            Command::Want { models } => self.want(&models, effects),
            Command::Unresolvable { model, reason, retry } => {
                self.unresolvable(model, &reason, retry, effects)
            }
            Command::Started { incarnation, pid } => match self.living(incarnation) {
                Some((_, life, _)) => life.started(pid),
                // Nobody would ever stop it.
                None => effects.push(Effect::Kill { incarnation, reason: KillReason::Stray }),
            },
            Command::StartFailed { incarnation, reason } => {
                if let Some((_, life, limits)) = self.living(incarnation) {
                    life.start_failed(at, &reason, limits);
                }
            }
            Command::Hello { incarnation } => {
                if let Some((model, life, limits)) = self.living(incarnation) {
                    life.hello(at, model, limits, effects);
                }
            }
            Command::Loaded { incarnation, bytes } => {
                let free_bytes = self.room().free_bytes;
                if let Some((_, life, limits)) = self.living(incarnation) {
                    life.loaded(at, bytes, free_bytes, limits, effects);
                }
            }
            Command::LoadFailed { incarnation, reason, permanent } => {
                if let Some((_, life, limits)) = self.living(incarnation) {
                    life.load_failed(at, (reason, permanent), limits, effects);
                }
            }
            Command::Progress { incarnation, expected_step } => {
                if let Some((_, life, limits)) = self.living(incarnation) {
                    life.progress(at, expected_step, limits);
                }
            }
            Command::Drained { incarnation } => {
                if let Some((_, life, limits)) = self.living(incarnation) {
                    life.drained(at, limits, effects);
                }
            }
            Command::Exited { incarnation, status, last_words } => {
                if let Some((_, life, limits)) = self.living(incarnation) {
                    life.exited(at, status, &last_words, limits);
                }
            }
            Command::Drain => {
                self.draining = true;
                for life in self.lives.values_mut() {
                    life.abandon(at, &self.limits, effects);
                }
            }
            Command::Wake => {}
        }
    }

    /// A full list is cut, in the order given, and what is cut off is reported rather than forgotten.
    fn want(&mut self, models: &[Wanted], effects: &mut Vec<Effect>) {
        if self.draining {
            return;
        }
        let mut wanted = BTreeMap::new();
        let mut cut = BTreeSet::new();
        for Wanted { model, bytes } in models {
            if wanted.contains_key(model) || wanted.len() < self.limits.models_max {
                wanted.insert(*model, *bytes);
            } else {
                cut.insert(*model);
            }
        }
        self.keep_only(&wanted, effects);
        for (model, bytes) in wanted {
            self.lives.entry(model).or_default().want(bytes, effects);
        }
        for model in cut {
            let reason = format!("more than {} models are wanted on this Mac", self.limits.models_max);
            let state = ModelState::Failed { reason, permanent: true };
            effects.push(Effect::State { model, state });
        }
    }

    fn keep_only(&mut self, wanted: &BTreeMap<ModelKey, u64>, effects: &mut Vec<Effect>) {
        for (model, life) in &mut self.lives {
            if !wanted.contains_key(model) {
                life.unwant(self.now, &self.limits, effects);
            }
        }
    }

    /// A model that is not wanted is remembered as unreadable until the next wish, so that its state can be reported: the
    /// shell may have found that out before it could wish for it.
    fn unresolvable(&mut self, model: ModelKey, reason: &str, retry: bool, effects: &mut Vec<Effect>) {
        let known = self.lives.get(&model);
        let stopping = known.is_some_and(|life| life.wish.is_none() && life.process.is_some());
        let full = known.is_none() && self.lives.len() >= self.limits.models_max;
        if self.draining || stopping || full {
            return;
        }
        let reason = exit::bounded(reason, self.limits.reason_bytes_max);
        let life = self.lives.entry(model).or_default();
        life.unresolvable(self.now, (reason, !retry), &self.limits, effects);
    }

    /// The model whose present process this is; earlier processes are nobody's.
    fn living(&mut self, incarnation: Incarnation) -> Option<(ModelKey, &mut Life, &Limits)> {
        let is_it =
            |life: &Life| life.process.as_ref().is_some_and(|process| process.incarnation == incarnation);
        let (model, life) = self.lives.iter_mut().find(|(_, life)| is_it(life))?;
        Some((*model, life, &self.limits))
    }

    /// In the order of the keys; a model that does not fit lets a smaller one pass, which takes nothing from it that
    /// it could use.
    fn start_what_fits(&mut self, effects: &mut Vec<Effect>) {
        let mut room = self.room();
        for (model, life) in &mut self.lives {
            let fits = |bytes: &u64| *bytes <= room.free_bytes && room.processes_free > 0;
            let Some(bytes) = life.startable().filter(fits) else { continue };
            let Some(next) = self.last_incarnation.0.checked_add(1).map(Incarnation) else { continue };
            self.last_incarnation = next;
            life.start(self.now, next, bytes, &self.limits);
            room.free_bytes = room.free_bytes.saturating_sub(bytes);
            room.processes_free = room.processes_free.saturating_sub(1);
            effects.push(Effect::Start { incarnation: next, model: *model });
        }
    }

    fn report_changes(&mut self, effects: &mut Vec<Effect>) {
        let room = self.room();
        let limits = &self.limits;
        self.lives.retain(|model, life| {
            let state = if life.over() { ModelState::Gone } else { life.state(room, limits) };
            let goes_on = state != ModelState::Gone;
            if life.reported.as_ref() != Some(&state) {
                life.reported = Some(state.clone());
                effects.push(Effect::State { model: *model, state });
            }
            goes_on
        });
    }

    fn room(&self) -> Room {
        let alive = self.lives.values().filter(|life| life.process.is_some()).count();
        Room {
            free_bytes: self.budget_bytes.saturating_sub(self.reserved_bytes()),
            processes_free: self.limits.models_max.saturating_sub(alive),
        }
    }
}
