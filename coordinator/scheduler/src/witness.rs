//! The laws over a whole history: what a bystander who sees every command and every effect may rely on.
//!
//! Owns a memory of every request it has seen, so it belongs to tests and simulators. Refuses to look inside the scheduler
//! but for [`crate::Load`]: it believes what was said aloud.

use alloc::collections::BTreeMap;

use crate::command::{Adopted, Command, Outcome};
use crate::effect::{Effect, Refusal};
use crate::ids::{Attempt, NodeId, RequestId};
use crate::invariants::Broken;
use crate::views::Load;

/// Sees every command and every effect, in order.
#[derive(Debug, Default)]
pub struct Witness {
    lives: BTreeMap<RequestId, Life>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Waiting { attempt: Attempt },
    Running { attempt: Attempt, node: NodeId, began: bool },
    Over,
}

/// What the command makes of the request it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Submitted although it is alive.
    Again(RequestId),
    /// Taken over from an earlier leader.
    TakenOver(RequestId),
}

impl Witness {
    /// Takes in one command with its effects and the load after them.
    ///
    /// # Errors
    /// The law that this step broke: each request that was submitted or taken over waits, runs or has exactly one end; attempts
    /// grow by one; nothing is said of a request that is over.
    pub fn observe(&mut self, command: &Command, effects: &[Effect], load: &Load) -> Result<(), Broken> {
        let told = self.hear(command);
        for effect in effects {
            self.see(effect, told)?;
        }
        self.agree(load)
    }

    /// How many requests were submitted or taken over and how many of them have ended.
    #[must_use]
    pub fn submitted_and_ended(&self) -> (usize, usize) {
        (self.lives.len(), self.lives.values().filter(|life| **life == Life::Over).count())
    }

    fn hear(&mut self, command: &Command) -> Option<Told> {
        match command {
            Command::Submit(submission) => {
                if !self.begin(submission.request, Life::Waiting { attempt: Attempt(0) }) {
                    return Some(Told::Again(submission.request));
                }
            }
            Command::Adopt { submission, attempt, running } => {
                let life = match running {
                    None => Life::Waiting { attempt: *attempt },
                    Some(Adopted { node, began }) => {
                        Life::Running { attempt: *attempt, node: *node, began: *began }
                    }
                };
                let taken_over = self.begin(submission.request, life);
                return taken_over.then_some(Told::TakenOver(submission.request));
            }
            Command::Cancel { request } => {
                self.lives.entry(*request).and_modify(|life| *life = Life::Over);
            }
            Command::Began { request, attempt } => {
                if let Some(Life::Running { attempt: current, began, .. }) = self.lives.get_mut(request) {
                    *began |= current == attempt;
                }
            }
            Command::Finished { request, attempt, outcome, .. } => {
                self.hear_end(*request, *attempt, *outcome)
            }
            Command::NodeLost { node } => {
                for life in self.lives.values_mut() {
                    match *life {
                        Life::Running { attempt, node: on, .. } if on == *node => {
                            *life = Life::Waiting { attempt }
                        }
                        Life::Waiting { .. } | Life::Running { .. } | Life::Over => {}
                    }
                }
            }
            Command::NodeReported { .. }
            | Command::NodeDraining { .. }
            | Command::Reserved { .. }
            | Command::Probed { .. }
            | Command::Policy { .. }
            | Command::Weight { .. }
            | Command::Recall(_)
            | Command::Lead { .. }
            | Command::Wake => {}
        }
        None
    }

    /// Whether nobody of that number was alive.
    fn begin(&mut self, request: RequestId, life: Life) -> bool {
        let alive = self.lives.get(&request).is_some_and(|life| *life != Life::Over);
        if !alive {
            self.lives.insert(request, life);
        }
        !alive
    }

    fn hear_end(&mut self, request: RequestId, attempt: Attempt, outcome: Outcome) {
        let Some(life) = self.lives.get_mut(&request) else { return };
        let (Life::Waiting { attempt: latest } | Life::Running { attempt: latest, .. }) = *life else {
            return;
        };
        if outcome.ends_the_request() && attempt <= latest {
            *life = Life::Over;
        }
        let Life::Running { attempt: current, began, .. } = *life else { return };
        if current != attempt {
            return;
        }
        *life = match outcome {
            Outcome::Completed | Outcome::Enough | Outcome::ClientGone | Outcome::Rejected => Life::Over,
            Outcome::Busy if began => Life::Over,
            Outcome::Busy | Outcome::NotThere | Outcome::Failed(_) => Life::Waiting { attempt },
        };
    }

    fn see(&mut self, effect: &Effect, told: Option<Told>) -> Result<(), Broken> {
        match *effect {
            Effect::Dispatch { request, attempt, node, .. } => {
                // A node that let the model go ends an attempt without a word about it.
                let last = match self.lives.get(&request) {
                    Some(Life::Waiting { attempt } | Life::Running { attempt, began: false, .. }) => {
                        attempt.0
                    }
                    Some(Life::Running { began: true, .. } | Life::Over) | None => {
                        return Err(Broken::Unaccounted { request });
                    }
                };
                if attempt.0 != last.saturating_add(1) {
                    return Err(Broken::AttemptOutOfOrder { request });
                }
                self.lives.insert(request, Life::Running { attempt, node, began: false });
            }
            Effect::Queued { request, .. } => match self.lives.get(&request).copied() {
                Some(Life::Waiting { attempt } | Life::Running { attempt, began: false, .. }) => {
                    self.lives.insert(request, Life::Waiting { attempt });
                }
                Some(Life::Running { began: true, .. } | Life::Over) | None => {
                    return Err(Broken::Unaccounted { request });
                }
            },
            Effect::Refuse { request, refusal: Refusal::Duplicate } if told == Some(Told::Again(request)) => {
            }
            Effect::Refuse { request, .. } => match self.lives.insert(request, Life::Over) {
                Some(Life::Waiting { .. } | Life::Running { began: false, .. }) => {}
                // There was no room for it here.
                Some(Life::Running { .. }) if told == Some(Told::TakenOver(request)) => {}
                Some(Life::Running { began: true, .. } | Life::Over) | None => {
                    return Err(Broken::Unaccounted { request });
                }
            },
            Effect::Abort { request, attempt, .. } => match self.lives.insert(request, Life::Over) {
                Some(Life::Running { attempt: current, .. }) if current == attempt => {}
                Some(Life::Waiting { .. } | Life::Running { .. } | Life::Over) | None => {
                    return Err(Broken::Unaccounted { request });
                }
            },
            Effect::Reserve { .. } | Effect::Evict { .. } | Effect::Probe { .. } | Effect::Record(_) => {}
        }
        Ok(())
    }

    /// As many wait and run as the history says.
    fn agree(&self, load: &Load) -> Result<(), Broken> {
        let waiting = self.lives.values().filter(|life| matches!(life, Life::Waiting { .. })).count();
        let running = self.lives.values().filter(|life| matches!(life, Life::Running { .. })).count();
        let counted_waiting: usize = load.models.values().map(|model| model.waiting).sum();
        let counted_running: usize = load.models.values().map(|model| model.running).sum();
        if waiting == counted_waiting && running == counted_running { Ok(()) } else { Err(Broken::Stray) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Failure, Usage};
    use crate::effect::{AbortReason, Affinity};
    use crate::ids::{ModelId, NodeId};
    use crate::requests::tests::submission;
    use crate::time::Span;
    use crate::views::ModelLoad;

    const ONE: RequestId = RequestId(1);
    const UNACCOUNTED: Result<(), Broken> = Err(Broken::Unaccounted { request: ONE });

    const FAILED: Outcome = Outcome::Failed(Failure::Reset);

    fn submit() -> Command {
        Command::Submit(submission(1))
    }

    fn load(waiting: usize, running: usize) -> Load {
        let mut load = Load::default();
        load.models.insert(ModelId(1), ModelLoad { waiting, running, ..ModelLoad::default() });
        load
    }

    fn dispatch(attempt: u32) -> Effect {
        Effect::Dispatch {
            request: ONE,
            attempt: Attempt(attempt),
            node: NodeId(1),
            affinity: Affinity::Resident,
            prefill_chunk: 512,
        }
    }

    fn finished(attempt: u32, outcome: Outcome) -> Command {
        Command::Finished { request: ONE, attempt: Attempt(attempt), outcome, usage: Usage::default() }
    }

    fn abort(attempt: u32) -> Effect {
        let reason = AbortReason::DeadlineExceeded;
        Effect::Abort { request: ONE, attempt: Attempt(attempt), node: NodeId(1), reason }
    }

    /// A witness who has seen request 1 start its first attempt.
    fn running() -> Witness {
        let mut witness = Witness::default();
        assert_eq!(witness.observe(&submit(), &[dispatch(1)], &load(0, 1)), Ok(()));
        witness
    }

    #[test]
    fn a_whole_life_is_in_order() {
        let mut witness = running();
        let queued = Effect::Queued { request: ONE, position: 0, eta: None, loading: false };
        assert_eq!(witness.observe(&finished(1, FAILED), &[queued], &load(1, 0)), Ok(()));
        assert_eq!(witness.observe(&Command::Wake, &[dispatch(2)], &load(0, 1)), Ok(()));
        assert_eq!(witness.observe(&finished(1, FAILED), &[], &load(0, 1)), Ok(()));
        let began = Command::Began { request: ONE, attempt: Attempt(2) };
        assert_eq!(witness.observe(&began, &[], &load(0, 1)), Ok(()));
        assert_eq!(witness.observe(&finished(2, FAILED), &[dispatch(3)], &load(0, 1)), Ok(()));
        let lost = Command::NodeLost { node: NodeId(1) };
        assert_eq!(witness.observe(&lost, &[dispatch(4)], &load(0, 1)), Ok(()));
        assert_eq!(witness.submitted_and_ended(), (1, 0));
        assert_eq!(witness.observe(&finished(4, Outcome::Completed), &[], &load(0, 0)), Ok(()));
        assert_eq!(witness.submitted_and_ended(), (1, 1));
    }

    #[test]
    fn an_attempt_that_skips_a_number_or_repeats_one_is_noticed() {
        let out_of_order = Err(Broken::AttemptOutOfOrder { request: ONE });
        assert_eq!(running().observe(&Command::Wake, &[dispatch(1)], &load(0, 1)), out_of_order);
        assert_eq!(running().observe(&Command::Wake, &[dispatch(3)], &load(0, 1)), out_of_order);
    }

    #[test]
    fn a_second_end_is_noticed() {
        let mut witness = running();
        assert_eq!(witness.observe(&Command::Wake, &[abort(1)], &load(0, 0)), Ok(()));
        assert_eq!(witness.observe(&Command::Wake, &[abort(1)], &load(0, 0)), UNACCOUNTED);
        let expired = refuse(Refusal::Expired);
        assert_eq!(witness.observe(&Command::Wake, &[expired], &load(0, 0)), UNACCOUNTED);
    }

    #[test]
    fn an_effect_for_a_stranger_is_noticed() {
        let mut witness = Witness::default();
        assert_eq!(witness.observe(&Command::Wake, &[dispatch(1)], &load(0, 1)), UNACCOUNTED);
    }

    #[test]
    fn a_migration_without_a_failure_is_noticed() {
        let mut witness = running();
        let began = Command::Began { request: ONE, attempt: Attempt(1) };
        assert_eq!(witness.observe(&began, &[], &load(0, 1)), Ok(()));
        assert_eq!(witness.observe(&Command::Wake, &[dispatch(2)], &load(0, 1)), UNACCOUNTED);
    }

    #[test]
    fn an_abort_of_another_attempt_is_noticed() {
        assert_eq!(running().observe(&Command::Wake, &[abort(2)], &load(0, 0)), UNACCOUNTED);
    }

    #[test]
    fn a_refused_duplicate_ends_nothing_and_a_refusal_out_of_the_blue_is_noticed() {
        let duplicate = Effect::Refuse { request: ONE, refusal: Refusal::Duplicate };
        let mut witness = running();
        assert_eq!(witness.observe(&submit(), core::slice::from_ref(&duplicate), &load(0, 1)), Ok(()));
        assert_eq!(witness.submitted_and_ended(), (1, 0));
        let mut witness = Witness::default();
        assert_eq!(witness.observe(&Command::Wake, &[duplicate], &load(0, 0)), UNACCOUNTED);
    }

    fn adopt(attempt: u32, running: Option<bool>) -> Command {
        let running = running.map(|began| Adopted { node: NodeId(1), began });
        Command::Adopt { submission: submission(1), attempt: Attempt(attempt), running }
    }

    fn refuse(refusal: Refusal) -> Effect {
        Effect::Refuse { request: ONE, refusal }
    }

    #[test]
    fn a_life_that_was_taken_over_goes_on_with_its_next_attempt() {
        let mut witness = Witness::default();
        assert_eq!(witness.observe(&adopt(2, Some(true)), &[], &load(0, 1)), Ok(()));
        assert_eq!(witness.observe(&adopt(7, None), &[], &load(0, 1)), Ok(()), "told again");
        assert_eq!(witness.observe(&finished(2, FAILED), &[dispatch(3)], &load(0, 1)), Ok(()));
        assert_eq!(witness.submitted_and_ended(), (1, 0));
        let mut witness = Witness::default();
        assert_eq!(witness.observe(&adopt(2, None), &[dispatch(3)], &load(0, 1)), Ok(()));
        let mut witness = Witness::default();
        let out_of_order = Err(Broken::AttemptOutOfOrder { request: ONE });
        assert_eq!(witness.observe(&adopt(2, None), &[dispatch(2)], &load(0, 1)), out_of_order);
    }

    #[test]
    fn a_request_that_was_taken_over_and_forgotten_is_noticed() {
        for running in [None, Some(false), Some(true)] {
            let mut witness = Witness::default();
            assert_eq!(witness.observe(&adopt(1, running), &[], &load(0, 0)), Err(Broken::Stray));
        }
    }

    #[test]
    fn what_runs_is_refused_only_in_place_of_being_taken_over() {
        let no_room = || [refuse(Refusal::QueueFull { retry_after: Span::ZERO })];
        let mut witness = Witness::default();
        assert_eq!(witness.observe(&adopt(1, Some(true)), &no_room(), &load(0, 0)), Ok(()));
        assert_eq!(witness.submitted_and_ended(), (1, 1));
        let mut witness = Witness::default();
        assert_eq!(witness.observe(&adopt(1, Some(true)), &[], &load(0, 1)), Ok(()));
        assert_eq!(witness.observe(&adopt(1, Some(true)), &no_room(), &load(0, 0)), UNACCOUNTED);
    }

    #[test]
    fn a_load_that_loses_somebody_is_noticed() {
        assert_eq!(running().observe(&Command::Wake, &[], &load(0, 0)), Err(Broken::Stray));
        assert_eq!(running().observe(&Command::Wake, &[], &load(1, 1)), Err(Broken::Stray));
    }
}
