//! Tells a scenario to a fresh scheduler and writes down what it answers. Every step also passes the invariants and a witness
//! of the whole history, so a scenario can be wrong in its words only, never in the laws.

use std::collections::BTreeMap;

use scheduler::witness::Witness;
use scheduler::{At, Command, Effect, Fact, ReservationId, Scheduler, Span, invariants};

use crate::cast::Cast;
use crate::step::{self, Step};
use crate::words;

struct Story {
    cast: Cast,
    limits: String,
    scheduler: Scheduler,
    witness: Witness,
    /// What the registry would tell a new leader.
    facts: Vec<Fact>,
    proposed: BTreeMap<ReservationId, Fact>,
}

/// The same text with the true answers below each step.
pub(crate) fn tell(text: &str) -> Result<String, String> {
    let mut story = Story {
        cast: Cast::default(),
        limits: String::new(),
        scheduler: begin("")?,
        witness: Witness::default(),
        facts: Vec::new(),
        proposed: BTreeMap::new(),
    };
    let mut told = String::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with("  ")) {
        told.push_str(line);
        told.push('\n');
        let answers = story.line(line).map_err(|error| format!("line {}: {error}", index + 1))?;
        answers.iter().for_each(|answer| told.push_str(&format!("  {answer}\n")));
    }
    Ok(told)
}

/// The first line in which two tellings differ.
pub(crate) fn difference(written: &str, told: &str) -> String {
    let lines = written.lines().map(Some).chain(std::iter::repeat(None));
    let answers = told.lines().map(Some).chain(std::iter::repeat(None));
    let longest = written.lines().count().max(told.lines().count());
    let first = lines.zip(answers).take(longest).enumerate().find(|(_, (written, told))| written != told);
    first.map_or("only the line ends differ".to_owned(), |(index, (written, told))| {
        let show = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
        format!("  line {}\n  written:  {}\n  happened: {}", index + 1, show(written), show(told))
    })
}

fn begin(limits: &str) -> Result<Scheduler, String> {
    step::limits(limits).map(Scheduler::new)
}

impl Story {
    fn line(&mut self, line: &str) -> Result<Vec<String>, String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(Vec::new());
        }
        if let Some(limits) = line.strip_prefix("limits: ") {
            self.limits = limits.to_owned();
            self.scheduler = begin(limits)?;
            return Ok(Vec::new());
        }
        let (time, rest) =
            line.strip_prefix("at ").and_then(|rest| rest.split_once(": ")).ok_or("not `at <time>: ...`")?;
        let at = At(0) + step::span(time)?;
        match step::read(rest, at, &mut self.cast)? {
            Step::Apply(command) => self.apply(at, command),
            Step::Explain(request) => Ok(match self.scheduler.explain(request) {
                Some(verdict) => verdict.words(&self.cast).lines().map(str::to_owned).collect(),
                None => vec!["= nothing is known of it".to_owned()],
            }),
            Step::ExplainModel(model) => {
                Ok(self.scheduler.explain_model(model, &self.cast).lines().map(str::to_owned).collect())
            }
            Step::ExplainNode(node) => {
                Ok(self.scheduler.explain_node(node, &self.cast).lines().map(str::to_owned).collect())
            }
            Step::Queue => Ok(self
                .scheduler
                .waiting(99)
                .iter()
                .map(|waiting| format!("= {}", words::waiting(waiting)))
                .collect()),
            Step::Position(request) => {
                Ok(vec![format!("= {}", words::position(self.scheduler.position(request)))])
            }
            Step::NextWake => {
                Ok(vec![format!("= {}", words::next_wake(self.scheduler.next_deadline(), &self.cast))])
            }
            Step::Load => Ok(words::load(&self.scheduler.load(), &self.cast)
                .iter()
                .map(|line| format!("= {line}"))
                .collect()),
            Step::NewLeader => self.new_leader(at),
            Step::Resume => {
                let mut effects = Vec::new();
                self.scheduler.resume(&mut effects);
                Ok(self.lines(&effects))
            }
        }
    }

    fn apply(&mut self, at: At, command: Command) -> Result<Vec<String>, String> {
        let mut effects = Vec::new();
        self.scheduler.apply(at, command.clone(), &mut effects);
        self.replicate(&command, &effects);
        invariants::check(&self.scheduler, &effects).map_err(|broken| format!("{broken:?}"))?;
        let witnessed = self.witness.observe(&command, &effects, &self.scheduler.load());
        witnessed.map_err(|broken| format!("the witness saw {broken:?}"))?;
        if let Some((next, _)) = self.scheduler.next_deadline().filter(|(next, _)| *next <= at) {
            return Err(format!("a wake-up {:?} late was forgotten", at.since(next).max(Span(1))));
        }
        Ok(self.lines(&effects))
    }

    /// What the registry keeps: recorded facts, and reservations from their grant until they are told to go.
    fn replicate(&mut self, command: &Command, effects: &[Effect]) {
        if let Command::Reserved { reservation, granted: true } = command {
            self.facts.extend(self.proposed.remove(reservation));
        }
        for effect in effects {
            match effect {
                Effect::Record(fact) => self.facts.push(*fact),
                Effect::Reserve { reservation, node, model, bytes } => {
                    let home = Fact::Home { node: *node, model: *model, bytes: *bytes };
                    self.proposed.insert(*reservation, home);
                }
                Effect::Evict { node, model } => {
                    let gone = (*node, *model);
                    self.facts.retain(
                        |fact| !matches!(fact, Fact::Home { node, model, .. } if (*node, *model) == gone),
                    );
                }
                Effect::Dispatch { .. }
                | Effect::Queued { .. }
                | Effect::Refuse { .. }
                | Effect::Abort { .. }
                | Effect::Probe { .. } => {}
            }
        }
    }

    /// Another scheduler takes over, and is told what the registry keeps before anything else.
    fn new_leader(&mut self, at: At) -> Result<Vec<String>, String> {
        self.scheduler = begin(&self.limits)?;
        self.witness = Witness::default();
        let mut lines = Vec::new();
        for fact in self.facts.clone() {
            lines.push(format!("= recalls that {}", fact.words(&self.cast)));
            let told = self.apply(at, Command::Recall(fact))?;
            lines.extend(told.into_iter().filter(|line| line != "-> nothing"));
        }
        Ok(lines)
    }

    fn lines(&self, effects: &[Effect]) -> Vec<String> {
        if effects.is_empty() {
            return vec!["-> nothing".to_owned()];
        }
        effects.iter().map(|effect| format!("-> {}", words::effect(effect, &self.cast))).collect()
    }
}
