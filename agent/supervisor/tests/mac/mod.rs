//! A Mac made of events: it carries effects out the way a shell does, with processes that misbehave as told.
//!
//! Owns virtual time, and the truth about what is alive, which it keeps apart from what the supervisor believes. Refuses
//! to let a supervisor pass that over-commits memory, runs a model twice, reports a state twice, or wakes up for nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use supervisor::{
    At, Command, Effect, ExitStatus, Incarnation, Limits, ModelKey, ModelState, Span, Supervisor, Wanted,
};

/// What one process does with its life. The first that starts takes the first of the list; later ones behave.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Conduct {
    Good,
    CannotStart,
    NeverConnects,
    DiesStarting,
    DiesLoading,
    LoadFails,
    StallsLoading,
    /// Ready, then dead after so many seconds.
    DiesReady(u64),
    /// Ready, and silent from then on.
    Hangs,
    /// Good, but deaf to `Stop`.
    IgnoresStop,
    /// Deaf to `Stop`, silent, and killed in vain so many times.
    WontDie(u32),
}

const PROGRESS_EVERY: Span = Span::from_secs(5);

pub(crate) struct Mac {
    pub(crate) supervisor: Supervisor,
    pub(crate) now: At,
    pub(crate) log: Vec<(At, Effect)>,
    pub(crate) states: BTreeMap<ModelKey, ModelState>,
    conducts: VecDeque<Conduct>,
    alive: BTreeMap<Incarnation, Alive>,
    sizes: BTreeMap<ModelKey, u64>,
    events: BTreeSet<(At, u64, usize)>,
    commands: Vec<(Incarnation, Command)>,
}

struct Alive {
    model: ModelKey,
    bytes: u64,
    conduct: Conduct,
    kills: u32,
}

impl Mac {
    pub(crate) fn new(budget_bytes: u64, conducts: &[Conduct]) -> Self {
        Mac {
            supervisor: Supervisor::new(Limits::default(), budget_bytes),
            now: At(0),
            log: Vec::new(),
            states: BTreeMap::new(),
            conducts: conducts.iter().copied().collect(),
            alive: BTreeMap::new(),
            sizes: BTreeMap::new(),
            events: BTreeSet::new(),
            commands: Vec::new(),
        }
    }

    /// Wishes for models, given as (key, bytes).
    pub(crate) fn want(&mut self, models: &[(u32, u64)]) {
        let models: Vec<_> =
            models.iter().map(|(key, bytes)| Wanted { model: ModelKey(*key), bytes: *bytes }).collect();
        let sized = models.iter().filter(|wanted| wanted.bytes > 0);
        self.sizes.extend(sized.map(|wanted| (wanted.model, wanted.bytes)));
        self.tell(Command::Want { models });
    }

    pub(crate) fn tell(&mut self, command: Command) {
        let mut effects = Vec::new();
        self.supervisor.apply(self.now, command, &mut effects);
        assert_eq!(self.supervisor.violation(), None);
        // Also after a wake-up: what was due has been done, so no loop can spin on a deadline.
        if let Some((at, why)) = self.supervisor.next_deadline() {
            assert!(at > self.now, "{why:?} is not in the future");
        }
        for effect in effects {
            self.carry_out(&effect);
            self.log.push((self.now, effect));
        }
    }

    /// Lives through everything that happens within the span.
    pub(crate) fn pass(&mut self, span: Span) {
        let end = self.now.after(span);
        loop {
            let event = self.events.first().copied().filter(|(at, _, _)| *at <= end);
            let deadline = self.supervisor.next_deadline().map(|(at, _)| at).filter(|at| *at <= end);
            match (event, deadline) {
                (Some((at, _, _)), Some(deadline)) if deadline < at => self.wake(deadline),
                (Some(event), _) => self.happen(event),
                (None, Some(deadline)) => self.wake(deadline),
                (None, None) => break,
            }
        }
        self.now = end;
    }

    pub(crate) fn starts(&self) -> Vec<At> {
        let starts = self.log.iter().filter(|(_, effect)| matches!(effect, Effect::Start { .. }));
        starts.map(|(at, _)| *at).collect()
    }

    pub(crate) fn ready(&self, model: u32) -> bool {
        matches!(self.states.get(&ModelKey(model)), Some(ModelState::Ready { .. }))
    }

    pub(crate) fn alive(&self) -> usize {
        self.alive.len()
    }

    fn wake(&mut self, at: At) {
        self.now = at;
        self.tell(Command::Wake);
    }

    fn happen(&mut self, event: (At, u64, usize)) {
        self.events.remove(&event);
        self.now = event.0;
        let (incarnation, command) = self.commands[event.2].clone();
        // What was planned for a process dies with it.
        if !self.alive.contains_key(&incarnation) {
            return;
        }
        if matches!(command, Command::Progress { .. }) {
            self.plan(PROGRESS_EVERY, incarnation, command.clone());
        }
        if matches!(command, Command::Exited { .. } | Command::StartFailed { .. }) {
            self.alive.remove(&incarnation);
        }
        self.tell(command);
    }

    fn plan(&mut self, delay: Span, incarnation: Incarnation, command: Command) {
        let number = self.commands.len();
        self.events.insert((self.now.after(delay), number as u64, number));
        self.commands.push((incarnation, command));
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Start { incarnation, model } => self.start(*incarnation, *model),
            Effect::Load { incarnation, .. } => self.load(*incarnation),
            Effect::Drain { incarnation } => self.drain(*incarnation),
            // Its answers finish all the same, and nobody asks for the news of it any more.
            Effect::Resume { incarnation } => assert!(self.alive.contains_key(incarnation)),
            Effect::Stop { incarnation } => {
                let conduct = self.alive.get(incarnation).map(|alive| alive.conduct);
                match conduct.unwrap_or_else(|| panic!("{incarnation} is stopped and is not there")) {
                    Conduct::IgnoresStop | Conduct::WontDie(_) | Conduct::NeverConnects => {}
                    Conduct::Good
                    | Conduct::CannotStart
                    | Conduct::DiesStarting
                    | Conduct::DiesLoading
                    | Conduct::LoadFails
                    | Conduct::StallsLoading
                    | Conduct::DiesReady(_)
                    | Conduct::Hangs => {
                        self.plan(Span::from_millis(300), *incarnation, exited(*incarnation, 0))
                    }
                }
            }
            Effect::Kill { incarnation, .. } => {
                let alive = self.alive.get_mut(incarnation);
                let alive = alive.unwrap_or_else(|| panic!("{incarnation} is killed and is not there"));
                alive.kills += 1;
                if !matches!(alive.conduct, Conduct::WontDie(kills) if alive.kills <= kills) {
                    self.plan(Span::from_millis(50), *incarnation, exited(*incarnation, 9));
                }
            }
            Effect::State { model, state } => {
                let former = self.states.insert(*model, state.clone());
                assert_ne!(former.as_ref(), Some(state), "the same state of {model:?} twice");
            }
        }
    }

    fn start(&mut self, incarnation: Incarnation, model: ModelKey) {
        assert!(self.alive.values().all(|alive| alive.model != model), "{model:?} runs twice");
        assert!(self.alive.keys().all(|older| *older < incarnation), "{incarnation} is not a new number");
        let conduct = self.conducts.pop_front().unwrap_or(Conduct::Good);
        let bytes = self.sizes[&model];
        self.alive.insert(incarnation, Alive { model, bytes, conduct, kills: 0 });
        let total: u64 = self.alive.values().map(|alive| alive.bytes).sum();
        assert!(total <= self.supervisor.budget_bytes(), "{total} bytes are in use");
        if matches!(conduct, Conduct::CannotStart) {
            let reason = "no such file".to_owned();
            return self.plan(
                Span::from_millis(10),
                incarnation,
                Command::StartFailed { incarnation, reason },
            );
        }
        self.plan(Span::from_millis(20), incarnation, Command::Started { incarnation, pid: 1000 });
        match conduct {
            Conduct::NeverConnects => {}
            Conduct::DiesStarting => self.plan(Span::from_secs(1), incarnation, exited(incarnation, 11)),
            Conduct::Good
            | Conduct::CannotStart
            | Conduct::DiesLoading
            | Conduct::LoadFails
            | Conduct::StallsLoading
            | Conduct::DiesReady(_)
            | Conduct::Hangs
            | Conduct::IgnoresStop
            | Conduct::WontDie(_) => {
                self.plan(Span::from_secs(2), incarnation, Command::Hello { incarnation })
            }
        }
    }

    /// Answers finish in their time, unless their runtime is not one to finish anything.
    fn drain(&mut self, incarnation: Incarnation) {
        match self.alive[&incarnation].conduct {
            Conduct::Hangs | Conduct::IgnoresStop | Conduct::WontDie(_) => {}
            Conduct::Good
            | Conduct::CannotStart
            | Conduct::NeverConnects
            | Conduct::DiesStarting
            | Conduct::DiesLoading
            | Conduct::LoadFails
            | Conduct::StallsLoading
            | Conduct::DiesReady(_) => {
                self.plan(Span::from_secs(2), incarnation, Command::Drained { incarnation })
            }
        }
    }

    fn load(&mut self, incarnation: Incarnation) {
        let alive = &self.alive[&incarnation];
        let (conduct, bytes) = (alive.conduct, alive.bytes);
        let loaded = Command::Loaded { incarnation, bytes };
        let progress = Command::Progress { incarnation, expected_step: Span::from_millis(40) };
        match conduct {
            Conduct::DiesLoading => self.plan(Span::from_secs(1), incarnation, exited(incarnation, 11)),
            Conduct::LoadFails => {
                let reason = "out_of_memory".to_owned();
                self.plan(
                    Span::from_secs(1),
                    incarnation,
                    Command::LoadFailed { incarnation, reason, permanent: false },
                );
            }
            Conduct::Hangs | Conduct::WontDie(_) => self.plan(Span::from_secs(3), incarnation, loaded),
            Conduct::DiesReady(seconds) => {
                self.plan(Span::from_secs(3), incarnation, loaded);
                self.plan(Span::from_secs(3 + seconds), incarnation, exited(incarnation, 11));
                self.plan(PROGRESS_EVERY, incarnation, progress);
            }
            Conduct::Good | Conduct::IgnoresStop => {
                self.plan(Span::from_secs(3), incarnation, loaded);
                self.plan(PROGRESS_EVERY, incarnation, progress);
            }
            Conduct::StallsLoading
            | Conduct::CannotStart
            | Conduct::NeverConnects
            | Conduct::DiesStarting => {}
        }
    }
}

fn exited(incarnation: Incarnation, signal: i32) -> Command {
    let status = ExitStatus { code: None, signal: Some(signal) };
    Command::Exited { incarnation, status, last_words: String::new() }
}
